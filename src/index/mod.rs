//! Vector indexes find the slots whose vectors are nearest to a query.
//!
//! An index is a cache of the store: it may be thrown away and rebuilt. It knows slots and vectors, nothing else; the
//! caller hides deleted slots with [`SearchParams::allow`].
//!
//! Saved files carry a [`Stamp`] that their owner chose, so that files of another state are never mistaken for those of
//! this one. Every byte is checked before any of it is used.

use std::{fmt::Debug, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    error::{ErrorKind, Fault},
    stop::Stop,
    vector::{Dim, Metric},
};

mod baseline;
pub mod columns;
#[cfg(test)]
mod conformance;
mod flat;
mod hnsw_rs;
mod manifest;

pub use self::hnsw_rs::HnswRsIndex;
pub use flat::{FlatIndex, SharedAllow};

/// Number of one vector in the index that holds it. The caller gives none twice to one index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u32);

/// A slot and how far it is from the query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbor {
    /// Which vector.
    pub slot: Slot,
    /// Smaller is nearer; see [`Metric::distance`].
    pub distance: f32,
}

impl Neighbor {
    /// The order of answers: nearest first, ties by slot.
    pub fn rank(&self, other: &Neighbor) -> std::cmp::Ordering {
        self.distance.total_cmp(&other.distance).then(self.slot.cmp(&other.slot))
    }
}

/// Identifies the state of the owner that saved files belong to. The owner chooses it, and [`load`] refuses any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Stamp(pub [u8; 16]);

/// Which index a collection uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexKind {
    /// An exact scan of all vectors.
    Flat,
    /// The graph of the `hnsw_rs` crate (Malkov & Yashunin 2018, arXiv 1603.09320).
    #[default]
    HnswRs,
}

/// How an index is built and searched. Read from JSON, a field that is not there has its default, and one that is not
/// known is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IndexParams {
    /// Which implementation. Default [`IndexKind::HnswRs`].
    pub kind: IndexKind,
    /// M: links per node and layer, 2 to 128. Default 16.
    pub m: u16,
    /// Candidates kept while building, 8 to 4096. Default 200.
    pub ef_construction: u16,
    /// Candidates kept while searching, 1 to 4096; raised to k. Default 96.
    pub ef_search: u16,
    /// Seed of the level generator, where the implementation takes one; any number. Default 7.
    pub seed: u64,
}

impl Default for IndexParams {
    fn default() -> Self {
        IndexParams { kind: IndexKind::HnswRs, m: 16, ef_construction: 200, ef_search: 96, seed: 7 }
    }
}

/// The name of a parameter and what it may be, both ends included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    name: &'static str,
    min: u16,
    max: u16,
}

/// Bounds of [`IndexParams::m`]: one link cannot span a graph, and beyond 128 `hnsw_rs` comes near its own limit,
/// where it ends the process.
pub(crate) const M: Bounds = Bounds { name: "index.m", min: 2, max: 128 };
/// Bounds of [`IndexParams::ef_construction`].
pub(crate) const EF_CONSTRUCTION: Bounds = Bounds { name: "index.ef_construction", min: 8, max: 4096 };
/// Bounds of [`IndexParams::ef_search`].
pub(crate) const EF_SEARCH: Bounds = Bounds { name: "index.ef_search", min: 1, max: 4096 };

impl Bounds {
    /// The number, if it lies within.
    ///
    /// # Errors
    /// [`IndexError::Param`].
    pub(crate) fn check(self, got: u32) -> Result<u16, IndexError> {
        let Bounds { name, min, max } = self;
        let good = u16::try_from(got).ok().filter(|got| (min..=max).contains(got));
        good.ok_or(IndexError::Param { name, min: min.into(), max: max.into(), got })
    }
}

impl IndexParams {
    /// # Errors
    /// [`IndexError::Param`] for the first parameter that is out of the bounds its field documents, whatever the kind.
    pub fn validate(&self) -> Result<(), IndexError> {
        for (bounds, got) in
            [(M, self.m), (EF_CONSTRUCTION, self.ef_construction), (EF_SEARCH, self.ef_search)]
        {
            bounds.check(got.into())?;
        }
        Ok(())
    }
}

/// Makes an empty index that reserves room for about `capacity` vectors; it accepts more.
///
/// ```
/// use distilface::index::{IndexKind, IndexParams, SearchParams, Slot, create};
/// use distilface::vector::{Dim, Metric};
///
/// let params = IndexParams { kind: IndexKind::Flat, ..IndexParams::default() };
/// let index = create(&params, Dim::new(2).unwrap(), Metric::Euclidean, 2).unwrap();
/// index.insert(&[(Slot(0), &[0.0, 0.0]), (Slot(1), &[1.0, 1.0])]).unwrap();
/// let found = index.search(&[0.9, 0.9], &SearchParams { k: 1, ef: 1, allow: None }).unwrap();
/// assert_eq!(found[0].slot, Slot(1));
/// ```
///
/// # Errors
/// [`IndexError::Param`], [`IndexError::Failed`].
pub fn create(
    params: &IndexParams,
    dim: Dim,
    metric: Metric,
    capacity: usize,
) -> Result<Arc<dyn VectorIndex>, IndexError> {
    params.validate()?;
    Ok(match params.kind {
        IndexKind::Flat => Arc::new(FlatIndex::with_capacity(dim, metric, capacity)),
        IndexKind::HnswRs => Arc::new(HnswRsIndex::new(params, dim, metric, capacity)?),
    })
}

/// A sum of the manifest of what [`VectorIndex::save`] wrote into `dir`, and so of every byte of it: what is kept beside
/// it can name the index that it belongs to.
///
/// # Errors
/// [`IndexError::Damaged`] where there is none; [`IndexError::Io`].
pub(crate) fn manifest_sum(dir: &Path) -> Result<u32, IndexError> {
    manifest::sum(dir)
}

/// Loads what [`VectorIndex::save`] wrote into `dir`. After any error the index can be rebuilt from the store.
/// [`VectorIndex::highest`] of the loaded index says from which slot on vectors are missing.
///
/// # Errors
/// [`IndexError::Damaged`] if a byte is not as written or a file is missing; [`IndexError::Mismatch`] if the files
/// are of another index or another `stamp`; [`IndexError::Param`], [`IndexError::Io`], [`IndexError::Failed`].
pub fn load(
    dir: &Path,
    params: &IndexParams,
    dim: Dim,
    metric: Metric,
    stamp: Stamp,
) -> Result<Arc<dyn VectorIndex>, IndexError> {
    params.validate()?;
    let saved = manifest::open(dir)?;
    let (m, ef_construction) = match params.kind {
        IndexKind::Flat => (0, 0),
        IndexKind::HnswRs => (params.m, params.ef_construction),
    };
    let wanted = manifest::Manifest {
        kind: params.kind,
        dim,
        metric,
        m,
        ef_construction,
        vectors: saved.vectors,
        highest: saved.highest,
        stamp,
    };
    saved.expect(dir, &wanted)?;
    Ok(match params.kind {
        IndexKind::Flat => Arc::new(FlatIndex::load(dir, &saved)?),
        IndexKind::HnswRs => Arc::new(HnswRsIndex::load(dir, params, &saved)?),
    })
}

/// Says which slots may be answered.
pub type Allow<'a> = &'a (dyn Fn(Slot) -> bool + Sync);

/// The options of one search.
pub struct SearchParams<'a> {
    /// Hits wanted, at least 1.
    pub k: usize,
    /// Candidates that a graph keeps while it searches, at least `k`.
    pub ef: usize,
    /// Slots that may be answered; `None` allows all.
    pub allow: Option<Allow<'a>>,
}

/// What every index can do. Vectors are already checked ([`crate::vector::Vector`]) and of the index's dimension.
pub trait VectorIndex: Send + Sync + Debug {
    /// The kind of this implementation.
    fn kind(&self) -> IndexKind;

    /// The dimension of its vectors.
    fn dim(&self) -> Dim;

    /// The metric that measures nearness.
    fn metric(&self) -> Metric;

    /// The number of vectors inside, deleted ones included. This never waits for an insert.
    fn len(&self) -> usize;

    /// Whether nothing has been inserted yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The highest slot inside.
    fn highest(&self) -> Option<Slot>;

    /// Adds vectors under new slots, which ascend strictly: within `items`, and from the highest slot inside.
    /// Calls of [`VectorIndex::search`] from other threads wait no longer than for a bounded part of `items`.
    /// Works on the calling thread only.
    ///
    /// # Errors
    /// [`IndexError::Failed`] if the implementation panicked; it then fails for good and must be rebuilt.
    /// [`IndexError::SlotOrder`] and [`IndexError::WrongDim`] before anything was added.
    fn insert(&self, items: &[(Slot, &[f32])]) -> Result<(), IndexError>;

    /// [`VectorIndex::insert`] with the threads of `pool`, where the implementation can use them. The caller must not
    /// be a worker of any pool: it waits for `pool` while it keeps searches out, and a worker that waits takes up other
    /// work on the same stack. What runs on `pool` takes no lock that anybody holds while waiting for `pool`. All
    /// `items` are added whatever `stop` says; what is done besides, as in [`VectorIndex::settle`], is left off.
    ///
    /// # Errors
    /// As [`VectorIndex::insert`].
    fn insert_on(
        &self,
        pool: &rayon::ThreadPool,
        items: &[(Slot, &[f32])],
        stop: &Stop,
    ) -> Result<(), IndexError> {
        let _ = (pool, stop);
        self.insert(items)
    }

    /// Call this when everything was inserted. An approximate index looks for vectors that a search would not
    /// find and makes sure that it finds them; where little was inserted since the last time, that takes no time.
    /// Searches continue meanwhile. It works on the calling thread only, for minutes where there are millions of
    /// vectors. It stops when
    /// `stop` says so, which is no error: the next call begins again.
    ///
    /// # Errors
    /// [`IndexError::Failed`], as [`VectorIndex::insert`].
    fn settle(&self, stop: &Stop) -> Result<(), IndexError> {
        let _ = stop;
        Ok(())
    }

    /// The nearest allowed slots, nearest first, ties by slot. May be fewer than `k` for an approximate index;
    /// the exact one gives min(k, allowed). `allow` may be asked about slots any number of times, from any thread.
    ///
    /// # Errors
    /// As [`VectorIndex::insert`].
    fn search(&self, query: &[f32], params: &SearchParams<'_>) -> Result<Vec<Neighbor>, IndexError>;

    /// Searches as [`VectorIndex::search`] does, or gives `None` if inserting keeps the index busy for more than a few
    /// milliseconds.
    fn try_search(
        &self,
        query: &[f32],
        params: &SearchParams<'_>,
    ) -> Option<Result<Vec<Neighbor>, IndexError>> {
        Some(self.search(query, params))
    }

    /// Writes its files into an existing empty directory and syncs them. Each is checksummed by the manifest beside
    /// them, which is written last. [`load`] reads them back.
    ///
    /// # Errors
    /// [`IndexError::Io`], [`IndexError::Failed`].
    fn save(&self, dir: &Path, stamp: Stamp) -> Result<(), IndexError>;
}

/// Why an index failed. The store is never damaged by it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum IndexError {
    #[error("{name} must be between {min} and {max}, got {got}")]
    Param { name: &'static str, min: u32, max: u32, got: u32 },
    #[error("the {kind:?} index failed ({reason}); it is rebuilt from the store at the next start")]
    Failed { kind: IndexKind, reason: String },
    #[error("slot {slot} was to be inserted after slot {highest}; slots must ascend")]
    SlotOrder { slot: u32, highest: u32 },
    #[error("the vector has {got} values, the index's dimension is {expected}")]
    WrongDim { expected: u32, got: usize },
    #[error("the index files at {} have {name} {got}, expected {expected}", path.display())]
    Mismatch { path: std::path::PathBuf, name: &'static str, expected: String, got: String },
    #[error("index file {} is damaged: {reason}", path.display())]
    Damaged { path: std::path::PathBuf, reason: String },
    #[error("cannot read or write index file {}", path.display())]
    Io { path: std::path::PathBuf, source: std::io::Error },
}

impl Fault for IndexError {
    fn kind(&self) -> ErrorKind {
        match self {
            IndexError::Param { .. } => ErrorKind::Invalid,
            IndexError::Mismatch { .. } => ErrorKind::Precondition,
            IndexError::Failed { .. }
            | IndexError::SlotOrder { .. }
            | IndexError::WrongDim { .. }
            | IndexError::Io { .. } => ErrorKind::Internal,
            IndexError::Damaged { .. } => ErrorKind::Corrupt,
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            IndexError::Param { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// Refuses items that would break an index: they must ascend from `highest` and have its dimension.
fn check_items(dim: Dim, mut highest: Option<Slot>, items: &[(Slot, &[f32])]) -> Result<(), IndexError> {
    for (slot, vector) in items {
        check_query(dim, vector)?;
        if let Some(highest) = highest
            && highest >= *slot
        {
            return Err(IndexError::SlotOrder { slot: slot.0, highest: highest.0 });
        }
        highest = Some(*slot);
    }
    Ok(())
}

/// Cheap beside any search, and a wrong length would shift every row after it.
fn check_query(dim: Dim, vector: &[f32]) -> Result<(), IndexError> {
    if vector.len() == dim.len() {
        Ok(())
    } else {
        Err(IndexError::WrongDim { expected: dim.as_u32(), got: vector.len() })
    }
}
