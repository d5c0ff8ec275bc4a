//! The gate in front of a service whose every answer is decided by the test.

use std::convert::Infallible;

use tokio::sync::oneshot;
use tower::ServiceExt;

use super::*;

impl Request {
    /// A context that limits nothing but what is given.
    pub(crate) fn for_tests(client_deadline: Option<Instant>) -> Self {
        let timeout = Duration::from_secs(60);
        Request {
            id: "test".into(),
            deadline: client_deadline.unwrap_or_else(|| Instant::now() + timeout),
            client_deadline,
            client: 0,
            request_timeout: timeout,
            message_bytes_max: 1 << 10,
        }
    }
}

fn gate(concurrent: usize) -> (Arc<Gate>, CancellationToken) {
    let mut config = Config::default();
    config.limits.concurrent_requests_max = concurrent;
    let draining = CancellationToken::new();
    (Arc::new(Gate::new(&config, Arc::new(Metrics::new("")), draining.clone())), draining)
}

fn request(path: &str) -> http::Request<Body> {
    http::Request::builder().uri(path).body(Body::empty()).unwrap()
}

const COUNT: &str = "/distilface.v1.Documents/Count";

/// A service that answers with `response` when it is told to.
fn answering(
    gate: &Arc<Gate>,
    told: oneshot::Receiver<()>,
    response: http::Response<Body>,
) -> Admit<tower::util::BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>> {
    let once = Arc::new(std::sync::Mutex::new(Some((told, response))));
    let inner = tower::service_fn(move |_: http::Request<Body>| {
        let (told, response) = once.lock().unwrap().take().expect("asked once");
        async move {
            let _ = told.await;
            Ok(response)
        }
    });
    AdmitLayer(Arc::clone(gate)).layer(tower::util::BoxCloneSyncService::new(inner))
}

fn at_once() -> oneshot::Receiver<()> {
    oneshot::channel().1
}

fn with_status(code: &str) -> http::Response<Body> {
    http::Response::builder().header(GRPC_STATUS, code).body(Body::empty()).unwrap()
}

fn code(response: &http::Response<Body>) -> Option<Code> {
    status_in(response.headers())
}

#[tokio::test]
async fn one_request_too_many_is_refused_at_once_and_health_is_not() {
    let (gate, _) = gate(1);
    let (tell, told) = oneshot::channel();
    let first = tokio::spawn(answering(&gate, told, with_status("0")).oneshot(request(COUNT)));
    while gate.permits.available_permits() > 0 {
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
async fn a_stream_keeps_its_permit_until_its_last_byte() {
    let (gate, _) = gate(1);
    let body = http::Response::new(Body::new("the stream's messages".to_owned()));
    let response = answering(&gate, at_once(), body).oneshot(request(COUNT)).await.unwrap();
    assert_eq!(gate.permits.available_permits(), 0);
    drop(response);
    assert_eq!(gate.permits.available_permits(), 1);
}

#[tokio::test]
async fn a_dropped_request_gives_its_permit_back() {
    let (gate, _) = gate(1);
    let (_tell, told) = oneshot::channel();
    let waiting = answering(&gate, told, with_status("0")).oneshot(request(COUNT));
    let result = tokio::time::timeout(Duration::from_millis(10), waiting).await;
    assert!(result.is_err());
    assert_eq!(gate.permits.available_permits(), 1);
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
        assert_eq!(&*gate.method(&format!("{PACKAGE}{method}")), method);
    }
    assert_eq!(&*gate.method("/distilface.v1.Documents/Nonsense"), "unknown");
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
            let context = request.extensions().get::<Request>().unwrap();
            let left = context.caller().deadline.unwrap() - Instant::now();
            assert_eq!(left <= Duration::from_millis(10), client);
            assert!(left <= Config::default().server.request_timeout);
            Ok::<_, Infallible>(with_status("0"))
        });
        let mut request = request(COUNT);
        request.headers_mut().insert(GRPC_TIMEOUT, timeout.parse().unwrap());
        AdmitLayer(Arc::clone(&gate)).layer(inner).oneshot(request).await.unwrap();
    }
}

#[tokio::test]
async fn work_past_the_deadline_is_dropped_and_answered_as_timeout() {
    let context = Request::for_tests(Some(Instant::now() + Duration::from_millis(5)));
    let (alive, dropped) = oneshot::channel::<()>();
    let work = async move {
        let _alive = alive;
        std::future::pending::<Result<crate::proto::CountResponse, Error>>().await
    };
    let status = context.answer(work).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(dropped.await.is_err(), "the work outlived its deadline");
}

#[tokio::test]
async fn an_answer_over_the_message_limit_is_refused() {
    let context = Request::for_tests(None);
    let answer = crate::proto::SetAliasResponse { previous: "x".repeat(2000) };
    let status = context.answer(async { Ok(answer) }).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("ask for less"), "{status}");
}

#[test]
fn each_message_of_a_stream_has_its_own_time_but_not_past_the_clients() {
    let mut context = Request::for_tests(None);
    context.deadline = Instant::now();
    assert!(context.next_message().deadline > Instant::now() + Duration::from_secs(30));
    let end = Instant::now() + Duration::from_secs(1);
    assert_eq!(Request::for_tests(Some(end)).next_message().deadline, end);
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
