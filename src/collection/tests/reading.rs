//! Readers hold snapshots: they wait for nobody, nobody waits for them, and each answers as of one moment.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use proptest::{
    strategy::{Strategy, ValueTree as _},
    test_runner::TestRunner,
};
use roaring::RoaringBitmap;

use super::*;
use crate::{
    collection::{memory::Memory, places::Places},
    error::{Fault as _, with_sources},
    index::columns::{FieldIndex, FieldsRequest, Known as _},
    value::filter::{
        FilterError,
        tests::{any_filter, any_payload},
    },
};

/// Far more than anything here takes on a busy machine.
const BOUND: Duration = Duration::from_secs(120);

fn create(dir: &Path, kept: Options) -> Arc<Collection> {
    let options = options(dir);
    let means = Means { options: &options, kept, numbers_max: NUMBERS_MAX };
    Collection::create_with(dir, spec(IndexKind::Flat), means).unwrap()
}

fn open(dir: &Path, options: &CollectionOptions, kept: Options) -> Result<Arc<Collection>, CollectionError> {
    let means = Means { options, kept, numbers_max: NUMBERS_MAX };
    Collection::open_with(dir, made(IndexKind::Flat), means)
}

/// Puts what grew into a segment, and waits until reads come from there.
fn seal(collection: &Collection) {
    if collection.shared.store.seal().unwrap() {
        collection.shared.segments_changed();
    }
    let begun = Instant::now();
    while !collection.shared.view().fresh.runs().is_empty() {
        assert!(begun.elapsed() < BOUND);
        std::thread::yield_now();
    }
}

fn with(name: &str, payload: Payload, random: &mut Random) -> Write {
    upsert(Point { payload, ..point(name, 1, 1, random) })
}

#[test]
fn a_filter_that_takes_long_delays_no_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(51);
    let collection = create(&place(&dir), Options::sealed_at(64 << 20));
    let long = |n: u64| format!("{n} {}", "many words that are looked at one after the other ".repeat(20));
    for batch in (0..4000).collect::<Vec<_>>().chunks(1000) {
        let payload = |n: u64| Payload::from([("s".to_owned(), Value::String(long(n)))]);
        let writes = batch.iter().map(|n| with(&format!("doc {n}"), payload(*n), &mut random)).collect();
        collection.write(writes).unwrap();
    }
    // Half of them in a segment, half of them not.
    for is_sealed in [false, true] {
        if is_sealed {
            seal(&collection);
        }
        let part =
            |n: usize| Filter::Contains { field: "s".into(), value: Value::String(format!("nobody {n}")) };
        let filter = Filter::Or((0..5000).map(part).collect());
        let (asker, stop) = Stop::with_asker(None);
        std::thread::scope(|scope| {
            let filtering = scope.spawn(|| collection.count(Some(&filter), &stop));
            let begun = Instant::now();
            let mut written = 0;
            while begun.elapsed() < Duration::from_millis(300) || written < 20 {
                collection.write(vec![upsert(point("new", written, 1, &mut random))]).unwrap();
                assert_eq!(collection.count(None, &Stop::default()).unwrap(), 4001);
                written += 1;
            }
            assert!(
                !filtering.is_finished(),
                "{written} writes waited for the filter, or it takes too little"
            );
            drop(asker);
            let stopped = filtering.join().unwrap();
            assert!(stopped.is_err_and(|e| e.kind() == ErrorKind::Timeout));
        });
    }
}

#[test]
fn a_write_that_takes_long_delays_no_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(52);
    let collection = create(&place(&dir), SMALL);
    let writes = (0..100).map(|n| upsert(point(&format!("doc {n}"), n, 1, &mut random)));
    collection.write(writes.collect()).unwrap();
    // As a writer does while it changes the memory, and the indexer.
    let changing = collection.shared.changing.lock().unwrap();
    let (told, answered) = std::sync::mpsc::channel();
    let new = upsert(point("new", 1, 1, &mut random));
    collection.submit(vec![new], Box::new(move |result| told.send(result.is_ok()).unwrap()));
    let filter = eq("tag", Value::String("red".into()));
    let (never, room) = (Stop::default(), Room::unbounded());
    assert_eq!(collection.count(Some(&filter), &never).unwrap(), 34);
    assert_eq!(collection.count(None, &never).unwrap(), 100);
    assert_eq!(collection.scroll(Some(&filter), None, 50, true, &never, &room).unwrap().points.len(), 34);
    assert!(collection.get(&[id("doc 7")], true, true, &never, &room).unwrap()[0].is_some());
    assert!(collection.revision(&id("new")).unwrap().is_none());
    assert_eq!(collection.hints(&filter, &never).unwrap(), [""; 0]);
    let near = SearchQuery { filter: Some(filter), ..query(vector(&mut random), 5) };
    assert_eq!(search(&collection, &near).unwrap().0.len(), 5);
    let all = FieldsRequest { limit: 9, ..FieldsRequest::default() };
    assert_eq!(collection.stats_with(&all, &never).unwrap().fields.total, 2);
    assert!(answered.try_recv().is_err(), "it was not held up");
    drop(changing);
    assert!(answered.recv_timeout(BOUND).unwrap());
    assert!(collection.revision(&id("new")).unwrap().is_some());
}

/// What is there, by id.
type Known = BTreeMap<PointId, Payload>;

/// What can be asked of a snapshot, compared with a scan.
fn compare(memory: &Memory, known: &Known, filters: &[Filter], context: &str) {
    let never = Stop::default();
    let places = memory.places();
    let mut index = FieldIndex::new();
    for (payload, doc) in known.values().zip(0..) {
        index.insert(doc, payload);
    }
    assert_eq!(memory.table.documents(), known.len() as u64, "{context}");
    for filter in filters {
        let scanned: Vec<&PointId> =
            known.iter().filter(|(_, payload)| filter.matches(payload)).map(|(id, _)| id).collect();
        assert_eq!(
            places.fields().hints(filter, &never).unwrap(),
            index.hints(filter, &never).unwrap(),
            "{context}: {filter}"
        );
        let matching = match places.matching(filter, &never) {
            Ok(matching) => matching,
            Err(CollectionError::Filter(error)) => {
                assert_eq!(Err(error), index.matching(filter, &never), "{context}: {filter}");
                continue;
            }
            Err(other) => panic!("{context}: {filter}: {other}"),
        };
        assert!(index.matching(filter, &never).is_ok(), "{context}: {filter}");
        assert_eq!(matching.len(), scanned.len() as u64, "{context}: {filter}");
        let mut ids = places.ids(&matching, &never).unwrap();
        ids.sort();
        assert_eq!(ids.iter().collect::<Vec<_>>(), scanned, "{context}: {filter}");
        let docs = places.docs(&matching, &never).unwrap();
        let expected: RoaringBitmap = scanned.iter().map(|id| memory.find(id).unwrap().unwrap().0).collect();
        assert_eq!(docs, expected, "{context}: {filter}");
        assert_eq!(scrolled(memory, &places, Some(filter), 3), scanned, "{context}: {filter}");
    }
    let all: Vec<&PointId> = known.keys().collect();
    assert_eq!(scrolled(memory, &places, None, 4), all, "{context}");
    for (id, payload) in known {
        let (_, entry) = memory.find(id).unwrap().unwrap_or_else(|| panic!("{context}: {id} is not found"));
        let head = memory.documents.head(entry.number, Path::new("x")).unwrap().unwrap();
        assert_eq!((&head.body.id, &head.body.payload), (id, payload), "{context}");
    }
    assert!(memory.find(&id("nobody")).unwrap().is_none());
    for asked in [("", "", usize::MAX), ("", "", 2), ("", "b", 1)] {
        let (prefix, after, limit) = asked;
        let asked = FieldsRequest { prefix: prefix.into(), after: after.into(), limit };
        assert_eq!(
            places.fields().stats(&asked, &never).unwrap(),
            index.stats(&asked, &never).unwrap(),
            "{context}"
        );
    }
    let mut names = Vec::new();
    places
        .fields()
        .names("", &mut |name| {
            names.push(name.to_owned());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let expected: BTreeSet<&String> = known.values().flat_map(Payload::keys).collect();
    assert_eq!(names.iter().collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>(), "{context}");
}

/// All pages of a scroll.
fn scrolled<'a>(
    memory: &'a Memory,
    places: &Places<'_>,
    filter: Option<&Filter>,
    page: usize,
) -> Vec<&'a PointId> {
    let never = Stop::default();
    let matching = filter.map(|filter| places.matching(filter, &never).unwrap());
    let ids: BTreeMap<u64, &PointId> =
        memory.table.entries().map(|entry| (entry.number, &entry.id)).collect();
    let mut found: Vec<&PointId> = Vec::new();
    loop {
        let numbers = places.page(matching.as_ref(), found.last().copied(), page, &never).unwrap();
        found.extend(numbers.iter().map(|number| ids[number]));
        if numbers.len() < page {
            return found;
        }
    }
}

#[test]
fn every_snapshot_agrees_with_a_map_whatever_is_sealed_merged_and_deleted() {
    let mut runner = TestRunner::deterministic();
    let mut draw_payload = || any_payload().new_tree(&mut runner).unwrap().current();
    let mut filters_runner = TestRunner::deterministic();
    let (mut merged, mut mixed, mut deleted, mut mismatches) = (0, 0, 0, 0);
    for seed in 0..6 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let dir = tempfile::tempdir().unwrap();
        let place = super::place(&dir);
        let mut collection = create(&place, SMALL);
        let mut known = Known::new();
        let mut kept: Vec<(Arc<Memory>, Known)> = Vec::new();
        for step in 0..60 {
            match random.below(10) {
                0 => {
                    if random.below(2) == 0 {
                        collection.close().unwrap();
                    }
                    kept.clear();
                    drop(collection);
                    collection = open(&place, &options(&place), SMALL).unwrap();
                }
                1..=2 => seal(&collection),
                _ => {
                    let names: BTreeSet<u64> = (0..=random.below(8)).map(|_| random.below(60)).collect();
                    let mut writes = Vec::new();
                    for name in names {
                        let id = id(&format!("doc {name}"));
                        if random.below(3) == 0 {
                            known.remove(&id);
                            writes.push(Write::Delete(id));
                        } else {
                            let payload = draw_payload();
                            writes.push(with(id.as_str(), payload.clone(), &mut random));
                            known.insert(id, payload);
                        }
                    }
                    collection.write(writes).unwrap();
                }
            }
            let memory = collection.shared.view();
            let filters: Vec<Filter> =
                (0..4).map(|_| any_filter().new_tree(&mut filters_runner).unwrap().current()).collect();
            compare(&memory, &known, &filters, &format!("seed {seed}, step {step}"));
            let parts = memory.documents.parts();
            mixed += u32::from(!parts.is_empty() && !memory.fresh.runs().is_empty());
            deleted += parts.iter().filter(|part| part.living().len() < u64::from(part.rows())).count();
            let is_mismatch = |filter: &&Filter| {
                let answer = memory.places().matching(filter, &Stop::default());
                matches!(answer, Err(CollectionError::Filter(FilterError::TypeMismatch { .. })))
            };
            mismatches += filters.iter().filter(is_mismatch).count();
            if random.below(8) == 0 {
                kept.push((memory, known.clone()));
            }
            // What was seen once stays as it was, though the segments are merged away.
            if let Some(at) = random.below(10).checked_sub(1).filter(|at| *at < kept.len() as u64) {
                let (memory, known) = &kept[at as usize];
                merged += u32::from(!memory.documents.has_segments_of(&collection.shared.view().documents));
                compare(memory, known, &filters, &format!("seed {seed}, step {step}, snapshot {at}"));
            }
        }
    }
    println!(
        "{merged} of replaced segments, {mixed} in both, {deleted} with deletions, {mismatches} mismatches"
    );
    assert!(merged > 5 && mixed > 20 && deleted > 20 && mismatches > 5);
}

#[test]
fn a_scroll_sees_each_document_that_stays_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(53);
    let collection = create(&place(&dir), SMALL);
    // Every third stays as it is, every third is replaced, every third comes and goes.
    let name = |n: u64| format!("doc {n:03}");
    let writes = (0..300).map(|n| upsert(point(&name(n), n, 1, &mut random)));
    collection.write(writes.collect()).unwrap();
    let stays: BTreeSet<String> = (0..300).filter(|n| n % 3 != 2).map(name).collect();
    let is_over = AtomicBool::new(false);
    let writing = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (collection, is_over, writing) = (&collection, &is_over, &writing);
            scope.spawn(move || {
                let mut random = Random(100 + seed);
                while !is_over.load(Ordering::SeqCst) {
                    let n = 3 * random.below(100) + 1 + random.below(2);
                    let write = match random.below(3) {
                        0 if n % 3 == 2 => Write::Delete(id(&name(n))),
                        _ => upsert(point(&name(n), random.next(), 1, &mut random)),
                    };
                    collection.write(vec![write]).unwrap();
                    writing.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let filter = Filter::Exists { field: "tag".into(), expected: true };
        let segments = || {
            let memory = collection.shared.view();
            memory.documents.parts().iter().map(|part| part.last()).collect::<Vec<_>>()
        };
        let mut seen_segments = BTreeSet::new();
        let begun = Instant::now();
        while writing.load(Ordering::SeqCst) < 600 || seen_segments.len() < 4 {
            assert!(begun.elapsed() < BOUND, "{} writes", writing.load(Ordering::SeqCst));
            for filter in [None, Some(&filter)] {
                let (mut after, mut found) = (None, Vec::new());
                loop {
                    let page = collection
                        .scroll(filter, after.as_ref(), 7, true, &Stop::default(), &Room::unbounded())
                        .unwrap();
                    for point in page.points {
                        assert!(point.text.starts_with(point.id.as_str()), "{point:?}");
                        found.push(point.id.as_str().to_owned());
                    }
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                assert!(found.is_sorted() && found.windows(2).all(|pair| pair[0] != pair[1]));
                let stayed: BTreeSet<String> =
                    found.into_iter().filter(|name| stays.contains(name)).collect();
                assert_eq!(stayed, stays);
            }
            seen_segments.insert(segments());
        }
        is_over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn damage_that_a_filter_meets_is_told_with_file_and_remedy_and_answers_stay_right() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(54);
    let place = place(&dir);
    let collection = create(&place, Options::sealed_at(64 << 20));
    let payload = |n: u64| {
        Payload::from([
            ("n".to_owned(), Value::Integer(i64::try_from(n % 50).unwrap())),
            ("own".to_owned(), Value::String(format!("text of {n}"))),
            ("tags".to_owned(), Value::List(vec![Value::String(["a", "b", "c"][n as usize % 3].to_owned())])),
        ])
    };
    let writes = (0..400).map(|n| with(&format!("doc {n}"), payload(n), &mut random));
    collection.write(writes.collect()).unwrap();
    seal(&collection);
    collection.close().unwrap();
    drop(collection);
    let segments = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path());
    let columns = segments.map(|path| path.join("columns")).find(|path| path.exists()).unwrap();
    let whole = std::fs::read(&columns).unwrap();
    let filters =
        ["n >= 10 and < 30", "own contains '7'", "tags contains 'b'", "not exists(own)", "own = 'text of 5'"]
            .map(|text| Filter::parse(text).unwrap());
    let expected: Vec<u64> = filters
        .iter()
        .map(|filter| (0..400).filter(|n| filter.matches(&payload(*n))).count() as u64)
        .collect();
    let (mut told, mut refused, options) = (0, 0, options(&place));
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&columns, &damaged).unwrap();
        let collection = match open(&place, &options, Options::sealed_at(64 << 20)) {
            Ok(collection) => collection,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                refused += 1;
                continue;
            }
        };
        for (filter, expected) in filters.iter().zip(&expected) {
            match collection.count(Some(filter), &Stop::default()) {
                Ok(found) => assert_eq!(found, *expected, "byte {at}: {filter}"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                    let said = with_sources(&error);
                    let names = columns.display().to_string();
                    assert!(said.contains(&names) && said.contains("distilface repair"), "{said}");
                    // A search tells the same, and everything that needs no filter goes on.
                    let query = SearchQuery { filter: Some(filter.clone()), ..query(vector(&mut random), 3) };
                    assert_eq!(search(&collection, &query).unwrap_err().kind(), ErrorKind::Corrupt);
                    assert_eq!(collection.damage().map(with_sources_of), Some(said));
                    told += 1;
                }
            }
        }
        assert_eq!(search(&collection, &query(vector(&mut random), 3)).unwrap().0.len(), 3);
        let page = collection.scroll(None, None, 500, true, &Stop::default(), &Room::unbounded()).unwrap();
        assert_eq!(page.points.len(), 400);
        collection.write(vec![upsert(point("new", 1, 1, &mut random)), Write::Delete(id("doc 3"))]).unwrap();
        collection.write(vec![Write::Delete(id("new")), with("doc 3", payload(3), &mut random)]).unwrap();
    }
    println!("{told} filters met damage, {refused} openings did");
    assert!(told > 20 && refused > 0);
}

fn with_sources_of(error: &CollectionError) -> String {
    with_sources(error)
}
