//! The first stage plans a query: what it is compared with, among which documents, and how many can be answered.
//!
//! A snapshot is taken first, and everything is read from it: ids are looked up and the filter is evaluated here, on one
//! thread. What comes after reads the same snapshot.

use std::{sync::Arc, time::Instant};

use roaring::RoaringBitmap;

use super::{Ask, SearchQuery, SearchTrace, candidate::Unit};
use crate::{
    collection::{CollectionError, Shared, memory::Memory, slots::Table},
    index::Slot,
    stop::{Stop, Stopped},
    value::PointId,
    vector::Vector,
};

/// What all later stages go by.
pub(super) struct Plan<'a> {
    pub(super) query: &'a SearchQuery,
    pub(super) stop: &'a Stop,
    /// What the query is compared by; a candidate's score is its best over all of them. None where the query is a text
    /// that was not encoded.
    pub(super) vectors: Vec<Vector>,
    pub(super) view: Arc<Memory>,
    pub(super) allowed: Arc<Allowed>,
    /// Documents, or passages where those are asked for, that could be answered.
    pub(super) reachable: usize,
    /// Hits wanted, at most as many as there can be.
    pub(super) wanted: usize,
}

/// What may be answered. Owned, since a scan shares it with the threads of its pool.
pub(super) struct Allowed {
    pub(super) table: Table,
    /// `None`: all documents.
    pub(super) documents: Option<RoaringBitmap>,
    /// A document that is not answered in any case.
    pub(super) excluded: Option<u32>,
}

impl Allowed {
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.table.doc(slot).is_some_and(|doc| self.has_doc(doc))
    }

    pub(super) fn has_doc(&self, doc: u32) -> bool {
        Some(doc) != self.excluded && self.documents.as_ref().is_none_or(|docs| docs.contains(doc))
    }

    /// Documents that could be answered.
    fn reachable_documents(&self) -> u64 {
        let matching = self.documents.as_ref().map_or(self.table.documents(), RoaringBitmap::len);
        let excluded =
            self.excluded.filter(|doc| self.documents.as_ref().is_none_or(|docs| docs.contains(*doc)));
        matching - u64::from(excluded.is_some())
    }

    /// Passages that could be answered. Looks at every document that may be.
    fn reachable_passages(&self, stop: &Stop) -> Result<u64, Stopped> {
        let passages = |doc: u32| self.table.entry(doc).map_or(0, |entry| u64::from(entry.passages));
        let Some(documents) = &self.documents else {
            return Ok(self.table.live() - self.excluded.map_or(0, passages));
        };
        let mut going = stop.pace();
        let docs = documents.iter().take_while(|_| going()).filter(|doc| Some(*doc) != self.excluded);
        let reachable = docs.map(passages).sum();
        stop.check()?;
        Ok(reachable)
    }
}

impl<'a> Plan<'a> {
    /// Takes a snapshot, and plans.
    ///
    /// # Errors
    /// [`CollectionError::NoDocument`] where the query names one that is not there; [`CollectionError::NotEncoded`];
    /// vector, value and filter errors; [`CollectionError::Stopped`].
    pub(super) fn make(
        shared: &Shared,
        query: &'a SearchQuery,
        encoded: Option<&[f32]>,
        stop: &'a Stop,
        trace: &mut SearchTrace,
    ) -> Result<Self, CollectionError> {
        stop.check()?;
        let spec = &shared.spec;
        let checked = |values| Vector::new(values, spec.dim, spec.metric);
        let (mut vectors, like) = match &query.ask {
            Ask::Text(_) => {
                (encoded.map(|values| checked(values.to_vec())).transpose()?.into_iter().collect(), None)
            }
            Ask::Vector(values) => (vec![checked(values.clone())?], None),
            Ask::Document(id) => (Vec::new(), Some(PointId::new(id.as_str())?)),
        };
        let view = shared.view();
        let like = match like {
            Some(id) => match document_of(&view, &id)? {
                None => return Err(CollectionError::NoDocument { id: id.as_str().to_owned() }),
                found => found,
            },
            None => None,
        };
        let begun = Instant::now();
        let matching = match &query.filter {
            Some(filter) => {
                let places = view.places();
                let matching = places.matching(filter, stop)?;
                trace.hints = places.fields().hints(filter, stop)?;
                let docs = places.docs(&matching, stop)?;
                trace.filter_time = begun.elapsed();
                Some(docs)
            }
            None => None,
        };
        let mut excluded = None;
        if let Some((doc, values)) = like {
            excluded = Some(doc);
            vectors = values.into_iter().map(checked).collect::<Result<_, _>>()?;
        }
        let allowed = Allowed { table: view.table.clone(), documents: matching, excluded };
        trace.matching_documents =
            allowed.documents.as_ref().map_or(view.table.documents(), RoaringBitmap::len);
        let reachable =
            if query.by_passage { allowed.reachable_passages(stop)? } else { allowed.reachable_documents() };
        let reachable = usize::try_from(reachable).unwrap_or(usize::MAX);
        let wanted = query.k.min(reachable);
        Ok(Plan { query, stop, vectors, view, allowed: Arc::new(allowed), reachable, wanted })
    }

    /// What is answered at most once.
    pub(super) fn unit(&self) -> Unit {
        if self.query.by_passage { Unit::Passage } else { Unit::Document }
    }

    /// Lets everything go but the snapshot, which has the documents that were found.
    pub(super) fn into_memory(self) -> Arc<Memory> {
        self.view
    }
}

/// A document with the vectors of its passages.
type Like = (u32, Vec<Vec<f32>>);

/// A document's number and the vectors of its passages; `None` where it is not there.
fn document_of(memory: &Memory, id: &PointId) -> Result<Option<Like>, CollectionError> {
    let Some((doc, entry)) = memory.find(id)? else { return Ok(None) };
    let vectors: Option<Vec<_>> = entry.slots().map(|slot| memory.flat.vector(Slot(slot))).collect();
    Ok(vectors.filter(|vectors| !vectors.is_empty()).map(|vectors| (doc, vectors)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::{point::ContentHash, slots::Entry};

    #[test]
    fn passages_are_counted_until_it_is_time_to_leave_off() {
        let mut table = Table::default();
        for doc in 0..3000 {
            let id = PointId::new(format!("{doc}")).unwrap();
            let (hash, number) = (ContentHash([0; 16]), u64::from(doc));
            table.insert(doc, Arc::new(Entry { id, hash, number, first_slot: 2 * doc, passages: 2 }));
        }
        let documents = Some((0..3000).collect());
        let allowed = Allowed { table, documents, excluded: Some(7) };
        assert_eq!(allowed.reachable_passages(&Stop::default()), Ok(2 * 2999));
        assert_eq!(allowed.reachable_passages(&Stop::at(Some(Instant::now()))), Err(Stopped));
    }
}
