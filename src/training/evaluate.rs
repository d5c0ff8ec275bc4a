//! A judged collection is ingested into a database of its own and searched: the quality of the whole path (cut, encode,
//! index, search), measured by [`eval::retrieval`](crate::eval::retrieval).

use std::{path::Path, sync::Arc, time::Instant};

use super::TrainingError;
use crate::{
    config::Config,
    engine::{Ask, Caller, Document, Engine, EngineError, FieldsRequest, NewCollection, SearchQuery},
    eval::{
        EvalError,
        beir::JudgedCollection,
        bootstrap::Resampling,
        retrieval::{Ranking, RetrievalReport, Retrieve, Search, Searched, rank},
    },
    threads,
};

const COLLECTION: &str = "eval";

/// How the collection is made and searched for an evaluation.
#[derive(Debug, Clone, Copy, Default)]
pub struct RetrievalOptions {
    /// One passage for each document, cut at the model's limit. Default: no.
    pub chunking_disabled: bool,
    /// Candidates that the graph keeps, 1 to 4096. Default: the collection's.
    pub ef: Option<usize>,
    /// Compare every vector, and leave the index's own searches out. Default: no.
    pub exact_only: bool,
    /// How the queries are drawn for the intervals. Default: [`Resampling::default`].
    pub resampling: Resampling,
}

/// Ingests `set` into a collection of a fresh database under `dir` and measures exact and indexed search. `None` if
/// `stopped` came first. The database is closed either way.
///
/// # Errors
/// Engine errors.
pub async fn retrieval(
    set: &JudgedCollection,
    config: &Config,
    dir: &Path,
    options: RetrievalOptions,
    stopped: impl Future<Output = ()>,
) -> Result<Option<RetrievalReport>, TrainingError> {
    let mut config = config.clone();
    dir.clone_into(&mut config.data.dir);
    let opened = tokio::task::spawn_blocking(move || Engine::open(&config)).await;
    let engine = opened.map_err(|e| EvalError::Folder { path: dir.to_owned(), reason: e.to_string() })??;
    let result = tokio::select! {
        result = run(set, &engine, options) => result.map(Some),
        () = stopped => Ok(None),
    };
    engine.close().await?;
    Ok(result?)
}

async fn run(
    set: &JudgedCollection,
    engine: &Arc<Engine>,
    options: RetrievalOptions,
) -> Result<RetrievalReport, EngineError> {
    let encoder = engine.encoder().ok_or(EngineError::EncoderOff)?;
    let ingest_seconds = ingest(set, engine, options).await?;
    let searches = Searches { engine, ef: options.ef };
    let exact = rank(set, &searches, Search::Exact).await?;
    let mut index = None;
    if !options.exact_only {
        engine.wait_indexed(COLLECTION).await?;
        index = Some(rank(set, &searches, Search::Index).await?);
    }
    let searched = Searched {
        model: encoder.name().to_owned(),
        device: encoder.device().device.clone(),
        passages: engine.stats(COLLECTION, FieldsRequest::default()).await?.passages,
        chunking: !options.chunking_disabled,
        ingest_seconds,
    };
    // The intervals are drawn in parallel.
    let pool = threads::training()?;
    let report = || RetrievalReport::new(set, searched, &exact, index.as_ref(), &options.resampling);
    Ok(pool.workers().install(report))
}

/// Answers how many seconds it took.
async fn ingest(
    set: &JudgedCollection,
    engine: &Arc<Engine>,
    options: RetrievalOptions,
) -> Result<f64, EngineError> {
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
        engine.upsert(COLLECTION, documents, Caller::default()).await?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// The collection's searches.
struct Searches<'a> {
    engine: &'a Engine,
    ef: Option<usize>,
}

impl Retrieve for Searches<'_> {
    type Error = EngineError;

    async fn retrieve(&self, query: &str, k: usize, search: Search) -> Result<Ranking, EngineError> {
        let query = SearchQuery {
            ef: self.ef,
            exact: search == Search::Exact,
            with_payload: false,
            with_text: false,
            ..SearchQuery::new(Ask::Text(query.to_owned()), k)
        };
        let answer = self.engine.search(COLLECTION, query, Caller::default()).await?;
        Ok(Ranking {
            ids: answer.hits.iter().map(|hit| hit.id.as_str().to_owned()).collect(),
            by_graph: answer.trace.plan() == "graph",
        })
    }
}
