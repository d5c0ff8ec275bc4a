//! The few things the store asks of the file system, as a trait that tests replace to make them fail.
//!
//! Only what durability hangs on goes through here: syncing, renaming and the free space.
//! sled does its own reading and writing; its errors reach us through `state.rs`.

use std::{
    fmt::Debug,
    fs::File,
    io::{self, Write as _},
    path::Path,
};

/// What the store asks of the file system.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Puts a file's bytes, and the length needed to read them again, on the device.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Puts a folder's entries on the device: needed after its files were created or renamed.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Writes a whole new file, for this user alone, and syncs it.
    fn write_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Renames, replacing what is there as the system does.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Hears that sled is about to write below `dir`. For tests, which refuse it: sled does its own writing.
    fn written(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Hears that sled has written below `dir`. For tests, which make it fail late.
    fn flushed(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Bytes that this process may still write on the file system of `dir`.
    fn available(&self, dir: &Path) -> io::Result<u64>;
}

/// The file system itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        crate::files::sync_folder(dir)
    }

    fn write_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = super::private::create_file(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn available(&self, dir: &Path) -> io::Result<u64> {
        fs2::available_space(dir)
    }
}

/// Bytes of all files in a folder and below. What cannot be read, or goes away meanwhile, is not counted.
pub(crate) fn folder_bytes(dir: &Path) -> u64 {
    walkdir::WalkDir::new(dir)
        .into_iter()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(|metadata| metadata.is_file())
        .map(|metadata| metadata.len())
        .sum()
}

#[cfg(test)]
pub(crate) mod faulty {
    //! A disk that fails when a test says so.

    use std::sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    };

    use super::*;

    /// Passes everything on until told otherwise.
    #[derive(Debug)]
    pub(crate) struct FaultyDisk {
        pub(crate) sync_fails: AtomicBool,
        /// Syncing panics, as a bug of ours would.
        pub(crate) sync_panics: AtomicBool,
        pub(crate) rename_fails: AtomicBool,
        /// sled finds no room, as when another process fills the disk between the look at it and the write.
        pub(crate) no_room: AtomicBool,
        /// sled finds no room at the end, when all is stored.
        pub(crate) no_room_late: AtomicBool,
        /// Too many files are open.
        pub(crate) no_handle: AtomicBool,
        pub(crate) free: AtomicU64,
        /// A call that asks how much is free waits until a test releases this.
        pub(crate) hangs: Mutex<()>,
        /// How often somebody asked.
        pub(crate) asked: AtomicU64,
        pub(crate) syncs: AtomicU64,
    }

    impl Default for FaultyDisk {
        fn default() -> Self {
            FaultyDisk {
                sync_fails: AtomicBool::new(false),
                sync_panics: AtomicBool::new(false),
                rename_fails: AtomicBool::new(false),
                no_room: AtomicBool::new(false),
                no_room_late: AtomicBool::new(false),
                no_handle: AtomicBool::new(false),
                free: AtomicU64::new(u64::MAX),
                hangs: Mutex::default(),
                asked: AtomicU64::new(0),
                syncs: AtomicU64::new(0),
            }
        }
    }

    impl Disk for FaultyDisk {
        fn sync(&self, file: &File) -> io::Result<()> {
            self.syncs.fetch_add(1, Ordering::SeqCst);
            assert!(!self.sync_panics.load(Ordering::SeqCst), "injected: a bug");
            if self.sync_fails.load(Ordering::SeqCst) {
                return Err(io::Error::other("injected: the device is gone"));
            }
            RealDisk.sync(file)
        }

        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            RealDisk.sync_dir(dir)
        }

        fn write_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
            RealDisk.write_file(path, bytes)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            if self.rename_fails.load(Ordering::SeqCst) {
                return Err(io::Error::other("injected: no renaming"));
            }
            RealDisk.rename(from, to)
        }

        fn written(&self, _dir: &Path) -> io::Result<()> {
            if self.no_handle.load(Ordering::SeqCst) {
                return Err(io::Error::from_raw_os_error(24));
            }
            if self.no_room.load(Ordering::SeqCst) {
                self.free.store(0, Ordering::SeqCst);
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }

        fn flushed(&self, _dir: &Path) -> io::Result<()> {
            if self.no_room_late.load(Ordering::SeqCst) {
                self.free.store(0, Ordering::SeqCst);
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }

        fn available(&self, dir: &Path) -> io::Result<u64> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            drop(self.hangs.lock());
            Ok(RealDisk.available(dir)?.min(self.free.load(Ordering::SeqCst)))
        }
    }
}
