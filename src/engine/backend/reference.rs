//! A backend of plain maps: what [`super::conformance`] asks, it answers in the simplest way, and nothing else.
//!
//! For tests. It keeps a suite honest that would otherwise describe one implementation.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::Bound,
    sync::{Arc, Mutex},
    time::Instant,
};

use super::{Answer, Backend, Kept, KnownFields, PageQuery};
use crate::{
    budget::Room,
    collection::{
        Ask, CollectionError, CollectionStats, Condition, DoneBefore, Once, Outcome, Page, Reads,
        SearchQuery, SearchTrace, Source, Write, WriteOptions, Written,
        point::{Hit, Point, Revision, StoredPoint, Versioned},
    },
    engine::{EngineError, error::Result},
    index::columns::FieldsRequest,
    stop::Stop,
    value::{PointId, filter::Filter},
    vector::{Dim, Metric, Vector},
};

/// Documents by id.
#[derive(Debug)]
pub(super) struct Reference {
    dim: Dim,
    metric: Metric,
    identity: [u8; 16],
    points: Mutex<BTreeMap<PointId, Point>>,
    versions: Mutex<Versions>,
    /// What was asked and done, by request id. Taken after `points`.
    requests: Mutex<BTreeMap<String, Known>>,
}

/// What was asked, as a hash, and what it did.
type Known = ([u8; 16], Arc<DoneBefore>);

/// Taken after `points`.
#[derive(Debug, Default)]
struct Versions {
    last: u64,
    of: BTreeMap<PointId, u64>,
}

impl Reference {
    pub(super) fn new(dim: Dim, metric: Metric, identity: [u8; 16]) -> Self {
        let (points, versions, requests) = (Mutex::default(), Mutex::default(), Mutex::default());
        Reference { dim, metric, identity, points, versions, requests }
    }

    /// The answer of `f`, on the first poll.
    fn answer<'a, T: Send + 'a>(
        &'a self,
        f: impl FnOnce(&mut BTreeMap<PointId, Point>) -> Result<T> + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move { f(&mut self.points.lock().unwrap()) })
    }

    fn change(
        &self,
        points: &mut BTreeMap<PointId, Point>,
        writes: Vec<Write>,
        each: bool,
    ) -> Result<Vec<Written>> {
        let mut versions = self.versions.lock().unwrap();
        let mut ids = BTreeSet::new();
        let mut refused = BTreeSet::new();
        for write in &writes {
            let (id, condition) = match write {
                Write::Upsert(point) => (&point.id, Condition::Any),
                Write::UpsertIf { point, condition } => (&point.id, *condition),
                Write::Delete(id) => (id, Condition::Any),
                Write::DeleteIf { id, condition } => (id, *condition),
            };
            if !ids.insert(id) {
                return Err(CollectionError::DuplicateId { id: id.as_str().to_owned() }.into());
            }
            match condition.check(id, versions.of.get(id).copied()) {
                Err(error) if !each => return Err(error.into()),
                Err(_) => drop(refused.insert(id.clone())),
                Ok(()) => {}
            }
        }
        let mut done = |write| {
            let (id, point) = match write {
                Write::Upsert(point) | Write::UpsertIf { point, .. } => (point.id.clone(), Some(point)),
                Write::Delete(id) | Write::DeleteIf { id, .. } => (id, None),
            };
            let before = points.get(&id).map(|before| before.content_hash);
            let outcome = match (&point, before) {
                _ if refused.contains(&id) => Outcome::Refused,
                (None, None) => Outcome::NotFound,
                (None, Some(_)) => Outcome::Deleted,
                (Some(_), None) => Outcome::Inserted,
                (Some(point), Some(before)) if point.content_hash == before => Outcome::Unchanged,
                (Some(_), Some(_)) => Outcome::Updated,
            };
            match (outcome, point) {
                (Outcome::Deleted, _) => {
                    points.remove(&id);
                    versions.of.remove(&id);
                }
                (Outcome::Inserted | Outcome::Updated, Some(point)) => {
                    versions.last += 1;
                    let version = versions.last;
                    versions.of.insert(id.clone(), version);
                    points.insert(id.clone(), *point);
                }
                _ => {}
            }
            Written { outcome, version: versions.of.get(&id).copied() }
        };
        Ok(writes.into_iter().map(&mut done).collect())
    }

    fn version(&self, id: &PointId) -> Option<u64> {
        self.versions.lock().unwrap().of.get(id).copied()
    }

    fn stored(&self, point: &Point, with_text: bool, with_vector: bool) -> StoredPoint {
        StoredPoint {
            id: point.id.clone(),
            title: point.title.clone(),
            text: if with_text { point.text.clone() } else { String::new() },
            payload: point.payload.clone().into(),
            content_hash: point.content_hash,
            passages: point.passages.iter().map(|passage| passage.range.clone()).collect(),
            version: self.version(&point.id).unwrap(),
            updated_at: 0,
            vector: with_vector.then(|| point.passages[0].vector.as_slice().to_vec()),
        }
    }

    fn vectors(
        &self,
        points: &BTreeMap<PointId, Point>,
        query: &SearchQuery,
        encoded: Option<Vec<f32>>,
    ) -> Result<Vec<Vector>> {
        let checked = |values| Ok(vec![Vector::new(values, self.dim, self.metric)?]);
        match &query.ask {
            Ask::Text(_) => checked(encoded.ok_or(CollectionError::NotEncoded)?),
            Ask::Vector(values) => checked(values.clone()),
            Ask::Document(id) => match points.get(&PointId::new(id.as_str())?) {
                Some(point) => Ok(point.passages.iter().map(|passage| passage.vector.clone()).collect()),
                None => Err(EngineError::NoDocument { collection: "reference".into(), id: id.clone() }),
            },
        }
    }

    fn found(&self, point: &Point, query: &SearchQuery, vectors: &[Vector]) -> Vec<Hit> {
        let mut hits = Vec::new();
        for (ordinal, passage) in (0..).zip(&point.passages) {
            let score = |vector: &Vector| {
                self.metric.score(self.metric.distance(vector.as_slice(), passage.vector.as_slice()))
            };
            let score = vectors.iter().map(score).max_by(f32::total_cmp).unwrap();
            let range = passage.range.clone();
            let text = &point.text[range.start as usize..range.end as usize];
            hits.push(Hit {
                id: point.id.clone(),
                score,
                title: point.title.as_str().into(),
                ordinal,
                range,
                passage: if query.with_text { text.into() } else { Arc::default() },
                payload: if query.with_payload { point.payload.clone().into() } else { Arc::default() },
                version: self.version(&point.id).unwrap(),
                sources: vec![Source { retriever: "reference", rank: 1, score }],
            });
        }
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.ordinal.cmp(&b.ordinal)));
        hits.truncate(if query.by_passage { usize::MAX } else { 1 });
        hits
    }
}

fn matches(filter: Option<&Filter>, point: &Point) -> bool {
    filter.is_none_or(|filter| filter.matches(&point.payload))
}

impl Backend for Reference {
    fn ready(&self) -> Answer<'_, Kept> {
        Box::pin(async { Ok(Arc::new(()) as Kept) })
    }

    fn identity(&self) -> Answer<'_, [u8; 16]> {
        Box::pin(async { Ok(self.identity) })
    }

    fn write_with(&self, writes: Vec<Write>, options: WriteOptions) -> Answer<'_, Vec<Written>> {
        self.answer(move |points| {
            let WriteOptions { each, once, .. } = options;
            let mut requests = self.requests.lock().unwrap();
            if let Some(once) = &once
                && let Some((hash, done)) = requests.get(&once.id)
            {
                if *hash != once.hash {
                    return Err(CollectionError::OtherRequest { id: once.id.clone() }.into());
                }
                if done.step >= once.step {
                    return Err(CollectionError::DoneBefore { done: Arc::clone(done) }.into());
                }
            }
            let written = self.change(points, writes, each)?;
            if let Some(Once { id, step, hash, note }) = once {
                let done = DoneBefore { step, note, written: written.clone() };
                requests.insert(id, (hash, Arc::new(done)));
            }
            Ok(written)
        })
    }

    fn done_before(&self, id: String, hash: [u8; 16]) -> Answer<'_, Option<Arc<DoneBefore>>> {
        self.answer(move |_| match self.requests.lock().unwrap().get(&id) {
            Some((known, _)) if *known != hash => Err(CollectionError::OtherRequest { id }.into()),
            known => Ok(known.map(|(_, done)| Arc::clone(done))),
        })
    }

    fn search(
        &self,
        query: SearchQuery,
        encoded: Option<Vec<f32>>,
        deadline: Option<Instant>,
        reads: Arc<Reads>,
    ) -> Answer<'_, (Vec<Hit>, SearchTrace)> {
        self.answer(move |points| {
            Stop::at(deadline).check().map_err(CollectionError::from)?;
            let vectors = self.vectors(points, &query, encoded)?;
            let asked = if let Ask::Document(id) = &query.ask { id.as_str() } else { "" };
            let allowed = points
                .values()
                .filter(|point| matches(query.filter.as_ref(), point) && point.id.as_str() != asked);
            let mut hits: Vec<Hit> = allowed.flat_map(|point| self.found(point, &query, &vectors)).collect();
            hits.sort_by(|a, b| {
                b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)).then(a.ordinal.cmp(&b.ordinal))
            });
            hits.truncate(query.k);
            hits.retain(|hit| query.score_threshold.is_none_or(|threshold| hit.score >= threshold));
            for hit in &hits {
                reads.room().take(hit.title.len() + hit.passage.len(), hit.payload.len())?;
            }
            Ok((hits, SearchTrace::default()))
        })
    }

    fn get(
        &self,
        ids: Vec<PointId>,
        with_vectors: bool,
        room: Arc<Room>,
    ) -> Answer<'_, Vec<Option<StoredPoint>>> {
        self.answer(move |points| {
            let one = |id| {
                let Some(point) = points.get(&id) else { return Ok(None) };
                room.take(point.text.len(), point.payload.len())?;
                Ok(Some(self.stored(point, true, with_vectors)))
            };
            ids.into_iter().map(one).collect()
        })
    }

    fn points(&self, ids: Vec<PointId>, bytes_max: usize) -> Answer<'_, Vec<Result<Option<Versioned>>>> {
        self.answer(move |points| {
            let (mut read, mut bytes) = (Vec::new(), 0);
            for id in ids {
                if bytes >= bytes_max && !read.is_empty() {
                    break;
                }
                let point = points.get(&id).cloned();
                bytes += point.as_ref().map_or(0, |point| point.text.len());
                read.push(Ok(point.and_then(|point| {
                    let version = self.version(&point.id)?;
                    Some(Versioned { point, version })
                })));
            }
            Ok(read)
        })
    }

    fn revisions(&self, ids: Vec<PointId>) -> Answer<'_, Vec<Option<Revision>>> {
        self.answer(move |points| {
            let revision = |id| {
                let content_hash = points.get(id)?.content_hash;
                Some(Revision { version: self.version(id)?, content_hash })
            };
            Ok(ids.iter().map(revision).collect())
        })
    }

    fn scroll(&self, query: PageQuery, room: Arc<Room>) -> Answer<'_, Page> {
        self.answer(move |points| {
            let from = query.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let range = points.range::<PointId, _>((from, Bound::Unbounded)).map(|(_, point)| point);
            let mut found = range.filter(|point| matches(query.filter.as_ref(), point));
            let mut page = Vec::new();
            for point in found.by_ref().take(query.limit) {
                room.take(point.text.len(), point.payload.len())?;
                page.push(self.stored(point, query.with_text, query.with_vectors));
            }
            let next = found.next().and_then(|_| page.last()).map(|point| point.id.clone());
            Ok(Page { points: page, next, hints: Vec::new() })
        })
    }

    fn count(&self, filter: Option<Filter>) -> Answer<'_, u64> {
        self.answer(move |points| {
            Ok(points.values().filter(|point| matches(filter.as_ref(), point)).count() as u64)
        })
    }

    fn ids(&self, filter: Filter) -> Answer<'_, Vec<PointId>> {
        self.answer(move |points| {
            let matching = points.values().filter(|point| matches(Some(&filter), point));
            Ok(matching.map(|point| point.id.clone()).collect())
        })
    }

    fn hints(&self, _filter: Filter) -> Answer<'_, Vec<String>> {
        self.answer(|_| Ok(Vec::new()))
    }

    fn fields(&self, names: HashSet<String>, _names_max: usize) -> Answer<'_, KnownFields> {
        self.answer(move |points| {
            let known: HashSet<&String> = points.values().flat_map(|point| point.payload.keys()).collect();
            let unknown = names.into_iter().filter(|name| !known.contains(name)).collect();
            Ok(KnownFields { unknown, total: known.len() })
        })
    }

    fn stats(&self, _fields: FieldsRequest) -> Answer<'_, CollectionStats> {
        self.answer(|points| {
            let passages = points.values().map(|point| point.passages.len() as u64).sum();
            Ok(CollectionStats { documents: points.len() as u64, passages, ..CollectionStats::default() })
        })
    }

    fn wait_indexed(&self) -> Answer<'_, ()> {
        self.answer(|_| Ok(()))
    }
}
