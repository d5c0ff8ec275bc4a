//! JSON <-> payloads, and which payloads are refused.
//!
//! JSON has no datetimes: they are written as RFC 3339 text, and text that looks like one stays text when read.

use std::cmp::Ordering;

use serde_json::Map;

use super::{
    CollectionError, datetime,
    filter::compare_exactly,
    point::{Payload, Value},
};

/// Longest field name in bytes.
pub const FIELD_BYTES_MAX: usize = 256;
/// Most fields of one document.
pub const FIELDS_MAX: usize = 1000;

/// What users call the type of a value: `string`, `integer`, `float`, `bool`, `datetime`, `list`.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Integer(_) => "integer",
        Value::Float(_) => "float",
        Value::Bool(_) => "bool",
        Value::Datetime(_) => "datetime",
        Value::List(_) => "list",
    }
}

/// Bytes that a payload counts for: its names and texts, 8 for a number or datetime, 1 for a bool.
pub fn payload_bytes(payload: &Payload) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len(),
            Value::Integer(_) | Value::Float(_) | Value::Datetime(_) => 8,
            Value::Bool(_) => 1,
            Value::List(elements) => elements.iter().map(of).sum(),
        }
    }
    payload.iter().map(|(field, value)| field.len() + of(value)).sum()
}

/// Checks what a collection is about to keep.
///
/// # Errors
/// [`CollectionError::BadPayload`]: a field name that is empty, longer than [`FIELD_BYTES_MAX`] or has control
/// characters; a float that is not finite; a datetime outside the years 1 to 9999; a list that mixes types or holds
/// lists; more than [`FIELDS_MAX`] fields; more than `bytes_max` bytes (see [`payload_bytes`]).
pub fn validate_payload(id: &str, payload: &Payload, bytes_max: usize) -> Result<(), CollectionError> {
    let refuse = |field: &str, reason: String| {
        Err(CollectionError::BadPayload {
            id: id.chars().take(80).collect(),
            field: field.chars().take(80).collect(),
            reason,
        })
    };
    if payload.len() > FIELDS_MAX {
        return refuse("", format!("the document has {} fields, the limit is {FIELDS_MAX}", payload.len()));
    }
    for (field, value) in payload {
        if field.is_empty() {
            return refuse(field, "the field name is empty".into());
        }
        if field.len() > FIELD_BYTES_MAX {
            return refuse(
                field,
                format!("the field name has {} bytes, the limit is {FIELD_BYTES_MAX}", field.len()),
            );
        }
        if let Some(c) = field.chars().find(|c| c.is_control()) {
            return refuse(field, format!("the field name has the control character {c:?}"));
        }
        let elements = match value {
            Value::List(elements) => elements.as_slice(),
            scalar => std::slice::from_ref(scalar),
        };
        for element in elements {
            if let Err(reason) = check_scalar(element) {
                return refuse(field, reason);
            }
            if type_name(element) != type_name(&elements[0]) {
                return refuse(
                    field,
                    format!(
                        "the list mixes {} and {}; all elements must be of one type",
                        type_name(&elements[0]),
                        type_name(element)
                    ),
                );
            }
        }
    }
    let bytes = payload_bytes(payload);
    if bytes > bytes_max {
        let (largest, _) = payload
            .iter()
            .max_by_key(|(_, value)| match value {
                Value::String(text) => text.len(),
                Value::List(elements) => elements.len(),
                _ => 0,
            })
            .expect("an empty payload has no bytes");
        return refuse(
            largest,
            format!(
                "the payload has {bytes} bytes, the limit is {bytes_max} (this field is among the largest)"
            ),
        );
    }
    Ok(())
}

fn check_scalar(value: &Value) -> Result<(), String> {
    match value {
        Value::Float(number) if !number.is_finite() => Err(format!("{number} is not a finite number")),
        Value::Datetime(micros) if !datetime::in_bounds(*micros) => {
            Err("the datetime lies outside the years 1 to 9999".into())
        }
        Value::List(_) => Err("lists of lists are not kept; a list holds single values".into()),
        _ => Ok(()),
    }
}

/// Reads a JSON object. Digits alone are an integer of 64 bits, other numbers are floats; `null` (also in lists) is left out; objects
/// are flattened with dots (`{"a": {"b": 1}}` becomes `a.b`); lists hold scalars of one type, of integers and floats
/// mixed become floats.
///
/// # Errors
/// The field and why it cannot be kept: an integer beyond 64 bits, a list that mixes types or holds lists or objects, a
/// name that stands twice after flattening.
pub fn payload_from_json(object: &Map<String, serde_json::Value>) -> Result<Payload, (String, String)> {
    let mut payload = Payload::new();
    flatten_into(&mut payload, "", object)?;
    Ok(payload)
}

fn flatten_into(
    payload: &mut Payload,
    prefix: &str,
    object: &Map<String, serde_json::Value>,
) -> Result<(), (String, String)> {
    for (key, value) in object {
        let field = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if let serde_json::Value::Object(inner) = value {
            flatten_into(payload, &field, inner)?;
            continue;
        }
        let Some(value) = value_from_json(value).map_err(|reason| (field.clone(), reason))? else { continue };
        if payload.contains_key(&field) {
            let reason = "this name stands twice, once with a dot in it and once as an object".to_owned();
            return Err((field, reason));
        }
        payload.insert(field, value);
    }
    Ok(())
}

/// Reads one JSON value; `None` for `null`.
///
/// # Errors
/// Why it cannot be kept.
pub fn value_from_json(value: &serde_json::Value) -> Result<Option<Value>, String> {
    Ok(Some(match value {
        serde_json::Value::Null => return Ok(None),
        serde_json::Value::Bool(truth) => Value::Bool(*truth),
        serde_json::Value::Number(number) => number_from_json(number)?,
        serde_json::Value::String(text) => Value::String(text.clone()),
        serde_json::Value::Array(elements) => Value::List(list_from_json(elements)?),
        serde_json::Value::Object(_) => return Err("an object cannot stand here".into()),
    }))
}

/// Why an integer beyond 64 bits is not kept, and what to write instead; of many digits the first are shown.
pub fn integer_out_of_bounds(digits: &str) -> String {
    let shown: String = digits.chars().take(40).collect();
    format!(
        "the integer {shown} is out of bounds ({} to {}); write it in quotes to keep it as text, or as {shown}.0 to keep the nearest float",
        i64::MIN,
        i64::MAX
    )
}

/// Digits alone are an integer, and one that does not fit is refused: as a float it would be another number.
fn number_from_json(number: &serde_json::Number) -> Result<Value, String> {
    if let Some(integer) = number.as_i64() {
        return Ok(Value::Integer(integer));
    }
    let written = number.to_string();
    if written.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        return Err(integer_out_of_bounds(&written));
    }
    match number.as_f64() {
        Some(float) if float.is_finite() => Ok(Value::Float(float)),
        _ => Err(format!("the number {} is out of bounds", written.chars().take(40).collect::<String>())),
    }
}

fn list_from_json(elements: &[serde_json::Value]) -> Result<Vec<Value>, String> {
    let mut list = Vec::with_capacity(elements.len());
    for element in elements {
        if element.is_array() || element.is_object() {
            return Err("the list holds lists or objects; a list holds single values".into());
        }
        list.extend(value_from_json(element)?);
    }
    let is_float = |value: &Value| matches!(value, Value::Float(_));
    let is_number = |value: &Value| matches!(value, Value::Integer(_) | Value::Float(_));
    if list.iter().any(is_float) && list.iter().all(is_number) {
        for value in &mut list {
            if let Value::Integer(integer) = value {
                let float = *integer as f64;
                if compare_exactly(*integer, float) != Some(Ordering::Equal) {
                    return Err(format!(
                        "the list mixes floats with the integer {integer}, which no float is equal to"
                    ));
                }
                *value = Value::Float(float);
            }
        }
    }
    if let Some(other) = list.iter().find(|value| type_name(value) != type_name(&list[0])) {
        return Err(format!(
            "the list mixes {} and {}; all elements must be of one type",
            type_name(&list[0]),
            type_name(other)
        ));
    }
    Ok(list)
}

/// Writes a value as JSON: datetimes as RFC 3339 text, a float that is not finite as `null`.
pub fn value_to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Bool(truth) => (*truth).into(),
        Value::Datetime(micros) => datetime::format(*micros).into(),
        Value::List(elements) => elements.iter().map(value_to_json).collect(),
    }
}

/// Writes a payload as a JSON object, names as they are.
pub fn payload_to_json(payload: &Payload) -> Map<String, serde_json::Value> {
    payload.iter().map(|(field, value)| (field.clone(), value_to_json(value))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
            assert!(matches!(&error, CollectionError::BadPayload { id, .. } if id == "doc"));
            assert!(error.to_string().contains(part), "{error} / {part}");
        }
        validate_payload("d", &one(&"x".repeat(FIELD_BYTES_MAX), yes), 1000).unwrap();
    }
}
