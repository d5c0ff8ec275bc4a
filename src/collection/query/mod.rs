//! A query becomes hits stage by stage; each stage is one file, takes candidates and gives candidates.
//!
//! | stage | does |
//! |---|---|
//! | `plan` | takes a snapshot, evaluates the filter, finds the vectors to compare with, counts what can be answered |
//! | `retrieve` | asks every retriever for its best candidates; today one, by vectors (`retrieve/dense.rs`) |
//! | `fuse` | makes one list of several |
//! | `rerank` | the place for a slower, better judge; today candidates pass as they are |
//! | `group` | each document (or passage) once, in the order of answers, `k` of them, none below the threshold |
//! | `fetch` | reads title, payload and passage of what is answered |
//!
//! There is one query type, [`SearchQuery`], from the engine down to here. A candidate carries where it came from.
//! Every stage looks at the stop signal of its request and reports its time and its count in the [`SearchTrace`].
//!
//! A search owns what it reads, a snapshot, and holds no lock: it may use the whole pool it runs on, and
//! no writer waits for it.
//! Order: larger scores first, then ids, then passages; equal scores at the end of the answer are chosen by that too.

use super::{CollectionError, Shared, point::Hit};
use crate::{stop::Stop, value::filter::Filter};

mod candidate;
pub(super) mod fetch;
mod fuse;
mod group;
mod plan;
mod rerank;
mod retrieve;
#[cfg(test)]
mod tests;
mod trace;

pub use candidate::Source;
pub use fetch::Reads;
use plan::Plan;
use trace::Watch;
pub use trace::{Retrieval, SearchTrace, Stage, StageTrace};

/// What is searched for.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// A text of 1 byte to `limits.query_bytes_max`, not only white space. The collection's model encodes it; a
    /// collection of vectors only refuses it.
    Text(String),
    /// A vector of the collection's dimension: finite values, not all of them zero under cosine.
    Vector(Vec<f32>),
    /// The id of a stored document: documents like that one are searched for, and it is itself left out. A hit's score
    /// is its best over all passages of that document.
    Document(String),
}

/// One search: the only description of it below the wire.
///
/// ```
/// use distilface::engine::{Ask, SearchQuery};
///
/// let query = SearchQuery { exact: true, ..SearchQuery::new(Ask::Text("rain on the river".into()), 10) };
/// assert!(query.with_text && query.filter.is_none());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SearchQuery {
    /// What is searched for. No default.
    pub ask: Ask,
    /// Hits wanted, 1 to `limits.k_max`. No default. The answer has fewer only if fewer documents (or passages) can be
    /// answered, or reach the threshold.
    pub k: usize,
    /// Only documents that match are answered. Default: all.
    pub filter: Option<Filter>,
    /// Candidates that a graph keeps while it is walked, 1 to 4096; raised to `k` where it is smaller. More find better
    /// and take longer. Default: the collection's `ef_search`.
    pub ef: Option<usize>,
    /// Every vector is compared, and no graph is used. Default: false.
    pub exact: bool,
    /// Hits with a smaller score are left out; any finite number, in the unit of the collection's
    /// [`crate::vector::Metric::score`]. Default: none are.
    pub score_threshold: Option<f32>,
    /// One hit for each passage instead of one for each document. Default: false.
    pub by_passage: bool,
    /// Hits carry the payload of their document. Default: true.
    pub with_payload: bool,
    /// Hits carry the text of their passage. Default: true.
    pub with_text: bool,
}

impl SearchQuery {
    /// The `k` best documents with payload and passage text, and nothing special.
    pub fn new(ask: Ask, k: usize) -> Self {
        SearchQuery {
            ask,
            k,
            filter: None,
            ef: None,
            exact: false,
            score_threshold: None,
            by_passage: false,
            with_payload: true,
            with_text: true,
        }
    }
}

impl Ask {
    /// The text that is searched for, if it is a text.
    pub fn text(&self) -> Option<&str> {
        if let Ask::Text(text) = self { Some(text) } else { None }
    }
}

/// Runs the stages. `encoded` is the vector of the query's text, if it is a text and was encoded.
pub(super) fn run(
    shared: &Shared,
    query: &SearchQuery,
    encoded: Option<&[f32]>,
    stop: &Stop,
    reads: &Reads,
) -> Result<(Vec<Hit>, SearchTrace), CollectionError> {
    let mut trace = SearchTrace::default();
    let watch = Watch::start(Stage::Plan);
    let plan = Plan::make(shared, query, encoded, stop, &mut trace)?;
    watch.end(&mut trace, plan.reachable);

    let watch = Watch::start(Stage::Retrieve);
    let retrievers = retrieve::retrievers(shared, &plan);
    let lists = retrieve::retrieve(&plan, &retrievers, &mut trace)?;
    drop(retrievers);
    watch.end(&mut trace, lists.iter().map(Vec::len).sum());

    let watch = Watch::start(Stage::Fuse);
    let candidates = fuse::fuse(lists, plan.unit(), stop)?;
    watch.end(&mut trace, candidates.len());

    let watch = Watch::start(Stage::Rerank);
    let candidates = rerank::rerank(candidates, stop)?;
    watch.end(&mut trace, candidates.len());

    let watch = Watch::start(Stage::Group);
    let candidates = group::group(candidates, &plan)?;
    watch.end(&mut trace, candidates.len());

    // The snapshot has the documents found, even if they are deleted now.
    let memory = plan.into_memory();
    let watch = Watch::start(Stage::Fetch);
    let hits = fetch::fetch(shared, query, (candidates, &memory.documents), stop, reads)?;
    watch.end(&mut trace, hits.len());
    Ok((hits, trace))
}
