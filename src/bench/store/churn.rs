//! How much disk is taken after every document was written again and again, against the same documents written once.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{Made, disk_bytes, open_engine, processor, without_model};
use crate::{
    bench::{BenchError, COLLECTION, Note, Result},
    config::Config,
    engine::{Engine, FieldsRequest, NewCollection, NewIndex},
    index::IndexKind,
    random::SplitMix,
};

/// How long background work may take after the last write.
const SETTLE_MAX: Duration = Duration::from_secs(300);

/// Nothing changed for so long: it is settled. Longer than a collection stays quiet before it is sealed.
const SETTLED: Duration = Duration::from_secs(75);

/// Disk by the versions that were written.
#[derive(Debug, Serialize)]
pub struct ChurnReport {
    pub processor: String,
    pub documents: usize,
    pub versions: usize,
    pub dimension: u32,
    pub text_bytes: usize,
    /// Texts and vectors as they are, without any packing.
    pub plain_bytes: u64,
    /// The folder with every document written once, settled.
    pub once_bytes: u64,
    /// The largest that the folder was while versions were written.
    pub most_bytes: u64,
    /// Right after the last write.
    pub written_bytes: u64,
    /// When merging has come to rest.
    pub settled_bytes: u64,
    pub settle_seconds: f64,
    pub writes_per_second: f64,
    /// Settled over once.
    pub ratio: f64,
}

/// Writes `documents` documents once, and then `versions - 1` times more.
///
/// # Errors
/// Engine errors; [`BenchError::Write`] if the folder cannot be read.
pub async fn measure(
    config: &Config,
    (documents, versions): (usize, usize),
    made: Made,
    folder: &Path,
    note: Note<'_>,
) -> Result<ChurnReport> {
    let engine = open_engine(without_model(config, folder)).await?;
    // The graph is not what is measured, and building it takes long.
    let index = NewIndex { kind: Some(IndexKind::Flat), ..NewIndex::default() };
    engine.create_collection(NewCollection { index, ..made.collection() }).await?;
    let size = || disk_bytes(folder).map_err(|source| BenchError::Write { path: folder.to_owned(), source });
    let mut random = SplitMix(1);
    note(&format!("writing {documents} documents once"));
    let begun = Instant::now();
    made.fill(&engine, 0..documents, &mut random).await?;
    let mut writing = begun.elapsed();
    settle(&engine, folder).await?;
    let once_bytes = size()?;
    let mut most_bytes = 0;
    for version in 2..=versions {
        note(&format!("version {version} of {versions}"));
        let begun = Instant::now();
        made.fill(&engine, 0..documents, &mut random).await?;
        writing += begun.elapsed();
        most_bytes = most_bytes.max(size()?);
    }
    let written_bytes = size()?;
    note("waiting for merging to come to rest");
    let settle_seconds = settle(&engine, folder).await?.as_secs_f64();
    let settled_bytes = size()?;
    engine.close().await?;
    let plain = documents * (made.text_bytes + made.dimension as usize * size_of::<f32>());
    Ok(ChurnReport {
        processor: processor(),
        documents,
        versions,
        dimension: made.dimension,
        text_bytes: made.text_bytes,
        plain_bytes: plain as u64,
        once_bytes,
        most_bytes,
        written_bytes,
        settled_bytes,
        settle_seconds,
        writes_per_second: (documents * versions) as f64 / writing.as_secs_f64(),
        ratio: settled_bytes as f64 / once_bytes as f64,
    })
}

/// Waits until sealing and merging have come to rest; answers when they had.
async fn settle(engine: &Engine, folder: &Path) -> Result<Duration> {
    let begun = Instant::now();
    let (mut last, mut since) = (None, Instant::now());
    while begun.elapsed() < SETTLE_MAX {
        let stats = engine.stats(COLLECTION, FieldsRequest::default()).await?;
        let bytes =
            disk_bytes(folder).map_err(|source| BenchError::Write { path: folder.to_owned(), source })?;
        let now = Some((stats.segments, stats.dead_documents, stats.unsealed_bytes, bytes));
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > SETTLED {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(since.duration_since(begun))
}
