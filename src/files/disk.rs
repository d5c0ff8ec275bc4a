//! What log and segments ask of the file system, as two traits, and the file system itself.
//!
//! The traits are narrow on purpose: a test replaces them by a file system in memory that forgets what was not synced
//! (`forgetful.rs`), so whatever keeps its promises there asks for nothing that is not written here.
//! An error is that of the system, without the path: whoever calls knows it and names it.
//!
//! `store/disk.rs` has a smaller trait of the same name, for what sled leaves to others.

use std::{
    ffi::OsString,
    fmt::Debug,
    fs::{self, File, OpenOptions},
    io,
    path::Path,
    sync::Arc,
};

use super::{Mapped, regular, sync_folder};

/// A file system.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Makes a file that only this user may read and write (0600), and opens it for both. The name is durable after
    /// [`Disk::sync_dir`] of its folder.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the name is taken, whatever has it.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for what is no regular file and no link to one.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// As [`Disk::open`].
    fn read_only(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file or a folder another name. A file of that name is replaced, and so is an empty folder by a folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the name of a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a file a second name, which must not be taken.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes a folder that only this user may enter (0700); the one above it must be there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder, which must be empty.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes durable which names there are in a folder.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// What is in a folder, in order of name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Bytes that this process may still write on the file system of a folder.
    fn available(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file. Reading and writing name their place, so that many threads may share it.
pub(crate) trait DiskFile: Debug + Send + Sync {
    /// Fills `into` from `offset` on; returns how many bytes there were, fewer than asked for only at the end of the
    /// file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`; the file grows as needed, with zeros in a gap. After an error any part of
    /// them may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Bytes of the file.
    fn len(&self) -> io::Result<u64>;

    /// Cuts the file, or lengthens it by zeros, which take no room before they are written.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes the file at least `len` bytes long, with room on the device for all of them where the file system can
    /// promise that; elsewhere as [`DiskFile::set_len`].
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Makes durable what was written, and the length needed to read it again.
    fn sync_data(&self) -> io::Result<()>;

    /// [`DiskFile::sync_data`], and all that is known about the file.
    fn sync_all(&self) -> io::Result<()>;

    /// The bytes of a file that is not written any more, nor cut.
    fn map(&self) -> io::Result<Mapped>;

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if self.read_at(offset, into)? < into.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DirEntry {
    /// Without the folder.
    pub(crate) name: OsString,
    /// Of what a link leads to.
    pub(crate) kind: EntryKind,
    /// Bytes of a file; of anything else no number to rely on.
    pub(crate) len: u64,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EntryKind {
    /// A regular file, or a link to one.
    File,
    /// A folder, or a link to one.
    Dir,
    /// A pipe, a socket, a device, or a link that leads nowhere.
    Other,
}

/// Whether a write failed because there is no room: the device or the user's share of it is full, or the file is as
/// large as one may be.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// The file system itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(regular::open_with(path, OpenOptions::new().read(true).write(true))?)))
    }

    fn read_only(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(regular::open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        #[cfg_attr(not(unix), expect(unused_mut, reason = "rights are set on Unix only"))]
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        sync_folder(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match fs::metadata(entry.path()) {
                Ok(metadata) => Some(metadata),
                // It went meanwhile, or it is a link that leads nowhere, or round in a circle.
                Err(_) => match fs::symlink_metadata(entry.path()) {
                    Ok(link) if link.is_symlink() => None,
                    Ok(metadata) => Some(metadata),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                },
            };
            let (kind, len) = metadata.map_or((EntryKind::Other, 0), |metadata| {
                let kind = match metadata.file_type() {
                    kind if kind.is_file() => EntryKind::File,
                    kind if kind.is_dir() => EntryKind::Dir,
                    _ => EntryKind::Other,
                };
                (kind, metadata.len())
            });
            entries.push(DirEntry { name: entry.file_name(), kind, len });
        }
        entries.sort();
        Ok(entries)
    }

    fn available(&self, dir: &Path) -> io::Result<u64> {
        fs2::available_space(dir)
    }
}

/// A file of the system.
#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < into.len() {
            match positional::read(&self.0, offset + read as u64, &mut into[read..]) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        positional::write_all(&self.0, offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len <= self.len()? {
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, len) {
            // Not every file system can.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            Err(rustix::io::Errno::INTR) => return self.allocate(len),
            done => return Ok(done?),
        }
        self.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn map(&self) -> io::Result<Mapped> {
        Mapped::of(&self.0)
    }
}

/// Reading and writing at a place, which does not move the file's own position.
#[cfg(unix)]
mod positional {
    use std::{fs::File, io, os::unix::fs::FileExt as _};

    pub(super) fn read(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        file.read_at(into, offset)
    }

    pub(super) fn write_all(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }
}

/// Reading and writing at a place, for systems where that moves the file's position: one call at a time.
#[cfg(not(unix))]
mod positional {
    use std::{
        fs::File,
        io::{self, Read as _, Seek as _, SeekFrom, Write as _},
        sync::{Mutex, PoisonError},
    };

    static TURN: Mutex<()> = Mutex::new(());

    pub(super) fn read(mut file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read(into)
    }

    pub(super) fn write_all(mut file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }
}

#[cfg(test)]
pub(crate) mod conformance {
    //! What every disk does, told of the real one and of the one that forgets.

    use super::*;

    /// Makes, fills, reads, cuts, links, renames and removes below `dir`, an empty folder.
    pub(crate) fn files_do_as_they_should(disk: &dyn Disk, dir: &Path) {
        let path = |name: &str| dir.join(name);
        let kind = |result: io::Result<()>| result.unwrap_err().kind();

        let file = disk.create(&path("a")).unwrap();
        assert_eq!(kind(disk.create(&path("a")).map(drop)), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(disk.open(&path("b")).map(drop)), io::ErrorKind::NotFound);
        file.write_at(3, b"def").unwrap();
        assert_eq!(file.len().unwrap(), 6);
        let mut bytes = [9; 8];
        assert_eq!(file.read_at(1, &mut bytes).unwrap(), 5);
        assert_eq!(&bytes, b"\0\0def\x09\x09\x09");
        assert_eq!(file.read_at(6, &mut bytes).unwrap(), 0);
        assert_eq!(file.read_at(60, &mut bytes).unwrap(), 0);
        assert_eq!(kind(file.read_exact_at(1, &mut bytes)), io::ErrorKind::UnexpectedEof);
        file.read_exact_at(2, &mut bytes[..4]).unwrap();
        assert_eq!(&bytes[..4], b"\0def");

        file.allocate(4).unwrap();
        assert_eq!(file.len().unwrap(), 6, "allocating never shortens");
        file.allocate(5000).unwrap();
        assert_eq!(file.len().unwrap(), 5000);
        file.set_len(4).unwrap();
        file.set_len(6).unwrap();
        file.sync_data().unwrap();
        assert_eq!(&*file.map().unwrap(), b"\0\0\0d\0\0", "what was cut off does not come back");
        file.sync_all().unwrap();

        let other = disk.open(&path("a")).unwrap();
        other.write_at(0, b"abc").unwrap();
        assert_eq!(&*disk.read_only(&path("a")).unwrap().map().unwrap(), b"abcd\0\0");
        assert!(disk.read_only(&path("a")).unwrap().write_at(0, b"x").is_err());

        disk.hard_link(&path("a"), &path("b")).unwrap();
        assert_eq!(kind(disk.hard_link(&path("a"), &path("b"))), io::ErrorKind::AlreadyExists);
        disk.remove(&path("a")).unwrap();
        assert_eq!(kind(disk.remove(&path("a"))), io::ErrorKind::NotFound);
        file.write_at(4, b"ef").unwrap();
        assert_eq!(&*disk.read_only(&path("b")).unwrap().map().unwrap(), b"abcdef");

        disk.create(&path("empty")).unwrap();
        assert_eq!(&*disk.read_only(&path("empty")).unwrap().map().unwrap(), b"");
        disk.rename(&path("b"), &path("empty")).unwrap();
        assert_eq!(disk.read_only(&path("empty")).unwrap().len().unwrap(), 6);
        assert_eq!(kind(disk.rename(&path("b"), &path("c"))), io::ErrorKind::NotFound);

        disk.create_dir(&path("d")).unwrap();
        assert_eq!(kind(disk.create_dir(&path("d"))), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(disk.create_dir(&path("none/d"))), io::ErrorKind::NotFound);
        assert_eq!(kind(disk.open(&path("d")).map(drop)), io::ErrorKind::InvalidInput);
        disk.create(&path("d/f")).unwrap().write_at(0, b"f").unwrap();
        assert!(disk.remove_dir(&path("d")).is_err(), "it is not empty");
        assert!(disk.remove(&path("d")).is_err(), "it is a folder");
        disk.create_dir(&path("e")).unwrap();
        disk.rename(&path("d"), &path("e")).unwrap();
        assert_eq!(disk.read_only(&path("e/f")).unwrap().len().unwrap(), 1);
        disk.sync_dir(&path("e")).unwrap();
        disk.sync_dir(dir).unwrap();
        assert_eq!(kind(disk.sync_dir(&path("d"))), io::ErrorKind::NotFound);
        let listed: Vec<_> = disk
            .list(dir)
            .unwrap()
            .into_iter()
            .map(|entry| (entry.name, entry.kind, if entry.kind == EntryKind::File { entry.len } else { 0 }))
            .collect();
        assert_eq!(listed, [("e".into(), EntryKind::Dir, 0), ("empty".into(), EntryKind::File, 6)]);
        disk.remove(&path("e/f")).unwrap();
        disk.remove_dir(&path("e")).unwrap();
        assert_eq!(kind(disk.list(&path("e")).map(drop)), io::ErrorKind::NotFound);
        assert!(disk.available(dir).unwrap() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_disk_does_as_every_disk_should() {
        let dir = tempfile::tempdir().unwrap();
        conformance::files_do_as_they_should(&RealDisk, dir.path());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_made_is_private_and_what_is_no_file_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
        RealDisk.create_dir(&path("d")).unwrap();
        RealDisk.create(&path("f")).unwrap();
        assert_eq!((mode("d"), mode("f")), (0o700, 0o600));
        regular::pipe(&path("pipe"));
        regular::endless(&path("endless"));
        std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
        std::os::unix::fs::symlink("f", path("to-f")).unwrap();
        for name in ["pipe", "endless"] {
            assert_eq!(RealDisk.open(&path(name)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
            assert_eq!(RealDisk.read_only(&path(name)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        let kinds: Vec<_> =
            RealDisk.list(dir.path()).unwrap().into_iter().map(|entry| (entry.name, entry.kind)).collect();
        let expected = [
            ("d", EntryKind::Dir),
            ("endless", EntryKind::Other),
            ("f", EntryKind::File),
            ("link", EntryKind::Other),
            ("pipe", EntryKind::Other),
            ("to-f", EntryKind::File),
        ];
        assert_eq!(kinds, expected.map(|(name, kind)| (name.into(), kind)));
    }

    #[test]
    fn no_room_is_told_from_other_failures() {
        #[cfg(unix)]
        for errno in [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT, rustix::io::Errno::FBIG] {
            assert!(is_no_room(&errno.into()), "{errno}");
        }
        assert!(is_no_room(&io::ErrorKind::StorageFull.into()));
        assert!(!is_no_room(&io::Error::other("a device that is gone")));
    }
}
