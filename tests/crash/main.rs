//! Kill a writing process at a seeded random moment, open what it left, and hold it against what it had acknowledged.
//!
//! The child is this binary again. It writes numbered batches, each a function of its number, keeps several waiting at
//! once, and prints every acknowledgement. Batches are applied in order and each is one unit, so what is found must be
//! exactly the state after some batch, no earlier than the last one acknowledged. The next round goes on from there.
//!
//! A kill is not a power cut: the kernel keeps what it was given. Sync is tested where the store is.

#![expect(clippy::unwrap_used, reason = "all of this is a test; what cannot be unwrapped is a failure of it")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use distilface::{
    budget::Room,
    collection::{
        Ask, Collection, CollectionOptions, CollectionSpec, FolderLog, Made, Reads, SearchQuery, StoreSizes,
        Write,
        point::{ContentHash, Passage, Point},
    },
    index::{IndexKind, IndexParams},
    stop::Stop,
    threads::Threads,
    value::{Payload, PointId, Value},
    vector::{Dim, Metric, Vector},
};

mod crasher;
mod handles;
mod history;
mod load;
mod process;
mod server;
mod soak;

const ROUNDS: u64 = 50;

/// Different documents; fewer than are written, so most writes replace.
const DOCUMENTS: u64 = 90;

/// Calls that wait at once: they share batches of the store.
const IN_FLIGHT: usize = 6;

const FOLDER: &str = "DISTILFACE_CRASH_DIR";
const FIRST_BATCH: &str = "DISTILFACE_CRASH_FIRST";
const SEED: &str = "DISTILFACE_CRASH_SEED";

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn dim() -> Dim {
    Dim::new(16).unwrap()
}

/// For the collection in the folder `place` of a data folder.
fn options(place: &Path) -> CollectionOptions {
    let threads = Threads::new(1).unwrap();
    let root =
        place.parent().and_then(Path::parent).expect("it lies in the folder `collections` of a data folder");
    CollectionOptions { log: FolderLog::of(root, &threads, StoreSizes::default()).unwrap(), threads }
}

fn spec() -> CollectionSpec {
    let index = IndexParams { kind: IndexKind::HnswRs, m: 8, ef_construction: 32, ..IndexParams::default() };
    CollectionSpec { dim: dim(), metric: Metric::Cosine, index, fingerprint: String::new() }
}

/// Nothing tells here which collection it is.
fn made() -> Made {
    Made { spec: spec(), identity: None }
}

fn name(document: u64) -> PointId {
    PointId::new(format!("document {document:03}")).unwrap()
}

/// A document as a batch writes it: all of it follows from the two numbers.
fn point(seed: u64, document: u64, batch: u64) -> Point {
    let mut random = Random(seed ^ (document << 40) ^ batch);
    let mut text = String::new();
    let passages = (0..=random.below(4))
        .map(|n| {
            let start = text.len() as u32;
            text.push_str(&format!("document {document} batch {batch} passage {n} "));
            for _ in 0..random.below(300) {
                text.push_str(&format!("{:x}", random.next()));
            }
            let values = (0..dim().len()).map(|_| random.below(20_001) as f32 / 10_000.0 - 1.0).collect();
            Passage {
                range: start..text.len() as u32,
                vector: Vector::new(values, dim(), Metric::Cosine).unwrap(),
            }
        })
        .collect();
    let mut hash = [0; 16];
    hash[..8].copy_from_slice(&document.to_le_bytes());
    hash[8..].copy_from_slice(&batch.to_le_bytes());
    Point {
        id: name(document),
        title: format!("title {document} {batch}"),
        text,
        payload: Payload::from([("batch".to_owned(), Value::Integer(batch as i64))]),
        content_hash: ContentHash(hash),
        passages,
    }
}

/// What a batch does: each document with `true` to write it, `false` to delete it.
fn batch(seed: u64, batch: u64) -> BTreeMap<u64, bool> {
    let mut random = Random(seed ^ batch.rotate_left(32));
    (0..=random.below(5)).map(|_| (random.below(DOCUMENTS), random.below(5) > 0)).collect()
}

/// Which batch wrote each document that is there, after batches 0 to `end`, not included.
type State = BTreeMap<u64, u64>;

fn advance(state: &mut State, seed: u64, number: u64) {
    for (document, written) in batch(seed, number) {
        if written {
            state.insert(document, number);
        } else {
            state.remove(&document);
        }
    }
}

/// Not a test by itself: what the child does. Without the variables it has nothing to do.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let number = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (first, seed) = (number(FIRST_BATCH), number(SEED));
    let collection = open(&dir);
    say("ready");
    let (sender, done) = mpsc::channel();
    let mut waiting = 0;
    for number in first.. {
        let writes = batch(seed, number)
            .into_iter()
            .map(|(document, written)| {
                if written {
                    Write::Upsert(Box::new(point(seed, document, number)))
                } else {
                    Write::Delete(name(document))
                }
            })
            .collect();
        let sender = sender.clone();
        collection.submit(
            writes,
            Box::new(move |result| {
                result.unwrap();
                say(&format!("acknowledged {number}"));
                sender.send(()).unwrap();
            }),
        );
        waiting += 1;
        if waiting == IN_FLIGHT {
            done.recv().unwrap();
            waiting -= 1;
        }
    }
}

/// One line to the parent, in one piece.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

fn open(dir: &Path) -> Arc<Collection> {
    if dir.exists() {
        Collection::open(dir, made(), options(dir)).unwrap()
    } else {
        Collection::create(dir, spec(), options(dir)).unwrap()
    }
}

/// Runs a child and kills it; returns the last batch it acknowledged.
fn run_and_kill(dir: &Path, first: u64, seed: u64, random: &mut Random) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, dir)
        .env(FIRST_BATCH, first.to_string())
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut last = None;
    let mut take = |line: String| {
        if let Some(number) = line.strip_prefix("acknowledged ") {
            last = Some(number.parse().unwrap());
        }
        line == "ready"
    };
    // The first round makes the collection, and a half-made one is the engine's to clear; later ones are also killed
    // while they open.
    if first == 0 || random.below(5) > 0 {
        let begun = Instant::now();
        while !take(lines.recv_timeout(Duration::from_secs(30)).expect("the child opens the collection")) {
            assert!(begun.elapsed() < Duration::from_secs(120), "the child does not open the collection");
        }
    }
    std::thread::sleep(Duration::from_micros(random.below(250_000)));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    reader.join().unwrap();
    for line in lines {
        take(line);
    }
    assert_eq!(status.code(), None, "the child ended by itself: {status}");
    last
}

/// The state that the collection is in, as the documents' own words tell it.
fn found(collection: &Collection, seed: u64) -> State {
    let page = collection
        .scroll(None, None, 10 * DOCUMENTS as usize, true, &Stop::default(), &Room::unbounded())
        .unwrap();
    assert!(page.next.is_none());
    let mut state = State::new();
    let mut passages = 0;
    let mut before: Option<PointId> = None;
    for stored in page.points {
        assert!(before.as_ref().is_none_or(|before| *before < stored.id), "{} is there twice", stored.id);
        let document = stored.id.as_str().rsplit(' ').next().unwrap().parse().unwrap();
        let Some(&Value::Integer(number)) = stored.payload.get("batch") else { panic!("{stored:?}") };
        let whole = point(seed, document, number as u64);
        assert_eq!((&stored.title, &stored.text), (&whole.title, &whole.text));
        assert_eq!(stored.content_hash, whole.content_hash);
        assert_eq!(stored.passages, whole.passages.iter().map(|p| p.range.clone()).collect::<Vec<_>>());
        for (ordinal, passage) in (0..).zip(&whole.passages) {
            let query = SearchQuery {
                exact: true,
                by_passage: true,
                with_payload: false,
                with_text: false,
                ..SearchQuery::new(Ask::Vector(passage.vector.as_slice().to_vec()), 1)
            };
            let reads = Reads::new(Room::unbounded());
            let (hits, _) = collection.search(&query, None, &Stop::default(), &reads).unwrap();
            assert_eq!((&hits[0].id, hits[0].ordinal), (&stored.id, ordinal), "its vector finds another");
            assert!(hits[0].score > 0.999_99, "its vector is another: {}", hits[0].score);
        }
        passages += whole.passages.len() as u64;
        state.insert(document, number as u64);
        before = Some(stored.id);
    }
    let stats = collection.stats();
    assert_eq!((stats.documents, stats.passages), (state.len() as u64, passages), "{stats:?}");
    state
}

#[test]
fn acknowledged_documents_survive_kills_whole_and_once() {
    if std::env::var_os(FOLDER).is_some() {
        return;
    }
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260);
    println!("seed {seed}; set {SEED} for another");
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("collections/c");
    let mut state = State::new();
    let mut next = 0;
    let (mut lost_to_kill, mut kept_unheard) = (0, 0);
    for round in 0..ROUNDS {
        let acknowledged = run_and_kill(&place, next, seed, &mut random);
        let collection = Collection::open(&place, made(), options(&place))
            .unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
        let found = found(&collection, seed);
        // Everything acknowledged...
        while acknowledged.is_some_and(|last| next <= last) {
            advance(&mut state, seed, next);
            next += 1;
        }
        // ...and, whole and in order, any of those that were on their way.
        let heard = next;
        while state != found {
            assert!(
                next < heard + 2 * IN_FLIGHT as u64,
                "seed {seed}, round {round}: after batch {acknowledged:?} the collection is in no state it ever was in"
            );
            advance(&mut state, seed, next);
            next += 1;
        }
        kept_unheard += next - heard;
        lost_to_kill += u64::from(next == heard);
        collection.wait_indexed();
        let stats = collection.stats();
        assert_eq!(stats.indexed, stats.passages, "seed {seed}, round {round}");
        // Some rounds leave the graph as a clean end does, some as a kill does.
        if random.below(2) == 0 {
            collection.close().unwrap();
        }
    }
    println!("{next} batches; {kept_unheard} kept unheard, {lost_to_kill} rounds without one");
    assert!(next > ROUNDS, "the rounds were too short to test anything");
}
