//! The memory of requests: what all requests under way may hold together, and what one answer may hold.
//!
//! A [`Budget`] is one number of bytes for the whole process. Memory for a request is reserved before it is taken
//! ([`Held`]), and given back when the reservation is dropped. A reservation that does not fit is refused at once; only
//! a reader that holds nothing, or little, may wait ([`Budget::wait`]), so nobody waits for room while others wait for
//! what it holds. A waiting caller takes nothing before all of it is free, and leaves a part of the budget to those
//! that are refused at once: bulk work that fills the memory does not keep a search out. A [`Room`] counts the bytes of
//! one answer while it is made, before they are read from the store. Estimates are rough on purpose: they need to be
//! right within a small factor, and cheap.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::{
    allocator,
    error::{ErrorKind, Fault},
};

/// Memory is counted in units of this many bytes.
const UNIT_BYTES: usize = 1 << 10;

/// A waiting caller leaves one part in so many of the budget free.
const LEFT_PART: usize = 8;

/// About what one payload value or passage takes beyond its own bytes: its place in two maps, and its name's
/// allocation.
const VALUE_BYTES: usize = 256;

/// Bytes that all requests under way may hold together.
#[derive(Debug)]
pub struct Budget {
    units: Arc<Semaphore>,
    bytes_max: usize,
    /// Held by the first of those that wait.
    turn: tokio::sync::Mutex<()>,
    /// Told whenever something becomes free.
    freed: Notify,
}

impl Budget {
    /// Room for `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        let units = units(bytes_max).clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Budget {
            units: Arc::new(Semaphore::new(units)),
            bytes_max,
            turn: tokio::sync::Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// A reservation of nothing, which can grow.
    pub fn nothing(self: &Arc<Self>) -> Held {
        Held { budget: Arc::clone(self), bytes: 0, permit: None }
    }

    /// Reserves `bytes` if they are free now.
    ///
    /// # Errors
    /// [`BudgetError::InFlight`].
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Held, BudgetError> {
        let mut held = self.nothing();
        held.grow(bytes)?;
        Ok(held)
    }

    /// Reserves `bytes` as soon as they and an eighth of the budget are free, first come, first served. The caller
    /// must hold nothing of this budget that others wait for. More than the whole budget waits for the whole budget.
    pub async fn wait(self: Arc<Self>, bytes: usize) -> Held {
        let all = units(self.bytes_max).clamp(1, Semaphore::MAX_PERMITS);
        let wanted = units(bytes).clamp(1, all);
        let free = wanted.saturating_add(all / LEFT_PART).min(all);
        let permit = {
            let _turn = self.turn.lock().await;
            loop {
                // Not the semaphore's own queue, which takes what is free for its first in line: as long as that one
                // waits, everybody else would be refused.
                if self.units.available_permits() >= free
                    && let Ok(permit) = Arc::clone(&self.units)
                        .try_acquire_many_owned(u32::try_from(wanted).unwrap_or(u32::MAX))
                {
                    break permit;
                }
                self.freed.notified().await;
            }
        };
        Held { budget: self, bytes, permit: Some(permit) }
    }

    /// Bytes in all.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Bytes that nobody holds.
    pub fn free_bytes(&self) -> usize {
        self.units.available_permits() * UNIT_BYTES
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES)
}

/// Bytes reserved of a [`Budget`]; dropped, they are free again.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reserves `more` bytes besides, if they are free now.
    ///
    /// # Errors
    /// [`BudgetError::InFlight`]; what was held before is still held.
    pub fn grow(&mut self, more: usize) -> Result<(), BudgetError> {
        let bytes = self.bytes.saturating_add(more);
        let wanted = units(bytes) - units(self.bytes);
        if wanted > 0 {
            let refused = || BudgetError::InFlight { limit: self.budget.bytes_max };
            let wanted = u32::try_from(wanted).map_err(|_| refused())?;
            let permit =
                Arc::clone(&self.budget.units).try_acquire_many_owned(wanted).map_err(|_| refused())?;
            match &mut self.permit {
                Some(held) => held.merge(permit),
                None => self.permit = Some(permit),
            }
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Gives back all but `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            return;
        }
        self.bytes = bytes;
        if let Some(held) = &mut self.permit {
            let spare = held.num_permits().saturating_sub(units(bytes));
            drop(held.split(spare));
            self.budget.freed.notify_one();
        }
    }

    /// Takes over what another holds of the same budget.
    pub fn merge(&mut self, mut other: Held) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        match (&mut self.permit, other.permit.take()) {
            (Some(held), Some(permit)) => held.merge(permit),
            (held @ None, permit) => *held = permit,
            (Some(_), None) => {}
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            drop(permit);
            allocator::given_back(self.bytes);
            // At most one waits for it, since the others wait for their turn; told before it looks, it looks again.
            self.budget.freed.notify_one();
        }
    }
}

/// The room of one answer: at most so many bytes, and all of them reserved while the answer lives.
#[derive(Debug)]
pub struct Room {
    answer_bytes_max: usize,
    state: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    answer_bytes: usize,
    /// `None`: nobody else is there to share with.
    held: Option<Held>,
}

impl Room {
    /// For an answer of at most `answer_bytes_max` bytes, reserved from `budget`.
    pub fn new(answer_bytes_max: usize, budget: &Arc<Budget>) -> Arc<Self> {
        let state = Taken { answer_bytes: 0, held: Some(budget.nothing()) };
        Arc::new(Room { answer_bytes_max, state: Mutex::new(state) })
    }

    /// For a caller in this process who takes what there is.
    pub fn unbounded() -> Arc<Self> {
        let state = Taken { answer_bytes: 0, held: None };
        Arc::new(Room { answer_bytes_max: usize::MAX, state: Mutex::new(state) })
    }

    /// Counts a part of the answer that is about to be read: `bytes` of it go out, in `values` payload values or
    /// passages.
    ///
    /// # Errors
    /// [`BudgetError::AnswerTooLarge`], [`BudgetError::InFlight`].
    pub fn take(&self, bytes: usize, values: usize) -> Result<(), BudgetError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let answer_bytes = state.answer_bytes.saturating_add(bytes);
        if answer_bytes > self.answer_bytes_max {
            return Err(BudgetError::AnswerTooLarge { limit: self.answer_bytes_max });
        }
        // Once as it is made, once as it is written.
        if let Some(held) = &mut state.held {
            held.grow(bytes.saturating_mul(2).saturating_add(values.saturating_mul(VALUE_BYTES)))?;
        }
        state.answer_bytes = answer_bytes;
        Ok(())
    }

    /// Reserves memory that is needed to make the answer and is no part of it.
    ///
    /// # Errors
    /// [`BudgetError::InFlight`].
    pub fn keep(&self, bytes: usize, values: usize) -> Result<(), BudgetError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut state.held {
            Some(held) => held.grow(bytes.saturating_add(values.saturating_mul(VALUE_BYTES))),
            None => Ok(()),
        }
    }

    /// The most that may be counted.
    pub fn answer_bytes_max(&self) -> usize {
        self.answer_bytes_max
    }

    /// Bytes counted so far.
    pub fn answer_bytes(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).answer_bytes
    }
}

/// Why memory was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BudgetError {
    #[error(
        "the answer would have more than {limit} bytes, which is the most a message may have (limits.message_bytes_max); ask for less at once: a smaller k, fewer ids or queries, without_text or without_payload"
    )]
    AnswerTooLarge { limit: usize },
    #[error(
        "the requests under way hold all the memory they may ({limit} bytes, limits.bytes_in_flight_max); retry later, or send and ask for less at once"
    )]
    InFlight { limit: usize },
}

impl Fault for BudgetError {
    fn kind(&self) -> ErrorKind {
        match self {
            BudgetError::AnswerTooLarge { .. } => ErrorKind::Invalid,
            BudgetError::InFlight { .. } => ErrorKind::Overloaded,
        }
    }

    fn is_too_large(&self) -> bool {
        matches!(self, BudgetError::AnswerTooLarge { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_comes_back_when_dropped() {
        let budget = Budget::new(10 << 10);
        let mut held = budget.reserve(6 << 10).unwrap();
        assert_eq!(budget.reserve(5 << 10).unwrap_err(), BudgetError::InFlight { limit: 10 << 10 });
        held.grow(4 << 10).unwrap();
        held.grow(1).unwrap_err();
        assert_eq!(budget.free_bytes(), 0);
        drop(held);
        assert_eq!(budget.free_bytes(), 10 << 10);
    }

    #[test]
    fn what_is_given_back_is_free_and_can_be_taken_again() {
        let budget = Budget::new(10 << 10);
        let mut held = budget.reserve(8 << 10).unwrap();
        held.shrink(1 << 10);
        assert_eq!((held.bytes(), budget.free_bytes()), (1 << 10, 9 << 10));
        held.merge(budget.reserve(5 << 10).unwrap());
        assert_eq!((held.bytes(), budget.free_bytes()), (6 << 10, 4 << 10));
        drop(held);
        assert_eq!(budget.free_bytes(), 10 << 10);
    }

    #[test]
    fn small_growth_is_counted_by_the_byte() {
        let budget = Budget::new(4 << 10);
        let mut held = budget.nothing();
        for _ in 0..4096 {
            held.grow(1).unwrap();
        }
        assert_eq!(budget.free_bytes(), 0);
        held.grow(1).unwrap_err();
    }

    #[tokio::test]
    async fn a_reader_that_holds_nothing_may_wait() {
        let budget = Budget::new(4 << 10);
        let held = budget.reserve(4 << 10).unwrap();
        let waiting = tokio::spawn(Arc::clone(&budget).wait(1 << 20));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        let held = waiting.await.unwrap();
        assert_eq!(budget.free_bytes(), 0);
        drop(held);
        assert_eq!(budget.free_bytes(), 4 << 10);
    }

    #[tokio::test]
    async fn who_waits_takes_nothing_from_those_that_are_served_at_once() {
        let budget = Budget::new(64 << 10);
        let held = budget.reserve(32 << 10).unwrap();
        let waiting = tokio::spawn(Arc::clone(&budget).wait(48 << 10));
        let behind = tokio::spawn(Arc::clone(&budget).wait(1 << 10));
        tokio::task::yield_now().await;
        let served = budget.reserve(16 << 10).expect("it is free, though another waits for more");
        drop(held);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished() && !behind.is_finished(), "it took what is left to others");
        drop(served);
        let held = waiting.await.unwrap();
        assert!(budget.reserve(8 << 10).is_ok(), "a part is left");
        let behind = behind.await.unwrap();
        drop((held, behind));
        assert_eq!(budget.free_bytes(), 64 << 10);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_lets_the_next_one_in() {
        let budget = Budget::new(64 << 10);
        let held = budget.reserve(64 << 10).unwrap();
        let first = tokio::spawn(Arc::clone(&budget).wait(1 << 10));
        tokio::task::yield_now().await;
        let second = tokio::spawn(Arc::clone(&budget).wait(1 << 10));
        tokio::task::yield_now().await;
        drop(held);
        // It may have been told by now, and takes that with it.
        first.abort();
        assert_eq!(second.await.unwrap().bytes(), 1 << 10);
    }

    #[test]
    fn an_answer_is_refused_at_the_first_byte_too_many() {
        let budget = Budget::new(1 << 20);
        let room = Room::new(1000, &budget);
        room.take(600, 2).unwrap();
        assert_eq!(room.take(401, 0), Err(BudgetError::AnswerTooLarge { limit: 1000 }));
        room.take(400, 0).unwrap();
        assert_eq!(room.answer_bytes(), 1000);
        assert!(budget.free_bytes() < 1 << 20);
        drop(room);
        assert_eq!(budget.free_bytes(), 1 << 20);
        Room::unbounded().take(usize::MAX, usize::MAX).unwrap();
    }
}
