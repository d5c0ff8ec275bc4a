//! Versions, conditions, and fields changed by filter, below the wire.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::*;
use crate::{collection::CollectionError, value::Value};

async fn notes(home: &Home) -> Arc<Engine> {
    let engine = Engine::open(&home.config).unwrap();
    engine.create_collection(collection("notes")).await.unwrap();
    engine
}

fn only(condition: Condition, document: Document) -> Document {
    Document { condition, ..document }
}

fn set(field: &str, value: impl Into<String>) -> PayloadChange {
    PayloadChange {
        set: [(field.to_owned(), Value::String(value.into()))].into(),
        ..PayloadChange::default()
    }
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_condition_refuses_costs_no_encoding_and_an_equal_content_none_either() {
    let home = home("tiny");
    let engine = notes(&home).await;
    let first = engine.upsert("notes", vec![document("a", "rain")], NEVER).await.unwrap().remove(0);
    let before = encoded(&engine);
    for (condition, kind) in [
        (Condition::Absent, ErrorKind::Exists),
        (Condition::Version(first.version + 1), ErrorKind::Precondition),
    ] {
        let sent = vec![document("b", "a new text"), only(condition, document("a", "another text"))];
        assert_eq!(engine.upsert("notes", sent, NEVER).await.unwrap_err().kind(), kind);
    }
    for condition in [Condition::Version(first.version), Condition::Present] {
        let same = vec![only(condition, document("a", "rain"))];
        let same = engine.upsert("notes", same, NEVER).await.unwrap().remove(0);
        assert_eq!((same.status, same.version), (WriteStatus::Unchanged, first.version));
        assert_eq!((same.passages, same.tokens), (0, 0));
    }
    assert_eq!(encoded(&engine), before);
    assert_eq!(engine.count("notes", None).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_upserts_over_the_same_version_one_is_done_all_or_none() {
    let home = home("tiny");
    let engine = notes(&home).await;
    let mut version = engine.upsert("notes", vec![document("a", "start")], NEVER).await.unwrap()[0].version;
    for round in 0..10 {
        let calls: Vec<_> = (0..6)
            .map(|n| {
                let engine = Arc::clone(&engine);
                let sent = vec![
                    document(&format!("beside {round} {n}"), "rain"),
                    only(Condition::Version(version), document("a", &format!("text {round} {n}"))),
                ];
                tokio::spawn(async move { engine.upsert("notes", sent, NEVER).await })
            })
            .collect();
        let mut won = Vec::new();
        for call in calls {
            match call.await.unwrap() {
                Ok(outcomes) => won.push(outcomes[1].version),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Precondition, "{error}"),
            }
        }
        assert_eq!(won.len(), 1, "round {round}");
        version = won[0];
        // What was to be written beside a refused one is not there.
        assert_eq!(engine.count("notes", None).await.unwrap(), 2 + round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_without_an_encoder_have_versions_and_conditions_too() {
    let home = home("none");
    let engine = Engine::open(&home.config).unwrap();
    let new = NewCollection { vectors_only: true, dimension: Some(2), ..collection("v") };
    engine.create_collection(new).await.unwrap();
    let vector = |x: f32, condition| Document { vector: Some(vec![x, 1.0]), condition, ..document("a", "") };
    let first = engine.upsert("v", vec![vector(1.0, Condition::Absent)], NEVER).await.unwrap()[0].version;
    let again = engine.ingest("v", vec![vector(1.0, Condition::Absent)], NEVER).await.unwrap().remove(0);
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Exists);
    let same =
        engine.upsert("v", vec![vector(1.0, Condition::Version(first))], NEVER).await.unwrap().remove(0);
    assert_eq!((same.status, same.version), (WriteStatus::Unchanged, first));
    let next =
        engine.upsert("v", vec![vector(2.0, Condition::Version(first))], NEVER).await.unwrap().remove(0);
    assert!(next.status == WriteStatus::Updated && next.version > first, "{next:?}");
}

/// Each takes what is open and marks it as its own; nothing is taken twice, though all matched when they began.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_matches_no_more_is_left_alone() {
    const DOCUMENTS: u64 = 200;
    const WORKERS: u64 = 6;
    let home = home("tiny");
    let engine = notes(&home).await;
    let documents = (0..DOCUMENTS).map(|i| Document {
        payload: [("state".to_owned(), Value::String("open".into()))].into(),
        ..document(&format!("d{i}"), &format!("task {i}"))
    });
    engine.upsert("notes", documents.collect(), NEVER).await.unwrap();
    let texts = encoded(&engine);
    let workers: Vec<_> = (0..WORKERS)
        .map(|n| {
            let (engine, change) = (Arc::clone(&engine), set("state", format!("worker {n}")));
            let open = filter("state = 'open'");
            tokio::spawn(async move { engine.set_payload_matching("notes", open, change, NEVER).await })
        })
        .collect();
    let mut changed = 0;
    for (n, worker) in workers.into_iter().enumerate() {
        let counts = worker.await.unwrap().unwrap();
        assert_eq!((counts.unchanged, counts.failed), (0, 0), "{counts:?}");
        let own = filter(&format!("state = 'worker {n}'"));
        assert_eq!(engine.count("notes", Some(own)).await.unwrap(), counts.changed, "worker {n}");
        changed += counts.changed;
    }
    assert_eq!(changed, DOCUMENTS);
    assert_eq!(encoded(&engine), texts);
}

/// A document whose change was answered matches no more, so no deletion that meets it later may take it.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_by_filter_takes_no_document_that_was_changed_meanwhile() {
    let home = home(NO_MODEL);
    let engine = Engine::open(&home.config).unwrap();
    let new = NewCollection { dimension: Some(2), vectors_only: true, ..collection("notes") };
    engine.create_collection(new).await.unwrap();
    let ids: Vec<String> = (0..40).map(|n| format!("d{n}")).collect();
    let (mut kept, mut deleted) = (0, 0);
    for round in 0..40 {
        let documents = ids.iter().map(|id| Document {
            payload: set("state", "old").set,
            vector: Some(vec![1.0, round as f32]),
            ..document(id, "")
        });
        engine.upsert("notes", documents.collect(), NEVER).await.unwrap();
        let done = AtomicUsize::new(0);
        let change = async |ids: &[String]| {
            let mut changed = Vec::new();
            for id in ids {
                let outcome =
                    engine.set_payload("notes", vec![id.as_str().into()], set("state", "new"), NEVER);
                if let Some(Ok(outcome)) = outcome.await.unwrap().remove(0) {
                    assert_eq!(outcome.status, WriteStatus::Updated);
                    changed.push(id.clone());
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            changed
        };
        let some = |n: usize| change(&ids[n * 10..][..10]);
        let changing = async {
            let (a, b, c, d) = tokio::join!(some(0), some(1), some(2), some(3));
            [a, b, c, d].concat()
        };
        let deleting = async {
            // At another moment of the changes in each round.
            while done.load(Ordering::Relaxed) < round {
                tokio::task::yield_now().await;
            }
            engine.delete_matching("notes", filter("state = \"old\""), NEVER).await.unwrap()
        };
        let (changed, gone) = tokio::join!(changing, deleting);
        for id in &changed {
            let found = engine.get("notes", vec![id.clone()], false, Room::unbounded()).await.unwrap();
            assert!(found[0].1.is_some(), "round {round}: {id} is gone");
        }
        assert_eq!(engine.count("notes", None).await.unwrap(), ids.len() as u64 - gone);
        (kept, deleted) = (kept + changed.len(), deleted + gone);
    }
    assert!(kept > 0 && deleted > 0, "they never met: {kept} kept, {deleted} deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_filter_goes_through_more_than_one_portion_and_tells_how_far_it_came() {
    // More than a portion of documents.
    const DOCUMENTS: u64 = 1500;
    let home = home("none");
    let engine = Engine::open(&home.config).unwrap();
    let new = NewCollection { vectors_only: true, dimension: Some(2), ..collection("v") };
    engine.create_collection(new).await.unwrap();
    for begin in (0..DOCUMENTS).step_by(500) {
        let documents = (begin..begin + 500).map(|i| Document {
            payload: [("n".to_owned(), Value::Integer(i as i64))].into(),
            vector: Some(vec![1.0, i as f32]),
            ..document(&format!("d{i}"), "")
        });
        engine.upsert("v", documents.collect(), NEVER).await.unwrap();
    }
    let late = Caller { deadline: Some(Instant::now()), ..NEVER };
    let error = engine.set_payload_matching("v", filter("n >= 100"), set("s", "x"), late).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error.to_string().contains("0 of 1400 matching") && error.to_string().contains("same request again")
    );
    assert_eq!(engine.count("v", Some(filter("exists(s)"))).await.unwrap(), 0);
    let patient = Caller { deadline: Some(Instant::now() + Duration::from_secs(600)), ..NEVER };
    let counts = engine.set_payload_matching("v", filter("n >= 100"), set("s", "x"), patient).await.unwrap();
    assert_eq!((counts.changed, counts.unchanged, counts.failed), (1400, 0, 0));
    assert_eq!(engine.count("v", Some(filter("s = 'x'"))).await.unwrap(), 1400);
    let again = engine.set_payload_matching("v", filter("n >= 0"), set("s", "x"), NEVER).await.unwrap();
    assert_eq!((again.changed, again.unchanged, again.failed), (100, 1400, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_and_deletions_expect_versions() {
    let home = home("tiny");
    let engine = notes(&home).await;
    let read =
        engine.upsert("notes", vec![document("a", "rain"), document("b", "snow")], NEVER).await.unwrap();
    let target =
        |place: usize| Target { id: read[place].id.clone(), expected_version: Some(read[place].version) };
    let changed = engine.set_payload("notes", vec![target(0)], set("s", "x"), NEVER).await.unwrap().remove(0);
    let changed = changed.unwrap().unwrap();
    assert!(changed.version > read[1].version, "{changed:?}");
    let stale = engine.set_payload("notes", vec![target(0), "b".into()], set("s", "y"), NEVER).await.unwrap();
    let error = stale[0].as_ref().unwrap().as_ref().unwrap_err();
    assert!(
        matches!(error, EngineError::Collection(CollectionError::OtherVersion { expected, stored, .. })
            if *expected == read[0].version && *stored == changed.version),
        "{error}"
    );
    assert_eq!(stale[1].as_ref().unwrap().as_ref().unwrap().status, WriteStatus::Updated);
    let error = engine.delete("notes", vec!["b".into(), target(0)], NEVER).await.unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::Precondition, Some("expected_version")), "{error}");
    assert_eq!(engine.count("notes", None).await.unwrap(), 2);
    let now = Target { id: "a".into(), expected_version: Some(changed.version) };
    assert_eq!(engine.delete("notes", vec![now.clone(), "b".into(), now], NEVER).await.unwrap(), 2);
}
