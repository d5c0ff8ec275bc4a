//! Names of segments in a collection's folder, and what else lies there.
//!
//! | name | what |
//! |---|---|
//! | `0000000012` | segment 12 |
//! | `0000000012.deleted.3` | which of its rows are gone, version 3 |
//! | `*.new` | not finished, and nobody's after a restart |
//! | `*.gone` | a segment that is being removed |

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use super::{Name, SegmentError, file};
use crate::files::disk::{Disk, EntryKind};

const UNFINISHED: &str = ".new";
const GONE: &str = ".gone";
const DELETED: &str = ".deleted.";
/// Digits of a segment's number.
const DIGITS: usize = 10;

/// Name of a segment's folder.
pub(crate) fn name_of(number: u64) -> String {
    format!("{number:0DIGITS$}")
}

/// Name of a version of a segment's deletions.
pub(crate) fn deleted_name(number: u64, version: u64) -> String {
    format!("{}{DELETED}{version}", name_of(number))
}

pub(super) fn unfinished(name: &str) -> String {
    format!("{name}{UNFINISHED}")
}

/// A number as [`name_of`] writes it.
fn number_of(name: &str) -> Option<u64> {
    let number = digits(name)?;
    (name_of(number) == name).then_some(number)
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// What lies in a collection's folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// Numbers of segments.
    pub(crate) segments: BTreeSet<u64>,
    /// Versions of deletions for each segment; the highest counts.
    pub(crate) deleted: BTreeMap<u64, BTreeSet<u64>>,
    /// What was not finished or is being removed.
    pub(crate) remains: Vec<PathBuf>,
}

/// Looks at the names in a collection's folder. What has none of these names is somebody else's.
///
/// # Errors
/// [`SegmentError::NoHandle`], [`SegmentError::Io`].
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Found, SegmentError> {
    let mut found = Found::default();
    for entry in disk.list(dir).map_err(|e| SegmentError::io(dir, e))? {
        let Some(name) = entry.name.to_str() else { continue };
        let path = dir.join(name);
        let stem = name.strip_suffix(UNFINISHED).or_else(|| name.strip_suffix(GONE));
        let (of, is_remains) = (stem.unwrap_or(name), stem.is_some());
        match (of.split_once(DELETED), entry.kind) {
            (None, EntryKind::Dir) => match number_of(of) {
                Some(_) if is_remains => found.remains.push(path),
                Some(number) => _ = found.segments.insert(number),
                None => {}
            },
            (Some((segment, version)), EntryKind::File) => match (number_of(segment), digits(version)) {
                (Some(_), Some(_)) if is_remains => found.remains.push(path),
                (Some(number), Some(version)) => {
                    found.deleted.entry(number).or_default().insert(version);
                }
                _ => {}
            },
            _ => {}
        }
    }
    Ok(found)
}

/// Which segment the folder or the file at `path` is of, as its content says, if it has a name as a segment or its
/// deletions have (`name`), with the number that the content says too.
pub(crate) fn owner_of(disk: &dyn Disk, path: &Path, name: &str) -> Option<Name> {
    let (number, found) = match name.split_once(DELETED) {
        Some((segment, version)) => {
            digits(version)?;
            (number_of(segment)?, file::name_in(disk, path))
        }
        None => {
            let number = number_of(name)?;
            let inside = disk.list(path).ok()?;
            (number, inside.iter().find_map(|entry| file::name_in(disk, &path.join(&entry.name))))
        }
    };
    found.filter(|found| found.number == number)
}

/// Removes what was not finished, segments that `is_known` does not know, deletions of segments that are not there, and
/// versions of deletions below the highest. Returns what is left. For the start, when nobody writes.
///
/// # Errors
/// [`SegmentError::NoHandle`], [`SegmentError::Io`].
pub(crate) fn clean(
    disk: &dyn Disk,
    dir: &Path,
    is_known: impl Fn(u64) -> bool,
) -> Result<Found, SegmentError> {
    let found = list(disk, dir)?;
    for path in &found.remains {
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains(DELETED)) {
            remove_file_if_there(disk, path)?;
        } else {
            remove_folder(disk, path)?;
        }
    }
    for number in found.segments.iter().filter(|number| !is_known(**number)) {
        remove(disk, dir, *number)?;
    }
    for (number, versions) in &found.deleted {
        let highest = versions.last().copied().unwrap_or(0);
        let is_there = is_known(*number) && found.segments.contains(number);
        remove_deleted_below(disk, dir, *number, if is_there { highest } else { u64::MAX })?;
    }
    disk.sync_dir(dir).map_err(|e| SegmentError::io(dir, e))?;
    list(disk, dir)
}

/// Removes a segment with its deletions. After a loss of power it is there, or no segment any more. Who has it open
/// reads on.
///
/// # Errors
/// [`SegmentError::NoHandle`], [`SegmentError::Io`].
pub(crate) fn remove(disk: &dyn Disk, dir: &Path, number: u64) -> Result<(), SegmentError> {
    let path = dir.join(name_of(number));
    let gone = dir.join(format!("{}{GONE}", name_of(number)));
    remove_folder(disk, &gone)?;
    match disk.rename(&path, &gone) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        renamed => renamed.map_err(|e| SegmentError::io(&path, e))?,
    }
    // Otherwise the folder could come back under its own name with some of its files.
    disk.sync_dir(dir).map_err(|e| SegmentError::io(dir, e))?;
    remove_folder(disk, &gone)?;
    remove_deleted_below(disk, dir, number, u64::MAX)?;
    disk.sync_dir(dir).map_err(|e| SegmentError::io(dir, e))
}

/// Removes a folder of files, if it is there.
pub(super) fn remove_folder(disk: &dyn Disk, path: &Path) -> Result<(), SegmentError> {
    let entries = match disk.list(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| SegmentError::io(path, e))?,
    };
    for entry in entries {
        remove_file_if_there(disk, &path.join(entry.name))?;
    }
    disk.remove_dir(path).map_err(|e| SegmentError::io(path, e))
}

pub(super) fn remove_file_if_there(disk: &dyn Disk, path: &Path) -> Result<(), SegmentError> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|e| SegmentError::io(path, e)),
    }
}

/// Removes the versions of deletions of a segment below one.
pub(super) fn remove_deleted_below(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
    version: u64,
) -> Result<(), SegmentError> {
    let versions = list(disk, dir)?.deleted.remove(&number).unwrap_or_default();
    for old in versions.into_iter().filter(|old| *old < version) {
        remove_file_if_there(disk, &dir.join(deleted_name(number, old)))?;
    }
    Ok(())
}
