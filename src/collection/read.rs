//! Reading documents: by id, page by page, by filter. Searching is in `query/`.
//!
//! What is answered is looked up under the memory's lock, and read after it from the snapshot of the store that was taken
//! under it: a document that is deleted between the two, or whose segment is merged away, is in there.

use std::{collections::HashSet, sync::Arc};

use super::{
    Collection, CollectionError, Page, Reads, SearchQuery, SearchTrace,
    document::{Opened, PAGE_BYTES},
    point::{Hit, Passage, Point, Revision, StoredPoint, Versioned},
    query,
};
use crate::{
    budget::Room,
    index::Slot,
    stop::Stop,
    store::StoreError,
    value::{PointId, filter::Filter},
    vector::Vector,
};

/// Where fewer than one in so many documents match, a page is made by sorting the matching ids.
const SORT_SHARE: u64 = 16;

impl Collection {
    /// Which state of a document is stored, if it is there. From memory; no disk.
    pub fn revision(&self, id: &PointId) -> Option<Revision> {
        let memory = self.shared.read_memory();
        let (_, entry) = memory.slots.find(id)?;
        Some(Revision { version: entry.version(), content_hash: entry.hash })
    }

    /// Stored documents in the order asked; `None` for those not there. Each takes its place in `room` before its text
    /// is read.
    ///
    /// # Errors
    /// [`CollectionError::Budget`]; store errors.
    pub fn get(
        &self,
        ids: &[PointId],
        with_text: bool,
        with_vector: bool,
        stop: &Stop,
        room: &Room,
    ) -> Result<Vec<Option<StoredPoint>>, CollectionError> {
        self.shared.check_open()?;
        if with_vector {
            // They are copied all at once, while the memory is held.
            room.keep(ids.len().saturating_mul(self.shared.spec.dim.len() * size_of::<f32>()), 0)?;
        }
        let (found, documents) = {
            let memory = self.shared.read_memory();
            let found: Vec<Option<(u64, Option<Vec<f32>>)>> = ids
                .iter()
                .map(|id| {
                    let (_, entry) = memory.slots.find(id)?;
                    let vector = with_vector.then(|| memory.flat.vector(Slot(entry.first_slot))).flatten();
                    Some((entry.number, vector))
                })
                .collect();
            (found, memory.documents.clone())
        };
        found
            .into_iter()
            .map(|found| {
                stop.check()?;
                let Some((number, vector)) = found else { return Ok(None) };
                Opened::read(&self.shared, &documents, number, with_text, vector)?
                    .point(&self.shared, room)
                    .map(Some)
            })
            .collect()
    }

    /// A document with its text and vectors, as it could be written again, and its version; `None` if it is not there.
    ///
    /// # Errors
    /// Store errors.
    pub fn point(&self, id: &PointId) -> Result<Option<Versioned>, CollectionError> {
        self.shared.check_open()?;
        let (number, vectors, documents) = {
            let memory = self.shared.read_memory();
            let Some((_, entry)) = memory.slots.find(id) else { return Ok(None) };
            let vectors: Option<Vec<_>> = entry.slots().map(|slot| memory.flat.vector(Slot(slot))).collect();
            (entry.number, vectors.unwrap_or_default(), memory.documents.clone())
        };
        let StoredPoint { id, title, text, payload, content_hash, passages, version, .. } =
            Opened::read(&self.shared, &documents, number, true, None)?
                .point(&self.shared, &Room::unbounded())?;
        let spec = &self.shared.spec;
        let passages = passages
            .into_iter()
            .zip(vectors)
            .map(|(range, values)| {
                // What is stored was checked when it came; a unit vector keeps its bits.
                let vector = Vector::new(values, spec.dim, spec.metric).map_err(|e| {
                    StoreError::corrupt(self.shared.store.dir(), format!("a vector of {id}: {e}"))
                })?;
                Ok(Passage { range, vector })
            })
            .collect::<Result<_, CollectionError>>()?;
        let payload = Arc::unwrap_or_clone(payload);
        let point = Point { id, title, text, payload, content_hash, passages };
        Ok(Some(Versioned { point, version }))
    }

    /// The best documents (or passages), best first: with a filter or without, min(k, documents that may be answered)
    /// hits, always, unless a score threshold leaves some out. `encoded` is the vector of the query's text, if it is a
    /// text. Hits take their place in the room of `reads`, and share with other searches of one request what those read.
    ///
    /// # Errors
    /// [`CollectionError::NoDocument`]; [`CollectionError::NotEncoded`]; [`CollectionError::Budget`];
    /// [`CollectionError::Stopped`]; vector, filter and store errors.
    pub fn search(
        &self,
        query: &SearchQuery,
        encoded: Option<&[f32]>,
        stop: &Stop,
        reads: &Reads,
    ) -> Result<(Vec<Hit>, SearchTrace), CollectionError> {
        self.shared.check_open()?;
        query::run(&self.shared, query, encoded, stop, reads)
    }

    /// A page of documents after `after`, ordered by id. It closes early, with at least one document, before it has more
    /// than about [`PAGE_BYTES`].
    ///
    /// # Errors
    /// [`CollectionError::Budget`]; as [`Collection::search`].
    pub fn scroll(
        &self,
        filter: Option<&Filter>,
        after: Option<&PointId>,
        limit: usize,
        with_text: bool,
        stop: &Stop,
        room: &Room,
    ) -> Result<Page, CollectionError> {
        self.shared.check_open()?;
        let (mut numbers, hints, documents) = {
            let memory = self.shared.read_memory();
            let matching = filter.map(|filter| memory.fields.matching(filter, stop)).transpose()?;
            // Said once, with the first page.
            let first = filter.filter(|_| after.is_none());
            let hints =
                first.map(|filter| memory.fields.hints(filter, stop)).transpose()?.unwrap_or_default();
            let take = limit.saturating_add(1);
            let mut going = stop.pace();
            let docs: Vec<u32> = match &matching {
                Some(matching) if matching.len() * SORT_SHARE < memory.slots.documents() => {
                    let mut ids: Vec<(&PointId, u32)> = matching
                        .iter()
                        .take_while(|_| going())
                        .filter_map(|doc| Some((&memory.slots.entry(doc)?.id, doc)))
                        .filter(|(id, _)| after.is_none_or(|after| *id > after))
                        .collect();
                    ids.sort_unstable();
                    ids.into_iter().take(take).map(|(_, doc)| doc).collect()
                }
                _ => memory
                    .slots
                    .after(after)
                    .take_while(|_| going())
                    .map(|(_, doc)| doc)
                    .filter(|doc| matching.as_ref().is_none_or(|matching| matching.contains(*doc)))
                    .take(take)
                    .collect(),
            };
            // What was walked may be incomplete.
            stop.check()?;
            let number = |doc: &u32| memory.slots.entry(*doc).map(|entry| entry.number);
            let numbers: Vec<u64> = docs.iter().filter_map(number).collect();
            (numbers, hints, memory.documents.clone())
        };
        let mut more = numbers.len() > limit;
        numbers.truncate(limit);
        // What is counted is a lower bound of what goes out.
        let page_bytes_max = PAGE_BYTES.min(room.answer_bytes_max() / 2);
        let (mut points, mut page_bytes) = (Vec::new(), 0);
        for number in numbers {
            stop.check()?;
            let opened = Opened::read(&self.shared, &documents, number, with_text, None)?;
            page_bytes += opened.size().bytes;
            if page_bytes > page_bytes_max && !points.is_empty() {
                more = true;
                break;
            }
            points.push(opened.point(&self.shared, room)?);
        }
        let next = if more { points.last().map(|point| point.id.clone()) } else { None };
        Ok(Page { points, next, hints })
    }

    /// Adds the first passage's vector to documents that were read before. One that was replaced in between is read
    /// anew; one that was deleted stays without.
    ///
    /// # Errors
    /// [`CollectionError::Stopped`]; store errors.
    pub fn add_vectors(&self, points: &mut [StoredPoint], stop: &Stop) -> Result<(), CollectionError> {
        for point in points {
            stop.check()?;
            let found = {
                let memory = self.shared.read_memory();
                let entry =
                    memory.slots.find(&point.id).map(|(_, entry)| (entry.version(), entry.first_slot));
                entry.map(|(version, slot)| (version == point.version, memory.flat.vector(Slot(slot))))
            };
            match found {
                Some((true, vector)) => point.vector = vector,
                Some((false, _)) => {
                    let with_text = !point.text.is_empty();
                    let fresh =
                        self.get(std::slice::from_ref(&point.id), with_text, true, stop, &Room::unbounded())?;
                    if let Some(fresh) = fresh.into_iter().next().flatten() {
                        *point = fresh;
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Documents that match.
    ///
    /// # Errors
    /// As [`Collection::search`].
    pub fn count(&self, filter: Option<&Filter>, stop: &Stop) -> Result<u64, CollectionError> {
        self.shared.check_open()?;
        let memory = self.shared.read_memory();
        match filter {
            Some(filter) => Ok(memory.fields.matching(filter, stop)?.len()),
            None => Ok(memory.slots.documents()),
        }
    }

    /// What should be said of a filter besides its answer; see [`crate::index::columns::FieldIndex::hints`].
    ///
    /// # Errors
    /// [`CollectionError::Closed`], [`CollectionError::Stopped`].
    pub fn hints(&self, filter: &Filter, stop: &Stop) -> Result<Vec<String>, CollectionError> {
        self.shared.check_open()?;
        Ok(self.shared.read_memory().fields.hints(filter, stop)?)
    }

    /// Those of `names` that no document has as a field, and how many fields there are. From memory; no disk.
    pub fn unknown_fields(&self, mut names: HashSet<String>) -> (HashSet<String>, usize) {
        let memory = self.shared.read_memory();
        names.retain(|name| !memory.fields.has(name));
        (names, memory.fields.names())
    }

    /// Ids of the documents that match, in no order that callers may rely on.
    ///
    /// # Errors
    /// As [`Collection::search`].
    pub fn matching_ids(&self, filter: &Filter, stop: &Stop) -> Result<Vec<PointId>, CollectionError> {
        self.shared.check_open()?;
        let memory = self.shared.read_memory();
        let matching = memory.fields.matching(filter, stop)?;
        let mut going = stop.pace();
        let docs = matching.iter().take_while(|_| going());
        let ids = docs.filter_map(|doc| Some(memory.slots.entry(doc)?.id.clone())).collect();
        stop.check()?;
        Ok(ids)
    }
}
