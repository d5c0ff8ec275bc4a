//! Random writes, reads and reopenings, compared with a plain map after each.

use super::{conditions::write_each, *};
use crate::error::Fault as _;

#[derive(Default)]
struct Model {
    points: BTreeMap<PointId, Point>,
    versions: BTreeMap<PointId, u64>,
    /// The largest version ever given out.
    last_version: u64,
}

impl Model {
    /// Now and then a condition, which may hold or not, and whether it does.
    fn condition(&self, id: &PointId, random: &mut Random) -> (Condition, bool) {
        let stored = self.versions.get(id).copied();
        match random.below(16) {
            0 => (Condition::Absent, stored.is_none()),
            1 => (Condition::Present, stored.is_some()),
            2 => (Condition::Version(stored.unwrap_or(1)), stored.is_some()),
            3 => (Condition::Version(stored.map_or(self.last_version, |version| version - 1)), false),
            _ => (Condition::Any, true),
        }
    }

    /// Compares what became of a write with what should, and takes the version that it gave out.
    fn note(&mut self, id: &PointId, expected: Outcome, written: Written, context: &str) {
        assert_eq!(written.outcome, expected, "{context}");
        match expected {
            Outcome::Inserted | Outcome::Updated => {
                let version = written.version.unwrap();
                assert!(version > self.last_version, "{context}: {version} after {}", self.last_version);
                self.last_version = version;
                self.versions.insert(id.clone(), version);
            }
            Outcome::Deleted => {
                self.versions.remove(id);
                assert_eq!(written.version, None, "{context}");
            }
            Outcome::Unchanged | Outcome::NotFound | Outcome::Refused => {
                assert_eq!(written.version, self.versions.get(id).copied(), "{context}");
            }
        }
    }

    fn matching(&self, filter: Option<&Filter>) -> Vec<&Point> {
        self.points.values().filter(|p| filter.is_none_or(|f| f.matches(&p.payload))).collect()
    }

    /// Every document's or passage's score, best first, ties by id.
    fn search(&self, query: &SearchQuery) -> Vec<(PointId, u32, f32)> {
        let (asked, vectors): (Option<&Point>, Vec<&[f32]>) = match &query.ask {
            Ask::Vector(values) => (None, vec![values.as_slice()]),
            Ask::Document(asked) => {
                let point = &self.points[&id(asked)];
                (Some(point), point.passages.iter().map(|p| p.vector.as_slice()).collect())
            }
            Ask::Text(_) => unreachable!("nothing here encodes"),
        };
        let mut found: Vec<(PointId, u32, f32)> = Vec::new();
        for point in self.matching(query.filter.as_ref()) {
            if asked.map(|asked| &asked.id) == Some(&point.id) {
                continue;
            }
            let mut scores: Vec<(u32, f32)> = (0..)
                .zip(&point.passages)
                .map(|(n, p)| {
                    let distance = |vector: &&[f32]| Metric::Cosine.distance(vector, p.vector.as_slice());
                    let scores = vectors.iter().map(|vector| Metric::Cosine.score(distance(vector)));
                    (n, scores.max_by(f32::total_cmp).unwrap())
                })
                .collect();
            scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let take = if query.by_passage { scores.len() } else { 1 };
            found.extend(scores.into_iter().take(take).map(|(n, score)| (point.id.clone(), n, score)));
        }
        found.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)).then(a.1.cmp(&b.1)));
        found.truncate(query.k);
        found.retain(|hit| query.score_threshold.is_none_or(|threshold| hit.2 >= threshold));
        found
    }
}

fn random_filter(random: &mut Random) -> Option<Filter> {
    match random.below(5) {
        0 => Some(eq("tag", Value::String("red".into()))),
        1 => Some(Filter::Range {
            field: "n".into(),
            range: RangeBounds { gte: Some(Value::Integer(3)), ..RangeBounds::default() },
        }),
        2 => Some(Filter::Not(Box::new(eq("n", Value::Integer(1))))),
        3 => Some(eq("tag", Value::String("none has it".into()))),
        _ => None,
    }
}

fn compare(collection: &Collection, model: &Model, random: &mut Random) {
    let filter = random_filter(random);
    let matching = model.matching(filter.as_ref());
    assert_eq!(collection.count(filter.as_ref(), &Stop::default()).unwrap(), matching.len() as u64);
    if let Some(filter) = &filter {
        let mut found = collection.matching_ids(filter, &Stop::default()).unwrap();
        found.sort();
        assert_eq!(found, matching.iter().map(|p| p.id.clone()).collect::<Vec<_>>());
    }

    let mut after = None;
    let mut scrolled = Vec::new();
    loop {
        let page = collection
            .scroll(filter.as_ref(), after.as_ref(), 7, true, &Stop::default(), &Room::unbounded())
            .unwrap();
        assert!(page.points.len() <= 7);
        scrolled.extend(page.points);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(scrolled.len(), matching.len());
    for (stored, point) in scrolled.iter().zip(&matching) {
        assert_eq!((&stored.id, &stored.title, &stored.text), (&point.id, &point.title, &point.text));
        assert_eq!((&*stored.payload, stored.content_hash), (&point.payload, point.content_hash));
        assert_eq!(stored.passages, point.passages.iter().map(|p| p.range.clone()).collect::<Vec<_>>());
        assert_eq!(stored.version, model.versions[&stored.id]);
    }

    let wanted: Vec<PointId> = (0..4).map(|_| id(&format!("doc {}", random.below(40)))).collect();
    for (wanted, got) in
        wanted.iter().zip(collection.get(&wanted, true, true, &Stop::default(), &Room::unbounded()).unwrap())
    {
        let expected = model.points.get(wanted);
        assert_eq!(got.as_ref().map(|p| &p.text), expected.map(|p| &p.text));
        assert_eq!(got.as_ref().map(|p| p.version), model.versions.get(wanted).copied());
        let vector = got.and_then(|p| p.vector);
        assert_eq!(vector.as_deref(), expected.map(|p| p.passages[0].vector.as_slice()));
        let revision =
            expected.map(|p| Revision { version: model.versions[wanted], content_hash: p.content_hash });
        assert_eq!(collection.revision(wanted).unwrap(), revision);
    }

    let query = SearchQuery {
        filter,
        exact: true,
        score_threshold: (random.below(4) == 0).then_some(0.2),
        by_passage: random.below(3) == 0,
        with_text: true,
        with_payload: true,
        ..query(vector(random), 1 + random.below(12) as usize)
    };
    let like = (random.below(3) == 0).then(|| format!("doc {}", random.below(40)));
    let query = match like {
        Some(like) => SearchQuery { ask: Ask::Document(like), ..query },
        None => query,
    };
    if let Ask::Document(like) = &query.ask
        && !model.points.contains_key(&id(like))
    {
        let error = search(collection, &query).unwrap_err();
        assert!(matches!(&error, CollectionError::NoDocument { id } if id == like), "{error}");
        return;
    }
    let expected = model.search(&query);
    let (hits, trace) = search(collection, &query).unwrap();
    let got: Vec<_> = hits.iter().map(|h| (h.id.clone(), h.ordinal, h.score)).collect();
    assert_eq!(got, expected, "{query:?} by {trace:?}");
    for hit in hits {
        let point = &model.points[&hit.id];
        let range = point.passages[hit.ordinal as usize].range.clone();
        assert_eq!(*hit.passage, point.text[range.start as usize..range.end as usize]);
        assert_eq!((hit.range, &*hit.payload, &*hit.title), (range, &point.payload, point.title.as_str()));
        assert_eq!(hit.version, model.versions[&hit.id]);
    }
    let stats = collection.stats();
    assert_eq!(stats.documents, model.points.len() as u64);
    assert_eq!(stats.passages, model.points.values().map(|p| p.passages.len() as u64).sum::<u64>());
}

fn means(options: &CollectionOptions, numbers_max: u32) -> Means<'_> {
    Means { options, kept: SMALL, numbers_max }
}

/// Returns how often numbers in memory ran out while it was open.
fn run(kind: IndexKind, seed: u64, steps: u32, numbers_max: u32) -> u64 {
    println!("seed {seed}");
    let mut renumbered = 0;
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let place = super::place(&dir);
    let mut options = super::options(&place);
    let mut collection = Collection::create_with(&place, spec(kind), means(&options, numbers_max)).unwrap();
    let identity = Some(collection.identity());
    let mut model = Model::default();
    for step in 0..steps {
        match random.below(12) {
            0 => {
                if random.below(2) == 0 {
                    collection.close().unwrap();
                }
                renumbered += collection.shared.view().numbering;
                drop(collection);
                if random.below(2) == 0 {
                    // The process ends.
                    drop(options);
                    options = super::options(&place);
                }
                let made = Made { spec: spec(kind), identity };
                collection = Collection::open_with(&place, made, means(&options, numbers_max)).unwrap();
            }
            _ => {
                let names: std::collections::BTreeSet<_> =
                    (0..=random.below(6)).map(|_| format!("doc {}", random.below(40))).collect();
                let each = random.below(2) == 0;
                let (mut writes, mut expected, mut holds) = (Vec::new(), Vec::new(), true);
                for name in names {
                    let id = id(&name);
                    let known = model.points.get(&id).cloned();
                    let (condition, met) = model.condition(&id, &mut random);
                    holds &= met;
                    let stored = known.is_some();
                    let (outcome, write, point) = match (random.below(4), known) {
                        (0, _) => {
                            let outcome = if stored { Outcome::Deleted } else { Outcome::NotFound };
                            (outcome, Write::DeleteIf { id: id.clone(), condition }, None)
                        }
                        (1, Some(known)) => {
                            let point = Box::new(known);
                            (Outcome::Unchanged, Write::UpsertIf { point, condition }, None)
                        }
                        _ => {
                            let outcome = if stored { Outcome::Updated } else { Outcome::Inserted };
                            let passages = 1 + random.below(4) as u32;
                            let point = point(&name, u64::from(step), passages, &mut random);
                            let write = Write::UpsertIf { point: Box::new(point.clone()), condition };
                            (outcome, write, Some(point))
                        }
                    };
                    writes.push(write);
                    expected.push((id, if met { outcome } else { Outcome::Refused }, point));
                }
                let context = format!("step {step}");
                if !each && !holds {
                    let kind = collection.write(writes).unwrap_err().kind();
                    let refusals = [ErrorKind::Exists, ErrorKind::NotFound, ErrorKind::Precondition];
                    assert!(refusals.contains(&kind), "{context}: {kind:?}");
                    continue;
                }
                let written =
                    if each { write_each(&collection, writes) } else { collection.write(writes).unwrap() };
                assert_eq!(written.len(), expected.len(), "{context}");
                for ((id, outcome, point), written) in expected.into_iter().zip(written) {
                    model.note(&id, outcome, written, &context);
                    match (outcome, point) {
                        (Outcome::Deleted, _) => drop(model.points.remove(&id)),
                        (Outcome::Inserted | Outcome::Updated, Some(point)) => {
                            model.points.insert(id, point);
                        }
                        _ => {}
                    }
                }
            }
        }
        compare(&collection, &model, &mut random);
    }
    renumbered + collection.shared.view().numbering
}

#[test]
fn agrees_with_a_map_flat() {
    assert_eq!(run(IndexKind::Flat, 1, 150, NUMBERS_MAX), 0);
}

#[test]
fn agrees_with_a_map_graph() {
    assert_eq!(run(IndexKind::HnswRs, 2, 150, NUMBERS_MAX), 0);
}

/// Forty documents of up to four passages: with room for little more, numbers run out again and again.
#[test]
fn agrees_with_a_map_while_numbers_run_out() {
    for kind in [IndexKind::Flat, IndexKind::HnswRs] {
        let renumbered = run(kind, 3, 350, 130);
        println!("{kind:?}: numbers ran out {renumbered} times");
        assert!(renumbered >= 3, "{kind:?}: {renumbered}");
    }
}
