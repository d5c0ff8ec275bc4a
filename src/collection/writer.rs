//! Changes a collection, in turns of a thread that writers share: takes what waits, gives it to the log as one batch, and
//! leaves; when the batch is durable, changes the memory, then answers.
//!
//! Order in the store is order in memory. One batch is on its way at a time, and all that comes meanwhile is the next; the
//! batches of all collections share the syncs of the log. The changes of one call are one unit: all are done or none. A
//! call that touches an id of a call before it waits for the next batch.
//! After a write that failed on disk, or a panic here, nothing more is taken until a restart.

use std::{
    collections::{HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    CollectionError, Outcome, Shared, Write, WriteDone, WriteOptions, Written,
    memory::{Arrival, Memory},
    point::Point,
    recover,
    slots::{Entry, version},
};
use crate::{
    error::with_sources,
    segmented::{Durability, StoreBatch},
    store::{StoreError, body::Body},
    threads::crew::Next,
    value::{PointId, datetime},
};

/// Calls that may wait.
pub(super) const QUEUE_MAX: usize = 1024;

/// Bytes that may wait.
pub(super) const QUEUE_BYTES_MAX: usize = 256 << 20;

/// Bytes after which a batch takes no further call.
const BATCH_BYTES: usize = 4 << 20;

/// Calls of one batch.
const BATCH_JOBS: usize = 256;

/// How long calls wait for documents before them to be sealed.
const BEHIND_PATIENCE: Duration = Duration::from_secs(20);

/// How often the writer looks whether they are.
const BEHIND_LOOK: Duration = Duration::from_millis(5);

/// Numbers in memory are given out anew if that frees this part of all.
const FREED_SHARE: u64 = 16;

/// What one caller wants written.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// A clone shares them: a batch that is refused is tried again call by call.
    pub(super) writes: Arc<[Write]>,
    pub(super) options: WriteOptions,
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

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// Taken from the queue, but for the next batch.
    held: Option<Job>,
    next: Numbers,
    flight: Option<Flight>,
    /// Since when calls wait for the keeper.
    behind: Option<Instant>,
}

/// A batch on its way to the disk.
struct Flight {
    plan: Plan,
    answers: Vec<Result<Vec<Written>, CollectionError>>,
    dones: Vec<Option<WriteDone>>,
    /// The calls, to be tried one by one, where there are several.
    kept: Vec<Call>,
    landed: Arc<Landed>,
}

/// What became of a batch, once the log tells.
#[derive(Debug, Default)]
struct Landed(Mutex<Option<Result<(), StoreError>>>);

impl Landed {
    fn lock(&self) -> MutexGuard<'_, Option<Result<(), StoreError>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// Numbers in memory of what goes.
    departures: Vec<u32>,
    next: Numbers,
    /// That of the call that asks for most.
    durability: Durability,
}

/// A plan, and the answer of each of its calls if it can be done.
type Planned = (Plan, Vec<Result<Vec<Written>, CollectionError>>);

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let next = Numbers::of(&shared);
        Writer { shared, held: None, next, flight: None, behind: None }
    }

    /// Ends the batch that is on its way, if it has come to its end, and begins the next. Leaves when nobody can send any
    /// more and everything sent is answered.
    pub(super) fn turn(&mut self) -> Next {
        if let Some(flight) = self.flight.take() {
            let landed = flight.landed.lock().take();
            match landed {
                Some(result) => self.end(flight, result),
                // Woken by a new call, which waits.
                None => {
                    self.flight = Some(flight);
                    return Next::Woken;
                }
            }
        }
        if self.shared.is_stale.swap(false, Ordering::SeqCst) {
            // No batch is on its way, so the store has what the memory has.
            let read_from = |memory: &mut Memory| memory.read_from(self.shared.store.snapshot());
            if let Err(error) = self.shared.change(read_from) {
                self.shared.fail(error.to_string());
            }
        }
        if self.waits_for_keeper() {
            return Next::At(Instant::now() + BEHIND_LOOK);
        }
        if let Some(jobs) = self.next_batch() {
            self.begin(jobs);
        }
        if self.flight.is_some() {
            return Next::Woken;
        }
        let (waiting, open) = self.shared.jobs.state();
        if waiting || self.held.is_some() {
            Next::Again
        } else if !open {
            Next::Leave
        } else {
            Next::Woken
        }
    }

    /// Whether calls wait since documents come faster than they can be sealed. Not for long: then they are told so.
    fn waits_for_keeper(&mut self) -> bool {
        let (waiting, _) = self.shared.jobs.state();
        if !(waiting || self.held.is_some()) || !self.shared.store.is_behind() {
            self.behind = None;
            return false;
        }
        self.shared.wake_keeper();
        self.behind.get_or_insert_with(Instant::now).elapsed() < BEHIND_PATIENCE
            && !self.shared.store.is_stuck()
    }

    /// What waits, bounded.
    fn next_batch(&mut self) -> Option<Vec<Job>> {
        let first = self.held.take().or_else(|| self.shared.jobs.pop())?;
        let mut ids: HashSet<PointId> = first.call.writes.iter().map(|w| w.id().clone()).collect();
        let mut bytes = first.bytes;
        let mut jobs = vec![first];
        while bytes < BATCH_BYTES && jobs.len() < BATCH_JOBS {
            let Some(job) = self.shared.jobs.pop() else { break };
            let once = job.call.options.once.as_ref();
            let is_same = |other: &Job| {
                other.call.options.once.as_ref().map(|once| &once.id) == once.map(|once| &once.id)
            };
            // What came of a call is known when its batch is applied.
            if job.call.writes.iter().any(|write| ids.contains(write.id()))
                || (once.is_some() && jobs.iter().any(is_same))
            {
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

    /// Gives the log a batch of these calls, or answers them.
    fn begin(&mut self, jobs: Vec<Job>) {
        let (calls, dones): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.call, Some(job.done))).unzip();
        let mut dones = dones;
        self.guarded(|writer| {
            if writer.shared.read_only().is_some() {
                return;
            }
            let kept = if calls.len() > 1 { calls.clone() } else { Vec::new() };
            match writer.plan_all(calls) {
                Ok((plan, answers)) if plan.batch.is_empty() => {
                    if plan.durability == Durability::Process || !writer.shared.store.is_unsynced() {
                        return tell(&mut dones, answers);
                    }
                    // What they find was written, and may not be on the device yet.
                    let landed = Arc::new(Landed::default());
                    match writer.shared.store.sync_and(writer.landing(&landed)) {
                        Ok(()) => {
                            let dones = std::mem::take(&mut dones);
                            writer.flight = Some(Flight { plan, answers, dones, kept, landed });
                        }
                        Err(error) => writer.refused(kept, error.into(), &mut dones),
                    }
                }
                Ok((mut plan, answers)) => {
                    let batch = std::mem::take(&mut plan.batch);
                    let landed = Arc::new(Landed::default());
                    match writer.hand_in(batch, plan.durability, &landed) {
                        Ok(()) => {
                            let dones = std::mem::take(&mut dones);
                            writer.flight = Some(Flight { plan, answers, dones, kept, landed });
                        }
                        Err(error) => writer.refused(kept, error, &mut dones),
                    }
                }
                Err(error) => writer.refused(kept, error, &mut dones),
            }
        });
        self.tell_read_only(dones);
    }

    /// Takes over a batch of which the log has told what became of it.
    fn end(&mut self, flight: Flight, landed: Result<(), StoreError>) {
        let Flight { plan, answers, mut dones, kept, .. } = flight;
        self.guarded(|writer| match landed {
            Ok(()) => {
                if writer.apply(plan).is_ok() {
                    tell(&mut dones, answers);
                }
            }
            Err(error) => writer.refused(kept, error.into(), &mut dones),
        });
        self.tell_read_only(dones);
    }

    /// A panic leaves the collection read-only.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            self.shared.fail("the writer panicked; see the log".to_owned());
        }
    }

    /// Answers those who were not told anything: the collection takes no writes.
    fn tell_read_only(&self, dones: Vec<Option<WriteDone>>) {
        for done in dones.into_iter().flatten() {
            answer(done, Err(self.shared.read_only_error()));
        }
    }

    /// Nothing of a batch was done. Where the store is as it was, its calls are tried one by one: what needs less room, deletes
    /// above all, must not suffer for the others.
    fn refused(&mut self, kept: Vec<Call>, error: CollectionError, dones: &mut [Option<WriteDone>]) {
        if !is_refusal(&error) {
            self.fail_for(&error);
            return;
        }
        if kept.is_empty() {
            if let Some(done) = dones.first_mut().and_then(Option::take) {
                answer(done, Err(error));
            }
            return;
        }
        for (done, call) in dones.iter_mut().zip(kept) {
            let result = self.alone(call);
            if self.shared.read_only().is_some() {
                return;
            }
            if let Some(done) = done.take() {
                answer(done, result);
            }
        }
    }

    /// One call as a batch of its own, to its end.
    fn alone(&mut self, call: Call) -> Result<Vec<Written>, CollectionError> {
        let (mut plan, mut answers) = self.plan_all(vec![call])?;
        let synced = match plan.batch.is_empty() {
            true if plan.durability == Durability::Process || !self.shared.store.is_unsynced() => None,
            true => Some(self.shared.store.sync()),
            false => Some(self.shared.store.commit(std::mem::take(&mut plan.batch))),
        };
        if let Some(synced) = synced {
            if let Err(error) = synced {
                let error = CollectionError::from(error);
                if !is_refusal(&error) {
                    self.fail_for(&error);
                }
                return Err(error);
            }
            self.apply(plan)?;
        }
        answers.pop().unwrap_or(Ok(Vec::new()))
    }

    /// Takes no writes from now on, unless it is the store, or the log, that says so itself.
    fn fail_for(&self, error: &CollectionError) {
        if self.shared.store.failed().is_none() {
            self.shared.fail(with_sources(error));
        }
    }

    fn plan_all(&mut self, calls: Vec<Call>) -> Result<Planned, CollectionError> {
        self.make_numbers(&calls)?;
        let all_process = calls.iter().all(|call| call.options.durability == Durability::Process);
        let durability = if all_process { Durability::Process } else { Durability::Power };
        let mut plan = Plan { next: self.next, durability, ..Plan::default() };
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            answers.push(self.plan(call, &mut plan));
        }
        Ok((plan, answers))
    }

    fn hand_in(
        &self,
        batch: StoreBatch,
        durability: Durability,
        landed: &Arc<Landed>,
    ) -> Result<(), CollectionError> {
        self.shared.store.hand_in(|_| batch, durability, self.landing(landed))?;
        Ok(())
    }

    /// Puts down what became of a batch, and wakes the writer.
    fn landing(&self, landed: &Arc<Landed>) -> impl FnOnce(Result<(), StoreError>) + Send + 'static {
        // The seat, and not what it shares: whoever drops the collection right after the answer must be the last to have
        // its store.
        let (landed, seat) = (Arc::clone(landed), self.shared.seats.get().map(|seats| seats.writer.clone()));
        move |result| {
            *landed.lock() = Some(result);
            if let Some(seat) = seat {
                seat.wake();
            }
        }
    }

    /// Makes what is durable searchable.
    fn apply(&mut self, plan: Plan) -> Result<(), CollectionError> {
        let Plan { arrivals, departures, next, .. } = plan;
        self.next = next;
        let applied =
            self.shared.change(|memory| memory.apply(&departures, &arrivals, self.shared.store.snapshot()));
        // A bug of ours. A restart finds it.
        if let Err(error) = applied {
            self.shared.fail(format!("durable documents could not be made searchable: {error}"));
            return Err(self.shared.read_only_error());
        }
        self.shared.wake_indexer();
        let store = &self.shared.store;
        let grew = !self.shared.keeper_waits.load(Ordering::SeqCst) && store.is_worth_a_segment();
        if grew || !store.is_tidy() {
            self.shared.wake_keeper();
        }
        if !departures.is_empty() {
            self.shared.wake_merger();
        }
        Ok(())
    }

    /// Gives all numbers in memory out anew if they do not suffice for `calls` and those of removed documents would. It is
    /// what an opening does, and takes as long; searches go on, without a graph until there is another.
    fn make_numbers(&mut self, calls: &[Call]) -> Result<(), CollectionError> {
        let points = calls.iter().flat_map(|call| &*call.writes).filter_map(Write::point);
        let points = points.map(|point| point.passages.len() as u64);
        let (docs, slots) = points.fold((0, 0), |(docs, slots), passages| (docs + 1, slots + passages));
        let max = u64::from(self.shared.numbers_max);
        let memory = self.shared.view();
        let (documents, live) = (memory.table.documents(), memory.table.live());
        let (doc, slot) = (u64::from(self.next.doc), u64::from(self.next.slot));
        let freed = (doc - documents).max(slot - live);
        // It must free so many that it is not done again with every batch; else calls that do not fit are told so.
        if (doc + docs <= max && slot + slots <= max) || freed < max / FREED_SHARE {
            return Ok(());
        }
        let begun = Instant::now();
        let filled = recover::fill(&self.shared.spec, &self.shared.store, None, self.shared.numbers_max);
        let new = match filled {
            Ok(Some(memory)) => memory,
            Ok(None) => return Ok(()),
            Err(error) => {
                if !is_refusal(&error) {
                    self.shared.fail(format!("the store cannot be read again: {error}"));
                }
                return Err(error);
            }
        };
        self.shared.change(|memory| {
            let numbering = memory.numbering + 1;
            *memory = Memory { numbering, ..new };
        });
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
        let Call { writes, options: WriteOptions { each, once, .. } } = call;
        if let Some(once) = &once
            && let Some(done) = self.shared.done_before(&once.id, once.hash)?
            && done.step >= once.step
        {
            return Err(CollectionError::DoneBefore { done });
        }
        // Everything that can fail comes first.
        let (mut doc, mut slot, max) = (plan.next.doc, plan.next.slot, self.shared.numbers_max);
        let full = || CollectionError::Full { limit: max };
        let mut steps = Vec::with_capacity(writes.len());
        let memory = self.shared.view();
        for write in &*writes {
            let known = self.shared.seen(memory.find(write.id()))?;
            let stored = known.map(|(_, entry)| entry.version());
            // Nobody changes the document between this look and the write: this thread does both, no other call of the
            // batch names the document, and what earlier batches wrote is in memory.
            let refused = write.condition().check(write.id(), stored).err();
            let settled = match (write.point(), known) {
                _ if refused.is_some() => Some(Outcome::Refused),
                (Some(point), Some((_, entry))) if point.content_hash == entry.hash => {
                    Some(Outcome::Unchanged)
                }
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
            steps.push((write, known, settled));
        }
        let now = datetime::now();
        let mut outcomes = Vec::with_capacity(steps.len());
        for (at, (write, known, settled)) in steps.into_iter().enumerate() {
            if let Some(outcome) = settled {
                outcomes.push(Written { outcome, version: known.map(|(_, entry)| entry.version()) });
                continue;
            }
            if let Some((doc, entry)) = known {
                plan.batch.bury(entry.number, entry.passages);
                plan.departures.push(doc);
            }
            outcomes.push(match write.point() {
                None => Written { outcome: Outcome::Deleted, version: None },
                Some(point) => {
                    let outcome = if known.is_some() { Outcome::Updated } else { Outcome::Inserted };
                    let number = plan.put(point, (Arc::clone(&writes), at), now);
                    Written { outcome, version: Some(version(number)) }
                }
            });
        }
        if let Some(once) = once {
            plan.batch.note(once.request(&outcomes, now));
        }
        Ok(outcomes)
    }
}

impl Numbers {
    /// The next ones of a collection.
    fn of(shared: &Shared) -> Self {
        let memory = shared.view();
        let (doc, slots) = (memory.table.docs_end(), memory.table.end());
        // A graph may have vectors of documents that are gone behind the last one that is there.
        let slot = slots.max(memory.graph.as_ref().map_or(0, |graph| graph.indexed));
        Numbers { doc, slot, number: shared.store.next_number() }
    }
}

impl Plan {
    /// Adds a document, which is that write of its call, and returns its number in the store.
    fn put(&mut self, point: &Point, write: (Arc<[Write]>, usize), updated_at: i64) -> u64 {
        let Point { id, title, text, payload, content_hash, passages } = point;
        let vectors = passages.iter().map(|passage| passage.vector.as_slice());
        let ranges = passages.iter().map(|passage| passage.range.clone()).collect();
        let passages = u32::try_from(vectors.len()).expect("checked while planning");
        let Numbers { doc, slot: first_slot, number } = self.next;
        self.next = Numbers { doc: doc + 1, slot: first_slot + passages, number: number + 1 };
        let entry = Entry { id: id.clone(), hash: *content_hash, number, first_slot, passages };
        let body = Body {
            id: id.clone(),
            title: title.clone(),
            payload: payload.clone(),
            content_hash: content_hash.0,
            passages: ranges,
            updated_at,
        };
        self.batch.put(number, &body, text, vectors);
        self.arrivals.push(Arrival { doc, entry, write });
        number
    }
}

/// Nothing was done, and the store is as it was.
fn is_refusal(error: &CollectionError) -> bool {
    matches!(error, CollectionError::Store(e) if e.is_refusal())
}

/// Answers each of these calls.
fn tell(dones: &mut [Option<WriteDone>], answers: Vec<Result<Vec<Written>, CollectionError>>) {
    for (done, result) in dones.iter_mut().zip(answers) {
        if let Some(done) = done.take() {
            answer(done, result);
        }
    }
}

/// A caller's panic is the caller's.
pub(super) fn answer(done: WriteDone, result: Result<Vec<Written>, CollectionError>) {
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("a caller panicked when it was told that its write is done");
    }
}
