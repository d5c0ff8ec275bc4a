//! What is kept of a collection beside the log, read to the last byte: manifest, segments and deletions.

use std::{collections::BTreeSet, ops::RangeInclusive, path::PathBuf, sync::Arc};

use roaring::RoaringBitmap;

use super::{Fault, Known, LogSeen, system};
use crate::{
    files::disk::Disk,
    segment::{self, BlockCache, Deleted, Found, Name, Row, Salvage, Segment, SegmentError},
    segmented::{
        manifest::{Manifest, Named},
        requests::{self, Request},
        sealed::{Folder, Sealed},
        state::Part,
    },
    stop::Stop,
    store::{Identity, StoreError},
};

/// Bytes of unpacked blocks that are kept while documents are read.
const CACHE_BYTES: usize = 16 << 20;

/// A segment of the collection.
#[derive(Debug)]
pub(in crate::segmented) struct Piece {
    pub(in crate::segmented) named: Named,
    pub(in crate::segmented) state: State,
}

#[derive(Debug)]
pub(in crate::segmented) enum State {
    /// As it should be, with its deletions.
    Whole(Part),
    /// It or its deletions are damaged. Which of its rows are known to be deleted, and whether that is all.
    Broken { deleted: RoaringBitmap, knows_deletions: bool },
}

impl Piece {
    /// Numbers that documents of it may have.
    pub(in crate::segmented) fn range(&self) -> RangeInclusive<u64> {
        self.named.first..=self.named.last
    }

    pub(in crate::segmented) fn is_broken(&self) -> bool {
        matches!(self.state, State::Broken { .. })
    }
}

/// All that is kept of a collection, read.
#[derive(Debug)]
pub(in crate::segmented) struct Examined<'a> {
    pub(in crate::segmented) known: &'a Known,
    pub(in crate::segmented) identity: Option<Identity>,
    pub(in crate::segmented) folder: Option<Folder>,
    pub(in crate::segmented) cache: Arc<BlockCache>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) stop: Stop,
    /// `None` if it is damaged or lost: then the pieces are what was found.
    pub(in crate::segmented) manifest: Option<Manifest>,
    /// The manifest is of the log of another data folder: this one's log says nothing that these segments lack.
    pub(in crate::segmented) is_of_other_log: bool,
    /// In the order of their documents.
    pub(in crate::segmented) pieces: Vec<Piece>,
    /// Segments that were found and are no part of it, where there is no manifest.
    pub(in crate::segmented) left_out: Vec<u64>,
    /// Of these, segments of which nothing can be read.
    pub(in crate::segmented) unreadable: Vec<u64>,
    pub(in crate::segmented) found: Found,
    /// Calls that were done, as far as they can be read.
    pub(in crate::segmented) requests: Vec<Arc<Request>>,
    /// Document numbers below may have been given out, though nothing that is left says so.
    pub(in crate::segmented) reserved: u64,
    pub(in crate::segmented) faults: Vec<Fault>,
    pub(in crate::segmented) notes: Vec<String>,
}

impl<'a> Examined<'a> {
    /// Reads manifest, segments and deletions.
    pub(in crate::segmented) fn of(
        disk: &Arc<dyn Disk>,
        log: &LogSeen,
        known: &'a Known,
        stop: &Stop,
    ) -> Result<Self, StoreError> {
        let mut examined = Examined {
            known,
            identity: known.identity,
            folder: None,
            cache: Arc::new(BlockCache::new(CACHE_BYTES)),
            disk: Arc::clone(disk),
            stop: stop.clone(),
            manifest: None,
            is_of_other_log: false,
            pieces: Vec::new(),
            left_out: Vec::new(),
            unreadable: Vec::new(),
            found: segment::list(&**disk, &known.dir)?,
            requests: Vec::new(),
            reserved: 0,
            faults: Vec::new(),
            notes: Vec::new(),
        };
        let is_known = examined.read_manifest(log)?;
        let Some(identity) = examined.identity.filter(|_| is_known) else {
            examined.identity = None;
            return Ok(examined);
        };
        let (dir, space) = (&known.dir, known.space.clone());
        examined.folder = Some(Folder::new(disk, &examined.cache, dir, identity, space));
        examined.read_pieces()?;
        examined.read_requests(identity)?;
        let covered = examined.covered();
        for damage in log.damages_of(identity, covered) {
            examined.faults.push(Fault::repairable(
                &damage.file,
                Some(damage.offset),
                format!("{}; entries of this collection are lost, or may be", damage.reason),
            ));
        }
        if covered > log.last() && !examined.is_of_other_log {
            let reason = format!("it ends before entry {covered}, which segments hold");
            examined.faults.push(Fault::repairable(&log.dir, None, reason));
        }
        Ok(examined)
    }

    /// Reads which calls were done.
    fn read_requests(&mut self, identity: Identity) -> Result<(), StoreError> {
        let least = self.manifest.as_ref().map_or(0, |manifest| manifest.requests);
        self.reserved = self.manifest.as_ref().map_or(0, |manifest| manifest.reserved);
        let path = requests::path(&self.known.dir);
        match requests::read(&*self.disk, &self.known.dir, identity, least) {
            Ok(done) => self.requests = done,
            Err(error @ (StoreError::Corrupt { .. } | StoreError::OtherCollection { .. })) => {
                let reason = match &error {
                    StoreError::Corrupt { reason, .. } => reason.clone(),
                    error => error.to_string(),
                };
                let reason = reason.split("; ").next().unwrap_or(&reason).to_owned();
                self.faults.push(Fault::repairable(&path, None, reason));
            }
            Err(error @ StoreError::NewerFormat { .. }) => self.faults.push(Fault::newer(&path, &error)),
            Err(StoreError::Io { source, .. }) => {
                self.check_stop()?;
                self.faults.push(Fault::repairable(&path, None, format!("it cannot be read: {source}")));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether it is known which collection it is, and that it may be read as one.
    fn read_manifest(&mut self, log: &LogSeen) -> Result<bool, StoreError> {
        let dir = &self.known.dir;
        let path = Manifest::path(dir);
        let stem = |reason: &str| reason.split("; ").next().unwrap_or(reason).to_owned();
        match Manifest::look(&*self.disk, dir) {
            Ok(Some((got, manifest))) => {
                let expected = *self.identity.get_or_insert(got);
                if got != expected {
                    let reason = format!(
                        "it is of another collection (of identity {got}, and this one is {expected})"
                    );
                    let remedy = "put each collection's files back into the folder that they came from";
                    self.faults.push(Fault::hopeless(&path, reason, remedy));
                    return Ok(false);
                }
                if manifest.dimension != self.known.space.dim.as_u32() {
                    let reason = format!(
                        "its vectors have {} numbers, and the collection's description says {}",
                        manifest.dimension,
                        self.known.space.dim.as_u32()
                    );
                    let remedy = "put the collection's whole folder back from a backup";
                    self.faults.push(Fault::hopeless(&path, reason, remedy));
                    return Ok(false);
                }
                if log.identity().is_some_and(|log| log != manifest.log) {
                    let reason = format!(
                        "the log that it belongs to is that of another data folder, and has what was put or deleted after its entry {} and is not here",
                        manifest.covered
                    );
                    let fault = Fault::repairable(&path, None, reason);
                    let remedy = format!(
                        "open the collection in the data folder that it comes from, or put its folder back from a backup of this one; {}",
                        fault.remedy
                    );
                    self.faults.push(Fault { remedy, ..fault });
                    self.is_of_other_log = true;
                }
                self.manifest = Some(manifest);
            }
            Ok(None) => self.faults.push(Fault::repairable(&path, None, "it is missing")),
            Err(StoreError::Corrupt { reason, .. }) => {
                self.faults.push(Fault::repairable(&path, Some(0), stem(&reason)));
            }
            Err(error @ StoreError::NewerFormat { .. }) => {
                self.faults.push(Fault::newer(&path, &error));
                return Ok(false);
            }
            Err(StoreError::Io { source, .. }) => {
                self.check_stop()?;
                self.faults.push(Fault::repairable(&path, Some(0), format!("it cannot be read: {source}")));
            }
            Err(error) => return Err(error),
        }
        if self.identity.is_none() {
            let reason = "nothing says which collection it is";
            self.faults.push(Fault::hopeless(dir, reason, "put the data folder back from a backup"));
        }
        Ok(self.identity.is_some())
    }

    /// The last entry of this folder's log that the segments need nothing of.
    pub(in crate::segmented) fn covered(&self) -> u64 {
        match &self.manifest {
            _ if self.is_of_other_log => u64::MAX,
            Some(manifest) => manifest.covered,
            None => 0,
        }
    }

    pub(super) fn check_stop(&self) -> Result<(), StoreError> {
        self.stop.check().map_err(|stopped| system(&self.known.dir, stopped))
    }

    fn name(&self, number: u64) -> Option<Name> {
        Some(Name { collection: self.identity?, number })
    }

    fn segment_dir(&self, number: u64) -> PathBuf {
        self.known.dir.join(format!("{number:010}"))
    }

    /// Says what an error of a segment says, if it tells of damage.
    fn note(&mut self, error: SegmentError) -> Result<(), StoreError> {
        self.check_stop()?;
        self.faults.push(match error {
            SegmentError::Corrupt { path, offset, reason } => Fault::repairable(&path, Some(offset), reason),
            SegmentError::Foreign { path, got, expected } => Fault::repairable(
                &path,
                Some(0),
                format!("it is {got}, and this place is that of {expected}"),
            ),
            SegmentError::NewerFormat { ref path, .. } => Fault::newer(path, &error),
            SegmentError::Io { path, source } => {
                Fault::repairable(&path, Some(0), format!("it cannot be read: {source}"))
            }
            error => return Err(error.into()),
        });
        Ok(())
    }

    /// The same for an error of the store.
    pub(super) fn note_store(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.check_stop()?;
        let stem = |reason: &str| reason.split("; ").next().unwrap_or(reason).to_owned();
        self.faults.push(match error {
            StoreError::Corrupt { path, reason } => Fault::repairable(&path, None, stem(&reason)),
            StoreError::Io { path, source } => {
                Fault::repairable(&path, None, format!("it cannot be read: {source}"))
            }
            StoreError::NewerFormat { ref path, .. } | StoreError::NotUnderstood { ref path, .. } => {
                Fault::newer(path, &error)
            }
            error => return Err(error),
        });
        Ok(())
    }

    fn read_pieces(&mut self) -> Result<(), StoreError> {
        let named = match &self.manifest {
            Some(manifest) => manifest.segments.clone(),
            None => self.stand_in()?,
        };
        for named in named {
            let piece = self.read_piece(named)?;
            self.pieces.push(piece);
        }
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let is_named = |number: u64| manifest.segments.iter().any(|s| u64::from(s.number) == number);
        let may_go = |number: u64| {
            number >= manifest.next_segment.into()
                || manifest.removable.iter().any(|removable| u64::from(*removable) == number)
        };
        let numbers: BTreeSet<u64> =
            self.found.segments.iter().chain(self.found.deleted.keys()).copied().collect();
        let (remains, unknown): (Vec<u64>, Vec<u64>) =
            numbers.into_iter().filter(|number| !is_named(*number)).partition(|number| may_go(*number));
        let remains = remains.len() + self.found.remains.len();
        if remains > 0 {
            let dir = self.known.dir.display();
            self.notes.push(format!(
                "{dir}: {remains} left over from work that was cut off; the next opening removes them"
            ));
        }
        for number in unknown {
            self.notes.push(format!(
                "{}: a segment that the collection does not know; it is left alone",
                self.segment_dir(number).display()
            ));
        }
        Ok(())
    }

    /// What the manifest would say of the segments that are there, where it does not. Of segments whose documents
    /// overlap one was merged of the others: the one that was made last counts.
    fn stand_in(&mut self) -> Result<Vec<Named>, StoreError> {
        let mut taken: Vec<Named> = Vec::new();
        for number in self.found.segments.clone().into_iter().rev() {
            self.check_stop()?;
            let named = u32::try_from(number).ok().and_then(|number| self.describe(number));
            match named {
                Some(named)
                    if taken.iter().all(|other| other.last < named.first || named.last < other.first) =>
                {
                    taken.push(named);
                }
                Some(_) => self.left_out.push(number),
                None => {
                    self.left_out.push(number);
                    self.unreadable.push(number);
                    let reason = "nothing of it can be read";
                    self.faults.push(Fault::repairable(&self.segment_dir(number), None, reason));
                }
            }
        }
        taken.sort_by_key(|named| named.first);
        Ok(taken)
    }

    /// What the manifest would say of a segment, as far as that can be told; `None` if no document of it can be read.
    fn describe(&self, number: u32) -> Option<Named> {
        let name = self.name(number.into())?;
        let deletions = self.found.deleted.get(&number.into()).and_then(|versions| versions.last().copied());
        let (dir, space) = (&self.known.dir, &self.known.space);
        let deletions = deletions.unwrap_or(0);
        let named = |rows: u32, passages: u64, first, last| Named {
            number,
            rows,
            passages,
            first,
            last,
            deletions,
            live: rows,
            live_passages: passages,
            bytes: 0,
        };
        if let Ok(segment) = Segment::open(&self.disk, dir, name, std::slice::from_ref(space), &self.cache) {
            let (first, last) = segment.versions()?;
            return Some(named(segment.len(), segment.passage_count().into(), first, last));
        }
        let salvage = Salvage::open(&self.disk, dir, name, space, &self.cache, &self.stop).ok()?;
        let versions = (0..salvage.len()).filter_map(|row| salvage.version(Row(row)));
        let (first, last) = versions.fold((u64::MAX, 0), |(first, last), v| (first.min(v), last.max(v)));
        (first <= last).then(|| named(salvage.len(), 0, first, last))
    }

    /// Reads a segment and its deletions, every byte.
    fn read_piece(&mut self, mut named: Named) -> Result<Piece, StoreError> {
        let number = u64::from(named.number);
        let Some(name) = self.name(number) else { unreachable!("it is known before pieces are read") };
        let (disk, dir) = (Arc::clone(&self.disk), self.known.dir.clone());
        let space = self.known.space.clone();
        let before = self.faults.len();
        let opened = Segment::open(&disk, &dir, name, std::slice::from_ref(&space), &self.cache);
        let segment = match opened {
            Ok(segment) => Some(segment),
            Err(error) => {
                self.note(error)?;
                None
            }
        };
        if let Some(segment) = &segment {
            match segment.verify(&self.stop) {
                Ok(damages) => self.faults.extend(
                    damages
                        .into_iter()
                        .map(|damage| Fault::repairable(&damage.path, Some(damage.offset), damage.reason)),
                ),
                Err(error) => self.note(error)?,
            }
            if self.faults.len() == before
                && let Some(row) = first_out_of_order(segment).map_err(StoreError::from)?
            {
                let reason = format!("the document of row {row} is out of its order");
                self.faults.push(Fault::repairable(&self.segment_dir(number), None, reason));
            }
        }
        let rows = segment.as_ref().map_or(named.rows, Segment::len);
        let (deleted, version, knows_deletions) = self.read_deletions(name, rows, &named)?;
        if self.faults.len() == before
            && let (Some(segment), Some(folder)) = (&segment, &self.folder)
        {
            if self.manifest.is_none() {
                let mut passages = 0;
                for row in (0..segment.len()).filter(|row| !deleted.contains(*row)) {
                    passages += u64::from(segment.head(Row(row))?.passages);
                }
                let gone = u32::try_from(deleted.len()).unwrap_or(named.rows);
                named = Named { live: named.rows - gone, live_passages: passages, ..named };
            }
            match Sealed::open(folder, &named, version) {
                Ok(part) => return Ok(Piece { named: Named::of(&part), state: State::Whole(part) }),
                Err(error) => self.note_store(error)?,
            }
        }
        Ok(Piece { named, state: State::Broken { deleted, knows_deletions } })
    }

    /// The rows of a segment that are deleted, the version that says so, and whether it is all that was ever said.
    fn read_deletions(
        &mut self,
        name: Name,
        rows: u32,
        named: &Named,
    ) -> Result<(RoaringBitmap, u64, bool), StoreError> {
        let versions = self.found.deleted.get(&name.number).cloned().unwrap_or_default();
        let (disk, dir) = (Arc::clone(&self.disk), self.known.dir.clone());
        let highest = versions.last().copied().unwrap_or(0);
        let before = self.faults.len();
        if highest > 0 {
            match Deleted::verify(&disk, &dir, name, highest, rows, &self.stop) {
                Ok(damages) => self.faults.extend(
                    damages
                        .into_iter()
                        .map(|damage| Fault::repairable(&damage.path, Some(damage.offset), damage.reason)),
                ),
                Err(error) => self.note(error)?,
            }
        }
        if highest < named.deletions {
            let path = dir.join(format!("{:010}.deleted.{}", name.number, named.deletions));
            self.faults.push(Fault::repairable(&path, None, "it is missing"));
        }
        let knows_all = self.faults.len() == before;
        let readable = versions.iter().rev().find_map(|version| {
            Deleted::read(&disk, &dir, name, *version, rows).ok().map(|deleted| deleted.rows)
        });
        Ok((readable.unwrap_or_default(), highest, knows_all))
    }
}

/// The first row whose version is not above the one before.
fn first_out_of_order(segment: &Segment) -> Result<Option<u32>, SegmentError> {
    let mut before = None;
    for row in 0..segment.len() {
        let version = segment.head(Row(row))?.version;
        if before.is_some_and(|before| before >= version) {
            return Ok(Some(row));
        }
        before = Some(version);
    }
    Ok(None)
}
