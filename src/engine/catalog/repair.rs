//! A data folder that no server has open, made whole again where it is damaged.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use super::{
    FoundDamage,
    description::describe_folder,
    found::{At, Found, Missing, known, take},
    verify::orphaned,
};
use crate::{
    collection::Identity,
    engine::{
        EngineError,
        error::Result,
        inventory::{Catalogued, DESCRIPTION_VERSION, Description, Entry},
    },
    files::{
        self,
        disk::{Disk, RealDisk},
        reading::Reading,
    },
    segmented::{
        repair::{self, Loss, Outcome},
        verify::{Fault, Known, LogSeen},
    },
    stop::Stop,
    store::{StoreError, folder::DESCRIPTION_FILE},
    value::datetime,
};

/// Folder of what repairs moved away, in the data folder.
const DAMAGED_DIR: &str = "damaged";

/// What was dropped, in the folder of what was damaged.
const DROPPED_FILE: &str = "what-was-dropped.jsonl";

/// A new folder below [`DAMAGED_DIR`] for what is damaged now.
pub(super) fn damaged_now(root: &Path) -> PathBuf {
    let now = datetime::format(datetime::now()).replace(':', "-");
    root.join(DAMAGED_DIR).join(now)
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
    /// Ids of these documents, as far as they are known; at most a million.
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

/// Says what making the collections `names` of the data folder `dir` whole again would drop, and does it if `apply` is
/// set. Without names all that are damaged are meant. Takes the folder's lock meanwhile. Files that are damaged are moved,
/// untouched, into a new folder below `damaged`, with a file that says where they were, and one that names all that was
/// dropped. Entries of the log whose collection is not there are only given up where their name is among `names`.
///
/// # Errors
/// As [`verify_folder`](super::verify_folder); of kind NotFound for a name that no collection has; Overloaded if the disk
/// is full. Each collection is as it was then, or repaired.
pub fn repair_folder(dir: &Path, names: &[String], apply: bool, stop: &Stop) -> Result<RepairedFolder> {
    let _lock = take(dir)?;
    run(dir, names, apply, stop)
}

/// [`repair_folder`] that first only says what it would do, and does it if `agrees` says so to that. The folder stays
/// locked in between, so what is done is what was said.
///
/// # Errors
/// As [`repair_folder`].
pub fn repair_folder_if(
    dir: &Path,
    names: &[String],
    stop: &Stop,
    agrees: impl FnOnce(&RepairedFolder) -> bool,
) -> Result<RepairedFolder> {
    let _lock = take(dir)?;
    let said = run(dir, names, false, stop)?;
    let is_due = said.log.iter().chain(&said.collections).any(|part| part.state == RepairState::Repaired);
    if is_due && agrees(&said) { run(dir, names, true, stop) } else { Ok(said) }
}

fn run(dir: &Path, names: &[String], apply: bool, stop: &Stop) -> Result<RepairedFolder> {
    let mut found = Found::look(dir)?;
    let is_meant = |name: &String| names.is_empty() || names.contains(name);
    let kept_at = damaged_now(dir);
    let kept = apply.then_some(&*kept_at);
    let mut parts: BTreeMap<usize, RepairedPart> = BTreeMap::new();
    for (at, collection) in found.collections.iter_mut().enumerate() {
        if is_meant(&collection.name)
            && let Err(fault) = &collection.state
        {
            let fault = fault.clone();
            let (part, known) = described_again(dir, &found.catalogued, collection, fault, kept)?;
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
        (0..places.len()).filter(|n| is_meant(&found.collections[places[*n]].name)).collect();
    let done = repair::repair(&disk, dir, &all, &chosen, kept, stop)?;
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
    for (at, part) in &mut parts {
        let refused = std::mem::take(&mut found.collections[*at].refused);
        if !refused.is_empty() {
            part.state = RepairState::Unrepairable;
            part.damages.extend(refused.into_iter().map(FoundDamage::of));
        }
    }
    let log = done
        .log
        .map(|outcome| RepairedPart { documents: None, ..RepairedPart::of("log".to_owned(), outcome) });
    let mut collections: Vec<RepairedPart> = parts.into_values().collect();
    collections.extend(not_here(dir, &found, names, &done.seen, &disk, kept, stop)?);
    collections.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(unknown) = names.iter().find(|name| collections.iter().all(|part| part.name != **name)) {
        let there = found.collections.iter().map(|at| &at.name);
        let known: Vec<&str> =
            there.chain(found.missing.iter().map(|missing| &missing.name)).map(String::as_str).collect();
        return Err(EngineError::NoCollection { name: unknown.clone(), known: known.join(", ") });
    }
    let mut report = RepairedFolder { folder: dir.to_owned(), applied: apply, kept: None, log, collections };
    if apply && kept_at.is_dir() {
        write_dropped(&kept_at, &report)?;
        report.kept = Some(kept_at);
    }
    Ok(report)
}

/// What becomes of collections that have no folder, and of entries of collections that nothing names.
fn not_here(
    dir: &Path,
    found: &Found,
    names: &[String],
    log: &LogSeen,
    disk: &Arc<dyn Disk>,
    kept: Option<&Path>,
    stop: &Stop,
) -> Result<Vec<RepairedPart>> {
    let mut parts = Vec::new();
    let missing = found.missing.iter().filter(|missing| names.is_empty() || names.contains(&missing.name));
    for Missing { name, fault, .. } in missing {
        parts.push(RepairedPart::of(name.clone(), Outcome::Hopeless(vec![fault.clone()])));
    }
    let known = found.missing.iter().filter_map(|missing| missing.identity);
    let known: Vec<Identity> = found.identities.iter().copied().chain(known).collect();
    for orphan in log.orphans(&known) {
        let name = orphan.name();
        if names.contains(&name) {
            let loss = repair::give_up(disk, dir, log, &orphan, kept, stop)?;
            let losses = vec![loss];
            let outcome = Outcome::Repaired { losses, documents: 0, files: Vec::new() };
            parts.push(RepairedPart { documents: None, ..RepairedPart::of(name, outcome) });
        } else if names.is_empty() {
            let fault = orphaned(&dir.join("log"), &orphan);
            parts.push(RepairedPart::of(name, Outcome::Hopeless(vec![fault])));
        }
    }
    Ok(parts)
}

/// Writes down all that was dropped, with every id that is known: one JSON object in a line.
fn write_dropped(kept: &Path, report: &RepairedFolder) -> Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        collection: &'a str,
        #[serde(flatten)]
        dropped: &'a Dropped,
    }
    let mut lines = Vec::new();
    for part in report.log.iter().chain(&report.collections) {
        for dropped in &part.dropped {
            serde_json::to_writer(&mut lines, &Line { collection: &part.name, dropped })
                .expect("plain data has a JSON form");
            lines.push(b'\n');
        }
    }
    let path = kept.join(DROPPED_FILE);
    files::write_whole(&path, &lines).map_err(|e| StoreError::full_or_io(&path, e))?;
    Ok(())
}

/// Writes a description again as the catalogue has it, if that knows the collection; without `kept` it is only said.
fn described_again(
    root: &Path,
    catalogued: &Catalogued,
    collection: &At,
    fault: Fault,
    kept: Option<&Path>,
) -> Result<(RepairedPart, Option<Known>)> {
    let path = collection.dir.join(DESCRIPTION_FILE);
    let folder = collection.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entry = catalogued.entries.values().find(|entry| entry.folder == folder);
    let Some(Entry { info, identity, .. }) = entry.filter(|_| fault.is_repairable) else {
        return Ok((RepairedPart::of(collection.name.clone(), Outcome::Hopeless(vec![fault])), None));
    };
    let revision = catalogued.revision;
    let aliases = catalogued.aliases.iter().filter(|(_, target)| **target == info.name);
    let aliases = aliases.map(|(alias, _)| (alias.clone(), revision)).collect();
    let (version, identity, info) = (DESCRIPTION_VERSION, *identity, info.clone());
    let description = Description { version, identity, info, folder, aliases, revision };
    let part = RepairedPart {
        name: description.info.name.clone(),
        state: RepairState::Repaired,
        documents: None,
        dropped: vec![Dropped {
            file: path.clone(),
            what: format!("{}; the description is written again as the catalogue has it", fault.reason),
            documents: Some(0),
            ids: Vec::new(),
        }],
        files: vec![path.clone()],
        damages: Vec::new(),
    };
    if let Some(kept) = kept {
        repair::keep(&RealDisk, root, kept, &path, &fault.reason)?;
        describe_folder(&collection.dir, &description)?;
    }
    Ok((part, known(&collection.dir, &description).ok()))
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
