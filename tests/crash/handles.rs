//! More connections than the process may have files open: the store goes on, and clients are served.

use std::net::TcpStream;

use distilface::{
    proto::{
        CollectionConfig, CreateCollectionRequest, Document, SearchRequest, UpsertRequest, Vector,
        search_request::Query,
    },
    rpc::{
        collections_client::CollectionsClient, documents_client::DocumentsClient, search_client::SearchClient,
    },
};
use tonic::transport::{Channel, Endpoint};

use super::process::Server;

async fn upsert_and_find(channel: &Channel, id: &str) {
    let vector = || Vector { values: vec![1.0, 0.0] };
    let document = Document { id: id.into(), vector: Some(vector()), ..Default::default() };
    let request = UpsertRequest { collection: "v".into(), documents: vec![document], ..Default::default() };
    let answer = DocumentsClient::new(channel.clone()).upsert(request).await.unwrap().into_inner();
    assert!(answer.results.iter().all(|result| result.error.is_empty()), "{answer:?}");
    let request = SearchRequest {
        collection: "v".into(),
        query: Some(Query::Vector(vector())),
        k: 10,
        ..Default::default()
    };
    let hits = SearchClient::new(channel.clone()).search(request).await.unwrap().into_inner().hits;
    assert!(hits.iter().any(|hit| hit.id == id), "{hits:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_leave_the_store_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with_files(&folder.path().join("db"), 256).await;
    let config =
        CollectionConfig { name: "v".into(), dimension: 2, vectors_only: true, ..Default::default() };
    let request = CreateCollectionRequest { config: Some(config), if_not_exists: false };
    CollectionsClient::new(server.channel.clone()).create(request).await.unwrap();
    let mut silent = Vec::new();
    for round in 0..3 {
        for _ in 0..150 {
            silent.push(TcpStream::connect(&server.address).unwrap());
        }
        let url = format!("http://{}", server.address);
        let newcomer = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        upsert_and_find(&newcomer, &format!("new-{round}")).await;
        // One that was there before, and spoke, is kept rather than the silent ones.
        upsert_and_find(&server.channel, &format!("old-{round}")).await;
    }
    drop(silent);
    upsert_and_find(&server.channel, "after").await;
}
