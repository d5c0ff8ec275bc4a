//! One process per data folder: a lock on `DIR/LOCK` with the holder's process number inside.
//!
//! The lock is the operating system's, so it ends with the process however that ends; a file left behind means nothing.

use std::{
    fs::{File, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use super::{StoreError, private};
use crate::files::{self, regular};

/// Name of the file in the data folder.
pub const LOCK_FILE: &str = "LOCK";

/// Held as long as this lives.
#[derive(Debug)]
pub struct DataLock {
    file: File,
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
        let mut options = private::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = regular::open_with(&path, &options).map_err(|e| StoreError::opening(&path, e))?;
        match file.try_lock() {
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
            Err(TryLockError::Error(e)) => return Err(StoreError::io(&path, e)),
        }
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
        Ok(DataLock { file, path })
    }
}

impl Drop for DataLock {
    fn drop(&mut self) {
        // Emptied so that nobody reads a stale number; the lock itself goes with the file handle.
        if let Err(error) = self.file.set_len(0).and_then(|()| self.file.unlock()) {
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
