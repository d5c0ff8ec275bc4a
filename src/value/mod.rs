//! Document ids and payloads: what documents carry, and what filters test.
//!
//! Nothing here knows a collection, an index or a store.

use std::{cmp::Ordering, collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, Fault};

pub mod datetime;
pub mod filter;
pub mod json;
pub mod payload;
#[cfg(test)]
mod tests;

/// Longest [`PointId`] in bytes.
pub const ID_BYTES_MAX: usize = 512;

/// The user's name for a document: 1 to [`ID_BYTES_MAX`] bytes of UTF-8 without control characters.
///
/// ```
/// use distilface::value::PointId;
///
/// assert_eq!(PointId::new("manual/chapter-3").unwrap().as_str(), "manual/chapter-3");
/// assert!(PointId::new("").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PointId(Arc<str>);

impl PointId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`ValueError::BadId`] if it is empty, too long or has control characters.
    pub fn new(id: impl Into<Arc<str>>) -> Result<Self, ValueError> {
        let id: Arc<str> = id.into();
        let reason = if id.is_empty() {
            "it is empty".to_owned()
        } else if id.len() > ID_BYTES_MAX {
            format!("it has {} bytes, the limit is {ID_BYTES_MAX}", id.len())
        } else if let Some(c) = id.chars().find(|c| c.is_control()) {
            format!("it has the control character {c:?}")
        } else {
            return Ok(PointId(id));
        };
        Err(ValueError::BadId { id: id.chars().take(80).collect(), reason })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One typed payload value. A list holds scalars of one type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Text of any length that the payload's limit allows.
    String(String),
    /// A signed integer of 64 bits.
    Integer(i64),
    /// A finite number in double precision.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// Microseconds since 1970-01-01T00:00:00Z, from [`datetime::MICROS_MIN`] to [`datetime::MICROS_MAX`].
    Datetime(i64),
    /// Scalars of one type, in order; may be empty. Lists do not nest.
    List(Vec<Value>),
}

/// Typed fields of a document, by name.
pub type Payload = BTreeMap<String, Value>;

/// The name of a value's type for users: `string`, `integer`, `float`, `bool`, `datetime` or `list`.
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

/// Compares an integer with a float as exact numbers: 2^53 + 1 is larger than 2^53, which it would become as a float.
/// `None` for NaN.
pub(crate) fn compare_exactly(integer: i64, float: f64) -> Option<Ordering> {
    /// 2^63, one more than the largest integer; exact as a float.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        return None;
    }
    if float >= BEYOND {
        return Some(Ordering::Less);
    }
    if float < -BEYOND {
        return Some(Ordering::Greater);
    }
    let whole = float.trunc();
    // `whole` lies in i64's range, so the conversion is exact; at equality the fraction decides.
    let order = integer.cmp(&(whole as i64));
    Some(order.then(0.0f64.partial_cmp(&(float - whole)).expect("both are finite")))
}

/// Why an id or a payload is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ValueError {
    #[error("bad document id {id:?}: {reason}")]
    BadId { id: String, reason: String },
    #[error("document {id:?}, payload field {field:?}: {reason}")]
    BadPayload { id: String, field: String, reason: String },
}

impl Fault for ValueError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}
