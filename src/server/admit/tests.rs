//! The gate in front of a service whose every answer is decided by the test.

use crate::error::Fault as _;
use std::convert::Infallible;

use http_body::{Body as _, Frame};
use tokio::sync::oneshot;
use tonic::Code;
use tower::ServiceExt;

use super::*;

impl Request {
    /// A context that limits nothing but what is given.
    pub(crate) fn for_tests(client_deadline: Option<Instant>) -> Self {
        let mut config = Config::default();
        config.limits.message_bytes_max = 1 << 10;
        let gate = Gate::new(&config, Arc::new(Metrics::new("")), CancellationToken::new());
        let timeout = Duration::from_secs(60);
        Request {
            id: "test".into(),
            deadline: client_deadline.unwrap_or_else(|| Instant::now() + timeout),
            client_deadline,
            stream_idle_timeout: timeout,
            client: 0,
            request_timeout: timeout,
            holding: Holding::new(gate.limits.room()),
            limits: gate.limits,
        }
    }
}

fn gate(concurrent: usize) -> (Arc<Gate>, CancellationToken) {
    let mut config = Config::default();
    config.limits.concurrent_requests_max = concurrent;
    let draining = CancellationToken::new();
    (Arc::new(Gate::new(&config, Arc::new(Metrics::new("")), draining.clone())), draining)
}

/// With a message of no bytes, as every message of default values is.
fn request(path: &str) -> http::Request<Body> {
    http::Request::builder().uri(path).body(Body::new("\0\0\0\0\0".to_owned())).unwrap()
}

const COUNT: &str = "/distilface.v1.Documents/Count";

/// A service that reads the request, as all of tonic's do, and answers with `response` when it is told to.
fn answering(
    gate: &Arc<Gate>,
    told: oneshot::Receiver<()>,
    response: http::Response<Body>,
) -> Admit<tower::util::BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>> {
    let once = Arc::new(std::sync::Mutex::new(Some((told, response))));
    let inner = tower::service_fn(move |request: http::Request<Body>| {
        let (told, response) = once.lock().unwrap().take().expect("asked once");
        async move {
            if let Err(refused) = read(request.into_body()).await {
                return Ok(refused.into_http());
            }
            let _ = told.await;
            Ok(response)
        }
    });
    AdmitLayer(Arc::clone(gate)).layer(tower::util::BoxCloneSyncService::new(inner))
}

/// Every byte of a body, or what it was refused with.
async fn read(body: Body) -> Result<Vec<u8>, Status> {
    let mut body = std::pin::pin!(body);
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        bytes.extend_from_slice(&frame?.into_data().expect("no trailers"));
    }
    Ok(bytes)
}

fn at_once() -> oneshot::Receiver<()> {
    oneshot::channel().1
}

fn with_status(code: &str) -> http::Response<Body> {
    http::Response::builder().header("grpc-status", code).body(Body::empty()).unwrap()
}

fn code(response: &http::Response<Body>) -> Option<Code> {
    Status::from_header_map(response.headers()).map(|status| status.code())
}

#[tokio::test]
async fn one_request_too_many_is_refused_at_once_and_health_is_not() {
    let (gate, _) = gate(1);
    let (tell, told) = oneshot::channel();
    let first = tokio::spawn(answering(&gate, told, with_status("0")).oneshot(request(COUNT)));
    while gate.limits.permits.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let second = answering(&gate, at_once(), with_status("0")).oneshot(request(COUNT)).await.unwrap();
    assert_eq!(code(&second), Some(Code::ResourceExhausted));
    let health = request("/grpc.health.v1.Health/Check");
    let health = answering(&gate, at_once(), with_status("0")).oneshot(health).await.unwrap();
    assert_eq!(code(&health), Some(Code::Ok));

    tell.send(()).unwrap();
    assert_eq!(code(&first.await.unwrap().unwrap()), Some(Code::Ok));
    let third = answering(&gate, at_once(), with_status("0")).oneshot(request(COUNT)).await.unwrap();
    assert_eq!(code(&third), Some(Code::Ok), "the permit did not come back");
}

#[tokio::test]
async fn a_draining_server_refuses_with_unavailable() {
    let (gate, draining) = gate(1);
    draining.cancel();
    let response = answering(&gate, at_once(), with_status("0")).oneshot(request(COUNT)).await.unwrap();
    assert_eq!(code(&response), Some(Code::Unavailable));
}

#[tokio::test]
async fn an_answer_that_is_made_holds_no_permit_however_slowly_it_is_read() {
    let (gate, _) = gate(1);
    let body = http::Response::new(Body::new("the answer".to_owned()));
    let response = answering(&gate, at_once(), body).oneshot(request(COUNT)).await.unwrap();
    assert_eq!(gate.limits.permits.available_permits(), 1);
    drop(response);
}

/// A body of which the test sends part after part.
fn slow_body() -> (tokio::sync::mpsc::Sender<Vec<u8>>, Body) {
    struct Parts(tokio::sync::mpsc::Receiver<Vec<u8>>);
    impl http_body::Body for Parts {
        type Data = bytes::Bytes;
        type Error = Status;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut task::Context<'_>,
        ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
            self.0.poll_recv(cx).map(|part| part.map(|part| Ok(Frame::data(part.into()))))
        }
    }
    let (parts, receiver) = tokio::sync::mpsc::channel(64);
    (parts, Body::new(Parts(receiver)))
}

fn message(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0], &length[..], bytes].concat()
}

#[tokio::test]
async fn a_request_of_which_half_is_here_holds_no_permit() {
    let (gate, _) = gate(1);
    let (parts, body) = slow_body();
    let slow = http::Request::builder().uri(COUNT).body(body).unwrap();
    let slow = tokio::spawn(answering(&gate, at_once(), with_status("0")).oneshot(slow));
    parts.send(message(&[0x0a, 1, b'c'])[..6].to_vec()).await.unwrap();
    tokio::task::yield_now().await;
    let other = answering(&gate, at_once(), with_status("0")).oneshot(request(COUNT)).await.unwrap();
    assert_eq!(code(&other), Some(Code::Ok));
    parts.send(message(&[0x0a, 1, b'c'])[6..].to_vec()).await.unwrap();
    drop(parts);
    assert_eq!(code(&slow.await.unwrap().unwrap()), Some(Code::Ok));
}

#[tokio::test]
async fn a_request_that_never_ends_is_given_up() {
    for sent in [&[][..], &[0, 0, 0]] {
        let (gate, _) = gate(1);
        let (parts, body) = slow_body();
        parts.send(sent.to_vec()).await.unwrap();
        let slow = http::Request::builder().uri(COUNT).body(body).unwrap();
        let response = answering(&gate, at_once(), with_status("0")).oneshot(slow).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains("nothing more"), "{status}");
    }
}

#[tokio::test]
async fn bad_bytes_are_refused_before_they_are_decoded() {
    let two = [message(&[]), message(&[])].concat();
    let cut = message(&[0x0a, 1, b'c'])[..7].to_vec();
    let large = [&[0][..], &u32::MAX.to_be_bytes()].concat();
    let bomb = message(&[0x12, 0].repeat(1_000_000));
    for (path, bytes, expected, word) in [
        (COUNT, message(&[0x0a, 9]), Code::InvalidArgument, "cut off"),
        (COUNT, two, Code::InvalidArgument, "one message"),
        (COUNT, cut, Code::InvalidArgument, "ends in the middle"),
        (COUNT, large, Code::OutOfRange, "limits.message_bytes_max"),
        ("/distilface.v1.Documents/Upsert", bomb, Code::InvalidArgument, "so many parts"),
    ] {
        let (gate, _) = gate(1);
        let (parts, body) = slow_body();
        for part in bytes.chunks(bytes.len().div_ceil(8)) {
            parts.send(part.to_vec()).await.unwrap();
        }
        drop(parts);
        let request = http::Request::builder().uri(path).body(body).unwrap();
        let response = answering(&gate, at_once(), with_status("0")).oneshot(request).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), expected, "{status}");
        assert!(status.message().contains(word), "{status}");
        assert!(!status.details().is_empty());
        drop(response);
        assert_eq!(gate.limits.budget.free_bytes(), gate.limits.budget.bytes_max());
    }
}

#[tokio::test]
async fn calls_that_do_not_fit_are_refused_and_streams_wait() {
    let (gate, _) = gate(1);
    let all = gate.limits.budget.reserve(gate.limits.budget.bytes_max()).unwrap();
    let named = [&[0x0a, 3][..], b"abc"].concat();
    let with_name = |path| {
        let body = String::from_utf8(message(&named)).expect("short lengths are ASCII");
        http::Request::builder().uri(path).body(Body::new(body)).unwrap()
    };
    let refused = answering(&gate, at_once(), with_status("0")).oneshot(with_name(COUNT)).await.unwrap();
    let status = Status::from_header_map(refused.headers()).unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("limits.bytes_in_flight_max"), "{status}");

    let stream = with_name("/distilface.v1.Documents/Ingest");
    let waiting = tokio::spawn(answering(&gate, at_once(), with_status("0")).oneshot(stream));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(all);
    assert_eq!(code(&waiting.await.unwrap().unwrap()), Some(Code::Ok));
}

#[tokio::test]
async fn a_message_of_a_stream_that_stalls_holds_what_came_of_it() {
    let (gate, _) = gate(1);
    let (budget, large) = (&gate.limits.budget, gate.limits.message_bytes_max / 2);
    let whole = message(&[&[0x0a, 3][..], b"abc"].concat());
    let announce = [&[0][..], &u32::try_from(large).unwrap().to_be_bytes()].concat();
    let open = |body| {
        let stream = http::Request::builder().uri("/distilface.v1.Documents/Ingest").body(body).unwrap();
        tokio::spawn(answering(&gate, at_once(), with_status("0")).oneshot(stream))
    };
    // What was announced is not what is held.
    let mut stalled = Vec::new();
    for _ in 0..17 {
        let (parts, body) = slow_body();
        parts.send([&announce[..], &[0x0a, 3, b'a']].concat()).await.unwrap();
        stalled.push((parts, open(body)));
    }
    let (parts, body) = slow_body();
    parts.send(whole.clone()).await.unwrap();
    drop(parts);
    assert_eq!(code(&open(body).await.unwrap().unwrap()), Some(Code::Ok));
    assert_eq!(budget.free_bytes(), budget.bytes_max());
    drop(stalled);
    // Once a part is here all is reserved, and given back while nothing more comes.
    let (parts, body) = slow_body();
    let text = [&[0x1a, 0x80, 0x80, 0x04][..], &[b'a'; 1 << 16]].concat();
    let document = [&[0x1a, 0x84, 0x80, 0x04][..], &text].concat();
    let bytes = message(&document);
    parts.send(bytes[..20_000].to_vec()).await.unwrap();
    let slow = open(body);
    let free = async |least: usize, most: usize| {
        while !(least..=most).contains(&(budget.bytes_max() - budget.free_bytes())) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    free(6 * 19_000, 6 * 21_000).await;
    parts.send(bytes[20_000..].to_vec()).await.unwrap();
    drop(parts);
    assert_eq!(code(&slow.await.unwrap().unwrap()), Some(Code::Ok));
}

#[tokio::test]
async fn the_streams_of_one_client_are_bounded_and_those_of_all() {
    let mut config = Config::default();
    (config.limits.streams_per_client_max, config.limits.streams_max) = (2, 3);
    let gate = Arc::new(Gate::new(&config, Arc::new(Metrics::new("")), CancellationToken::new()));
    let (first, _second) = (gate.admit(true, 1).unwrap(), gate.admit(true, 1).unwrap());
    let error = gate.admit(true, 1).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Overloaded);
    assert!(error.to_string().contains("limits.streams_per_client_max"), "{error}");
    let _third = gate.admit(true, 2).unwrap();
    let error = gate.admit(true, 3).unwrap_err();
    assert!(error.to_string().contains("limits.streams_max"), "{error}");
    drop(first);
    gate.admit(true, 1).unwrap();
    gate.admit(false, 1).unwrap();
}

#[tokio::test]
async fn a_dropped_request_gives_its_permit_back() {
    let (gate, _) = gate(1);
    let (_tell, told) = oneshot::channel();
    let waiting = answering(&gate, told, with_status("0")).oneshot(request(COUNT));
    let result = tokio::time::timeout(Duration::from_millis(10), waiting).await;
    assert!(result.is_err());
    assert_eq!(gate.limits.permits.available_permits(), 1);
}

#[tokio::test]
async fn the_clients_id_comes_back_and_a_wild_one_is_replaced() {
    let (gate, _) = gate(1);
    for (sent, kept) in
        [("trace-1:a/b.c_d", true), ("two words", false), ("", false), (&"x".repeat(129), false)]
    {
        let mut request = request(COUNT);
        request.headers_mut().insert(REQUEST_ID, sent.parse().unwrap());
        let response = answering(&gate, at_once(), with_status("5")).oneshot(request).await.unwrap();
        let id = response.headers()[REQUEST_ID].to_str().unwrap();
        assert_eq!(id == sent, kept, "{sent:?} became {id:?}");
        assert!(!id.is_empty());
    }
}

#[test]
fn made_ids_differ() {
    let headers = http::HeaderMap::new();
    assert_ne!(request_id(&headers), request_id(&headers));
}

#[tokio::test]
async fn tonics_refusal_of_an_oversized_message_is_told_in_our_words() {
    let (gate, _) = gate(1);
    let response = answering(&gate, at_once(), with_status("11")).oneshot(request(COUNT)).await.unwrap();
    assert_eq!(code(&response), Some(Code::OutOfRange));
    let message = response.headers()["grpc-message"].to_str().unwrap();
    assert!(message.contains("limits.message_bytes_max"), "{message}");
}

#[test]
fn every_method_of_the_package_has_its_name_in_the_metrics() {
    let (gate, _) = gate(1);
    for method in ["Collections/Create", "Documents/Ingest", "Search/SearchBatch", "Encoder/Embed"] {
        assert_eq!(&*gate.limits.method(method).unwrap().name, method);
    }
    assert!(gate.limits.method("Documents/Nonsense").is_none());
}

#[test]
fn timeouts_are_read_as_grpc_writes_them() {
    for (text, expected) in [
        ("2H", Some(Duration::from_secs(7200))),
        ("3M", Some(Duration::from_secs(180))),
        ("4S", Some(Duration::from_secs(4))),
        ("150m", Some(Duration::from_millis(150))),
        ("7u", Some(Duration::from_micros(7))),
        ("9n", Some(Duration::from_nanos(9))),
        ("", None),
        ("S", None),
        ("1", None),
        ("-1S", None),
        ("123456789S", None),
        ("1x", None),
    ] {
        let mut headers = http::HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, text.parse().unwrap());
        assert_eq!(grpc_timeout(&headers), expected, "{text:?}");
    }
}

#[tokio::test]
async fn the_nearer_deadline_counts() {
    let (gate, _) = gate(1);
    for (timeout, client) in [("10m", true), ("9999H", false)] {
        let inner = tower::service_fn(move |request: http::Request<Body>| async move {
            let context = request.extensions().get::<Request>().unwrap().clone();
            let left = context.deadline - Instant::now();
            assert_eq!(left <= Duration::from_millis(10), client);
            assert!(left <= Config::default().server.request_timeout);
            Ok::<_, Infallible>(with_status("0"))
        });
        let mut request = request(COUNT);
        request.headers_mut().insert(GRPC_TIMEOUT, timeout.parse().unwrap());
        AdmitLayer(Arc::clone(&gate)).layer(inner).oneshot(request).await.unwrap();
    }
}

#[test]
fn each_connection_is_a_client_of_its_own() {
    let from = |port: u16| {
        let mut extensions = http::Extensions::new();
        let remote_addr = Some(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
        extensions.insert(TcpConnectInfo { local_addr: None, remote_addr });
        client_of(&extensions)
    };
    assert_eq!(from(4000), from(4000));
    assert_ne!(from(4000), from(4001));
    assert_eq!(client_of(&http::Extensions::new()), 0);
}
