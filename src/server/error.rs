//! Why the server did not start, or refused a request.

use std::{io, net::SocketAddr, time::Duration};

use crate::{
    budget::BudgetError,
    encoder::EncoderError,
    engine::EngineError,
    error::{ErrorKind, Fault},
    value::{ValueError, filter::FilterError},
    vector::VectorError,
};

/// Why the server did not start, or refused a request before the engine saw it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ServerError {
    #[error(transparent)]
    Budget(#[from] BudgetError),
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Vector(#[from] VectorError),
    #[error(
        "cannot listen on {address}: {source}; another server may be running there, choose another with {setting}"
    )]
    Bind { address: SocketAddr, setting: &'static str, source: io::Error },
    #[error(
        "{address} can be reached from other machines and this server has no authentication; if that is meant, set server.allow_remote (--allow-remote)"
    )]
    NotLoopback { address: SocketAddr },
    #[error("the server stopped: {reason}")]
    Transport { reason: String },
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
    #[error(
        "the data folder was not closed within {waited:?} (server.close_timeout); what was acknowledged is on disk; not closed: {open}"
    )]
    CloseTimeout { waited: Duration, open: String },
    #[error("the server works on {limit} requests already (limits.concurrent_requests_max); retry later")]
    TooManyRequests { limit: usize },
}

impl ServerError {
    /// A message that is none.
    pub(crate) fn malformed(reason: &str) -> Self {
        ServerError::Malformed { reason: reason.to_owned() }
    }

    /// A field of a request that is not as it must be.
    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        ServerError::Field { field: field.into(), reason: reason.into() }
    }
}

impl Fault for ServerError {
    fn kind(&self) -> ErrorKind {
        match self {
            ServerError::Budget(e) => e.kind(),
            ServerError::Encoder(e) => e.kind(),
            ServerError::Engine(e) => e.kind(),
            ServerError::Filter(e) => e.kind(),
            ServerError::Value(e) => e.kind(),
            ServerError::Vector(e) => e.kind(),
            ServerError::Bind { .. } => ErrorKind::Unavailable,
            ServerError::NotLoopback { .. }
            | ServerError::Field { .. }
            | ServerError::MessageTooLarge { .. }
            | ServerError::Malformed { .. }
            | ServerError::TooManyParts { .. } => ErrorKind::Invalid,
            ServerError::Transport { .. } | ServerError::CloseTimeout { .. } => ErrorKind::Internal,
            ServerError::Stalled { .. } | ServerError::Idle { .. } | ServerError::Unread { .. } => {
                ErrorKind::Timeout
            }
            ServerError::TooManyRequests { .. }
            | ServerError::TooManyStreams { .. }
            | ServerError::TooManyStreamsOfClient { .. } => ErrorKind::Overloaded,
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            ServerError::Field { field, .. } => Some(field),
            ServerError::Engine(e) => e.field(),
            ServerError::Filter(e) => e.field(),
            ServerError::Vector(e) => e.field(),
            _ => None,
        }
    }

    fn is_too_large(&self) -> bool {
        match self {
            ServerError::MessageTooLarge { .. } => true,
            ServerError::Budget(e) => e.is_too_large(),
            ServerError::Engine(e) => e.is_too_large(),
            _ => false,
        }
    }

    fn is_for_callers(&self) -> bool {
        match self {
            ServerError::Engine(e) => e.is_for_callers(),
            _ => !matches!(self.kind(), ErrorKind::Internal | ErrorKind::Corrupt),
        }
    }
}
