//! Why a request was refused or failed.

use super::zero;
use crate::{
    budget::BudgetError,
    encoder::EncoderError,
    engine::EngineError,
    error::{ErrorKind, Fault, with_sources},
    value::{ValueError, filter::FilterError},
    vector::VectorError,
};

/// Why a request was refused before the engine saw it, or what the engine said of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ApiError {
    #[error(transparent)]
    Budget(#[from] BudgetError),
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    #[error(transparent)]
    Engine(EngineError),
    /// Out of a range, where 0 in the message is no number but stands for something.
    #[error("{error}; 0 means {zero}")]
    Range { error: EngineError, zero: &'static str },
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Vector(#[from] VectorError),
    #[error("{field}: {reason}")]
    Field { field: String, reason: String },
    #[error(
        "the message is larger than this server takes ({limit} bytes, limits.message_bytes_max); send less at once"
    )]
    MessageTooLarge { limit: usize },
    #[error("this cannot be read as protobuf: {reason}; send what the .proto files say, with texts in UTF-8")]
    Malformed { reason: String },
    #[error(
        "the message has so many parts that it would take more than {limit} bytes of memory (four times limits.message_bytes_max); send less at once"
    )]
    TooManyParts { limit: usize },
    #[error("nothing more of a message came for {seconds} s; send the rest sooner, or smaller messages")]
    Stalled { seconds: u64 },
    #[error(
        "the stream was ended: no message came for {seconds} s (server.stream_idle_timeout); what was answered is stored, open another to go on"
    )]
    Idle { seconds: f64 },
    #[error(
        "the stream was ended: its answers were not read for {seconds} s (server.stream_idle_timeout); send what was not answered again, and read while you send"
    )]
    Unread { seconds: f64 },
    #[error(
        "this client has {limit} streams open already (limits.streams_per_client_max); send more through one, or end some"
    )]
    TooManyStreamsOfClient { limit: usize },
    #[error("there are {limit} streams open already (limits.streams_max); retry later")]
    TooManyStreams { limit: usize },
    #[error("the server works on {limit} requests already (limits.concurrent_requests_max); retry later")]
    TooManyRequests { limit: usize },
}

impl ApiError {
    /// A message that is none.
    pub(crate) fn malformed(reason: &str) -> Self {
        ApiError::Malformed { reason: reason.to_owned() }
    }

    /// A field of a request that is not as it must be.
    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        ApiError::Field { field: field.into(), reason: reason.into() }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match zero::meaning(&error) {
            Some(zero) => ApiError::Range { error, zero },
            None => ApiError::Engine(error),
        }
    }
}

impl Fault for ApiError {
    fn kind(&self) -> ErrorKind {
        match self {
            ApiError::Budget(e) => e.kind(),
            ApiError::Encoder(e) => e.kind(),
            ApiError::Engine(e) | ApiError::Range { error: e, .. } => e.kind(),
            ApiError::Filter(e) => e.kind(),
            ApiError::Value(e) => e.kind(),
            ApiError::Vector(e) => e.kind(),
            ApiError::Field { .. }
            | ApiError::MessageTooLarge { .. }
            | ApiError::Malformed { .. }
            | ApiError::TooManyParts { .. } => ErrorKind::Invalid,
            ApiError::Stalled { .. } | ApiError::Idle { .. } | ApiError::Unread { .. } => ErrorKind::Timeout,
            ApiError::TooManyRequests { .. }
            | ApiError::TooManyStreams { .. }
            | ApiError::TooManyStreamsOfClient { .. } => ErrorKind::Overloaded,
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            ApiError::Field { field, .. } => Some(field),
            ApiError::Engine(e) | ApiError::Range { error: e, .. } => e.field(),
            ApiError::Filter(e) => e.field(),
            ApiError::Vector(e) => e.field(),
            _ => None,
        }
    }

    fn is_too_large(&self) -> bool {
        match self {
            ApiError::MessageTooLarge { .. } => true,
            ApiError::Budget(e) => e.is_too_large(),
            ApiError::Engine(e) => e.is_too_large(),
            _ => false,
        }
    }

    fn is_for_callers(&self) -> bool {
        match self {
            ApiError::Engine(e) => e.is_for_callers(),
            _ => !matches!(self.kind(), ErrorKind::Internal | ErrorKind::Corrupt),
        }
    }
}

/// Writes a failure of ours into the log in full. Others are the client's to act on, and a damaged collection was logged
/// when it was opened.
pub(crate) fn log_if_ours(error: &dyn Fault, request_id: &str) {
    if !error.is_for_callers() {
        let kind = error.kind().name();
        tracing::error!(request_id, kind, error = with_sources(error), "request failed");
    }
}
