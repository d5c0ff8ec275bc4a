//! A collection's folder: what it says about itself, and whether it is whole.
//!
//! Three small files tell it, so that nothing has to be guessed from what a catalogue does or does not name:
//!
//! - `collection` is the description, with a checksum; what its bytes mean is the caller's business, but for the
//!   name of the folder that it was written for.
//! - `creating` stands there until the collection is announced: a folder with it was never anybody's.
//! - `deleting` stands there once a deletion is decided: a folder with it is nobody's any more.
//!
//! A mark is a checked record that names its folder: a file of such a name that somebody else made marks nothing. It also
//! says which collection the folder was of, for a deletion that goes on when nothing else in the folder tells it.
//! [`remove`] takes away only a folder with one of the two marks, only what has a name of ours, nothing behind a
//! symbolic link, and the mark last, so that a deletion that is cut off never looks like a collection. A mark is
//! durable before what it speaks of is done.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub(crate) use super::acknowledged::ACKNOWLEDGED_FILE;
use super::{Identity, StoreError, disk::Disk, private, whole};

/// The description of a collection in its folder.
pub(crate) const DESCRIPTION_FILE: &str = "collection";

const CREATING_FILE: &str = "creating";
const DELETING_FILE: &str = "deleting";

/// Folder of the store in a collection's.
pub(crate) const STATE_DIR: &str = "state";

/// Folder of the graph in a collection's.
pub(crate) const INDEX_DIR: &str = "index";

/// What lies in a collection's folder, each also with one of [`ENDINGS`].
const OURS: [&str; 7] =
    [DESCRIPTION_FILE, CREATING_FILE, DELETING_FILE, STATE_DIR, INDEX_DIR, ACKNOWLEDGED_FILE, SEGMENTS_FILE];

/// What is being written, copies of `state`, the sign that a store is being taken over, and what a repair is moving.
const ENDINGS: [&str; 6] = ["new", "kept", "copying", "bad", "begun", "moved"];

/// The manifest of a collection's segments in its folder.
pub(crate) const SEGMENTS_FILE: &str = "segments";

/// Digits of a segment's number, which its name is or begins with.
pub(crate) const SEGMENT_DIGITS: usize = 10;

/// What is not finished in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Creating,
    Deleting,
}

/// What the marks of a folder allow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Unmarked,
    /// [`remove`] may take it away.
    Removable(Mark),
    /// It has a mark, and is left alone for this reason.
    Held(Mark, String),
    /// A file has the name of a mark and was not written for this folder.
    NoMark(PathBuf),
}

/// What a mark says; a description says the folder and the identity too.
#[derive(Serialize, Deserialize)]
struct Record {
    folder: String,
    mark: Option<String>,
    /// Which collection it was. A mark that an earlier version wrote does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
}

impl Record {
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&whole::read_checked(path).ok()??).ok()
    }
}

impl Mark {
    fn file(self) -> &'static str {
        match self {
            Mark::Creating => CREATING_FILE,
            Mark::Deleting => DELETING_FILE,
        }
    }

    /// Whether this mark in a folder was written for it.
    fn is_in(self, dir: &Path) -> bool {
        let path = dir.join(self.file());
        let of_folder = |path: &Path| {
            let record = Record::read(path)?;
            (Some(OsStr::new(&record.folder)) == dir.file_name()).then_some(record.mark)
        };
        match std::fs::symlink_metadata(&path) {
            // Earlier versions wrote empty marks: the folder's own description must speak for it.
            Ok(found) if found.is_file() && found.len() == 0 => {
                of_folder(&dir.join(DESCRIPTION_FILE)).is_some()
            }
            Ok(found) if found.is_file() => of_folder(&path).is_some_and(|named| match named {
                Some(named) => named == self.file(),
                // A description that became the mark.
                None => self == Mark::Deleting,
            }),
            _ => false,
        }
    }
}

/// Makes a new folder with the mark [`Mark::Creating`], both durable.
///
/// # Errors
/// [`StoreError::Io`], also if the folder is there.
pub(crate) fn create(dir: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    let parent = dir.parent().unwrap_or(dir);
    // Not the data folder itself: if it was moved away, making it again would hide that.
    match std::fs::create_dir(parent) {
        Ok(()) => drop(private::narrow(parent).map_err(|e| StoreError::io(parent, e))?),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(StoreError::full_or_io(parent, e)),
    }
    std::fs::create_dir(dir).map_err(|e| StoreError::full_or_io(dir, e))?;
    private::narrow(dir).map_err(|e| StoreError::io(dir, e))?;
    disk.sync_dir(parent).map_err(|e| StoreError::io(parent, e))?;
    mark(dir, Mark::Creating, None, disk)
}

/// Puts a mark into the folder of a collection, durably. Where there is no room for a new file, the description becomes
/// the mark.
///
/// # Errors
/// [`StoreError::DiskFull`], [`StoreError::Io`], also for a symbolic link.
pub(crate) fn mark(
    dir: &Path,
    mark: Mark,
    identity: Option<Identity>,
    disk: &dyn Disk,
) -> Result<(), StoreError> {
    refuse_link(dir)?;
    let path = dir.join(mark.file());
    let folder = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let record = Record { folder, mark: Some(mark.file().to_owned()), identity };
    let bytes = serde_json::to_vec(&record).expect("plain data has a JSON form");
    match whole::replace_checked(&path, &bytes, disk) {
        Err(error) if error.is_full() && mark == Mark::Deleting => disk
            .rename(&dir.join(DESCRIPTION_FILE), &path)
            .and_then(|()| disk.sync_dir(dir))
            .map_err(|e| StoreError::full_or_io(&path, e)),
        written => written,
    }
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
    [Mark::Deleting, Mark::Creating].into_iter().find(|mark| mark.is_in(dir))
}

/// Which collection the mark of a folder says that it was.
pub(crate) fn marked_identity(dir: &Path) -> Option<Identity> {
    Record::read(&dir.join(marked(dir)?.file()))?.identity
}

/// What the marks of a folder allow.
pub(crate) fn standing(dir: &Path) -> Standing {
    let Some(mark) = marked(dir) else {
        let named = [Mark::Deleting, Mark::Creating].map(|mark| dir.join(mark.file()));
        return named.into_iter().find(|path| path.is_file()).map_or(Standing::Unmarked, Standing::NoMark);
    };
    match refuse_link(dir).and_then(|()| foreign(dir)) {
        Ok(None) => Standing::Removable(mark),
        Ok(Some(name)) => Standing::Held(mark, format!("it holds {name:?}, which is not of this program")),
        Err(StoreError::Io { source, .. }) => Standing::Held(mark, source.to_string()),
        Err(error) => Standing::Held(mark, error.to_string()),
    }
}

/// Removes what a kill left in a collection's folder before anything was in it, or half written beside what counts: the
/// folder itself where it is empty, or a file that the next writing would replace. Only at a start, when nobody writes.
pub(crate) fn remove_unfinished(dir: &Path) {
    if is_link(dir) {
        return;
    }
    let is_ours = dir.file_name().and_then(OsStr::to_str).is_some_and(is_folder_name);
    // It is removed if it is empty, and not otherwise.
    if is_ours && std::fs::remove_dir(dir).is_ok() {
        tracing::info!(folder = %dir.display(), "an empty folder, which a creation left that was cut off, was removed");
        return;
    }
    for name in [DESCRIPTION_FILE, CREATING_FILE, DELETING_FILE, SEGMENTS_FILE] {
        let path = dir.join(format!("{name}.new"));
        if std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file())
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "an unfinished file cannot be removed; the next writing replaces it");
        }
    }
}

/// Whether it is a name as collections' folders have: 14 digits of a time in hex, and a number.
fn is_folder_name(name: &str) -> bool {
    name.split_once('-').is_some_and(|(time, number)| {
        time.len() == 14
            && time.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Whether there is a store in it, whole or not, of today's format or of an earlier one.
pub(crate) fn has_state(dir: &Path) -> bool {
    has_earlier_state(dir) || dir.join(SEGMENTS_FILE).is_file() || segments(dir).next().is_some()
}

/// Whether there is a store of sled in it, whole or not.
pub(crate) fn has_earlier_state(dir: &Path) -> bool {
    [STATE_DIR, super::kept::KEPT_DIR].iter().any(|name| dir.join(name).is_dir())
}

/// Folders that have the name of a segment.
fn segments(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name.len() == SEGMENT_DIGITS && name.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Writes the description, whole or not at all.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn describe(dir: &Path, description: &[u8], disk: &dyn Disk) -> Result<(), StoreError> {
    prepare_description(dir, description, disk)?.put()
}

/// Writes the description beside the one that counts, so that no more than a renaming is left to do.
///
/// # Errors
/// [`StoreError::DiskFull`], [`StoreError::Io`].
pub(crate) fn prepare_description<'a>(
    dir: &Path,
    description: &[u8],
    disk: &'a dyn Disk,
) -> Result<whole::Prepared<'a>, StoreError> {
    whole::prepare_checked(&dir.join(DESCRIPTION_FILE), description, disk)
}

/// The description; `None` where there is none.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::NewerFormat`], [`StoreError::Io`].
pub(crate) fn description(dir: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    whole::read_checked(&dir.join(DESCRIPTION_FILE))
}

/// Removes what is ours in a folder that has a mark, then the mark, then the folder.
///
/// # Errors
/// [`StoreError::Io`]; a symbolic link and a folder with no mark are refused as such, and one with a file of somebody
/// else's stays with that file and the mark.
pub(crate) fn remove(dir: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    let refused =
        |reason: String| Err(StoreError::io(dir, io::Error::new(io::ErrorKind::InvalidInput, reason)));
    refuse_link(dir)?;
    let Some(mark) = marked(dir) else {
        return refused("nothing marks this folder as removable".to_owned());
    };
    empty(dir)?;
    if let Some(name) = foreign(dir)? {
        return refused(format!("{name:?} in it is not of this program, so the folder stays"));
    }
    let path = dir.join(mark.file());
    disk.sync_dir(dir)
        .and_then(|()| std::fs::remove_file(&path))
        .and_then(|()| std::fs::remove_dir(dir))
        .and_then(|()| disk.sync_dir(dir.parent().unwrap_or(dir)))
        .map_err(|e| StoreError::io(dir, e))
}

/// Removes everything that is ours in a folder that has a mark, but for the mark. What a symbolic link leads to stays.
///
/// # Errors
/// [`StoreError::Io`], also for a symbolic link in the folder's place.
pub(crate) fn empty(dir: &Path) -> Result<(), StoreError> {
    refuse_link(dir)?;
    let Some(mark) = marked(dir) else { return Ok(()) };
    // Without its description an earlier version's empty mark counts no more.
    if dir.join(mark.file()).metadata().is_ok_and(|found| found.len() == 0) {
        let identity = Record::read(&dir.join(DESCRIPTION_FILE)).and_then(|described| described.identity);
        self::mark(dir, mark, identity, &super::disk::RealDisk)?;
    }
    for entry in std::fs::read_dir(dir).map_err(|e| StoreError::io(dir, e))? {
        let entry = entry.map_err(|e| StoreError::io(dir, e))?;
        if entry.file_name() == mark.file() || !is_ours(&entry.file_name()) {
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

/// Whether a symbolic link lies in the place of a folder.
pub(crate) fn is_link(dir: &Path) -> bool {
    std::fs::symlink_metadata(dir).is_ok_and(|found| found.is_symlink())
}

fn refuse_link(dir: &Path) -> Result<(), StoreError> {
    if !is_link(dir) {
        return Ok(());
    }
    let reason = "it is a symbolic link, and nothing is removed behind a link";
    Err(StoreError::io(dir, io::Error::new(io::ErrorKind::InvalidInput, reason)))
}

/// Some name in a folder that is not ours.
fn foreign(dir: &Path) -> Result<Option<String>, StoreError> {
    for entry in std::fs::read_dir(dir).map_err(|e| StoreError::io(dir, e))? {
        let name = entry.map_err(|e| StoreError::io(dir, e))?.file_name();
        if !is_ours(&name) {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

fn is_ours(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    if let Some((number, rest)) = name.split_at_checked(SEGMENT_DIGITS)
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        // A segment, its deletions, or one that is not finished.
        return rest.is_empty() || rest.starts_with('.');
    }
    let (name, ending) = name.split_once('.').map_or((name, None), |(name, ending)| (name, Some(ending)));
    OURS.contains(&name) && ending.is_none_or(|ending| ENDINGS.contains(&ending))
}

#[cfg(test)]
mod tests {
    use super::{super::disk::RealDisk, *};

    #[test]
    fn what_a_kill_left_half_written_goes_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let folders = ["00000000000001-0", "00000000000002-0", "mine", "0000000000000g-0"];
        let folders = folders.map(|name| dir.path().join(name));
        folders.iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        for name in ["collection.new", "deleting.new", "segments.new", "collection", "other.new"] {
            std::fs::write(folders[1].join(name), "x").unwrap();
        }
        folders.iter().for_each(|folder| remove_unfinished(folder));
        assert_eq!(folders.map(|folder| folder.exists()), [false, true, true, true]);
        let left = std::fs::read_dir(dir.path().join("00000000000002-0")).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["collection", "other.new"]);
    }

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
        mark(&folder, Mark::Deleting, None, &RealDisk).unwrap();
        empty(&folder).unwrap();
        assert_eq!((marked(&folder), has_state(&folder)), (Some(Mark::Deleting), false));
        remove(&folder, &RealDisk).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn what_is_not_ours_stays_in_a_folder_that_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, outside) = (dir.path().join("x"), dir.path().join("outside"));
        create(&folder, &RealDisk).unwrap();
        std::fs::create_dir(&outside).unwrap();
        let numbers = ["20261126.txt", "00000000012"].map(|name| folder.join(name));
        for file in [outside.join("theirs"), folder.join("notes.txt"), folder.join("index.html")]
            .iter()
            .chain(&numbers)
        {
            std::fs::write(file, "theirs").unwrap();
        }
        for name in [
            "state.kept",
            "state.copying",
            "state.bad",
            "index.new",
            "acknowledged",
            "collection.new",
            "segments",
            "segments.begun",
            "0000000012.deleted.3",
            "0000000012.new",
        ] {
            std::fs::write(folder.join(name), "ours").unwrap();
        }
        std::fs::create_dir(folder.join("0000000011")).unwrap();
        std::fs::write(folder.join("0000000011/documents"), "ours").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&outside, folder.join(STATE_DIR)).unwrap();
        assert!(matches!(standing(&folder), Standing::Held(Mark::Creating, _)));
        assert!(remove(&folder, &RealDisk).is_err());
        let mut left: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["00000000012", "20261126.txt", "creating", "index.html", "notes.txt"]);
        assert!(outside.join("theirs").exists());
        for name in ["notes.txt", "index.html", "20261126.txt", "00000000012"] {
            std::fs::remove_file(folder.join(name)).unwrap();
        }
        assert_eq!(standing(&folder), Standing::Removable(Mark::Creating));
        remove(&folder, &RealDisk).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn a_mark_counts_in_the_folder_that_it_was_written_for() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, other) = (dir.path().join("x"), dir.path().join("y"));
        create(&folder, &RealDisk).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::fs::copy(folder.join(CREATING_FILE), other.join(CREATING_FILE)).unwrap();
        assert_eq!(standing(&other), Standing::NoMark(other.join(CREATING_FILE)));
        std::fs::copy(folder.join(CREATING_FILE), folder.join(DELETING_FILE)).unwrap();
        assert_eq!(marked(&folder), Some(Mark::Creating));
        // An earlier version's empty mark counts where the folder's own description speaks for it.
        std::fs::write(other.join(CREATING_FILE), "").unwrap();
        assert_eq!(marked(&other), None);
        describe(&other, br#"{"folder":"x"}"#, &RealDisk).unwrap();
        assert_eq!(marked(&other), None);
        describe(&other, br#"{"folder":"y"}"#, &RealDisk).unwrap();
        assert_eq!(marked(&other), Some(Mark::Creating));
        // Where there is no room for a mark, the description becomes it.
        std::fs::rename(other.join(DESCRIPTION_FILE), other.join(DELETING_FILE)).unwrap();
        assert_eq!(marked(&other), Some(Mark::Deleting));
        remove(&other, &RealDisk).unwrap();
        assert!(!other.exists());
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
