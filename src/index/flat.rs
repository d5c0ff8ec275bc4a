//! An exact scan of all vectors: the truth that other indexes are measured by.
//!
//! Vectors lie contiguously in chunks of about [`CHUNK_BYTES`]. Full chunks never change again and are shared by
//! `Arc`, so a search reads them without any lock while vectors are appended; only the last, growing chunk is
//! read under a lock, for as long as scanning one chunk takes. Slots ascend but may have gaps: each chunk keeps
//! the slots of its rows, and finding a slot is two binary searches (one where the chunk has no gaps).
//!
//! A search over much work runs in parallel if, and only if, its caller is on a rayon pool; it uses that pool, and
//! holds no lock meanwhile (`parallel.rs`).
//! Nothing is ever removed: the caller's `allow` hides deleted slots.

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    io::Write,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use super::{
    IndexError, IndexKind, Neighbor, SearchParams, Slot, Stamp, VectorIndex, check_items, check_query,
    manifest::{self, Manifest},
};
use crate::{
    stop::{Stop, Stopped},
    vector::{Dim, Metric},
};

mod parallel;
#[cfg(test)]
mod tests;

pub use parallel::SharedAllow;

/// Size of a full chunk: small enough to scan under a lock in well under a millisecond.
const CHUNK_BYTES: usize = 1 << 20;

/// Number of values from which on a search is worth splitting over threads.
const PARALLEL_VALUES_MIN: usize = 4 << 20;

/// The file of a saved index: little-endian slots (u32), then rows (f32) in the same order.
const FILE: &str = "vectors.bin";

/// An index that compares every vector with every query.
#[derive(Debug)]
pub struct FlatIndex {
    dim: Dim,
    metric: Metric,
    rows_per_chunk: usize,
    rows: RwLock<Rows>,
}

/// Full chunks behind one `Arc`, so that a search takes them all by counting one reference.
#[derive(Debug)]
struct Rows {
    full: Arc<Vec<Arc<Chunk>>>,
    growing: Chunk,
    len: usize,
}

#[derive(Debug, Default)]
struct Chunk {
    /// Strictly ascending, one per row.
    slots: Vec<Slot>,
    /// Rows of `dim` values.
    values: Vec<f32>,
}

impl Chunk {
    fn with_capacity(rows: usize, dim: Dim) -> Self {
        Chunk { slots: Vec::with_capacity(rows), values: Vec::with_capacity(rows * dim.len()) }
    }

    /// Offers every row that is allowed.
    fn offer_to(
        &self,
        nearest: &mut Nearest,
        metric: Metric,
        query: &[f32],
        allow: Option<&dyn Fn(Slot) -> bool>,
    ) {
        for (&slot, row) in self.slots.iter().zip(self.values.chunks_exact(query.len())) {
            if allow.is_none_or(|allow| allow(slot)) {
                nearest.offer(slot, metric.distance(query, row));
            }
        }
    }

    fn row(&self, slot: Slot, dim: Dim) -> Option<&[f32]> {
        let first = self.slots.first()?.0;
        let last = self.slots.last()?.0;
        if !(first..=last).contains(&slot.0) {
            return None;
        }
        let row = if (last - first) as usize + 1 == self.slots.len() {
            (slot.0 - first) as usize
        } else {
            self.slots.binary_search(&slot).ok()?
        };
        Some(&self.values[row * dim.len()..][..dim.len()])
    }
}

impl FlatIndex {
    /// An empty index.
    pub fn new(dim: Dim, metric: Metric) -> Self {
        Self::with_capacity(dim, metric, 0)
    }

    /// An empty index that expects about `vectors` vectors.
    pub fn with_capacity(dim: Dim, metric: Metric, vectors: usize) -> Self {
        let rows_per_chunk = (CHUNK_BYTES / (dim.len() * size_of::<f32>())).max(1);
        FlatIndex {
            dim,
            metric,
            rows_per_chunk,
            rows: RwLock::new(Rows {
                full: Arc::new(Vec::with_capacity(vectors / rows_per_chunk)),
                growing: Chunk::with_capacity(vectors.min(rows_per_chunk), dim),
                len: 0,
            }),
        }
    }

    /// Calls `f` with the vector of a slot, if it is here. Locks are held meanwhile: `f` must be short and must
    /// not insert.
    pub fn with_vector<R>(&self, slot: Slot, f: impl FnOnce(&[f32]) -> R) -> Option<R> {
        let full = {
            let rows = self.read();
            if rows.growing.slots.first().is_some_and(|first| *first <= slot) {
                return rows.growing.row(slot, self.dim).map(f);
            }
            Arc::clone(&rows.full)
        };
        chunk_of(&full, slot)?.row(slot, self.dim).map(f)
    }

    /// A copy of the vector of a slot, if it is here.
    pub fn vector(&self, slot: Slot) -> Option<Vec<f32>> {
        self.with_vector(slot, <[f32]>::to_vec)
    }

    /// The exact nearest `k` of the candidates, nearest first, ties by slot. Candidates that are not here are
    /// passed over; ascending candidates are found fastest. Each should be named once. Works on the calling thread.
    ///
    /// # Errors
    /// [`Stopped`] if `stop` said so meanwhile.
    pub fn scan(
        &self,
        query: &[f32],
        k: usize,
        candidates: impl Iterator<Item = Slot>,
        stop: &Stop,
    ) -> Result<Vec<Neighbor>, Stopped> {
        debug_assert!(k > 0, "k must be at least 1");
        debug_assert_eq!(query.len(), self.dim.len());
        let mut nearest = Nearest::new(k, self.len());
        let mut in_growing = Vec::new();
        let (full, growing_from) = {
            let rows = self.read();
            (Arc::clone(&rows.full), rows.growing.slots.first().copied())
        };
        let mut chunk: Option<&Chunk> = None;
        let mut going = stop.pace();
        for slot in candidates {
            if !going() {
                return Err(Stopped);
            }
            if growing_from.is_some_and(|first| first <= slot) {
                in_growing.push(slot);
                continue;
            }
            let here = chunk.is_some_and(|c| {
                c.slots.first().is_some_and(|s| *s <= slot) && c.slots.last().is_some_and(|s| slot <= *s)
            });
            if !here {
                chunk = chunk_of(&full, slot);
            }
            if let Some(row) = chunk.and_then(|c| c.row(slot, self.dim)) {
                nearest.offer(slot, self.metric.distance(query, row));
            }
        }
        // Whatever was growing at the start may be full by now, so each is looked up afresh.
        for slot in in_growing {
            if let Some(distance) = self.with_vector(slot, |row| self.metric.distance(query, row)) {
                nearest.offer(slot, distance);
            }
        }
        stop.check()?;
        Ok(nearest.into_sorted())
    }

    /// The exact nearest `k` of all allowed slots, nearest first, ties by slot: min(`k`, allowed) of them.
    ///
    /// # Errors
    /// [`Stopped`] if `stop` said so meanwhile.
    pub fn nearest(
        &self,
        query: &[f32],
        k: usize,
        allow: Option<&SharedAllow>,
        stop: &Stop,
    ) -> Result<Vec<Neighbor>, Stopped> {
        let plain = allow.map(|allow| &**allow as &dyn Fn(Slot) -> bool);
        let (full, len, mut nearest) = self.begin(query, k, plain);
        // Outside a pool rayon would start its global one, with a thread per core; that is for the caller to decide.
        if rayon::current_thread_index().is_some() && len * self.dim.len() >= PARALLEL_VALUES_MIN {
            return parallel::scan(self.metric, query, allow, stop, full, nearest);
        }
        for chunk in full.iter() {
            stop.check()?;
            chunk.offer_to(&mut nearest, self.metric, query, plain);
        }
        Ok(nearest.into_sorted())
    }

    /// Scans the growing chunk; returns the full ones, how many vectors there are, and the nearest so far.
    fn begin(
        &self,
        query: &[f32],
        k: usize,
        allow: Option<&dyn Fn(Slot) -> bool>,
    ) -> (Arc<Vec<Arc<Chunk>>>, usize, Nearest) {
        debug_assert!(k > 0, "k must be at least 1");
        debug_assert_eq!(query.len(), self.dim.len());
        let rows = self.read();
        let mut nearest = Nearest::new(k, rows.len);
        rows.growing.offer_to(&mut nearest, self.metric, query, allow);
        (Arc::clone(&rows.full), rows.len, nearest)
    }

    /// Loads what [`VectorIndex::save`] wrote into `dir`.
    ///
    /// # Errors
    /// [`IndexError::Damaged`], [`IndexError::Mismatch`], [`IndexError::Io`].
    pub(super) fn load(dir: &Path, saved: &Manifest) -> Result<Self, IndexError> {
        let path = dir.join(FILE);
        let damaged = |reason: &str| IndexError::Damaged { path: path.clone(), reason: reason.to_owned() };
        let bytes = manifest::read_file(dir, saved, FILE)?;
        let row_bytes = size_of::<u32>() + saved.dim.len() * size_of::<f32>();
        if saved.vectors.checked_mul(row_bytes) != Some(bytes.len()) {
            return Err(damaged("its length does not fit the number of vectors"));
        }
        let (slots, values) = bytes.split_at(saved.vectors * size_of::<u32>());
        let (slots, _) = slots.as_chunks::<4>();
        let slots: Vec<Slot> = slots.iter().map(|b| Slot(u32::from_le_bytes(*b))).collect();
        if !slots.is_sorted_by(|a, b| a < b) {
            return Err(damaged("its slots do not ascend"));
        }
        let index = Self::with_capacity(saved.dim, saved.metric, saved.vectors);
        let mut row = vec![0.0f32; saved.dim.len()];
        for (slot, bytes) in slots.into_iter().zip(values.chunks_exact(row_bytes - size_of::<u32>())) {
            let (quads, _) = bytes.as_chunks::<4>();
            for (value, quad) in row.iter_mut().zip(quads) {
                *value = f32::from_le_bytes(*quad);
            }
            index.insert(&[(slot, &row)])?;
        }
        Ok(index)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Rows> {
        // Rows stay whole at every step of an insert, so a panic elsewhere under the lock does not spoil them.
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VectorIndex for FlatIndex {
    fn kind(&self) -> IndexKind {
        IndexKind::Flat
    }

    fn dim(&self) -> Dim {
        self.dim
    }

    fn metric(&self) -> Metric {
        self.metric
    }

    fn len(&self) -> usize {
        self.read().len
    }

    fn highest(&self) -> Option<Slot> {
        let rows = self.read();
        let growing = rows.growing.slots.last();
        growing.or_else(|| rows.full.last().and_then(|chunk| chunk.slots.last())).copied()
    }

    fn insert(&self, items: &[(Slot, &[f32])]) -> Result<(), IndexError> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let rows = &mut *rows;
        let highest =
            rows.growing.slots.last().or_else(|| rows.full.last().and_then(|c| c.slots.last())).copied();
        check_items(self.dim, highest, items)?;
        for (slot, values) in items {
            rows.growing.slots.push(*slot);
            rows.growing.values.extend_from_slice(values);
            rows.len += 1;
            if rows.growing.slots.len() == self.rows_per_chunk {
                let next = Chunk::with_capacity(self.rows_per_chunk, self.dim);
                let full = std::mem::replace(&mut rows.growing, next);
                // Copies the list of chunks only while a search holds it.
                Arc::make_mut(&mut rows.full).push(Arc::new(full));
            }
        }
        Ok(())
    }

    fn search(&self, query: &[f32], params: &SearchParams<'_>) -> Result<Vec<Neighbor>, IndexError> {
        check_query(self.dim, query)?;
        let allow = params.allow.map(|allow| allow as &dyn Fn(Slot) -> bool);
        let (full, _, mut nearest) = self.begin(query, params.k, allow);
        full.iter().for_each(|chunk| chunk.offer_to(&mut nearest, self.metric, query, allow));
        Ok(nearest.into_sorted())
    }

    fn save(&self, dir: &Path, stamp: Stamp) -> Result<(), IndexError> {
        // Under the lock only long enough to copy the growing chunk: searches and inserts go on while disk is slow.
        let (full, growing) = {
            let rows = self.read();
            let growing = Chunk { slots: rows.growing.slots.clone(), values: rows.growing.values.clone() };
            (Arc::clone(&rows.full), growing)
        };
        let chunks: Vec<&Chunk> = full.iter().map(|c| &**c).chain([&growing]).collect();
        manifest::write_file(dir, FILE, |out| {
            for slot in chunks.iter().flat_map(|c| &c.slots) {
                out.write_all(&slot.0.to_le_bytes())?;
            }
            for value in chunks.iter().flat_map(|c| &c.values) {
                out.write_all(&value.to_le_bytes())?;
            }
            Ok(())
        })?;
        let saved = Manifest {
            kind: IndexKind::Flat,
            dim: self.dim,
            metric: self.metric,
            m: 0,
            ef_construction: 0,
            vectors: chunks.iter().map(|c| c.slots.len()).sum(),
            highest: chunks.iter().filter_map(|c| c.slots.last().copied()).next_back(),
            stamp,
        };
        manifest::seal(dir, &saved, &[FILE])
    }
}

/// The chunk that a slot would lie in.
fn chunk_of(chunks: &[Arc<Chunk>], slot: Slot) -> Option<&Chunk> {
    let after = chunks.partition_point(|chunk| chunk.slots.first().is_some_and(|first| *first <= slot));
    chunks.get(after.checked_sub(1)?).map(|chunk| &**chunk)
}

/// The nearest `k` of everything offered.
struct Nearest {
    k: usize,
    /// The farthest on top.
    heap: BinaryHeap<Ranked>,
}

impl Nearest {
    /// Reserves for no more than `offered`, so that an enormous `k` costs nothing.
    fn new(k: usize, offered: usize) -> Self {
        Nearest { k, heap: BinaryHeap::with_capacity(k.min(offered)) }
    }

    fn offer(&mut self, slot: Slot, distance: f32) {
        let ranked = Ranked(Neighbor { slot, distance });
        if self.heap.len() < self.k {
            self.heap.push(ranked);
        } else if let Some(mut farthest) = self.heap.peek_mut()
            && ranked < *farthest
        {
            *farthest = ranked;
        }
    }

    fn merge(&mut self, other: Nearest) {
        for Ranked(n) in other.heap {
            self.offer(n.slot, n.distance);
        }
    }

    fn into_sorted(self) -> Vec<Neighbor> {
        self.heap.into_sorted_vec().into_iter().map(|Ranked(n)| n).collect()
    }
}

/// A neighbor in the order of answers: nearest first, ties by slot.
struct Ranked(Neighbor);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.rank(&other.0)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}
