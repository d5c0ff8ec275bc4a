//! Where training examples come from.

use std::path::PathBuf;

use crate::error::ErrorKind;

/// What a data set's examples are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Single texts.
    Texts,
    /// A text and one that means the same, or a question and its answer.
    Pairs,
    /// A pair, and a text that is near but wrong.
    Triplets,
}

/// One example; which fields are there follows from the data set's [`Kind`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub struct Example {
    pub anchor: String,
    pub positive: Option<String>,
    pub negative: Option<String>,
}

/// Examples of one kind from one source.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Dataset {
    pub name: String,
    pub kind: Kind,
    pub examples: Vec<Example>,
    /// Share of the batches that come from here, relative to the others.
    pub weight: f64,
}

/// Why training data could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum DataError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}, line {line}: {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("{name}: {reason}")]
    Unusable { name: String, reason: String },
}

impl DataError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            DataError::Read { .. } => ErrorKind::Precondition,
            DataError::Line { .. } | DataError::Unusable { .. } => ErrorKind::Invalid,
        }
    }
}
