//! Small files that are written whole and read whole: beside, synced, renamed, and checked when they are read.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    StoreError,
    disk::Disk,
    record::{frame, unframe},
};
use crate::files::regular;

/// Puts `bytes` in place of `path` and returns when they are on the device.
///
/// # Errors
/// [`StoreError::DiskFull`], [`StoreError::Io`]; what was there before is there still.
pub(crate) fn replace(path: &Path, bytes: &[u8], disk: &dyn Disk) -> Result<(), StoreError> {
    prepare(path, bytes, disk)?.put()
}

/// A file's new content, on the device beside the old one. Dropped before [`Prepared::put`], it is removed.
#[must_use = "the file is as it was before"]
pub(crate) struct Prepared<'a> {
    path: PathBuf,
    beside: PathBuf,
    disk: &'a dyn Disk,
    is_put: bool,
}

/// Writes `bytes` beside `path`: what is left to do needs no room.
///
/// # Errors
/// [`StoreError::DiskFull`], [`StoreError::Io`].
pub(crate) fn prepare<'a>(path: &Path, bytes: &[u8], disk: &'a dyn Disk) -> Result<Prepared<'a>, StoreError> {
    // Before the writing, so that half a file goes away too.
    let prepared = Prepared { path: path.to_owned(), beside: beside(path), disk, is_put: false };
    disk.write_file(&prepared.beside, bytes).map_err(|e| StoreError::full_or_io(&prepared.beside, e))?;
    Ok(prepared)
}

impl Prepared<'_> {
    /// Puts it in the place of the old content.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn put(mut self) -> Result<(), StoreError> {
        let path = &self.path;
        self.disk.rename(&self.beside, path).map_err(|e| StoreError::io(path, e))?;
        self.is_put = true;
        match path.parent() {
            Some(parent) => self.disk.sync_dir(parent).map_err(|e| StoreError::io(parent, e)),
            None => Ok(()),
        }
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if !self.is_put {
            // What stays is overwritten by the next one.
            let _ = std::fs::remove_file(&self.beside);
        }
    }
}

/// [`replace`] with a checksum around the bytes.
///
/// # Errors
/// As [`replace`].
pub(crate) fn replace_checked(path: &Path, body: &[u8], disk: &dyn Disk) -> Result<(), StoreError> {
    replace(path, &frame(body).0, disk)
}

/// [`prepare`] with a checksum around the bytes.
///
/// # Errors
/// As [`prepare`].
pub(crate) fn prepare_checked<'a>(
    path: &Path,
    body: &[u8],
    disk: &'a dyn Disk,
) -> Result<Prepared<'a>, StoreError> {
    prepare(path, &frame(body).0, disk)
}

/// The bytes that [`replace_checked`] wrote; `None` if there is no such file.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::NewerFormat`], [`StoreError::Io`].
pub(crate) fn read_checked(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match regular::read(path, regular::SMALL_BYTES_MAX) {
        Ok(bytes) => Ok(Some(unframe(&bytes, path, "it")?.0)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge) => {
            Err(StoreError::corrupt(path, e.to_string()))
        }
        Err(e) => Err(StoreError::io(path, e)),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::{super::disk::RealDisk, *};

    #[test]
    fn what_is_prepared_takes_the_place_when_it_is_told_to_and_else_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        replace(&path, b"one", &RealDisk).unwrap();
        let prepared = prepare(&path, b"another", &RealDisk).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        drop(prepared);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        prepare(&path, b"another", &RealDisk).unwrap().put().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"another");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_checked_file_is_replaced_whole_and_damage_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert_eq!(read_checked(&path).unwrap(), None);
        for body in [b"one".as_slice(), b"another"] {
            replace_checked(&path, body, &RealDisk).unwrap();
            assert_eq!(read_checked(&path).unwrap().unwrap(), body);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            std::fs::write(&path, bad).unwrap();
            assert!(read_checked(&path).is_err(), "byte {at}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(read_checked(&path).unwrap_err(), StoreError::Corrupt { .. }));
    }
}
