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
        Ask, CollectionError, CollectionStats, Outcome, Page, Reads, SearchQuery, SearchTrace, Source, Write,
        point::{ContentHash, Hit, Point, StoredPoint},
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
}

impl Reference {
    pub(super) fn new(dim: Dim, metric: Metric, identity: [u8; 16]) -> Self {
        Reference { dim, metric, identity, points: Mutex::default() }
    }

    /// The answer of `f`, on the first poll.
    fn answer<'a, T: Send + 'a>(
        &'a self,
        f: impl FnOnce(&mut BTreeMap<PointId, Point>) -> Result<T> + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move { f(&mut self.points.lock().unwrap()) })
    }

    fn change(points: &mut BTreeMap<PointId, Point>, writes: Vec<Write>) -> Result<Vec<Outcome>> {
        let mut ids = BTreeSet::new();
        for write in &writes {
            let (Write::Upsert(point) | Write::Replace { point, .. }) = write else { continue };
            if !ids.insert(&point.id) {
                return Err(CollectionError::DuplicateId { id: point.id.as_str().to_owned() }.into());
            }
            if let Write::Replace { expected, .. } = write
                && points.get(&point.id).is_none_or(|stored| stored.content_hash != *expected)
            {
                return Err(CollectionError::Changed { id: point.id.as_str().to_owned() }.into());
            }
        }
        let outcome = |write| match write {
            Write::Delete(id) => points.remove(&id).map_or(Outcome::NotFound, |_| Outcome::Deleted),
            Write::Upsert(point) | Write::Replace { point, .. } => {
                let hash = point.content_hash;
                match points.insert(point.id.clone(), *point) {
                    None => Outcome::Inserted,
                    Some(before) if before.content_hash == hash => Outcome::Unchanged,
                    Some(_) => Outcome::Updated,
                }
            }
        };
        Ok(writes.into_iter().map(outcome).collect())
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
                sources: vec![Source { retriever: "reference", rank: 1, score }],
            });
        }
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.ordinal.cmp(&b.ordinal)));
        hits.truncate(if query.by_passage { usize::MAX } else { 1 });
        hits
    }
}

fn stored(point: &Point, with_text: bool, with_vector: bool) -> StoredPoint {
    StoredPoint {
        id: point.id.clone(),
        title: point.title.clone(),
        text: if with_text { point.text.clone() } else { String::new() },
        payload: point.payload.clone().into(),
        content_hash: point.content_hash,
        passages: point.passages.iter().map(|passage| passage.range.clone()).collect(),
        updated_at: 0,
        vector: with_vector.then(|| point.passages[0].vector.as_slice().to_vec()),
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

    fn write(&self, writes: Vec<Write>) -> Answer<'_, Vec<Outcome>> {
        self.answer(|points| Reference::change(points, writes))
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
                Ok(Some(stored(point, true, with_vectors)))
            };
            ids.into_iter().map(one).collect()
        })
    }

    fn points(&self, ids: Vec<PointId>, bytes_max: usize) -> Answer<'_, Vec<Result<Option<Point>>>> {
        self.answer(move |points| {
            let (mut read, mut bytes) = (Vec::new(), 0);
            for id in ids {
                if bytes >= bytes_max && !read.is_empty() {
                    break;
                }
                let point = points.get(&id).cloned();
                bytes += point.as_ref().map_or(0, |point| point.text.len());
                read.push(Ok(point));
            }
            Ok(read)
        })
    }

    fn content_hashes(&self, ids: Vec<PointId>) -> Answer<'_, Vec<Option<ContentHash>>> {
        self.answer(move |points| {
            Ok(ids.iter().map(|id| points.get(id).map(|point| point.content_hash)).collect())
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
                page.push(stored(point, query.with_text, query.with_vectors));
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

    fn fields(&self, names: HashSet<String>) -> Answer<'_, KnownFields> {
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
