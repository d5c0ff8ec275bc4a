//! Files into their place: temporary folder, fsync, rename; and looking whether they are there already.
//!
//! Promises: a final folder is whole or absent, and what an interrupted run left is swept away by the next.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    error::{SetupError, io_error},
    pins::{FilePin, Wheel},
};
use crate::files;

/// Folder of downloaded wheels under the home; gone once all are installed.
pub(super) const CACHE: &str = ".setup-cache";

const TEMPORARY: &str = ".setup-tmp-";
const BLOCK_BYTES: usize = 1 << 20;

/// Makes the folder and proves that files can be made in it.
pub(super) fn writable_folder(path: &Path) -> Result<PathBuf, SetupError> {
    fs::create_dir_all(path).map_err(|e| io_error("create", path, e))?;
    let probe = path.join(format!("{TEMPORARY}probe-{}", std::process::id()));
    File::create(&probe).map_err(|e| io_error("write", path, e))?;
    remove_file(&probe)?;
    Ok(path.to_owned())
}

/// An empty folder beside `target`, on the same file system.
pub(super) fn temporary_beside(target: &Path) -> Result<PathBuf, SetupError> {
    let parent = target.parent().unwrap_or(target);
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let path = parent.join(format!("{TEMPORARY}{name}"));
    remove_folder(&path)?;
    fs::create_dir_all(&path).map_err(|e| io_error("create", &path, e))?;
    Ok(path)
}

/// Puts a filled folder into its place; what was there before goes away afterwards.
pub(super) fn swap_in(from: &Path, target: &Path) -> Result<(), SetupError> {
    let parent = target.parent().unwrap_or(target);
    sync_folders(from)?;
    let old = parent.join(format!("{TEMPORARY}old-{}", std::process::id()));
    // A process that has the old files mapped keeps them: only their names go.
    let replaced = match fs::rename(target, &old) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(io_error("replace", target, e)),
    };
    if let Err(e) = fs::rename(from, target) {
        if replaced {
            // Best effort: the first error is the one to tell.
            let _ = fs::rename(&old, target);
        }
        return Err(io_error("write", target, e));
    }
    sync_folder(parent)?;
    remove_folder(&old)
}

/// Removes what interrupted runs left, but for downloaded wheels. Only under the lock.
pub(super) fn sweep(home: &Path) -> Result<(), SetupError> {
    for folder in [home.to_owned(), home.join("runtime"), home.join("models")] {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let ours = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(TEMPORARY));
            if ours && path.is_dir() {
                remove_folder(&path)?;
            } else if ours {
                remove_file(&path)?;
            }
        }
    }
    Ok(())
}

/// Whether all files of the wheel are in `folder`, with the right sizes and, if `verify`, checksums.
pub(super) fn matches(
    folder: &Path,
    wheel: &Wheel,
    verify: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<bool, SetupError> {
    let mut done = 0;
    for pin in &wheel.files {
        let path = folder.join(&pin.target);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_file() && meta.len() == pin.bytes => {}
            Ok(_) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(io_error("read", &path, e)),
        }
        if verify {
            let file = File::open(&path).map_err(|e| io_error("read", &path, e))?;
            let sum = copy(file, io::sink(), &mut |n| progress(done + n)).map_err(|e| match e {
                CopyError::Read(e) | CopyError::Write(e) => io_error("read", &path, e),
            })?;
            done += pin.bytes;
            if !pin.accepts(&sum.sha256) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Writes one file of a wheel, durably, and compares what was written with its pin.
pub(super) fn write_checked(
    from: impl Read,
    folder: &Path,
    pin: &FilePin,
    wheel: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(), SetupError> {
    let path = folder.join(&pin.target);
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent).map_err(|e| io_error("create", parent, e))?;
    let file =
        File::options().write(true).create_new(true).open(&path).map_err(|e| io_error("create", &path, e))?;
    let sum = copy(from, &file, progress).map_err(|e| match e {
        CopyError::Read(e) => damaged(wheel, &pin.path, &e),
        CopyError::Write(e) => io_error("write", &path, e),
    })?;
    if sum.bytes != pin.bytes {
        return Err(SetupError::Size {
            wheel: wheel.to_owned(),
            file: pin.path.clone(),
            expected: pin.bytes,
            got: sum.bytes,
        });
    }
    if !pin.accepts(&sum.sha256) {
        return Err(SetupError::Checksum {
            wheel: wheel.to_owned(),
            file: pin.path.clone(),
            expected: pin.expected(),
            got: sum.sha256,
        });
    }
    file.sync_all().map_err(|e| io_error("write", &path, e))
}

fn damaged(wheel: &Path, file: &str, reason: &dyn std::fmt::Display) -> SetupError {
    SetupError::WheelDamaged { wheel: wheel.to_owned(), reason: format!("{file}: {reason}") }
}

struct Sum {
    bytes: u64,
    sha256: String,
}

#[derive(Debug)]
enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies while hashing; `progress` gets the bytes so far.
fn copy(mut from: impl Read, mut to: impl Write, progress: &mut dyn FnMut(u64)) -> Result<Sum, CopyError> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut hash = Sha256::new();
    let mut bytes = 0;
    loop {
        let n = match from.read(&mut block) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(CopyError::Read(e)),
        };
        to.write_all(&block[..n]).map_err(CopyError::Write)?;
        hash.update(&block[..n]);
        bytes += n as u64;
        progress(bytes);
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Sum { bytes, sha256 })
}

/// All files in a folder, as far as they can be seen: another process may remove them meanwhile.
pub(super) fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Removes a folder that may not exist.
pub(super) fn remove_folder(path: &Path) -> Result<(), SetupError> {
    absent_is_fine(fs::remove_dir_all(path), path)
}

/// Removes a file that may not exist.
pub(super) fn remove_file(path: &Path) -> Result<(), SetupError> {
    absent_is_fine(fs::remove_file(path), path)
}

fn absent_is_fine(result: io::Result<()>, path: &Path) -> Result<(), SetupError> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path, e)),
        _ => Ok(()),
    }
}

fn sync_folders(path: &Path) -> Result<(), SetupError> {
    for entry in fs::read_dir(path).map_err(|e| io_error("read", path, e))?.flatten() {
        if entry.path().is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync_folder(path)
}

fn sync_folder(path: &Path) -> Result<(), SetupError> {
    files::sync_folder(path).map_err(|e| io_error("sync", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_as_such() {
        // The kernel's own full device: every write to it fails with ENOSPC.
        let Ok(full) = File::options().write(true).open("/dev/full") else {
            println!("skipped: this system has no /dev/full");
            return;
        };
        let Err(CopyError::Write(e)) = copy(&b"text"[..], &full, &mut |_| ()) else {
            panic!("a full device took a write")
        };
        let error = io_error("write", Path::new("/home/me/x"), e);
        assert!(matches!(error, SetupError::DiskFull { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains("/home/me/x is full") && message.contains("free some space"), "{message}");
    }

    #[test]
    fn a_copy_sums_what_it_writes() {
        let mut out = Vec::new();
        let sum = copy(&b"abc"[..], &mut out, &mut |_| ()).unwrap();
        assert_eq!((out.as_slice(), sum.bytes), (&b"abc"[..], 3));
        // FIPS 180-2, appendix B.1.
        assert_eq!(sum.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn swapping_in_replaces_the_whole_folder() {
        let home = tempfile::tempdir().unwrap();
        let target = home.path().join("lib");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("old"), "old").unwrap();
        let fresh = temporary_beside(&target).unwrap();
        fs::write(fresh.join("new"), "new").unwrap();
        swap_in(&fresh, &target).unwrap();
        assert!(target.join("new").exists() && !target.join("old").exists());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "nothing temporary is left");
    }
}
