//! Brings the graph level with the documents, a bounded batch in each turn of a thread that indexers share; saves it.
//!
//! Searches never wait for it: what it has not yet taken in is scanned exactly. A graph that failed, or that holds too
//! many tombstones, is built anew beside the old one and swapped in. The exact index is rebuilt the same way. What was
//! replaced is large, so it is freed here, after the last search that uses it: never under a lock, never by a query.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Shared,
    memory::{Graph, Memory},
    rows::{self, Rows},
    slots::Table,
};
use crate::{
    files,
    files::disk::Disk,
    index::{self, FlatIndex, IndexError, IndexKind, IndexParams, Slot, Stamp, VectorIndex},
    panics::panic_text,
    stop::{Asker, Stop},
    store::{Identity, folder::INDEX_DIR, private},
    threads::{Threads, crew::Next},
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

/// How long an indexer waits before it looks again whether what was replaced can be freed: searches end soon, and say
/// nothing when they do.
const RETIRED_IDLE: Duration = Duration::from_millis(100);

/// What the indexer is told.
#[derive(Debug)]
pub(super) struct Signal {
    flags: Mutex<Flags>,
    changed: Condvar,
    /// For a long piece of work: whether the indexer is to leave.
    stop: Stop,
}

#[derive(Debug)]
struct Flags {
    /// `None` once the indexer is to leave.
    asker: Option<Asker>,
    work: bool,
    /// A search found the graph broken.
    graph_failed: bool,
    /// The graph could not be built; nobody may wait for it.
    given_up: bool,
    /// What the writer replaced, to be freed here.
    replaced: Vec<Retired>,
}

impl Default for Signal {
    fn default() -> Self {
        let (asker, stop) = Stop::with_asker(None);
        let flags = Flags {
            asker: Some(asker),
            work: false,
            graph_failed: false,
            given_up: false,
            replaced: Vec::new(),
        };
        Signal { flags: Mutex::new(flags), changed: Condvar::new(), stop }
    }
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
        self.lock().asker = None;
        self.changed.notify_all();
    }

    /// Whether nothing more is to be done.
    pub(super) fn is_stopped(&self) -> bool {
        self.lock().asker.is_none()
    }

    /// For a long piece of work: whether it is to be left off.
    pub(super) fn stop_asked(&self) -> &Stop {
        &self.stop
    }

    pub(super) fn graph_failed(&self) {
        let mut flags = self.lock();
        flags.work = true;
        flags.graph_failed = true;
        self.changed.notify_all();
    }

    /// Takes what nobody who begins now reads any more, to free it when nobody does.
    pub(super) fn retire(&self, memory: Arc<Memory>) {
        let kept = Retired::Memory(memory);
        let mut flags = self.lock();
        if flags.asker.is_some() {
            flags.replaced.push(kept);
            return;
        }
        // Nobody comes for it any more.
        drop(flags);
        drop(kept);
    }

    /// Whether no graph can be built.
    pub(super) fn has_given_up(&self) -> bool {
        self.lock().given_up
    }

    /// Sleeps until `done` says so or nobody will ever make it so.
    pub(super) fn wait_until(&self, mut done: impl FnMut() -> bool) {
        loop {
            if done() {
                return;
            }
            let flags = self.lock();
            if flags.asker.is_none() || flags.given_up {
                return;
            }
            // Progress is announced; the time-out only covers a change between the look and the sleep.
            let _ = self.changed.wait_timeout(flags, Duration::from_millis(20));
        }
    }
}

pub(super) struct Indexer {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
    /// The last step left more to do.
    more: bool,
    /// A graph that is being built beside the one in use.
    aside: Option<Graph>,
    /// Replaced, and perhaps still in use by searches.
    retired: Vec<Retired>,
    failures: u32,
    /// Of [`Indexer::aside`]; see [`Memory::numbering`].
    numbering: u64,
}

/// What is no longer searched by anybody who begins now.
#[derive(Debug)]
enum Retired {
    Graph(Arc<dyn VectorIndex>),
    Flat(Arc<FlatIndex>),
    Memory(Arc<Memory>),
}

impl Retired {
    fn in_use(&self) -> bool {
        match self {
            Retired::Graph(index) => Arc::strong_count(index) > 1,
            Retired::Flat(index) => Arc::strong_count(index) > 1,
            Retired::Memory(memory) => Arc::strong_count(memory) > 1,
        }
    }
}

impl Indexer {
    pub(super) fn new(shared: Arc<Shared>, threads: Arc<Threads>) -> Self {
        Indexer { shared, threads, more: false, aside: None, retired: Vec::new(), failures: 0, numbering: 0 }
    }

    /// One bounded piece of work, if there is one. Leaves when it is stopped.
    pub(super) fn turn(&mut self) -> Next {
        self.free_retired();
        let graph_failed = {
            let mut flags = self.shared.signal.lock();
            if flags.asker.is_none() {
                return Next::Leave;
            }
            self.more |= std::mem::take(&mut flags.work);
            self.retired.append(&mut flags.replaced);
            std::mem::take(&mut flags.graph_failed)
        };
        if graph_failed {
            self.drop_failed();
        }
        if self.more {
            self.more = catch_unwind(AssertUnwindSafe(|| self.step())).unwrap_or_else(|panic| {
                // What it was working on may be half done.
                self.failed(&panic_text(&*panic));
                true
            });
            self.shared.signal.changed.notify_all();
        }
        if self.more {
            Next::Again
        } else if self.retired.is_empty() {
            Next::Woken
        } else {
            Next::At(Instant::now() + RETIRED_IDLE)
        }
    }

    fn free_retired(&mut self) {
        let free = self.retired.extract_if(.., |retired| !retired.in_use());
        if free.filter(|retired| matches!(retired, Retired::Memory(_))).count() > 0 {
            // The files of segments that only it knew can go.
            self.shared.wake_keeper();
        }
    }

    /// Puts another graph in the place of the one that is searched.
    fn replace_graph(&mut self, graph: Option<Graph>) {
        let old = self.shared.change(|memory| std::mem::replace(&mut memory.graph, graph));
        self.retired.extend(old.map(|old| Retired::Graph(old.index)));
    }

    /// [`Indexer::replace_graph`], unless numbers were given out anew since `numbering`: then `graph` is of no use.
    fn swap_in(&mut self, graph: Graph, numbering: u64) {
        let old = self.shared.change(|memory| {
            if memory.numbering == numbering { memory.graph.replace(graph) } else { Some(graph) }
        });
        self.retired.extend(old.map(|old| Retired::Graph(old.index)));
    }

    /// One bounded piece of work; whether there may be more.
    fn step(&mut self) -> bool {
        self.free_retired();
        self.compact_flat();
        if self.shared.spec.index.kind == IndexKind::Flat || self.failures >= FAILURES_MAX {
            return false;
        }
        let view = self.shared.view();
        if self.numbering != view.numbering {
            self.numbering = view.numbering;
            self.retired.extend(self.aside.take().map(|aside| Retired::Graph(aside.index)));
        }
        let live = view.table.live();
        let stale = view.graph.as_ref().is_none_or(|graph| is_stale(graph, live));
        if stale && self.aside.is_none() {
            if live == 0 && view.graph.is_none() {
                return false;
            }
            match new_graph(&self.shared, live) {
                Ok(index) => self.aside = Some(Graph { index, indexed: 0 }),
                Err(error) => {
                    self.failed(&error);
                    return true;
                }
            }
        }
        let (mut target, is_aside) = match (&self.aside, &view.graph) {
            (Some(aside), _) => (aside.clone(), true),
            (None, Some(graph)) => (graph.clone(), false),
            (None, None) => return false,
        };
        let items: Vec<Slot> = view.table.live_from(target.indexed).take(INSERT_BATCH).collect();
        let (flat, numbering) = (Arc::clone(&view.flat), view.numbering);
        // It is not held for as long as inserting takes.
        drop(view);
        let done = items.len() < INSERT_BATCH;
        if let Some(last) = items.last() {
            let vectors: Vec<(Slot, Vec<f32>)> =
                items.iter().filter_map(|slot| Some((*slot, flat.vector(*slot)?))).collect();
            let borrowed: Vec<(Slot, &[f32])> =
                vectors.iter().map(|(slot, v)| (*slot, v.as_slice())).collect();
            if let Err(error) =
                target.index.insert_on(self.threads.build.workers(), &borrowed, &self.shared.signal.stop)
            {
                self.failed(&error);
                return true;
            }
            target.indexed = last.0 + 1;
        }
        if done && let Err(error) = target.index.settle(&self.shared.signal.stop) {
            self.failed(&error);
            return true;
        }
        if is_aside {
            self.aside = Some(target.clone());
            // While it is behind, the old one is the better; with none, anything is. Where documents are replaced faster
            // than it grows, it never is level, and would grow for ever: it takes the old one's place as soon as it knows
            // more, and the next one begins with what counts by then.
            let known = self.shared.view().graph.as_ref().map(|graph| graph.indexed);
            let outrun = is_stale(&target, live) && known.is_some_and(|known| target.indexed > known);
            if done || outrun || known.is_none() {
                self.aside = None;
                tracing::info!(dir = %self.shared.dir.display(), vectors = target.index.len(), "graph swapped in");
                self.swap_in(target, numbering);
            }
        } else if !items.is_empty() {
            self.shared.change(|memory| match &mut memory.graph {
                Some(graph) if Arc::ptr_eq(&graph.index, &target.index) => graph.indexed = target.indexed,
                _ => {}
            });
        }
        !done
    }

    fn drop_failed(&mut self) {
        let retired = self.retired.len();
        self.replace_graph(None);
        if self.retired.len() > retired {
            self.failures += 1;
            tracing::warn!(dir = %self.shared.dir.display(), "the graph failed a search; it is built again");
            self.check_given_up();
        }
    }

    fn failed(&mut self, error: &dyn std::fmt::Display) {
        tracing::warn!(dir = %self.shared.dir.display(), %error, "the graph failed; it is built again");
        self.failures += 1;
        if self.aside.take().is_none() {
            self.replace_graph(None);
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
    fn compact_flat(&mut self) {
        let view = self.shared.view();
        let (len, live) = (view.flat.len() as u64, view.table.live());
        let dead = len.saturating_sub(live);
        if dead <= TOMBSTONES_MIN || dead * 3 <= len {
            return;
        }
        let old = Arc::clone(&view.flat);
        let new = FlatIndex::with_capacity(old.dim(), old.metric(), usize::try_from(live).unwrap_or(0));
        drop(view);
        match self.copy_live(&old, new) {
            Ok(()) => self.retired.push(Retired::Flat(old)),
            Err(error) => tracing::error!(%error, "the exact index cannot be compacted"),
        }
    }

    /// Fills `new` with what counts of `old`, and puts it in its place.
    fn copy_live(&self, old: &FlatIndex, new: FlatIndex) -> Result<(), IndexError> {
        let mut copied = 0;
        loop {
            let table = self.shared.view().table.clone();
            let slots: Vec<Slot> = table.live_from(copied).collect();
            copied = table.end();
            drop(table);
            let rest = slots.len();
            for slots in slots.chunks(COPY_BATCH) {
                copy(old, &new, slots.iter().copied())?;
            }
            // What is written from here to the lock is little.
            if rest <= COPY_BATCH {
                break;
            }
        }
        let new = Arc::new(new);
        self.shared.change(|memory| {
            // Numbers were given out anew meanwhile, without those of tombstones.
            if !std::ptr::eq(Arc::as_ptr(&memory.flat), old) {
                return Ok(());
            }
            let rest: Vec<Slot> = memory.table.live_from(copied).collect();
            copy(old, &new, rest.into_iter())?;
            // The caller holds the old one, so nothing is freed under the lock.
            memory.flat = Arc::clone(&new);
            Ok(())
        })
    }
}

/// Whether a graph holds too many tombstones, where so many vectors count.
fn is_stale(graph: &Graph, live: u64) -> bool {
    let len = graph.index.len() as u64;
    let dead = len.saturating_sub(live);
    dead > TOMBSTONES_MIN && dead * 3 > len
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

/// Saves a graph of the documents in `table` into `dir`, whole or not at all, with the identity of the collection and
/// the store's batches, to tell a folder that was put back to an earlier state.
pub(super) fn save(
    dir: &Path,
    graph: &Graph,
    table: &Table,
    (identity, sequence): (Identity, u64),
    disk: &dyn Disk,
) -> Result<(), IndexError> {
    let (there, beside) = (dir.join(INDEX_DIR), dir.join(format!("{INDEX_DIR}.new")));
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| IndexError::Io { path, source }
    };
    remove(&beside)?;
    files::create_private(&beside).map_err(io(&beside))?;
    graph.index.save(&beside, Stamp(identity.0))?;
    let saved = rows::Of { sequence, manifest: index::manifest_sum(&beside)? };
    rows::write(&beside, table, graph.indexed, saved, disk)?;
    private::narrow(&beside).map_err(io(&beside))?;
    disk.sync_dir(&beside).map_err(io(&beside))?;
    remove(&there)?;
    disk.rename(&beside, &there).map_err(io(&there))?;
    disk.sync_dir(dir).map_err(io(dir))
}

/// What [`load`] found.
pub(super) enum Saved {
    None,
    Graph(Graph, Rows),
    /// A whole graph of this collection, from after a batch that the store does not have: the store lost batches.
    Later(Rows),
}

/// Loads what [`save`] wrote, if it belongs to a store that has made `sequence` batches and given out document numbers
/// up to `end`.
///
/// # Errors
/// As [`index::load`].
pub(super) fn load(
    dir: &Path,
    params: &IndexParams,
    dim: Dim,
    metric: Metric,
    identity: Identity,
    (sequence, end): (u64, u64),
) -> Result<Saved, IndexError> {
    let dir = dir.join(INDEX_DIR);
    if !dir.exists() {
        return Ok(Saved::None);
    }
    let rows = Rows::read(&dir)?;
    let index = index::load(&dir, params, dim, metric, Stamp(identity.0))?;
    // Before it proves anything.
    rows.check_saved_with(index::manifest_sum(&dir)?)?;
    if rows.sequence > sequence || rows.next_number() > end {
        return Ok(Saved::Later(rows));
    }
    let indexed = index.highest().map_or(0, |slot| slot.0.saturating_add(1));
    Ok(Saved::Graph(Graph { index, indexed }, rows))
}

/// Removes saved files that are of no use.
pub(super) fn discard(dir: &Path) -> Result<(), IndexError> {
    remove(&dir.join(INDEX_DIR))?;
    remove(&dir.join(format!("{INDEX_DIR}.new")))
}

/// Removes what a failed [`save`] left, which may be as large as the graph.
pub(super) fn discard_unfinished(dir: &Path) {
    if let Err(error) = remove(&dir.join(format!("{INDEX_DIR}.new"))) {
        tracing::warn!(dir = %dir.display(), %error, "an unfinished graph cannot be removed");
    }
}

/// Removes a folder, or what else lies in its place.
fn remove(path: &Path) -> Result<(), IndexError> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_dir() => std::fs::remove_file(path),
        _ => std::fs::remove_dir_all(path),
    };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(IndexError::Io { path: PathBuf::from(path), source: e })
        }
        _ => Ok(()),
    }
}
