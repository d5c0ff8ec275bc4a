//! The types of an exported document: what JSON has no form for.
//!
//! `distilface document scroll --json` writes datetimes as RFC 3339 text and floats as numbers, as everybody expects, and
//! beside the object `payload` an object `types` that names the fields which would be read as something else:
//! `{"id": "a", "text": "…", "payload": {"at": "2024-01-31T00:00:00Z"}, "types": {"at": "datetime"}}`. For a list it is
//! the type of its elements. Whole floats are named too, since many tools write `2.0` as `2`.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::ValueType;

/// The name of the object beside `payload`.
pub const TYPES: &str = "types";
pub(super) const PAYLOAD: &str = "payload";

/// Takes the types out of a record that is an exported document. Any other record keeps a field of that name: it is
/// taken only beside an object `payload`, and if it gives nothing but types, of nothing but fields of that payload.
pub(super) fn take_types(record: &mut Map<String, Json>) -> BTreeMap<String, ValueType> {
    let (Some(Json::Object(types)), Some(Json::Object(payload))) = (record.get(TYPES), record.get(PAYLOAD))
    else {
        return BTreeMap::new();
    };
    let read = |(field, name): (&String, &Json)| {
        let kind = name.as_str()?.parse().ok()?;
        payload.contains_key(field).then(|| (field.clone(), kind))
    };
    match types.iter().map(read).collect::<Option<BTreeMap<_, _>>>() {
        Some(types) if !types.is_empty() => {
            record.remove(TYPES);
            types
        }
        _ => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_an_exported_document_gives_up_its_types() {
        let take = |record: Json| {
            let Json::Object(mut record) = record else { panic!("an object is given") };
            let types = take_types(&mut record);
            (types, record.contains_key(TYPES))
        };
        let exported =
            json!({"payload": {"at": "2024-01-31", "n": 1}, "types": {"at": "datetime", "n": "float"}});
        let expected = [("at", ValueType::Datetime), ("n", ValueType::Float)];
        assert_eq!(take(exported), (expected.map(|(field, kind)| (field.to_owned(), kind)).into(), false));
        for other in [
            json!({"types": {"at": "datetime"}}),
            json!({"payload": {"at": "x"}, "types": {"of": "datetime"}}),
            json!({"payload": {"at": "x"}, "types": {"at": "date"}}),
            json!({"payload": {"at": "x"}, "types": {"at": 1}}),
            json!({"payload": {"at": "x"}, "types": {}}),
            json!({"payload": {"at": "x"}, "types": ["at"]}),
            json!({"payload": "at", "types": {"at": "datetime"}}),
        ] {
            assert_eq!(take(other.clone()), (BTreeMap::new(), true), "{other}");
        }
    }
}
