//! A writing call that is done once, however often it is sent: what the writer remembers of it, and what whoever sends
//! it again is told.
//!
//! The writer decides it at the moment of the write, so it holds also where the same call comes twice at the same time;
//! whoever asks before that saves itself work and decides nothing.

use std::sync::Arc;

use super::{Collection, CollectionError, Outcome, Shared, Written};
use crate::{
    segmented::Request,
    store::record::{decode, encode},
    value::datetime,
};

/// Version of what is kept of a call's outcome.
const VERSION: u8 = 1;

/// What is kept of a call's outcome: version, note, and of each write what became of it and the version that is stored.
type Kept = (u8, Vec<u8>, Vec<(u8, Option<u64>)>);

/// What makes a call one that is done once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// As its caller gave it: 1 to 64 bytes. A collection knows each id once.
    pub id: String,
    /// Steps of it that were done before this one; 0 for a call that is done in one step. A later step takes the place of
    /// those before in what is remembered.
    pub step: u32,
    /// Of everything that was asked: the same id with another hash is refused.
    pub hash: [u8; 16],
    /// What the caller wants to find again besides what became of the writes; it costs its length in memory.
    pub note: Vec<u8>,
}

/// What a call did that was done before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoneBefore {
    /// The last step of it that was done.
    pub step: u32,
    /// As [`Once::note`] was.
    pub note: Vec<u8>,
    /// What became of the writes of that step.
    pub written: Vec<Written>,
}

impl Once {
    /// What is remembered of a step that was done.
    pub(super) fn request(self, written: &[Written], at: i64) -> Request {
        let Once { id, step, hash, note } = self;
        let written: Vec<(u8, Option<u64>)> =
            written.iter().map(|written| (number_of(written.outcome), written.version)).collect();
        Request { id, step, hash, at, outcome: encode(&(VERSION, note, written)) }
    }
}

impl Collection {
    /// What a call did that was done before, whichever step of it was the last; `None` if it was not, or is not
    /// remembered any more.
    ///
    /// # Errors
    /// [`CollectionError::OtherRequest`] if the id was used for another call.
    pub fn done_before(&self, id: &str, hash: [u8; 16]) -> Result<Option<Arc<DoneBefore>>, CollectionError> {
        self.shared.done_before(id, hash)
    }
}

impl Shared {
    pub(super) fn done_before(
        &self,
        id: &str,
        hash: [u8; 16],
    ) -> Result<Option<Arc<DoneBefore>>, CollectionError> {
        let Some(request) = self.store.done(id, datetime::now()) else { return Ok(None) };
        if request.hash != hash {
            return Err(CollectionError::OtherRequest { id: id.to_owned() });
        }
        let (version, note, written): Kept =
            decode(&request.outcome, self.store.dir(), "what came of a call")?;
        if version != VERSION {
            return Err(CollectionError::ForgottenRequest { id: id.to_owned() });
        }
        let written = written.into_iter().map(|(outcome, version)| {
            let outcome = outcome_of(outcome);
            outcome.map(|outcome| Written { outcome, version })
        });
        let written: Option<Vec<Written>> = written.collect();
        let written = written.ok_or_else(|| CollectionError::ForgottenRequest { id: id.to_owned() })?;
        Ok(Some(Arc::new(DoneBefore { step: request.step, note, written })))
    }
}

/// On disk, so they stay.
const NUMBERS: [(Outcome, u8); 6] = [
    (Outcome::Inserted, 1),
    (Outcome::Updated, 2),
    (Outcome::Unchanged, 3),
    (Outcome::Deleted, 4),
    (Outcome::NotFound, 5),
    (Outcome::Refused, 6),
];

fn number_of(outcome: Outcome) -> u8 {
    NUMBERS.iter().find(|(one, _)| *one == outcome).map_or(0, |(_, number)| *number)
}

fn outcome_of(number: u8) -> Option<Outcome> {
    NUMBERS.iter().find(|(_, one)| *one == number).map(|(outcome, _)| *outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_number_of_its_own() {
        for (outcome, number) in NUMBERS {
            assert_eq!((number_of(outcome), outcome_of(number)), (number, Some(outcome)));
        }
        assert_eq!((outcome_of(0), outcome_of(7)), (None, None));
    }
}
