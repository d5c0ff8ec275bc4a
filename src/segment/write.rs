//! Writes a sealed file from front to back.
//!
//! Nothing that goes into a section is kept but its sums. What can be told only at the end, while another section of the
//! file is being written, waits in a [`Spool`].

use std::{
    mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    SegmentError,
    file::{ALIGN, Check, ENTRY_BYTES, FOOTER_BYTES, HEADER_BYTES, MAGIC_OF_END, Owner, SECTIONS_MAX, seal},
};
use crate::files::disk::{Disk, DiskFile};

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// A sealed file that is being written.
#[derive(Debug)]
pub(super) struct FileWriter {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    buffer: Vec<u8>,
    /// Where the buffer goes.
    flushed: u64,
    header_sum: [u8; 4],
    table: Vec<u8>,
    open: Option<OpenSection>,
}

/// The section that is being written.
#[derive(Debug)]
struct OpenSection {
    name: u16,
    check: Check,
    offset: u64,
    length: u64,
    /// Of the section or of its last chunk.
    crc: u32,
    /// Of the chunks that are complete.
    sums: Vec<u8>,
}

impl FileWriter {
    /// Makes the file, which must not be there.
    pub(super) fn create(disk: &dyn Disk, path: &Path, owner: Owner) -> Result<Self, SegmentError> {
        let file = disk.create(path).map_err(|e| SegmentError::io(path, e))?;
        let header = owner.header();
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        buffer.extend_from_slice(&header);
        let header_sum = [header[60], header[61], header[62], header[63]];
        let path = path.to_owned();
        Ok(FileWriter { file, path, buffer, flushed: 0, header_sum, table: Vec::new(), open: None })
    }

    /// Begins a section; the one before ends.
    pub(super) fn begin(&mut self, name: u16, check: Check) -> Result<(), SegmentError> {
        self.end()?;
        let offset = self.position();
        self.open = Some(OpenSection { name, check, offset, length: 0, crc: 0, sums: Vec::new() });
        Ok(())
    }

    /// Writes bytes of the section that is open.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        let open = self.open.as_mut().expect("a section was begun");
        let mut rest = bytes;
        while let Check::Chunks(power) = open.check
            && !rest.is_empty()
        {
            let room = (1 << power) - (open.length & ((1 << power) - 1));
            let (now, later) = rest.split_at(rest.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            open.crc = crc32c::crc32c_append(open.crc, now);
            open.length += now.len() as u64;
            if now.len() as u64 == room {
                open.sums.extend_from_slice(&mem::take(&mut open.crc).to_le_bytes());
            }
            rest = later;
        }
        if open.check == Check::Whole {
            open.crc = crc32c::crc32c_append(open.crc, rest);
        }
        open.length += rest.len() as u64;
        self.put(bytes)
    }

    /// Bytes of the section so far.
    pub(super) fn section_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.length)
    }

    /// A section as a whole.
    pub(super) fn section(&mut self, name: u16, check: Check, bytes: &[u8]) -> Result<(), SegmentError> {
        self.begin(name, check)?;
        self.write(bytes)
    }

    /// A section of what waited in a spool.
    pub(super) fn spooled(&mut self, name: u16, check: Check, spool: Spool) -> Result<(), SegmentError> {
        self.begin(name, check)?;
        spool.give(self)
    }

    fn end(&mut self) -> Result<(), SegmentError> {
        if let Some(mut open) = self.open.take() {
            if let Check::Chunks(power) = open.check {
                if open.length & ((1 << power) - 1) != 0 {
                    open.sums.extend_from_slice(&open.crc.to_le_bytes());
                }
                self.align()?;
                self.put(&open.sums)?;
                open.crc = crc32c::crc32c(&open.sums);
            }
            self.table.extend_from_slice(&open.name.to_le_bytes());
            self.table.extend_from_slice(&open.check.bytes());
            self.table
                .extend_from_slice(&if open.check == Check::Parts { 0 } else { open.crc }.to_le_bytes());
            self.table.extend_from_slice(&open.offset.to_le_bytes());
            self.table.extend_from_slice(&open.length.to_le_bytes());
        }
        self.align()
    }

    /// Writes table and footer and syncs the file. Its name is the caller's to make durable.
    pub(super) fn finish(mut self) -> Result<(), SegmentError> {
        self.end()?;
        let table = mem::take(&mut self.table);
        let table_at = self.position();
        let count = table.len() / ENTRY_BYTES;
        assert!(count <= SECTIONS_MAX, "no file has so many sections");
        self.put(&table)?;
        self.align()?;
        let mut footer = [0; FOOTER_BYTES];
        footer[..8].copy_from_slice(&MAGIC_OF_END);
        footer[8..16].copy_from_slice(&table_at.to_le_bytes());
        footer[16..20].copy_from_slice(&(count as u32).to_le_bytes());
        footer[20..24].copy_from_slice(&crc32c::crc32c(&table).to_le_bytes());
        footer[24..32].copy_from_slice(&(self.position() + FOOTER_BYTES as u64).to_le_bytes());
        footer[32..36].copy_from_slice(&self.header_sum);
        seal(&mut footer);
        self.put(&footer)?;
        self.flush()?;
        self.file.sync_all().map_err(|e| SegmentError::io(&self.path, e))
    }

    fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    fn align(&mut self) -> Result<(), SegmentError> {
        const ZEROS: [u8; ALIGN as usize] = [0; ALIGN as usize];
        let missing = self.position().next_multiple_of(ALIGN) - self.position();
        self.put(&ZEROS[..missing as usize])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() > BUFFER_BYTES {
            self.file.write_at(self.flushed, bytes).map_err(|e| SegmentError::io(&self.path, e))?;
            self.flushed += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SegmentError> {
        self.file.write_at(self.flushed, &self.buffer).map_err(|e| SegmentError::io(&self.path, e))?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

const _: () = assert!(HEADER_BYTES as u64 == ALIGN, "the first section follows the header at once");

/// Bytes that wait for their place: in memory, and above a limit in a file of their own, which goes again.
#[derive(Debug)]
pub(super) struct Spool {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    buffer: Vec<u8>,
    limit: usize,
    file: Option<Arc<dyn DiskFile>>,
    /// Bytes in the file.
    spilled: u64,
}

impl Spool {
    /// An empty one. `path` is where the file lies if one is needed.
    pub(super) fn new(disk: &Arc<dyn Disk>, path: PathBuf, limit: usize) -> Self {
        Spool { disk: Arc::clone(disk), path, buffer: Vec::new(), limit, file: None, spilled: 0 }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        if !self.buffer.is_empty() && self.buffer.len() + bytes.len() > self.limit {
            let system = |error| SegmentError::io(&self.path, error);
            let file = match &self.file {
                Some(file) => file,
                None => self.file.insert(self.disk.create(&self.path).map_err(system)?),
            };
            file.write_at(self.spilled, &self.buffer).map_err(system)?;
            self.spilled += self.buffer.len() as u64;
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes everything into the open section of `writer`, and removes the file.
    fn give(self, writer: &mut FileWriter) -> Result<(), SegmentError> {
        if let Some(file) = self.file {
            let mut at = 0;
            let mut piece = vec![0; BUFFER_BYTES];
            while at < self.spilled {
                let len = BUFFER_BYTES.min(usize::try_from(self.spilled - at).unwrap_or(BUFFER_BYTES));
                file.read_exact_at(at, &mut piece[..len]).map_err(|e| SegmentError::io(&self.path, e))?;
                writer.write(&piece[..len])?;
                at += len as u64;
            }
            drop(file);
            self.disk.remove(&self.path).map_err(|e| SegmentError::io(&self.path, e))?;
        }
        writer.write(&self.buffer)
    }
}
