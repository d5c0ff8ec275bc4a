//! Retrieval quality of the whole path (cut, encode, index, search) on a judged collection, and of two models on it.

use std::{path::Path, sync::Arc, time::Instant};

use serde::Serialize;

use super::{
    EvalError,
    beir::JudgedCollection,
    bootstrap::{Difference, Estimate, Resampling},
    measures::{Measures, OfEach, differences, intervals, mean, measure},
};
use crate::{
    config::Config,
    engine::{Ask, Caller, Document, Engine, FieldsAsked, NewCollection, SearchQuery},
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
    /// Compare every vector, and leave the index's own searches out.
    pub exact_only: bool,
    pub resampling: Resampling,
}

/// What one query got.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct QueryMeasures {
    pub query: String,
    pub exact: Measures,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<Measures>,
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
    /// Of `exact`, by resampling queries.
    pub exact_intervals: OfEach<Estimate>,
    /// The collection's index.
    #[serde(flatten)]
    pub indexed: Option<Indexed>,
    pub ingest_seconds: f64,
    pub documents_per_second: f64,
    /// In the order of the set's queries.
    pub per_query: Vec<QueryMeasures>,
}

/// What the collection's index makes of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Indexed {
    #[expect(missing_docs)]
    pub index: Measures,
    /// Of `index`, by resampling queries.
    pub index_intervals: OfEach<Estimate>,
    /// `exact.ndcg_at_10 - index.ndcg_at_10`.
    pub index_loss: f64,
    /// How many of the searches the graph answered; the rest was scanned.
    pub graph_searches: usize,
}

/// Two models on one set, by exact search: their difference is the encoders' alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RetrievalComparison {
    /// Of the second model.
    pub report: RetrievalReport,
    /// The second model's measures less the first's, query by query.
    pub difference: OfEach<Difference>,
}

/// `second` against `first`, which measured the same queries.
///
/// # Errors
/// [`EvalError::Folder`] naming the sets if they did not.
pub fn compare(
    first: &RetrievalReport,
    second: RetrievalReport,
    plan: &Resampling,
) -> Result<RetrievalComparison, EvalError> {
    let queries = |r: &RetrievalReport| r.per_query.iter().map(|q| q.query.clone()).collect::<Vec<_>>();
    if queries(first) != queries(&second) {
        let reason = format!("its queries are not those of {}, so the two cannot be compared", first.set);
        return Err(EvalError::Folder { path: second.set.into(), reason });
    }
    let exact = |r: &RetrievalReport| r.per_query.iter().map(|q| q.exact).collect::<Vec<_>>();
    let difference = differences(&exact(first), &exact(&second), plan);
    Ok(RetrievalComparison { report: second, difference })
}

/// Ingests `set` into a collection of a fresh database under `dir` and measures exact and indexed search. `None` if
/// `stopped` came first. The database is closed either way.
///
/// # Errors
/// Engine errors.
pub async fn evaluate(
    set: &JudgedCollection,
    config: &Config,
    dir: &Path,
    options: Options,
    stopped: impl Future<Output = ()>,
) -> Result<Option<RetrievalReport>, EvalError> {
    let mut config = config.clone();
    dir.clone_into(&mut config.data.dir);
    let opened = tokio::task::spawn_blocking(move || Engine::open(&config)).await;
    let engine = opened.map_err(|e| EvalError::Folder { path: dir.to_owned(), reason: e.to_string() })??;
    let result = tokio::select! {
        result = run(set, &engine, options) => result.map(Some),
        () = stopped => Ok(None),
    };
    engine.close().await?;
    result
}

async fn run(
    set: &JudgedCollection,
    engine: &Arc<Engine>,
    options: Options,
) -> Result<RetrievalReport, EvalError> {
    let encoder = engine.encoder().ok_or(crate::engine::EngineError::EncoderOff)?;
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
    let ingest_seconds = started.elapsed().as_secs_f64();
    let (exact_all, _) = rank(set, engine, options, true).await?;
    let exact = mean(&exact_all);
    let (mut indexed, mut index_all) = (None, None);
    if !options.exact_only {
        engine.wait_indexed(COLLECTION).await?;
        let (all, graph_searches) = rank(set, engine, options, false).await?;
        let index = mean(&all);
        indexed = Some(Indexed {
            index,
            index_intervals: intervals(&all, &options.resampling),
            index_loss: exact.ndcg_at_10 - index.ndcg_at_10,
            graph_searches,
        });
        index_all = Some(all);
    }
    let per_query = set.queries.iter().zip(&exact_all).enumerate().map(|(i, ((id, _, _), &exact))| {
        QueryMeasures { query: id.clone(), exact, index: index_all.as_ref().map(|all| all[i]) }
    });
    Ok(RetrievalReport {
        set: set.name.clone(),
        model: encoder.name().to_owned(),
        device: encoder.device().device.clone(),
        documents: set.corpus.len(),
        passages: engine.stats(COLLECTION, FieldsAsked::default()).await?.passages,
        queries: set.queries.len(),
        chunking: !options.chunking_disabled,
        exact,
        exact_intervals: intervals(&exact_all, &options.resampling),
        indexed,
        ingest_seconds,
        documents_per_second: set.corpus.len() as f64 / ingest_seconds,
        per_query: per_query.collect(),
    })
}

async fn rank(
    set: &JudgedCollection,
    engine: &Engine,
    options: Options,
    exact: bool,
) -> Result<(Vec<Measures>, usize), EvalError> {
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
        let answer = engine.search(COLLECTION, query, Caller::default()).await?;
        graph += usize::from(answer.trace.plan() == "graph");
        let ranking: Vec<String> = answer.hits.iter().map(|h| h.id.as_str().to_owned()).collect();
        all.push(measure(&ranking, judgements));
    }
    Ok((all, graph))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(queries: &[(&str, f64)]) -> RetrievalReport {
        let per_query: Vec<QueryMeasures> = queries
            .iter()
            .map(|&(query, ndcg_at_10)| QueryMeasures {
                query: query.to_owned(),
                exact: Measures { ndcg_at_10, ..Measures::default() },
                index: None,
            })
            .collect();
        let all: Vec<Measures> = per_query.iter().map(|q| q.exact).collect();
        RetrievalReport {
            set: "made".into(),
            model: "m".into(),
            device: "cpu".into(),
            documents: 1,
            passages: 1,
            queries: queries.len(),
            chunking: true,
            exact: mean(&all),
            exact_intervals: intervals(&all, &Resampling::default()),
            indexed: None,
            ingest_seconds: 1.0,
            documents_per_second: 1.0,
            per_query,
        }
    }

    #[test]
    fn models_are_compared_query_by_query() {
        let plan = Resampling::default();
        let made =
            compare(&report(&[("a", 0.5), ("b", 0.1)]), report(&[("a", 0.6), ("b", 0.2)]), &plan).unwrap();
        assert!((made.difference.ndcg_at_10.difference - 0.1).abs() < 1e-12);
        assert!(made.difference.ndcg_at_10.p < 0.002);
        assert_eq!(made.difference.mrr_at_10.p, 1.0);
    }

    #[test]
    fn other_queries_cannot_be_compared() {
        let (first, second) = (report(&[("a", 0.5)]), report(&[("b", 0.5)]));
        let error = compare(&first, second, &Resampling::default()).unwrap_err().to_string();
        assert!(error.contains("cannot be compared"), "{error}");
    }
}
