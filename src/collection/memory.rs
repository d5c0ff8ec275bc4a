//! What searches read: everything of a collection but titles, texts and payload values, which stay in the store; and a
//! snapshot of the store, in which every document that is known here can be read.
//!
//! One read-write lock guards it. The writer holds it to write for the update of one bounded batch that is already
//! durable. Readers hold it to look up ids and to evaluate a filter, on one thread; what they compare vectors with is
//! a [`View`], which they own and which needs no lock.
//!
//! Nobody who holds the lock goes parallel or waits for anything: a search runs on a pool, and a worker of a pool that
//! waits takes up another search on its own stack, which would ask for the lock that it holds.

use std::sync::Arc;

use super::slots::{Entry, Slots, Table};
use crate::{
    index::{FlatIndex, Slot, VectorIndex, columns::FieldIndex},
    segmented::Snapshot,
    value::Payload,
    vector::{Dim, Metric},
};

/// The searchable state of a collection.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) slots: Slots,
    pub(super) fields: FieldIndex,
    /// Every vector that counts, and tombstones until the next rebuild.
    pub(super) flat: Arc<FlatIndex>,
    /// The graph, where the collection has one and it is usable.
    pub(super) graph: Option<Graph>,
    /// Has every document of `slots`, whatever becomes of the segments that they lie in.
    pub(super) documents: Snapshot,
    /// Counts how often documents and slots were given other numbers since the collection was opened.
    pub(super) numbering: u64,
}

/// What a search compares vectors with: of one moment, and without a lock.
#[derive(Debug)]
pub(super) struct View {
    pub(super) table: Table,
    /// May hold vectors that came later; the table does not know them.
    pub(super) flat: Arc<FlatIndex>,
    pub(super) graph: Option<Graph>,
    /// Has every document of the table.
    pub(super) documents: Snapshot,
    /// See [`Memory::numbering`].
    pub(super) numbering: u64,
}

/// A graph and how far it got.
#[derive(Debug, Clone)]
pub(super) struct Graph {
    pub(super) index: Arc<dyn VectorIndex>,
    /// Every slot that counts and is below is inside; the others are scanned.
    pub(super) indexed: u32,
}

/// A document to be added, its vectors still outside.
pub(super) struct Arrival {
    pub(super) doc: u32,
    pub(super) entry: Entry,
    pub(super) payload: Payload,
    pub(super) vectors: Vec<crate::vector::Vector>,
}

/// A document to be removed.
pub(super) struct Departure {
    pub(super) doc: u32,
    pub(super) payload: Payload,
}

impl Memory {
    pub(super) fn new(dim: Dim, metric: Metric, documents: Snapshot) -> Self {
        Memory {
            slots: Slots::default(),
            fields: FieldIndex::default(),
            flat: Arc::new(FlatIndex::new(dim, metric)),
            graph: None,
            documents,
            numbering: 0,
        }
    }

    /// Takes the place of `self`, with other numbers for the same documents. Returns what was there.
    pub(super) fn renumber(&mut self, mut new: Memory) -> Memory {
        new.numbering = self.numbering + 1;
        std::mem::replace(self, new)
    }

    /// Takes over a durable batch, after which `documents` was taken.
    pub(super) fn apply(
        &mut self,
        departures: &[Departure],
        arrivals: Vec<Arrival>,
        documents: Snapshot,
    ) -> Result<(), crate::index::IndexError> {
        let items: Vec<(Slot, &[f32])> = arrivals
            .iter()
            .flat_map(|a| a.entry.slots().map(Slot).zip(a.vectors.iter().map(|v| v.as_slice())))
            .collect();
        self.flat.insert(&items)?;
        for Departure { doc, payload } in departures {
            self.slots.remove(*doc);
            self.fields.remove(*doc, payload);
        }
        for Arrival { doc, entry, payload, .. } in arrivals {
            self.slots.insert(doc, entry);
            self.fields.insert(doc, &payload);
        }
        self.documents = documents;
        Ok(())
    }

    /// Everything as it is now; costs a few reference counts.
    pub(super) fn view(&self) -> View {
        View {
            table: self.slots.table().clone(),
            flat: Arc::clone(&self.flat),
            graph: self.graph.clone(),
            documents: self.documents.clone(),
            numbering: self.numbering,
        }
    }
}

impl View {
    /// Slots that count and that the graph does not have.
    pub(super) fn tail(&self) -> impl Iterator<Item = Slot> {
        self.table.live_from(self.graph.as_ref().map_or(0, |graph| graph.indexed))
    }
}
