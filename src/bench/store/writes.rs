//! Acknowledged writes/s and their latency, by number of writers: one document a request, through gRPC, each writer
//! waiting for its answer.
//!
//! Beside them stands what the disk itself can do, a file appended to and synced one page at a time, and other stores in
//! turn with ours (`benches/peers/store.py`), which are called in their own process, without a network.

use std::{
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::{Made, percentile, processor, without_model};
use crate::{
    bench::{BenchError, COLLECTION, Note, Result, served::Served},
    config::Config,
    proto,
    random::SplitMix,
    rpc::documents_client::DocumentsClient,
};

/// Bytes that are appended before each sync of the disk's own measurement.
const PAGE: usize = 4096;

/// Stores of the peers' program, by the names that it takes.
pub const PEERS: [&str; 4] = ["qdrant-edge", "milvus-lite", "chroma", "lancedb"];

/// What is measured.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Writers at once, each 1 or more; one measurement for each number.
    pub writers: Vec<usize>,
    /// Length of each measurement in seconds, 1 or more.
    pub seconds: u64,
    /// What is written.
    pub made: Made,
    /// A Python that has the peers, and the program that runs them. Default: no peers.
    pub peers: Option<(PathBuf, PathBuf)>,
}

/// All cells, and what the disk can do.
#[derive(Debug, Serialize)]
pub struct WritesReport {
    pub processor: String,
    pub dimension: u32,
    pub text_bytes: usize,
    /// Synced appends of a page to one file, by one thread.
    pub disk_syncs_per_second: f64,
    pub cells: Vec<Cell>,
    /// Why a peer has no figures.
    pub absent: Vec<String>,
}

/// One store under so many writers.
#[derive(Debug, Serialize)]
pub struct Cell {
    pub store: String,
    /// What an acknowledged write has survived, by the store's own words and settings.
    pub promise: String,
    pub writers: usize,
    pub acknowledged_per_second: f64,
    /// Acknowledged writes for each sync that the disk could do in that time.
    pub writes_per_sync: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// What the peers' program answers.
#[derive(Debug, Deserialize)]
struct Told {
    store: String,
    promise: String,
    acknowledged_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Measures each number of writers, ours and then every peer, each over a new folder below `folder`.
///
/// # Errors
/// Engine and server errors; [`BenchError::Write`] for the disk's own measurement. A peer that fails is told in
/// [`WritesReport::absent`].
pub async fn measure(config: &Config, asked: &Asked, folder: &Path, note: Note<'_>) -> Result<WritesReport> {
    let synced = folder.join("synced");
    let disk_syncs_per_second = syncs_per_second(&synced, Duration::from_secs(2))
        .map_err(|source| BenchError::Write { path: synced, source })?;
    let (mut cells, mut absent) = (Vec::new(), Vec::new());
    for (round, &writers) in asked.writers.iter().enumerate() {
        note(&format!("writers: {writers}, for {} s", asked.seconds));
        let ours = folder.join(format!("ours-{round}"));
        let config = without_model(config, &ours);
        let served = Served::start_with(&config, &ours, note, asked.made.collection()).await?;
        let times = write(&served.channel, writers, asked).await?;
        served.stop().await?;
        let (acknowledged_per_second, p50_ms, p99_ms) = times;
        cells.push(Cell {
            store: "distilface, gRPC".into(),
            promise: "synced to the device (power)".into(),
            writers,
            acknowledged_per_second,
            writes_per_sync: acknowledged_per_second / disk_syncs_per_second,
            p50_ms,
            p99_ms,
        });
        let Some((python, script)) = &asked.peers else { continue };
        for peer in PEERS {
            note(&format!("{peer}, writers: {writers}, for {} s", asked.seconds));
            let theirs = folder.join(format!("{peer}-{round}"));
            let mut command = Command::new(python);
            command.arg(script).args(["--store", peer]).arg("--folder").arg(&theirs);
            for (name, value) in [
                ("--writers", writers),
                ("--seconds", usize::try_from(asked.seconds).unwrap_or(usize::MAX)),
                ("--dimension", asked.made.dimension as usize),
                ("--text-bytes", asked.made.text_bytes),
            ] {
                command.args([name, &value.to_string()]);
            }
            match tokio::task::spawn_blocking(move || ask(command)).await? {
                Ok(told) => cells.push(Cell {
                    store: told.store,
                    promise: told.promise,
                    writers,
                    acknowledged_per_second: told.acknowledged_per_second,
                    writes_per_sync: told.acknowledged_per_second / disk_syncs_per_second,
                    p50_ms: told.p50_ms,
                    p99_ms: told.p99_ms,
                }),
                Err(reason) => absent.push(format!("{peer}, writers {writers}: {reason}")),
            }
        }
    }
    let Made { dimension, text_bytes } = asked.made;
    Ok(WritesReport { processor: processor(), dimension, text_bytes, disk_syncs_per_second, cells, absent })
}

/// Runs a peer to its end; its last line of output is the answer.
fn ask(mut command: Command) -> std::result::Result<Told, String> {
    let output = command.output().map_err(|e| format!("it cannot be started: {e}"))?;
    let last = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
    };
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, last(&output.stderr)));
    }
    serde_json::from_str(&last(&output.stdout)).map_err(|e| format!("its answer is not understood: {e}"))
}

/// Acknowledged writes/s, and p50 and p99 in milliseconds.
async fn write(channel: &Channel, writers: usize, asked: &Asked) -> Result<(f64, f64, f64)> {
    let begun = Instant::now();
    let end = begun + Duration::from_secs(asked.seconds);
    let next = Arc::new(AtomicU64::new(0));
    let mut all = JoinSet::new();
    for writer in 0..writers {
        let mut client = DocumentsClient::new(channel.clone());
        let (next, made) = (Arc::clone(&next), asked.made);
        all.spawn(async move {
            let mut random = SplitMix(writer as u64);
            let mut times = Vec::new();
            while Instant::now() < end {
                let document = proto::Document {
                    id: next.fetch_add(1, Ordering::Relaxed).to_string(),
                    text: made.text(&mut random),
                    vector: Some(proto::Vector { values: made.vector(&mut random) }),
                    ..proto::Document::default()
                };
                let request = proto::UpsertRequest {
                    collection: COLLECTION.into(),
                    documents: vec![document],
                    ..proto::UpsertRequest::default()
                };
                let asked = Instant::now();
                client.upsert(request).await?;
                times.push(asked.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, tonic::Status>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = all.join_next().await {
        times.append(&mut done??);
    }
    let per_second = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable_by(f64::total_cmp);
    Ok((per_second, percentile(&times, 0.5), percentile(&times, 0.99)))
}

/// What the disk of a file can do: a page appended to a file that has its room, and synced.
fn syncs_per_second(path: &Path, time: Duration) -> std::io::Result<f64> {
    let file = std::fs::File::create_new(path)?;
    file.set_len(256 << 20)?;
    file.sync_all()?;
    let page = [7; PAGE];
    let (begun, mut count) = (Instant::now(), 0u64);
    while begun.elapsed() < time {
        file.write_all_at(&page, count % (1 << 16) * PAGE as u64)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}
