//! The file that is written, and the one that comes next.
//!
//! A file is made under another name, gets its room and its header, is synced, and only then gets its number: what has
//! a number has a header. The next file is made ahead, when half of the last one is used and nobody waits. While there
//! is none because the disk is full, the last part of a file is kept for what frees room.
//!
//! File systems differ in what the room costs: where a file's room is reserved, a write that fits cannot fail for lack
//! of it, and names need none; where it is not, any write can, and what it left is overwritten.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Identity, LogError, LogOptions, Sequence,
    format::{BlockHead, FileHead, PAGE, Row, encode_block, salt},
    recover::{SPARE, path_of},
};
use crate::files::disk::{Disk, DiskFile, is_no_room};

/// Files of the log are no smaller, however small files must be.
const FILE_BYTES_LEAST: u64 = 64 << 10;

/// A file that blocks are appended to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    /// Where the next block goes.
    pub(super) at: u64,
    pub(super) len: u64,
    /// What the header of the next block has as the sum before it.
    pub(super) link: u32,
    pub(super) salt: u64,
}

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Nothing is lost, and the same may be tried later.
    Passing(LogError),
    /// What the device has is not known any more.
    Fatal(LogError),
}

/// A file that was begun: whoever keeps the ledger enters it.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// Writes blocks, one behind the other.
#[derive(Debug)]
pub(super) struct Appender {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    identity: Identity,
    options: LogOptions,
    active: Option<Active>,
    /// The next file, as long as this, without a header.
    spare: Option<(Arc<dyn DiskFile>, u64)>,
    next_number: u64,
    /// Of the next entry.
    pub(super) next: Sequence,
    pub(super) synced: Sequence,
    /// Whether the end of what is written says that all of it is synced.
    is_marked: bool,
    block: Vec<u8>,
}

impl Appender {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: Identity,
        options: LogOptions,
        active: Option<Active>,
        (next_number, next): (u64, Sequence),
    ) -> Self {
        Appender {
            disk,
            dir: dir.to_owned(),
            identity,
            options,
            active,
            spare: None,
            next_number,
            next,
            synced: next.before(),
            is_marked: false,
            block: Vec::new(),
        }
    }

    /// Whether something is written that is not known to be synced.
    pub(super) fn is_unsynced(&self) -> bool {
        self.synced.next() < self.next
    }

    /// Makes room for a block of `bytes`, in another file if need be, which is returned. `frees` tells whether the
    /// block may use what is kept for a full disk.
    pub(super) fn make_room(&mut self, bytes: u64, frees: bool) -> Result<Option<Begun>, Refusal> {
        if self.has_room(bytes, frees) {
            return Ok(None);
        }
        if self.spare.is_none() {
            self.make_spare(self.options.file_bytes)?;
        }
        if self.has_room(bytes, frees) {
            return Ok(None);
        }
        // A file of its own for a block that is larger than files are.
        let kept = if frees { 0 } else { self.options.reserve_bytes };
        let needed = (PAGE + bytes + PAGE + kept).next_multiple_of(PAGE).max(self.options.file_bytes);
        if let Some((file, len)) = &mut self.spare
            && *len < needed
        {
            let path = self.dir.join(SPARE);
            file.allocate(needed).map_err(|error| Refusal::Passing(LogError::passing(&path, error)))?;
            file.sync_all().map_err(|error| Refusal::Fatal(LogError::passing(&path, error)))?;
            *len = needed;
        }
        self.rotate().map(Some)
    }

    /// Whether a block fits into the file that is written, with a mark behind it.
    fn has_room(&self, bytes: u64, frees: bool) -> bool {
        let kept = if frees || self.spare.is_some() { 0 } else { self.options.reserve_bytes };
        self.active.as_ref().is_some_and(|active| active.at + bytes + PAGE + kept <= active.len)
    }

    /// Makes the next file if it will be needed soon. That there is no room for it is no failure yet.
    pub(super) fn prepare(&mut self) -> Result<(), Refusal> {
        let is_due = self.active.as_ref().is_some_and(|active| active.at > active.len / 2);
        if self.spare.is_some() || !is_due {
            return Ok(());
        }
        match self.make_spare(self.options.file_bytes) {
            Err(Refusal::Passing(_)) => Ok(()),
            made => made,
        }
    }

    fn make_spare(&mut self, len: u64) -> Result<(), Refusal> {
        let path = self.dir.join(SPARE);
        let passing = |error| Refusal::Passing(LogError::passing(&path, error));
        let file = match self.disk.create(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                // It was left when it could not be made.
                self.disk.remove(&path).map_err(passing)?;
                self.disk.create(&path)
            }
            file => file,
        }
        .map_err(passing)?;
        let mut len = len;
        while let Err(error) = file.allocate(len) {
            // Smaller files do as well, and this limit stays.
            if error.kind() == std::io::ErrorKind::FileTooLarge && len / 2 >= FILE_BYTES_LEAST {
                len = (len / 2).next_multiple_of(PAGE);
                self.options.file_bytes = len;
                self.options.reserve_bytes = self.options.reserve_bytes.min(len / 16);
                continue;
            }
            // What it got is given back.
            let _ = self.disk.remove(&path);
            return Err(passing(error));
        }
        file.sync_all().map_err(|error| Refusal::Fatal(LogError::passing(&path, error)))?;
        self.spare = Some((file, len));
        Ok(())
    }

    /// Begins the next file, which is there, and ends the one that is written. The next one has its name before the end
    /// of this one is marked: where such a mark is in the last file, a file is lost.
    fn rotate(&mut self) -> Result<Begun, Refusal> {
        if self.is_unsynced() {
            self.sync().map_err(Refusal::Fatal)?;
        }
        let (number, path) = (self.next_number, path_of(&self.dir, self.next_number));
        let Some((file, len)) = &self.spare else { unreachable!("it was made before") };
        let refusal = |error| {
            let error = LogError::passing(&path, error);
            if matches!(error, LogError::DiskFull { .. } | LogError::FileLimit { .. }) {
                Refusal::Passing(error)
            } else {
                Refusal::Fatal(error)
            }
        };
        let head = FileHead { number, identity: self.identity, first: self.next, len: *len };
        let mut page = vec![0; PAGE as usize];
        let bytes = head.encode();
        page[..bytes.len()].copy_from_slice(&bytes);
        file.write_at(0, &page).map_err(refusal)?;
        file.sync_all().map_err(|error| Refusal::Fatal(LogError::passing(&path, error)))?;
        self.disk.rename(&self.dir.join(SPARE), &path).map_err(refusal)?;
        self.disk.sync_dir(&self.dir).map_err(|error| Refusal::Fatal(LogError::passing(&self.dir, error)))?;
        self.end_file()?;
        let (file, len) = self.spare.take().unwrap_or_else(|| unreachable!("it was there"));
        let salt = salt(&self.identity, number);
        self.active = Some(Active { path: path.clone(), file, at: PAGE, len, link: head.link(), salt });
        self.next_number += 1;
        self.is_marked = false;
        Ok(Begun { number, path, bytes: len })
    }

    /// Says at the end of the file that is written that it has no more blocks. All of it is synced.
    fn end_file(&mut self) -> Result<(), Refusal> {
        let Some(active) = &self.active else { return Ok(()) };
        let path = active.path.clone();
        match self.write_mark(true) {
            // The next file says as much by its first entry.
            Err(error) if is_no_room(&error) => {}
            written => written.map_err(|error| Refusal::Fatal(LogError::passing(&path, error)))?,
        }
        self.sync().map_err(Refusal::Fatal)?;
        self.active = None;
        Ok(())
    }

    /// Writes a block into the room that was made for it; its entries follow the last one.
    pub(super) fn write(&mut self, entries: &[(Row, &[u8])]) -> Result<(), Refusal> {
        let head = self.head(false);
        let active = self.active.as_mut().expect("room was made");
        let head = encode_block(head, entries, &mut self.block);
        debug_assert!(active.at + u64::from(head.len) + PAGE <= active.len, "room was made");
        self.is_marked = false;
        if let Err(error) = active.file.write_at(active.at, &self.block) {
            let path = active.path.clone();
            if !is_no_room(&error) {
                return Err(Refusal::Fatal(LogError::passing(&path, error)));
            }
            // What was written of it is no block. If this fails too, the next block lies over it.
            let _ = active.file.write_at(active.at, &[0; PAGE as usize]);
            return Err(Refusal::Passing(LogError::passing(&path, error)));
        }
        active.at += u64::from(head.len);
        active.link = head.link();
        self.next = head.next();
        Ok(())
    }

    /// Syncs all that is written.
    ///
    /// # Errors
    /// What the system says. What the device has is not known then.
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        if let Some(active) = &self.active {
            active.file.sync_data().map_err(LogError::at(&active.path))?;
        }
        self.synced = self.next.before();
        Ok(())
    }

    /// Says behind the last block that all of it is synced, if it is. That gives away damage of the last block, and
    /// costs little: it is not synced itself, and the next block overwrites it.
    pub(super) fn mark(&mut self) {
        if !self.is_marked && !self.is_unsynced() {
            // It is a help and no more; what is wrong with the device is seen at the next block.
            self.is_marked = self.write_mark(false).is_ok();
        }
    }

    fn write_mark(&mut self, is_end: bool) -> std::io::Result<()> {
        let head = self.head(is_end);
        let Some(active) = &self.active else { return Ok(()) };
        encode_block(head, &[], &mut self.block);
        active.file.write_at(active.at, &self.block)
    }

    fn head(&self, is_end: bool) -> BlockHead {
        let (salt, previous) = self.active.as_ref().map_or((0, 0), |active| (active.salt, active.link));
        BlockHead {
            len: 0,
            count: 0,
            first: self.next,
            salt,
            synced: self.synced,
            previous,
            table_sum: 0,
            is_end,
        }
    }

    /// What is not a file of the log yet is removed.
    pub(super) fn close(&mut self) {
        if self.spare.take().is_some() {
            // It would be removed at the next start.
            let _ = self.disk.remove(&self.dir.join(SPARE));
        }
        self.active = None;
    }
}
