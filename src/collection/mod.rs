//! Points of one dimension and metric: store and index kept in step.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    error::ErrorKind,
    index::IndexParams,
    vector::{Dim, Metric, Vector},
};

pub mod datetime;
pub mod fields;
pub mod filter;
pub mod payload;
pub mod point;

use filter::Filter;
use point::{ContentHash, Hit, Point, PointId, StoredPoint};

/// How a collection was made; fixed for its life. Chunking and model belong to the engine and are only kept here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct CollectionSpec {
    pub dim: Dim,
    pub metric: Metric,
    pub index: IndexParams,
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Write {
    Upsert(Box<Point>),
    Delete(PointId),
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Outcome {
    Inserted,
    Updated,
    /// The stored content hash is the same.
    Unchanged,
    Deleted,
    NotFound,
}

/// Called once, from the writer thread, when a write is durable or has failed. Must not block.
pub type WriteDone = Box<dyn FnOnce(Result<Vec<Outcome>, CollectionError>) + Send>;

/// One search.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Query {
    pub vector: Vector,
    /// At least 1.
    pub k: usize,
    pub filter: Option<Filter>,
    /// `None`: the collection's.
    pub ef: Option<usize>,
    pub exact: bool,
    pub score_threshold: Option<f32>,
    /// One hit per passage instead of one per document.
    pub by_passage: bool,
    /// A document that is never answered.
    pub exclude: Option<PointId>,
    pub with_payload: bool,
    pub with_text: bool,
}

/// How a search was done.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct SearchTrace {
    pub filter_time: Duration,
    pub search_time: Duration,
    pub fetch_time: Duration,
    /// `exact`, `graph`, `filtered_exact` or `filtered_graph`.
    pub plan: &'static str,
    pub reason: String,
    pub matching_documents: u64,
    pub scanned: u64,
    pub ef: u32,
}

/// Counts of a collection.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct CollectionStats {
    pub documents: u64,
    pub passages: u64,
    pub indexed: u64,
    pub tombstones: u64,
    pub disk_bytes: u64,
    pub vector_bytes: u64,
    /// Field, the types it holds, documents that have it.
    pub fields: Vec<(String, Vec<&'static str>, u64)>,
}

/// One page of a scroll, ordered by id.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Page {
    pub points: Vec<StoredPoint>,
    /// Last id of the page if there may be more.
    pub next: Option<PointId>,
}

/// Points of one dimension and metric, durable and searchable. Cheap to share (`Arc`), safe from any thread.
#[derive(Debug)]
pub struct Collection {}

/// Settings that may change between starts.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct CollectionOptions {
    pub store_cache_bytes: u64,
    /// Threads of index building; at least 1.
    pub build_threads: usize,
}

impl Collection {
    /// Makes a new collection in `dir`, which must not exist yet.
    ///
    /// # Errors
    /// Store and io errors; [`CollectionError::Index`] for parameters out of bounds.
    pub fn create(
        _dir: &Path,
        _spec: CollectionSpec,
        _options: CollectionOptions,
    ) -> Result<Arc<Self>, CollectionError> {
        unimplemented!()
    }

    /// Opens a collection, bringing the index level with the store. Missing or damaged index files are rebuilt.
    ///
    /// # Errors
    /// [`CollectionError::Store`] if the store is damaged or locked.
    pub fn open(_dir: &Path, _options: CollectionOptions) -> Result<Arc<Self>, CollectionError> {
        unimplemented!()
    }

    /// How it was made.
    pub fn spec(&self) -> &CollectionSpec {
        unimplemented!()
    }

    /// Queues changes for the writer; `done` hears when all are durable. The changes of one call are atomic.
    /// Ids must be distinct within a call.
    pub fn submit(&self, _writes: Vec<Write>, _done: WriteDone) {
        unimplemented!()
    }

    /// [`Collection::submit`], waiting.
    ///
    /// # Errors
    /// As the writer reports.
    pub fn write(&self, _writes: Vec<Write>) -> Result<Vec<Outcome>, CollectionError> {
        unimplemented!()
    }

    /// What is stored under an id was made from this content, if it is there. From memory; no disk.
    pub fn content_hash(&self, _id: &PointId) -> Option<ContentHash> {
        unimplemented!()
    }

    /// Stored documents in the order asked; `None` for those not there.
    ///
    /// # Errors
    /// Store errors.
    pub fn get(
        &self,
        _ids: &[PointId],
        _with_text: bool,
        _with_vector: bool,
    ) -> Result<Vec<Option<StoredPoint>>, CollectionError> {
        unimplemented!()
    }

    /// The nearest documents, best first. With a filter: min(k, matching documents) hits, always
    /// (unless a score threshold or `exclude` leaves some out).
    ///
    /// # Errors
    /// [`CollectionError::Filter`] for type mismatches; store errors.
    pub fn search(&self, _query: &Query) -> Result<(Vec<Hit>, SearchTrace), CollectionError> {
        unimplemented!()
    }

    /// A page of documents after `after`, ordered by id.
    ///
    /// # Errors
    /// As [`Collection::search`].
    pub fn scroll(
        &self,
        _filter: Option<&Filter>,
        _after: Option<&PointId>,
        _limit: usize,
        _with_text: bool,
    ) -> Result<Page, CollectionError> {
        unimplemented!()
    }

    /// Documents that match.
    ///
    /// # Errors
    /// As [`Collection::search`].
    pub fn count(&self, _filter: Option<&Filter>) -> Result<u64, CollectionError> {
        unimplemented!()
    }

    /// Ids of the documents that match, in no order that callers may rely on.
    ///
    /// # Errors
    /// As [`Collection::search`].
    pub fn matching_ids(&self, _filter: &Filter) -> Result<Vec<PointId>, CollectionError> {
        unimplemented!()
    }

    /// Counts.
    pub fn stats(&self) -> CollectionStats {
        unimplemented!()
    }

    /// Waits until every vector that was durable at the call is in the graph. For tests and benches.
    pub fn wait_indexed(&self) {
        unimplemented!()
    }

    /// Stops the writer after what is queued, saves the index files, syncs, and closes the store. Idempotent.
    ///
    /// # Errors
    /// Store and index errors; acknowledged writes are durable even then.
    pub fn close(&self) -> Result<(), CollectionError> {
        unimplemented!()
    }
}

/// Why a collection refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CollectionError {
    #[error("bad document id {id:?}: {reason}")]
    BadId { id: String, reason: String },
    #[error("document id {id:?} stands twice in one request; send each id once")]
    DuplicateId { id: String },
    #[error("document {id:?}, payload field {field:?}: {reason}")]
    BadPayload { id: String, field: String, reason: String },
    #[error(transparent)]
    Filter(#[from] filter::FilterError),
    #[error(
        "this collection is read-only since a write to disk failed ({reason}); reads go on, restart after mending the disk"
    )]
    ReadOnly { reason: String },
    #[error("this collection is closed")]
    Closed,
    #[error("the collection is full: it has given out all {limit} slots; export and re-import it")]
    Full { limit: u32 },
    #[error("the write queue is full ({limit} requests wait)")]
    QueueFull { limit: usize },
    #[error("cannot read or write {}", path.display())]
    Io { path: PathBuf, source: Arc<std::io::Error> },
    #[error(transparent)]
    Index(Arc<crate::index::IndexError>),
    #[error(transparent)]
    Store(Arc<crate::store::StoreError>),
}

impl CollectionError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CollectionError::BadId { .. }
            | CollectionError::DuplicateId { .. }
            | CollectionError::BadPayload { .. } => ErrorKind::Invalid,
            CollectionError::Filter(e) => e.kind(),
            CollectionError::ReadOnly { .. } => ErrorKind::Precondition,
            CollectionError::Closed => ErrorKind::Unavailable,
            CollectionError::Full { .. } | CollectionError::QueueFull { .. } => ErrorKind::Overloaded,
            CollectionError::Io { .. } => ErrorKind::Internal,
            CollectionError::Index(e) => e.kind(),
            CollectionError::Store(e) => e.kind(),
        }
    }
}

impl From<crate::index::IndexError> for CollectionError {
    fn from(e: crate::index::IndexError) -> Self {
        CollectionError::Index(Arc::new(e))
    }
}

impl From<crate::store::StoreError> for CollectionError {
    fn from(e: crate::store::StoreError) -> Self {
        CollectionError::Store(Arc::new(e))
    }
}
