//! Vector -> nearest slots.
//!
//! An index is a cache of the store: it may be thrown away and rebuilt. It knows slots and vectors, nothing else.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    error::ErrorKind,
    vector::{Dim, Metric},
};

/// Number of one stored vector in its collection. Never reused.
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

/// Which index a collection uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexKind {
    /// Exact scan.
    Flat,
    /// The graph of the `hnsw_rs` crate (Malkov & Yashunin 2018, arXiv 1603.09320).
    #[default]
    HnswRs,
}

/// How an index is built and searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexParams {
    #[expect(missing_docs)]
    pub kind: IndexKind,
    /// M: links per node and layer, 2 to 128. Default 16.
    pub m: u16,
    /// Candidates kept while building, 8 to 4096. Default 200.
    pub ef_construction: u16,
    /// Candidates kept while searching, 1 to 4096; raised to k. Default 96.
    pub ef_search: u16,
    /// Seed of the level generator, where the implementation takes one.
    pub seed: u64,
}

impl Default for IndexParams {
    fn default() -> Self {
        IndexParams { kind: IndexKind::HnswRs, m: 16, ef_construction: 200, ef_search: 96, seed: 7 }
    }
}

/// One search.
pub struct SearchParams<'a> {
    /// Hits wanted, at least 1.
    pub k: usize,
    /// Candidates kept by a graph, at least `k`.
    pub ef: usize,
    /// Slots that may be answered; `None`: all.
    pub allow: Option<&'a (dyn Fn(Slot) -> bool + Sync)>,
}

/// What every index can do. Vectors are already checked ([`crate::vector::Vector`]) and of the index's dimension.
pub trait VectorIndex: Send + Sync {
    /// Which implementation this is.
    fn kind(&self) -> IndexKind;

    /// Length of its vectors.
    fn dim(&self) -> Dim;

    /// How nearness is measured.
    fn metric(&self) -> Metric;

    /// Vectors inside, deleted ones included.
    fn len(&self) -> usize;

    /// Whether nothing was inserted yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds vectors under new slots.
    ///
    /// # Errors
    /// [`IndexError::Failed`] if the implementation panicked or refused; the index must then be rebuilt.
    fn insert(&self, items: &[(Slot, &[f32])]) -> Result<(), IndexError>;

    /// The nearest allowed slots, nearest first, ties by slot. May be fewer than `k` for an approximate index;
    /// the exact one gives min(k, allowed).
    ///
    /// # Errors
    /// As [`VectorIndex::insert`].
    fn search(&self, query: &[f32], params: &SearchParams<'_>) -> Result<Vec<Neighbor>, IndexError>;

    /// Writes its files into an existing empty directory and syncs them. Each is checksummed by the manifest beside them.
    ///
    /// # Errors
    /// [`IndexError::Io`], [`IndexError::Failed`].
    fn save(&self, dir: &Path) -> Result<(), IndexError>;
}

/// Why an index failed. The store is never harmed by it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum IndexError {
    #[error("index parameter {name} must be between {min} and {max}, got {got}")]
    Param { name: &'static str, min: u32, max: u32, got: u32 },
    #[error("the {kind:?} index failed ({reason}); it is rebuilt from the store at the next start")]
    Failed { kind: IndexKind, reason: String },
    #[error("index file {} is damaged: {reason}", path.display())]
    Damaged { path: std::path::PathBuf, reason: String },
    #[error("cannot read or write index file {}", path.display())]
    Io { path: std::path::PathBuf, source: std::io::Error },
}

impl IndexError {
    /// Invalid for parameters, Internal for a failed search (nothing is lost), Corrupt for damaged files.
    pub fn kind(&self) -> ErrorKind {
        match self {
            IndexError::Param { .. } => ErrorKind::Invalid,
            IndexError::Failed { .. } | IndexError::Io { .. } => ErrorKind::Internal,
            IndexError::Damaged { .. } => ErrorKind::Corrupt,
        }
    }
}
