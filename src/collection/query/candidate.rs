//! A candidate goes from stage to stage: a passage that may be answered, its score, and the retrievers that found it.

use std::{cmp::Ordering, collections::HashSet};

use crate::value::PointId;

/// A retriever that found a candidate, and the candidate's place in its list.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Name of the retriever, such as `dense`.
    pub retriever: &'static str,
    /// Place in its list, from 1.
    pub rank: usize,
    /// Score in its list, in that retriever's own unit; larger is better.
    pub score: f32,
}

/// A passage that may be answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    /// Number of its document in the store.
    pub(super) doc: u64,
    pub(super) id: PointId,
    /// Which passage of the document.
    pub(super) ordinal: u32,
    /// Larger is better; the unit is that of the stage that gave it last.
    pub(super) score: f32,
    /// Every list that it was in; empty until the stage `retrieve` has ended.
    pub(super) sources: Vec<Source>,
}

/// What is answered at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Document,
    Passage,
}

impl Unit {
    /// Candidates of one key are one unit.
    pub(super) fn key(self, candidate: &Candidate) -> (u64, u32) {
        (candidate.doc, if self == Unit::Passage { candidate.ordinal } else { 0 })
    }

    /// In the order of answers, the best candidate of each unit.
    pub(super) fn best(self, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
        candidates.sort_unstable_by(Candidate::rank);
        let mut seen = HashSet::with_capacity(candidates.len());
        candidates.retain(|candidate| seen.insert(self.key(candidate)));
        candidates
    }
}

impl Candidate {
    /// The order of answers: larger scores first, then ids, then passages.
    pub(super) fn rank(&self, other: &Self) -> Ordering {
        let by_score = other.score.total_cmp(&self.score);
        by_score.then_with(|| self.id.cmp(&other.id)).then_with(|| self.ordinal.cmp(&other.ordinal))
    }
}
