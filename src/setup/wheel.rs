//! Unpacks the pinned files of a wheel (a zip archive) and checks them. Only this file uses `zip`.
//!
//! What `zip` can do to us: a damaged archive makes it fail at open or while reading, never panic; sizes in its
//! directory may lie, so what was really read is counted and summed.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use super::{
    error::{SetupError, io_error},
    pins::{FilePin, Wheel},
    place,
};

/// The wheel in `folder`: the pinned name, else the same release for another Python on the same platform.
pub(super) fn find(folder: &Path, pin: &Wheel) -> Option<PathBuf> {
    let exact = folder.join(&pin.filename);
    if exact.is_file() {
        return Some(exact);
    }
    // NAME-VERSION-PYTHON-ABI-PLATFORM.whl; name and version are as in the pinned name.
    let release: String = pin.filename.splitn(3, '-').take(2).map(|part| format!("{part}-")).collect();
    let platform = pin.filename.rsplit('-').next()?;
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
            name.starts_with(&release) && name.ends_with(&format!("-{platform}")) && path.is_file()
        })
        .collect();
    names.sort();
    names.pop()
}

/// Writes the pinned files into `folder`; `progress` gets the bytes so far.
///
/// # Errors
/// [`SetupError::WheelDamaged`], [`SetupError::Checksum`], [`SetupError::Size`], io errors. Files may be left in
/// `folder`, which the caller throws away.
pub(super) fn unpack(
    wheel: &Path,
    files: &[FilePin],
    folder: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(), SetupError> {
    let damaged = |reason: String| SetupError::WheelDamaged { wheel: wheel.to_owned(), reason };
    let file = File::open(wheel).map_err(|e| io_error("read", wheel, e))?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| damaged(e.to_string()))?;
    let mut done = 0;
    for pin in files {
        let entry = archive.by_name(&pin.path).map_err(|e| damaged(format!("{}: {e}", pin.path)))?;
        place::write_checked(entry, folder, pin, wheel, &mut |n| progress(done + n))?;
        done += pin.bytes;
    }
    Ok(())
}
