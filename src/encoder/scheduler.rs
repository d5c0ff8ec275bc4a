//! The scheduler packs many small requests into few full batches; it owns the sessions and their threads.
//!
//! There are two classes, queries and bulk, each with its own lane on the processor: a thread and a session. The bulk
//! lane's
//! threads have low priority in the system's scheduler, so a query that arrives while a large batch runs gets the
//! processor at once instead of waiting for the batch. On a device where sessions cannot take turns like that there is
//! one lane, which serves queries first. The query lane loads its session when the first query arrives.
//!
//! A lane never waits for company: while one batch runs, the next one gathers ([`waiting`]).
//! Expired and cancelled requests leave before they cost anything. Lanes of several encoders take turns
//! ([`super::ticket_lock`]).

use std::{
    sync::{Arc, Condvar, Mutex, atomic::AtomicU64, atomic::Ordering, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    Class, Common, Embedding, EncodeDone, EncodeTimes, EncoderError, Limits, OpenError,
    cache::UnfinishedPart, pulse::Pulse, tokenize::Tokens,
};
use crate::{
    onnx::Layout,
    runtime::{RuntimeError, Session},
    threads::priority,
};

mod lanes;
mod request;
mod waiting;

use lanes::{Queue, Shared};
pub use request::CancelOnDrop;
use request::{Progress, Request};
use waiting::{Item, Waiting};

/// Counters since the start, for metrics and benches.
#[derive(Debug, Default)]
pub struct EncoderCounters {
    /// Texts encoded.
    pub texts: AtomicU64,
    /// Tokens encoded, padding excluded.
    pub tokens: AtomicU64,
    /// Tokens encoded, padding included.
    pub padded_tokens: AtomicU64,
    /// Batches run.
    pub batches: AtomicU64,
    /// Time spent in inference, in microseconds.
    pub busy_micros: AtomicU64,
    /// Texts that wait now.
    pub waiting: AtomicU64,
    /// Queries whose vector was in the cache.
    pub cache_hits: AtomicU64,
    /// Queries whose vector was not.
    pub cache_misses: AtomicU64,
}

/// A text on its way into the queue.
pub(super) enum Text {
    Tokens(Tokens),
    /// Its vector is known already.
    Known(Embedding),
}

/// Texts that are answered together.
pub(super) struct Texts {
    pub(super) texts: Vec<Text>,
    /// Where each vector is kept as it comes.
    pub(super) unfinished: Option<Arc<UnfinishedPart>>,
    pub(super) tokenize: Duration,
}

/// The parts that lanes are made from.
pub(super) struct Lanes {
    pub(super) layout: Layout,
    /// Loads the session of a lane, on its thread.
    pub(super) open: Box<dyn Fn() -> Result<Session, RuntimeError> + Send + Sync>,
    /// Whether queries get a lane of their own.
    pub(super) query_lane: bool,
    /// How far the bulk lane yields: the system's niceness, 0 to 19.
    pub(super) bulk_niceness: u8,
    pub(super) dim: usize,
    pub(super) batch_tokens_max: usize,
    pub(super) queue_max: usize,
    pub(super) common: Arc<Common>,
}

/// The queue and its threads. Dropping it answers what waits with [`EncoderError::Closed`].
pub(super) struct Scheduler {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Scheduler {
    /// Returns once the bulk lane's session is loaded.
    ///
    /// # Errors
    /// Those of loading it; [`EncoderError::Failed`] if no thread can be started.
    pub(super) fn start(lanes: Lanes) -> Result<Self, OpenError> {
        let waiting = || Waiting::new(lanes.layout);
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                query: waiting(),
                bulk: waiting(),
                arrivals: 0,
                closed: false,
                query_lane: lanes.query_lane,
            }),
            wake_query: Condvar::new(),
            wake_bulk: Condvar::new(),
            common: lanes.common,
            query_pulse: Pulse::default(),
            bulk_pulse: Pulse::default(),
            in_turn: lanes.query_lane,
            layout: lanes.layout,
            batch_tokens_max: lanes.batch_tokens_max,
            queue_max: lanes.queue_max,
            dim: lanes.dim,
        });
        let open: Arc<dyn Fn() -> Result<Session, RuntimeError> + Send + Sync> = lanes.open.into();
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(work)
                .map_err(|e| EncoderError::Failed { reason: format!("no thread could be started: {e}") })
        };
        let mut scheduler = Scheduler { shared: Arc::clone(&shared), threads: Vec::new() };
        let (loaded, answer) = mpsc::sync_channel(1);
        let (owner, open_bulk, niceness) = (Arc::clone(&shared), Arc::clone(&open), lanes.bulk_niceness);
        scheduler.threads.push(spawn(
            "encoder-bulk",
            Box::new(move || {
                // The session's own threads are started by this one and inherit its niceness.
                if lanes.query_lane {
                    priority::lower(niceness);
                }
                match open_bulk() {
                    Ok(session) => {
                        // The receiver waits below.
                        let _ = loaded.send(Ok(()));
                        owner.work(session, Class::Bulk);
                    }
                    Err(e) => {
                        let _ = loaded.send(Err(e));
                    }
                }
            }),
        )?);
        match answer.recv() {
            Ok(result) => result?,
            Err(_) => return Err(EncoderError::Failed { reason: "loading the graph panicked".into() }.into()),
        }
        if lanes.query_lane {
            scheduler.threads.push(spawn("encoder-query", Box::new(move || shared.query_lane(&*open)))?);
        }
        Ok(scheduler)
    }

    pub(super) fn submit(&self, texts: Texts, class: Class, limits: Limits, done: EncodeDone) {
        let Texts { texts, unfinished, tokenize } = texts;
        // The graph has no vector for no token; a batch of such texts would have no length.
        if texts.iter().any(|text| matches!(text, Text::Tokens(tokens) if tokens.ids.is_empty())) {
            return done(Err(EncoderError::NoTokens));
        }
        let mut embeddings = Vec::with_capacity(texts.len());
        let mut waiting_texts = Vec::new();
        for (place, text) in texts.into_iter().enumerate() {
            embeddings.push(match text {
                Text::Known(embedding) => Some(embedding),
                Text::Tokens(tokens) => {
                    waiting_texts.push((place, tokens));
                    None
                }
            });
        }
        let texts = waiting_texts;
        if texts.is_empty() {
            let times = EncodeTimes { tokenize, ..EncodeTimes::default() };
            return done(Ok((embeddings.into_iter().flatten().collect(), times)));
        }
        let mut queue = self.shared.lock();
        if queue.closed {
            drop(queue);
            return done(Err(EncoderError::Closed));
        }
        let waiting = if class == Class::Query { &queue.query } else { &queue.bulk };
        // A request larger than the whole queue is let in when nothing else waits, or it could never run.
        if waiting.len() > 0 && waiting.len() + texts.len() > self.shared.queue_max {
            drop(queue);
            return done(Err(EncoderError::QueueFull { limit: self.shared.queue_max }));
        }
        let client = limits.client;
        let request = Arc::new(Request {
            state: Mutex::new(Progress { embeddings, left: texts.len(), done: Some(done), started_at: None }),
            unfinished,
            limits,
            tokenize,
            queued_at: Instant::now(),
        });
        self.shared.common.counters.waiting.fetch_add(texts.len() as u64, Ordering::Relaxed);
        for (place, tokens) in texts {
            let arrival = queue.arrivals;
            queue.arrivals += 1;
            let item = Item { request: Arc::clone(&request), place, tokens, arrival };
            let waiting = if class == Class::Query { &mut queue.query } else { &mut queue.bulk };
            waiting.push(client, item);
        }
        let own_lane = class == Class::Query && queue.query_lane;
        drop(queue);
        if own_lane { &self.shared.wake_query } else { &self.shared.wake_bulk }.notify_one();
    }
}

impl Scheduler {
    /// Why a lane is not healthy, if one hangs, fails or is gone.
    pub(super) fn fault(&self, patience: Duration) -> Option<String> {
        let lanes = [("query", &self.shared.query_pulse), ("bulk", &self.shared.bulk_pulse)];
        let fault = lanes
            .iter()
            .find_map(|(name, pulse)| pulse.fault(patience).map(|fault| format!("its {name} lane {fault}")));
        let gone = |lane: usize| self.threads.get(lane).is_some_and(JoinHandle::is_finished);
        // The query lane's thread may end where it handed its work over; the bulk lane's never does.
        let bulk = || gone(0).then(|| "its bulk lane is gone".to_owned());
        let query =
            || (gone(1) && self.shared.lock().query_lane).then(|| "its query lane is gone".to_owned());
        fault.or_else(bulk).or_else(query)
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake_query.notify_all();
        self.shared.wake_bulk.notify_all();
        for thread in self.threads.drain(..) {
            // The last owner may be a callback on an encoder thread itself, which cannot wait for its own end.
            if thread.thread().id() != std::thread::current().id() {
                // Its panics were caught inside; nothing is left to learn from the result.
                let _ = thread.join();
            }
        }
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("common", &self.shared.common).finish_non_exhaustive()
    }
}
