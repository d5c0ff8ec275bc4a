//! The store against a plain set of numbers: all that a document is made of follows from its number.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::*;
use crate::{
    files::disk::{Disk, RealDisk},
    log::LogOptions,
    random::SplitMix,
    stop::Stop,
    threads::Threads,
    value::{Payload, PointId, Value},
    vector::{Dim, Metric},
};

mod astray;
mod backups;
mod damage;
mod losses;
mod mixed;
mod requests;
mod taking_over;

const DIMENSION: u32 = 3;

/// Small, so that a few documents fill a segment.
const OPTIONS: Options = Options { seal_bytes: 4 << 10, carry_bytes: 2 << 10, segments_max: 3 };

pub(super) fn text(number: u64) -> String {
    match number % 5 {
        0 => String::new(),
        1 => format!("text of document {number}, ä€😀. ").repeat(200),
        _ => format!("text of document {number}"),
    }
}

pub(super) fn vectors(number: u64, dimension: u32) -> Vec<Vec<f32>> {
    let value = |passage, i| (number * 7 + passage) as f32 + i as f32 / 16.0;
    (0..number % 4).map(|passage| (0..dimension).map(|i| value(passage, i)).collect()).collect()
}

pub(super) fn body(number: u64) -> Body {
    let is_empty = text(number).is_empty();
    let range = |passage| if is_empty { 0..0 } else { passage..passage + 1 };
    let passages = (0..u32::try_from(number % 4).unwrap()).map(range).collect();
    let payload = Payload::from([
        ("n".to_owned(), Value::Integer(number.cast_signed())),
        (
            "tags".to_owned(),
            Value::List(vec![Value::String(format!("tag {}", number % 3)), Value::Bool(true)]),
        ),
    ]);
    let mut content_hash = [7; 16];
    content_hash[..8].copy_from_slice(&number.to_le_bytes());
    Body {
        id: PointId::new(format!("document {number}")).unwrap(),
        title: if number.is_multiple_of(6) { String::new() } else { format!("title {number}") },
        payload,
        content_hash,
        passages,
        updated_at: 1_700_000_000_000_000 + number.cast_signed(),
    }
}

pub(super) fn put(batch: &mut StoreBatch, number: u64) {
    let vectors = vectors(number, DIMENSION);
    batch.put(number, &body(number), &text(number), vectors.iter().map(Vec::as_slice));
}

/// Puts the document that another number has.
fn put_as(batch: &mut StoreBatch, number: u64, of: u64) {
    let vectors = vectors(of, DIMENSION);
    batch.put(number, &body(of), &text(of), vectors.iter().map(Vec::as_slice));
}

fn head(number: u64) -> Head {
    Head { body: body(number), text_bytes: text(number).len() as u64 }
}

fn bury(batch: &mut StoreBatch, number: u64) {
    batch.bury(number, head(number).passages());
}

/// All that is due.
fn maintain(store: &Store) -> Result<maintain::Tidied, StoreError> {
    let done = store.tidy()?;
    store.merge(&Stop::default())?;
    Ok(done)
}

/// The text of a document that is there.
fn text_in(store: &Store, number: u64) -> String {
    store.snapshot().text(number, Path::new("x")).unwrap().unwrap()
}

/// Puts so many new documents, buries `buried`, and tells the numbers of the new ones.
fn write(store: &Store, count: u64, buried: &[u64]) -> Result<Vec<u64>, StoreError> {
    let next = store.next_number();
    let mut batch = StoreBatch::default();
    for number in next..next + count {
        put(&mut batch, number);
    }
    for number in buried {
        bury(&mut batch, *number);
    }
    store.commit(batch)?;
    Ok((next..next + count).collect())
}

/// Reads a document that is there.
fn check_document(snapshot: &Snapshot, number: u64) {
    assert_eq!(snapshot.head(number, Path::new("x")).unwrap(), Some(head(number)), "document {number}");
    assert_eq!(snapshot.text(number, Path::new("x")).unwrap(), Some(text(number)), "document {number}");
    assert_eq!(
        snapshot.vectors(number).unwrap(),
        Some(vectors(number, DIMENSION).concat()),
        "document {number}"
    );
}

/// All documents, each as it was put.
fn load(store: &Store) -> Result<BTreeSet<u64>, StoreError> {
    let mut found = BTreeSet::new();
    store.load(|loaded| {
        let Loaded { number, id, content_hash, passages, vectors: got_vectors, .. } = loaded;
        let body = head(number).body;
        let expected = (body.id, body.content_hash, body.passages.len());
        assert_eq!((id, content_hash, passages as usize), expected, "document {number}");
        check_document(&store.snapshot(), number);
        assert_eq!(got_vectors, vectors(number, DIMENSION).concat(), "document {number}");
        assert_eq!(text_in(store, number), text(number), "document {number}");
        found.insert(number);
        Ok::<_, StoreError>(())
    })?;
    Ok(found)
}

fn check(store: &Store, expected: &BTreeSet<u64>) {
    assert_eq!(&load(store).unwrap(), expected);
    assert_eq!(store.documents(), expected.len() as u64);
    assert_eq!(store.passages(), expected.iter().map(|number| number % 4).sum::<u64>());
    assert!(expected.last().is_none_or(|last| *last < store.next_number()));
    let stats = store.stats();
    assert_eq!(stats.live, expected.len() as u64);
    let snapshot = store.snapshot();
    let head_of = |number| snapshot.head(number, Path::new("x")).unwrap();
    for number in 0..store.next_number() {
        match head_of(number) {
            Some(got) => assert_eq!(got, head(number)),
            None => assert!(!expected.contains(&number), "document {number}"),
        }
    }
    assert_eq!(head_of(store.next_number()), None);
}

/// Some of a set.
fn some(set: &BTreeSet<u64>, most: u64, random: &mut SplitMix) -> Vec<u64> {
    let mut left: Vec<u64> = set.iter().copied().collect();
    let count = random.below(most + 1).min(left.len() as u64);
    (0..count).map(|_| left.swap_remove(usize::try_from(random.below(left.len() as u64)).unwrap())).collect()
}

/// A space of so many numbers.
fn space(dimension: u32) -> Space {
    let dim = Dim::new(dimension).unwrap();
    Space { number: sealed::SPACE, dim, metric: Metric::Cosine, fingerprint: String::new() }
}

/// Small, so that a few batches fill a file.
fn folder_options() -> logs::FolderOptions {
    let log = LogOptions { file_bytes: 64 << 10, reserve_bytes: 8 << 10, ..LogOptions::default() };
    logs::FolderOptions { log, log_bytes_max: 0, cache_bytes: 1 << 20, ..logs::FolderOptions::default() }
}

/// A data folder with collections in it, and a process that has it.
struct World {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    threads: Arc<Threads>,
    log: Mutex<Option<Arc<FolderLog>>>,
}

/// Identity of the collection in folder `x`.
const IDENTITY: Identity = Identity([3; 16]);

impl World {
    fn new(disk: Arc<dyn Disk>, root: &Path) -> Self {
        let threads = Threads::new(1).unwrap();
        World { disk, root: root.to_owned(), threads, log: Mutex::default() }
    }

    /// The same folder on another disk, for the same threads: to start those takes longer than a short life.
    fn on(&self, disk: Arc<dyn Disk>) -> Self {
        let threads = Arc::clone(&self.threads);
        World { disk, root: self.root.clone(), threads, log: Mutex::default() }
    }

    fn dir(&self) -> PathBuf {
        self.root.join("collections/x")
    }

    fn try_log(&self) -> Result<Arc<FolderLog>, StoreError> {
        let mut place = self.log.lock().unwrap();
        if place.is_none() {
            *place = Some(FolderLog::open(&self.disk, &self.root, &self.threads, folder_options())?.0);
        }
        Ok(Arc::clone(place.as_ref().unwrap()))
    }

    fn log(&self) -> Arc<FolderLog> {
        self.try_log().unwrap()
    }

    /// The process ends. Its stores were dropped.
    fn stop(&self) {
        if let Some(log) = self.log.lock().unwrap().take() {
            log.close();
        }
    }

    fn make_folder(&self, dir: &Path) {
        let _ = self.disk.create_dir(dir.parent().unwrap());
        self.disk.create_dir(dir).unwrap();
        self.disk.sync_dir(&self.root).unwrap();
        self.disk.sync_dir(dir.parent().unwrap()).unwrap();
    }

    fn create(&self) -> Store {
        self.make_folder(&self.dir());
        Store::create(&self.log(), &self.dir(), IDENTITY, space(DIMENSION), OPTIONS).unwrap()
    }

    fn open(&self) -> Result<Store, StoreError> {
        Store::open(&self.try_log()?, &self.dir(), IDENTITY, space(DIMENSION), OPTIONS)
    }

    /// Names in the collection's folder.
    fn names(&self) -> Vec<String> {
        let entries = self.disk.list(&self.dir()).unwrap();
        entries.into_iter().map(|entry| entry.name.into_string().unwrap()).collect()
    }
}

fn world() -> (tempfile::TempDir, World) {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Arc::new(RealDisk), dir.path());
    (dir, world)
}

/// One random step, and what it does to the set.
fn step(store: &Store, live: &mut BTreeSet<u64>, random: &mut SplitMix) -> Result<(), StoreError> {
    match random.below(10) {
        0 => drop(store.seal()?),
        1 => drop(store.merge(&Stop::default())?),
        2 => drop(store.merge_all(&Stop::default())?),
        3 => drop(store.carry_forward().and_then(|_| store.log().cut())?),
        4 => drop(maintain(store)?),
        _ => {
            let buried = some(live, 3, random);
            let new = write(store, random.below(5), &buried)?;
            buried.iter().for_each(|number| _ = live.remove(number));
            live.extend(new);
        }
    }
    Ok(())
}

#[test]
fn it_agrees_with_a_plain_set_whatever_is_done_in_between() {
    for seed in 0..12 {
        println!("seed {seed}");
        let mut random = SplitMix(seed);
        let (_dir, world) = world();
        let mut store = world.create();
        let mut live = BTreeSet::new();
        for _ in 0..50 {
            step(&store, &mut live, &mut random).unwrap();
            if random.below(12) == 0 {
                let before = (store.sequence(), store.next_number(), store.documents());
                store.close().unwrap();
                drop(store);
                if random.below(2) == 0 {
                    world.stop();
                }
                store = world.open().unwrap();
                assert_eq!((store.sequence(), store.next_number(), store.documents()), before);
            }
            if random.below(4) == 0 {
                check(&store, &live);
            }
        }
        check(&store, &live);
    }
}

#[test]
fn a_snapshot_reads_what_it_knew_and_keeps_the_files_until_it_is_dropped() {
    let (_dir, world) = world();
    let store = world.create();
    write(&store, 10, &[]).unwrap();
    let growing = store.snapshot();
    store.seal().unwrap();
    write(&store, 10, &[1, 2]).unwrap();
    store.seal().unwrap();
    let both = store.snapshot();
    write(&store, 0, &(3..20).collect::<Vec<_>>()).unwrap();
    assert_eq!(store.merge_all(&Stop::default()).unwrap(), 2);
    for number in 0..10 {
        check_document(&growing, number);
    }
    for number in 0..20 {
        check_document(&both, number);
    }
    for gone in [1, 19] {
        assert_eq!(store.snapshot().head(gone, Path::new("x")).unwrap(), None);
        assert_eq!(store.snapshot().text(gone, Path::new("x")).unwrap(), None);
    }
    check(&store, &BTreeSet::from([0]));
    assert!(world.names().contains(&"0000000001".to_owned()), "{:?}", world.names());
    drop((growing, both));
    maintain(&store).unwrap();
    assert_eq!(world.names(), ["0000000003", "segments"]);
    drop(store);
    world.stop();
    check(&world.open().unwrap(), &BTreeSet::from([0]));
}

#[test]
fn a_merge_that_is_stopped_leaves_everything_as_it_was() {
    let (_dir, world) = world();
    let store = world.create();
    for _ in 0..4 {
        write(&store, 5, &[]).unwrap();
        store.seal().unwrap();
    }
    let stop = Stop::at(Some(std::time::Instant::now()));
    assert_eq!(store.merge(&stop).unwrap(), 0);
    assert_eq!(store.stats().segments, 4);
    check(&store, &(0..20).collect());
    assert_eq!(store.merge(&Stop::default()).unwrap(), 4);
    assert_eq!(store.stats().segments, 1);
    check(&store, &(0..20).collect());
}

#[test]
fn a_batch_that_could_not_be_sealed_is_refused_and_nothing_of_it_is_done() {
    let (_dir, world) = world();
    let store = world.create();
    write(&store, 3, &[]).unwrap();
    let vector = [1.0; DIMENSION as usize];
    let mut used = StoreBatch::default();
    put(&mut used, 2);
    let mut wrong = StoreBatch::default();
    wrong.put(3, &body(3), "", [&vector[..2], &vector, &vector].into_iter());
    let mut fewer = StoreBatch::default();
    fewer.put(3, &body(3), "", [&vector[..]].into_iter());
    let mut outside = StoreBatch::default();
    outside.put(3, &body(3), "", [&vector[..], &vector, &vector].into_iter());
    for batch in [used, wrong, fewer, outside] {
        assert!(store.commit(batch).is_err());
        check(&store, &BTreeSet::from([0, 1, 2]));
    }
    assert_eq!(store.failed(), None);
    write(&store, 1, &[]).unwrap();
    check(&store, &BTreeSet::from([0, 1, 2, 3]));
}

#[test]
fn documents_are_refused_while_too_many_wait_to_be_sealed_and_burials_are_not() {
    let (_dir, world) = world();
    let store = world.create();
    let mut live = BTreeSet::new();
    let refused = loop {
        match write(&store, 5, &[]) {
            Ok(new) => live.extend(new),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Busy { .. }) && refused.is_passing(), "{refused}");
    write(&store, 0, &[0]).unwrap();
    live.remove(&0);
    assert!(maintain(&store).unwrap().sealed);
    live.extend(write(&store, 5, &[]).unwrap());
    check(&store, &live);
}

#[test]
fn a_closed_store_takes_nothing_more() {
    let (_dir, world) = world();
    let store = world.create();
    write(&store, 1, &[]).unwrap();
    store.close().unwrap();
    assert!(write(&store, 1, &[]).is_err() && maintain(&store).is_err());
    check(&store, &BTreeSet::from([0]));
}

/// Threads that write, read and tidy up at once; a watchdog ends the process if they wait for each other.
#[test]
fn many_threads_commit_and_read_while_segments_are_sealed_and_merged() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    const WRITERS: u64 = 6;
    const BATCHES: u64 = 40;
    let (_dir, world) = world();
    let store = world.create();
    let live = Mutex::new(BTreeSet::new());
    let left = AtomicUsize::new(usize::try_from(WRITERS).unwrap());
    let watchdog = Watchdog::start();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, live, left) = (&store, &live, &left);
            scope.spawn(move || {
                let mut random = SplitMix(writer);
                let mut mine = BTreeSet::new();
                let mut batches = 0;
                while batches < BATCHES {
                    let buried = some(&mine, 2, &mut random);
                    let mut numbers = 0..0;
                    let count = 1 + random.below(3);
                    let pending = store.submit(|next| {
                        numbers = next..next + count;
                        let mut batch = StoreBatch::default();
                        numbers.clone().for_each(|number| put(&mut batch, number));
                        buried.iter().for_each(|number| bury(&mut batch, *number));
                        batch
                    });
                    match pending.and_then(Pending::wait) {
                        Ok(()) => {}
                        Err(error) if error.is_passing() => continue,
                        Err(error) => panic!("{error}"),
                    }
                    batches += 1;
                    let snapshot = store.snapshot();
                    numbers.clone().for_each(|number| check_document(&snapshot, number));
                    buried.iter().for_each(|number| _ = mine.remove(number));
                    mine.extend(numbers);
                }
                live.lock().unwrap().extend(mine);
                left.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for turn in 0..2 {
            let (store, left) = (&store, &left);
            scope.spawn(move || {
                while left.load(Ordering::SeqCst) > 0 {
                    let done = match turn {
                        0 => store.seal().map(drop),
                        _ => maintain(store).and_then(|_| store.merge_all(&Stop::default())).map(drop),
                    };
                    done.unwrap();
                    store
                        .load(|loaded| {
                            assert_eq!(loaded.id, head(loaded.number).body.id);
                            Ok::<_, StoreError>(())
                        })
                        .unwrap();
                }
            });
        }
    });
    let live = live.into_inner().unwrap();
    check(&store, &live);
    drop(store);
    world.stop();
    check(&world.open().unwrap(), &live);
    watchdog.stop();
}

/// Ends the process if it is not stopped: a test that waits for itself would wait for ever.
struct Watchdog(mpsc::Sender<()>);

impl Watchdog {
    fn start() -> Self {
        let (stop, stopped) = mpsc::channel();
        std::thread::spawn(move || {
            let patience = std::time::Duration::from_secs(300);
            if stopped.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                println!("the threads wait for each other");
                std::process::abort();
            }
        });
        Watchdog(stop)
    }

    fn stop(self) {
        drop(self.0);
    }
}
