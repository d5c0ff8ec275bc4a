//! The collection against a plain map, against damage, against a failing disk, and against itself under load.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{
    Ask, Collection, CollectionError, CollectionOptions, CollectionSpec, Condition, Made, Means, Outcome,
    Reads, SearchQuery, SearchTrace, Write, WriteOptions, Written,
    memory::Graph,
    point::{ContentHash, Hit, Passage, Point, Revision},
    slots::NUMBERS_MAX,
};
use crate::{
    budget::Room,
    error::ErrorKind,
    files::{
        disk::{Disk, RealDisk},
        faulty::FaultyDisk,
    },
    index::{IndexKind, IndexParams},
    log::LogOptions,
    random::SplitMix as Random,
    segmented::{FolderLog, Options, StoreSizes, logs::FolderOptions},
    stop::Stop,
    store::StoreError,
    threads::Threads,
    value::{
        Payload, PointId, Value,
        filter::{Filter, RangeBounds},
    },
    vector::{Dim, Metric, Vector},
};

mod conditions;
mod durability;
mod figures;
mod model;
mod numbers;
mod once;
mod reading;
mod renumbering;
mod searching;
mod stress;

/// -1 to 1.
pub(super) fn unit(random: &mut Random) -> f32 {
    (random.next() >> 40) as f32 / (1u64 << 24) as f32 * 2.0 - 1.0
}

pub(super) fn dim() -> Dim {
    Dim::new(8).unwrap()
}

pub(super) fn spec(kind: IndexKind) -> CollectionSpec {
    CollectionSpec {
        dim: dim(),
        metric: Metric::Cosine,
        index: IndexParams { kind, m: 12, ef_construction: 64, ef_search: 64, ..IndexParams::default() },
        fingerprint: String::new(),
    }
}

/// As its owner knows a collection that an earlier version described.
fn made(kind: IndexKind) -> Made {
    Made { spec: spec(kind), identity: None }
}

/// So small that a few documents fill a segment.
pub(super) const SMALL: Options = Options { seal_bytes: 8 << 10, carry_bytes: 2 << 10, segments_max: 3 };

/// The folder of a collection in a data folder.
pub(super) fn place(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("collections/c")
}

/// What a new process has for the collection in `place`: whoever had it open before is gone.
pub(super) fn options(place: &Path) -> CollectionOptions {
    options_on(&(Arc::new(RealDisk) as _), place, Threads::new(1).unwrap())
}

fn options_on(disk: &Arc<dyn Disk>, place: &Path, threads: Arc<Threads>) -> CollectionOptions {
    let root = place.parent().and_then(Path::parent).unwrap();
    std::fs::create_dir_all(root).unwrap();
    let log = LogOptions { file_bytes: 256 << 10, reserve_bytes: 64 << 10, ..LogOptions::default() };
    let segment_bytes = StoreSizes::default().segment_bytes;
    let options = FolderOptions {
        log,
        log_bytes_max: 256 << 10,
        cache_bytes: 1 << 20,
        segment_bytes,
        ..FolderOptions::default()
    };
    let (log, damages) = FolderLog::open(disk, root, &threads, options).unwrap();
    assert_eq!(damages, []);
    CollectionOptions { log, threads }
}

pub(super) fn id(name: &str) -> PointId {
    PointId::new(name).unwrap()
}

pub(super) fn vector(random: &mut Random) -> Vector {
    Vector::new((0..dim().len()).map(|_| unit(random)).collect(), dim(), Metric::Cosine).unwrap()
}

/// A document of `passages` passages with some text; the hash is of its `version`.
pub(super) fn point(name: &str, version: u64, passages: u32, random: &mut Random) -> Point {
    let text: String = (0..passages).map(|n| format!("{name} v{version} p{n}; ")).collect();
    let mut start = 0;
    let passages = (0..passages)
        .map(|n| {
            let end = start + format!("{name} v{version} p{n}; ").len() as u32;
            let range = start..end;
            start = end;
            Passage { range, vector: vector(random) }
        })
        .collect();
    let mut hash = [0; 16];
    hash[..8].copy_from_slice(&version.to_le_bytes());
    hash[8..].copy_from_slice(&random.next().to_le_bytes());
    Point {
        id: id(name),
        title: format!("title of {name}"),
        text,
        payload: Payload::from([
            ("n".to_owned(), Value::Integer(i64::try_from(version % 7).unwrap())),
            ("tag".to_owned(), Value::String(["red", "green", "blue"][version as usize % 3].to_owned())),
        ]),
        content_hash: ContentHash(hash),
        passages,
    }
}

pub(super) fn upsert(point: Point) -> Write {
    Write::Upsert(Box::new(point))
}

fn outcomes(collection: &Collection, writes: Vec<Write>) -> Vec<Outcome> {
    collection.write(writes).unwrap().iter().map(|written| written.outcome).collect()
}

pub(super) fn query(vector: Vector, k: usize) -> SearchQuery {
    let ask = Ask::Vector(vector.as_slice().to_vec());
    SearchQuery { with_payload: false, with_text: false, ..SearchQuery::new(ask, k) }
}

pub(super) fn search(
    collection: &Collection,
    query: &SearchQuery,
) -> Result<(Vec<Hit>, SearchTrace), CollectionError> {
    collection.search(query, None, &Stop::default(), &Reads::new(Room::unbounded()))
}

pub(super) fn ids(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.id.as_str()).collect()
}

pub(super) fn eq(field: &str, value: Value) -> Filter {
    Filter::Eq { field: field.to_owned(), value }
}
