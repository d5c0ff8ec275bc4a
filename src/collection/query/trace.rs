//! The stages report about a search: how long each took, how many candidates it passed on, and how retrievers searched.

use std::time::{Duration, Instant};

/// A stage of a search, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The snapshot, the filter, the vectors to compare with.
    Plan,
    /// Every retriever's candidates.
    Retrieve,
    /// One list of all.
    Fuse,
    /// A second look at the best.
    Rerank,
    /// Each document or passage once, in the order of answers.
    Group,
    /// What is answered, read from the store.
    Fetch,
}

/// The report of one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageTrace {
    /// Which stage.
    pub stage: Stage,
    /// How long it took.
    pub time: Duration,
    /// Candidates that it gave to the next stage; of the plan, what could be answered; of the last one, the hits.
    pub candidates: usize,
}

/// The report of one retriever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retrieval {
    /// Its name, as in [`super::Source::retriever`].
    pub retriever: &'static str,
    /// How long it took.
    pub time: Duration,
    /// Candidates that it found.
    pub candidates: usize,
    /// Which of its ways it took; `dense`: `exact`, `graph`, `filtered_exact` or `filtered_graph`.
    pub plan: &'static str,
    /// Why it took that way, as a sentence.
    pub reason: String,
    /// Vectors compared one by one.
    pub scanned: u64,
    /// Candidates that the graph kept; 0 where none was walked.
    pub ef: u32,
}

/// The report of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchTrace {
    /// Every stage that ended, in order.
    pub stages: Vec<StageTrace>,
    /// Every retriever that looked; the first one's way is the plan of the search.
    pub retrievals: Vec<Retrieval>,
    /// The part of the plan that evaluating the filter took; zero where there is none.
    pub filter_time: Duration,
    /// Documents that pass the filter; all where there is none.
    pub matching_documents: u64,
    /// What should be said of the filter besides the hits; see [`crate::index::columns::FieldIndex::hints`].
    pub hints: Vec<String>,
}

impl SearchTrace {
    /// How long finding took: everything but the filter and the fetching.
    pub fn search_time(&self) -> Duration {
        let found = self.stages.iter().filter(|stage| stage.stage != Stage::Fetch);
        found.map(|stage| stage.time).sum::<Duration>().saturating_sub(self.filter_time)
    }

    /// How long it took to read what is answered.
    pub fn fetch_time(&self) -> Duration {
        self.stages.iter().filter(|stage| stage.stage == Stage::Fetch).map(|stage| stage.time).sum()
    }

    /// The way that the first retriever took; empty where none looked.
    pub fn plan(&self) -> &'static str {
        self.retrievals.first().map_or("", |retrieval| retrieval.plan)
    }
}

/// The clock of a stage that runs.
pub(super) struct Watch {
    stage: Stage,
    begun: Instant,
}

impl Watch {
    pub(super) fn start(stage: Stage) -> Self {
        Watch { stage, begun: Instant::now() }
    }

    /// Tells how it went.
    pub(super) fn end(self, trace: &mut SearchTrace, candidates: usize) {
        trace.stages.push(StageTrace { stage: self.stage, time: self.begun.elapsed(), candidates });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_that_are_told_add_up() {
        let stage = |stage, millis| StageTrace { stage, time: Duration::from_millis(millis), candidates: 1 };
        let trace = SearchTrace {
            stages: vec![stage(Stage::Plan, 5), stage(Stage::Retrieve, 7), stage(Stage::Fetch, 11)],
            retrievals: vec![Retrieval { plan: "graph", ..Retrieval::default() }],
            filter_time: Duration::from_millis(4),
            ..SearchTrace::default()
        };
        assert_eq!(trace.search_time(), Duration::from_millis(5 + 7 - 4));
        assert_eq!(trace.fetch_time(), Duration::from_millis(11));
        assert_eq!(trace.plan(), "graph");
        assert_eq!(SearchTrace::default().plan(), "");
    }
}
