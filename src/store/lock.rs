//! One process per data folder: a lock on `DIR/LOCK` with the holder's process number inside.
//!
//! The lock is the operating system's, so it ends with the process however that ends; a file left behind means nothing.
//!
//! A lock is on a file and not on its name. So the file is looked at again once it is locked: it must still be the one
//! that lies in the folder. And the folder itself is locked too, for the case that somebody removes the file of a folder
//! that is in use.

use std::{
    fs::{File, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use super::{StoreError, private};
use crate::files::{self, regular};

/// Name of the file in the data folder.
pub const LOCK_FILE: &str = "LOCK";

/// How often a file that was replaced while it was being locked is tried again.
const LOCK_TRIES: usize = 8;

/// Held as long as this lives.
#[derive(Debug)]
pub struct DataLock {
    file: File,
    /// The folder itself; `None` where it cannot be locked.
    folder: Option<File>,
    path: PathBuf,
}

impl DataLock {
    /// Takes the folder for this process, making it if it is missing. Does not wait.
    ///
    /// # Errors
    /// [`StoreError::Locked`] naming the holder; [`StoreError::ReadOnlyFolder`], [`StoreError::NoRoomToOpen`],
    /// [`StoreError::Io`] if the folder cannot be written.
    pub fn acquire(dir: &Path) -> Result<Self, StoreError> {
        files::create_private(dir).map_err(|e| StoreError::opening(dir, e))?;
        let path = dir.join(LOCK_FILE);
        let mut file = lock_file(dir, &path)?;
        let folder = lock_folder(dir)?;
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        match write(&mut file) {
            // The lock is held all the same; only its holder is told by nobody.
            Err(error) if super::is_full(&error) => {
                tracing::warn!(path = %path.display(), %error, "the number of this process is not in the lock file");
            }
            written => written.map_err(|e| StoreError::io(&path, e))?,
        }
        Ok(DataLock { file, folder, path })
    }
}

/// The file in the folder, locked, and still the file in the folder when it is.
fn lock_file(dir: &Path, path: &Path) -> Result<File, StoreError> {
    let mut options = private::options();
    options.read(true).write(true).create(true).truncate(false);
    for _ in 0..LOCK_TRIES {
        let file = regular::open_with(path, &options).map_err(|e| StoreError::opening(path, e))?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => return Ok(file),
            // Somebody put another one in its place.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let read = file.take(32).read_to_string(&mut pid);
                let holder = match (read, pid.trim().parse::<u32>()) {
                    (Ok(_), Ok(pid)) => format!("process {pid}"),
                    _ => "its number is unknown".to_owned(),
                };
                return Err(StoreError::Locked { path: dir.to_owned(), holder });
            }
            Err(TryLockError::Error(e)) => return Err(StoreError::io(path, e)),
        }
    }
    let reason = "its lock file is replaced again and again";
    Err(StoreError::Locked { path: dir.to_owned(), holder: reason.to_owned() })
}

/// Whether a file is the one of this name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(locked), Ok(there)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    (locked.dev(), locked.ino()) == (there.dev(), there.ino())
}

/// Elsewhere a file that is locked cannot be replaced.
#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> bool {
    true
}

/// The folder itself, locked; `None` where a folder cannot be.
fn lock_folder(dir: &Path) -> Result<Option<File>, StoreError> {
    // Elsewhere than on Unix a folder is no file, and some file systems lock no folders: then the file has to do.
    let Ok(folder) = File::open(dir) else { return Ok(None) };
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => {
            let holder = format!("its number is unknown, since {LOCK_FILE} was removed under it");
            Err(StoreError::Locked { path: dir.to_owned(), holder })
        }
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

impl Drop for DataLock {
    fn drop(&mut self) {
        // Emptied so that nobody reads a stale number; the lock itself goes with the file handle.
        let folder = self.folder.as_ref().map_or(Ok(()), File::unlock);
        if let Err(error) = self.file.set_len(0).and(folder).and_then(|()| self.file.unlock()) {
            tracing::warn!(path = %self.path.display(), %error, "lock file not cleared");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_holder_is_told_the_first_ones_number() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DataLock::acquire(dir.path()).unwrap();
        let error = DataLock::acquire(dir.path()).unwrap_err();
        let expected = format!("process {}", std::process::id());
        assert!(matches!(&error, StoreError::Locked { holder, .. } if *holder == expected), "{error}");
        drop(lock);
        DataLock::acquire(dir.path()).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_whose_lock_file_is_removed_or_replaced_has_one_holder_still() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        let lock = DataLock::acquire(&old).unwrap();
        std::fs::remove_file(old.join(LOCK_FILE)).unwrap();
        for _ in 0..2 {
            let error = DataLock::acquire(&old).unwrap_err().to_string();
            assert!(error.contains("in use") && error.contains("was removed"), "{error}");
        }
        // A folder that is moved while it is in use takes its lock along, and its old name is free.
        std::fs::rename(&old, &new).unwrap();
        assert!(DataLock::acquire(&new).is_err());
        drop(DataLock::acquire(&old).unwrap());
        drop(lock);
        DataLock::acquire(&new).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_on_a_file_that_lies_there_no_more_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK_FILE);
        std::fs::write(&path, "").unwrap();
        let file = File::open(&path).unwrap();
        assert!(is_at(&file, &path));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path));
        std::fs::write(&path, "").unwrap();
        assert!(!is_at(&file, &path), "another one has its name");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_on_a_file_system_that_is_read_only_says_so() {
        let Some(mount) = crate::store::tests::SmallDisk::mount(4) else { return };
        let dir = mount.0.path().join("db");
        drop(DataLock::acquire(&dir).unwrap());
        let remounted =
            std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(mount.0.path()).status();
        assert!(remounted.unwrap().success());
        for dir in [dir, mount.0.path().join("other")] {
            let error = DataLock::acquire(&dir).unwrap_err().to_string();
            assert!(error.contains("read-only") && error.contains("--data"), "{error}");
        }
    }

    #[test]
    fn a_stale_lock_file_does_not_lock() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOCK_FILE), "4000000000\n").unwrap();
        DataLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_io_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = DataLock::acquire(&file.join("db")).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
    }
}
