//! Every plan gives the right answer, whatever the indexer is doing.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    error::Fault as _,
    index::{IndexError, Neighbor, SearchParams, Slot, Stamp, VectorIndex},
};

/// A collection of `n` one-passage documents, `doc 0`...
fn filled(dir: &Path, kind: IndexKind, n: u64, random: &mut Random) -> Arc<Collection> {
    let collection = Collection::create(dir, spec(kind), options(dir)).unwrap();
    let points: Vec<Write> = (0..n).map(|i| upsert(point(&format!("doc {i}"), i, 1, random))).collect();
    for batch in points.chunks(200) {
        collection.write(batch.to_vec()).unwrap();
    }
    collection
}

#[test]
fn each_plan_is_taken_and_agrees_with_the_exact_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(11);
    let collection = filled(&place(&dir), IndexKind::HnswRs, 1500, &mut random);
    collection.wait_indexed();
    assert_eq!(collection.stats().indexed, 1500);
    let cases = [
        (None, "graph"),
        (Some(eq("tag", Value::String("red".into()))), "filtered_graph"),
        (
            Some(Filter::And(vec![eq("tag", Value::String("red".into())), eq("n", Value::Integer(3))])),
            "filtered_exact",
        ),
    ];
    for (filter, plan) in cases {
        let (mut same, mut all) = (0, 0);
        for _ in 0..50 {
            let query = SearchQuery { filter: filter.clone(), ..query(vector(&mut random), 10) };
            let (hits, trace) = search(&collection, &query).unwrap();
            assert_eq!(trace.plan(), plan, "{trace:?}");
            let (truth, exact) = search(&collection, &SearchQuery { exact: true, ..query }).unwrap();
            assert_eq!(exact.plan(), if filter.is_some() { "filtered_exact" } else { "exact" });
            assert_eq!((hits.len(), truth.len()), (10, 10));
            same += ids(&hits).iter().filter(|id| ids(&truth).contains(id)).count();
            all += truth.len();
        }
        let recall = same as f64 / all as f64;
        assert!(recall >= if plan.ends_with("graph") { 0.95 } else { 1.0 }, "{plan}: recall {recall}");
    }
}

#[test]
fn a_small_collection_is_scanned() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(12);
    let collection = filled(&place(&dir), IndexKind::HnswRs, 20, &mut random);
    collection.wait_indexed();
    let (hits, trace) = search(&collection, &query(vector(&mut random), 50)).unwrap();
    assert_eq!((hits.len(), trace.plan(), trace.retrievals[0].scanned), (20, "exact", 20));
}

#[test]
fn a_filter_always_gives_as_many_as_match() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(13);
    let collection = filled(&place(&dir), IndexKind::HnswRs, 900, &mut random);
    collection.wait_indexed();
    // Most of what the graph knows near any query is gone.
    let gone: Vec<Write> =
        (0..900).filter(|i| i % 3 != 0).map(|i| Write::Delete(id(&format!("doc {i}")))).collect();
    collection.write(gone).unwrap();
    let filters = [
        eq("tag", Value::String("red".into())),
        eq("n", Value::Integer(2)),
        eq("tag", Value::String("blue".into())),
    ];
    for k in [1, 10, 100, 299, 300, 1000] {
        for filter in &filters {
            let matching = collection.count(Some(filter), &Stop::default()).unwrap() as usize;
            let query = SearchQuery { filter: Some(filter.clone()), ..query(vector(&mut random), k) };
            let (hits, trace) = search(&collection, &query).unwrap();
            assert_eq!(hits.len(), k.min(matching), "k {k}, {trace:?}");
        }
        let (hits, _) = search(&collection, &query(vector(&mut random), k)).unwrap();
        assert_eq!(hits.len(), k.min(300));
    }
}

#[test]
fn passages_of_one_document_never_crowd_out_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(14);
    let collection = filled(&place(&dir), IndexKind::HnswRs, 200, &mut random);
    let mut long = point("long", 1, 600, &mut random);
    let near = vector(&mut random);
    for passage in &mut long.passages {
        passage.vector = near.clone();
    }
    collection.write(vec![upsert(long)]).unwrap();
    collection.wait_indexed();
    let (hits, trace) = search(&collection, &query(near.clone(), 10)).unwrap();
    assert_eq!(hits.len(), 10, "{trace:?}");
    assert_eq!((hits[0].id.as_str(), hits[0].ordinal), ("long", 0));
    assert_eq!(ids(&hits).iter().filter(|id| **id == "long").count(), 1);
    let (hits, _) = search(&collection, &SearchQuery { by_passage: true, ..query(near, 700) }).unwrap();
    assert_eq!(hits.iter().filter(|hit| hit.id.as_str() == "long").count(), 600);
    assert_eq!(hits[..600].iter().map(|hit| hit.ordinal).collect::<Vec<_>>(), (0..600).collect::<Vec<_>>());
}

#[test]
fn equal_scores_are_ordered_by_id() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(15);
    let same = vector(&mut random);
    let mut names: Vec<String> = (0..50).map(|i| format!("doc {:02}", (i * 37) % 50)).collect();
    let collection = Collection::create(&place(&dir), spec(IndexKind::Flat), options(&place(&dir))).unwrap();
    for name in &names {
        let mut point = point(name, 0, 1, &mut random);
        point.passages[0].vector = same.clone();
        collection.write(vec![upsert(point)]).unwrap();
    }
    names.sort();
    for k in [1, 7, 50] {
        let (hits, _) = search(&collection, &query(same.clone(), k)).unwrap();
        assert_eq!(ids(&hits), names[..k]);
    }
}

#[test]
fn a_write_is_found_at_once_and_a_deleted_document_never_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(16);
    let collection = filled(&place(&dir), IndexKind::HnswRs, 400, &mut random);
    let deleted: Arc<Vec<AtomicBool>> = Arc::new((0..400).map(|_| AtomicBool::new(false)).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let searches = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..2)
        .map(|n| {
            let (collection, deleted, stop, searches) =
                (Arc::clone(&collection), Arc::clone(&deleted), Arc::clone(&stop), Arc::clone(&searches));
            std::thread::spawn(move || {
                let mut random = Random(100 + n);
                while !stop.load(Ordering::SeqCst) {
                    let gone: Vec<String> = deleted
                        .iter()
                        .enumerate()
                        .filter(|(_, gone)| gone.load(Ordering::SeqCst))
                        .map(|(i, _)| format!("doc {i}"))
                        .collect();
                    let query = SearchQuery {
                        with_text: true,
                        exact: random.below(2) == 0,
                        filter: (random.below(2) == 0).then(|| eq("tag", Value::String("red".into()))),
                        ..query(vector(&mut random), 30)
                    };
                    // Never an error either: what is deleted meanwhile stays readable.
                    let (hits, _) = search(&collection, &query).unwrap();
                    assert_eq!(hits.len(), 30);
                    assert!(!ids(&hits).iter().any(|id| gone.iter().any(|gone| gone == id)));
                    collection.scroll(None, None, 20, true, &Stop::default(), &Room::unbounded()).unwrap();
                    searches.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for i in 0..200 {
        collection.write(vec![Write::Delete(id(&format!("doc {i}")))]).unwrap();
        deleted[i].store(true, Ordering::SeqCst);
        let new = point(&format!("new {i}"), 3 * i as u64, 2, &mut random);
        let probe = new.passages[1].vector.clone();
        collection.write(vec![upsert(new)]).unwrap();
        let (hits, trace) = search(&collection, &query(probe, 1)).unwrap();
        assert_eq!((ids(&hits)[0], hits[0].ordinal), (format!("new {i}").as_str(), 1), "{trace:?}");
    }
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.join().unwrap();
    }
    assert!(searches.load(Ordering::SeqCst) > 0);
    collection.wait_indexed();
    assert_eq!(collection.stats().indexed, 200 + 400);
}

#[test]
fn tombstones_are_built_away() {
    for kind in [IndexKind::Flat, IndexKind::HnswRs] {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Random(17);
        let collection = filled(&place(&dir), kind, 400, &mut random);
        collection.wait_indexed();
        let gone: Vec<Write> = (0..300).map(|i| Write::Delete(id(&format!("doc {i}")))).collect();
        collection.write(gone).unwrap();
        let begun = std::time::Instant::now();
        while collection.stats().tombstones > 0 {
            assert!(begun.elapsed().as_secs() < 120, "{kind:?}: {:?}", collection.stats());
            std::thread::yield_now();
        }
        let (hits, _) = search(&collection, &query(vector(&mut random), 1000)).unwrap();
        assert_eq!(hits.len(), 100);
    }
}

/// An index that fails whatever it is asked.
#[derive(Debug, Default)]
struct Broken {
    /// It panics where it is to take something in.
    panics: bool,
}

impl VectorIndex for Broken {
    fn kind(&self) -> IndexKind {
        IndexKind::HnswRs
    }
    fn dim(&self) -> Dim {
        dim()
    }
    fn metric(&self) -> Metric {
        Metric::Cosine
    }
    fn len(&self) -> usize {
        400
    }
    fn highest(&self) -> Option<Slot> {
        Some(Slot(399))
    }
    fn insert(&self, _items: &[(Slot, &[f32])]) -> Result<(), IndexError> {
        assert!(!self.panics, "as planned");
        Err(IndexError::Failed { kind: IndexKind::HnswRs, reason: "injected".into() })
    }
    fn search(&self, _query: &[f32], _params: &SearchParams<'_>) -> Result<Vec<Neighbor>, IndexError> {
        Err(IndexError::Failed { kind: IndexKind::HnswRs, reason: "injected".into() })
    }
    fn save(&self, _dir: &Path, _stamp: Stamp) -> Result<(), IndexError> {
        Err(IndexError::Failed { kind: IndexKind::HnswRs, reason: "injected".into() })
    }
}

#[test]
fn a_graph_that_fails_is_replaced_and_answers_stay_right() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(18);
    let collection = filled(&place(&dir), IndexKind::HnswRs, 400, &mut random);
    collection.wait_indexed();
    let broken = Graph { index: Arc::new(Broken::default()), indexed: 400 };
    collection.shared.change(|memory| memory.graph = Some(broken));
    let query = query(vector(&mut random), 5);
    let (hits, trace) = search(&collection, &query).unwrap();
    assert_eq!(trace.plan(), "exact");
    let (truth, _) = search(&collection, &SearchQuery { exact: true, ..query.clone() }).unwrap();
    assert_eq!(hits, truth);
    let begun = std::time::Instant::now();
    while search(&collection, &query).unwrap().1.plan() != "graph" {
        assert!(begun.elapsed().as_secs() < 120, "{:?}", search(&collection, &query).unwrap().1);
        std::thread::yield_now();
    }
}

#[test]
fn a_graph_that_panics_is_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(20);
    let collection = filled(&place(&dir), IndexKind::HnswRs, 400, &mut random);
    collection.wait_indexed();
    let broken = Graph { index: Arc::new(Broken { panics: true }), indexed: 400 };
    collection.shared.change(|memory| memory.graph = Some(broken));
    // The indexer comes upon it with this.
    collection.write(vec![upsert(point("new", 1, 1, &mut random))]).unwrap();
    let begun = std::time::Instant::now();
    let query = query(vector(&mut random), 5);
    while collection.stats().indexed < 401 || search(&collection, &query).unwrap().1.plan() != "graph" {
        assert!(begun.elapsed().as_secs() < 120, "{:?}", collection.stats());
        std::thread::yield_now();
    }
    assert!(!collection.shared.signal.has_given_up());
}

#[test]
fn a_query_of_another_dimension_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let collection = filled(&place(&dir), IndexKind::Flat, 3, &mut Random(19));
    let wrong = SearchQuery::new(Ask::Vector(vec![1.0; 3]), 1);
    let error = search(&collection, &wrong).unwrap_err();
    assert!(matches!(error, CollectionError::Vector(_)), "{error}");
    assert_eq!((error.kind(), error.field()), (ErrorKind::Invalid, Some("vector")));
}

#[test]
fn with_several_vectors_the_best_score_counts() {
    for kind in [IndexKind::Flat, IndexKind::HnswRs] {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Random(23);
        let collection = filled(&place(&dir), kind, 500, &mut random);
        collection.write(vec![upsert(point("long", 1, 3, &mut random))]).unwrap();
        let asked = point("asked", 1, 4, &mut random);
        collection.write(vec![upsert(asked.clone())]).unwrap();
        collection.wait_indexed();
        for by_passage in [false, true] {
            let alike = SearchQuery {
                by_passage,
                exact: true,
                ..SearchQuery::new(Ask::Document("asked".into()), 20)
            };
            let mut best: BTreeMap<(PointId, u32), f32> = BTreeMap::new();
            for passage in &asked.passages {
                let vector = passage.vector.as_slice().to_vec();
                let alone = SearchQuery { ask: Ask::Vector(vector), k: 1000, ..alike.clone() };
                for hit in search(&collection, &alone).unwrap().0 {
                    let place = (hit.id, if by_passage { hit.ordinal } else { 0 });
                    let score = best.entry(place).or_insert(hit.score);
                    *score = score.max(hit.score);
                }
            }
            best.retain(|(id, _), _| id.as_str() != "asked");
            let mut expected: Vec<_> = best.into_iter().collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            let hits = search(&collection, &alike).unwrap().0;
            let got: Vec<_> = hits.iter().map(|hit| (hit.id.as_str(), hit.score)).collect();
            let expected: Vec<_> =
                expected[..20].iter().map(|((id, _), score)| (id.as_str(), *score)).collect();
            assert_eq!(got, expected, "{kind:?}, by passage: {by_passage}");
        }
    }
}

#[test]
fn a_search_is_left_off_when_it_is_time() {
    for kind in [IndexKind::Flat, IndexKind::HnswRs] {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Random(24);
        let collection = filled(&place(&dir), kind, 400, &mut random);
        collection.wait_indexed();
        let stop = Stop::at(Some(std::time::Instant::now()));
        let late = query(vector(&mut random), 3);
        for exact in [false, true] {
            let late = SearchQuery { exact, ..late.clone() };
            let reads = Reads::new(Room::unbounded());
            let error = collection.search(&late, None, &stop, &reads).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        }
        assert_eq!(
            collection.scroll(None, None, 10, true, &stop, &Room::unbounded()).unwrap_err().kind(),
            ErrorKind::Timeout
        );
        assert!(collection.get(&[id("doc 1")], true, true, &stop, &Room::unbounded()).is_err());
        search(&collection, &query(vector(&mut random), 3)).unwrap();
    }
}

#[test]
fn a_graph_that_writers_outrun_is_replaced_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let collection =
        Collection::create(&place(&dir), spec(IndexKind::HnswRs), options(&place(&dir))).unwrap();
    let mut random = Random(31);
    let mut version = 0;
    let mut write = || {
        version += 1;
        let documents = (0..300).map(|n| upsert(point(&n.to_string(), version, 1, &mut random)));
        collection.write(documents.collect()).unwrap();
    };
    write();
    collection.wait_indexed();
    let graph = || collection.shared.view().graph.as_ref().map(|graph| Arc::clone(&graph.index));
    let (mut last, mut replaced, mut largest) = (graph(), 0, 0);
    let until = Instant::now() + Duration::from_secs(120);
    // All documents are replaced before a graph of them can be level.
    while replaced < 4 {
        assert!(Instant::now() < until, "{replaced} graphs; the largest has {largest} vectors");
        write();
        let now = graph();
        largest = largest.max(now.as_ref().map_or(0, |index| index.len()));
        if now.as_ref().map(Arc::as_ptr) != last.as_ref().map(Arc::as_ptr) {
            replaced += 1;
            last = now;
        }
    }
    assert!(largest < 3_000, "{largest}");
    collection.wait_indexed();
    let hits = search(&collection, &query(vector(&mut Random(5)), 10)).unwrap().0;
    assert_eq!(hits.len(), 10);
}
