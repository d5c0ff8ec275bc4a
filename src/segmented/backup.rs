//! A copy of a collection as of one moment, in a folder of its own; and a new collection made of such a copy.
//!
//! What is copied is held, as a reader holds it: whatever is written, merged or sealed meanwhile, the copy is of the
//! moment at which it began, and everything that was acknowledged before is in it. Files of segments never change, so
//! they get a second name in the copy where the file system allows that, and are copied elsewhere. Which documents of them
//! are gone is written anew, and what no segment holds yet becomes one.
//!
//! Every byte is read on the way, and compared with its sums: a copy that was made is one of whole files. What restores
//! it compares every file with its SHA-256 and every section with its sum before anybody sees the collection.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use super::{
    Space, Store,
    logs::FolderLog,
    manifest::{Manifest, Named},
    requests::{self, REQUESTS_FILE, Request},
    sealed::{Folder, Sealed},
    state::{Part, Saved},
    verify::{Fault, system},
};
use crate::{
    files::{
        disk::Disk,
        sums::{self, Sum},
    },
    segment::{self, Adopt, BlockCache, Deleted, Name, Segment, SegmentError},
    stop::Stop,
    store::{Identity, RESERVE_BYTES, StoreError, folder::SEGMENTS_FILE},
};

/// Bytes of unpacked blocks that are kept while a copy is read.
const CACHE_BYTES: usize = 16 << 20;

/// What to do where a copy is damaged.
pub(crate) const REMEDY: &str = "take another backup of the same collection; the others in this one are not touched by it, and can be restored one by one";

/// A file of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopiedFile {
    /// Below the folder of the copy.
    pub(crate) path: PathBuf,
    pub(crate) sum: Sum,
    /// It is a second name of the collection's own file.
    pub(crate) is_linked: bool,
}

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackedUp {
    pub(crate) identity: Identity,
    /// The entry of the log up to which everything is in it.
    pub(crate) sequence: u64,
    pub(crate) documents: u64,
    pub(crate) passages: u64,
    /// In the order of their paths.
    pub(crate) files: Vec<CopiedFile>,
}

/// A copy that is being made.
struct Copying<'a> {
    disk: &'a Arc<dyn Disk>,
    to: &'a Path,
    /// Files may get a second name.
    links: bool,
    stop: &'a Stop,
    files: Vec<CopiedFile>,
}

impl Store {
    /// Makes a copy of the collection as it is now in `to`, an empty folder. With `links`, files get a second name there
    /// instead of a copy where that is possible. The names in `to` are durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], naming the file, if something of the collection is damaged; [`StoreError::DiskFull`];
    /// [`StoreError::Io`], also if it was told to stop. What was made by then is the caller's to remove.
    pub(crate) fn back_up(&self, to: &Path, links: bool, stop: &Stop) -> Result<BackedUp, StoreError> {
        let shared = &self.0;
        let (parts, puts, sequence, next, done) = {
            let state = shared.read_state();
            // Calls whose changes are in the copy: a call is remembered after its changes were applied.
            let done = shared.lock_requests().all();
            (Arc::clone(&state.parts), state.live_unsealed(), state.sequence, state.next, done)
        };
        let folder = shared.folder.elsewhere(to);
        let mut copying = Copying { disk: &folder.disk, to, links, stop, files: Vec::new() };
        let mut named: Vec<Named> = Vec::with_capacity(parts.len() + 1);
        let after = parts.iter().map(|part| part.sealed.number() + 1).max().unwrap_or(1);
        // First, so that these documents are in memory for no longer than they must be.
        let unsealed = if puts.is_empty() { None } else { Some(Sealed::build(&folder, after, &puts)?) };
        drop(puts);
        for part in parts.iter().filter(|part| part.live() > 0) {
            check_whole(part.sealed.segment(), stop)?;
            copying.segment(part.sealed.segment(), part.sealed.number())?;
            let mut part = part.clone();
            let deleted = part.deleted.len();
            let version = u64::from(deleted > 0);
            if version > 0 {
                part.sealed.save_deletions(&folder, version, sequence, &part.deleted)?;
                copying
                    .sum(PathBuf::from(segment::deleted_name(part.sealed.number().into(), version)), false)?;
            }
            part.saved = Saved { version, deleted, live_passages: part.live_passages };
            named.push(Named::of(&part));
        }
        if let Some(sealed) = unsealed {
            check_whole(sealed.segment(), stop)?;
            for (name, _) in sealed.segment().bytes() {
                copying.sum(segment_dir(after).join(name), false)?;
            }
            named.push(Named::of(&Part::new(sealed)));
        }
        let (documents, passages) = totals(&named);
        if !done.is_empty() {
            requests::write(&*folder.disk, to, folder.identity, sequence, &done)?;
            copying.sum(PathBuf::from(REQUESTS_FILE), false)?;
        }
        let reserved = shared.reserved.load(Ordering::SeqCst);
        let manifest = Manifest {
            log: shared.log.identity(),
            dimension: folder.dimension,
            covered: sequence,
            next_number: next,
            next_segment: after + 1,
            segments: named,
            removable: Vec::new(),
            requests: if done.is_empty() { 0 } else { sequence },
            reserved: if reserved > next { reserved } else { 0 },
        };
        // It syncs the folder, too.
        manifest.write(&*folder.disk, to, folder.identity)?;
        copying.sum(PathBuf::from(SEGMENTS_FILE), false)?;
        let mut files = copying.files;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(BackedUp { identity: folder.identity, sequence, documents, passages, files })
    }
}

fn totals(named: &[Named]) -> (u64, u64) {
    let documents = named.iter().map(|named| u64::from(named.live)).sum();
    (documents, named.iter().map(|named| named.live_passages).sum())
}

fn segment_dir(number: u32) -> PathBuf {
    PathBuf::from(segment::name_of(number.into()))
}

/// Reads a segment to the last byte.
fn check_whole(segment: &Segment, stop: &Stop) -> Result<(), StoreError> {
    let damages = segment.verify(stop).map_err(|error| unless_stopped(segment.path(), error, stop))?;
    match damages.into_iter().next() {
        None => Ok(()),
        Some(segment::Damage { path, offset, reason }) => {
            Err(SegmentError::Corrupt { path, offset, reason }.into())
        }
    }
}

fn unless_stopped(path: &Path, error: SegmentError, stop: &Stop) -> StoreError {
    match stop.check() {
        Err(stopped) => system(path, stopped),
        Ok(()) => error.into(),
    }
}

impl Copying<'_> {
    /// Gives the files of a segment second names, or copies them.
    fn segment(&mut self, segment: &Segment, number: u32) -> Result<(), StoreError> {
        let inside = segment_dir(number);
        let dir = self.to.join(&inside);
        self.disk.create_dir(&dir).map_err(|e| StoreError::full_or_io(&dir, e))?;
        for (name, bytes) in segment.bytes() {
            let (from, to) = (segment.path().join(&name), dir.join(&name));
            // Whatever keeps a file from having two names: another device, a file system that has none, too many.
            if self.links && self.disk.hard_link(&from, &to).is_ok() {
                self.sum(inside.join(name), true)?;
            } else {
                let sum = self.copy(&from, &to, bytes)?;
                self.files.push(CopiedFile { path: inside.join(name), sum, is_linked: false });
            }
        }
        self.disk.sync_dir(&dir).map_err(|e| StoreError::io(&dir, e))
    }

    fn copy(&self, from: &Path, to: &Path, bytes: u64) -> Result<Sum, StoreError> {
        let room = self.disk.available(self.to).map_err(|e| StoreError::io(self.to, e))?;
        if room < bytes.saturating_add(RESERVE_BYTES) {
            return Err(StoreError::DiskFull { path: to.to_owned() });
        }
        let reading = |e| StoreError::io(from, e);
        let writing = |e| StoreError::full_or_io(to, e);
        let file = self.disk.read_only(from).map_err(reading)?;
        let copy = self.disk.create(to).map_err(writing)?;
        let sum =
            sums::read(&*file, self.stop, reading, |at, piece| copy.write_at(at, piece).map_err(writing))?;
        copy.sync_all().map_err(writing)?;
        Ok(sum)
    }

    /// Notes a file of the copy.
    fn sum(&mut self, path: PathBuf, is_linked: bool) -> Result<(), StoreError> {
        let at = self.to.join(&path);
        let sum = sums::of(&**self.disk, &at, self.stop).map_err(|e| StoreError::io(&at, e))?;
        self.files.push(CopiedFile { path, sum, is_linked });
        Ok(())
    }
}

/// A copy of a collection, to be read.
pub(crate) struct Copy<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    /// The folder of the copy.
    pub(crate) dir: &'a Path,
    /// Of the collection that was copied.
    pub(crate) identity: Identity,
    pub(crate) space: Space,
    /// What each file should be, by its path below `dir`; `None` for one that is not of the copy.
    pub(crate) sums: &'a dyn Fn(&Path) -> Option<Sum>,
}

impl Copy<'_> {
    /// Compares what was read of a file, whose path below the folder of the copy is given.
    fn expect(&self, inside: &Path, got: Sum) -> Result<(), SegmentError> {
        let path = self.dir.join(inside);
        let reason = match (self.sums)(inside) {
            None => "the backup's own list does not name it".to_owned(),
            Some(sum) => match differs(sum, got) {
                None => return Ok(()),
                Some(reason) => reason,
            },
        };
        Err(SegmentError::Corrupt { path, offset: 0, reason })
    }

    /// Reads a small file of the copy and compares it.
    fn check(&self, inside: &Path, stop: &Stop) -> Result<(), StoreError> {
        let path = self.dir.join(inside);
        let sum = sums::of(&**self.disk, &path, stop).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => StoreError::corrupt(&path, format!("it is missing; {REMEDY}")),
            io::ErrorKind::InvalidInput => StoreError::corrupt(&path, format!("{e}; {REMEDY}")),
            _ => StoreError::io(&path, e),
        })?;
        self.expect(inside, sum).map_err(damaged)
    }

    fn manifest(&self, stop: &Stop) -> Result<Manifest, StoreError> {
        self.check(Path::new(SEGMENTS_FILE), stop)?;
        let manifest = Manifest::read(&**self.disk, self.dir, self.identity)?;
        let path = Manifest::path(self.dir);
        let manifest =
            manifest.ok_or_else(|| StoreError::corrupt(&path, format!("it is missing; {REMEDY}")))?;
        let dimension = self.space.dim.as_u32();
        if manifest.dimension != dimension {
            let reason = format!(
                "its vectors have {} numbers, and the collection's description says {dimension}; {REMEDY}",
                manifest.dimension
            );
            return Err(StoreError::corrupt(&path, reason));
        }
        Ok(manifest)
    }

    /// Calls whose changes are in the copy.
    fn requests(&self, manifest: &Manifest, stop: &Stop) -> Result<Vec<Arc<Request>>, StoreError> {
        if manifest.requests == 0 {
            return Ok(Vec::new());
        }
        self.check(Path::new(REQUESTS_FILE), stop)?;
        requests::read(&**self.disk, self.dir, self.identity, manifest.requests)
    }

    fn name(&self, number: u32) -> Name {
        Name { collection: self.identity, number: number.into() }
    }
}

/// In what a file differs from what it should be; `None` if it does not.
pub(crate) fn differs(expected: Sum, got: Sum) -> Option<String> {
    if expected.bytes != got.bytes {
        return Some(format!(
            "it has {} bytes, and had {} when the backup was made",
            got.bytes, expected.bytes
        ));
    }
    (expected != got).then(|| "its SHA-256 is another than when the backup was made".to_owned())
}

/// What is said of a damaged file of a copy.
fn damaged(error: SegmentError) -> StoreError {
    match error {
        SegmentError::Corrupt { path, offset: 0, reason } => {
            StoreError::corrupt(&path, format!("{reason}; {REMEDY}"))
        }
        SegmentError::Corrupt { path, offset, reason } => {
            StoreError::corrupt(&path, format!("at byte {offset}: {reason}; {REMEDY}"))
        }
        SegmentError::Foreign { path, got, expected } => {
            StoreError::corrupt(&path, format!("it is {got}, and this place is that of {expected}; {REMEDY}"))
        }
        error => error.into(),
    }
}

/// Makes of a copy the collection `identity` in `dir`, an empty folder below that of `log`; whoever opens it finds all
/// that is in the copy. Until the last step nothing in `dir` passes for a collection.
///
/// # Errors
/// [`StoreError::Corrupt`], naming the file, if anything of the copy is damaged or missing; [`StoreError::IdentityTaken`];
/// [`StoreError::DiskFull`]; [`StoreError::Io`], also if it was told to stop. What was made by then is the caller's to
/// remove.
pub(crate) fn restore(
    copy: &Copy<'_>,
    log: &Arc<FolderLog>,
    dir: &Path,
    identity: Identity,
    stop: &Stop,
) -> Result<(), StoreError> {
    let manifest = copy.manifest(stop)?;
    log.claim(identity)?;
    let made = fill(copy, &manifest, log, dir, identity, stop).and_then(|segments| {
        let sequence = log.announce(identity)?;
        let done = copy.requests(&manifest, stop)?;
        if !done.is_empty() {
            requests::write(&**log.disk(), dir, identity, sequence, &done)?;
        }
        let new = Manifest {
            log: log.identity(),
            covered: sequence,
            segments,
            removable: Vec::new(),
            requests: if done.is_empty() { 0 } else { sequence },
            ..manifest
        };
        new.write(&**log.disk(), dir, identity)
    });
    if made.is_err() {
        log.forget(identity);
    }
    made
}

/// Copies the segments with their deletions, and reads the copies to the last byte.
fn fill(
    copy: &Copy<'_>,
    manifest: &Manifest,
    log: &Arc<FolderLog>,
    dir: &Path,
    identity: Identity,
    stop: &Stop,
) -> Result<Vec<Named>, StoreError> {
    let disk = log.disk();
    let bytes = manifest.segments.iter().fold(RESERVE_BYTES, |sum, named| sum.saturating_add(named.bytes));
    if disk.available(dir).map_err(|e| StoreError::io(dir, e))? < bytes {
        return Err(StoreError::DiskFull { path: dir.to_owned() });
    }
    let folder = Folder::new(disk, log.cache(), dir, identity, copy.space.clone());
    let spaces = std::slice::from_ref(&copy.space);
    let mut segments = Vec::with_capacity(manifest.segments.len());
    for named in &manifest.segments {
        let (from, to) =
            (copy.name(named.number), Name { collection: identity, number: named.number.into() });
        let inside = segment_dir(named.number);
        let expect = |file: &str, sum| copy.expect(&inside.join(file), sum);
        let (from, to) = ((copy.dir, from), (dir, to));
        let adopt = Adopt { disk, from, to, spaces, cache: log.cache(), stop, expect: &expect };
        let adopted = adopt.run().map_err(|error| match stop.check() {
            Err(stopped) => system(copy.dir, stopped),
            Ok(()) => damaged(error),
        })?;
        drop(adopted);
        let version = u64::from(named.deletions > 0);
        if version > 0 {
            copy.check(Path::new(&segment::deleted_name(named.number.into(), named.deletions)), stop)?;
            let (dir, name) = from;
            let gone = Deleted::read(disk, dir, name, named.deletions, named.rows).map_err(damaged)?;
            // What the log that it counted says is nothing to the collection's own.
            let gone = Deleted { version, sequence: 0, rows: gone.rows };
            let (dir, name) = to;
            gone.write(disk, dir, name, named.rows)?;
        }
        let part = Sealed::open(&folder, &Named { deletions: version, ..*named }, version)?;
        check_whole(part.sealed.segment(), stop)?;
        segments.push(Named::of(&part));
    }
    Ok(segments)
}

/// What reading a copy found.
#[derive(Debug, Default)]
pub(crate) struct CheckedCopy {
    pub(crate) documents: u64,
    pub(crate) passages: u64,
    pub(crate) segments: usize,
    pub(crate) faults: Vec<Fault>,
}

/// Reads every section of every file of a copy, and compares what they say of each other. Whoever calls it has compared
/// the files with their sums.
///
/// # Errors
/// [`StoreError::Io`] if it was told to stop; [`StoreError::NoHandle`]. Damage is no error.
pub(crate) fn verify(copy: &Copy<'_>, stop: &Stop) -> Result<CheckedCopy, StoreError> {
    let mut checked = CheckedCopy::default();
    let note = |error: StoreError, faults: &mut Vec<Fault>| -> Result<(), StoreError> {
        stop.check().map_err(|stopped| system(copy.dir, stopped))?;
        match error {
            StoreError::Corrupt { path, reason } => {
                let reason = reason.split("; ").next().unwrap_or(&reason).to_owned();
                faults.push(Fault::hopeless(&path, reason, REMEDY));
            }
            StoreError::OtherCollection { ref path, .. } => {
                faults.push(Fault::hopeless(path, "it is of another collection", REMEDY));
            }
            StoreError::NewerFormat { ref path, .. } | StoreError::NotUnderstood { ref path, .. } => {
                faults.push(Fault::newer(path, &error));
            }
            StoreError::Io { path, source } => {
                faults.push(Fault::hopeless(&path, format!("it cannot be read: {source}"), REMEDY));
            }
            error => return Err(error),
        }
        Ok(())
    };
    let manifest = match copy.manifest(stop) {
        Ok(manifest) => manifest,
        Err(error) => {
            note(error, &mut checked.faults)?;
            return Ok(checked);
        }
    };
    if let Err(error) = copy.requests(&manifest, stop) {
        note(error, &mut checked.faults)?;
    }
    (checked.documents, checked.passages) = totals(&manifest.segments);
    checked.segments = manifest.segments.len();
    let cache = Arc::new(BlockCache::new(CACHE_BYTES));
    let folder = Folder::new(copy.disk, &cache, copy.dir, copy.identity, copy.space.clone());
    for named in &manifest.segments {
        let before = checked.faults.len();
        let opened = Segment::open(
            copy.disk,
            copy.dir,
            copy.name(named.number),
            std::slice::from_ref(&copy.space),
            &cache,
        );
        let read = opened.and_then(|segment| segment.verify(stop));
        let gone = if named.deletions > 0 {
            Deleted::verify(copy.disk, copy.dir, copy.name(named.number), named.deletions, named.rows, stop)
        } else {
            Ok(Vec::new())
        };
        for read in [read, gone] {
            match read {
                Ok(damages) => checked.faults.extend(damages.into_iter().map(|damage| Fault {
                    offset: Some(damage.offset),
                    ..Fault::hopeless(&damage.path, damage.reason, REMEDY)
                })),
                Err(error) => note(damaged(error), &mut checked.faults)?,
            }
        }
        if checked.faults.len() == before
            && let Err(error) = Sealed::open(&folder, named, named.deletions)
        {
            note(error, &mut checked.faults)?;
        }
    }
    Ok(checked)
}
