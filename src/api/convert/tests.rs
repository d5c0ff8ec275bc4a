//! What `convert` refuses, and that what goes in comes out.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    collection::{Retrieval, SearchTrace, Source, Stage, StageTrace},
    encoder::{Chunking, EncodeTimes},
    engine::CollectionModel,
    error::ErrorKind,
    model::Fingerprint,
    value::PointId,
};

fn create(config: proto::CollectionConfig) -> proto::CreateCollectionRequest {
    proto::CreateCollectionRequest { config: Some(config), if_not_exists: false }
}

fn assert_invalid<T: std::fmt::Debug>(result: Result<T, ApiError>, word: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains(word), "{error}");
}

#[test]
fn a_collection_without_settings_gets_the_defaults() {
    let new = new_collection_from(create(proto::CollectionConfig { name: "a".into(), ..Default::default() }))
        .unwrap();
    assert_eq!(new, NewCollection { name: "a".into(), ..Default::default() });
}

#[test]
fn a_collection_without_config_is_refused() {
    assert_invalid(new_collection_from(proto::CreateCollectionRequest::default()), "config");
}

#[test]
fn numbers_that_no_enum_has_are_refused() {
    assert_invalid(
        new_collection_from(create(proto::CollectionConfig { metric: 99, ..Default::default() })),
        "99",
    );
    let index = Some(proto::IndexConfig { kind: -1, ..Default::default() });
    assert_invalid(
        new_collection_from(create(proto::CollectionConfig { index, ..Default::default() })),
        "index.kind",
    );
    assert_invalid(text_kind_from(7), "kind");
}

#[test]
fn index_settings_past_sixteen_bits_are_refused_not_cut() {
    let index = Some(proto::IndexConfig { m: 65_536 + 16, ..Default::default() });
    assert_invalid(
        new_collection_from(create(proto::CollectionConfig { index, ..Default::default() })),
        "index.m must be between 2 and 128, got 65552; 0 means the default",
    );
}

#[test]
fn a_collection_comes_back_as_it_was_made() {
    let info = CollectionInfo {
        name: "a".into(),
        dimension: 384,
        metric: Metric::Dot,
        index: crate::index::IndexParams { kind: IndexKind::Flat, ..Default::default() },
        chunking: Some(Chunking { max_tokens: 100, overlap_tokens: 10 }),
        model: Some(CollectionModel { name: "m".into(), fingerprint: Fingerprint("f".into()) }),
        created_at: 1_500_000,
        aliases: vec!["b".into()],
        damage: Some("its file is lost".into()),
    };
    let out = collection_to(info);
    assert_eq!((out.model.as_str(), out.model_fingerprint.as_str()), ("m", "f"));
    assert_eq!(out.damage, "its file is lost");
    let new = new_collection_from(create(out.config.unwrap())).unwrap();
    assert_eq!(
        (new.metric, new.index.kind, new.dimension),
        (Some(Metric::Dot), Some(IndexKind::Flat), Some(384))
    );
    assert_eq!((new.chunk_max_tokens, new.chunk_overlap_tokens), (Some(100), Some(10)));
    assert!(!new.vectors_only && !new.chunking_disabled);
}

#[test]
fn a_mode_and_a_version_become_one_condition() {
    let from = |mode: proto::WriteMode, expected_version| {
        let document = proto::Document { id: "a".into(), expected_version, ..Default::default() };
        document_from(document, mode_from(mode.into())?).map(|document| document.condition)
    };
    use proto::WriteMode::{Any, InsertOnly, ReplaceOnly, Unspecified};
    for (mode, version, condition) in [
        (Unspecified, None, Condition::Any),
        (Any, None, Condition::Any),
        (InsertOnly, None, Condition::Absent),
        (ReplaceOnly, None, Condition::Present),
        (Any, Some(7), Condition::Version(7)),
        (ReplaceOnly, Some(7), Condition::Version(7)),
    ] {
        assert_eq!(from(mode, version).unwrap(), condition, "{mode:?} {version:?}");
    }
    for (mode, version, word) in [(Any, 0, "version 0"), (InsertOnly, 7, "no version yet")] {
        let error = from(mode, Some(version)).unwrap_err();
        assert_eq!(error.field(), Some("expected_version"));
        assert!(error.to_string().contains("document \"a\"") && error.to_string().contains(word), "{error}");
    }
    let unknown = mode_from(9).unwrap_err();
    assert_eq!((unknown.kind(), unknown.field()), (ErrorKind::Invalid, Some("mode")));
}

#[test]
fn versions_are_expected_of_ids_that_are_named() {
    let versions = |of: &[(&str, u64)]| of.iter().map(|(id, version)| ((*id).to_owned(), *version)).collect();
    let from = |ids: &[&str], of: &[(&str, u64)]| {
        targets_from(ids.iter().map(ToString::to_string).collect(), versions(of))
    };
    let targets = from(&["b", "a", "b"], &[("b", 3)]).unwrap();
    let target = |id: &str, expected_version| Target { id: id.into(), expected_version };
    assert_eq!(targets, [target("b", Some(3)), target("a", None), target("b", Some(3))]);
    for (ids, of, word) in [(&["a"], ("b", 3), "not among ids"), (&["a"], ("a", 0), "version 0")] {
        let error = from(ids, &[of]).unwrap_err();
        assert_eq!(error.field(), Some(&*format!("expected_versions[{:?}]", of.0)));
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(word), "{error}");
    }
    assert!(no_versions(&versions(&[])).is_ok());
    assert_invalid(no_versions(&versions(&[("a", 1)])), "instead of a filter");
}

#[test]
fn a_search_for_nothing_is_refused() {
    assert_invalid(search_from(proto::SearchRequest::default()), "document_id");
}

#[test]
fn a_search_keeps_every_setting() {
    let request = proto::SearchRequest {
        collection: "c".into(),
        query: Some(search_request::Query::Vector(proto::Vector { values: vec![1.0] })),
        k: 3,
        ef: 0,
        exact: true,
        score_threshold: Some(0.5),
        by_passage: true,
        without_payload: true,
        without_text: false,
        explain: true,
        filter: None,
    };
    let (collection, query) = search_from(request).unwrap();
    assert_eq!(collection, "c");
    let expected = SearchQuery {
        ask: Ask::Vector(vec![1.0]),
        k: 3,
        filter: None,
        ef: None,
        exact: true,
        score_threshold: Some(0.5),
        by_passage: true,
        with_payload: false,
        with_text: true,
    };
    assert_eq!(query, expected);
}

#[test]
fn a_search_is_explained_only_if_asked_for() {
    let answer = SearchAnswer {
        hits: vec![Hit {
            id: PointId::new("a").unwrap(),
            score: 0.5,
            title: "t".into(),
            ordinal: 2,
            range: 3..7,
            passage: "text".into(),
            payload: Arc::default(),
            version: 11,
            sources: vec![Source { retriever: "dense", rank: 1, score: 0.5 }],
        }],
        tokens: 4,
        truncated: true,
        device: "cpu".into(),
        encode: EncodeTimes::default(),
        trace: SearchTrace {
            stages: vec![
                StageTrace { stage: Stage::Plan, time: Duration::from_micros(7), candidates: 9 },
                StageTrace { stage: Stage::Retrieve, time: Duration::from_micros(10), candidates: 1 },
                StageTrace { stage: Stage::Fetch, time: Duration::from_micros(3), candidates: 1 },
            ],
            retrievals: vec![Retrieval {
                plan: "exact",
                reason: "asked for".into(),
                scanned: 9,
                ..Retrieval::default()
            }],
            filter_time: Duration::from_micros(5),
            matching_documents: 9,
            hints: vec!["a hint".into()],
        },
        total: Duration::from_millis(1),
    };
    let silent = answer_to(answer.clone(), false);
    assert_eq!((&silent.explain, silent.hints), (&None, vec!["a hint".to_owned()]));
    assert_eq!(silent.query, Some(proto::QueryInfo { tokens: 4, truncated: true }));
    let passage = silent.hits[0].passage.clone().unwrap();
    assert_eq!((passage.ordinal, passage.start, passage.end, passage.text.as_str()), (2, 3, 7, "text"));
    let explain = answer_to(answer, true).explain.unwrap();
    assert_eq!((explain.filter_us, explain.search_us, explain.fetch_us, explain.total_us), (5, 12, 3, 1000));
    assert_eq!((explain.plan.as_str(), explain.reason.as_str()), ("exact", "asked for"));
    assert_eq!((explain.matching_documents, explain.scanned, explain.ef), (9, 9, 0));
    assert_eq!(explain.device, "cpu");
}

#[test]
fn failures_of_ours_are_not_told_in_full() {
    let ours = crate::engine::EngineError::Panicked { reason: "secret".into() };
    assert!(!failure_to("a".into(), &ours).error.contains("secret"));
    let theirs = crate::engine::EngineError::BadRequest { reason: "too short".into() };
    let result = failure_to("a".into(), &theirs);
    assert_eq!(result.status, i32::from(proto::WriteStatus::Failed));
    assert!(result.error.contains("too short"));
}
