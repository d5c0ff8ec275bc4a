//! Bad input: every refusal has its code, says what was wrong and what is allowed, and changes nothing.

use distilface::proto::{self, value::Kind};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{
    Server, assert_refused, by_text, by_vector, doc, expression, list, string, value, vector_doc,
    with_payload,
};

fn upsert(collection: &str, documents: Vec<proto::Document>) -> proto::UpsertRequest {
    proto::UpsertRequest { collection: collection.into(), documents, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_collection_is_not_found_by_any_method() {
    let mut server = Server::with_collection().await;
    let words = ["\"nowhere\"", "there are: c"];
    assert_refused(server.search.search(by_text("nowhere", "a", 1)).await, Code::NotFound, &words);
    let request = upsert("nowhere", vec![doc("1", "a")]);
    assert_refused(server.documents.upsert(request).await, Code::NotFound, &words);
    let request = proto::GetDocumentsRequest {
        collection: "nowhere".into(),
        ids: vec!["1".into()],
        ..Default::default()
    };
    assert_refused(server.documents.get(request).await, Code::NotFound, &words);
    let request = proto::DeleteDocumentsRequest {
        collection: "nowhere".into(),
        ids: vec!["1".into()],
        ..Default::default()
    };
    assert_refused(server.documents.delete(request).await, Code::NotFound, &words);
    let request = proto::ScrollRequest { collection: "nowhere".into(), ..Default::default() };
    assert_refused(server.documents.scroll(request).await, Code::NotFound, &words);
    let request = proto::CountRequest { collection: "nowhere".into(), ..Default::default() };
    assert_refused(server.documents.count(request).await, Code::NotFound, &words);
    let request = proto::CollectionStatsRequest { name: "nowhere".into(), ..Default::default() };
    assert_refused(server.collections.stats(request).await, Code::NotFound, &words);
    let request = proto::DeleteCollectionRequest { name: "nowhere".into() };
    assert_refused(server.collections.delete(request).await, Code::NotFound, &words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vector_that_is_none_is_refused() {
    let mut server = Server::with_vectors().await;
    for (values, word) in [
        (&[1.0, 2.0, 3.0][..], "3 values"),
        (&[], "0 values"),
        (&[f32::NAN, 1.0], "position 0 is NaN"),
        (&[1.0, f32::INFINITY], "position 1 is inf"),
        (&[0.0, 0.0], "all zero"),
    ] {
        assert_refused(server.search.search(by_vector("v", values, 1)).await, Code::InvalidArgument, &[word]);
        let request = upsert("v", vec![vector_doc("1", values)]);
        assert_refused(server.documents.upsert(request).await, Code::InvalidArgument, &[word]);
    }
    assert_eq!(server.count("v").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn k_has_bounds() {
    let mut server = Server::start_with(|config| config.limits.k_max = 50).await;
    server.create("c").await;
    for k in [0, 51, u32::MAX] {
        let refused = server.search.search(by_text("c", "a cat", k)).await;
        assert_refused(refused, Code::InvalidArgument, &["k must be between 1 and 50", &k.to_string()]);
    }
    assert!(server.find(by_text("c", "a cat", 50)).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_range_says_what_is_allowed_and_what_zero_means() {
    let mut server = Server::start_with(|config| config.limits.batch_max = 50).await;
    server.create("c").await;
    server.upsert("c", (0..50).map(|n| doc(n, "a cat")).collect()).await;
    server.upsert("c", vec![doc("50", "a cat")]).await;

    // Nobody who leaves the number out is refused for it.
    let request = proto::ScrollRequest { collection: "c".into(), ..Default::default() };
    assert_eq!(server.documents.scroll(request.clone()).await.unwrap().into_inner().documents.len(), 50);
    let refused = server.documents.scroll(proto::ScrollRequest { limit: 51, ..request }).await;
    assert_refused(
        refused,
        Code::InvalidArgument,
        &["limit must be between 1 and 50, got 51; 0 means 100, or as many as are allowed"],
    );

    let request = proto::SearchRequest { ef: 4097, ..by_text("c", "a cat", 1) };
    assert_refused(
        server.search.search(request).await,
        Code::InvalidArgument,
        &["ef must be between 1 and 4096, got 4097; 0 means the collection's ef_search"],
    );

    let too_many = (0..51).map(|n| doc(n, "a cat")).collect();
    assert_refused(
        server.documents.upsert(upsert("c", too_many)).await,
        Code::InvalidArgument,
        &["the number of documents must be at most 50, got 51"],
    );
    assert_refused(
        server.documents.upsert(upsert("c", Vec::new())).await,
        Code::InvalidArgument,
        &["the number of documents must be between 1 and 50, got 0"],
    );

    let chunking = |max_tokens, overlap_tokens| proto::CollectionConfig {
        chunking: Some(proto::ChunkingConfig { max_tokens, overlap_tokens, ..Default::default() }),
        ..Default::default()
    };
    let index = |m, ef_construction, ef_search| proto::CollectionConfig {
        index: Some(proto::IndexConfig { m, ef_construction, ef_search, ..Default::default() }),
        ..Default::default()
    };
    for (config, words) in [
        (chunking(100_000, 0), ["chunking.max_tokens must be between 1 and ", "0 means the default, 254 or"]),
        (
            chunking(8, 8),
            [
                "chunking.overlap_tokens must be at most 7, got 8",
                "0 means the default, an eighth of max_tokens",
            ],
        ),
        (index(1, 0, 0), ["index.m must be between 2 and 128, got 1", "0 means the default"]),
        (
            index(0, 70_000, 0),
            ["index.ef_construction must be between 8 and 4096, got 70000", "0 means the default"],
        ),
        (index(0, 0, 4097), ["index.ef_search must be between 1 and 4096, got 4097", "0 means the default"]),
    ] {
        let config = proto::CollectionConfig { name: "d".into(), ..config };
        let request = proto::CreateCollectionRequest { config: Some(config), if_not_exists: false };
        let refused = server.collections.create(request).await;
        let field = refused.as_ref().unwrap_err().get_error_details().bad_request().unwrap().clone();
        let (named, _) = words[0].split_once(' ').unwrap();
        assert_eq!(field.field_violations[0].field, named);
        assert_refused(refused, Code::InvalidArgument, &words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_filter_names_the_position() {
    let mut server = Server::with_collection().await;
    for (text, position) in
        [("year >", "position 7"), ("year = 1 and", "position 13"), ("(year = 1", "position")]
    {
        let request = proto::SearchRequest { filter: expression(text), ..by_text("c", "a cat", 1) };
        let refused = server.search.search(request).await;
        let field = refused.as_ref().unwrap_err().get_error_details().bad_request().unwrap().clone();
        assert_eq!(field.field_violations[0].field, "filter");
        assert_refused(refused, Code::InvalidArgument, &[position]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_compares_apples_with_pears_is_refused() {
    let mut server = Server::with_collection().await;
    server.upsert("c", vec![with_payload(doc("1", "a cat"), &[("year", Kind::Integer(1999))])]).await;
    let request = proto::CountRequest { collection: "c".into(), filter: expression("year >= \"old\"") };
    assert_refused(server.documents.count(request).await, Code::InvalidArgument, &["\"year\"", "integer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_neither_empty_nor_over_the_limit() {
    let mut server = Server::start_with(|config| {
        config.limits.text_bytes_max = 100;
        config.limits.query_bytes_max = 100;
    })
    .await;
    server.create("c").await;
    let long = "cat ".repeat(26);
    assert_refused(
        server.documents.upsert(upsert("c", vec![doc("1", &long)])).await,
        Code::InvalidArgument,
        &["\"1\"", "104 bytes", "limit is 100"],
    );
    for (text, word) in [("", "empty"), (" \n", "empty"), (&*long, "104 bytes")] {
        assert_refused(server.search.search(by_text("c", text, 1)).await, Code::InvalidArgument, &[word]);
        let request = proto::EmbedRequest { texts: vec!["a cat".into(), text.into()], ..Default::default() };
        assert_refused(server.encoder.embed(request).await, Code::InvalidArgument, &["text 2", word]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_stands_once_in_an_upsert_and_is_well_formed() {
    let mut server = Server::with_collection().await;
    let request = upsert("c", vec![doc("1", "a cat"), doc("1", "a dog")]);
    assert_refused(server.documents.upsert(request).await, Code::InvalidArgument, &["\"1\"", "twice"]);
    for (id, word) in [("", "empty"), ("a\nb", "control"), (&*"x".repeat(513), "513 bytes")] {
        let request = upsert("c", vec![doc(id, "a cat")]);
        assert_refused(server.documents.upsert(request).await, Code::InvalidArgument, &[word]);
    }
    assert_eq!(server.count("c").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_are_checked() {
    let mut server = Server::start_with(|config| config.limits.payload_bytes_max = 200).await;
    server.create("c").await;
    let nested = list(&[list(&[Kind::Integer(1)])]);
    let mixed = list(&[Kind::Integer(1), string("a")]);
    let nanos = Kind::Datetime(prost_types::Timestamp { seconds: 0, nanos: -1 });
    for (kind, word) in [
        (nested, "no further lists"),
        (mixed, "one kind"),
        (nanos, "nanos"),
        (Kind::Float(f64::NAN), "finite"),
        (string(&"x".repeat(300)), "bytes"),
    ] {
        let request = upsert("c", vec![with_payload(doc("1", "a cat"), &[("field", kind)])]);
        assert_refused(server.documents.upsert(request).await, Code::InvalidArgument, &["field", word]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_open_is_refused() {
    let mut server = Server::with_collection().await;
    let request = proto::SearchRequest { collection: "c".into(), k: 1, ..Default::default() };
    assert_refused(
        server.search.search(request).await,
        Code::InvalidArgument,
        &["set text, vector or document_id"],
    );
    let create = proto::CreateCollectionRequest::default();
    assert_refused(server.collections.create(create).await, Code::InvalidArgument, &["config"]);
    let condition = proto::Condition { field: "year".into(), test: None };
    let filter = Some(proto::Filter { form: Some(proto::filter::Form::Condition(condition)) });
    let request = proto::CountRequest { collection: "c".into(), filter };
    assert_refused(server.documents.count(request).await, Code::InvalidArgument, &["no test"]);
    let range = proto::Range { gt: Some(proto::Value { kind: None }), ..Default::default() };
    let test = Some(proto::condition::Test::Range(range));
    let condition = proto::Condition { field: "year".into(), test };
    let filter = Some(proto::Filter { form: Some(proto::filter::Form::Condition(condition)) });
    let request = proto::CountRequest { collection: "c".into(), filter };
    assert_refused(server.documents.count(request).await, Code::InvalidArgument, &["no kind"]);
    let request = proto::EmbedRequest { texts: vec!["a cat".into()], kind: 42, ..Default::default() };
    assert_refused(server.encoder.embed(request).await, Code::InvalidArgument, &["kind", "42"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_structured_filter_means_what_its_text_means() {
    let mut server = Server::with_collection().await;
    let documents =
        (0..10).map(|i| with_payload(doc(i, "a cat"), &[("n", Kind::Integer(i))])).collect::<Vec<_>>();
    server.upsert("c", documents).await;
    let test = proto::condition::Test::In(proto::ValueList {
        values: vec![value(Kind::Integer(3)), value(Kind::Integer(11))],
    });
    let condition = proto::Condition { field: "n".into(), test: Some(test) };
    let filter = Some(proto::Filter { form: Some(proto::filter::Form::Condition(condition)) });
    for filter in [filter, expression("n in [3, 11]")] {
        let request = proto::CountRequest { collection: "c".into(), filter };
        assert_eq!(server.documents.count(request).await.unwrap().into_inner().documents, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_have_a_largest_number_of_parts() {
    let mut server = Server::start_with(|config| {
        config.limits.batch_max = 2;
        config.limits.queries_max = 1;
    })
    .await;
    server.create("c").await;
    let words = ["and 2, got 3"];
    let request = upsert("c", (0..3).map(|i| doc(i, "a cat")).collect());
    assert_refused(server.documents.upsert(request).await, Code::InvalidArgument, &["at most 2, got 3"]);
    let three: Vec<String> = ["1", "2", "3"].map(str::to_owned).to_vec();
    let request =
        proto::GetDocumentsRequest { collection: "c".into(), ids: three.clone(), ..Default::default() };
    assert_refused(server.documents.get(request).await, Code::InvalidArgument, &words);
    let request =
        proto::DeleteDocumentsRequest { collection: "c".into(), ids: three.clone(), ..Default::default() };
    assert_refused(server.documents.delete(request).await, Code::InvalidArgument, &words);
    let request = proto::EmbedRequest { texts: three, ..Default::default() };
    assert_refused(server.encoder.embed(request).await, Code::InvalidArgument, &words);
    let request = proto::SearchBatchRequest { requests: vec![by_text("c", "a", 1), by_text("c", "b", 1)] };
    assert_refused(server.search.search_batch(request).await, Code::InvalidArgument, &["must be 1, got 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_message_is_refused_with_the_limit() {
    let mut server = Server::start_with(|config| config.limits.message_bytes_max = 10_000).await;
    server.create("c").await;
    let request = upsert("c", vec![doc("1", "cat ".repeat(5_000))]);
    let refused = server.documents.upsert(request).await;
    assert_refused(refused, Code::OutOfRange, &["10000 bytes", "limits.message_bytes_max"]);
    // An answer over the limit is refused as well, and says what to do.
    for i in 0..4 {
        server.upsert("c", vec![doc(i, "cat ".repeat(1_000))]).await;
    }
    let request = proto::GetDocumentsRequest {
        collection: "c".into(),
        ids: (0..4).map(|i| i.to_string()).collect(),
        ..Default::default()
    };
    assert_refused(server.documents.get(request).await, Code::OutOfRange, &["ask for less"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_carries_its_kind_and_the_requests_id() {
    let mut server = Server::with_collection().await;
    let mut request = tonic::Request::new(by_text("c", "a cat", 0));
    request.metadata_mut().insert("x-request-id", "my-request-7".parse().unwrap());
    let status = server.search.search(request).await.unwrap_err();
    assert_eq!(status.metadata().get("x-request-id").unwrap(), "my-request-7");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID", "distilface"));
    assert_eq!(details.request_info().unwrap().request_id, "my-request-7");
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "k");

    let answer = server.search.search(by_text("c", "a cat", 1)).await.unwrap();
    assert!(!answer.metadata().get("x-request-id").unwrap().is_empty());
}
