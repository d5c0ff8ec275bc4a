//! How many files this process may have open, and what that allows.
//!
//! What may be open is shared out: so many connections, so many collections, and the rest for everything else, so that
//! however many clients connect, the store finds its handles.

use std::{ffi::OsString, io, path::Path};

/// Handles that a server needs besides its collections and its clients: standard streams, sockets, the catalogue, the log,
/// and what the few threads that seal and merge segments and save graphs have open.
const OTHERS: u64 = 40;
/// An open collection holds no handle: its segments are mapped and closed. One is to spare for what it opens at times.
const PER_COLLECTION: u64 = 1;
/// Connections that there may be in any case.
const CONNECTIONS_LEAST: usize = 8;

/// Collections that may be open at once, at least 1.
pub(crate) fn collections_max() -> usize {
    count(collections_of(files_max())).max(1)
}

/// Connections of clients that may be open at once, at least [`CONNECTIONS_LEAST`]. With a quarter more for those that
/// are just being closed they take less than half of the files.
pub(crate) fn connections_max() -> usize {
    count(connections_of(files_max())).max(CONNECTIONS_LEAST)
}

fn connections_of(files: u64) -> u64 {
    files.saturating_sub(OTHERS) / 5 * 2
}

fn collections_of(files: u64) -> u64 {
    files.saturating_sub(OTHERS) / 2 / PER_COLLECTION
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Whether an error says that no file can be opened, because this process or the system has as many open as it may.
pub(crate) fn none_left(error: &io::Error) -> bool {
    #[cfg(unix)]
    return [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    #[cfg(not(unix))]
    return false;
}

#[cfg(unix)]
fn files_max() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(not(unix))]
fn files_max() -> u64 {
    u64::MAX
}

/// A folder that is held open, so that its entries can be read when no handle is left.
#[derive(Debug)]
pub(crate) struct Folder {
    #[cfg(unix)]
    entries: std::sync::Mutex<rustix::fs::Dir>,
    #[cfg(not(unix))]
    path: std::path::PathBuf,
}

impl Folder {
    /// Opens it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        #[cfg(unix)]
        return Ok(Folder {
            entries: std::sync::Mutex::new(rustix::fs::Dir::new(std::fs::File::open(path)?)?),
        });
        #[cfg(not(unix))]
        return Ok(Folder { path: path.to_owned() });
    }

    /// The names of what is in it now.
    #[cfg(unix)]
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut entries = self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        entries.rewind();
        let mut names = Vec::new();
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(std::ffi::OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    /// The names of what is in it now.
    #[cfg(not(unix))]
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_collections_never_need_more_than_there_is() {
        for files in [64, 256, 1024, 65_536, u64::MAX] {
            let connections = connections_of(files);
            let with_those_that_end = connections + connections / 4;
            assert!(with_those_that_end < files / 2, "{files}");
            assert!(
                with_those_that_end + collections_of(files) * PER_COLLECTION + OTHERS <= files,
                "{files}"
            );
        }
        assert_eq!((connections_of(1024), collections_of(1024)), (392, 492));
        assert!(none_left(&io::Error::from_raw_os_error(24)));
        assert!(!none_left(&io::ErrorKind::StorageFull.into()));
    }

    #[test]
    fn a_folder_held_open_tells_what_came_since() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert!(folder.names().unwrap().is_empty());
        std::fs::write(dir.path().join("a"), "a").unwrap();
        assert_eq!(folder.names().unwrap(), ["a"]);
        std::fs::remove_file(dir.path().join("a")).unwrap();
        assert!(folder.names().unwrap().is_empty());
    }
}
