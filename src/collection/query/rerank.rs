//! Fourth stage: the place for a slower and better judge of the best candidates, such as a cross-encoder.
//!
//! There is none yet: candidates pass as they are, scores and order included. One that comes gives candidates new
//! scores and keeps their sources; it need not sort them, since the next stage does.

use super::candidate::Candidate;
use crate::stop::{Stop, Stopped};

/// Candidates with the scores that they are answered with.
///
/// # Errors
/// [`Stopped`].
pub(super) fn rerank(candidates: Vec<Candidate>, stop: &Stop) -> Result<Vec<Candidate>, Stopped> {
    stop.check()?;
    Ok(candidates)
}
