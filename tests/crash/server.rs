//! The same through the whole path: `distilface serve` is killed while a client ingests over gRPC.
//!
//! What a client was told is stored is there after a restart, whole, once, and with the content that was sent last;
//! what it was not told is there whole or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use distilface::{
    proto::{
        CollectionConfig, CreateCollectionRequest, Document, GetDocumentsRequest, IngestRequest,
        ScrollRequest, SearchRequest, StoredDocument, search_request::Query,
    },
    rpc::{
        collections_client::CollectionsClient, documents_client::DocumentsClient, search_client::SearchClient,
    },
};
use tonic::transport::Channel;

use super::{Random, process::Server};

const ROUNDS: u64 = 50;
const COLLECTION: &str = "killed";
/// Different documents; fewer than are sent, so many replace another.
const DOCUMENTS: u64 = 60;
const REQUEST_DOCUMENTS: u64 = 4;

fn name(document: u64) -> String {
    format!("document-{document:02}")
}

/// Version `version` of a document: several passages long, and told from every other version by its text.
fn text(document: u64, version: u64) -> String {
    (0..12)
        .map(|n| {
            format!("Sentence {n} of document {document} in version {version} is about rain and rivers. ")
        })
        .collect()
}

fn version_of(stored: &StoredDocument) -> u64 {
    let document = stored.document.as_ref().unwrap();
    let number = document.id.strip_prefix("document-").unwrap().parse().unwrap();
    let version = document.title.parse().unwrap();
    assert_eq!(document.text, text(number, version), "{} is not what was sent", document.id);
    assert!(stored.passages.len() > 1, "{} lost its passages", document.id);
    version
}

/// Sends until the server dies. `sent` and `told` learn the newest version of each document.
async fn ingest_until_killed(
    channel: Channel,
    mut random: Random,
    version: &mut u64,
    sent: &mut BTreeMap<u64, BTreeSet<u64>>,
    told: &mut BTreeMap<u64, u64>,
    kill_after: Duration,
    server: Server,
) {
    let mut requests = Vec::new();
    for sequence in 0..400 {
        *version += 1;
        let mut numbers = BTreeSet::new();
        while (numbers.len() as u64) < REQUEST_DOCUMENTS {
            numbers.insert(random.below(DOCUMENTS));
        }
        requests.push((sequence, *version, numbers));
    }
    let stream: Vec<_> = requests
        .iter()
        .map(|(sequence, version, numbers)| IngestRequest {
            collection: COLLECTION.into(),
            sequence: *sequence,
            documents: numbers
                .iter()
                .map(|&n| Document {
                    id: name(n),
                    title: version.to_string(),
                    text: text(n, *version),
                    ..Document::default()
                })
                .collect(),
            ..Default::default()
        })
        .collect();
    for (_, version, numbers) in &requests {
        for n in numbers {
            sent.entry(*n).or_default().insert(*version);
        }
    }
    let mut client = DocumentsClient::new(channel);
    let mut answers = client.ingest(tokio_stream::iter(stream)).await.unwrap().into_inner();
    // In half of the rounds the time begins with the first answer, however long a busy machine takes to give it.
    let after_an_answer = random.below(2) == 0;
    let (heard, first) = tokio::sync::oneshot::channel::<()>();
    let mut heard = Some(heard);
    let killer = tokio::spawn(async move {
        if after_an_answer {
            // Without an answer the round is one of those that acknowledged nothing.
            let _ = tokio::time::timeout(Duration::from_secs(20), first).await;
        }
        tokio::time::sleep(kill_after).await;
        server.kill();
    });
    // The stream ends in an error when the server is gone.
    while let Ok(Some(answer)) = answers.message().await {
        if let Some(heard) = heard.take() {
            // The killer may not wait for it.
            let _ = heard.send(());
        }
        let (_, version, numbers) = &requests[usize::try_from(answer.sequence).unwrap()];
        assert!(answer.results.iter().all(|r| r.error.is_empty()), "{answer:?}");
        for n in numbers {
            told.insert(*n, *version);
        }
    }
    killer.await.unwrap();
}

async fn check(
    channel: Channel,
    sent: &BTreeMap<u64, BTreeSet<u64>>,
    told: &mut BTreeMap<u64, u64>,
    context: &str,
) {
    let mut client = DocumentsClient::new(channel.clone());
    let request = ScrollRequest { collection: COLLECTION.into(), limit: 1000, ..ScrollRequest::default() };
    let page = client.scroll(request).await.unwrap().into_inner();
    let mut found = BTreeMap::new();
    for stored in &page.documents {
        let number: u64 = stored.document.as_ref().unwrap().id["document-".len()..].parse().unwrap();
        let version = version_of(stored);
        assert!(
            sent.get(&number).is_some_and(|v| v.contains(&version)),
            "{context}: {number} was never sent so"
        );
        assert!(found.insert(number, version).is_none(), "{context}: {number} is there twice");
    }
    for (number, version) in told.iter() {
        let there = found
            .get(number)
            .unwrap_or_else(|| panic!("{context}: document {number} was acknowledged and is gone"));
        assert!(there >= version, "{context}: document {number} went back from version {version} to {there}");
    }
    // By id and by search it is the same document.
    let ids = found.keys().map(|&n| name(n)).collect::<Vec<_>>();
    if !ids.is_empty() {
        let request =
            GetDocumentsRequest { collection: COLLECTION.into(), ids: ids.clone(), ..Default::default() };
        let got = client.get(request).await.unwrap().into_inner();
        assert!(got.missing.is_empty(), "{context}: {:?}", got.missing);
        let request = SearchRequest {
            collection: COLLECTION.into(),
            query: Some(Query::Text("rain and rivers".into())),
            k: 1000,
            exact: true,
            ..SearchRequest::default()
        };
        let hits = SearchClient::new(channel).search(request).await.unwrap().into_inner().hits;
        let mut hit_ids: Vec<_> = hits.into_iter().map(|h| h.id).collect();
        hit_ids.sort_unstable();
        assert_eq!(hit_ids, ids, "{context}: search and store disagree");
    }
    // What is there now was not taken back later: it counts as told.
    *told = found;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_documents_survive_kill_minus_nine_of_the_server() {
    let seed = std::env::var("DISTILFACE_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_122);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("db");
    let (mut sent, mut told, mut version) = (BTreeMap::new(), BTreeMap::new(), 0);
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let context = format!("seed {seed}, round {round}");
        let mut random = Random(seed ^ (round << 32));
        let server = Server::start(&data).await;
        let channel = server.channel.clone();
        if round == 0 {
            let config = CollectionConfig { name: COLLECTION.into(), ..CollectionConfig::default() };
            let request = CreateCollectionRequest { config: Some(config), if_not_exists: true };
            CollectionsClient::new(channel.clone()).create(request).await.unwrap();
        }
        check(channel.clone(), &sent, &mut told, &context).await;
        let before = told.values().sum::<u64>();
        let kill_after = Duration::from_millis(random.below(250));
        ingest_until_killed(channel, random, &mut version, &mut sent, &mut told, kill_after, server).await;
        acknowledged += u64::from(told.values().sum::<u64>() > before);
    }
    let server = Server::start(&data).await;
    check(server.channel.clone(), &sent, &mut told, &format!("seed {seed}, at the end")).await;
    server.kill();
    assert!(
        acknowledged > ROUNDS / 4,
        "only {acknowledged} rounds acknowledged anything: the test tests nothing"
    );
    println!("{ROUNDS} kills, {acknowledged} of them after acknowledgements, {} documents whole", told.len());
}
