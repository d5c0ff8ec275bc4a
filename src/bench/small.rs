//! Small writes beside bulk ingestion that runs flat out: one short document at a time, into the same collection and into
//! another one.
//!
//! A small write is compared with itself on the quiet server, which is what encoding and storing one document costs.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tonic::transport::Channel;

use super::{
    BenchError, COLLECTION, Note, Result,
    load::flood,
    requests::{Percentiles, Timings},
    served::Served,
    with_text,
};
use crate::{
    config::Config, engine::NewCollection, eval::beir::CorpusDocument, proto,
    rpc::documents_client::DocumentsClient,
};

/// The other collection.
const OTHER: &str = "bench-other";

/// From one small write to the next.
const PAUSE: Duration = Duration::from_millis(50);

/// Words of a small document.
const WORDS: usize = 12;

/// Small writes quiet and beside bulk.
#[derive(Debug, Serialize)]
pub struct SmallReport {
    pub device: String,
    pub seconds: u64,
    pub phases: Vec<Phase>,
    /// p99 beside bulk into the same collection, less the median of a quiet one, in milliseconds.
    pub more_same_ms: f64,
    /// The same with bulk into another collection.
    pub more_other_ms: f64,
}

/// One phase.
#[derive(Debug, Serialize)]
pub struct Phase {
    pub name: &'static str,
    pub writes: u64,
    pub latency: Percentiles,
    pub bulk_documents_per_second: f64,
}

/// Writes small documents for `seconds` in each phase, made of the words of `corpus`, which is also the bulk.
///
/// # Errors
/// [`BenchError::Unusable`] without documents; engine and server errors.
pub async fn measure(
    config: &Config,
    corpus: Vec<CorpusDocument>,
    seconds: u64,
    folder: &Path,
    note: Note<'_>,
) -> Result<SmallReport> {
    let corpus = with_text(corpus);
    if corpus.is_empty() {
        return Err(BenchError::Unusable { reason: "there is no document with a text".into() });
    }
    let served = Served::start(config, folder, note).await?;
    served.engine.create_collection(NewCollection { name: OTHER.into(), ..NewCollection::default() }).await?;
    let mut phases = Vec::new();
    for (name, into, bulk) in [
        ("quiet", OTHER, false),
        ("bulk into the same", COLLECTION, true),
        ("bulk into another", OTHER, true),
    ] {
        note(&format!("{name}, for {seconds} s"));
        let (stop, stored) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let flood = bulk.then(|| {
            tokio::spawn(flood(
                served.channel.clone(),
                name.into(),
                corpus.clone(),
                Arc::clone(&stop),
                Arc::clone(&stored),
            ))
        });
        if bulk {
            // The encoder's queue fills first.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        let (begun, before) = (Instant::now(), stored.load(Ordering::Relaxed));
        let timings = write(&served.channel, into, &corpus, (name, Duration::from_secs(seconds))).await?;
        let bulk = (stored.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        if let Some(flood) = flood {
            flood.await??;
        }
        let latency = timings.percentiles();
        phases.push(Phase { name, writes: timings.count(), latency, bulk_documents_per_second: bulk });
    }
    let device = served.device();
    served.stop().await?;
    let more = |of: usize| (phases[of].latency.p99_us as f64 - phases[0].latency.p50_us as f64) / 1e3;
    let (more_same_ms, more_other_ms) = (more(1), more(2));
    Ok(SmallReport { device, seconds, phases, more_same_ms, more_other_ms })
}

async fn write(
    channel: &Channel,
    collection: &str,
    corpus: &[CorpusDocument],
    (phase, time): (&str, Duration),
) -> Result<Timings> {
    let mut client = DocumentsClient::new(channel.clone());
    let mut timings = Timings::default();
    let begun = Instant::now();
    for (n, document) in corpus.iter().cycle().enumerate() {
        if begun.elapsed() >= time {
            break;
        }
        // The number makes it a text that no cache knows.
        let words: Vec<&str> = document.text.split_whitespace().take(WORDS).collect();
        let request = proto::UpsertRequest {
            collection: collection.into(),
            documents: vec![proto::Document {
                id: format!("small-{n}"),
                text: format!("{phase} {n} {}", words.join(" ")),
                ..proto::Document::default()
            }],
            ..Default::default()
        };
        let asked = Instant::now();
        client.upsert(request).await?;
        timings.record(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
        tokio::time::sleep(PAUSE).await;
    }
    Ok(timings)
}
