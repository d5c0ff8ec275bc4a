//! Writes messages of the wire as JSON and as text: payload values, times, documents.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::{
    proto::{Document, Passage, StoredDocument, Value, value::Kind},
    source::TYPES,
    value::datetime,
};

/// A payload value as JSON; times as RFC 3339.
pub fn json_of(value: &Value) -> Json {
    match &value.kind {
        None => Json::Null,
        Some(Kind::String(s)) => json!(s),
        Some(Kind::Integer(i)) => json!(i),
        Some(Kind::Float(f)) => json!(f),
        Some(Kind::Bool(b)) => json!(b),
        Some(Kind::Datetime(t)) => json!(time(t)),
        Some(Kind::List(list)) => list.values.iter().map(json_of).collect(),
    }
}

/// A whole payload as a JSON object.
pub fn payload_json(payload: &BTreeMap<String, Value>) -> Json {
    Json::Object(payload.iter().map(|(field, value)| (field.clone(), json_of(value))).collect::<Map<_, _>>())
}

/// `field=value` pairs in one line; strings with spaces and lists as JSON.
pub fn payload_words(payload: &BTreeMap<String, Value>) -> String {
    let words = payload.iter().map(|(field, value)| {
        let value = match &value.kind {
            Some(Kind::String(s)) if !s.is_empty() && !s.contains(char::is_whitespace) => s.clone(),
            Some(Kind::Datetime(t)) => time(t),
            _ => json_of(value).to_string(),
        };
        format!("{field}={value}")
    });
    words.collect::<Vec<_>>().join("  ")
}

/// A time as RFC 3339 in UTC; one that no calendar holds as its bare seconds.
pub fn time(t: &prost_types::Timestamp) -> String {
    let micros = t.seconds.saturating_mul(1_000_000).saturating_add(i64::from(t.nanos) / 1000);
    if datetime::in_bounds(micros) { datetime::format(micros) } else { format!("{}s", t.seconds) }
}

/// A part of a text.
pub fn passage_json(passage: &Passage) -> Json {
    let Passage { ordinal, start, end, text } = passage;
    if text.is_empty() {
        json!({ "ordinal": ordinal, "start": start, "end": end })
    } else {
        json!({ "ordinal": ordinal, "start": start, "end": end, "text": text })
    }
}

/// What was sent for a document, in the form that `distilface ingest` reads again, with every type as it was: see
/// `source/export.rs`. `with_text` is false where the texts were not asked for.
pub fn document_json(stored: &StoredDocument, with_text: bool) -> Map<String, Json> {
    let document = stored.document.clone().unwrap_or_default();
    let Document { id, title, text, payload, vector, .. } = document;
    let mut object = Map::new();
    object.insert("id".into(), json!(id));
    if !title.is_empty() {
        object.insert("title".into(), json!(title));
    }
    // Also an empty one: a document of a title alone is read again only if it says that it has no text.
    if with_text {
        object.insert("text".into(), json!(text));
    }
    if let Some(vector) = vector {
        object.insert("vector".into(), json!(vector.values));
    }
    object.insert("payload".into(), payload_json(&payload));
    let types: Map<String, Json> = payload
        .iter()
        .filter_map(|(field, value)| Some((field.clone(), json!(type_to_tell(value)?))))
        .collect();
    if !types.is_empty() {
        object.insert(TYPES.into(), types.into());
    }
    object
}

/// The type of a value, or of a list's elements, whose JSON would be read as another one.
fn type_to_tell(value: &Value) -> Option<&'static str> {
    match value.kind.as_ref()? {
        Kind::Datetime(_) => Some("datetime"),
        // Many tools write 2.0 as 2.
        Kind::Float(number) => (number.fract() == 0.0).then_some("float"),
        Kind::List(list) => list.values.iter().find_map(type_to_tell),
        Kind::String(_) | Kind::Integer(_) | Kind::Bool(_) => None,
    }
}

/// [`document_json`] with what the database knows of it besides.
pub fn stored_json(stored: &StoredDocument) -> Map<String, Json> {
    let mut object = document_json(stored, true);
    object.insert("passages".into(), stored.passages.iter().map(passage_json).collect());
    object.insert("version".into(), json!(stored.version));
    if let Some(updated) = &stored.updated_at {
        object.insert("updated_at".into(), json!(time(updated)));
    }
    object
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        api::convert::value::payload_to,
        proto::ValueList,
        source::{SourceOptions, Sources},
    };

    fn value(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }

    #[test]
    fn every_kind_of_value_has_its_json_and_its_words() {
        let list = ValueList { values: vec![value(Kind::Integer(1)), value(Kind::Integer(2))] };
        let payload: BTreeMap<String, Value> = [
            ("a", value(Kind::String("x".into()))),
            ("b", value(Kind::String("two words".into()))),
            ("c", value(Kind::Float(0.5))),
            ("d", value(Kind::Bool(true))),
            ("e", value(Kind::Datetime(prost_types::Timestamp { seconds: 0, nanos: 0 }))),
            ("f", value(Kind::List(list))),
            ("g", value(Kind::String(String::new()))),
            ("h", Value { kind: None }),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into();
        assert_eq!(
            payload_json(&payload),
            json!({"a": "x", "b": "two words", "c": 0.5, "d": true, "e": "1970-01-01T00:00:00Z", "f": [1, 2], "g": "", "h": null})
        );
        assert_eq!(
            payload_words(&payload),
            "a=x  b=\"two words\"  c=0.5  d=true  e=1970-01-01T00:00:00Z  f=[1,2]  g=\"\"  h=null"
        );
    }

    fn any_kind() -> impl Strategy<Value = Kind> {
        let datetime = (datetime::MICROS_MIN..=datetime::MICROS_MAX).prop_map(|micros| {
            Kind::Datetime(prost_types::Timestamp {
                seconds: micros.div_euclid(1_000_000),
                nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap(),
            })
        });
        let float = prop_oneof![
            any::<f64>().prop_filter("finite", |number| number.is_finite()),
            any::<i32>().prop_map(f64::from),
            Just(-0.0),
            Just(1e300),
            Just(9_007_199_254_740_994.0),
        ];
        let string = prop_oneof![".{0,12}", Just("2024-01-31T10:00:00Z".to_owned()), Just("007".to_owned())];
        let scalars = prop_oneof![
            string.prop_map(Kind::String),
            prop_oneof![any::<i64>(), Just(i64::MAX), Just(0)].prop_map(Kind::Integer),
            float.prop_map(Kind::Float),
            any::<bool>().prop_map(Kind::Bool),
            datetime,
        ];
        (scalars, proptest::collection::vec(any::<f64>(), 0..3), 0..6usize).prop_map(
            |(scalar, floats, copies)| {
                let list = |kinds: Vec<Kind>| {
                    Kind::List(ValueList { values: kinds.into_iter().map(value).collect() })
                };
                match copies {
                    0 => list(Vec::new()),
                    1 => list(vec![scalar; 3]),
                    2 => list(floats.into_iter().filter(|f| f.is_finite()).map(Kind::Float).collect()),
                    _ => scalar,
                }
            },
        )
    }

    fn read_again(line: &str) -> crate::source::SourceDocument {
        let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
        std::fs::write(file.path(), line).unwrap();
        let mut sources = Sources::open(&[file.path().to_owned()], SourceOptions::default()).unwrap();
        sources.next().unwrap().unwrap()
    }

    proptest! {
        #[test]
        fn what_is_exported_is_read_again_with_every_type_and_bit(
            fields in proptest::collection::btree_map(
                prop_oneof![
                    "[a-zé. ]{1,8}",
                    proptest::sample::select(vec!["id", "text", "title", "types", "payload", "metadata", "vector"])
                        .prop_map(str::to_owned),
                ],
                any_kind(),
                0..8,
            ),
            (title, text) in (".{0,8}", ".{0,8}"),
            vector in proptest::option::of(proptest::collection::vec(-1e3f32..1e3, 1..4)),
        ) {
            let text = if title.trim().is_empty() { format!("x{text}") } else { text };
            let payload: BTreeMap<String, Value> = fields.into_iter().map(|(k, kind)| (k, value(kind))).collect();
            let vector = vector.map(|values| crate::proto::Vector { values });
            let document = Document { id: "a".into(), title, text, payload, vector, ..Default::default() };
            let stored = StoredDocument { document: Some(document.clone()), ..Default::default() };
            let read = read_again(&serde_json::to_string(&document_json(&stored, true)).unwrap());
            prop_assert_eq!(payload_to(&read.payload), document.payload);
            prop_assert_eq!((read.id, read.title, read.text), (document.id, document.title, document.text));
            prop_assert_eq!(read.vector, document.vector.map(|vector| vector.values));
        }
    }

    #[test]
    fn a_tool_that_writes_whole_floats_without_a_point_changes_no_type() {
        let line = r#"{"id":"a","text":"t","payload":{"n":2,"l":[1,2],"at":["2024-01-31"]},"types":{"n":"float","l":"float","at":"datetime"}}"#;
        let payload = payload_to(&read_again(line).payload);
        let list =
            |kinds: Vec<Kind>| Kind::List(ValueList { values: kinds.into_iter().map(value).collect() });
        assert_eq!(payload["n"], value(Kind::Float(2.0)));
        assert_eq!(payload["l"], value(list(vec![Kind::Float(1.0), Kind::Float(2.0)])));
        let day = prost_types::Timestamp { seconds: 1_706_659_200, nanos: 0 };
        assert_eq!(payload["at"], value(list(vec![Kind::Datetime(day)])));
    }

    #[test]
    fn a_time_out_of_every_calendar_is_still_printed() {
        assert_eq!(time(&prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), format!("{}s", i64::MAX));
    }
}
