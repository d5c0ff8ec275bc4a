//! Documents deleted: by id, or all that match a filter.

use std::collections::HashSet;

use super::{Caller, Engine, Target, error::Result, payload::ATTEMPTS};
use crate::{
    collection::{CollectionError, Condition, Outcome, Write, Written},
    value::{PointId, filter::Filter},
};

/// Ids deleted in one step of a deletion by filter.
const DELETE_IDS_STEP: usize = 1024;

impl Engine {
    /// Deletes documents by id and answers how many of them existed. All are deleted or none: one that has not the
    /// version that its target expects, or that is not there though a version is expected, refuses the call.
    ///
    /// # Errors
    /// As [`Engine::get`]; those of [`crate::collection::Condition::check`].
    pub async fn delete(&self, collection: &str, targets: Vec<Target>, caller: Caller) -> Result<u64> {
        self.check_open()?;
        let mut targets = self.targets(&targets)?;
        // One id twice is one deletion.
        targets.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        targets.dedup();
        let deletions =
            targets.into_iter().map(|(id, condition)| Write::DeleteIf { id, condition }).collect();
        let backend = self.find(collection)?;
        Ok(deleted_of(&backend.write(deletions, caller.durability).await?))
    }

    /// Deletes the documents that match when the call begins, and answers how many they were. One that matches no more
    /// when its turn comes stays. It works in steps, so after a failure a part may be deleted.
    ///
    /// # Errors
    /// [`super::EngineError::NoCollection`]; filter and store errors; `CollectionError::Changed` for a document that
    /// others kept changing.
    pub async fn delete_matching(&self, collection: &str, filter: Filter, caller: Caller) -> Result<u64> {
        let backend = self.find(collection)?;
        let mut left = backend.ids(filter.clone()).await?;
        let mut deleted = 0;
        for _ in 0..ATTEMPTS {
            if left.is_empty() {
                return Ok(deleted);
            }
            // In this order: a document that has the version still, when it is deleted, is the one that matched.
            let revisions = backend.revisions(left.clone()).await?;
            let matching: HashSet<PointId> = backend.ids(filter.clone()).await?.into_iter().collect();
            let found = left.into_iter().zip(revisions).filter(|(id, _)| matching.contains(id));
            let found: Vec<(PointId, u64)> =
                found.filter_map(|(id, revision)| Some((id, revision?.version))).collect();
            left = Vec::new();
            for some in found.chunks(DELETE_IDS_STEP) {
                let deletions = some.iter().map(|(id, version)| Write::DeleteIf {
                    id: id.clone(),
                    condition: Condition::Version(*version),
                });
                let written = backend.write_each(deletions.collect(), caller.durability).await?;
                deleted += deleted_of(&written);
                let refused = some.iter().zip(&written).filter(|(_, w)| w.outcome == Outcome::Refused);
                left.extend(refused.map(|((id, _), _)| id.clone()));
            }
        }
        match left.first() {
            Some(id) => Err(CollectionError::Changed { id: id.as_str().to_owned() }.into()),
            None => Ok(deleted),
        }
    }
}

fn deleted_of(written: &[Written]) -> u64 {
    written.iter().filter(|written| written.outcome == Outcome::Deleted).count() as u64
}
