//! Points of one dimension and metric: store and index kept in step.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::sync_channel,
    },
};

use serde::{Deserialize, Serialize};

use crate::{
    budget::BudgetError,
    error::{ErrorKind, Fault},
    index::{
        IndexError, IndexKind, IndexParams, VectorIndex as _,
        columns::{FieldsAsked, FieldsTold},
    },
    stop::Stopped,
    store::{
        Head, Store, StoreError,
        disk::{Disk, RealDisk},
    },
    threads::{Threads, crew::Seat},
    value::{PointId, ValueError, filter::FilterError, payload::payload_bytes},
    vector::{Dim, Metric, VectorError},
};

mod body;
mod document;
mod indexer;
mod memory;
mod query;
mod read;
mod recover;
mod rows;
mod slots;
#[cfg(test)]
mod tests;
mod writer;

pub mod point;

pub use crate::store::Identity;
pub use document::PAGE_BYTES;
pub use query::{Ask, Reads, Retrieval, SearchQuery, SearchTrace, Source, Stage, StageTrace};

use point::{Point, StoredPoint};

/// How a collection was made; fixed for its life. Chunking and model belong to the engine and are only kept here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CollectionSpec {
    /// Values of one vector.
    pub dim: Dim,
    /// How nearness is measured.
    pub metric: Metric,
    /// Parameters of the index.
    pub index: IndexParams,
}

/// What whoever opens a collection knows of it, from the description that is kept in its folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// How it was made.
    pub spec: CollectionSpec,
    /// Which one it is; see [`Collection::identity`]. `None`: an earlier version described it, and whatever lies in the
    /// folder is taken for it.
    pub identity: Option<Identity>,
}

/// A change to a collection.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Stores the point; a stored point of its id is replaced, unless its content hash is the same.
    Upsert(Box<Point>),
    /// Only if what is stored has the content `expected`; [`CollectionError::Changed`] if not.
    Replace {
        /// The point to store.
        point: Box<Point>,
        /// Hash of the content that must be stored now.
        expected: point::ContentHash,
    },
    /// Removes the point of this id, if there is one.
    Delete(PointId),
}

/// The effect of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The point is new.
    Inserted,
    /// The point replaced one of its id.
    Updated,
    /// The stored content hash is the same.
    Unchanged,
    /// The point was removed.
    Deleted,
    /// No point of this id is stored, so nothing was removed.
    NotFound,
}

/// Called once, from a writer's thread, when a write is durable or has failed. Must not block.
pub type WriteDone = Box<dyn FnOnce(Result<Vec<Outcome>, CollectionError>) + Send>;

/// Counts and sizes of a collection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CollectionStats {
    /// Documents stored.
    pub documents: u64,
    /// Passages stored; each has one vector.
    pub passages: u64,
    /// Passages whose vectors the index answers; the others are scanned.
    pub indexed: u64,
    /// Vectors of deleted passages that the index still holds.
    pub tombstones: u64,
    /// Size of the collection's folder in bytes; 0 where it was not looked at.
    pub disk_bytes: u64,
    /// Size of the passages' vectors in bytes.
    pub vector_bytes: u64,
    /// Payload fields that were asked for; empty where none were.
    pub fields: FieldsTold,
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
/// use distilface::collection::{Reads, SearchQuery, Write};
/// use distilface::index::IndexParams;
/// use distilface::stop::Stop;
/// use distilface::threads::Threads;
/// use distilface::value::{Payload, PointId};
/// use distilface::vector::{Dim, Metric, Vector};
///
/// let (dim, metric) = (Dim::new(2).unwrap(), Metric::Cosine);
/// let dir = tempfile::tempdir().unwrap();
/// let collection = Collection::create(
///     &dir.path().join("places"),
///     CollectionSpec { dim, metric, index: IndexParams::default() },
///     CollectionOptions { store_cache_bytes: 8 << 20, threads: Threads::new(1).unwrap() },
/// )
/// .unwrap();
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
    memory: RwLock<memory::Memory>,
    jobs: writer::Jobs,
    signal: indexer::Signal,
    /// Set once, at the start.
    seats: OnceLock<Seats>,
    disk: Arc<dyn Disk>,
    read_only: OnceLock<String>,
    /// Bytes of the calls that wait for the writer.
    queued: AtomicUsize,
    closed: AtomicBool,
    /// Slots and document numbers end here.
    numbers_max: u32,
}

/// What a collection works with.
struct Means<'a> {
    options: &'a CollectionOptions,
    disk: Arc<dyn Disk>,
    /// See [`Shared::numbers_max`]; a test lowers it.
    numbers_max: u32,
}

impl<'a> Means<'a> {
    fn real(options: &'a CollectionOptions) -> Self {
        Means { options, disk: Arc::new(RealDisk), numbers_max: slots::NUMBERS_MAX }
    }
}

/// Where its writer and its indexer take turns.
#[derive(Debug)]
struct Seats {
    writer: Seat,
    indexer: Seat,
}

/// What an open collection uses of the process.
#[derive(Debug, Clone)]
pub struct CollectionOptions {
    /// Memory of the store's cache in bytes.
    pub store_cache_bytes: u64,
    /// Threads that write and build, shared by all collections that are given them.
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
        let recover::Recovered { spec, store, memory, buried } = recovered;
        let Means { options, disk, numbers_max } = means;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            spec,
            store,
            memory: RwLock::new(memory),
            jobs: writer::Jobs::default(),
            signal: indexer::Signal::default(),
            seats: OnceLock::new(),
            disk,
            read_only: OnceLock::new(),
            queued: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            numbers_max,
        });
        let threads = &options.threads;
        let mut writer = writer::Writer::new(Arc::clone(&shared), buried);
        let mut indexer = indexer::Indexer::new(Arc::clone(&shared), Arc::clone(threads));
        // Names the collection in the log.
        let (writing, indexing) = (tracing::Span::current(), tracing::Span::current());
        let seats = Seats {
            writer: threads.writers.join(move || writing.in_scope(|| writer.turn())),
            indexer: threads.indexers.join(move || indexing.in_scope(|| indexer.turn())),
        };
        shared.seats.set(seats).expect("they are set here only");
        // Both have something to look at: removed documents to purge, and vectors that the graph lacks.
        shared.wake_writer();
        shared.wake_indexer();
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

    /// Why it takes no writes, if so: for good, or until the disk has room again. For the health service.
    pub fn read_only(&self) -> Option<String> {
        self.shared.read_only().map(str::to_owned).or_else(|| self.shared.store.failed())
    }

    /// Takes writes again after the disk was full, if it has room now. Calls do this by themselves; this is for the
    /// health service, where nobody calls.
    pub fn revive(&self) {
        if !self.is_closed() {
            self.shared.store.revive();
        }
    }

    /// Whether [`Collection::close`] has come to its end.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Queues changes for the writer; `done` hears when all are durable. The changes of one call are atomic.
    /// Ids must be distinct within a call. Never blocks; a call that is refused at once is told so on this thread.
    pub fn submit(&self, writes: Vec<Write>, done: WriteDone) {
        let bytes = match self.admit(&writes) {
            Ok(bytes) => bytes,
            Err(error) => return writer::answer(done, Err(error)),
        };
        match self.shared.jobs.push(writer::Job { writes, done, bytes }) {
            Ok(()) => self.shared.wake_writer(),
            Err(refused) => {
                let (job, error) = *refused;
                self.shared.dequeued(bytes);
                writer::answer(job.done, Err(error));
            }
        }
    }

    /// Checks a call and takes room for it in the queue.
    fn admit(&self, writes: &[Write]) -> Result<usize, CollectionError> {
        self.shared.check_open()?;
        if self.shared.read_only().is_some() {
            return Err(self.shared.read_only_error());
        }
        let mut ids = HashSet::with_capacity(writes.len());
        for write in writes {
            if !ids.insert(write.id()) {
                return Err(CollectionError::DuplicateId { id: write.id().as_str().to_owned() });
            }
            if let Write::Upsert(point) | Write::Replace { point, .. } = write {
                self.check_point(point)?;
            }
        }
        let bytes = writes.iter().map(Write::bytes).sum();
        let queued = self.shared.queued.fetch_add(bytes, Ordering::Relaxed);
        // One call may be larger than the queue; it then waits alone.
        if queued > 0 && queued.saturating_add(bytes) > writer::QUEUE_BYTES_MAX {
            self.shared.dequeued(bytes);
            return Err(CollectionError::QueueFull { limit: writer::QUEUE_MAX });
        }
        Ok(bytes)
    }

    fn check_point(&self, point: &Point) -> Result<(), CollectionError> {
        let bad = |reason: String| CollectionError::BadPoint { id: point.id.as_str().to_owned(), reason };
        if point.passages.is_empty() {
            return Err(bad("it has no passage; a document needs at least one".to_owned()));
        }
        for (n, passage) in point.passages.iter().enumerate() {
            let got = passage.vector.as_slice().len();
            if got != self.shared.spec.dim.len() {
                let expected = self.shared.spec.dim.as_u32();
                return Err(bad(format!(
                    "vector {n} has {got} values, the collection's dimension is {expected}"
                )));
            }
            if point.text.get(passage.range.start as usize..passage.range.end as usize).is_none() {
                return Err(bad(format!("passage {n} is not a part of the text")));
            }
        }
        Ok(())
    }

    /// [`Collection::submit`], waiting.
    ///
    /// # Errors
    /// As the writer reports.
    pub fn write(&self, writes: Vec<Write>) -> Result<Vec<Outcome>, CollectionError> {
        let (sender, answer) = sync_channel(1);
        self.submit(
            writes,
            Box::new(move |result| {
                // Nobody listens only if this thread is gone.
                let _ = sender.try_send(result);
            }),
        );
        answer.recv().unwrap_or(Err(CollectionError::Closed))
    }

    /// The collection's counts. It looks at every file for `disk_bytes`.
    pub fn stats(&self) -> CollectionStats {
        self.stats_with(&FieldsAsked::default())
    }

    /// The collection's counts, and the fields that are asked for.
    pub fn stats_with(&self, asked: &FieldsAsked) -> CollectionStats {
        let disk_bytes = crate::store::disk::folder_bytes(&self.shared.dir);
        let fields = self.shared.read_memory().fields.stats(asked);
        CollectionStats { disk_bytes, fields, ..self.counts() }
    }

    /// The counts of [`Collection::stats`] without `disk_bytes` and `fields`. It is cheap and touches no disk.
    pub fn counts(&self) -> CollectionStats {
        let view = self.shared.view();
        let passages = view.table.live();
        // Where there is no graph, the exact index is the index.
        let (inside, indexed, alive) = match &view.graph {
            Some(graph) => {
                let indexed = passages - view.table.live_count_from(graph.indexed);
                (graph.index.len() as u64, indexed, indexed)
            }
            None if self.shared.spec.index.kind == IndexKind::Flat => {
                (view.flat.len() as u64, passages, passages)
            }
            None => (view.flat.len() as u64, 0, passages),
        };
        CollectionStats {
            documents: view.table.documents(),
            passages,
            indexed,
            tombstones: inside.saturating_sub(alive),
            disk_bytes: 0,
            vector_bytes: passages * self.shared.spec.dim.len() as u64 * size_of::<f32>() as u64,
            fields: FieldsTold::default(),
        }
    }

    /// Whether its graph has every vector, or will never have; closing it loses no work then.
    pub fn is_settled(&self) -> bool {
        self.shared.spec.index.kind == IndexKind::Flat
            || self.shared.view().tail().next().is_none()
            || self.shared.signal.has_given_up()
    }

    /// Waits until every vector that was durable at the call is in the graph. For tests and benches.
    pub fn wait_indexed(&self) {
        if self.shared.spec.index.kind == IndexKind::Flat {
            return;
        }
        let end = self.shared.read_memory().slots.end();
        self.shared.wake_indexer();
        self.shared.signal.wait_until(|| self.shared.view().tail().next().is_none_or(|slot| slot.0 >= end));
    }

    /// Stops the writer after what is queued, saves the index files, syncs, and closes the store. Idempotent.
    ///
    /// # Errors
    /// Store and index errors; acknowledged writes are durable even then.
    pub fn close(&self) -> Result<(), CollectionError> {
        let _closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.end_turns();
        if self.shared.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let view = self.shared.view();
        let saved = match &view.graph {
            Some(graph) if !graph.index.is_empty() && self.shared.read_only().is_none() => indexer::save(
                &self.shared.dir,
                graph,
                &view.table,
                (self.identity(), self.shared.store.sequence()),
                &*self.shared.disk,
            ),
            _ => Ok(()),
        };
        let closed = self.shared.store.close();
        self.is_closed.store(true, Ordering::SeqCst);
        closed?;
        Ok(saved?)
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        self.shared.end_turns();
    }
}

impl Shared {
    fn read_memory(&self) -> RwLockReadGuard<'_, memory::Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a search reads, as it is now.
    fn view(&self) -> memory::View {
        self.read_memory().view()
    }

    fn write_memory(&self) -> RwLockWriteGuard<'_, memory::Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_only(&self) -> Option<&str> {
        self.read_only.get().map(String::as_str)
    }

    fn read_only_error(&self) -> CollectionError {
        CollectionError::ReadOnly {
            reason: self.read_only().unwrap_or("the reason is in the log").to_owned(),
        }
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

    /// Tells the indexer that a search found the graph broken.
    fn graph_failed(&self) {
        self.signal.graph_failed();
        self.wake_indexer();
    }

    /// The writer does what is queued, the indexer what it is at; then neither does anything any more. Idempotent.
    fn end_turns(&self) {
        self.jobs.close();
        self.signal.stop();
        if let Some(seats) = self.seats.get() {
            seats.writer.wake();
            seats.indexer.wake();
            // The last owner may be a caller's `done` in the writer's own turn, for which this does not wait.
            seats.writer.wait_left();
            seats.indexer.wait_left();
        }
    }

    /// What is stored of a document that memory knows, or knew when its generation was taken.
    fn read_head(&self, number: u64) -> Result<(Head, body::Body), CollectionError> {
        let head = self.store.head(number)?.ok_or_else(|| {
            StoreError::corrupt(self.store.dir(), format!("document {number} is known but not there"))
        })?;
        let body = body::Body::decode(&head.body, self.store.dir())?;
        Ok((head, body))
    }
}

impl Write {
    fn id(&self) -> &PointId {
        match self {
            Write::Upsert(point) | Write::Replace { point, .. } => &point.id,
            Write::Delete(id) => id,
        }
    }

    /// About how much memory it holds.
    fn bytes(&self) -> usize {
        const OVERHEAD: usize = 128;
        OVERHEAD
            + self.id().as_str().len()
            + match self {
                Write::Upsert(point) | Write::Replace { point, .. } => {
                    let vectors: usize =
                        point.passages.iter().map(|p| OVERHEAD + size_of_val(p.vector.as_slice())).sum();
                    point.title.len() + point.text.len() + payload_bytes(&point.payload) + vectors
                }
                Write::Delete(_) => 0,
            }
    }
}

/// Why a collection refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CollectionError {
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Vector(#[from] VectorError),
    #[error("no document {id:?}")]
    NoDocument { id: String },
    #[error("the query's text was not encoded, and nothing here searches by words")]
    NotEncoded,
    #[error("document id {id:?} stands twice in one request; send each id once")]
    DuplicateId { id: String },
    #[error("document {id:?}: {reason}")]
    BadPoint { id: String, reason: String },
    #[error("document {id:?} was changed or deleted by another request meanwhile; retry")]
    Changed { id: String },
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(
        "this collection is read-only since a write to disk failed ({reason}); reads go on, restart after the disk is repaired"
    )]
    ReadOnly { reason: String },
    #[error("this collection is closed")]
    Closed,
    /// It holds as many vectors, or documents, as can be told apart in memory; removed ones do not count.
    #[error(
        "the collection is full: it cannot hold more than {limit} vectors; delete some, or start another collection"
    )]
    Full { limit: u32 },
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("the write queue is full ({limit} requests wait)")]
    QueueFull { limit: usize },
    #[error("cannot read or write {}", path.display())]
    Io { path: PathBuf, source: Arc<std::io::Error> },
    #[error(transparent)]
    Budget(#[from] BudgetError),
    #[error(transparent)]
    Index(Arc<IndexError>),
    #[error(transparent)]
    Store(Arc<StoreError>),
}

impl Fault for CollectionError {
    fn kind(&self) -> ErrorKind {
        match self {
            CollectionError::Value(e) => e.kind(),
            CollectionError::Vector(e) => e.kind(),
            CollectionError::NoDocument { .. } => ErrorKind::NotFound,
            CollectionError::DuplicateId { .. } | CollectionError::BadPoint { .. } => ErrorKind::Invalid,
            CollectionError::Filter(e) => e.kind(),
            CollectionError::Changed { .. } => ErrorKind::Overloaded,
            // Waiting does not help: what is removed does not count.
            CollectionError::ReadOnly { .. } | CollectionError::Full { .. } => ErrorKind::Precondition,
            CollectionError::Closed => ErrorKind::Unavailable,
            CollectionError::Stopped(_) => ErrorKind::Timeout,
            CollectionError::QueueFull { .. } => ErrorKind::Overloaded,
            CollectionError::Io { .. } | CollectionError::NotEncoded => ErrorKind::Internal,
            CollectionError::Budget(e) => e.kind(),
            CollectionError::Index(e) => e.kind(),
            CollectionError::Store(e) => e.kind(),
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            CollectionError::Filter(e) => e.field(),
            CollectionError::Vector(e) => e.field(),
            _ => None,
        }
    }

    fn is_too_large(&self) -> bool {
        matches!(self, CollectionError::Budget(e) if e.is_too_large())
    }
}

impl CollectionError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        CollectionError::Io { path: path.to_owned(), source: Arc::new(source) }
    }
}

impl From<IndexError> for CollectionError {
    fn from(e: IndexError) -> Self {
        CollectionError::Index(Arc::new(e))
    }
}

impl From<StoreError> for CollectionError {
    fn from(e: StoreError) -> Self {
        CollectionError::Store(Arc::new(e))
    }
}
