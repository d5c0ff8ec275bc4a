//! What is in which file of the log, and which entry of each collection was the last.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use super::{Sequence, format::Row};

/// The files of the log, oldest first; the last is the one that is written.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) files: Vec<LogFile>,
    /// The last entry of each collection.
    chains: HashMap<u64, Sequence>,
    /// What a collection without an entry counts as having: 0, or a place where nobody can tell what was.
    unknown: Sequence,
}

/// A file.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) first: Sequence,
    pub(super) bytes: u64,
    pub(super) spans: BTreeMap<u64, Span>,
}

/// What a file has of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Its first entry in the file.
    pub(crate) first: Sequence,
    /// Its last entry in the file: the file is needed for this collection until that one is kept elsewhere.
    pub(crate) last: Sequence,
    /// Bytes of the payloads.
    pub(crate) bytes: u64,
}

/// How large the log is, and what pins it.
#[cfg(test)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// On the device, with what is made and not filled yet.
    pub(crate) bytes: u64,
    /// Oldest first; the last is the one that is written, which is never cut.
    pub(crate) files: Vec<FileSizes>,
}

/// How large a file of the log is, and what pins it.
#[cfg(test)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSizes {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    /// The file can go once everything below this is kept elsewhere; `None` for the file that is written.
    pub(crate) end: Option<Sequence>,
    /// By collection.
    pub(crate) spans: BTreeMap<u64, Span>,
}

#[cfg(test)]
impl Sizes {
    /// The oldest entry of a collection that the log still has.
    pub(crate) fn oldest(&self, collection: u64) -> Option<Sequence> {
        self.files.iter().find_map(|file| file.spans.get(&collection)).map(|span| span.first)
    }
}

impl Ledger {
    /// The entry of a collection before the one that comes.
    pub(super) fn before(&self, collection: u64) -> Sequence {
        self.chains.get(&collection).copied().unwrap_or(self.unknown)
    }

    /// An entry is in the last file.
    pub(super) fn note(&mut self, sequence: Sequence, row: &Row) {
        self.chains.insert(row.collection, sequence);
        if let Some(file) = self.files.last_mut() {
            let empty = Span { first: sequence, last: sequence, bytes: 0 };
            let span = file.spans.entry(row.collection).or_insert(empty);
            span.last = sequence;
            span.bytes += u64::from(row.len);
        }
    }

    /// Nobody knows whose entries there were from `start` on: what a collection writes next must not say that it had
    /// none there.
    pub(super) fn forget_chains(&mut self, start: Sequence) {
        for last in self.chains.values_mut() {
            *last = start.max(*last);
        }
        self.unknown = self.unknown.max(start);
    }

    /// The oldest file, if all of its entries are below `below` and it is not the one that is written.
    pub(super) fn oldest_below(&self, below: Sequence) -> Option<&LogFile> {
        let [oldest, next, ..] = &*self.files else { return None };
        (next.first <= below).then_some(oldest)
    }

    /// The oldest file is gone.
    pub(super) fn remove_oldest(&mut self) {
        self.files.remove(0);
        // Nothing before the first file counts any more: collections that are long gone are not kept for ever.
        let first = self.files.first().map_or(Sequence::FIRST, |file| file.first);
        self.chains.retain(|_, last| *last >= first);
        if self.unknown < first {
            self.unknown = Sequence::default();
        }
    }

    /// Bytes of all files, and the end of the oldest one that can be cut; see [`FileSizes::end`].
    pub(super) fn extent(&self) -> (u64, Option<Sequence>) {
        (self.files.iter().map(|file| file.bytes).sum(), self.files.get(1).map(|file| file.first))
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> Sizes {
        let ends = self.files.iter().skip(1).map(|file| Some(file.first)).chain([None]);
        let files: Vec<FileSizes> = self
            .files
            .iter()
            .zip(ends)
            .map(|(file, end)| FileSizes {
                number: file.number,
                bytes: file.bytes,
                end,
                spans: file.spans.clone(),
            })
            .collect();
        Sizes { bytes: files.iter().map(|file| file.bytes).sum(), files }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(collection: u64) -> Row {
        Row { collection, before: Sequence(0), len: 10, sum: 0, kind: 0 }
    }

    fn file(number: u64, first: u64) -> LogFile {
        LogFile { number, path: PathBuf::new(), first: Sequence(first), bytes: 100, spans: BTreeMap::new() }
    }

    #[test]
    fn files_tell_what_pins_them_and_go_from_the_oldest_on() {
        let mut ledger = Ledger::default();
        ledger.files.push(file(1, 1));
        for (sequence, collection) in [(1, 7), (2, 8), (3, 7)] {
            ledger.note(Sequence(sequence), &row(collection));
        }
        ledger.files.push(file(2, 4));
        ledger.note(Sequence(4), &row(8));
        let sizes = ledger.sizes();
        assert_eq!((sizes.bytes, sizes.oldest(8), sizes.oldest(9)), (200, Some(Sequence(2)), None));
        assert_eq!(sizes.files[0].spans[&7], Span { first: Sequence(1), last: Sequence(3), bytes: 20 });
        assert_eq!((sizes.files[0].end, sizes.files[1].end), (Some(Sequence(4)), None));
        assert_eq!(
            (ledger.before(7), ledger.before(8), ledger.before(9)),
            (Sequence(3), Sequence(4), Sequence(0))
        );
        assert!(ledger.oldest_below(Sequence(3)).is_none());
        assert_eq!(ledger.oldest_below(Sequence(4)).unwrap().number, 1);
        ledger.remove_oldest();
        assert_eq!((ledger.before(7), ledger.before(8)), (Sequence(0), Sequence(4)));
        assert!(ledger.oldest_below(Sequence(100)).is_none(), "the file that is written stays");
    }

    #[test]
    fn after_a_hole_no_collection_claims_to_have_had_nothing_there() {
        let mut ledger = Ledger::default();
        ledger.files.push(file(1, 1));
        ledger.note(Sequence(1), &row(7));
        ledger.forget_chains(Sequence(5));
        ledger.note(Sequence(9), &row(8));
        assert_eq!(
            (ledger.before(7), ledger.before(8), ledger.before(9)),
            (Sequence(5), Sequence(9), Sequence(5))
        );
    }
}
