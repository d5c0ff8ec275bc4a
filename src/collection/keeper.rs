//! Keeps what a collection has on the disk small, in turns of background threads: what grew becomes segments, many segments
//! become few, and the log is let go of.
//!
//! No reader and no writer waits for it. What it changed is in the store at once, and in memory with the writer's next
//! turn: until then the segments before it can be read.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    Shared,
    trouble::{Told, Trouble, Why},
};
use crate::{error::with_sources, segmented::Tidied, store::StoreError, threads::crew::Next};

/// What grew is sealed, though it is not much, when nothing more came for so long: it is in memory twice, and the next
/// opening would read all of it from the log.
const QUIET: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });

/// Seals what grew, and lets go of the log.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    /// The last entry that was there at the look before, and when it was seen first.
    seen: (u64, Instant),
    trouble: Trouble,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Keeper { shared, seen: (0, Instant::now()), trouble: Trouble::default() }
    }

    /// What is due now. Leaves when the collection is closed.
    pub(super) fn turn(&mut self) -> Next {
        if let Some(next) = cannot_begin(&self.shared, &self.trouble) {
            if matches!(next, Next::At(_)) {
                // What nobody reads any more makes room.
                self.shared.store.free_room();
            }
            return next;
        }
        let tidied = match self.shared.store.tidy() {
            Ok(done) if done == Tidied::default() => {
                well(&self.shared, &mut self.trouble, SEALING);
                return self.rest();
            }
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

    fn sealed(&mut self, sealed: Result<bool, StoreError>) -> Next {
        match sealed {
            Ok(sealed) => {
                well(&self.shared, &mut self.trouble, SEALING);
                if sealed {
                    self.shared.segments_changed();
                    self.shared.wake_merger();
                }
                Next::Again
            }
            Err(error) => later(&self.shared, &mut self.trouble, SEALING, &error),
        }
    }
}

/// Merges segments.
pub(super) struct Merger {
    shared: Arc<Shared>,
    trouble: Trouble,
}

impl Merger {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Merger { shared, trouble: Trouble::default() }
    }

    /// One merge, if one is due. Leaves when the collection is closed.
    pub(super) fn turn(&mut self) -> Next {
        if let Some(next) = cannot_begin(&self.shared, &self.trouble) {
            return next;
        }
        match self.shared.store.merge(self.shared.signal.stop_asked()) {
            Ok(0) => {
                // None is due any more.
                self.trouble.passed();
                Next::Woken
            }
            Ok(_) => {
                well(&self.shared, &mut self.trouble, MERGING);
                self.shared.segments_changed();
                // Files that no search holds any more.
                self.shared.wake_keeper();
                Next::Again
            }
            Err(error) => later(&self.shared, &mut self.trouble, MERGING, &error),
        }
    }
}

/// What is said of work that cannot be done, and that can be done again.
type Words = (&'static str, &'static str);

const SEALING: Words = ("what grew cannot be sealed", "what grew is sealed again");
const MERGING: Words = ("segments cannot be merged", "segments are merged again");

/// Why nothing is begun now, if so.
fn cannot_begin(shared: &Shared, trouble: &Trouble) -> Option<Next> {
    if shared.signal.is_stopped() {
        return Some(Next::Leave);
    }
    // After a failed sync nothing is tried again before a restart.
    if shared.store.failed().is_some() {
        return Some(Next::Woken);
    }
    trouble.waits(Instant::now(), || free(shared)).map(Next::At)
}

/// Bytes that are free, if that can be told.
fn free(shared: &Shared) -> Option<u64> {
    shared.store.log().disk().available(&shared.dir).ok()
}

fn later(shared: &Shared, trouble: &mut Trouble, (what, _): Words, error: &StoreError) -> Next {
    let why = match error {
        error if error.is_full() => Why::NoRoom { free: free(shared).unwrap_or(u64::MAX) },
        error if error.is_passing() => Why::Passing,
        _ => Why::Damage,
    };
    let now = Instant::now();
    let told = trouble.failed(now, why);
    let (dir, error) = (shared.dir.display(), with_sources(error));
    match (told, why) {
        (Told::Known, _) => tracing::debug!(%dir, error, what, "it still cannot be done"),
        (Told::Say, Why::Damage) => {
            tracing::error!(%dir, error, what, "nothing is lost, and the disk keeps more than it needs");
        }
        (Told::Say, _) => {
            tracing::warn!(%dir, error, what, "it is tried again, ever later; this is said once, and when it is done");
        }
    }
    trouble.waits(now, || None).map_or(Next::Again, Next::At)
}

/// Says that what could not be done is done again, if it was said that it could not.
fn well(shared: &Shared, trouble: &mut Trouble, (_, what): Words) {
    if let Some(tries) = trouble.passed() {
        tracing::info!(dir = %shared.dir.display(), tries, what, "there is no trouble any more");
    }
}
