//! The threads that all collections of a process share: no collection has one of its own.

use std::sync::Arc;

use super::CollectionError;
use crate::{priority, threads::Crew};

/// Threads that write. They mostly wait for the disk, so there are more than one even on few cores, and a collection
/// whose folder is slow does not hold up all others.
const WRITERS: usize = 4;

/// Threads that bring graphs level. Each hands its vectors to the pool of builders.
const INDEXERS: usize = 2;

/// Shared by the collections of one process, and ended with the last of them.
#[derive(Debug)]
pub struct Threads {
    writers: Crew,
    indexers: Crew,
    build: rayon::ThreadPool,
}

impl Threads {
    /// `build_threads`: threads of index building, at least 1.
    ///
    /// # Errors
    /// [`CollectionError::Threads`] if the system has none to give.
    pub fn new(build_threads: usize) -> Result<Arc<Self>, CollectionError> {
        let failed = |e: std::io::Error| CollectionError::Threads { reason: e.to_string() };
        let build = rayon::ThreadPoolBuilder::new()
            .num_threads(build_threads.max(1))
            .thread_name(|n| format!("index-build-{n}"))
            .start_handler(|_| priority::stand_back(priority::BACKGROUND))
            .build()
            .map_err(|e| failed(std::io::Error::other(e)))?;
        Ok(Arc::new(Threads {
            writers: Crew::new("writer", WRITERS, 0).map_err(failed)?,
            indexers: Crew::new("indexer", INDEXERS, priority::BACKGROUND).map_err(failed)?,
            build,
        }))
    }

    pub(super) fn writers(&self) -> &Crew {
        &self.writers
    }

    pub(super) fn indexers(&self) -> &Crew {
        &self.indexers
    }

    /// What runs here takes no lock but those of `hnsw_rs`; see [`crate::index::VectorIndex::insert_on`].
    pub(super) fn build(&self) -> &rayon::ThreadPool {
        &self.build
    }
}
