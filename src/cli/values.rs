//! Messages of the wire -> JSON and words: payload values, times, documents.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::collection::datetime;
use crate::proto::{Document, Passage, StoredDocument, Value, value::Kind};

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

/// What was sent for a document, in the form that `distilface ingest` reads again.
pub fn document_json(stored: &StoredDocument) -> Map<String, Json> {
    let document = stored.document.clone().unwrap_or_default();
    let Document { id, title, text, payload, vector } = document;
    let mut object = Map::new();
    object.insert("id".into(), json!(id));
    if !title.is_empty() {
        object.insert("title".into(), json!(title));
    }
    if !text.is_empty() {
        object.insert("text".into(), json!(text));
    }
    if let Some(vector) = vector {
        object.insert("vector".into(), json!(vector.values));
    }
    object.insert("payload".into(), payload_json(&payload));
    object
}

/// [`document_json`] with what the database knows of it besides.
pub fn stored_json(stored: &StoredDocument) -> Map<String, Json> {
    let mut object = document_json(stored);
    object.insert("passages".into(), stored.passages.iter().map(passage_json).collect());
    if let Some(updated) = &stored.updated_at {
        object.insert("updated_at".into(), json!(time(updated)));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ValueList;

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

    #[test]
    fn a_time_out_of_every_calendar_is_still_printed() {
        assert_eq!(time(&prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), format!("{}s", i64::MAX));
    }
}
