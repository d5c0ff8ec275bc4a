//! Keeps what a collection has on the disk small, in turns of background threads: what grew becomes segments, many segments
//! become few, and the log is let go of.
//!
//! No reader and no writer waits for it. What it changed is in the store at once, and in memory with the writer's next
//! turn: until then the segments before it can be read.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Shared;
use crate::{error::with_sources, segmented::Tidied, store::StoreError, threads::crew::Next};

/// How long to wait after something that passes, such as a full disk.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long to wait after anything else: what is damaged does not get well, and is told now and then.
const RETRY_FAULT_AFTER: Duration = Duration::from_secs(300);

/// Seals what grew, and lets go of the log.
pub(super) struct Keeper {
    shared: Arc<Shared>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Keeper { shared }
    }

    /// What is due now. Leaves when the collection is closed.
    pub(super) fn turn(&mut self) -> Next {
        if self.shared.signal.is_stopped() {
            return Next::Leave;
        }
        match self.shared.store.tidy() {
            Ok(done) if done == Tidied::default() => Next::Woken,
            Ok(Tidied { sealed, .. }) => {
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
