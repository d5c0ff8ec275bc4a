//! Streams that say nothing: they keep nobody out, are bounded by client, and end.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use distilface::{proto::IngestRequest, rpc::documents_client::DocumentsClient};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status,
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::Service as _;

use crate::{
    harness::{Server, by_text, call_raw, doc, soon, statuses},
    ingest::Ingest,
};

async fn connect(server: &Server) -> Channel {
    let address = format!("http://{}", server.running().address);
    Endpoint::from_shared(address).unwrap().connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_streams_keep_nobody_out_and_are_ended() {
    let mut server = Server::start_with(|config| {
        config.limits.concurrent_requests_max = 2;
        config.limits.streams_per_client_max = 64;
        config.server.stream_idle_timeout = Duration::from_secs(3);
    })
    .await;
    server.create("c").await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        let channel = connect(&server).await;
        for _ in 0..60 {
            let (requests, outgoing) = mpsc::channel::<IngestRequest>(1);
            let mut documents = DocumentsClient::new(channel.clone());
            let answers = soon(documents.ingest(ReceiverStream::new(outgoing))).await.unwrap().into_inner();
            silent.push((requests, answers));
        }
    }
    assert_eq!(silent.len(), 300);
    // Everybody else is served, by calls and by streams.
    server.upsert("c", vec![doc("1", "a cat")]).await;
    assert_eq!(server.find(by_text("c", "a cat", 1)).await.len(), 1);
    let mut ingest = Ingest::open(&server).await;
    ingest.send(1, vec![doc("2", "a dog")]).await;
    assert_eq!(statuses(&ingest.answer().await.unwrap().unwrap().results).len(), 1);
    drop(ingest);
    for (_requests, mut answers) in silent {
        let status = soon(answers.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(status.message().contains("server.stream_idle_timeout"), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_has_so_many_streams_and_another_has_its_own() {
    let server = Server::start_with(|config| config.limits.streams_per_client_max = 3).await;
    let (first, second) = (connect(&server).await, connect(&server).await);
    let open = async |channel: &Channel| {
        let (requests, outgoing) = mpsc::channel::<IngestRequest>(1);
        let mut documents = DocumentsClient::new(channel.clone());
        let answer = soon(documents.ingest(ReceiverStream::new(outgoing))).await;
        answer.map(|answers| (requests, answers.into_inner()))
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(open(&first).await.unwrap());
    }
    let status = open(&first).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("limits.streams_per_client_max"), "{status}");
    open(&second).await.unwrap();
    // A stream that ends makes room for another.
    let (requests, mut answers) = held.pop().unwrap();
    drop(requests);
    assert!(soon(answers.message()).await.unwrap().is_none());
    drop(answers);
    crate::harness::eventually("there is room for another stream", async || open(&first).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_message_in_the_middle_of_a_stream_ends_it_after_the_answers_before_it() {
    let server = Server::with_collection().await;
    let good = IngestRequest {
        collection: "c".into(),
        sequence: 7,
        documents: vec![doc("1", "a cat")],
        ..Default::default()
    };
    for (bad, word) in [(vec![0x1a, 4, 0x1a, 2, 0xc3, 0x28], "UTF-8"), (vec![0x1a, 100], "cut off")] {
        let mut grpc = tonic::client::Grpc::new(server.channel.clone());
        grpc.ready().await.unwrap();
        let path = "/distilface.v1.Documents/Ingest".parse().unwrap();
        let (requests, outgoing) = mpsc::channel(4);
        let (first, outgoing) = (prost::Message::encode_to_vec(&good), ReceiverStream::new(outgoing));
        let request = tonic::Request::new(outgoing);
        let mut answers =
            soon(grpc.streaming(request, path, crate::harness::Raw)).await.unwrap().into_inner();
        requests.send(first).await.unwrap();
        assert!(!soon(answers.message()).await.unwrap().unwrap().is_empty());
        requests.send(bad).await.unwrap();
        let status = soon(answers.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(word), "{word} is not in {status}");
    }
    // And nobody else notices.
    call_raw(&server.channel, "Collections/List", Vec::new()).await.unwrap();
}

/// The body of a request that begins with these bytes and never goes on.
struct Stalled(Option<Vec<u8>>);

impl http_body::Body for Stalled {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Status>>> {
        match self.0.take() {
            Some(bytes) => Poll::Ready(Some(Ok(http_body::Frame::data(bytes.into())))),
            None => Poll::Pending,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_announce_much_and_send_little_keep_nobody_out() {
    let mut server = Server::with_collection().await;
    let mut channel = connect(&server).await;
    let announced = [&[0][..], &(15_u32 << 20).to_be_bytes(), &[0x0a, 1, b'c']].concat();
    let mut stalled = Vec::new();
    for _ in 0..17 {
        let request = axum::http::Request::post("/distilface.v1.Documents/Ingest")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::new(Stalled(Some(announced.clone()))))
            .unwrap();
        soon(std::future::poll_fn(|cx| channel.poll_ready(cx))).await.unwrap();
        stalled.push(tokio::spawn(channel.call(request)));
    }
    server.metrics_have("distilface_requests_in_flight 17").await;
    server.upsert("c", vec![doc("1", "a cat")]).await;
    assert_eq!(server.find(by_text("c", "a cat", 1)).await.len(), 1);
    let mut ingest = Ingest::open(&server).await;
    ingest.send(1, vec![doc("2", "a dog")]).await;
    assert_eq!(statuses(&ingest.answer().await.unwrap().unwrap().results).len(), 1);
    // None of them had to be ended for that.
    server.metrics_have("distilface_requests_in_flight 18").await;
    drop((ingest, stalled));
}
