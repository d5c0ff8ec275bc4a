//! Why a collection refuses or fails, and what kind of error each reason is.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::DoneBefore;
use crate::{
    budget::BudgetError,
    error::{ErrorKind, Fault},
    index::IndexError,
    segmented::SegmentError,
    stop::Stopped,
    store::StoreError,
    value::{ValueError, filter::FilterError},
    vector::VectorError,
};

/// Why a collection refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CollectionError {
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Vector(#[from] VectorError),
    #[error("no document {id:?}")]
    NoDocument { id: String },
    #[error("the query's text was not encoded, and nothing here searches by words")]
    NotEncoded,
    #[error("document id {id:?} stands twice in one request; send each id once")]
    DuplicateId { id: String },
    #[error("document {id:?}: {reason}")]
    BadPoint { id: String, reason: String },
    #[error("document {id:?} was changed or deleted by another request meanwhile; retry")]
    Changed { id: String },
    #[error(
        "document {id:?} is there already, with version {version}, and this write only inserts; give the new one another id, or write it in another mode"
    )]
    Exists { id: String, version: u64 },
    #[error(
        "there is no document {id:?}, and this write only replaces; insert it first, or write it in another mode"
    )]
    NothingToReplace { id: String },
    #[error(
        "document {id:?} has version {stored}, not {expected} as this write expects: it was changed meanwhile; read it again, and decide anew"
    )]
    OtherVersion { id: String, expected: u64, stored: u64 },
    #[error(
        "document {id:?} is not there, and this write expects version {expected} of it: it was deleted meanwhile; read it again, and decide anew"
    )]
    Gone { id: String, expected: u64 },
    /// Whoever sent it is told what it did then.
    #[error("this request was done before")]
    DoneBefore { done: Arc<DoneBefore> },
    #[error(
        "request id {id:?} was used for another request to this collection; give each request an id of its own, and the same only to the same request sent again"
    )]
    OtherRequest { id: String },
    #[error(
        "request {id:?} was done before, and a later release wrote down what came of it; look at the documents themselves"
    )]
    ForgottenRequest { id: String },
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(
        "this collection is read-only since a write to disk failed ({reason}); reads go on, restart after the disk is repaired"
    )]
    ReadOnly { reason: String },
    #[error("this collection is closed")]
    Closed,
    /// It holds as many vectors, or documents, as can be told apart in memory; removed ones do not count.
    #[error(
        "the collection is full: it cannot hold more than {limit} vectors; delete some, or start another collection"
    )]
    Full { limit: u32 },
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("the write queue is full ({limit} requests wait)")]
    QueueFull { limit: usize },
    #[error("cannot read or write {}", path.display())]
    Io { path: PathBuf, source: Arc<std::io::Error> },
    #[error(transparent)]
    Budget(#[from] BudgetError),
    #[error(transparent)]
    Index(Arc<IndexError>),
    #[error(transparent)]
    Store(Arc<StoreError>),
}

impl Fault for CollectionError {
    fn kind(&self) -> ErrorKind {
        match self {
            CollectionError::Value(e) => e.kind(),
            CollectionError::Vector(e) => e.kind(),
            CollectionError::NoDocument { .. } | CollectionError::NothingToReplace { .. } => {
                ErrorKind::NotFound
            }
            CollectionError::Exists { .. }
            | CollectionError::DoneBefore { .. }
            | CollectionError::OtherRequest { .. }
            | CollectionError::ForgottenRequest { .. } => ErrorKind::Exists,
            CollectionError::OtherVersion { .. } | CollectionError::Gone { .. } => ErrorKind::Precondition,
            CollectionError::DuplicateId { .. } | CollectionError::BadPoint { .. } => ErrorKind::Invalid,
            CollectionError::Filter(e) => e.kind(),
            CollectionError::Changed { .. } => ErrorKind::Overloaded,
            // Waiting does not help: what is removed does not count.
            CollectionError::ReadOnly { .. } | CollectionError::Full { .. } => ErrorKind::Precondition,
            CollectionError::Closed => ErrorKind::Unavailable,
            CollectionError::Stopped(_) => ErrorKind::Timeout,
            CollectionError::QueueFull { .. } => ErrorKind::Overloaded,
            CollectionError::Io { .. } | CollectionError::NotEncoded => ErrorKind::Internal,
            CollectionError::Budget(e) => e.kind(),
            CollectionError::Index(e) => e.kind(),
            CollectionError::Store(e) => e.kind(),
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            CollectionError::Exists { .. } | CollectionError::NothingToReplace { .. } => Some("mode"),
            CollectionError::OtherVersion { .. } | CollectionError::Gone { .. } => Some("expected_version"),
            CollectionError::OtherRequest { .. } | CollectionError::ForgottenRequest { .. } => {
                Some("request_id")
            }
            CollectionError::Filter(e) => e.field(),
            CollectionError::Vector(e) => e.field(),
            _ => None,
        }
    }

    fn is_too_large(&self) -> bool {
        matches!(self, CollectionError::Budget(e) if e.is_too_large())
    }
}

impl CollectionError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        CollectionError::Io { path: path.to_owned(), source: Arc::new(source) }
    }
}

impl From<IndexError> for CollectionError {
    fn from(e: IndexError) -> Self {
        CollectionError::Index(Arc::new(e))
    }
}

impl From<StoreError> for CollectionError {
    fn from(e: StoreError) -> Self {
        CollectionError::Store(Arc::new(e))
    }
}

impl From<SegmentError> for CollectionError {
    fn from(e: SegmentError) -> Self {
        match e {
            SegmentError::Filter(e) => e.into(),
            SegmentError::Stopped(e) => e.into(),
            e => StoreError::from(e).into(),
        }
    }
}
