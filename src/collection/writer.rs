//! Changes a collection, in turns of a thread that writers share: takes what waits, makes it one durable batch, then
//! changes the memory, then answers.
//!
//! Order in the store is order in memory, and one sync serves all who wait. The changes of one call are one unit: all
//! are done or none. A call that touches an id of a call before it waits for the next batch.
//! After a write that failed on disk, or a panic here, nothing more is taken until a restart.

use std::{
    collections::{HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    CollectionError, Outcome, Shared, Write, WriteDone, Written,
    memory::{Arrival, Departure},
    point::Point,
    recover,
    slots::{Entry, version},
};
use crate::{
    store::{StoreBatch, body::Body},
    threads::crew::Next,
    value::{PointId, datetime},
};

/// Calls that may wait.
pub(super) const QUEUE_MAX: usize = 1024;

/// Bytes that may wait.
pub(super) const QUEUE_BYTES_MAX: usize = 256 << 20;

/// Bytes after which a batch takes no further call: reads of the store wait while a batch is applied.
const BATCH_BYTES: usize = 4 << 20;

/// Calls of one batch.
const BATCH_JOBS: usize = 256;

/// Removed documents purged with one batch.
const PURGE_MAX: usize = 1024;

/// Numbers in memory are given out anew if that frees this part of all.
const FREED_SHARE: u64 = 16;

/// How long removed documents may wait for a batch to be purged with.
const PURGE_AFTER: Duration = Duration::from_secs(1);

/// What one caller wants written.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) writes: Vec<Write>,
    /// A write whose condition does not hold is left out; otherwise it refuses the whole call.
    pub(super) each: bool,
}

/// One call that waits.
pub(super) struct Job {
    pub(super) call: Call,
    pub(super) done: WriteDone,
    pub(super) bytes: usize,
}

/// Calls that wait for the writer, in order.
#[derive(Debug, Default)]
pub(super) struct Jobs(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a call, or hands it back with the reason.
    pub(super) fn push(&self, job: Job) -> Result<(), Box<(Job, CollectionError)>> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Box::new((job, CollectionError::Closed)));
        }
        if waiting.jobs.len() >= QUEUE_MAX {
            return Err(Box::new((job, CollectionError::QueueFull { limit: QUEUE_MAX })));
        }
        waiting.jobs.push_back(job);
        Ok(())
    }

    /// Takes no further calls; those that wait are done still.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    fn pop(&self) -> Option<Job> {
        self.lock().jobs.pop_front()
    }

    /// Whether any wait, and whether more may come.
    fn state(&self) -> (bool, bool) {
        let waiting = self.lock();
        (!waiting.jobs.is_empty(), !waiting.closed)
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("writes", &self.call.writes.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// What readers of the state before a batch hold, and the documents it removed.
type Removed = (Arc<()>, Vec<u64>);

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// Taken from the queue, but for the next batch.
    held: Option<Job>,
    next: Numbers,
    purge_list: VecDeque<Removed>,
    /// When they are purged though nothing is written.
    purge_at: Instant,
}

/// What the next document gets.
#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    doc: u32,
    slot: u32,
    /// In the store.
    number: u64,
}

/// What a batch will do.
#[derive(Default)]
struct Plan {
    batch: StoreBatch,
    arrivals: Vec<Arrival>,
    departures: Vec<Departure>,
    next: Numbers,
}

impl Writer {
    /// `removed` are documents whose space is yet to be taken back.
    pub(super) fn new(shared: Arc<Shared>, removed: Vec<u64>) -> Self {
        let next = Numbers::of(&shared);
        let purge_list =
            if removed.is_empty() { VecDeque::new() } else { VecDeque::from([(Arc::default(), removed)]) };
        let purge_at = Instant::now() + PURGE_AFTER;
        Writer { shared, held: None, next, purge_list, purge_at }
    }

    /// One batch, if there is one. Leaves when nobody can send any more and everything sent is answered.
    pub(super) fn turn(&mut self) -> Next {
        if let Some(jobs) = self.next_batch() {
            let (calls, mut dones): (Vec<_>, Vec<_>) =
                jobs.into_iter().map(|job| (job.call, Some(job.done))).unzip();
            let worked = catch_unwind(AssertUnwindSafe(|| self.work(calls, &mut dones)));
            if worked.is_err() {
                self.shared.fail("the writer panicked; see the log".to_owned());
            }
            for done in dones.into_iter().flatten() {
                answer(done, Err(self.shared.read_only_error()));
            }
            self.purge_at = Instant::now() + PURGE_AFTER;
        }
        let (waiting, open) = self.shared.jobs.state();
        if waiting || self.held.is_some() {
            Next::Again
        } else if !open {
            Next::Leave
        } else if self.purge_list.is_empty() || self.shared.read_only().is_some() {
            Next::Woken
        } else {
            Next::At(self.purge_at)
        }
    }

    /// What waits, bounded; empty if there is only space to take back, `None` if there is nothing to do.
    fn next_batch(&mut self) -> Option<Vec<Job>> {
        let first = match self.held.take().or_else(|| self.shared.jobs.pop()) {
            Some(job) => job,
            None => {
                let purge = !self.purge_list.is_empty()
                    && self.shared.read_only().is_none()
                    && self.purge_at <= Instant::now();
                return purge.then(Vec::new);
            }
        };
        let mut ids: HashSet<PointId> = first.call.writes.iter().map(|w| w.id().clone()).collect();
        let mut bytes = first.bytes;
        let mut jobs = vec![first];
        while bytes < BATCH_BYTES && jobs.len() < BATCH_JOBS {
            let Some(job) = self.shared.jobs.pop() else { break };
            if job.call.writes.iter().any(|write| ids.contains(write.id())) {
                self.held = Some(job);
                break;
            }
            ids.extend(job.call.writes.iter().map(|w| w.id().clone()));
            bytes += job.bytes;
            jobs.push(job);
        }
        self.shared.dequeued(jobs.iter().chain(&self.held).map(|job| job.bytes).sum());
        if let Some(held) = &mut self.held {
            // Counted as taken already.
            held.bytes = 0;
        }
        Some(jobs)
    }

    fn work(&mut self, calls: Vec<Call>, dones: &mut [Option<WriteDone>]) {
        if self.shared.read_only().is_some() {
            return;
        }
        let many = calls.len() > 1;
        let kept = many.then(|| calls.clone());
        match self.attempt(calls) {
            Ok(answers) => {
                for (done, result) in dones.iter_mut().zip(answers) {
                    if let Some(done) = done.take() {
                        answer(done, result);
                    }
                }
            }
            // Nothing was done. What needs less room, deletes above all, must not suffer for the others.
            Err(error) if is_passing(&error) => {
                let calls = kept.into_iter().flatten();
                for (done, call) in dones.iter_mut().zip(calls) {
                    let result = match self.attempt(vec![call]) {
                        Ok(mut answers) => answers.pop().unwrap_or(Ok(Vec::new())),
                        Err(error) => Err(error),
                    };
                    if self.shared.read_only().is_none()
                        && let Some(done) = done.take()
                    {
                        answer(done, result);
                    }
                }
                if !many && let Some(done) = dones.first_mut().and_then(Option::take) {
                    answer(done, Err(error));
                }
            }
            // The collection is read-only now, which is what they are told.
            Err(_) => {}
        }
    }

    /// One durable batch of `calls`, and an answer for each. An error: none of them was done; the collection is
    /// read-only unless the disk was full.
    fn attempt(
        &mut self,
        calls: Vec<Call>,
    ) -> Result<Vec<Result<Vec<Written>, CollectionError>>, CollectionError> {
        self.make_numbers(&calls)?;
        let mut plan = Plan { next: self.next, ..Plan::default() };
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            answers.push(self.plan(call, &mut plan));
        }
        let purged = match self.plan_purge(&mut plan.batch) {
            Ok(purged) => purged,
            // What cannot be read cannot be trusted with more.
            Err(error) if is_passing(&error) => return Err(error),
            Err(error) => {
                self.shared.fail(format!("removed documents cannot be purged: {error}"));
                return Err(error);
            }
        };
        if let Err(error) = self.shared.store.commit(plan.batch) {
            if !error.is_passing() {
                self.shared.fail(self.shared.store.failed().unwrap_or_else(|| "a write failed".to_owned()));
            }
            return Err(error.into());
        }
        self.forget_purged(purged);
        self.next = plan.next;
        if plan.arrivals.is_empty() && plan.departures.is_empty() {
            return Ok(answers);
        }
        let removed: Vec<u64> = plan.departures.iter().map(|departure| departure.number).collect();
        let before = self.shared.write_memory().apply(&plan.departures, plan.arrivals);
        match before {
            // Also if it removed nothing: a reader of a state before may know documents that later batches remove.
            Ok(generation) => self.purge_list.push_back((generation, removed)),
            // Durable, but not searchable: a bug of ours. A restart finds it.
            Err(error) => {
                self.shared.fail(format!("durable documents could not be made searchable: {error}"));
                return Err(error.into());
            }
        }
        self.shared.wake_indexer();
        Ok(answers)
    }

    /// Gives all numbers in memory out anew if they do not suffice for `calls` and those of removed documents would. It is
    /// what an opening does, and takes as long; searches go on, without a graph until there is another.
    fn make_numbers(&mut self, calls: &[Call]) -> Result<(), CollectionError> {
        let points = calls.iter().flat_map(|call| &call.writes).filter_map(Write::point);
        let points = points.map(|point| point.passages.len() as u64);
        let (docs, slots) = points.fold((0, 0), |(docs, slots), passages| (docs + 1, slots + passages));
        let max = u64::from(self.shared.numbers_max);
        let memory = self.shared.read_memory();
        let (documents, live) = (memory.slots.documents(), memory.slots.live());
        drop(memory);
        let (doc, slot) = (u64::from(self.next.doc), u64::from(self.next.slot));
        let freed = (doc - documents).max(slot - live);
        // It must free so many that it is not done again with every batch; else calls that do not fit are told so.
        if (doc + docs <= max && slot + slots <= max) || freed < max / FREED_SHARE {
            return Ok(());
        }
        self.shared.store.take_back_refused()?;
        let begun = Instant::now();
        let filled = recover::fill(&self.shared.spec, &self.shared.store, None, self.shared.numbers_max);
        let new = match filled {
            Ok(Some((memory, _))) => memory,
            Ok(None) => return Ok(()),
            Err(error) => {
                if !is_passing(&error) {
                    self.shared.fail(format!("the store cannot be read again: {error}"));
                }
                return Err(error);
            }
        };
        let old = self.shared.write_memory().renumber(new);
        self.shared.signal.replaced(old);
        self.next = Numbers::of(&self.shared);
        self.shared.wake_indexer();
        tracing::info!(
            dir = %self.shared.dir.display(),
            live,
            elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "numbers in memory had run out and began anew"
        );
        Ok(())
    }

    /// Adds one call to the batch. If it cannot be done, the plan is as if it had never been.
    fn plan(&self, call: Call, plan: &mut Plan) -> Result<Vec<Written>, CollectionError> {
        let Call { writes, each } = call;
        // Everything that can fail comes first.
        let (mut doc, mut slot, max) = (plan.next.doc, plan.next.slot, self.shared.numbers_max);
        let full = || CollectionError::Full { limit: max };
        let mut steps = Vec::with_capacity(writes.len());
        let memory = self.shared.read_memory();
        for write in writes {
            let known = memory.slots.find(write.id()).map(|(doc, entry)| (doc, entry.number, entry.hash));
            let stored = known.map(|(_, number, _)| version(number));
            // Nobody changes the document between this look and the write: this thread does both, no other call of the
            // batch names the document, and what earlier batches wrote is in memory.
            let refused = write.condition().check(write.id(), stored).err();
            let settled = match (write.point(), known) {
                _ if refused.is_some() => Some(Outcome::Refused),
                (Some(point), Some((_, _, hash))) if point.content_hash == hash => Some(Outcome::Unchanged),
                (None, None) => Some(Outcome::NotFound),
                _ => None,
            };
            if let Some(error) = refused.filter(|_| !each) {
                return Err(error);
            }
            if let (Some(point), None) = (write.point(), settled) {
                let passages = u32::try_from(point.passages.len()).unwrap_or(u32::MAX);
                slot = slot.checked_add(passages).filter(|slot| *slot <= max).ok_or_else(full)?;
                doc = doc.checked_add(1).filter(|doc| *doc <= max).ok_or_else(full)?;
            }
            steps.push((write, known.map(|(doc, number, _)| (doc, number)), settled));
        }
        drop(memory);
        let mut heads = Vec::with_capacity(steps.len());
        for (_, known, settled) in &steps {
            heads.push(match (known, settled) {
                (Some((doc, number)), None) => {
                    let (head, body) = self.shared.read_head(*number)?;
                    Some((*doc, *number, head, body))
                }
                _ => None,
            });
        }
        let now = datetime::now();
        let mut outcomes = Vec::with_capacity(steps.len());
        for ((write, known, settled), head) in steps.into_iter().zip(heads) {
            if let Some(outcome) = settled {
                outcomes.push(Written { outcome, version: known.map(|(_, number)| version(number)) });
                continue;
            }
            if let Some((doc, number, head, body)) = head {
                plan.batch.remove(number, &head);
                plan.departures.push(Departure { doc, number, payload: body.payload });
            }
            outcomes.push(match write {
                Write::Delete(_) | Write::DeleteIf { .. } => {
                    Written { outcome: Outcome::Deleted, version: None }
                }
                Write::Upsert(point) | Write::UpsertIf { point, .. } => {
                    let outcome = if known.is_some() { Outcome::Updated } else { Outcome::Inserted };
                    Written { outcome, version: Some(version(plan.put(*point, now))) }
                }
            });
        }
        Ok(outcomes)
    }

    /// Adds the purge of documents that no reader can still want. Returns how many of the first entry of the list.
    fn plan_purge(&mut self, batch: &mut StoreBatch) -> Result<usize, CollectionError> {
        // Oldest first: what an entry holds is known to readers of its own generation and of all before.
        while let Some((readers, docs)) = self.purge_list.front_mut() {
            if Arc::get_mut(readers).is_none() {
                return Ok(0);
            }
            if !docs.is_empty() {
                break;
            }
            self.purge_list.pop_front();
        }
        let Some((_, numbers)) = self.purge_list.front() else { return Ok(0) };
        let purged = numbers.len().min(PURGE_MAX);
        for number in &numbers[numbers.len() - purged..] {
            batch.purge(*number, &self.shared.store)?;
        }
        Ok(purged)
    }

    fn forget_purged(&mut self, purged: usize) {
        if purged > 0
            && let Some((_, docs)) = self.purge_list.front_mut()
        {
            docs.truncate(docs.len() - purged);
            if docs.is_empty() {
                self.purge_list.pop_front();
            }
        }
    }
}

impl Numbers {
    /// The next ones of a collection.
    fn of(shared: &Shared) -> Self {
        let memory = shared.read_memory();
        let (doc, slots) = (memory.slots.docs_end(), memory.slots.end());
        // A graph may have vectors of documents that are gone behind the last one that is there.
        let slot = slots.max(memory.graph.as_ref().map_or(0, |graph| graph.indexed));
        Numbers { doc, slot, number: shared.store.next_number() }
    }
}

impl Plan {
    /// Adds a document, and returns its number in the store.
    fn put(&mut self, point: Point, updated_at: i64) -> u64 {
        let Point { id, title, text, payload, content_hash, passages } = point;
        let (ranges, vectors): (Vec<_>, Vec<_>) = passages.into_iter().map(|p| (p.range, p.vector)).unzip();
        let Numbers { doc, slot: first_slot, number } = self.next;
        let passages = u32::try_from(vectors.len()).expect("checked while planning");
        self.next = Numbers { doc: doc + 1, slot: first_slot + passages, number: number + 1 };
        let entry = Entry { id: id.clone(), hash: content_hash, number, first_slot, passages };
        let body = Body { id, title, payload, content_hash: content_hash.0, passages: ranges, updated_at };
        let encoded = body.encode();
        self.batch.put(number, encoded, &text, vectors.iter().map(|v| v.as_slice()));
        self.arrivals.push(Arrival { doc, entry, payload: body.payload, vectors });
        number
    }
}

fn is_passing(error: &CollectionError) -> bool {
    matches!(error, CollectionError::Store(e) if e.is_passing())
}

/// A caller's panic is the caller's.
pub(super) fn answer(done: WriteDone, result: Result<Vec<Written>, CollectionError>) {
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("a caller panicked when it was told that its write is done");
    }
}
