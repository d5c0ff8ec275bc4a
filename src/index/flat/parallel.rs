//! A parallel scan uses several threads of a pool, none of which starts other work while it waits.
//!
//! A `rayon` join on a worker starts any other task of the pool on the same stack: another search, and another in that
//! one, as many as clients ask for. So a counter hands out the chunks of a scan instead. The calling thread takes
//! chunks until none are left, and helpers on idle threads of the pool take some of them. At the end it waits only for
//! chunks that a helper has begun. A helper that starts too late finds nothing to do.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Chunk, Nearest};
use crate::{
    index::{Neighbor, Slot},
    stop::{Stop, Stopped},
    vector::Metric,
};

/// Which slots may be answered, for several threads and as long as each needs it.
pub type SharedAllow = Arc<dyn Fn(Slot) -> bool + Send + Sync>;

/// A scan of full chunks, shared by those who work on it.
pub(super) struct Scan {
    metric: Metric,
    query: Vec<f32>,
    k: usize,
    allow: Option<SharedAllow>,
    stop: Stop,
    /// The next chunk that nobody has taken.
    next: AtomicUsize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// `None` once nobody may begin any more, so that a late helper does not keep vectors in memory.
    chunks: Option<Arc<Vec<Arc<Chunk>>>>,
    working: usize,
    nearest: Nearest,
    panicked: bool,
}

impl Scan {
    pub(super) fn new(
        metric: Metric,
        query: &[f32],
        allow: Option<&SharedAllow>,
        stop: &Stop,
        chunks: Arc<Vec<Arc<Chunk>>>,
        nearest: Nearest,
    ) -> Self {
        Scan {
            metric,
            query: query.to_vec(),
            k: nearest.k,
            allow: allow.cloned(),
            stop: stop.clone(),
            next: AtomicUsize::new(0),
            state: Mutex::new(State { chunks: Some(chunks), working: 0, nearest, panicked: false }),
            changed: Condvar::new(),
        }
    }

    /// Scans on this thread and on those of its pool that have time.
    ///
    /// # Panics
    /// If a helper did, as a scan on one thread would have.
    pub(super) fn run(self) -> Result<Vec<Neighbor>, Stopped> {
        let scan = Arc::new(self);
        for _ in 1..rayon::current_num_threads() {
            let scan = Arc::clone(&scan);
            // A panic that leaves what was spawned ends the process; the scanning thread reports it instead.
            rayon::spawn(move || drop(catch_unwind(AssertUnwindSafe(|| scan.help()))));
        }
        scan.help();
        let mut state = scan.lock();
        state.chunks = None;
        while state.working > 0 {
            state = scan.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        assert!(!state.panicked, "a part of the scan panicked on another thread");
        scan.stop.check()?;
        Ok(std::mem::replace(&mut state.nearest, Nearest::new(0, 0)).into_sorted())
    }

    /// Takes chunks until there are none left, or it is time to leave off.
    fn help(&self) {
        let Some(chunks) = ({
            let mut state = self.lock();
            let chunks = state.chunks.clone();
            state.working += usize::from(chunks.is_some());
            chunks
        }) else {
            return;
        };
        let mut part = Part { scan: self, nearest: Some(Nearest::new(self.k, 0)), chunks: Some(chunks) };
        part.scan_chunks();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread's part of a scan; it reports when it is dropped, also by a panic.
struct Part<'a> {
    scan: &'a Scan,
    nearest: Option<Nearest>,
    chunks: Option<Arc<Vec<Arc<Chunk>>>>,
}

impl Part<'_> {
    fn scan_chunks(&mut self) {
        let (Some(chunks), Some(nearest)) = (&self.chunks, &mut self.nearest) else { return };
        let Scan { metric, query, allow, stop, next, .. } = self.scan;
        let allow = allow.as_ref().map(|allow| &**allow as &dyn Fn(Slot) -> bool);
        while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.is_asked() {
                break;
            }
            chunk.offer_to(nearest, *metric, query, allow);
        }
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.chunks = None;
        let mut state = self.scan.lock();
        if std::thread::panicking() {
            state.panicked = true;
        } else if let Some(nearest) = self.nearest.take() {
            state.nearest.merge(nearest);
        }
        state.working -= 1;
        drop(state);
        self.scan.changed.notify_all();
    }
}
