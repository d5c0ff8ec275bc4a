//! `distilface bench writes` and `distilface bench open`: what the store alone can do, without an encoder.
//!
//! Vectors come from a seed, so nothing is encoded; every document also brings a text. Writes go through gRPC, one
//! document a request, each writer waiting for its answer: what is counted is acknowledged. Beside them stands what the
//! disk itself can do: a file appended to and synced, one page at a time.

use std::{
    fmt::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    bench::{COLLECTION, median, resident_bytes, served::Served},
    cli::{App, client, eval::Scratch, layout},
    config::NO_MODEL,
    engine::{Ask, Caller, Document, FieldsRequest, NewCollection, SearchQuery},
    processor::Processor,
    proto,
    random::SplitMix,
    rpc::documents_client::DocumentsClient,
};

/// Documents of one write while a collection is filled.
const BATCH: usize = 500;

/// Bytes that are appended before each sync of the disk's own measurement.
const PAGE: usize = 4096;

/// Measure acknowledged writes
#[derive(Debug, clap::Args)]
pub struct WritesArgs {
    /// Writers at once, one measurement for each number
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    writers: Vec<usize>,
    /// Length of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Numbers of a vector
    #[arg(long, default_value_t = 384)]
    dimension: u32,
    /// Bytes of a text
    #[arg(long, default_value_t = 1024)]
    text_bytes: usize,
}

/// Measure opening a large folder
#[derive(Debug, clap::Args)]
pub struct OpenArgs {
    /// Documents of one passage
    #[arg(long, default_value_t = 100_000)]
    documents: usize,
    /// Numbers of a vector
    #[arg(long, default_value_t = 384)]
    dimension: u32,
    /// Bytes of a text
    #[arg(long, default_value_t = 1024)]
    text_bytes: usize,
}

#[derive(Debug, Serialize)]
struct WritesReport {
    processor: String,
    dimension: u32,
    text_bytes: usize,
    /// Synced appends of a page to one file, by one thread.
    disk_syncs_per_second: f64,
    cells: Vec<Cell>,
}

#[derive(Debug, Serialize)]
struct Cell {
    writers: usize,
    acknowledged_per_second: f64,
    /// Acknowledged writes for each sync that the disk could do in that time.
    writes_per_sync: f64,
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Debug, Serialize)]
struct OpenReport {
    processor: String,
    documents: usize,
    dimension: u32,
    fill_documents_per_second: f64,
    index_seconds: f64,
    disk_bytes: u64,
    segments: u64,
    filled_resident_bytes: u64,
    /// After a clean end: until the collection answers.
    open_seconds: f64,
    first_search_ms: f64,
    /// The median of those after the first.
    search_ms: f64,
    opened_resident_bytes: u64,
}

fn processor() -> String {
    let name = Processor::look().field("model name").unwrap_or("unknown").to_owned();
    format!("{name}, {} threads", crate::threads::cores())
}

fn vector(dimension: u32, random: &mut SplitMix) -> Vec<f32> {
    (0..dimension).map(|_| (random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// Words, so that it packs about as a text does.
fn text(bytes: usize, random: &mut SplitMix) -> String {
    let mut text = String::with_capacity(bytes + 8);
    while text.len() < bytes {
        let _ = write!(text, "{:x} ", random.next() & 0xf_ffff);
    }
    text.truncate(bytes);
    text
}

/// Runs `distilface bench writes`.
pub(super) async fn writes(app: &App, args: &WritesArgs) -> anyhow::Result<()> {
    let folder = Scratch::new("disk")?;
    let disk_syncs_per_second = syncs_per_second(&folder.0, Duration::from_secs(2))?;
    let mut cells = Vec::new();
    for writers in &args.writers {
        app.out.note(&format!("{writers} writers for {} s", args.seconds));
        let (folder, mut config) = (Scratch::new("writes")?, app.loaded.config.clone());
        NO_MODEL.clone_into(&mut config.encoder.model);
        let note = |text: &str| app.out.note(text);
        let collection = vectors_only(args.dimension);
        let served = Served::start_with(&config, &folder.0, &note, collection).await?;
        let cell = cell(&served.channel, *writers, args, disk_syncs_per_second).await?;
        served.stop().await?;
        cells.push(cell);
    }
    let (processor, dimension, text_bytes) = (processor(), args.dimension, args.text_bytes);
    let report = WritesReport { processor, dimension, text_bytes, disk_syncs_per_second, cells };
    app.out.result(&report, writes_table)
}

fn vectors_only(dimension: u32) -> NewCollection {
    NewCollection {
        name: COLLECTION.into(),
        dimension: Some(dimension),
        vectors_only: true,
        ..NewCollection::default()
    }
}

async fn cell(
    channel: &Channel,
    writers: usize,
    args: &WritesArgs,
    syncs_per_second: f64,
) -> anyhow::Result<Cell> {
    let (dimension, text_bytes) = (args.dimension, args.text_bytes);
    let begun = Instant::now();
    let end = begun + Duration::from_secs(args.seconds);
    let next = Arc::new(AtomicU64::new(0));
    let mut all = JoinSet::new();
    for writer in 0..writers {
        let mut client = DocumentsClient::new(channel.clone());
        let next = Arc::clone(&next);
        all.spawn(async move {
            let mut random = SplitMix(writer as u64);
            let mut times = Vec::new();
            while Instant::now() < end {
                let document = proto::Document {
                    id: next.fetch_add(1, Ordering::Relaxed).to_string(),
                    text: text(text_bytes, &mut random),
                    vector: Some(proto::Vector { values: vector(dimension, &mut random) }),
                    ..proto::Document::default()
                };
                let request = proto::UpsertRequest {
                    collection: COLLECTION.into(),
                    documents: vec![document],
                    ..proto::UpsertRequest::default()
                };
                let asked = Instant::now();
                client.upsert(request).await?;
                times.push(asked.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = all.join_next().await {
        times.append(&mut done??);
    }
    let acknowledged_per_second = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let ms = |share: f64| {
        let at = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    let writes_per_sync = acknowledged_per_second / syncs_per_second;
    Ok(Cell { writers, acknowledged_per_second, writes_per_sync, p50_ms: ms(0.5), p99_ms: ms(0.99) })
}

/// What the disk of a folder can do: a page appended to a file that has its room, and synced.
fn syncs_per_second(dir: &Path, time: Duration) -> anyhow::Result<f64> {
    let file = std::fs::File::create_new(dir.join("synced"))?;
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

fn writes_table(report: &WritesReport) -> String {
    let mut table = format!(
        "{}; vectors of {}, texts of {} bytes\n  the disk alone: {:.0} synced appends/s\n",
        report.processor, report.dimension, report.text_bytes, report.disk_syncs_per_second
    );
    for cell in &report.cells {
        let _ = writeln!(
            table,
            "  {:>3} writers  {:>7.0} acknowledged/s  {:>6.2} a sync of the disk  p50 {:>7.2} ms  p99 {:>7.2} ms",
            cell.writers, cell.acknowledged_per_second, cell.writes_per_sync, cell.p50_ms, cell.p99_ms
        );
    }
    table.trim_end().to_owned()
}

/// Runs `distilface bench open`.
pub(super) async fn open(app: &App, args: &OpenArgs) -> anyhow::Result<()> {
    let folder = Scratch::new("open")?;
    let mut config = app.loaded.config.clone();
    folder.0.clone_into(&mut config.data.dir);
    NO_MODEL.clone_into(&mut config.encoder.model);
    let engine = client::open_engine(config.clone(), &app.out).await?;
    engine.create_collection(vectors_only(args.dimension)).await?;
    let mut random = SplitMix(1);
    let begun = Instant::now();
    for first in (0..args.documents).step_by(BATCH) {
        let documents = (first..args.documents.min(first + BATCH)).map(|n| Document {
            id: format!("document {n:08}"),
            text: text(args.text_bytes, &mut random),
            vector: Some(vector(args.dimension, &mut random)),
            ..Document::default()
        });
        engine.upsert(COLLECTION, documents.collect(), Caller::default()).await?;
    }
    let fill_documents_per_second = args.documents as f64 / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    engine.wait_indexed(COLLECTION).await?;
    let index_seconds = begun.elapsed().as_secs_f64();
    let stats = engine.stats(COLLECTION, FieldsRequest::default()).await?;
    let filled_resident_bytes = resident_bytes();
    engine.close().await?;
    drop(engine);
    let begun = Instant::now();
    let engine = client::open_engine(config, &app.out).await?;
    let ask = |random: &mut SplitMix| SearchQuery::new(Ask::Vector(vector(args.dimension, random)), 10);
    let asked = Instant::now();
    engine.search(COLLECTION, ask(&mut random), Caller::default()).await?;
    let (open_seconds, first_search_ms) =
        (begun.elapsed().as_secs_f64(), asked.elapsed().as_secs_f64() * 1e3);
    let mut times = Vec::new();
    for _ in 0..100 {
        let asked = Instant::now();
        engine.search(COLLECTION, ask(&mut random), Caller::default()).await?;
        times.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    let report = OpenReport {
        processor: processor(),
        documents: args.documents,
        dimension: args.dimension,
        fill_documents_per_second,
        index_seconds,
        disk_bytes: stats.disk_bytes,
        segments: stats.segments,
        filled_resident_bytes,
        open_seconds,
        first_search_ms,
        search_ms: median(times),
        opened_resident_bytes: resident_bytes(),
    };
    engine.close().await?;
    app.out.result(&report, open_table)
}

fn open_table(r: &OpenReport) -> String {
    format!(
        "{}; {} documents with vectors of {}\n  filled with {:.0} documents/s, the graph was level {:.1} s later\n  on disk {}, {} segments; resident {}\n  opened after a clean end in {:.2} s, the first search with it; that search {:.1} ms, later ones {:.2} ms\n  resident after opening {}",
        r.processor,
        layout::thousands(r.documents as u64),
        r.dimension,
        r.fill_documents_per_second,
        r.index_seconds,
        layout::bytes(r.disk_bytes),
        r.segments,
        layout::bytes(r.filled_resident_bytes),
        r.open_seconds,
        r.first_search_ms,
        r.search_ms,
        layout::bytes(r.opened_resident_bytes),
    )
}
