//! A disk that is only read: whatever would change a file or a folder is refused, what is read is counted, and reading
//! ends when it is told to.
//!
//! Whoever looks for damage gets this one. So that it changes nothing does not hang on the care of what it calls.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Mapped,
    disk::{DirEntry, Disk, DiskFile},
};
use crate::stop::Stop;

/// Is told how many bytes were read so far.
type Told = dyn Fn(u64) + Send + Sync;

/// See the head of this file.
#[derive(Clone)]
pub(crate) struct Reading(Arc<Inner>);

struct Inner {
    disk: Arc<dyn Disk>,
    stop: Stop,
    bytes: AtomicU64,
    told: Box<Told>,
}

impl Reading {
    /// Reads `disk` until `stop`; `told` hears how many bytes were read, at every reading.
    pub(crate) fn new(disk: Arc<dyn Disk>, stop: Stop, told: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Reading(Arc::new(Inner { disk, stop, bytes: AtomicU64::new(0), told: Box::new(told) }))
    }

    /// Bytes read so far, but for those of mapped files.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading")
            .field("disk", &self.0.disk)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "this folder is only read; this is a bug"))
}

impl Disk for Reading {
    fn create(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        refused()
    }

    fn open(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        refused()
    }

    fn read_only(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.disk.read_only(path)?;
        Ok(Arc::new(ReadingFile { file, reading: self.clone() }))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn hard_link(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.disk.list(dir)
    }

    fn available(&self, dir: &Path) -> io::Result<u64> {
        self.0.disk.available(dir)
    }
}

#[derive(Debug)]
struct ReadingFile {
    file: Arc<dyn DiskFile>,
    reading: Reading,
}

impl DiskFile for ReadingFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let Inner { stop, bytes, told, .. } = &*self.reading.0;
        // Whoever asked for the stop knows why this is no answer. `Interrupted` would be tried again.
        stop.check().map_err(io::Error::other)?;
        let read = self.file.read_at(offset, into)?;
        told(bytes.fetch_add(read as u64, Ordering::Relaxed) + read as u64);
        Ok(read)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        refused()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn sync_data(&self) -> io::Result<()> {
        refused()
    }

    fn sync_all(&self) -> io::Result<()> {
        refused()
    }

    fn map(&self) -> io::Result<Mapped> {
        self.file.map()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::files::disk::RealDisk;

    #[test]
    fn it_reads_and_counts_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a"), b"abcdef").unwrap();
        std::fs::create_dir(path("d")).unwrap();
        let disk = Reading::new(Arc::new(RealDisk), Stop::default(), |_| {});
        let file = disk.read_only(&path("a")).unwrap();
        let mut bytes = [0; 4];
        file.read_exact_at(1, &mut bytes).unwrap();
        assert_eq!((&bytes, disk.bytes(), file.len().unwrap()), (b"bcde", 4, 6));
        assert_eq!(&*file.map().unwrap(), b"abcdef");
        assert_eq!(disk.list(dir.path()).unwrap().len(), 2);
        assert!(disk.available(dir.path()).unwrap() > 0);
        let refusals = [
            disk.create(&path("b")).map(drop),
            disk.open(&path("a")).map(drop),
            disk.rename(&path("a"), &path("b")),
            disk.remove(&path("a")),
            disk.hard_link(&path("a"), &path("b")),
            disk.create_dir(&path("e")),
            disk.remove_dir(&path("d")),
            disk.sync_dir(dir.path()),
            file.write_at(0, b"x"),
            file.set_len(1),
            file.allocate(100),
            file.sync_data(),
            file.sync_all(),
        ];
        for refused in refusals {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        }
        assert_eq!(std::fs::read(path("a")).unwrap(), b"abcdef");
        assert_eq!(disk.list(dir.path()).unwrap().len(), 2);
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"abcdef").unwrap();
        let disk = Reading::new(Arc::new(RealDisk), Stop::at(Some(Instant::now())), |_| {});
        let file = disk.read_only(&dir.path().join("a")).unwrap();
        assert!(file.read_at(0, &mut [0; 2]).is_err());
        assert_eq!(disk.bytes(), 0);
    }
}
