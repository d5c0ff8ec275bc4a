//! Why the server did not start, or did not end well.

use std::{io, net::SocketAddr, time::Duration};

use crate::{
    engine::EngineError,
    error::{ErrorKind, Fault},
};

/// Why the server did not start, or did not end well. Why it refused a request is told in the answer to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ServerError {
    #[error(transparent)]
    Engine(#[from] EngineError),
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
    #[error(
        "the data folder was not closed within {waited:?} (server.close_timeout); what was acknowledged is on disk; not closed: {open}"
    )]
    CloseTimeout { waited: Duration, open: String },
}

impl Fault for ServerError {
    fn kind(&self) -> ErrorKind {
        match self {
            ServerError::Engine(e) => e.kind(),
            ServerError::Bind { .. } => ErrorKind::Unavailable,
            ServerError::NotLoopback { .. } => ErrorKind::Invalid,
            ServerError::Transport { .. } | ServerError::CloseTimeout { .. } => ErrorKind::Internal,
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            ServerError::Engine(e) => e.field(),
            _ => None,
        }
    }

    fn is_too_large(&self) -> bool {
        match self {
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
