//! Conditions on payloads: what they mean, and which of them are refused.
//!
//! [`Filter::matches`] is the reference implementation: slow and obvious. The payload index answers the same questions
//! faster and is tested against it. `parse` reads the text form, and `Display` writes it.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{Payload, Value, compare_exactly, datetime, payload::FIELD_BYTES_MAX, type_name};
use crate::{
    error::{ErrorKind, Fault},
    stop::Stopped,
};

mod display;
mod parse;
#[cfg(test)]
pub(crate) mod tests;

/// Deepest nesting of `and`, `or`, `not` and parentheses.
pub const DEPTH_MAX: usize = 64;
/// Longest text form in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 1 << 20;
/// Most values in one filter, over all its conditions.
pub const VALUES_MAX: usize = 65_536;

/// A condition on payloads. On a list field a test holds if it holds for any element.
/// A missing field fails every test but [`Filter::Ne`], `Exists { expected: false }` and [`Filter::Not`].
///
/// A filter nests at most [`DEPTH_MAX`] deep and holds at most [`VALUES_MAX`] values. Field names have 1 to
/// [`FIELD_BYTES_MAX`] bytes; a field of an object has its dotted name (`a.b`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Filter {
    /// Every part holds. At least one part.
    And(Vec<Filter>),
    /// At least one part holds. At least one part.
    Or(Vec<Filter>),
    /// The inner condition does not hold.
    Not(Box<Filter>),
    /// The field equals the value. Integers and floats are compared as exact numbers. A string is compared with a
    /// datetime as RFC 3339 text.
    Eq {
        /// Name of the field.
        field: String,
        /// A single value, not a list.
        value: Value,
    },
    /// Holds exactly where [`Filter::Eq`] does not.
    Ne {
        /// Name of the field.
        field: String,
        /// A single value, not a list.
        value: Value,
    },
    /// The field equals one of the values.
    In {
        /// Name of the field.
        field: String,
        /// Single values, at least one.
        values: Vec<Value>,
    },
    /// One and the same element lies within all the bounds.
    Range {
        /// Name of the field.
        field: String,
        /// The bounds, at least one.
        range: RangeBounds,
    },
    /// The field is present, or absent. An empty list counts as present.
    Exists {
        /// Name of the field.
        field: String,
        /// `true` to ask for presence, `false` to ask for absence.
        expected: bool,
    },
    /// The field is a string that begins with this text; case matters.
    Prefix {
        /// Name of the field.
        field: String,
        /// The beginning; an empty one matches every string.
        prefix: String,
    },
    /// A list has this element, or a string has this part; case matters.
    Contains {
        /// Name of the field.
        field: String,
        /// A single value, not a list.
        value: Value,
    },
}

/// Bounds of a range. At least one bound is set and all are of one type (integers and floats are both numbers).
/// Booleans and lists have no order, so they cannot be bounds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RangeBounds {
    /// The field is greater than this. Default: no bound.
    pub gt: Option<Value>,
    /// The field is greater than or equal to this. Default: no bound.
    pub gte: Option<Value>,
    /// The field is less than this. Default: no bound.
    pub lt: Option<Value>,
    /// The field is less than or equal to this. Default: no bound.
    pub lte: Option<Value>,
}

impl RangeBounds {
    /// The bounds that are set, each with the sign that the text form uses.
    pub(crate) fn set(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        [(">", &self.gt), (">=", &self.gte), ("<", &self.lt), ("<=", &self.lte)]
            .into_iter()
            .filter_map(|(sign, bound)| Some((sign, bound.as_ref()?)))
    }
}

/// Why a filter was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum FilterError {
    /// `position` counts characters from 1.
    #[error("filter, position {position}: {message}")]
    Syntax { position: usize, message: String },
    #[error("filter on field {field:?}: it holds {stored}, which cannot be compared with {given}")]
    TypeMismatch { field: String, stored: String, given: String },
    #[error("filter: {message}")]
    Malformed { message: String },
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl Fault for FilterError {
    fn kind(&self) -> ErrorKind {
        if matches!(self, FilterError::Stopped(_)) { ErrorKind::Timeout } else { ErrorKind::Invalid }
    }

    fn field(&self) -> Option<&str> {
        Some("filter")
    }
}

impl Filter {
    /// Reads the text form: `year >= 2000 and (lang = "en" or tags contains "draft") and not exists(retracted)`.
    ///
    /// `or` binds weaker than `and`, `and` weaker than `not`; keywords are read in any case. The tests are `=`, `!=`,
    /// `<`, `<=`, `>`, `>=`, `in [a, b]`, `exists(field)`, `prefix "text"` and `contains value`.
    /// `year >= 2000 and < 2010` is one range. A field is bare (letters, digits, `_`, `-`, `.`) or in backquotes. A value
    /// is "text" or 'text' with `\` escapes, an integer, a float, `true`, `false`, a date (`2024-01-31`) or a datetime
    /// (`2024-01-31T10:00:00Z`). The text has at most [`EXPRESSION_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`FilterError::Syntax`] with the position, what was found and what may stand there.
    ///
    /// # Example
    /// ```
    /// use distilface::value::filter::{Filter, FilterError};
    ///
    /// let filter = Filter::parse("year >= 2000 and < 2010").unwrap();
    /// assert!(matches!(&filter, Filter::Range { field, .. } if field == "year"));
    /// assert_eq!(Filter::parse(&filter.to_string()).unwrap(), filter, "the text form reads back");
    ///
    /// let error = Filter::parse("year >= ").unwrap_err();
    /// assert!(matches!(error, FilterError::Syntax { position: 9, .. }), "{error}");
    /// ```
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        parse::parse(text)
    }

    /// Checks what the text form cannot get wrong but a structured filter can.
    ///
    /// ```
    /// use distilface::value::filter::{Filter, RangeBounds};
    ///
    /// let range = RangeBounds::default();
    /// assert!(Filter::Range { field: "year".into(), range }.validate().is_err(), "no bound is set");
    /// ```
    ///
    /// # Errors
    /// [`FilterError::Malformed`]: a range without bounds or with bounds of several types, an empty `in`, `and` or
    /// `or`, a list where a single value belongs, a number that is not finite, a datetime outside years 1 to 9999, a
    /// bad field name, deeper than [`DEPTH_MAX`], more than [`VALUES_MAX`] values.
    pub fn validate(&self) -> Result<(), FilterError> {
        let mut values = 0;
        self.validate_at(1, &mut values)
    }

    fn validate_at(&self, depth: usize, values: &mut usize) -> Result<(), FilterError> {
        if depth > DEPTH_MAX {
            return malformed(format!("it is nested more than {DEPTH_MAX} deep"));
        }
        *values += 1;
        match self {
            Filter::And(parts) | Filter::Or(parts) => {
                if parts.is_empty() {
                    return malformed("`and` and `or` need at least one condition".into());
                }
                parts.iter().try_for_each(|part| part.validate_at(depth + 1, values))?;
            }
            Filter::Not(part) => part.validate_at(depth + 1, values)?,
            Filter::Eq { field, value } | Filter::Ne { field, value } | Filter::Contains { field, value } => {
                check_field(field)?;
                check_scalar(field, value)?;
            }
            Filter::In { field, values: list } => {
                check_field(field)?;
                if list.is_empty() {
                    return malformed(format!(
                        "`in` on field {field:?} has an empty list, give at least one value"
                    ));
                }
                *values += list.len();
                list.iter().try_for_each(|value| check_scalar(field, value))?;
            }
            Filter::Range { field, range } => {
                check_field(field)?;
                check_range(field, range)?;
            }
            Filter::Exists { field, .. } | Filter::Prefix { field, .. } => check_field(field)?,
        }
        if *values > VALUES_MAX {
            return malformed(format!("it has more than {VALUES_MAX} values and conditions"));
        }
        Ok(())
    }

    /// Whether a payload satisfies this filter. Types that cannot be compared do not match.
    ///
    /// # Example
    /// ```
    /// use distilface::value::{Payload, Value, filter::Filter};
    ///
    /// let payload = Payload::from([
    ///     ("year".to_owned(), Value::Integer(2004)),
    ///     ("tags".to_owned(), Value::List(vec![Value::String("draft".into())])),
    /// ]);
    /// assert!(Filter::parse("year > 2000 and tags contains 'draft'").unwrap().matches(&payload));
    /// assert!(!Filter::parse("exists(retracted)").unwrap().matches(&payload));
    /// ```
    pub fn matches(&self, payload: &Payload) -> bool {
        let any = |field: &str, test: &dyn Fn(&Value) -> bool| match payload.get(field) {
            None => false,
            Some(Value::List(elements)) => elements.iter().any(test),
            Some(value) => test(value),
        };
        let equal = |stored: &Value, given: &Value| compare(stored, given) == Some(Ordering::Equal);
        match self {
            Filter::And(parts) => parts.iter().all(|part| part.matches(payload)),
            Filter::Or(parts) => parts.iter().any(|part| part.matches(payload)),
            Filter::Not(part) => !part.matches(payload),
            Filter::Eq { field, value } => any(field, &|stored| equal(stored, value)),
            Filter::Ne { field, value } => !any(field, &|stored| equal(stored, value)),
            Filter::In { field, values } => {
                any(field, &|stored| values.iter().any(|given| equal(stored, given)))
            }
            Filter::Range { field, range } => any(field, &|stored| in_range(stored, range)),
            Filter::Exists { field, expected } => payload.contains_key(field) == *expected,
            Filter::Prefix { field, prefix } => any(
                field,
                &|stored| matches!(stored, Value::String(text) if text.starts_with(prefix.as_str())),
            ),
            Filter::Contains { field, value } => match (payload.get(field), value) {
                (Some(Value::List(elements)), _) => elements.iter().any(|stored| equal(stored, value)),
                (Some(Value::String(text)), Value::String(part)) => text.contains(part.as_str()),
                _ => false,
            },
        }
    }
}

/// Compares a stored scalar with a given one; `None` if they cannot be compared.
fn compare(stored: &Value, given: &Value) -> Option<Ordering> {
    match (stored, given) {
        (Value::String(a), Value::String(b)) => Some(a.as_str().cmp(b)),
        (Value::Integer(a), Value::Integer(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Integer(a), Value::Float(b)) => compare_exactly(*a, *b),
        (Value::Float(a), Value::Integer(b)) => compare_exactly(*b, *a).map(Ordering::reverse),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Datetime(a), Value::Datetime(b)) => Some(a.cmp(b)),
        (Value::Datetime(a), Value::String(b)) => datetime::parse(b).map(|b| a.cmp(&b)),
        _ => None,
    }
}

fn in_range(stored: &Value, range: &RangeBounds) -> bool {
    // Only a malformed filter has bounds on booleans.
    !matches!(stored, Value::Bool(_))
        && range.set().all(|(sign, bound)| match (sign, compare(stored, bound)) {
            (_, None) => false,
            (">", Some(order)) => order.is_gt(),
            (">=", Some(order)) => order.is_ge(),
            ("<", Some(order)) => order.is_lt(),
            (_, Some(order)) => order.is_le(),
        })
}

fn malformed<T>(message: String) -> Result<T, FilterError> {
    Err(FilterError::Malformed { message })
}

fn check_field(field: &str) -> Result<(), FilterError> {
    if field.is_empty() {
        return malformed("a condition names no field".into());
    }
    if field.len() > FIELD_BYTES_MAX {
        return malformed(format!("a field name has {} bytes, the limit is {FIELD_BYTES_MAX}", field.len()));
    }
    if field.chars().any(char::is_control) {
        return malformed(format!("the field name {field:?} has control characters"));
    }
    Ok(())
}

fn check_scalar(field: &str, value: &Value) -> Result<(), FilterError> {
    match value {
        Value::List(_) => {
            malformed(format!("field {field:?} is compared with a list; use `in` to give several values"))
        }
        Value::Float(number) if !number.is_finite() => {
            malformed(format!("field {field:?} is compared with {number}, numbers must be finite"))
        }
        Value::Datetime(micros) if !datetime::in_bounds(*micros) => {
            malformed(format!("field {field:?} is compared with a datetime outside the years 1 to 9999"))
        }
        _ => Ok(()),
    }
}

fn check_range(field: &str, range: &RangeBounds) -> Result<(), FilterError> {
    let mut first = None;
    for (_, bound) in range.set() {
        check_scalar(field, bound)?;
        let kind = match bound {
            Value::Bool(_) => {
                return malformed(format!(
                    "the range on field {field:?} is bounded by a bool; use numbers, datetimes or strings"
                ));
            }
            Value::Float(_) => "integer",
            other => type_name(other),
        };
        match *first.get_or_insert(kind) {
            earlier if earlier != kind => {
                return malformed(format!(
                    "the bounds of the range on field {field:?} are of several types ({earlier} and {kind})"
                ));
            }
            _ => {}
        }
    }
    if first.is_none() {
        return malformed(format!("the range on field {field:?} has no bounds, give at least one"));
    }
    Ok(())
}
