//! Makes a collection of which something is damaged whole again, with everything that can still be read.
//!
//! What is not damaged stays as it is. Of a damaged segment the documents that can be read go into a new one, also those
//! that the log still has; what entries of the log say is put into a segment as far as it can be read, and from then on
//! the segments hold everything up to the log's end, so that what is damaged in it is needed no more.
//!
//! First every damaged file gets a second name in a folder beside (a file of the log, which is written on, a copy). Then
//! new segments are made, and then the manifest names them, at once: a kill before leaves the collection as it was, and
//! after it, as it is now. Last the damaged files lose their first names; if that is cut off, the next opening does it.
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | what can be read, what is lost, and what the collection becomes |
//! | `apply.rs` | the plan is carried out |
//! | `keep.rs` | the folder of what was damaged |
//! | `misplaced.rs` | files that lie in another collection's folder |
//! | `orphan.rs` | entries of the log whose collection is not there |

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    entries::ANNOUNCED,
    logs::{FOLDER_FILE, id_of, write_folder_file},
    verify::{Fault, Known, LogSeen},
};
use crate::{
    files::disk::Disk,
    log::{Log, LogOptions, Sequence},
    stop::Stop,
    store::StoreError,
};

mod apply;
mod keep;
mod misplaced;
mod orphan;
mod plan;

use keep::Keeping;
pub(crate) use misplaced::{Misplaced, misplaced};
pub(crate) use orphan::give_up;
use plan::Plan;

/// Ids that are told of one loss.
pub(crate) const IDS_TOLD_MAX: usize = 1_000_000;

/// Bytes of a file of the log that a repair begins: as few as there may be, the next one is of the usual size.
const LOG_FILE_BYTES: u64 = 64 << 10;

/// Something that a repair drops, or cannot keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    /// What it was in, or is.
    pub(crate) file: PathBuf,
    /// What is dropped.
    pub(crate) what: String,
    /// Documents that are lost with it; `None` if nobody can tell.
    pub(crate) documents: Option<u64>,
    /// Their ids, as far as they are known, and no more than [`IDS_TOLD_MAX`].
    pub(crate) ids: Vec<String>,
}

/// What a repair makes of a collection, or would make.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// There is nothing to repair.
    Whole,
    /// It is, or would be, made whole again.
    Repaired {
        losses: Vec<Loss>,
        /// Documents that it holds then.
        documents: u64,
        /// Files that are, or would be, moved away.
        files: Vec<PathBuf>,
    },
    /// Something about it cannot be repaired, and nothing was done.
    Hopeless(Vec<Fault>),
}

/// What a repair made of a data folder, or would make.
#[derive(Debug)]
pub(crate) struct Repaired {
    /// What became of the log as a whole, where it was damaged so that no collection could be opened.
    pub(crate) log: Option<Outcome>,
    /// In the order of the collections that were asked for.
    pub(crate) collections: Vec<Outcome>,
    /// The log, as it is now.
    pub(crate) seen: LogSeen,
}

/// Says what repairing some collections of the data folder `root` drops, and does it if `kept` is given, the new folder
/// below `root` for what is damaged. `all` are the collections that there are, and of these `chosen` are repaired.
///
/// # Errors
/// [`StoreError::Io`] if it was told to stop, or something could not be read or written; [`StoreError::DiskFull`]. Each
/// collection is as it was then, or repaired.
pub(crate) fn repair(
    disk: &Arc<dyn Disk>,
    root: &Path,
    all: &[Known],
    chosen: &[usize],
    kept: Option<&Path>,
    stop: &Stop,
) -> Result<Repaired, StoreError> {
    let dirs: Vec<PathBuf> = all.iter().map(|known| known.dir.clone()).collect();
    let look = || LogSeen::read(disk, root, &dirs, stop);
    let mut log = look()?;
    let hopeless: Vec<Fault> = log.faults.iter().filter(|fault| !fault.is_repairable).cloned().collect();
    if !hopeless.is_empty() {
        let collections = chosen.iter().map(|_| Outcome::Hopeless(Vec::new())).collect();
        return Ok(Repaired { log: Some(Outcome::Hopeless(hopeless)), collections, seen: log });
    }
    let keep = kept.map(|to| Keeping { disk: &**disk, root, to });
    let wrong_places = misplaced(&**disk, all)?;
    // They may be in each other's places, so all are moved or none.
    let is_asked_for = |wrong: &Misplaced| chosen.iter().any(|at| wrong.touches(&all[*at].dir));
    if keep.is_some() && wrong_places.iter().any(is_asked_for) {
        misplaced::put_right(&**disk, &wrong_places)?;
        log = look()?;
    }
    let log_outcome = (!log.faults.is_empty()).then(|| Outcome::Repaired {
        losses: log.faults.iter().map(log_loss).collect(),
        documents: 0,
        files: log.foreign.clone(),
    });
    if let Some(keep) = &keep
        && !log.faults.is_empty()
    {
        repair_log(keep, &log)?;
        log = look()?;
    }
    let mut collections = Vec::with_capacity(chosen.len());
    // Of collections that were looked at before something was written to the log so that it can go on.
    let mut told: BTreeMap<usize, Vec<Loss>> = BTreeMap::new();
    for (n, at) in chosen.iter().enumerate() {
        let known = &all[*at];
        let moved = wrong_places.iter().filter(|wrong| wrong.touches(&known.dir));
        let moved: Vec<Loss> = moved.map(Misplaced::loss).collect();
        if keep.is_none() && !moved.is_empty() {
            // What else is wrong with it is known when its own files are in their places.
            let documents = misplaced::documents_of(&**disk, known, &wrong_places);
            let files = Vec::new();
            collections.push(Outcome::Repaired { losses: moved, documents, files });
            continue;
        }
        let mut plan = Plan::of(disk, &log, known, stop)?;
        let losses = || plan.as_ref().map_or_else(Vec::new, |plan| plan.losses.clone());
        let losses = told.remove(at).unwrap_or_else(losses);
        if let (Some(keep), Some(planned)) = (&keep, &plan)
            && planned.is_possible()
            && planned.needs_an_entry(&log)
        {
            for later in &chosen[n + 1..] {
                if let Some(plan) = Plan::of(disk, &log, &all[*later], stop)? {
                    told.insert(*later, plan.losses);
                }
            }
            planned.keep_log(keep, &log)?;
            go_on(disk, &log, planned)?;
            log = look()?;
            plan = Plan::of(disk, &log, known, stop)?;
        }
        let Some(plan) = plan else {
            collections.push(if moved.is_empty() {
                Outcome::Whole
            } else {
                let documents = misplaced::documents_of(&**disk, known, &[]);
                Outcome::Repaired { losses: moved, documents, files: Vec::new() }
            });
            continue;
        };
        if !plan.is_possible() {
            let faults = plan.examined.faults.into_iter().filter(|fault| !fault.is_repairable).collect();
            collections.push(Outcome::Hopeless(faults));
            continue;
        }
        let (documents, files) = (plan.documents(), plan.damaged.keys().cloned().collect());
        if let Some(keep) = &keep {
            plan.keep_log(keep, &log)?;
            plan.apply(keep, &log, stop)?;
        }
        let losses = moved.into_iter().chain(losses).collect();
        collections.push(Outcome::Repaired { losses, documents, files });
    }
    Ok(Repaired { log: log_outcome, collections, seen: log })
}

/// Gives a damaged file of the data folder `root` a second name in the folder `kept`, and says there why.
///
/// # Errors
/// [`StoreError::DiskFull`], [`StoreError::Io`].
pub(crate) fn keep(
    disk: &dyn Disk,
    root: &Path,
    kept: &Path,
    file: &Path,
    why: &str,
) -> Result<(), StoreError> {
    let keep = Keeping { disk, root, to: kept };
    keep.link(file)?;
    keep.say(file.parent().unwrap_or(root), &BTreeMap::from([(file.to_owned(), why.to_owned())]))
}

fn log_loss(fault: &Fault) -> Loss {
    let what =
        format!("{}; it is moved away or written anew, and the collections say what was in it", fault.reason);
    Loss { file: fault.file.clone(), what, documents: Some(0), ids: Vec::new() }
}

/// Makes the log one that can be opened.
fn repair_log(keep: &Keeping<'_>, log: &LogSeen) -> Result<(), StoreError> {
    for path in &log.foreign {
        keep.away(path)?;
    }
    if log.is_headless
        && let Some((identity, from)) = log.head
    {
        let path = log.dir.join(FOLDER_FILE);
        keep.link(&path)?;
        keep.say(&log.dir, &BTreeMap::from([(path, "it was damaged or missing".to_owned())]))?;
        keep.make_dir(&log.dir)?;
        write_folder_file(keep.disk, &log.dir, &identity, from)?;
    }
    Ok(())
}

/// Writes an entry behind damage of which nobody can tell where it ends: from then on it ends before this entry.
fn go_on(disk: &Arc<dyn Disk>, log: &LogSeen, plan: &Plan<'_>) -> Result<(), StoreError> {
    let (Some((identity, _)), Some(collection)) = (log.head, plan.examined.identity) else { return Ok(()) };
    let options =
        LogOptions { file_bytes: LOG_FILE_BYTES, reserve_bytes: LOG_FILE_BYTES / 8, ..LogOptions::default() };
    let from = Sequence(log.opened_from);
    let opened = Log::open(Arc::clone(disk), &log.dir, identity, options, from, &mut |_| {})?;
    Log::write_one(opened, id_of(collection), ANNOUNCED, collection.0.to_vec())?;
    Ok(())
}
