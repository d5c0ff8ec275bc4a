#![doc = include_str!("FORMAT.md")]
//!
//! # How it is kept
//!
//! Documents with their vectors, as one durable unit each: the storage of one collection over the log of its folder and
//! segments.
//!
//! What is true: the segments that the manifest names, their deletions, and the entries of the log after the last one
//! that these hold. A batch is one entry. It is applied to what lies in memory when it is durable, and answered then.
//! [`Store::tidy`] and [`Store::merge`] seals what grew, merges segments, and lets go of the log; reads and writes go on meanwhile.
//!
//! A document has a number of 64 bits, one more than the document before it, which is never given out again. So within a
//! segment and over segments a number leads to its row by binary search.
//!
//! A buried document is gone for a restart, and can be read until it is merged away; who holds a [`Snapshot`] can read
//! it for as long as that is held.
//!
//! | file | what |
//! |---|---|
//! | `entries.rs` | what the store says in the log |
//! | `growing.rs` | documents that no segment holds yet |
//! | `sealed.rs` | a segment as the store sees it |
//! | `ids.rs` | whether an id may be in a segment |
//! | `state.rs` | all documents as of the last entry, and snapshots |
//! | `manifest.rs` | the file that says which segments there are |
//! | `backup.rs` | a copy as of one moment, and a collection made of one |
//! | `maintain.rs` | sealing, merging, carrying forward |
//! | `requests.rs` | calls that were done, by their ids |
//! | `remains.rs` | what a kill left in the folder |
//! | `take_over.rs` | a store of sled becomes one of segments |
//! | `logs.rs` | the log of a folder, and who is in it |
//! | `verify/` | everything that is kept, read to the last byte, and what is wrong with it |
//! | `repair/` | what can still be read of it, made whole again |

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
};

pub use crate::log::Durability;
pub(crate) use crate::segment::{Living, SegmentError, Space};
use crate::{
    files::disk::Disk,
    store::{Identity, StoreError, body::Body},
    value::{Payload, PointId},
};

pub(crate) mod backup;
mod entries;
mod growing;
mod ids;
pub(crate) mod logs;
pub(crate) mod maintain;
pub(crate) mod manifest;
mod remains;
pub(crate) mod repair;
pub(crate) mod requests;
mod sealed;
mod state;
pub(crate) mod take_over;
#[cfg(test)]
mod tests;
pub(crate) mod verify;

use entries::{Batch, Carried, Entry, Gone, Put};
pub(crate) use ids::{IdHash, Ids};
pub use logs::FolderLog;
pub(crate) use logs::Orphan;
pub use logs::StoreSizes;
use logs::{Left, Parked, Ticket};
pub(crate) use maintain::Tidied;
use manifest::Manifest;
use requests::Requests;
pub(crate) use requests::{REQUESTS_MAX, Request};
pub(crate) use sealed::SPACE;
use sealed::{Folder, Sealed};
use state::State;
pub(crate) use state::{Part, Snapshot};

/// How a store is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// What grew is sealed when it has so many bytes; default [`SEAL_BYTES`].
    pub(crate) seal_bytes: usize,
    /// What grew is carried forward rather than sealed if it has fewer bytes; default [`CARRY_BYTES`].
    pub(crate) carry_bytes: usize,
    /// Segments are merged when there are more; default [`SEGMENTS_MAX`].
    pub(crate) segments_max: usize,
}

/// Default of [`Options::seal_bytes`].
pub(crate) const SEAL_BYTES: usize = 64 << 20;

/// Default of [`Options::carry_bytes`].
pub(crate) const CARRY_BYTES: usize = 1 << 20;

/// Default of [`Options::segments_max`].
pub(crate) const SEGMENTS_MAX: usize = 10;

/// How many document numbers are reserved at a time for batches that are not synced; an opening begins after them.
const RESERVED_NUMBERS: u64 = 1 << 20;

/// Documents are refused while this many times [`Options::seal_bytes`] wait to be sealed.
const UNSEALED_MAX: usize = 4;

impl Options {
    /// The defaults, sealed at so many bytes.
    pub(crate) fn sealed_at(seal_bytes: usize) -> Self {
        Options { seal_bytes, carry_bytes: CARRY_BYTES.min(seal_bytes / 4), segments_max: SEGMENTS_MAX }
    }
}

/// What is stored of a document apart from text and vectors.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Head {
    /// As the collection gave it.
    pub(crate) body: Body,
    text_bytes: u64,
}

impl Head {
    fn of(put: &Put, dir: &Path) -> Result<Self, StoreError> {
        Ok(Head { body: Body::decode(&put.body, dir)?, text_bytes: put.text_bytes() })
    }

    /// How many vectors it has.
    pub(crate) fn passages(&self) -> u32 {
        u32::try_from(self.body.passages.len()).unwrap_or(u32::MAX)
    }

    /// Bytes of the document's text, which need not be read to know it.
    pub(crate) fn text_bytes(&self) -> usize {
        usize::try_from(self.text_bytes).unwrap_or(usize::MAX)
    }
}

/// What [`Store::load`] found of a document.
pub(crate) struct Loaded {
    pub(crate) number: u64,
    pub(crate) id: PointId,
    pub(crate) content_hash: [u8; 16],
    /// How many vectors it has.
    pub(crate) passages: u32,
    /// All its vectors, one after the other.
    pub(crate) vectors: Vec<f32>,
    /// Where it is in no segment: those of a segment have columns.
    pub(crate) payload: Option<Payload>,
}

/// Changes that are committed together.
#[derive(Debug, Default)]
pub(crate) struct StoreBatch {
    batch: Batch,
    /// Why it cannot be committed.
    refused: Option<String>,
}

impl StoreBatch {
    /// Adds a document under a number above all that were used before, with a passage of the text for each vector: a
    /// batch with any other is refused.
    pub(crate) fn put<'a>(
        &mut self,
        number: u64,
        body: &Body,
        text: &str,
        vectors: impl ExactSizeIterator<Item = &'a [f32]>,
    ) {
        // Later, when it is sealed, nobody could be told any more.
        let is_part = |range: &Range<u32>| text.get(range.start as usize..range.end as usize).is_some();
        if body.passages.len() != vectors.len() || !body.passages.iter().all(is_part) {
            self.refused = Some(format!("document {number} has not one passage of its text for each vector"));
        }
        self.batch.puts.push(Arc::new(Put::new(number, body.encode(), text, vectors)));
    }

    /// Marks a document, which has so many vectors, as gone.
    pub(crate) fn bury(&mut self, number: u64, passages: u32) {
        self.batch.buried.push(Gone { number, passages });
    }

    /// Says that these changes are what a call did, which is remembered with them.
    pub(crate) fn note(&mut self, request: Request) {
        self.batch.requests.push(Arc::new(request));
    }

    /// Whether there is nothing to commit.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.puts.is_empty() && self.batch.buried.is_empty() && self.batch.requests.is_empty()
    }
}

/// How much a collection holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Documents that are not buried.
    pub(crate) live: u64,
    /// Documents that are buried and take space still.
    pub(crate) dead: u64,
    /// Segments.
    pub(crate) segments: usize,
    /// Bytes of the segments' files.
    pub(crate) segment_bytes: u64,
    /// Bytes of what no segment holds yet, in memory, and about as many in the log.
    pub(crate) unsealed_bytes: u64,
    /// Bytes of the log, which all collections of the folder share.
    pub(crate) log_bytes: u64,
}

/// Storage of one collection. Reads and writes from any thread. Dropping it is closing it.
pub(crate) struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    log: Arc<FolderLog>,
    folder: Folder,
    options: Options,
    state: RwLock<State>,
    /// Calls that were done. Taken after `state` where both are.
    requests: Mutex<Requests>,
    submitting: Mutex<Submitting>,
    /// Document numbers below may be given out by batches that are not synced: that they may is on the device.
    reserved: AtomicU64,
    /// Told when no batch waits to be answered.
    answered: Condvar,
    kept: Mutex<Kept>,
    /// Held by whoever seals or carries forward.
    sealing: Mutex<()>,
    /// Held by whoever merges.
    merging: Mutex<()>,
    /// What the manifest on the device covers, or an earlier one did.
    covered: AtomicU64,
    /// Why what grew could not be sealed at the last try.
    stuck: Mutex<Option<String>>,
    failed: OnceLock<String>,
    closed: AtomicBool,
    unknown: OnceLock<Vec<PathBuf>>,
}

/// Which batches were given to the log and are not answered yet.
#[derive(Debug)]
struct Submitting {
    /// Every document number in them is below.
    next: u64,
    in_flight: usize,
}

/// What the folder holds.
#[derive(Debug)]
struct Kept {
    /// As it was last written.
    manifest: Manifest,
    /// Every segment number given out is below.
    next_segment: u32,
    /// Segments that are being made.
    building: Vec<u32>,
}

/// A batch that was given to the log.
#[derive(Debug)]
pub(crate) struct Pending {
    answer: mpsc::Receiver<Result<(), StoreError>>,
    path: PathBuf,
}

impl Pending {
    /// Waits until the batch is durable and applied.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub(crate) fn wait(self) -> Result<(), StoreError> {
        self.answer.recv().unwrap_or_else(|_| Err(StoreError::io(&self.path, ended())))
    }
}

/// Tells whoever gave the log a batch what became of it; also where the log ends without a word, as by a panic.
struct Answer<F: FnOnce(Result<(), StoreError>)> {
    shared: Arc<Shared>,
    /// The log took the batch.
    is_taken: Arc<AtomicBool>,
    done: Option<F>,
}

impl<F: FnOnce(Result<(), StoreError>)> Answer<F> {
    fn give(&mut self, result: Result<(), StoreError>) {
        if let Some(done) = self.done.take() {
            self.shared.answered();
            done(result);
        }
    }
}

impl<F: FnOnce(Result<(), StoreError>)> Drop for Answer<F> {
    fn drop(&mut self) {
        if self.is_taken.load(Ordering::SeqCst) {
            self.give(Err(StoreError::io(&self.shared.folder.dir, ended())));
        }
    }
}

fn ended() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::NotConnected, "it was closed before this write was answered")
}

impl Store {
    /// Makes a new store in `dir`, which must be there, and announces it in the log.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::DiskFull`]; [`StoreError::IdentityTaken`] if another collection of the folder
    /// goes by the same number in the log: draw another identity.
    pub(crate) fn create(
        log: &Arc<FolderLog>,
        dir: &Path,
        identity: Identity,
        space: Space,
        options: Options,
    ) -> Result<Self, StoreError> {
        let folder = Folder::new(log.disk(), log.cache(), dir, identity, space);
        let path = Manifest::path(dir);
        match folder.disk.read_only(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Ok(_) => return Err(StoreError::io(&path, std::io::ErrorKind::AlreadyExists.into())),
            Err(e) => return Err(StoreError::io(&path, e)),
        }
        log.claim(identity)?;
        let made = log.announce(identity).and_then(|sequence| {
            let manifest = Manifest::new(log.identity(), folder.dimension, sequence);
            manifest.write(&*folder.disk, dir, identity).map(|()| manifest)
        });
        match made {
            Ok(manifest) => {
                log.opened(identity);
                Ok(Store(Self::start(Arc::clone(log), folder, options, manifest, Vec::new())))
            }
            Err(error) => {
                log.forget(identity);
                Err(error)
            }
        }
    }

    fn start(
        log: Arc<FolderLog>,
        folder: Folder,
        options: Options,
        manifest: Manifest,
        parts: Vec<Part>,
    ) -> Arc<Shared> {
        let covered = manifest.covered;
        let state = State::new(parts, covered, manifest.next_number);
        Arc::new(Shared {
            requests: Mutex::new(Requests::new(log.requests_max())),
            reserved: AtomicU64::new(manifest.reserved),
            log,
            folder,
            options,
            submitting: Mutex::new(Submitting { next: state.next, in_flight: 0 }),
            answered: Condvar::new(),
            state: RwLock::new(state),
            kept: Mutex::new(Kept { next_segment: manifest.next_segment, manifest, building: Vec::new() }),
            sealing: Mutex::default(),
            merging: Mutex::default(),
            covered: AtomicU64::new(covered),
            stuck: Mutex::default(),
            failed: OnceLock::new(),
            unknown: OnceLock::new(),
            closed: AtomicBool::new(false),
        })
    }

    /// Opens a store: its segments, and what the log says after them. One that is refused keeps every byte it was found
    /// with.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], naming the file and what to do, if anything is missing or damaged that this collection
    /// needs; [`StoreError::OtherCollection`], [`StoreError::NewerFormat`], [`StoreError::Io`].
    pub(crate) fn open(
        log: &Arc<FolderLog>,
        dir: &Path,
        identity: Identity,
        space: Space,
        options: Options,
    ) -> Result<Self, StoreError> {
        log.claim(identity)?;
        let folder = Folder::new(log.disk(), log.cache(), dir, identity, space);
        let dimension = folder.dimension;
        let manifest = Manifest::read(&*folder.disk, dir, identity)?
            .ok_or_else(|| Manifest::missing(dir, "without it nobody can tell which documents there are"))?;
        if manifest.dimension != dimension {
            let reason = format!(
                "its vectors have {} numbers, and the collection's description says {dimension}: it may be of another collection; put the collection's whole folder back from a backup",
                manifest.dimension
            );
            return Err(StoreError::corrupt(&Manifest::path(dir), reason));
        }
        if manifest.log != log.identity() {
            let reason = "the log that it belongs to is that of another data folder, and may have documents that are not here; open it there, or put the collection's folder back from a backup of this data folder";
            return Err(StoreError::corrupt(&Manifest::path(dir), reason.to_owned()));
        }
        let found = remains::find(&folder, &manifest)?;
        let done = requests::read(&*folder.disk, dir, identity, manifest.requests)?;
        let mut parts = Vec::with_capacity(manifest.segments.len());
        for named in &manifest.segments {
            parts.push(Sealed::open(&folder, named, found.deletions_of(named.number))?);
        }
        let shared = Self::start(Arc::clone(log), folder, options, manifest, parts);
        shared.remember(&done);
        let was_closed = shared.replay()?;
        found.check_later(&shared.folder, shared.read_state().next)?;
        if !was_closed {
            // Numbers of documents that the power may have taken were given out.
            let mut state = shared.write_state();
            state.next = state.next.max(shared.reserved.load(Ordering::SeqCst));
        }
        // After a failed sync it can be read still, and the next start removes them.
        if shared.log.failed().is_none() {
            found.remove(&shared.folder)?;
        }
        let _ = shared.unknown.set(found.unknown);
        log.opened(identity);
        shared.lock_submitting().next = shared.read_state().next;
        shared.tell_needed();
        // Only now, since dropping it leaves to the log what it has.
        Ok(Store(shared))
    }

    /// The log of its folder.
    pub(crate) fn log(&self) -> &Arc<FolderLog> {
        &self.0.log
    }

    /// Whether there is nothing for [`Store::tidy`] to do, as far as a look tells.
    pub(crate) fn is_tidy(&self) -> bool {
        let shared = &self.0;
        let state = shared.read_state();
        state.frozen.is_none()
            && state.growing.bytes() < shared.options.seal_bytes
            && !shared.folder.has_retired()
            && !shared.log.is_pinned_by(shared.folder.identity)
    }

    /// Whether no document is taken until some of those before are sealed; see [`Store::tidy`].
    pub(crate) fn is_behind(&self) -> bool {
        self.0.is_behind()
    }

    /// Whether what grew could not be sealed at the last try.
    pub(crate) fn is_stuck(&self) -> bool {
        self.0.lock_stuck().is_some()
    }

    /// Whether enough grew for a segment of its own once nothing more comes for a while.
    pub(crate) fn is_worth_a_segment(&self) -> bool {
        self.0.read_state().growing.bytes() > self.0.options.carry_bytes
    }

    /// Which collection it is of.
    pub(crate) fn identity(&self) -> Identity {
        self.0.folder.identity
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.0.folder.dir
    }

    /// Segments in its folder that it does not know, found when it was opened, and left alone.
    #[cfg(test)]
    pub(crate) fn unknown(&self) -> &[PathBuf] {
        self.0.unknown.get().map_or(&[], Vec::as_slice)
    }

    /// Why nothing can be written until a restart.
    pub(crate) fn failed(&self) -> Option<String> {
        self.0.failed()
    }

    /// The lowest document number never given out.
    pub(crate) fn next_number(&self) -> u64 {
        self.0.read_state().next
    }

    /// What came of the call of this id, if it was done and is remembered at the time `now`, in microseconds since 1970.
    pub(crate) fn done(&self, id: &str, now: i64) -> Option<Arc<Request>> {
        self.0.lock_requests().get(id, now)
    }

    /// Vectors of all documents that are not buried.
    pub(crate) fn passages(&self) -> u64 {
        self.0.read_state().passages
    }

    /// Documents that are not buried.
    #[cfg(test)]
    pub(crate) fn documents(&self) -> u64 {
        self.0.read_state().documents
    }

    /// Of the last batch, in the log of the folder: it ascends with every batch, though not by 1.
    pub(crate) fn sequence(&self) -> u64 {
        self.0.read_state().sequence
    }

    /// How much it holds.
    pub(crate) fn stats(&self) -> Stats {
        let state = self.0.read_state();
        let (mut dead, mut unsealed) = (0, 0);
        for part in state.frozen.iter().map(|frozen| &frozen.part).chain([&state.growing]) {
            dead += part.dead() as u64;
            unsealed += part.bytes() as u64;
        }
        Stats {
            live: state.documents,
            dead: dead + state.parts.iter().map(|part| part.deleted.len()).sum::<u64>(),
            segments: state.parts.len(),
            segment_bytes: state.parts.iter().map(|part| part.sealed.bytes()).sum(),
            unsealed_bytes: unsealed,
            log_bytes: self.0.log.bytes(),
        }
    }

    /// Makes all changes of a batch, or none, and returns when they are on the device and can be read.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::NoHandle`], [`StoreError::Busy`]: nothing was done, and the same may be
    /// tried again later. [`StoreError::Io`] after a failed sync: whether it was done, the next start finds out.
    pub(crate) fn commit(&self, batch: StoreBatch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.submit(|_| batch)?.wait()
    }

    /// Gives the log the batch that `build` makes, and does not wait. `build` is told the number that the batch's first
    /// document gets; batches are applied in the order of these calls.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub(crate) fn submit(&self, build: impl FnOnce(u64) -> StoreBatch) -> Result<Pending, StoreError> {
        let (answered, answer) = mpsc::sync_channel(1);
        // Nobody may wait for it any more.
        let told = move |result| _ = answered.send(result);
        self.hand_in(build, Durability::Power, told)?;
        Ok(Pending { answer, path: self.dir().to_owned() })
    }

    /// [`Store::submit`], as durable as asked. `done` is told what became of it, by the thread that writes the log: it
    /// must not take long.
    ///
    /// # Errors
    /// As [`Store::commit`]; `done` is not called then.
    pub(crate) fn hand_in(
        &self,
        build: impl FnOnce(u64) -> StoreBatch,
        durability: Durability,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let shared = &self.0;
        let mut submitting = shared.lock_submitting();
        shared.check_open()?;
        let StoreBatch { mut batch, refused } = build(submitting.next);
        batch.base = shared.covered.load(Ordering::SeqCst);
        if let Some(reason) = refused {
            return Err(shared.invalid(reason));
        }
        let next = shared.check(&batch, submitting.next)?;
        let mut durability = durability;
        let gives_numbers = !batch.puts.is_empty();
        if durability == Durability::Process && gives_numbers && next > shared.reserved.load(Ordering::SeqCst)
        {
            // The numbers that it and those after it give out may be lost with the power, and must not come again.
            (durability, batch.reserved) = (Durability::Power, next.saturating_add(RESERVED_NUMBERS));
        }
        let (kind, payload) = batch.encode();
        let frees_room = batch.puts.is_empty();
        let entry = Entry::Batch(batch);
        let is_taken = Arc::new(AtomicBool::new(false));
        let mut answer =
            Answer { shared: Arc::clone(shared), is_taken: Arc::clone(&is_taken), done: Some(done) };
        let done = move |result: Result<u64, StoreError>| {
            let result = result.map(|sequence| answer.shared.apply(sequence, &entry));
            answer.give(result);
        };
        let ticket = Ticket {
            identity: shared.folder.identity,
            kind,
            payload,
            durability,
            frees_room,
            done: Box::new(done),
        };
        // Before it can be answered, and taken back where it is not taken.
        let in_flight = submitting.in_flight + 1;
        let before = std::mem::replace(&mut *submitting, Submitting { next, in_flight });
        if let Err(refused) = shared.log.append(ticket) {
            *submitting = before;
            return Err(refused);
        }
        is_taken.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// All documents as they are now; see [`Snapshot`].
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.0.read_state().snapshot()
    }

    /// Reads ids and vectors of the documents that are not buried, in the order of their numbers, and checks that there
    /// are as many as there should be. Whoever is told of them has a snapshot taken at the same time.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], also if anything is missing or too much; whatever `each` returns.
    pub(crate) fn load<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(Loaded) -> Result<(), E>,
    ) -> Result<Snapshot, E> {
        let (snapshot, puts, documents, passages) = {
            let state = self.0.read_state();
            (state.snapshot(), state.live_unsealed(), state.documents, state.passages)
        };
        let (mut found, mut found_passages, mut after) = (0, 0, None);
        let mut check = |loaded: &Loaded, dir: &Path| {
            found += 1;
            found_passages += u64::from(loaded.passages);
            let ascends = after.is_none_or(|after| after < loaded.number);
            after = Some(loaded.number);
            if ascends {
                return Ok(());
            }
            Err(StoreError::corrupt(dir, format!("document {} is out of its order", loaded.number)))
        };
        for part in snapshot.parts() {
            part.sealed.know_ids();
            for row in part.living() {
                let loaded = part.sealed.load(row)?;
                check(&loaded, self.dir())?;
                each(loaded)?;
            }
        }
        for put in puts {
            let Body { id, payload, content_hash, .. } = Body::decode(&put.body, self.dir())?;
            let loaded = Loaded {
                number: put.number,
                id,
                content_hash,
                passages: put.passages,
                vectors: put.vectors.clone(),
                payload: Some(payload),
            };
            check(&loaded, self.dir())?;
            each(loaded)?;
        }
        if (found, found_passages) != (documents, passages) {
            let reason = format!(
                "it should hold {documents} documents with {passages} passages; {found} with {found_passages} were found"
            );
            return Err(StoreError::corrupt(self.dir(), reason).into());
        }
        Ok(snapshot)
    }

    /// Whether something that can be read may not be on the device yet.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.0.log.is_unsynced()
    }

    /// [`Store::sync`], without waiting: `done` is told when it is done, by the thread that writes the log.
    ///
    /// # Errors
    /// As [`Store::commit`]; `done` is not called then.
    pub(crate) fn sync_and(
        &self,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) -> Result<(), StoreError> {
        self.0.check_open()?;
        self.0.log.sync_and(done)
    }

    /// Makes durable all that can be read, also what was written for [`Durability::Process`]. Whoever saves what was made of
    /// it calls this before.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.0.log.sync()
    }

    /// Takes no further batch, waits until those that it took are answered, and leaves to the log what no segment holds.
    /// Idempotent; what was committed needs it not.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the remains of merges cannot be removed; the next opening does it.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        self.0.close();
        self.0.remove_retired()
    }
}

/// Which collection the segments in `dir` are of; `None` if there are none.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::NewerFormat`], [`StoreError::Io`].
pub(crate) fn identity_in(disk: &dyn Disk, dir: &Path) -> Result<Option<Identity>, StoreError> {
    Ok(Manifest::look(disk, dir)?.map(|(identity, _)| identity))
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.0.folder.dir).field("stats", &self.stats()).finish()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Shared {
    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, requests: &[Arc<Request>]) {
        if !requests.is_empty() {
            let mut known = self.lock_requests();
            requests.iter().for_each(|request| known.insert(request));
        }
    }

    /// Those that are remembered still.
    fn remembered(&self, mut requests: Vec<Arc<Request>>) -> Vec<Arc<Request>> {
        if !requests.is_empty() {
            let known = self.lock_requests();
            requests.retain(|request| known.has(request));
        }
        requests
    }

    fn lock_submitting(&self) -> MutexGuard<'_, Submitting> {
        self.submitting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the log says after the manifest. Whether this process had it open before and closed it.
    fn replay(&self) -> Result<bool, StoreError> {
        let Folder { identity, dimension, .. } = self.folder;
        let covered = self.lock_kept().manifest.covered;
        let left = self.log.left(identity, covered)?;
        let was_closed = matches!(left, Left::Parked(_));
        match left {
            Left::Entries(entries) => {
                for read in entries {
                    let read = read?;
                    let entry = Entry::decode(read.kind, &read.bytes, dimension, &read.path)?;
                    if let Some(reason) = entry.refuses(covered) {
                        return Err(StoreError::corrupt(
                            &Manifest::path(&self.folder.dir),
                            format!("{reason}; put the newest folder of this collection back"),
                        ));
                    }
                    self.apply(read.sequence, &entry);
                }
            }
            Left::Parked(Parked { carried, sequence, needed }) => {
                self.reserved.fetch_max(carried.reserved, Ordering::SeqCst);
                if needed.is_some() {
                    self.apply(sequence, &Entry::Carried(carried));
                }
                let mut state = self.write_state();
                state.sequence = sequence;
                state.growing.set_first(needed);
            }
        }
        // A segment that cannot be read.
        match self.failed.get() {
            Some(reason) => Err(StoreError::corrupt(&self.folder.dir, reason.clone())),
            None => Ok(was_closed),
        }
    }

    fn close(&self) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut submitting = self.lock_submitting();
        while submitting.in_flight > 0 {
            submitting = self.answered.wait(submitting).unwrap_or_else(PoisonError::into_inner);
        }
        drop(submitting);
        // Whoever seals or carries forward is done before what is left is told.
        let _sealing = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        let _merging = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.read_state();
        let (mut puts, mut buried, mut requests) = (Vec::new(), Vec::new(), Vec::new());
        for part in state.frozen.iter().map(|frozen| &frozen.part).chain([&state.growing]) {
            let mut content = part.content();
            puts.append(&mut content.puts);
            buried.append(&mut content.buried);
            requests.append(&mut content.requests);
        }
        let requests = self.remembered(requests);
        let base = self.covered.load(Ordering::SeqCst);
        let reserved = self.reserved.load(Ordering::SeqCst);
        let (as_of, next) = (state.sequence, state.next);
        let carried = Carried { base, as_of, next, puts, buried, requests, reserved };
        self.log
            .park(self.folder.identity, Parked { carried, sequence: state.sequence, needed: state.needed() });
    }

    /// The refusal of a batch that is no batch: a bug of the caller.
    fn invalid(&self, reason: String) -> StoreError {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, reason);
        StoreError::io(&self.folder.dir, error)
    }

    fn lock_kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing can be written until a restart: here, or in the whole folder.
    fn failed(&self) -> Option<String> {
        self.failed.get().cloned().or_else(|| self.log.failed())
    }

    /// Takes no batch any more until a restart, for this reason; the first one counts.
    fn fail(&self, reason: &str) {
        tracing::error!(dir = %self.folder.dir.display(), reason, "a store takes no further writes");
        let _ = self.failed.set(reason.to_owned());
    }

    fn check_open(&self) -> Result<(), StoreError> {
        let refused =
            |kind, reason: String| Err(StoreError::io(&self.folder.dir, std::io::Error::new(kind, reason)));
        match self.failed() {
            Some(reason) => refused(std::io::ErrorKind::Other, reason),
            None if self.closed.load(Ordering::SeqCst) => {
                refused(std::io::ErrorKind::NotConnected, "it is closed".to_owned())
            }
            None => Ok(()),
        }
    }

    fn lock_stuck(&self) -> MutexGuard<'_, Option<String>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether documents wait to be sealed, so many that no more are taken.
    fn is_behind(&self) -> bool {
        let state = self.read_state();
        let frozen = state.frozen.as_ref().map_or(0, |frozen| frozen.part.bytes());
        frozen + state.growing.bytes() >= UNSEALED_MAX * self.options.seal_bytes
    }

    /// Refuses a batch that could not be sealed later, or that does not fit. The number after its last document's.
    fn check(&self, batch: &Batch, mut next: u64) -> Result<u64, StoreError> {
        if batch.puts.is_empty() {
            return Ok(next);
        }
        if self.is_behind() {
            let reason = match &*self.lock_stuck() {
                Some(reason) => format!("documents before these cannot be put into a segment: {reason}"),
                None => "documents come faster than they can be put into segments".to_owned(),
            };
            return Err(StoreError::Busy { path: self.folder.dir.clone(), reason });
        }
        for put in &batch.puts {
            let numbers = u64::from(put.passages) * u64::from(self.folder.dimension);
            if put.number < next || put.vectors.len() as u64 != numbers {
                let dimension = self.folder.dimension;
                return Err(self.invalid(format!(
                    "document {} is out of its order, or has vectors of another dimension than {dimension}",
                    put.number
                )));
            }
            next = put.number + 1;
        }
        Ok(next)
    }

    /// Applies an entry that is durable. Called in the order of the log.
    fn apply(&self, sequence: u64, entry: &Entry) {
        loop {
            let (snapshot, generation) = {
                let state = self.read_state();
                (state.snapshot(), state.generation)
            };
            let located = match snapshot.locate(entry) {
                Ok(located) => located,
                // It is durable all the same, and the next start applies it or is refused.
                Err(error) => {
                    self.fail(&format!("a document that is buried cannot be found: {error}"));
                    Vec::new()
                }
            };
            // So that what is deleted is marked in place and not in a copy.
            drop(snapshot);
            let mut state = self.write_state();
            if state.generation == generation {
                state.apply(sequence, entry, &located);
                drop(state);
                let (Entry::Batch(Batch { requests, reserved, .. })
                | Entry::Carried(Carried { requests, reserved, .. })) = entry;
                self.remember(requests);
                self.reserved.fetch_max(*reserved, Ordering::SeqCst);
                return;
            }
        }
    }

    /// A batch was answered, whichever way.
    fn answered(&self) {
        let next = self.read_state().next;
        let mut submitting = self.lock_submitting();
        submitting.in_flight -= 1;
        if submitting.in_flight == 0 {
            // Numbers of batches that were refused are free again.
            submitting.next = next;
            self.answered.notify_all();
        }
    }

    /// Tells the log which entries are needed still. No entry is applied meanwhile: it would be forgotten.
    fn tell_needed(&self) {
        let state = self.read_state();
        self.log.need(self.folder.identity, state.needed());
    }
}
