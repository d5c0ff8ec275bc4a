//! What is acknowledged is on disk, and what is wrong with the disk is said.

use std::{sync::Mutex, time::Duration};

use super::{super::Durability, *};
use crate::{
    error::Fault as _,
    log::{self, Points},
};

/// A collection on a disk that fails when it is told to.
fn create_on(disk: &FaultyDisk, dir: &tempfile::TempDir) -> Arc<Collection> {
    let options = options_on(&(Arc::new(disk.clone()) as _), &place(dir), Threads::new(1).unwrap());
    Collection::create(&place(dir), spec(IndexKind::Flat), options).unwrap()
}

fn create(dir: &tempfile::TempDir) -> Arc<Collection> {
    create_on(&FaultyDisk::default(), dir)
}

/// As a new process opens it.
fn open(place: &Path, kind: IndexKind) -> Arc<Collection> {
    Collection::open(place, made(kind), options(place)).unwrap()
}

/// The same where the log, or the collection, may be refused.
fn try_open(place: &Path, kind: IndexKind) -> Result<Arc<Collection>, CollectionError> {
    let threads = Threads::new(1).unwrap();
    let root = place.parent().and_then(Path::parent).unwrap();
    let log = FolderLog::of(root, &threads, StoreSizes::default())?;
    Collection::open(place, made(kind), CollectionOptions { log, threads })
}

fn names(collection: &Collection) -> Vec<String> {
    let page = collection.scroll(None, None, 10_000, true, &Stop::default(), &Room::unbounded()).unwrap();
    page.points.iter().map(|point| format!("{} {}", point.id, point.text)).collect()
}

#[test]
fn a_write_is_synced_before_it_is_acknowledged_and_an_unchanged_one_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let collection = create_on(&disk, &dir);
    let mut random = Random(1);
    // The log's first file is there.
    assert_eq!(outcomes(&collection, vec![upsert(point("b", 1, 1, &mut random))]), [Outcome::Inserted]);
    let point = point("a", 1, 2, &mut random);
    let before = disk.0.syncs.load(Ordering::SeqCst);
    assert_eq!(outcomes(&collection, vec![upsert(point.clone())]), [Outcome::Inserted]);
    let after = disk.0.syncs.load(Ordering::SeqCst);
    assert_eq!(after, before + 1);
    assert_eq!(outcomes(&collection, vec![upsert(point)]), [Outcome::Unchanged]);
    assert_eq!(outcomes(&collection, vec![Write::Delete(id("c"))]), [Outcome::NotFound]);
    assert_eq!(disk.0.syncs.load(Ordering::SeqCst), after);
}

/// Two seconds and more go by between some of these writes on a busy machine, so a sync may come that nobody waits for: a
/// disk whose syncs fail gives away who waits for one.
#[test]
fn a_write_that_need_not_outlive_the_power_waits_for_no_sync_and_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let collection = create_on(&disk, &dir);
    let mut random = Random(22);
    let mut write = |name: &str, durability| {
        let (send, answer) = std::sync::mpsc::channel();
        let options = WriteOptions { durability, ..WriteOptions::default() };
        let write = upsert(point(name, 1, 2, &mut random));
        collection.submit_with(vec![write], options, Box::new(move |result| send.send(result).unwrap()));
        answer.recv().unwrap()
    };
    // The log's first file is there.
    write("a", Durability::Power).unwrap();
    let before = disk.0.syncs.load(Ordering::SeqCst);
    write("b", Durability::Process).unwrap();
    write("c", Durability::Power).unwrap();
    assert!(disk.0.syncs.load(Ordering::SeqCst) > before);
    disk.0.sync_fails.store(true, Ordering::SeqCst);
    write("d", Durability::Process).unwrap();
    let error = write("e", Durability::Power).unwrap_err();
    assert!(matches!(error, CollectionError::ReadOnly { .. }), "{error}");
    assert_eq!(names(&collection).len(), 4);
    drop(collection);
    // Whether the last one is there, nobody said.
    let found = names(&open(&place(&dir), IndexKind::Flat)).len();
    assert!((4..=5).contains(&found), "{found}");
}

/// A collection with a graph, whose log syncs only when it is asked to, and tells `points` about it.
fn create_that_syncs_only_when_asked(disk: &FaultyDisk, place: &Path, points: Points) -> Arc<Collection> {
    let root = place.parent().and_then(Path::parent).unwrap();
    let threads = Threads::new(1).unwrap();
    let sync_after = Duration::from_secs(3600);
    let log = LogOptions { sync_after, points, ..LogOptions::default() };
    let options = FolderOptions { log, ..FolderOptions::default() };
    let log = FolderLog::open(&(Arc::new(disk.clone()) as _), root, &threads, options).unwrap().0;
    Collection::create(place, spec(IndexKind::HnswRs), CollectionOptions { log, threads }).unwrap()
}

fn write_for_process(collection: &Collection, point: Point) {
    let (send, answer) = std::sync::mpsc::channel();
    let options = WriteOptions { durability: Durability::Process, ..WriteOptions::default() };
    collection.submit_with(vec![upsert(point)], options, Box::new(move |result| send.send(result).unwrap()));
    answer.recv().unwrap().unwrap();
}

/// The first write of the kind is synced: it reserves the numbers of those that are not.
fn reserve_numbers(collection: &Collection) {
    write_for_process(collection, point("first", 1, 1, &mut Random(1)));
}

#[test]
fn a_write_for_the_power_that_finds_it_so_already_waits_until_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let collection = create_that_syncs_only_when_asked(&disk, &place(&dir), Points::default());
    reserve_numbers(&collection);
    let a = point("a", 1, 2, &mut Random(26));
    write_for_process(&collection, a.clone());
    let syncs = || disk.0.syncs.load(Ordering::SeqCst);
    let before = syncs();
    // One that asks for no more finds nothing to wait for.
    write_for_process(&collection, a.clone());
    assert_eq!(syncs(), before);
    assert_eq!(outcomes(&collection, vec![upsert(a)]), [Outcome::Unchanged]);
    let after = syncs();
    assert!(after > before, "it was answered without a sync");
    assert_eq!(outcomes(&collection, vec![Write::Delete(id("none"))]), [Outcome::NotFound]);
    write_for_process(&collection, point("b", 1, 2, &mut Random(27)));
    disk.0.sync_fails.store(true, Ordering::SeqCst);
    let error = collection.write(vec![Write::Delete(id("none"))]).unwrap_err();
    assert!(matches!(error, CollectionError::ReadOnly { .. }), "{error}");
}

/// A graph of writes that the power took would be proof that the log is damaged, and the collection would be refused.
#[test]
fn a_graph_is_saved_only_when_what_it_knows_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(&dir);
    // At each sync of the log, whether there was a graph.
    let seen: Arc<Mutex<Vec<bool>>> = Arc::default();
    let points = {
        let (seen, index) = (Arc::clone(&seen), place.join("index"));
        Points(Some(Arc::new(move |point| {
            if point == log::Point::BeforeSync {
                seen.lock().unwrap().push(index.exists());
            }
        })))
    };
    let collection = create_that_syncs_only_when_asked(&FaultyDisk::default(), &place, points);
    reserve_numbers(&collection);
    write_for_process(&collection, point("a", 1, 5, &mut Random(24)));
    collection.wait_indexed();
    seen.lock().unwrap().clear();
    collection.close().unwrap();
    assert!(place.join("index/rows").exists());
    assert_eq!(*seen.lock().unwrap(), [false]);
}

#[test]
fn a_close_that_cannot_sync_says_so_and_saves_no_graph() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(&dir);
    let disk = FaultyDisk::default();
    let collection = create_that_syncs_only_when_asked(&disk, &place, Points::default());
    reserve_numbers(&collection);
    write_for_process(&collection, point("a", 1, 5, &mut Random(25)));
    collection.wait_indexed();
    disk.0.sync_fails.store(true, Ordering::SeqCst);
    collection.close().unwrap_err();
    assert!(!place.join("index").exists());
    drop(collection);
    assert_eq!(names(&open(&place, IndexKind::HnswRs)).len(), 2, "the process ended, and the power did not");
}

#[test]
fn a_failed_sync_makes_the_folder_read_only_until_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(&dir);
    let disk = FaultyDisk::default();
    let collection = create_on(&disk, &dir);
    let mut random = Random(2);
    collection.write(vec![upsert(point("a", 1, 2, &mut random))]).unwrap();
    assert_eq!(collection.read_only(), None);
    disk.0.sync_fails.store(true, Ordering::SeqCst);
    let error = collection.write(vec![upsert(point("b", 1, 2, &mut random))]).unwrap_err();
    assert!(matches!(error, CollectionError::ReadOnly { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert!(collection.read_only().unwrap().contains("the device is gone"));
    // Not even when the disk seems well again.
    disk.0.sync_fails.store(false, Ordering::SeqCst);
    let syncs = disk.0.syncs.load(Ordering::SeqCst);
    assert!(matches!(
        collection.write(vec![Write::Delete(id("a"))]).unwrap_err(),
        CollectionError::ReadOnly { .. }
    ));
    assert_eq!(disk.0.syncs.load(Ordering::SeqCst), syncs);
    // Neither does another collection take writes, whose log it is too.
    let other = dir.path().join("collections/other");
    let options = CollectionOptions {
        log: Arc::clone(collection.shared.store.log()),
        threads: Threads::new(1).unwrap(),
    };
    assert!(Collection::create(&other, spec(IndexKind::Flat), options).is_err());
    // Reads go on, and what was not acknowledged is not seen.
    assert_eq!(names(&collection).len(), 1);
    assert_eq!(search(&collection, &query(vector(&mut random), 5)).unwrap().0.len(), 1);
    drop(collection);
    let collection = open(&place, IndexKind::Flat);
    collection.write(vec![upsert(point("c", 1, 2, &mut random))]).unwrap();
}

#[test]
fn a_committer_that_panics_answers_and_takes_nothing_more_until_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(&dir);
    let disk = FaultyDisk::default();
    let collection = create_on(&disk, &dir);
    let mut random = Random(6);
    collection.write(vec![upsert(point("a", 1, 2, &mut random))]).unwrap();
    disk.0.sync_panics.store(true, Ordering::SeqCst);
    let refused = |write: Write| {
        let error = collection.write(vec![write]).unwrap_err();
        assert!(matches!(error, CollectionError::ReadOnly { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Precondition);
        assert!(error.to_string().contains("panicked"), "{error}");
    };
    refused(upsert(point("b", 1, 2, &mut random)));
    disk.0.sync_panics.store(false, Ordering::SeqCst);
    refused(Write::Delete(id("a")));
    assert!(collection.read_only().unwrap().contains("panicked"));
    // Reads go on, and the one that panicked is not half there.
    assert_eq!(names(&collection).len(), 1);
    drop(collection);
    let collection = open(&place, IndexKind::Flat);
    collection.write(vec![upsert(point("c", 1, 2, &mut random))]).unwrap();
}

#[test]
fn a_full_disk_refuses_writes_while_reads_and_deletes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let collection = create_on(&disk, &dir);
    let mut random = Random(3);
    for name in ["a", "b", "c"] {
        collection.write(vec![upsert(point(name, 1, 2, &mut random))]).unwrap();
    }
    disk.0.free.store(0, Ordering::SeqCst);
    // The log takes what it has room for already.
    let mut taken = 0;
    let error = loop {
        match collection.write(vec![upsert(point(&format!("f {taken}"), 1, 20, &mut random))]) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, CollectionError::Store(e) if matches!(**e, StoreError::DiskFull { .. })),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!(names(&collection).len(), 3 + taken);
    assert_eq!(outcomes(&collection, vec![Write::Delete(id("a"))]), [Outcome::Deleted]);
    // Committed together or not, deletes do not suffer for upserts.
    let (sender, answers) = std::sync::mpsc::channel();
    for n in 0..40 {
        let write = match n {
            20 => Write::Delete(id("b")),
            _ => upsert(point(&format!("e {n}"), 1, 20, &mut random)),
        };
        let sender = sender.clone();
        collection.submit(vec![write], Box::new(move |result| sender.send((n, result)).unwrap()));
    }
    drop(sender);
    for (n, result) in answers {
        assert_eq!(result.is_ok(), n == 20, "{n}: {result:?}");
    }
    disk.0.free.store(u64::MAX, Ordering::SeqCst);
    collection.write(vec![upsert(point("d", 1, 2, &mut random))]).unwrap();
    assert_eq!(collection.count(None, &Stop::default()).unwrap(), 2 + taken as u64);
    assert_eq!(collection.read_only(), None);
}

#[test]
fn bad_calls_are_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let collection = create(&dir);
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
    let collection = create(&dir);
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
fn a_collection_that_is_open_is_not_opened_again_nor_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(&dir);
    let collection = create(&dir);
    let options = || CollectionOptions {
        log: Arc::clone(collection.shared.store.log()),
        threads: Threads::new(1).unwrap(),
    };
    let error = Collection::open(&place, made(IndexKind::Flat), options()).unwrap_err();
    assert!(crate::error::with_sources(&error).contains("it is open already"), "{error}");
    let error = Collection::create(&place, spec(IndexKind::Flat), options()).unwrap_err();
    assert!(matches!(error, CollectionError::Io { .. }), "{error}");
    // The one that is open is none the worse.
    collection.write(vec![upsert(point("a", 1, 1, &mut Random(1)))]).unwrap();
}

#[test]
fn a_closed_collection_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let collection = create(&dir);
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
    let place = place(&dir);
    let mut spec = spec(IndexKind::HnswRs);
    spec.index.m = 1;
    let error = Collection::create(&place, spec, options(&place)).unwrap_err();
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
    let root = dir.path().join("good");
    let good = root.join("collections/c");
    let collection = Collection::create(&good, spec(IndexKind::HnswRs), options(&good)).unwrap();
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
        let copied = dir.path().join(format!("{n}"));
        copy(&root, &copied);
        damage(&copied.join(file.strip_prefix(&root).unwrap()), what);
        let place = copied.join("collections/c");
        let collection = open(&place, IndexKind::HnswRs);
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
    let place = place(&dir);
    let disk = FaultyDisk::default();
    let faulty = options_on(&(Arc::new(disk.clone()) as _), &place, Threads::new(1).unwrap());
    let collection = Collection::create(&place, spec(IndexKind::HnswRs), faulty).unwrap();
    collection.write(vec![upsert(point("a", 1, 5, &mut random))]).unwrap();
    collection.wait_indexed();
    disk.0.rename_fails.store(true, Ordering::SeqCst);
    collection.close().unwrap();
    drop(collection);
    assert!(!place.join("index").exists() && !place.join("index.new").exists());
    // A file in the place of the folder is replaced.
    std::fs::write(place.join("index"), "a file").unwrap();
    let open = || open(&place, IndexKind::HnswRs);
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
    let [small, large] = ["small", "large"].map(|name| dir.path().join(name).join("collections/c"));
    for (place, batches) in [(&small, 1), (&large, 8)] {
        let collection = Collection::create(place, spec(IndexKind::HnswRs), options(place)).unwrap();
        for batch in 0..batches {
            collection.write(vec![upsert(point(&format!("{batch}"), 1, 5, &mut random))]).unwrap();
        }
        collection.wait_indexed();
        collection.close().unwrap();
    }
    let rows = small.join("index/rows");
    let earlier = std::fs::read(&rows).unwrap();
    let open = || open(&small, IndexKind::HnswRs);
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

/// Log and segments of an earlier time, put back by hand, are refused.
#[test]
fn a_graph_of_a_later_state_proves_that_the_log_lost_entries() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(8);
    let root = dir.path().join("db");
    let place = root.join("collections/c");
    let collection = Collection::create(&place, spec(IndexKind::HnswRs), options(&place)).unwrap();
    collection.write(vec![upsert(point("a", 1, 5, &mut random))]).unwrap();
    collection.close().unwrap();
    drop(collection);
    let backup = dir.path().join("backup");
    copy(&root, &backup);
    let collection = open(&place, IndexKind::HnswRs);
    collection.write(vec![Write::Delete(id("a"))]).unwrap();
    collection.write(vec![upsert(point("b", 1, 5, &mut random))]).unwrap();
    collection.wait_indexed();
    collection.close().unwrap();
    drop(collection);
    // The documents of the backup with the graph of today.
    let index = dir.path().join("index");
    copy(&place.join("index"), &index);
    std::fs::remove_dir_all(&root).unwrap();
    copy(&backup, &root);
    let _ = std::fs::remove_dir_all(place.join("index"));
    copy(&index, &place.join("index"));
    let error = try_open(&place, IndexKind::HnswRs).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("index/rows") && error.to_string().contains("remove "), "{error}");
    // What there is can be accepted.
    std::fs::remove_dir_all(place.join("index")).unwrap();
    let collection = open(&place, IndexKind::HnswRs);
    assert_eq!(names(&collection).len(), 1);
    collection.wait_indexed();
    assert_eq!(collection.stats().indexed, 5);
}

#[test]
fn what_grew_becomes_a_segment_when_nothing_more_comes() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(&dir);
    let options = options(&place);
    let kept = Options { seal_bytes: 64 << 20, ..SMALL };
    let means = Means { options: &options, kept, numbers_max: NUMBERS_MAX };
    let collection = Collection::create_with(&place, spec(IndexKind::Flat), means).unwrap();
    let mut random = Random(21);
    collection.write((0..40).map(|n| upsert(point(&format!("{n}"), n, 1, &mut random))).collect()).unwrap();
    assert_eq!(collection.stats().segments, 0);
    let begun = std::time::Instant::now();
    while collection.stats().segments == 0 {
        assert!(begun.elapsed().as_secs() < 120, "it is never sealed");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!((collection.stats().unsealed_bytes, names(&collection).len()), (0, 40));
    // What is less than is worth a segment stays.
    collection.write(vec![upsert(point("more", 1, 1, &mut random))]).unwrap();
    assert!(collection.stats().unsealed_bytes > 0);
}

#[test]
fn a_full_collection_is_not_asked_again() {
    let error = CollectionError::Full { limit: 7 };
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert_eq!(crate::Error::from(error).retry_after(), None);
}

/// Damage anywhere in log and segments is refused, by a file's name, or everything acknowledged is there; it never panics.
#[test]
fn a_damaged_store_is_corrupt_or_whole() {
    let seed = 9;
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    let root = dir.path().join("good");
    let good = root.join("collections/c");
    {
        let options = options(&good);
        let means = Means { options: &options, kept: SMALL, numbers_max: NUMBERS_MAX };
        let collection = Collection::create_with(&good, spec(IndexKind::Flat), means).unwrap();
        for step in 0..90u64 {
            let name = format!("doc {}", random.below(25));
            let write = if random.below(4) == 0 {
                Write::Delete(id(&name))
            } else {
                let mut point = point(&name, step, 1 + random.below(3) as u32, &mut random);
                // Little that compresses.
                point.title = (0..600).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
                upsert(point)
            };
            collection.write(vec![write]).unwrap();
        }
        collection.close().unwrap();
    }
    let whole = names(&open(&good, IndexKind::Flat));
    let all = files(&root);
    let in_segments = all.iter().filter(|file| file.starts_with(&good)).count();
    assert!(in_segments > 4, "{all:?}");
    let (mut corrupt, mut opened) = (0, 0);
    for n in 0..160 {
        let copied = dir.path().join("damaged");
        let _ = std::fs::remove_dir_all(&copied);
        copy(&root, &copied);
        let file = &all[random.below(all.len() as u64) as usize];
        let what = match n % 10 {
            0 => Damage::Remove,
            1..=3 => Damage::Cut(random.next()),
            _ => Damage::Flip(random.next()),
        };
        damage(&copied.join(file.strip_prefix(&root).unwrap()), what);
        let context = format!("round {n}: {} {what:?}", file.display());
        let read = try_open(&copied.join("collections/c"), IndexKind::Flat).and_then(|collection| {
            // Texts are read when they are asked for.
            collection.scroll(None, None, 10_000, true, &Stop::default(), &Room::unbounded())?;
            Ok(names(&collection))
        });
        match read {
            Ok(found) => {
                assert_eq!(found, whole, "{context}");
                opened += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{context}: {error}");
                assert!(error.to_string().contains("damaged"), "{context}: {error}");
                corrupt += 1;
            }
        }
    }
    println!("{corrupt} refused, {opened} opened");
    assert!(corrupt > 40 && opened > 0);
}

/// Nothing of it is touched until there is room for its segments.
#[test]
fn an_earlier_store_is_taken_over_once_there_is_room_for_it() {
    use crate::store::{golden, tests::format_of};
    let dir = tempfile::tempdir().unwrap();
    golden::unpack(golden::FORMAT_2, dir.path());
    // The collection `killed`: folders are named after the time of their creation.
    let place = dir.path().join("collections/00000000000003-0");
    let index = IndexParams { kind: IndexKind::Flat, ..IndexParams::default() };
    let (dim, fingerprint) = (Dim::new(3).unwrap(), String::new());
    let spec = CollectionSpec { dim, metric: Metric::Cosine, index, fingerprint };
    let disk = FaultyDisk::default();
    let options = options_on(&(Arc::new(disk.clone()) as _), &place, Threads::new(1).unwrap());
    let open = || Collection::open(&place, Made { spec: spec.clone(), identity: None }, options.clone());
    disk.0.free.store(64 << 10, Ordering::SeqCst);
    for _ in 0..2 {
        let error = open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
        assert_eq!(format_of(&place.join("state")), 2);
    }
    disk.0.free.store(u64::MAX, Ordering::SeqCst);
    let collection = open().unwrap();
    assert!(!place.join("state").exists() && !place.join("acknowledged").exists());
    assert_eq!(names(&collection).len(), 2);
    assert_eq!(outcomes(&collection, vec![Write::Delete(id("document 001"))]), [Outcome::Deleted]);
    collection.close().unwrap();
    drop(collection);
    assert_eq!(names(&open().unwrap()).len(), 1);
}
