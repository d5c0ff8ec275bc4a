//! Documents deleted: by id, or all that match a filter.

use super::{Engine, backend::Backend, error::Result};
use crate::{
    collection::{Outcome, Write},
    value::{PointId, filter::Filter},
};

/// Ids deleted in one atomic step of a deletion by filter.
const DELETE_IDS_STEP: usize = 1024;

impl Engine {
    /// Deletes documents by id and answers how many of them existed.
    ///
    /// # Errors
    /// As [`Engine::get`].
    pub async fn delete(&self, collection: &str, ids: Vec<String>) -> Result<u64> {
        self.check_open()?;
        let ids = self.ids(&ids)?;
        delete_ids(&*self.find(collection)?, ids).await
    }

    /// Deletes the documents that match and answers how many they were. It works in steps, so after a failure a part
    /// may be deleted.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`]; filter and store errors.
    pub async fn delete_matching(&self, collection: &str, filter: Filter) -> Result<u64> {
        let backend = self.find(collection)?;
        let ids = backend.ids(filter).await?;
        let mut deleted = 0;
        for some in ids.chunks(DELETE_IDS_STEP) {
            deleted += delete_ids(&*backend, some.to_vec()).await?;
        }
        Ok(deleted)
    }
}

async fn delete_ids(backend: &dyn Backend, mut ids: Vec<PointId>) -> Result<u64> {
    // One id twice is one deletion.
    ids.sort_unstable();
    ids.dedup();
    let outcomes = backend.write(ids.into_iter().map(Write::Delete).collect()).await?;
    Ok(outcomes.iter().filter(|o| **o == Outcome::Deleted).count() as u64)
}
