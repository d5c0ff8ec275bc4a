//! Writing files so that they are there whole or not at all, and folders that are ours alone.

use std::{
    fs::{self, DirBuilder, DirEntry, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::ModelError;

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

/// Most bytes of a description: `config.json`, `model.toml` and the like.
pub(crate) const DESCRIPTION_BYTES_MAX: u64 = 16 << 20;
/// Most bytes of a tokenizer or a vocabulary.
pub(crate) const TOKENIZER_BYTES_MAX: u64 = 256 << 20;
/// Most bytes of weights.
pub(crate) const WEIGHTS_BYTES_MAX: u64 = 16 << 30;

/// Reads a file that another program wrote. A symbolic link is followed, as a hub's cache needs it, but only a regular
/// file is
/// read: a device or a pipe would be read until memory ends.
///
/// # Errors
/// [`ModelError::MissingFile`]; [`ModelError::Unsupported`] for what is no regular file and for one of more than
/// `bytes_max`; [`ModelError::Io`].
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, ModelError> {
    let refused = |reason: String| ModelError::Unsupported { path: path.to_owned(), reason };
    let failed = |error| ModelError::from_io(path, error);
    // Looked at before it is opened: opening a pipe waits for somebody to write into it.
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(refused("it is not a regular file".to_owned()));
    }
    let too_large = |bytes: u64| {
        refused(format!("it has {bytes} bytes, and at most {bytes_max} are read of such a file"))
    };
    if metadata.len() > bytes_max {
        return Err(too_large(metadata.len()));
    }
    let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    let file = File::open(path).map_err(failed)?;
    // It may have grown, and some systems' special files say that they are empty.
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > bytes_max {
        return Err(too_large(content.len() as u64));
    }
    Ok(content)
}

/// [`read`] of text.
///
/// # Errors
/// As [`read`]; [`ModelError::Unsupported`] for what is not UTF-8.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> Result<String, ModelError> {
    String::from_utf8(read(path, bytes_max)?).map_err(|error| ModelError::Unsupported {
        path: path.to_owned(),
        reason: format!("it is not UTF-8 at byte {}", error.utf8_error().valid_up_to()),
    })
}

/// Fills a folder under a temporary name and renames it to `target`; what was there before is moved aside first and
/// removed once the new one is in its place.
///
/// # Errors
/// Those of `fill`, after which nothing is left; [`ModelError::Io`].
pub(crate) fn replace_folder(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| ModelError::Io { path, source }
    };
    let above = target.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(above).map_err(failed(above))?;
    let building = Unfinished(temporary_beside(target));
    fs::create_dir(&building.0).map_err(failed(&building.0))?;
    fill(&building.0)?;
    let old = Unfinished(temporary_beside(target));
    if target.exists() {
        fs::rename(target, &old.0).map_err(failed(target))?;
    }
    if let Err(source) = fs::rename(&building.0, target) {
        // What was there comes back; if even that fails, its name tells what it is.
        let _ = fs::rename(&old.0, target);
        return Err(ModelError::Io { path: target.to_owned(), source });
    }
    sync_folder(above).map_err(failed(above))
}

/// Removed when dropped, if it is still there.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
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
    // Whoever owns a file made now is this user; that saves a call into libc.
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

    #[cfg(unix)]
    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        fs::write(place("file"), "12345").unwrap();
        std::os::unix::fs::symlink(place("file"), place("link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", place("device")).unwrap();
        fs::create_dir(place("folder")).unwrap();
        for name in ["file", "link"] {
            assert_eq!(read(&place(name), 5).unwrap(), b"12345");
            assert!(matches!(read(&place(name), 4).unwrap_err(), ModelError::Unsupported { .. }));
        }
        for name in ["device", "folder"] {
            let error = read(&place(name), 5).unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{error}");
        }
        assert!(matches!(read(&place("nowhere"), 5).unwrap_err(), ModelError::MissingFile { .. }));
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
