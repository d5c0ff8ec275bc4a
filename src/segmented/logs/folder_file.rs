//! The file `log/folder`: which log it is, and the first entry that is needed of it.

use std::{io, path::Path};

use super::LOG_DIR;
use crate::{
    files::disk::Disk,
    log::{self, Sequence},
    segmented::manifest,
    store::{Identity, StoreError},
};

/// Says what the log is, and where it begins.
pub(in crate::segmented) const FOLDER_FILE: &str = "folder";
/// What is being written.
pub(super) const FOLDER_BESIDE: &str = "folder.new";
const FOLDER_MAGIC: [u8; 8] = *b"dffolder";
const FOLDER_VERSION: u16 = 1;
const FOLDER_BYTES: usize = 40;

/// Identity of the log, and the first sequence that is needed of it.
pub(super) fn read_or_make(
    disk: &dyn Disk,
    dir: &Path,
    is_needed: bool,
) -> Result<(log::Identity, u64), StoreError> {
    if let Some(found) = read_folder_file(disk, dir)? {
        return Ok(found);
    }
    let files = match disk.list(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            disk.create_dir(dir).map_err(|e| StoreError::full_or_io(dir, e))?;
            let root = dir.parent().unwrap_or(dir);
            disk.sync_dir(root).map_err(|e| StoreError::io(root, e))?;
            Vec::new()
        }
        files => files.map_err(|e| StoreError::io(dir, e))?,
    };
    let is_log = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".log");
    if is_needed || files.iter().any(|file| is_log(&file.name)) {
        return Err(folder_file_damaged(
            dir,
            "it is missing, and there is a log, or collections that need one",
        ));
    }
    let identity = Identity::draw().0;
    write_folder_file(disk, dir, &identity, Sequence::FIRST.0)?;
    Ok((identity, Sequence::FIRST.0))
}

fn folder_file_damaged(dir: &Path, reason: &str) -> StoreError {
    StoreError::corrupt(
        &dir.join(FOLDER_FILE),
        format!(
            "{reason}; `distilface repair` makes it again of the log's files, or put `{LOG_DIR}` back from a backup, with the collections of the same backup"
        ),
    )
}

/// What the file says; `None` if there is none.
pub(in crate::segmented) fn read_folder_file(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<Option<(log::Identity, u64)>, StoreError> {
    let path = dir.join(FOLDER_FILE);
    let damaged = |reason: &str| folder_file_damaged(dir, reason);
    match disk.read_only(&path) {
        Ok(file) => {
            let mut bytes = [0; FOLDER_BYTES];
            let len = file.len().map_err(|e| StoreError::io(&path, e))?;
            if len != FOLDER_BYTES as u64 {
                return Err(damaged("it has not its length"));
            }
            file.read_exact_at(0, &mut bytes).map_err(|e| StoreError::io(&path, e))?;
            let sum = u32::from_le_bytes([bytes[36], bytes[37], bytes[38], bytes[39]]);
            if bytes[..8] != FOLDER_MAGIC || crc32c::crc32c(&bytes[..36]) != sum {
                return Err(damaged("it has a wrong checksum"));
            }
            let version = u16::from_le_bytes([bytes[8], bytes[9]]);
            if version != FOLDER_VERSION {
                let (got, supported) = (version.into(), FOLDER_VERSION.into());
                return Err(StoreError::NewerFormat { path, got, supported });
            }
            let (mut identity, mut from) = ([0; 16], [0; 8]);
            identity.copy_from_slice(&bytes[12..28]);
            from.copy_from_slice(&bytes[28..36]);
            Ok(Some((identity, u64::from_le_bytes(from))))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Err(damaged(&e.to_string())),
        Err(e) => Err(StoreError::io(&path, e)),
    }
}

/// Puts the file in its place, durably.
pub(in crate::segmented) fn write_folder_file(
    disk: &dyn Disk,
    dir: &Path,
    identity: &log::Identity,
    from: u64,
) -> Result<(), StoreError> {
    let (path, beside) = (dir.join(FOLDER_FILE), dir.join(FOLDER_BESIDE));
    let mut bytes = Vec::with_capacity(FOLDER_BYTES);
    bytes.extend_from_slice(&FOLDER_MAGIC);
    bytes.extend_from_slice(&FOLDER_VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(identity);
    bytes.extend_from_slice(&from.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    manifest::replace(disk, &path, &beside, &bytes)
}
