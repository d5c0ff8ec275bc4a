//! Turns at the processor: several encoders, one set of cores.
//!
//! Each session computes on all the threads it was given. Two at once would ask for twice the cores, and both would end
//! later than the second does when they go one after the other. So the lanes of one class take turns, batch by batch, in
//! the order they asked: a model that has much to do does not keep another from its next batch.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// First come, first served. A [`Mutex`] alone gives no order: who has just let go may well be the next.
#[derive(Debug, Default)]
pub(super) struct Turns {
    numbers: Mutex<Numbers>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    now: u64,
}

/// Its holder's turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits until everyone who asked before is through.
    pub(super) fn wait(&self) -> Turn<'_> {
        let mut numbers = self.lock();
        let mine = numbers.next;
        numbers.next += 1;
        while numbers.now != mine {
            numbers = self.called.wait(numbers).unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().now += 1;
        self.0.called.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn who_asked_first_is_first() {
        let turns = Arc::new(Turns::default());
        let order = Arc::new(Mutex::new(Vec::new()));
        let mine = turns.wait();
        let threads: Vec<_> = (0..8)
            .map(|who| {
                let (others, order) = (Arc::clone(&turns), Arc::clone(&order));
                let thread = std::thread::spawn(move || {
                    let _turn = others.wait();
                    order.lock().unwrap().push(who);
                });
                // The next one asks only when this one has.
                while turns.lock().next < who + 2 {
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
        let turns = Arc::new(Turns::default());
        let other = Arc::clone(&turns);
        let panicked = std::thread::spawn(move || {
            let _turn = other.wait();
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        drop(turns.wait());
    }
}
