//! Text -> vector: the one way in.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    config::EncoderConfig,
    error::ErrorKind,
    model::{Fingerprint, ModelDir},
    runtime::DeviceReport,
};

/// Which of the model's prompts goes in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum TextKind {
    Raw,
    Query,
    Document,
}

/// Queries go before bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Class {
    Query,
    Bulk,
}

/// A text as a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    #[expect(missing_docs)]
    pub values: Vec<f32>,
    /// Of the whole text, special tokens included.
    pub tokens: u32,
    /// Tokens past the model's limit were not encoded.
    pub truncated: bool,
}

/// Where the time of one request went.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct EncodeTimes {
    pub tokenize: Duration,
    pub queue: Duration,
    pub encode: Duration,
}

/// How long texts are cut into passages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunking {
    /// Tokens per passage, special tokens not counted; clamped to what the model takes.
    pub max_tokens: usize,
    /// Tokens shared with the passage before, in whole sentences; below `max_tokens`.
    pub overlap_tokens: usize,
}

/// A loaded model: tokenizer, sessions and their scheduler. Cheap to share (`Arc`), safe from any thread.
#[derive(Debug)]
pub struct Encoder {}

impl Encoder {
    /// Loads the model on the device that `config` names.
    ///
    /// # Errors
    /// Model and runtime errors; [`EncoderError::Tokenizer`].
    pub fn open(_model: &ModelDir, _home: &std::path::Path, _config: &EncoderConfig) -> crate::Result<Self> {
        unimplemented!()
    }

    /// Name of the model.
    pub fn name(&self) -> &str {
        unimplemented!()
    }
    /// What a collection records.
    pub fn fingerprint(&self) -> &Fingerprint {
        unimplemented!()
    }
    /// Length of its vectors.
    pub fn dim(&self) -> crate::vector::Dim {
        unimplemented!()
    }
    /// Special tokens included.
    pub fn max_tokens(&self) -> usize {
        unimplemented!()
    }
    /// Where it runs and why there.
    pub fn device(&self) -> &DeviceReport {
        unimplemented!()
    }
    /// The manifest it was opened with.
    pub fn model(&self) -> &ModelDir {
        unimplemented!()
    }

    /// Queues texts; `done` is called once, from an encoder thread. A request whose `deadline` passed or whose
    /// `cancelled` flag is set leaves the queue before it costs anything. Tokenizes on the calling thread.
    pub fn submit(
        &self,
        _texts: Vec<String>,
        _kind: TextKind,
        _class: Class,
        _limits: Limits,
        _done: EncodeDone,
    ) {
        unimplemented!()
    }

    /// [`Encoder::submit`], waiting; one embedding per text, in order. Never call it from async code.
    ///
    /// # Errors
    /// [`EncoderError`].
    pub fn encode(&self, _texts: &[&str], _kind: TextKind) -> Result<Vec<Embedding>, EncoderError> {
        unimplemented!()
    }

    /// Cuts `text` into passages of whole sentences (or words, where a sentence is too long): byte ranges that cover
    /// the text but for white space, in order. A short text gives one range; an empty one gives `0..0`.
    pub fn chunk(
        &self,
        _title: &str,
        _text: &str,
        _chunking: Chunking,
    ) -> Result<Vec<Range<usize>>, EncoderError> {
        unimplemented!()
    }
}

/// Until when a queued request is worth its cost.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Limits {
    pub deadline: Option<Instant>,
    pub cancelled: Option<std::sync::Arc<std::sync::atomic::AtomicBool>>,
}

/// Receives one embedding per text, in order, and where the time went.
pub type EncodeDone = Box<dyn FnOnce(Result<(Vec<Embedding>, EncodeTimes), EncoderError>) + Send>;

/// Why text was not encoded.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum EncoderError {
    #[error("the tokenizer {path} cannot be used: {reason}")]
    Tokenizer { path: String, reason: String },
    #[error("chunking: {reason}")]
    Chunking { reason: String },
    #[error("the encoder's queue is full ({limit} texts wait); retry later")]
    QueueFull { limit: usize },
    #[error("the deadline passed before the text was encoded")]
    Expired,
    #[error("the request was cancelled")]
    Cancelled,
    #[error("the encoder is shutting down")]
    Closed,
    #[error("inference failed: {reason}")]
    Failed { reason: String },
    #[error("the model gave a vector that is not finite; it cannot be stored")]
    NotFinite,
}

impl EncoderError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            EncoderError::Tokenizer { .. } => ErrorKind::Precondition,
            EncoderError::Chunking { .. } => ErrorKind::Invalid,
            EncoderError::QueueFull { .. } => ErrorKind::Overloaded,
            EncoderError::Expired => ErrorKind::Timeout,
            EncoderError::Cancelled | EncoderError::Closed => ErrorKind::Unavailable,
            EncoderError::Failed { .. } | EncoderError::NotFinite => ErrorKind::Internal,
        }
    }
}
