//! Quality of search on a judged collection, exact and by an index, and of two models on it.
//!
//! Whatever answers queries with a ranking can be measured ([`Retrieve`]): this module asks it every query of the set and
//! makes a report of the rankings. Where documents are kept and how they are searched is not known here.

use serde::Serialize;

use super::{
    EvalError,
    beir::JudgedCollection,
    bootstrap::{Difference, Estimate, Resampling},
    measures::{Measures, OfEach, differences, intervals, mean, measure},
};

/// Documents answered per query: what recall@100 needs.
pub const K: usize = 100;

/// How a ranking is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// Every vector is compared.
    Exact,
    /// As the collection's index answers.
    Index,
}

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranking {
    /// Ids of documents, the best first; none twice.
    pub ids: Vec<String>,
    /// Whether a graph was walked; else every vector was compared.
    pub by_graph: bool,
}

/// Answers queries over the documents of a set.
pub trait Retrieve {
    /// Why a query has no answer.
    type Error;

    /// The `k` best documents for a query, or fewer where there are fewer.
    fn retrieve(
        &self,
        query: &str,
        k: usize,
        search: Search,
    ) -> impl Future<Output = Result<Ranking, Self::Error>> + Send;
}

/// The rankings of all queries of a set, measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// In the order of the set's queries.
    pub of_each: Vec<Measures>,
    /// How many of the queries a graph answered.
    pub by_graph: usize,
}

/// Asks `retrieve` every query of the set, one after another.
///
/// # Errors
/// The first that `retrieve` answers.
pub async fn rank<R: Retrieve>(
    set: &JudgedCollection,
    retrieve: &R,
    search: Search,
) -> Result<Ranked, R::Error> {
    let mut ranked = Ranked { of_each: Vec::with_capacity(set.queries.len()), by_graph: 0 };
    for (_, text, judgements) in &set.queries {
        let ranking = retrieve.retrieve(text, K, search).await?;
        ranked.by_graph += usize::from(ranking.by_graph);
        ranked.of_each.push(measure(&ranking.ids, judgements));
    }
    Ok(ranked)
}

/// The measures of one query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueryMeasures {
    /// Id of the query.
    pub query: String,
    /// Measures of the exact search.
    pub exact: Measures,
    /// Measures of the index's search; `None` if it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<Measures>,
}

/// The quality of a search, and its cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RetrievalReport {
    /// Name of the judged collection.
    pub set: String,
    /// Name of the model.
    pub model: String,
    /// The device that encoded.
    pub device: String,
    /// Documents stored.
    pub documents: usize,
    /// Passages stored.
    pub passages: u64,
    /// Queries searched for.
    pub queries: usize,
    /// Whether texts were cut into passages.
    pub chunking: bool,
    /// Means of the exact search, which compares every vector.
    pub exact: Measures,
    /// The means of `exact` with their intervals, by resampling queries.
    pub exact_intervals: OfEach<Estimate>,
    /// The results of the collection's index; `None` if it was not asked for.
    #[serde(flatten)]
    pub indexed: Option<Indexed>,
    /// Time to store all documents, in seconds.
    pub ingest_seconds: f64,
    /// Documents stored per second.
    pub documents_per_second: f64,
    /// In the order of the set's queries.
    pub per_query: Vec<QueryMeasures>,
}

/// The results of the collection's index.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Indexed {
    /// Means of the index's search.
    pub index: Measures,
    /// The means of `index` with their intervals, by resampling queries.
    pub index_intervals: OfEach<Estimate>,
    /// `exact.ndcg_at_10 - index.ndcg_at_10`.
    pub index_loss: f64,
    /// Searches that the graph answered; the others were scans.
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

/// What was searched, and what it cost to get there.
#[derive(Debug, Clone, PartialEq)]
pub struct Searched {
    /// The encoder's name.
    pub model: String,
    /// Where the encoder ran.
    pub device: String,
    /// Passages that the documents were cut into.
    pub passages: u64,
    /// Whether long documents were cut into passages.
    pub chunking: bool,
    /// From the first document to the last one acknowledged.
    pub ingest_seconds: f64,
}

impl RetrievalReport {
    /// What the rankings of a set's queries come to; `index` where it was searched by an index, too.
    pub fn new(
        set: &JudgedCollection,
        searched: Searched,
        exact: &Ranked,
        index: Option<&Ranked>,
        plan: &Resampling,
    ) -> Self {
        let mean_exact = mean(&exact.of_each);
        let indexed = index.map(|ranked| {
            let index = mean(&ranked.of_each);
            Indexed {
                index,
                index_intervals: intervals(&ranked.of_each, plan),
                index_loss: mean_exact.ndcg_at_10 - index.ndcg_at_10,
                graph_searches: ranked.by_graph,
            }
        });
        let per_query = set.queries.iter().zip(&exact.of_each).enumerate();
        let per_query = per_query.map(|(i, ((id, _, _), &exact))| QueryMeasures {
            query: id.clone(),
            exact,
            index: index.map(|ranked| ranked.of_each[i]),
        });
        RetrievalReport {
            set: set.name.clone(),
            model: searched.model,
            device: searched.device,
            documents: set.corpus.len(),
            passages: searched.passages,
            queries: set.queries.len(),
            chunking: searched.chunking,
            exact: mean_exact,
            exact_intervals: intervals(&exact.of_each, plan),
            indexed,
            ingest_seconds: searched.ingest_seconds,
            documents_per_second: set.corpus.len() as f64 / searched.ingest_seconds,
            per_query: per_query.collect(),
        }
    }
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

    /// Knows a ranking for each query, and answers at most two documents by the graph.
    struct Known;

    impl Retrieve for Known {
        type Error = String;

        async fn retrieve(&self, query: &str, k: usize, search: Search) -> Result<Ranking, String> {
            assert_eq!(k, K);
            let mut ids: Vec<String> = match query {
                "rain" => ["x", "wet", "cloud"].map(str::to_owned).into(),
                "sun" => vec!["dry".to_owned()],
                other => return Err(format!("nothing is known of {other}")),
            };
            if search == Search::Index {
                ids.truncate(1);
            }
            Ok(Ranking { ids, by_graph: search == Search::Index && query == "rain" })
        }
    }

    fn set(queries: &[(&str, &str)]) -> JudgedCollection {
        let judged = |&(query, document): &(&str, &str)| {
            (query.to_owned(), query.to_owned(), [(document.to_owned(), 1.0)].into())
        };
        let queries = queries.iter().map(judged).collect();
        JudgedCollection { name: "made".into(), corpus: Vec::new(), queries }
    }

    fn now<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    #[test]
    fn whatever_ranks_is_measured_query_by_query() {
        let set = set(&[("rain", "wet"), ("sun", "dry")]);
        let exact = now(rank(&set, &Known, Search::Exact)).unwrap();
        let index = now(rank(&set, &Known, Search::Index)).unwrap();
        assert_eq!((exact.by_graph, index.by_graph), (0, 1));
        // The relevant document second and first; by the index not at all and first.
        let mrr = |ranked: &Ranked| ranked.of_each.iter().map(|m| m.mrr_at_10).collect::<Vec<_>>();
        assert_eq!((mrr(&exact), mrr(&index)), (vec![0.5, 1.0], vec![0.0, 1.0]));

        let searched = Searched {
            model: "m".into(),
            device: "cpu".into(),
            passages: 3,
            chunking: true,
            ingest_seconds: 2.0,
        };
        let plan = Resampling::default();
        let report = RetrievalReport::new(&set, searched.clone(), &exact, Some(&index), &plan);
        assert_eq!(report.exact.mrr_at_10, 0.75);
        let indexed = report.indexed.unwrap();
        assert_eq!((indexed.index.mrr_at_10, indexed.graph_searches), (0.5, 1));
        // A relevant document in the second place is worth 1 / log2(3).
        assert!((indexed.index_loss - 0.5 / 3f64.log2()).abs() < 1e-12, "{}", indexed.index_loss);
        assert_eq!(report.per_query[0].index.unwrap().mrr_at_10, 0.0);
        let report = RetrievalReport::new(&set, searched, &exact, None, &plan);
        assert!(report.indexed.is_none() && report.per_query[0].index.is_none());
    }

    #[test]
    fn a_query_without_an_answer_ends_it() {
        let error = now(rank(&set(&[("rain", "wet"), ("snow", "x")]), &Known, Search::Exact)).unwrap_err();
        assert_eq!(error, "nothing is known of snow");
    }
}
