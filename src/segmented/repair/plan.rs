//! What can still be read of a damaged collection, what is lost of it, and what it becomes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{IDS_TOLD_MAX, Keeping, Loss};
use crate::{
    files::disk::{Disk, EntryKind},
    segment::{Name, Row as SegmentRow, Salvage, SegmentError},
    segmented::{
        entries::Put,
        logs::id_of,
        manifest::Manifest,
        requests,
        state::{Part, Row},
        verify::{self, Examined, Grown, Known, LogSeen, Piece, Replay, State, system, twice},
    },
    stop::Stop,
    store::StoreError,
    value::PointId,
};

/// Where a document of a new segment comes from.
#[derive(Debug)]
pub(super) enum Origin {
    Row(u32),
    Put(Arc<Put>),
}

/// Part of the collection when it is repaired.
#[derive(Debug)]
pub(super) enum NewPart {
    /// A segment that is whole.
    Kept(Part),
    /// A new one of what can be read, in the order of the documents.
    Made { salvage: Option<Box<Salvage>>, documents: BTreeMap<u64, (PointId, Origin)> },
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) examined: Examined<'a>,
    pub(super) parts: Vec<NewPart>,
    pub(super) covered: u64,
    pub(super) next_number: u64,
    pub(super) losses: Vec<Loss>,
    /// Files that are damaged, each with what is wrong with it.
    pub(super) damaged: BTreeMap<PathBuf, String>,
    /// Segments that others take the place of.
    pub(super) goes: Vec<u64>,
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
    /// The device fails somewhere in it.
    is_unread: bool,
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
        let salvage = Salvage::open(disk, dir, name, space, &examined.cache, stop);
        stop.check().map_err(|stopped| system(dir, stopped))?;
        let salvage = match salvage {
            Ok(salvage) => salvage,
            Err(error) => {
                let lost = (0..piece.named.live).map(|_| (None, None)).collect();
                let is_unread = matches!(error, SegmentError::Io { .. });
                return Ok(Rest { lost, is_unread, ..Rest::default() });
            }
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
        rest.is_unread = salvage.is_unread();
        rest.salvage = Some(Box::new(salvage));
        Ok(rest)
    }
}

impl<'a> Plan<'a> {
    /// `None` if nothing is damaged.
    pub(super) fn of(
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
            covered: if examined.is_of_other_log { log.last() } else { log.last().max(replay.covered) },
            next_number: replay.next,
            parts: Vec::new(),
            losses: Vec::new(),
            damaged: BTreeMap::new(),
            goes: Vec::new(),
            examined,
        };
        if plan.is_possible() {
            plan.say_other_log(log, &replay);
            plan.say_lost_entries(log, &replay);
            plan.arrange(rests, replay)?;
            plan.drop_twice(stop)?;
            plan.name_damaged(disk)?;
        }
        Ok(Some(plan))
    }

    pub(super) fn is_possible(&self) -> bool {
        self.examined.identity.is_some() && self.examined.faults.iter().all(|fault| fault.is_repairable)
    }

    fn loses(&mut self, file: &Path, what: String, documents: Option<u64>, ids: Vec<String>) {
        self.losses.push(Loss { file: file.to_owned(), what, documents, ids });
    }

    /// What is lost where the segments belong to the log of another data folder.
    fn say_other_log(&mut self, log: &LogSeen, replay: &Replay) {
        let Some(manifest) = self.examined.manifest.as_ref().filter(|_| self.examined.is_of_other_log) else {
            return;
        };
        let (path, covered) = (Manifest::path(&self.examined.known.dir), manifest.covered);
        let what = format!(
            "what only the log of the data folder has that these segments come from: whatever was put or deleted after its entry {covered}"
        );
        self.loses(&path, what, None, Vec::new());
        if !replay.strangers.is_empty() {
            let count = replay.strangers.len() as u64;
            let what = format!(
                "{count} documents that the log of this data folder has of the collection as it was here before"
            );
            let ids = replay.strangers.values().take(IDS_TOLD_MAX).map(|id| id.as_str().to_owned()).collect();
            self.loses(&log.dir, what, Some(count), ids);
        }
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
        let file = requests::path(&dir);
        if self.examined.faults.iter().any(|fault| fault.file == file) {
            let what = "which calls with a request id were done, as far as the log has let go of them: one that is sent again is done again";
            self.loses(&file, what.to_owned(), Some(0), Vec::new());
        }
        for number in self.examined.unreadable.clone() {
            let what = format!(
                "segment {number}: nothing of it can be read, and which documents it had, nobody can tell"
            );
            self.loses(&dir.join(format!("{number:010}")), what, None, Vec::new());
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
                let id = verify::id_of_put(&put, &path)?;
                rest.documents.insert(number, (id, Origin::Put(put)));
            }
            let documents = lost.len().saturating_sub(unnamed) as u64;
            if documents > 0 {
                let mut ids: Vec<String> =
                    lost.iter().filter_map(|(_, id)| Some(id.as_ref()?.as_str().to_owned())).collect();
                ids.truncate(IDS_TOLD_MAX);
                let of = piece.named.live;
                let mut what = format!("{documents} of {of} documents of segment {number} cannot be read");
                if rest.is_unread {
                    what.push_str("; the device fails in its files: a copy of the data folder on another device, made with a program that goes on after errors such as ddrescue, may have more of them");
                }
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
                let id = verify::id_of_put(&put, Path::new("")).ok()?;
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
        let requests = requests::path(dir);
        files.extend(self.examined.faults.iter().any(|fault| fault.file == requests).then_some(requests));
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
    pub(super) fn documents(&self) -> u64 {
        let documents = self.parts.iter().map(|part| match part {
            NewPart::Kept(part) => part.live(),
            NewPart::Made { documents, .. } => documents.len() as u64,
        });
        documents.sum()
    }

    /// Whether it hangs on damage of which nobody can tell where it ends.
    pub(super) fn needs_an_entry(&self, log: &LogSeen) -> bool {
        let covered = self.examined.covered();
        let identity = self.examined.identity;
        identity.is_some_and(|id| log.damages_of(id, covered).any(|damage| damage.last.is_none()))
    }

    /// Keeps copies of the files of the log that are damaged: they stay where they are, for other collections.
    pub(super) fn keep_log(&self, keep: &Keeping<'_>, log: &LogSeen) -> Result<(), StoreError> {
        let Some(identity) = self.examined.identity else { return Ok(()) };
        let covered = self.examined.covered();
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
