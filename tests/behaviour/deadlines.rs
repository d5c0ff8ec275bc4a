//! Deadlines, cancellation, concurrency.

use std::time::{Duration, Instant};

use distilface::{proto, rpc::documents_client::DocumentsClient};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    harness::{Server, assert_refused, by_text, doc, eventually, soon},
    ingest::Ingest,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_past_its_deadline_is_answered_with_timeout() {
    let mut server = Server::with_collection().await;
    server.upsert("c", vec![doc("1", "a cat")]).await;
    let mut server =
        server.restart_with(|config| config.server.request_timeout = Duration::from_nanos(1)).await;
    let status = server.search.search(by_text("c", "a cat", 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "TIMEOUT");
    let request = proto::UpsertRequest {
        collection: "c".into(),
        documents: vec![doc("2", "a dog")],
        ..Default::default()
    };
    assert_refused(server.documents.upsert(request).await, Code::DeadlineExceeded, &[]);
    server.metrics_have("distilface_requests_in_flight 0").await;
    let mut server =
        server.restart_with(|config| config.server.request_timeout = Duration::from_secs(60)).await;
    assert_eq!(server.find(by_text("c", "a cat", 1)).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_the_timeout_of_a_request() {
    let timeout = Duration::from_millis(500);
    let server = Server::with_collection().await;
    let server = server.restart_with(|config| config.server.request_timeout = timeout).await;
    let mut ingest = Ingest::open(&server).await;
    let opened = Instant::now();
    eventually("the timeout passed", async || opened.elapsed() > timeout * 2).await;
    ingest.send(1, vec![doc("1", "a cat")]).await;
    assert_eq!(ingest.answer().await.unwrap().unwrap().sequence, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_at_the_deadline_that_its_client_set() {
    let server = Server::with_collection().await;
    let (requests, outgoing) = tokio::sync::mpsc::channel::<proto::IngestRequest>(1);
    let mut request = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(outgoing));
    request.set_timeout(Duration::from_millis(300));
    let mut answers = server.documents.clone().ingest(request).await.unwrap().into_inner();
    // The server ends it: the client's library only watches over the beginning of the answer.
    let ended = soon(answers.message()).await;
    assert_refused(ended, Code::DeadlineExceeded, &["deadline"]);
    drop(requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_refuses_at_once_and_says_when_to_come_back() {
    let mut server = Server::start_with(|config| config.limits.concurrent_requests_max = 1).await;
    server.create("c").await;
    // A stream that is open and has nothing in work keeps nobody out.
    let client = ElsewhereClient::ingesting(server.running().address).await;
    server.search.search(by_text("c", "a cat", 1)).await.unwrap();
    let texts: Vec<String> =
        (0..1024).map(|i| format!("{i} {}", "the cat and the dog ".repeat(200))).collect();
    let mut encoder = server.encoder.clone();
    let call = tokio::spawn(async move {
        // It may itself come while a search is there.
        loop {
            let request = proto::EmbedRequest { texts: texts.clone(), ..Default::default() };
            if encoder.embed(request).await.is_ok() {
                break;
            }
        }
    });
    let mut refused = None;
    eventually("the server is full", async || {
        refused = server.search.search(by_text("c", "a cat", 1)).await.err();
        refused.is_some()
    })
    .await;
    let status = refused.unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("concurrent_requests_max"), "{status}");
    let details = status.get_error_details();
    assert!(details.retry_info().unwrap().retry_delay.is_some());

    let mut health = tonic_health::pb::health_client::HealthClient::new(server.channel.clone());
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();

    // A client that goes away gives its place back.
    call.abort();
    drop(client);
    eventually("the place is free", async || server.search.search(by_text("c", "a cat", 1)).await.is_ok())
        .await;
    server.metrics_have("distilface_requests_total{method=\"Documents/Ingest\",code=\"CANCELLED\"} 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_during_a_request_cancels_it() {
    let server = Server::start().await;
    let texts: Vec<String> =
        (0..1024).map(|i| format!("{i} {}", "the cat and the dog ".repeat(200))).collect();
    let mut encoder = server.encoder.clone();
    let call =
        tokio::spawn(async move { encoder.embed(proto::EmbedRequest { texts, ..Default::default() }).await });
    server.metrics_have("distilface_requests_in_flight 1").await;
    call.abort();
    server.metrics_have("distilface_requests_in_flight 0").await;
    server.metrics_have("distilface_encoded_texts_total 0").await;
    let metrics = server.metrics().await;
    assert!(
        metrics.contains("method=\"Encoder/Embed\",code=") && !metrics.contains("code=\"OK\""),
        "{metrics}"
    );
}

/// A client with an open stream, in a runtime of its own: dropped, it goes as a killed process does.
struct ElsewhereClient(Option<tokio::runtime::Runtime>);

impl ElsewhereClient {
    async fn ingesting(address: std::net::SocketAddr) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (opened, is_open) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let mut documents = DocumentsClient::connect(format!("http://{address}")).await.unwrap();
            let _answers = documents.ingest(tokio_stream::pending()).await.unwrap();
            opened.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        soon(is_open).await.unwrap();
        ElsewhereClient(Some(runtime))
    }
}

impl Drop for ElsewhereClient {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}
