//! Counts and sizes of a collection, and how far its index is.

use super::{Collection, CollectionError};
use crate::{
    index::{
        IndexKind, VectorIndex as _,
        columns::{FieldsReport, FieldsRequest},
    },
    stop::Stop,
};

/// Counts and sizes of a collection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CollectionStats {
    /// Documents stored.
    pub documents: u64,
    /// Passages stored; each has one vector.
    pub passages: u64,
    /// Passages whose vectors the index answers; the others are scanned.
    pub indexed: u64,
    /// Vectors of deleted passages that the index still holds.
    pub tombstones: u64,
    /// Size of the collection's folder and of its part of the log in bytes; 0 where it was not looked at.
    pub disk_bytes: u64,
    /// Segments that its documents lie in.
    pub segments: u64,
    /// Documents that are deleted or replaced and whose space on the disk is not taken back yet.
    pub dead_documents: u64,
    /// Bytes that lie in the log and in memory, and in no segment yet.
    pub unsealed_bytes: u64,
    /// Size of the passages' vectors in bytes.
    pub vector_bytes: u64,
    /// Payload fields that were asked for; empty where none were.
    pub fields: FieldsReport,
}

impl Collection {
    /// The collection's counts. It looks at every file for `disk_bytes`.
    pub fn stats(&self) -> CollectionStats {
        let counts = self.counts();
        let disk_bytes = crate::store::disk::folder_bytes(&self.shared.dir) + counts.unsealed_bytes;
        CollectionStats { disk_bytes, ..counts }
    }

    /// [`Collection::stats`], and the fields that are asked for.
    ///
    /// # Errors
    /// [`CollectionError::Stopped`]; [`CollectionError::Store`] where a segment is damaged.
    pub fn stats_with(&self, asked: &FieldsRequest, stop: &Stop) -> Result<CollectionStats, CollectionError> {
        let fields = self.shared.seen(self.shared.view().places().fields().stats(asked, stop))?;
        Ok(CollectionStats { fields, ..self.stats() })
    }

    /// The counts of [`Collection::stats`] without `disk_bytes` and `fields`. It is cheap and touches no disk.
    pub fn counts(&self) -> CollectionStats {
        let view = self.shared.view();
        let stored = self.shared.store.stats();
        let passages = view.table.live();
        // Where there is no graph, the exact index is the index.
        let (inside, indexed, alive) = match &view.graph {
            Some(graph) => {
                let indexed = passages - view.table.live_count_from(graph.indexed);
                (graph.index.len() as u64, indexed, indexed)
            }
            None if self.shared.spec.index.kind == IndexKind::Flat => {
                (view.flat.len() as u64, passages, passages)
            }
            None => (view.flat.len() as u64, 0, passages),
        };
        CollectionStats {
            documents: view.table.documents(),
            passages,
            indexed,
            tombstones: inside.saturating_sub(alive),
            disk_bytes: 0,
            segments: stored.segments as u64,
            dead_documents: stored.dead,
            unsealed_bytes: stored.unsealed_bytes,
            vector_bytes: passages * self.shared.spec.dim.len() as u64 * size_of::<f32>() as u64,
            fields: FieldsReport::default(),
        }
    }

    /// Whether its graph has every vector, or will never have; closing it loses no work then.
    pub fn is_settled(&self) -> bool {
        self.shared.spec.index.kind == IndexKind::Flat
            || self.shared.view().tail().next().is_none()
            || self.shared.signal.has_given_up()
    }

    /// Waits until every vector that was durable at the call is in the graph. For tests and benches.
    pub fn wait_indexed(&self) {
        self.wait_indexed_until(&Stop::default());
    }

    /// [`Collection::wait_indexed`], or until it is stopped.
    pub(crate) fn wait_indexed_until(&self, stop: &Stop) {
        if self.shared.spec.index.kind == IndexKind::Flat {
            return;
        }
        let end = self.shared.view().table.end();
        self.shared.wake_indexer();
        let is_level = || self.shared.view().tail().next().is_none_or(|slot| slot.0 >= end);
        self.shared.signal.wait_until(|| stop.is_asked() || is_level());
    }
}
