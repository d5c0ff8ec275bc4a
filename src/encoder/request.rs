//! What a request of the encoder says of its texts, and what it gets.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{EncoderError, Unfinished};

/// Which of the model's prompts goes in front of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextKind {
    /// No prompt.
    Raw,
    /// The prompt for queries.
    Query,
    /// The prompt for documents.
    Document,
}

/// The priority of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A person waits for it: it goes before bulk.
    Query,
    /// Documents, which yield to queries.
    Bulk,
}

/// A text as a vector.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embedding {
    /// The vector: as many values as the model's dimension, of unit length if the model normalises.
    pub values: Vec<f32>,
    /// Tokens of the whole text, special tokens included.
    pub tokens: u32,
    /// Whether tokens beyond the model's limit were not encoded.
    pub truncated: bool,
    /// Words of the whole text that are one unknown token each: the vocabulary cannot spell them, or they have more than
    /// 100 characters.
    pub unknown: u32,
}

/// How one request's time was spent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EncodeTimes {
    /// Time to tokenize the texts.
    pub tokenize: Duration,
    /// Time in the queue.
    pub queue: Duration,
    /// Time to compute the vectors.
    pub encode: Duration,
    /// The vectors were in the cache: nothing was tokenized, queued or encoded.
    pub cached: bool,
}

/// A queued request's deadline, client, and where its vectors are kept.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Time after which the request is refused instead of encoded. Default: none.
    pub deadline: Option<Instant>,
    /// Becomes true when nobody waits for the request any more. Default: none.
    pub cancelled: Option<Arc<std::sync::atomic::AtomicBool>>,
    /// Number of the client, since clients are served in turn. Default 0.
    pub client: u64,
    /// Keeps each vector as it is computed, so that a request that ends early can continue when it is sent
    /// again; from [`super::Encoder::unfinished`]. Default: none.
    pub unfinished: Option<Arc<Unfinished>>,
}

impl Limits {
    /// # Errors
    /// [`EncoderError::Cancelled`], [`EncoderError::Expired`]: nobody waits any more.
    pub(super) fn check(&self) -> Result<(), EncoderError> {
        if self.cancelled.as_ref().is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
            return Err(EncoderError::Cancelled);
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(EncoderError::Expired);
        }
        Ok(())
    }
}

/// Receives one embedding per text, in order, and where the time went.
pub type EncodeDone = Box<dyn FnOnce(Encoded) + Send>;

pub(super) type Encoded = Result<(Vec<Embedding>, EncodeTimes), EncoderError>;
