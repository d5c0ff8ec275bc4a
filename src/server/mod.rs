//! gRPC over the API: listen, serve, drain, stop.
//!
//! The services of `proto/distilface/v1` (`grpc.rs`), health v1 (`health.rs`) and reflection (v1, and v1alpha for
//! older clients) behind one gate (`admit.rs`). The same router serves a socket ([`start`]) and a caller in this process
//! ([`in_process`]).
//! Leaves out encryption and authentication: without `server.allow_remote` only this machine is served.

mod admit;
mod connections;
mod error;
mod follow;
mod grpc;
mod health;
mod holding;
mod inbound;
mod metrics;
pub(crate) mod status;
mod streams;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{
    Channel, Endpoint, Server, Uri,
    server::{Router, TcpIncoming},
};
use tonic_health::server::health_reporter;
use tower::layer::util::{Identity, Stack};

pub use self::error::ServerError;
use self::{
    admit::{AdmitLayer, Gate},
    connections::{Connection, Places},
    grpc::Grpc,
    health::Health,
    metrics::Metrics,
};
use crate::{
    engine::Engine,
    handles, proto,
    rpc::{
        backups_server::BackupsServer, collections_server::CollectionsServer,
        documents_server::DocumentsServer, encoder_server::EncoderServer, search_server::SearchServer,
    },
};

/// A connection that says nothing is asked whether it lives after this time, and closed if it does not answer in
/// [`KEEPALIVE_TIMEOUT`]: a client that was cut off does not keep its requests running.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes that a client may send ahead, per request and per connection: enough to keep an ingest busy.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Requests on one connection; the permits of `admit.rs` are the limit of the whole server.
const STREAMS_PER_CONNECTION: u32 = 1024;
/// How long a scrape of the metrics, and connections that were cut, may hold up the end.
const HELPER_PATIENCE: Duration = Duration::from_secs(1);
/// When no request has run for this long, a server that drains cuts the connections that are left: their clients had
/// time to hear that it ends.
const QUIET: Duration = Duration::from_millis(300);
/// How often a server that drains looks whether requests still run.
const QUIET_LOOK: Duration = Duration::from_millis(20);
/// Buffer of the pipe that stands for a socket inside one process.
const PIPE_BYTES: usize = 1 << 20;

/// A server that accepts connections.
#[derive(Debug)]
pub struct Running {
    /// Where it listens; the real port where 0 was asked for.
    pub address: SocketAddr,
    /// Where metrics are served, if they are.
    pub metrics_address: Option<SocketAddr>,
    engine: Arc<Engine>,
    /// Dropping the server stops it as well, only that nobody waits for it.
    draining: DropGuard,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    /// What follows the engine's health and what serves metrics, until `stopped`.
    helpers: Vec<JoinHandle<()>>,
    stopped: DropGuard,
    /// Cuts every connection.
    cut: DropGuard,
    metrics: Arc<Metrics>,
    stage: Stage,
}

/// What a stopping server is doing, for a caller that waits for its end. It is cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Stage(Arc<Mutex<&'static str>>);

impl Stage {
    fn enter(&self, what: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// Describes what it does now; `serving` before it stops.
    pub fn now(&self) -> &'static str {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            "" => "serving",
            what => what,
        }
    }
}

/// Binds the addresses of the engine's config and serves until [`Running::stop`].
///
/// # Errors
/// [`ServerError::Bind`], [`ServerError::NotLoopback`].
pub async fn start(engine: Arc<Engine>) -> Result<Running, ServerError> {
    let config = &engine.config().server;
    for address in [Some(config.listen), config.metrics_listen].into_iter().flatten() {
        if !address.ip().is_loopback() && !config.allow_remote {
            return Err(ServerError::NotLoopback { address });
        }
    }
    let (listener, address) = bind(config.listen, "server.listen (--listen)").await?;
    let metrics_listener = match config.metrics_listen {
        Some(address) => Some(bind(address, "server.metrics_listen").await?),
        None => None,
    };

    let Services { router, health, metrics, draining } = Services::of(&engine);
    health.follow_once(&engine).await;
    let cut = CancellationToken::new();
    let incoming = {
        let (draining, cut) = (draining.clone(), cut.clone());
        let places = Places::new(handles::connections_max());
        TcpIncoming::from(listener)
            .with_nodelay(Some(true))
            .with_keepalive(Some(KEEPALIVE_INTERVAL))
            .then(move |stream| {
                let (places, draining, cut) = (Arc::clone(&places), draining.clone(), cut.clone());
                async move {
                    match stream {
                        Ok(stream) => {
                            let place = places.admit(&cut).await?;
                            Some(Ok(Connection::new(stream, &draining, place)))
                        }
                        Err(error) => Some(Err(error)),
                    }
                }
            })
            .filter_map(|accepted| accepted)
    };
    let serving =
        tokio::spawn(router.serve_with_incoming_shutdown(incoming, draining.clone().cancelled_owned()));
    let mut helpers = vec![tokio::spawn(health.follow(Arc::clone(&engine), draining.clone()))];
    let stopped = CancellationToken::new();
    let metrics_address = metrics_listener.as_ref().map(|(_, address)| *address);
    if let Some((listener, _)) = metrics_listener {
        helpers.push(tokio::spawn(metrics::serve(
            listener,
            Arc::clone(&metrics),
            Arc::clone(&engine),
            stopped.clone(),
        )));
    }
    let metrics_at = metrics_address.map(tracing::field::display);
    tracing::info!(%address, metrics_address = metrics_at, "serving");
    let (draining, stopped, cut) = (draining.drop_guard(), stopped.drop_guard(), cut.drop_guard());
    let stage = Stage::default();
    Ok(Running { address, metrics_address, engine, draining, serving, helpers, stopped, cut, metrics, stage })
}

async fn bind(address: SocketAddr, setting: &'static str) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Bind { address, setting, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// A client channel to a server inside this process, without a socket: what the CLI uses with `--data`.
/// The server ends with the last clone of the channel; closing the engine is the caller's.
///
/// # Errors
/// [`ServerError::Transport`], which would be a bug.
pub async fn in_process(engine: Arc<Engine>) -> Result<Channel, ServerError> {
    let Services { router, health, draining, .. } = Services::of(&engine);
    let (pipes, accepted) = mpsc::channel::<io::Result<tokio::io::DuplexStream>>(1);
    let following = health.follow(engine, draining);
    tokio::spawn(async move {
        tokio::select! {
            ended = router.serve_with_incoming(ReceiverStream::new(accepted)) => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the server inside this process ended");
                }
            }
            () = following => {}
        }
    });
    let connector = tower::service_fn(move |_: Uri| {
        let pipes = pipes.clone();
        async move {
            let (client, server) = tokio::io::duplex(PIPE_BYTES);
            pipes.send(Ok(server)).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            Ok::<_, io::Error>(TokioIo::new(client))
        }
    });
    Endpoint::from_static("http://in-process")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector(connector)
        .await
        .map_err(|e| ServerError::Transport { reason: e.to_string() })
}

impl Running {
    /// What it is doing, also while [`Running::stop`] runs.
    pub fn stage(&self) -> Stage {
        self.stage.clone()
    }

    /// The longest that [`Running::stop`] takes with this engine's settings.
    pub fn stop_bound(&self) -> Duration {
        let config = &self.engine.config().server;
        config.drain_timeout + config.close_timeout + HELPER_PATIENCE * 4
    }

    /// Says NOT_SERVING, stops accepting, gives running requests the drain timeout, then closes the engine within the
    /// close timeout. Connections on which no request runs do not hold it up.
    ///
    /// # Errors
    /// What closing the engine says; [`ServerError::CloseTimeout`]: the process should then exit, since threads that
    /// hang still hold the data folder.
    pub async fn stop(self) -> Result<(), ServerError> {
        let Running { engine, draining, mut serving, helpers, stopped, cut, metrics, stage, .. } = self;
        let config = &engine.config().server;
        tracing::info!(drain_timeout_s = config.drain_timeout.as_secs_f64(), "draining");
        stage.enter("waiting for running requests");
        draining.disarm().cancel();
        let ended = tokio::select! {
            ended = &mut serving => Some(ended),
            () = quiet(&metrics) => None,
            () = tokio::time::sleep(config.drain_timeout) => {
                let requests = metrics.running();
                if requests > 0 {
                    tracing::warn!(requests, "requests still ran when the drain timeout passed; they are cut off");
                }
                None
            }
        };
        stage.enter("cutting connections");
        cut.disarm().cancel();
        match ended {
            Some(ended) => log_ending(ended),
            None => match tokio::time::timeout(HELPER_PATIENCE, &mut serving).await {
                Ok(ended) => log_ending(ended),
                Err(_) => serving.abort(),
            },
        }
        stage.enter("closing the data folder");
        let closed = match tokio::time::timeout(config.close_timeout, engine.close()).await {
            Ok(closed) => closed.map_err(ServerError::from),
            Err(_) => {
                let waited = config.close_timeout;
                Err(ServerError::CloseTimeout { waited, open: engine.unclosed() })
            }
        };
        stage.enter("waiting for the metrics' listener");
        stopped.disarm().cancel();
        for mut helper in helpers {
            // When this returns nobody holds the engine any more, and the data folder can be opened again.
            if tokio::time::timeout(HELPER_PATIENCE, &mut helper).await.is_err() {
                helper.abort();
            }
        }
        stage.enter("stopped");
        tracing::info!("stopped");
        closed
    }

    /// Waits until the server ends without having been told to, which is an error. For a process that waits for
    /// a signal at the same time.
    pub async fn failed(&mut self) -> ServerError {
        match (&mut self.serving).await {
            Ok(Ok(())) => ServerError::Transport { reason: "it stopped accepting connections".into() },
            Ok(Err(error)) => ServerError::Transport { reason: error.to_string() },
            Err(error) => ServerError::Transport { reason: error.to_string() },
        }
    }
}

/// Returns when no request has run for [`QUIET`].
async fn quiet(metrics: &Metrics) {
    let mut since = None;
    loop {
        if metrics.running() > 0 {
            since = None;
        } else if since.get_or_insert_with(tokio::time::Instant::now).elapsed() >= QUIET {
            return;
        }
        tokio::time::sleep(QUIET_LOOK).await;
    }
}

fn log_ending(ended: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the server ended with an error"),
        Err(error) => tracing::error!(%error, "the server ended with a panic"),
    }
}

/// Everything that answers, before it has anything to listen on.
struct Services {
    router: Router<Stack<AdmitLayer, Identity>>,
    health: Health,
    metrics: Arc<Metrics>,
    draining: CancellationToken,
}

impl Services {
    fn of(engine: &Arc<Engine>) -> Self {
        let config = engine.config();
        let device = engine.encoder().map(|encoder| encoder.device().device.clone()).unwrap_or_default();
        let metrics = Arc::new(Metrics::new(&device));
        let draining = CancellationToken::new();
        let gate = Arc::new(Gate::new(config, Arc::clone(&metrics), draining.clone()));
        let bytes_max = config.limits.message_bytes_max;

        let door = Arc::new(Grpc {
            engine: Arc::clone(engine),
            metrics: Arc::clone(&metrics),
            draining: draining.clone(),
        });
        let (reporter, health) = health_reporter();
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        const DESCRIPTORS: &str = "the descriptors were written by our own build";

        let router = Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .layer(AdmitLayer(gate))
            .add_service(CollectionsServer::from_arc(Arc::clone(&door)).max_decoding_message_size(bytes_max))
            .add_service(DocumentsServer::from_arc(Arc::clone(&door)).max_decoding_message_size(bytes_max))
            .add_service(SearchServer::from_arc(Arc::clone(&door)).max_decoding_message_size(bytes_max))
            .add_service(EncoderServer::from_arc(Arc::clone(&door)).max_decoding_message_size(bytes_max))
            .add_service(BackupsServer::from_arc(Arc::clone(&door)).max_decoding_message_size(bytes_max))
            .add_service(health)
            .add_service(reflection().build_v1().expect(DESCRIPTORS))
            .add_service(reflection().build_v1alpha().expect(DESCRIPTORS));
        Services { router, health: Health::new(reporter), metrics, draining }
    }
}
