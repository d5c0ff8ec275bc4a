//! Converts payload values, payloads and times between proto and domain, both ways.
//!
//! Promises: nothing that comes in is dropped silently; a kind left open, a list inside a list, a list of mixed
//! kinds, a float that is not finite and a time that does not exist are refused, naming the field.
//! Leaves out how much a payload may hold: that is the engine's to say.

use std::mem::discriminant;

use prost_types::Timestamp;

use crate::{
    api::ApiError,
    proto::{self, value::Kind},
    value::{Payload, Value},
};

const MICROS_PER_SECOND: i64 = 1_000_000;
/// `0001-01-01T00:00:00Z` to `9999-12-31T23:59:59Z`, the range of protobuf's timestamps.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The payload of a document as it came in.
///
/// # Errors
/// [`ApiError::Field`].
pub(crate) fn payload_from(
    id: &str,
    fields: impl IntoIterator<Item = (String, proto::Value)>,
) -> Result<Payload, ApiError> {
    fields
        .into_iter()
        .map(|(field, value)| {
            let place = || {
                let id: String = id.chars().take(80).collect();
                format!("document {id:?}, payload[{field:?}]")
            };
            let value = value_from(value, place)?;
            Ok((field, value))
        })
        .collect()
}

/// A payload as it goes out.
pub(crate) fn payload_to(payload: &Payload) -> std::collections::BTreeMap<String, proto::Value> {
    payload.iter().map(|(field, value)| (field.clone(), value_to(value))).collect()
}

/// A value as it came in; `field` says where it stands and is only asked in a failure.
///
/// # Errors
/// [`ApiError::Field`].
pub(crate) fn value_from(value: proto::Value, field: impl Fn() -> String) -> Result<Value, ApiError> {
    match value.kind {
        Some(Kind::List(list)) => {
            let values = list
                .values
                .into_iter()
                .map(|value| scalar_from(value, &field))
                .collect::<Result<Vec<_>, _>>()?;
            if let [first, rest @ ..] = values.as_slice()
                && rest.iter().any(|v| discriminant(v) != discriminant(first))
            {
                return Err(ApiError::field(field(), "a list holds values of one kind; this one mixes them"));
            }
            Ok(Value::List(values))
        }
        kind => scalar_from(proto::Value { kind }, &field),
    }
}

/// A value that is not a list, as it came in.
///
/// # Errors
/// [`ApiError::Field`].
pub(crate) fn scalar_from(value: proto::Value, field: impl Fn() -> String) -> Result<Value, ApiError> {
    let refuse = |reason: &str| Err(ApiError::field(field(), reason));
    match value.kind {
        Some(Kind::String(s)) => Ok(Value::String(s)),
        Some(Kind::Integer(i)) => Ok(Value::Integer(i)),
        Some(Kind::Float(f)) if f.is_finite() => Ok(Value::Float(f)),
        Some(Kind::Float(f)) => refuse(&format!("the float is {f}; it must be finite")),
        Some(Kind::Bool(b)) => Ok(Value::Bool(b)),
        Some(Kind::Datetime(t)) => {
            micros_from(&t).map(Value::Datetime).map_err(|reason| ApiError::field(field(), reason))
        }
        Some(Kind::List(_)) => refuse("a list holds no further lists"),
        None => refuse("the value has no kind; set string, integer, float, bool, datetime or list"),
    }
}

/// A value as it goes out.
pub(crate) fn value_to(value: &Value) -> proto::Value {
    let kind = match value {
        Value::String(s) => Kind::String(s.clone()),
        Value::Integer(i) => Kind::Integer(*i),
        Value::Float(f) => Kind::Float(*f),
        Value::Bool(b) => Kind::Bool(*b),
        Value::Datetime(micros) => Kind::Datetime(timestamp(*micros)),
        Value::List(values) => Kind::List(proto::ValueList { values: values.iter().map(value_to).collect() }),
    };
    proto::Value { kind: Some(kind) }
}

/// Microseconds since 1970 as protobuf writes them.
pub(crate) fn timestamp(micros: i64) -> Timestamp {
    let nanos = micros.rem_euclid(MICROS_PER_SECOND) * 1000;
    Timestamp {
        seconds: micros.div_euclid(MICROS_PER_SECOND),
        nanos: i32::try_from(nanos)
            .expect("fewer than a million microseconds are fewer than 2^31 nanoseconds"),
    }
}

/// Microseconds since 1970; what is finer is cut off, towards the past.
fn micros_from(t: &Timestamp) -> Result<i64, String> {
    if !(0..=999_999_999).contains(&t.nanos) {
        return Err(format!("the datetime's nanos must be between 0 and 999999999, got {}", t.nanos));
    }
    if !TIMESTAMP_SECONDS.contains(&t.seconds) {
        return Err(format!("the datetime's seconds must lie in the years 1 to 9999, got {}", t.seconds));
    }
    Ok(t.seconds * MICROS_PER_SECOND + i64::from(t.nanos) / 1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proto(kind: Kind) -> proto::Value {
        proto::Value { kind: Some(kind) }
    }

    fn refused(value: proto::Value) -> String {
        value_from(value, || "payload[\"f\"]".into()).unwrap_err().to_string()
    }

    #[test]
    fn a_value_without_a_kind_is_refused_with_its_field() {
        let message = refused(proto::Value { kind: None });
        assert!(message.contains("payload[\"f\"]") && message.contains("no kind"), "{message}");
    }

    #[test]
    fn a_list_of_lists_is_refused() {
        let inner = proto(Kind::List(proto::ValueList { values: vec![] }));
        let outer = proto(Kind::List(proto::ValueList { values: vec![inner] }));
        assert!(refused(outer).contains("no further lists"));
    }

    #[test]
    fn a_list_of_mixed_kinds_is_refused() {
        let values = vec![proto(Kind::Integer(1)), proto(Kind::Float(1.0))];
        assert!(refused(proto(Kind::List(proto::ValueList { values }))).contains("one kind"));
    }

    #[test]
    fn floats_that_are_not_finite_are_refused() {
        for f in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(refused(proto(Kind::Float(f))).contains("finite"));
        }
    }

    #[test]
    fn times_that_do_not_exist_are_refused() {
        for (seconds, nanos, word) in [
            (0, -1, "nanos"),
            (0, 1_000_000_000, "nanos"),
            (i64::MAX, 0, "seconds"),
            (-62_135_596_801, 0, "seconds"),
        ] {
            assert!(refused(proto(Kind::Datetime(Timestamp { seconds, nanos }))).contains(word));
        }
    }

    #[test]
    fn times_before_1970_keep_their_microseconds() {
        let t = timestamp(-1);
        assert_eq!((t.seconds, t.nanos), (-1, 999_999_000));
        assert_eq!(micros_from(&t), Ok(-1));
    }

    fn scalars() -> impl Strategy<Value = Value> {
        prop_oneof![
            ".{0,12}".prop_map(Value::String),
            any::<i64>().prop_map(Value::Integer),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::Float),
            any::<bool>().prop_map(Value::Bool),
            (-62_135_596_800_000_000i64..=253_402_300_799_999_999).prop_map(Value::Datetime),
        ]
    }

    proptest! {
        #[test]
        fn values_come_back_as_they_went_out(value in scalars(), copies in 0usize..4) {
            for value in [value.clone(), Value::List(vec![value; copies])] {
                prop_assert_eq!(value_from(value_to(&value), String::new).unwrap(), value);
            }
        }
    }
}
