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
            prop_assert_eq!(index.nearest(&query, k, None, &Stop::default()).unwrap(), naive(&rows, metric, &query, k));
            for slot in 0..125 {
                prop_assert_eq!(index.vector(Slot(slot)), rows.get(&slot).cloned());
            }
            let is_odd: SharedAllow = Arc::new(|slot| slot.0 % 2 == 1);
            let odd: BTreeMap<u32, Vec<f32>> =
                rows.iter().filter(|(slot, _)| *slot % 2 == 1).map(|(s, r)| (*s, r.clone())).collect();
            let expected = naive(&odd, metric, &query, k);
            prop_assert_eq!(&index.nearest(&query, k, Some(&is_odd), &Stop::default()).unwrap(), &expected);
            // Candidates in either order, those that are not here among them.
            let candidates = (0..125).filter(|slot| slot % 2 == 1).map(Slot);
            prop_assert_eq!(&index.scan(&query, k, candidates.clone(), &Stop::default()).unwrap(), &expected);
            prop_assert_eq!(&index.scan(&query, k, candidates.rev(), &Stop::default()).unwrap(), &expected);
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
    let alone = index.nearest(&query, 30, None, &Stop::default()).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(pool.install(|| index.nearest(&query, 30, None, &Stop::default()).unwrap()), alone);
    assert_eq!(alone, naive(&rows, metric, &query, 30));
}

/// Enough rows that a search is split over the pool.
fn large() -> (FlatIndex, Vec<f32>) {
    let rows: BTreeMap<u32, Vec<f32>> = (0..4500u32).map(|i| (i, vec![i as f32; 1024])).collect();
    (indexed(&rows, 1024, Metric::Euclidean, 100), vec![2000.0; 1024])
}

thread_local! {
    static DEPTH: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[test]
fn a_search_that_waits_takes_up_no_other_search() {
    let (index, query) = large();
    let shared = Arc::new((index, query));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let (send, depths) = std::sync::mpsc::channel();
    for _ in 0..100 {
        let (shared, send) = (Arc::clone(&shared), send.clone());
        pool.spawn(move || {
            let depth = DEPTH.replace(DEPTH.get() + 1);
            let found = shared.0.nearest(&shared.1, 3, None, &Stop::default()).unwrap();
            DEPTH.set(depth);
            send.send((depth, found[0].slot)).unwrap();
        });
    }
    drop(send);
    assert_eq!(depths.iter().collect::<Vec<_>>(), [(0, Slot(2000)); 100]);
}

#[test]
fn a_scan_in_parallel_stops_and_reports_panics() {
    let (index, query) = large();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let looked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (asker, stop) = Stop::with_asker(None);
    let asker = std::sync::Mutex::new(Some(asker));
    let allow: SharedAllow = {
        let looked = Arc::clone(&looked);
        Arc::new(move |_| {
            if looked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 200 {
                asker.lock().unwrap().take();
            }
            true
        })
    };
    assert_eq!(pool.install(|| index.nearest(&query, 3, Some(&allow), &stop)), Err(Stopped));
    let looked = looked.load(std::sync::atomic::Ordering::SeqCst);
    assert!(looked < 1000, "each thread ends the chunk it is in, not more: {looked} of 4500");

    let panics: SharedAllow = Arc::new(|slot| {
        assert!(slot.0 != 3000, "as planned");
        true
    });
    let search = || pool.install(|| index.nearest(&query, 3, Some(&panics), &Stop::default()));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(search)).is_err());
    // On a helper, too: the scanning thread waits in its first full chunk until a helper has begun.
    let scanner = Arc::new(std::sync::OnceLock::new());
    let panics: SharedAllow = {
        let (scanner, helped) = (Arc::clone(&scanner), std::sync::atomic::AtomicBool::new(false));
        Arc::new(move |slot| {
            if scanner.get() != Some(&std::thread::current().id()) {
                helped.store(true, std::sync::atomic::Ordering::SeqCst);
                panic!("as planned");
            }
            while slot.0 < 4000 && !helped.load(std::sync::atomic::Ordering::SeqCst) {
                std::thread::yield_now();
            }
            true
        })
    };
    let search = || {
        pool.install(|| {
            scanner.set(std::thread::current().id()).unwrap();
            index.nearest(&query, 3, Some(&panics), &Stop::default())
        })
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(search)).is_err());
    // Nothing is left behind.
    assert!(pool.install(|| index.nearest(&query, 3, None, &Stop::default())).is_ok());
}

#[test]
fn a_scan_on_one_thread_stops() {
    let (index, query) = large();
    let stop = Stop::at(Some(std::time::Instant::now()));
    assert_eq!(index.nearest(&query, 3, None, &stop), Err(Stopped));
    assert_eq!(index.scan(&query, 3, (0..4500).map(Slot), &stop), Err(Stopped));
}
