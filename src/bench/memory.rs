//! Resident memory: after ingesting a folder, then under a load of mixed lengths.

use std::{path::Path, time::Duration};

use serde::Serialize;

use super::{
    COLLECTION, Note, Result, requests, resident_bytes,
    served::{Served, send},
};
use crate::{config::Config, eval::beir::CorpusDocument};

/// Memory after ingestion and under load.
#[derive(Debug, Serialize)]
pub struct MemoryReport {
    pub device: String,
    pub documents: usize,
    pub start_bytes: u64,
    pub after_ingest_bytes: u64,
    pub load: requests::SoakReport,
}

/// Ingests `corpus` into a new database in `folder`; then so many clients embed for this time.
///
/// # Errors
/// Engine and server errors.
pub async fn measure(
    config: &Config,
    corpus: &[CorpusDocument],
    (clients, time): (u64, Duration),
    folder: &Path,
    note: Note<'_>,
) -> Result<MemoryReport> {
    let served = Served::start(config, folder, note).await?;
    let start_bytes = resident_bytes();
    note(&format!("ingesting {} documents", corpus.len()));
    send(&served.channel, corpus).await?;
    served.engine.wait_indexed(COLLECTION).await?;
    let after_ingest_bytes = resident_bytes();
    note(&format!("{clients} clients with mixed lengths for {} s", time.as_secs()));
    let load = requests::soak(served.channel.clone(), time, clients, resident_bytes).await?;
    let device = served.device();
    served.stop().await?;
    Ok(MemoryReport { device, documents: corpus.len(), start_bytes, after_ingest_bytes, load })
}
