//! The thread budget of the process: which threads there are, how many, and how work gets to them.
//!
//! | threads | work | how many | priority |
//! |---|---|---|---|
//! | `search` | searches: compare, filter, group, fetch | one a core | normal |
//! | `tokenize` | whatever costs time for each byte of text: cutting, hashing, tokenizing | one a core | normal |
//! | `work` | reading the store, handing over writes, counting | one a core | normal |
//! | `writer` | turns of the collections' writers | `WRITERS` | normal |
//! | `indexer` | turns of the collections' indexers | `INDEXERS` | background |
//! | `index-build` | inserting into graphs, for an indexer that waits | one a core | background |
//! | `log` | turns of the committer of the data folder's log | `COMMITTERS` | normal |
//! | `keeper` | turns of the collections' keepers: sealing what grew, letting the log be cut | `KEEPERS` | soon |
//! | `merger` | turns of the collections' mergers: few segments of many | `MERGERS` | background |
//! | `training` | a training job: reading, guarding, drawing masks, updating weights | one a core, while the job is there | background |
//!
//! Besides these there are, each for a reason of its own: the lanes of the encoders (`encoder/scheduler`, two for each
//! loaded model) with ONNX Runtime's threads; one that unloads idle models; one that looks at the disk, since that may
//! hang; and a thread of sled, which keeps the catalogue.
//!
//! Search, tokenizing and other work have pools of their own, so that a flood of one never takes the threads of the
//! others. No collection owns a thread: collections take turns in a `crew`. ONNX Runtime has its own threads, which
//! the encoder's lanes own (`encoder`), the lane of bulk work in the background. The async runtime only waits; what
//! may wait long for the disk (opening, making and closing collections) takes threads that the runtime makes for that, and
//! so does freeing what is large (`large`).
//!
//! Only this module makes pools, and no task waits for another task of its own pool: a worker of `rayon` that waits
//! runs other tasks of its pool on the same stack. Where a task of `search` or `tokenize` is worth several threads, the
//! idle ones of its pool help it (`share`, and the scan of the exact index), and it waits for what they have begun alone.
//! Parallel iterators are for work that has a pool to itself: building graphs, drawing weights, training and measuring.

use std::{sync::Arc, time::Instant};

use crate::{
    error::{ErrorKind, Fault},
    stop::Stop,
};

pub(crate) mod crew;
pub(crate) mod large;
pub(crate) mod pool;
pub(crate) mod priority;
pub(crate) mod share;

use crew::Crew;
use pool::Pool;

/// Threads that write. They mostly wait for the disk, so there are more than one even on few cores, and a collection
/// whose folder is slow does not hold up all others.
pub(crate) const WRITERS: usize = 4;

/// Threads that write logs. A data folder has one log, and a log one committer.
pub(crate) const COMMITTERS: usize = 1;

/// Threads that seal what grew. Writes are refused once too much waits to be sealed, so they have no other work.
pub(crate) const KEEPERS: usize = 1;

/// Threads that merge segments.
pub(crate) const MERGERS: usize = 1;

/// Threads that bring graphs level. Each hands its vectors to the pool of builders.
pub(crate) const INDEXERS: usize = 2;

/// All pools and crews of a process. Shared by the engine and its collections, and ended with the last of them.
#[derive(Debug)]
pub struct Threads {
    pub(crate) search: Pool,
    pub(crate) tokenize: Pool,
    pub(crate) work: Pool,
    /// What runs here takes no lock but those of `hnsw_rs`; see [`crate::index::VectorIndex::insert_on`].
    pub(crate) build: Pool,
    pub(crate) writers: Crew,
    pub(crate) indexers: Crew,
    /// Its turns wait for the disk, and for no other turn of anybody.
    pub(crate) committers: Crew,
    pub(crate) keepers: Crew,
    pub(crate) mergers: Crew,
}

impl Threads {
    /// Shares out `cores` cores (0: as many as this process may use) as the table above says.
    ///
    /// # Errors
    /// [`ThreadsError::None`] if the system has no thread to give.
    pub fn new(cores: usize) -> Result<Arc<Self>, ThreadsError> {
        let cores = if cores == 0 { self::cores() } else { cores };
        Ok(Arc::new(Threads {
            search: Pool::new("search", cores, 0)?,
            tokenize: Pool::new("tokenize", cores, 0)?,
            work: Pool::new("work", cores, 0)?,
            build: Pool::new("index-build", cores, priority::BACKGROUND)?,
            writers: Crew::new("writer", WRITERS, 0)?,
            indexers: Crew::new("indexer", INDEXERS, priority::BACKGROUND)?,
            committers: Crew::new("log", COMMITTERS, 0)?,
            keepers: Crew::new("keeper", KEEPERS, priority::SOON)?,
            mergers: Crew::new("merger", MERGERS, priority::BACKGROUND)?,
        }))
    }

    /// Runs a search; see [`Pool::run_until`].
    pub(crate) async fn search<T: Send + 'static>(
        &self,
        deadline: Option<Instant>,
        f: impl FnOnce(Stop) -> T + Send + 'static,
    ) -> Result<T, ThreadsError> {
        self.search.run_until(deadline, f).await
    }

    /// Cuts, hashes or tokenizes texts; see [`Pool::run`].
    pub(crate) async fn tokenize<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ThreadsError> {
        self.tokenize.run(f).await
    }

    /// Runs anything else that computes or touches the disk; see [`Pool::run`].
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ThreadsError> {
        self.work.run(f).await
    }

    /// [`Threads::work`] that can be left off; see [`Pool::run_until`].
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(Stop) -> T + Send + 'static,
    ) -> Result<T, ThreadsError> {
        self.work.run_until(None, f).await
    }

    /// The pools by the names that a health report uses.
    pub(crate) fn pools(&self) -> [(&'static str, &Pool); 4] {
        [
            ("the search pool", &self.search),
            ("the tokenizing pool", &self.tokenize),
            ("the work pool", &self.work),
            ("the building pool", &self.build),
        ]
    }
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The pool of one training job, which ends with the job.
///
/// # Errors
/// [`ThreadsError::None`].
pub(crate) fn training() -> Result<Pool, ThreadsError> {
    Pool::new("training", cores(), priority::BACKGROUND)
}

/// Starts a thread of its own for something that may hang, so that nothing else hangs with it.
///
/// # Errors
/// [`ThreadsError::None`].
pub(crate) fn start_thread(name: &str, f: impl FnOnce() + Send + 'static) -> Result<(), ThreadsError> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(f);
    started.map(drop).map_err(|e| ThreadsError::None { reason: e.to_string() })
}

/// Why work was not done on the threads that it was meant for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ThreadsError {
    #[error("the system has no thread to give: {reason}")]
    None { reason: String },
    #[error("a worker panicked: {reason}")]
    Panicked { reason: String },
    #[error("the server is shutting down")]
    Ended,
}

impl Fault for ThreadsError {
    fn kind(&self) -> ErrorKind {
        match self {
            ThreadsError::None { .. } | ThreadsError::Panicked { .. } => ErrorKind::Internal,
            ThreadsError::Ended => ErrorKind::Unavailable,
        }
    }
}
