//! Keeps what a collection has on the disk small, in turns of background threads: what grew becomes segments, many segments
//! become few, and the log is let go of.
//!
//! No reader and no writer waits for it. What it changed is in the store at once, and in memory with the writer's next
//! turn: until then the segments before it can be read.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::Shared;
use crate::{error::with_sources, segmented::Tidied, store::StoreError, threads::crew::Next};

/// How long to wait after something that passes, such as a full disk.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long to wait after anything else: what is damaged does not get well, and is told now and then.
const RETRY_FAULT_AFTER: Duration = Duration::from_secs(300);

/// What grew is sealed, though it is not much, when nothing more came for so long: it is in memory twice, and the next
/// opening would read all of it from the log.
const QUIET: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });

/// Seals what grew, and lets go of the log.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    /// The last entry that was there at the look before, and when it was seen first.
    seen: (u64, Instant),
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Keeper { shared, seen: (0, Instant::now()) }
    }

    /// What is due now. Leaves when the collection is closed.
    pub(super) fn turn(&mut self) -> Next {
        if self.shared.signal.is_stopped() {
            return Next::Leave;
        }
        let tidied = match self.shared.store.tidy() {
            Ok(done) if done == Tidied::default() => return self.rest(),
            tidied => tidied.map(|done| done.sealed),
        };
        self.sealed(tidied)
    }

    /// Nothing is due. What grew is looked at again after a while.
    fn rest(&mut self) -> Next {
        let store = &self.shared.store;
        let waits = store.is_worth_a_segment() && self.shared.read_only().is_none();
        self.shared.keeper_waits.store(waits, Ordering::SeqCst);
        if !waits {
            return Next::Woken;
        }
        let (sequence, now) = (store.sequence(), Instant::now());
        if self.seen.0 != sequence {
            self.seen = (sequence, now);
        }
        if now < self.seen.1 + QUIET {
            return Next::At(self.seen.1 + QUIET);
        }
        let sealed = store.seal();
        self.sealed(sealed)
    }

    fn sealed(&self, sealed: Result<bool, StoreError>) -> Next {
        match sealed {
            Ok(sealed) => {
                if sealed {
                    self.shared.segments_changed();
                    self.shared.wake_merger();
                }
                Next::Again
            }
            Err(error) => later(&self.shared, "what grew cannot be sealed", &error),
        }
    }
}

/// Merges segments.
pub(super) struct Merger {
    shared: Arc<Shared>,
}

impl Merger {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Merger { shared }
    }

    /// One merge, if one is due. Leaves when the collection is closed.
    pub(super) fn turn(&mut self) -> Next {
        if self.shared.signal.is_stopped() {
            return Next::Leave;
        }
        match self.shared.store.merge(self.shared.signal.stop_asked()) {
            Ok(0) => Next::Woken,
            Ok(_) => {
                self.shared.segments_changed();
                // Files that no search holds any more.
                self.shared.wake_keeper();
                Next::Again
            }
            Err(error) => later(&self.shared, "segments cannot be merged", &error),
        }
    }
}

fn later(shared: &Shared, what: &str, error: &StoreError) -> Next {
    let is_passing = error.is_passing();
    let (dir, error) = (shared.dir.display(), with_sources(error));
    if is_passing {
        tracing::warn!(%dir, error, what, "it is tried again");
    } else {
        tracing::error!(%dir, error, what, "nothing is lost, and the disk keeps more than it needs");
    }
    Next::At(Instant::now() + if is_passing { RETRY_AFTER } else { RETRY_FAULT_AFTER })
}
