//! The fifth stage chooses what is answered: each document (or passage) once, by its best passage.

use super::{candidate::Candidate, plan::Plan};
use crate::stop::Stopped;

/// In the order of answers, as many as are wanted, and none whose score is below the query's threshold.
///
/// # Errors
/// [`Stopped`].
pub(super) fn group(candidates: Vec<Candidate>, plan: &Plan<'_>) -> Result<Vec<Candidate>, Stopped> {
    plan.stop.check()?;
    let mut candidates = plan.unit().best(candidates);
    candidates.truncate(plan.wanted);
    if let Some(threshold) = plan.query.score_threshold {
        candidates.retain(|candidate| candidate.score >= threshold);
    }
    Ok(candidates)
}
