//! Latency of vector queries that arrive at a constant rate: on a quiet collection, and while documents are written to it
//! so fast that sealing and merging never rest.
//!
//! An open loop, as in `load.rs`: a query's time counts from when it was due. Between the two stands the same rate of
//! writes with segments so large that nothing is sealed, so that what writing costs is told apart from what sealing and
//! merging cost.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::task::JoinSet;

use super::{Made, open_engine, percentile, processor, without_model};
use crate::{
    bench::{COLLECTION, Note, Result},
    config::Config,
    engine::{Ask, Caller, Engine, EngineError, FieldsRequest, SearchQuery},
    random::SplitMix,
};

/// Documents of one write beside the queries.
const WRITTEN: usize = 20;

/// Segments while sealing and merging are to run all the time, in bytes.
const SMALL_SEGMENTS: u64 = 4 << 20;

/// What is asked and written.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Queries a second, above 0.
    pub rate: f64,
    /// Documents written a second, 20 or more.
    pub writes: f64,
    /// Length of each phase in seconds, 1 or more.
    pub seconds: u64,
    /// Documents that are there before.
    pub documents: usize,
    pub made: Made,
}

/// All phases.
#[derive(Debug, Serialize)]
pub struct BesideReport {
    pub processor: String,
    pub documents: usize,
    pub dimension: u32,
    pub rate: f64,
    pub phases: Vec<Phase>,
    /// p99 with sealing and merging over p99 of the quiet phase.
    pub ratio: f64,
    /// p99 with sealing and merging over p99 with the same writes alone.
    pub ratio_to_writes: f64,
}

/// One phase.
#[derive(Debug, Serialize)]
pub struct Phase {
    pub name: &'static str,
    pub queries: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub documents_per_second: f64,
    /// Segments at its end.
    pub segments: u64,
}

/// Fills a collection, and asks it quietly, with writes, and with writes that are sealed and merged.
///
/// # Errors
/// Engine errors.
pub async fn measure(config: &Config, asked: Asked, folder: &Path, note: Note<'_>) -> Result<BesideReport> {
    let mut config = without_model(config, folder);
    let mut random = SplitMix(1);
    let engine = open_engine(config.clone()).await?;
    engine.create_collection(asked.made.collection()).await?;
    note(&format!("writing {} documents", asked.documents));
    asked.made.fill(&engine, 0..asked.documents, &mut random).await?;
    engine.wait_indexed(COLLECTION).await?;
    // Whatever was to be sealed and merged is.
    engine.close().await?;
    drop(engine);
    let mut phases = Vec::new();
    for (name, writes, small) in
        [("quiet", false, false), ("with writes", true, false), ("with seals and merges", true, true)]
    {
        if small {
            config.data.segment_bytes = SMALL_SEGMENTS;
        }
        let engine = open_engine(config.clone()).await?;
        engine.wait_indexed(COLLECTION).await?;
        note(&format!("{name}: {} queries/s for {} s", asked.rate, asked.seconds));
        phases.push(phase(&engine, name, writes, asked).await?);
        engine.close().await?;
    }
    let ratio = |of: usize| phases[2].p99_ms / phases[of].p99_ms.max(1e-3);
    let (ratio, ratio_to_writes) = (ratio(0), ratio(1));
    let Asked { documents, rate, made, .. } = asked;
    Ok(BesideReport {
        processor: processor(),
        documents,
        dimension: made.dimension,
        rate,
        phases,
        ratio,
        ratio_to_writes,
    })
}

async fn phase(engine: &Arc<Engine>, name: &'static str, writes: bool, asked: Asked) -> Result<Phase> {
    let mut random = SplitMix(7);
    for _ in 0..50 {
        engine.search(COLLECTION, query(asked.made, &mut random), Caller::default()).await?;
    }
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let writer = writes.then(|| {
        let (engine, stop, written) = (Arc::clone(engine), Arc::clone(&stop), Arc::clone(&written));
        tokio::spawn(write(engine, asked, stop, written))
    });
    let mut running: JoinSet<Result<f64, EngineError>> = JoinSet::new();
    let mut sent = 0u64;
    loop {
        let due = begun + Duration::from_secs_f64(sent as f64 / asked.rate);
        if due.duration_since(begun) >= Duration::from_secs(asked.seconds) {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let (engine, query) = (Arc::clone(engine), query(asked.made, &mut random));
        running.spawn(async move {
            engine.search(COLLECTION, query, Caller::default()).await?;
            Ok(due.elapsed().as_secs_f64() * 1e3)
        });
        sent += 1;
    }
    let mut times = Vec::new();
    while let Some(done) = running.join_next().await {
        times.push(done??);
    }
    let documents_per_second = written.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    if let Some(writer) = writer {
        writer.await??;
    }
    let stats = engine.stats(COLLECTION, FieldsRequest::default()).await?;
    times.sort_unstable_by(f64::total_cmp);
    Ok(Phase {
        name,
        queries: sent,
        p50_ms: percentile(&times, 0.5),
        p99_ms: percentile(&times, 0.99),
        max_ms: times.last().copied().unwrap_or(0.0),
        documents_per_second,
        segments: stats.segments,
    })
}

fn query(made: Made, random: &mut SplitMix) -> SearchQuery {
    SearchQuery::new(Ask::Vector(made.vector(random)), 10)
}

/// Replaces documents at a constant rate until it is told to stop.
async fn write(
    engine: Arc<Engine>,
    asked: Asked,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
) -> Result<()> {
    let mut random = SplitMix(13);
    let begun = Instant::now();
    for round in 0u64.. {
        let due = begun + Duration::from_secs_f64((round * WRITTEN as u64) as f64 / asked.writes);
        tokio::time::sleep_until(due.into()).await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // One after the other from anywhere, so that no id stands twice in a request.
        let first = usize::try_from(random.next() >> 8).unwrap_or(0);
        let documents = (0..WRITTEN.min(asked.documents))
            .map(|n| asked.made.document((first + n) % asked.documents, &mut random))
            .collect();
        engine.upsert(COLLECTION, documents, Caller::default()).await?;
        written.fetch_add(WRITTEN as u64, Ordering::Relaxed);
    }
    Ok(())
}
