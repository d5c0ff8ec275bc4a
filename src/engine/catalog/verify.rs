//! A data folder that no server has open: all that is in it read, and made whole again where it is damaged.
//!
//! A collection is what its own description says. The catalogue is a cache, and is only asked for what a damaged
//! description said.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use super::{
    ALIAS, CATALOG_DIR, COLLECTION, COLLECTIONS_DIR,
    description::{describe_folder, read_description},
    io,
};
use crate::{
    engine::{
        EngineError,
        error::Result,
        inventory::{DESCRIPTION_VERSION, Description, Entry},
    },
    files::{
        disk::{DirEntry, Disk, EntryKind, RealDisk},
        reading::Reading,
    },
    segmented::{
        repair::{self, Loss, Outcome},
        verify::{self, Fault, Known, LogSeen},
    },
    stop::Stop,
    store::{
        Catalog, DataLock, Identity, StoreError,
        folder::{self, DESCRIPTION_FILE, Mark, SEGMENTS_FILE, Standing},
    },
    value::datetime,
    vector::Dim,
};

/// Folder of what repairs moved away, in the data folder.
const DAMAGED_DIR: &str = "damaged";

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
    /// Whether [`repair_folder`] can do something about it.
    pub repairable: bool,
}

/// What [`verify_folder`] found in a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedCollection {
    /// Its name; that of its folder where the description cannot be read.
    pub name: String,
    /// Its folder.
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
    /// What is wrong with the log as a whole; every collection is refused then.
    pub damages: Vec<FoundDamage>,
    /// What is worth knowing and no damage.
    pub notes: Vec<String>,
}

/// Something that a repair drops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// What it is in, or was.
    pub file: PathBuf,
    /// What is dropped.
    pub what: String,
    /// Documents that are lost with it; `None` if nobody can tell.
    pub documents: Option<u64>,
    /// Ids of these documents, as far as they are known; at most 10,000.
    pub ids: Vec<String>,
}

/// What became of a collection, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RepairState {
    /// There is nothing to repair.
    Whole,
    /// Repaired; or it would be, with `apply`.
    Repaired,
    /// It is as it was: something about it cannot be repaired.
    Unrepairable,
}

/// What [`repair_folder`] made of a collection or of the log, or would make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairedPart {
    /// Name of the collection; `log` for the log.
    pub name: String,
    /// What became of it, or would.
    pub state: RepairState,
    /// Documents that it holds then; `None` for the log, and where nobody can tell before.
    pub documents: Option<u64>,
    /// What is dropped.
    pub dropped: Vec<Dropped>,
    /// Files that are moved away, or would be.
    pub files: Vec<PathBuf>,
    /// What cannot be repaired.
    pub damages: Vec<FoundDamage>,
}

/// What [`repair_folder`] did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairedFolder {
    /// The data folder.
    pub folder: PathBuf,
    /// Whether it was done, and not only said.
    pub applied: bool,
    /// Where damaged files went; `None` if nothing was done.
    pub kept: Option<PathBuf>,
    /// The log, if it was damaged so that no collection could be opened.
    pub log: Option<RepairedPart>,
    /// In the order of their names.
    pub collections: Vec<RepairedPart>,
}

/// Reads everything in the data folder `dir`: descriptions, the log with every entry, segments with every byte,
/// deletions; compares them with each other; and changes nothing. Takes the folder's lock meanwhile. `progress` hears
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
    let (mut collections, mut known_ones, mut notes) = (Vec::new(), Vec::new(), found.notes);
    for At { name, dir, state } in found.collections {
        let before = reading.bytes();
        let mut collection = VerifiedCollection {
            name,
            folder: dir,
            whole: false,
            documents: 0,
            passages: 0,
            segments: 0,
            bytes: 0,
            damages: Vec::new(),
        };
        match state {
            Ok(known) => {
                let checked = verify::verify(&disk, &log, &known, stop)?;
                known_ones.extend(checked.covers);
                collection.documents = checked.documents;
                collection.passages = checked.passages;
                collection.segments = checked.segments as u64;
                collection.damages = checked.faults.into_iter().map(FoundDamage::of).collect();
                notes.extend(checked.notes);
            }
            Err(fault) => {
                // Its entries are not those of a collection without a folder.
                known_ones
                    .extend(identity_in(&disk, &collection.folder).map(|identity| (identity, u64::MAX)));
                collection.damages.push(FoundDamage::of(fault));
            }
        }
        collection.whole = collection.damages.is_empty();
        collection.bytes = reading.bytes() - before;
        collections.push(collection);
    }
    notes.extend(log.notes_beside(&known_ones));
    notes.extend(catalogue_note(&disk, &dir.join(CATALOG_DIR), stop)?);
    let damages: Vec<FoundDamage> = log.faults.iter().cloned().map(FoundDamage::of).collect();
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

/// Says what making the collections `names` of the data folder `dir` whole again would drop, and does it if `apply` is
/// set. Without names all that are damaged are meant. Takes the folder's lock meanwhile. Files that are damaged are moved,
/// untouched, into a new folder below `damaged`, with a file that says where they were.
///
/// # Errors
/// As [`verify_folder`]; of kind NotFound for a name that no collection has; Overloaded if the disk is full. Each
/// collection is as it was then, or repaired.
pub fn repair_folder(dir: &Path, names: &[String], apply: bool, stop: &Stop) -> Result<RepairedFolder> {
    let _lock = take(dir)?;
    let mut found = Found::look(dir)?;
    for name in names {
        if !found.collections.iter().any(|at| at.name == *name) {
            let known = found.collections.iter().map(|at| at.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(EngineError::NoCollection { name: name.clone(), known });
        }
    }
    let is_chosen = |at: &At| names.is_empty() || names.contains(&at.name);
    let now = datetime::format(datetime::now()).replace(':', "-");
    let kept = dir.join(DAMAGED_DIR).join(now);
    let mut parts: BTreeMap<usize, RepairedPart> = BTreeMap::new();
    for (at, collection) in found.collections.iter_mut().enumerate() {
        if is_chosen(collection)
            && let Err(fault) = &collection.state
        {
            let fault = fault.clone();
            let (part, known) = described_again(dir, collection, fault, apply.then_some(&*kept))?;
            parts.insert(at, part);
            if let Some(known) = known {
                collection.state = Ok(known);
            }
        }
    }
    let disk: Arc<dyn Disk> = if apply {
        Arc::new(RealDisk)
    } else {
        Arc::new(Reading::new(Arc::new(RealDisk), stop.clone(), |_| {}))
    };
    let (places, all): (Vec<usize>, Vec<Known>) = found
        .collections
        .iter()
        .enumerate()
        .filter_map(|(at, c)| Some((at, c.state.as_ref().ok()?.clone())))
        .unzip();
    let chosen: Vec<usize> =
        (0..places.len()).filter(|n| is_chosen(&found.collections[places[*n]])).collect();
    let done = repair::repair(&disk, dir, &all, &chosen, apply.then_some(&*kept), stop)?;
    for (n, outcome) in chosen.iter().zip(done.collections) {
        let at = places[*n];
        let part = RepairedPart::of(found.collections[at].name.clone(), outcome);
        match parts.get_mut(&at) {
            // Its description was repaired before.
            Some(before) => {
                before.documents = part.documents;
                before.dropped.extend(part.dropped);
                before.files.extend(part.files);
                if part.state == RepairState::Unrepairable {
                    (before.state, before.damages) = (part.state, part.damages);
                }
            }
            None => _ = parts.insert(at, part),
        }
    }
    let log = done
        .log
        .map(|outcome| RepairedPart { documents: None, ..RepairedPart::of("log".to_owned(), outcome) });
    let collections: Vec<RepairedPart> = parts.into_values().collect();
    let is_kept = apply && kept.is_dir();
    Ok(RepairedFolder {
        folder: dir.to_owned(),
        applied: apply,
        kept: is_kept.then_some(kept),
        log,
        collections,
    })
}

impl FoundDamage {
    fn of(fault: Fault) -> Self {
        let Fault { file, offset, reason, remedy, is_repairable } = fault;
        FoundDamage { file, offset, reason, remedy, repairable: is_repairable }
    }
}

impl RepairedPart {
    fn of(name: String, outcome: Outcome) -> Self {
        let mut part = RepairedPart {
            name,
            state: RepairState::Whole,
            documents: None,
            dropped: Vec::new(),
            files: Vec::new(),
            damages: Vec::new(),
        };
        match outcome {
            Outcome::Whole => {}
            Outcome::Repaired { losses, documents, files } => {
                part.state = RepairState::Repaired;
                part.documents = Some(documents);
                part.files = files;
                part.dropped = losses
                    .into_iter()
                    .map(|Loss { file, what, documents, ids }| Dropped { file, what, documents, ids })
                    .collect();
            }
            Outcome::Hopeless(faults) => {
                part.state = RepairState::Unrepairable;
                part.damages = faults.into_iter().map(FoundDamage::of).collect();
            }
        }
        part
    }
}

/// Takes the lock of a folder that is one of ours.
fn take(dir: &Path) -> Result<DataLock> {
    // Whoever may not look into it must not hear that nothing is there.
    if let Err(error) = std::fs::read_dir(dir) {
        let dir = dir.display();
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("there is no data folder {dir}; give another one with --data")
            }
            std::io::ErrorKind::PermissionDenied => {
                format!("{dir} cannot be read by this user; run this as the user whose data it is")
            }
            _ => format!("{dir} cannot be read: {error}; give another data folder with --data"),
        };
        return Err(EngineError::BadRequest { reason });
    }
    let is_ours = ["log", COLLECTIONS_DIR, CATALOG_DIR].iter().any(|name| dir.join(name).is_dir());
    if !is_ours {
        let reason = format!(
            "{} is no data folder: it has neither a log nor collections; give another one with --data",
            dir.display()
        );
        return Err(EngineError::BadRequest { reason });
    }
    Ok(DataLock::acquire(dir)?)
}

/// A folder of a collection.
#[derive(Debug)]
struct At {
    name: String,
    dir: PathBuf,
    /// How it is read, or why it cannot be.
    state: Result<Known, Fault>,
}

/// The folders of collections.
#[derive(Debug, Default)]
struct Found {
    collections: Vec<At>,
    notes: Vec<String>,
}

impl Found {
    fn look(root: &Path) -> Result<Self> {
        let dir = root.join(COLLECTIONS_DIR);
        let mut found = Found::default();
        for DirEntry { name, kind, .. } in list(&RealDisk, &dir)? {
            let (EntryKind::Dir, Some(name)) = (kind, name.to_str()) else { continue };
            found.add(name, dir.join(name));
        }
        found.collections.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn dirs(&self) -> Vec<PathBuf> {
        self.collections.iter().map(|at| at.dir.clone()).collect()
    }

    fn add(&mut self, folder: &str, dir: PathBuf) {
        let mut left = |what: &str| self.notes.push(format!("{}: {what}", dir.display()));
        match folder::standing(&dir) {
            Standing::Removable(Mark::Creating) => {
                return left("left by a creation that was cut off; the next start removes it");
            }
            Standing::Removable(Mark::Deleting) => {
                return left("left by a deletion that was cut off; the next start removes it");
            }
            Standing::Held(_, reason) => {
                return left(&format!("a creation or deletion of it was cut off, but {reason}"));
            }
            Standing::NoMark(path) => left(&format!("{} is no mark of this folder", path.display())),
            Standing::Unmarked => {}
        }
        let path = dir.join(DESCRIPTION_FILE);
        let has_segments = dir.join(SEGMENTS_FILE).exists();
        let (name, state) = match read_description(&dir) {
            Ok(Some(description)) if description.folder != folder => {
                return left(&format!(
                    "it was folder {:?}, of collection {:?}, and was copied or renamed; it is left alone",
                    description.folder, description.info.name
                ));
            }
            Ok(Some(_)) if !has_segments && folder::has_earlier_state(&dir) => {
                return left("an earlier version kept it; the next start takes it over");
            }
            Ok(Some(description)) => (description.info.name.clone(), known(&dir, &description)),
            Ok(None) if !has_segments && !folder::has_state(&dir) => return left("nothing is in it"),
            Ok(None) => (folder.to_owned(), Err(undescribed(&path, None, "it is missing".to_owned()))),
            Err(StoreError::Corrupt { reason, .. }) => {
                (folder.to_owned(), Err(undescribed(&path, Some(0), reason)))
            }
            Err(error @ (StoreError::NewerFormat { .. } | StoreError::NotUnderstood { .. })) => {
                (folder.to_owned(), Err(Fault::newer(&path, &error)))
            }
            Err(error) => {
                let error = crate::error::with_sources(&error);
                (folder.to_owned(), Err(undescribed(&path, None, format!("it cannot be read: {error}"))))
            }
        };
        self.collections.push(At { name, dir, state });
    }
}

fn undescribed(path: &Path, offset: Option<u64>, reason: String) -> Fault {
    let remedy = "`distilface repair --apply` and the next start of the server write it again if the catalogue knows the collection; else put it back from a backup";
    Fault { remedy: remedy.to_owned(), ..Fault::repairable(path, offset, reason) }
}

fn known(dir: &Path, description: &Description) -> Result<Known, Fault> {
    let info = &description.info;
    let fingerprint = info.model.as_ref().map_or_else(String::new, |model| model.fingerprint.0.clone());
    match Dim::new(info.dimension) {
        Ok(dim) => Ok(Known::new(dir, description.identity, dim, info.metric, fingerprint)),
        Err(error) => {
            let reason = format!("what it says cannot be true: {error}");
            let remedy = "put the folder back from a backup, or delete the collection";
            Err(Fault::hopeless(&dir.join(DESCRIPTION_FILE), reason, remedy))
        }
    }
}

/// Which collection segments in a folder are of.
fn identity_in(disk: &Arc<dyn Disk>, dir: &Path) -> Option<Identity> {
    verify::identity_in(&**disk, dir)
}

/// Writes a description again from the catalogue, if that knows the collection; without `kept` it is only said.
fn described_again(
    root: &Path,
    collection: &At,
    fault: Fault,
    kept: Option<&Path>,
) -> Result<(RepairedPart, Option<Known>)> {
    let hopeless = |fault| RepairedPart::of(collection.name.clone(), Outcome::Hopeless(vec![fault]));
    let path = collection.dir.join(DESCRIPTION_FILE);
    if !fault.is_repairable {
        return Ok((hopeless(fault), None));
    }
    let dropped = Dropped {
        file: path.clone(),
        what: "the description is written again as the catalogue has it, if that knows the collection; nothing else is touched before".to_owned(),
        documents: Some(0),
        ids: Vec::new(),
    };
    let part = RepairedPart {
        name: collection.name.clone(),
        state: RepairState::Repaired,
        documents: None,
        dropped: vec![dropped],
        files: vec![path.clone()],
        damages: Vec::new(),
    };
    let Some(kept) = kept else { return Ok((part, None)) };
    let folder = collection.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some(description) = catalogued(root, &folder)? else { return Ok((hopeless(fault), None)) };
    repair::keep(&RealDisk, root, kept, &path, &fault.reason)?;
    describe_folder(&collection.dir, &description)?;
    Ok((
        RepairedPart { name: description.info.name.clone(), ..part },
        known(&collection.dir, &description).ok(),
    ))
}

/// What the catalogue knows of a folder.
fn catalogued(root: &Path, folder: &str) -> Result<Option<Description>> {
    let dir = root.join(CATALOG_DIR);
    if !dir.is_dir() {
        return Ok(None);
    }
    let catalog = match Catalog::open(&dir) {
        Ok(catalog) => catalog,
        // A cache that is damaged knows nothing.
        Err(StoreError::Corrupt { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let entries = catalog.scan(COLLECTION)?;
    let entry = entries
        .iter()
        .filter_map(|(_, bytes)| serde_json::from_slice::<Entry>(bytes).ok())
        .find(|entry| entry.folder == folder);
    let Some(Entry { info, folder, identity }) = entry else { return Ok(None) };
    let revision = catalog.revision();
    let aliases = catalog.scan(ALIAS)?.into_iter().filter(|(_, target)| *target == info.name.as_bytes());
    let aliases =
        aliases.map(|(key, _)| (key.strip_prefix(ALIAS).unwrap_or(&key).to_owned(), revision)).collect();
    catalog.close()?;
    Ok(Some(Description { version: DESCRIPTION_VERSION, identity, info, folder, aliases, revision }))
}

/// A cache that cannot be read is worth a word.
fn catalogue_note(disk: &Arc<dyn Disk>, dir: &Path, stop: &Stop) -> Result<Option<String>> {
    let mut step = vec![0; 1 << 20];
    for DirEntry { name, kind, .. } in list(&**disk, dir)? {
        if kind != EntryKind::File {
            continue;
        }
        let path = dir.join(name);
        let read = disk.read_only(&path).and_then(|file| {
            let mut at = 0;
            loop {
                match file.read_at(at, &mut step)? {
                    0 => return Ok(()),
                    read => at += read as u64,
                }
            }
        });
        if let Err(error) = read {
            stop.check().map_err(|stopped| io(&path, std::io::Error::other(stopped)))?;
            return Ok(Some(format!(
                "{}: it cannot be read ({error}); it is a cache, and the next start makes it again",
                path.display()
            )));
        }
    }
    Ok(None)
}

/// What is in a folder; nothing if it is not there.
fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<DirEntry>> {
    match disk.list(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => Ok(listed.map_err(|e| io(dir, e))?),
    }
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
