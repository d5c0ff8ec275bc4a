//! The file `documents`: ids, heads, passages, texts and bodies of a segment's documents.
//!
//! What has a fixed width is read where it lies. A look-up by id is a binary search over the rows in the order of
//! their ids; nothing is kept in memory for it.

use std::{
    cmp::Ordering,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{self, AtomicU64},
    },
};

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use super::{
    Name, Row, SegmentError,
    blocks::{self, Blocks, Span},
    cache::BlockCache,
    file::{Kind, Owner, Place, SealedFile, i64_at, u32_at, u64_at},
    verify::Damage,
};
use crate::{
    files::disk::Disk,
    stop::Stop,
    store::record,
    value::{Payload, PointId},
};

pub(super) mod writer;

/// Its name in the segment's folder.
pub(super) const FILE: &str = "documents";

const DESCRIPTION_BYTES: usize = 64;
const ID_OFFSETS: u16 = 2;
const IDS: u16 = 3;
const BY_ID: u16 = 4;
const HEADS: u16 = 5;
const PASSAGES: u16 = 6;
const EXPIRIES: u16 = 7;
const BLOCK_TABLE: u16 = 8;
const BLOCKS: u16 = 9;

const HEAD_BYTES: u64 = 72;
const PASSAGE_BYTES: u64 = 8;
const EXPIRY_BYTES: u64 = 12;
/// Stands for "never" among the times of expiry.
const NEVER: i64 = i64::MAX;

/// What is known of a document without reading its text or its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) content_hash: [u8; 16],
    /// Sequence of the write.
    pub(crate) version: u64,
    /// Microseconds since 1970.
    pub(crate) written_at: i64,
    /// From when on the document counts as gone, in microseconds since 1970.
    pub(crate) expires_at: Option<i64>,
    /// Row of its first vector in every space, and of its first passage.
    pub(crate) first_passage: u32,
    pub(crate) passages: u32,
    body: Span,
    text: Span,
}

impl Head {
    /// Bytes of the text, which need not be read to know it.
    pub(crate) fn text_bytes(&self) -> u32 {
        self.text.length
    }

    /// Bytes of title and payload as they are stored.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests look at it"))]
    pub(crate) fn body_bytes(&self) -> u32 {
        self.body.length
    }

    /// Whether the document counts as gone at a time in microseconds since 1970.
    #[cfg_attr(not(test), expect(dead_code, reason = "documents that expire come next"))]
    pub(crate) fn is_expired(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The rows of its vectors.
    pub(crate) fn vectors(&self) -> Range<u32> {
        self.first_passage..self.first_passage + self.passages
    }

    fn encode(&self) -> [u8; HEAD_BYTES as usize] {
        let mut bytes = [0; HEAD_BYTES as usize];
        bytes[..16].copy_from_slice(&self.content_hash);
        bytes[16..24].copy_from_slice(&self.version.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.written_at.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.expires_at.unwrap_or(NEVER).to_le_bytes());
        let Span { block, offset, length } = self.body;
        let text = self.text;
        let numbers =
            [self.first_passage, self.passages, block, offset, length, text.block, text.offset, text.length];
        for (at, number) in (40..).step_by(4).zip(numbers) {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        let number = |i: usize| u32_at(bytes, 40 + 4 * i);
        let span = |i| Span { block: number(i), offset: number(i + 1), length: number(i + 2) };
        let expires_at = i64_at(bytes, 32);
        Head {
            content_hash: bytes[..16].try_into().expect("16 bytes"),
            version: u64_at(bytes, 16),
            written_at: i64_at(bytes, 24),
            expires_at: (expires_at != NEVER).then_some(expires_at),
            first_passage: number(0),
            passages: number(1),
            body: span(2),
            text: span(5),
        }
    }
}

/// Title and payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Body {
    pub(crate) title: String,
    pub(crate) payload: Payload,
}

/// The same, of somebody else.
#[derive(Serialize)]
pub(super) struct BodyOf<'a> {
    pub(super) title: &'a str,
    pub(super) payload: &'a Payload,
}

/// What the file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Description {
    pub(super) rows: u32,
    pub(super) blocks: u32,
    pub(super) passages: u32,
    pub(super) expiring: u32,
    pub(super) text_bytes: u64,
    pub(super) body_bytes: u64,
    pub(super) id_bytes: u64,
    /// Lowest and highest version; of no document 0.
    pub(super) versions: (u64, u64),
}

impl Description {
    fn encode(&self) -> [u8; DESCRIPTION_BYTES] {
        let mut bytes = [0; DESCRIPTION_BYTES];
        for (at, number) in (0..).step_by(4).zip([self.rows, self.blocks, self.passages, self.expiring]) {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let numbers = [self.text_bytes, self.body_bytes, self.id_bytes, self.versions.0, self.versions.1];
        for (at, number) in (16..).step_by(8).zip(numbers) {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; DESCRIPTION_BYTES] = bytes.try_into().ok()?;
        Some(Description {
            rows: u32_at(bytes, 0),
            blocks: u32_at(bytes, 4),
            passages: u32_at(bytes, 8),
            expiring: u32_at(bytes, 12),
            text_bytes: u64_at(bytes, 16),
            body_bytes: u64_at(bytes, 24),
            id_bytes: u64_at(bytes, 32),
            versions: (u64_at(bytes, 40), u64_at(bytes, 48)),
        })
    }
}

fn owner(name: Name) -> Owner {
    Owner { kind: Kind::Documents, name, part: 0 }
}

/// The open file.
#[derive(Debug)]
pub(super) struct Documents {
    file: SealedFile,
    description: Description,
    id_offsets: Place,
    ids: Place,
    by_id: Place,
    heads: Place,
    passages: Place,
    expiries: Place,
    blocks: Blocks,
    cache: Arc<BlockCache>,
    /// Names this file in the cache.
    cached_as: u64,
}

impl Documents {
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        path: &Path,
        name: Name,
        cache: &Arc<BlockCache>,
    ) -> Result<Self, SegmentError> {
        Self::of(SealedFile::open(disk, path, owner(name))?, path, cache)
    }

    /// The same of a file one of whose ends may be damaged.
    pub(super) fn open_damaged(
        disk: &Arc<dyn Disk>,
        path: &Path,
        name: Name,
        cache: &Arc<BlockCache>,
    ) -> Result<Self, SegmentError> {
        Self::of(SealedFile::open_damaged(disk, path, owner(name))?, path, cache)
    }

    fn of(file: SealedFile, path: &Path, cache: &Arc<BlockCache>) -> Result<Self, SegmentError> {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let description = Description::decode(file.description())
            .ok_or_else(|| SegmentError::corrupt(path, 0, "its description has another length"))?;
        let Description { rows, blocks, passages, expiring, id_bytes, .. } = description;
        Ok(Documents {
            description,
            id_offsets: file.table(ID_OFFSETS, u64::from(rows) + 1, 8)?,
            ids: file.table(IDS, id_bytes, 1)?,
            by_id: file.table(BY_ID, rows.into(), 4)?,
            heads: file.table(HEADS, rows.into(), HEAD_BYTES)?,
            passages: file.table(PASSAGES, passages.into(), PASSAGE_BYTES)?,
            expiries: file.table(EXPIRIES, expiring.into(), EXPIRY_BYTES)?,
            blocks: Blocks {
                table: file.table(BLOCK_TABLE, blocks.into(), blocks::ENTRY_BYTES)?,
                blocks: file.place(BLOCKS)?,
            },
            file,
            cache: Arc::clone(cache),
            cached_as: OPENED.fetch_add(1, atomic::Ordering::Relaxed),
        })
    }

    pub(super) fn file(&self) -> &SealedFile {
        &self.file
    }

    pub(super) fn description(&self) -> Description {
        self.description
    }

    fn check_row(&self, row: Row) -> Result<(), SegmentError> {
        if row.0 < self.description.rows {
            return Ok(());
        }
        let reason = format!("row {} is asked for, and there are {}", row.0, self.description.rows);
        Err(self.file.damaged(self.heads, 0, reason))
    }

    fn id_bytes(&self, row: Row) -> Result<&[u8], SegmentError> {
        self.check_row(row)?;
        let at = u64::from(row.0) * 8;
        let offsets = self.file.bytes(self.id_offsets, at..at + 16)?;
        self.file.bytes(self.ids, u64_at(offsets, 0)..u64_at(offsets, 8))
    }

    pub(super) fn id(&self, row: Row) -> Result<PointId, SegmentError> {
        let id = std::str::from_utf8(self.id_bytes(row)?).ok().and_then(|id| PointId::new(id).ok());
        id.ok_or_else(|| self.file.damaged(self.id_offsets, u64::from(row.0) * 8, "an id is none"))
    }

    /// The row at a place in the order of ids.
    fn by_id(&self, place: u32) -> Result<Row, SegmentError> {
        let row = Row(u32_at(self.file.record(self.by_id, place.into(), 4)?, 0));
        self.check_row(row)?;
        Ok(row)
    }

    /// How many ids are less than the given one, and whether the next one is equal to it.
    fn search(&self, id: &PointId) -> Result<(u32, Option<Row>), SegmentError> {
        let (mut low, mut high) = (0, self.description.rows);
        while low < high {
            let middle = low + (high - low) / 2;
            let row = self.by_id(middle)?;
            match self.id_bytes(row)?.cmp(id.as_str().as_bytes()) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok((middle, Some(row))),
                Ordering::Greater => high = middle,
            }
        }
        Ok((low, None))
    }

    pub(super) fn find(&self, id: &PointId) -> Result<Option<Row>, SegmentError> {
        Ok(self.search(id)?.1)
    }

    pub(super) fn scroll(&self, after: Option<&PointId>) -> Result<Scroll<'_>, SegmentError> {
        let next = match after.map(|id| self.search(id)).transpose()? {
            None => 0,
            Some((place, None)) => place,
            Some((place, Some(_))) => place + 1,
        };
        Ok(Scroll { documents: self, next })
    }

    pub(super) fn head(&self, row: Row) -> Result<Head, SegmentError> {
        self.check_row(row)?;
        let head = Head::decode(self.file.record(self.heads, row.0.into(), HEAD_BYTES)?);
        let end = head.first_passage.checked_add(head.passages);
        if end.is_none_or(|end| end > self.description.passages) {
            let at = u64::from(row.0) * HEAD_BYTES;
            return Err(self.file.damaged(self.heads, at, "a document has passages that are not there"));
        }
        Ok(head)
    }

    pub(super) fn passages(&self, head: &Head) -> Result<Vec<Range<u32>>, SegmentError> {
        let at = |passage: u32| u64::from(passage) * PASSAGE_BYTES;
        let bytes = self.file.bytes(self.passages, at(head.vectors().start)..at(head.vectors().end))?;
        let passages: Vec<_> =
            bytes.chunks_exact(PASSAGE_BYTES as usize).map(|b| u32_at(b, 0)..u32_at(b, 4)).collect();
        if passages.iter().any(|range| range.start > range.end || range.end > head.text.length) {
            return Err(self.file.damaged(
                self.passages,
                at(head.first_passage),
                "a passage is not in its text",
            ));
        }
        Ok(passages)
    }

    /// The rows that count as gone at a time.
    pub(super) fn expired(&self, now: i64) -> Result<RoaringBitmap, SegmentError> {
        let mut expired = RoaringBitmap::new();
        for number in 0..self.description.expiring {
            let bytes = self.file.record(self.expiries, number.into(), EXPIRY_BYTES)?;
            if i64_at(bytes, 0) > now {
                break;
            }
            let row = Row(u32_at(bytes, 8));
            self.check_row(row)?;
            expired.insert(row.0);
        }
        Ok(expired)
    }

    fn block(&self, number: u32) -> Result<Arc<[u8]>, SegmentError> {
        self.cache.get((self.cached_as, number), || self.blocks.unpack(&self.file, number))
    }

    fn span<'a>(&self, block: &'a [u8], span: Span) -> Result<&'a [u8], SegmentError> {
        let start = span.offset as usize;
        let bytes = start.checked_add(span.length as usize).and_then(|end| block.get(start..end));
        bytes.ok_or_else(|| {
            let at = u64::from(span.block) * blocks::ENTRY_BYTES;
            self.file.damaged(self.blocks.table, at, "a block is too short for a document in it")
        })
    }

    pub(super) fn body(&self, head: &Head) -> Result<Body, SegmentError> {
        let block = self.block(head.body.block)?;
        self.decode_body(head, self.span(&block, head.body)?)
    }

    fn decode_body(&self, head: &Head, bytes: &[u8]) -> Result<Body, SegmentError> {
        record::decode(bytes, self.file.path(), "a document").map_err(|error| {
            let at = u64::from(head.body.block) * blocks::ENTRY_BYTES;
            self.file.damaged(self.blocks.table, at, format!("block {}: {error}", head.body.block))
        })
    }

    pub(super) fn text(&self, head: &Head) -> Result<String, SegmentError> {
        if head.text.length == 0 {
            return Ok(String::new());
        }
        let block = self.block(head.text.block)?;
        self.decode_text(head, self.span(&block, head.text)?).map(str::to_owned)
    }

    fn decode_text<'a>(&self, head: &Head, bytes: &'a [u8]) -> Result<&'a str, SegmentError> {
        std::str::from_utf8(bytes).map_err(|error| {
            let at = u64::from(head.text.block) * blocks::ENTRY_BYTES;
            self.file.damaged(self.blocks.table, at, format!("block {}: {error}", head.text.block))
        })
    }

    /// For reading rows one after the other, past the cache.
    pub(super) fn walk(&self) -> Walk<'_> {
        Walk { documents: self, last: Default::default() }
    }

    /// Checks what the sums do not: that every document can be read and that ids ascend.
    pub(super) fn verify(&self, stop: &Stop, damages: &mut Vec<Damage>) -> Result<(), SegmentError> {
        self.verify_blocks(stop, damages)?;
        let mut walk = self.walk();
        let mut expiring = 0;
        let mut next_passage = 0;
        for row in (0..self.description.rows).map(Row) {
            stop.check()?;
            let read = (|| {
                self.id(row)?;
                let head = self.head(row)?;
                let at = u64::from(row.0) * HEAD_BYTES;
                if head.first_passage != next_passage {
                    return Err(self.file.damaged(
                        self.heads,
                        at,
                        "its passages do not follow the ones before",
                    ));
                }
                next_passage += head.passages;
                expiring += u32::from(head.expires_at.is_some());
                let text = self.decode_text(&head, walk.text(&head)?)?;
                let is_cut =
                    |range: &Range<u32>| text.get(range.start as usize..range.end as usize).is_none();
                if self.passages(&head)?.iter().any(is_cut) {
                    return Err(self.file.damaged(self.heads, at, "a passage ends inside a character"));
                }
                self.decode_body(&head, walk.body(&head)?).map(drop)
            })();
            if let Err(error) = read {
                Damage::note(error, damages)?;
            }
        }
        let ids = (1..self.description.rows).try_for_each(|place| {
            if self.id_bytes(self.by_id(place - 1)?)? >= self.id_bytes(self.by_id(place)?)? {
                return Err(self.file.damaged(self.by_id, u64::from(place) * 4, "the ids do not ascend"));
            }
            Ok(())
        });
        let expiries = self.expired(NEVER - 1).and_then(|expired| {
            if expired.len() == u64::from(expiring) && expiring == self.description.expiring {
                return Ok(());
            }
            Err(self.file.damaged(self.expiries, 0, "it does not name the documents that expire"))
        });
        [ids, expiries].into_iter().filter_map(Result::err).try_for_each(|e| Damage::note(e, damages))
    }

    /// Checks that every block is whole and that nothing lies between them.
    fn verify_blocks(&self, stop: &Stop, damages: &mut Vec<Damage>) -> Result<(), SegmentError> {
        let mut places = Vec::new();
        for number in 0..self.description.blocks {
            stop.check()?;
            let read = self.blocks.entry(&self.file, number).and_then(|entry| {
                places.push(entry.offset..entry.offset.saturating_add(entry.length.into()));
                self.blocks.unpack(&self.file, number)
            });
            if let Err(error) = read {
                Damage::note(error, damages)?;
            }
        }
        places.sort_unstable_by_key(|place| place.start);
        let end = places.iter().try_fold(0, |end, place| (place.start == end).then_some(place.end));
        if end != Some(self.file.length(self.blocks.blocks)) {
            let error = self.file.damaged(self.blocks.table, 0, "the blocks do not lie one behind the other");
            Damage::note(error, damages)?;
        }
        Ok(())
    }
}

impl Drop for Documents {
    fn drop(&mut self) {
        self.cache.forget(self.cached_as);
    }
}

/// Reads rows one after the other, past the cache: it keeps the last block of texts and that of bodies.
pub(super) struct Walk<'a> {
    documents: &'a Documents,
    last: [Option<(u32, Arc<[u8]>)>; 2],
}

impl Walk<'_> {
    pub(super) fn text(&mut self, head: &Head) -> Result<&[u8], SegmentError> {
        self.read(blocks::Of::Text, head.text)
    }

    pub(super) fn body(&mut self, head: &Head) -> Result<&[u8], SegmentError> {
        self.read(blocks::Of::Body, head.body)
    }

    fn read(&mut self, of: blocks::Of, span: Span) -> Result<&[u8], SegmentError> {
        if span.length == 0 {
            return Ok(&[]);
        }
        let Documents { file, blocks, .. } = self.documents;
        let last = &mut self.last[of as usize];
        if last.as_ref().is_none_or(|(number, _)| *number != span.block) {
            *last = Some((span.block, blocks.unpack(file, span.block)?));
        }
        let (_, block) = last.as_ref().expect("it was just read");
        self.documents.span(block, span)
    }
}

/// Ids with their rows, in the order of the ids. After an error it ends.
#[derive(Debug)]
pub(crate) struct Scroll<'a> {
    documents: &'a Documents,
    next: u32,
}

impl Iterator for Scroll<'_> {
    type Item = Result<(PointId, Row), SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.documents.description.rows {
            return None;
        }
        let found = self.documents.by_id(self.next).and_then(|row| Ok((self.documents.id(row)?, row)));
        self.next = if found.is_ok() { self.next + 1 } else { u32::MAX };
        Some(found)
    }
}
