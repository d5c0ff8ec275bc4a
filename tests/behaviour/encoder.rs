//! Texts as vectors.

use std::time::{Duration, Instant};

use distilface::proto;
use tonic::Code;

use crate::harness::{Server, assert_refused};

fn embed(texts: &[&str], kind: proto::TextKind) -> proto::EmbedRequest {
    let texts = texts.iter().map(ToString::to_string).collect();
    proto::EmbedRequest { texts, kind: kind.into(), ..Default::default() }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_has_one_vector_alone_and_in_a_batch() {
    let mut server = Server::start().await;
    let texts = ["a cat", "the government made a law about the election in the old city", "x"];
    for kind in [proto::TextKind::Unspecified, proto::TextKind::Query, proto::TextKind::Document] {
        let batch = server.encoder.embed(embed(&texts, kind)).await.unwrap().into_inner();
        assert_eq!((batch.model.as_str(), batch.embeddings.len()), ("tiny", 3));
        assert!(!batch.model_fingerprint.is_empty());
        for (text, in_batch) in texts.iter().zip(&batch.embeddings) {
            let alone = server.encoder.embed(embed(&[text], kind)).await.unwrap().into_inner();
            let alone = &alone.embeddings[0];
            assert_eq!(alone.values.len(), 32);
            assert!((cosine(&alone.values, &alone.values) - 1.0).abs() < 1e-5, "not of unit length");
            assert!(cosine(&alone.values, &in_batch.values) > 1.0 - 1e-5);
            assert_eq!((alone.tokens, alone.truncated), (in_batch.tokens, false));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_past_the_models_limit_is_reported_as_truncated() {
    let mut server = Server::start().await;
    let long = "cat ".repeat(100);
    let answer = server.encoder.embed(embed(&[&long], proto::TextKind::Query)).await.unwrap().into_inner();
    assert!(answer.embeddings[0].truncated);
    assert_eq!(answer.embeddings[0].tokens, 102);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_long_texts_do_not_hold_up_a_list() {
    let server = Server::start().await;
    // 4 MB each, which took every thread of the server for seconds.
    let text = "the old government made a law about the river ".repeat(100_000);
    let text = &text[..4 << 20];
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (mut encoder, request) =
                (server.encoder.clone(), embed(&[text], proto::TextKind::Unspecified));
            tokio::spawn(async move {
                let begun = Instant::now();
                let answer = encoder.embed(request).await.map(tonic::Response::into_inner);
                (begun.elapsed(), answer)
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    let mut lists = 0;
    while calls.iter().any(|call| !call.is_finished()) {
        let begun = Instant::now();
        let mut collections = server.collections.clone();
        collections.list(proto::ListCollectionsRequest {}).await.unwrap();
        longest = longest.max(begun.elapsed());
        lists += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut shortest_call = Duration::MAX;
    for call in calls {
        let (elapsed, answer) = call.await.unwrap();
        // On a machine that is very busy they may run out of time; they still hold up nobody.
        if let Ok(answer) = answer {
            assert!(answer.embeddings[0].truncated && answer.embeddings[0].tokens > 500_000);
        }
        shortest_call = shortest_call.min(elapsed);
    }
    assert!(
        lists > 3 && longest < shortest_call / 2,
        "{lists} lists, one took {longest:?} of {shortest_call:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_cut_short_says_so_where_chunking_is_off() {
    let mut server = Server::start().await;
    let chunking = Some(proto::ChunkingConfig { disabled: true, ..Default::default() });
    server.create_with(proto::CollectionConfig { name: "c".into(), chunking, ..Default::default() }).await;
    let results = server.upsert("c", vec![crate::harness::doc("1", "cat ".repeat(100))]).await;
    assert!(results[0].truncated);
    assert_eq!(results[0].passages, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn similarity_is_the_cosine_with_each_other_text() {
    let mut server = Server::start().await;
    let others = ["the cat", "a law about the court", "a cat"].map(str::to_owned).to_vec();
    let request = proto::SimilarityRequest { text: "a cat".into(), others, ..Default::default() };
    let scores = server.encoder.similarity(request).await.unwrap().into_inner().scores;
    assert_eq!(scores.len(), 3);
    assert!((scores[2] - 1.0).abs() < 1e-5, "{scores:?}");
    assert!(scores[0] > scores[1], "{scores:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loaded_model_is_listed_with_its_device() {
    let mut server = Server::start().await;
    let models = server.encoder.models(proto::ModelsRequest {}).await.unwrap().into_inner().models;
    let tiny = &models[0];
    assert_eq!((tiny.name.as_str(), tiny.architecture.as_str(), tiny.dimension), ("tiny", "bert", 32));
    assert_eq!((tiny.max_tokens, tiny.pooling.as_str(), tiny.licence.as_str()), (64, "mean", "Apache-2.0"));
    assert!(tiny.loaded && tiny.device.starts_with("cpu") && !tiny.device_reason.is_empty(), "{tiny:?}");
    assert!(models[1..].iter().all(|model| !model.loaded));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_model_vectors_still_work_and_text_says_what_is_missing() {
    let mut server = Server::start_with(|config| config.encoder.model = "none".into()).await;
    let refused = server.encoder.embed(embed(&["a cat"], proto::TextKind::Query)).await;
    assert_refused(refused, Code::FailedPrecondition, &["without an encoder"]);
    let config =
        proto::CollectionConfig { name: "v".into(), dimension: 2, vectors_only: true, ..Default::default() };
    server.create_with(config).await;
    server.upsert("v", vec![crate::harness::vector_doc("1", &[1.0, 0.0])]).await;
    assert_eq!(server.find(crate::harness::by_vector("v", &[1.0, 0.0], 1)).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_name_a_model_and_the_default_may_change() {
    let mut server = Server::start_with(crate::harness::two_models).await;
    let query = |model: &str| proto::EmbedRequest {
        model: model.into(),
        ..embed(&["a cat"], proto::TextKind::Query)
    };
    let ask = async |server: &mut Server, model: &str| {
        let answer = server.encoder.embed(query(model)).await.unwrap().into_inner();
        (answer.model, answer.embeddings[0].values.clone())
    };
    let first = ask(&mut server, "").await;
    assert_eq!(first.0, "first");
    assert_eq!(ask(&mut server, "first").await, first);
    let second = ask(&mut server, "second").await;
    assert_eq!(second.0, "second");
    assert_ne!(second.1, first.1);

    for bad in ["third", "../models/first", "/etc"] {
        let refused = server.encoder.embed(query(bad)).await;
        assert_refused(refused, Code::NotFound, &["first, second"]);
        let refused = server.encoder.use_model(proto::UseModelRequest { name: bad.into() }).await;
        assert_refused(refused, Code::NotFound, &["first, second"]);
    }
    let refused = server.encoder.use_model(proto::UseModelRequest::default()).await;
    assert_refused(refused, Code::InvalidArgument, &["name"]);

    let config = |name: &str| proto::CollectionConfig { name: name.into(), ..Default::default() };
    server.create_with(config("old")).await;
    let used = server.encoder.use_model(proto::UseModelRequest { name: "second".into() }).await.unwrap();
    let used = used.into_inner().model.unwrap();
    assert!(used.default && used.loaded && used.name == "second", "{used:?}");
    assert_eq!(ask(&mut server, "").await, second);
    server.create_with(config("new")).await;
    server.create_with(proto::CollectionConfig { model: "first".into(), ..config("named") }).await;
    let listed = server.collections.list(proto::ListCollectionsRequest {}).await.unwrap().into_inner();
    let models: Vec<_> = listed.collections.iter().map(|c| c.model.as_str()).collect();
    assert_eq!(models, ["first", "second", "first"], "of named, new and old");
    let models = server.encoder.models(proto::ModelsRequest {}).await.unwrap().into_inner().models;
    let told: Vec<_> = models.iter().map(|m| (m.name.as_str(), m.loaded, m.default)).collect();
    assert_eq!(told, [("second", true, true), ("first", true, false)]);
}
