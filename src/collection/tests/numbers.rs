//! Numbers in memory end at a limit, which is lowered here; what a collection may write in its life does not.

use super::*;

const MAX: u32 = 1_000;

fn open(dir: &Path, kind: IndexKind, create: bool) -> Arc<Collection> {
    let options = options(dir);
    let means = Means { options: &options, kept: SMALL, numbers_max: MAX };
    if create {
        Collection::create_with(dir, spec(kind), means).unwrap()
    } else {
        Collection::open_with(dir, made(kind), means).unwrap()
    }
}

/// What is there, by id: its vectors, as they came.
type Known = BTreeMap<String, Point>;

/// One document a call.
fn write(collection: &Collection, known: &mut Known, names: impl Iterator<Item = u64>, random: &mut Random) {
    for n in names {
        let name = format!("doc {n}");
        let passages = 1 + random.below(3) as u32;
        let point = point(&name, random.next() % 1_000, passages, random);
        collection.write(vec![upsert(point.clone())]).unwrap();
        known.insert(name, point);
    }
}

/// Every document is found by each of its vectors, exactly and as its own, and by the graph where there is one.
fn check(collection: &Collection, known: &Known, context: &str) {
    for (name, point) in known {
        assert_eq!(
            collection.point(&point.id).unwrap().map(|stored| stored.point).as_ref(),
            Some(point),
            "{context}: {name}"
        );
        for (ordinal, passage) in (0..).zip(&point.passages) {
            let query = SearchQuery { by_passage: true, exact: true, ..query(passage.vector.clone(), 1) };
            let (hits, _) = search(collection, &query).unwrap();
            assert_eq!((hits[0].id.as_str(), hits[0].ordinal), (name.as_str(), ordinal), "{context}");
        }
    }
    assert_eq!(collection.counts().documents, known.len() as u64, "{context}");
}

#[test]
fn ten_documents_are_written_for_ever() {
    let seed = 31;
    println!("seed {seed}");
    let mut random = Random(seed);
    for kind in [IndexKind::Flat, IndexKind::HnswRs] {
        let dir = tempfile::tempdir().unwrap();
        let place = super::place(&dir);
        let mut known = Known::new();
        let mut collection = open(&place, kind, true);
        let mut written = 0;
        for round in 0..4 {
            // One document stays from the first round on, below all numbers that are given out.
            let first = u64::from(round > 0);
            for _ in 0..60 {
                write(&collection, &mut known, first..10, &mut random);
                written += 10 - first;
            }
            check(&collection, &known, &format!("{kind:?}, round {round}"));
            if round % 2 == 0 {
                collection.wait_indexed();
                collection.close().unwrap();
            }
            drop(collection);
            collection = open(&place, kind, false);
            check(&collection, &known, &format!("{kind:?}, round {round}, opened again"));
            assert!(collection.shared.view().table.docs_end() == 10);
        }
        assert!(written > 2 * u64::from(MAX));
        // In the store they go on.
        assert_eq!(collection.shared.store.next_number(), written);
    }
}

#[test]
fn a_full_collection_says_so_and_takes_writes_again_once_something_is_deleted() {
    let mut random = Random(32);
    let dir = tempfile::tempdir().unwrap();
    let place = super::place(&dir);
    let collection = open(&place, IndexKind::Flat, true);
    let fill = |n: u32, random: &mut Random| point(&format!("large {n}"), 1, 100, random);
    for n in 0..10 {
        collection.write(vec![upsert(fill(n, &mut random))]).unwrap();
    }
    let error = collection.write(vec![upsert(point("one more", 1, 1, &mut random))]).unwrap_err();
    assert!(matches!(error, CollectionError::Full { limit: MAX }), "{error}");
    assert_eq!(collection.read_only(), None);
    collection.write(vec![Write::Delete(id("large 3"))]).unwrap();
    let more = point("one more", 1, 1, &mut random);
    collection.write(vec![upsert(more.clone())]).unwrap();
    assert_eq!(collection.point(&id("one more")).unwrap().unwrap().point, more);
    let error = collection.write(vec![upsert(fill(11, &mut random))]).unwrap_err();
    assert!(matches!(error, CollectionError::Full { .. }), "{error}");
    drop(collection);
    assert_eq!(open(&place, IndexKind::Flat, false).counts().passages, 901);
}

#[test]
fn a_saved_graph_is_used_again_where_it_fits_and_built_anew_where_it_does_not() {
    let mut random = Random(33);
    let dir = tempfile::tempdir().unwrap();
    let place = super::place(&dir);
    let mut known = Known::new();
    let collection = open(&place, IndexKind::HnswRs, true);
    write(&collection, &mut known, 0..220, &mut random);
    // Their slots stay empty in the graph.
    write(&collection, &mut known, (0..220).step_by(9), &mut random);
    collection.write(vec![Write::Delete(id("doc 219"))]).unwrap();
    known.remove("doc 219");
    collection.wait_indexed();
    collection.close().unwrap();
    drop(collection);
    // It fits, also after writes that it knows nothing of.
    for round in 0..2 {
        let collection = open(&place, IndexKind::HnswRs, false);
        assert!(place.join("index/rows").exists(), "round {round}");
        let stats = collection.counts();
        let unknown = if round == 0 { 0 } else { 5 };
        assert!(
            stats.indexed + 3 * unknown >= stats.passages && stats.indexed > 200,
            "round {round}: {stats:?}"
        );
        check(&collection, &known, &format!("round {round}"));
        collection.wait_indexed();
        let whole = known.values().next_back().unwrap();
        let (hits, trace) = search(&collection, &query(whole.passages[0].vector.clone(), 1)).unwrap();
        assert_eq!((hits[0].id.clone(), trace.plan()), (whole.id.clone(), "graph"), "{trace:?}");
        if round == 0 {
            write(&collection, &mut known, 20..25, &mut random);
        }
        // As a kill leaves it.
        drop(collection);
    }
    // It leaves less than half of the numbers, and most of its own are of vectors that are gone.
    let collection = open(&place, IndexKind::HnswRs, false);
    let names: Vec<PointId> = known.keys().skip(40).map(|name| id(name)).collect();
    for id in names {
        known.remove(id.as_str());
        collection.write(vec![Write::Delete(id)]).unwrap();
    }
    drop(collection);
    let collection = open(&place, IndexKind::HnswRs, false);
    assert_eq!(collection.shared.view().table.docs_end(), 40);
    assert_eq!(u64::from(collection.shared.view().table.end()), collection.counts().passages);
    collection.wait_indexed();
    check(&collection, &known, "anew");
    assert_eq!(collection.counts().indexed, collection.counts().passages);
}
