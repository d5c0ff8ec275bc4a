//! What every request passes before and after its method: permit, id, deadline, size limits, span, metrics.
//!
//! [`AdmitLayer`] stands in front of all methods of `distilface.v1`: it refuses at once while the server drains
//! or works on `limits.concurrent_requests_max` requests, gives each request its [`Request`] context, and follows
//! the answer to its last byte (a stream keeps its permit and its place in the metrics until then).
//! [`Request::answer`] runs a method's body under the deadline and turns its failure into a status.
//! Health and reflection pass untouched, so a full server still says that it is alive.
//!
//! A client that goes away drops the future, and with it the work that has not begun.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::http;
use http_body::{Frame, SizeHint};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status, body::Body, transport::server::TcpConnectInfo};
use tower::{Layer, Service};
use tracing::Instrument;

use super::{ServerError, metrics::Metrics, status};
use crate::{
    Error,
    config::Config,
    engine::{Caller, EngineError},
};

/// Metadata that carries a request's id, both ways.
pub(crate) const REQUEST_ID: &str = "x-request-id";
const GRPC_STATUS: &str = "grpc-status";
/// Every status of ours has details; those that tonic makes by itself have none.
const GRPC_DETAILS: &str = "grpc-status-details-bin";
const GRPC_TIMEOUT: &str = "grpc-timeout";
/// A message of a stream has this many times the time of a request: it may hold a thousand long documents and waits
/// behind those before it.
const MESSAGE_PATIENCE: u32 = 10;
const PACKAGE: &str = "/distilface.v1.";

/// What all requests of a server share.
#[derive(Debug)]
pub(crate) struct Gate {
    permits: Arc<Semaphore>,
    concurrent_max: usize,
    message_bytes_max: usize,
    request_timeout: Duration,
    /// `Service/Method` of everything in the package, so that metrics have a bounded number of labels.
    methods: Vec<String>,
    metrics: Arc<Metrics>,
    draining: CancellationToken,
}

impl Gate {
    pub(crate) fn new(config: &Config, metrics: Arc<Metrics>, draining: CancellationToken) -> Self {
        Gate {
            permits: Arc::new(Semaphore::new(config.limits.concurrent_requests_max)),
            concurrent_max: config.limits.concurrent_requests_max,
            message_bytes_max: config.limits.message_bytes_max,
            request_timeout: config.server.request_timeout,
            methods: methods(),
            metrics,
            draining,
        }
    }

    fn admit(&self) -> Result<OwnedSemaphorePermit, Error> {
        if self.draining.is_cancelled() {
            return Err(EngineError::Closing.into());
        }
        Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|_| ServerError::TooManyRequests { limit: self.concurrent_max }.into())
    }

    fn method(&self, path: &str) -> Arc<str> {
        let name = path.strip_prefix(PACKAGE).unwrap_or_default();
        if self.methods.iter().any(|m| m == name) { name.into() } else { "unknown".into() }
    }
}

/// `Service/Method` of every method in the descriptors.
fn methods() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(crate::proto::FILE_DESCRIPTOR_SET)
        .expect("the descriptors were written by our own build");
    let services = set.file.into_iter().filter(|f| f.package() == "distilface.v1").flat_map(|f| f.service);
    services
        .flat_map(|s| {
            let service = s.name().to_owned();
            s.method.into_iter().map(move |m| format!("{service}/{}", m.name()))
        })
        .collect()
}

/// One request's id and deadlines; every method takes it out of the message that it is given.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) id: Arc<str>,
    /// Until when one message is worth its cost.
    deadline: Instant,
    /// What the client itself set: the only deadline of a whole stream.
    pub(crate) client_deadline: Option<Instant>,
    /// Of the connection it came over.
    client: u64,
    request_timeout: Duration,
    message_bytes_max: usize,
}

impl Request {
    /// The context and the message of a request that came through [`AdmitLayer`].
    pub(crate) fn open<T>(request: tonic::Request<T>) -> (Self, T) {
        let (_, mut extensions, message) = request.into_parts();
        let context =
            extensions.remove().expect("every method stands behind the layer that inserts its context");
        (context, message)
    }

    /// For the engine.
    pub(crate) fn caller(&self) -> Caller {
        Caller { deadline: Some(self.deadline), client: self.client }
    }

    /// The same request with the deadline of a message that comes in now: a stream may last as long as its client
    /// lets it, its messages may not.
    pub(crate) fn next_message(&self) -> Self {
        let fresh = Instant::now() + self.request_timeout * MESSAGE_PATIENCE;
        Request { deadline: self.client_deadline.map_or(fresh, |d| d.min(fresh)), ..self.clone() }
    }

    /// Waits for a method's body, no longer than the deadline, and makes it an answer.
    pub(crate) async fn answer<T: Message>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        self.within_deadline(work).await.map(Response::new).map_err(|error| self.refuse(&error))
    }

    /// Waits for `work`, no longer than the deadline; an answer that no client would take is a refusal.
    ///
    /// # Errors
    /// [`EngineError::Expired`], [`ServerError::AnswerTooLarge`], those of `work`.
    pub(crate) async fn within_deadline<T: Message>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let answer = tokio::time::timeout_at(self.deadline.into(), work)
            .await
            .unwrap_or_else(|_| Err(EngineError::Expired.into()))?;
        let got = answer.encoded_len();
        if got > self.message_bytes_max {
            return Err(ServerError::AnswerTooLarge { got, limit: self.message_bytes_max }.into());
        }
        Ok(answer)
    }

    /// The refusal of a message over the limit.
    pub(crate) fn message_too_large(&self) -> Error {
        ServerError::MessageTooLarge { limit: self.message_bytes_max }.into()
    }

    /// What the client hears of a failure.
    pub(crate) fn refuse(&self, error: &Error) -> Status {
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

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
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
        let mut following = Following::begin(&self.gate, request.uri().path(), Arc::clone(&id), arrived);
        let span = tracing::info_span!("request", method = %following.method, request_id = %id);

        let permit = match self.gate.admit() {
            Ok(permit) => permit,
            Err(error) => {
                let refused = status::of(&error, &id);
                following.end(refused.code());
                return Box::pin(async move { Ok(with_id(refused.into_http(), &id)) });
            }
        };
        following.permit = Some(permit);
        let client_deadline = grpc_timeout(request.headers()).and_then(|t| arrived.checked_add(t));
        let ours = arrived + self.gate.request_timeout;
        let client = client_of(request.extensions());
        request.extensions_mut().insert(Request {
            id: Arc::clone(&id),
            deadline: client_deadline.map_or(ours, |d| d.min(ours)),
            client_deadline,
            client,
            request_timeout: self.gate.request_timeout,
            message_bytes_max: self.gate.message_bytes_max,
        });
        let message_bytes_max = self.gate.message_bytes_max;
        let work = async move {
            let response = inner.call(request).await?;
            let response = match status_in(response.headers()) {
                // The answer follows in the body, and the status after it.
                None => response.map(|body| Body::new(FollowedBody { body, following })),
                Some(code)
                    if status::is_oversized(code) && !response.headers().contains_key(GRPC_DETAILS) =>
                {
                    let refused = ServerError::MessageTooLarge { limit: message_bytes_max };
                    let refused = status::of(&refused.into(), &id);
                    following.end(refused.code());
                    refused.into_http()
                }
                Some(code) => {
                    following.end(code);
                    response
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

fn status_in(headers: &http::HeaderMap) -> Option<Code> {
    headers.get(GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
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

/// Follows one request to its end, which is counted and logged once; dropped before, it was cancelled.
#[derive(Debug)]
struct Following {
    metrics: Arc<Metrics>,
    method: Arc<str>,
    id: Arc<str>,
    arrived: Instant,
    permit: Option<OwnedSemaphorePermit>,
    ended: bool,
}

impl Following {
    fn begin(gate: &Gate, path: &str, id: Arc<str>, arrived: Instant) -> Self {
        gate.metrics.began();
        let metrics = Arc::clone(&gate.metrics);
        Following { metrics, method: gate.method(path), id, arrived, permit: None, ended: false }
    }

    fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.permit = None;
        let (code, elapsed) = (status::code_name(code), self.arrived.elapsed());
        self.metrics.ended(&self.method, code, elapsed);
        tracing::debug!(
            method = %self.method,
            request_id = %self.id,
            code,
            elapsed_ms = elapsed.as_secs_f64() * 1e3,
            "request ended"
        );
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// An answer that is followed to its trailers.
struct FollowedBody {
    body: Body,
    following: Following,
}

impl http_body::Body for FollowedBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.following.end(status_in(trailers).unwrap_or(Code::Ok));
                }
            }
            Some(Err(status)) => self.following.end(status.code()),
            None => self.following.end(Code::Ok),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
