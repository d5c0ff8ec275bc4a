//! Text -> vector: the one way in.

use std::{
    borrow::Cow,
    ops::Range,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde::{Deserialize, Serialize};

use crate::{
    config::EncoderConfig,
    error::ErrorKind,
    model::{Fingerprint, ModelDir},
    onnx::Layout,
    runtime::{DeviceReport, Plan, Precision, Session},
    vector::Dim,
};

pub mod arithmetic;
mod cache;
pub mod calibrate;
mod chunk;
mod loaded;
pub mod nearness;
mod scheduler;
mod tokenize;
pub mod tuned;
mod turns;

use cache::QueryCache;
pub use chunk::sentences;
pub use loaded::Encoders;
use nearness::Nearness;
pub use scheduler::{CancelOnDrop, EncoderCounters};
use scheduler::{Lanes, Scheduler};
use tokenize::TokenPlaces;
pub(crate) use tokenize::Tokenizer;
use tuned::Tuned;
use turns::Turns;

/// Fewer texts than this are tokenized on the calling thread alone.
const PARALLEL_TEXTS_MIN: usize = 8;

/// Which of the model's prompts goes in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum TextKind {
    Raw,
    Query,
    Document,
}

/// Queries go before bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Class {
    Query,
    Bulk,
}

/// A text as a vector.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embedding {
    #[expect(missing_docs)]
    pub values: Vec<f32>,
    /// Of the whole text, special tokens included.
    pub tokens: u32,
    /// Tokens past the model's limit were not encoded.
    pub truncated: bool,
}

/// Where the time of one request went.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct EncodeTimes {
    pub tokenize: Duration,
    pub queue: Duration,
    pub encode: Duration,
}

/// How long texts are cut into passages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunking {
    /// Tokens per passage, special tokens not counted; clamped to what the model takes.
    pub max_tokens: usize,
    /// Tokens shared with the passage before, in whole sentences; below `max_tokens`.
    pub overlap_tokens: usize,
}

/// A loaded model: tokenizer, session and scheduler. Cheap to share (`Arc`), safe from any thread.
#[derive(Debug)]
pub struct Encoder {
    model: ModelDir,
    dim: Dim,
    layout: Layout,
    device: DeviceReport,
    tokenizer: Tokenizer,
    queries: Option<Arc<QueryCache>>,
    common: Arc<Common>,
    scheduler: Scheduler,
}

/// What the encoders of one process have in common: their counts, and the processor that they compute on in turn.
#[derive(Debug, Default)]
struct Common {
    counters: EncoderCounters,
    queries: Turns,
    bulk: Turns,
}

impl Encoder {
    /// Loads the model on the device that `config` names, with libraries from `home`.
    ///
    /// # Errors
    /// Model and runtime errors; [`EncoderError::Tokenizer`].
    pub fn open(model: &ModelDir, home: &Path, config: &EncoderConfig) -> crate::Result<Self> {
        Encoder::open_among(model, home, config, Arc::default())
    }

    fn open_among(
        model: &ModelDir,
        home: &Path,
        config: &EncoderConfig,
        common: Arc<Common>,
    ) -> crate::Result<Self> {
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
            let near = Nearness::of(model, home, config)?;
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
        let encoder =
            Encoder { model: model.clone(), dim, layout, device, tokenizer, queries, common, scheduler };
        // The first run of a session allocates and compiles: better now than in the first request.
        encoder.encode(&["warm"], TextKind::Raw)?;
        Ok(encoder)
    }

    /// Name of the model.
    pub fn name(&self) -> &str {
        &self.model.manifest.name
    }

    /// What a collection records.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.model.fingerprint
    }

    /// Length of its vectors.
    pub fn dim(&self) -> Dim {
        self.dim
    }

    /// Special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.model.manifest.max_tokens
    }

    /// Tokens of a text that fit beside the special ones.
    pub fn room(&self) -> usize {
        self.tokenizer.room()
    }

    /// Where it runs and why there.
    pub fn device(&self) -> &DeviceReport {
        &self.device
    }

    /// The directory and manifest it was opened with.
    pub fn model(&self) -> &ModelDir {
        &self.model
    }

    /// Counts since the start, those of the encoders beside it in [`Encoders`] included.
    pub fn counters(&self) -> &EncoderCounters {
        &self.common.counters
    }

    /// Token ids as the graph sees them, special tokens included, cut at the model's limit; and the count before the cut.
    ///
    /// # Errors
    /// [`EncoderError::Failed`].
    pub fn token_ids(&self, text: &str) -> Result<(Vec<u32>, usize), EncoderError> {
        let tokens = self.tokenizer.encode(text)?;
        Ok((tokens.ids, tokens.count))
    }

    /// Queues texts; `done` is called once, from the encoder thread or (if refused) from this one, and must not block.
    /// A request whose deadline passed or whose `cancelled` flag is set leaves the queue before it costs anything.
    /// Tokenizes on the calling thread, many texts on the rayon pool it belongs to.
    pub fn submit(
        &self,
        texts: &[impl AsRef<str> + Sync],
        kind: TextKind,
        class: Class,
        limits: Limits,
        done: EncodeDone,
    ) {
        let started = Instant::now();
        let done = match &self.queries {
            Some(cache) if class == Class::Query => {
                let counters = self.counters();
                if let Some(embeddings) = cache.get(kind, texts) {
                    counters.cache_hits.fetch_add(texts.len() as u64, Ordering::Relaxed);
                    return done(Ok((embeddings, EncodeTimes::default())));
                }
                counters.cache_misses.fetch_add(texts.len() as u64, Ordering::Relaxed);
                let cache = Arc::clone(cache);
                let texts: Vec<String> = texts.iter().map(|text| text.as_ref().to_owned()).collect();
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
        let encode = |text: &str| match prompt {
            "" => self.tokenizer.encode(text),
            prompt => self.tokenizer.encode(&format!("{prompt}{text}")),
        };
        let tokens: Result<Vec<_>, _> = if texts.len() < PARALLEL_TEXTS_MIN {
            texts.iter().map(|t| encode(t.as_ref())).collect()
        } else {
            texts.par_iter().map(|t| encode(t.as_ref())).collect()
        };
        match tokens {
            Ok(tokens) => self.scheduler.submit(tokens, started.elapsed(), class, limits, done),
            Err(error) => done(Err(error)),
        }
    }

    /// [`Encoder::submit`] as bulk, waiting; one embedding per text, in order. Never call it from async code.
    ///
    /// # Errors
    /// [`EncoderError`].
    pub fn encode(
        &self,
        texts: &[impl AsRef<str> + Sync],
        kind: TextKind,
    ) -> Result<Vec<Embedding>, EncoderError> {
        self.encode_as(texts, kind, Class::Bulk)
    }

    /// [`Encoder::encode`] in a class of one's choice.
    ///
    /// # Errors
    /// [`EncoderError`].
    pub fn encode_as(
        &self,
        texts: &[impl AsRef<str> + Sync],
        kind: TextKind,
        class: Class,
    ) -> Result<Vec<Embedding>, EncoderError> {
        self.encode_timed(texts, kind, class).map(|(embeddings, _)| embeddings)
    }

    /// [`Encoder::encode_as`], and where the time went.
    ///
    /// # Errors
    /// [`EncoderError`].
    pub fn encode_timed(
        &self,
        texts: &[impl AsRef<str> + Sync],
        kind: TextKind,
        class: Class,
    ) -> Result<(Vec<Embedding>, EncodeTimes), EncoderError> {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        self.submit(
            texts,
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

    /// What is encoded for a passage: the title in front, as retrieval benchmarks do (BEIR, Thakur et al. 2021).
    pub fn passage_text<'a>(title: &str, passage: &'a str) -> Cow<'a, str> {
        if title.is_empty() || passage.starts_with(title) {
            Cow::Borrowed(passage)
        } else if passage.is_empty() {
            Cow::Owned(title.to_owned())
        } else {
            Cow::Owned(format!("{title} {passage}"))
        }
    }

    /// Cuts `text` into passages of whole sentences (or words, where a sentence is too long): byte ranges, in order,
    /// that together cover everything but white space. A short text gives one range; an empty one gives `0..0`.
    /// Room is kept for the title and the document prompt, which are encoded in front of every passage.
    ///
    /// # Errors
    /// [`EncoderError::Chunking`] if the overlap is not below the maximum or the maximum is 0.
    pub fn chunk(
        &self,
        title: &str,
        text: &str,
        chunking: Chunking,
    ) -> Result<Vec<Range<usize>>, EncoderError> {
        let Chunking { max_tokens, overlap_tokens } = chunking;
        if max_tokens == 0 || overlap_tokens >= max_tokens {
            return Err(EncoderError::Chunking {
                reason: format!(
                    "max_tokens must be above 0 and above overlap_tokens; got {max_tokens} and {overlap_tokens}"
                ),
            });
        }
        let mut room = max_tokens.min(self.room());
        for front in [title, &self.model.manifest.prompts.document] {
            if !front.is_empty() {
                room = room.saturating_sub(self.tokenizer.places(front)?.ranges.len());
            }
        }
        // A title as long as a passage would leave nothing for the text: then its end is what is cut.
        let room = room.max(max_tokens.min(self.room()) / 2).max(1);
        // A token has at least one byte, so most short texts need no look at their tokens.
        if text.len() <= room {
            return Ok(chunk::passages(text, &TokenPlaces::default(), room, 0));
        }
        Ok(chunk::passages(text, &self.tokenizer.places(text)?, room, overlap_tokens.min(room - 1)))
    }
}

/// `config` with what was measured on this machine in the place of `auto`, and that in words; `None` where nothing was,
/// or the user chose.
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

/// Until when a queued request is worth its cost.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Limits {
    pub deadline: Option<Instant>,
    pub cancelled: Option<Arc<std::sync::atomic::AtomicBool>>,
    /// Whose request it is: clients are served in turn.
    pub client: u64,
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
        calibrate::CALIBRATION_TEXTS_MIN
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
}

impl EncoderError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            EncoderError::Tokenizer { .. } => ErrorKind::Precondition,
            EncoderError::Chunking { .. } | EncoderError::Calibration { .. } => ErrorKind::Invalid,
            EncoderError::QueueFull { .. } => ErrorKind::Overloaded,
            EncoderError::Expired => ErrorKind::Timeout,
            EncoderError::Cancelled | EncoderError::Closed => ErrorKind::Unavailable,
            EncoderError::Failed { .. } | EncoderError::NotFinite => ErrorKind::Internal,
        }
    }
}

#[cfg(test)]
mod tests;
