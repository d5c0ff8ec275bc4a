//! Numbers in memory run out and are given out anew while everything else goes on, under a watchdog: what an answer says
//! of a document belongs together, a document that stays is in every answer, and none is in an answer twice.

use std::collections::BTreeSet;

use super::*;
use crate::collection::point::StoredPoint;

/// Passages and documents that can be told apart in memory: a few times as many as there are at once.
const NUMBERS: u32 = 400;
/// Documents that nobody changes, of one to three passages.
const STAYING: u64 = 40;
const WRITERS: u64 = 2;
/// Documents of each writer.
const CHANGING: u64 = 12;
/// How often the numbers run out before it ends.
const RENUMBERINGS: u64 = 5;
/// More than there are passages.
const ALL: usize = NUMBERS as usize;

/// A document whose vectors, text and payload follow from its name and version.
fn made_of(name: &str, version: u64) -> Point {
    let seed = name.bytes().fold(version, |seed, byte| seed.wrapping_mul(257) ^ u64::from(byte));
    let mut random = Random(seed);
    let passages = 1 + random.below(3) as u32;
    let mut point = point(name, version, passages, &mut random);
    point.payload.insert("stays".to_owned(), Value::Bool(name.starts_with("stay")));
    point
}

fn staying() -> Vec<Point> {
    (0..STAYING).map(|n| made_of(&format!("stay {n}"), n)).collect()
}

fn stays() -> Filter {
    eq("stays", Value::Bool(true))
}

/// What was written under this id with this text.
fn written(id: &PointId, text: &str) -> Point {
    let rest = text.strip_prefix(id.as_str()).and_then(|rest| rest.strip_prefix(" v"));
    let rest = rest.unwrap_or_else(|| panic!("{id} has the text of another document: {text:?}"));
    made_of(id.as_str(), rest.split(' ').next().unwrap().parse().unwrap())
}

fn score(asked: &Vector, passage: &Passage) -> f32 {
    Metric::Cosine.score(Metric::Cosine.distance(asked.as_slice(), passage.vector.as_slice()))
}

/// Text, payload and score of a hit are of one version of one document, and none comes twice.
fn check_hits(asked: &Vector, by_passage: bool, hits: &[Hit]) {
    let mut seen = BTreeSet::new();
    for hit in hits {
        assert!(seen.insert((hit.id.as_str(), by_passage.then_some(hit.ordinal))), "twice: {hit:?}");
        let point = written(&hit.id, &hit.passage);
        let passage = &point.passages[hit.ordinal as usize];
        assert_eq!(hit.range, passage.range, "{hit:?}");
        assert_eq!(*hit.passage, point.text[hit.range.start as usize..hit.range.end as usize], "{hit:?}");
        assert_eq!((&*hit.title, &*hit.payload), (point.title.as_str(), &point.payload), "{hit:?}");
        assert!((hit.score - score(asked, passage)).abs() < 1e-4, "the vector is another's: {hit:?}");
    }
    assert!(hits.is_sorted_by(|a, b| a.score >= b.score), "{hits:?}");
}

/// A stored document is one version of itself, its vector included.
fn check_stored(stored: &StoredPoint, with_vector: bool) {
    let point = written(&stored.id, &stored.text);
    assert_eq!((&stored.title, &stored.text), (&point.title, &point.text));
    assert_eq!((&*stored.payload, stored.content_hash), (&point.payload, point.content_hash));
    match &stored.vector {
        Some(vector) => assert_eq!(vector, point.passages[0].vector.as_slice(), "{}", stored.id),
        // It was deleted after the page was read.
        None => assert!(!with_vector || stored.id.as_str().starts_with("change"), "{}", stored.id),
    }
}

/// Every staying document is among those named.
fn check_all_stay<'a>(staying: &[Point], named: impl Iterator<Item = &'a str>, context: &str) {
    let named: BTreeSet<&str> = named.collect();
    for point in staying {
        assert!(named.contains(point.id.as_str()), "{context}: {} is missing", point.id);
    }
}

fn search_round(collection: &Collection, staying: &[Point], exact: bool, random: &mut Random) {
    let asked = vector(random);
    let query = |k| SearchQuery { exact, ..SearchQuery::new(Ask::Vector(asked.as_slice().to_vec()), k) };
    let (hits, trace) = search(collection, &query(ALL)).unwrap();
    check_hits(&asked, false, &hits);
    check_all_stay(staying, hits.iter().map(|hit| hit.id.as_str()), &format!("{trace:?}"));

    let by_passage = SearchQuery { by_passage: true, ..query(ALL) };
    let (hits, trace) = search(collection, &by_passage).unwrap();
    check_hits(&asked, true, &hits);
    let passages = hits.iter().filter(|hit| hit.id.as_str().starts_with("stay")).count();
    assert_eq!(passages, staying.iter().map(|point| point.passages.len()).sum::<usize>(), "{trace:?}");

    // Among those that stay, the answer is always the same.
    let (hits, trace) = search(collection, &SearchQuery { filter: Some(stays()), ..query(10) }).unwrap();
    check_hits(&asked, false, &hits);
    let mut best: Vec<f32> = staying
        .iter()
        .map(|point| point.passages.iter().map(|passage| score(&asked, passage)).fold(f32::MIN, f32::max))
        .collect();
    best.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(hits.len(), 10, "{trace:?}");
    if exact {
        for (hit, best) in hits.iter().zip(best) {
            assert!((hit.score - best).abs() < 1e-4, "{hit:?} instead of {best}: {trace:?}");
        }
    }

    let like = &staying[random.below(STAYING) as usize].id;
    let ask = Ask::Document(like.as_str().to_owned());
    let (hits, trace) = search(collection, &SearchQuery { exact, ..SearchQuery::new(ask, ALL) }).unwrap();
    assert!(hits.iter().all(|hit| hit.id != *like), "{trace:?}");
    let named = hits.iter().map(|hit| hit.id.as_str()).chain([like.as_str()]);
    check_all_stay(staying, named, &format!("{trace:?}"));
}

fn read_round(collection: &Collection, staying: &[Point], random: &mut Random) {
    let (stop, room) = (Stop::default(), Room::unbounded());
    let (mut after, mut named) = (None, Vec::new());
    loop {
        let limit = 1 + random.below(20) as usize;
        let mut page = collection.scroll(None, after.as_ref(), limit, true, &stop, &room).unwrap();
        collection.add_vectors(&mut page.points, &stop).unwrap();
        for stored in page.points {
            check_stored(&stored, true);
            named.push(stored.id);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(named.is_sorted_by(|a, b| a < b), "one twice, or out of order: {named:?}");
    check_all_stay(staying, named.iter().map(PointId::as_str), "the pages");

    let page = collection.scroll(Some(&stays()), None, ALL, true, &stop, &room).unwrap();
    assert_eq!(page.points.len(), staying.len());
    page.points.iter().for_each(|stored| check_stored(stored, false));
    assert_eq!(collection.count(Some(&stays()), &stop).unwrap(), STAYING);
    let ids: Vec<PointId> = staying.iter().map(|point| point.id.clone()).collect();
    for (id, stored) in ids.iter().zip(collection.get(&ids, true, true, &stop, &room).unwrap()) {
        let stored = stored.unwrap_or_else(|| panic!("{id} is missing"));
        assert_eq!(stored.id, *id);
        check_stored(&stored, true);
    }
    assert!(collection.counts().documents >= STAYING);
}

/// Writes a few of a writer's own documents, and reads them back.
fn write_round(collection: &Collection, own: &mut BTreeMap<String, Option<Point>>, random: &mut Random) {
    let mut names: Vec<String> = own.keys().cloned().collect();
    let mut writes = Vec::new();
    let mut changed = Vec::new();
    for _ in 0..4 {
        let name = names.swap_remove(random.below(names.len() as u64) as usize);
        let point = made_of(&name, random.next() % 1_000_000);
        // Nobody else writes this document.
        let version = collection.point(&id(&name)).unwrap().map(|stored| stored.version);
        let (write, now) = match (random.below(6), version) {
            (0, _) => (Write::Delete(id(&name)), None),
            (1, Some(version)) => {
                let condition = Condition::Version(version);
                (Write::UpsertIf { point: Box::new(point.clone()), condition }, Some(point))
            }
            _ => (upsert(point.clone()), Some(point)),
        };
        writes.push(write);
        own.insert(name.clone(), now);
        changed.push(name);
    }
    collection.write(writes).unwrap();
    for name in changed {
        assert_eq!(collection.point(&id(&name)).unwrap().map(|stored| stored.point), own[&name], "{name}");
        let Some(point) = &own[&name] else { continue };
        let asked = &point.passages[0].vector;
        let ask = Ask::Vector(asked.as_slice().to_vec());
        let query = SearchQuery { by_passage: true, exact: true, ..SearchQuery::new(ask, 1) };
        let (hits, _) = search(collection, &query).unwrap();
        check_hits(asked, true, &hits);
        assert_eq!((&hits[0].id, hits[0].ordinal), (&point.id, 0));
    }
}

/// Ends everybody's work when it is dropped, so also when a check fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn load(kind: IndexKind, dir: &Path) {
    let options = options_on(&(Arc::new(RealDisk) as _), dir, Threads::new(2).unwrap());
    let means = || Means { options: &options, kept: SMALL, numbers_max: NUMBERS };
    let collection = Collection::create_with(dir, spec(kind), means()).unwrap();
    let staying = staying();
    collection.write(staying.iter().cloned().map(upsert).collect()).unwrap();

    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let over = AtomicBool::new(false);
    // The numbering in which each reader began the last round that it ended.
    let seen: [AtomicU64; 6] = Default::default();
    let numbering = || collection.shared.view().numbering;
    let is_over = || over.load(Ordering::SeqCst);
    let mut known: Vec<BTreeMap<String, Option<Point>>> = (0..WRITERS)
        .map(|writer| (0..CHANGING).map(|n| (format!("change {writer} {n}"), None)).collect())
        .collect();
    std::thread::scope(|scope| {
        let (pool, collection, staying, over, all_seen) = (&pool, &collection, &staying, &over, &seen);
        for (reader, seen) in (0..).zip(&seen) {
            scope.spawn(move || {
                let _end = End(over);
                let mut random = Random(300 + reader);
                while !is_over() {
                    let begun = numbering();
                    match reader % 3 {
                        0 => read_round(collection, staying, &mut random),
                        n => pool.install(|| search_round(collection, staying, n == 1, &mut random)),
                    }
                    seen.store(begun, Ordering::SeqCst);
                }
            });
        }
        for (writer, own) in (0..).zip(&mut known) {
            scope.spawn(move || {
                let _end = End(over);
                let mut random = Random(400 + writer);
                while !is_over() && numbering() < RENUMBERINGS {
                    write_round(collection, own, &mut random);
                    // Each reader gets a whole round between one renumbering and the one after the next.
                    let is_late = |seen: &AtomicU64| seen.load(Ordering::SeqCst) + 1 < numbering();
                    while !is_over() && all_seen.iter().any(is_late) {
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    assert!(numbering() >= RENUMBERINGS, "it ended early");

    let check = |collection: &Collection| {
        let changing = known.iter().flat_map(BTreeMap::values).flatten();
        let all: Vec<&Point> = staying.iter().chain(changing).collect();
        for point in &all {
            assert_eq!(
                collection.point(&point.id).unwrap().map(|stored| stored.point).as_ref(),
                Some(*point)
            );
        }
        assert_eq!(collection.counts().documents, all.len() as u64);
        let mut random = Random(500);
        for exact in [true, false] {
            search_round(collection, &staying, exact, &mut random);
        }
        read_round(collection, &staying, &mut random);
    };
    collection.wait_indexed();
    check(&collection);
    collection.close().unwrap();
    drop(collection);
    let collection = Collection::open_with(dir, made(kind), means()).unwrap();
    check(&collection);
    collection.close().unwrap();
}

#[test]
fn answers_stay_right_while_a_flat_collection_gives_its_numbers_out_anew() {
    super::stress::watched("searches, pages or writes while numbers change", |dir| {
        load(IndexKind::Flat, dir)
    });
}

#[test]
fn answers_stay_right_while_a_graph_collection_gives_its_numbers_out_anew() {
    super::stress::watched("searches, pages or writes while numbers change", |dir| {
        load(IndexKind::HnswRs, dir);
    });
}
