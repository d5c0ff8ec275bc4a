//! Collections and their aliases.

use distilface::proto;
use tonic::Code;

use crate::harness::{
    Server, assert_refused, by_text, doc, ids, payload, string, value, vector_doc, with_payload,
};

fn create(name: &str) -> proto::CreateCollectionRequest {
    let config = proto::CollectionConfig { name: name.into(), ..Default::default() };
    proto::CreateCollectionRequest { config: Some(config), if_not_exists: false }
}

fn get(name: &str) -> proto::GetCollectionRequest {
    proto::GetCollectionRequest { name: name.into() }
}

fn alias(alias: &str, collection: &str) -> proto::SetAliasRequest {
    proto::SetAliasRequest { alias: alias.into(), collection: collection.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_collection_says_what_it_is() {
    let mut server = Server::start().await;
    let made = server.create("books").await;
    let config = made.config.clone().unwrap();
    assert_eq!((config.name.as_str(), config.dimension), ("books", 32));
    assert_eq!(config.metric(), proto::Metric::Cosine);
    let index = config.index.unwrap();
    assert_eq!((index.kind(), index.m), (proto::IndexKind::HnswRs, 16));
    assert_eq!(made.model, "tiny");
    assert!(!made.model_fingerprint.is_empty() && made.created_at.is_some());
    let got = server.collections.get(get("books")).await.unwrap().into_inner().collection.unwrap();
    assert_eq!(got, made);
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_are_listed_until_they_are_deleted() {
    let mut server = Server::start().await;
    for name in ["b", "a"] {
        server.create(name).await;
    }
    let list = server.collections.list(proto::ListCollectionsRequest {}).await.unwrap().into_inner();
    let names: Vec<_> = list.collections.into_iter().map(|c| c.config.unwrap().name).collect();
    assert_eq!(names, ["a", "b"]);
    server.collections.delete(proto::DeleteCollectionRequest { name: "a".into() }).await.unwrap();
    let gone = server.collections.get(get("a")).await;
    assert_refused(gone, Code::NotFound, &["\"a\"", "there are: b"]);
    // The name is free again, and what was in it is gone.
    server.create("a").await;
    assert_eq!(server.count("a").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_taken_once_unless_the_same_is_meant() {
    let mut server = Server::start().await;
    server.create("a").await;
    assert_refused(server.collections.create(create("a")).await, Code::AlreadyExists, &["\"a\"", "exists"]);

    let same = proto::CreateCollectionRequest { if_not_exists: true, ..create("a") };
    assert!(!server.collections.create(same.clone()).await.unwrap().into_inner().created);

    let mut other = same;
    other.config.as_mut().unwrap().metric = proto::Metric::Dot.into();
    assert_refused(server.collections.create(other).await, Code::AlreadyExists, &["metric"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_not_named_are_not_compared() {
    let mut server = Server::start().await;
    let mut special = create("a");
    let config = special.config.as_mut().unwrap();
    config.metric = proto::Metric::Dot.into();
    config.chunking = Some(proto::ChunkingConfig { max_tokens: 12, overlap_tokens: 2, ..Default::default() });
    config.index = Some(proto::IndexConfig { m: 8, ..Default::default() });
    let made = server.collections.create(special).await.unwrap().into_inner().collection;

    let mut again = proto::CreateCollectionRequest { if_not_exists: true, ..create("a") };
    let answer = server.collections.create(again.clone()).await.unwrap().into_inner();
    assert_eq!((answer.collection, answer.created), (made, false));
    again.config.as_mut().unwrap().index = Some(proto::IndexConfig { ef_search: 50, ..Default::default() });
    let refused = server.collections.create(again).await;
    assert_refused(refused, Code::AlreadyExists, &["ef_search is 96, not 50"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_could_not_be_a_folder_are_refused() {
    let mut server = Server::start().await;
    for name in ["", "../up", "a b", ".hidden", "ä", &"x".repeat(129)] {
        assert_refused(
            server.collections.create(create(name)).await,
            Code::InvalidArgument,
            &["not allowed"],
        );
    }
    server.create("c").await;
    let refused = server.collections.set_alias(alias("no/slash", "c")).await;
    assert_refused(refused, Code::InvalidArgument, &["alias"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_moves_from_one_collection_to_another_in_one_step() {
    let mut server = Server::start().await;
    for name in ["old", "new"] {
        server.create(name).await;
        server.upsert(name, vec![doc(name, "the cat in the kitchen")]).await;
    }
    let previous = server.collections.set_alias(alias("live", "old")).await.unwrap().into_inner().previous;
    assert_eq!(previous, "");
    assert_eq!(ids(&server.find(by_text("live", "cat", 5)).await), ["old"]);
    let previous = server.collections.set_alias(alias("live", "new")).await.unwrap().into_inner().previous;
    assert_eq!(previous, "old");
    assert_eq!(ids(&server.find(by_text("live", "cat", 5)).await), ["new"]);
    let named = server.collections.get(get("live")).await.unwrap().into_inner().collection.unwrap();
    assert_eq!((named.config.unwrap().name.as_str(), &*named.aliases), ("new", &["live".to_owned()][..]));

    server.collections.delete_alias(proto::DeleteAliasRequest { alias: "live".into() }).await.unwrap();
    assert_refused(server.search.search(by_text("live", "cat", 5)).await, Code::NotFound, &["\"live\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_needs_a_name_of_its_own_and_a_collection() {
    let mut server = Server::start().await;
    server.create("a").await;
    assert_refused(server.collections.set_alias(alias("a", "a")).await, Code::AlreadyExists, &["\"a\""]);
    assert_refused(
        server.collections.set_alias(alias("b", "nowhere")).await,
        Code::NotFound,
        &["\"nowhere\""],
    );
    let unknown = proto::DeleteAliasRequest { alias: "b".into() };
    assert_refused(server.collections.delete_alias(unknown).await, Code::NotFound, &["\"b\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_count_documents_passages_and_fields() {
    let mut server = Server::with_collection().await;
    let long = "the cat sat in the house and the dog slept in the garden. ".repeat(20);
    server
        .upsert(
            "c",
            vec![
                with_payload(doc("a", &long), &[("year", proto::value::Kind::Integer(1999))]),
                doc("b", "a bird"),
            ],
        )
        .await;
    let request = proto::CollectionStatsRequest { name: "c".into(), ..Default::default() };
    let stats = server.collections.stats(request).await.unwrap().into_inner();
    assert_eq!(stats.documents, 2);
    assert!(stats.passages > 3, "{stats:?}");
    assert!(stats.indexed <= stats.passages && stats.disk_bytes > 0 && stats.vector_bytes > 0, "{stats:?}");
    assert_eq!(stats.fields.len(), 1);
    assert_eq!((stats.fields[0].field.as_str(), stats.fields[0].documents), ("year", 1));
    assert_eq!(stats.fields[0].types, ["integer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_of_very_many_fields_come_page_by_page() {
    let mut server = Server::with_vectors().await;
    for document in 0..12 {
        // Names so long that all of them would be no message that a client takes.
        let name = |i: usize| format!("{document:02}-{i:04}-{}", "n".repeat(240));
        let mut sent = vector_doc(document, &[1.0, 1.0]);
        sent.payload = (0..250).map(|i| (name(i), value(proto::value::Kind::Bool(true)))).collect();
        server.upsert("v", vec![sent]).await;
    }
    let mut request = proto::CollectionStatsRequest { name: "v".into(), ..Default::default() };
    let stats = server.collections.stats(request.clone()).await.unwrap().into_inner();
    assert_eq!((stats.fields.len(), stats.fields_total), (1000, 3000));
    let mut names: Vec<String> = stats.fields.into_iter().map(|f| f.field).collect();
    request.fields_page_token = stats.next_fields_page_token;
    while !request.fields_page_token.is_empty() {
        let page = server.collections.stats(request.clone()).await.unwrap().into_inner();
        names.extend(page.fields.into_iter().map(|f| f.field));
        request.fields_page_token = page.next_fields_page_token;
    }
    assert_eq!((names.len(), names.is_sorted()), (3000, true));

    let request = proto::CollectionStatsRequest {
        name: "v".into(),
        fields_prefix: "07-".into(),
        fields_page_size: 10_000,
        ..Default::default()
    };
    let stats = server.collections.stats(request.clone()).await.unwrap().into_inner();
    assert_eq!((stats.fields.len(), stats.fields_total), (250, 250));
    assert!(stats.next_fields_page_token.is_empty());
    let request = proto::CollectionStatsRequest { fields_page_size: 10_001, ..request };
    let words = ["fields_page_size", "at most 10000", "got 10001", "0 means 1000"];
    assert_refused(server.collections.stats(request).await, Code::InvalidArgument, &words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_has_so_many_field_names_and_says_what_to_do() {
    let mut server = Server::start_with(|config| config.limits.field_names_max = 3).await;
    server.create("c").await;
    let yes = proto::value::Kind::Bool(true);
    let with = |id: &str, names: &[&str]| proto::Document {
        payload: names.iter().map(|name| ((*name).to_owned(), value(yes.clone()))).collect(),
        ..doc(id, "a bird")
    };
    server.upsert("c", vec![with("1", &["a", "b"]), with("2", &["b", "c"])]).await;
    let request = proto::UpsertRequest {
        collection: "c".into(),
        documents: vec![with("3", &["a", "d"])],
        ..Default::default()
    };
    let words = ["\"3\"", "\"d\"", "limits.field_names_max"];
    assert_refused(server.documents.upsert(request).await, Code::InvalidArgument, &words);
    server.upsert("c", vec![with("3", &["a", "c"])]).await;
    // Fields that are set are names too.
    let set = |name: &str| proto::SetPayloadRequest {
        collection: "c".into(),
        ids: vec!["3".into()],
        payload: [(name.to_owned(), value(yes.clone()))].into(),
        ..Default::default()
    };
    let refused = server.documents.set_payload(set("d")).await.unwrap().into_inner().results.remove(0);
    assert_eq!(refused.status(), proto::WriteStatus::Failed);
    assert!(refused.error.contains("limits.field_names_max"), "{refused:?}");
    let taken = server.documents.set_payload(set("b")).await.unwrap().into_inner().results.remove(0);
    assert_eq!(taken.status(), proto::WriteStatus::Updated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_of_vectors_needs_a_dimension_in_bounds() {
    let mut server = Server::start().await;
    for (dimension, word) in [(0, "dimension"), (1_000_000, "dimension")] {
        let mut request = create("v");
        request.config.as_mut().unwrap().vectors_only = true;
        request.config.as_mut().unwrap().dimension = dimension;
        assert_refused(server.collections.create(request).await, Code::InvalidArgument, &[word]);
    }
    let mut request = create("t");
    request.config.as_mut().unwrap().dimension = 31;
    assert_refused(server.collections.create(request).await, Code::InvalidArgument, &["31", "32"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn index_and_chunking_settings_out_of_bounds_are_refused() {
    let mut server = Server::start().await;
    let mut request = create("a");
    request.config.as_mut().unwrap().index = Some(proto::IndexConfig { m: 1, ..Default::default() });
    assert_refused(server.collections.create(request).await, Code::InvalidArgument, &["m must be"]);
    let mut request = create("a");
    request.config.as_mut().unwrap().chunking =
        Some(proto::ChunkingConfig { max_tokens: 10, overlap_tokens: 10, ..Default::default() });
    assert_refused(server.collections.create(request).await, Code::InvalidArgument, &["overlap_tokens"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_of_one_collection_is_not_seen_in_another() {
    let mut server = Server::start().await;
    for name in ["a", "b"] {
        server.create(name).await;
    }
    let document = proto::Document { payload: payload(&[("k", string("v"))]), ..doc("x", "a bird") };
    server.upsert("a", vec![document]).await;
    assert_eq!((server.count("a").await, server.count("b").await), (1, 0));
}
