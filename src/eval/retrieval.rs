//! Retrieval quality of the whole path (cut, encode, index, search) on a judged collection.

use std::{path::Path, sync::Arc, time::Instant};

use serde::Serialize;

use super::{
    EvalError,
    beir::JudgedCollection,
    measures::{Measures, mean, measure},
};
use crate::{
    config::Config,
    engine::{Ask, Deadline, Document, Engine, NewCollection, SearchQuery},
};

/// Documents answered per query: what recall@100 needs.
const K: usize = 100;
const COLLECTION: &str = "eval";

/// How the collection is made for an evaluation.
#[derive(Debug, Clone, Copy, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Options {
    pub chunking_disabled: bool,
    pub ef: Option<usize>,
}

/// Quality and its cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct RetrievalReport {
    pub set: String,
    pub model: String,
    pub device: String,
    pub documents: usize,
    pub passages: u64,
    pub queries: usize,
    pub chunking: bool,
    /// Every vector compared.
    pub exact: Measures,
    /// The collection's index.
    pub index: Measures,
    /// `exact.ndcg_at_10 - index.ndcg_at_10`.
    pub index_loss: f64,
    /// How many of the first queries' searches the graph answered; the rest was scanned.
    pub graph_searches: usize,
    pub ingest_seconds: f64,
    pub documents_per_second: f64,
}

/// Ingests `set` into a collection of a fresh database under `dir` and measures exact and indexed search.
///
/// # Errors
/// Engine errors.
pub async fn evaluate(
    set: &JudgedCollection,
    config: &Config,
    dir: &Path,
    options: Options,
) -> Result<RetrievalReport, EvalError> {
    let mut config = config.clone();
    dir.clone_into(&mut config.data.dir);
    let opened = tokio::task::spawn_blocking(move || Engine::open(&config)).await;
    let engine = opened.map_err(|e| EvalError::Folder { path: dir.to_owned(), reason: e.to_string() })??;
    let result = run(set, &engine, options).await;
    engine.close().await?;
    result
}

async fn run(
    set: &JudgedCollection,
    engine: &Arc<Engine>,
    options: Options,
) -> Result<RetrievalReport, EvalError> {
    let encoder =
        engine.encoder().ok_or(crate::engine::EngineError::EncoderOff).map_err(crate::Error::from)?;
    let new = NewCollection {
        name: COLLECTION.into(),
        chunking_disabled: options.chunking_disabled,
        ..NewCollection::default()
    };
    engine.create_collection(new).await?;
    let started = Instant::now();
    for some in set.corpus.chunks(engine.config().limits.batch_max) {
        let documents = some
            .iter()
            // Two documents of one judged collection are empty in their source too; nothing can find them.
            .filter(|d| !(d.title.trim().is_empty() && d.text.trim().is_empty()))
            .map(|d| Document {
                id: d.id.clone(),
                title: d.title.clone(),
                text: d.text.clone(),
                ..Document::default()
            })
            .collect();
        engine.upsert(COLLECTION, documents, Deadline::default()).await?;
    }
    let ingest_seconds = started.elapsed().as_secs_f64();
    engine.wait_indexed(COLLECTION).await?;
    let (exact, _) = rank(set, engine, options, true).await?;
    let (index, graph_searches) = rank(set, engine, options, false).await?;
    Ok(RetrievalReport {
        set: set.name.clone(),
        model: encoder.name().to_owned(),
        device: encoder.device().device.clone(),
        documents: set.corpus.len(),
        passages: engine.stats(COLLECTION).await?.passages,
        queries: set.queries.len(),
        chunking: !options.chunking_disabled,
        exact,
        index,
        index_loss: exact.ndcg_at_10 - index.ndcg_at_10,
        graph_searches,
        ingest_seconds,
        documents_per_second: set.corpus.len() as f64 / ingest_seconds,
    })
}

async fn rank(
    set: &JudgedCollection,
    engine: &Engine,
    options: Options,
    exact: bool,
) -> Result<(Measures, usize), EvalError> {
    let mut all = Vec::with_capacity(set.queries.len());
    let mut graph = 0;
    for (_, text, judgements) in &set.queries {
        let query = SearchQuery {
            ef: options.ef,
            exact,
            with_payload: false,
            with_text: false,
            ..SearchQuery::new(Ask::Text(text.clone()), K)
        };
        let answer = engine.search(COLLECTION, query, Deadline::default()).await?;
        graph += usize::from(answer.trace.plan == "graph");
        let ranking: Vec<String> = answer.hits.iter().map(|h| h.id.as_str().to_owned()).collect();
        all.push(measure(&ranking, judgements));
    }
    Ok((mean(&all), graph))
}
