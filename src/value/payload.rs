//! Checks payloads, and measures how large they are.

use super::{Payload, Value, ValueError, datetime, type_name};

/// Longest field name in bytes.
pub const FIELD_BYTES_MAX: usize = 256;
/// Most fields of one document.
pub const FIELDS_MAX: usize = 1000;

/// Size that a payload counts for, in bytes: its names and texts, 8 for a number or datetime, 1 for a bool.
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

/// Checks a payload before a collection keeps it.
///
/// # Errors
/// [`ValueError::BadPayload`]: a field name that is empty, longer than [`FIELD_BYTES_MAX`] or has control
/// characters; a float that is not finite; a datetime outside the years 1 to 9999; a list that mixes types or holds
/// lists; more than [`FIELDS_MAX`] fields; more than `bytes_max` bytes (see [`payload_bytes`]).
pub fn validate_payload(id: &str, payload: &Payload, bytes_max: usize) -> Result<(), ValueError> {
    let refuse = |field: &str, reason: String| {
        Err(ValueError::BadPayload {
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
