//! Many clients at few documents, without kills: what each is told of a document can have happened in some order.
//!
//! The server has a pool of two threads, and writes to the rest of the collection and searches through it go on
//! meanwhile, so that a graph is built, segments are sealed, and everybody waits for everybody. What hangs is told by the
//! watchdog.

use std::sync::Arc;

use distilface::{
    proto::{CreateCollectionRequest, GetDocumentsRequest, IndexKind, Metric},
    rpc::{collections_client::CollectionsClient, documents_client::DocumentsClient},
};

use super::{
    SETTINGS,
    clients::{Client, Place, Shared, WRITERS},
    content::Shape,
    hot::Hot,
    seed,
};
use crate::process::Launch;

const CLIENTS: u64 = 10;
/// Calls of each client, for each seed.
const CALLS: u64 = 120;
const SEEDS: u64 = 4;
const DOCUMENTS: u64 = 5;

const SHAPE: Shape = Shape {
    name: "contested",
    dimension: 32,
    metric: Metric::Euclidean,
    index: IndexKind::HnswRs,
    documents: 2_200,
    noise: (0, 100),
    batch: 20,
};

/// How many answers it were.
async fn contest(seed: u64, folder: &std::path::Path) -> usize {
    let server =
        Launch::new(&folder.join("db"), &SETTINGS, &folder.join("server.log")).serving().await.unwrap();
    let shared = Arc::new(Shared::new(vec![Place::new(SHAPE)], 0, Hot::new(DOCUMENTS)));
    let request = CreateCollectionRequest { config: Some(SHAPE.config()), if_not_exists: false };
    CollectionsClient::new(server.channel.clone()).create(request).await.unwrap();
    let mut others = Vec::new();
    for number in 0..2 {
        let client = Client::new(number, seed, 1, Arc::clone(&shared), server.connect().await);
        others.push(tokio::spawn(client.work()));
    }
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let client = Client::new(WRITERS + number, seed, 1, Arc::clone(&shared), server.connect().await);
        clients.push(tokio::spawn(client.work_hot(CALLS)));
    }
    for client in clients {
        shared.watch.call("the end of a client".into(), client).await.unwrap().unwrap();
    }
    for other in others {
        assert!(!other.is_finished(), "seed {seed}: a client was refused: {:?}", other.await);
        other.abort();
    }
    let ids = (0..DOCUMENTS).map(|n| format!("hot-{n}")).collect();
    let request = GetDocumentsRequest { collection: SHAPE.name.into(), ids, with_vectors: true };
    let last =
        DocumentsClient::new(server.channel.clone()).get(request).await.unwrap().into_inner().documents;
    let found: Vec<_> = last.iter().map(|stored| SHAPE.found(stored, true).unwrap()).collect();
    let (answers, mut faults) = shared.hot.conclude(&found);
    faults.extend(shared.take_faults());
    assert!(
        faults.is_empty(),
        "seed {seed}: {} things that must not be:\n- {}",
        faults.len(),
        faults.join("\n- ")
    );
    answers
}

#[test]
fn what_clients_are_told_of_a_document_has_an_order() {
    let first = seed();
    println!("seeds from {first}; set DISTILFACE_TEST_SEED for others");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for seed in first..first + SEEDS {
        let folder = tempfile::tempdir().unwrap();
        let answers = runtime.block_on(contest(seed, folder.path()));
        println!("seed {seed}: {answers} answers of {DOCUMENTS} documents have an order");
    }
}
