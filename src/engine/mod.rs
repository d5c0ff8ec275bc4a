//! The engine takes text and gives hits: it joins encoders and collections. It is the library's front door, and the
//! place where async begins.
//!
//! This file opens and closes it. What it does with collections, documents and searches stands in the file of that
//! name; each asks a collection through one trait (`backend/`), wherever the collection is kept.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::Semaphore;

use crate::{
    collection::{Durability, FolderLog, StoreSizes},
    config::{Config, NO_MODEL},
    encoder::Encoders,
    handles,
    store::DataLock,
    threads::{self, Threads},
};

mod backend;
mod backup;
mod catalog;
mod collections;
pub mod cursor;
mod delete;
mod document;
mod documents;
mod encode;
mod error;
mod fields;
mod health;
mod inventory;
mod models;
mod new_collection;
mod once;
mod opened;
mod payload;
mod read;
mod search;
mod vitals;

/// What [`Engine::search`] is asked, and what a [`Document`] may ask of its write.
pub use crate::collection::{Ask, Condition, SearchQuery};
/// Which fields [`Engine::stats`] reports.
pub use crate::index::columns::FieldsRequest;
/// Target in the log of what [`Engine::findings`] tells.
pub use crate::store::FINDINGS_TARGET;
use backend::{Backend, Local};
pub use backup::{
    Backup, BackupCollection, BackupWish, MadeBackup, RestoreWish, Restored, VerifiedBackup, is_backup,
    verify_backup,
};
pub use catalog::{
    Dropped, FoundDamage, RepairState, RepairedFolder, RepairedPart, VerifiedCollection, VerifiedFolder,
    check_data_folder, repair_folder, repair_folder_if, verify_folder,
};
use catalog::{Names, Open};
pub use collections::{CHUNK_TOKENS_DEFAULT, CollectionInfo, CollectionModel, Counts};
pub use document::{Document, DocumentOutcome, Target, WriteStatus};
pub use error::EngineError;
use error::Result;
pub use inventory::Finding;
pub use new_collection::{NewCollection, NewIndex};
pub use once::{REQUEST_ID_BYTES_MAX, RequestId};
use opened::Shelf;
pub use payload::{FAILURES_MAX, PayloadChange, PayloadCounts, PayloadOutcome};
pub use read::{Listing, ListingQuery};
pub use search::SearchAnswer;
use vitals::Vitals;

/// The caller of an operation, and the time after which its answer is of no use. Dropping the call's future
/// cancels what has not begun.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller {
    /// Time after which the call is given up. Default: none.
    pub deadline: Option<Instant>,
    /// Number of the client: clients take turns at the encoder. Default 0.
    pub client: u64,
    /// What its writes must outlive when they are answered. Default: the loss of power.
    pub durability: Durability,
    /// Makes a write one that is done once, however often it is sent: the same call with the same id is answered as it
    /// was the first time. Each collection remembers the last `data.requests_max` ids for a day. A call that was refused
    /// is tried again. Default: none.
    pub request: Option<RequestId>,
}

/// Encoders and collections in one data folder. It is cheap to share (`Arc`).
///
/// This one runs without a model, so documents bring their vectors. With a model installed, leave `encoder.model` at
/// its default and give texts instead.
///
/// ```
/// use distilface::config::{Config, NO_MODEL};
/// use distilface::engine::{Ask, Caller, Document, Engine, NewCollection, SearchQuery};
///
/// tokio::runtime::Runtime::new().unwrap().block_on(async {
///     let dir = tempfile::tempdir().unwrap();
///     let mut config = Config::default();
///     config.data.dir = dir.path().join("db");
///     config.encoder.model = NO_MODEL.into();
///     let engine = Engine::open(&config).unwrap();
///
///     let name = "places".to_owned();
///     let new = NewCollection { name, vectors_only: true, dimension: Some(2), ..Default::default() };
///     engine.create_collection(new).await.unwrap();
///     let place = |id: &str, vector: [f32; 2]| Document {
///         id: id.into(),
///         vector: Some(vector.into()),
///         ..Document::default()
///     };
///     let places = vec![place("east", [1.0, 0.0]), place("north", [0.0, 1.0])];
///     engine.upsert("places", places, Caller::default()).await.unwrap();
///
///     let query = SearchQuery::new(Ask::Vector(vec![0.2, 0.9]), 1);
///     let answer = engine.search("places", query, Caller::default()).await.unwrap();
///     assert_eq!(answer.hits[0].id.as_str(), "north");
///     engine.close().await.unwrap();
/// });
/// ```
#[derive(Debug)]
pub struct Engine {
    config: Config,
    encoders: Option<Arc<Encoders>>,
    names: Arc<Names>,
    threads: Arc<Threads>,
    vitals: Vitals,
    /// Room of the encoder's bulk queue; a caller that finds it full waits here instead of being refused.
    bulk: Arc<Semaphore>,
    bulk_room: u32,
    /// Passages of small writes that are encoded before bulk.
    small: Arc<Semaphore>,
    /// Permits for searches that open their collection, which was closed while they waited for their turn.
    openings: Arc<Semaphore>,
    /// Calls with an id that are in work.
    in_work: Arc<once::InWork>,
    closing: AtomicBool,
    /// A look at the disk is under way; see `health.rs`.
    examining: Arc<AtomicBool>,
    /// Held until the last user of the engine is gone.
    _lock: DataLock,
}

impl Engine {
    /// Opens and locks the data folder, the encoder, the catalogue and every collection.
    /// It is synchronous and slow: call it before serving. A collection of another model opens too; the model is loaded
    /// when a call needs it, and the call is refused if the model is not installed ([`EngineError::WrongModel`]).
    ///
    /// # Errors
    /// Config, store, model, runtime errors.
    pub fn open(config: &Config) -> Result<Arc<Self>> {
        Self::open_on(config, Threads::new(0)?)
    }

    /// [`Engine::open`] on given threads.
    fn open_on(config: &Config, threads: Arc<Threads>) -> Result<Arc<Self>> {
        backup::refuse_backup(&config.data.dir)?;
        let lock = DataLock::acquire(&config.data.dir)?;
        let encoders = match config.encoder.model.as_str() {
            NO_MODEL => None,
            _ => {
                let encoders = Encoders::open(config.data.home.clone(), config.encoder.clone())?;
                let encoder = encoders.default_encoder();
                let device = encoder.device();
                tracing::info!(
                    model = encoder.name(),
                    device = device.device,
                    reason = device.reason,
                    "encoder ready"
                );
                Some(Arc::new(encoders))
            }
        };
        let data = &config.data;
        let open_max = data.open_collections_max.min(handles::collections_max());
        if open_max < data.open_collections_max {
            tracing::warn!(
                open_collections_max = open_max,
                "this process may have few files open (ulimit -n), so fewer collections are open at once"
            );
        }
        // As many as search at once, and no more than can all be open.
        let openings = threads.search.workers().current_num_threads().min(open_max).max(1);
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let sizes = StoreSizes {
            cache_bytes: bytes(data.store_cache_bytes),
            segment_bytes: bytes(data.segment_bytes),
            log_bytes_max: data.log_bytes_max,
            requests_max: data.requests_max,
        };
        let names = Names::open(&data.dir, || {
            let log = FolderLog::of(&data.dir, &threads, sizes)?;
            Ok(Shelf::new(open_max, log, Arc::clone(&threads)))
        })?;
        let names = Arc::new(names);
        let bulk_room =
            u32::try_from(config.encoder.queue_max.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Ok(Arc::new(Engine {
            config: config.clone(),
            encoders,
            names,
            threads,
            vitals: Vitals::new(config.server.health_timeout, config.data.dir.clone()),
            bulk: Arc::new(Semaphore::new(bulk_room as usize)),
            bulk_room,
            small: Arc::new(Semaphore::new(encode::SMALL_TEXTS_MAX)),
            openings: Arc::new(Semaphore::new(openings)),
            in_work: Arc::default(),
            closing: AtomicBool::new(false),
            examining: Arc::default(),
            _lock: lock,
        }))
    }

    /// The settings it was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Finds a collection and the backend that keeps it.
    fn find(&self, collection: &str) -> Result<Arc<dyn Backend>> {
        self.check_open()?;
        Ok(self.backend(self.names.now().find(collection)?))
    }

    /// The backend that keeps a collection.
    fn backend(&self, open: &Arc<Open>) -> Arc<dyn Backend> {
        Arc::new(Local::new(open, &self.threads, &self.openings))
    }

    /// Whether [`Engine::close`] was called: then not being healthy is no fault.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Refuses new calls, flushes and closes everything. Idempotent. Runs on a thread of its own: a pool whose threads
    /// hang must not keep it from beginning.
    ///
    /// # Errors
    /// The first that a collection meets; acknowledged writes are durable even then.
    pub async fn close(&self) -> Result<()> {
        self.closing.store(true, Ordering::SeqCst);
        let names = Arc::clone(&self.names);
        let (send, receive) = tokio::sync::oneshot::channel();
        threads::start_thread("close", move || {
            // The asker may have lost patience.
            let _ = send.send(names.close());
        })?;
        receive
            .await
            .map_err(|_| EngineError::Panicked { reason: "closing failed; see the log".to_owned() })?
    }

    /// Describes what [`Engine::close`] has not closed yet.
    pub fn unclosed(&self) -> String {
        self.names.unclosed()
    }

    fn check_open(&self) -> Result<(), EngineError> {
        if self.closing.load(Ordering::Relaxed) { Err(EngineError::Closing) } else { Ok(()) }
    }

    fn names(&self) -> &Names {
        &self.names
    }

    fn pools(&self) -> &Threads {
        &self.threads
    }

    fn bulk(&self) -> &Arc<Semaphore> {
        &self.bulk
    }

    fn small(&self) -> &Arc<Semaphore> {
        &self.small
    }

    fn in_work(&self) -> &Arc<once::InWork> {
        &self.in_work
    }

    fn bulk_room(&self) -> u32 {
        self.bulk_room
    }
}

/// Runs what opens, makes or closes collections, or waits for one. It may wait long for the disk, for a name, or for
/// room among the open ones; the caller that has the room may need a pool to give it back, so this takes no thread of
/// one.
async fn run_blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, EngineError> {
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(f)).await;
    done.map_err(|e| EngineError::Panicked { reason: e.to_string() })
}

fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(12).collect()
}

fn out_of_range(name: &'static str, min: usize, max: usize, got: usize) -> EngineError {
    EngineError::OutOfRange { name, min: min as u64, max: max as u64, got: got as u64 }
}

#[cfg(test)]
mod tests;
