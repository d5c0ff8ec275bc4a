//! A ticket lock shares the processor among several encoders in the order in which they ask.
//!
//! Each session computes on all the threads it was given. Two at once would ask for twice the cores, and both would end
//! later than the second does when they run one after the other. So the lanes of one class take turns, batch by batch:
//! a busy model does not keep another from its next batch.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A lock that is first come, first served. A [`Mutex`] alone gives no order: the thread that has just released it may
/// well be the next.
#[derive(Debug, Default)]
pub(super) struct TicketLock {
    numbers: Mutex<Numbers>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    now: u64,
}

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(super) struct TicketGuard<'a>(&'a TicketLock);

impl TicketLock {
    /// Waits until every earlier caller has released the lock.
    pub(super) fn lock(&self) -> TicketGuard<'_> {
        let mut numbers = self.numbers();
        let mine = numbers.next;
        numbers.next += 1;
        while numbers.now != mine {
            numbers = self.called.wait(numbers).unwrap_or_else(PoisonError::into_inner);
        }
        TicketGuard(self)
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TicketGuard<'_> {
    fn drop(&mut self) {
        self.0.numbers().now += 1;
        self.0.called.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn who_asked_first_is_first() {
        let lock = Arc::new(TicketLock::default());
        let order = Arc::new(Mutex::new(Vec::new()));
        let mine = lock.lock();
        let threads: Vec<_> = (0..8)
            .map(|who| {
                let (others, order) = (Arc::clone(&lock), Arc::clone(&order));
                let thread = std::thread::spawn(move || {
                    let _turn = others.lock();
                    order.lock().unwrap().push(who);
                });
                // The next one asks only when this one has.
                while lock.numbers().next < who + 2 {
                    std::thread::yield_now();
                }
                thread
            })
            .collect();
        assert!(order.lock().unwrap().is_empty(), "nobody goes before his turn");
        drop(mine);
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(*order.lock().unwrap(), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn a_turn_ends_also_when_its_holder_panics() {
        let lock = Arc::new(TicketLock::default());
        let other = Arc::clone(&lock);
        let panicked = std::thread::spawn(move || {
            let _turn = other.lock();
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        drop(lock.lock());
    }
}
