//! What every request over gRPC passes before and after its method: permit, id, deadline, span, metrics, log.
//!
//! [`AdmitLayer`] stands in front of all methods of `distilface.v1`: it refuses at once while the server drains
//! or works on `limits.concurrent_requests_max` requests, bounds what comes in (`inbound.rs`), gives each request its
//! [`Request`], and has the answer followed to its last byte (`follow.rs`), which is when its memory is free again. A call is one of
//! those worked on from when it is here as a whole until its answer is made; a stream is not, but each of its messages is
//! while it is written.
//! What a method then does, and the limits of its work, are the API's ([`Context`]).
//! Health and reflection pass untouched, so a full server still says that it is alive.
//!
//! A client that goes away drops the future, and with it the work that has not begun.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{self, Poll},
    time::{Duration, Instant},
};

use axum::http;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, transport::server::TcpConnectInfo};
use tower::{Layer, Service};
use tracing::Instrument;

use super::{
    connections::Client,
    follow::{FollowedBody, Following},
    holding::Holding,
    inbound::Inbound,
    metrics::Metrics,
    status,
    streams::{OpenStream, Streams},
};
use crate::{
    api::{ApiError, Context, Limits},
    budget::Held,
    config::Config,
    engine::{Engine, EngineError},
};

/// Metadata that carries a request's id, both ways.
pub(crate) const REQUEST_ID: &str = "x-request-id";
const GRPC_TIMEOUT: &str = "grpc-timeout";
const PACKAGE: &str = "/distilface.v1.";
/// How long a call may take whose client alone says how long it waits.
const LONG: Duration = Duration::from_secs(30 * 24 * 3600);

/// What all requests of a server share.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Arc<Limits>,
    streams: Arc<Streams>,
    request_timeout: Duration,
    stream_idle_timeout: Duration,
    metrics: Arc<Metrics>,
    draining: CancellationToken,
}

impl Gate {
    pub(crate) fn new(config: &Config, metrics: Arc<Metrics>, draining: CancellationToken) -> Self {
        Gate {
            limits: Arc::new(Limits::new(&config.limits)),
            streams: Streams::new(config.limits.streams_per_client_max, config.limits.streams_max),
            request_timeout: config.server.request_timeout,
            stream_idle_timeout: config.server.stream_idle_timeout,
            metrics,
            draining,
        }
    }

    /// Refuses what would be refused anyway once it is here as a whole. A stream gets its place.
    fn admit(&self, streaming: bool, client: u64) -> Result<Option<OpenStream>, ApiError> {
        if self.draining.is_cancelled() {
            return Err(EngineError::Closing.into());
        }
        if streaming {
            return Ok(Some(self.streams.open(client)?));
        }
        self.limits.check_free()?;
        Ok(None)
    }
}

/// One request's id and deadlines; every method takes it out of the message that it is given.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    id: Arc<str>,
    /// Until when one message is worth its cost.
    deadline: Instant,
    /// What the client itself set: the only deadline of a whole stream.
    pub(crate) client_deadline: Option<Instant>,
    /// How long a stream may be silent while nothing of it is in work.
    pub(crate) stream_idle_timeout: Duration,
    /// Of the connection it came over.
    client: u64,
    pub(crate) request_timeout: Duration,
    pub(crate) limits: Arc<Limits>,
    holding: Arc<Holding>,
}

impl Request {
    /// The context and the message of a request that came through [`AdmitLayer`].
    pub(crate) fn open<T>(request: tonic::Request<T>) -> (Self, T) {
        let (_, mut extensions, message) = request.into_parts();
        let context =
            extensions.remove().expect("every method stands behind the layer that inserts its context");
        (context, message)
    }

    /// What a method of the API knows of this request.
    pub(crate) fn context(&self, engine: &Arc<Engine>, metrics: &Arc<Metrics>) -> Context {
        Context {
            engine: Arc::clone(engine),
            counts: Arc::<Metrics>::clone(metrics),
            request_id: Arc::clone(&self.id),
            deadline: self.deadline,
            client: self.client,
            request_bytes: self.holding.message_bytes(),
            room: Arc::clone(&self.holding.room),
        }
    }

    /// The memory of the message that a stream has just been given; to be held until it is answered.
    pub(crate) fn message_memory(&self) -> Option<Held> {
        self.holding.message()
    }

    /// The refusal of a message that tonic could not read, in our words; those of ours stay as they are.
    pub(crate) fn retell(&self, refused: Status, place: &str) -> Status {
        match status::of_transport(&refused, self.limits.message_bytes_max, place) {
            Some(error) => self.refuse(&error),
            None => refused,
        }
    }

    /// What the client hears of a failure.
    pub(crate) fn refuse(&self, error: &ApiError) -> Status {
        status::of(error, &self.id)
    }
}

/// Puts [`Admit`] in front of the services.
#[derive(Debug, Clone)]
pub(crate) struct AdmitLayer(pub(crate) Arc<Gate>);

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;
    fn layer(&self, inner: S) -> Admit<S> {
        Admit { gate: Arc::clone(&self.0), inner }
    }
}

/// The services behind the gate.
#[derive(Debug, Clone)]
pub(crate) struct Admit<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Admit<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The service that was made ready, not its clone, must take the call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        if !request.uri().path().starts_with(PACKAGE) {
            return Box::pin(inner.call(request));
        }
        // Taken here and not in the future: tonic starts its own timer for `grpc-timeout` after this call returns,
        // so ours runs out first and the client hears DEADLINE_EXCEEDED with our details.
        let arrived = Instant::now();
        let id = request_id(request.headers());
        let name = request.uri().path().strip_prefix(PACKAGE).unwrap_or_default();
        // One that is not in the descriptors is refused by tonic; metrics have a bounded number of labels.
        let method = self.gate.limits.method(name).cloned();
        let label = method.as_ref().map_or_else(|| "unknown".into(), |method| Arc::clone(&method.name));
        let holding = Holding::new(self.gate.limits.room());
        let mut following = Following::begin(&self.gate.metrics, label, &holding, Arc::clone(&id), arrived);
        let span = tracing::info_span!("request", method = %following.method, request_id = %id);

        if let Some(client) = request.extensions_mut().remove::<Client>() {
            following.busy = Some(client.begin());
            request.extensions_mut().insert(client.tcp);
        }
        let client = client_of(request.extensions());
        match self.gate.admit(method.as_ref().is_some_and(|method| method.streaming), client) {
            Ok(stream) => following.stream = stream,
            Err(error) => {
                let refused = status::of(&error, &id);
                following.end(&refused);
                return Box::pin(async move { Ok(with_id(refused.into_http(), &id)) });
            }
        }
        let client_deadline = grpc_timeout(request.headers()).and_then(|t| arrived.checked_add(t));
        let is_long = method.as_ref().is_some_and(|method| method.long);
        let ours = arrived + if is_long { LONG } else { self.gate.request_timeout };
        let deadline = client_deadline.map_or(ours, |d| d.min(ours));
        let context = Request {
            id: Arc::clone(&id),
            deadline,
            client_deadline,
            stream_idle_timeout: self.gate.stream_idle_timeout,
            client,
            request_timeout: self.gate.request_timeout,
            limits: Arc::clone(&self.gate.limits),
            holding: Arc::clone(&holding),
        };
        request.extensions_mut().insert(context.clone());
        if let Some(method) = method {
            let (limits, held_by) = (Arc::clone(&self.gate.limits), Arc::clone(&holding));
            let request_id = Arc::clone(&id);
            request = request
                .map(|body| Body::new(Inbound::new(body, limits, method, held_by, request_id, deadline)));
        }
        let work = async move {
            let response = inner.call(request).await?;
            // What is left is to send the answer, at the client's pace.
            holding.worked();
            let response = match Status::from_header_map(response.headers()) {
                // The answer follows in the body, and the status after it.
                None => response.map(|body| Body::new(FollowedBody { body, following })),
                Some(refused) => {
                    let told_by_us = !refused.details().is_empty();
                    let refused = context.retell(refused, "the request");
                    following.end(&refused);
                    if told_by_us { response } else { refused.into_http() }
                }
            };
            Ok(with_id(response, &id))
        };
        Box::pin(work.instrument(span))
    }
}

/// A number for the connection that a request came over; 0 within one process.
fn client_of(extensions: &http::Extensions) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let address = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    address.map_or(0, |address| {
        let mut hasher = DefaultHasher::new();
        address.hash(&mut hasher);
        hasher.finish()
    })
}

/// The client's id for this request if it is short and harmless in a log, else a new one.
fn request_id(headers: &http::HeaderMap) -> Arc<str> {
    let sane = |id: &&str| {
        (1..=128).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b))
    };
    if let Some(id) = headers.get(REQUEST_ID).and_then(|v| v.to_str().ok()).filter(sane) {
        return id.into();
    }
    // Different from those of the process before; the counter makes it different within this one.
    static PROCESS: OnceLock<u32> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(|| {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(std::process::id()) as u32
    });
    format!("{process:08x}-{}", NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

fn with_id(mut response: http::Response<Body>, id: &str) -> http::Response<Body> {
    if let Ok(value) = http::HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// `grpc-timeout`: up to eight digits and a unit. What cannot be read is no timeout, as in tonic.
fn grpc_timeout(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
