//! What a collection holds, as of the last entry of the log that was applied, and snapshots of it.
//!
//! Every document is in one place: in a sealed part, in the part that is being sealed, or in the growing part. The lock
//! around [`State`] is held to look at these lists or to change them, never while bytes are read from a disk.

use std::{path::Path, sync::Arc};

use roaring::RoaringBitmap;

use super::{
    Head, IdHash, Living,
    entries::{Batch, Carried, Entry, Gone, Put},
    growing::{Change, Growing},
    sealed::Sealed,
};
use crate::{store::StoreError, value::PointId};

/// A sealed segment, and which of its documents are gone.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(super) sealed: Arc<Sealed>,
    pub(super) deleted: Arc<RoaringBitmap>,
    /// Vectors of documents that are not deleted.
    pub(super) live_passages: u64,
    pub(super) saved: Saved,
}

/// The last file that says which documents of a part are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Saved {
    /// 0: there is none.
    pub(super) version: u64,
    /// Documents that it says are deleted.
    pub(super) deleted: u64,
    /// Vectors of the others.
    pub(super) live_passages: u64,
}

/// A document of a sealed part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) row: u32,
    pub(super) passages: u32,
}

/// A part that takes no more documents because it is being sealed.
#[derive(Debug, Clone)]
pub(super) struct Frozen {
    pub(super) part: Arc<Growing>,
    /// Sequence of the last entry applied to it.
    pub(super) covered: u64,
    /// Every document number given out until then is below.
    pub(super) next: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct State {
    /// In the order of their documents, which do not overlap.
    pub(super) parts: Arc<Vec<Part>>,
    pub(super) frozen: Option<Frozen>,
    pub(super) growing: Arc<Growing>,
    /// Documents that are not buried, and their vectors.
    pub(super) documents: u64,
    pub(super) passages: u64,
    /// Of the last entry applied.
    pub(super) sequence: u64,
    /// Every document number given out is below.
    pub(super) next: u64,
    /// Every document with a number below that is in no part is gone.
    sealed_next: u64,
    /// Counts how often a part took the place of others: what was located before is located again.
    pub(super) generation: u64,
}

/// Row of a document in a sealed part, found before the lock is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located {
    segment: u32,
    row: u32,
}

impl Part {
    /// A part of which nothing is deleted.
    pub(super) fn new(sealed: Arc<Sealed>) -> Self {
        let live_passages = sealed.passages();
        let saved = Saved { version: 0, deleted: 0, live_passages };
        Part { sealed, deleted: Arc::default(), live_passages, saved }
    }

    /// Marks documents as deleted; those that are already are marked no more.
    pub(super) fn delete(&mut self, rows: &[Row]) {
        let deleted = Arc::make_mut(&mut self.deleted);
        for Row { row, passages } in rows {
            if deleted.insert(*row) {
                self.live_passages -= u64::from(*passages);
            }
        }
    }

    /// Rows of the documents that are there. Whatever reads a segment's documents asks here which they are, and nowhere
    /// else: what expires is left out here one day.
    pub(crate) fn living(&self) -> RoaringBitmap {
        self.sealed.segment().columns().rows() - &*self.deleted
    }

    /// Their fields, where `living` is what [`Part::living`] answered.
    pub(crate) fn fields<'a>(&'a self, living: &'a RoaringBitmap) -> Living<'a> {
        self.sealed.segment().columns().living(living)
    }

    /// Rows of all documents, the deleted ones too.
    #[cfg(test)]
    pub(crate) fn rows(&self) -> u32 {
        self.sealed.rows()
    }

    /// The folder of the segment.
    pub(crate) fn path(&self) -> &Path {
        self.sealed.segment().path()
    }

    /// Number of its last document.
    pub(crate) fn last(&self) -> u64 {
        self.sealed.last()
    }

    /// The row of an id, if its document is there.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Io`].
    pub(crate) fn find(&self, id: &PointId, hash: IdHash) -> Result<Option<u32>, StoreError> {
        Ok(self.sealed.find(id, hash)?.filter(|row| !self.deleted.contains(*row)))
    }

    /// The id of a row.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Io`].
    pub(crate) fn id_of(&self, row: u32) -> Result<PointId, StoreError> {
        self.sealed.id_of(row)
    }

    /// The number of the document of a row.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Io`].
    pub(crate) fn number_of(&self, row: u32) -> Result<u64, StoreError> {
        self.sealed.number_of(row)
    }

    /// Ids with their rows in the order of the ids, from the one behind `after` on, deleted ones too.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Io`].
    pub(crate) fn scroll<'a>(
        &'a self,
        after: Option<&PointId>,
    ) -> Result<impl Iterator<Item = Result<(PointId, u32), StoreError>> + use<'a>, StoreError> {
        let scroll = self.sealed.segment().scroll(after)?;
        Ok(scroll.map(|found| found.map(|(id, row)| (id, row.0)).map_err(StoreError::from)))
    }

    /// Documents that are not deleted.
    pub(super) fn live(&self) -> u64 {
        u64::from(self.sealed.rows()) - self.deleted.len()
    }

    /// Whether documents were deleted that no file says.
    pub(super) fn is_unsaved(&self) -> bool {
        self.deleted.len() != self.saved.deleted
    }
}

impl State {
    /// What the manifest says, and nothing of the log.
    pub(super) fn new(parts: Vec<Part>, covered: u64, next: u64) -> Self {
        State {
            documents: parts.iter().map(Part::live).sum(),
            passages: parts.iter().map(|part| part.live_passages).sum(),
            parts: Arc::new(parts),
            frozen: None,
            growing: Arc::default(),
            sequence: covered,
            next,
            sealed_next: next,
            generation: 0,
        }
    }

    /// Applies an entry. `located` are the rows of what it buries, as far as [`Snapshot::locate`] found any.
    pub(super) fn apply(&mut self, sequence: u64, entry: &Entry, located: &[Option<Located>]) {
        let (puts, buried, requests) = match entry {
            Entry::Batch(Batch { puts, buried, requests, .. }) => (puts, buried, requests),
            Entry::Carried(Carried { next, puts, buried, requests, .. }) => {
                self.next = self.next.max(*next);
                (puts, buried, requests)
            }
        };
        self.growing.note(requests);
        for put in puts {
            self.put(put);
        }
        for (at, gone) in buried.iter().enumerate() {
            self.bury(*gone, located.get(at).copied().flatten());
        }
        debug_assert!(sequence > self.sequence, "entries are applied in order");
        self.sequence = sequence;
        self.growing.applied(sequence);
    }

    fn put(&mut self, put: &Arc<Put>) {
        // An entry that carries forward may say again what was sealed since.
        if put.number < self.sealed_next {
            return;
        }
        self.next = self.next.max(put.number + 1);
        if let Change::One(passages) = self.growing.put(put) {
            self.documents += 1;
            self.passages += u64::from(passages);
        }
    }

    fn bury(&mut self, gone: Gone, located: Option<Located>) {
        let change = if gone.number >= self.sealed_next {
            self.growing.bury(gone)
        } else {
            self.growing.bury_elsewhere(gone);
            match &self.frozen {
                Some(frozen) if frozen.part.get(gone.number).is_some() => frozen.part.bury(gone),
                _ => self.delete(gone, located),
            }
        };
        if let Change::One(passages) = change {
            self.documents -= 1;
            self.passages -= u64::from(passages);
        }
    }

    /// Marks a document of a sealed part as deleted, if any has it.
    fn delete(&mut self, gone: Gone, located: Option<Located>) -> Change {
        let Some(Located { segment, row }) = located else { return Change::None };
        let Some(at) = self.parts.iter().position(|part| part.sealed.number() == segment) else {
            return Change::None;
        };
        if self.parts[at].deleted.contains(row) {
            return Change::None;
        }
        Arc::make_mut(&mut self.parts)[at].delete(&[Row { row, passages: gone.passages }]);
        Change::One(gone.passages)
    }

    /// Begins a new growing part; the one before takes no more documents. Nothing to do where one is frozen already, or
    /// nothing grew.
    pub(super) fn freeze(&mut self) {
        if self.frozen.is_none() && !self.growing.is_empty() {
            let part = std::mem::take(&mut self.growing);
            self.frozen = Some(Frozen { part, covered: self.sequence, next: self.next });
            self.sealed_next = self.next;
        }
    }

    /// Puts other sealed parts in place of those that there are.
    pub(super) fn replace(&mut self, parts: Vec<Part>) {
        self.parts = Arc::new(parts);
        self.generation += 1;
    }

    /// Sequence of the first entry of the log that is needed to make anew what no segment holds.
    pub(super) fn needed(&self) -> Option<u64> {
        let frozen = self.frozen.as_ref().and_then(|frozen| frozen.part.first());
        frozen.or_else(|| self.growing.first())
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            parts: Arc::clone(&self.parts),
            frozen: self.frozen.as_ref().map(|frozen| Arc::clone(&frozen.part)),
            growing: Arc::clone(&self.growing),
        }
    }

    /// Documents that are not buried and that no segment holds yet, in the order of their numbers.
    pub(super) fn live_unsealed(&self) -> Vec<Arc<Put>> {
        let mut puts = self.frozen.as_ref().map(|frozen| frozen.part.live().0).unwrap_or_default();
        puts.append(&mut self.growing.live().0);
        puts
    }
}

/// The documents of a collection at one time. Whatever is sealed, merged or buried meanwhile, each of them can be read
/// for as long as this is held: it keeps the files. Cheap to make and to clone.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(super) parts: Arc<Vec<Part>>,
    frozen: Option<Arc<Growing>>,
    growing: Arc<Growing>,
}

/// Where a document is.
enum Place<'a> {
    Growing(Arc<Put>),
    Sealed(&'a Sealed, u32),
}

impl Snapshot {
    /// The sealed segments, in the order of their documents, which do not overlap.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether it has the same segments as another snapshot, whatever was deleted of them.
    pub(crate) fn has_segments_of(&self, other: &Snapshot) -> bool {
        let numbers =
            |snapshot: &Snapshot| snapshot.parts.iter().map(|part| part.sealed.number()).collect::<Vec<_>>();
        Arc::ptr_eq(&self.parts, &other.parts) || numbers(self) == numbers(other)
    }

    fn place(&self, number: u64) -> Result<Option<Place<'_>>, StoreError> {
        if let Some(put) =
            self.growing.get(number).or_else(|| self.frozen.as_ref().and_then(|part| part.get(number)))
        {
            return Ok(Some(Place::Growing(put)));
        }
        Ok(self.sealed(number)?.map(|(sealed, row)| Place::Sealed(sealed, row)))
    }

    fn sealed(&self, number: u64) -> Result<Option<(&Sealed, u32)>, StoreError> {
        let at = self.parts.partition_point(|part| part.sealed.last() < number);
        let Some(part) = self.parts.get(at) else { return Ok(None) };
        Ok(part.sealed.row(number)?.map(|row| (&*part.sealed, row)))
    }

    /// Where the documents that an entry buries lie, for those that lie in a sealed part.
    pub(super) fn locate(&self, entry: &Entry) -> Result<Vec<Option<Located>>, StoreError> {
        let buried = match entry {
            Entry::Batch(batch) => &batch.buried,
            Entry::Carried(carried) => &carried.buried,
        };
        let locate = |gone: &Gone| {
            let found = self.sealed(gone.number)?;
            Ok(found.map(|(sealed, row)| Located { segment: sealed.number(), row }))
        };
        buried.iter().map(locate).collect()
    }

    /// The head of a document, buried or not; `None` if its number was never given out, or the document was buried and
    /// its space taken back before this snapshot was made.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Io`].
    pub(crate) fn head(&self, number: u64, dir: &Path) -> Result<Option<Head>, StoreError> {
        self.place(number)?.map_or(Ok(None), |place| match place {
            Place::Growing(put) => Head::of(&put, dir).map(Some),
            Place::Sealed(sealed, row) => sealed.head(row).map(Some),
        })
    }

    /// The text of a document; `None` as for [`Snapshot::head`].
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Io`].
    pub(crate) fn text(&self, number: u64, dir: &Path) -> Result<Option<String>, StoreError> {
        self.place(number)?.map_or(Ok(None), |place| match place {
            Place::Growing(put) => put.text(dir).map(Some),
            Place::Sealed(sealed, row) => sealed.text(row).map(Some),
        })
    }

    /// The vectors of a document, one after the other; `None` as for [`Snapshot::head`].
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Io`].
    #[cfg(test)]
    pub(crate) fn vectors(&self, number: u64) -> Result<Option<Vec<f32>>, StoreError> {
        self.place(number)?.map_or(Ok(None), |place| match place {
            Place::Growing(put) => Ok(Some(put.vectors.clone())),
            Place::Sealed(sealed, row) => sealed.vectors(row).map(Some),
        })
    }
}
