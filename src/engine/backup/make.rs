//! A backup is made beside, and put in its place when every byte of it is durable: a kill or a loss of power leaves
//! nothing that passes for one.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::manifest::{FILE, FORMAT, Kept, KeptFile, Manifest};
use crate::{
    collection::{BackedUp, CollectionError},
    engine::{EngineError, error::Result, inventory::Description},
    files::{
        disk::{Disk, RealDisk},
        staged::{self, Staged},
        sums,
    },
    stop::Stop,
    store::{RESERVE_BYTES, StoreError, folder::DESCRIPTION_FILE, record},
    value::datetime,
};

/// Copies a collection into a folder.
pub(super) type Copy<'a> = dyn FnOnce(&Path) -> Result<BackedUp> + 'a;

/// What is said of a collection that is put into a backup, and how it is copied into a folder.
pub(super) struct Source<'a> {
    pub(super) description: Description,
    pub(super) copy: Box<Copy<'a>>,
    /// Whether it was deleted meanwhile, and need not be in the backup.
    pub(super) is_gone: Box<dyn Fn() -> bool + 'a>,
}

/// Bytes of files that have another name in the data folder, and of those that do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    pub(super) linked: u64,
    pub(super) copied: u64,
}

/// Makes the backup `to` of some collections. `source` tells the one of a name; `None`: it was deleted meanwhile, and need
/// not be in the backup.
pub(super) fn make<'a>(
    disk: &Arc<dyn Disk>,
    to: &Path,
    names: &[String],
    source: impl Fn(&str) -> Result<Option<Source<'a>>>,
    stop: &Stop,
) -> Result<(Manifest, Bytes)> {
    let made_at = datetime::now();
    let place = |e: io::Error| match e.kind() {
        io::ErrorKind::AlreadyExists => EngineError::BackupExists { path: to.to_owned() },
        _ => StoreError::full_or_io(to, e).into(),
    };
    let parent = to.parent().unwrap_or(to);
    if disk.available(parent).map_err(|e| StoreError::io(parent, e))? < RESERVE_BYTES {
        return Err(StoreError::DiskFull { path: to.to_owned() }.into());
    }
    let staged = Staged::begin(disk, to).map_err(place)?;
    let (mut collections, mut bytes) = (Vec::with_capacity(names.len()), Bytes::default());
    for name in names {
        let Some(Source { description, copy, is_gone }) = source(name)? else { continue };
        let dir = staged.path().join(&description.folder);
        disk.create_dir(&dir).map_err(|e| StoreError::full_or_io(&dir, e))?;
        let copied = match copy(&dir) {
            Err(_) if is_gone() => {
                staged::remove_all(&**disk, &dir).map_err(|e| StoreError::io(&dir, e))?;
                continue;
            }
            copied => copied?,
        };
        // Known only now where an earlier version made the collection.
        let description = Description { identity: Some(copied.identity), ..description };
        let path = dir.join(DESCRIPTION_FILE);
        write(&**disk, &path, &record::frame(&description.to_bytes()).0)?;
        disk.sync_dir(&dir).map_err(|e| StoreError::io(&dir, e))?;
        let sum = sums::of(&**disk, &path, stop).map_err(|e| StoreError::io(&path, e))?;
        let mut files: Vec<KeptFile> =
            copied.files.iter().map(|file| KeptFile::new(&file.path, file.sum)).collect();
        files.push(KeptFile::new(Path::new(DESCRIPTION_FILE), sum));
        files.sort_by(|a, b| a.path.cmp(&b.path));
        for file in &copied.files {
            let count = if file.is_linked { &mut bytes.linked } else { &mut bytes.copied };
            *count += file.sum.bytes;
        }
        bytes.copied += sum.bytes;
        collections.push(Kept {
            name: description.info.name,
            folder: description.folder,
            identity: copied.identity,
            sequence: copied.sequence,
            documents: copied.documents,
            passages: copied.passages,
            aliases: description.aliases.into_keys().collect(),
            files,
        });
    }
    collections.sort_by(|a, b| a.name.cmp(&b.name));
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let manifest = Manifest { format: FORMAT, version, made_at, collections };
    write(&**disk, &staged.path().join(FILE), &manifest.to_bytes())?;
    // Whoever waits for it may have gone.
    stop.check().map_err(CollectionError::from)?;
    staged.put().map_err(place)?;
    Ok((manifest, bytes))
}

fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let written = (|| {
        let file = disk.create(path)?;
        file.write_at(0, bytes)?;
        file.sync_all()
    })();
    written.map_err(|e| StoreError::full_or_io(path, e))
}

/// Where a backup goes, and the lock on the folder that it is made in. `data` is the data folder.
///
/// # Errors
/// [`EngineError::BadRequest`] for a place that is none, or is in the data folder; [`EngineError::BackupExists`];
/// [`EngineError::BackupBusy`].
pub(super) fn take_place(to: &Path, data: &Path) -> Result<(PathBuf, staged::Held)> {
    let refused = |reason: String| EngineError::BadRequest { reason };
    let whole = std::path::absolute(to).map_err(|e| refused(format!("{}: {e}", to.display())))?;
    let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else {
        return Err(refused(format!("{} is no place for a backup; name a new folder", to.display())));
    };
    let parent = parent.canonicalize().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            refused(format!("there is no folder {}; make it, or name another place", parent.display()))
        }
        _ => refused(format!("{} cannot be used: {e}; name another place", parent.display())),
    })?;
    let to = parent.join(name);
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    if to.starts_with(&data) {
        let reason = format!(
            "{} lies in the data folder {}, which a backup is to outlive; name a place outside of it",
            to.display(),
            data.display()
        );
        return Err(refused(reason));
    }
    // A link would lead the renaming elsewhere than was looked at.
    if std::fs::symlink_metadata(&to).is_ok_and(|found| found.is_symlink() || !found.is_dir()) {
        return Err(EngineError::BackupExists { path: to });
    }
    let held = staged::hold(&parent).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => EngineError::BackupBusy { path: parent.clone() },
        _ => refused(format!("{} cannot be used: {e}; name another place", parent.display())),
    })?;
    if let Err(error) = held.sweep(&RealDisk, &parent) {
        tracing::warn!(folder = %parent.display(), %error, "what is left of an unfinished backup cannot be removed; the next backup tries again");
    }
    Ok((to, held))
}
