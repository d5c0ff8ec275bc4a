//! gRPC over the engine: listen, serve, drain, stop.

use std::{net::SocketAddr, sync::Arc};

use crate::{engine::Engine, error::ErrorKind};

/// A server that accepts connections.
#[derive(Debug)]
pub struct Running {
    /// Where it listens; the real port where 0 was asked for.
    pub address: SocketAddr,
    /// Where metrics are served, if they are.
    pub metrics_address: Option<SocketAddr>,
}

/// Binds the addresses of the engine's config and serves until [`Running::stop`].
///
/// # Errors
/// [`ServerError::Bind`], [`ServerError::NotLoopback`].
#[expect(clippy::unused_async, reason = "skeleton")]
pub async fn start(_engine: Arc<Engine>) -> crate::Result<Running> {
    unimplemented!()
}

/// A client channel to a server inside this process, without a socket: what the CLI uses with `--data`.
#[expect(clippy::unused_async, reason = "skeleton")]
pub async fn in_process(_engine: Arc<Engine>) -> crate::Result<tonic::transport::Channel> {
    unimplemented!()
}

impl Running {
    /// Stops accepting, gives running requests the drain timeout, then closes the engine.
    ///
    /// # Errors
    /// What closing the engine says.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn stop(self) -> crate::Result<()> {
        unimplemented!()
    }
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ServerError {
    #[error(
        "cannot listen on {address}: {source}; another server may be running there, choose another with --listen"
    )]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error(
        "{address} can be reached from other machines and this server has no authentication; if that is meant, set server.allow_remote (--allow-remote)"
    )]
    NotLoopback { address: SocketAddr },
    #[error("the server stopped: {reason}")]
    Transport { reason: String },
}

impl ServerError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ServerError::Bind { .. } => ErrorKind::Unavailable,
            ServerError::NotLoopback { .. } => ErrorKind::Invalid,
            ServerError::Transport { .. } => ErrorKind::Internal,
        }
    }
}
