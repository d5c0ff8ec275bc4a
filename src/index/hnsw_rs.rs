//! The graph of the `hnsw_rs` crate, version 0.3.5, behind [`VectorIndex`]: the first index and the cross-check of
//! later ones. Nothing else names `hnsw_rs` or `anndists`.
//!
//! What it promises: answers hold only slots that were inserted and allowed, with exactly the distance of
//! [`Metric::distance`], in the order of [`Neighbor::rank`]. What it leaves out: deletes (the caller hides slots),
//! [`IndexParams::seed`] (the crate's level generator has a constant seed and takes no other), and equal graphs from
//! equal inputs unless inserted on one thread.
//!
//! # What `hnsw_rs` can do to a process, and what stops it
//!
//! | it can | because | guard |
//! |---|---|---|
//! | end the process | `exit(1)` in `Hnsw::new` above M = 256, and for unreadable data while loading | [`IndexParams::validate`] (M <= 128) before every graph; files reach it only after [`manifest::open`] has checked every byte |
//! | read out of bounds | the loader trusts lengths and builds slices of them unchecked | the same checksums; the loaded graph's size and dimension are compared with the manifest |
//! | panic on NaN | its heaps panic on NaN, and assert that no distance is negative | [`GraphDistance`] is never NaN nor negative; see [`as_graph_distance`] for the dot product |
//! | panic elsewhere | asserts, `unwrap`, overflow | [`HnswRsIndex::guarded`] catches it; from then on the index refuses every call, and its owner rebuilds it |
//! | deadlock in parallel inserts | a point above level 0 links itself in layer by layer, holding its own lock and waiting for its neighbours', while those may do the same | such a point is inserted alone: [`Levels`] foretells which they are. Points of level 0 wait only for older ones, so they cannot form a circle |
//! | lose points | two first points inserted at once both find an empty graph; neither is linked | the first point is inserted alone |
//! | mix search and insert | its documentation forbids it | a lock: shared by searches, taken by an insert for at most [`RUN_MAX`] points at a time |
//! | use threads of the global rayon pool | `parallel_insert` and `Drop` run on the current pool, and that is the global one outside any | inserts run on the pool they are given, or on the calling thread alone; the drop gets a pool of one thread unless the caller is on a pool |
//! | search otherwise after a reload | the loader switches `extend_candidates` on, and takes the level scale it wrote as a factor of itself, so that each reload makes the graph flatter | switched off again; the factor 1 is written over the scale before the file is checksummed |
//! | overwrite or rename dumps | the file name changes if the graph is memory-mapped | it never is; the name that came back is compared |
//! | not find what it holds | a node keeps its nearest links and no others, so that copies and groups that arrived one after another close themselves off | copies share one node ([`twins`]); what a search for its own vector does not find is scanned beside the graph ([`strays`]) |
//! | print | `println!` when a dump file cannot be made, when a level scale is changed, when a graph with other than 16 layers is dumped | the files are made first, so the error comes as [`IndexError::Io`]; nothing calls the second; there are always 16 |
//! | fail to save an empty graph | it wants an entry point | an empty index saves a manifest and no graph |
//! | allocate for any `ef` | it reserves `ef` places | `ef` is at most the number of points |
//! | log much | the `log` crate, `info` and below | left to the subscriber's filter (`hnsw_rs=warn`); it installs no logger itself |
//! | keep borrowing its loader | a loaded graph borrows the loader, mapped or not | the loader, a path and some numbers, is leaked: under 1 KB per load |
//!
//! A caught panic still prints through the process's panic hook, which only the owner of the process may change.

use std::{
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rayon::ThreadPool;

use hnsw_rs::{
    anndists::dist::distances::Distance,
    api::AnnT,
    filter::FilterT,
    hnsw::{DataId, Hnsw},
    hnswio::HnswIo,
};

mod levels;
mod strays;
#[cfg(test)]
mod tests;
mod twins;

use levels::{LAYERS, Levels};
use strays::Strays;
use twins::{Twins, digest};

use super::{
    IndexError, IndexKind, IndexParams, Neighbor, SearchParams, Slot, Stamp, VectorIndex,
    baseline::GraphDistance,
    check_items, check_query,
    manifest::{self, Manifest},
};
use crate::{
    panics::panic_text,
    stop::Stop,
    threads,
    vector::{Dim, Metric},
};

/// Points inserted under one hold of the lock: some tens of milliseconds at worst.
const RUN_MAX: usize = 64;

/// How long [`VectorIndex::try_search`] waits for an insert.
const PATIENCE: Duration = Duration::from_millis(3);

/// Time that a waiting search sleeps before it tries the lock again, and that an insert yields to it.
const GLANCE: Duration = Duration::from_micros(100);

/// The most vectors that room is reserved for at once.
const RESERVE_MAX: usize = 1 << 22;

/// Name of a dump; `hnsw_rs` adds the two endings.
const BASENAME: &str = "graph";
const GRAPH_FILE: &str = "graph.hnsw.graph";
const DATA_FILE: &str = "graph.hnsw.data";
/// Which slots share a node, and which nodes are scanned: [`Twins::write`], then [`Strays::write`].
const NODES_FILE: &str = "graph.nodes";

/// Where `level_scale` (f64) stands in a graph file: after the magic number (u32), the mode (u8) and M (u8).
const LEVEL_SCALE_OFFSET: u64 = 6;

/// A graph of `hnsw_rs`, guarded against the faults that the module's documentation lists.
pub struct HnswRsIndex {
    params: IndexParams,
    dim: Dim,
    metric: Metric,
    graph: RwLock<Graph>,
    /// Number of vectors inside, readable without waiting for an insert.
    len: AtomicUsize,
    /// Searches that want the lock; an insert yields to them between runs.
    waiting: AtomicUsize,
    /// Why the graph can no longer be trusted.
    failed: OnceLock<String>,
}

struct Graph {
    /// `Some` until dropped.
    hnsw: Option<Hnsw<'static, f32, GraphDistance>>,
    levels: Levels,
    /// Number of points that are predicted to be above level 0.
    raised: usize,
    /// A predicted level was wrong, so points are inserted one by one.
    alone: bool,
    highest: Option<Slot>,
    twins: Twins,
    strays: Strays,
}

impl std::fmt::Debug for HnswRsIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HnswRsIndex")
            .field("params", &self.params)
            .field("dim", &self.dim)
            .field("metric", &self.metric)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl HnswRsIndex {
    /// An empty graph that expects about `capacity` vectors (it takes more).
    ///
    /// # Errors
    /// [`IndexError::Param`], [`IndexError::Failed`].
    pub fn new(params: &IndexParams, dim: Dim, metric: Metric, capacity: usize) -> Result<Self, IndexError> {
        params.validate()?;
        let hnsw = caught(|| {
            Hnsw::new(
                params.m.into(),
                capacity.min(RESERVE_MAX),
                LAYERS,
                params.ef_construction.into(),
                GraphDistance(metric),
            )
        })
        .map_err(failure)?;
        Ok(Self::from_parts(params, dim, metric, hnsw, None))
    }

    /// Loads what [`VectorIndex::save`] wrote; [`manifest::open`] has checked the files.
    pub(super) fn load(dir: &Path, params: &IndexParams, saved: &Manifest) -> Result<Self, IndexError> {
        params.validate()?;
        if saved.vectors == 0 {
            return Self::new(params, saved.dim, saved.metric, 0);
        }
        let damaged = |reason: String| IndexError::Damaged { path: dir.join(GRAPH_FILE), reason };
        let metric = saved.metric;
        let mut hnsw = caught(|| {
            let loader: &'static HnswIo = Box::leak(Box::new(HnswIo::new(dir, BASENAME)));
            loader.load_hnsw_with_dist::<f32, GraphDistance>(GraphDistance(metric))
        })
        .map_err(damaged)?
        .map_err(|e| damaged(format!("{e:#}")))?;
        hnsw.set_extend_candidates(false);
        let index = Self::from_parts(params, saved.dim, metric, hnsw, saved.highest);
        let mut graph = index.write();
        graph.read_nodes(dir, saved)?;
        let (vectors, dim) = (graph.vectors(), graph.hnsw().get_point_indexation().get_data_dimension());
        if vectors != saved.vectors || dim != saved.dim.len() {
            let (expected, wanted) = (saved.vectors, saved.dim.len());
            return Err(damaged(format!(
                "it has {vectors} vectors of {dim} values; the manifest says {expected} of {wanted}"
            )));
        }
        index.len.store(vectors, Ordering::Relaxed);
        drop(graph);
        Ok(index)
    }

    fn from_parts(
        params: &IndexParams,
        dim: Dim,
        metric: Metric,
        hnsw: Hnsw<'static, f32, GraphDistance>,
        highest: Option<Slot>,
    ) -> Self {
        let mut graph = Graph {
            hnsw: Some(hnsw),
            levels: Levels::new(params.m),
            raised: 0,
            alone: false,
            highest,
            twins: Twins::default(),
            strays: Strays::default(),
        };
        graph.raised = graph.raised_seen();
        let len = AtomicUsize::new(graph.points());
        HnswRsIndex {
            params: *params,
            dim,
            metric,
            graph: RwLock::new(graph),
            len,
            waiting: AtomicUsize::new(0),
            failed: OnceLock::new(),
        }
    }

    /// Runs `f`, turning a panic of the crate, now or earlier, into an error.
    fn guarded<R>(&self, f: impl FnOnce() -> Result<R, IndexError>) -> Result<R, IndexError> {
        self.trusted()?;
        caught(f).unwrap_or_else(|reason| {
            // The first reason is the true one; later ones may be its consequences.
            let reason = self.failed.get_or_init(|| reason).clone();
            Err(failure(reason))
        })
    }

    fn trusted(&self) -> Result<(), IndexError> {
        self.failed.get().map_or(Ok(()), |reason| Err(failure(reason.clone())))
    }

    fn read(&self) -> RwLockReadGuard<'_, Graph> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // Panics are caught inside the lock; what they leave behind is marked by `failed`.
        let graph = self.graph.read().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        graph
    }

    fn try_read(&self) -> Option<RwLockReadGuard<'_, Graph>> {
        let until = Instant::now() + PATIENCE;
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let graph = loop {
            match self.graph.try_read() {
                Ok(graph) => break Some(graph),
                Err(TryLockError::Poisoned(e)) => break Some(e.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => break None,
                Err(TryLockError::WouldBlock) => thread::sleep(GLANCE),
            }
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        graph
    }

    fn write(&self) -> RwLockWriteGuard<'_, Graph> {
        self.graph.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock is held by the calling thread, which is no worker of a pool (or has no pool to wait for); what runs on
    /// the pool takes only locks of `hnsw_rs`.
    fn insert_by(
        &self,
        pool: Option<&ThreadPool>,
        items: &[(Slot, &[f32])],
        stop: &Stop,
    ) -> Result<(), IndexError> {
        self.trusted()?;
        check_items(self.dim, self.read().highest, items)?;
        let mut rest = items;
        while !rest.is_empty() {
            let mut graph = self.write();
            // Somebody else may have inserted since the check, between two holds of the lock.
            check_items(self.dim, graph.highest, &rest[..1])?;
            let (run, after) = rest.split_at(self.guarded(|| Ok(graph.insert_run(pool, rest)))?);
            graph.highest = run.last().map(|(slot, _)| *slot);
            self.len.store(graph.vectors(), Ordering::Relaxed);
            rest = after;
            drop(graph);
            if self.waiting.load(Ordering::Relaxed) > 0 {
                thread::sleep(GLANCE);
            }
        }
        self.look_for_new(items)?;
        self.pass_while_building(stop)
    }

    fn search_in(
        &self,
        graph: &Graph,
        query: &[f32],
        params: &SearchParams<'_>,
    ) -> Result<Vec<Neighbor>, IndexError> {
        debug_assert!(params.k > 0, "k must be at least 1");
        check_query(self.dim, query)?;
        // All candidates are asked for, so that ties are broken over more than the first k.
        let ef = params.ef.max(params.k).min(graph.points());
        if ef == 0 {
            return Ok(Vec::new());
        }
        let allow = params.allow;
        let allowed =
            |node: Slot| graph.twins.slots(node).filter(move |slot| allow.is_none_or(|allow| allow(*slot)));
        self.guarded(|| {
            let hnsw = graph.hnsw();
            let found = match params.allow {
                None => hnsw.search_filter(query, ef, ef, None),
                Some(_) => {
                    let filter =
                        |id: &DataId| slot_of(*id).is_some_and(|node| allowed(node).next().is_some());
                    hnsw.search_filter(query, ef, ef, Some(&filter as &dyn FilterT))
                }
            };
            let mut nodes = Vec::with_capacity(found.len());
            for n in found {
                let slot = slot_of(n.d_id).ok_or_else(|| failure(format!("it answered id {}", n.d_id)))?;
                let distance = match self.metric {
                    Metric::Cosine | Metric::Euclidean => n.distance,
                    // The graph's distance is squeezed; the true one needs the vector.
                    Metric::Dot => {
                        let vector = hnsw.get_point_indexation().get_point_data(&n.p_id);
                        let vector = vector.ok_or_else(|| failure(format!("it lost {:?}", n.p_id)))?;
                        self.metric.distance(query, &vector)
                    }
                };
                nodes.push(Neighbor { slot, distance });
            }
            nodes.extend(graph.strays.scan(self.metric, query));
            nodes.sort_unstable_by(Neighbor::rank);
            // A stray may be found for all that.
            nodes.dedup_by_key(|node| node.slot);
            // Of one node, slots ascend at one distance, so more than k of them cannot be wanted.
            let mut neighbors: Vec<Neighbor> = nodes
                .iter()
                .flat_map(|node| allowed(node.slot).take(params.k).map(|slot| Neighbor { slot, ..*node }))
                .collect();
            neighbors.sort_unstable_by(Neighbor::rank);
            neighbors.truncate(params.k);
            Ok(neighbors)
        })
    }
}

impl VectorIndex for HnswRsIndex {
    fn kind(&self) -> IndexKind {
        IndexKind::HnswRs
    }

    fn dim(&self) -> Dim {
        self.dim
    }

    fn metric(&self) -> Metric {
        self.metric
    }

    fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    fn highest(&self) -> Option<Slot> {
        self.read().highest
    }

    fn insert(&self, items: &[(Slot, &[f32])]) -> Result<(), IndexError> {
        self.insert_by(None, items, &Stop::default())
    }

    fn insert_on(
        &self,
        pool: &rayon::ThreadPool,
        items: &[(Slot, &[f32])],
        stop: &Stop,
    ) -> Result<(), IndexError> {
        debug_assert!(
            rayon::current_thread_index().is_none(),
            "a worker of a pool must not wait for another"
        );
        self.insert_by(Some(pool), items, stop)
    }

    fn settle(&self, stop: &Stop) -> Result<(), IndexError> {
        self.trusted()?;
        self.pass_after_building(stop)
    }

    fn search(&self, query: &[f32], params: &SearchParams<'_>) -> Result<Vec<Neighbor>, IndexError> {
        self.trusted()?;
        self.search_in(&self.read(), query, params)
    }

    fn try_search(
        &self,
        query: &[f32],
        params: &SearchParams<'_>,
    ) -> Option<Result<Vec<Neighbor>, IndexError>> {
        if let Err(e) = self.trusted() {
            return Some(Err(e));
        }
        Some(self.search_in(&*self.try_read()?, query, params))
    }

    fn save(&self, dir: &Path, stamp: Stamp) -> Result<(), IndexError> {
        self.trusted()?;
        let graph = self.read();
        let saved = Manifest {
            kind: IndexKind::HnswRs,
            dim: self.dim,
            metric: self.metric,
            m: self.params.m,
            ef_construction: self.params.ef_construction,
            vectors: graph.vectors(),
            highest: graph.highest,
            stamp,
        };
        if saved.vectors == 0 {
            return manifest::seal(dir, &saved, &[]);
        }
        for name in [GRAPH_FILE, DATA_FILE] {
            manifest::write_file(dir, name, |_| Ok(()))?;
        }
        // A dump that fails leaves the graph as it was: not a reason to distrust it.
        let name = caught(|| graph.hnsw().file_dump(dir, BASENAME))
            .map_err(failure)?
            .map_err(|e| failure(format!("cannot write its files: {e:#}")))?;
        if name != BASENAME {
            return Err(failure(format!("it saved as {name:?}")));
        }
        manifest::write_file(dir, NODES_FILE, |out| {
            graph.twins.write(out)?;
            graph.strays.write(out)
        })?;
        drop(graph);
        for (name, patch) in [(GRAPH_FILE, true), (DATA_FILE, false)] {
            let path = dir.join(name);
            finish_file(&path, patch).map_err(|source| IndexError::Io { path, source })?;
        }
        manifest::seal(dir, &saved, &[GRAPH_FILE, DATA_FILE, NODES_FILE])
    }
}

impl Graph {
    fn hnsw(&self) -> &Hnsw<'static, f32, GraphDistance> {
        self.hnsw.as_ref().expect("taken only by drop")
    }

    fn points(&self) -> usize {
        self.hnsw().get_nb_point()
    }

    fn raised_seen(&self) -> usize {
        let layers = self.hnsw().get_point_indexation();
        (1..LAYERS).map(|l| layers.get_layer_nb_point(l)).sum()
    }

    /// Points, and what shares them.
    fn vectors(&self) -> usize {
        self.points() + self.twins.extra()
    }

    /// Reads which slots share a node and which are scanned. Folders from before there was such a file have no shared
    /// nodes; what is not found in their graphs is looked for at the next insert, or when the owner has time.
    fn read_nodes(&mut self, dir: &Path, saved: &Manifest) -> Result<(), IndexError> {
        let path = dir.join(NODES_FILE);
        if !path.exists() {
            for point in self.all() {
                if let Some(node) = slot_of(point.get_origin_id()) {
                    self.twins.add(digest(point.get_v()), node);
                }
            }
            return Ok(());
        }
        let bytes = manifest::read_file(dir, saved, NODES_FILE)?;
        let mut rest = bytes.as_slice();
        let read = Twins::read(&mut rest).and_then(|twins| Ok((twins, Strays::read(&mut rest, self)?)));
        (self.twins, self.strays) =
            read.map_err(|e| IndexError::Damaged { path, reason: format!("it cannot be read: {e}") })?;
        Ok(())
    }

    /// Inserts as many of the items as may go in at once, at least one; returns how many.
    fn insert_run(&mut self, pool: Option<&ThreadPool>, items: &[(Slot, &[f32])]) -> usize {
        let mut run: Vec<(&[f32], usize)> = Vec::new();
        let mut taken = 0;
        for (slot, vector) in items.iter().take(RUN_MAX) {
            let digest = digest(vector);
            if let Some(node) = self.twins.node(&digest) {
                self.twins.join(node, *slot);
                taken += 1;
                continue;
            }
            let alone = self.alone || self.points() == 0 || !self.levels.next_is_ground();
            if alone && !run.is_empty() {
                break;
            }
            if self.levels.take() > 0 {
                self.raised += 1;
            }
            self.twins.add(digest, *slot);
            run.push((*vector, slot.0 as usize));
            taken += 1;
            if alone {
                break;
            }
        }
        let hnsw = self.hnsw();
        match pool {
            Some(pool) if run.len() > 1 => pool.install(|| hnsw.parallel_insert_slice(&run)),
            Some(pool) if !run.is_empty() => {
                pool.install(|| run.iter().for_each(|point| hnsw.insert(*point)))
            }
            _ => run.iter().for_each(|point| hnsw.insert(*point)),
        }
        self.alone |= self.raised != self.raised_seen();
        taken
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let Some(hnsw) = self.hnsw.take() else { return };
        // If there is no thread to be had, its own choice of pool is still better than a leak.
        let dropped = caught(|| threads::pool::alone(|| drop(hnsw)));
        if let Err(reason) = dropped {
            tracing::warn!(reason, "hnsw_rs panicked while it was dropped; its memory may be lost");
        }
    }
}

impl Distance<f32> for GraphDistance {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        as_graph_distance(self.0, self.0.distance(a, b))
    }
}

/// Never NaN, never negative, and in the same order as `distance`, which is all a graph asks: it only compares.
///
/// The distance of a dot product may have any sign. It is squeezed by a rising function onto the positive numbers,
/// `1 + d` from 0 on and `1 / (1 - d)` below, which keeps the precision of large products. Neighbouring values may
/// become equal; answers are ordered by the true distance afterwards.
fn as_graph_distance(metric: Metric, distance: f32) -> f32 {
    let graph_distance = match metric {
        Metric::Cosine | Metric::Euclidean => distance,
        Metric::Dot if distance < 0.0 => 1.0 / (1.0 - distance),
        Metric::Dot => 1.0 + distance,
    };
    // `f32::max` and `min` pass over NaN, so NaN becomes the farthest of all.
    if graph_distance.is_nan() { f32::MAX } else { graph_distance.clamp(0.0, f32::MAX) }
}

/// Corrects the level scale in a graph file, and syncs either file.
fn finish_file(path: &Path, is_graph: bool) -> std::io::Result<()> {
    if is_graph {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.seek(SeekFrom::Start(LEVEL_SCALE_OFFSET))?;
        file.write_all(&1.0f64.to_ne_bytes())?;
        return file.sync_all();
    }
    File::open(path)?.sync_all()
}

fn slot_of(id: DataId) -> Option<Slot> {
    u32::try_from(id).ok().map(Slot)
}

fn failure(reason: String) -> IndexError {
    IndexError::Failed { kind: IndexKind::HnswRs, reason }
}

/// Runs `f` and gives the message of its panic, if it panics.
fn caught<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| panic_text(&*payload))
}
