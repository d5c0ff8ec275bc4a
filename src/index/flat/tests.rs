//! The exact scan against a sort of everything.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::Euclidean];

fn naive(rows: &BTreeMap<u32, Vec<f32>>, metric: Metric, query: &[f32], k: usize) -> Vec<Neighbor> {
    let distance = |(&slot, row): (&u32, &Vec<f32>)| Neighbor {
        slot: Slot(slot),
        distance: metric.distance(query, row),
    };
    let mut all: Vec<Neighbor> = rows.iter().map(distance).collect();
    all.sort_by(Neighbor::rank);
    all.truncate(k);
    all
}

fn indexed(rows: &BTreeMap<u32, Vec<f32>>, dim: usize, metric: Metric, rows_per_chunk: usize) -> FlatIndex {
    let mut index = FlatIndex::with_capacity(Dim::new(dim as u32).unwrap(), metric, rows.len());
    index.rows_per_chunk = rows_per_chunk;
    for (slot, row) in rows {
        index.insert(&[(Slot(*slot), row)]).unwrap();
    }
    index
}

/// Few different values, so that ties abound.
fn row(dim: usize) -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec((-2i8..=2).prop_map(f32::from), dim)
}

fn case() -> impl Strategy<Value = (usize, BTreeMap<u32, Vec<f32>>, Vec<f32>, usize, usize)> {
    (1usize..6).prop_flat_map(|dim| {
        let rows = proptest::collection::btree_map(0u32..120, row(dim), 0..80);
        (Just(dim), rows, row(dim), 1usize..100, 1usize..20)
    })
}

proptest! {
    #[test]
    fn equals_a_sort_of_everything((dim, rows, query, k, per_chunk) in case()) {
        for metric in METRICS {
            let index = indexed(&rows, dim, metric, per_chunk);
            prop_assert_eq!(index.len(), rows.len());
            prop_assert_eq!(index.nearest(&query, k, None), naive(&rows, metric, &query, k));
            for slot in 0..125 {
                prop_assert_eq!(index.vector(Slot(slot)), rows.get(&slot).cloned());
            }
            let odd: BTreeMap<u32, Vec<f32>> =
                rows.iter().filter(|(slot, _)| *slot % 2 == 1).map(|(s, r)| (*s, r.clone())).collect();
            let expected = naive(&odd, metric, &query, k);
            prop_assert_eq!(&index.nearest(&query, k, Some(&|slot: Slot| slot.0 % 2 == 1)), &expected);
            // Candidates in either order, those that are not here among them.
            let candidates = (0..125).filter(|slot| slot % 2 == 1).map(Slot);
            prop_assert_eq!(&index.scan(&query, k, candidates.clone()), &expected);
            prop_assert_eq!(&index.scan(&query, k, candidates.rev()), &expected);
        }
    }
}

#[test]
fn a_search_in_parallel_equals_one_alone() {
    let (dim, metric) = (1024, Metric::Euclidean);
    let rows: BTreeMap<u32, Vec<f32>> =
        (0..4500u32).map(|i| (i, vec![(i.wrapping_mul(2_654_435_761) % 977) as f32; dim])).collect();
    let index = indexed(&rows, dim, metric, FlatIndex::new(Dim::new(1024).unwrap(), metric).rows_per_chunk);
    assert!(rows.len() * dim > PARALLEL_VALUES_MIN, "enough to be split");
    let query = vec![500.0; dim];
    let alone = index.nearest(&query, 30, None);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(pool.install(|| index.nearest(&query, 30, None)), alone);
    assert_eq!(alone, naive(&rows, metric, &query, 30));
}
