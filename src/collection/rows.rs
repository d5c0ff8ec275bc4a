//! Which documents the slots of a saved graph are of, in the file `rows` beside it.
//!
//! In the store a document has a number of 64 bits for ever; in memory slots have 32 bits and are given out anew,
//! without gaps, when a collection is opened. A saved graph knows slots of the time when it was saved. So its documents
//! get those slots again, and all that came later the slots behind them. Where that does not fit, the graph is of no
//! use.

use std::path::{Path, PathBuf};

use super::slots::Table;
use crate::{
    files::{disk::Disk, regular},
    index::IndexError,
};

const ROWS_FILE: &str = "rows";

/// Versions below named batches of a store of sled.
const VERSION: u32 = 3;

/// CRC32, version, the sequence of the last entry, and the sum of the graph's manifest.
const HEAD_BYTES: usize = 4 + 4 + 8 + 4;

/// The documents of a saved graph.
#[derive(Debug, PartialEq)]
pub(super) struct Rows {
    /// The file that says so.
    pub(super) path: PathBuf,
    /// Of the last entry of the log that the collection had when it was saved.
    pub(super) sequence: u64,
    /// The sum of the graph's manifest.
    manifest: u32,
    /// Number and first slot, ascending in both.
    documents: Vec<(u64, u32)>,
}

/// The state and the graph that rows are of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Of {
    /// Of the last entry of the log.
    pub(super) sequence: u64,
    /// The sum of the graph's manifest.
    pub(super) manifest: u32,
}

impl Rows {
    /// Every number of a document in it is below.
    pub(super) fn next_number(&self) -> u64 {
        self.documents.last().map_or(0, |(number, _)| number + 1)
    }

    /// Refuses rows that were not saved with the graph of this manifest: those of another save, or of another collection.
    ///
    /// # Errors
    /// [`IndexError::Damaged`].
    pub(super) fn check_saved_with(&self, manifest: u32) -> Result<(), IndexError> {
        if self.manifest == manifest {
            return Ok(());
        }
        let reason = "it was saved with another graph than the one beside it".to_owned();
        Err(IndexError::Damaged { path: self.path.clone(), reason })
    }

    /// The file beside a graph in `dir`.
    ///
    /// # Errors
    /// [`IndexError::Damaged`].
    pub(super) fn read(dir: &Path) -> Result<Self, IndexError> {
        let path = dir.join(ROWS_FILE);
        let damaged = |reason: &str| IndexError::Damaged { path: path.clone(), reason: reason.to_owned() };
        match regular::read(&path, u64::MAX) {
            Ok(bytes) => parse(&bytes, &path).map_err(damaged),
            Err(_) => Err(damaged("it cannot be read")),
        }
    }
}

/// Writes the file for a graph that has all slots below `indexed`.
pub(super) fn write(
    dir: &Path,
    table: &Table,
    indexed: u32,
    of: Of,
    disk: &dyn Disk,
) -> Result<(), IndexError> {
    let mut body = Vec::from(VERSION.to_le_bytes());
    body.extend(of.sequence.to_le_bytes());
    body.extend(of.manifest.to_le_bytes());
    for entry in table.entries().take_while(|entry| entry.first_slot < indexed) {
        body.extend(entry.number.to_le_bytes());
        body.extend(entry.first_slot.to_le_bytes());
    }
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend(crc32fast::hash(&body).to_le_bytes());
    bytes.append(&mut body);
    let path = dir.join(ROWS_FILE);
    let written = disk.create(&path).and_then(|file| {
        file.write_at(0, &bytes)?;
        file.sync_all()
    });
    written.map_err(|source| IndexError::Io { path, source })
}

fn parse(bytes: &[u8], path: &Path) -> Result<Rows, &'static str> {
    let (head, documents) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or("it is cut short")?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let [crc, version, low, high, manifest] = [0, 4, 8, 12, 16].map(number);
    if crc32fast::hash(&bytes[4..]) != crc {
        return Err("its checksum does not match");
    }
    if version != VERSION {
        return Err("it is of another version");
    }
    let (documents, rest) = documents.as_chunks::<12>();
    if !rest.is_empty() {
        return Err("it ends inside a document");
    }
    let document = |bytes: &[u8; 12]| {
        let &[a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u32::from_le_bytes([i, j, k, l]))
    };
    let documents = documents.iter().map(document).collect();
    let sequence = u64::from(high) << 32 | u64::from(low);
    Ok(Rows { path: path.to_owned(), sequence, manifest, documents })
}

/// Gives slots to documents that come in the order of their numbers.
#[derive(Debug)]
pub(super) struct Numbering<'a> {
    rows: Option<&'a Rows>,
    /// Documents of the graph that were passed.
    passed: usize,
    /// The graph has the slots below.
    indexed: u32,
    /// The lowest slot for a document that the graph does not have.
    next: u32,
    /// Every slot given out is below.
    end: u32,
    max: u32,
}

impl<'a> Numbering<'a> {
    /// All slots up to `max`, those of the graph that has all below `indexed` as `rows` say.
    pub(super) fn new(graph: Option<(&'a Rows, u32)>, max: u32) -> Self {
        let indexed = graph.map_or(0, |(_, indexed)| indexed);
        Numbering { rows: graph.map(|(rows, _)| rows), passed: 0, indexed, next: indexed, end: 0, max }
    }

    /// The first slot of the next document; `None` where it has no place.
    pub(super) fn first_slot(&mut self, number: u64, passages: u32) -> Option<u32> {
        let known = match self.rows.map(|rows| &rows.documents) {
            Some(documents) => {
                // Those between were removed since.
                while documents.get(self.passed).is_some_and(|(of, _)| *of < number) {
                    self.passed += 1;
                }
                match documents.get(self.passed) {
                    Some((of, slot)) if *of == number => Some(*slot),
                    // It was there when a document after it was, and the graph does not know it.
                    Some(_) => return None,
                    None => None,
                }
            }
            None => None,
        };
        let slot = known.unwrap_or(self.next);
        let end = slot.checked_add(passages).filter(|end| *end <= self.max)?;
        if slot < self.end || known.is_some_and(|slot| slot >= self.indexed) {
            return None;
        }
        self.end = end;
        self.next = self.next.max(end);
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(documents: &[(u64, u32)]) -> Rows {
        Rows { path: PathBuf::new(), sequence: 1, manifest: 0, documents: documents.to_vec() }
    }

    #[test]
    fn documents_of_a_graph_keep_their_slots_and_later_ones_come_behind() {
        let rows = told(&[(5, 2), (9, 7), (1 << 40, 8)]);
        let mut numbering = Numbering::new(Some((&rows, 10)), 100);
        // 9 is gone; the graph has two of three vectors of the last one it knows.
        assert_eq!(numbering.first_slot(5, 2), Some(2));
        assert_eq!(numbering.first_slot(1 << 40, 3), Some(8));
        assert_eq!(numbering.first_slot((1 << 40) + 1, 2), Some(11));
        assert_eq!(numbering.first_slot((1 << 40) + 7, 87), Some(13));
        assert_eq!(numbering.first_slot((1 << 40) + 8, 1), None);
    }

    #[test]
    fn without_a_graph_there_are_no_gaps() {
        let mut numbering = Numbering::new(None, 7);
        let slots = [(3, 2), (8, 4), (9, 1)].map(|(number, passages)| numbering.first_slot(number, passages));
        assert_eq!(slots, [Some(0), Some(2), Some(6)]);
        assert_eq!(numbering.first_slot(10, 1), None);
    }

    #[test]
    fn a_graph_that_contradicts_the_store_does_not_fit() {
        let rows = told(&[(5, 2), (9, 3)]);
        let graph = Some((&rows, 10));
        assert_eq!(Numbering::new(graph, 100).first_slot(4, 1), None);
        let mut numbering = Numbering::new(graph, 100);
        assert_eq!(numbering.first_slot(5, 2), Some(2));
        assert_eq!(numbering.first_slot(9, 1), None);
        assert_eq!(Numbering::new(Some((&told(&[(5, 10)]), 10)), 100).first_slot(5, 1), None);
    }
}
