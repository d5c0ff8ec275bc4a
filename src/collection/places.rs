//! Where the documents of a collection lie, all in one snapshot: in segments, and in runs of what no segment has yet.
//! Filters, pages and statistics are answered here, place by place.
//!
//! In a segment a document goes by its row, in a run by its number in memory. [`RowDocs`] leads from one to the other.

use std::{cmp::Reverse, collections::BinaryHeap, ops::ControlFlow};

use roaring::RoaringBitmap;

use super::{
    CollectionError,
    fresh::{Fresh, Run},
    memory::Memory,
    slots::Table,
};
use crate::{
    index::columns::{Fields, Held, Known, Several, Test},
    segmented::{Part, Snapshot},
    stop::Stop,
    value::{PointId, filter::Filter},
};

/// Where fewer than one in so many documents match, a page is made by sorting the matching ids.
const SORT_SHARE: u64 = 16;

/// The number in memory of each row of a segment whose document is there; both ascend.
#[derive(Debug, Default)]
pub(super) struct RowDocs {
    /// First row and its number: those of the rows that follow lie as far apart as the rows.
    pieces: Vec<(u32, u32)>,
}

impl RowDocs {
    /// Of every segment of a snapshot; `table` has the documents of it and of `fresh`, and no others. `None`: it has not.
    pub(super) fn of(documents: &Snapshot, table: &Table, fresh: &Fresh) -> Option<Vec<RowDocs>> {
        let mut docs = table.docs();
        let mut all = Vec::with_capacity(documents.parts().len());
        for part in documents.parts() {
            let mut pieces: Vec<(u32, u32)> = Vec::new();
            let mut last = None;
            for row in part.living() {
                let doc = docs.next()?;
                last = Some(doc);
                if pieces.last().is_none_or(|(first, of)| doc - of != row - first) {
                    pieces.push((row, doc));
                }
            }
            if last.is_some_and(|doc| table.entry(doc).is_none_or(|entry| entry.number > part.last())) {
                return None;
            }
            pieces.shrink_to_fit();
            all.push(RowDocs { pieces });
        }
        (docs.count() as u64 == fresh.documents()).then_some(all)
    }

    /// The number of a row whose document is there.
    pub(super) fn doc(&self, row: u32) -> Option<u32> {
        let (first, doc) = self.pieces[..self.pieces.partition_point(|(first, _)| *first <= row)].last()?;
        Some(doc + (row - first))
    }

    /// The numbers of rows whose documents are there, in their order.
    fn docs<'a>(&'a self, rows: &'a RoaringBitmap) -> impl Iterator<Item = u32> + 'a {
        let mut at = 0;
        rows.iter().filter_map(move |row| {
            while self.pieces.get(at + 1).is_some_and(|(first, _)| *first <= row) {
                at += 1;
            }
            let (first, doc) = self.pieces.get(at)?;
            Some(doc + row.checked_sub(*first)?)
        })
    }
}

/// A segment or a run.
#[derive(Debug)]
pub(super) enum Place<'a> {
    Sealed { part: &'a Part, living: RoaringBitmap },
    Fresh(&'a Run),
}

/// All places of one snapshot.
#[derive(Debug)]
pub(super) struct Places<'a> {
    all: Several<Place<'a>>,
    memory: &'a Memory,
}

/// The documents that match a filter: for each place, in its order.
#[derive(Debug)]
pub(super) struct Matching(Vec<RoaringBitmap>);

impl Matching {
    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(RoaringBitmap::len).sum()
    }
}

impl<'a> Places<'a> {
    pub(super) fn of(memory: &'a Memory) -> Self {
        let parts = memory.documents.parts().iter();
        let sealed = parts.map(|part| Place::Sealed { part, living: part.living() });
        Places { all: Several(sealed.chain(memory.fresh.runs().iter().map(Place::Fresh)).collect()), memory }
    }

    /// The fields of all of them.
    pub(super) fn fields(&self) -> &Several<Place<'a>> {
        &self.all
    }

    /// The documents that match.
    ///
    /// # Errors
    /// [`CollectionError::Filter`], [`CollectionError::Stopped`]; [`CollectionError::Store`] where a segment is damaged.
    pub(super) fn matching(&self, filter: &Filter, stop: &Stop) -> Result<Matching, CollectionError> {
        self.all.matching(filter, stop).map(Matching)
    }

    /// Their numbers in memory.
    pub(super) fn docs(&self, matching: &Matching, stop: &Stop) -> Result<RoaringBitmap, CollectionError> {
        let mut docs = RoaringBitmap::new();
        let rows = self.memory.rows.iter().map(Some).chain(std::iter::repeat(None));
        for (found, rows) in matching.0.iter().zip(rows) {
            stop.check()?;
            match rows {
                // Both ascend, from place to place too, so the end is the place for each.
                Some(rows) => _ = docs.append(rows.docs(found)),
                None => docs |= found,
            }
        }
        Ok(docs)
    }

    /// Numbers in the store of documents behind `after`, in the order of their ids; at most `take`. Of all that are
    /// there, or of those that match.
    ///
    /// # Errors
    /// [`CollectionError::Stopped`]; [`CollectionError::Store`] where a segment is damaged.
    pub(super) fn page(
        &self,
        matching: Option<&Matching>,
        after: Option<&PointId>,
        take: usize,
        stop: &Stop,
    ) -> Result<Vec<u64>, CollectionError> {
        let documents: u64 = self.all.0.iter().map(|place| place.documents().len()).sum();
        match matching {
            Some(matching) if matching.len() * SORT_SHARE < documents => {
                self.sorted(matching, after, take, stop)
            }
            _ => self.merged(matching, after, take, stop),
        }
    }

    /// Looks every id up, and sorts.
    fn sorted(
        &self,
        matching: &Matching,
        after: Option<&PointId>,
        take: usize,
        stop: &Stop,
    ) -> Result<Vec<u64>, CollectionError> {
        let mut found = Vec::new();
        self.each(matching, stop, |id, place, document| {
            if after.is_none_or(|after| id > *after) {
                found.push((id, place, document));
            }
        })?;
        found.sort_unstable();
        found.truncate(take);
        found.into_iter().map(|(_, place, document)| self.number(place, document)).collect()
    }

    /// Walks over all places at once in the order of ids.
    fn merged(
        &self,
        matching: Option<&Matching>,
        after: Option<&PointId>,
        take: usize,
        stop: &Stop,
    ) -> Result<Vec<u64>, CollectionError> {
        let mut walks = self.all.0.iter().map(|place| place.scroll(after)).collect::<Result<Vec<_>, _>>()?;
        let mut heads = BinaryHeap::with_capacity(walks.len());
        for (place, walk) in walks.iter_mut().enumerate() {
            if let Some(head) = walk.next() {
                let (id, document) = head?;
                heads.push(Reverse((id, place, document)));
            }
        }
        let mut going = stop.pace();
        let mut numbers = Vec::new();
        while numbers.len() < take && going() {
            let Some(Reverse((_, place, document))) = heads.pop() else { break };
            let among = matching.map_or_else(|| self.all.0[place].documents(), |matching| &matching.0[place]);
            if among.contains(document) {
                numbers.push(self.number(place, document)?);
            }
            if let Some(head) = walks[place].next() {
                let (id, document) = head?;
                heads.push(Reverse((id, place, document)));
            }
        }
        // What was walked may be incomplete.
        stop.check()?;
        Ok(numbers)
    }

    /// The ids of the documents that match, in no particular order.
    ///
    /// # Errors
    /// As [`Places::page`].
    pub(super) fn ids(&self, matching: &Matching, stop: &Stop) -> Result<Vec<PointId>, CollectionError> {
        let mut ids = Vec::new();
        self.each(matching, stop, |id, _, _| ids.push(id))?;
        Ok(ids)
    }

    /// Number in the store of a document of a place.
    fn number(&self, place: usize, document: u32) -> Result<u64, CollectionError> {
        match &self.all.0[place] {
            Place::Sealed { part, .. } => Ok(part.number_of(document)?),
            Place::Fresh(_) => {
                let entry = self.memory.table.entry(document);
                Ok(entry.expect("the table has every document of its runs").number)
            }
        }
    }

    fn each(
        &self,
        matching: &Matching,
        stop: &Stop,
        mut each: impl FnMut(PointId, usize, u32),
    ) -> Result<(), CollectionError> {
        let mut going = stop.pace();
        for (number, (place, found)) in self.all.0.iter().zip(&matching.0).enumerate() {
            match place {
                Place::Sealed { part, .. } => {
                    for row in found.iter().take_while(|_| going()) {
                        each(part.id_of(row)?, number, row);
                    }
                }
                Place::Fresh(_) => {
                    for doc in found.iter().take_while(|_| going()) {
                        if let Some(entry) = self.memory.table.entry(doc) {
                            each(entry.id.clone(), number, doc);
                        }
                    }
                }
            }
            stop.check()?;
        }
        Ok(())
    }
}

/// Documents of a place with their ids, in the order of these.
type Walk<'a> = Box<dyn Iterator<Item = Result<(PointId, u32), CollectionError>> + 'a>;

impl Place<'_> {
    fn scroll(&self, after: Option<&PointId>) -> Result<Walk<'_>, CollectionError> {
        Ok(match self {
            Place::Sealed { part, .. } => {
                Box::new(part.scroll(after)?.map(|found| found.map_err(CollectionError::from)))
            }
            Place::Fresh(run) => Box::new(run.scroll(after).map(|(entry, doc)| Ok((entry.id.clone(), doc)))),
        })
    }
}

impl Known for Place<'_> {
    type Error = CollectionError;

    fn is_empty(&self) -> bool {
        self.documents().is_empty()
    }

    fn held(&self, field: &str) -> Result<Option<Held>, CollectionError> {
        match self {
            Place::Sealed { part, living } => Ok(part.fields(living).held(field)?),
            Place::Fresh(run) => Ok(run.fields().held(field)?),
        }
    }

    fn names_most(&self) -> usize {
        match self {
            Place::Sealed { part, living } => part.fields(living).names_most(),
            Place::Fresh(run) => run.fields().names_most(),
        }
    }

    fn names(
        &self,
        from: &str,
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), CollectionError> {
        match self {
            Place::Sealed { part, living } => Ok(part.fields(living).names(from, each)?),
            Place::Fresh(run) => Ok(run.fields().names(from, each)?),
        }
    }
}

impl Fields for Place<'_> {
    fn documents(&self) -> &RoaringBitmap {
        match self {
            Place::Sealed { living, .. } => living,
            Place::Fresh(run) => run.living(),
        }
    }

    fn having(&self, field: &str) -> Result<RoaringBitmap, CollectionError> {
        match self {
            Place::Sealed { part, living } => Ok(part.fields(living).having(field)?),
            Place::Fresh(run) => Ok(run.fields().having(field)?),
        }
    }

    fn satisfying(
        &self,
        field: &str,
        test: &Test<'_>,
        stop: &Stop,
    ) -> Result<RoaringBitmap, CollectionError> {
        match self {
            Place::Sealed { part, living } => Ok(part.fields(living).satisfying(field, test, stop)?),
            Place::Fresh(run) => Ok(run.fields().satisfying(field, test, stop)?),
        }
    }
}
