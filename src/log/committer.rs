//! One for the whole log: turns what waits into blocks, one after the other, and answers.
//!
//! A turn takes what has gathered, asks each ticket whether it is still to be written, writes one block, syncs it once
//! for all who want that, and answers in order of sequence. Meanwhile the next block gathers. Tickets that want no sync
//! stand before the others of the block where their collection's order allows it, and are answered before the sync.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use super::{
    Check, Durability, LogError, Outcome, Sequence, Shared, Ticket,
    append::{Appender, Refusal},
    format::{Row, block_bytes, payload_bytes},
    ledger::LogFile,
    lock,
};
use crate::{panics::panic_text, threads::crew::Next};

/// Writes the log. Its owner gives it turns.
#[derive(Debug)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
    appender: Appender,
    /// When what is written without a sync is synced.
    sync_at: Option<Instant>,
    /// A turn is under way: if it never ends, it panicked.
    in_turn: bool,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, appender: Appender) -> Self {
        Committer { shared, appender, sync_at: None, in_turn: false }
    }

    /// Writes what waits, a block of it, and tells when to be called again. May wait for the disk.
    pub(crate) fn turn(&mut self) -> Next {
        self.in_turn = true;
        let next = self.write_block();
        self.in_turn = false;
        next
    }

    fn write_block(&mut self) -> Next {
        let (tickets, syncs) = {
            let mut state = lock(&self.shared.state);
            state.is_asleep = false;
            (state.queue.take_block(), std::mem::take(&mut state.syncs))
        };
        if !tickets.is_empty() {
            self.commit(tickets);
        }
        let is_due = self.sync_at.is_some_and(|at| at <= Instant::now());
        if !syncs.is_empty() || is_due {
            self.sync();
        }
        for done in syncs {
            let synced = self.shared.failure().map_or(Ok(self.appender.synced), Err);
            self.answer(done, synced);
        }
        self.rest()
    }

    /// Decides when the next turn is; what can wait is done if nothing else is to do.
    fn rest(&mut self) -> Next {
        let is_closing = {
            let state = lock(&self.shared.state);
            if !state.queue.is_empty() || !state.syncs.is_empty() {
                return Next::Again;
            }
            state.is_closed
        };
        if self.shared.failure().is_none() {
            if is_closing {
                self.sync();
            }
            self.appender.mark();
            if !is_closing && let Err(Refusal::Fatal(error)) = self.appender.prepare() {
                self.fail(&error);
            }
        }
        if is_closing {
            if self.shared.failure().is_none() {
                // So that the mark is durable too.
                self.sync_now();
            }
            self.appender.close();
            return Next::Leave;
        }
        let mut state = lock(&self.shared.state);
        if !state.queue.is_empty() || !state.syncs.is_empty() || state.is_closed {
            return Next::Again;
        }
        state.is_asleep = true;
        self.sync_at.map_or(Next::Woken, Next::At)
    }

    /// Writes a block of these tickets, or of those that can be written.
    fn commit(&mut self, tickets: Vec<Ticket>) {
        if let Some(failure) = self.shared.failure() {
            return self.refuse(tickets, &failure);
        }
        let Some(tickets) = self.with_room(in_order(tickets)) else { return };
        let tickets = self.checked(tickets);
        if tickets.is_empty() {
            return;
        }
        let first = self.appender.next;
        if let Err(refusal) = self.write(&tickets) {
            return self.refused(tickets, refusal);
        }
        self.reach(Point::Written);
        let mut answers = (first.0..).map(Sequence).zip(tickets).peekable();
        while let Some((sequence, ticket)) = answers.next_if(|(_, t)| t.durability == Durability::Process) {
            self.answer(ticket.outcome, Ok(sequence));
        }
        if answers.peek().is_some() {
            self.sync();
        } else if self.sync_at.is_none() {
            self.sync_at = Some(Instant::now() + self.shared.options.sync_after);
        }
        for (sequence, ticket) in answers {
            let done = self.shared.failure().map_or(Ok(sequence), Err);
            self.answer(ticket.outcome, done);
        }
    }

    /// Those of the tickets for which there is room; the others are answered.
    fn with_room(&mut self, tickets: Vec<Ticket>) -> Option<Vec<Ticket>> {
        let frees = tickets.iter().all(|ticket| ticket.frees_room);
        let refusal = match self.make_room(&tickets, frees) {
            Ok(()) => return Some(tickets),
            Err(refusal) => refusal,
        };
        let (freeing, others): (Vec<_>, Vec<_>) = tickets.into_iter().partition(|ticket| ticket.frees_room);
        if frees || freeing.is_empty() || matches!(refusal, Refusal::Fatal(_)) {
            self.refused(freeing.into_iter().chain(others).collect(), refusal);
            return None;
        }
        self.refused(others, refusal);
        match self.make_room(&freeing, true) {
            Ok(()) => Some(freeing),
            Err(refusal) => {
                self.refused(freeing, refusal);
                None
            }
        }
    }

    fn make_room(&mut self, tickets: &[Ticket], frees: bool) -> Result<(), Refusal> {
        let payloads = tickets.iter().map(|ticket| payload_bytes(ticket.payload.len())).sum();
        let appender = &mut self.appender;
        let begun = careful(|| appender.make_room(block_bytes(tickets.len(), payloads), frees))?;
        if let Some(begun) = begun {
            // A rotation synced what was written.
            self.sync_at = None;
            self.reach(Point::Rotated);
            lock(&self.shared.ledger).files.push(LogFile {
                number: begun.number,
                path: begun.path,
                first: self.appender.next,
                bytes: begun.bytes,
                spans: BTreeMap::new(),
            });
        }
        Ok(())
    }

    /// Asks each ticket, in order, whether it is to be written; those that must wait are put back with all that follow
    /// them in their collection.
    fn checked(&mut self, tickets: Vec<Ticket>) -> Vec<Ticket> {
        let (mut written, mut waiting) = (Vec::with_capacity(tickets.len()), Vec::new());
        let (mut here, mut held) = (HashSet::new(), HashSet::new());
        for mut ticket in tickets {
            let collection = ticket.collection;
            if held.contains(&collection) {
                waiting.push(ticket);
                continue;
            }
            match catch_unwind(AssertUnwindSafe(|| ticket.outcome.check())) {
                Ok(Check::Write) => {
                    here.insert(collection);
                    written.push(ticket);
                }
                Ok(Check::Wait) if here.contains(&collection) => {
                    held.insert(collection);
                    waiting.push(ticket);
                }
                Ok(Check::Wait) => {
                    // It would wait for ever.
                    let reason = Arc::from("it waits for a write of its block, of which there is none");
                    self.answer(ticket.outcome, Err(LogError::Misled { reason }));
                }
                Ok(Check::Answered) => {}
                Err(panic) => {
                    let reason = format!("its check panicked: {}", panic_text(&*panic)).into();
                    self.answer(ticket.outcome, Err(LogError::Misled { reason }));
                }
            }
        }
        if !waiting.is_empty() {
            lock(&self.shared.state).queue.put_back(waiting);
        }
        written
    }

    fn write(&mut self, tickets: &[Ticket]) -> Result<(), Refusal> {
        let first = self.appender.next;
        let mut ledger = lock(&self.shared.ledger);
        let mut entries = Vec::with_capacity(tickets.len());
        let mut earlier = HashMap::new();
        for (sequence, ticket) in (first.0..).map(Sequence).zip(tickets) {
            let before = earlier.insert(ticket.collection, sequence);
            let row = Row {
                collection: ticket.collection,
                before: before.unwrap_or_else(|| ledger.before(ticket.collection)),
                len: u32::try_from(ticket.payload.len()).expect("tickets are bounded far below"),
                sum: ticket.sum,
                kind: ticket.kind,
            };
            entries.push((row, &*ticket.payload));
        }
        // Only this thread adds to the ledger; nobody waits for the disk with it.
        drop(ledger);
        let appender = &mut self.appender;
        careful(|| appender.write(&entries))?;
        ledger = lock(&self.shared.ledger);
        for (sequence, (row, _)) in (first.0..).map(Sequence).zip(&entries) {
            ledger.note(sequence, row);
        }
        Ok(())
    }

    fn sync(&mut self) {
        self.sync_at = None;
        if self.appender.is_unsynced() {
            self.sync_now();
        }
    }

    fn sync_now(&mut self) {
        if self.shared.failure().is_some() {
            return;
        }
        self.reach(Point::BeforeSync);
        let appender = &mut self.appender;
        if let Err(Refusal::Fatal(error) | Refusal::Passing(error)) =
            careful(|| appender.sync().map_err(Refusal::Fatal))
        {
            self.fail(&error);
        }
        self.reach(Point::Synced);
    }

    /// From now on nothing is written any more.
    fn fail(&mut self, error: &LogError) {
        self.sync_at = None;
        self.shared.fail(&crate::error::with_sources(error));
    }

    fn refused(&mut self, tickets: Vec<Ticket>, refusal: Refusal) {
        match refusal {
            Refusal::Passing(error) => self.refuse(tickets, &error),
            Refusal::Fatal(error) => {
                self.fail(&error);
                let failure = self.shared.failure().unwrap_or(error);
                self.refuse(tickets, &failure);
            }
        }
    }

    fn refuse(&self, tickets: Vec<Ticket>, error: &LogError) {
        for ticket in tickets {
            self.answer(ticket.outcome, Err(error.clone()));
        }
    }

    fn answer(&self, outcome: Box<dyn Outcome>, done: Result<Sequence, LogError>) {
        self.shared.answer(outcome, done);
    }

    fn reach(&self, point: Point) {
        self.shared.reach(point);
    }
}

impl Drop for Committer {
    /// Whoever waits is answered, also if this goes by a panic.
    fn drop(&mut self) {
        if self.in_turn {
            self.shared.fail("its committer panicked");
        }
        let (tickets, syncs) = {
            let mut state = lock(&self.shared.state);
            state.is_closed = true;
            (state.queue.take_all(), std::mem::take(&mut state.syncs))
        };
        let error = self.shared.failure().unwrap_or(LogError::Closed);
        self.refuse(tickets, &error);
        for done in syncs {
            self.answer(done, Err(error.clone()));
        }
    }
}

/// A panic is the end of the log, and whoever waits is told all the same.
fn careful<T>(call: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let reason = format!("its committer panicked: {}", panic_text(&*panic)).into();
        Err(Refusal::Fatal(LogError::Misled { reason }))
    })
}

/// Tickets that want no sync before the others, as far as the order within each collection allows.
fn in_order(tickets: Vec<Ticket>) -> Vec<Ticket> {
    let mut behind = HashSet::new();
    let (mut first, then): (Vec<_>, Vec<_>) = tickets.into_iter().partition(|ticket| {
        let is_first = ticket.durability == Durability::Process && !behind.contains(&ticket.collection);
        if !is_first {
            behind.insert(ticket.collection);
        }
        is_first
    });
    first.extend(then);
    first
}

/// Where a test may stop the log, or see how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// A block is written and not synced.
    Written,
    /// What is written is synced next.
    BeforeSync,
    /// The sync has returned.
    Synced,
    /// A new file has its number.
    Rotated,
    /// A file is removed next.
    Cutting,
}
