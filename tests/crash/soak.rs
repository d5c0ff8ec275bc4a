//! A server under a steady load of rewriting, deleting, searching and reading: its memory, its open files and its disk come
//! to rest and stay.
//!
//! The documents are always about as many, so whatever grows after the first third is kept for nothing. Two variables
//! change it: `DISTILFACE_SOAK_SECONDS` (30 if not given, 300 or more to learn something) and `DISTILFACE_TEST_SEED`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use distilface::{
    proto::{
        CollectionConfig, CreateCollectionRequest, DeleteDocumentsRequest, Document, IndexKind,
        ScrollRequest, SearchRequest, UpsertRequest, Vector, search_request::Query,
    },
    rpc::{
        collections_client::CollectionsClient, documents_client::DocumentsClient, search_client::SearchClient,
    },
};
use tonic::transport::Channel;

use super::{Random, crasher::seed, process::Launch};

const SECONDS_DEFAULT: u64 = 30;

/// Ids that are written again and again.
const DOCUMENTS: u64 = 2_000;

/// Documents of one write.
const BATCH: u64 = 20;

const DIMENSION: u32 = 16;

/// What memory may have more at the end than after the first third, however large it is: what the allocator keeps.
const MEMORY_SLACK: u64 = 24 << 20;

/// Bytes of memory that each write of a document may leave behind.
const BYTES_EACH: f64 = 24.0;

/// What a process holds.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    memory: u64,
    handles: usize,
    threads: usize,
    disk: u64,
    written: u64,
}

impl Held {
    fn of(process: u32, data: &Path, written: u64) -> Self {
        let proc = Path::new("/proc").join(process.to_string());
        let status = std::fs::read_to_string(proc.join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let memory = line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10;
        let count = |folder: &str| std::fs::read_dir(proc.join(folder)).unwrap().count();
        Held { memory, handles: count("fd"), threads: count("task"), disk: disk(data), written }
    }

    fn most(self, other: Self) -> Self {
        Held {
            memory: self.memory.max(other.memory),
            handles: self.handles.max(other.handles),
            threads: self.threads.max(other.threads),
            disk: self.disk.max(other.disk),
            written: self.written.max(other.written),
        }
    }
}

/// Bytes that the files of a folder take on the disk.
fn disk(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, found)| if found.is_dir() { disk(&path) } else { found.blocks() * 512 })
        .sum()
}

fn vector(random: &mut Random) -> Vector {
    Vector { values: (0..DIMENSION).map(|_| random.below(20_001) as f32 / 10_000.0 - 1.0).collect() }
}

/// Two collections, one with a graph, written in turn until `end`.
async fn load(channel: Channel, mut random: Random, written: &std::sync::atomic::AtomicU64, end: Instant) {
    let mut documents = DocumentsClient::new(channel.clone());
    let mut search = SearchClient::new(channel);
    while Instant::now() < end {
        let collection = ["graph", "flat"][random.below(2) as usize].to_owned();
        let some = (0..BATCH)
            .map(|_| Document {
                id: format!("document {}", random.below(DOCUMENTS)),
                text: "words ".repeat(1 + random.below(80) as usize),
                vector: Some(vector(&mut random)),
                ..Document::default()
            })
            .collect::<Vec<_>>();
        let mut ids: Vec<String> = some.iter().map(|document| document.id.clone()).collect();
        let mut some = some;
        some.sort_by(|one, other| one.id.cmp(&other.id));
        some.dedup_by(|one, other| one.id == other.id);
        let request = UpsertRequest { collection: collection.clone(), documents: some, ..Default::default() };
        documents.upsert(request).await.unwrap();
        written.fetch_add(BATCH, std::sync::atomic::Ordering::Relaxed);
        let request = SearchRequest {
            collection: collection.clone(),
            query: Some(Query::Vector(vector(&mut random))),
            k: 10,
            ..Default::default()
        };
        search.search(request).await.unwrap();
        if random.below(4) == 0 {
            ids.truncate(2);
            let request =
                DeleteDocumentsRequest { collection: collection.clone(), ids, ..Default::default() };
            documents.delete(request).await.unwrap();
        }
        if random.below(16) == 0 {
            let request = ScrollRequest { collection, limit: 50, ..Default::default() };
            documents.scroll(request).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_files_and_disk_come_to_rest() {
    let seconds = std::env::var("DISTILFACE_SOAK_SECONDS").ok().and_then(|s| s.parse().ok());
    let seconds: u64 = seconds.unwrap_or(SECONDS_DEFAULT);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("db");
    // Small segments, so that sealing and merging never rest.
    let settings = [("DATA__SEGMENT_BYTES", "1048576"), ("ENCODER__THREADS", "1")];
    let server = Launch::new(&data, &settings, &folder.path().join("log")).serving().await.unwrap();
    for (name, kind) in [("graph", IndexKind::HnswRs), ("flat", IndexKind::Flat)] {
        let mut config = CollectionConfig {
            name: name.into(),
            dimension: DIMENSION,
            vectors_only: true,
            ..Default::default()
        };
        config.index.get_or_insert_default().set_kind(kind);
        let request = CreateCollectionRequest { config: Some(config), if_not_exists: false };
        CollectionsClient::new(server.channel.clone()).create(request).await.unwrap();
    }
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let written = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..3 {
        let (channel, written) = (server.connect().await, std::sync::Arc::clone(&written));
        let random = Random(seed() + client);
        clients.spawn(async move { load(channel, random, &written, end).await });
    }
    let thirds =
        [begun + Duration::from_secs(seconds) / 3, begun + Duration::from_secs(seconds) * 2 / 3, end];
    let mut most = [Held::default(); 3];
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let written = written.load(std::sync::atomic::Ordering::Relaxed);
        let held = Held::of(server.process(), &data, written);
        let third = thirds.iter().position(|end| Instant::now() < *end).unwrap_or(2);
        most[third] = most[third].most(held);
    }
    clients.join_all().await;
    println!("after each third of {seconds} s, at most: {most:#?}");
    let [_, second, last] = most;
    let writes = (last.written - second.written) as f64;
    let more = last.memory.saturating_sub(second.memory);
    assert!(
        more <= MEMORY_SLACK.max((writes * BYTES_EACH) as u64),
        "{more} bytes more after {writes} more writes: {most:#?}"
    );
    assert!(last.handles <= second.handles + 4, "{most:#?}");
    assert!(last.threads <= second.threads + 2, "{most:#?}");
    assert!(last.disk <= second.disk * 5 / 4 + (8 << 20), "{most:#?}");
    assert_eq!(server.terminate(), Some(0));
}
