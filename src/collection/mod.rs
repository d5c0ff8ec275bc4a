//! Points of one dimension and metric: store and index kept in step.
//!
//! This file makes, opens and closes a collection, and has what its parts share. Changes come in by `admit.rs` and
//! `writer.rs`, points go out by `read.rs`, hits by `query/`; `indexer.rs` builds the graph, `keeper.rs` keeps segments
//! and log small, `backup.rs` makes copies, `stats.rs` counts.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::{
    error::{ErrorKind, Fault as _, with_sources},
    index::IndexParams,
    segmented::{Head, Options, Snapshot, Store},
    store::StoreError,
    threads::{
        Threads,
        crew::{Next, Seat},
    },
    value::PointId,
    vector::{Dim, Metric},
};

mod admit;
mod backup;
mod condition;
mod document;
mod earlier;
mod error;
mod fresh;
mod indexer;
mod keeper;
mod memory;
mod once;
mod places;
mod query;
mod read;
mod recover;
mod rows;
mod slots;
mod stats;
#[cfg(test)]
mod tests;
mod trouble;
mod writer;

pub mod point;

pub(crate) use crate::segmented::{Orphan, backup::BackedUp};
pub use crate::{
    segmented::{Durability, FolderLog, StoreSizes},
    store::Identity,
};
pub use admit::{Outcome, Write, WriteDone, WriteOptions, Written};
pub(crate) use backup::CopyPlace;
pub use condition::Condition;
pub use document::PAGE_BYTES;
pub use error::CollectionError;
pub use once::{DoneBefore, Once};
pub use query::{Ask, Reads, Retrieval, SearchQuery, SearchTrace, Source, Stage, StageTrace};
pub use stats::CollectionStats;

use point::StoredPoint;

/// How a collection was made; fixed for its life. Chunking and model belong to the engine and are only kept here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CollectionSpec {
    /// Values of one vector.
    pub dim: Dim,
    /// How nearness is measured.
    pub metric: Metric,
    /// Parameters of the index.
    pub index: IndexParams,
    /// Fingerprint of the model whose vectors they are; empty where vectors come from outside.
    pub fingerprint: String,
}

/// What is known of a collection before it is opened, from the description that is kept in its folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// How it was made.
    pub spec: CollectionSpec,
    /// Which one it is; see [`Collection::identity`]. `None`: an earlier version described it, and whatever lies in the
    /// folder is taken for it.
    pub identity: Option<Identity>,
}

/// One page of a scroll, ordered by id.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The points, by id.
    pub points: Vec<StoredPoint>,
    /// Last id of the page if there may be more points.
    pub next: Option<PointId>,
    /// Remarks on the filter, with the first page; see [`crate::index::columns::FieldIndex::hints`].
    pub hints: Vec<String>,
}

/// Points of one dimension and metric, durable and searchable. It is cheap to share (`Arc`) and safe to use from any
/// thread.
///
/// ```
/// use distilface::budget::Room;
/// use distilface::collection::point::{ContentHash, Passage, Point};
/// use distilface::collection::{Ask, Collection, CollectionOptions, CollectionSpec};
/// use distilface::collection::{FolderLog, Reads, SearchQuery, StoreSizes, Write};
/// use distilface::index::IndexParams;
/// use distilface::stop::Stop;
/// use distilface::threads::Threads;
/// use distilface::value::{Payload, PointId};
/// use distilface::vector::{Dim, Metric, Vector};
///
/// let (dim, metric) = (Dim::new(2).unwrap(), Metric::Cosine);
/// let dir = tempfile::tempdir().unwrap();
/// let threads = Threads::new(1).unwrap();
/// let log = FolderLog::of(dir.path(), &threads, StoreSizes::default()).unwrap();
/// let (index, fingerprint) = (IndexParams::default(), String::new());
/// let spec = CollectionSpec { dim, metric, index, fingerprint };
/// let place = dir.path().join("collections/places");
/// let collection = Collection::create(&place, spec, CollectionOptions { log, threads }).unwrap();
/// let point = Point {
///     id: PointId::new("north").unwrap(),
///     title: "North".into(),
///     text: String::new(),
///     payload: Payload::new(),
///     content_hash: ContentHash([1; 16]),
///     passages: vec![Passage { range: 0..0, vector: Vector::new(vec![0.0, 1.0], dim, metric).unwrap() }],
/// };
/// collection.write(vec![Write::Upsert(Box::new(point))]).unwrap();
///
/// let query = SearchQuery::new(Ask::Vector(vec![0.1, 0.9]), 1);
/// let reads = Reads::new(Room::unbounded());
/// let (hits, _trace) = collection.search(&query, None, &Stop::at(None), &reads).unwrap();
/// assert_eq!(hits[0].id.as_str(), "north");
/// collection.close().unwrap();
/// ```
///
/// If it is dropped without [`Collection::close`], it ends as a kill ends it: acknowledged writes are durable.
#[derive(Debug)]
pub struct Collection {
    shared: Arc<Shared>,
    /// One closes, others wait for it.
    closing: Mutex<()>,
    /// They must outlive the last turn, which is waited for.
    _threads: Arc<Threads>,
    /// [`Collection::close`] has finished.
    is_closed: AtomicBool,
}

/// What the threads of a collection share.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    spec: CollectionSpec,
    store: Store,
    /// As it is now. Nobody waits to read it.
    memory: ArcSwap<memory::Memory>,
    /// Held by whoever changes it.
    changing: Mutex<()>,
    jobs: writer::Jobs,
    signal: indexer::Signal,
    /// The keeper looks again by itself whether what grew is to be sealed.
    keeper_waits: AtomicBool,
    /// The store has other segments than the snapshot in memory.
    is_stale: AtomicBool,
    /// Set once, at the start.
    seats: OnceLock<Seats>,
    read_only: OnceLock<String>,
    /// What a read found damaged first.
    damage: OnceLock<CollectionError>,
    /// Bytes of the calls that wait for the writer.
    queued: AtomicUsize,
    closed: AtomicBool,
    /// Slots and document numbers end here.
    numbers_max: u32,
}

/// What a collection works with.
struct Means<'a> {
    options: &'a CollectionOptions,
    /// How its segments are kept; a test makes them small.
    kept: Options,
    /// See [`Shared::numbers_max`]; a test lowers it.
    numbers_max: u32,
}

impl<'a> Means<'a> {
    fn real(options: &'a CollectionOptions) -> Self {
        Means {
            options,
            kept: Options::sealed_at(options.log.segment_bytes()),
            numbers_max: slots::NUMBERS_MAX,
        }
    }
}

/// Where it takes turns.
#[derive(Debug)]
struct Seats {
    writer: Seat,
    indexer: Seat,
    keeper: Seat,
    merger: Seat,
}

impl Seats {
    fn all(&self) -> [&Seat; 4] {
        [&self.writer, &self.indexer, &self.keeper, &self.merger]
    }
}

/// What an open collection uses of the process.
#[derive(Debug, Clone)]
pub struct CollectionOptions {
    /// The log of the data folder. The collection's folder is one of the folder `collections` in it. No default.
    pub log: Arc<FolderLog>,
    /// Threads that write and build, shared by all collections that are given them: those that the log was opened with.
    /// No default.
    pub threads: Arc<Threads>,
}

impl Collection {
    /// Makes a new collection in `dir`, which must not exist yet.
    ///
    /// # Errors
    /// Store and io errors; [`CollectionError::Index`] for parameters out of bounds.
    pub fn create(
        dir: &Path,
        spec: CollectionSpec,
        options: CollectionOptions,
    ) -> Result<Arc<Self>, CollectionError> {
        Self::create_with(dir, spec, Means::real(&options))
    }

    fn create_with(dir: &Path, spec: CollectionSpec, means: Means<'_>) -> Result<Arc<Self>, CollectionError> {
        Self::start(dir, recover::create(dir, spec, &means)?, means)
    }

    /// Opens a collection, bringing the index level with the store. Missing or damaged index files are rebuilt.
    /// Documents and vectors get their numbers in memory anew, so what was removed before takes none of them.
    ///
    /// # Errors
    /// [`CollectionError::Store`] if the store is damaged or locked, of another collection, or made otherwise than
    /// `made` says.
    pub fn open(dir: &Path, made: Made, options: CollectionOptions) -> Result<Arc<Self>, CollectionError> {
        Self::open_with(dir, made, Means::real(&options))
    }

    fn open_with(dir: &Path, made: Made, means: Means<'_>) -> Result<Arc<Self>, CollectionError> {
        Self::start(dir, recover::open(dir, made, &means)?, means)
    }

    fn start(
        dir: &Path,
        recovered: recover::Recovered,
        means: Means<'_>,
    ) -> Result<Arc<Self>, CollectionError> {
        let recover::Recovered { spec, store, memory } = recovered;
        let Means { options, numbers_max, .. } = means;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            spec,
            store,
            memory: ArcSwap::from_pointee(memory),
            changing: Mutex::default(),
            jobs: writer::Jobs::default(),
            signal: indexer::Signal::default(),
            keeper_waits: AtomicBool::new(false),
            is_stale: AtomicBool::new(false),
            seats: OnceLock::new(),
            read_only: OnceLock::new(),
            damage: OnceLock::new(),
            queued: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            numbers_max,
        });
        let threads = &options.threads;
        let mut writer = writer::Writer::new(Arc::clone(&shared));
        let mut indexer = indexer::Indexer::new(Arc::clone(&shared), Arc::clone(threads));
        let mut keeper = keeper::Keeper::new(Arc::clone(&shared));
        let mut merger = keeper::Merger::new(Arc::clone(&shared));
        let seats = Seats {
            writer: threads.writers.join(named(move || writer.turn())),
            indexer: threads.indexers.join(named(move || indexer.turn())),
            keeper: threads.keepers.join(named(move || keeper.turn())),
            merger: threads.mergers.join(named(move || merger.turn())),
        };
        shared.seats.set(seats).expect("they are set here only");
        // There may be much to seal, vectors that the graph lacks, and segments to merge.
        shared.wake_keeper();
        shared.wake_indexer();
        shared.wake_merger();
        Ok(Arc::new(Collection {
            shared,
            closing: Mutex::default(),
            _threads: Arc::clone(&options.threads),
            is_closed: AtomicBool::new(false),
        }))
    }

    /// How it was made.
    pub fn spec(&self) -> &CollectionSpec {
        &self.shared.spec
    }

    /// Drawn when it was made; another collection has another, though it have the same name.
    pub fn identity(&self) -> Identity {
        self.shared.store.identity()
    }

    /// Why it takes no writes until a restart, if so. For the health service.
    pub fn read_only(&self) -> Option<String> {
        self.shared.read_only()
    }

    /// What a read found damaged since it was opened, if anything: other reads may well go on. For the health service.
    pub fn damage(&self) -> Option<&CollectionError> {
        self.shared.damage.get()
    }

    /// Lets go of the oldest entries of the folder's log, if they are what keeps it large. Returns at once.
    pub fn let_go(&self) {
        self.shared.wake_keeper();
    }

    /// Whether [`Collection::close`] has come to its end.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Stops the writer after what is queued, syncs, saves the index files, and closes the store. Idempotent.
    ///
    /// # Errors
    /// Store errors; acknowledged writes are as durable as they asked for even then. A graph that cannot be saved is only
    /// told: it is built again.
    pub fn close(&self) -> Result<(), CollectionError> {
        let _closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.end_turns();
        if self.shared.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let view = self.shared.view();
        let sequence = self.shared.store.sequence();
        // Before the graph: one that knows more than is left after a loss of power is proof that the log is damaged.
        let synced = self.shared.store.sync();
        let is_savable = synced.is_ok() && self.shared.read_only().is_none();
        let saved = match &view.graph {
            Some(graph) if !graph.index.is_empty() && is_savable => indexer::save(
                &self.shared.dir,
                graph,
                &view.table,
                (self.identity(), sequence),
                &**self.shared.store.log().disk(),
            ),
            _ => Ok(()),
        };
        let closed = self.shared.store.close();
        self.is_closed.store(true, Ordering::SeqCst);
        if let Err(error) = saved {
            let error = with_sources(&error);
            tracing::warn!(dir = %self.shared.dir.display(), error, "the graph is not saved; the next start builds it again");
            indexer::discard_unfinished(&self.shared.dir);
        }
        Ok(synced.and(closed)?)
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        self.shared.end_turns();
    }
}

impl Shared {
    /// What readers read, as it is now.
    fn view(&self) -> Arc<memory::Memory> {
        self.memory.load_full()
    }

    /// Makes another memory of the one that there is, and puts it in its place.
    fn change<T>(&self, change: impl FnOnce(&mut memory::Memory) -> T) -> T {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = memory::Memory::clone(&self.memory.load());
        let value = change(&mut memory);
        let new = Arc::new(memory);
        let old = self.memory.swap(Arc::clone(&new));
        drop(changing);
        if old.is_larger_than(&new) {
            self.signal.retire(old);
            self.wake_indexer();
        }
        value
    }

    /// Takes a look at what a read answers, so that damage is told by whoever tells of the collection's health.
    fn seen<T>(&self, answer: Result<T, CollectionError>) -> Result<T, CollectionError> {
        if let Err(error) = &answer
            && error.kind() == ErrorKind::Corrupt
            && self.damage.set(error.clone()).is_ok()
        {
            tracing::error!(dir = %self.dir.display(), error = with_sources(error), "a read found damage");
        }
        answer
    }

    fn read_only(&self) -> Option<String> {
        self.read_only.get().cloned().or_else(|| self.store.failed())
    }

    fn read_only_error(&self) -> CollectionError {
        let reason = self.read_only().unwrap_or_else(|| "the reason is in the log".to_owned());
        CollectionError::ReadOnly { reason }
    }

    /// Takes no writes from now on.
    fn fail(&self, reason: String) {
        tracing::error!(dir = %self.dir.display(), reason, "the collection is read-only");
        let _ = self.read_only.set(reason);
    }

    fn check_open(&self) -> Result<(), CollectionError> {
        if self.closed.load(Ordering::SeqCst) { Err(CollectionError::Closed) } else { Ok(()) }
    }

    fn dequeued(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn wake_writer(&self) {
        if let Some(seats) = self.seats.get() {
            seats.writer.wake();
        }
    }

    fn wake_indexer(&self) {
        self.signal.wake();
        if let Some(seats) = self.seats.get() {
            seats.indexer.wake();
        }
    }

    fn wake_keeper(&self) {
        if let Some(seats) = self.seats.get() {
            seats.keeper.wake();
        }
    }

    fn wake_merger(&self) {
        if let Some(seats) = self.seats.get() {
            seats.merger.wake();
        }
    }

    /// The store has other segments: the writer puts them in place of those in memory, which nobody reads for long then.
    fn segments_changed(&self) {
        self.is_stale.store(true, Ordering::SeqCst);
        self.wake_writer();
    }

    /// Tells the indexer that a search found the graph broken.
    fn graph_failed(&self) {
        self.signal.graph_failed();
        self.wake_indexer();
    }

    /// The writer does what is queued, the others what they are at; then none does anything any more. Idempotent.
    fn end_turns(&self) {
        self.jobs.close();
        self.signal.stop();
        if let Some(seats) = self.seats.get() {
            seats.all().into_iter().for_each(Seat::wake);
            // The last owner may be a caller's `done` in the writer's own turn, for which this does not wait.
            seats.all().into_iter().for_each(Seat::wait_left);
        }
    }

    /// What is stored of a document that memory knows, or knew when the snapshot was taken.
    fn read_head(&self, documents: &Snapshot, number: u64) -> Result<Head, CollectionError> {
        let head = documents.head(number, self.store.dir())?;
        head.ok_or_else(|| self.not_there(number))
    }

    /// The text of such a document.
    fn read_text(&self, documents: &Snapshot, number: u64) -> Result<String, CollectionError> {
        let text = documents.text(number, self.store.dir())?;
        text.ok_or_else(|| self.not_there(number))
    }

    fn not_there(&self, number: u64) -> CollectionError {
        StoreError::corrupt(self.store.dir(), format!("document {number} is known but not there")).into()
    }
}

/// A turn whose events in the log bear the name of the collection.
fn named(mut turn: impl FnMut() -> Next + Send + 'static) -> impl FnMut() -> Next + Send + 'static {
    let span = tracing::Span::current();
    move || span.in_scope(&mut turn)
}
