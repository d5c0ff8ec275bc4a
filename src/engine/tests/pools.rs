//! Pools of one thread: no work of a pool waits there for what needs that thread, or another collection's room.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::mpsc::{Sender, channel},
    task::Poll,
    time::Duration,
};

use super::*;
use crate::{
    collection::Reads,
    engine::backend::Answer,
    threads::crew::{Next, Seat},
    value::Value,
};

/// A watchdog, for what would hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine whose pools have one thread and of whose collections `c0`, `c1` and `c2` one may be open. Each has one
/// document, whose id, title, text and payload are the collection's name.
async fn engine_of_one() -> (Arc<Engine>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        data: DataConfig { dir: dir.path().join("db"), open_collections_max: 1, ..DataConfig::default() },
        encoder: EncoderConfig { model: NO_MODEL.into(), ..EncoderConfig::default() },
        ..Config::default()
    };
    let engine = Engine::open_on(&config, Threads::new(1).unwrap()).unwrap();
    for name in ["c0", "c1", "c2"] {
        let new = NewCollection { dimension: Some(2), vectors_only: true, ..collection(name) };
        engine.create_collection(new).await.unwrap();
        let document = Document {
            title: name.into(),
            payload: [("name".to_owned(), Value::String(name.into()))].into(),
            vector: Some(vec![1.0, 2.0]),
            ..document(name, name)
        };
        engine.upsert(name, vec![document], NEVER).await.unwrap();
    }
    (engine, dir)
}

fn any() -> SearchQuery {
    question(Ask::Vector(vec![1.0, 2.0]))
}

/// Whether it is done after one more look; what it was about to do is then under way.
async fn is_done<T>(answer: &mut Answer<'_, T>) -> bool {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *answer).poll(context).is_ready())).await
}

/// Takes all indexers' threads until what is answered is dropped.
fn hold_indexers(threads: &Threads) -> Vec<(Sender<()>, Seat)> {
    let hold = |_| {
        let ((begun, is_begun), (send, hold)) = (channel(), channel::<()>());
        let seat = threads.indexers.join(move || {
            begun.send(()).unwrap();
            let _ = hold.recv();
            Next::Leave
        });
        seat.wake();
        is_begun.recv().unwrap();
        (send, seat)
    };
    (0..crate::threads::INDEXERS).map(hold).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_waits_for_room_keeps_no_other_from_being_served() {
    let (engine, _dir) = engine_of_one().await;
    let (open, shut) = (engine.find("c0").unwrap(), engine.find("c1").unwrap());
    let search = |backend: &Arc<dyn Backend>| {
        let (backend, reads) = (Arc::clone(backend), Arc::new(Reads::new(Room::unbounded())));
        async move { backend.search(any(), None, None, reads).await }
    };
    let kept = open.ready().await.unwrap();
    let mut late: Answer<'_, _> = Box::pin(search(&shut));
    assert!(!is_done(&mut late).await, "no other may be open");
    for _ in 0..20 {
        let (hits, _) = tokio::time::timeout(PATIENCE, search(&open)).await.unwrap().unwrap();
        assert_eq!(hits[0].id.as_str(), "c0");
        assert!(!is_done(&mut late).await, "no other may be open");
    }
    drop(kept);
    let (hits, _) = tokio::time::timeout(PATIENCE, late).await.unwrap().unwrap();
    assert_eq!(hits[0].id.as_str(), "c1");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_of_more_collections_than_may_be_open_all_end() {
    let (engine, _dir) = engine_of_one().await;
    let names = ["c0", "c1", "c2", "c1", "c0", "c2"];
    let requests: Vec<_> = (0..8)
        .map(|_| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                let queries = names.map(|name| (name.to_owned(), any())).to_vec();
                engine.search_batch(queries, NEVER, Room::unbounded()).await.unwrap()
            })
        })
        .collect();
    for request in requests {
        let answers = tokio::time::timeout(PATIENCE, request).await.unwrap().unwrap();
        let found: Vec<&str> = answers.iter().map(|answer| answer.hits[0].id.as_str()).collect();
        assert_eq!(found, names);
    }
    engine.close().await.unwrap();
}

/// Each collection is closed before the next is opened, which then lies where the other lay in memory.
#[tokio::test(flavor = "multi_thread")]
async fn hits_of_one_request_carry_their_own_collections_content() {
    let (engine, _dir) = engine_of_one().await;
    let names = ["c0", "c1", "c2"].repeat(8);
    let queries = names.iter().map(|name| ((*name).to_owned(), any())).collect();
    let answers = engine.search_batch(queries, NEVER, Room::unbounded()).await.unwrap();
    for (name, answer) in names.into_iter().zip(answers) {
        let [hit] = answer.hits.as_slice() else { panic!("{name} has one document") };
        assert_eq!((hit.id.as_str(), &*hit.title, &*hit.passage), (name, name, name));
        assert_eq!(hit.payload["name"], Value::String(name.to_owned()));
    }
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_the_indexer_keeps_nobody_from_being_served() {
    let (engine, _dir) = engine_of_one().await;
    let held = hold_indexers(engine.pools());
    let document = Document { vector: Some(vec![2.0, 1.0]), ..document("more", "") };
    engine.upsert("c2", vec![document], NEVER).await.unwrap();
    let backend = engine.find("c2").unwrap();
    let mut wait = backend.wait_indexed();
    assert!(!is_done(&mut wait).await);
    let count = tokio::time::timeout(PATIENCE, engine.count("c2", None)).await.unwrap();
    assert_eq!(count.unwrap(), 2);
    assert!(!is_done(&mut wait).await, "nobody indexes");
    drop(held);
    tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();
    engine.close().await.unwrap();
}
