//! Conformance tests state what every index owes its callers; they run over every implementation and every metric.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Allow, IndexError, IndexKind, IndexParams, Neighbor, SearchParams, Slot, Stamp, VectorIndex, create, load,
};
use crate::{
    error::{ErrorKind, Fault as _},
    random::SplitMix,
    stop::Stop,
    vector::{Dim, Metric, Vector},
};

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
    let mut random = SplitMix(seed);
    let mut uniform = move || (random.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
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

fn search(index: &dyn VectorIndex, query: &[f32], k: usize) -> Vec<Neighbor> {
    index.search(query, &SearchParams { k, ef: 96, allow: None }).unwrap()
}

fn slots(neighbors: &[Neighbor]) -> Vec<u32> {
    neighbors.iter().map(|n| n.slot.0).collect()
}

#[test]
fn an_empty_index_answers_nothing_and_survives_saving() {
    each(|kind, metric| {
        let dim = Dim::new(3).unwrap();
        let index = create(&params(kind), dim, metric, 0).unwrap();
        assert_eq!((index.kind(), index.dim(), index.metric()), (kind, dim, metric));
        let dir = tempfile::tempdir().unwrap();
        index.save(dir.path(), Stamp::default()).unwrap();
        let loaded = load(dir.path(), &params(kind), dim, metric, Stamp::default()).unwrap();
        for index in [index, loaded] {
            assert!(index.is_empty() && index.highest().is_none());
            assert_eq!(search(&*index, &[1.0, 0.0, 0.0], 5), []);
            index.insert(&[]).unwrap();
            index.insert(&[(Slot(4), &[1.0, 0.0, 0.0])]).unwrap();
            assert_eq!(slots(&search(&*index, &[1.0, 0.0, 0.0], 5)), [4]);
        }
    });
}

#[test]
fn distances_are_those_of_the_metric_and_rise() {
    each(|kind, metric| {
        let rows = clustered(400, 20, metric, 3);
        let index = filled(kind, metric, &rows);
        for query in clustered(20, 20, metric, 4) {
            let found = search(&*index, &query, 25);
            assert_eq!(found.len(), 25);
            for n in &found {
                let distance = metric.distance(&query, &rows[n.slot.0 as usize]);
                assert_eq!(n.distance.to_bits(), distance.to_bits(), "{kind:?} {metric:?}");
            }
            assert!(found.is_sorted_by(|a, b| a.rank(b).is_lt()), "{kind:?} {metric:?} {found:?}");
        }
    });
}

#[test]
fn ties_go_by_slot() {
    each(|kind, metric| {
        // Two places, ten vectors each, slots interleaved.
        let (near, far) = ([1.0f32, 0.0], [0.0f32, 1.0]);
        let rows: Vec<Vec<f32>> = (0..20).map(|i| if i % 2 == 0 { far } else { near }.to_vec()).collect();
        let index = filled(kind, metric, &rows);
        let found = slots(&search(&*index, &near, 15));
        let expected: Vec<u32> = (1..20).step_by(2).chain((0..10).step_by(2)).collect();
        assert_eq!(found, expected, "{kind:?} {metric:?}");
    });
}

#[test]
fn more_than_there_is_gives_all_there_is() {
    each(|kind, metric| {
        let rows = clustered(50, 8, metric, 5);
        let index = filled(kind, metric, &rows);
        for (k, ef) in [(50, 50), (51, 51), (10_000, 10_000), (usize::MAX, usize::MAX)] {
            let found = index.search(&rows[0], &SearchParams { k, ef, allow: None }).unwrap();
            let different: HashSet<u32> = slots(&found).into_iter().collect();
            assert_eq!((found.len(), different.len()), (50, 50), "{kind:?} {metric:?} {k}");
        }
    });
}

#[test]
#[cfg(debug_assertions)]
fn none_asked_is_a_mistake_of_the_caller() {
    for kind in KINDS {
        let index = filled(kind, Metric::Dot, &clustered(5, 4, Metric::Dot, 6));
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| search(&*index, &[1.0; 4], 0)));
        assert!(asked.is_err(), "{kind:?}");
    }
}

#[test]
fn only_allowed_slots_are_answered() {
    each(|kind, metric| {
        let rows = clustered(600, 16, metric, 7);
        let index = filled(kind, metric, &rows);
        let query = &clustered(1, 16, metric, 8)[0];
        let ask = |allow: &(dyn Fn(Slot) -> bool + Sync), k| {
            slots(&index.search(query, &SearchParams { k, ef: 96, allow: Some(allow) }).unwrap())
        };
        assert_eq!(ask(&|_| false, 10), [] as [u32; 0], "{kind:?} {metric:?}");
        for lone in [0, 1, 299, 599] {
            assert_eq!(ask(&|slot| slot.0 == lone, 10), [lone], "{kind:?} {metric:?}");
        }
        let some = ask(&|slot| slot.0 % 7 == 0, 10);
        assert!(some.len() == 10 && some.iter().all(|slot| slot % 7 == 0), "{kind:?} {metric:?} {some:?}");
        assert_eq!(ask(&|slot| slot.0 % 100 == 3, 10).len(), 6, "{kind:?} {metric:?}");
    });
}

#[test]
fn slots_may_have_gaps_but_must_ascend() {
    each(|kind, metric| {
        let rows = clustered(6, 4, metric, 9);
        let index = create(&params(kind), Dim::new(4).unwrap(), metric, 0).unwrap();
        index.insert(&[(Slot(3), &rows[0]), (Slot(1000), &rows[1])]).unwrap();
        index.insert(&[(Slot(u32::MAX), &rows[2])]).unwrap();
        for bad in [3, 4, 1000, u32::MAX] {
            let e = index.insert(&[(Slot(bad), &rows[3])]).unwrap_err();
            assert!(matches!(e, IndexError::SlotOrder { .. }), "{kind:?} {e}");
            assert_eq!(e.kind(), ErrorKind::Internal);
        }
        assert_eq!((index.len(), index.highest()), (3, Some(Slot(u32::MAX))));
        let all: HashSet<u32> = slots(&search(&*index, &rows[0], 10)).into_iter().collect();
        assert_eq!(all, HashSet::from([3, 1000, u32::MAX]), "{kind:?} {metric:?}");

        let index = create(&params(kind), Dim::new(4).unwrap(), metric, 0).unwrap();
        assert!(index.insert(&[(Slot(8), &rows[0]), (Slot(7), &rows[1])]).is_err());
        assert!(index.insert(&[(Slot(8), &rows[0]), (Slot(8), &rows[1])]).is_err());
        assert!(index.is_empty(), "a refused batch adds nothing");
    });
}

#[test]
fn another_dimension_is_refused() {
    each(|kind, metric| {
        let index = filled(kind, metric, &clustered(5, 4, metric, 10));
        for bad in [&[][..], &[1.0; 3], &[1.0; 5]] {
            let e = index.insert(&[(Slot(9), bad)]).unwrap_err();
            assert!(matches!(e, IndexError::WrongDim { expected: 4, got } if got == bad.len()), "{e}");
            let ask = SearchParams { k: 1, ef: 1, allow: None };
            assert!(matches!(index.search(bad, &ask), Err(IndexError::WrongDim { .. })));
        }
        assert_eq!(index.len(), 5);
    });
}

#[test]
fn the_longest_and_shortest_vectors_are_found() {
    each(|kind, metric| {
        for dim in [1, 2, crate::vector::DIM_MAX as usize] {
            let rows = clustered(40, dim, metric, 11);
            let index = filled(kind, metric, &rows);
            for query in &rows[..5] {
                let nearest = rows.iter().map(|row| metric.distance(query, row)).fold(f32::MAX, f32::min);
                assert_eq!(search(&*index, query, 3)[0].distance, nearest, "{kind:?} {metric:?} {dim}");
            }
        }
    });
}

#[test]
fn vectors_whose_sums_overflow_do_no_harm() {
    each(|kind, metric| {
        if metric == Metric::Cosine {
            return; // Its vectors have unit length.
        }
        let rows: Vec<Vec<f32>> = (0..60)
            .map(|i| [f32::MAX, -f32::MAX, 0.0, 1.0].map(|v| v / (i % 3 + 1) as f32).to_vec())
            .collect();
        let index = filled(kind, metric, &rows);
        for query in [[f32::MAX; 4], [f32::MIN; 4], [0.0; 4], [f32::MAX, f32::MIN, f32::MAX, f32::MIN]] {
            assert_eq!(search(&*index, &query, 10).len(), 10, "{kind:?} {metric:?}");
        }
    });
}

#[test]
fn searches_go_on_while_vectors_are_inserted() {
    each(|kind, metric| {
        let rows = clustered(1500, 16, metric, 12);
        let index = create(&params(kind), Dim::new(16).unwrap(), metric, 0).unwrap();
        index.insert(&items(&rows[..100])).unwrap();
        let done = AtomicBool::new(false);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let (index, rows, done) = (&*index, &rows, &done);
        std::thread::scope(|scope| {
            let searchers: Vec<_> = (0..4)
                .map(|t| {
                    scope.spawn(move || {
                        let mut searches = 0;
                        while !done.load(Ordering::Relaxed) || searches == 0 {
                            let query = &rows[(searches * 7 + t) % 100];
                            let before = index.len();
                            let found = search(index, query, 10);
                            assert_eq!(found.len(), 10, "{kind:?} {metric:?}");
                            assert!(found.is_sorted_by(|a, b| a.rank(b).is_lt()));
                            assert!(found.iter().all(|n| (n.slot.0 as usize) < rows.len()));
                            assert!(index.len() >= before);
                            searches += 1;
                        }
                        searches
                    })
                })
                .collect();
            for batch in items(rows)[100..].chunks(200) {
                index.insert_on(&pool, batch, &Stop::default()).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            for searcher in searchers {
                assert!(searcher.join().unwrap() > 0);
            }
        });
        assert_eq!(index.len(), 1500);
    });
}

/// Mean part of the exact nearest 10 that a graph finds.
fn recall_at_10(
    exact: &dyn VectorIndex,
    graph: &dyn VectorIndex,
    queries: &[Vec<f32>],
    allow: Option<Allow<'_>>,
) -> f64 {
    let (mut found, mut wanted) = (0, 0);
    for query in queries {
        let ask = SearchParams { k: 10, ef: 96, allow };
        let truth: HashSet<u32> = slots(&exact.search(query, &ask).unwrap()).into_iter().collect();
        wanted += truth.len();
        found += slots(&graph.search(query, &ask).unwrap()).iter().filter(|s| truth.contains(s)).count();
    }
    found as f64 / wanted as f64
}

#[test]
fn the_graph_finds_what_the_scan_finds() {
    for metric in METRICS {
        let rows = clustered(2000, 32, metric, 13);
        let queries = clustered(100, 32, metric, 14);
        let (exact, graph) =
            (filled(IndexKind::Flat, metric, &rows), filled(IndexKind::HnswRs, metric, &rows));
        let (wide, narrow) = (|slot: Slot| slot.0.is_multiple_of(2), |slot: Slot| slot.0.is_multiple_of(50));
        let filters: [(&str, f64, Option<Allow<'_>>); 3] =
            [("none", 0.95, None), ("wide", 0.95, Some(&wide)), ("narrow", 0.95, Some(&narrow))];
        for (filter, floor, allow) in filters {
            let recall = recall_at_10(&*exact, &*graph, &queries, allow);
            println!("recall@10 {metric:?} filter={filter} {recall:.4}");
            assert!(recall >= floor, "{metric:?} filter={filter}: recall@10 {recall} is below {floor}");
        }
    }
}

/// Collections whose vectors lie so that a graph may close itself off, by what they are.
fn crowds(metric: Metric) -> Vec<(&'static str, Vec<Vec<f32>>)> {
    const DIM: usize = 32;
    let mut random = SplitMix(41);
    let mut uniform = move || (random.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
    let vector = |values: Vec<f32>| {
        Vector::new(values, Dim::new(DIM as u32).unwrap(), metric).unwrap().as_slice().to_vec()
    };
    let mut anywhere = || vector((0..DIM).map(|_| uniform()).collect());
    let different: Vec<Vec<f32>> = (0..2100).map(|_| anywhere()).collect();
    let mut random = SplitMix(42);
    // About normal, with the deviation `sigma`.
    let mut around = move |centre: &[f32], sigma: f32| {
        let mut normal =
            || (0..12).map(|_| (random.next() >> 40) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0;
        let length = centre.iter().map(|v| v * v).sum::<f32>().sqrt();
        vector(centre.iter().map(|v| v / length + sigma * normal()).collect())
    };
    let copies = |n: usize| vec![different[0].clone(); n];
    let mut clusters = |count: usize, size: usize, sigma: f32| -> Vec<Vec<f32>> {
        different[..count]
            .iter()
            .flat_map(|c| (0..size).map(|_| around(c, sigma)).collect::<Vec<_>>())
            .collect()
    };
    let (tight, loose, large) = (clusters(40, 100, 0.01), clusters(40, 100, 0.1), clusters(4, 800, 0.01));
    let near = clusters(1, 400, 1e-7);
    let every_fifth =
        (0..2500).map(|i| different[if i % 5 == 0 { i % 35 } else { i % different.len() }].clone()).collect();
    vec![
        ("copies, then others", [copies(400), different.clone()].concat()),
        ("near copies, then others", [near, different.clone()].concat()),
        ("tight clusters one after another", tight),
        ("loose clusters one after another", loose),
        ("large clusters one after another", large),
        ("a fifth are copies", every_fifth),
        ("nothing but copies", copies(3000)),
        ("all different", different),
    ]
}

/// Inserted in batches, as they arrive, and on one thread, so that the graph is the same each time.
fn arrived(kind: IndexKind, metric: Metric, rows: &[Vec<f32>]) -> Arc<dyn VectorIndex> {
    let index = create(&params(kind), Dim::new(rows[0].len() as u32).unwrap(), metric, 0).unwrap();
    items(rows).chunks(64).for_each(|batch| index.insert(batch).unwrap());
    index.settle(&Stop::default()).unwrap();
    assert_eq!(index.len(), rows.len());
    index
}

#[test]
fn crowds_do_not_hide_anything() {
    let ef = usize::from(IndexParams::default().ef_search);
    for metric in [Metric::Cosine, Metric::Euclidean] {
        // Those that a graph finds hardest come first; once under each metric is enough for them.
        let crowds = crowds(metric);
        for (name, rows) in if metric == Metric::Cosine { &crowds[..] } else { &crowds[..3] } {
            let exact = arrived(IndexKind::Flat, metric, rows);
            for kind in KINDS {
                let index = arrived(kind, metric, rows);
                let (mut lost, mut found, mut wanted) = (0, 0, 0);
                for (i, row) in rows.iter().enumerate() {
                    let answer = search(&*index, row, 10);
                    // One that rounding does not tell from it is as good.
                    let itself = metric.distance(row, row) + 1e-6 * crate::vector::dot(row, row);
                    lost += usize::from(answer[0].distance > itself);
                    if i % 9 == 0 {
                        let truth = exact.search(row, &SearchParams { k: 10, ef, allow: None }).unwrap();
                        let last = truth[truth.len() - 1].distance;
                        wanted += truth.len();
                        found += answer.iter().filter(|n| n.distance <= last).count();
                    }
                }
                let recall = found as f64 / wanted as f64;
                println!("{kind:?} {metric:?} {name}: {lost} lost, recall@10 {recall:.4}");
                assert_eq!(lost, 0, "{kind:?} {metric:?} {name}: not found by their own vectors");
                assert!(recall >= 0.95, "{kind:?} {metric:?} {name}: recall@10 {recall}");
            }
        }
    }
}

#[test]
fn copies_are_answered_one_by_one_and_hidden_one_by_one() {
    each(|kind, metric| {
        let mut rows = clustered(300, 16, metric, 15);
        let copy = rows[0].clone();
        rows.splice(100..200, std::iter::repeat_n(copy.clone(), 100));
        let index = filled(kind, metric, &rows);
        let dir = tempfile::tempdir().unwrap();
        index.save(dir.path(), Stamp::default()).unwrap();
        let loaded = load(dir.path(), &params(kind), index.dim(), metric, Stamp::default()).unwrap();
        assert_eq!((index.len(), loaded.len()), (300, 300));
        for index in [index, loaded] {
            let itself = metric.distance(&copy, &copy);
            let ask = |k: usize, allow: &(dyn Fn(Slot) -> bool + Sync)| {
                index.search(&copy, &SearchParams { k, ef: 96, allow: Some(allow) }).unwrap()
            };
            let equal = |found: Vec<Neighbor>| -> Vec<u32> {
                slots(&found).into_iter().filter(|slot| *slot == 0 || (100..200).contains(slot)).collect()
            };
            let all: Vec<u32> = std::iter::once(0).chain(100..200).collect();
            let found = ask(300, &|_| true);
            assert!(found.iter().filter(|n| n.distance == itself).count() >= 101, "{kind:?} {metric:?}");
            assert_eq!(equal(found), all, "{kind:?} {metric:?}");
            // The first of them is the one that a graph has; it may be hidden like any other.
            let found = equal(ask(300, &|slot| slot.0 != 0 && slot.0 % 2 == 0));
            assert_eq!(found, (100..200).step_by(2).collect::<Vec<_>>(), "{kind:?} {metric:?}");
            let one = |slot: Slot| slot.0 == 157;
            assert_eq!(slots(&ask(5, &one)), [157], "{kind:?} {metric:?}");
            // More of them, after a save.
            index.insert(&[(Slot(300), &copy), (Slot(301), &rows[5]), (Slot(302), &copy)]).unwrap();
            assert_eq!(index.len(), 303);
            assert_eq!(slots(&ask(5, &|slot| slot.0 >= 199 && slot.0 != 301))[..3], [199, 300, 302]);
        }
    });
}

#[test]
fn parameters_out_of_bounds_are_refused() {
    let good = IndexParams::default();
    for (name, range, bad) in [
        ("index.m", "2 and 128", [0, 1].map(|m| IndexParams { m, ..good })),
        ("index.m", "2 and 128", [129, u16::MAX].map(|m| IndexParams { m, ..good })),
        (
            "index.ef_construction",
            "8 and 4096",
            [7, 4097].map(|ef_construction| IndexParams { ef_construction, ..good }),
        ),
        ("index.ef_search", "1 and 4096", [0, 4097].map(|ef_search| IndexParams { ef_search, ..good })),
    ] {
        for kind in KINDS {
            for params in bad.map(|params| IndexParams { kind, ..params }) {
                let e = create(&params, Dim::new(3).unwrap(), Metric::Cosine, 0).unwrap_err();
                assert_eq!(e.kind(), ErrorKind::Invalid);
                let message = e.to_string();
                assert!(message.starts_with(&format!("{name} must be between {range}")), "{e}");
            }
        }
    }
    for (m, ef_construction, ef_search) in [(2, 8, 1), (128, 4096, 4096)] {
        let params = IndexParams { m, ef_construction, ef_search, ..good };
        params.validate().unwrap();
        create(&params, Dim::new(3).unwrap(), Metric::Cosine, usize::MAX).unwrap();
    }
}
