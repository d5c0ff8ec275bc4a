//! Each stage alone.

use std::{
    cell::Cell,
    path::Path,
    rc::Rc,
    sync::{Arc, LazyLock},
};

use super::{
    candidate::{Candidate, Unit},
    plan::Plan,
    retrieve::Retriever,
    *,
};
use crate::{
    budget::{Budget, Room},
    collection::{
        Collection, Write,
        tests::{eq, id, options, place, point, search, spec, upsert, vector},
    },
    error::{ErrorKind, Fault as _},
    index::IndexKind,
    random::SplitMix as Random,
    value::Value,
};

/// Documents `a` (red, two passages), `b` (green, one) and `c` (blue, three).
fn three(dir: &Path) -> Arc<Collection> {
    let collection = Collection::create(dir, spec(IndexKind::Flat), options(dir)).unwrap();
    let mut random = Random(41);
    let points = [("a", 0, 2), ("b", 1, 1), ("c", 2, 3)];
    let points = points.map(|(name, version, passages)| upsert(point(name, version, passages, &mut random)));
    collection.write(points.to_vec()).unwrap();
    collection
}

fn by_vector(k: usize) -> SearchQuery {
    SearchQuery::new(Ask::Vector(vector(&mut Random(42)).as_slice().to_vec()), k)
}

fn like(name: &str, k: usize) -> SearchQuery {
    SearchQuery::new(Ask::Document(name.to_owned()), k)
}

static NEVER: LazyLock<Stop> = LazyLock::new(Stop::default);

fn plan<'a>(collection: &Collection, query: &'a SearchQuery) -> Plan<'a> {
    Plan::make(&collection.shared, query, None, &NEVER, &mut SearchTrace::default()).unwrap()
}

/// Passage `ordinal` of document `doc`, whose id is its number.
fn candidate(doc: u64, ordinal: u32, score: f32) -> Candidate {
    Candidate { doc, id: id(&doc.to_string()), ordinal, score, sources: Vec::new() }
}

/// As a retriever of that name gave them, with their scores.
fn listed(retriever: &'static str, candidates: &[(u64, u32, f32)]) -> Vec<Candidate> {
    let candidates = (1..).zip(candidates).map(|(rank, &(doc, ordinal, score))| Candidate {
        sources: vec![Source { retriever, rank, score }],
        ..candidate(doc, ordinal, score)
    });
    candidates.collect()
}

fn places(candidates: &[Candidate]) -> Vec<(u64, u32)> {
    candidates.iter().map(|candidate| (candidate.doc, candidate.ordinal)).collect()
}

fn expired() -> Stop {
    Stop::at(Some(std::time::Instant::now()))
}

#[test]
fn plan_counts_what_can_be_answered() {
    let dir = tempfile::tempdir().unwrap();
    let collection = three(&place(&dir));
    let red = || Some(eq("tag", Value::String("red".into())));
    let passages = |query: SearchQuery| SearchQuery { by_passage: true, ..query };
    // Query, vectors, reachable, wanted.
    let cases = [
        (by_vector(10), 1, 3, 3),
        (by_vector(2), 1, 3, 2),
        (passages(by_vector(10)), 1, 6, 6),
        (SearchQuery { filter: red(), ..by_vector(10) }, 1, 1, 1),
        (passages(SearchQuery { filter: red(), ..by_vector(10) }), 1, 2, 2),
        (like("a", 10), 2, 2, 2),
        (passages(like("c", 10)), 3, 3, 3),
        (SearchQuery { filter: red(), ..like("a", 10) }, 2, 0, 0),
        (SearchQuery { filter: red(), ..like("c", 10) }, 3, 1, 1),
        (passages(SearchQuery { filter: red(), ..like("c", 10) }), 3, 2, 2),
    ];
    for (query, vectors, reachable, wanted) in cases {
        let plan = plan(&collection, &query);
        assert_eq!(
            (plan.vectors.len(), plan.reachable, plan.wanted),
            (vectors, reachable, wanted),
            "{query:?}"
        );
    }
}

#[test]
fn plan_tells_of_the_filter() {
    let dir = tempfile::tempdir().unwrap();
    let collection = three(&place(&dir));
    let told = |query: &SearchQuery| {
        let mut trace = SearchTrace::default();
        Plan::make(&collection.shared, query, None, &NEVER, &mut trace).unwrap();
        trace
    };
    let trace = told(&by_vector(1));
    assert_eq!((trace.matching_documents, trace.filter_time.is_zero()), (3, true));
    let filter = Some(eq("tog", Value::String("red".into())));
    let trace = told(&SearchQuery { filter, ..by_vector(1) });
    assert_eq!((trace.matching_documents, trace.filter_time.is_zero()), (0, false));
    assert!(trace.hints[0].contains("tog"), "{:?}", trace.hints);
}

#[test]
fn plan_refuses_what_is_not_there_or_no_vector() {
    let dir = tempfile::tempdir().unwrap();
    let collection = three(&place(&dir));
    let kind = |query: &SearchQuery, stop: &Stop| {
        let plan = Plan::make(&collection.shared, query, None, stop, &mut SearchTrace::default());
        plan.map(|_| ()).unwrap_err().kind()
    };
    assert_eq!(kind(&like("d", 1), &NEVER), ErrorKind::NotFound);
    assert_eq!(kind(&like("", 1), &NEVER), ErrorKind::Invalid);
    assert_eq!(kind(&SearchQuery::new(Ask::Vector(vec![f32::NAN; 8]), 1), &NEVER), ErrorKind::Invalid);
    assert_eq!(kind(&by_vector(1), &expired()), ErrorKind::Timeout);
}

#[test]
fn a_text_is_compared_by_what_it_was_encoded_to() {
    let dir = tempfile::tempdir().unwrap();
    let collection = three(&place(&dir));
    let query = SearchQuery::new(Ask::Text("rain".into()), 1);
    let vector = vector(&mut Random(43));
    let mut trace = SearchTrace::default();
    let plan = Plan::make(&collection.shared, &query, Some(vector.as_slice()), &NEVER, &mut trace).unwrap();
    assert_eq!(plan.vectors, [vector]);
    // Without it nobody can find anything, which is not an empty answer.
    let error = search(&collection, &query).unwrap_err();
    assert!(matches!(error, CollectionError::NotEncoded), "{error}");
}

/// Gives the same list to every query, and notes how deep it was asked to look.
struct Fixed {
    name: &'static str,
    list: Vec<Candidate>,
    depth: Rc<Cell<usize>>,
}

impl Retriever for Fixed {
    fn name(&self) -> &'static str {
        self.name
    }

    fn retrieve(&self, _: &Plan<'_>, depth: usize) -> Result<(Vec<Candidate>, Retrieval), CollectionError> {
        self.depth.set(depth);
        Ok((self.list.clone(), Retrieval { plan: "fixed", scanned: 7, ..Retrieval::default() }))
    }
}

#[test]
fn retrieve_asks_everyone_and_notes_who_found_what() {
    let dir = tempfile::tempdir().unwrap();
    let collection = three(&place(&dir));
    let query = by_vector(1);
    let plan = plan(&collection, &query);
    let depth = Rc::new(Cell::new(0));
    let fixed = |name, list: Vec<Candidate>| -> Box<dyn Retriever> {
        Box::new(Fixed { name, list, depth: Rc::clone(&depth) })
    };
    let mut trace = SearchTrace::default();
    let words = vec![candidate(1, 0, 9.5), candidate(2, 1, 4.0)];
    let both = [fixed("words", words), fixed("none", Vec::new())];
    let lists = retrieve::retrieve(&plan, &both, &mut trace).unwrap();
    assert_eq!(lists, [listed("words", &[(1, 0, 9.5), (2, 1, 4.0)]), Vec::new()]);
    let told: Vec<_> =
        trace.retrievals.iter().map(|r| (r.retriever, r.candidates, r.plan, r.scanned)).collect();
    assert_eq!(told, [("words", 2, "fixed", 7), ("none", 0, "fixed", 7)]);
    // Where lists are fused, a place does not depend on `k`; one list is looked at no deeper than it is answered.
    assert_eq!(depth.get(), 3);
    retrieve::retrieve(&plan, &both[..1], &mut trace).unwrap();
    assert_eq!(depth.get(), 1);
    let stopped = expired();
    let plan = Plan { stop: &stopped, ..plan };
    let error = retrieve::retrieve(&plan, &both, &mut trace).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[test]
fn dense_gives_the_best_passage_of_each_document_or_every_passage() {
    let dir = tempfile::tempdir().unwrap();
    let collection = three(&place(&dir));
    let asked = vector(&mut Random(42));
    let score = |name: &str, ordinal: u32| {
        let point = collection.point(&id(name)).unwrap().unwrap().point;
        let metric = crate::vector::Metric::Cosine;
        metric.score(metric.distance(asked.as_slice(), point.passages[ordinal as usize].vector.as_slice()))
    };
    for (by_passage, depth, expected) in
        [(false, 3, 3), (false, 2, 2), (true, 6, 6), (true, 4, 4), (true, 0, 0)]
    {
        let query = SearchQuery { by_passage, ..by_vector(10) };
        let plan = plan(&collection, &query);
        let [dense] = &retrieve::retrievers(&collection.shared, &plan)[..] else { panic!("one retriever") };
        let (found, told) = dense.retrieve(&plan, depth).unwrap();
        let mut all: Vec<(f32, &str, u32)> = Vec::new();
        for (name, passages) in [("a", 2), ("b", 1), ("c", 3)] {
            let mut scores: Vec<_> = (0..passages).map(|n| (score(name, n), name, n)).collect();
            scores.sort_by(|x, y| y.0.total_cmp(&x.0));
            all.extend(scores.into_iter().take(if by_passage { passages as usize } else { 1 }));
        }
        all.sort_by(|x, y| y.0.total_cmp(&x.0));
        let found: Vec<_> = found.iter().map(|c| (c.score, c.id.as_str(), c.ordinal)).collect();
        assert_eq!(found, all[..expected]);
        let scanned = if depth == 0 { 0 } else { 6 };
        assert_eq!((told.plan, told.scanned, told.reason.as_str()), ("exact", scanned, "there is no graph"));
    }
}

#[test]
fn what_was_planned_is_found_and_read_though_it_is_deleted_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let collection = three(&place(&dir));
    let query = by_vector(3);
    let plan = plan(&collection, &query);
    collection.write(["a", "b", "c"].map(|name| Write::Delete(id(name))).to_vec()).unwrap();
    let retrievers = retrieve::retrievers(&collection.shared, &plan);
    let lists = retrieve::retrieve(&plan, &retrievers, &mut SearchTrace::default()).unwrap();
    let found = group::group(lists.into_iter().flatten().collect(), &plan).unwrap();
    let memory = plan.into_memory();
    let reads = Reads::new(Room::unbounded());
    let hits = fetch::fetch(&collection.shared, &query, (found, &memory.documents), &NEVER, &reads).unwrap();
    let mut names: Vec<_> = hits.iter().map(|hit| hit.id.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(hits.iter().all(|hit| hit.passage.starts_with(hit.id.as_str())), "{hits:?}");
    assert!(search(&collection, &query).unwrap().0.is_empty());
}

#[test]
fn one_list_is_fused_to_itself() {
    let list = listed("dense", &[(4, 0, 0.9), (2, 1, 0.9), (7, 0, -0.5)]);
    assert_eq!(fuse::fuse(vec![list.clone()], Unit::Document, &NEVER).unwrap(), list);
    assert_eq!(fuse::fuse(Vec::new(), Unit::Document, &NEVER).unwrap(), []);
    assert!(fuse::fuse(vec![list], Unit::Document, &expired()).is_err());
}

#[test]
fn two_lists_are_fused_by_reciprocal_ranks() {
    let dense = listed("dense", &[(1, 0, 0.9), (2, 0, 0.8), (3, 0, 0.7)]);
    let words = listed("words", &[(3, 0, 31.0), (1, 0, 30.0), (4, 0, 2.0)]);
    let fused = fuse::fuse(vec![dense, words], Unit::Document, &NEVER).unwrap();
    let scores: Vec<_> = fused.iter().map(|c| (c.doc, c.score)).collect();
    assert_eq!(
        scores,
        [
            (1, 1.0 / 61.0 + 1.0 / 62.0),
            (3, 1.0 / 63.0 + 1.0 / 61.0),
            (2, 1.0 / 62.0),
            // The same place in one list only.
            (4, 1.0 / 63.0),
        ]
    );
    let source = |retriever, rank, score| Source { retriever, rank, score };
    assert_eq!(fused[0].sources, [source("dense", 1, 0.9), source("words", 2, 30.0)]);
    assert_eq!(fused[1].sources, [source("dense", 3, 0.7), source("words", 1, 31.0)]);
    assert_eq!(fused[3].sources, [source("words", 3, 2.0)]);
}

#[test]
fn lists_are_joined_by_document_or_by_passage() {
    let lists = || {
        // Document 1 by another passage each, on equal places; document 2 is placed better by words.
        let dense = listed("dense", &[(1, 4, 0.9), (3, 0, 0.8), (2, 0, 0.7)]);
        let words = listed("words", &[(1, 6, 9.0), (2, 5, 8.0)]);
        vec![dense, words]
    };
    let fused = fuse::fuse(lists(), Unit::Document, &NEVER).unwrap();
    assert_eq!(places(&fused), [(1, 4), (2, 5), (3, 0)]);
    assert_eq!(fused[0].score, 2.0 / 61.0);
    let fused = fuse::fuse(lists(), Unit::Passage, &NEVER).unwrap();
    // Equal scores by id, then by passage.
    assert_eq!(places(&fused), [(1, 4), (1, 6), (2, 5), (3, 0), (2, 0)]);
}

#[test]
fn reranking_changes_nothing_yet_and_leaves_off_when_it_is_time() {
    let list = listed("dense", &[(4, 0, 0.1), (2, 1, 0.9)]);
    assert_eq!(rerank::rerank(list.clone(), &NEVER).unwrap(), list);
    assert!(rerank::rerank(list, &expired()).is_err());
}

#[test]
fn group_answers_each_document_or_passage_once_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let collection = three(&place(&dir));
    // Two passages of document 1, a tie, and one below the threshold.
    let list = || listed("dense", &[(3, 0, 0.2), (1, 2, 0.5), (2, 1, 0.7), (1, 0, 0.7), (1, 0, 0.6)]);
    let grouped = |query: SearchQuery| {
        let plan = plan(&collection, &query);
        places(&group::group(list(), &plan).unwrap())
    };
    assert_eq!(grouped(by_vector(10)), [(1, 0), (2, 1), (3, 0)]);
    assert_eq!(grouped(by_vector(2)), [(1, 0), (2, 1)]);
    let passages = SearchQuery { by_passage: true, ..by_vector(10) };
    assert_eq!(grouped(passages), [(1, 0), (2, 1), (1, 2), (3, 0)]);
    let good = SearchQuery { score_threshold: Some(0.7), ..by_vector(10) };
    assert_eq!(grouped(good), [(1, 0), (2, 1)]);
    let query = by_vector(1);
    let stopped = expired();
    let plan = Plan { stop: &stopped, ..plan(&collection, &query) };
    assert!(group::group(list(), &plan).is_err());
}

#[test]
fn fetch_reads_what_is_asked_for_in_the_order_of_candidates_and_within_the_room() {
    let dir = tempfile::tempdir().unwrap();
    let collection = three(&place(&dir));
    let number = |name: &str| collection.shared.view().find(&id(name)).unwrap().unwrap().1.number;
    let found = || {
        let places = [("c", 2, 0.9), ("a", 1, 0.8), ("c", 0, 0.7)];
        places.map(|(name, ordinal, score)| Candidate {
            id: id(name),
            ..candidate(number(name), ordinal, score)
        })
    };
    let reads = Reads::new(Room::unbounded());
    let documents = collection.shared.store.snapshot();
    let fetched = |query: &SearchQuery, stop: &Stop, reads: &Reads| {
        fetch::fetch(&collection.shared, query, (found().to_vec(), &documents), stop, reads)
    };
    let hits = fetched(&by_vector(3), &NEVER, &reads).unwrap();
    let told: Vec<_> = hits.iter().map(|hit| (hit.id.as_str(), hit.score, &*hit.passage)).collect();
    assert_eq!(told, [("c", 0.9, "c v2 p2; "), ("a", 0.8, "a v0 p1; "), ("c", 0.7, "c v2 p0; ")]);
    assert_eq!(hits[1].payload["tag"], Value::String("red".into()));
    assert_eq!(&*hits[0].title, "title of c");
    assert!(Arc::ptr_eq(&hits[0].payload, &hits[2].payload), "one document is read once");
    let bare = SearchQuery { with_payload: false, with_text: false, ..by_vector(3) };
    let bare = fetched(&bare, &NEVER, &reads).unwrap();
    assert!(bare.iter().all(|hit| hit.payload.is_empty() && hit.passage.is_empty()));
    assert!(Arc::ptr_eq(&bare[0].title, &hits[0].title), "nor again for another search of the request");
    let error = fetched(&by_vector(3), &expired(), &reads).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let small = Reads::new(Room::new(100, &Budget::new(1 << 20)));
    assert!(fetched(&by_vector(3), &NEVER, &small).unwrap_err().is_too_large());
}

#[test]
fn every_stage_tells_how_it_went() {
    let dir = tempfile::tempdir().unwrap();
    let collection = three(&place(&dir));
    let (hits, trace) = search(&collection, &by_vector(2)).unwrap();
    let told: Vec<_> = trace.stages.iter().map(|stage| (stage.stage, stage.candidates)).collect();
    use Stage::{Fetch, Fuse, Group, Plan, Rerank, Retrieve};
    assert_eq!(told, [(Plan, 3), (Retrieve, 2), (Fuse, 2), (Rerank, 2), (Group, 2), (Fetch, 2)]);
    for (rank, hit) in (1..).zip(&hits) {
        assert_eq!(hit.sources, [Source { retriever: "dense", rank, score: hit.score }]);
    }
    assert_eq!(trace.retrievals.len(), 1);
}
