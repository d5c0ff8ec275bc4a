//! Opening a large folder: after a clean end, and as a kill leaves it.

use std::{path::Path, time::Instant};

use serde::Serialize;

use super::{Made, disk_bytes, open_engine, percentile, processor, without_model};
use crate::{
    bench::{BenchError, COLLECTION, Note, Result, resident_bytes},
    config::Config,
    engine::{Ask, Caller, FieldsRequest, SearchQuery},
    random::SplitMix,
};

/// Searches after the first one.
const SEARCHES: usize = 200;

/// Documents that are in the log alone when the process is killed, one in so many.
const UNSEALED_SHARE: usize = 50;

/// Times, memory and disk.
#[derive(Debug, Serialize)]
pub struct OpenReport {
    pub processor: String,
    pub documents: usize,
    pub dimension: u32,
    pub fill_documents_per_second: f64,
    /// Until every vector was in the graph, after the last was written.
    pub index_seconds: f64,
    pub disk_bytes: u64,
    pub segments: u64,
    pub filled_resident_bytes: u64,
    pub clean: Opened,
    /// With one document in 50 more, which no segment has.
    pub killed: Opened,
}

/// A folder that was opened.
#[derive(Debug, Serialize)]
pub struct Opened {
    /// Until the first search was answered.
    pub open_seconds: f64,
    pub first_search_ms: f64,
    /// Of the searches after the first.
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// The process that measures holds the generator of documents as well, and what the allocator kept.
    pub resident_bytes: u64,
}

/// Fills a collection in `folder`, ends the engine and opens it again; then copies the folder while it is open, which is
/// what a kill leaves, and opens the copy.
///
/// # Errors
/// Engine errors; [`BenchError::Write`] if the folder cannot be copied.
pub async fn measure(
    config: &Config,
    documents: usize,
    made: Made,
    folder: &Path,
    note: Note<'_>,
) -> Result<OpenReport> {
    let (first, copied) = (folder.join("first"), folder.join("copied"));
    let engine = open_engine(without_model(config, &first)).await?;
    engine.create_collection(made.collection()).await?;
    let mut random = SplitMix(1);
    note(&format!("writing {documents} documents"));
    let begun = Instant::now();
    made.fill(&engine, 0..documents, &mut random).await?;
    let fill_documents_per_second = documents as f64 / begun.elapsed().as_secs_f64();
    note("waiting for the graph");
    let begun = Instant::now();
    engine.wait_indexed(COLLECTION).await?;
    let index_seconds = begun.elapsed().as_secs_f64();
    let filled_resident_bytes = resident_bytes();
    engine.close().await?;
    drop(engine);
    let clean = opened(&without_model(config, &first), made, &mut random).await?;

    note("as a kill leaves it");
    let engine = open_engine(without_model(config, &first)).await?;
    made.fill(&engine, documents..documents + documents / UNSEALED_SHARE, &mut random).await?;
    let stats = engine.stats(COLLECTION, FieldsRequest::default()).await?;
    let from = first.clone();
    let to = copied.clone();
    tokio::task::spawn_blocking(move || copy(&from, &to))
        .await?
        .map_err(|source| BenchError::Write { path: copied.clone(), source })?;
    let disk_bytes = disk_bytes(&first).map_err(|source| BenchError::Write { path: first, source })?;
    engine.close().await?;
    drop(engine);
    let killed = opened(&without_model(config, &copied), made, &mut random).await?;
    Ok(OpenReport {
        processor: processor(),
        documents,
        dimension: made.dimension,
        fill_documents_per_second,
        index_seconds,
        disk_bytes,
        segments: stats.segments,
        filled_resident_bytes,
        clean,
        killed,
    })
}

async fn opened(config: &Config, made: Made, random: &mut SplitMix) -> Result<Opened> {
    let ask = |random: &mut SplitMix| SearchQuery::new(Ask::Vector(made.vector(random)), 10);
    let begun = Instant::now();
    let engine = open_engine(config.clone()).await?;
    let asked = Instant::now();
    engine.search(COLLECTION, ask(random), Caller::default()).await?;
    let (open_seconds, first_search_ms) =
        (begun.elapsed().as_secs_f64(), asked.elapsed().as_secs_f64() * 1e3);
    let mut times = Vec::new();
    for _ in 0..SEARCHES {
        let asked = Instant::now();
        engine.search(COLLECTION, ask(random), Caller::default()).await?;
        times.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_unstable_by(f64::total_cmp);
    let opened = Opened {
        open_seconds,
        first_search_ms,
        p50_ms: percentile(&times, 0.5),
        p99_ms: percentile(&times, 0.99),
        resident_bytes: resident_bytes(),
    };
    engine.close().await?;
    Ok(opened)
}

/// Copies a folder with what is in it, but not the lock of the process that has it open.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&path, &place)?;
        } else if entry.file_name() != "LOCK" {
            std::fs::copy(&path, &place)?;
        }
    }
    Ok(())
}
