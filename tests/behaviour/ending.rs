//! The end of a server: what holds it up, and what does not.

use std::time::Duration;

use distilface::proto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Server, soon};

/// Far longer than a test may take: whoever waits for it fails.
const NEVER: Duration = Duration::from_secs(3600);

async fn patient() -> Server {
    Server::start_with(|config| config.server.drain_timeout = NEVER).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_does_not_hold_up_the_end() {
    let mut server = patient().await;
    let mut silent = tokio::net::TcpStream::connect(server.running().address).await.unwrap();
    // It was accepted before this one, which is answered.
    server.create("c").await;
    soon(server.stop()).await;
    // What the server said of itself, and the end: it is closed.
    let _ = soon(silent.read_to_end(&mut Vec::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_client_does_not_hold_up_the_end() {
    let mut server = patient().await;
    server.create("c").await;
    soon(server.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_answers_does_not_hold_up_the_end() {
    let mut server = patient().await;
    let mut deaf = tokio::net::TcpStream::connect(server.running().address).await.unwrap();
    // The preface of HTTP/2 and empty settings; then nothing, not even to the server's pings.
    deaf.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut settings = [0; 9];
    soon(deaf.read_exact(&mut settings)).await.unwrap();
    soon(server.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_runs_is_waited_for() {
    let mut server = patient().await;
    let texts: Vec<String> =
        (0..1024).map(|i| format!("{i} {}", "the cat and the dog ".repeat(60))).collect();
    let mut encoder = server.encoder.clone();
    let call =
        tokio::spawn(async move { encoder.embed(proto::EmbedRequest { texts, ..Default::default() }).await });
    server.metrics_have("distilface_requests_in_flight 1").await;
    soon(server.stop()).await;
    assert_eq!(soon(call).await.unwrap().unwrap().into_inner().embeddings.len(), 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_runs_too_long_is_cut_off() {
    let mut server =
        Server::start_with(|config| config.server.drain_timeout = Duration::from_millis(10)).await;
    let texts: Vec<String> =
        (0..1024).map(|i| format!("{i} {}", "the cat and the dog ".repeat(200))).collect();
    let mut encoder = server.encoder.clone();
    let call =
        tokio::spawn(async move { encoder.embed(proto::EmbedRequest { texts, ..Default::default() }).await });
    server.metrics_have("distilface_requests_in_flight 1").await;
    soon(server.stop()).await;
    assert!(soon(call).await.unwrap().is_err());
}
