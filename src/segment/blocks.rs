//! Texts and bodies, packed together in blocks of about [`BLOCK_BYTES`].
//!
//! Texts have blocks of their own, so that a title or a payload is read without the text. A block is packed by zstd, or
//! left as it is where that would not make it smaller, and has its own sum, which is checked at every reading. Blocks
//! lie in the order in which they became full; their numbers are given out when they are begun.

use std::sync::Arc;

use super::{
    SegmentError,
    file::{Place, SealedFile, u32_at, u64_at},
    write::FileWriter,
};

/// Raw bytes at which a block is full. What is larger has a block of its own.
pub(super) const BLOCK_BYTES: usize = 32 << 10;
/// Bytes of a block in the table.
pub(super) const ENTRY_BYTES: u64 = 24;
/// zstd level: above it, sentences get little smaller and much slower.
const LEVEL: i32 = 3;

/// Where something lies: block, offset in the unpacked block, length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub(super) block: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// Which kind of block something goes to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of {
    Text,
    Body,
}

/// Packs blocks and writes them into the open section of a file.
pub(super) struct BlockWriter {
    compressor: zstd::bulk::Compressor<'static>,
    /// Of texts, and of bodies.
    open: [OpenBlock; 2],
    next: u32,
    /// Number of the block with its entry, in the order of writing.
    written: Vec<(u32, [u8; ENTRY_BYTES as usize])>,
}

impl std::fmt::Debug for BlockWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockWriter").field("blocks", &self.next).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct OpenBlock {
    number: u32,
    bytes: Vec<u8>,
}

impl BlockWriter {
    pub(super) fn new() -> Self {
        let compressor =
            zstd::bulk::Compressor::new(LEVEL).expect("the level is one of zstd's, and the rest is memory");
        BlockWriter { compressor, open: Default::default(), next: 0, written: Vec::new() }
    }

    /// Adds some bytes; nothing has a place of its own in no block.
    pub(super) fn add(
        &mut self,
        of: Of,
        bytes: &[u8],
        writer: &mut FileWriter,
    ) -> Result<Span, SegmentError> {
        let length =
            u32::try_from(bytes.len()).map_err(|_| SegmentError::Full { what: "bytes of a text" })?;
        if bytes.is_empty() {
            return Ok(Span::default());
        }
        let open = of as usize;
        if self.open[open].bytes.len() + bytes.len() > BLOCK_BYTES {
            self.close(open, writer)?;
        }
        if self.open[open].bytes.is_empty() {
            self.open[open].number = self.next;
            self.next = self.next.checked_add(1).ok_or(SegmentError::Full { what: "blocks" })?;
        }
        let OpenBlock { number, bytes: block } = &mut self.open[open];
        let span = Span { block: *number, offset: block.len() as u32, length };
        block.extend_from_slice(bytes);
        if block.len() >= BLOCK_BYTES {
            self.close(open, writer)?;
        }
        Ok(span)
    }

    fn close(&mut self, open: usize, writer: &mut FileWriter) -> Result<(), SegmentError> {
        let OpenBlock { number, bytes } = &mut self.open[open];
        if bytes.is_empty() {
            return Ok(());
        }
        let packed = self.compressor.compress(bytes);
        let packed = packed.as_deref().ok().filter(|packed| packed.len() < bytes.len()).unwrap_or(bytes);
        let mut entry = [0; ENTRY_BYTES as usize];
        entry[..8].copy_from_slice(&writer.section_bytes().to_le_bytes());
        entry[8..12].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        entry[16..20].copy_from_slice(&crc32c::crc32c(packed).to_le_bytes());
        writer.write(packed)?;
        self.written.push((*number, entry));
        bytes.clear();
        // A text of its own block may have been large.
        bytes.shrink_to(2 * BLOCK_BYTES);
        Ok(())
    }

    /// Closes the last blocks; returns the table of all.
    pub(super) fn finish(mut self, writer: &mut FileWriter) -> Result<Vec<u8>, SegmentError> {
        self.close(Of::Text as usize, writer)?;
        self.close(Of::Body as usize, writer)?;
        self.written.sort_unstable_by_key(|(number, _)| *number);
        Ok(self.written.iter().flat_map(|(_, entry)| entry).copied().collect())
    }
}

/// The blocks of an open file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    pub(super) table: Place,
    pub(super) blocks: Place,
}

/// A block as the table has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) length: u32,
    raw: u32,
    crc: u32,
}

impl Blocks {
    pub(super) fn entry(self, file: &SealedFile, number: u32) -> Result<Entry, SegmentError> {
        let bytes = file.record(self.table, number.into(), ENTRY_BYTES)?;
        let entry = Entry {
            offset: u64_at(bytes, 0),
            length: u32_at(bytes, 8),
            raw: u32_at(bytes, 12),
            crc: u32_at(bytes, 16),
        };
        if entry.length > entry.raw {
            let at = u64::from(number) * ENTRY_BYTES;
            return Err(file.damaged(self.table, at, "a block has impossible lengths"));
        }
        Ok(entry)
    }

    /// Unpacks a block.
    pub(super) fn unpack(self, file: &SealedFile, number: u32) -> Result<Arc<[u8]>, SegmentError> {
        let entry = self.entry(file, number)?;
        let end = entry.offset.saturating_add(entry.length.into());
        let packed = file.bytes(self.blocks, entry.offset..end)?;
        if crc32c::crc32c(packed) != entry.crc {
            return Err(file.damaged(self.blocks, entry.offset, format!("block {number} has a wrong sum")));
        }
        if entry.length == entry.raw {
            return Ok(packed.into());
        }
        // The frame says the same before memory is taken for it.
        if !matches!(zstd::zstd_safe::get_frame_content_size(packed), Ok(Some(raw)) if raw == u64::from(entry.raw))
        {
            return Err(file.damaged(
                self.blocks,
                entry.offset,
                format!("block {number} has another length"),
            ));
        }
        let raw = zstd::bulk::decompress(packed, entry.raw as usize)
            .map_err(|e| file.damaged(self.blocks, entry.offset, format!("block {number}: {e}")))?;
        if raw.len() != entry.raw as usize {
            return Err(file.damaged(
                self.blocks,
                entry.offset,
                format!("block {number} has another length"),
            ));
        }
        Ok(raw.into())
    }
}
