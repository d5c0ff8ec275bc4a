//! Everything at once on a pool of two threads, under a watchdog: nothing may wait for itself.

use std::{
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use super::*;

/// As long as a text's vector.
const LENGTH: usize = 384;
/// Enough that an exact scan is split over the pool.
const VECTORS: u64 = 20_000;
const SEARCHERS: u64 = 8;
const WRITERS: u64 = 2;
/// How long the load goes on.
const LOAD: Duration = Duration::from_secs(4);
/// Far more than everything takes on a busy machine.
const BOUND: Duration = Duration::from_secs(180);

fn long_vector(random: &mut Random) -> Vector {
    let dim = Dim::new(LENGTH as u32).unwrap();
    Vector::new((0..LENGTH).map(|_| unit(random)).collect(), dim, Metric::Cosine).unwrap()
}

fn long_point(name: &str, version: u64, random: &mut Random) -> Write {
    let mut point = point(name, version, 1, random);
    point.passages[0].vector = long_vector(random);
    upsert(point)
}

fn load(kind: IndexKind, dir: &Path) {
    let spec = CollectionSpec { dim: Dim::new(LENGTH as u32).unwrap(), ..spec(kind) };
    let options = options_on(&(Arc::new(RealDisk) as _), dir, Threads::new(2).unwrap());
    // It is sealed and merged all the time.
    let kept = Options { seal_bytes: 512 << 10, ..SMALL };
    let means = Means { options: &options, kept, numbers_max: NUMBERS_MAX };
    let collection = Collection::create_with(dir, spec, means).unwrap();
    let mut random = Random(31);
    for batch in (0..VECTORS).collect::<Vec<_>>().chunks(500) {
        let batch = batch.iter().map(|i| long_point(&format!("doc {i}"), *i, &mut random)).collect();
        collection.write(batch).unwrap();
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let (pool, collection) = (&pool, &collection);
    let end = Instant::now() + LOAD;
    std::thread::scope(|scope| {
        for n in 0..SEARCHERS {
            scope.spawn(move || {
                let mut random = Random(100 + n);
                while Instant::now() < end {
                    let query = SearchQuery {
                        exact: n % 3 == 1,
                        filter: (n % 3 == 2).then(|| eq("tag", Value::String("red".into()))),
                        ..query(long_vector(&mut random), 10)
                    };
                    let (hits, trace) = pool.install(|| search(collection, &query)).unwrap();
                    assert_eq!(hits.len(), 10, "{trace:?}");
                }
            });
        }
        for n in 0..WRITERS {
            scope.spawn(move || {
                let mut random = Random(200 + n);
                let mut version = VECTORS;
                while Instant::now() < end {
                    version += 1;
                    let write = match random.below(3) {
                        0 => Write::Delete(id(&format!("doc {}", random.below(VECTORS)))),
                        _ => long_point(&format!("new {n} {version}"), version, &mut random),
                    };
                    collection.write(vec![write]).unwrap();
                }
            });
        }
        scope.spawn(move || {
            while Instant::now() < end {
                pool.install(|| collection.stats());
                collection.count(Some(&eq("tag", Value::String("blue".into()))), &Stop::default()).unwrap();
            }
        });
    });
    collection.close().unwrap();
}

/// A worker of the pool that waits takes up another search on its own stack. It once held the lock of the memory
/// meanwhile, for which a writer waited, behind which that other search waited.
fn ends(kind: IndexKind) {
    watched(&format!("{kind:?}: searches, writes, stats or close"), move |dir| load(kind, dir));
}

/// Runs `load` on a collection's folder, and fails if it does not end.
pub(super) fn watched(what: &str, load: impl FnOnce(&Path) + Send + 'static) {
    let (done, watched) = sync_channel(1);
    // Not joined if it hangs: then the process ends with it.
    std::thread::spawn(move || {
        let dir = tempfile::tempdir().unwrap();
        load(&place(&dir));
        done.send(()).unwrap();
    });
    match watched.recv_timeout(BOUND) {
        Ok(()) => {}
        Err(RecvTimeoutError::Timeout) => panic!("{what} hang"),
        Err(RecvTimeoutError::Disconnected) => panic!("{what} failed; see above"),
    }
}

#[test]
fn a_flat_collection_under_load_always_answers_and_closes() {
    ends(IndexKind::Flat);
}

#[test]
fn a_graph_collection_under_load_always_answers_and_closes() {
    ends(IndexKind::HnswRs);
}
