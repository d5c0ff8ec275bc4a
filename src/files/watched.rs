//! A disk that remembers the first sync that failed in a folder, and syncs nothing there from then on.
//!
//! A system that could not write what a sync asked for may drop it and call the next sync a success. So after a failed
//! sync nobody knows what the device has, whatever file it was: whoever writes asks [`Watched::failed`], and every later
//! sync fails with the first one's reason.
//!
//! That there is no room, or no handle, is no such failure: what was to be written is the caller's still, and nothing
//! that it replaces is gone.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use super::{
    Mapped,
    disk::{DirEntry, Disk, DiskFile, is_no_room},
};

/// Another disk, watched below one folder. A clone is the same one.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    disk: Arc<dyn Disk>,
    watch: Arc<Watch>,
}

#[derive(Debug)]
struct Watch {
    /// What lies elsewhere is not looked at.
    root: PathBuf,
    failed: OnceLock<String>,
}

impl Watched {
    /// Watches what is synced in `root` and below.
    pub(crate) fn new(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Watched { disk, watch: Arc::new(Watch { root: root.to_owned(), failed: OnceLock::new() }) }
    }

    /// The first sync that failed, and why; `None` while all succeed.
    pub(crate) fn failed(&self) -> Option<&str> {
        self.watch.failed.get().map(String::as_str)
    }

    fn file(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(WatchedFile { watch: Arc::clone(&self.watch), path: path.to_owned(), file })
    }
}

impl Watch {
    fn sync(&self, path: &Path, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if !path.starts_with(&self.root) {
            return sync();
        }
        if let Some(reason) = self.failed.get() {
            return Err(io::Error::other(reason.clone()));
        }
        sync().inspect_err(|error| {
            if is_passing(error) {
                return;
            }
            let reason = format!("{} could not be synced: {error}", path.display());
            if self.failed.set(reason.clone()).is_ok() {
                tracing::error!(
                    root = %self.root.display(),
                    reason,
                    "nothing is written in this folder any more until a restart: nobody knows what the device has"
                );
            }
        })
    }
}

/// Whether nothing was lost: there was no room, or the folder could not even be opened to be synced.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    is_no_room(error)
        || crate::handles::none_left(error)
        || matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

impl Disk for Watched {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, self.disk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, self.disk.open(path)?))
    }

    fn read_only(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.read_only(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.hard_link(from, to)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.watch.sync(path, || self.disk.sync_dir(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn available(&self, dir: &Path) -> io::Result<u64> {
        self.disk.available(dir)
    }
}

/// A file that was opened for writing.
#[derive(Debug)]
struct WatchedFile {
    watch: Arc<Watch>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl DiskFile for WatchedFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.watch.sync(&self.path, || self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.watch.sync(&self.path, || self.file.sync_all())
    }

    fn map(&self) -> io::Result<Mapped> {
        self.file.map()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::files::faulty::FaultyDisk;

    #[test]
    fn after_a_failed_sync_nothing_is_synced_in_the_folder_and_all_goes_on_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let (root, elsewhere) = (dir.path().join("data"), dir.path().join("backup"));
        for folder in [&root, &elsewhere] {
            std::fs::create_dir(folder).unwrap();
        }
        let faulty = FaultyDisk::default();
        let disk = Watched::new(Arc::new(faulty.clone()), &root);
        let file = disk.create(&root.join("a")).unwrap();
        let other = disk.create(&elsewhere.join("a")).unwrap();
        file.sync_all().unwrap();
        faulty.0.sync_fails.store(true, Ordering::SeqCst);
        other.sync_all().unwrap_err();
        assert_eq!(disk.failed(), None, "it is not in the folder that is watched");
        file.sync_data().unwrap_err();
        let reason = disk.failed().unwrap().to_owned();
        assert!(reason.contains(&*root.join("a").to_string_lossy()) && reason.contains("device is gone"));
        faulty.0.sync_fails.store(false, Ordering::SeqCst);
        let syncs = faulty.0.syncs.load(Ordering::SeqCst);
        let later = disk.create(&root.join("b")).unwrap();
        for again in [file.sync_all(), later.sync_data(), disk.sync_dir(&root)] {
            assert_eq!(again.unwrap_err().to_string(), reason, "it is never tried again");
        }
        assert_eq!(faulty.0.syncs.load(Ordering::SeqCst), syncs);
        other.sync_all().unwrap();
        disk.sync_dir(&elsewhere).unwrap();
        assert_eq!(disk.clone().failed(), Some(&*reason));
    }

    #[test]
    fn want_of_room_and_a_folder_that_is_gone_are_no_failed_sync() {
        let disk = Watched::new(Arc::new(super::super::disk::RealDisk), Path::new("/nowhere"));
        disk.sync_dir(Path::new("/nowhere/at/all")).unwrap_err();
        disk.watch.sync(Path::new("/nowhere/a"), || Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert_eq!(disk.failed(), None);
    }
}
