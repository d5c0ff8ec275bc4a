//! When to leave off: a deadline passed, or nobody waits for the answer any more.
//!
//! A long computation looks at a [`Stop`] between bounded steps. A stopped computation has no answer: what it
//! found so far is thrown away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Items between two looks of [`Stop::pace`]: a look costs as much as a few dozen comparisons.
const PACE: usize = 1024;

/// Says whether to leave off. The default never does. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    deadline: Option<Instant>,
    gone: Option<Arc<AtomicBool>>,
}

/// The caller that waits for an answer. Dropping it stops the computation that has its [`Stop`].
#[derive(Debug)]
pub struct Asker(Arc<AtomicBool>);

/// The work was left off: its deadline passed, or nobody waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed")]
pub struct Stopped;

impl Stop {
    /// Stops at a time, if there is one.
    pub fn at(deadline: Option<Instant>) -> Self {
        Stop { deadline, gone: None }
    }

    /// Stops at a time or when the asker is dropped.
    pub fn with_asker(deadline: Option<Instant>) -> (Asker, Self) {
        let gone = Arc::new(AtomicBool::new(false));
        (Asker(Arc::clone(&gone)), Stop { deadline, gone: Some(gone) })
    }

    /// Whether to leave off.
    pub fn is_asked(&self) -> bool {
        self.gone.as_ref().is_some_and(|gone| gone.load(Ordering::Relaxed))
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// # Errors
    /// [`Stopped`] if it is time to leave off.
    pub fn check(&self) -> Result<(), Stopped> {
        if self.is_asked() { Err(Stopped) } else { Ok(()) }
    }

    /// For a walk over many items, such as by `take_while`: whether to go on, looked at every thousand calls or so.
    /// A walk that it ended is incomplete; [`Stop::check`] says so afterwards.
    pub fn pace(&self) -> impl FnMut() -> bool {
        let mut calls = 0;
        move || {
            calls += 1;
            !(calls % PACE == 0 && self.is_asked())
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_stops_at_the_deadline_or_when_the_asker_is_gone() {
        assert_eq!(Stop::default().check(), Ok(()));
        assert_eq!(Stop::at(Some(Instant::now() + Duration::from_secs(3600))).check(), Ok(()));
        assert_eq!(Stop::at(Some(Instant::now())).check(), Err(Stopped));
        let (asker, stop) = Stop::with_asker(None);
        let other = stop.clone();
        assert!(!stop.is_asked());
        drop(asker);
        assert!(stop.is_asked() && other.is_asked());
    }

    #[test]
    fn a_walk_ends_within_a_bounded_number_of_items() {
        let stop = Stop::at(Some(Instant::now()));
        let mut going = stop.pace();
        let walked = (0..1_000_000).take_while(|_| going()).count();
        assert!(walked < PACE, "{walked}");
        let stop = Stop::default();
        let mut going = stop.pace();
        assert_eq!((0..10_000).take_while(|_| going()).count(), 10_000);
    }
}
