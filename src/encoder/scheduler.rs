//! Many small requests -> few full batches; owns the session and its thread.
//!
//! Two queues: queries go before bulk. A batch takes texts of one length bucket (padding is at most
//! [`BUCKET_TOKENS`]` - 1` tokens a text), the bucket of the longest-waiting text first, up to a budget of tokens.
//! Expired and cancelled requests leave before they cost anything.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Class, Embedding, EncodeDone, EncodeTimes, EncoderError, Limits, tokenize::Tokens};
use crate::runtime::{Session, TensorView};

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
}

/// One request: its texts come back together.
struct Request {
    state: Mutex<Progress>,
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

/// Texts of one class by length bucket, each bucket in order of arrival.
#[derive(Default)]
struct Buckets {
    by_length: BTreeMap<usize, VecDeque<Item>>,
    waiting: usize,
}

#[derive(Default)]
struct Queue {
    query: Buckets,
    bulk: Buckets,
    arrivals: u64,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    counters: EncoderCounters,
    batch_tokens_max: usize,
    queue_max: usize,
    dim: usize,
}

/// The queue and its thread. Dropping it answers what waits with [`EncoderError::Closed`].
pub(super) struct Scheduler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Scheduler {
    pub(super) fn start(
        session: Session,
        dim: usize,
        batch_tokens_max: usize,
        queue_max: usize,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            counters: EncoderCounters::default(),
            batch_tokens_max,
            queue_max,
            dim,
        });
        let owner = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("encoder".into()).spawn(move || owner.work(session))?;
        Ok(Scheduler { shared, thread: Some(thread) })
    }

    pub(super) fn counters(&self) -> &EncoderCounters {
        &self.shared.counters
    }

    pub(super) fn submit(
        &self,
        texts: Vec<Tokens>,
        tokenize: Duration,
        class: Class,
        limits: Limits,
        done: EncodeDone,
    ) {
        if texts.is_empty() {
            return done(Ok((Vec::new(), EncodeTimes { tokenize, ..EncodeTimes::default() })));
        }
        let mut queue = self.shared.lock();
        if queue.closed {
            drop(queue);
            return done(Err(EncoderError::Closed));
        }
        let buckets = if class == Class::Query { &queue.query } else { &queue.bulk };
        // A request larger than the whole queue is let in when nothing else waits, or it could never run.
        if buckets.waiting > 0 && buckets.waiting + texts.len() > self.shared.queue_max {
            drop(queue);
            return done(Err(EncoderError::QueueFull { limit: self.shared.queue_max }));
        }
        let request = Arc::new(Request {
            state: Mutex::new(Progress {
                embeddings: vec![None; texts.len()],
                left: texts.len(),
                done: Some(done),
                started_at: None,
            }),
            limits,
            tokenize,
            queued_at: Instant::now(),
        });
        self.shared.counters.waiting.fetch_add(texts.len() as u64, Ordering::Relaxed);
        for (place, tokens) in texts.into_iter().enumerate() {
            let arrival = queue.arrivals;
            queue.arrivals += 1;
            let item = Item { request: Arc::clone(&request), place, tokens, arrival };
            let buckets = if class == Class::Query { &mut queue.query } else { &mut queue.bulk };
            buckets.push(item);
        }
        drop(queue);
        self.shared.wake.notify_one();
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // The last owner may be a callback on the encoder thread itself, which cannot wait for its own end.
            if thread.thread().id() != std::thread::current().id() {
                // Its panics were caught inside; nothing is left to learn from the result.
                let _ = thread.join();
            }
        }
    }
}

fn bucket(tokens: usize) -> usize {
    tokens.div_ceil(BUCKET_TOKENS) * BUCKET_TOKENS
}

impl Buckets {
    fn push(&mut self, item: Item) {
        self.by_length.entry(bucket(item.tokens.ids.len())).or_default().push_back(item);
        self.waiting += 1;
    }

    /// The next batch: the bucket whose head waits longest; texts of the next shorter buckets fill what is left only
    /// while they waste no more than a bucket's worth each.
    fn take_batch(&mut self, tokens_max: usize) -> Option<(usize, Vec<Item>)> {
        let (&length, _) =
            self.by_length.iter().min_by_key(|(_, items)| items.front().map_or(u64::MAX, |i| i.arrival))?;
        let rows = (tokens_max / length).max(1);
        let mut batch = Vec::new();
        let lengths: Vec<usize> = self.by_length.range(..=length).rev().map(|(&l, _)| l).collect();
        for l in lengths {
            if length - l > BUCKET_TOKENS || batch.len() == rows {
                break;
            }
            if let Some(items) = self.by_length.get_mut(&l) {
                let n = items.len().min(rows - batch.len());
                batch.extend(items.drain(..n));
                if items.is_empty() {
                    self.by_length.remove(&l);
                }
            }
        }
        self.waiting -= batch.len();
        Some((length, batch))
    }

    fn take_all(&mut self) -> Vec<Item> {
        self.waiting = 0;
        std::mem::take(&mut self.by_length).into_values().flatten().collect()
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

    fn work(&self, mut session: Session) {
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        while let Some((length, batch)) = self.next_batch() {
            // A bug of ours or of a library must not end the thread that all requests wait for.
            let result = catch_unwind(AssertUnwindSafe(|| {
                self.run_batch(&mut session, length, &batch, &mut ids, &mut mask);
            }));
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
    fn next_batch(&self) -> Option<(usize, Vec<Item>)> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            let taken = queue
                .query
                .take_batch(self.batch_tokens_max)
                .or_else(|| queue.bulk.take_batch(self.batch_tokens_max));
            let Some((length, mut batch)) = taken else {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            self.counters.waiting.fetch_sub(batch.len() as u64, Ordering::Relaxed);
            drop(queue);
            let now = Instant::now();
            batch.retain(|item| item.request.is_wanted(now));
            if !batch.is_empty() {
                return Some((length, batch));
            }
            queue = self.lock();
        }
    }

    fn run_batch(
        &self,
        session: &mut Session,
        length: usize,
        batch: &[Item],
        ids: &mut Vec<i64>,
        mask: &mut Vec<i64>,
    ) {
        let started = Instant::now();
        ids.clear();
        mask.clear();
        let mut tokens = 0;
        for item in batch {
            item.request.start(started);
            let n = item.tokens.ids.len();
            tokens += n;
            ids.extend(item.tokens.ids.iter().map(|&id| i64::from(id)));
            ids.resize(ids.len() + length - n, 0);
            mask.resize(mask.len() + n, 1);
            mask.resize(mask.len() + length - n, 0);
        }
        let shape = [batch.len(), length];
        let result = session.run(&[
            ("input_ids", TensorView::I64 { shape: &shape, values: ids }),
            ("attention_mask", TensorView::I64 { shape: &shape, values: mask }),
        ]);
        let count = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Ordering::Relaxed);
        count(&self.counters.texts, batch.len());
        count(&self.counters.tokens, tokens);
        count(&self.counters.padded_tokens, batch.len() * length);
        count(&self.counters.batches, 1);
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.busy_micros.fetch_add(micros, Ordering::Relaxed);

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
            Err(error) => batch.iter().for_each(|item| item.request.fail(error.clone())),
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
                        },
                    );
                }
            }
        }
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("counters", &self.shared.counters).finish_non_exhaustive()
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
