//! What `distilface bench` measures of the whole: ingestion, queries, latency under load, memory; and in `store/` of what
//! keeps documents, without an encoder.
//!
//! A measurement gets the settings and an empty folder, tells how far it is by [`Note`], and answers with figures as plain
//! data, each beside what it is compared with. Nothing here prints or reads arguments.

pub mod encode;
pub mod ingest;
pub mod load;
pub mod memory;
pub mod queries;
pub mod requests;
pub mod served;
pub mod small;
pub mod step;
pub mod store;

use crate::{
    encoder::{EncoderError, OpenError},
    engine::EngineError,
    error::{ErrorKind, Fault},
    eval::{EvalError, beir::CorpusDocument},
    finetune::FinetuneError,
    model::ModelError,
    server::ServerError,
};

/// Hears what is done next, as a sentence.
pub type Note<'a> = &'a (dyn Fn(&str) + Sync);

/// Name of the collection that is measured.
pub const COLLECTION: &str = "bench";

/// Documents of one request, as `distilface ingest` sends them.
pub const REQUEST_DOCUMENTS: usize = 64;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    #[error("this needs an encoder: leave --model none out")]
    NoEncoder,
    #[error("{reason}")]
    Unusable { reason: String },
    #[error("none of these ways to encode can be had here: {asked}")]
    NoWay { asked: String },
    #[error("a task of the measurement ended: {reason}")]
    Task { reason: String },
    #[error("the server that was just started cannot be reached: {reason}")]
    Connect { reason: String },
    #[error("a call failed: {:?}: {}", .0.code(), .0.message())]
    Call(#[source] tonic::Status),
    #[error("document {id}: {reason}")]
    Document { id: String, reason: String },
    #[error("{stored} of {sent} documents were stored")]
    Lost { stored: usize, sent: usize },
    #[error("the peer: {reason}")]
    Peer { reason: String },
    #[error("reading {}", path.display())]
    Read { path: std::path::PathBuf, source: std::io::Error },
    #[error("writing {}", path.display())]
    Write { path: std::path::PathBuf, source: std::io::Error },
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Eval(#[from] EvalError),
    #[error(transparent)]
    Finetune(#[from] FinetuneError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl From<tonic::Status> for BenchError {
    fn from(status: tonic::Status) -> Self {
        BenchError::Call(status)
    }
}

impl From<tokio::task::JoinError> for BenchError {
    fn from(error: tokio::task::JoinError) -> Self {
        BenchError::Task { reason: error.to_string() }
    }
}

impl Fault for BenchError {
    fn kind(&self) -> ErrorKind {
        match self {
            BenchError::NoEncoder | BenchError::NoWay { .. } => ErrorKind::Precondition,
            BenchError::Unusable { .. } => ErrorKind::Invalid,
            BenchError::Read { .. } => ErrorKind::NotFound,
            BenchError::Task { .. }
            | BenchError::Connect { .. }
            | BenchError::Call(_)
            | BenchError::Document { .. }
            | BenchError::Lost { .. }
            | BenchError::Peer { .. }
            | BenchError::Write { .. } => ErrorKind::Internal,
            BenchError::Encoder(e) => e.kind(),
            BenchError::Engine(e) => e.kind(),
            BenchError::Open(e) => e.kind(),
            BenchError::Eval(e) => e.kind(),
            BenchError::Finetune(e) => e.kind(),
            BenchError::Model(e) => e.kind(),
            BenchError::Server(e) => e.kind(),
        }
    }
}

type Result<T, E = BenchError> = std::result::Result<T, E>;

/// Without the documents that have no text, which a collection refuses.
pub fn with_text(mut corpus: Vec<CorpusDocument>) -> Vec<CorpusDocument> {
    corpus.retain(|d| !(d.title.trim().is_empty() && d.text.trim().is_empty()));
    corpus
}

/// Of an even number the mean of the middle two; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |n: usize| values.get(n).copied().unwrap_or(0.0);
    f64::midpoint(at(values.len().saturating_sub(1) / 2), at(values.len() / 2))
}

/// Resident memory of this process, which is client and server in one; 0 where the system does not tell.
pub(crate) fn resident_bytes() -> u64 {
    crate::telemetry::resident_bytes().unwrap_or(0)
}
