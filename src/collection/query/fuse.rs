//! The third stage merges the lists of several retrievers into one.
//!
//! Scores of different retrievers have different units (a cosine, a BM25 score), so lists are fused by ranks:
//! reciprocal rank fusion, Cormack, Clarke & Büttcher 2009 (SIGIR), equation 1. One list stays as it is, scores included.

use std::collections::HashMap;

use super::{
    candidate::{Candidate, Unit},
    plan::Plan,
};
use crate::stop::{Stop, Stopped};

/// `k` of the paper: how much the first places are held down.
const RANK_OFFSET: f32 = 60.0;

/// How many candidates are taken from each of several lists, at least, whatever the query's `k`: a document's place in
/// the answer must not depend on how many are answered.
const DEPTH: usize = 200;

/// How many candidates every one of `lists` retrievers is asked for.
pub(super) fn depth(lists: usize, plan: &Plan<'_>) -> usize {
    if lists == 1 { plan.wanted } else { plan.wanted.max(DEPTH).min(plan.reachable) }
}

/// One list of all, in the order of answers.
///
/// With one list: that list. With several, `score(d) = sum over lists of 1 / (60 + rank(d))`, ranks from 1; a list that
/// lacks a candidate adds nothing. Lists are joined by `unit`: where two found different passages of one document, the
/// passage stays that was placed better, and of equal places the one of the earlier list.
///
/// # Errors
/// [`Stopped`].
pub(super) fn fuse(
    mut lists: Vec<Vec<Candidate>>,
    unit: Unit,
    stop: &Stop,
) -> Result<Vec<Candidate>, Stopped> {
    stop.check()?;
    if lists.len() < 2 {
        return Ok(lists.pop().unwrap_or_default());
    }
    let mut fused: HashMap<(u64, u32), (usize, Candidate)> = HashMap::new();
    for list in lists {
        stop.check()?;
        for (rank, candidate) in (1..).zip(list) {
            let share = 1.0 / (RANK_OFFSET + rank as f32);
            let key = unit.key(&candidate);
            let merged = match fused.remove(&key) {
                None => (rank, Candidate { score: share, ..candidate }),
                Some((best, mut known)) => {
                    let score = known.score + share;
                    known.sources.extend(candidate.sources.iter().cloned());
                    let sources = std::mem::take(&mut known.sources);
                    let (best, kept) = if rank < best { (rank, candidate) } else { (best, known) };
                    (best, Candidate { score, sources, ..kept })
                }
            };
            fused.insert(key, merged);
        }
    }
    let mut fused: Vec<Candidate> = fused.into_values().map(|(_, candidate)| candidate).collect();
    fused.sort_unstable_by(Candidate::rank);
    Ok(fused)
}
