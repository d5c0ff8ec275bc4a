//! What formats 1 and 2 kept of a collection, as they wrote it. Read for ever, written no more.
//!
//! Their records of documents stayed where they were when format 3 took a store over: a document with a number below
//! `small_end` has its records under their keys, any later one under those of format 3.

use std::path::Path;

use serde::Deserialize;

use super::{StoreError, identity::Identity, record::decode};

/// Key of the [`Spec`].
pub(super) const SPEC_KEY: &[u8] = b"s";

/// How a collection was made, which is the description's to say today. The numbers of the kinds are those of the order
/// in which they were declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Spec {
    pub(crate) dimension: u32,
    /// 0: cosine, 1: dot, 2: euclidean.
    pub(crate) metric: u32,
    /// 0: flat, 1: `hnsw_rs`.
    pub(crate) index: u32,
    pub(crate) m: u16,
    pub(crate) ef_construction: u16,
    pub(crate) ef_search: u16,
    pub(crate) seed: u64,
    identity: [u8; 16],
}

impl Spec {
    pub(super) fn decode(bytes: &[u8], place: &Path) -> Result<Self, StoreError> {
        decode(bytes, place, "its description")
    }

    pub(super) fn identity(&self) -> Identity {
        Identity(self.identity)
    }
}

/// The totals, with numbers of 32 bits.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(super) struct Totals {
    pub(super) sequence: u64,
    pub(super) documents: u64,
    pub(super) passages: u64,
    pub(super) digest: u64,
    pub(super) next_doc: u32,
    pub(super) next_vector: u32,
}

/// The head of a document, with the number of its first vector.
#[derive(Debug, Deserialize)]
pub(super) struct StoredHead {
    pub(super) body: Vec<u8>,
    pub(super) _first_vector: u32,
    pub(super) passages: u32,
    pub(super) vectors_crc: u32,
    pub(super) text_bytes: u64,
    pub(super) text_crc: u32,
}
