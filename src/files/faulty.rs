//! The file system itself, failing where a test says so.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{
    Mapped,
    disk::{DirEntry, Disk, DiskFile, RealDisk},
};

/// What fails; see the fields. Passes everything on until told otherwise.
#[derive(Debug)]
pub(crate) struct Faults {
    pub(crate) sync_fails: AtomicBool,
    /// Syncing of files below this folder fails.
    pub(crate) sync_fails_below: Mutex<Option<PathBuf>>,
    /// Syncing panics, as a bug of ours would.
    pub(crate) sync_panics: AtomicBool,
    pub(crate) rename_fails: AtomicBool,
    /// Bytes that a file may have.
    pub(crate) file_bytes_max: AtomicU64,
    /// Bytes that are free, at most.
    pub(crate) free: AtomicU64,
    /// Files that were synced.
    pub(crate) syncs: AtomicU64,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            sync_fails: AtomicBool::default(),
            sync_fails_below: Mutex::default(),
            sync_panics: AtomicBool::default(),
            rename_fails: AtomicBool::default(),
            file_bytes_max: AtomicU64::new(u64::MAX),
            free: AtomicU64::new(u64::MAX),
            syncs: AtomicU64::default(),
        }
    }
}

/// A disk with [`Faults`].
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyDisk(pub(crate) Arc<Faults>);

impl FaultyDisk {
    fn file(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile { faults: Arc::clone(&self.0), path: path.to_owned(), file })
    }
}

impl Faults {
    /// Whether a file of `len` bytes may grow to `end`.
    fn has_room(&self, len: u64, end: u64) -> io::Result<()> {
        if end > self.file_bytes_max.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let grows = end.saturating_sub(len);
        if self.free.load(Ordering::SeqCst) < grows { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        assert!(!self.sync_panics.load(Ordering::SeqCst), "injected: a bug");
        let below = self.sync_fails_below.lock().unwrap_or_else(PoisonError::into_inner);
        if self.sync_fails.load(Ordering::SeqCst) || below.as_ref().is_some_and(|dir| path.starts_with(dir)) {
            return Err(io::Error::other("injected: the device is gone"));
        }
        Ok(())
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, RealDisk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, RealDisk.open(path)?))
    }

    fn read_only(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.read_only(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.0.rename_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected: no renaming"));
        }
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.hard_link(from, to)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(dir)
    }

    fn available(&self, dir: &Path) -> io::Result<u64> {
        Ok(RealDisk.available(dir)?.min(self.0.free.load(Ordering::SeqCst)))
    }
}

/// A file that was opened for writing.
#[derive(Debug)]
struct FaultyFile {
    faults: Arc<Faults>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.faults.has_room(self.file.len()?, offset + bytes.len() as u64)?;
        self.file.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.faults.has_room(self.file.len()?, len)?;
        self.file.allocate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.sync(&self.path)?;
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.faults.sync(&self.path)?;
        self.file.sync_all()
    }

    fn map(&self) -> io::Result<Mapped> {
        self.file.map()
    }
}
