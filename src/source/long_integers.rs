//! Integers beyond 64 bits in JSON are read as text of their digits, each with its field's name.
//!
//! serde_json reads such an integer as the nearest float, so two ids become one. Its feature `arbitrary_precision` would
//! change how every crate of this build reads numbers; so the few texts that hold one are read once more, by
//! raw values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Error, Map, Value as Json, value::RawValue};

use super::fields::PAYLOAD_NAMES;

/// An integer of fewer characters fits.
const FITS: usize = 18;
/// The depth that serde_json reads.
const DEPTH_MAX: usize = 127;

/// Whether a JSON text holds an integer beyond 64 bits with sign. Of text that is no JSON the answer may be either.
pub(super) fn are_in(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += 1 + usize::from(bytes[at] == b'\\');
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let start = at;
                while at < bytes.len() && matches!(bytes[at], b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
                {
                    at += 1;
                }
                if is_long(&text[start..at]) {
                    return true;
                }
            }
            _ => at += 1,
        }
    }
    false
}

fn is_long(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    number.len() > FITS && digits.bytes().all(|b| b.is_ascii_digit()) && number.parse::<i64>().is_err()
}

/// Reads a value; integers beyond 64 bits become text. Also returns the fields that hold one, with dots where they are
/// nested, as the payload names them.
pub(super) fn read(text: &str) -> Result<(Json, BTreeSet<String>), Error> {
    let mut long = BTreeMap::new();
    let value = value(text, "", 0, &mut long)?;
    Ok((value, long.into_keys().collect()))
}

/// Reads the value of one field; integers beyond 64 bits become text. Also returns the fields that hold one, with the
/// digits of one of them. `None` where there is none, or the text is no JSON.
pub fn read_value(text: &str, field: &str) -> Option<(Json, BTreeMap<String, String>)> {
    // Leading zeros are no JSON. How large a number is does not matter here.
    if !are_in(text) || serde_json::from_str::<&RawValue>(text).is_err() {
        return None;
    }
    let mut long = BTreeMap::new();
    // A whole record begins at depth 0.
    let value = value(text, field, 1, &mut long).ok()?;
    (!long.is_empty()).then_some((value, long))
}

fn value(text: &str, field: &str, depth: usize, long: &mut BTreeMap<String, String>) -> Result<Json, Error> {
    let text = text.trim();
    if is_long(text) {
        long.insert(field.to_owned(), text.to_owned());
        return Ok(Json::String(text.to_owned()));
    }
    // Deeper text is left to serde_json, which refuses it.
    if depth >= DEPTH_MAX || !are_in(text) {
        return serde_json::from_str(text);
    }
    if text.starts_with('[') {
        let elements: Vec<Box<RawValue>> = serde_json::from_str(text)?;
        let elements = elements.iter().map(|element| value(element.get(), field, depth + 1, long));
        return Ok(Json::Array(elements.collect::<Result<_, _>>()?));
    }
    if !text.starts_with('{') {
        return serde_json::from_str(text);
    }
    let fields: Fields = serde_json::from_str(text)?;
    let mut object = Map::new();
    for (name, raw) in fields.0 {
        let merged = depth == 0 && PAYLOAD_NAMES.contains(&&*name) && raw.get().starts_with('{');
        let path = match (field, merged) {
            ("", true) => String::new(),
            ("", false) => name.clone(),
            (before, _) => format!("{before}.{name}"),
        };
        object.insert(name, value(raw.get(), &path, depth + 1, long)?);
    }
    Ok(Json::Object(object))
}

/// The fields of an object in their order; of a name that stands twice the last one counts, as elsewhere.
struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        from.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_integers_beyond_64_bits_are_long() {
        for (text, expected) in [
            ("{\"id\": 123456789012345678901}", true),
            ("[18446744073709551615]", true),
            ("9223372036854775808", true),
            ("-9223372036854775809", true),
            ("9223372036854775807", false),
            ("-9223372036854775808", false),
            ("123456789012345678901.0", false),
            ("1e400", false),
            ("{\"a\": \"123456789012345678901\"}", false),
            ("{\"a\\\"123456789012345678901\": 1}", false),
            ("\"never closed 123456789012345678901\\", false),
        ] {
            assert_eq!(are_in(text), expected, "{text}");
        }
    }

    #[test]
    fn digits_are_kept_and_the_fields_named() {
        let text = r#"{"id": 123456789012345678901, "a": {"b": [1, 18446744073709551615]}, "metadata": {"n": 99999999999999999999, "m": 1.5}, "t": "x"}"#;
        let (value, long) = read(text).unwrap();
        let expected = json!({"id": "123456789012345678901", "a": {"b": [1, "18446744073709551615"]},
            "metadata": {"n": "99999999999999999999", "m": 1.5}, "t": "x"});
        assert_eq!(value, expected);
        assert_eq!(long, ["a.b", "id", "n"].map(str::to_owned).into());
        let deep = format!("{}123456789012345678901{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep).is_err());
    }

    #[test]
    fn the_value_of_a_field_is_told_with_its_digits() {
        let found = |text: &str| read_value(text, "n").map(|(value, long)| (value, Vec::from_iter(long)));
        let long = "123456789012345678901";
        let huge = "9".repeat(400);
        let told = |name: &str, digits: &str| vec![(name.to_owned(), digits.to_owned())];
        assert_eq!(found(long), Some((json!(long), told("n", long))));
        assert_eq!(found(&huge), Some((json!(huge), told("n", &huge))));
        assert_eq!(found(&format!("[1, -{long}]")).unwrap().1, told("n", &format!("-{long}")));
        assert_eq!(
            found(&format!("{{\"payload\": {{\"b\": {long}}}}}")).unwrap().1,
            told("n.payload.b", long)
        );
        for other in
            ["1e20", "7", "00123456789012345678901", "123456789012345678901 x", "\"123456789012345678901\""]
        {
            assert_eq!(found(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_serde_json_reads_it(text in "[\\[\\]{}\",:0-9.e-]{0,60}") {
            if !are_in(&text) {
                prop_assert_eq!(read(&text).ok().map(|(value, _)| value), serde_json::from_str::<Json>(&text).ok());
            } else {
                let _ = read(&text);
            }
        }
    }
}
