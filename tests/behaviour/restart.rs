//! Starting, stopping, starting again.

use std::collections::BTreeSet;

use distilface::error::Fault as _;
use distilface::{
    ErrorKind,
    proto::{self, value::Kind},
    rpc::search_client::SearchClient,
    server,
};
use tonic::Code;

use crate::{
    harness::{
        Server, assert_refused, by_text, by_vector, doc, expression, ids, open_engine, soon, statuses, tiny,
        with_payload,
    },
    ingest::Ingest,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything() {
    let mut server = Server::with_collection().await;
    let documents: Vec<_> = (0..50)
        .map(|i| with_payload(doc(format!("{i:02}"), format!("the cat {i}")), &[("n", Kind::Integer(i))]))
        .collect();
    server.upsert("c", documents.clone()).await;
    let delete = proto::DeleteDocumentsRequest {
        collection: "c".into(),
        ids: vec!["07".into()],
        ..Default::default()
    };
    server.documents.delete(delete).await.unwrap();
    let alias = proto::SetAliasRequest { alias: "live".into(), collection: "c".into() };
    server.collections.set_alias(alias).await.unwrap();
    let made = server.collections.list(proto::ListCollectionsRequest {}).await.unwrap().into_inner();
    let query = proto::SearchRequest { filter: expression("n < 30"), ..by_text("live", "the cat 12", 10) };
    let found = server.find(query.clone()).await;
    let stored = server.ids("c").await;

    let mut server = server.restart_with(|_| ()).await;
    assert_eq!(server.collections.list(proto::ListCollectionsRequest {}).await.unwrap().into_inner(), made);
    assert_eq!(server.ids("c").await, stored);
    assert_eq!(stored.len(), 49);
    assert_eq!(server.find(query).await, found);
    // What was stored is known to be unchanged.
    assert_eq!(
        statuses(&server.upsert("c", vec![documents[0].clone()]).await),
        [proto::WriteStatus::Unchanged]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_stop_is_there_after_it() {
    let mut server = Server::with_collection().await;
    let mut ingest = Ingest::open(&server).await;
    let requests = ingest.requests.clone();
    let writing = tokio::spawn(async move {
        for sequence in 0.. {
            let documents = (0..4).map(|i| doc(format!("{sequence}-{i}"), "the dog in the garden")).collect();
            let request =
                proto::IngestRequest { collection: "c".into(), sequence, documents, ..Default::default() };
            if requests.send(request).await.is_err() {
                break;
            }
        }
    });
    let mut acknowledged = BTreeSet::new();
    let mut stopping = None;
    let ended = loop {
        match ingest.answer().await {
            Ok(Some(answer)) => acknowledged.extend(answer.results.into_iter().map(|r| r.id)),
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => break status,
        }
        if acknowledged.len() >= 40 && stopping.is_none() {
            stopping = Some(tokio::spawn(server.take().stop()));
        }
    };
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    drop(ingest);
    soon(writing).await.unwrap();
    soon(stopping.unwrap()).await.unwrap().unwrap();

    let mut server = server.restart_with(|_| ()).await;
    let stored: BTreeSet<_> = server.ids("c").await.into_iter().collect();
    assert!(acknowledged.is_subset(&stored), "lost: {:?}", acknowledged.difference(&stored));
    // What was read was finished and answered, so nothing else is there.
    assert_eq!(stored, acknowledged);
    assert_eq!(server.find(by_text("c", "the dog", 1000)).await.len(), stored.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_refuses_connections() {
    let mut server = Server::with_collection().await;
    let address = server.running().address;
    server.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    assert_refused(server.search.search(by_text("c", "a cat", 1)).await, Code::Unavailable, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_data_is_refused() {
    let server = Server::start().await;
    let error = open_engine(&server.config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition, "{error}");
    let message = error.to_string();
    assert!(
        message.contains("in use") && message.contains(server.config.data.dir.to_str().unwrap()),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let first = Server::start().await;
    let taken = first.running().address;
    let data = tempfile::TempDir::new().unwrap();
    for metrics in [false, true] {
        let mut config = first.config.clone();
        config.data.dir = data.path().join(if metrics { "a" } else { "b" });
        config.encoder.model = "none".into();
        if metrics {
            config.server.metrics_listen = Some(taken);
        } else {
            config.server.listen = taken;
        }
        let engine = open_engine(&config).await.unwrap();
        let error = server::start(engine).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_can_reach_must_be_allowed() {
    let data = tempfile::TempDir::new().unwrap();
    let mut config = distilface::config::Config::default();
    config.data.dir = data.path().join("db");
    config.encoder.model = "none".into();
    config.server.listen = ([0, 0, 0, 0], 0).into();
    config.server.metrics_listen = None;
    let error = server::start(open_engine(&config).await.unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("allow_remote"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_is_refused_for_text_and_does_not_matter_for_vectors() {
    let mut server = Server::with_collection().await;
    server.upsert("c", vec![doc("1", "a cat")]).await;
    // The same weights, pooled in another way, are another model.
    let other = tempfile::TempDir::new().unwrap();
    for file in ["model.safetensors", "tokenizer.json"] {
        std::fs::copy(tiny().join(file), other.path().join(file)).unwrap();
    }
    let manifest = std::fs::read_to_string(tiny().join("model.toml")).unwrap();
    let manifest = manifest.replace("\"mean\"", "\"cls\"").replace("name = \"tiny\"", "name = \"other\"");
    std::fs::write(other.path().join("model.toml"), manifest).unwrap();

    let model = other.path().to_str().unwrap().to_owned();
    let mut server = server.restart_with(|config| config.encoder.model = model).await;
    let words = ["\"c\"", "tiny", "other"];
    assert_refused(server.search.search(by_text("c", "a cat", 1)).await, Code::FailedPrecondition, &words);
    let upsert = proto::UpsertRequest {
        collection: "c".into(),
        documents: vec![doc("2", "a dog")],
        ..Default::default()
    };
    assert_refused(server.documents.upsert(upsert).await, Code::FailedPrecondition, &words);
    let vector: Vec<f32> = (0..32).map(|i| i as f32).collect();
    assert_eq!(ids(&server.find(by_vector("c", &vector, 1)).await), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_inside_the_process_answers_as_a_socket_does() {
    let mut socket = Server::with_collection().await;
    socket.upsert("c", vec![doc("1", "a cat")]).await;
    let expected = socket.find(by_text("c", "a cat", 1)).await;
    socket.stop().await;
    let engine = open_engine(&socket.config).await.unwrap();
    let channel = server::in_process(engine.clone()).await.unwrap();
    let mut search = SearchClient::new(channel.clone());
    let answer = search.search(by_text("c", "a cat", 1)).await.unwrap().into_inner();
    assert_eq!(answer.hits, expected);
    drop((channel, search));
    engine.close().await.unwrap();
}
