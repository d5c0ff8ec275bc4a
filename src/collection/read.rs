//! Reading documents: by id, page by page, by filter. Searching is in `query/`.
//!
//! A read takes a snapshot and answers from it alone: a document that is deleted meanwhile, or whose segment is merged
//! away, is in there. Nobody waits for a read, and a read waits for nobody.

use std::{collections::HashSet, ops::ControlFlow, sync::Arc};

use super::{
    Collection, CollectionError, Page, Reads, SearchQuery, SearchTrace,
    document::{Opened, PAGE_BYTES},
    memory::Memory,
    point::{Hit, Passage, Point, Revision, StoredPoint, Versioned},
    query,
};
use crate::{
    budget::Room,
    index::{Slot, columns::Known as _},
    stop::Stop,
    store::StoreError,
    value::{PointId, filter::Filter},
    vector::Vector,
};

impl Collection {
    /// Reads from a snapshot that was just taken.
    fn read<T>(
        &self,
        read: impl FnOnce(&Memory) -> Result<T, CollectionError>,
    ) -> Result<T, CollectionError> {
        self.shared.check_open()?;
        self.shared.seen(read(&self.shared.view()))
    }

    /// Which state of a document is stored, if it is there.
    ///
    /// # Errors
    /// [`CollectionError::Closed`]; [`CollectionError::Store`] where a segment is damaged.
    pub fn revision(&self, id: &PointId) -> Result<Option<Revision>, CollectionError> {
        self.read(|memory| {
            let found = memory.find(id)?;
            Ok(found.map(|(_, entry)| Revision { version: entry.version(), content_hash: entry.hash }))
        })
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
        self.read(|memory| {
            let read = |id: &PointId| {
                stop.check()?;
                let Some((_, entry)) = memory.find(id)? else { return Ok(None) };
                let vector = with_vector.then(|| memory.flat.vector(Slot(entry.first_slot))).flatten();
                Opened::read(&self.shared, &memory.documents, entry.number, with_text, vector)?
                    .point(&self.shared, room)
                    .map(Some)
            };
            ids.iter().map(read).collect()
        })
    }

    /// A document with its text and vectors, as it could be written again, and its version; `None` if it is not there.
    ///
    /// # Errors
    /// Store errors.
    pub fn point(&self, id: &PointId) -> Result<Option<Versioned>, CollectionError> {
        self.read(|memory| self.point_in(memory, id))
    }

    fn point_in(&self, memory: &Memory, id: &PointId) -> Result<Option<Versioned>, CollectionError> {
        let Some((_, entry)) = memory.find(id)? else { return Ok(None) };
        let vectors: Option<Vec<_>> = entry.slots().map(|slot| memory.flat.vector(Slot(slot))).collect();
        let vectors = vectors.unwrap_or_default();
        let StoredPoint { id, title, text, payload, content_hash, passages, version, .. } =
            Opened::read(&self.shared, &memory.documents, entry.number, true, None)?
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
        self.shared.seen(query::run(&self.shared, query, encoded, stop, reads))
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
        self.read(|memory| {
            let places = memory.places();
            let matching = filter.map(|filter| places.matching(filter, stop)).transpose()?;
            // Said once, with the first page.
            let first = filter.filter(|_| after.is_none());
            let hints = first.map(|filter| places.fields().hints(filter, stop)).transpose()?;
            let numbers = places.page(matching.as_ref(), after, limit.saturating_add(1), stop)?;
            let page = self.page(memory, numbers, limit, with_text, stop, room)?;
            Ok(Page { hints: hints.unwrap_or_default(), ..page })
        })
    }

    /// Reads the documents of a page, of which one more may be named than it may have.
    fn page(
        &self,
        memory: &Memory,
        mut numbers: Vec<u64>,
        limit: usize,
        with_text: bool,
        stop: &Stop,
        room: &Room,
    ) -> Result<Page, CollectionError> {
        let mut more = numbers.len() > limit;
        numbers.truncate(limit);
        // What is counted is a lower bound of what goes out.
        let page_bytes_max = PAGE_BYTES.min(room.answer_bytes_max() / 2);
        let (mut points, mut page_bytes) = (Vec::new(), 0);
        for number in numbers {
            stop.check()?;
            let opened = Opened::read(&self.shared, &memory.documents, number, with_text, None)?;
            page_bytes += opened.size().bytes;
            if page_bytes > page_bytes_max && !points.is_empty() {
                more = true;
                break;
            }
            points.push(opened.point(&self.shared, room)?);
        }
        let next = if more { points.last().map(|point| point.id.clone()) } else { None };
        Ok(Page { points, next, hints: Vec::new() })
    }

    /// Adds the first passage's vector to documents that were read before. One that was replaced in between is read
    /// anew; one that was deleted stays without.
    ///
    /// # Errors
    /// [`CollectionError::Stopped`]; store errors.
    pub fn add_vectors(&self, points: &mut [StoredPoint], stop: &Stop) -> Result<(), CollectionError> {
        for point in points {
            stop.check()?;
            let found = self.read(|memory| {
                let found = memory.find(&point.id)?;
                Ok(found.map(|(_, entry)| {
                    (entry.version() == point.version, memory.flat.vector(Slot(entry.first_slot)))
                }))
            })?;
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
        self.read(|memory| match filter {
            Some(filter) => Ok(memory.places().matching(filter, stop)?.len()),
            None => Ok(memory.table.documents()),
        })
    }

    /// What should be said of a filter besides its answer; see [`crate::index::columns::FieldIndex::hints`].
    ///
    /// # Errors
    /// [`CollectionError::Closed`], [`CollectionError::Stopped`]; [`CollectionError::Store`] where a segment is damaged.
    pub fn hints(&self, filter: &Filter, stop: &Stop) -> Result<Vec<String>, CollectionError> {
        self.read(|memory| memory.places().fields().hints(filter, stop))
    }

    /// Those of `names` that no document has as a field, and how many fields there are; or some more where even then
    /// `names_max` leaves room for those, since counting them looks at all.
    ///
    /// # Errors
    /// As [`Collection::hints`].
    pub fn unknown_fields(
        &self,
        names: HashSet<String>,
        names_max: usize,
        stop: &Stop,
    ) -> Result<(HashSet<String>, usize), CollectionError> {
        self.read(|memory| {
            let places = memory.places();
            let mut unknown = HashSet::new();
            for name in names {
                stop.check()?;
                if places.fields().held(&name)?.is_none() {
                    unknown.insert(name);
                }
            }
            let most = places.fields().names_most();
            if most + unknown.len() <= names_max {
                return Ok((unknown, most));
            }
            let (mut total, mut going) = (0, stop.pace());
            places.fields().names("", &mut |_| {
                total += 1;
                if going() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            stop.check()?;
            Ok((unknown, total))
        })
    }

    /// Ids of the documents that match, in no order that callers may rely on.
    ///
    /// # Errors
    /// As [`Collection::search`].
    pub fn matching_ids(&self, filter: &Filter, stop: &Stop) -> Result<Vec<PointId>, CollectionError> {
        self.read(|memory| {
            let places = memory.places();
            places.ids(&places.matching(filter, stop)?, stop)
        })
    }
}
