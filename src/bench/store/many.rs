//! Many small collections in one folder: made, opened again and searched.

use std::{path::Path, time::Instant};

use serde::Serialize;

use super::{Made, disk_bytes, open_engine, percentile, processor, without_model};
use crate::{
    bench::{BenchError, Note, Result, resident_bytes},
    config::Config,
    engine::{Ask, Caller, NewCollection, SearchQuery},
    random::SplitMix,
};

/// Times, and what the process holds with all collections.
#[derive(Debug, Serialize)]
pub struct ManyReport {
    pub processor: String,
    pub collections: usize,
    /// In each.
    pub documents: usize,
    pub made_per_second: f64,
    pub disk_bytes: u64,
    /// Until the folder answered for the first collection.
    pub open_seconds: f64,
    /// A first search in each collection, which opens it.
    pub first_search_p50_ms: f64,
    pub first_search_p99_ms: f64,
    /// With the first collection searched, and with all.
    pub one: Held,
    pub all: Held,
}

/// What a process holds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Held {
    pub resident_bytes: u64,
    pub threads: usize,
    pub handles: usize,
}

fn held() -> Held {
    let count = |folder: &str| std::fs::read_dir(folder).map_or(0, Iterator::count);
    Held {
        resident_bytes: resident_bytes(),
        threads: count("/proc/self/task"),
        handles: count("/proc/self/fd"),
    }
}

/// Makes `collections` collections of `documents` documents in `folder`, opens the folder again and searches each.
///
/// # Errors
/// Engine errors; [`BenchError::Write`] if the folder cannot be read.
pub async fn measure(
    config: &Config,
    (collections, documents): (usize, usize),
    made: Made,
    folder: &Path,
    note: Note<'_>,
) -> Result<ManyReport> {
    let config = without_model(config, folder);
    let engine = open_engine(config.clone()).await?;
    let mut random = SplitMix(1);
    note(&format!("making {collections} collections of {documents} documents"));
    let begun = Instant::now();
    for n in 0..collections {
        engine.create_collection(NewCollection { name: name(n), ..made.collection() }).await?;
        let written = (0..documents).map(|n| made.document(n, &mut random)).collect();
        engine.upsert(&name(n), written, Caller::default()).await?;
    }
    let made_per_second = collections as f64 / begun.elapsed().as_secs_f64();
    engine.close().await?;
    drop(engine);
    let disk_bytes =
        disk_bytes(folder).map_err(|source| BenchError::Write { path: folder.to_owned(), source })?;

    note("opening the folder and searching each");
    let begun = Instant::now();
    let engine = open_engine(config).await?;
    let (mut times, mut open_seconds, mut one) = (Vec::new(), 0.0, held());
    for n in 0..collections {
        let asked = Instant::now();
        let query = SearchQuery::new(Ask::Vector(made.vector(&mut random)), 10);
        engine.search(&name(n), query, Caller::default()).await?;
        times.push(asked.elapsed().as_secs_f64() * 1e3);
        if n == 0 {
            open_seconds = begun.elapsed().as_secs_f64();
            one = held();
        }
    }
    let all = held();
    engine.close().await?;
    times.sort_unstable_by(f64::total_cmp);
    Ok(ManyReport {
        processor: processor(),
        collections,
        documents,
        made_per_second,
        disk_bytes,
        open_seconds,
        first_search_p50_ms: percentile(&times, 0.5),
        first_search_p99_ms: percentile(&times, 0.99),
        one,
        all,
    })
}

fn name(n: usize) -> String {
    format!("c{n:05}")
}
