//! Makes a collection of which something is damaged whole again, with everything that can still be read.
//!
//! What is not damaged stays as it is. Of a damaged segment the documents that can be read go into a new one, also those
//! that the log still has; what entries of the log say is put into a segment as far as it can be read, and from then on
//! the segments hold everything up to the log's end, so that what is damaged in it is needed no more.
//!
//! First every damaged file gets a second name in a folder beside (a file of the log, which is written on, a copy). Then
//! new segments are made, and then the manifest names them, at once: a kill before leaves the collection as it was, and
//! after it, as it is now. Last the damaged files lose their first names; if that is cut off, the next opening does it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    entries::{ANNOUNCED, Put},
    logs::{FOLDER_FILE, id_of, write_folder_file},
    manifest::{Manifest, Named},
    sealed::Sealed,
    state::{Part, Row, Saved},
    verify::{Examined, Fault, Grown, Known, LogSeen, Piece, Replay, State, system, twice},
};
use crate::{
    files::disk::{Disk, EntryKind},
    log::{Log, LogOptions, Sequence},
    segment::{Name, Row as SegmentRow, Salvage},
    stop::Stop,
    store::{StoreError, folder::INDEX_DIR},
    value::PointId,
};

/// Ids that are told of one loss.
pub(crate) const IDS_TOLD_MAX: usize = 10_000;

/// Bytes copied at a time.
const STEP_BYTES: usize = 1 << 20;

/// Bytes of a file of the log that a repair begins: as few as there may be, the next one is of the usual size.
const LOG_FILE_BYTES: u64 = 64 << 10;

/// What is in a folder of damaged files, and where it was.
const WHERE_FILE: &str = "where-these-files-were.txt";

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
        return Ok(Repaired { log: Some(Outcome::Hopeless(hopeless)), collections });
    }
    let keep = kept.map(|to| Keeping { disk: &**disk, root, to });
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
            collections.push(Outcome::Whole);
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
        collections.push(Outcome::Repaired { losses, documents, files });
    }
    Ok(Repaired { log: log_outcome, collections })
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

/// Where a document of a new segment comes from.
#[derive(Debug)]
enum Origin {
    Row(u32),
    Put(Arc<Put>),
}

/// Part of the collection when it is repaired.
#[derive(Debug)]
enum NewPart {
    /// A segment that is whole.
    Kept(Part),
    /// A new one of what can be read, in the order of the documents.
    Made { salvage: Option<Box<Salvage>>, documents: BTreeMap<u64, (PointId, Origin)> },
}

/// What is to be done.
#[derive(Debug)]
struct Plan<'a> {
    examined: Examined<'a>,
    parts: Vec<NewPart>,
    covered: u64,
    next_number: u64,
    losses: Vec<Loss>,
    /// Files that are damaged, each with what is wrong with it.
    damaged: BTreeMap<PathBuf, String>,
    /// Segments that others take the place of.
    goes: Vec<u64>,
}

/// What can be read of a broken segment.
#[derive(Debug, Default)]
struct Rest {
    salvage: Option<Box<Salvage>>,
    documents: BTreeMap<u64, (PointId, Origin)>,
    /// Numbers of documents that are known to be deleted.
    deleted: BTreeSet<u64>,
    /// Documents that are not deleted and cannot be read: number and id, as far as they are known.
    lost: Vec<(Option<u64>, Option<PointId>)>,
}

impl Rest {
    fn of(
        disk: &Arc<dyn Disk>,
        examined: &Examined<'_>,
        piece: &Piece,
        stop: &Stop,
    ) -> Result<Self, StoreError> {
        let State::Broken { deleted, .. } = &piece.state else { return Ok(Rest::default()) };
        let Some(collection) = examined.identity else { return Ok(Rest::default()) };
        let name = Name { collection, number: piece.named.number.into() };
        let Known { dir, space, .. } = examined.known;
        let salvage = Salvage::open(disk, dir, name, space, &examined.cache, stop).ok();
        stop.check().map_err(|stopped| system(dir, stopped))?;
        let Some(salvage) = salvage else {
            let lost = (0..piece.named.live).map(|_| (None, None)).collect();
            return Ok(Rest { lost, ..Rest::default() });
        };
        let mut rest = Rest::default();
        for row in 0..salvage.len() {
            stop.check().map_err(|stopped| system(dir, stopped))?;
            let number = salvage.version(SegmentRow(row)).filter(|number| piece.range().contains(number));
            if deleted.contains(row) {
                rest.deleted.extend(number);
                continue;
            }
            let is_known = number.is_some_and(|number| rest.documents.contains_key(&number));
            match (number, salvage.read(SegmentRow(row))) {
                (Some(number), Ok(document)) if !is_known => {
                    rest.documents.insert(number, (document.body.id, Origin::Row(row)));
                }
                (number, _) => rest.lost.push((number, salvage.id(SegmentRow(row)))),
            }
        }
        rest.salvage = Some(Box::new(salvage));
        Ok(rest)
    }
}

impl<'a> Plan<'a> {
    /// `None` if nothing is damaged.
    fn of(
        disk: &Arc<dyn Disk>,
        log: &LogSeen,
        known: &'a Known,
        stop: &Stop,
    ) -> Result<Option<Self>, StoreError> {
        let mut examined = Examined::of(disk, log, known, stop)?;
        let mut rests: BTreeMap<usize, Rest> = BTreeMap::new();
        for (at, piece) in examined.pieces.iter().enumerate().filter(|(_, piece)| piece.is_broken()) {
            rests.insert(at, Rest::of(disk, &examined, piece, stop)?);
        }
        let ranges: Vec<_> = examined.pieces.iter().map(Piece::range).collect();
        let is_guess = examined.manifest.is_none();
        // What a broken segment does not have, the log may.
        let wanted = |number: u64| {
            let at = ranges.partition_point(|range| *range.end() < number);
            match ranges.get(at).filter(|range| range.contains(&number)) {
                Some(_) => rests.get(&at).is_some_and(|rest| {
                    !rest.documents.contains_key(&number) && !rest.deleted.contains(&number)
                }),
                None => is_guess,
            }
        };
        let replay = examined.replay(log, &wanted, true)?;
        examined.bury(&replay)?;
        examined.find_twice(&replay)?;
        if examined.faults.is_empty() {
            return Ok(None);
        }
        let mut plan = Plan {
            covered: log.last().max(replay.covered),
            next_number: replay.next,
            parts: Vec::new(),
            losses: Vec::new(),
            damaged: BTreeMap::new(),
            goes: Vec::new(),
            examined,
        };
        if plan.is_possible() {
            plan.say_lost_entries(log, &replay);
            plan.arrange(rests, replay)?;
            plan.drop_twice(stop)?;
            plan.name_damaged(disk)?;
        }
        Ok(Some(plan))
    }

    fn is_possible(&self) -> bool {
        self.examined.identity.is_some() && self.examined.faults.iter().all(|fault| fault.is_repairable)
    }

    fn loses(&mut self, file: &Path, what: String, documents: Option<u64>, ids: Vec<String>) {
        self.losses.push(Loss { file: file.to_owned(), what, documents, ids });
    }

    /// Which entries of the log are lost.
    fn say_lost_entries(&mut self, log: &LogSeen, replay: &Replay) {
        let Some(identity) = self.examined.identity else { return };
        let of = log.collections.get(&id_of(identity));
        let lost = of.iter().flat_map(|of| &of.lost).filter(|entry| entry.sequence > replay.covered);
        for entry in lost {
            let what = format!(
                "entry {} of the log, at byte {}, does not match its sum: what it put or deleted is lost",
                entry.sequence, entry.offset
            );
            self.loses(&entry.path, what, None, Vec::new());
        }
        for damage in log.damages_of(identity, replay.covered) {
            let is_told = of.is_some_and(|of| {
                of.lost.iter().any(|entry| *entry.path == *damage.file && entry.offset >= damage.offset)
            });
            if !is_told {
                let what = format!("entries of the log from byte {} on: {}", damage.offset, damage.reason);
                self.loses(&damage.file, what, None, Vec::new());
            }
        }
        for what in &replay.unread {
            self.loses(&log.dir, what.clone(), None, Vec::new());
        }
    }

    /// Puts what can be read in its order.
    fn arrange(&mut self, mut rests: BTreeMap<usize, Rest>, mut replay: Replay) -> Result<(), StoreError> {
        let dir = self.examined.known.dir.clone();
        if self.examined.manifest.is_none() {
            let what = "which segments there are: it is made again of the segments that are there; documents that were deleted and merged away may come back".to_owned();
            self.loses(&Manifest::path(&dir), what, None, Vec::new());
        }
        for (at, piece) in std::mem::take(&mut self.examined.pieces).into_iter().enumerate() {
            // Of segments that nobody names any more.
            self.arrange_between(&mut replay, piece.named.first);
            let number = u64::from(piece.named.number);
            let path = dir.join(format!("{number:010}"));
            let State::Broken { deleted, knows_deletions } = piece.state else {
                let State::Whole(part) = piece.state else { unreachable!("it is one of the two") };
                self.parts.push(NewPart::Kept(part));
                continue;
            };
            let mut rest = rests.remove(&at).unwrap_or_default();
            self.goes.push(number);
            let later = replay.rescued.split_off(&(piece.named.last + 1));
            let rescued = std::mem::replace(&mut replay.rescued, later);
            let mut buried = 0;
            rest.documents.retain(|number, _| {
                let is_buried = replay.buried.contains_key(number);
                buried += u64::from(is_buried);
                !is_buried
            });
            let mut lost = rest.lost;
            lost.retain(|(number, _)| {
                number.is_none_or(|n| !rescued.contains_key(&n) && !replay.buried.contains_key(&n))
            });
            let known_rescued =
                |number: &u64| lost.iter().all(|(lost, _)| lost.is_some_and(|l| l != *number));
            let unnamed = rescued.keys().filter(|number| !known_rescued(number)).count();
            for (number, put) in rescued {
                let id = super::verify::id_of_put(&put, &path)?;
                rest.documents.insert(number, (id, Origin::Put(put)));
            }
            let documents = lost.len().saturating_sub(unnamed) as u64;
            if documents > 0 {
                let mut ids: Vec<String> =
                    lost.iter().filter_map(|(_, id)| Some(id.as_ref()?.as_str().to_owned())).collect();
                ids.truncate(IDS_TOLD_MAX);
                let of = piece.named.live;
                let what = format!("{documents} of {of} documents of segment {number} cannot be read");
                self.loses(&path, what, Some(documents), ids);
            }
            if !knows_deletions {
                let ever = u64::from(piece.named.rows - piece.named.live);
                let known = deleted.len() + buried;
                let what = format!(
                    "which documents of segment {number} were deleted: {ever} were, and of {} it is known; the others come back unless a later version of them is there",
                    known.min(ever)
                );
                self.loses(&path, what, Some(0), Vec::new());
            }
            self.parts.push(NewPart::Made { salvage: rest.salvage, documents: rest.documents });
        }
        self.arrange_between(&mut replay, u64::MAX);
        let grown = std::mem::take(&mut replay.grown).into_iter();
        let documents =
            grown.filter_map(|(number, Grown { id, put, .. })| Some((number, (id, Origin::Put(put?)))));
        self.parts.push(NewPart::Made { salvage: None, documents: documents.collect() });
        Ok(())
    }

    /// A segment of documents that the log has and no segment, below `end`.
    fn arrange_between(&mut self, replay: &mut Replay, end: u64) {
        let later = replay.rescued.split_off(&end);
        let rescued = std::mem::replace(&mut replay.rescued, later);
        let documents: BTreeMap<_, _> = rescued
            .into_iter()
            .filter_map(|(number, put)| {
                let id = super::verify::id_of_put(&put, Path::new("")).ok()?;
                Some((number, (id, Origin::Put(put))))
            })
            .collect();
        if !documents.is_empty() {
            self.parts.push(NewPart::Made { salvage: None, documents });
        }
    }

    /// Of documents with one id the last one stays.
    fn drop_twice(&mut self, stop: &Stop) -> Result<(), StoreError> {
        let mut sources = Vec::new();
        for part in &self.parts {
            match part {
                NewPart::Kept(part) => sources.push(twice::ids_of(part.sealed.segment(), &part.deleted)?),
                NewPart::Made { documents, .. } => {
                    let mut ids: Vec<_> =
                        documents.iter().map(|(number, (id, _))| (id.clone(), *number)).collect();
                    ids.sort();
                    sources.push(Box::new(ids.into_iter().map(Ok)));
                }
            }
        }
        let mut older: Vec<(usize, u64, String)> = Vec::new();
        twice::find(sources, stop, |id, places| {
            // Parts and rows are in the order of the documents, so the last place is the last version.
            if let Some(last) = places.iter().max() {
                let others = places.iter().filter(|place| *place != last);
                older.extend(others.map(|(part, at)| (*part, *at, id.as_str().to_owned())));
            }
        })
        .map_err(StoreError::from)?;
        if older.is_empty() {
            return Ok(());
        }
        for (part, at, _) in &older {
            match &mut self.parts[*part] {
                NewPart::Kept(part) => {
                    let row = u32::try_from(*at).expect("it is a row");
                    let passages = part.sealed.passages_of(row)?;
                    part.delete(&[Row { row, passages }]);
                }
                NewPart::Made { documents, .. } => _ = documents.remove(at),
            }
        }
        let what = format!("{} earlier versions of documents that were there more than once", older.len());
        let mut ids: Vec<String> = older.into_iter().map(|(_, _, id)| id).collect();
        ids.truncate(IDS_TOLD_MAX);
        let dir = self.examined.known.dir.clone();
        self.loses(&dir, what, Some(0), ids);
        Ok(())
    }

    /// Which files go, and why.
    fn name_damaged(&mut self, disk: &Arc<dyn Disk>) -> Result<(), StoreError> {
        let dir = &self.examined.known.dir;
        let mut files = vec![Manifest::path(dir)];
        for number in self.goes.iter().chain(&self.examined.left_out) {
            let segment = dir.join(format!("{number:010}"));
            files.extend(files_in(&**disk, &segment)?);
            let versions = self.examined.found.deleted.get(number).into_iter().flatten();
            files.extend(versions.map(|version| dir.join(format!("{number:010}.deleted.{version}"))));
        }
        let faults = &self.examined.faults;
        for file in files {
            let why = faults.iter().filter(|fault| fault.file == file).map(|fault| match fault.offset {
                Some(offset) => format!("byte {offset}: {}", fault.reason),
                None => fault.reason.clone(),
            });
            let why = why.collect::<Vec<_>>().join("; ");
            self.damaged.insert(file, why);
        }
        self.goes.extend(&self.examined.left_out);
        Ok(())
    }

    /// Documents when it is repaired.
    fn documents(&self) -> u64 {
        let documents = self.parts.iter().map(|part| match part {
            NewPart::Kept(part) => part.live(),
            NewPart::Made { documents, .. } => documents.len() as u64,
        });
        documents.sum()
    }

    /// Whether it hangs on damage of which nobody can tell where it ends.
    fn needs_an_entry(&self, log: &LogSeen) -> bool {
        let covered = self.examined.manifest.as_ref().map_or(0, |manifest| manifest.covered);
        let identity = self.examined.identity;
        identity.is_some_and(|id| log.damages_of(id, covered).any(|damage| damage.last.is_none()))
    }

    /// Keeps copies of the files of the log that are damaged: they stay where they are, for other collections.
    fn keep_log(&self, keep: &Keeping<'_>, log: &LogSeen) -> Result<(), StoreError> {
        let Some(identity) = self.examined.identity else { return Ok(()) };
        let covered = self.examined.manifest.as_ref().map_or(0, |manifest| manifest.covered);
        let mut files: BTreeMap<PathBuf, String> = BTreeMap::new();
        for damage in log.damages_of(identity, covered) {
            if keep.copy(&damage.file)? {
                let why = format!(
                    "byte {}: {} (this is a copy; the file stays in the log)",
                    damage.offset, damage.reason
                );
                files.insert(damage.file.clone(), why);
            }
        }
        keep.say(&log.dir, &files)
    }

    fn apply(self, keep: &Keeping<'_>, log: &LogSeen, stop: &Stop) -> Result<(), StoreError> {
        let Plan { mut examined, parts, covered, next_number, damaged, goes, .. } = self;
        let (Some(folder), Some(log)) = (examined.folder.take(), log.identity()) else { return Ok(()) };
        let dir = &examined.known.dir;
        for file in damaged.keys() {
            keep.link(file)?;
        }
        keep.say(dir, &damaged)?;
        // It was made of what was there before, and is made again.
        keep.away(&dir.join(INDEX_DIR))?;

        let manifest = examined.manifest.take();
        let before = manifest.as_ref().map(|manifest| manifest.next_segment);
        let mut next_segment = before.unwrap_or(1);
        let taken = examined.found.segments.iter().chain(examined.found.deleted.keys());
        for number in taken {
            next_segment = next_segment.max(u32::try_from(*number).unwrap_or(u32::MAX).saturating_add(1));
        }
        let mut segments: Vec<Named> = Vec::new();
        for part in parts {
            match part {
                NewPart::Kept(mut part) => {
                    if part.is_unsaved() {
                        let version = part.saved.version + 1;
                        part.sealed.save_deletions(&folder, version, covered, &part.deleted)?;
                        let (deleted, live_passages) = (part.deleted.len(), part.live_passages);
                        part.saved = Saved { version, deleted, live_passages };
                    }
                    segments.push(Named::of(&part));
                }
                NewPart::Made { documents, .. } if documents.is_empty() => {}
                NewPart::Made { salvage, documents } => {
                    let mut building = Sealed::begin(&folder, next_segment)?;
                    for (number, (_, origin)) in documents {
                        stop.check().map_err(|stopped| system(dir, stopped))?;
                        let put = match (origin, &salvage) {
                            (Origin::Put(put), _) => put,
                            (Origin::Row(row), Some(salvage)) => {
                                let document = salvage.read(SegmentRow(row))?;
                                let passages =
                                    u32::try_from(document.body.passages.len()).unwrap_or(u32::MAX);
                                let body = document.body.encode();
                                let vectors = document.vectors;
                                Arc::new(Put::of_vectors(number, body, &document.text, passages, vectors))
                            }
                            (Origin::Row(_), None) => continue,
                        };
                        building.push(&put)?;
                    }
                    segments.push(Named::of(&Part::new(building.finish()?)));
                    next_segment += 1;
                }
            }
        }
        let last = segments.last().map_or(0, |named| named.last + 1);
        let mut removable: BTreeSet<u32> =
            manifest.map(|m| m.removable.into_iter().collect()).unwrap_or_default();
        // What a repair left that was cut off is nobody's.
        // A whole segment of documents that nobody else knows is of a later time, and stays.
        let is_known = |number: u64| folder.last_of(number).is_none_or(|last| last < next_number.max(last));
        let is_left =
            |number: &&u64| before.is_some_and(|before| **number >= u64::from(before)) && is_known(**number);
        let found = examined.found.segments.iter().chain(examined.found.deleted.keys());
        let go = goes.iter().chain(found.filter(is_left));
        removable.extend(go.filter_map(|number| u32::try_from(*number).ok()));
        let manifest = Manifest {
            log,
            dimension: folder.dimension,
            covered,
            next_number: next_number.max(last),
            next_segment,
            segments,
            removable: removable.into_iter().collect(),
        };
        manifest.write(&*folder.disk, dir, folder.identity)?;
        tracing::info!(dir = %dir.display(), documents = manifest.documents(), "a collection was repaired");
        for number in goes.iter().filter_map(|number| u32::try_from(*number).ok()) {
            folder.remove_segment(number)?;
        }
        Ok(())
    }
}

/// The files in a folder, if it is there.
fn files_in(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    match disk.list(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(StoreError::io(dir, e)),
        Ok(entries) => Ok(entries
            .into_iter()
            .filter(|entry| entry.kind == EntryKind::File)
            .map(|entry| dir.join(entry.name))
            .collect()),
    }
}

/// Keeps damaged files in a folder beside, below the names that they had in the data folder.
#[derive(Debug)]
struct Keeping<'a> {
    disk: &'a dyn Disk,
    root: &'a Path,
    to: &'a Path,
}

impl Keeping<'_> {
    fn place(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let inside = path.strip_prefix(self.root).unwrap_or(path);
        let place = self.to.join(inside);
        self.make_dir(place.parent().unwrap_or(self.to))?;
        Ok(place)
    }

    /// Makes a folder below the data folder, durably, and those that it lies in.
    fn make_dir(&self, dir: &Path) -> Result<(), StoreError> {
        if dir == self.root || self.disk.list(dir).is_ok() {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(self.root);
        self.make_dir(parent)?;
        match self.disk.create_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(StoreError::full_or_io(dir, e)),
            _ => {}
        }
        self.disk.sync_dir(parent).map_err(|e| StoreError::io(parent, e))
    }

    fn sync(&self, place: &Path) -> Result<(), StoreError> {
        let dir = place.parent().unwrap_or(self.to);
        self.disk.sync_dir(dir).map_err(|e| StoreError::io(dir, e))
    }

    /// Gives a file a second name. Whether it is there.
    fn link(&self, path: &Path) -> Result<bool, StoreError> {
        let place = self.place(path)?;
        match self.disk.hard_link(path, &place) {
            Ok(()) => self.sync(&place).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            // Not every file system has second names.
            Err(_) => self.copy(path),
        }
    }

    /// Moves a file or a folder. Whether it was there.
    fn away(&self, path: &Path) -> Result<bool, StoreError> {
        let parent = path.parent().unwrap_or(self.root);
        let is_there = |entry: &crate::files::disk::DirEntry| path.file_name() == Some(&*entry.name);
        if !self.disk.list(parent).map_err(|e| StoreError::io(parent, e))?.iter().any(is_there) {
            return Ok(false);
        }
        let place = self.place(path)?;
        self.disk.rename(path, &place).map_err(|e| StoreError::io(path, e))?;
        self.sync(&place)?;
        self.disk.sync_dir(parent).map_err(|e| StoreError::io(parent, e))?;
        Ok(true)
    }

    /// Copies a file. Whether it was there, and was not copied before.
    fn copy(&self, path: &Path) -> Result<bool, StoreError> {
        let from = match self.disk.read_only(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            from => from.map_err(|e| StoreError::io(path, e))?,
        };
        let place = self.place(path)?;
        let to = match self.disk.create(&place) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            to => to.map_err(|e| StoreError::full_or_io(&place, e))?,
        };
        let mut step = vec![0; STEP_BYTES];
        let mut at = 0;
        loop {
            let read = from.read_at(at, &mut step).map_err(|e| StoreError::io(path, e))?;
            if read == 0 {
                break;
            }
            to.write_at(at, &step[..read]).map_err(|e| StoreError::full_or_io(&place, e))?;
            at += read as u64;
        }
        to.sync_all().map_err(|e| StoreError::io(&place, e))?;
        self.sync(&place)?;
        Ok(true)
    }

    /// Writes down where the files of a folder were.
    fn say(&self, dir: &Path, files: &BTreeMap<PathBuf, String>) -> Result<(), StoreError> {
        if files.is_empty() {
            return Ok(());
        }
        let place = self.place(&dir.join(WHERE_FILE))?;
        let lines = files.iter().map(|(path, why)| {
            let why = if why.is_empty() { "kept with the damaged ones" } else { why };
            format!("{}\t{why}\n", path.display())
        });
        let text: String = lines.collect();
        let file = match self.disk.create(&place) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.open(&place).map_err(|e| StoreError::io(&place, e))?
            }
            file => file.map_err(|e| StoreError::full_or_io(&place, e))?,
        };
        let written =
            file.len().and_then(|len| file.write_at(len, text.as_bytes())).and_then(|()| file.sync_all());
        written.map_err(|e| StoreError::full_or_io(&place, e))?;
        self.sync(&place)
    }
}
