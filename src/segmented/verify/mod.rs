//! Reads everything that is kept of a collection and says what is not as it was written. It changes nothing.
//!
//! What is read is judged by what an opening would do with it: the same reading of the log, of the manifest, of segments
//! and deletions, and the same meaning of entries. Beyond that every byte of every segment is read, every entry is
//! taken apart, and no id may be there twice.
//!
//! In memory is what an opening would have there: places of entries, and documents that no segment holds, without
//! their texts and vectors.
//!
//! | file | what |
//! |---|---|
//! | `log.rs` | the log of the folder |
//! | `twice.rs` | ids that are there more than once |

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
};

use roaring::RoaringBitmap;

use super::{
    entries::{Carried, Entry, Put},
    logs::{Entries, id_of},
    manifest::{Manifest, Named},
    sealed::{Folder, SPACE, Sealed},
    state::Part,
};
use crate::{
    files::disk::Disk,
    segment::{self, BlockCache, Deleted, Found, Name, Row, Salvage, Segment, SegmentError, Space},
    stop::{Stop, Stopped},
    store::{Identity, StoreError, body::Body},
    value::PointId,
    vector::{Dim, Metric},
};

mod log;
pub(super) mod twice;

pub(crate) use log::LogSeen;

/// Bytes of unpacked blocks that are kept while documents are read.
const CACHE_BYTES: usize = 16 << 20;

/// Ids of which it is told that they are there twice.
const TWICE_TOLD_MAX: usize = 100;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The file, or the folder.
    pub(crate) file: PathBuf,
    /// Where in the file it begins, if it is a place.
    pub(crate) offset: Option<u64>,
    /// What is wrong there.
    pub(crate) reason: String,
    /// What to do about it.
    pub(crate) remedy: String,
    /// Whether a repair can do something about it.
    pub(crate) is_repairable: bool,
}

impl Fault {
    /// What to do where a repair helps.
    pub(crate) const REPAIR: &'static str = "`distilface repair` says what would be lost and with --apply keeps the rest; a backup of the whole data folder has all of it";

    pub(crate) fn repairable(file: &Path, offset: Option<u64>, reason: impl Into<String>) -> Self {
        let (file, reason, remedy) = (file.to_owned(), reason.into(), Self::REPAIR.to_owned());
        Fault { file, offset, reason, remedy, is_repairable: true }
    }

    /// Something that a later version wrote.
    pub(crate) fn newer(file: &Path, error: &impl std::fmt::Display) -> Self {
        let text = error.to_string();
        let rest = text.strip_prefix(&*file.to_string_lossy()).map(|rest| format!("it{rest}"));
        Self::hopeless(file, rest.unwrap_or(text), "use the version of distilface that wrote it")
    }

    pub(crate) fn hopeless(file: &Path, reason: impl Into<String>, remedy: &str) -> Self {
        let (file, reason, remedy) = (file.to_owned(), reason.into(), remedy.to_owned());
        Fault { file, offset: None, reason, remedy, is_repairable: false }
    }
}

/// A collection to be read.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// As its description says; `None` where an earlier version wrote that.
    pub(crate) identity: Option<Identity>,
    pub(crate) space: Space,
}

impl Known {
    /// The collection in `dir`, with vectors of the model of `fingerprint`.
    pub(crate) fn new(
        dir: &Path,
        identity: Option<Identity>,
        dim: Dim,
        metric: Metric,
        fingerprint: String,
    ) -> Self {
        Known { dir: dir.to_owned(), identity, space: Space { number: SPACE, dim, metric, fingerprint } }
    }
}

/// Which collection the segments in a folder are of, as far as their manifest can be read.
pub(crate) fn identity_in(disk: &dyn Disk, dir: &Path) -> Option<Identity> {
    Manifest::look(disk, dir).ok().flatten().map(|(identity, _)| identity)
}

/// What reading a collection found.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Which it is, and the entry of the log that its segments hold everything up to.
    pub(crate) covers: Option<(Identity, u64)>,
    /// Documents that are not deleted; those of damaged segments as the manifest counts them.
    pub(crate) documents: u64,
    /// Their passages.
    pub(crate) passages: u64,
    pub(crate) segments: usize,
    pub(crate) faults: Vec<Fault>,
    pub(crate) notes: Vec<String>,
}

/// The error of what was told to stop.
pub(super) fn system(path: &Path, stopped: Stopped) -> StoreError {
    StoreError::io(path, io::Error::other(stopped))
}

/// Reads all that is kept of a collection.
///
/// # Errors
/// [`StoreError::Io`] if it was told to stop; [`StoreError::NoHandle`]. Damage is no error.
pub(crate) fn verify(
    disk: &Arc<dyn Disk>,
    log: &LogSeen,
    known: &Known,
    stop: &Stop,
) -> Result<Checked, StoreError> {
    let mut examined = Examined::of(disk, log, known, stop)?;
    if examined.identity.is_none() {
        let Examined { faults, notes, .. } = examined;
        return Ok(Checked { covers: None, documents: 0, passages: 0, segments: 0, faults, notes });
    }
    let replay = examined.replay(log, &|_| false, false)?;
    examined.bury(&replay)?;
    examined.find_twice(&replay)?;
    let (mut documents, mut passages) = (0, 0);
    for piece in &examined.pieces {
        let (live, live_passages) = match &piece.state {
            State::Whole(part) => (part.live(), part.live_passages),
            State::Broken { .. } => (piece.named.live.into(), piece.named.live_passages),
        };
        documents += live;
        passages += live_passages;
    }
    for grown in replay.grown.values() {
        documents += 1;
        passages += u64::from(grown.passages);
    }
    let Examined { identity, pieces, faults, notes, .. } = examined;
    let covers = identity.map(|identity| (identity, replay.covered));
    Ok(Checked { covers, documents, passages, segments: pieces.len(), faults, notes })
}

/// A segment of the collection.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) named: Named,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    /// As it should be, with its deletions.
    Whole(Part),
    /// It or its deletions are damaged. Which of its rows are known to be deleted, and whether that is all.
    Broken { deleted: RoaringBitmap, knows_deletions: bool },
}

impl Piece {
    /// Numbers that documents of it may have.
    pub(super) fn range(&self) -> RangeInclusive<u64> {
        self.named.first..=self.named.last
    }

    pub(super) fn is_broken(&self) -> bool {
        matches!(self.state, State::Broken { .. })
    }
}

/// A document that no segment holds.
#[derive(Debug)]
pub(super) struct Grown {
    pub(super) id: PointId,
    pub(super) passages: u32,
    /// All of it, where it is wanted.
    pub(super) put: Option<Arc<Put>>,
}

/// What entries of the log say.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Segments hold everything up to this entry.
    pub(super) covered: u64,
    /// Documents that no segment holds and that are not buried, by number.
    pub(super) grown: BTreeMap<u64, Grown>,
    /// Documents of segments that were asked for.
    pub(super) rescued: BTreeMap<u64, Arc<Put>>,
    /// Documents that are buried, with their passages.
    pub(super) buried: BTreeMap<u64, u32>,
    /// Every document number given out is below, as far as is known.
    pub(super) next: u64,
    /// Entries, or documents of entries, that mean nothing: what is wrong with them.
    pub(super) unread: Vec<String>,
    /// Entries were written with segments of a later time than these.
    is_ahead: bool,
}

/// All that is kept of a collection, read.
#[derive(Debug)]
pub(super) struct Examined<'a> {
    pub(super) known: &'a Known,
    pub(super) identity: Option<Identity>,
    pub(super) folder: Option<Folder>,
    pub(super) cache: Arc<BlockCache>,
    disk: Arc<dyn Disk>,
    stop: Stop,
    /// `None` if it is damaged or lost: then the pieces are what was found.
    pub(super) manifest: Option<Manifest>,
    /// In the order of their documents.
    pub(super) pieces: Vec<Piece>,
    /// Segments that were found and are no part of it, where there is no manifest.
    pub(super) left_out: Vec<u64>,
    pub(super) found: Found,
    pub(super) faults: Vec<Fault>,
    pub(super) notes: Vec<String>,
}

impl<'a> Examined<'a> {
    /// Reads manifest, segments and deletions.
    pub(super) fn of(
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
            pieces: Vec::new(),
            left_out: Vec::new(),
            found: segment::list(&**disk, &known.dir)?,
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
        let covered = examined.manifest.as_ref().map_or(0, |manifest| manifest.covered);
        for damage in log.damages_of(identity, covered) {
            examined.faults.push(Fault::repairable(
                &damage.file,
                Some(damage.offset),
                format!("{}; entries of this collection are lost, or may be", damage.reason),
            ));
        }
        if covered > log.last() {
            let reason = format!("it ends before entry {covered}, which segments hold");
            examined.faults.push(Fault::repairable(&log.dir, None, reason));
        }
        Ok(examined)
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
                    let reason = "the log that it belongs to is that of another data folder, and may have documents that are not here";
                    self.faults.push(Fault::repairable(&path, None, reason));
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

    fn check_stop(&self) -> Result<(), StoreError> {
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
    fn note_store(&mut self, error: StoreError) -> Result<(), StoreError> {
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

    /// What the log says after the manifest. With `keeps` whole documents are kept; and of what it says before, documents
    /// that are `wanted`, and all that are buried.
    pub(super) fn replay(
        &mut self,
        log: &LogSeen,
        wanted: &dyn Fn(u64) -> bool,
        keeps: bool,
    ) -> Result<Replay, StoreError> {
        let Some(identity) = self.identity else { return Ok(Replay::default()) };
        let covered = self.manifest.as_ref().map_or(0, |manifest| manifest.covered);
        let after_pieces = self.pieces.last().map_or(0, |piece| piece.named.last + 1);
        let sealed_next = self.manifest.as_ref().map_or(after_pieces, |manifest| manifest.next_number);
        let mut replay = Replay { covered, next: sealed_next, ..Replay::default() };
        let Some(of) = log.collections.get(&id_of(identity)) else { return Ok(replay) };
        let mut buried_grown = HashSet::new();
        for read in Entries::new(&self.disk, of.places.iter().cloned()) {
            self.check_stop()?;
            let read = match read {
                Ok(read) => read,
                Err(error) => {
                    self.note_store(error)?;
                    continue;
                }
            };
            let is_needed = read.sequence > covered;
            let dimension = self.known.space.dim.as_u32();
            let entry = match Entry::decode(read.kind, &read.bytes, dimension, &read.path) {
                Ok(entry) => entry,
                Err(error) => {
                    let what = format!("entry {} means nothing: {error}", read.sequence);
                    if is_needed {
                        self.note_store(error)?;
                        replay.unread.push(what);
                    } else {
                        self.notes.push(format!("{what}; segments hold what it said"));
                    }
                    continue;
                }
            };
            if let Some(reason) = entry.refuses(covered).filter(|_| is_needed && !replay.is_ahead) {
                replay.is_ahead = true;
                self.faults.push(Fault::repairable(&Manifest::path(&self.known.dir), None, reason));
            }
            let (puts, buried) = match entry {
                Entry::Batch(batch) => (batch.puts, batch.buried),
                Entry::Carried(Carried { next, puts, buried, .. }) => {
                    replay.next = replay.next.max(next);
                    (puts, buried)
                }
            };
            for put in puts {
                let number = put.number;
                replay.next = replay.next.max(number.saturating_add(1));
                let is_rescued = number < sealed_next && wanted(number);
                let is_grown = number >= sealed_next && is_needed;
                if !is_rescued && !is_grown {
                    continue;
                }
                match id_of_put(&put, &read.path) {
                    Ok(_) if is_rescued => {
                        // An entry that carries forward may come after the one that buries.
                        if !replay.buried.contains_key(&number) {
                            replay.rescued.insert(number, put);
                        }
                    }
                    Ok(_) if buried_grown.contains(&number) => {}
                    Ok(id) => {
                        let passages = put.passages;
                        replay.grown.insert(number, Grown { id, passages, put: keeps.then_some(put) });
                    }
                    Err(error) => {
                        let what =
                            format!("document {number} of entry {} means nothing: {error}", read.sequence);
                        self.note_store(error)?;
                        replay.unread.push(what);
                    }
                }
            }
            for gone in buried {
                replay.grown.remove(&gone.number);
                replay.rescued.remove(&gone.number);
                if gone.number >= sealed_next {
                    buried_grown.insert(gone.number);
                } else if is_needed || keeps {
                    replay.buried.insert(gone.number, gone.passages);
                }
            }
        }
        Ok(replay)
    }

    /// Marks documents of whole segments that entries of the log bury.
    pub(super) fn bury(&mut self, replay: &Replay) -> Result<(), StoreError> {
        for number in replay.buried.keys() {
            let at = self.pieces.partition_point(|piece| piece.named.last < *number);
            let Some(Piece { state: State::Whole(part), .. }) = self.pieces.get_mut(at) else { continue };
            if let Some(row) = part.sealed.row(*number)? {
                let passages = part.sealed.passages_of(row)?;
                part.delete(&[super::state::Row { row, passages }]);
            }
        }
        Ok(())
    }

    /// Says which ids are there twice.
    pub(super) fn find_twice(&mut self, replay: &Replay) -> Result<(), StoreError> {
        let mut sources = Vec::new();
        let mut numbers: Vec<Option<&Sealed>> = Vec::new();
        for piece in &self.pieces {
            if let State::Whole(part) = &piece.state {
                sources.push(twice::ids_of(part.sealed.segment(), &part.deleted)?);
                numbers.push(Some(&part.sealed));
            }
        }
        let mut grown: Vec<_> =
            replay.grown.iter().map(|(number, grown)| (grown.id.clone(), *number)).collect();
        grown.sort();
        sources.push(Box::new(grown.into_iter().map(Ok)));
        numbers.push(None);
        let mut found = Vec::new();
        let mut more = 0u64;
        let searched = twice::find(sources, &self.stop, |id, places| {
            if found.len() == TWICE_TOLD_MAX {
                more += 1;
                return;
            }
            let number = |(source, at): &(usize, u64)| match numbers[*source] {
                Some(sealed) => sealed.number_of(u32::try_from(*at).unwrap_or(u32::MAX)).unwrap_or(0),
                None => *at,
            };
            let numbers: Vec<String> = places.iter().map(|place| number(place).to_string()).collect();
            found.push(format!(
                "document {id:?} is there {} times, under the numbers {}",
                places.len(),
                numbers.join(", "),
                id = id.as_str()
            ));
        });
        searched.map_err(StoreError::from)?;
        let dir = &self.known.dir;
        self.faults.extend(found.into_iter().map(|reason| Fault::repairable(dir, None, reason)));
        if more > 0 {
            self.faults.push(Fault::repairable(
                dir,
                None,
                format!("{more} more ids are there several times"),
            ));
        }
        Ok(())
    }
}

/// The id of a document of the log, if it can be sealed.
pub(super) fn id_of_put(put: &Put, path: &Path) -> Result<PointId, StoreError> {
    let body = Body::decode(&put.body, path)?;
    let text = put.text(path)?;
    let fits = body.passages.len() == put.passages as usize
        && body.passages.iter().all(|range| text.get(range.start as usize..range.end as usize).is_some());
    if fits {
        return Ok(body.id);
    }
    let reason = format!("document {} has not one passage of its text for each vector", put.number);
    Err(StoreError::corrupt(path, reason))
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
