//! Documents deleted: by id, or all that match a filter.

use super::{Engine, Target, backend::Backend, error::Result};
use crate::{
    collection::{Outcome, Write},
    value::filter::Filter,
};

/// Ids deleted in one atomic step of a deletion by filter.
const DELETE_IDS_STEP: usize = 1024;

impl Engine {
    /// Deletes documents by id and answers how many of them existed. All are deleted or none: one that has not the
    /// version that its target expects, or that is not there though a version is expected, refuses the call.
    ///
    /// # Errors
    /// As [`Engine::get`]; those of [`crate::collection::Condition::check`].
    pub async fn delete(&self, collection: &str, targets: Vec<Target>) -> Result<u64> {
        self.check_open()?;
        let mut targets = self.targets(&targets)?;
        // One id twice is one deletion.
        targets.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        targets.dedup();
        let deletions =
            targets.into_iter().map(|(id, condition)| Write::DeleteIf { id, condition }).collect();
        delete(&*self.find(collection)?, deletions).await
    }

    /// Deletes the documents that match and answers how many they were. It works in steps, so after a failure a part
    /// may be deleted.
    ///
    /// # Errors
    /// [`super::EngineError::NoCollection`]; filter and store errors.
    pub async fn delete_matching(&self, collection: &str, filter: Filter) -> Result<u64> {
        let backend = self.find(collection)?;
        let ids = backend.ids(filter).await?;
        let mut deleted = 0;
        for some in ids.chunks(DELETE_IDS_STEP) {
            deleted += delete(&*backend, some.iter().cloned().map(Write::Delete).collect()).await?;
        }
        Ok(deleted)
    }
}

async fn delete(backend: &dyn Backend, deletions: Vec<Write>) -> Result<u64> {
    let written = backend.write(deletions).await?;
    Ok(written.iter().filter(|written| written.outcome == Outcome::Deleted).count() as u64)
}
