//! What is acknowledged is on disk, and what is wrong with the disk is said.

use super::*;
use crate::error::Fault as _;

fn create(disk: &Arc<FaultyDisk>, dir: &Path) -> Arc<Collection> {
    let options = options();
    let means = Means { options: &options, disk: Arc::clone(disk) as _, numbers_max: NUMBERS_MAX };
    Collection::create_with(dir, spec(IndexKind::Flat), means).unwrap()
}

fn names(collection: &Collection) -> Vec<String> {
    let page = collection.scroll(None, None, 10_000, true, &Stop::default(), &Room::unbounded()).unwrap();
    page.points.iter().map(|point| format!("{} {}", point.id, point.text)).collect()
}

#[test]
fn a_write_is_synced_before_it_is_acknowledged_and_an_unchanged_one_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let collection = create(&disk, &dir.path().join("c"));
    let mut random = Random(1);
    let point = point("a", 1, 2, &mut random);
    let before = disk.syncs.load(Ordering::SeqCst);
    assert_eq!(outcomes(&collection, vec![upsert(point.clone())]), [Outcome::Inserted]);
    let after = disk.syncs.load(Ordering::SeqCst);
    // The store, and the file that says how far it got.
    assert_eq!(after, before + 2);
    assert_eq!(outcomes(&collection, vec![upsert(point)]), [Outcome::Unchanged]);
    assert_eq!(outcomes(&collection, vec![Write::Delete(id("b"))]), [Outcome::NotFound]);
    assert_eq!(disk.syncs.load(Ordering::SeqCst), after);
}

#[test]
fn a_failed_sync_makes_the_collection_read_only_until_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("c");
    let disk = Arc::new(FaultyDisk::default());
    let collection = create(&disk, &place);
    let mut random = Random(2);
    collection.write(vec![upsert(point("a", 1, 2, &mut random))]).unwrap();
    assert_eq!(collection.read_only(), None);
    disk.sync_fails.store(true, Ordering::SeqCst);
    let error = collection.write(vec![upsert(point("b", 1, 2, &mut random))]).unwrap_err();
    assert!(matches!(error, CollectionError::ReadOnly { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert!(collection.read_only().unwrap().contains("the device is gone"));
    // Not even when the disk seems well again.
    disk.sync_fails.store(false, Ordering::SeqCst);
    let syncs = disk.syncs.load(Ordering::SeqCst);
    assert!(matches!(
        collection.write(vec![Write::Delete(id("a"))]).unwrap_err(),
        CollectionError::ReadOnly { .. }
    ));
    assert_eq!(disk.syncs.load(Ordering::SeqCst), syncs);
    // Reads go on, and what was not acknowledged is not seen.
    assert_eq!(names(&collection).len(), 1);
    assert_eq!(search(&collection, &query(vector(&mut random), 5)).unwrap().0.len(), 1);
    drop(collection);
    let collection = Collection::open(&place, made(IndexKind::Flat), options()).unwrap();
    collection.write(vec![upsert(point("c", 1, 2, &mut random))]).unwrap();
}

#[test]
fn a_writer_that_panics_answers_and_takes_nothing_more_until_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("c");
    let disk = Arc::new(FaultyDisk::default());
    let collection = create(&disk, &place);
    let mut random = Random(6);
    collection.write(vec![upsert(point("a", 1, 2, &mut random))]).unwrap();
    disk.sync_panics.store(true, Ordering::SeqCst);
    let refused = |write: Write| {
        let error = collection.write(vec![write]).unwrap_err();
        assert!(matches!(error, CollectionError::ReadOnly { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Precondition);
        assert!(error.to_string().contains("the writer panicked"), "{error}");
    };
    refused(upsert(point("b", 1, 2, &mut random)));
    disk.sync_panics.store(false, Ordering::SeqCst);
    refused(Write::Delete(id("a")));
    assert!(collection.read_only().unwrap().contains("the writer panicked"));
    // Reads go on, and the one that panicked is not half there.
    assert_eq!(names(&collection).len(), 1);
    drop(collection);
    let collection = Collection::open(&place, made(IndexKind::Flat), options()).unwrap();
    collection.write(vec![upsert(point("c", 1, 2, &mut random))]).unwrap();
}

#[test]
fn a_full_disk_refuses_writes_while_reads_and_deletes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let collection = create(&disk, &dir.path().join("c"));
    let mut random = Random(3);
    for name in ["a", "b", "c"] {
        collection.write(vec![upsert(point(name, 1, 2, &mut random))]).unwrap();
    }
    disk.free.store(8 << 20, Ordering::SeqCst);
    let error = collection.write(vec![upsert(point("d", 1, 2, &mut random))]).unwrap_err();
    assert!(
        matches!(&error, CollectionError::Store(e) if matches!(**e, StoreError::DiskFull { .. })),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!(names(&collection).len(), 3);
    assert_eq!(outcomes(&collection, vec![Write::Delete(id("a"))]), [Outcome::Deleted]);
    // Committed together or not, deletes do not suffer for upserts.
    let (sender, answers) = std::sync::mpsc::channel();
    for n in 0..40 {
        let write = match n {
            20 => Write::Delete(id("b")),
            _ => upsert(point(&format!("e {n}"), 1, 1, &mut random)),
        };
        let sender = sender.clone();
        collection.submit(vec![write], Box::new(move |result| sender.send((n, result)).unwrap()));
    }
    drop(sender);
    for (n, result) in answers {
        assert_eq!(result.is_ok(), n == 20, "{n}: {result:?}");
    }
    disk.free.store(u64::MAX, Ordering::SeqCst);
    collection.write(vec![upsert(point("d", 1, 2, &mut random))]).unwrap();
    assert_eq!(collection.count(None, &Stop::default()).unwrap(), 2);
    assert_eq!(collection.read_only(), None);
}

#[test]
fn bad_calls_are_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let collection = create(&Arc::default(), &dir.path().join("c"));
    let mut random = Random(4);
    let twice = vec![upsert(point("a", 1, 1, &mut random)), Write::Delete(id("a"))];
    assert!(matches!(collection.write(twice).unwrap_err(), CollectionError::DuplicateId { id } if id == "a"));
    let mut empty = point("a", 1, 1, &mut random);
    empty.passages.clear();
    let mut outside = point("a", 1, 1, &mut random);
    outside.passages[0].range.end += 1;
    let mut wrong = point("a", 1, 1, &mut random);
    wrong.passages[0].vector = Vector::new(vec![1.0; 3], Dim::new(3).unwrap(), Metric::Cosine).unwrap();
    for bad in [empty, outside, wrong] {
        let error = collection.write(vec![upsert(point("b", 1, 1, &mut random)), upsert(bad)]).unwrap_err();
        assert!(matches!(error, CollectionError::BadPoint { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    assert_eq!(collection.count(None, &Stop::default()).unwrap(), 0);
}

#[test]
fn a_full_queue_refuses_and_a_callers_panic_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let collection = create(&Arc::default(), &dir.path().join("c"));
    let mut random = Random(5);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (begun, begins) = std::sync::mpsc::channel::<()>();
    collection.submit(
        vec![upsert(point("a", 1, 1, &mut random))],
        Box::new(move |_| {
            begun.send(()).unwrap();
            held.recv().unwrap();
            panic!("a caller's own fault");
        }),
    );
    begins.recv().unwrap();
    let refused = Arc::new(AtomicU64::new(0));
    for _ in 0..super::super::writer::QUEUE_MAX + 5 {
        let refused = Arc::clone(&refused);
        collection.submit(
            vec![Write::Delete(id("nobody"))],
            Box::new(move |result| {
                if let Err(error) = result {
                    assert!(matches!(error, CollectionError::QueueFull { .. }), "{error}");
                    assert_eq!(error.kind(), ErrorKind::Overloaded);
                    refused.fetch_add(1, Ordering::SeqCst);
                }
            }),
        );
    }
    assert_eq!(refused.load(Ordering::SeqCst), 5);
    release.send(()).unwrap();
    while collection.shared.queued.load(Ordering::SeqCst) > 0 {
        std::thread::yield_now();
    }
    assert_eq!(outcomes(&collection, vec![Write::Delete(id("a"))]), [Outcome::Deleted]);
}

#[test]
fn a_second_open_is_told_that_it_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("c");
    let _collection = create(&Arc::default(), &place);
    let error = Collection::open(&place, made(IndexKind::Flat), options()).unwrap_err();
    assert!(
        matches!(&error, CollectionError::Store(e) if matches!(**e, StoreError::Locked { .. })),
        "{error}"
    );
    let error = Collection::create(&place, spec(IndexKind::Flat), options()).unwrap_err();
    assert!(matches!(error, CollectionError::Io { .. }), "{error}");
}

#[test]
fn a_closed_collection_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let collection = create(&Arc::default(), &dir.path().join("c"));
    collection.close().unwrap();
    collection.close().unwrap();
    let mut random = Random(6);
    let error = collection.write(vec![upsert(point("a", 1, 1, &mut random))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(matches!(
        collection.get(&[id("a")], true, true, &Stop::default(), &Room::unbounded()).unwrap_err(),
        CollectionError::Closed
    ));
    assert!(matches!(
        search(&collection, &query(vector(&mut random), 1)).unwrap_err(),
        CollectionError::Closed
    ));
}

#[test]
fn parameters_out_of_bounds_make_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("c");
    let mut spec = spec(IndexKind::HnswRs);
    spec.index.m = 1;
    let error = Collection::create(&place, spec, options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!place.exists());
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .collect();
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, target).unwrap();
    }
    // sled wants its empty folder back too.
    std::fs::create_dir_all(to.join("state/blobs")).unwrap();
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip(u64),
    Cut(u64),
    Remove,
    Nothing,
}

fn damage(file: &Path, damage: Damage) {
    let mut bytes = std::fs::read(file).unwrap();
    let len = bytes.len() as u64;
    match damage {
        Damage::Flip(at) if len > 0 => {
            bytes[usize::try_from(at % len).unwrap()] ^= 0x10;
            std::fs::write(file, bytes).unwrap();
        }
        Damage::Cut(at) if len > 0 => {
            bytes.truncate(usize::try_from(at % len).unwrap());
            std::fs::write(file, bytes).unwrap();
        }
        Damage::Remove => std::fs::remove_file(file).unwrap(),
        _ => {}
    }
}

#[test]
fn index_files_lost_or_damaged_cost_time_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(7);
    let good = dir.path().join("good");
    let collection = Collection::create(&good, spec(IndexKind::HnswRs), options()).unwrap();
    let points: Vec<Write> =
        (0..350).map(|i| upsert(point(&format!("doc {i}"), i, 1, &mut random))).collect();
    collection.write(points).unwrap();
    collection.wait_indexed();
    let query = query(vector(&mut random), 10);
    let truth = search(&collection, &SearchQuery { exact: true, ..query.clone() }).unwrap().0;
    collection.close().unwrap();
    drop(collection);
    let index_files = files(&good.join("index"));
    assert!(index_files.len() >= 3, "{index_files:?}");
    let mut kinds = vec![(index_files[0].clone(), Damage::Nothing)];
    for file in &index_files {
        for what in [Damage::Flip(random.next()), Damage::Cut(random.next()), Damage::Remove] {
            kinds.push((file.clone(), what));
        }
    }
    for (n, (file, what)) in kinds.into_iter().enumerate() {
        let place = dir.path().join(format!("{n}"));
        copy(&good, &place);
        damage(&place.join(file.strip_prefix(&good).unwrap()), what);
        let collection = Collection::open(&place, made(IndexKind::HnswRs), options()).unwrap();
        let kept = place.join("index").exists();
        assert_eq!(kept, matches!(what, Damage::Nothing), "{} {what:?}", file.display());
        collection.wait_indexed();
        assert_eq!(collection.stats().indexed, 350);
        let (hits, trace) = search(&collection, &query).unwrap();
        assert_eq!((trace.plan(), hits.len()), ("graph", 10), "{trace:?}");
        assert_eq!(search(&collection, &SearchQuery { exact: true, ..query.clone() }).unwrap().0, truth);
    }
}

/// A graph is a cache, also when it is saved.
#[test]
fn a_graph_that_cannot_be_saved_does_not_fail_the_close() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(17);
    let place = dir.path().join("c");
    let disk = Arc::new(FaultyDisk::default());
    let options_here = options();
    let means = Means { options: &options_here, disk: Arc::clone(&disk) as _, numbers_max: NUMBERS_MAX };
    let collection = Collection::create_with(&place, spec(IndexKind::HnswRs), means).unwrap();
    collection.write(vec![upsert(point("a", 1, 5, &mut random))]).unwrap();
    collection.wait_indexed();
    disk.rename_fails.store(true, Ordering::SeqCst);
    collection.close().unwrap();
    drop(collection);
    assert!(!place.join("index").exists() && !place.join("index.new").exists());
    // A file in the place of the folder is replaced.
    std::fs::write(place.join("index"), "a file").unwrap();
    let open = || Collection::open(&place, made(IndexKind::HnswRs), options()).unwrap();
    let collection = open();
    collection.wait_indexed();
    collection.close().unwrap();
    drop(collection);
    assert!(place.join("index/rows").exists());
    open().close().unwrap();
}

/// Rows beside another graph than theirs would give its slots to other documents, and prove nothing of the store.
#[test]
fn rows_of_another_graph_are_thrown_away_with_the_graph() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(18);
    let [small, large] = ["small", "large"].map(|name| dir.path().join(name));
    for (place, batches) in [(&small, 1), (&large, 8)] {
        let collection = Collection::create(place, spec(IndexKind::HnswRs), options()).unwrap();
        for batch in 0..batches {
            collection.write(vec![upsert(point(&format!("{batch}"), 1, 5, &mut random))]).unwrap();
        }
        collection.wait_indexed();
        collection.close().unwrap();
    }
    let rows = small.join("index/rows");
    let earlier = std::fs::read(&rows).unwrap();
    let open = || Collection::open(&small, made(IndexKind::HnswRs), options()).unwrap();
    let check = |documents: u64| {
        let collection = open();
        assert!(!small.join("index").exists(), "it is of no use");
        assert_eq!(collection.count(None, &Stop::default()).unwrap(), documents);
        collection.wait_indexed();
        assert_eq!(collection.stats().indexed, 5 * documents);
        collection
    };
    std::fs::copy(large.join("index/rows"), &rows).unwrap();
    // Another document, and so another graph, of the same collection.
    let collection = check(1);
    collection.write(vec![upsert(point("later", 1, 5, &mut random))]).unwrap();
    collection.wait_indexed();
    collection.close().unwrap();
    drop(collection);
    std::fs::write(&rows, earlier).unwrap();
    check(2).close().unwrap();
    open();
    assert!(rows.exists());
}

/// The state of an earlier time, put back by hand, is refused; what it holds can be accepted.
#[test]
fn a_graph_of_a_later_state_proves_that_the_store_lost_batches() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(8);
    let place = dir.path().join("c");
    let collection = Collection::create(&place, spec(IndexKind::HnswRs), options()).unwrap();
    collection.write(vec![upsert(point("a", 1, 5, &mut random))]).unwrap();
    collection.close().unwrap();
    drop(collection);
    let backup = dir.path().join("backup");
    copy(&place, &backup);
    let collection = Collection::open(&place, made(IndexKind::HnswRs), options()).unwrap();
    collection.write(vec![Write::Delete(id("a"))]).unwrap();
    collection.write(vec![upsert(point("b", 1, 5, &mut random))]).unwrap();
    collection.wait_indexed();
    collection.close().unwrap();
    drop(collection);
    // The documents of the backup with the graph of today.
    std::fs::remove_dir_all(place.join("state")).unwrap();
    copy(&backup.join("state"), &place.join("state"));
    let proof = place.join("acknowledged");
    let error = Collection::open(&place, made(IndexKind::HnswRs), options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("batch 3") && error.to_string().contains("echo accept > "), "{error}");
    // Also where the file of what was acknowledged is put back with it.
    std::fs::copy(backup.join("acknowledged"), &proof).unwrap();
    let error = Collection::open(&place, made(IndexKind::HnswRs), options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("index/rows"), "{error}");
    std::fs::write(&proof, "accept\n").unwrap();
    let collection = Collection::open(&place, made(IndexKind::HnswRs), options()).unwrap();
    assert!(!place.join("index").exists());
    assert_eq!(collection.count(None, &Stop::default()).unwrap(), 1);
    collection.wait_indexed();
    assert_eq!(collection.stats().indexed, 5);
    // Accepted once, not for ever.
    collection.write(vec![upsert(point("c", 1, 1, &mut random))]).unwrap();
    collection.close().unwrap();
    drop(collection);
    std::fs::remove_dir_all(place.join("state")).unwrap();
    copy(&backup.join("state"), &place.join("state"));
    assert_eq!(
        Collection::open(&place, made(IndexKind::HnswRs), options()).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

/// Damage to a store that fits into one segment of sled's log, which sled takes for the log's end.
#[test]
fn a_small_store_that_lost_acknowledged_batches_is_refused() {
    let seed = 12;
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    let good = dir.path().join("good");
    let collection = Collection::create(&good, spec(IndexKind::Flat), options()).unwrap();
    for batch in 0..30 {
        let points = (0..10).map(|n| upsert(point(&format!("doc {batch} {n}"), batch, 1, &mut random)));
        collection.write(points.collect()).unwrap();
    }
    let all = names(&collection);
    assert_eq!(all.len(), 300);
    collection.close().unwrap();
    drop(collection);
    let db = std::fs::read(good.join("state/db")).unwrap();
    let used = db.len() as u64 - db.iter().rev().take_while(|byte| **byte == 0).count() as u64;
    assert!(used < 512 << 10, "{used}");
    let (mut refused, mut whole) = (0, 0);
    for n in 0..60u64 {
        let place = dir.path().join("damaged");
        let _ = std::fs::remove_dir_all(&place);
        copy(&good, &place);
        let at = (used * (n % 30) / 30 + random.below(500)) % used;
        let what = if n < 30 { Damage::Flip(at) } else { Damage::Cut(at) };
        damage(&place.join("state/db"), what);
        let found = std::fs::read(place.join("state/db")).unwrap();
        match Collection::open(&place, made(IndexKind::Flat), options()) {
            Ok(collection) => {
                assert_eq!(names(&collection), all, "round {n}, {what:?}");
                whole += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "round {n}, {what:?}: {error}");
                assert!(error.to_string().contains(&*place.to_string_lossy()), "{error}");
                // A user who can repair the damage has everything again.
                assert!(std::fs::read(place.join("state/db")).unwrap() == found, "round {n}: opening wrote");
                if n % 10 == 0 {
                    std::fs::write(place.join("state/db"), &db).unwrap();
                    let repaired = Collection::open(&place, made(IndexKind::Flat), options()).unwrap();
                    assert_eq!(names(&repaired), all, "round {n}, {what:?}, undone");
                }
                refused += 1;
            }
        }
    }
    println!("{refused} refused, {whole} whole");
    assert!(refused >= 50, "{refused}: the damages do not reach the log");
}

/// The file that says how far the store got is no less guarded than the store.
#[test]
fn a_lost_or_damaged_proof_is_refused_until_it_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(13);
    let place = dir.path().join("c");
    let collection = Collection::create(&place, spec(IndexKind::Flat), options()).unwrap();
    collection.write(vec![upsert(point("a", 1, 1, &mut random))]).unwrap();
    drop(collection);
    let proof = place.join("acknowledged");
    for damage in ["", "nonsense"] {
        if damage.is_empty() {
            std::fs::remove_file(&proof).unwrap();
        } else {
            std::fs::write(&proof, damage).unwrap();
        }
        let error = Collection::open(&place, made(IndexKind::Flat), options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(&format!("echo accept > {}", proof.display())), "{error}");
        std::fs::write(&proof, "accept").unwrap();
        assert_eq!(
            Collection::open(&place, made(IndexKind::Flat), options())
                .unwrap()
                .count(None, &Stop::default())
                .unwrap(),
            1
        );
    }
}

#[test]
fn a_full_collection_is_not_asked_again() {
    let error = CollectionError::Full { limit: 7 };
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert_eq!(crate::Error::from(error).retry_after(), None);
}

/// Damage anywhere in sled's files is refused, or everything acknowledged is there; it never panics.
#[test]
fn a_damaged_store_is_corrupt_or_whole() {
    let seed = 9;
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    let good = dir.path().join("good");
    let collection = Collection::create(&good, spec(IndexKind::Flat), options()).unwrap();
    for step in 0..60u64 {
        let name = format!("doc {}", random.below(25));
        let write = if random.below(4) == 0 {
            Write::Delete(id(&name))
        } else {
            let mut point = point(&name, step, 1 + random.below(3) as u32, &mut random);
            // More than sled's segment in all, and little that compresses.
            point.title = (0..20_000).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
            upsert(point)
        };
        collection.write(vec![write]).unwrap();
    }
    let whole = names(&collection);
    collection.close().unwrap();
    drop(collection);
    let store_files = files(&good.join("state"));
    let (mut corrupt, mut opened) = (0, 0);
    for n in 0..80 {
        let place = dir.path().join("damaged");
        let _ = std::fs::remove_dir_all(&place);
        copy(&good, &place);
        let file = match n % 4 {
            0 => store_files[random.below(store_files.len() as u64) as usize].clone(),
            _ => good.join("state/db"),
        };
        let what = match n % 10 {
            0 => Damage::Remove,
            1..=3 => Damage::Cut(random.next()),
            _ => Damage::Flip(random.next()),
        };
        damage(&place.join(file.strip_prefix(&good).unwrap()), what);
        match Collection::open(&place, made(IndexKind::Flat), options()) {
            Ok(collection) => {
                match collection.scroll(None, None, 10_000, true, &Stop::default(), &Room::unbounded()) {
                    Ok(_) => {
                        let found = names(&collection);
                        assert_eq!(found, whole, "round {n}: {} {what:?}", file.display());
                        opened += 1;
                    }
                    // Texts are read when they are asked for.
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                        corrupt += 1;
                    }
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{} {what:?}: {error}", file.display());
                assert!(error.to_string().contains("damaged"), "{error}");
                corrupt += 1;
            }
        }
    }
    println!("{corrupt} refused, {opened} opened");
    assert!(corrupt > 0 && opened > 0);
}

#[test]
fn an_earlier_store_is_read_on_a_full_disk_and_taken_over_by_the_first_write_that_has_room() {
    use crate::store::{golden, tests::format_of};
    let dir = tempfile::tempdir().unwrap();
    golden::unpack(golden::FORMAT_2, dir.path());
    // The collection `killed`: folders are named after the time of their creation.
    let place = dir.path().join("collections/00000000000003-0");
    let index = IndexParams { kind: IndexKind::Flat, ..IndexParams::default() };
    let spec = CollectionSpec { dim: Dim::new(3).unwrap(), metric: Metric::Cosine, index };
    let disk = Arc::new(FaultyDisk::default());
    let options = options();
    let open = || {
        let means = Means { options: &options, disk: Arc::clone(&disk) as _, numbers_max: NUMBERS_MAX };
        Collection::open_with(&place, Made { spec: spec.clone(), identity: None }, means).unwrap()
    };
    disk.free.store(0, Ordering::SeqCst);
    for _ in 0..2 {
        let collection = open();
        assert_eq!(names(&collection).len(), 2);
        let error = collection.write(vec![Write::Delete(id("document 001"))]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
        drop(collection);
        assert_eq!(format_of(&place.join("state")), 2);
    }
    let collection = open();
    disk.free.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(outcomes(&collection, vec![Write::Delete(id("document 001"))]), [Outcome::Deleted]);
    assert_eq!(names(&collection).len(), 1);
    drop(collection);
    assert_eq!(format_of(&place.join("state")), 3);
    assert_eq!(names(&open()).len(), 1);
}
