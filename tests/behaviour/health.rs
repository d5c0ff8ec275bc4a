//! Health, reflection, metrics.

use std::collections::BTreeSet;

use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::harness::{Server, assert_refused, by_text, doc, http_get, soon};

const SERVICES: [&str; 5] = [
    "",
    "distilface.v1.Collections",
    "distilface.v1.Documents",
    "distilface.v1.Search",
    "distilface.v1.Encoder",
];

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_and_each_of_its_services_is_serving() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel.clone());
    for service in SERVICES {
        let answer = health.check(of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    assert_refused(health.check(of("nonsense")).await, Code::NotFound, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_hears_that_the_server_stops_and_does_not_hold_it_up() {
    let mut server =
        Server::start_with(|c| c.server.drain_timeout = std::time::Duration::from_secs(600)).await;
    let mut health = HealthClient::new(server.channel.clone());
    let mut watch = health.watch(of("distilface.v1.Search")).await.unwrap().into_inner();
    assert_eq!(soon(watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    let stopping = tokio::spawn(server.take().stop());
    let mut last = ServingStatus::Serving;
    // The stream ends, cleanly or with the connection.
    while let Ok(Some(answer)) = soon(watch.message()).await {
        last = answer.status();
    }
    assert_eq!(last, ServingStatus::NotServing);
    soon(stopping).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_every_service_in_both_versions() {
    let expected: BTreeSet<String> =
        SERVICES[1..].iter().copied().chain(["grpc.health.v1.Health"]).map(str::to_owned).collect();
    let server = Server::start().await;

    use tonic_reflection::pb::v1;
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = soon(answers.next()).await.unwrap().unwrap().message_response.unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let listed: BTreeSet<_> = list.service.into_iter().map(|s| s.name).collect();
    assert!(listed.is_superset(&expected), "{listed:?}");

    use tonic_reflection::pb::v1alpha;
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = soon(answers.next()).await.unwrap().unwrap().message_response.unwrap();
    let v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let listed: BTreeSet<_> = list.service.into_iter().map(|s| s.name).collect();
    assert!(listed.is_superset(&expected), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_happened() {
    let mut server = Server::with_collection().await;
    server.upsert("c", vec![doc("1", "a cat"), doc("2", "a dog")]).await;
    server.upsert("c", vec![doc("1", "a cat")]).await;
    server.find(by_text("c", "a cat", 1)).await;
    let refused = server.search.search(by_text("nowhere", "a cat", 1)).await;
    assert_refused(refused, Code::NotFound, &[]);
    for line in [
        "distilface_requests_total{method=\"Search/Search\",code=\"OK\"} 1",
        "distilface_requests_total{method=\"Search/Search\",code=\"NOT_FOUND\"} 1",
        "distilface_requests_total{method=\"Documents/Upsert\",code=\"OK\"} 2",
        "distilface_request_seconds_count{method=\"Documents/Upsert\"} 2",
        "distilface_documents_total{status=\"inserted\"} 2",
        "distilface_documents_total{status=\"unchanged\"} 1",
        "distilface_encoded_texts_total 3",
        "distilface_collection_documents{collection=\"c\"} 2",
        "distilface_collection_passages{collection=\"c\"} 2",
        "distilface_healthy 1",
        "distilface_encoder_waiting_texts 0",
        "distilface_requests_in_flight 0",
    ] {
        server.metrics_have(line).await;
    }
    let health = http_get(server.running().metrics_address.unwrap(), "/healthz").await;
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("ok\n"), "{health}");
}
