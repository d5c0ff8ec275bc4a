//! Each guard against `hnsw_rs` that the adapter's header lists.

use std::{fs, process::Command};

use proptest::prelude::*;

use super::*;
use crate::{
    error::Fault as _,
    index::{conformance::clustered, load},
};

const METRIC: Metric = Metric::Euclidean;
const STAMP: Stamp = Stamp([3; 16]);

fn dim(n: usize) -> Dim {
    Dim::new(n as u32).unwrap()
}

fn empty(m: u16, ef_construction: u16) -> HnswRsIndex {
    let params = IndexParams { m, ef_construction, ..IndexParams::default() };
    HnswRsIndex::new(&params, dim(8), METRIC, 0).unwrap()
}

fn insert(index: &HnswRsIndex, rows: &[Vec<f32>], first: usize) {
    let items: Vec<(Slot, &[f32])> =
        rows.iter().enumerate().map(|(i, row)| (Slot((first + i) as u32), row.as_slice())).collect();
    index.insert(&items).unwrap();
}

/// The same on a pool.
fn insert_on(pool: &ThreadPool, index: &HnswRsIndex, rows: &[Vec<f32>], first: usize) {
    let items: Vec<(Slot, &[f32])> =
        rows.iter().enumerate().map(|(i, row)| (Slot((first + i) as u32), row.as_slice())).collect();
    index.insert_on(pool, &items, &Stop::default()).unwrap();
}

fn filled(n: usize) -> HnswRsIndex {
    let index = empty(16, 40);
    insert(&index, &clustered(n, 8, METRIC, 21), 0);
    index
}

fn saved(index: &HnswRsIndex) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    index.save(dir.path(), STAMP).unwrap();
    dir
}

fn loaded(index: &HnswRsIndex, dir: &Path) -> HnswRsIndex {
    HnswRsIndex::load(dir, &index.params, &manifest::open(dir).unwrap()).unwrap()
}

fn try_load(index: &HnswRsIndex, dir: &Path) -> Result<std::sync::Arc<dyn VectorIndex>, IndexError> {
    load(dir, &index.params, index.dim, index.metric, STAMP)
}

/// Level of every point, by slot.
fn levels(index: &HnswRsIndex) -> Vec<(usize, usize)> {
    let graph = index.read();
    let mut levels: Vec<_> = (0..LAYERS)
        .flat_map(|l| graph.hnsw().get_point_indexation().get_layer_iterator(l).collect::<Vec<_>>())
        .map(|point| (point.get_origin_id(), usize::from(point.get_point_id().0)))
        .collect();
    levels.sort_unstable();
    levels
}

fn ask(k: usize) -> SearchParams<'static> {
    SearchParams { k, ef: 64, allow: None }
}

#[test]
fn levels_are_foretold() {
    let rows = clustered(600, 8, METRIC, 22);
    for m in [2, 3, 16, 128] {
        let index = empty(m, 8);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        insert_on(&pool, &index, &rows, 0);
        let mut foretold = Levels::new(m);
        let foretold: Vec<usize> = (0..600).map(|_| foretold.take()).collect();
        let got = levels(&index);
        assert!(got.iter().map(|(slot, _)| *slot).eq(0..600), "m = {m}: every point is there once");
        assert!(got.iter().map(|(_, level)| *level).eq(foretold), "m = {m}");
        assert!(!index.read().alone, "m = {m}");
        // The same after a reload, from the start of the sequence again.
        let index = loaded(&index, saved(&index).path());
        insert_on(&pool, &index, &clustered(300, 8, METRIC, 23), 600);
        let mut foretold = Levels::new(m);
        let foretold: Vec<usize> = (0..300).map(|_| foretold.take()).collect();
        assert!(levels(&index)[600..].iter().map(|(_, level)| *level).eq(foretold), "m = {m}, reloaded");
        assert!(!index.read().alone, "m = {m}, reloaded");
    }
}

#[test]
fn a_point_above_the_ground_is_inserted_alone() {
    let rows = clustered(400, 8, METRIC, 24);
    let items: Vec<(Slot, &[f32])> =
        rows.iter().enumerate().map(|(i, row)| (Slot(i as u32), row.as_slice())).collect();
    let index = empty(4, 8);
    let mut at = 0;
    let mut longest = 0;
    while at < items.len() {
        let run = index.write().insert_run(None, &items[at..]);
        let raised = levels(&index)[at..].iter().filter(|(_, level)| *level > 0).count();
        assert!(run == 1 || (raised == 0 && at > 0), "a run of {run} at {at} has {raised} raised points");
        longest = longest.max(run);
        at += run;
    }
    assert!((2..=RUN_MAX).contains(&longest), "some went together: {longest}");
}

#[test]
fn without_foretelling_every_point_is_inserted_alone() {
    let index = empty(16, 8);
    index.write().raised = 77;
    let rows = clustered(80, 8, METRIC, 25);
    insert(&index, &rows[..2], 0);
    let items: Vec<(Slot, &[f32])> =
        rows[2..].iter().enumerate().map(|(i, row)| (Slot(2 + i as u32), row.as_slice())).collect();
    let mut graph = index.write();
    assert!(graph.alone);
    for at in 0..items.len() {
        assert_eq!(graph.insert_run(None, &items[at..]), 1);
    }
}

#[test]
fn first_points_inserted_together_are_all_found() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    for round in 0..100 {
        let index = empty(16, 40);
        let rows = clustered(12, 8, METRIC, 1000 + round);
        insert_on(&pool, &index, &rows, 0);
        assert_eq!(index.search(&rows[0], &ask(12)).unwrap().len(), 12, "round {round}");
    }
}

#[test]
fn a_panic_inside_fails_the_index_for_good_and_nothing_else() {
    let (index, other) = (filled(50), filled(50));
    let query = vec![0.0; 8];
    let panics = |_: Slot| -> bool { panic!("the filter broke") };
    let params = SearchParams { k: 3, ef: 10, allow: Some(&panics) };
    let e = index.search(&query, &params).unwrap_err();
    assert!(
        matches!(&e, IndexError::Failed { kind: IndexKind::HnswRs, reason } if reason == "the filter broke")
    );
    assert_eq!(e.kind(), crate::ErrorKind::Internal);
    let dir = tempfile::tempdir().unwrap();
    for again in [
        index.search(&query, &ask(3)).map(drop),
        index.try_search(&query, &ask(3)).unwrap().map(drop),
        index.insert(&[(Slot(90), &query)]),
        index.save(dir.path(), STAMP),
    ] {
        assert_eq!(again.unwrap_err().to_string(), e.to_string());
    }
    assert_eq!(other.search(&query, &ask(3)).unwrap().len(), 3);
}

#[test]
fn a_panic_while_inserting_fails_the_index() {
    let index = filled(5);
    // The dimension is checked at the door; behind it, a graph without its inside panics.
    let hnsw = index.write().hnsw.take();
    let e = index.insert(&[(Slot(5), &[0.0; 8])]).unwrap_err();
    assert!(matches!(e, IndexError::Failed { .. }), "{e}");
    index.write().hnsw = hnsw;
    assert!(matches!(index.search(&[0.0; 8], &ask(1)), Err(IndexError::Failed { .. })));
}

#[test]
fn a_busy_index_is_not_waited_for() {
    let index = filled(20);
    let query = [0.0; 8];
    assert_eq!(index.try_search(&query, &ask(4)).unwrap().unwrap(), index.search(&query, &ask(4)).unwrap());
    let busy = index.write();
    assert!(index.try_search(&query, &ask(4)).is_none());
    // Every search asks this before it looks for another way.
    assert!(index.len() == 20 && !index.is_empty());
    drop(busy);
    assert!(index.try_search(&query, &ask(4)).is_some());
    assert_eq!(index.waiting.load(Ordering::Relaxed), 0);
}

#[test]
fn an_inserting_index_lets_searches_in() {
    let index = empty(16, 100);
    insert(&index, &clustered(100, 8, METRIC, 26), 0);
    let rows = clustered(2000, 8, METRIC, 27);
    std::thread::scope(|scope| {
        let inserting = scope.spawn(|| insert(&index, &rows, 100));
        let mut sizes = std::collections::BTreeSet::new();
        while !inserting.is_finished() {
            index.search(&rows[0], &ask(1)).unwrap();
            sizes.insert(index.len());
        }
        inserting.join().unwrap();
        assert!(sizes.len() > 3, "one insert was seen at {} different lengths", sizes.len());
    });
}

proptest! {
    #[test]
    fn graph_distances_are_what_the_heaps_can_bear(a in any::<f32>(), b in any::<f32>()) {
        for metric in [Metric::Cosine, Metric::Dot, Metric::Euclidean] {
            for d in [a, b, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -0.0] {
                let d = as_graph_distance(metric, d);
                prop_assert!(d >= 0.0 && d.is_finite(), "{metric:?} {d}");
            }
            if metric == Metric::Dot && a < b {
                prop_assert!(as_graph_distance(metric, a) <= as_graph_distance(metric, b), "{a} {b}");
            }
        }
    }

    #[test]
    fn dot_distances_that_differ_by_a_thousandth_stay_apart(a in -1e6f32..1e6) {
        let b = a + a.abs().max(1.0) * 1e-3;
        prop_assert!(as_graph_distance(Metric::Dot, a) < as_graph_distance(Metric::Dot, b));
    }
}

#[test]
fn a_reloaded_graph_grows_like_one_that_was_never_saved() {
    let index = filled(300);
    let scale = |index: &HnswRsIndex| index.read().hnsw().get_point_indexation().get_level_scale();
    let mut again = loaded(&index, saved(&index).path());
    for _ in 0..2 {
        assert_eq!(scale(&again), scale(&index));
        again = loaded(&again, saved(&again).path());
    }
    // `extend_candidates` cannot be read, but with few candidates it shows in the links of new points.
    let links = |hnsw: &Hnsw<'static, f32, GraphDistance>| {
        for (i, row) in clustered(100, 8, METRIC, 28).iter().enumerate() {
            hnsw.insert((row, 1000 + i));
        }
        let points = hnsw.get_point_indexation().get_layer_iterator(0);
        points
            .map(|p| p.get_neighborhood_id()[0].iter().map(|n| n.d_id).collect())
            .collect::<Vec<Vec<usize>>>()
    };
    let small = empty(16, 8);
    insert(&small, &clustered(300, 8, METRIC, 29), 0);
    let dir = saved(&small);
    let raw = |extend: bool| {
        let loader: &'static HnswIo = Box::leak(Box::new(HnswIo::new(dir.path(), BASENAME)));
        let mut hnsw = loader.load_hnsw_with_dist::<f32, GraphDistance>(GraphDistance(METRIC)).unwrap();
        hnsw.set_extend_candidates(extend);
        links(&hnsw)
    };
    let ours = links(loaded(&small, dir.path()).read().hnsw());
    assert_eq!(ours, raw(false));
    assert_ne!(ours, raw(true), "the setting shows");
}

#[test]
fn damage_anywhere_is_found_before_the_crate_reads() {
    let index = filled(60);
    let good = saved(&index);
    try_load(&index, good.path()).unwrap();
    for name in [GRAPH_FILE, DATA_FILE, NODES_FILE, "manifest.json"] {
        let bytes = fs::read(good.path().join(name)).unwrap();
        let mut bad: Vec<(String, Option<Vec<u8>>)> = vec![
            ("missing".into(), None),
            ("empty".into(), Some(Vec::new())),
            ("longer".into(), Some([&bytes[..], b"x"].concat())),
            ("cut".into(), Some(bytes[..bytes.len() - 1].to_vec())),
            ("halved".into(), Some(bytes[..bytes.len() / 2].to_vec())),
        ];
        for at in (0..bytes.len()).step_by((bytes.len() / 40).max(1)) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            bad.push((format!("flipped at {at}"), Some(flipped)));
        }
        for (what, bytes) in bad {
            let dir = tempfile::tempdir().unwrap();
            for file in [GRAPH_FILE, DATA_FILE, NODES_FILE, "manifest.json"] {
                fs::copy(good.path().join(file), dir.path().join(file)).unwrap();
            }
            match bytes {
                Some(bytes) => fs::write(dir.path().join(name), bytes).unwrap(),
                None => fs::remove_file(dir.path().join(name)).unwrap(),
            }
            match try_load(&index, dir.path()).unwrap_err() {
                e @ IndexError::Damaged { .. } => {
                    assert_eq!(e.kind(), crate::ErrorKind::Corrupt);
                    assert!(e.to_string().contains(name), "{name} {what}: {e}");
                }
                e => panic!("{name} {what}: {e}"),
            }
        }
    }
}

#[test]
fn files_of_another_index_are_refused() {
    let index = filled(30);
    let dir = saved(&index);
    let p = index.params;
    for (name, params, dim_, metric, stamp) in [
        ("kind", IndexParams { kind: IndexKind::Flat, ..p }, dim(8), METRIC, STAMP),
        ("dimension", p, dim(9), METRIC, STAMP),
        ("metric", p, dim(8), Metric::Dot, STAMP),
        ("m", IndexParams { m: 17, ..p }, dim(8), METRIC, STAMP),
        ("ef_construction", IndexParams { ef_construction: 41, ..p }, dim(8), METRIC, STAMP),
        ("stamp", p, dim(8), METRIC, Stamp([4; 16])),
    ] {
        let e = load(dir.path(), &params, dim_, metric, stamp).unwrap_err();
        assert!(matches!(&e, IndexError::Mismatch { name: n, .. } if *n == name), "{name}: {e}");
        assert_eq!(e.kind(), crate::ErrorKind::Precondition);
    }
    // What only a search uses may change.
    load(dir.path(), &IndexParams { ef_search: 5, seed: 1, ..p }, dim(8), METRIC, STAMP).unwrap();
}

#[test]
fn files_with_right_checksums_and_wrong_insides_are_damage_too() {
    let index = filled(30);
    for (graph, data) in [(&b""[..], &b""[..]), (b"nonsense, but longer than any header", b"x")] {
        let dir = saved(&index);
        let manifest = manifest::open(dir.path()).unwrap();
        fs::write(dir.path().join(GRAPH_FILE), graph).unwrap();
        fs::write(dir.path().join(DATA_FILE), data).unwrap();
        manifest::seal(dir.path(), &manifest, &[GRAPH_FILE, DATA_FILE, NODES_FILE]).unwrap();
        assert!(matches!(try_load(&index, dir.path()), Err(IndexError::Damaged { .. })));
    }
    let dir = saved(&index);
    let manifest = manifest::open(dir.path()).unwrap();
    fs::write(dir.path().join(NODES_FILE), b"nonsense").unwrap();
    manifest::seal(dir.path(), &manifest, &[GRAPH_FILE, DATA_FILE, NODES_FILE]).unwrap();
    let e = try_load(&index, dir.path()).unwrap_err();
    assert!(matches!(&e, IndexError::Damaged { path, .. } if path.ends_with(NODES_FILE)), "{e}");
    let dir = saved(&index);
    let manifest = Manifest { vectors: 31, ..manifest::open(dir.path()).unwrap() };
    manifest::seal(dir.path(), &manifest, &[GRAPH_FILE, DATA_FILE]).unwrap();
    let e = try_load(&index, dir.path()).unwrap_err();
    assert!(e.to_string().contains("30 vectors of 8 values"), "{e}");
}

#[test]
fn a_folder_that_cannot_be_written_is_an_io_error_and_the_index_lives() {
    let index = filled(20);
    let dir = tempfile::tempdir().unwrap();
    let e = index.save(&dir.path().join("absent"), STAMP).unwrap_err();
    assert!(matches!(e, IndexError::Io { .. }), "{e}");
    assert_eq!(index.search(&[0.0; 8], &ask(3)).unwrap().len(), 3);
    index.save(dir.path(), STAMP).unwrap();
}

/// Points that are all linked to one place and from nowhere.
#[test]
fn what_the_graph_does_not_find_is_scanned_beside_it() {
    let index = empty(16, 40);
    // Copies in the graph itself, as it would hold them if they did not share a node.
    let copy = [0.25f32; 8];
    {
        let graph = index.write();
        (0..300).for_each(|i| graph.hnsw().insert((&copy, i)));
    }
    let rows = clustered(300, 8, METRIC, 31);
    insert(&index, &rows, 300);
    index.settle(&Stop::default()).unwrap();
    let strays = index.read().strays.len();
    assert!(strays > 20, "{strays} strays");
    let again = loaded(&index, saved(&index).path());
    assert_eq!(again.read().strays.len(), strays);
    for index in [&index, &again] {
        for (i, row) in rows.iter().enumerate() {
            assert_eq!(index.search(row, &ask(1)).unwrap()[0].slot, Slot(300 + i as u32));
        }
    }
}

#[test]
fn a_folder_from_before_nodes_were_shared_still_opens() {
    let index = filled(40);
    let dir = saved(&index);
    let manifest = manifest::open(dir.path()).unwrap();
    fs::remove_file(dir.path().join(NODES_FILE)).unwrap();
    manifest::seal(dir.path(), &manifest, &[GRAPH_FILE, DATA_FILE]).unwrap();
    let again = loaded(&index, dir.path());
    let row = clustered(40, 8, METRIC, 21)[7].clone();
    insert(&again, std::slice::from_ref(&row), 40);
    assert_eq!((again.len(), again.read().points()), (41, 40), "the new copy joins the old node");
    let found: Vec<Slot> = again.search(&row, &ask(2)).unwrap().iter().map(|n| n.slot).collect();
    assert_eq!(found, [Slot(7), Slot(40)]);
}

/// Run by the test below in a process of its own, since the global pool and stdout belong to all tests.
#[test]
#[ignore = "run by the test after it"]
fn quiet_and_in_its_own_pool() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let index = empty(16, 40);
    insert_on(&pool, &index, &clustered(500, 8, METRIC, 30), 0);
    let dir = saved(&index);
    let again = loaded(&index, dir.path());
    assert_eq!(again.search(&[0.0; 8], &ask(3)).unwrap().len(), 3);
    assert!(index.save(&dir.path().join("absent"), STAMP).is_err());
    drop((index, again));
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().expect("nobody started the global pool");
}

#[test]
fn it_prints_nothing_and_starts_no_global_pool() {
    let name = "index::hnsw_rs::tests::quiet_and_in_its_own_pool";
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = stdout.lines().filter(|line| !line.is_empty()).collect();
    assert!(
        lines.len() == 3 && lines[0] == "running 1 test" && lines[2].starts_with("test result: ok. 1 passed"),
        "more was printed: {lines:#?}"
    );
}

#[test]
fn a_look_for_what_is_not_found_is_left_off_and_begun_anew() {
    let index = empty(16, 40);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let rows = clustered(300, 8, METRIC, 31);
    let items: Vec<(Slot, &[f32])> = (0..).map(Slot).zip(rows.iter().map(Vec::as_slice)).collect();
    let stop = Stop::at(Some(Instant::now()));
    index.insert_on(&pool, &items, &stop).unwrap();
    assert_eq!((index.len(), index.read().strays.passed()), (300, 0), "all are inserted");
    index.settle(&stop).unwrap();
    assert_eq!(index.read().strays.passed(), 0);
    index.settle(&Stop::default()).unwrap();
    assert_eq!(index.read().strays.passed(), index.read().points());
}
