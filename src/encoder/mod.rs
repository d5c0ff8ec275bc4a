//! The encoder turns text into vectors; this module is its one entrance.
//!
//! | file | idea |
//! |---|---|
//! | `open` | a model directory becomes an encoder: device, precision, session |
//! | `request` | what a request says of its texts, and what it gets |
//! | `passages` | long texts and titles are cut into what the model takes |
//! | `tokenize`, `chunk`, `pieces` | text becomes tokens and sentences, piece by piece |
//! | `scheduler`, `ticket_lock`, `pulse` | requests become batches on lanes that take turns |
//! | `cache` | vectors that are kept |
//! | `registry` | the encoders of one process |
//! | [`tune`] | what is measured on this machine, and goes into a choice |

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    model::{Fingerprint, ModelDir},
    onnx::Layout,
    runtime::DeviceReport,
    threads::{large::Large, share::share},
    vector::Dim,
};

mod cache;
mod chunk;
mod error;
mod open;
mod passages;
mod pieces;
mod pulse;
mod registry;
mod request;
mod scheduler;
mod ticket_lock;
mod tokenize;
pub mod tune;

pub use cache::Unfinished;
use cache::{QueryCache, UnfinishedCache, UnfinishedPart};
pub use chunk::sentences;
pub use error::{EncoderError, OpenError};
pub use passages::{Chunking, TITLE_SHARE, TITLE_TOKENS_MAX};
use pieces::PIECE_BYTES;
pub use registry::Encoders;
use request::Encoded;
pub use request::{Class, Embedding, EncodeDone, EncodeTimes, Limits, TextKind};
pub use scheduler::{CancelOnDrop, EncoderCounters};
use scheduler::{Scheduler, Text, Texts};
use ticket_lock::TicketLock;
pub(crate) use tokenize::Tokenizer;

/// Fewer texts than this, or fewer bytes, are tokenized on the calling thread only.
const PARALLEL_TEXTS_MIN: usize = 8;
const PARALLEL_BYTES_MIN: usize = 4 << 10;

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
            // Small documents go with the queries, and would push them out.
            Some(cache) if class == Class::Query && kind != TextKind::Document => {
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

#[cfg(test)]
mod tests;
