//! Reads payloads from JSON and writes them as JSON.
//!
//! JSON has no datetimes: they are written as RFC 3339 text, and text that looks like one stays text when read.

use std::cmp::Ordering;

use serde_json::Map;

use super::{Payload, Value, compare_exactly, datetime, type_name};

/// Reads a JSON object. Digits alone are an integer of 64 bits; other numbers are floats. `null` is left out, also in
/// lists. Objects are flattened with dots (`{"a": {"b": 1}}` becomes `a.b`). Lists hold scalars of one type; a list of
/// both integers and floats becomes a list of floats.
///
/// # Errors
/// The field and why it cannot be kept: an integer beyond 64 bits, a list that mixes types or holds lists or objects, a
/// name that occurs twice after flattening.
///
/// # Example
/// ```
/// use distilface::value::{Value, json::payload_from_json};
///
/// let object = serde_json::from_str(r#"{"year": 2004, "author": {"name": "Ada"}, "note": null}"#).unwrap();
/// let payload = payload_from_json(&object).unwrap();
/// assert_eq!(payload["year"], Value::Integer(2004));
/// assert_eq!(payload["author.name"], Value::String("Ada".into()));
/// assert_eq!(payload.len(), 2, "null is left out");
/// ```
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

/// Says why an integer beyond 64 bits is not kept, and what to write instead; it shows the first of many digits.
pub fn integer_out_of_bounds(digits: &str) -> String {
    let shown: String = digits.chars().take(40).collect();
    format!(
        "the integer {shown} is out of bounds ({} to {}); write it in quotes to keep it as text, or as {shown}.0 to keep the nearest float",
        i64::MIN,
        i64::MAX
    )
}

/// Reads a number. Digits alone are an integer, and one that does not fit is refused: as a float it would be another number.
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

/// Writes a payload as a JSON object. Dotted names stay dotted.
pub fn payload_to_json(payload: &Payload) -> Map<String, serde_json::Value> {
    payload.iter().map(|(field, value)| (field.clone(), value_to_json(value))).collect()
}
