//! Payloads against JSON and against what is refused.

use serde_json::json;

use super::{json::*, payload::*, *};

fn read(value: serde_json::Value) -> Result<Payload, (String, String)> {
    payload_from_json(value.as_object().unwrap())
}

#[test]
fn json_is_read_with_its_types() {
    let payload = read(json!({
        "text": "2024-01-31", "whole": 3, "float": 3.5, "large": 1e300, "yes": true, "none": null,
        "tags": ["a", null, "b"], "mixed": [1, 2.5], "empty": [], "a": {"b": {"c": 1}, "d": "e"},
    }))
    .unwrap();
    let list = |v: Vec<Value>| Value::List(v);
    let expected = [
        ("a.b.c", Value::Integer(1)),
        ("a.d", Value::String("e".into())),
        ("empty", list(vec![])),
        ("float", Value::Float(3.5)),
        ("large", Value::Float(1e300)),
        ("mixed", list(vec![Value::Float(1.0), Value::Float(2.5)])),
        ("tags", list(vec![Value::String("a".into()), Value::String("b".into())])),
        ("text", Value::String("2024-01-31".into())),
        ("whole", Value::Integer(3)),
        ("yes", Value::Bool(true)),
    ];
    assert_eq!(payload, expected.map(|(k, v)| (k.to_owned(), v)).into());
}

#[test]
fn json_that_cannot_be_kept_is_refused_with_its_field() {
    for (object, field, part) in [
        (json!({"l": [1, "a"]}), "l", "mixes integer and string"),
        (json!({"o": {"l": [true, 1.5]}}), "o.l", "mixes bool and float"),
        (json!({"n": u64::MAX}), "n", "18446744073709551615 is out of bounds"),
        (json!({"l": [1, u64::MAX]}), "l", "18446744073709551615 is out of bounds"),
        (json!({"l": [0.5, i64::MAX]}), "l", "no float is equal to"),
        (json!({"l": [[1]]}), "l", "lists or objects"),
        (json!({"l": [{"a": 1}]}), "l", "lists or objects"),
        (json!({"a.b": 1, "a": {"b": 2}}), "a.b", "stands twice"),
    ] {
        let (at, reason) = read(object).unwrap_err();
        assert_eq!(at, field);
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn payload_is_written_as_json() {
    let payload: Payload = [
        ("at".to_owned(), Value::Datetime(1_706_695_200_000_000)),
        ("n".to_owned(), Value::List(vec![Value::Integer(1), Value::Integer(2)])),
        ("x".to_owned(), Value::Float(0.5)),
    ]
    .into();
    let json = serde_json::Value::Object(payload_to_json(&payload));
    assert_eq!(json, json!({"at": "2024-01-31T10:00:00Z", "n": [1, 2], "x": 0.5}));
}

#[test]
fn good_payload_passes() {
    let payload = read(json!({"a": [1, 2], "b": "x", "c": [], "ü": true})).unwrap();
    validate_payload("d", &payload, 100).unwrap();
    assert_eq!(payload_bytes(&payload), 1 + 16 + 1 + 1 + 1 + 2 + 1);
    let bytes = payload_bytes(&payload);
    validate_payload("d", &payload, bytes).unwrap();
    validate_payload("d", &payload, bytes - 1).unwrap_err();
    validate_payload("d", &Payload::new(), 0).unwrap();
}

#[test]
fn bad_payload_is_refused() {
    let one = |field: &str, value: Value| Payload::from([(field.to_owned(), value)]);
    let yes = Value::Bool(true);
    let many = (0..=FIELDS_MAX).map(|i| (format!("f{i}"), Value::Bool(true))).collect::<Payload>();
    for (payload, part) in [
        (one("", yes.clone()), "name is empty"),
        (one(&"x".repeat(FIELD_BYTES_MAX + 1), yes.clone()), "257 bytes, the limit is 256"),
        (one("a\nb", yes.clone()), "control character '\\n'"),
        (one("f", Value::Float(f64::NAN)), "NaN is not a finite"),
        (one("f", Value::List(vec![Value::Float(f64::INFINITY)])), "inf is not a finite"),
        (one("f", Value::Datetime(i64::MAX)), "years 1 to 9999"),
        (one("f", Value::List(vec![Value::Integer(1), yes.clone()])), "mixes integer and bool"),
        (one("f", Value::List(vec![Value::List(vec![])])), "lists of lists"),
        (one("f", Value::String("x".repeat(1000))), "1001 bytes, the limit is 1000"),
        (many, "1001 fields, the limit is 1000"),
    ] {
        let error = validate_payload("doc", &payload, 1000).unwrap_err();
        assert!(matches!(&error, ValueError::BadPayload { id, .. } if id == "doc"));
        assert!(error.to_string().contains(part), "{error} / {part}");
    }
    validate_payload("d", &one(&"x".repeat(FIELD_BYTES_MAX), yes), 1000).unwrap();
}
