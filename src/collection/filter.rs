//! Conditions on payloads: what they mean and how their text form is read.

use serde::{Deserialize, Serialize};

use super::point::Value;
use crate::error::ErrorKind;

/// A condition on payloads. On a list field a test holds if it holds for any element.
/// A missing field fails every test but [`Filter::Ne`], `Exists { expected: false }` and [`Filter::Not`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Eq { field: String, value: Value },
    Ne { field: String, value: Value },
    In { field: String, values: Vec<Value> },
    Range { field: String, range: RangeBounds },
    Exists { field: String, expected: bool },
    Prefix { field: String, prefix: String },
    Contains { field: String, value: Value },
}

/// Bounds of a range; at least one is set and all are of one type.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub struct RangeBounds {
    pub gt: Option<Value>,
    pub gte: Option<Value>,
    pub lt: Option<Value>,
    pub lte: Option<Value>,
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
}

impl FilterError {
    /// Always [`ErrorKind::Invalid`].
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}
