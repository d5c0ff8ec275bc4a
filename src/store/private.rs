//! Files and folders that only this user may read: 0700 and 0600, whatever the umask says.
//!
//! Everything below the data folder that is ours is narrowed here; its files are made here, and its folders by
//! [`create_private`](crate::files::create_private). sled and the graph's library make files of their own; they lie in
//! folders that are 0700 already, and [`narrow`] takes their own rights away too.
//! Elsewhere than on Unix, folders keep what the system gives them.

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
};

use crate::files::regular;

/// Rights of a file: this user alone.
#[cfg(unix)]
const FILE_MODE: u32 = 0o600;

/// How a new file is opened; the caller adds whether it is read, written or must be new.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, FILE_MODE);
    options
}

/// Makes a file, empty if it was there.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    regular::open_with(path, options().write(true).create(true).truncate(true))
}

/// Takes from everybody else what rights they have on `path` and on all that is below it. Whether there were any.
///
/// Symbolic links are neither followed nor changed. What vanishes meanwhile is left out.
///
/// # Errors
/// The first refusal of the file system, after everything was tried.
#[cfg(unix)]
pub(crate) fn narrow(path: &Path) -> io::Result<bool> {
    narrow_to(path, usize::MAX)
}

/// [`narrow`] of `path` alone, and of nothing below it.
///
/// # Errors
/// The refusal of the file system.
#[cfg(unix)]
pub(crate) fn narrow_alone(path: &Path) -> io::Result<bool> {
    narrow_to(path, 0)
}

#[cfg(unix)]
fn narrow_to(path: &Path, depth_max: usize) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    let (mut any, mut first) = (false, Ok(()));
    for entry in walkdir::WalkDir::new(path).max_depth(depth_max) {
        let narrowed = entry.map_err(io::Error::from).and_then(|entry| {
            let mut rights = entry.metadata().map_err(io::Error::from)?.permissions();
            if entry.file_type().is_symlink() || rights.mode() & 0o077 == 0 {
                return Ok(false);
            }
            rights.set_mode(rights.mode() & 0o700);
            std::fs::set_permissions(entry.path(), rights).map(|()| true)
        });
        match narrowed {
            Ok(changed) => any |= changed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if first.is_ok() => first = Err(error),
            Err(_) => {}
        }
    }
    first.map(|()| any)
}

/// Not known here.
#[cfg(not(unix))]
pub(crate) fn narrow(_path: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Not known here.
#[cfg(not(unix))]
pub(crate) fn narrow_alone(_path: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Whether somebody else may enter or read.
#[cfg(unix)]
pub(crate) fn open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// Not known here.
#[cfg(not(unix))]
pub(crate) fn open_to_others(_path: &Path) -> bool {
    false
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_private_and_what_is_open_is_narrowed() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("a/b");
        crate::files::create_private(&made).unwrap();
        create_file(&made.join("f")).unwrap();
        assert_eq!((mode(&dir.path().join("a")), mode(&made), mode(&made.join("f"))), (0o700, 0o700, 0o600));
        assert!(!narrow(&made).unwrap());
        std::fs::set_permissions(made.join("f"), std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(open_to_others(&made));
        let outside = dir.path().join("outside");
        std::fs::write(&outside, "").unwrap();
        std::fs::set_permissions(&outside, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&outside, made.join("link")).unwrap();
        assert!(narrow(&made).unwrap());
        assert_eq!((mode(&made), mode(&made.join("f")), mode(&outside)), (0o700, 0o600, 0o644));
        assert!(!open_to_others(&made));
    }
}
