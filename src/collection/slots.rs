//! The slot table maps a document's number to its id and its slots, and slots back; it knows which slots are live.
//!
//! Both have 32 bits and mean something in this memory only: they are given out anew when the collection is opened, and
//! when they run out. Until then none is given out twice: a removed document's slots become tombstones, which indexes may
//! still name and [`Table::doc`] no longer knows. What the store calls a document is [`Entry::number`].
//! Slots ascend with document numbers of both kinds, so walking documents in order walks slots in order.
//!
//! A [`Table`] is pages behind `Arc`, so that a reader takes a copy that never changes by counting two references. A
//! change copies only the pages that it touches.

use std::{ops::Range, sync::Arc};

use super::point::ContentHash;
use crate::{index::Slot, value::PointId};

/// Slots of one page of the table: pages of dead slots are given back.
const PAGE_SLOTS: usize = 1024;

/// Documents of one page of the table.
const PAGE_DOCS: usize = 256;

/// No document.
const NONE: u32 = u32::MAX;

/// Slots and document numbers end here.
pub(super) const NUMBERS_MAX: u32 = u32::MAX - 1;

/// What is kept in memory of every document.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) id: PointId,
    pub(super) hash: ContentHash,
    /// In the store.
    pub(super) number: u64,
    pub(super) first_slot: u32,
    pub(super) passages: u32,
}

impl Entry {
    /// Its slots, one per passage.
    pub(super) fn slots(&self) -> Range<u32> {
        self.first_slot..self.first_slot + self.passages
    }

    /// See [`super::point::Revision::version`].
    pub(super) fn version(&self) -> u64 {
        version(self.number)
    }
}

/// The version that a document of this number in the store has. It begins with 1, so that 0 is nobody's.
pub(super) fn version(number: u64) -> u64 {
    number + 1
}

/// Documents by number and by slot. A clone is a snapshot and costs two reference counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    docs: Arc<Pages<DocPage>>,
    /// Document of each slot.
    slots: Arc<Pages<SlotPage>>,
    documents: u64,
    live: u64,
    /// Every slot given out is below.
    end: u32,
    /// Every document number given out is below.
    docs_end: u32,
}

/// Pages by number; those of nothing but removed documents are given back.
type Pages<P> = Vec<Option<Arc<P>>>;

#[derive(Debug, Clone)]
struct SlotPage {
    docs: [u32; PAGE_SLOTS],
    live: usize,
}

#[derive(Debug, Clone)]
struct DocPage {
    entries: [Option<Arc<Entry>>; PAGE_DOCS],
    live: usize,
}

impl Table {
    /// Adds a document under a new number with new slots.
    pub(super) fn insert(&mut self, doc: u32, entry: Arc<Entry>) {
        debug_assert!(doc != NONE, "the number stands for no document");
        for slot in entry.slots() {
            let page = page_mut(&mut self.slots, slot as usize / PAGE_SLOTS, || SlotPage {
                docs: [NONE; PAGE_SLOTS],
                live: 0,
            });
            page.docs[slot as usize % PAGE_SLOTS] = doc;
            page.live += 1;
        }
        self.documents += 1;
        self.live += u64::from(entry.passages);
        self.end = self.end.max(entry.slots().end);
        self.docs_end = self.docs_end.max(doc + 1);
        let page = page_mut(&mut self.docs, doc as usize / PAGE_DOCS, || DocPage {
            entries: [const { None }; PAGE_DOCS],
            live: 0,
        });
        page.entries[doc as usize % PAGE_DOCS] = Some(entry);
        page.live += 1;
    }

    /// Removes a document; its slots are tombstones from now on.
    pub(super) fn remove(&mut self, doc: u32) -> Option<Arc<Entry>> {
        // Looked for first, so that a number that is not there copies no page.
        self.entry(doc)?;
        let pages = Arc::make_mut(&mut self.docs);
        let place = pages.get_mut(doc as usize / PAGE_DOCS)?;
        let page = Arc::make_mut(place.as_mut()?);
        let entry = page.entries[doc as usize % PAGE_DOCS].take()?;
        page.live -= 1;
        if page.live == 0 {
            *place = None;
        }
        let pages = Arc::make_mut(&mut self.slots);
        for slot in entry.slots() {
            let place = &mut pages[slot as usize / PAGE_SLOTS];
            if let Some(page) = place.as_mut().map(Arc::make_mut) {
                page.docs[slot as usize % PAGE_SLOTS] = NONE;
                page.live -= 1;
                if page.live == 0 {
                    *place = None;
                }
            }
        }
        self.documents -= 1;
        self.live -= u64::from(entry.passages);
        Some(entry)
    }

    /// The document that a slot belongs to, unless it is a tombstone.
    pub(super) fn doc(&self, slot: Slot) -> Option<u32> {
        let page = self.slots.get(slot.0 as usize / PAGE_SLOTS)?.as_ref()?;
        Some(page.docs[slot.0 as usize % PAGE_SLOTS]).filter(|doc| *doc != NONE)
    }

    /// A document by number.
    pub(super) fn entry(&self, doc: u32) -> Option<&Entry> {
        let page = self.docs.get(doc as usize / PAGE_DOCS)?.as_ref()?;
        page.entries[doc as usize % PAGE_DOCS].as_deref()
    }

    /// The numbers of all documents, ascending.
    pub(super) fn docs(&self) -> impl Iterator<Item = u32> {
        self.docs.iter().enumerate().filter_map(|(n, page)| Some((n, page.as_ref()?))).flat_map(
            |(n, page)| {
                let there = page.entries.iter().enumerate().filter(|(_, entry)| entry.is_some());
                there.map(move |(at, _)| {
                    u32::try_from(n * PAGE_DOCS + at).expect("pages hold numbers, which are u32")
                })
            },
        )
    }

    /// All documents, by number.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.docs.iter().flatten().flat_map(|page| page.entries.iter().flatten()).map(|entry| &**entry)
    }

    /// Slots that count, from `from` on, ascending.
    pub(super) fn live_from(&self, from: u32) -> impl Iterator<Item = Slot> {
        let first = from as usize / PAGE_SLOTS;
        self.slots.iter().enumerate().skip(first).filter_map(|(n, page)| Some((n, page.as_ref()?))).flat_map(
            move |(n, page)| {
                page.docs.iter().enumerate().filter_map(move |(at, doc)| {
                    let slot = u32::try_from(n * PAGE_SLOTS + at).expect("pages hold slots, which are u32");
                    (*doc != NONE && slot >= from).then_some(Slot(slot))
                })
            },
        )
    }

    /// How many count, from `from` on. Costs a look at each page.
    pub(super) fn live_count_from(&self, from: u32) -> u64 {
        let (first, at) = (from as usize / PAGE_SLOTS, from as usize % PAGE_SLOTS);
        let part = self.slots.get(first).and_then(Option::as_ref);
        let part = part.map_or(0, |page| page.docs[at..].iter().filter(|doc| **doc != NONE).count());
        let whole: usize = self.slots.iter().skip(first + 1).flatten().map(|page| page.live).sum();
        (part + whole) as u64
    }

    /// Documents.
    pub(super) fn documents(&self) -> u64 {
        self.documents
    }

    /// Slots that count.
    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// Every slot given out is below.
    pub(super) fn end(&self) -> u32 {
        self.end
    }

    /// Every document number given out is below.
    pub(super) fn docs_end(&self) -> u32 {
        self.docs_end
    }
}

/// A page to be changed, made by `new` where there is none.
fn page_mut<P: Clone>(pages: &mut Arc<Pages<P>>, page: usize, new: impl FnOnce() -> P) -> &mut P {
    let pages = Arc::make_mut(pages);
    if pages.len() <= page {
        pages.resize_with(page + 1, || None);
    }
    Arc::make_mut(pages[page].get_or_insert_with(|| Arc::new(new())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::collections::BTreeMap;

    use super::*;

    fn entry(id: &str, first_slot: u32, passages: u32) -> Arc<Entry> {
        let (id, hash) = (PointId::new(id).unwrap(), ContentHash([0; 16]));
        Arc::new(Entry { id, hash, number: 0, first_slot, passages })
    }

    #[test]
    fn a_removed_document_leaves_tombstones() {
        let mut slots = Table::default();
        slots.insert(3, entry("a", 0, 2));
        slots.insert(4, entry("b", 2, 1));
        slots.remove(3);
        assert_eq!(slots.doc(Slot(0)), None);
        assert_eq!(slots.doc(Slot(2)), Some(4));
        assert_eq!(slots.doc(Slot(99_999)), None);
        assert_eq!((slots.documents(), slots.live(), slots.end()), (1, 1, 3));
        assert_eq!(slots.live_from(0).collect::<Vec<_>>(), [Slot(2)]);
        assert!(slots.remove(3).is_none());
    }

    #[test]
    fn a_snapshot_never_changes() {
        let mut slots = Table::default();
        slots.insert(3, entry("a", 0, 2));
        let before = slots.clone();
        slots.insert(4, entry("b", 2, 1));
        slots.remove(3);
        assert_eq!((before.doc(Slot(0)), before.doc(Slot(2))), (Some(3), None));
        assert_eq!((before.documents(), before.live(), before.end()), (1, 2, 2));
        assert_eq!(before.entry(3).map(|entry| entry.id.as_str()), Some("a"));
        assert_eq!((slots.doc(Slot(0)), slots.entry(3)), (None, None));
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_map(sizes in prop::collection::vec((1u32..900, any::<bool>()), 1..30), from in 0u32..20_000) {
            let mut slots = Table::default();
            let mut plain: BTreeMap<u32, u32> = BTreeMap::new();
            let mut next = 0;
            for (doc, (passages, removed)) in (0u32..).zip(sizes) {
                slots.insert(doc, entry(&format!("{doc}"), next, passages));
                if removed {
                    slots.remove(doc);
                } else {
                    plain.extend((next..next + passages).map(|slot| (slot, doc)));
                }
                next += passages;
            }
            prop_assert_eq!(slots.live(), plain.len() as u64);
            prop_assert_eq!(slots.end(), next);
            let live: Vec<u32> = slots.live_from(from).map(|s| s.0).collect();
            prop_assert_eq!(slots.live_count_from(from), live.len() as u64);
            prop_assert_eq!(live, plain.range(from..).map(|(slot, _)| *slot).collect::<Vec<_>>());
            for slot in 0..next {
                prop_assert_eq!(slots.doc(Slot(slot)), plain.get(&slot).copied());
            }
        }
    }
}
