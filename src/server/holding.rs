//! What one request holds of what all share, from its first byte to the last of its answer: memory and its turn.
//!
//! What comes in fills it (`inbound`), the work takes it over (`follow`), and dropping it gives everything back.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OwnedSemaphorePermit;

use crate::budget::{Held, Room};

/// What one request holds of what all share; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Holding {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    /// Of its messages that were passed on and that nobody has taken over yet.
    messages: Mutex<VecDeque<Held>>,
    /// Of its answer.
    pub(super) room: Arc<Room>,
}

impl Holding {
    pub(super) fn new(room: Arc<Room>) -> Arc<Self> {
        Arc::new(Holding { permit: Mutex::default(), messages: Mutex::default(), room })
    }

    /// A message was paid for and is passed on.
    pub(super) fn take_message(&self, held: Held) {
        lock(&self.messages).push_back(held);
    }

    /// The request takes its turn among all.
    pub(super) fn take_turn(&self, permit: OwnedSemaphorePermit) {
        *lock(&self.permit) = Some(permit);
    }

    /// The memory of the oldest message that was passed on.
    pub(super) fn message(&self) -> Option<Held> {
        lock(&self.messages).pop_front()
    }

    /// About what a call's message takes in memory; of a stream, the oldest that nobody has taken over yet.
    pub(super) fn message_bytes(&self) -> usize {
        lock(&self.messages).front().map_or(0, Held::bytes)
    }

    /// The work is done; what is left is to send the answer.
    pub(super) fn worked(&self) {
        drop(lock(&self.permit).take());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
