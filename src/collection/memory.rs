//! What readers read: everything of a collection at one moment, but titles, texts and payload values, which stay in the
//! store; and a snapshot of the store, in which every document that is known here can be read.
//!
//! A reader takes an [`Arc`] of it and keeps it for as long as it likes: it never changes, so nobody who reads waits for
//! anybody who writes, and the other way round. A change makes another one, which shares with the one before all that is
//! the same, and puts it in its place; changes come one after the other.
//!
//! What was replaced together with segments is large, so it is handed to the indexer, which frees it when nobody reads it
//! any more: never under a lock, never by a query.

use std::sync::Arc;

use super::{
    CollectionError, Write,
    fresh::Fresh,
    places::{Places, RowDocs},
    point::Point,
    slots::{Entry, Table},
};
use crate::{
    index::{FlatIndex, IndexError, Slot, VectorIndex},
    segmented::{IdHash, Snapshot},
    store::StoreError,
    value::PointId,
    vector::{Dim, Metric},
};

/// The searchable state of a collection. A clone costs some dozens of reference counts.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    /// Documents by their numbers in memory, and their slots.
    pub(super) table: Table,
    /// Ids and fields of those that no segment of `documents` has.
    pub(super) fresh: Fresh,
    /// Has every document of `table`, whatever becomes of the segments that they lie in.
    pub(super) documents: Snapshot,
    /// Of each segment of `documents`.
    pub(super) rows: Arc<Vec<RowDocs>>,
    /// Every vector that counts, and tombstones until the next rebuild. May hold vectors that came later; the table does
    /// not know them.
    pub(super) flat: Arc<FlatIndex>,
    /// The graph, where the collection has one and it is usable.
    pub(super) graph: Option<Graph>,
    /// Counts how often documents and slots were given other numbers since the collection was opened.
    pub(super) numbering: u64,
}

/// A graph and how far it got.
#[derive(Debug, Clone)]
pub(super) struct Graph {
    pub(super) index: Arc<dyn VectorIndex>,
    /// Every slot that counts and is below is inside; the others are scanned.
    pub(super) indexed: u32,
}

/// A document to be added.
pub(super) struct Arrival {
    pub(super) doc: u32,
    pub(super) entry: Entry,
    /// The write that stores it: those of its call, and which of them.
    pub(super) write: (Arc<[Write]>, usize),
}

impl Arrival {
    fn point(&self) -> &Point {
        let (writes, at) = &self.write;
        writes[*at].point().expect("what arrives is stored")
    }
}

/// Why a durable batch cannot be made searchable: a bug of ours, or damage of a segment.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("the segments have other documents than are known")]
    OtherDocuments,
}

impl Memory {
    /// Nothing, whatever `documents` has: it is filled next.
    pub(super) fn new(dim: Dim, metric: Metric, documents: Snapshot) -> Self {
        Memory {
            table: Table::default(),
            fresh: Fresh::default(),
            documents,
            rows: Arc::default(),
            flat: Arc::new(FlatIndex::new(dim, metric)),
            graph: None,
            numbering: 0,
        }
    }

    /// Takes over a durable batch, after which `documents` was taken.
    ///
    /// # Errors
    /// [`ApplyError`]; it is of no use then.
    pub(super) fn apply(
        &mut self,
        departures: &[u32],
        arrivals: &[Arrival],
        documents: Snapshot,
    ) -> Result<(), ApplyError> {
        let items: Vec<(Slot, &[f32])> = arrivals
            .iter()
            .flat_map(|a| {
                let vectors = a.point().passages.iter().map(|passage| passage.vector.as_slice());
                a.entry.slots().map(Slot).zip(vectors)
            })
            .collect();
        self.flat.insert(&items)?;
        for doc in departures {
            self.table.remove(*doc);
            self.fresh.remove(*doc);
        }
        if !arrivals.is_empty() {
            let table = &mut self.table;
            self.fresh.add(arrivals.iter().map(|arrival| {
                let entry = Arc::new(arrival.entry.clone());
                table.insert(arrival.doc, Arc::clone(&entry));
                (arrival.doc, entry, &arrival.point().payload)
            }));
        }
        self.read_from(documents)
    }

    /// Reads documents from another snapshot of the store, which has the same ones. Those that lie in segments now are
    /// known by these.
    ///
    /// # Errors
    /// [`ApplyError::OtherDocuments`].
    pub(super) fn read_from(&mut self, documents: Snapshot) -> Result<(), ApplyError> {
        if !documents.has_segments_of(&self.documents) {
            self.documents = documents;
            return self.place();
        }
        self.documents = documents;
        Ok(())
    }

    /// Finds out where the documents of the table lie.
    ///
    /// # Errors
    /// [`ApplyError::OtherDocuments`].
    pub(super) fn place(&mut self) -> Result<(), ApplyError> {
        if let Some(last) = self.documents.parts().last() {
            self.fresh.leave_to_segments(last.last());
        }
        let rows = RowDocs::of(&self.documents, &self.table, &self.fresh);
        self.rows = Arc::new(rows.ok_or(ApplyError::OtherDocuments)?);
        Ok(())
    }

    /// A document by id, with its number in memory.
    ///
    /// # Errors
    /// [`CollectionError::Store`] where a segment is damaged.
    pub(super) fn find(&self, id: &PointId) -> Result<Option<(u32, &Entry)>, CollectionError> {
        let hash = IdHash::of(id);
        if let Some(doc) = self.fresh.find(id, hash) {
            return Ok(self.table.entry(doc).map(|entry| (doc, entry)));
        }
        // What was written last is asked for most.
        for (part, rows) in self.documents.parts().iter().zip(&*self.rows).rev() {
            let Some(row) = part.find(id, hash)? else { continue };
            let doc = rows.doc(row);
            let entry = doc.and_then(|doc| Some((doc, self.table.entry(doc)?)));
            return match entry.filter(|(_, entry)| entry.id == *id) {
                Some(found) => Ok(Some(found)),
                None => Err(StoreError::corrupt(
                    part.path(),
                    format!("it names another document {id:?} than is known"),
                )
                .into()),
            };
        }
        Ok(None)
    }

    /// Whether it has something large that the one after it has not: it is freed apart.
    pub(super) fn is_larger_than(&self, next: &Memory) -> bool {
        !next.documents.has_segments_of(&self.documents) || next.numbering != self.numbering
    }

    /// Where all documents lie.
    pub(super) fn places(&self) -> Places<'_> {
        Places::of(self)
    }

    /// Slots that count and that the graph does not have.
    pub(super) fn tail(&self) -> impl Iterator<Item = Slot> {
        self.table.live_from(self.graph.as_ref().map_or(0, |graph| graph.indexed))
    }
}
