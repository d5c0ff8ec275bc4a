//! Reads a backup to the last byte: every file by its SHA-256, every section by its sum.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use super::{
    manifest::{self, Kept, Manifest},
    restore::{describe, read},
};
use crate::{
    collection::CopyPlace,
    engine::{EngineError, FoundDamage, VerifiedCollection, catalog::spec_of, error::Result},
    files::{
        disk::{Disk, EntryKind, RealDisk},
        reading::Reading,
        sums::{self, Sum},
    },
    segmented::{
        backup::{self, REMEDY, differs},
        verify::Fault,
    },
    stop::Stop,
    store::StoreError,
};

/// What to do where the list itself is damaged.
const LIST_REMEDY: &str = "take another backup; nothing of this one can be restored, since nobody can tell whether its files are whole";

/// Names between a backup and the deepest of its files: collection, segment, file.
const DEPTH: usize = 3;

/// What [`verify_backup`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedBackup {
    /// The backup.
    pub folder: PathBuf,
    /// Whether everything is as it was written.
    pub whole: bool,
    /// When it was begun, in microseconds since 1970; `None` if its list is damaged.
    pub made_at: Option<i64>,
    /// Version of the program that made it; `None` if its list is damaged.
    pub version: Option<String>,
    /// In the order of their names.
    pub collections: Vec<VerifiedCollection>,
    /// What is wrong with the list of its files, apart from what is wrong with collections.
    pub damages: Vec<FoundDamage>,
    /// What is worth knowing and no damage.
    pub notes: Vec<String>,
}

/// Reads everything in the backup `dir`: compares every file with its length and SHA-256, and reads every section of every
/// segment as an opening does. It changes nothing. `progress` hears how many bytes of how many were read.
///
/// # Errors
/// Of kind Invalid if it is no backup, Precondition if a later version made it; Internal if `stop` said so or a folder
/// cannot be listed. Damage is no error.
pub fn verify_backup(
    dir: &Path,
    stop: &Stop,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<VerifiedBackup> {
    let mut verified = VerifiedBackup {
        folder: dir.to_owned(),
        whole: false,
        made_at: None,
        version: None,
        collections: Vec::new(),
        damages: Vec::new(),
        notes: Vec::new(),
    };
    let manifest = match read(&RealDisk, dir) {
        Ok(manifest) => manifest,
        Err(EngineError::DamagedBackup { reason, .. }) => {
            let fault = Fault::hopeless(&dir.join(manifest::FILE), stem(&reason), LIST_REMEDY);
            verified.damages.push(FoundDamage::of(fault));
            return Ok(verified);
        }
        Err(error) => return Err(error),
    };
    // Each file is read for its SHA-256, and once more for its sections.
    let total = 2 * manifest.collections.iter().map(Kept::bytes).sum::<u64>();
    let reading =
        Reading::new(Arc::new(RealDisk), stop.clone(), move |read| progress(read.min(total), total));
    let disk: Arc<dyn Disk> = Arc::new(reading.clone());
    let mut known: BTreeSet<PathBuf> = BTreeSet::from([PathBuf::from(manifest::FILE)]);
    for kept in &manifest.collections {
        let before = reading.bytes();
        let mut collection = verify_one(&disk, dir, kept, stop)?;
        collection.bytes = reading.bytes() - before;
        verified.collections.push(collection);
        known.extend(kept.files.iter().map(|file| Path::new(&kept.folder).join(file.place())));
    }
    let mut found = Vec::new();
    list(&*disk, dir, Path::new(""), &mut found).map_err(|e| StoreError::io(dir, e))?;
    let others = found.into_iter().filter(|path| !known.contains(path));
    verified
        .notes
        .extend(others.map(|path| format!("{}: it is not of this backup", dir.join(path).display())));
    let Manifest { made_at, version, .. } = manifest;
    (verified.made_at, verified.version) = (Some(made_at), Some(version));
    verified.whole = verified.collections.iter().all(|collection| collection.whole);
    Ok(verified)
}

/// Reads one collection of the backup `root`.
pub(super) fn verify_one(
    disk: &Arc<dyn Disk>,
    root: &Path,
    kept: &Kept,
    stop: &Stop,
) -> Result<VerifiedCollection> {
    let dir = root.join(&kept.folder);
    let sums = kept.sums();
    // What is wrong with each file as a whole, and where.
    let mut wrong: BTreeMap<PathBuf, String> = BTreeMap::new();
    for (path, sum) in &sums {
        let at = dir.join(path);
        if let Some(reason) = compare(&**disk, &at, *sum, stop)? {
            wrong.insert(at, reason);
        }
    }
    let mut faults: Vec<Fault> = Vec::new();
    let (mut documents, mut passages, mut segments) = (kept.documents, kept.passages, 0);
    match describe(&**disk, &dir, kept, &sums, stop) {
        Ok(description) => {
            let spec = spec_of(&description.info)?;
            let sums = |path: &Path| sums.get(path).copied();
            let place = CopyPlace { disk, dir: &dir, identity: kept.identity, sums: &sums };
            let checked = backup::verify(&place.copy(&spec), stop)?;
            if checked.faults.is_empty() && (checked.documents, checked.passages) != (documents, passages) {
                let reason = format!(
                    "it holds {} documents with {} passages, and the backup's own list says {documents} with {passages}",
                    checked.documents, checked.passages
                );
                faults.push(Fault::hopeless(&dir, reason, REMEDY));
            }
            (documents, passages, segments) = (checked.documents, checked.passages, checked.segments);
            faults.extend(checked.faults);
        }
        Err(StoreError::Corrupt { path, reason }) => {
            faults.push(Fault::hopeless(&path, stem(&reason), REMEDY))
        }
        Err(error @ (StoreError::NewerFormat { .. } | StoreError::NotUnderstood { .. })) => {
            faults.push(Fault::newer(&dir, &error));
        }
        Err(error) => return Err(error.into()),
    }
    // Whoever knows the place says more than a sum of the whole.
    wrong.retain(|path, _| faults.iter().all(|fault| fault.file != *path));
    faults.extend(wrong.into_iter().map(|(path, reason)| Fault::hopeless(&path, reason, REMEDY)));
    let damages: Vec<FoundDamage> = faults.into_iter().map(FoundDamage::of).collect();
    Ok(VerifiedCollection {
        name: kept.name.clone(),
        folder: dir,
        whole: damages.is_empty(),
        documents,
        passages,
        segments: segments as u64,
        bytes: 0,
        damages,
    })
}

/// In what a file differs from what it should be; `None` if it does not.
fn compare(disk: &dyn Disk, path: &Path, expected: Sum, stop: &Stop) -> Result<Option<String>, StoreError> {
    match sums::of(disk, path, stop) {
        Ok(got) => Ok(differs(expected, got)),
        Err(e) => {
            stop.check().map_err(|stopped| StoreError::io(path, io::Error::other(stopped)))?;
            match e.kind() {
                io::ErrorKind::NotFound => Ok(Some("it is missing".to_owned())),
                io::ErrorKind::InvalidInput => Ok(Some(e.to_string())),
                _ if crate::handles::none_left(&e) => Err(StoreError::io(path, e)),
                _ => Ok(Some(format!("it cannot be read: {e}"))),
            }
        }
    }
}

/// Every file below a folder, by its path from there, and what lies deeper than anything of a backup does.
fn list(disk: &dyn Disk, root: &Path, inside: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in disk.list(&root.join(inside))? {
        let path = inside.join(&entry.name);
        if entry.kind == EntryKind::Dir && path.components().count() < DEPTH {
            list(disk, root, &path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

fn stem(reason: &str) -> String {
    reason.split("; ").next().unwrap_or(reason).to_owned()
}
