//! The thread that brings the graph level with the documents, a bounded batch at a time, and saves it.
//!
//! Searches never wait for it: what it has not yet taken in is scanned exactly. A graph that failed, or that holds too
//! many tombstones, is built anew beside the old one and swapped in. The exact index is rebuilt the same way.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Shared, memory::Graph};
use crate::{
    index::{self, FlatIndex, IndexError, IndexKind, IndexParams, Slot, Stamp, VectorIndex},
    store::disk::Disk,
    vector::{Dim, Metric},
};

/// Vectors inserted at once: the longest a search may find the graph busy.
const INSERT_BATCH: usize = 64;

/// Vectors copied at once while the exact index is rebuilt.
const COPY_BATCH: usize = 1024;

/// Fewer tombstones are never worth a rebuild.
const TOMBSTONES_MIN: u64 = if cfg!(test) { 64 } else { 1024 };

/// Attempts to build a graph before searches stay exact until a restart.
const FAILURES_MAX: u32 = 3;

/// How long a finished build waits before it looks again without being woken.
const IDLE: Duration = Duration::from_secs(60);

/// Folder of the saved graph in a collection's.
const INDEX_DIR: &str = "index";

/// The batch number of the store that the saved graph belongs to, as text with a CRC32.
const SEQUENCE_FILE: &str = "sequence";

/// What the indexer is told.
#[derive(Debug, Default)]
pub(super) struct Signal {
    flags: Mutex<Flags>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Flags {
    stop: bool,
    work: bool,
    /// A search found the graph broken.
    graph_failed: bool,
    /// The graph could not be built; nobody may wait for it.
    given_up: bool,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, Flags> {
        self.flags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self) {
        self.lock().work = true;
        self.changed.notify_all();
    }

    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    pub(super) fn graph_failed(&self) {
        let mut flags = self.lock();
        flags.work = true;
        flags.graph_failed = true;
        self.changed.notify_all();
    }

    /// Sleeps until `done` says so or nobody will ever make it so.
    pub(super) fn wait_until(&self, mut done: impl FnMut() -> bool) {
        loop {
            if done() {
                return;
            }
            let flags = self.lock();
            if flags.stop || flags.given_up {
                return;
            }
            // Progress is announced; the time-out only covers a change between the look and the sleep.
            let _ = self.changed.wait_timeout(flags, Duration::from_millis(20));
        }
    }
}

pub(super) struct Indexer {
    shared: Arc<Shared>,
    pool: rayon::ThreadPool,
    /// A graph that is being built beside the one in use.
    aside: Option<Graph>,
    failures: u32,
}

impl Indexer {
    pub(super) fn new(shared: Arc<Shared>, threads: usize) -> std::io::Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|n| format!("index-build-{n}"))
            .start_handler(|_| crate::priority::stand_back(crate::priority::BACKGROUND))
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Indexer { shared, pool, aside: None, failures: 0 })
    }

    /// Until it is stopped.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            {
                let mut flags = shared.signal.lock();
                while !flags.stop && !flags.work {
                    flags = shared
                        .signal
                        .changed
                        .wait_timeout(flags, IDLE)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
                if flags.stop {
                    return;
                }
                flags.work = false;
                if std::mem::take(&mut flags.graph_failed) {
                    drop(flags);
                    self.drop_failed();
                }
            }
            while !shared.signal.lock().stop && self.step() {
                shared.signal.changed.notify_all();
            }
            shared.signal.changed.notify_all();
        }
    }

    /// One bounded piece of work; whether there may be more.
    fn step(&mut self) -> bool {
        self.compact_flat();
        if self.shared.spec.index.kind == IndexKind::Flat || self.failures >= FAILURES_MAX {
            return false;
        }
        let (items, flat, mut target, is_aside) = {
            let memory = self.shared.read_memory();
            let live = memory.slots.live();
            let stale = memory.graph.as_ref().is_none_or(|graph| {
                let dead = (graph.index.len() as u64).saturating_sub(live);
                dead > TOMBSTONES_MIN && dead * 3 > graph.index.len() as u64
            });
            if stale && self.aside.is_none() {
                if live == 0 && memory.graph.is_none() {
                    return false;
                }
                match new_graph(&self.shared, live) {
                    Ok(index) => self.aside = Some(Graph { index, indexed: 0 }),
                    Err(error) => {
                        drop(memory);
                        self.failed(&error);
                        return true;
                    }
                }
            }
            let (target, is_aside) = match (&self.aside, &memory.graph) {
                (Some(aside), _) => (aside.clone(), true),
                (None, Some(graph)) => (graph.clone(), false),
                (None, None) => return false,
            };
            let items: Vec<Slot> = memory.slots.live_from(target.indexed).take(INSERT_BATCH).collect();
            (items, Arc::clone(&memory.flat), target, is_aside)
        };
        let done = items.len() < INSERT_BATCH;
        if let Some(last) = items.last() {
            let vectors: Vec<(Slot, Vec<f32>)> =
                items.iter().filter_map(|slot| Some((*slot, flat.vector(*slot)?))).collect();
            let borrowed: Vec<(Slot, &[f32])> =
                vectors.iter().map(|(slot, v)| (*slot, v.as_slice())).collect();
            if let Err(error) = self.pool.install(|| target.index.insert(&borrowed)) {
                self.failed(&error);
                return true;
            }
            target.indexed = last.0 + 1;
        }
        if is_aside {
            self.aside = Some(target.clone());
            // While it is behind, the old one is the better; with none, anything is.
            if done || self.shared.read_memory().graph.is_none() {
                self.aside = None;
                tracing::info!(dir = %self.shared.dir.display(), vectors = target.index.len(), "graph swapped in");
                self.shared.write_memory().graph = Some(target);
            }
        } else if !items.is_empty()
            && let Some(graph) = &mut self.shared.write_memory().graph
        {
            graph.indexed = target.indexed;
        }
        !done
    }

    fn drop_failed(&mut self) {
        let failed = self.shared.write_memory().graph.take();
        if failed.is_some() {
            self.failures += 1;
            tracing::warn!(dir = %self.shared.dir.display(), "the graph failed a search; it is built anew");
            self.check_given_up();
        }
    }

    fn failed(&mut self, error: &IndexError) {
        tracing::warn!(dir = %self.shared.dir.display(), %error, "the graph failed; it is built anew");
        self.failures += 1;
        if self.aside.take().is_none() {
            self.shared.write_memory().graph = None;
        }
        self.check_given_up();
    }

    fn check_given_up(&self) {
        if self.failures >= FAILURES_MAX {
            tracing::error!(dir = %self.shared.dir.display(), "no graph can be built; searches stay exact");
            self.shared.signal.lock().given_up = true;
        }
    }

    /// Copies the exact index without its tombstones, once they are too many.
    fn compact_flat(&self) {
        let (old, live, end) = {
            let memory = self.shared.read_memory();
            let (len, live) = (memory.flat.len() as u64, memory.slots.live());
            let dead = len.saturating_sub(live);
            if dead <= TOMBSTONES_MIN || dead * 3 <= len {
                return;
            }
            (Arc::clone(&memory.flat), memory.slots.live_from(0).collect::<Vec<_>>(), memory.slots.end())
        };
        let new = FlatIndex::with_capacity(old.dim(), old.metric(), live.len());
        for slots in live.chunks(COPY_BATCH) {
            if let Err(error) = copy(&old, &new, slots.iter().copied()) {
                tracing::error!(%error, "the exact index cannot be compacted");
                return;
            }
        }
        // What was written meanwhile is little.
        let mut memory = self.shared.write_memory();
        let rest: Vec<Slot> = memory.slots.live_from(end).collect();
        match copy(&old, &new, rest.into_iter()) {
            Ok(()) => memory.flat = Arc::new(new),
            Err(error) => tracing::error!(%error, "the exact index cannot be compacted"),
        }
    }
}

fn copy(from: &FlatIndex, to: &FlatIndex, slots: impl Iterator<Item = Slot>) -> Result<(), IndexError> {
    let vectors: Vec<(Slot, Vec<f32>)> = slots.filter_map(|slot| Some((slot, from.vector(slot)?))).collect();
    let borrowed: Vec<(Slot, &[f32])> = vectors.iter().map(|(slot, v)| (*slot, v.as_slice())).collect();
    to.insert(&borrowed)
}

fn new_graph(shared: &Shared, vectors: u64) -> Result<Arc<dyn VectorIndex>, IndexError> {
    let spec = &shared.spec;
    index::create(&spec.index, spec.dim, spec.metric, usize::try_from(vectors).unwrap_or(usize::MAX))
}

/// Saves a graph into `dir`, whole or not at all. `sequence`: the store's batches, to tell a folder that was put back
/// to an earlier state.
pub(super) fn save(
    dir: &Path,
    graph: &Graph,
    stamp: Stamp,
    sequence: u64,
    disk: &dyn Disk,
) -> Result<(), IndexError> {
    let (there, beside) = (dir.join(INDEX_DIR), dir.join(format!("{INDEX_DIR}.new")));
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| IndexError::Io { path, source }
    };
    remove(&beside)?;
    std::fs::create_dir(&beside).map_err(io(&beside))?;
    graph.index.save(&beside, stamp)?;
    let number = sequence.to_string();
    let line = format!("{number} {:08x}\n", crc32fast::hash(number.as_bytes()));
    disk.write_file(&beside.join(SEQUENCE_FILE), line.as_bytes()).map_err(io(&beside))?;
    disk.sync_dir(&beside).map_err(io(&beside))?;
    remove(&there)?;
    disk.rename(&beside, &there).map_err(io(&there))?;
    disk.sync_dir(dir).map_err(io(dir))
}

/// Loads what [`save`] wrote, if it belongs to a store that has made `sequence` batches and given out slots up to `end`.
///
/// # Errors
/// As [`index::load`]; [`IndexError::Damaged`] if it is of a later state.
pub(super) fn load(
    dir: &Path,
    params: &IndexParams,
    dim: Dim,
    metric: Metric,
    stamp: Stamp,
    (sequence, end): (u64, u32),
) -> Result<Option<Graph>, IndexError> {
    let dir = dir.join(INDEX_DIR);
    if !dir.exists() {
        return Ok(None);
    }
    let path = dir.join(SEQUENCE_FILE);
    let damaged = |reason: &str| IndexError::Damaged { path: path.clone(), reason: reason.to_owned() };
    let line = std::fs::read_to_string(&path).map_err(|_| damaged("it cannot be read"))?;
    let saved = line
        .trim_end()
        .split_once(' ')
        .filter(|(number, crc)| *crc == format!("{:08x}", crc32fast::hash(number.as_bytes())))
        .and_then(|(number, _)| number.parse::<u64>().ok())
        .ok_or_else(|| damaged("its checksum does not match"))?;
    if saved > sequence {
        return Err(damaged("it is of a later state than the store"));
    }
    let index = index::load(&dir, params, dim, metric, stamp)?;
    let indexed = index.highest().map_or(0, |slot| slot.0.saturating_add(1));
    if indexed > end {
        return Err(damaged("it knows vectors that the store does not"));
    }
    Ok(Some(Graph { index, indexed }))
}

/// Removes saved files that are of no use.
pub(super) fn discard(dir: &Path) -> Result<(), IndexError> {
    remove(&dir.join(INDEX_DIR))?;
    remove(&dir.join(format!("{INDEX_DIR}.new")))
}

fn remove(path: &Path) -> Result<(), IndexError> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(IndexError::Io { path: PathBuf::from(path), source: e })
        }
        _ => Ok(()),
    }
}
