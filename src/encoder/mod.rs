//! The encoder turns text into vectors; this module is its one entrance.

use std::{
    borrow::Cow,
    ops::Range,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    config::EncoderConfig,
    error::{ErrorKind, Fault},
    model::{Fingerprint, ModelDir},
    onnx::Layout,
    runtime::{DeviceReport, Plan, Precision, Session},
    threads::{large::Large, share::share},
    vector::{Dim, VectorError},
};

mod cache;
mod chunk;
mod pieces;
mod pulse;
mod registry;
mod scheduler;
mod ticket_lock;
mod tokenize;
pub mod tune;

use crate::{model::ModelError, onnx::OnnxError, runtime::RuntimeError};
pub use cache::Unfinished;
use cache::{QueryCache, UnfinishedCache, UnfinishedPart};
pub use chunk::sentences;
use pieces::PIECE_BYTES;
pub use registry::Encoders;
pub use scheduler::{CancelOnDrop, EncoderCounters};
use scheduler::{Lanes, Scheduler, Text, Texts};
use ticket_lock::TicketLock;
use tokenize::TokenPlaces;
pub(crate) use tokenize::Tokenizer;
use tune::{fidelity::Fidelity, tuned::Tuned};

/// Most tokens of a title that are encoded in front of each passage.
pub const TITLE_TOKENS_MAX: usize = 64;
/// The share of a passage that its title may take: one in so many tokens.
pub const TITLE_SHARE: usize = 4;

/// Fewer texts than this, or fewer bytes, are tokenized on the calling thread only.
const PARALLEL_TEXTS_MIN: usize = 8;
const PARALLEL_BYTES_MIN: usize = 4 << 10;

/// Which of the model's prompts goes in front of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextKind {
    /// No prompt.
    Raw,
    /// The prompt for queries.
    Query,
    /// The prompt for documents.
    Document,
}

/// The priority of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A person waits for it: it goes before bulk.
    Query,
    /// Documents, which yield to queries.
    Bulk,
}

/// A text as a vector.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embedding {
    /// The vector: as many values as the model's dimension, of unit length if the model normalises.
    pub values: Vec<f32>,
    /// Tokens of the whole text, special tokens included.
    pub tokens: u32,
    /// Whether tokens beyond the model's limit were not encoded.
    pub truncated: bool,
    /// Words of the whole text that are one unknown token each: the vocabulary cannot spell them, or they have more than
    /// 100 characters.
    pub unknown: u32,
}

/// How one request's time was spent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EncodeTimes {
    /// Time to tokenize the texts.
    pub tokenize: Duration,
    /// Time in the queue.
    pub queue: Duration,
    /// Time to compute the vectors.
    pub encode: Duration,
    /// The vectors were in the cache: nothing was tokenized, queued or encoded.
    pub cached: bool,
}

/// Limits for cutting long texts into passages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunking {
    /// Tokens per passage, special tokens not counted; clamped to what the model takes.
    pub max_tokens: usize,
    /// Tokens shared with the passage before, in whole sentences; below `max_tokens`.
    pub overlap_tokens: usize,
}

/// A loaded model: tokenizer, session and scheduler. It is cheap to share (`Arc`) and safe to use from any thread. Its
/// last owner may let go of it on an async thread: it is freed beside those.
///
/// ```no_run
/// use distilface::{config::Config, encoder::{Encoder, TextKind}, model::ModelDir};
///
/// let config = Config::default();
/// let model = ModelDir::find(&config.data.home, &config.encoder.model).unwrap();
/// let encoder = Encoder::open(&model, &config.data.home, &config.encoder).unwrap();
/// let embeddings = encoder.encode(&["Where is the station?"], TextKind::Query).unwrap();
/// assert_eq!(embeddings[0].values.len(), encoder.dim().len());
/// ```
#[derive(Debug)]
pub struct Encoder {
    model: ModelDir,
    dim: Dim,
    layout: Layout,
    device: DeviceReport,
    common: Arc<Common>,
    parts: Large<Parts>,
}

/// What is large of an encoder, or has threads that its end waits for.
#[derive(Debug)]
struct Parts {
    tokenizer: Arc<Tokenizer>,
    queries: Option<Arc<QueryCache>>,
    unfinished: Arc<UnfinishedCache>,
    scheduler: Scheduler,
}

/// What the encoders of one process share: their counters, and the processor that they use in turn.
#[derive(Debug, Default)]
struct Common {
    counters: EncoderCounters,
    queries: TicketLock,
    bulk: TicketLock,
}

impl Encoder {
    /// Loads the model on the device that `config` names, with libraries from `home`.
    ///
    /// # Errors
    /// Model and runtime errors; [`EncoderError::Tokenizer`].
    pub fn open(model: &ModelDir, home: &Path, config: &EncoderConfig) -> Result<Self, OpenError> {
        Encoder::open_among(model, home, config, Arc::default())
    }

    fn open_among(
        model: &ModelDir,
        home: &Path,
        config: &EncoderConfig,
        common: Arc<Common>,
    ) -> Result<Self, OpenError> {
        let manifest = &model.manifest;
        let dim = Dim::new(manifest.dimension)?;
        let tokenizer = Tokenizer::open(&model.tokenizer_path(), manifest.max_tokens)?;
        if tokenizer.vocabulary() > manifest.shape.vocabulary {
            return Err(EncoderError::Tokenizer {
                path: model.tokenizer_path().display().to_string(),
                reason: format!(
                    "it has {} tokens, but the weights have {}; they do not belong together",
                    tokenizer.vocabulary(),
                    manifest.shape.vocabulary
                ),
            }
            .into());
        }
        let packable = manifest.quantised.is_none();
        let tuned = tuned(home, config, packable);
        let config = tuned.as_ref().map_or(config, |(config, _)| config);
        let (place, precision) = (config.device.parse()?, config.precision.parse()?);
        let mut plan = Plan::new(home, place, precision, packable)?;
        let mut device = plan.report().clone();
        if let Some((_, reason)) = &tuned {
            device.reason.clone_from(reason);
        }
        // Only what the user asked for by name goes unchecked.
        if plan.layout() == Layout::Packed && (precision == Precision::Auto || tuned.is_some()) {
            let near = Fidelity::of(model, home, config)?;
            if !near.is_enough() {
                plan = Plan::new(home, place, Precision::Auto, false)?;
                device = plan.report().clone();
                device.reason = format!(
                    "{}; 8 bits would move this model's vectors too far (mean cosine {:.4}, least {:.4})",
                    device.reason, near.cosine_mean, near.cosine_least
                );
            }
        }
        let layout = plan.layout();
        let file = model.onnx_path_of(layout)?;
        let threads = config.threads;
        let scheduler = Scheduler::start(Lanes {
            layout,
            query_lane: plan.shares_the_processor(),
            open: Box::new(move || Session::open(&plan, &file, threads)),
            bulk_niceness: config.bulk_niceness,
            dim: dim.len(),
            batch_tokens_max: config.batch_tokens_max,
            queue_max: config.queue_max,
            common: Arc::clone(&common),
        })?;
        let queries = QueryCache::new(config.query_cache).map(Arc::new);
        let encoder = Encoder {
            model: model.clone(),
            dim,
            layout,
            device,
            common,
            parts: Large::new(Parts {
                tokenizer: Arc::new(tokenizer),
                queries,
                unfinished: Arc::new(UnfinishedCache::new(dim.len())),
                scheduler,
            }),
        };
        // The first run of a session allocates and compiles: better now than in the first request.
        encoder.encode(&["warm"], TextKind::Raw)?;
        Ok(encoder)
    }

    /// Name of the model.
    pub fn name(&self) -> &str {
        &self.model.manifest.name
    }

    /// The model's fingerprint, which a collection records.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.model.fingerprint
    }

    /// The dimension of its vectors.
    pub fn dim(&self) -> Dim {
        self.dim
    }

    /// The model's limit in tokens, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.model.manifest.max_tokens
    }

    /// Tokens of a text that fit beside the special ones.
    pub fn room(&self) -> usize {
        self.parts.tokenizer.room()
    }

    /// The device that it runs on, and why.
    pub fn device(&self) -> &DeviceReport {
        &self.device
    }

    /// The directory and manifest it was opened with.
    pub fn model(&self) -> &ModelDir {
        &self.model
    }

    /// Why the encoder is not healthy, if one of its lanes hangs, fails or is gone. This never waits.
    pub(crate) fn fault(&self, patience: Duration) -> Option<String> {
        self.parts.scheduler.fault(patience)
    }

    /// Counters since the start, shared with the other encoders of its [`Encoders`].
    pub fn counters(&self) -> &EncoderCounters {
        &self.common.counters
    }

    /// Token ids as the graph sees them, special tokens included, cut at the model's limit; and the count before the cut.
    ///
    /// # Errors
    /// [`EncoderError::Failed`].
    pub fn token_ids(&self, text: &str) -> Result<(Vec<u32>, usize), EncoderError> {
        let tokens = self.parts.tokenizer.encode(text)?;
        Ok((tokens.ids, tokens.count))
    }

    /// Makes the value of [`Limits::unfinished`] for a request of many texts.
    pub fn unfinished(&self) -> Arc<Unfinished> {
        Arc::new(Unfinished::new(Arc::clone(&self.parts.unfinished)))
    }

    /// The cached vectors of queries, if all of them are cached.
    fn known(&self, texts: &[impl AsRef<str>], kind: TextKind) -> Option<(Vec<Embedding>, EncodeTimes)> {
        let cache = self.parts.queries.as_ref()?;
        let embeddings = cache.get(kind, texts);
        let counter = match embeddings {
            Some(_) => &self.counters().cache_hits,
            None => &self.counters().cache_misses,
        };
        counter.fetch_add(texts.len() as u64, Ordering::Relaxed);
        Some((embeddings?, EncodeTimes { cached: true, ..EncodeTimes::default() }))
    }

    /// Queues texts; `done` is called once, from the encoder thread or (if refused) from this one, and must not block.
    /// A request whose deadline passed or whose `cancelled` flag is set leaves the queue before it costs anything.
    /// Tokenizes on the calling thread, many texts also on idle threads of the rayon pool it belongs to, and stops between
    /// texts and pieces of a long one when nobody waits any more.
    pub fn submit(&self, texts: Vec<String>, kind: TextKind, class: Class, limits: Limits, done: EncodeDone) {
        let started = Instant::now();
        let texts = Arc::new(texts);
        let done = match &self.parts.queries {
            Some(cache) if class == Class::Query => {
                if let Some(known) = self.known(&texts, kind) {
                    return done(Ok(known));
                }
                let (cache, texts) = (Arc::clone(cache), Arc::clone(&texts));
                Box::new(move |result: Encoded| {
                    if let Ok((embeddings, _)) = &result {
                        cache.put(kind, &texts, embeddings);
                    }
                    done(result);
                })
            }
            _ => done,
        };
        let prompt = match kind {
            TextKind::Raw => "",
            TextKind::Query => &self.model.manifest.prompts.query,
            TextKind::Document => &self.model.manifest.prompts.document,
        };
        let unfinished = limits.unfinished.as_ref().map(|unfinished| Arc::new(unfinished.part(kind, &texts)));
        let (count, bytes) = (texts.len(), texts.iter().map(String::len).sum::<usize>());
        let tokenizing = Tokenizing {
            tokenizer: Arc::clone(&self.parts.tokenizer),
            prompt: prompt.to_owned(),
            texts,
            unfinished: unfinished.clone(),
            limits: limits.clone(),
        };
        let tokens: Result<Vec<_>, _> = if count < PARALLEL_TEXTS_MIN || bytes < PARALLEL_BYTES_MIN {
            (0..count).map(|place| tokenizing.text(place)).collect()
        } else {
            share(count, move |place| tokenizing.text(place))
        };
        match tokens {
            Ok(tokens) => {
                let texts = Texts { texts: tokens, unfinished, tokenize: started.elapsed() };
                self.parts.scheduler.submit(texts, class, limits, done);
            }
            Err(error) => done(Err(error)),
        }
    }

    /// Encodes texts as bulk and waits for them; gives one embedding per text, in order. Never call it from async code.
    ///
    /// # Errors
    /// [`EncoderError`].
    pub fn encode(&self, texts: &[impl AsRef<str>], kind: TextKind) -> Result<Vec<Embedding>, EncoderError> {
        self.encode_as(texts, kind, Class::Bulk)
    }

    /// Encodes as [`Encoder::encode`] does, with the given priority.
    ///
    /// # Errors
    /// [`EncoderError`].
    pub fn encode_as(
        &self,
        texts: &[impl AsRef<str>],
        kind: TextKind,
        class: Class,
    ) -> Result<Vec<Embedding>, EncoderError> {
        self.encode_timed(texts, kind, class).map(|(embeddings, _)| embeddings)
    }

    /// Encodes as [`Encoder::encode_as`] does, and measures where the time went.
    ///
    /// # Errors
    /// [`EncoderError`].
    pub fn encode_timed(
        &self,
        texts: &[impl AsRef<str>],
        kind: TextKind,
        class: Class,
    ) -> Result<(Vec<Embedding>, EncodeTimes), EncoderError> {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        self.submit(
            texts.iter().map(|text| text.as_ref().to_owned()).collect(),
            kind,
            class,
            Limits::default(),
            Box::new(move |result| {
                // The receiver only goes if its thread panicked.
                let _ = send.send(result);
            }),
        );
        receive.recv().map_err(|_| EncoderError::Closed)?
    }

    /// The text that is encoded for a passage: the title stands in front, as in retrieval benchmarks (BEIR, Thakur et
    /// al. 2021).
    /// `title` is what [`Encoder::short_title`] leaves of it, so that there is room for the passage.
    pub fn passage_text<'a>(title: &str, passage: &'a str) -> Cow<'a, str> {
        if title.is_empty() || passage.starts_with(title) {
            Cow::Borrowed(passage)
        } else if passage.is_empty() {
            Cow::Owned(title.to_owned())
        } else {
            Cow::Owned(format!("{title} {passage}"))
        }
    }

    /// The beginning of `title` that is encoded in front of every passage of `text`: whole words, at most a quarter of a
    /// passage and at most [`TITLE_TOKENS_MAX`] tokens. A title without a text is what is encoded, and stays whole.
    ///
    /// # Errors
    /// [`EncoderError::Failed`].
    pub fn short_title<'a>(
        &self,
        title: &'a str,
        text: &str,
        chunking: Option<Chunking>,
    ) -> Result<&'a str, EncoderError> {
        let window = chunking.map_or(self.room(), |chunking| chunking.max_tokens.min(self.room()));
        let tokens_max = (window / TITLE_SHARE).clamp(1, TITLE_TOKENS_MAX);
        // A token has at least one byte.
        if title.len() <= tokens_max || text.is_empty() {
            return Ok(title);
        }
        let places = self.parts.tokenizer.places_while(title, tokens_max, PIECE_BYTES, &|| Ok(()))?;
        if places.ranges.len() <= tokens_max {
            return Ok(title);
        }
        let last = (1..=tokens_max).rev().find(|&token| places.begins_word[token]).unwrap_or(tokens_max);
        Ok(title[..title.floor_char_boundary(places.ranges[last].start)].trim_end())
    }

    /// Cuts `text` into passages of whole sentences (or words, where a sentence is too long): byte ranges, in order,
    /// that together cover everything but white space. A short text gives one range; an empty one gives `0..0`.
    /// Room is kept for the document prompt and for the title, as [`Encoder::short_title`] leaves it, which are encoded
    /// in front of every passage.
    ///
    /// # Errors
    /// [`EncoderError::Chunking`] if the overlap is not below the maximum or the maximum is 0;
    /// [`EncoderError::Expired`] and [`EncoderError::Cancelled`] if nobody waits any more.
    pub fn chunk(
        &self,
        title: &str,
        text: &str,
        chunking: Chunking,
        limits: &Limits,
    ) -> Result<Vec<Range<usize>>, EncoderError> {
        let Chunking { max_tokens, overlap_tokens } = chunking;
        if max_tokens == 0 || overlap_tokens >= max_tokens {
            return Err(EncoderError::Chunking {
                reason: format!(
                    "max_tokens must be above 0 and above overlap_tokens; got {max_tokens} and {overlap_tokens}"
                ),
            });
        }
        let window = max_tokens.min(self.room());
        let mut room = window;
        for front in [title, &self.model.manifest.prompts.document] {
            if !front.is_empty() {
                room = room.saturating_sub(self.parts.tokenizer.places(front)?.ranges.len());
            }
        }
        // A title takes a quarter at most; a prompt that leaves nothing would make passages of single tokens.
        let room = room.max(window / 2).max(1);
        // A token has at least one byte, so most short texts need no look at their tokens.
        if text.len() <= room {
            return Ok(chunk::passages(text, &TokenPlaces::default(), room, 0));
        }
        let places = self.parts.tokenizer.places_while(text, usize::MAX, PIECE_BYTES, &|| limits.check())?;
        Ok(chunk::passages(text, &places, room, overlap_tokens.min(room - 1)))
    }
}

/// The texts of a request, with what it takes to tokenize them on any thread.
struct Tokenizing {
    tokenizer: Arc<Tokenizer>,
    prompt: String,
    texts: Arc<Vec<String>>,
    unfinished: Option<Arc<UnfinishedPart>>,
    limits: Limits,
}

impl Tokenizing {
    /// What goes into the queue for the text at `place`.
    fn text(&self, place: usize) -> Result<Text, EncoderError> {
        self.limits.check()?;
        if let Some(known) = self.unfinished.as_ref().and_then(|part| part.get(place)) {
            return Ok(Text::Known(known));
        }
        let text = match self.prompt.as_str() {
            "" => Cow::Borrowed(&*self.texts[place]),
            prompt => Cow::Owned(format!("{prompt}{}", self.texts[place])),
        };
        self.tokenizer.encode_while(&text, PIECE_BYTES, &|| self.limits.check()).map(Text::Tokens)
    }
}

/// `config` with what was measured on this machine in place of `auto`, and a sentence that says so; `None` where
/// nothing was measured or the user chose.
fn tuned(home: &Path, config: &EncoderConfig, packable: bool) -> Option<(EncoderConfig, String)> {
    if config.device != "auto" || config.precision != "auto" {
        return None;
    }
    let tuned = Tuned::load(home).filter(|tuned| packable || tuned.precision != "int8")?;
    let reason = format!(
        "the fastest here by `distilface bench encode --save`: {:.1} documents/s, cosine {:.5}",
        tuned.documents_per_second, tuned.cosine_mean
    );
    let usual = EncoderConfig::default();
    let chosen = EncoderConfig {
        device: tuned.device,
        precision: tuned.precision,
        threads: if config.threads == usual.threads { tuned.threads } else { config.threads },
        batch_tokens_max: if config.batch_tokens_max == usual.batch_tokens_max {
            tuned.batch_tokens_max
        } else {
            config.batch_tokens_max
        },
        ..config.clone()
    };
    Some((chosen, reason))
}

/// A queued request's deadline, client, and where its vectors are kept.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Time after which the request is refused instead of encoded. Default: none.
    pub deadline: Option<Instant>,
    /// Becomes true when nobody waits for the request any more. Default: none.
    pub cancelled: Option<Arc<std::sync::atomic::AtomicBool>>,
    /// Number of the client, since clients are served in turn. Default 0.
    pub client: u64,
    /// Keeps each vector as it is computed, so that a request that ends early can continue when it is sent
    /// again; from [`Encoder::unfinished`]. Default: none.
    pub unfinished: Option<Arc<Unfinished>>,
}

impl Limits {
    /// # Errors
    /// [`EncoderError::Cancelled`], [`EncoderError::Expired`]: nobody waits any more.
    fn check(&self) -> Result<(), EncoderError> {
        if self.cancelled.as_ref().is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
            return Err(EncoderError::Cancelled);
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(EncoderError::Expired);
        }
        Ok(())
    }
}

/// Receives one embedding per text, in order, and where the time went.
pub type EncodeDone = Box<dyn FnOnce(Encoded) + Send>;

type Encoded = Result<(Vec<Embedding>, EncodeTimes), EncoderError>;

/// Why text was not encoded.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum EncoderError {
    #[error("the tokenizer {path} cannot be used: {reason}")]
    Tokenizer { path: String, reason: String },
    #[error("chunking: {reason}")]
    Chunking { reason: String },
    #[error(
        "calibration needs at least {} texts that are not empty, and there are {got}",
        tune::calibrate::CALIBRATION_TEXTS_MIN
    )]
    Calibration { got: usize },
    #[error("the encoder's queue is full ({limit} texts wait); retry later")]
    QueueFull { limit: usize },
    #[error("the deadline passed before the text was encoded")]
    Expired,
    #[error("the request was cancelled")]
    Cancelled,
    #[error("the encoder is shutting down")]
    Closed,
    #[error("inference failed: {reason}")]
    Failed { reason: String },
    #[error("the model gave a vector that is not finite; it cannot be stored")]
    NotFinite,
    #[error(
        "the tokenizer finds no token in the text, so there is nothing to encode; give it words that this model knows"
    )]
    NoTokens,
}

/// Why an encoder could not be opened, or measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error(transparent)]
#[expect(missing_docs, reason = "each variant wraps the error of the module it is named after")]
pub enum OpenError {
    Encoder(#[from] EncoderError),
    Model(#[from] ModelError),
    Onnx(#[from] OnnxError),
    Runtime(#[from] RuntimeError),
    Vector(#[from] VectorError),
}

impl Fault for OpenError {
    fn kind(&self) -> ErrorKind {
        match self {
            OpenError::Encoder(e) => e.kind(),
            OpenError::Model(e) => e.kind(),
            OpenError::Onnx(e) => e.kind(),
            OpenError::Runtime(e) => e.kind(),
            OpenError::Vector(e) => e.kind(),
        }
    }
}

impl Fault for EncoderError {
    fn kind(&self) -> ErrorKind {
        match self {
            EncoderError::Tokenizer { .. } => ErrorKind::Precondition,
            EncoderError::Chunking { .. } | EncoderError::Calibration { .. } | EncoderError::NoTokens => {
                ErrorKind::Invalid
            }
            EncoderError::QueueFull { .. } => ErrorKind::Overloaded,
            EncoderError::Expired => ErrorKind::Timeout,
            EncoderError::Cancelled | EncoderError::Closed => ErrorKind::Unavailable,
            EncoderError::Failed { .. } | EncoderError::NotFinite => ErrorKind::Internal,
        }
    }
}

#[cfg(test)]
mod tests;
