//! A collection's folder: what it says about itself, and whether it is whole.
//!
//! Three small files tell it, so that nothing has to be guessed from what a catalogue does or does not name:
//!
//! - `collection` is the description, with a checksum; what its bytes mean is known to whoever writes it.
//! - `creating` stands there until the collection is announced: a folder with it was never anybody's.
//! - `deleting` stands there once a deletion is decided: a folder with it is nobody's any more.
//!
//! [`remove`] takes away only a folder with one of the two marks, and the mark last, so that a deletion that is cut off
//! never looks like a collection. A mark is durable before what it speaks of is done.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{StoreError, disk::Disk, private, whole};

/// The description of a collection in its folder.
pub(crate) const DESCRIPTION_FILE: &str = "collection";

const CREATING_FILE: &str = "creating";
const DELETING_FILE: &str = "deleting";

/// Folder of the store in a collection's.
pub(crate) const STATE_DIR: &str = "state";

/// What is not finished in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Creating,
    Deleting,
}

impl Mark {
    fn file(self) -> &'static str {
        match self {
            Mark::Creating => CREATING_FILE,
            Mark::Deleting => DELETING_FILE,
        }
    }
}

/// Makes a new folder with the mark [`Mark::Creating`], both durable.
///
/// # Errors
/// [`StoreError::Io`], also if the folder is there.
pub(crate) fn create(dir: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    let parent = dir.parent().unwrap_or(dir);
    private::create_dir_all(parent).map_err(|e| StoreError::io(parent, e))?;
    std::fs::create_dir(dir).map_err(|e| StoreError::full_or_io(dir, e))?;
    private::narrow(dir).map_err(|e| StoreError::io(dir, e))?;
    disk.sync_dir(parent).map_err(|e| StoreError::io(parent, e))?;
    mark(dir, Mark::Creating, disk)
}

/// Puts a mark into a folder, durably. Where there is no room for a new file, the description becomes the mark.
///
/// # Errors
/// [`StoreError::DiskFull`], [`StoreError::Io`].
pub(crate) fn mark(dir: &Path, mark: Mark, disk: &dyn Disk) -> Result<(), StoreError> {
    let path = dir.join(mark.file());
    match disk.write_file(&path, b"") {
        Err(e) if e.kind() == io::ErrorKind::StorageFull && mark == Mark::Deleting => {
            disk.rename(&dir.join(DESCRIPTION_FILE), &path)
        }
        written => written,
    }
    .and_then(|()| disk.sync_dir(dir))
    .map_err(|e| StoreError::full_or_io(&path, e))
}

/// Takes a mark away, durably.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn unmark(dir: &Path, mark: Mark, disk: &dyn Disk) -> Result<(), StoreError> {
    let path = dir.join(mark.file());
    std::fs::remove_file(&path).and_then(|()| disk.sync_dir(dir)).map_err(|e| StoreError::io(&path, e))
}

/// The mark of a folder; a deletion outweighs a creation. One that cannot be looked into has none.
pub(crate) fn marked(dir: &Path) -> Option<Mark> {
    [Mark::Deleting, Mark::Creating].into_iter().find(|mark| dir.join(mark.file()).is_file())
}

/// Whether there is a store in it, whole or not.
pub(crate) fn has_state(dir: &Path) -> bool {
    [STATE_DIR, super::kept::KEPT_DIR].iter().any(|name| dir.join(name).is_dir())
}

/// Writes the description, whole or not at all.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn describe(dir: &Path, description: &[u8], disk: &dyn Disk) -> Result<(), StoreError> {
    whole::replace_checked(&dir.join(DESCRIPTION_FILE), description, disk)
}

/// The description; `None` where there is none.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::NewerFormat`], [`StoreError::Io`].
pub(crate) fn description(dir: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    whole::read_checked(&dir.join(DESCRIPTION_FILE))
}

/// Removes a folder that has a mark, the mark last.
///
/// # Errors
/// [`StoreError::Io`]; one with no mark is refused as such.
pub(crate) fn remove(dir: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    let Some(mark) = marked(dir) else {
        let refused = io::Error::new(io::ErrorKind::InvalidInput, "nothing marks this folder as removable");
        return Err(StoreError::io(dir, refused));
    };
    empty(dir)?;
    let path = dir.join(mark.file());
    disk.sync_dir(dir)
        .and_then(|()| std::fs::remove_file(&path))
        .and_then(|()| std::fs::remove_dir(dir))
        .and_then(|()| disk.sync_dir(dir.parent().unwrap_or(dir)))
        .map_err(|e| StoreError::io(dir, e))
}

/// Removes everything in a folder that has a mark, but for the mark.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn empty(dir: &Path) -> Result<(), StoreError> {
    let Some(mark) = marked(dir) else { return Ok(()) };
    for entry in std::fs::read_dir(dir).map_err(|e| StoreError::io(dir, e))? {
        let entry = entry.map_err(|e| StoreError::io(dir, e))?;
        if entry.file_name() == mark.file() {
            continue;
        }
        let path: PathBuf = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(&path),
            _ => std::fs::remove_file(&path),
        };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(StoreError::io(&path, e)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::disk::RealDisk, *};

    #[test]
    fn only_a_marked_folder_is_removed_and_a_removal_cut_off_stays_marked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("collections/x");
        create(&folder, &RealDisk).unwrap();
        assert_eq!(marked(&folder), Some(Mark::Creating));
        assert!(create(&folder, &RealDisk).is_err());
        std::fs::create_dir(folder.join(STATE_DIR)).unwrap();
        std::fs::write(folder.join(STATE_DIR).join("db"), "bytes").unwrap();
        unmark(&folder, Mark::Creating, &RealDisk).unwrap();
        assert_eq!((marked(&folder), has_state(&folder)), (None, true));
        assert!(remove(&folder, &RealDisk).is_err());
        assert!(folder.join(STATE_DIR).join("db").exists());
        mark(&folder, Mark::Deleting, &RealDisk).unwrap();
        empty(&folder).unwrap();
        assert_eq!((marked(&folder), has_state(&folder)), (Some(Mark::Deleting), false));
        remove(&folder, &RealDisk).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn a_description_comes_back_or_is_known_to_be_damaged() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(description(dir.path()).unwrap(), None);
        describe(dir.path(), b"what it is", &RealDisk).unwrap();
        assert_eq!(description(dir.path()).unwrap().unwrap(), b"what it is");
        std::fs::write(dir.path().join(DESCRIPTION_FILE), [1; 30]).unwrap();
        assert!(matches!(description(dir.path()).unwrap_err(), StoreError::Corrupt { .. }));
    }
}
