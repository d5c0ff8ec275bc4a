//! The second stage asks every retriever of the plan for a list of candidates.
//!
//! A retriever looks in its own way (by vectors; by words) and knows nothing of the others. Another one is another
//! implementation of [`Retriever`] and a line in [`retrievers`]; no other stage changes.

use std::time::Instant;

use super::{Retrieval, SearchTrace, Source, candidate::Candidate, fuse, plan::Plan};
use crate::collection::{CollectionError, Shared};

mod dense;

/// Finds candidates in one way.
pub(super) trait Retriever {
    /// What its candidates say of where they came from.
    fn name(&self) -> &'static str;

    /// The best `depth` documents (or passages, where the plan asks for those), each at most once and by its best
    /// passage, in the order of answers: what a candidate that is missing ties with is decided by that order, too.
    /// Fewer only if no more are allowed, or no more have anything to do with the query. Names, times, counts and
    /// sources are filled in by the stage.
    ///
    /// # Errors
    /// [`CollectionError::Stopped`], looked at between bounded steps.
    fn retrieve(&self, plan: &Plan<'_>, depth: usize)
    -> Result<(Vec<Candidate>, Retrieval), CollectionError>;
}

/// Those that can do something for a query.
pub(super) fn retrievers<'a>(shared: &'a Shared, plan: &Plan<'_>) -> Vec<Box<dyn Retriever + 'a>> {
    let mut all: Vec<Box<dyn Retriever>> = Vec::new();
    if !plan.vectors.is_empty() {
        all.push(Box::new(dense::Dense::new(shared)));
    }
    all
}

/// Asks them all, and notes on every candidate who found it, and on which place.
///
/// # Errors
/// [`CollectionError::NotEncoded`] where there is no retriever; theirs.
pub(super) fn retrieve(
    plan: &Plan<'_>,
    retrievers: &[Box<dyn Retriever + '_>],
    trace: &mut SearchTrace,
) -> Result<Vec<Vec<Candidate>>, CollectionError> {
    if retrievers.is_empty() {
        return Err(CollectionError::NotEncoded);
    }
    let depth = fuse::depth(retrievers.len(), plan);
    let mut lists = Vec::with_capacity(retrievers.len());
    for retriever in retrievers {
        plan.stop.check()?;
        let begun = Instant::now();
        let (mut candidates, retrieval) = retriever.retrieve(plan, depth)?;
        let name = retriever.name();
        for (rank, candidate) in (1..).zip(&mut candidates) {
            candidate.sources = vec![Source { retriever: name, rank, score: candidate.score }];
        }
        trace.retrievals.push(Retrieval {
            retriever: name,
            time: begun.elapsed(),
            candidates: candidates.len(),
            ..retrieval
        });
        lists.push(candidates);
    }
    Ok(lists)
}
