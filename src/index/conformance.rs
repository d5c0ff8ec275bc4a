//! What every index owes its callers, run over every implementation and every metric.

use std::sync::Arc;

use super::{IndexKind, IndexParams, SearchParams, Slot, Stamp, VectorIndex, create, load};
use crate::vector::{Dim, Metric, Vector};

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::Euclidean];
const KINDS: [IndexKind; 2] = [IndexKind::Flat, IndexKind::HnswRs];

/// Every implementation under every metric.
fn each(mut test: impl FnMut(IndexKind, Metric)) {
    for kind in KINDS {
        for metric in METRICS {
            test(kind, metric);
        }
    }
}

fn params(kind: IndexKind) -> IndexParams {
    IndexParams { kind, ..IndexParams::default() }
}

/// Seeded vectors around a few dozen centres, as embeddings are; splitmix64.
pub(super) fn clustered(n: usize, dim: usize, metric: Metric, seed: u64) -> Vec<Vec<f32>> {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let mut centres: Vec<Vec<f32>> = Vec::new();
    for _ in 0..30 {
        centres.push((0..dim).map(|_| uniform()).collect());
    }
    (0..n)
        .map(|i| {
            let centre = &centres[i % centres.len()];
            let values = centre.iter().map(|c| c + 0.6 * uniform()).collect();
            let dim = Dim::new(dim as u32).unwrap();
            Vector::new(values, dim, metric).unwrap().as_slice().to_vec()
        })
        .collect()
}

fn filled(kind: IndexKind, metric: Metric, rows: &[Vec<f32>]) -> Arc<dyn VectorIndex> {
    let dim = Dim::new(rows[0].len() as u32).unwrap();
    let index = create(&params(kind), dim, metric, rows.len()).unwrap();
    index.insert(&items(rows)).unwrap();
    index
}

fn items(rows: &[Vec<f32>]) -> Vec<(Slot, &[f32])> {
    rows.iter().enumerate().map(|(i, row)| (Slot(i as u32), row.as_slice())).collect()
}

#[test]
fn saved_and_loaded_answers_alike() {
    each(|kind, metric| {
        let rows = clustered(500, 24, metric, 1);
        let index = filled(kind, metric, &rows);
        let dir = tempfile::tempdir().unwrap();
        let stamp = Stamp([7; 16]);
        index.save(dir.path(), stamp).unwrap();
        let loaded = load(dir.path(), &params(kind), index.dim(), metric, stamp).unwrap();
        assert_eq!((loaded.kind(), loaded.len(), loaded.highest()), (kind, 500, Some(Slot(499))));
        for query in clustered(20, 24, metric, 2) {
            let ask = SearchParams { k: 10, ef: 96, allow: None };
            assert_eq!(
                index.search(&query, &ask).unwrap(),
                loaded.search(&query, &ask).unwrap(),
                "{kind:?} {metric:?}"
            );
        }
    });
}
