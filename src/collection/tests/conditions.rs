//! Conditions are looked at when a write is done: of many who expect the same version one writes, every time.

use std::sync::{Barrier, mpsc::sync_channel};

use super::{super::point::Versioned, *};
use crate::error::Fault as _;

pub(super) fn write_each(collection: &Collection, writes: Vec<Write>) -> Vec<Written> {
    let (send, receive) = sync_channel(1);
    let options = WriteOptions { each: true, ..WriteOptions::default() };
    collection.submit_with(writes, options, Box::new(move |result| send.send(result).unwrap()));
    receive.recv().unwrap().unwrap()
}

fn create(dir: &tempfile::TempDir) -> Arc<Collection> {
    Collection::create(&place(dir), spec(IndexKind::Flat), options(&place(dir))).unwrap()
}

fn put(name: &str, content: u64, condition: Condition) -> Write {
    let point = point(name, content, 1, &mut Random(content));
    Write::UpsertIf { point: Box::new(point), condition }
}

fn version(collection: &Collection, name: &str) -> Option<u64> {
    collection.revision(&id(name)).unwrap().map(|revision| revision.version)
}

#[test]
fn a_version_is_never_given_out_twice_not_even_after_a_deletion_and_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let collection = create(&dir);
    let write = |collection: &Collection, write| collection.write(vec![write]).unwrap().remove(0);
    let first = write(&collection, put("a", 1, Condition::Any)).version.unwrap();
    assert!(first > 0, "0 is nobody's");
    assert_eq!(write(&collection, put("a", 1, Condition::Any)).version, Some(first));
    let second = write(&collection, put("a", 2, Condition::Any)).version.unwrap();
    assert!(second > first);
    assert_eq!(write(&collection, Write::Delete(id("a"))).version, None);
    collection.close().unwrap();
    drop(collection);
    let collection = Collection::open(&place(&dir), made(IndexKind::Flat), options(&place(&dir))).unwrap();
    let third = write(&collection, put("a", 1, Condition::Any)).version.unwrap();
    assert!(third > second, "{third} after {second}");
    assert_eq!(version(&collection, "a"), Some(third));
}

#[test]
fn one_condition_that_does_not_hold_refuses_the_whole_call() {
    let dir = tempfile::tempdir().unwrap();
    let collection = create(&dir);
    let stored = collection.write(vec![put("a", 1, Condition::Absent)]).unwrap()[0].version.unwrap();
    for (write, kind) in [
        (put("a", 2, Condition::Absent), ErrorKind::Exists),
        (put("b", 2, Condition::Present), ErrorKind::NotFound),
        (put("a", 2, Condition::Version(stored + 1)), ErrorKind::Precondition),
        (put("b", 2, Condition::Version(stored)), ErrorKind::Precondition),
        (Write::DeleteIf { id: id("a"), condition: Condition::Version(stored + 1) }, ErrorKind::Precondition),
        // What is stored already is refused too: whoever expects a version wants to know.
        (put("a", 1, Condition::Version(stored + 1)), ErrorKind::Precondition),
        (put("a", 1, Condition::Absent), ErrorKind::Exists),
    ] {
        let error = collection.write(vec![put("c", 1, Condition::Any), write]).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    assert_eq!((version(&collection, "a"), version(&collection, "c")), (Some(stored), None));
    let deletion = Write::DeleteIf { id: id("a"), condition: Condition::Version(stored) };
    assert_eq!(outcomes(&collection, vec![deletion]), [Outcome::Deleted]);
}

#[test]
fn each_by_itself_leaves_out_what_does_not_fit_and_does_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let collection = create(&dir);
    let stored = collection.write(vec![put("a", 1, Condition::Any)]).unwrap()[0].version;
    let writes = vec![
        put("b", 1, Condition::Absent),
        put("a", 2, Condition::Absent),
        put("c", 1, Condition::Present),
        put("d", 1, Condition::Any),
    ];
    let written = write_each(&collection, writes);
    let told: Vec<Outcome> = written.iter().map(|written| written.outcome).collect();
    assert_eq!(told, [Outcome::Inserted, Outcome::Refused, Outcome::Refused, Outcome::Inserted]);
    assert_eq!((written[1].version, written[2].version), (stored, None));
    assert_eq!(collection.count(None, &Stop::default()).unwrap(), 3);
}

#[test]
fn of_many_who_expect_the_same_version_one_writes() {
    const WRITERS: u64 = 8;
    const ROUNDS: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let collection = create(&dir);
    let mut expected = collection.write(vec![put("a", 0, Condition::Absent)]).unwrap()[0].version.unwrap();
    for round in 0..ROUNDS {
        let barrier = Barrier::new(WRITERS as usize);
        let won: Vec<u64> = std::thread::scope(|scope| {
            let writer = |n: u64| {
                let (collection, barrier) = (&collection, &barrier);
                scope.spawn(move || {
                    let content = 1 + round * WRITERS + n;
                    // Beside others in one call, and alone; both ways of writing.
                    let writes = vec![
                        put(&format!("own {n}"), content, Condition::Any),
                        put("a", content, Condition::Version(expected)),
                    ];
                    barrier.wait();
                    if n.is_multiple_of(2) {
                        match collection.write(writes) {
                            Ok(written) => written[1].version,
                            Err(error) => {
                                assert!(matches!(error, CollectionError::OtherVersion { .. }), "{error}");
                                None
                            }
                        }
                    } else {
                        let written = write_each(collection, writes)[1];
                        (written.outcome == Outcome::Updated).then_some(written.version.unwrap())
                    }
                })
            };
            let writers: Vec<_> = (0..WRITERS).map(writer).collect();
            writers.into_iter().filter_map(|writer| writer.join().unwrap()).collect()
        });
        assert_eq!(won.len(), 1, "round {round}: {won:?}");
        assert!(won[0] > expected);
        assert_eq!(version(&collection, "a"), Some(won[0]));
        expected = won[0];
    }
}

#[test]
fn of_many_who_insert_the_same_id_one_does() {
    const WRITERS: u64 = 8;
    let dir = tempfile::tempdir().unwrap();
    let collection = create(&dir);
    for round in 0..20 {
        let name = format!("doc {round}");
        let barrier = Barrier::new(WRITERS as usize);
        let inserted = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|n| {
                    let (collection, barrier, name) = (&collection, &barrier, &name);
                    scope.spawn(move || {
                        barrier.wait();
                        collection.write(vec![put(name, n, Condition::Absent)]).is_ok()
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).filter(|inserted| *inserted).count()
        });
        assert_eq!(inserted, 1, "round {round}");
    }
}

#[test]
fn a_counter_kept_by_compare_and_set_loses_no_increment() {
    const WRITERS: u64 = 6;
    const INCREMENTS: i64 = 25;
    let dir = tempfile::tempdir().unwrap();
    let collection = create(&dir);
    let counter = |n: i64, condition| {
        let mut point = point("counter", 0, 1, &mut Random(7));
        point.payload = Payload::from([("n".to_owned(), Value::Integer(n))]);
        point.content_hash = ContentHash(i128::from(n).to_le_bytes());
        vec![Write::UpsertIf { point: Box::new(point), condition }]
    };
    collection.write(counter(0, Condition::Absent)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut done = 0;
                while done < INCREMENTS {
                    let Versioned { point: read, version } =
                        collection.point(&id("counter")).unwrap().unwrap();
                    let Value::Integer(n) = read.payload["n"] else { unreachable!("it was written so") };
                    match collection.write(counter(n + 1, Condition::Version(version))) {
                        Ok(_) => done += 1,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Precondition, "{error}"),
                    }
                }
            });
        }
    });
    let read = collection.point(&id("counter")).unwrap().unwrap().point;
    assert_eq!(read.payload["n"], Value::Integer(WRITERS as i64 * INCREMENTS));
}
