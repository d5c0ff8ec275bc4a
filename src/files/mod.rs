//! Writing files so that they are there whole or not at all, and folders that are ours alone.
//!
//! What the store writes goes through its `Disk`, so that tests can make it fail; what log and segments write goes
//! through the one of `disk.rs`. What is opened and read goes through [`regular`].

use std::{
    fs::{self, DirBuilder, DirEntry, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

pub(crate) mod disk;
#[cfg(test)]
pub(crate) mod faulty;
#[cfg(test)]
pub(crate) mod forgetful;
mod map;
pub(crate) mod reading;
pub(crate) mod regular;
#[cfg(test)]
pub(crate) mod seeds;
pub(crate) mod staged;
pub(crate) mod sums;
pub(crate) mod watched;

pub(crate) use map::Mapped;

/// Begins the name of everything that is not finished.
const TEMPORARY: &str = ".tmp-";
/// Age at which something unfinished is taken for the remains of a process that died.
const REMAINS_AGE: Duration = Duration::from_secs(3600);

/// Writes to a temporary name, fsyncs, renames, fsyncs the folder.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    write_whole_with(path, |file| file.write_all(content))
}

/// The same for content that is not in memory: `write` gives it to the file piece by piece.
pub(crate) fn write_whole_with(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = temporary_beside(path);
    let written = (|| {
        let mut file = File::create_new(&temporary)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// A name beside `path` that no other process or thread uses.
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!("{TEMPORARY}{}-{count}-{name}", process::id()))
}

/// Whether an unfinished file or folder is so old that no process works on it any more.
pub(crate) fn is_remains(entry: &DirEntry) -> bool {
    let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
    entry.file_name().to_string_lossy().starts_with(TEMPORARY) && age().is_some_and(|age| age > REMAINS_AGE)
}

/// Makes a rename in the folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened as a file, and the rename itself is all there is.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Makes a folder, with those above it, that only this user may enter.
pub(crate) fn create_private(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Whether the folder is this user's and nobody else may write to it.
#[cfg(unix)]
pub(crate) fn is_private(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = fs::symlink_metadata(folder) else { return false };
    // The owner of a file made now is this user; that saves a call into libc.
    let probe = temporary_beside(&folder.join("owner"));
    let me = File::create_new(&probe).and_then(|file| file.metadata()).map(|metadata| metadata.uid());
    let _ = fs::remove_file(&probe);
    metadata.is_dir() && metadata.mode() & 0o022 == 0 && me.is_ok_and(|me| me == metadata.uid())
}

/// Not known here, so never.
#[cfg(not(unix))]
pub(crate) fn is_private(_folder: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::create_dir(&path).unwrap();
        assert!(write_whole(&path, b"one").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_old_unfinished_files_are_remains() {
        let folder = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - 2 * REMAINS_AGE;
        for (name, is_old) in [(".tmp-1-0-a", true), (".tmp-1-1-b", false), ("c", true)] {
            let file = File::create(folder.path().join(name)).unwrap();
            if is_old {
                file.set_modified(old).unwrap();
            }
        }
        let remains: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(Result::unwrap)
            .filter(is_remains)
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(remains, [".tmp-1-0-a"]);
    }
}
