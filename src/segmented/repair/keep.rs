//! The folder of what was damaged: files lie in it below the names that they had in the data folder, and a note says why.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use crate::{files::disk::Disk, store::StoreError};

/// Bytes copied at a time.
const STEP_BYTES: usize = 1 << 20;

/// What is in a folder of damaged files, and where it was.
const WHERE_FILE: &str = "where-these-files-were.txt";

/// Keeps damaged files in a folder beside, below the names that they had in the data folder.
#[derive(Debug)]
pub(super) struct Keeping<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) root: &'a Path,
    pub(super) to: &'a Path,
}

impl Keeping<'_> {
    fn place(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let inside = path.strip_prefix(self.root).unwrap_or(path);
        let place = self.to.join(inside);
        self.make_dir(place.parent().unwrap_or(self.to))?;
        Ok(place)
    }

    /// Makes a folder below the data folder, durably, and those that it lies in.
    pub(super) fn make_dir(&self, dir: &Path) -> Result<(), StoreError> {
        if dir == self.root || self.disk.list(dir).is_ok() {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(self.root);
        self.make_dir(parent)?;
        match self.disk.create_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(StoreError::full_or_io(dir, e)),
            _ => {}
        }
        self.disk.sync_dir(parent).map_err(|e| StoreError::io(parent, e))
    }

    fn sync(&self, place: &Path) -> Result<(), StoreError> {
        let dir = place.parent().unwrap_or(self.to);
        self.disk.sync_dir(dir).map_err(|e| StoreError::io(dir, e))
    }

    /// Gives a file a second name. Whether it is there.
    pub(super) fn link(&self, path: &Path) -> Result<bool, StoreError> {
        let place = self.place(path)?;
        match self.disk.hard_link(path, &place) {
            Ok(()) => self.sync(&place).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            // Not every file system has second names.
            Err(_) => self.copy(path),
        }
    }

    /// Moves a file or a folder. Whether it was there.
    pub(super) fn away(&self, path: &Path) -> Result<bool, StoreError> {
        let parent = path.parent().unwrap_or(self.root);
        let is_there = |entry: &crate::files::disk::DirEntry| path.file_name() == Some(&*entry.name);
        if !self.disk.list(parent).map_err(|e| StoreError::io(parent, e))?.iter().any(is_there) {
            return Ok(false);
        }
        let place = self.place(path)?;
        self.disk.rename(path, &place).map_err(|e| StoreError::io(path, e))?;
        self.sync(&place)?;
        self.disk.sync_dir(parent).map_err(|e| StoreError::io(parent, e))?;
        Ok(true)
    }

    /// Copies a file. Whether it was there, and was not copied before.
    pub(super) fn copy(&self, path: &Path) -> Result<bool, StoreError> {
        let from = match self.disk.read_only(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            from => from.map_err(|e| StoreError::io(path, e))?,
        };
        let place = self.place(path)?;
        let to = match self.disk.create(&place) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            to => to.map_err(|e| StoreError::full_or_io(&place, e))?,
        };
        let mut step = vec![0; STEP_BYTES];
        let mut at = 0;
        loop {
            let read = from.read_at(at, &mut step).map_err(|e| StoreError::io(path, e))?;
            if read == 0 {
                break;
            }
            to.write_at(at, &step[..read]).map_err(|e| StoreError::full_or_io(&place, e))?;
            at += read as u64;
        }
        to.sync_all().map_err(|e| StoreError::io(&place, e))?;
        self.sync(&place)?;
        Ok(true)
    }

    /// Writes down where the files of a folder were.
    pub(super) fn say(&self, dir: &Path, files: &BTreeMap<PathBuf, String>) -> Result<(), StoreError> {
        if files.is_empty() {
            return Ok(());
        }
        let place = self.place(&dir.join(WHERE_FILE))?;
        let lines = files.iter().map(|(path, why)| {
            let why = if why.is_empty() { "kept with the damaged ones" } else { why };
            format!("{}\t{why}\n", path.display())
        });
        let text: String = lines.collect();
        let file = match self.disk.create(&place) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.open(&place).map_err(|e| StoreError::io(&place, e))?
            }
            file => file.map_err(|e| StoreError::full_or_io(&place, e))?,
        };
        let written =
            file.len().and_then(|len| file.write_at(len, text.as_bytes())).and_then(|()| file.sync_all());
        written.map_err(|e| StoreError::full_or_io(&place, e))?;
        self.sync(&place)
    }
}
