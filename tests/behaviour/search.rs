//! Searches of every kind.

use distilface::proto::{self, value::Kind};
use tonic::Code;

use crate::harness::{
    Server, assert_refused, by_id, by_text, by_vector, doc, expression, ids, string, vector_doc, with_payload,
};

/// Three documents of three topics.
async fn topics() -> Server {
    let mut server = Server::with_collection().await;
    let titled =
        proto::Document { title: "Pets".into(), ..doc("cat", "The cat and the kitten are animals.") };
    server
        .upsert(
            "c",
            vec![
                with_payload(titled, &[("legs", Kind::Integer(4))]),
                doc("law", "The court and the government made a law about the election."),
                doc("food", "Cook the meat for dinner in the kitchen."),
            ],
        )
        .await;
    server
}

/// A hundred points on a quarter circle: `0` at angle zero, `99` at a right angle.
async fn circle(kind: proto::IndexKind) -> Server {
    let mut server = Server::start().await;
    server
        .create_with(proto::CollectionConfig {
            name: "v".into(),
            dimension: 2,
            vectors_only: true,
            index: Some(proto::IndexConfig { kind: kind.into(), ..Default::default() }),
            ..Default::default()
        })
        .await;
    let documents = (0..100u16)
        .map(|i| {
            let angle = f32::from(i) / 99.0 * std::f32::consts::FRAC_PI_2;
            with_payload(
                vector_doc(i, &[angle.cos(), angle.sin()]),
                &[
                    ("n", Kind::Integer(i.into())),
                    ("even", Kind::Bool(i % 2 == 0)),
                    ("s", string(&format!("k{i}"))),
                ],
            )
        })
        .collect();
    server.upsert("v", documents).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn text_finds_the_document_about_it() {
    let mut server = topics().await;
    for (query, expected) in [
        ("cats and other animals", "cat"),
        ("government and law", "law"),
        ("dinner from the kitchen", "food"),
    ] {
        let hits = server.find(by_text("c", query, 3)).await;
        assert_eq!(hits.len(), 3);
        assert_eq!(hits[0].id, expected, "{query}: {hits:?}");
        assert!(hits.is_sorted_by(|a, b| a.score >= b.score), "{hits:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_shows_title_passage_and_payload_unless_told_not_to() {
    let mut server = topics().await;
    let hit = server.find(by_text("c", "cat", 1)).await.remove(0);
    assert_eq!((hit.id.as_str(), hit.title.as_str()), ("cat", "Pets"));
    let passage = hit.passage.unwrap();
    assert_eq!(passage.text, "The cat and the kitten are animals.");
    assert_eq!((passage.ordinal, passage.start, passage.end as usize), (0, 0, passage.text.len()));
    assert_eq!(hit.payload.len(), 1);

    let bare = proto::SearchRequest { without_payload: true, without_text: true, ..by_text("c", "cat", 1) };
    let hit = server.find(bare).await.remove(0);
    assert!(hit.payload.is_empty());
    let passage = hit.passage.unwrap();
    assert!(passage.text.is_empty() && passage.end > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_of_vectors_are_their_cosines() {
    let mut server = Server::with_vectors().await;
    server.upsert("v", vec![vector_doc("x", &[3.0, 0.0]), vector_doc("y", &[0.0, 0.5])]).await;
    let hits = server.find(by_vector("v", &[1.0, 1.0], 5)).await;
    for hit in &hits {
        assert!((hit.score - std::f32::consts::FRAC_1_SQRT_2).abs() < 1e-6, "{hits:?}");
    }
    assert_eq!(hits.len(), 2);
    let hits = server.find(by_vector("v", &[1.0, 0.0], 5)).await;
    assert_eq!(ids(&hits), ["x", "y"]);
    assert!((hits[0].score - 1.0).abs() < 1e-6 && hits[1].score.abs() < 1e-6, "{hits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_finds_those_like_it_but_not_itself() {
    let mut server = circle(proto::IndexKind::HnswRs).await;
    let hits = server.find(by_id("v", "0", 3)).await;
    assert_eq!(ids(&hits), ["1", "2", "3"]);
    assert_refused(
        server.search.search(by_id("v", "nobody", 3)).await,
        Code::NotFound,
        &["\"nobody\"", "\"v\""],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_search_answers_min_of_k_and_matching() {
    for kind in [proto::IndexKind::Flat, proto::IndexKind::HnswRs] {
        let mut server = circle(kind).await;
        for (filter, matching) in [
            ("n = 7", 1),
            ("n >= 95", 5),
            ("even = true", 50),
            ("n < 90", 90),
            ("n >= 0", 100),
            ("n > 1000", 0),
            ("s prefix \"k1\"", 11),
            ("not even = true and (n < 10 or n in [97, 99])", 7),
        ] {
            for k in [1, 10, 60, 200] {
                let request =
                    proto::SearchRequest { filter: expression(filter), ..by_vector("v", &[1.0, 0.0], k) };
                let hits = server.find(request).await;
                assert_eq!(hits.len(), matching.min(k as usize), "{kind:?} {filter} k={k}");
            }
        }
        // And they are the nearest of those that match.
        let filter = expression("even = false and n >= 10");
        let request = proto::SearchRequest { filter, ..by_vector("v", &[1.0, 0.0], 3) };
        assert_eq!(ids(&server.find(request).await), ["11", "13", "15"], "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k_may_be_larger_than_the_collection_and_ef_smaller_than_k() {
    let mut server = circle(proto::IndexKind::HnswRs).await;
    assert_eq!(server.find(by_vector("v", &[1.0, 0.0], 1000)).await.len(), 100);
    let request = proto::SearchRequest { ef: 1, ..by_vector("v", &[1.0, 0.0], 20) };
    assert_eq!(server.find(request).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exact_search_finds_the_true_neighbours() {
    let mut server = circle(proto::IndexKind::HnswRs).await;
    let request = proto::SearchRequest { exact: true, explain: true, ..by_vector("v", &[1.0, 0.0], 5) };
    let answer = server.search.search(request).await.unwrap().into_inner();
    assert_eq!(ids(&answer.hits), ["0", "1", "2", "3", "4"]);
    let explain = answer.explain.unwrap();
    assert_eq!((explain.plan.as_str(), explain.scanned), ("exact", 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_below_the_threshold_are_left_out() {
    let mut server = circle(proto::IndexKind::Flat).await;
    let request = proto::SearchRequest { score_threshold: Some(0.5), ..by_vector("v", &[1.0, 0.0], 100) };
    let hits = server.find(request).await;
    // Cosine 0.5 is at 60 of the 90 degrees.
    assert!((66..=67).contains(&hits.len()), "{}", hits.len());
    assert!(hits.iter().all(|hit| hit.score >= 0.5));
    let request = proto::SearchRequest { score_threshold: Some(f32::NAN), ..by_vector("v", &[1.0, 0.0], 1) };
    assert_refused(server.search.search(request).await, Code::InvalidArgument, &["score_threshold"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_query_of_a_batch_is_answered_in_its_place() {
    let mut server = topics().await;
    let requests =
        ["government and law", "cats", "dinner in the kitchen"].map(|text| by_text("c", text, 1)).to_vec();
    let request = proto::SearchBatchRequest { requests: requests.clone() };
    let answers = server.search.search_batch(request).await.unwrap().into_inner().responses;
    let found: Vec<_> = answers.iter().map(|a| a.hits[0].id.as_str()).collect();
    assert_eq!(found, ["law", "cat", "food"]);
    // One text, one vector: in a batch or alone.
    for (request, answer) in requests.into_iter().zip(&answers) {
        let alone = server.find(request).await;
        assert!((alone[0].score - answer.hits[0].score).abs() < 1e-5);
    }
    let bad =
        proto::SearchBatchRequest { requests: vec![by_text("c", "a cat", 1), by_text("c", "a cat", 0)] };
    assert_refused(server.search.search_batch(bad).await, Code::InvalidArgument, &["k must be"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explained_search_tells_its_plan_and_where_the_time_went() {
    let mut server = topics().await;
    let request = proto::SearchRequest {
        filter: expression("legs = 4"),
        explain: true,
        ..by_text("c", "a small animal", 2)
    };
    let answer = server.search.search(request).await.unwrap().into_inner();
    let explain = answer.explain.unwrap();
    assert!(explain.plan.starts_with("filtered_") && !explain.reason.is_empty(), "{explain:?}");
    assert_eq!((explain.matching_documents, answer.hits.len()), (1, 1));
    assert!(explain.total_us > 0 && explain.device.starts_with("cpu"), "{explain:?}");
    let parts = explain.tokenize_us + explain.encode_us + explain.search_us + explain.fetch_us;
    assert!(parts <= explain.total_us, "{explain:?}");
    let query = answer.query.unwrap();
    assert!(query.tokens >= 5 && !query.truncated, "{query:?}");

    let silent = server.search.search(by_text("c", "a small animal", 2)).await.unwrap().into_inner();
    assert_eq!(silent.explain, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_document_is_one_hit_with_its_best_passage() {
    let mut server = Server::with_collection().await;
    let about = |what: &str| format!("{what} ").repeat(45);
    let long = format!(
        "{}. {}. {}.",
        about("law court government"),
        about("cat kitten animal"),
        about("dinner kitchen meat")
    );
    server.upsert("c", vec![doc("long", &long), doc("short", "A football match.")]).await;

    let hits = server.find(by_text("c", "cat kitten animal", 10)).await;
    assert_eq!(ids(&hits), ["long", "short"]);
    let best = hits[0].passage.clone().unwrap();
    assert!(best.ordinal > 0 && best.text.contains("cat kitten"), "{best:?}");
    assert_eq!(&long[best.start as usize..best.end as usize], best.text);

    let request = proto::SearchRequest { by_passage: true, ..by_text("c", "cat kitten animal", 10) };
    let passages = server.find(request).await;
    assert!(passages.len() > 3, "{}", passages.len());
    let mut ordinals: Vec<_> =
        passages.iter().filter(|h| h.id == "long").map(|h| h.passage.as_ref().unwrap().ordinal).collect();
    ordinals.sort_unstable();
    assert_eq!(ordinals, (0..u32::try_from(passages.len()).unwrap() - 1).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_of_vectors_takes_no_text() {
    let mut server = Server::with_vectors().await;
    assert_refused(server.search.search(by_text("v", "a cat", 1)).await, Code::InvalidArgument, &["vector"]);
    let upsert = proto::UpsertRequest {
        collection: "v".into(),
        documents: vec![doc("1", "a cat")],
        ..Default::default()
    };
    assert_refused(server.documents.upsert(upsert).await, Code::InvalidArgument, &["vector"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_like_another_is_found_by_any_of_its_passages() {
    let mut server = Server::start().await;
    server
        .create_with(proto::CollectionConfig {
            name: "c".into(),
            chunking: Some(proto::ChunkingConfig { max_tokens: 12, ..Default::default() }),
            ..Default::default()
        })
        .await;
    let last = "the red boat sails over the cold sea at night";
    let long = format!("{} {last}.", "My dog eats bread in the morning and sleeps all day long. ".repeat(6));
    let others = ["the sun is warm", "a house has many doors", "he reads the news"];
    let mut documents = vec![doc("long", &long), doc("twin", last)];
    documents.extend(others.iter().enumerate().map(|(i, text)| doc(i, text)));
    server.upsert("c", documents).await;
    let hits = server.find(by_id("c", "long", 10)).await;
    assert_eq!(hits[0].id, "twin", "{hits:?}");
    assert!(hits.iter().all(|hit| hit.id != "long"));
    assert_eq!(hits.len(), 4);
}
