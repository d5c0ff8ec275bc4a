//! Latency of warm text queries through gRPC over TCP, split into stages.

use std::path::Path;

use serde::Serialize;

use super::{
    COLLECTION, Note, Result, requests,
    served::{Served, send},
    with_text,
};
use crate::{config::Config, eval::beir::JudgedCollection};

/// Queries, and what the wire adds to one embedding.
#[derive(Debug, Serialize)]
pub struct QueriesReport {
    #[serde(flatten)]
    pub queries: requests::QueryReport,
    pub embed: requests::EmbedReport,
}

/// Ingests a judged collection into a new database in `folder` and asks each of its queries `rounds` times (at least
/// once).
///
/// # Errors
/// [`BenchError::NoEncoder`](super::BenchError::NoEncoder); engine, encoder and server errors.
pub async fn measure(
    config: &Config,
    set: JudgedCollection,
    (k, rounds): (u32, usize),
    folder: &Path,
    note: Note<'_>,
) -> Result<QueriesReport> {
    let corpus = with_text(set.corpus);
    let served = Served::start(config, folder, note).await?;
    note(&format!("ingesting {} documents", corpus.len()));
    send(&served.channel, &corpus).await?;
    served.engine.wait_indexed(COLLECTION).await?;
    let texts: Vec<String> = set.queries.into_iter().map(|(_, text, _)| text).collect();
    let queries = requests::queries(served.channel.clone(), COLLECTION, &texts, k, rounds.max(1)).await?;
    let embed = requests::embed(served.channel.clone(), served.encoder()?).await?;
    served.stop().await?;
    Ok(QueriesReport { queries, embed })
}
