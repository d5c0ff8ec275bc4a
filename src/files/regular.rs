//! Files of ours, opened only where they are regular files.
//!
//! In the place of a file there may be a pipe, whose opening waits for somebody, or a device, whose reading never ends.
//! A symbolic link to a regular file is followed. What is read whole is read up to a limit.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    path::Path,
};

/// Most bytes of a small file of ours: settings, descriptions, findings.
pub(crate) const SMALL_BYTES_MAX: u64 = 16 << 20;

/// Opens a file to be read.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for what is no regular file; what opening gives.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    open_with(path, File::options().read(true))
}

/// Opens a file as `options` say, which may make it.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_with(path: &Path, options: &OpenOptions) -> io::Result<File> {
    // Looked at before it is opened: opening a pipe waits for the other end.
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file (a folder, a pipe or a device lies in its place)",
        )),
        _ => options.open(path),
    }
}

/// The whole of a file. Memory for all of it is taken at once, and none for a file that is too large.
///
/// # Errors
/// As [`open`]; [`io::ErrorKind::FileTooLarge`] above `bytes_max`; [`io::ErrorKind::OutOfMemory`].
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let too_large = |bytes: u64| {
        let reason = format!("it has {bytes} bytes, and at most {bytes_max} are read of such a file");
        io::Error::new(io::ErrorKind::FileTooLarge, reason)
    };
    let file = open(path)?;
    let len = file.metadata()?.len();
    if len > bytes_max {
        return Err(too_large(len));
    }
    let mut bytes = Vec::new();
    // A buffer that doubles as it fills would take the room of large weights twice.
    bytes.try_reserve_exact(usize::try_from(len).unwrap_or(usize::MAX))?;
    // It may have grown meanwhile, and some special files say that they are empty.
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// [`read`] of a small text.
///
/// # Errors
/// As [`read`]; [`io::ErrorKind::InvalidData`] for what is not UTF-8.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path, SMALL_BYTES_MAX)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

/// Puts a pipe in the place of a file.
#[cfg(all(test, unix))]
pub(crate) fn pipe(path: &Path) {
    let _ = std::fs::remove_file(path);
    assert!(
        std::process::Command::new("mkfifo").arg(path).status().expect("the system has mkfifo").success()
    );
}

/// Puts a link to a device without an end in the place of a file.
#[cfg(all(test, unix))]
pub(crate) fn endless(path: &Path) {
    let _ = std::fs::remove_file(path);
    std::os::unix::fs::symlink("/dev/zero", path).expect("the folder is ours");
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn pipes_and_devices_are_refused_and_links_to_files_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        pipe(&path("pipe"));
        endless(&path("endless"));
        for name in ["pipe", "endless", "."] {
            assert_eq!(read(&path(name), 9).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
            let written = open_with(&path(name), File::options().write(true).create(true));
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        std::fs::write(path("file"), "123456789").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        assert_eq!(read(&path("link"), 9).unwrap(), b"123456789");
        assert_eq!(read(&path("link"), 8).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(&path("none"), 8).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
