//! What every [`Backend`] promises, written against the trait and run for each.
//!
//! Another one is another line in [`backends`] and a function that makes an empty collection of it.

use super::{reference::Reference, *};
use crate::{
    budget::Budget,
    collection::{
        Ask, Condition, Durability, Outcome,
        point::{ContentHash, Passage, Point},
    },
    config::{Config, DataConfig, EncoderConfig, NO_MODEL},
    engine::{Engine, EngineError, NewCollection},
    error::{ErrorKind, Fault as _},
    value::{Payload, Value},
    vector::{Dim, Metric, Vector},
};

/// Two empty collections of two dimensions under cosine.
struct Made {
    one: Arc<dyn Backend>,
    other: Arc<dyn Backend>,
    _engine: Option<(Arc<Engine>, tempfile::TempDir)>,
}

async fn local() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        data: DataConfig { dir: folder.path().join("db"), ..DataConfig::default() },
        encoder: EncoderConfig { model: NO_MODEL.into(), ..EncoderConfig::default() },
        ..Config::default()
    };
    let engine = Engine::open(&config).unwrap();
    for name in ["one", "other"] {
        let name = name.to_owned();
        let new = NewCollection { name, dimension: Some(2), vectors_only: true, ..NewCollection::default() };
        engine.create_collection(new).await.unwrap();
    }
    let backend = |name| engine.find(name).unwrap();
    Made { one: backend("one"), other: backend("other"), _engine: Some((Arc::clone(&engine), folder)) }
}

async fn reference() -> Made {
    let made = |n| Arc::new(Reference::new(Dim::new(2).unwrap(), Metric::Cosine, [n; 16]));
    Made { one: made(1), other: made(2), _engine: None }
}

macro_rules! backends {
    ([$($backend:ident),*], $tests:tt) => { $(backends!(@one $backend, $tests);)* };
    (@one $backend:ident, [$($test:ident),* $(,)?]) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test(&super::$backend().await).await;
                }
            )*
        }
    };
}

backends!(
    [local, reference],
    [
        a_write_is_seen_by_every_later_call,
        a_write_is_done_wholly_or_not_at_all,
        a_condition_is_kept,
        writes_are_done_each_by_itself_where_that_is_asked,
        versions_ascend_and_are_told_everywhere,
        a_write_that_nobody_waits_for_is_whole,
        documents_come_in_the_order_asked,
        whole_documents_come_in_portions,
        pages_follow_one_another_by_id,
        a_filter_narrows_everything,
        a_search_gives_the_best_in_order,
        a_search_for_a_document_leaves_it_out,
        what_cannot_be_searched_for_is_refused,
        a_deadline_that_passed_is_kept,
        an_answer_takes_its_place_or_is_refused,
        field_names_are_known,
        collections_are_told_apart,
    ]
);

fn id(name: &str) -> PointId {
    PointId::new(name).unwrap()
}

fn ids(names: &[&str]) -> Vec<PointId> {
    names.iter().map(|name| id(name)).collect()
}

/// A passage for each angle, in degrees; of another `version`, another content.
fn point(name: &str, version: u8, angles: &[f32]) -> Point {
    let text: String = (0..angles.len()).map(|n| format!("{name}{n} ")).collect();
    let mut start = 0;
    let passage = |(n, angle): (usize, &f32)| {
        let range = start..start + format!("{name}{n} ").len() as u32;
        start = range.end;
        let (sin, cos) = angle.to_radians().sin_cos();
        let vector = Vector::new(vec![cos, sin], Dim::new(2).unwrap(), Metric::Cosine).unwrap();
        Passage { range, vector }
    };
    Point {
        id: id(name),
        title: format!("title of {name}"),
        passages: angles.iter().enumerate().map(passage).collect(),
        text,
        payload: Payload::from([("version".to_owned(), Value::Integer(version.into()))]),
        content_hash: ContentHash([version; 16]),
    }
}

fn upsert(point: Point) -> Write {
    Write::Upsert(Box::new(point))
}

fn version(version: i64) -> Filter {
    Filter::Eq { field: "version".to_owned(), value: Value::Integer(version) }
}

/// `a` at 0 and 90 degrees, `b` at 30, `c` at 60; `b` is of version 2, the others of version 1.
async fn three(backend: &dyn Backend) {
    let points = [point("a", 1, &[0.0, 90.0]), point("b", 2, &[30.0]), point("c", 1, &[60.0])];
    let outcomes = backend.write(points.map(upsert).to_vec(), Durability::Power).await.unwrap();
    assert_eq!(told(&outcomes), [Outcome::Inserted; 3]);
}

fn told(written: &[Written]) -> Vec<Outcome> {
    written.iter().map(|written| written.outcome).collect()
}

async fn hashes(backend: &dyn Backend, names: &[&str]) -> Vec<Option<ContentHash>> {
    let revisions = backend.revisions(ids(names)).await.unwrap();
    revisions.into_iter().map(|revision| Some(revision?.content_hash)).collect()
}

async fn stored_version(backend: &dyn Backend, name: &str) -> Option<u64> {
    Some(backend.revisions(ids(&[name])).await.unwrap()[0]?.version)
}

async fn search(backend: &dyn Backend, query: SearchQuery) -> Result<Vec<Hit>> {
    let reads = Arc::new(Reads::new(Room::unbounded()));
    Ok(backend.search(query, None, None, reads).await?.0)
}

/// For what lies at an angle, in degrees.
fn at(angle: f32, k: usize) -> SearchQuery {
    let (sin, cos) = angle.to_radians().sin_cos();
    // Of any length, as a caller may send it.
    SearchQuery::new(Ask::Vector(vec![3.0 * cos, 3.0 * sin]), k)
}

fn places(hits: &[Hit]) -> Vec<(&str, u32)> {
    hits.iter().map(|hit| (hit.id.as_str(), hit.ordinal)).collect()
}

async fn a_write_is_seen_by_every_later_call(made: &Made) {
    let backend = &*made.one;
    drop(backend.ready().await.unwrap());
    three(backend).await;
    let changes = vec![
        upsert(point("a", 1, &[0.0, 90.0])),
        upsert(point("b", 3, &[180.0])),
        Write::Delete(id("c")),
        Write::Delete(id("d")),
    ];
    let outcomes = backend.write(changes, Durability::Power).await.unwrap();
    assert_eq!(told(&outcomes), [Outcome::Unchanged, Outcome::Updated, Outcome::Deleted, Outcome::NotFound]);
    assert_eq!(
        hashes(backend, &["c", "b", "a"]).await,
        [None, Some(ContentHash([3; 16])), Some(ContentHash([1; 16]))]
    );
    assert_eq!(places(&search(backend, at(170.0, 9)).await.unwrap()), [("b", 0), ("a", 1)]);
    assert_eq!(backend.count(None).await.unwrap(), 2);
    let stats = backend.stats(FieldsRequest::default()).await.unwrap();
    assert_eq!((stats.documents, stats.passages), (2, 3));
    backend.wait_indexed().await.unwrap();
    assert_eq!(places(&search(backend, at(170.0, 9)).await.unwrap()), [("b", 0), ("a", 1)]);
}

async fn a_write_is_done_wholly_or_not_at_all(made: &Made) {
    let backend = &*made.one;
    three(backend).await;
    let twice = vec![upsert(point("d", 1, &[1.0])), upsert(point("d", 2, &[2.0]))];
    assert_eq!(backend.write(twice, Durability::Power).await.unwrap_err().kind(), ErrorKind::Invalid);
    let condition = Condition::Absent;
    let stale = Write::UpsertIf { point: Box::new(point("b", 5, &[9.0])), condition };
    let half = vec![upsert(point("d", 1, &[1.0])), Write::Delete(id("a")), stale];
    assert!(backend.write(half, Durability::Power).await.is_err());
    assert_eq!(backend.count(None).await.unwrap(), 3);
    assert_eq!(hashes(backend, &["b"]).await, [Some(ContentHash([2; 16]))]);
}

async fn a_condition_is_kept(made: &Made) {
    let backend = &*made.one;
    three(backend).await;
    let version = stored_version(backend, "b").await.unwrap();
    let replace =
        |name: &str, condition| vec![Write::UpsertIf { point: Box::new(point(name, 7, &[45.0])), condition }];
    let delete = |name: &str, condition| vec![Write::DeleteIf { id: id(name), condition }];
    for (write, kind) in [
        (replace("b", Condition::Absent), ErrorKind::Exists),
        (replace("d", Condition::Present), ErrorKind::NotFound),
        (replace("b", Condition::Version(version + 1)), ErrorKind::Precondition),
        (replace("d", Condition::Version(version)), ErrorKind::Precondition),
        (delete("b", Condition::Version(version + 1)), ErrorKind::Precondition),
        (delete("d", Condition::Version(version)), ErrorKind::Precondition),
    ] {
        assert_eq!(backend.write(write, Durability::Power).await.unwrap_err().kind(), kind);
    }
    assert_eq!(stored_version(backend, "b").await, Some(version));
    let written = backend.write(replace("b", Condition::Version(version)), Durability::Power).await.unwrap();
    assert_eq!(told(&written), [Outcome::Updated]);
    let error =
        backend.write(replace("b", Condition::Version(version)), Durability::Power).await.unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::Precondition, Some("expected_version")), "{error}");
    let written = backend
        .write(delete("b", Condition::Version(written[0].version.unwrap())), Durability::Power)
        .await
        .unwrap();
    assert_eq!(told(&written), [Outcome::Deleted]);
}

async fn writes_are_done_each_by_itself_where_that_is_asked(made: &Made) {
    let backend = &*made.one;
    three(backend).await;
    let version = stored_version(backend, "b").await;
    let put = |name: &str, condition| Write::UpsertIf { point: Box::new(point(name, 7, &[45.0])), condition };
    let writes = vec![
        put("d", Condition::Absent),
        put("b", Condition::Absent),
        Write::DeleteIf { id: id("a"), condition: Condition::Present },
        put("e", Condition::Present),
    ];
    let written = backend.write_each(writes, Durability::Power).await.unwrap();
    assert_eq!(told(&written), [Outcome::Inserted, Outcome::Refused, Outcome::Deleted, Outcome::Refused]);
    assert_eq!((written[1].version, written[3].version), (version, None));
    assert_eq!(backend.count(None).await.unwrap(), 3);
    let twice = vec![upsert(point("f", 1, &[1.0])), upsert(point("f", 2, &[2.0]))];
    assert_eq!(backend.write_each(twice, Durability::Power).await.unwrap_err().kind(), ErrorKind::Invalid);
}

async fn versions_ascend_and_are_told_everywhere(made: &Made) {
    let backend = &*made.one;
    let mut last = 0;
    for n in [1, 2, 2, 3] {
        let written =
            backend.write(vec![upsert(point("a", n, &[10.0]))], Durability::Power).await.unwrap()[0];
        let version = written.version.unwrap();
        match written.outcome {
            Outcome::Unchanged => assert_eq!(version, last),
            _ => assert!(version > last),
        }
        last = version;
    }
    assert_eq!(stored_version(backend, "a").await, Some(last));
    let got = backend.get(ids(&["a"]), false, Room::unbounded()).await.unwrap();
    assert_eq!(got[0].as_ref().unwrap().version, last);
    let points = backend.points(ids(&["a"]), usize::MAX).await.unwrap();
    assert_eq!(points[0].as_ref().unwrap().as_ref().unwrap().version, last);
    let query = PageQuery { limit: 9, ..PageQuery::default() };
    assert_eq!(backend.scroll(query, Room::unbounded()).await.unwrap().points[0].version, last);
    assert_eq!(search(backend, at(10.0, 1)).await.unwrap()[0].version, last);
    backend.write(vec![Write::Delete(id("a"))], Durability::Power).await.unwrap();
    let again = backend.write(vec![upsert(point("a", 1, &[10.0]))], Durability::Power).await.unwrap()[0];
    assert!(again.version.unwrap() > last);
}

async fn a_write_that_nobody_waits_for_is_whole(made: &Made) {
    let backend = &*made.one;
    for n in 0..50 {
        let names = [format!("x{n}"), format!("y{n}")];
        let writes = names.map(|name| upsert(point(&name, 1, &[1.0])));
        let write = backend.write(writes.to_vec(), Durability::Power);
        // Some are dropped before they begin, some when they were handed over.
        if n % 5 == 0 {
            drop(write);
            continue;
        }
        let patience = std::time::Duration::from_micros(20 * n);
        let _ = tokio::time::timeout(patience, write).await;
    }
    // Whatever was handed over is done before this one.
    backend.write(vec![upsert(point("last", 1, &[1.0]))], Durability::Power).await.unwrap();
    for n in 0..50 {
        let pair = hashes(backend, &[&format!("x{n}"), &format!("y{n}")]).await;
        assert_eq!(pair[0], pair[1], "{n}");
    }
}

async fn documents_come_in_the_order_asked(made: &Made) {
    let backend = &*made.one;
    three(backend).await;
    let got = backend.get(ids(&["c", "d", "a", "c"]), true, Room::unbounded()).await.unwrap();
    let names: Vec<_> = got.iter().map(|point| point.as_ref().map(|point| point.id.as_str())).collect();
    assert_eq!(names, [Some("c"), None, Some("a"), Some("c")]);
    let (a, sent) = (got[2].as_ref().unwrap(), point("a", 1, &[0.0, 90.0]));
    assert_eq!((&a.title, &a.text, &*a.payload), (&sent.title, &sent.text, &sent.payload));
    assert_eq!(a.passages, [0..3, 3..6]);
    assert_eq!(a.vector.as_deref(), Some(sent.passages[0].vector.as_slice()));
    let bare = backend.get(ids(&["a"]), false, Room::unbounded()).await.unwrap();
    assert_eq!(bare[0].as_ref().unwrap().vector, None);
}

async fn whole_documents_come_in_portions(made: &Made) {
    let backend = &*made.one;
    three(backend).await;
    let all = backend.points(ids(&["b", "d", "a"]), usize::MAX).await.unwrap();
    let all: Vec<_> = all.into_iter().map(|point| Some(point.unwrap()?.point)).collect();
    assert_eq!(all, [Some(point("b", 2, &[30.0])), None, Some(point("a", 1, &[0.0, 90.0]))]);
    assert_eq!(backend.points(ids(&["d", "b", "a", "c"]), 1).await.unwrap().len(), 2);
    assert_eq!(backend.points(ids(&["b", "a"]), 0).await.unwrap().len(), 1);
    assert_eq!(backend.points(Vec::new(), 0).await.unwrap().len(), 0);
}

async fn pages_follow_one_another_by_id(made: &Made) {
    let backend = &*made.one;
    three(backend).await;
    for with in [true, false] {
        let (mut after, mut names) = (None, Vec::new());
        loop {
            let query = PageQuery {
                after: after.take(),
                limit: 2,
                with_text: with,
                with_vectors: with,
                ..PageQuery::default()
            };
            let page = backend.scroll(query, Room::unbounded()).await.unwrap();
            assert!(page.points.len() <= 2);
            for point in &page.points {
                assert_eq!((point.text.is_empty(), point.vector.is_some()), (!with, with));
            }
            names.extend(page.points.into_iter().map(|point| point.id.as_str().to_owned()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(names, ["a", "b", "c"]);
    }
    // Where a page begins need not be a document.
    let query = PageQuery { after: Some(id("aa")), limit: 9, ..PageQuery::default() };
    let page = backend.scroll(query, Room::unbounded()).await.unwrap();
    assert_eq!((page.points.len(), page.next), (2, None));
}

async fn a_filter_narrows_everything(made: &Made) {
    let backend = &*made.one;
    three(backend).await;
    let filter = || Some(version(1));
    assert_eq!(backend.count(filter()).await.unwrap(), 2);
    let mut matching = backend.ids(version(1)).await.unwrap();
    matching.sort();
    assert_eq!(matching, ids(&["a", "c"]));
    let query = PageQuery { filter: filter(), limit: 9, ..PageQuery::default() };
    assert_eq!(backend.scroll(query, Room::unbounded()).await.unwrap().points.len(), 2);
    let hits = search(backend, SearchQuery { filter: filter(), ..at(31.0, 9) }).await.unwrap();
    assert_eq!(places(&hits), [("c", 0), ("a", 0)]);
    assert_eq!(backend.count(Some(version(5))).await.unwrap(), 0);
    let nothing = SearchQuery { filter: Some(version(5)), ..at(0.0, 9) };
    assert!(search(backend, nothing).await.unwrap().is_empty());
    // There is nothing to say of a filter on a field that there is.
    assert!(backend.hints(version(1)).await.unwrap().is_empty());
}

async fn a_search_gives_the_best_in_order(made: &Made) {
    let backend = &*made.one;
    three(backend).await;
    let hits = search(backend, at(70.0, 9)).await.unwrap();
    assert_eq!(places(&hits), [("c", 0), ("a", 1), ("b", 0)]);
    for (hit, angle) in hits.iter().zip([10.0f32, 20.0, 40.0]) {
        assert!((hit.score - angle.to_radians().cos()).abs() < 1e-5, "{hit:?}");
        assert!(!hit.sources.is_empty());
    }
    assert_eq!((&*hits[1].passage, hits[1].range.clone(), &*hits[1].title), ("a1 ", 3..6, "title of a"));
    assert_eq!(hits[1].payload["version"], Value::Integer(1));
    assert_eq!(places(&search(backend, at(70.0, 2)).await.unwrap()), [("c", 0), ("a", 1)]);
    let passages = SearchQuery { by_passage: true, ..at(70.0, 9) };
    assert_eq!(places(&search(backend, passages).await.unwrap()), [("c", 0), ("a", 1), ("b", 0), ("a", 0)]);
    let good = SearchQuery { score_threshold: Some(0.9), ..at(70.0, 9) };
    assert_eq!(places(&search(backend, good).await.unwrap()), [("c", 0), ("a", 1)]);
    let bare = SearchQuery { with_text: false, with_payload: false, exact: true, ..at(70.0, 1) };
    let bare = search(backend, bare).await.unwrap();
    assert!(bare[0].passage.is_empty() && bare[0].payload.is_empty());
    // A text is searched for by the vector that it was encoded to.
    let text = SearchQuery::new(Ask::Text("thirty".into()), 1);
    let reads = Arc::new(Reads::new(Room::unbounded()));
    let encoded = point("x", 1, &[30.0]).passages[0].vector.as_slice().to_vec();
    let (hits, _) = backend.search(text, Some(encoded), None, reads).await.unwrap();
    assert_eq!(places(&hits), [("b", 0)]);
}

async fn a_search_for_a_document_leaves_it_out(made: &Made) {
    let backend = &*made.one;
    three(backend).await;
    let like = |name: &str| SearchQuery::new(Ask::Document(name.into()), 9);
    // By all its passages: 30 degrees from one, 30 from the other.
    let hits = search(backend, like("a")).await.unwrap();
    assert_eq!(hits.len(), 2);
    assert!(hits.iter().all(|hit| (hit.score - 30.0f32.to_radians().cos()).abs() < 1e-5), "{hits:?}");
    let error = search(backend, like("d")).await.unwrap_err();
    assert!(matches!(&error, EngineError::NoDocument { id, .. } if id == "d"), "{error}");
}

async fn what_cannot_be_searched_for_is_refused(made: &Made) {
    let backend = &*made.one;
    three(backend).await;
    for bad in [vec![1.0], vec![0.0, 0.0], vec![f32::NAN, 1.0]] {
        let error = search(backend, SearchQuery::new(Ask::Vector(bad), 1)).await.unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::Invalid, Some("vector")), "{error}");
    }
    let unencoded = SearchQuery::new(Ask::Text("rain".into()), 1);
    assert_eq!(search(backend, unencoded).await.unwrap_err().kind(), ErrorKind::Internal);
}

async fn a_deadline_that_passed_is_kept(made: &Made) {
    let backend = &*made.one;
    three(backend).await;
    let reads = Arc::new(Reads::new(Room::unbounded()));
    let late = backend.search(at(0.0, 1), None, Some(Instant::now()), reads);
    assert_eq!(late.await.unwrap_err().kind(), ErrorKind::Timeout);
}

async fn an_answer_takes_its_place_or_is_refused(made: &Made) {
    let backend = &*made.one;
    let long = Point { title: "x".repeat(5000), text: "y".repeat(5000), ..point("long", 1, &[1.0]) };
    backend.write(vec![upsert(long)], Durability::Power).await.unwrap();
    let small = || Room::new(1000, &Budget::new(1 << 20));
    let page = PageQuery { limit: 1, with_text: true, ..PageQuery::default() };
    let errors = [
        backend.get(ids(&["long"]), false, small()).await.map(drop).unwrap_err(),
        backend.scroll(page, small()).await.map(drop).unwrap_err(),
        backend.search(at(1.0, 1), None, None, Arc::new(Reads::new(small()))).await.map(drop).unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.is_too_large()), "{errors:?}");
    assert_eq!(backend.get(ids(&["long"]), false, Room::unbounded()).await.unwrap().len(), 1);
}

async fn field_names_are_known(made: &Made) {
    let backend = &*made.one;
    three(backend).await;
    let names = || ["version", "new"].map(str::to_owned).into_iter().collect();
    // Exact where there is no room for all that are new.
    let known = backend.fields(names(), 1).await.unwrap();
    assert_eq!(known, KnownFields { unknown: HashSet::from(["new".to_owned()]), total: 1 });
    let known = backend.fields(names(), 1000).await.unwrap();
    assert_eq!(known.unknown, HashSet::from(["new".to_owned()]));
    assert!((1..1000).contains(&known.total), "{known:?}");
    assert_eq!(made.other.fields(names(), 1).await.unwrap().unknown.len(), 2);
}

async fn collections_are_told_apart(made: &Made) {
    three(&*made.one).await;
    let (one, other) = (made.one.identity().await.unwrap(), made.other.identity().await.unwrap());
    assert_ne!(one, other);
    assert_eq!(made.one.identity().await.unwrap(), one);
    assert_eq!(made.other.count(None).await.unwrap(), 0);
}
