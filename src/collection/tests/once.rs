//! A call with a request id is done once, however often and whenever it is sent.

use super::*;
use crate::{
    collection::{DoneBefore, Once},
    error::Fault as _,
};

fn once(id: &str, step: u32) -> Once {
    Once { id: id.to_owned(), step, hash: [7; 16], note: vec![1, 2, 3] }
}

fn write_once(
    collection: &Collection,
    writes: Vec<Write>,
    once: Once,
) -> Result<Vec<Written>, CollectionError> {
    let (send, answer) = std::sync::mpsc::channel();
    let options = WriteOptions { once: Some(once), ..WriteOptions::default() };
    collection.submit_with(writes, options, Box::new(move |result| send.send(result).unwrap()));
    answer.recv().unwrap()
}

fn done_before(result: Result<Vec<Written>, CollectionError>) -> DoneBefore {
    match result {
        Err(CollectionError::DoneBefore { done }) => (*done).clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_writer_does_a_call_once_and_tells_what_it_did_also_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(&dir);
    let collection = Collection::create(&place, spec(IndexKind::Flat), options(&place)).unwrap();
    let a = point("a", 1, 2, &mut Random(1));
    let insert = || vec![Write::UpsertIf { point: Box::new(a.clone()), condition: Condition::Absent }];
    let first = write_once(&collection, insert(), once("r", 0)).unwrap();
    let expected = DoneBefore { step: 0, note: vec![1, 2, 3], written: first };
    assert_eq!(done_before(write_once(&collection, insert(), once("r", 0))), expected);
    collection.write(vec![Write::Delete(id("a"))]).unwrap();
    assert_eq!(done_before(write_once(&collection, insert(), once("r", 0))), expected);
    let other = Once { hash: [8; 16], ..once("r", 0) };
    let error = write_once(&collection, insert(), other.clone()).unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("\"r\"")), (ErrorKind::Exists, true), "{error}");
    assert!(collection.done_before("r", other.hash).is_err());
    assert_eq!(collection.done_before("s", [7; 16]).unwrap(), None);
    // Dropped as a kill ends it.
    drop(collection);
    let collection = Collection::open(&place, made(IndexKind::Flat), options(&place)).unwrap();
    assert_eq!(collection.done_before("r", [7; 16]).unwrap().as_deref(), Some(&expected));
    assert_eq!(done_before(write_once(&collection, insert(), once("r", 0))), expected);
    assert!(collection.revision(&id("a")).unwrap().is_none());
    // What comes after it is done, and takes its place.
    let second = write_once(&collection, insert(), once("r", 1)).unwrap();
    assert_eq!(done_before(write_once(&collection, insert(), once("r", 0))).written, second);
}

#[test]
fn the_same_call_twice_in_the_queue_is_done_once_also_where_it_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(&dir);
    let collection = Collection::create(&place, spec(IndexKind::Flat), options(&place)).unwrap();
    for writes in [vec![], vec![Write::Delete(id("none"))], vec![upsert(point("a", 1, 1, &mut Random(2)))]] {
        let (send, answers) = std::sync::mpsc::channel();
        let call = format!("call {}", writes.len());
        let call = format!("{call} {:?}", writes.first().map(|write| write.point().is_some()));
        for _ in 0..20 {
            let send = send.clone();
            let options = WriteOptions { once: Some(once(&call, 0)), ..WriteOptions::default() };
            collection.submit_with(
                writes.clone(),
                options,
                Box::new(move |result| send.send(result).unwrap()),
            );
        }
        let (done, again): (Vec<_>, Vec<_>) = answers.iter().take(20).partition(Result::is_ok);
        assert_eq!((done.len(), again.len()), (1, 19), "{call}");
        let first = done.into_iter().next().unwrap().unwrap();
        assert!(again.into_iter().all(|result| done_before(result).written == first));
    }
}

#[test]
fn a_call_that_is_refused_is_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(&dir);
    let collection = Collection::create(&place, spec(IndexKind::Flat), options(&place)).unwrap();
    let a = point("a", 1, 2, &mut Random(3));
    let replace = || vec![Write::UpsertIf { point: Box::new(a.clone()), condition: Condition::Present }];
    for _ in 0..2 {
        let error = write_once(&collection, replace(), once("r", 0)).unwrap_err();
        assert!(matches!(error, CollectionError::NothingToReplace { .. }), "{error}");
    }
    collection.write(vec![upsert(point("a", 5, 1, &mut Random(4)))]).unwrap();
    assert_eq!(write_once(&collection, replace(), once("r", 0)).unwrap()[0].outcome, Outcome::Updated);
}
