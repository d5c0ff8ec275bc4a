//! One encoder, many collections: text in, hits out. The library's front door; where async begins.

use std::{sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};

use crate::{
    collection::{
        CollectionStats, Page, SearchTrace,
        filter::Filter,
        point::{Hit, Payload, StoredPoint},
    },
    config::Config,
    encoder::{Chunking, Embedding, EncodeTimes, Encoder, TextKind},
    error::{ErrorKind, Result},
    index::IndexParams,
    model::Fingerprint,
    vector::Metric,
};

/// What a collection is, as the catalogue keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct CollectionInfo {
    pub name: String,
    pub dimension: u32,
    pub metric: Metric,
    pub index: IndexParams,
    /// `None`: chunking is off.
    pub chunking: Option<Chunking>,
    /// `None`: vectors only.
    pub model: Option<CollectionModel>,
    /// Microseconds since 1970.
    pub created_at: i64,
    /// Filled when answered; kept elsewhere.
    pub aliases: Vec<String>,
}

/// The encoder a collection was made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct CollectionModel {
    pub name: String,
    pub fingerprint: Fingerprint,
}

/// What a new collection shall be.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct NewCollection {
    pub name: String,
    /// `None`: the encoder's. Required where `vectors_only`.
    pub dimension: Option<u32>,
    pub metric: Metric,
    pub index: IndexParams,
    pub chunking_disabled: bool,
    /// `None`: the model's limit, at most 256, less special tokens.
    pub chunk_max_tokens: Option<usize>,
    /// `None`: an eighth of the maximum.
    pub chunk_overlap_tokens: Option<usize>,
    pub vectors_only: bool,
    pub if_not_exists: bool,
}

/// A document as a user sends it.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Document {
    pub id: String,
    pub title: String,
    pub text: String,
    pub payload: Payload,
    pub vector: Option<Vec<f32>>,
}

/// What became of a document.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct DocumentOutcome {
    pub id: String,
    pub status: WriteStatus,
    pub passages: u32,
    pub tokens: u32,
    pub truncated: bool,
}

/// What a write did to one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum WriteStatus {
    Inserted,
    Updated,
    Unchanged,
}

/// What is searched for.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Ask {
    Text(String),
    Vector(Vec<f32>),
    /// Documents like this one.
    Document(String),
}

/// One search.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct SearchQuery {
    pub ask: Ask,
    pub k: usize,
    pub filter: Option<Filter>,
    pub ef: Option<usize>,
    pub exact: bool,
    pub score_threshold: Option<f32>,
    pub by_passage: bool,
    pub with_payload: bool,
    pub with_text: bool,
}

/// Hits and how they were found.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct SearchAnswer {
    pub hits: Vec<Hit>,
    pub tokens: u32,
    pub truncated: bool,
    pub encode: EncodeTimes,
    pub trace: SearchTrace,
    pub total: std::time::Duration,
}

/// Until when a call is worth its cost. Dropping the call's future cancels what has not begun.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deadline(pub Option<Instant>);

/// One encoder, many collections. Cheap to share (`Arc`).
#[derive(Debug)]
pub struct Engine {}

#[expect(unused_variables, clippy::unused_async, missing_docs, reason = "skeleton")]
impl Engine {
    /// Opens the data folder (locking it), the catalogue, the encoder and every collection. Synchronous: call it before serving.
    /// A missing runtime or model is an error unless no collection needs one and `config.encoder.model` is `none`.
    ///
    /// # Errors
    /// Config, store, model, runtime errors.
    pub fn open(config: &Config) -> Result<Arc<Self>> {
        unimplemented!()
    }

    pub async fn create_collection(&self, new: NewCollection) -> Result<(CollectionInfo, bool)> {
        unimplemented!()
    }
    /// By name or alias, like every `collection` below.
    pub async fn collection(&self, name: &str) -> Result<CollectionInfo> {
        unimplemented!()
    }
    pub async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        unimplemented!()
    }
    pub async fn delete_collection(&self, name: &str) -> Result<()> {
        unimplemented!()
    }
    pub async fn set_alias(&self, alias: &str, collection: &str) -> Result<Option<String>> {
        unimplemented!()
    }
    pub async fn delete_alias(&self, alias: &str) -> Result<()> {
        unimplemented!()
    }
    pub async fn stats(&self, collection: &str) -> Result<CollectionStats> {
        unimplemented!()
    }

    /// All documents or none; each id once. Answered when durable.
    pub async fn upsert(
        &self,
        collection: &str,
        documents: Vec<Document>,
        deadline: Deadline,
    ) -> Result<Vec<DocumentOutcome>> {
        unimplemented!()
    }
    /// Each document by itself: a bad one is an error in its place and the rest goes on.
    /// The outer error is of the whole call (no such collection, disk full).
    pub async fn ingest(
        &self,
        collection: &str,
        documents: Vec<Document>,
        deadline: Deadline,
    ) -> Result<Vec<Result<DocumentOutcome>>> {
        unimplemented!()
    }
    pub async fn get(
        &self,
        collection: &str,
        ids: Vec<String>,
        with_vectors: bool,
    ) -> Result<Vec<Option<StoredPoint>>> {
        unimplemented!()
    }
    pub async fn delete(&self, collection: &str, ids: Vec<String>) -> Result<u64> {
        unimplemented!()
    }
    pub async fn delete_matching(&self, collection: &str, filter: Filter) -> Result<u64> {
        unimplemented!()
    }
    pub async fn scroll(
        &self,
        collection: &str,
        filter: Option<Filter>,
        after: Option<String>,
        limit: usize,
        with_text: bool,
    ) -> Result<Page> {
        unimplemented!()
    }
    pub async fn count(&self, collection: &str, filter: Option<Filter>) -> Result<u64> {
        unimplemented!()
    }

    pub async fn search(
        &self,
        collection: &str,
        query: SearchQuery,
        deadline: Deadline,
    ) -> Result<SearchAnswer> {
        unimplemented!()
    }
    /// Texts are encoded together.
    pub async fn search_batch(
        &self,
        queries: Vec<(String, SearchQuery)>,
        deadline: Deadline,
    ) -> Result<Vec<SearchAnswer>> {
        unimplemented!()
    }

    pub async fn embed(
        &self,
        texts: Vec<String>,
        kind: TextKind,
        deadline: Deadline,
    ) -> Result<Vec<Embedding>> {
        unimplemented!()
    }
    pub async fn similarity(
        &self,
        text: String,
        others: Vec<String>,
        deadline: Deadline,
    ) -> Result<Vec<f32>> {
        unimplemented!()
    }
    /// `None` where the process runs without one.
    pub fn encoder(&self) -> Option<&Arc<Encoder>> {
        unimplemented!()
    }
    pub fn config(&self) -> &Config {
        unimplemented!()
    }
    /// Whether every collection takes writes; the reason if one does not. For the health service.
    pub fn healthy(&self) -> std::result::Result<(), String> {
        unimplemented!()
    }

    /// Flushes and closes everything. Idempotent.
    pub async fn close(&self) -> Result<()> {
        unimplemented!()
    }
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum EngineError {
    #[error("no collection or alias {name:?}; there are: {known}")]
    NoCollection { name: String, known: String },
    #[error("collection {name:?} exists; choose another name")]
    CollectionExists { name: String },
    #[error("collection {name:?} exists with other settings: {difference}")]
    CollectionDiffers { name: String, difference: String },
    #[error(
        "{what} name {name:?} is not allowed: use 1 to 128 letters, digits, '_', '-' or '.', beginning with a letter or digit"
    )]
    BadName { what: &'static str, name: String },
    #[error("alias {alias:?} does not exist; there are: {known}")]
    NoAlias { alias: String, known: String },
    #[error("{name:?} is a collection; an alias needs a name of its own")]
    AliasTaken { name: String },
    #[error(
        "collection {collection:?} was made with model {expected_name} ({expected}), but this process runs {got_name} ({got}); start it with the first model, or re-embed into a new collection"
    )]
    WrongModel { collection: String, expected_name: String, expected: String, got_name: String, got: String },
    #[error(
        "collection {collection:?} needs an encoder, and this process runs without one; start it with --model"
    )]
    NoEncoder { collection: String },
    #[error("this process runs without an encoder; start it with --model")]
    EncoderOff,
    #[error("collection {collection:?} takes vectors only: give a vector instead of text")]
    VectorsOnly { collection: String },
    #[error("document {id:?}: {reason}")]
    BadDocument { id: String, reason: String },
    #[error("{name} must be between {min} and {max}, got {got}")]
    OutOfRange { name: &'static str, min: u64, max: u64, got: u64 },
    #[error("{reason}")]
    BadRequest { reason: String },
    #[error("no document {id:?} in collection {collection:?}")]
    NoDocument { collection: String, id: String },
    #[error("the deadline passed")]
    Expired,
    #[error("the server is shutting down")]
    Closing,
    #[error("a worker panicked: {reason}")]
    Panicked { reason: String },
}

impl EngineError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        use EngineError::*;
        match self {
            NoCollection { .. } | NoAlias { .. } | NoDocument { .. } => ErrorKind::NotFound,
            CollectionExists { .. } | CollectionDiffers { .. } | AliasTaken { .. } => ErrorKind::Exists,
            BadName { .. }
            | VectorsOnly { .. }
            | BadDocument { .. }
            | OutOfRange { .. }
            | BadRequest { .. } => ErrorKind::Invalid,
            WrongModel { .. } | NoEncoder { .. } | EncoderOff => ErrorKind::Precondition,
            Expired => ErrorKind::Timeout,
            Closing => ErrorKind::Unavailable,
            Panicked { .. } => ErrorKind::Internal,
        }
    }
}
