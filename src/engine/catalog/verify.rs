//! A data folder that no server has open: all that is in it read, and compared with its catalogue.
//!
//! A collection is what its own description says. The catalogue is a cache; but a collection that only it knows has lost
//! its folder, and entries of the log that are of no collection at all have lost it too: both are told.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use super::{
    CATALOG_DIR, COLLECTIONS_DIR,
    found::{At, Found, Missing, catalogue_note, take},
};
use crate::{
    engine::error::Result,
    files::{
        disk::{DirEntry, Disk, EntryKind, RealDisk},
        reading::Reading,
    },
    segmented::{
        repair::{Misplaced, misplaced},
        verify::{self, Fault, LogSeen, OrphanSeen},
    },
    stop::Stop,
};

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundDamage {
    /// The file, or the folder.
    pub file: PathBuf,
    /// The byte at which it begins, if it is a place in a file.
    pub offset: Option<u64>,
    /// What is wrong there.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
    /// Whether [`super::repair_folder`] can do something about it.
    pub repairable: bool,
}

/// What [`verify_folder`] found in a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedCollection {
    /// Its name; that of its folder where the description cannot be read.
    pub name: String,
    /// Its folder; of one that is missing, where it was.
    pub folder: PathBuf,
    /// Whether everything is as it was written.
    pub whole: bool,
    /// Documents; those of damaged segments as they were counted when they were whole.
    pub documents: u64,
    /// Passages of these documents.
    pub passages: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes that were read of it, without those of the log.
    pub bytes: u64,
    /// What is not as it was written.
    pub damages: Vec<FoundDamage>,
}

/// What [`verify_folder`] found in a data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedFolder {
    /// The data folder.
    pub folder: PathBuf,
    /// Whether everything is as it was written.
    pub whole: bool,
    /// In the order of their names.
    pub collections: Vec<VerifiedCollection>,
    /// Files of the log.
    pub log_files: u64,
    /// Entries of the log that could be read.
    pub log_entries: u64,
    /// Bytes that were read of the log.
    pub log_bytes: u64,
    /// What is wrong beside the collections: with the log as a whole, and then every collection is refused; or entries of
    /// the log whose collection is not here.
    pub damages: Vec<FoundDamage>,
    /// What is worth knowing and no damage.
    pub notes: Vec<String>,
}

/// Reads everything in the data folder `dir`: descriptions, the log with every entry, segments with every byte,
/// deletions; compares them with each other and with the catalogue; and changes nothing. Takes the folder's lock meanwhile. `progress` hears
/// how many bytes of how many were read.
///
/// # Errors
/// Of kind Precondition if a server has the folder open, Invalid if it is no data folder; Internal if `stop` said so or
/// the folder cannot be listed. Damage is no error.
pub fn verify_folder(
    dir: &Path,
    stop: &Stop,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<VerifiedFolder> {
    let _lock = take(dir)?;
    let total = bytes_below(&dir.join("log")).saturating_add(bytes_below(&dir.join(COLLECTIONS_DIR)));
    let reading = Reading::new(Arc::new(RealDisk), stop.clone(), move |read| progress(read, total));
    let disk: Arc<dyn Disk> = Arc::new(reading.clone());
    let found = Found::look(dir)?;
    let log = LogSeen::read(&disk, dir, &found.dirs(), stop)?;
    let log_bytes = reading.bytes();
    let Found { collections: there, missing, mut identities, mut notes, .. } = found;
    let known: Vec<_> = there.iter().filter_map(|at| at.state.as_ref().ok()).cloned().collect();
    let wrong_places = misplaced(&*disk, &known)?;
    let (mut collections, mut known_ones) = (Vec::new(), Vec::new());
    for At { name, dir, state, refused } in there {
        let before = reading.bytes();
        let mut collection = VerifiedCollection::empty(name, dir);
        match state {
            Ok(known) => {
                let checked = verify::verify(&disk, &log, &known, stop)?;
                known_ones.extend(checked.covers);
                collection.documents = checked.documents;
                collection.passages = checked.passages;
                collection.segments = checked.segments as u64;
                let lies_here = wrong_places.iter().filter(|wrong| wrong.from.parent() == Some(&known.dir));
                let faults = lies_here.map(wrong_place).chain(checked.faults).chain(refused);
                collection.damages = faults.map(FoundDamage::of).collect();
                notes.extend(checked.notes);
            }
            Err(fault) => {
                // Damage of the log may have hit it.
                let identity = verify::identity_in(&*disk, &collection.folder);
                known_ones.extend(identity.map(|identity| (identity, u64::MAX)));
                collection.damages.push(FoundDamage::of(fault));
            }
        }
        collection.whole = collection.damages.is_empty();
        collection.bytes = reading.bytes() - before;
        collections.push(collection);
    }
    for Missing { name, identity, mut fault } in missing {
        let entries = identity.map_or(0, |identity| log.entries_of(identity));
        if entries > 0 {
            fault.reason.push_str(&format!("; the log still has {entries} of its entries"));
        }
        identities.extend(identity);
        let mut collection = VerifiedCollection::empty(name, fault.file.clone());
        collection.damages.push(FoundDamage::of(fault));
        collections.push(collection);
    }
    collections.sort_by(|a, b| a.name.cmp(&b.name));
    notes.extend(log.notes_beside(&known_ones));
    notes.extend(catalogue_note(&disk, &dir.join(CATALOG_DIR), stop)?);
    let orphans = log.orphans(&identities);
    let orphans = orphans.iter().map(|orphan| orphaned(&dir.join("log"), orphan));
    let damages: Vec<FoundDamage> = log.faults.iter().cloned().chain(orphans).map(FoundDamage::of).collect();
    Ok(VerifiedFolder {
        folder: dir.to_owned(),
        whole: damages.is_empty() && collections.iter().all(|collection| collection.whole),
        collections,
        log_files: log.files as u64,
        log_entries: log.entries,
        log_bytes,
        damages,
        notes,
    })
}

impl FoundDamage {
    pub(in crate::engine) fn of(fault: Fault) -> Self {
        let Fault { file, offset, reason, remedy, is_repairable } = fault;
        FoundDamage { file, offset, reason, remedy, repairable: is_repairable }
    }
}

impl VerifiedCollection {
    fn empty(name: String, folder: PathBuf) -> Self {
        VerifiedCollection {
            name,
            folder,
            whole: false,
            documents: 0,
            passages: 0,
            segments: 0,
            bytes: 0,
            damages: Vec::new(),
        }
    }
}

/// What is said of what lies in the folder of another collection.
fn wrong_place(wrong: &Misplaced) -> Fault {
    let remedy = format!("`distilface repair --yes` moves it to {}", wrong.to.display());
    let reason = "it is of another collection, and lies in this one's folder";
    Fault { is_repairable: true, ..Fault::hopeless(&wrong.from, reason, &remedy) }
}

/// What is said of entries whose collection is not here.
pub(super) fn orphaned(log: &Path, orphan: &OrphanSeen) -> Fault {
    let remedy = format!(
        "put the collection's folder back where it was, from a backup of the same time; `distilface repair {}` says which documents they are, and with --yes gives them up",
        orphan.name()
    );
    Fault { is_repairable: true, ..Fault::hopeless(log, orphan.to_string(), &remedy) }
}

/// Bytes of all files below a folder, as far as they can be listed.
fn bytes_below(dir: &Path) -> u64 {
    let entries = RealDisk.list(dir).unwrap_or_default();
    let bytes = entries.into_iter().map(|DirEntry { name, kind, len }| match kind {
        EntryKind::File => len,
        EntryKind::Dir => bytes_below(&dir.join(name)),
        EntryKind::Other => 0,
    });
    bytes.sum()
}
