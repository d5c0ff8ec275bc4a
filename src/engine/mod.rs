//! The engine takes text and gives hits: it joins encoders and collections. It is the library's front door, and the
//! place where async begins.
//!
//! A collection is spoken to through one trait (`backend/`), whoever keeps it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::{
    budget::Room,
    collection::{
        CollectionStats, Outcome, SearchTrace, Write,
        point::{Hit, StoredPoint},
    },
    config::Config,
    encoder::{Chunking, EncodeTimes, Encoders},
    handles,
    index::IndexParams,
    model::Fingerprint,
    store::DataLock,
    threads::{self, Threads},
    value::{Payload, PointId, datetime, filter::Filter},
    vector::{Dim, Metric},
};

mod backend;
mod catalog;
pub mod cursor;
mod documents;
mod encode;
mod error;
mod fields;
mod inventory;
mod models;
mod opened;
mod payload;
mod search;
mod vitals;

/// What [`Engine::search`] is asked.
pub use crate::collection::{Ask, SearchQuery};
/// Which fields [`Engine::stats`] reports.
pub use crate::index::columns::FieldsAsked;
use backend::{Backend, Local, PageQuery};
pub(crate) use catalog::FINDINGS_FILE;
use catalog::{Names, Open};
use cursor::Scope;
pub use error::EngineError;
use error::Result;
pub use inventory::Finding;
use opened::Shelf;
pub use payload::{PayloadChange, PayloadOutcome};
use vitals::Vitals;

/// Tokens of a passage where nothing else is asked for; less where the model takes less.
pub const CHUNK_TOKENS_DEFAULT: usize = 254;
/// Ids deleted in one atomic step of a deletion by filter.
const DELETE_IDS_STEP: usize = 1024;

/// What a collection is, as the description in its folder and the catalogue keep it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionInfo {
    /// Its name; see [`NewCollection::name`].
    pub name: String,
    /// Values of one vector, 1 to [`crate::vector::DIM_MAX`].
    pub dimension: u32,
    /// How nearness is measured.
    pub metric: Metric,
    /// Parameters of its index.
    pub index: IndexParams,
    /// How its texts are cut into passages; `None` if chunking is off.
    pub chunking: Option<Chunking>,
    /// The model that encodes its texts; `None` if it takes vectors only.
    pub model: Option<CollectionModel>,
    /// When it was made, in microseconds since 1970.
    pub created_at: i64,
    /// Aliases that lead to it, by name. They are kept elsewhere and filled in for an answer.
    pub aliases: Vec<String>,
    /// Why it cannot be opened and what to do about it; every call on it is refused with this. Filled when answered.
    #[serde(skip)]
    pub damage: Option<String>,
}

/// The model that a collection was made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionModel {
    /// Name of the model at that time.
    pub name: String,
    /// Identifies the model's vectors; a model with another fingerprint is refused.
    pub fingerprint: Fingerprint,
}

/// The settings of a new collection.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewCollection {
    /// Its name: 1 to 128 letters, digits, `_`, `-` or `.`, beginning with a letter or digit. No default.
    pub name: String,
    /// Values of one vector, 1 to [`crate::vector::DIM_MAX`]. Default: the encoder's; required with
    /// `vectors_only`.
    pub dimension: Option<u32>,
    /// How nearness is measured. Default: [`Metric::default`].
    pub metric: Metric,
    /// Parameters of its index. Default: [`IndexParams::default`].
    pub index: IndexParams,
    /// Encodes each text as one passage, cut at the model's limit. Default: false.
    pub chunking_disabled: bool,
    /// Tokens of a passage, special tokens not counted. Default: [`CHUNK_TOKENS_DEFAULT`], or less where the
    /// model takes less.
    pub chunk_max_tokens: Option<usize>,
    /// Tokens shared with the passage before, below the maximum. Default: an eighth of the maximum.
    pub chunk_overlap_tokens: Option<usize>,
    /// Makes a collection without an encoder: every document and query brings its vector. Default: false.
    pub vectors_only: bool,
    /// Name of an installed model. Default: empty, which stands for the default model.
    pub model: String,
    /// Accepts an existing collection of the same settings instead of refusing it. Default: false.
    pub if_not_exists: bool,
}

/// A document as a user sends it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Document {
    /// Its id: 1 to [`crate::value::ID_BYTES_MAX`] bytes. A stored document of this id is replaced.
    pub id: String,
    /// Its title, encoded in front of every passage. Default: empty.
    pub title: String,
    /// Its text, at most `limits.text_bytes_max` bytes with the title. Default: empty.
    pub text: String,
    /// Its typed fields, at most `limits.payload_bytes_max` bytes. Default: none.
    pub payload: Payload,
    /// Its vector, where the collection takes vectors only. Default: none.
    pub vector: Option<Vec<f32>>,
}

/// The result of writing one document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentOutcome {
    /// The document's id.
    pub id: String,
    /// What the write did.
    pub status: WriteStatus,
    /// Passages that were written; 0 where nothing was done.
    pub passages: u32,
    /// Tokens that were encoded, special tokens included; 0 where the vectors were kept.
    pub tokens: u32,
    /// Whether some text lies past the model's limit and was not encoded.
    pub truncated: bool,
    /// Whether only the beginning of the title was encoded; the text was not shortened for it.
    pub title_truncated: bool,
    /// Words of its passages that the model reads as one unknown token each: they have more than 100 characters, or the
    /// vocabulary cannot spell them. Nothing finds a document by such a word.
    pub unknown_tokens: u32,
}

/// The effect of a write on one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteStatus {
    /// The document is new.
    Inserted,
    /// The document replaced one of its id.
    Updated,
    /// The same document was stored already; nothing was written.
    Unchanged,
}

/// Which documents a page shows.
#[derive(Debug, Clone, PartialEq)]
pub struct ListingQuery {
    /// Only documents that match are listed. `None` lists all.
    pub filter: Option<Filter>,
    /// The cursor of an earlier page. `None` begins at the first document.
    pub cursor: Option<String>,
    /// Documents on the page, 1 to `limits.batch_max`.
    pub limit: usize,
    /// Documents carry their texts.
    pub with_text: bool,
    /// Documents carry the vector of their first passage.
    pub with_vectors: bool,
}

/// One page of documents, ordered by id.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The documents, by id.
    pub points: Vec<StoredPoint>,
    /// The cursor of the next page; `None` after the last one.
    pub next_cursor: Option<String>,
    /// Remarks on the filter; only the first page has them.
    pub hints: Vec<String>,
    scope: Scope,
}

impl Listing {
    /// The cursor of a page that begins behind this document, for who answers a part of `points` only.
    pub fn cursor_after(&self, id: &PointId) -> String {
        self.scope.after(id.as_str())
    }
}

/// The hits of a search, and how they were found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchAnswer {
    /// The hits, best first.
    pub hits: Vec<Hit>,
    /// Tokens of the question, special tokens included; 0 if it was not a text.
    pub tokens: u32,
    /// Whether the question was longer than the model's limit, so that its end was not encoded.
    pub truncated: bool,
    /// The device that encoded the question; empty if it was not a text.
    pub device: String,
    /// Where the time of encoding went; zero if the question was not a text.
    pub encode: EncodeTimes,
    /// How the search ran, stage by stage.
    pub trace: SearchTrace,
    /// Time from the call to the answer.
    pub total: std::time::Duration,
}

/// The caller of an operation, and the time after which its answer is of no use. Dropping the call's future
/// cancels what has not begun.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller {
    /// Time after which the call is given up. Default: none.
    pub deadline: Option<Instant>,
    /// Number of the client: clients take turns at the encoder. Default 0.
    pub client: u64,
}

/// Encoders and collections in one data folder. It is cheap to share (`Arc`).
///
/// This one runs without a model, so documents bring their vectors. With a model installed, leave `encoder.model` at
/// its default and give texts instead.
///
/// ```
/// use distilface::config::Config;
/// use distilface::engine::{Ask, Caller, Document, Engine, NO_MODEL, NewCollection, SearchQuery};
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
    closing: AtomicBool,
    /// A look at the disk is under way; see [`Looking`].
    examining: Arc<AtomicBool>,
    /// Held until the last user of the engine is gone.
    _lock: DataLock,
}

/// A look at the disk that is under way, or waits for its turn; dropped, there may be another.
struct Looking(Arc<AtomicBool>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// The name in [`crate::config::EncoderConfig::model`] that runs a process without an encoder.
pub const NO_MODEL: &str = "none";

impl Engine {
    /// Opens and locks the data folder, the encoder, the catalogue and every collection.
    /// It is synchronous and slow: call it before serving. A collection of another model opens too; the model is loaded
    /// when a call needs it, and the call is refused if the model is not installed ([`EngineError::WrongModel`]).
    ///
    /// # Errors
    /// Config, store, model, runtime errors.
    pub fn open(config: &Config) -> Result<Arc<Self>> {
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
        let threads = Threads::new(0)?;
        let data = &config.data;
        let open_max = data.open_collections_max.min(handles::collections_max());
        if open_max < data.open_collections_max {
            tracing::warn!(
                open_collections_max = open_max,
                "this process may have few files open (ulimit -n), so fewer collections are open at once"
            );
        }
        let shelf = Shelf::new(open_max, data.store_cache_bytes, Arc::clone(&threads));
        let names = Arc::new(Names::open(&data.dir, shelf)?);
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
            closing: AtomicBool::new(false),
            examining: Arc::default(),
            _lock: lock,
        }))
    }

    /// The settings it was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Makes a collection; the flag says whether it is new.
    ///
    /// # Errors
    /// [`EngineError::BadName`], [`EngineError::CollectionExists`], [`EngineError::CollectionDiffers`],
    /// [`EngineError::AliasTaken`], [`EngineError::EncoderOff`], [`EngineError::OutOfRange`]; model, vector, index,
    /// store errors.
    pub async fn create_collection(&self, new: NewCollection) -> Result<(CollectionInfo, bool)> {
        let if_not_exists = new.if_not_exists;
        let info = self.plan_collection(new).await?;
        let names = Arc::clone(&self.names);
        apart(move || names.create(info, if_not_exists)).await?
    }

    async fn plan_collection(&self, new: NewCollection) -> Result<CollectionInfo> {
        self.check_open()?;
        new.index.validate()?;
        let (dimension, model, chunking) = if new.vectors_only {
            let reason = "a vectors_only collection needs its dimension".to_owned();
            let dimension = new.dimension.ok_or(EngineError::BadRequest { reason })?;
            if !new.model.is_empty() {
                let reason =
                    "a vectors_only collection has no encoder: leave model out, or vectors_only".to_owned();
                return Err(EngineError::BadRequest { reason });
            }
            (Dim::new(dimension)?, None, None)
        } else {
            let encoder = self.encoder_named(&new.model).await?;
            let dim = encoder.dim();
            if let Some(dimension) = new.dimension.filter(|&d| d != dim.as_u32()) {
                let reason = format!(
                    "dimension {dimension} was asked for, but model {} has {}; leave it out, or set vectors_only",
                    encoder.name(),
                    dim.as_u32()
                );
                return Err(EngineError::BadRequest { reason });
            }
            let model = CollectionModel {
                name: encoder.name().to_owned(),
                fingerprint: encoder.fingerprint().clone(),
            };
            let chunking = if new.chunking_disabled {
                None
            } else {
                let room = encoder.room();
                let max_tokens = new.chunk_max_tokens.unwrap_or(room.min(CHUNK_TOKENS_DEFAULT));
                if !(1..=room).contains(&max_tokens) {
                    return Err(out_of_range("chunking.max_tokens", 1, room, max_tokens));
                }
                let overlap_tokens = new.chunk_overlap_tokens.unwrap_or(max_tokens / 8);
                if overlap_tokens >= max_tokens {
                    return Err(out_of_range("chunking.overlap_tokens", 0, max_tokens - 1, overlap_tokens));
                }
                Some(Chunking { max_tokens, overlap_tokens })
            };
            (dim, Some(model), chunking)
        };
        Ok(CollectionInfo {
            name: new.name,
            dimension: dimension.as_u32(),
            metric: new.metric,
            index: new.index,
            chunking,
            model,
            created_at: datetime::now(),
            aliases: Vec::new(),
            damage: None,
        })
    }

    /// By name or alias, like every `collection` below.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`].
    pub async fn collection(&self, name: &str) -> Result<CollectionInfo> {
        self.check_open()?;
        let directory = self.names.now();
        Ok(directory.info(directory.find(name)?))
    }

    /// All collections, by name.
    ///
    /// # Errors
    /// [`EngineError::Closing`].
    pub async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        self.check_open()?;
        let directory = self.names.now();
        Ok(directory.collections.values().map(|open| directory.info(open)).collect())
    }

    /// Removes a collection, its aliases and its files.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`], [`EngineError::BadRequest`] for an alias; store errors.
    pub async fn delete_collection(&self, name: &str) -> Result<()> {
        self.change(name, |names, name| names.delete(&name)).await
    }

    /// Points an alias at a collection, in one step for every later request; answers what it named before.
    ///
    /// # Errors
    /// [`EngineError::BadName`], [`EngineError::AliasTaken`], [`EngineError::NoCollection`]; store errors.
    pub async fn set_alias(&self, alias: &str, collection: &str) -> Result<Option<String>> {
        let alias = alias.to_owned();
        self.change(collection, move |names, collection| names.set_alias(&alias, &collection)).await
    }

    /// # Errors
    /// [`EngineError::NoAlias`]; store errors.
    pub async fn delete_alias(&self, alias: &str) -> Result<()> {
        self.change(alias, |names, alias| names.delete_alias(&alias)).await
    }

    async fn change<T: Send + 'static>(
        &self,
        name: &str,
        f: impl FnOnce(&Names, String) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_open()?;
        let (names, name) = (Arc::clone(&self.names), name.to_owned());
        apart(move || f(&names, name)).await?
    }

    /// Finds a collection. Whoever keeps it is asked by way of this.
    fn find(&self, collection: &str) -> Result<Arc<dyn Backend>> {
        self.check_open()?;
        Ok(self.backend(self.names.now().find(collection)?))
    }

    /// Whoever keeps a collection.
    fn backend(&self, open: &Arc<Open>) -> Arc<dyn Backend> {
        Arc::new(Local::new(open, &self.threads))
    }

    /// Documents, passages and indexed passages of every collection that is open now. Opens none, and touches no disk.
    pub fn counts(&self) -> Vec<(String, CollectionStats)> {
        let open = self.names.open_collections();
        open.into_iter().map(|(name, collection)| (name, collection.counts())).collect()
    }

    /// # Errors
    /// [`EngineError::NoCollection`].
    pub async fn stats(&self, collection: &str, fields: FieldsAsked) -> Result<CollectionStats> {
        self.find(collection)?.stats(fields).await
    }

    /// Stored documents in the order asked, each once however often it was asked for; `None` for those not there. They
    /// take their place in `room`.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`], [`EngineError::OutOfRange`]; [`crate::budget::BudgetError`]; bad ids; store errors.
    pub async fn get(
        &self,
        collection: &str,
        ids: Vec<String>,
        with_vectors: bool,
        room: Arc<Room>,
    ) -> Result<Vec<(PointId, Option<StoredPoint>)>> {
        let mut ids = self.ids(&ids)?;
        let mut seen = std::collections::HashSet::new();
        ids.retain(|id| seen.insert(id.clone()));
        let points = self.find(collection)?.get(ids.clone(), with_vectors, room).await?;
        Ok(ids.into_iter().zip(points).collect())
    }

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

    /// A page of documents ordered by id: the first, or the one that the cursor of another page leads to. It ends early
    /// at about [`crate::collection::PAGE_BYTES`].
    ///
    /// ```
    /// # use distilface::{config::Config, engine::{Engine, EngineError, ListingQuery}};
    /// # use distilface::budget::Room;
    /// # async fn every(engine: &Engine) -> Result<(), EngineError> {
    /// let mut query = ListingQuery {
    ///     filter: None,
    ///     cursor: None,
    ///     limit: 100,
    ///     with_text: false,
    ///     with_vectors: false,
    /// };
    /// loop {
    ///     let page = engine.scroll("places", query.clone(), Room::unbounded()).await?;
    ///     page.points.iter().for_each(|point| println!("{}", point.id));
    ///     query.cursor = page.next_cursor;
    ///     if query.cursor.is_none() {
    ///         return Ok(());
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`EngineError::NoCollection`], [`EngineError::OutOfRange`]; [`EngineError::Cursor`] for a cursor of another
    /// collection or filter; [`crate::budget::BudgetError`]; filter and store errors.
    pub async fn scroll(&self, collection: &str, query: ListingQuery, room: Arc<Room>) -> Result<Listing> {
        let ListingQuery { filter, cursor, limit, with_text, with_vectors } = query;
        let most = self.config.limits.batch_max;
        if !(1..=most).contains(&limit) {
            return Err(out_of_range("limit", 1, most, limit));
        }
        let backend = self.find(collection)?;
        // Held, so that the page is of the same collection as its cursor.
        let kept = backend.ready().await?;
        let identity = backend.identity().await?;
        let narrowed = self.pools().work(move || {
            let narrowed = filter.as_ref().map(Filter::to_string).unwrap_or_default();
            let scope = Scope::new("documents by id", &identity, &narrowed);
            let after = cursor.map(|cursor| scope.key(&cursor)).transpose().map_err(EngineError::from)?;
            let after = after.map(PointId::new).transpose()?;
            Ok::<_, EngineError>((scope, PageQuery { filter, after, limit, with_text, with_vectors }))
        });
        let (scope, query) = narrowed.await??;
        let page = backend.scroll(query, room).await?;
        drop(kept);
        let next_cursor = page.next.map(|id| scope.after(id.as_str()));
        Ok(Listing { points: page.points, next_cursor, hints: page.hints, scope })
    }

    /// Counts the documents that match; all of them without a filter.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`]; filter errors.
    pub async fn count(&self, collection: &str, filter: Option<Filter>) -> Result<u64> {
        self.find(collection)?.count(filter).await
    }

    /// What should be said of a filter besides its answer, such as a field that no document has; empty as a rule.
    /// [`Engine::search`] and [`Engine::scroll`] bring theirs with them.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`].
    pub async fn hints(&self, collection: &str, filter: Filter) -> Result<Vec<String>> {
        self.find(collection)?.hints(filter).await
    }

    /// Looks at the disk, and lets collections that found no room on it take writes again once there is room. What it
    /// finds, [`Engine::healthy`] says. One look at a time: a second one answers at once.
    pub async fn examine(&self) {
        if self.is_closing() || self.examining.swap(true, Ordering::SeqCst) {
            return;
        }
        let (names, looking) = (Arc::clone(&self.names), Looking(Arc::clone(&self.examining)));
        let looked = self.threads.work(move || {
            // Goes with this closure: when the look is over, and also if it never begins since nobody waits any more.
            let _looking = looking;
            names.examine();
        });
        // A look that panicked is logged where it ran, and the next one tries again.
        let _ = looked.await;
    }

    /// Whether every collection takes writes and everything that [`Engine::probe`] looks at moves; the reason if not.
    /// Only looks at what is known. For the health service.
    ///
    /// # Errors
    /// The reason, as a sentence.
    pub fn healthy(&self) -> std::result::Result<(), String> {
        if self.is_closing() {
            return Err("shutting down".to_owned());
        }
        self.names.failed().or_else(|| self.vitals.fault(self.encoders.as_deref())).map_or(Ok(()), Err)
    }

    /// Sends small jobs through every pool, every writer and to the disk, unless they are under way already. What does
    /// not answer within `server.health_timeout` shows in [`Engine::healthy`] until it does. Waits for nothing; call it
    /// every second or so.
    pub fn probe(&self) {
        if !self.is_closing() {
            self.vitals.probe(&self.threads, &self.names);
            self.names.close_idle(self.config.data.close_after);
        }
    }

    /// What is wrong in the data folder and what to do about it: collections that cannot be opened, folders that belong
    /// to none, a catalogue that had to be made anew. What is not named here is served.
    pub fn findings(&self) -> Vec<Finding> {
        self.names.findings()
    }

    /// Whether [`Engine::close`] was called: then not being healthy is no fault.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Waits until every stored vector is in its graph. For benches and evaluation.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`].
    pub async fn wait_indexed(&self, collection: &str) -> Result<()> {
        self.find(collection)?.wait_indexed().await
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
        threads::apart("close", move || {
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

    fn ids(&self, ids: &[String]) -> Result<Vec<PointId>> {
        let limit = self.config.limits.batch_max;
        if ids.is_empty() || ids.len() > limit {
            return Err(out_of_range("the number of ids", 1, limit, ids.len()));
        }
        Ok(ids.iter().map(|id| PointId::new(id.as_str())).collect::<Result<_, _>>()?)
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

    fn bulk_room(&self) -> u32 {
        self.bulk_room
    }
}

async fn delete_ids(backend: &dyn Backend, mut ids: Vec<PointId>) -> Result<u64> {
    // One id twice is one deletion.
    ids.sort_unstable();
    ids.dedup();
    let outcomes = backend.write(ids.into_iter().map(Write::Delete).collect()).await?;
    Ok(outcomes.iter().filter(|o| **o == Outcome::Deleted).count() as u64)
}

/// Runs what opens, makes or closes collections. It may wait long for the disk, for a name, or for room among the open
/// ones; whoever has that room may need a pool to give it back, so this takes no thread of one.
async fn apart<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, EngineError> {
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
