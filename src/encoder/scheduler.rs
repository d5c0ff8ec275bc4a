//! Many small requests -> few full batches; owns the sessions and their threads.
//!
//! Two classes, queries and bulk, each with a lane of its own on the processor: a thread and a session. The bulk lane's
//! threads stand back in the system's scheduler, so a query that comes while a large batch runs has the processor at
//! once instead of waiting for the batch. On a device where sessions cannot take turns like that there is one lane,
//! which does queries first. The query lane loads its session when the first query comes.
//!
//! A lane never waits for company: while one batch runs, the next one gathers. A batch is made up of clients in turn.
//! Where the graph pads, it takes texts of one length bucket (padding is at most [`BUCKET_TOKENS`]` - 1` tokens a text),
//! the bucket of the client's longest-waiting text; where it does not, whatever comes next, up to a budget of tokens.
//! Expired and cancelled requests leave before they cost anything. Lanes of several encoders take turns
//! ([`super::turns`]).

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    Class, Common, Embedding, EncodeDone, EncodeTimes, EncoderError, Limits, cache::UnfinishedPart,
    pulse::Pulse, tokenize::Tokens,
};
use crate::{
    onnx::Layout,
    priority,
    runtime::{RuntimeError, Session, TensorView},
};

/// Lengths are rounded up to a multiple of this many tokens.
pub(super) const BUCKET_TOKENS: usize = 8;

/// Counters since the start, for metrics and benches.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct EncoderCounters {
    pub texts: AtomicU64,
    /// Real tokens computed.
    pub tokens: AtomicU64,
    /// Tokens computed, padding included.
    pub padded_tokens: AtomicU64,
    pub batches: AtomicU64,
    pub busy_micros: AtomicU64,
    /// Texts that wait now.
    pub waiting: AtomicU64,
    /// Queries whose vector was known, and those whose was not.
    pub cache_hits: AtomicU64,
    pub cache_misses: AtomicU64,
}

/// A text on its way in.
pub(super) enum Text {
    Tokens(Tokens),
    /// Its vector is known already.
    Known(Embedding),
}

/// Texts that come back together.
pub(super) struct Texts {
    pub(super) texts: Vec<Text>,
    /// Where each vector is kept as it comes.
    pub(super) unfinished: Option<UnfinishedPart>,
    pub(super) tokenize: Duration,
}

/// One request: its texts come back together.
struct Request {
    state: Mutex<Progress>,
    unfinished: Option<UnfinishedPart>,
    limits: Limits,
    tokenize: Duration,
    queued_at: Instant,
}

struct Progress {
    embeddings: Vec<Option<Embedding>>,
    left: usize,
    /// Taken when answered.
    done: Option<EncodeDone>,
    started_at: Option<Instant>,
}

struct Item {
    request: Arc<Request>,
    place: usize,
    tokens: Tokens,
    arrival: u64,
}

/// Texts of one class, by client and then by length bucket, each bucket in order of arrival. Where the graph does not
/// pad, all are of one bucket.
struct Waiting {
    layout: Layout,
    clients: BTreeMap<u64, BTreeMap<usize, VecDeque<Item>>>,
    /// The client that comes after this one is next.
    turn: u64,
    texts: usize,
}

struct Queue {
    query: Waiting,
    bulk: Waiting,
    arrivals: u64,
    closed: bool,
    /// Whether queries have a lane of their own.
    query_lane: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake_query: Condvar,
    wake_bulk: Condvar,
    common: Arc<Common>,
    query_pulse: Pulse,
    bulk_pulse: Pulse,
    /// Whether it computes on the cores that all share, and so in turn.
    in_turn: bool,
    layout: Layout,
    batch_tokens_max: usize,
    queue_max: usize,
    dim: usize,
}

/// What the lanes are made of.
pub(super) struct Lanes {
    pub(super) layout: Layout,
    /// Loads the session of a lane, on its thread.
    pub(super) open: Box<dyn Fn() -> Result<Session, RuntimeError> + Send + Sync>,
    /// Whether queries get a lane of their own.
    pub(super) query_lane: bool,
    /// How far the bulk lane stands back: the system's niceness, 0 to 19.
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
    pub(super) fn start(lanes: Lanes) -> crate::Result<Self> {
        let waiting = || Waiting { layout: lanes.layout, clients: BTreeMap::new(), turn: 0, texts: 0 };
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
                // The session's own threads are started by this one and stand back with it.
                if lanes.query_lane {
                    priority::stand_back(niceness);
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
        if waiting.texts > 0 && waiting.texts + texts.len() > self.shared.queue_max {
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
    /// Why a lane does no good, if one hangs, fails or is gone.
    pub(super) fn fault(&self, patience: Duration) -> Option<String> {
        let lanes = [("query", &self.shared.query_pulse), ("bulk", &self.shared.bulk_pulse)];
        let fault = lanes
            .iter()
            .find_map(|(name, pulse)| pulse.fault(patience).map(|fault| format!("its {name} lane {fault}")));
        // The query lane's thread ends where it hands its work over; the bulk lane's never does.
        let gone = || self.threads.first().is_some_and(JoinHandle::is_finished);
        fault.or_else(|| gone().then(|| "its bulk lane is gone".to_owned()))
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

fn bucket(tokens: usize) -> usize {
    tokens.max(1).div_ceil(BUCKET_TOKENS) * BUCKET_TOKENS
}

impl Waiting {
    fn push(&mut self, client: u64, item: Item) {
        let bucket = match self.layout {
            Layout::Padded | Layout::PaddedHalf => bucket(item.tokens.ids.len()),
            Layout::Packed => 0,
        };
        self.clients.entry(client).or_default().entry(bucket).or_default().push_back(item);
        self.texts += 1;
    }

    /// The next batch and the length it is padded to, if it is; the clients that are served move to the end of the line.
    fn take_batch(&mut self, tokens_max: usize) -> Option<(usize, Vec<Item>)> {
        let next = |clients: &BTreeMap<u64, _>, turn: u64| {
            clients.range(turn.wrapping_add(1)..).chain(clients.range(..)).map(|(&client, _)| client).next()
        };
        let mut batch = Vec::new();
        let client = next(&self.clients, self.turn)?;
        let length = match self.layout {
            Layout::Padded | Layout::PaddedHalf => {
                let buckets = &self.clients[&client];
                let (&length, _) =
                    buckets.iter().min_by_key(|(_, items)| items.front().map_or(u64::MAX, |i| i.arrival))?;
                let rows = (tokens_max / length).max(1);
                self.turn = client;
                // The client whose turn it is first, then whoever has texts of that length.
                let order: Vec<u64> = self
                    .clients
                    .range(client..)
                    .chain(self.clients.range(..client))
                    .map(|(&c, _)| c)
                    .collect();
                for client in order {
                    // The next shorter bucket fills what is left: it wastes no more than a bucket's worth each.
                    for length in [length, length.saturating_sub(BUCKET_TOKENS)] {
                        let n = rows - batch.len();
                        self.take(client, length, n, &mut batch);
                    }
                }
                length
            }
            Layout::Packed => {
                let mut tokens = 0;
                let mut client = Some(client);
                while let Some(turn) = client {
                    let first = self.clients[&turn].values().next().and_then(VecDeque::front);
                    let n = first.map_or(0, |item| item.tokens.ids.len());
                    if !batch.is_empty() && tokens + n > tokens_max {
                        break;
                    }
                    tokens += n;
                    self.take(turn, 0, 1, &mut batch);
                    self.turn = turn;
                    client = next(&self.clients, turn);
                }
                0
            }
        };
        Some((length, batch))
    }

    /// Moves up to `n` texts of one client and bucket.
    fn take(&mut self, client: u64, bucket: usize, n: usize, into: &mut Vec<Item>) {
        let Some(buckets) = self.clients.get_mut(&client) else { return };
        let Some(items) = buckets.get_mut(&bucket) else { return };
        let n = items.len().min(n);
        into.extend(items.drain(..n));
        self.texts -= n;
        if items.is_empty() {
            buckets.remove(&bucket);
        }
        if buckets.is_empty() {
            self.clients.remove(&client);
        }
    }

    fn take_all(&mut self) -> Vec<Item> {
        self.texts = 0;
        std::mem::take(&mut self.clients).into_values().flat_map(BTreeMap::into_values).flatten().collect()
    }
}

impl Request {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers once; later calls do nothing.
    fn fail(&self, error: EncoderError) {
        let done = self.lock().done.take();
        if let Some(done) = done {
            answer(done, Err(error));
        }
    }

    /// Whether the request still wants its texts; answers it if it does not.
    fn is_wanted(&self, now: Instant) -> bool {
        if self.lock().done.is_none() {
            return false;
        }
        if self.limits.cancelled.as_ref().is_some_and(|c| c.load(Ordering::Relaxed)) {
            self.fail(EncoderError::Cancelled);
            return false;
        }
        if self.limits.deadline.is_some_and(|d| d <= now) {
            self.fail(EncoderError::Expired);
            return false;
        }
        true
    }

    fn start(&self, now: Instant) {
        self.lock().started_at.get_or_insert(now);
    }

    fn finish_one(&self, place: usize, embedding: Embedding) {
        if let Some(unfinished) = &self.unfinished {
            unfinished.put(place, &embedding);
        }
        let mut progress = self.lock();
        progress.embeddings[place] = Some(embedding);
        progress.left -= 1;
        if progress.left > 0 {
            return;
        }
        let embeddings = std::mem::take(&mut progress.embeddings).into_iter().flatten().collect();
        let started = progress.started_at.unwrap_or(self.queued_at);
        let times = EncodeTimes {
            tokenize: self.tokenize,
            queue: started.duration_since(self.queued_at),
            encode: started.elapsed(),
            cached: false,
        };
        let done = progress.done.take();
        drop(progress);
        if let Some(done) = done {
            answer(done, Ok((embeddings, times)));
        }
    }
}

/// A callback that panics must not take the thread, and every other request of its batch, with it.
fn answer(done: EncodeDone, result: Result<(Vec<Embedding>, EncodeTimes), EncoderError>) {
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("the receiver of an encoder's answer panicked");
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The query lane's thread: loads its session when there is something to do. If that fails, the bulk lane takes its
    /// work over.
    fn query_lane(&self, open: &(dyn Fn() -> Result<Session, RuntimeError> + Send + Sync)) {
        {
            let mut queue = self.lock();
            while queue.query.texts == 0 && !queue.closed {
                queue = self.wake_query.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.query.texts == 0 {
                return;
            }
        }
        match open() {
            Ok(session) => self.work(session, Class::Query),
            Err(e) => {
                tracing::warn!(error = %e, "queries share a lane with bulk encoding");
                self.lock().query_lane = false;
                self.wake_bulk.notify_all();
            }
        }
    }

    fn work(&self, mut session: Session, lane: Class) {
        let mut input = Input::default();
        while let Some((length, batch)) = self.next_batch(lane) {
            // A bug of ours or of a library must not end the thread that all requests wait for.
            let pulse = if lane == Class::Query { &self.query_pulse } else { &self.bulk_pulse };
            pulse.begins();
            let result = catch_unwind(AssertUnwindSafe(|| {
                self.run_batch(&mut session, lane, length, &batch, &mut input)
            }));
            pulse.ends(match &result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("a batch panicked".to_owned()),
            });
            if result.is_err() {
                tracing::error!("a batch panicked");
                for item in &batch {
                    item.request.fail(EncoderError::Failed { reason: "a batch panicked".into() });
                }
            }
        }
        let left: Vec<Item> = {
            let mut queue = self.lock();
            let mut left = queue.query.take_all();
            left.extend(queue.bulk.take_all());
            left
        };
        for item in left {
            item.request.fail(EncoderError::Closed);
        }
    }

    /// Waits for work; `None` when closed. Items that nobody wants any more are dropped on the way.
    fn next_batch(&self, lane: Class) -> Option<(usize, Vec<Item>)> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            let max = self.batch_tokens_max;
            let taken = match lane {
                Class::Query => queue.query.take_batch(max),
                Class::Bulk if queue.query_lane => queue.bulk.take_batch(max),
                Class::Bulk => queue.query.take_batch(max).or_else(|| queue.bulk.take_batch(max)),
            };
            let Some((length, mut batch)) = taken else {
                let wake = if lane == Class::Query { &self.wake_query } else { &self.wake_bulk };
                queue = wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            self.common.counters.waiting.fetch_sub(batch.len() as u64, Ordering::Relaxed);
            drop(queue);
            let now = Instant::now();
            batch.retain(|item| item.request.is_wanted(now));
            if !batch.is_empty() {
                return Some((length, batch));
            }
            queue = self.lock();
        }
    }

    /// Answers every text of the batch. An error is that of all of them, for whoever looks at the lane.
    fn run_batch(
        &self,
        session: &mut Session,
        lane: Class,
        length: usize,
        batch: &[Item],
        input: &mut Input,
    ) -> Result<(), EncoderError> {
        let turns = if lane == Class::Query { &self.common.queries } else { &self.common.bulk };
        let turn = self.in_turn.then(|| turns.wait());
        let started = Instant::now();
        for item in batch {
            item.request.start(started);
        }
        let (tokens, computed) = match self.layout {
            Layout::Padded | Layout::PaddedHalf => input.pad(batch, length),
            Layout::Packed => input.pack(batch),
        };
        let (shape, ends) = ([batch.len(), length], [input.starts.len()]);
        let flat = [computed];
        let result = match self.layout {
            Layout::Padded | Layout::PaddedHalf => session.run(&[
                ("input_ids", TensorView::I64 { shape: &shape, values: &input.ids }),
                ("attention_mask", TensorView::I64 { shape: &shape, values: &input.mask }),
            ]),
            Layout::Packed => session.run(&[
                ("input_ids", TensorView::I64 { shape: &flat, values: &input.ids }),
                ("positions", TensorView::I64 { shape: &flat, values: &input.positions }),
                ("starts", TensorView::I64 { shape: &ends, values: &input.starts }),
            ]),
        };
        drop(turn);
        let count = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Ordering::Relaxed);
        count(&self.common.counters.texts, batch.len());
        count(&self.common.counters.tokens, tokens);
        count(&self.common.counters.padded_tokens, computed);
        count(&self.common.counters.batches, 1);
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.common.counters.busy_micros.fetch_add(micros, Ordering::Relaxed);

        let rows =
            result.map_err(|e| EncoderError::Failed { reason: e.to_string() }).and_then(|mut outputs| {
                let (shape, values) =
                    if outputs.is_empty() { Default::default() } else { outputs.swap_remove(0) };
                if shape == [batch.len(), self.dim] {
                    Ok(values)
                } else {
                    Err(EncoderError::Failed {
                        reason: format!(
                            "the graph gave shape {shape:?}, expected [{}, {}]",
                            batch.len(),
                            self.dim
                        ),
                    })
                }
            });
        match rows {
            Err(error) => {
                batch.iter().for_each(|item| item.request.fail(error.clone()));
                return Err(error);
            }
            Ok(values) => {
                for (item, row) in batch.iter().zip(values.chunks_exact(self.dim)) {
                    if row.iter().any(|v| !v.is_finite()) {
                        item.request.fail(EncoderError::NotFinite);
                        continue;
                    }
                    let count = item.tokens.count;
                    item.request.finish_one(
                        item.place,
                        Embedding {
                            values: row.to_vec(),
                            tokens: u32::try_from(count).unwrap_or(u32::MAX),
                            truncated: count > item.tokens.ids.len(),
                            unknown: u32::try_from(item.tokens.unknown).unwrap_or(u32::MAX),
                        },
                    );
                }
            }
        }
        Ok(())
    }
}

/// The tensors of a batch; reused from batch to batch.
#[derive(Default)]
struct Input {
    ids: Vec<i64>,
    mask: Vec<i64>,
    positions: Vec<i64>,
    starts: Vec<i64>,
}

impl Input {
    /// `[batch][length]`: tokens, and with padding.
    fn pad(&mut self, batch: &[Item], length: usize) -> (usize, usize) {
        self.ids.clear();
        self.mask.clear();
        let mut tokens = 0;
        for item in batch {
            let n = item.tokens.ids.len();
            tokens += n;
            self.ids.extend(item.tokens.ids.iter().map(|&id| i64::from(id)));
            self.ids.resize(self.ids.len() + length - n, 0);
            self.mask.resize(self.mask.len() + n, 1);
            self.mask.resize(self.mask.len() + length - n, 0);
        }
        (tokens, batch.len() * length)
    }

    /// One text behind the other: twice the number of tokens.
    fn pack(&mut self, batch: &[Item]) -> (usize, usize) {
        self.ids.clear();
        self.positions.clear();
        self.starts.clear();
        self.starts.push(0);
        for item in batch {
            self.ids.extend(item.tokens.ids.iter().map(|&id| i64::from(id)));
            self.positions.extend(0..item.tokens.ids.len() as i64);
            self.starts.push(self.ids.len() as i64);
        }
        (self.ids.len(), self.ids.len())
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("common", &self.shared.common).finish_non_exhaustive()
    }
}

/// A flag that cancels its request when dropped before it was disarmed.
#[derive(Debug)]
pub struct CancelOnDrop(Arc<AtomicBool>);

impl CancelOnDrop {
    /// A fresh flag, and the guard that raises it.
    pub fn new() -> (Self, Arc<AtomicBool>) {
        let flag = Arc::new(AtomicBool::new(false));
        (CancelOnDrop(Arc::clone(&flag)), flag)
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        // After the answer this changes nothing: the request has left the queue.
        self.0.store(true, Ordering::Relaxed);
    }
}
