//! Reading files of somebody else's within bounds, and making the folder of a model whole or not at all.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::ModelError;
use crate::files::{regular, sync_folder, temporary_beside};

/// Most bytes of a description: `config.json`, `model.toml` and the like.
pub(crate) const DESCRIPTION_BYTES_MAX: u64 = 16 << 20;
/// Most bytes of a tokenizer or a vocabulary.
pub(crate) const TOKENIZER_BYTES_MAX: u64 = 256 << 20;
/// Most bytes of weights.
pub(crate) const WEIGHTS_BYTES_MAX: u64 = 16 << 30;

/// Reads a file that another program wrote. A symbolic link is followed, as a hub's cache needs it.
///
/// # Errors
/// [`ModelError::MissingFile`]; [`ModelError::Unsupported`] for what is no regular file and for one of more than
/// `bytes_max`; [`ModelError::Io`].
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, ModelError> {
    regular::read(path, bytes_max).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge => {
            ModelError::Unsupported { path: path.to_owned(), reason: error.to_string() }
        }
        _ => ModelError::from_io(path, error),
    })
}

/// [`read`] of text.
///
/// # Errors
/// As [`read`]; [`ModelError::Unsupported`] for what is not UTF-8.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> Result<String, ModelError> {
    String::from_utf8(read(path, bytes_max)?).map_err(|error| ModelError::Unsupported {
        path: path.to_owned(),
        reason: format!("it is not UTF-8 at byte {}", error.utf8_error().valid_up_to()),
    })
}

/// Fills a folder under a temporary name and renames it to `target`; what was there before is moved aside first and
/// removed once the new one is in its place.
///
/// # Errors
/// Those of `fill`, after which nothing is left; [`ModelError::Io`].
pub(crate) fn replace_folder(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| ModelError::Io { path, source }
    };
    let above = target.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(above).map_err(failed(above))?;
    let building = Unfinished(temporary_beside(target));
    fs::create_dir(&building.0).map_err(failed(&building.0))?;
    fill(&building.0)?;
    let old = Unfinished(temporary_beside(target));
    if target.exists() {
        fs::rename(target, &old.0).map_err(failed(target))?;
    }
    if let Err(source) = fs::rename(&building.0, target) {
        // What was there comes back; if even that fails, its name tells what it is.
        let _ = fs::rename(&old.0, target);
        return Err(ModelError::Io { path: target.to_owned(), source });
    }
    sync_folder(above).map_err(failed(above))
}

/// Removed when dropped, if it is still there.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        fs::write(place("file"), "12345").unwrap();
        std::os::unix::fs::symlink(place("file"), place("link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", place("device")).unwrap();
        fs::create_dir(place("folder")).unwrap();
        for name in ["file", "link"] {
            assert_eq!(read(&place(name), 5).unwrap(), b"12345");
            assert!(matches!(read(&place(name), 4).unwrap_err(), ModelError::Unsupported { .. }));
        }
        for name in ["device", "folder"] {
            let error = read(&place(name), 5).unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{error}");
        }
        assert!(matches!(read(&place("nowhere"), 5).unwrap_err(), ModelError::MissingFile { .. }));
    }
}
