//! A record's fields -> id, title, text, vector and payload.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};

use super::{SourceDocument, export};
use crate::collection::{
    datetime,
    payload::{payload_from_json, type_name},
    point::{Payload, Value},
};

const ID_NAMES: [&str; 3] = ["id", "_id", "doc_id"];
const TITLE_NAMES: [&str; 1] = ["title"];
const TEXT_NAMES: [&str; 4] = ["text", "body", "content", "abstract"];
const VECTOR_NAME: &str = "vector";
/// Objects of these names are merged into the payload.
const PAYLOAD_NAMES: [&str; 2] = ["metadata", "payload"];

/// Which fields of a record are what. A field that is named must be in every record; of the defaults the first that is
/// there is taken: id from `id`, `_id`, `doc_id` (else a hash of the record); title from `title`; text from `text`,
/// `body`, `content`, `abstract`; vector from `vector`. All others become payload, those of an object named `metadata`
/// or `payload` without that name in front. Beside `payload` an object `types` may stand, as exports have it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldMap {
    #[expect(missing_docs)]
    pub id: Option<String>,
    #[expect(missing_docs)]
    pub title: Option<String>,
    #[expect(missing_docs)]
    pub text: Option<String>,
    #[expect(missing_docs)]
    pub vector: Option<String>,
    /// Payload fields that must have a type; a record whose value cannot be read as that is an error.
    pub types: BTreeMap<String, ValueType>,
}

/// A type that a payload field is read as; in a list, every element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ValueType {
    String,
    Integer,
    Float,
    Bool,
    Datetime,
}

impl ValueType {
    const ALL: [(&'static str, ValueType); 5] = [
        ("string", ValueType::String),
        ("integer", ValueType::Integer),
        ("float", ValueType::Float),
        ("bool", ValueType::Bool),
        ("datetime", ValueType::Datetime),
    ];
}

impl std::fmt::Display for ValueType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, _) = Self::ALL.iter().find(|(_, kind)| kind == self).expect("all types are listed");
        f.write_str(name)
    }
}

impl std::str::FromStr for ValueType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, kind)| *kind).ok_or_else(|| {
            format!("unknown type {name:?}; give one of {}", Self::ALL.map(|(known, _)| known).join(", "))
        })
    }
}

/// Whether a record's values have types of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Typing {
    /// As in JSON.
    Own,
    /// All are text, and types are read from how they look.
    ByLook,
}

impl FieldMap {
    /// Makes a document of a record.
    ///
    /// # Errors
    /// The reason, for the user.
    pub(super) fn document(
        &self,
        mut record: Map<String, Json>,
        typing: Typing,
        place: String,
    ) -> Result<SourceDocument, String> {
        // Before anything is taken out.
        let content = |record: &Map<String, Json>| {
            content_id(&serde_json::to_vec(record).expect("a map with text keys is valid JSON"))
        };
        let id = match find(&record, self.id.as_deref(), &ID_NAMES, "--id-field")? {
            Some(name) => {
                let id = take_text(&mut record, &name)?;
                if id.is_empty() {
                    return Err(format!("the id in field {name:?} is empty"));
                }
                id
            }
            None => content(&record),
        };
        let mut text_of = |chosen: &Option<String>, names: &[&str], option| {
            let name = find(&record, chosen.as_deref(), names, option)?;
            name.map(|name| take_text(&mut record, &name)).transpose()
        };
        let title = text_of(&self.title, &TITLE_NAMES, "--title-field")?;
        let text = text_of(&self.text, &TEXT_NAMES, "--text-field")?;
        let vector = self.take_vector(&mut record)?;
        if vector.is_none() {
            if text.is_none() {
                return Err(format!(
                    "no text: it has none of the fields {}; name the field with --text-field",
                    TEXT_NAMES.join(", ")
                ));
            }
            let blank = |text: &Option<String>| text.as_ref().is_none_or(|text| text.trim().is_empty());
            if blank(&text) && blank(&title) {
                return Err("empty: neither text nor title".into());
            }
        }
        let payload = self.payload(record, typing)?;
        Ok(SourceDocument {
            id,
            title: title.unwrap_or_default(),
            text: text.unwrap_or_default(),
            payload,
            vector,
            place,
        })
    }

    /// Gives the fields that have a type in the map that type.
    ///
    /// # Errors
    /// The field and why its value cannot be read so.
    pub(super) fn coerce(&self, payload: &mut Payload) -> Result<(), String> {
        coerce_fields(payload, self.types.iter())
    }

    fn payload(&self, mut record: Map<String, Json>, typing: Typing) -> Result<Payload, String> {
        let exported = export::take_types(&mut record);
        for name in PAYLOAD_NAMES {
            if !record.get(name).is_some_and(Json::is_object) {
                continue;
            }
            let Some(Json::Object(inner)) = record.remove(name) else { continue };
            for (field, value) in inner {
                if record.contains_key(&field) {
                    return Err(format!("field {field:?} stands both in {name:?} and beside it"));
                }
                record.insert(field, value);
            }
        }
        let mut payload =
            payload_from_json(&record).map_err(|(field, reason)| format!("field {field:?}: {reason}"))?;
        if typing == Typing::ByLook {
            for (field, value) in &mut payload {
                if let Value::String(text) = value
                    && !self.types.contains_key(field)
                    && let Some(typed) = by_look(text)
                {
                    *value = typed;
                }
            }
        }
        coerce_fields(&mut payload, exported.iter().filter(|(field, _)| !self.types.contains_key(*field)))?;
        self.coerce(&mut payload)?;
        Ok(payload)
    }

    fn take_vector(&self, record: &mut Map<String, Json>) -> Result<Option<Vec<f32>>, String> {
        let name = match &self.vector {
            Some(name) => {
                find(record, Some(name), &[], "--vector-field")?.expect("a chosen field is there or an error")
            }
            None => VECTOR_NAME.to_owned(),
        };
        let numbers: Option<Vec<f64>> = match record.get(&name) {
            Some(Json::Array(elements)) => elements.iter().map(Json::as_f64).collect(),
            // A cell of a table.
            Some(Json::String(text)) => {
                let parts = text.trim_matches(['[', ']']).split([',', ';', ' ']);
                parts.map(str::trim).filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
            }
            _ => None,
        };
        let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) else {
            return match self.vector {
                Some(_) => Err(format!("the vector in field {name:?} is no list of numbers")),
                // Some other thing of that name is payload.
                None => Ok(None),
            };
        };
        record.remove(&name);
        let vector: Vec<f32> = numbers.into_iter().map(|number| number as f32).collect();
        match vector.iter().position(|number| !number.is_finite()) {
            Some(at) => {
                Err(format!("the vector in field {name:?} has a number at place {at} that is not finite"))
            }
            None => Ok(Some(vector)),
        }
    }
}

fn coerce_fields<'a>(
    payload: &mut Payload,
    types: impl Iterator<Item = (&'a String, &'a ValueType)>,
) -> Result<(), String> {
    for (field, kind) in types {
        let Some(value) = payload.get_mut(field) else { continue };
        *value = coerce(value, *kind).map_err(|reason| format!("field {field:?}: {reason}"))?;
    }
    Ok(())
}

/// `sha-` and 16 hexadecimal digits.
pub(super) fn content_id(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let digits: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha-{digits}")
}

/// The name of the field to take: the chosen one, which must be there, or the first default that is.
fn find(
    record: &Map<String, Json>,
    chosen: Option<&str>,
    defaults: &[&str],
    option: &str,
) -> Result<Option<String>, String> {
    let has = |name: &str| record.get(name).is_some_and(|value| !value.is_null());
    match chosen {
        Some(name) if has(name) => Ok(Some(name.to_owned())),
        Some(name) => Err(format!("no field {name:?}, which {option} names")),
        None => Ok(defaults.iter().find(|name| has(name)).map(|name| (*name).to_owned())),
    }
}

/// Takes a field out as text: strings, numbers, and lists of strings (sentences) with spaces between.
fn take_text(record: &mut Map<String, Json>, name: &str) -> Result<String, String> {
    let kind = match record.remove(name) {
        Some(Json::String(text)) => return Ok(text),
        Some(Json::Number(number)) => return Ok(number.to_string()),
        Some(Json::Array(parts)) => {
            if let Some(parts) = parts.iter().map(Json::as_str).collect::<Option<Vec<_>>>() {
                return Ok(parts.join(" "));
            }
            "a list"
        }
        Some(Json::Bool(_)) => "a bool",
        _ => "an object",
    };
    Err(format!("field {name:?} is {kind}, a text is wanted"))
}

/// The type that a table's cell shows, if it is not text: integers and floats as programs write them (`007` and `+1`
/// are text), `true`, `false`.
fn by_look(cell: &str) -> Option<Value> {
    match cell {
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Ok(number) = cell.parse::<i64>()
        && number.to_string() == cell
    {
        return Some(Value::Integer(number));
    }
    let unsigned = cell.strip_prefix('-').unwrap_or(cell);
    let (whole, fraction) = unsigned.split_once('.')?;
    let (fraction, exponent) = match fraction.split_once(['e', 'E']) {
        Some((fraction, exponent)) => (fraction, exponent.strip_prefix(['+', '-']).unwrap_or(exponent)),
        None => (fraction, "0"),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let canonical =
        digits(whole) && digits(fraction) && digits(exponent) && (whole == "0" || !whole.starts_with('0'));
    let number = canonical.then(|| cell.parse::<f64>().ok()).flatten()?;
    number.is_finite().then_some(Value::Float(number))
}

fn coerce(value: &Value, kind: ValueType) -> Result<Value, String> {
    let cannot = || {
        let shown = match value {
            Value::String(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            Value::Datetime(micros) => datetime::format(*micros),
            Value::List(_) => String::new(),
        };
        let hint = match (kind, value) {
            (ValueType::Datetime, Value::String(text)) => match datetime::read(text.trim()) {
                Err(reason) => format!(": it is {reason}"),
                Ok(_) => String::new(),
            },
            (ValueType::Datetime, _) => " (as RFC 3339, such as 2024-01-31T10:00:00Z)".to_owned(),
            _ => String::new(),
        };
        format!("the {} {shown} cannot be read as {kind}{hint}", type_name(value))
    };
    let typed = match (kind, value) {
        (_, Value::List(elements)) => {
            Some(Value::List(elements.iter().map(|element| coerce(element, kind)).collect::<Result<_, _>>()?))
        }
        (ValueType::String, Value::String(_))
        | (ValueType::Integer, Value::Integer(_))
        | (ValueType::Float, Value::Float(_))
        | (ValueType::Bool, Value::Bool(_))
        | (ValueType::Datetime, Value::Datetime(_)) => Some(value.clone()),
        (ValueType::String, Value::Integer(number)) => Some(Value::String(number.to_string())),
        (ValueType::String, Value::Float(number)) => Some(Value::String(number.to_string())),
        (ValueType::String, Value::Bool(truth)) => Some(Value::String(truth.to_string())),
        (ValueType::Integer, Value::String(text)) => text.trim().parse().ok().map(Value::Integer),
        (ValueType::Integer, Value::Float(number)) => {
            // 2^53: up to there every whole float is one integer only.
            let exact = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
            exact.then_some(Value::Integer(*number as i64))
        }
        (ValueType::Float, Value::Integer(number)) => Some(Value::Float(*number as f64)),
        (ValueType::Float, Value::String(text)) => {
            text.trim().parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::Float)
        }
        (ValueType::Bool, Value::Integer(number @ (0 | 1))) => Some(Value::Bool(*number == 1)),
        (ValueType::Bool, Value::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Some(Value::Bool(true)),
            "false" | "no" | "0" => Some(Value::Bool(false)),
            _ => None,
        },
        (ValueType::Datetime, Value::String(text)) => datetime::parse(text.trim()).map(Value::Datetime),
        _ => None,
    };
    typed.ok_or_else(cannot)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(map: &FieldMap, record: Json) -> Result<SourceDocument, String> {
        map.document(record.as_object().unwrap().clone(), Typing::Own, "f:1".into())
    }

    fn typed(types: &[(&str, &str)]) -> FieldMap {
        let types = types.iter().map(|(field, kind)| ((*field).to_owned(), kind.parse().unwrap())).collect();
        FieldMap { types, ..Default::default() }
    }

    fn s(text: &str) -> Value {
        Value::String(text.into())
    }

    #[test]
    fn defaults_find_what_datasets_call_things() {
        let map = FieldMap::default();
        let document = read(
            &map,
            json!({"_id": 7, "title": "T", "abstract": ["One.", "Two."], "metadata": {"year": 2001, "a": {"b": true}},
                   "payload": {"k": "v"}, "doc_id": "other", "url": null}),
        )
        .unwrap();
        assert_eq!((document.id.as_str(), document.title.as_str()), ("7", "T"));
        assert_eq!(document.text, "One. Two.");
        let expected = [
            ("a.b", Value::Bool(true)),
            ("doc_id", s("other")),
            ("k", s("v")),
            ("year", Value::Integer(2001)),
        ];
        assert_eq!(document.payload, expected.map(|(k, v)| (k.to_owned(), v)).into());
        assert_eq!(document.vector, None);

        let document =
            read(&map, json!({"id": "x", "content": "c", "body": "b", "vector": [1, 0.5]})).unwrap();
        assert_eq!((document.text.as_str(), document.vector), ("b", Some(vec![1.0, 0.5])));
        assert_eq!(document.payload, [("content".to_owned(), s("c"))].into());
        let document = read(&map, json!({"text": "t", "vector": "steering", "metadata": 5})).unwrap();
        assert_eq!(document.payload.len(), 2);
        assert!(read(&map, json!({"id": "x", "vector": [1]})).unwrap().text.is_empty());
        assert!(read(&map, json!({"id": "x", "text": "", "title": "only"})).unwrap().text.is_empty());
    }

    #[test]
    fn record_without_an_id_gets_the_hash_of_its_content() {
        let map = FieldMap::default();
        let id = |record| read(&map, record).unwrap().id;
        let first = id(json!({"text": "a", "n": 1}));
        assert!(first.starts_with("sha-") && first.len() == 20, "{first}");
        assert_eq!(first, id(json!({"n": 1, "text": "a"})));
        assert_ne!(first, id(json!({"n": 2, "text": "a"})));
    }

    #[test]
    fn chosen_fields_are_taken_and_must_be_there() {
        let name = |name: &str| Some(name.to_owned());
        let map = FieldMap {
            id: name("doi"),
            title: name("head"),
            text: name("story"),
            vector: name("emb"),
            types: BTreeMap::new(),
        };
        let full = json!({"doi": "d", "head": "h", "story": "s", "emb": "[0.5, 1]", "text": "t", "id": 1});
        let document = read(&map, full.clone()).unwrap();
        assert_eq!((document.id.as_str(), document.title.as_str(), document.text.as_str()), ("d", "h", "s"));
        assert_eq!(document.vector, Some(vec![0.5, 1.0]));
        assert_eq!(document.payload.len(), 2);
        for (field, option) in [
            ("doi", "--id-field"),
            ("head", "--title-field"),
            ("story", "--text-field"),
            ("emb", "--vector-field"),
        ] {
            let mut record = full.clone();
            record.as_object_mut().unwrap().remove(field);
            let error = read(&map, record).unwrap_err();
            assert!(error.contains(field) && error.contains(option), "{error}");
        }
    }

    #[test]
    fn bad_records_say_why() {
        let map = FieldMap::default();
        let vector = FieldMap { vector: Some("v".into()), ..Default::default() };
        for (map, record, part) in [
            (&map, json!({"id": "x"}), "none of the fields text, body, content, abstract"),
            (&map, json!({"id": "x", "text": " \n"}), "empty: neither text nor title"),
            (&map, json!({"id": "", "text": "t"}), "the id in field \"id\" is empty"),
            (&map, json!({"id": {"a": 1}, "text": "t"}), "\"id\" is an object"),
            (&map, json!({"text": [1]}), "\"text\" is a list"),
            (&map, json!({"text": true}), "\"text\" is a bool"),
            (&map, json!({"text": "t", "l": [1, "a"]}), "field \"l\": the list mixes"),
            (&map, json!({"text": "t", "k": 1, "metadata": {"k": 2}}), "both in \"metadata\" and beside it"),
            (&map, json!({"text": "t", "vector": [1e300]}), "not finite"),
            (&vector, json!({"text": "t", "v": ["a"]}), "no list of numbers"),
            (&vector, json!({"text": "t", "v": []}), "no list of numbers"),
        ] {
            let error = read(map, record).unwrap_err();
            assert!(error.contains(part), "{error} / {part}");
        }
    }

    #[test]
    fn types_are_coerced_or_refused() {
        for (kind, given, expected) in [
            ("string", json!(5), Some(s("5"))),
            ("string", json!(0.5), Some(s("0.5"))),
            ("string", json!(true), Some(s("true"))),
            ("integer", json!(" 007 "), Some(Value::Integer(7))),
            ("integer", json!(3.0), Some(Value::Integer(3))),
            ("integer", json!(3.5), None),
            ("integer", json!(1e18), None),
            ("integer", json!("x"), None),
            ("integer", json!(true), None),
            ("float", json!(3), Some(Value::Float(3.0))),
            ("float", json!("1e3"), Some(Value::Float(1000.0))),
            ("float", json!("inf"), None),
            ("bool", json!("Yes"), Some(Value::Bool(true))),
            ("bool", json!(0), Some(Value::Bool(false))),
            ("bool", json!(2), None),
            ("bool", json!("maybe"), None),
            ("datetime", json!("1970-01-01"), Some(Value::Datetime(0))),
            ("datetime", json!("soon"), None),
            ("datetime", json!(5), None),
            ("integer", json!(["1", "2"]), Some(Value::List(vec![Value::Integer(1), Value::Integer(2)]))),
            ("integer", json!(["1", "x"]), None),
        ] {
            let read = read(&typed(&[("f", kind)]), json!({"text": "t", "f": given}));
            match expected {
                Some(value) => assert_eq!(read.unwrap().payload["f"], value),
                None => {
                    let error = read.unwrap_err();
                    assert!(
                        error.contains("field \"f\"") && error.contains(&format!("read as {kind}")),
                        "{error}"
                    );
                }
            }
        }
        assert!("int".parse::<ValueType>().unwrap_err().contains("string, integer, float, bool, datetime"));
    }

    #[test]
    fn cells_are_typed_by_their_look() {
        for (cell, expected) in [
            ("5", Some(Value::Integer(5))),
            ("-5", Some(Value::Integer(-5))),
            ("0", Some(Value::Integer(0))),
            ("1.50", Some(Value::Float(1.5))),
            ("-0.5", Some(Value::Float(-0.5))),
            ("1.5e-3", Some(Value::Float(0.0015))),
            ("true", Some(Value::Bool(true))),
            ("False", Some(Value::Bool(false))),
            ("007", None),
            ("00.5", None),
            ("+5", None),
            ("-0", None),
            ("5.", None),
            (".5", None),
            ("1e5", None),
            ("1.2.3", None),
            ("1.5e999", None),
            ("99999999999999999999", None),
            ("NaN", None),
            ("inf", None),
            (" 5", None),
            ("2024-01-31", None),
        ] {
            assert_eq!(by_look(cell), expected, "{cell}");
        }
        let map = typed(&[("zip", "string"), ("day", "datetime")]);
        let record = json!({"id": "1.50", "text": "5", "zip": "10115", "day": "1970-01-01", "n": "3"});
        let document =
            map.document(record.as_object().unwrap().clone(), Typing::ByLook, "f:2".into()).unwrap();
        assert_eq!((document.id.as_str(), document.text.as_str()), ("1.50", "5"));
        let expected = [("day", Value::Datetime(0)), ("n", Value::Integer(3)), ("zip", s("10115"))];
        assert_eq!(document.payload, expected.map(|(k, v)| (k.to_owned(), v)).into());
    }
}
