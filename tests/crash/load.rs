//! A real server under load is told to end, and ends.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use distilface::{
    proto::{
        CollectionConfig, CollectionStatsRequest, CreateCollectionRequest, Document, SearchRequest,
        UpsertRequest, Vector, search_request::Query,
    },
    rpc::{
        collections_client::CollectionsClient, documents_client::DocumentsClient, search_client::SearchClient,
    },
};
use tonic::transport::Channel;

use super::{Random, process::Server};

const DIMENSION: u32 = 384;
const VECTORS: u64 = 20_000;
const COLLECTION: &str = "loaded";
/// Far more than everything takes on a busy machine, and above the bounds that the server sets itself.
const BOUND: Duration = Duration::from_secs(240);

fn vector(random: &mut Random) -> Vector {
    Vector { values: (0..DIMENSION).map(|_| random.below(2000) as f32 / 1000.0 - 1.0).collect() }
}

fn document(id: u64, random: &mut Random) -> Document {
    Document { id: format!("{id}"), vector: Some(vector(random)), ..Default::default() }
}

async fn search_until_refused(channel: Channel, mut random: Random, exact: bool) -> u64 {
    let mut client = SearchClient::new(channel);
    let mut answers = 0;
    loop {
        let query = Some(Query::Vector(vector(&mut random)));
        let request =
            SearchRequest { collection: COLLECTION.into(), query, k: 10, exact, ..Default::default() };
        match client.search(request).await {
            Ok(answer) => assert_eq!(answer.into_inner().hits.len(), 10),
            Err(_) => return answers,
        }
        answers += 1;
    }
}

async fn write_until_refused(channel: Channel, mut random: Random, first: u64) {
    let mut client = DocumentsClient::new(channel);
    for id in first.. {
        let documents = vec![document(id, &mut random)];
        if client
            .upsert(UpsertRequest { collection: COLLECTION.into(), documents, ..Default::default() })
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn stats_until_refused(channel: Channel) {
    let mut client = CollectionsClient::new(channel);
    while client.stats(CollectionStatsRequest { name: COLLECTION.into(), ..Default::default() }).await.is_ok()
    {
    }
}

async fn load(data: &Path) {
    let server = Server::start(data).await;
    let config = CollectionConfig {
        name: COLLECTION.into(),
        dimension: DIMENSION,
        vectors_only: true,
        ..Default::default()
    };
    let channel = server.channel.clone();
    let mut collections = CollectionsClient::new(channel.clone());
    collections.create(CreateCollectionRequest { config: Some(config), if_not_exists: false }).await.unwrap();
    let mut documents = DocumentsClient::new(channel.clone());
    let mut random = Random(41);
    for batch in (0..VECTORS).collect::<Vec<_>>().chunks(500) {
        let batch = batch.iter().map(|id| document(*id, &mut random)).collect();
        let request = UpsertRequest { collection: COLLECTION.into(), documents: batch, ..Default::default() };
        documents.upsert(request).await.unwrap();
    }
    let searchers: Vec<_> = (0..8)
        .map(|n| tokio::spawn(search_until_refused(channel.clone(), Random(100 + n), n % 2 == 0)))
        .collect();
    let mut others: Vec<_> = (1..3)
        .map(|n| tokio::spawn(write_until_refused(channel.clone(), Random(200 + n), VECTORS * 10 * n)))
        .collect();
    others.push(tokio::spawn(stats_until_refused(channel.clone())));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let told = Instant::now();
    let code = tokio::task::spawn_blocking(move || server.terminate()).await.unwrap();
    assert_eq!(code, Some(0), "it ended after {:?}", told.elapsed());
    for searcher in searchers {
        assert!(searcher.await.unwrap() > 0, "no search was ever answered");
    }
    for other in others {
        other.await.unwrap();
    }
}

#[test]
fn a_server_under_load_ends_when_it_is_told_to() {
    let data = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(BOUND, load(data.path())).await });
    runtime.shutdown_background();
    ended.expect("it answers, and it ends");
}
