//! The distance that graphs are built with, under the name that saved graphs know it by.
//!
//! `hnsw_rs` writes the path of this type, `distilface::index::baseline::GraphDistance`, into every graph that it saves,
//! and loads none in which another is written. So the type stays here, whatever its adapter (`hnsw_rs.rs`) is called:
//! if it moved, every saved graph would be built again.

use crate::vector::Metric;

/// [`Metric::distance`] in a form that `hnsw_rs` accepts.
#[derive(Debug, Clone, Copy)]
pub(super) struct GraphDistance(pub(super) Metric);
