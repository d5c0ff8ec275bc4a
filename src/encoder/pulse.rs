//! A pulse records what a lane of an encoder is doing, so that a health probe sees whether it hangs.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The time when a lane began its batch, and the outcome of its last one.
#[derive(Debug, Default)]
pub(super) struct Pulse(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    busy_since: Option<Instant>,
    /// When the last batch failed, and why.
    fault: Option<(Instant, String)>,
}

impl Pulse {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begins(&self) {
        self.lock().busy_since = Some(Instant::now());
    }

    /// The batch is done; `fault` is why all of it failed, if it did.
    pub(super) fn ends(&self, fault: Option<String>) {
        *self.lock() = State { busy_since: None, fault: fault.map(|fault| (Instant::now(), fault)) };
    }

    /// Why the lane is not healthy, if so: it has been at one batch for longer than `patience`, or its last batch
    /// failed no longer ago than that. (An old failure says nothing: while the health service keeps clients away there
    /// is no other batch.)
    pub(super) fn fault(&self, patience: Duration) -> Option<String> {
        let state = self.lock();
        let busy = state.busy_since.map(|since| since.elapsed()).filter(|busy| *busy > patience);
        busy.map(|busy| format!("has been at one batch for {:.0} s", busy.as_secs_f64())).or_else(|| {
            let recent = state.fault.as_ref().filter(|(at, _)| at.elapsed() <= patience);
            recent.map(|(_, fault)| format!("fails: {fault}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_takes_too_long_or_fails_shows_until_one_goes_well() {
        let pulse = Pulse::default();
        let patience = Duration::from_secs(3600);
        assert_eq!(pulse.fault(Duration::ZERO), None);
        pulse.begins();
        assert_eq!(pulse.fault(patience), None);
        assert!(pulse.fault(Duration::ZERO).unwrap().contains("at one batch"));
        pulse.ends(Some("no memory".into()));
        assert_eq!(pulse.fault(patience).unwrap(), "fails: no memory");
        assert_eq!(pulse.fault(Duration::ZERO), None, "it is some time ago");
        pulse.begins();
        pulse.ends(None);
        assert_eq!(pulse.fault(patience), None);
    }
}
