//! The log of a data folder, as collections see it: whose entries are in it, which of them are needed still, and whose
//! are damaged.
//!
//! The log is replayed once. Of each entry that a collection needs, its place is kept and not its bytes: a collection that
//! is opened reads its own again. What is needed by nobody is cut off, once `log/folder` says so.
//!
//! A collection that is closed leaves what no segment holds with the log, in memory, for its next opening.
//!
//! All that log and collections write goes through one disk that is watched: after a sync that failed anywhere in the
//! folder nothing is written any more.
//!
//! | file | what |
//! |---|---|
//! | `folder_file.rs` | the file `log/folder` |
//! | `manifests.rs` | what the manifests in the folder say |
//! | `places.rs` | entries, read again from where they are |

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
};

use super::entries::{ANNOUNCED, Carried, GONE};
use crate::{
    files::{
        self,
        disk::{Disk, RealDisk},
        watched::Watched,
    },
    log::{self, Damage, Durability, Log, LogError, LogOptions, Sequence},
    segment::BlockCache,
    store::{FINDINGS_TARGET, Identity, StoreError},
    threads::Threads,
};

mod folder_file;
mod manifests;
mod places;

use folder_file::{FOLDER_BESIDE, read_or_make};
pub(super) use folder_file::{FOLDER_FILE, read_folder_file, write_folder_file};
use manifests::Manifests;
pub(super) use places::{Entries, Place};

/// Folder of the log in the data folder.
pub(crate) const LOG_DIR: &str = "log";

/// Folder of the collections' folders in the data folder.
pub(crate) const COLLECTIONS_DIR: &str = "collections";

/// What to do where the log is damaged.
const REMEDY: &str = "`distilface repair` says what is lost and keeps the rest; else put the whole data folder back from one backup, or delete this collection; what its segments hold is whole still";

/// How the log of a folder is kept.
#[derive(Debug, Clone)]
pub(crate) struct FolderOptions {
    pub(crate) log: LogOptions,
    /// Above so many bytes collections are asked to let go of the log's oldest file; default [`LOG_BYTES_MAX`].
    pub(crate) log_bytes_max: u64,
    /// Bytes of unpacked blocks of segments that are kept in memory for all collections; default [`CACHE_BYTES`].
    pub(crate) cache_bytes: usize,
    /// See [`StoreSizes::segment_bytes`].
    pub(crate) segment_bytes: usize,
    /// See [`StoreSizes::requests_max`].
    pub(crate) requests_max: usize,
}

/// Memory and disk that the collections of a folder take besides what they hold.
#[derive(Debug, Clone, Copy)]
pub struct StoreSizes {
    /// Memory in bytes for unpacked blocks of documents, of all collections together. Default 64 MiB.
    pub cache_bytes: usize,
    /// Bytes that a collection keeps in memory and in the log before they become a segment. Default 64 MiB.
    pub segment_bytes: usize,
    /// Bytes of the log above which collections let go of its oldest part. Default 256 MiB.
    pub log_bytes_max: u64,
    /// Calls with a request id that each collection remembers, in memory of at most 512 bytes times this. Default
    /// 100,000.
    pub requests_max: usize,
}

impl Default for StoreSizes {
    fn default() -> Self {
        let (segment_bytes, log_bytes_max) = (super::SEAL_BYTES, LOG_BYTES_MAX);
        let requests_max = super::REQUESTS_MAX;
        StoreSizes { cache_bytes: CACHE_BYTES, segment_bytes, log_bytes_max, requests_max }
    }
}

/// Default of [`FolderOptions::log_bytes_max`].
pub(crate) const LOG_BYTES_MAX: u64 = 256 << 20;

/// A log has so many files, or more, before it is too large.
const FILES_LEAST: u64 = 8;

/// Default of [`FolderOptions::cache_bytes`].
pub(crate) const CACHE_BYTES: usize = 64 << 20;

impl Default for FolderOptions {
    fn default() -> Self {
        FolderOptions {
            log: LogOptions::default(),
            log_bytes_max: LOG_BYTES_MAX,
            cache_bytes: CACHE_BYTES,
            segment_bytes: super::SEAL_BYTES,
            requests_max: super::REQUESTS_MAX,
        }
    }
}

/// The log of a data folder. Many collections share it.
#[derive(Debug)]
pub struct FolderLog {
    disk: Arc<dyn Disk>,
    /// The same one: it knows whether a sync has failed.
    watched: Watched,
    dir: PathBuf,
    cache: Arc<BlockCache>,
    log: Log,
    bytes_max: u64,
    segment_bytes: usize,
    requests_max: usize,
    identity: log::Identity,
    collections: Mutex<BTreeMap<u64, Known>>,
    /// Found when it was opened.
    damages: Vec<Damage>,
    /// Sequence of the last entry that was there when it was opened.
    opened_at: u64,
    /// Of the last entry that was applied.
    last: AtomicU64,
    /// Held by whoever cuts; the sequence below which nothing is needed, as `log/folder` says.
    cutting: Mutex<u64>,
    /// Something was written that its writer wanted no sync for, and that may not be synced yet.
    is_unsynced: AtomicBool,
    /// Held while that is synced: whoever finds nothing to sync must not find a sync that is under way.
    syncing: Mutex<()>,
    /// They must outlive the last turn, which is waited for.
    _threads: Arc<Threads>,
}

impl Drop for FolderLog {
    /// Whoever opens the folder next finds nobody else at its log.
    fn drop(&mut self) {
        self.close();
    }
}

/// Entries of a collection that has no folder, and was not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Orphan {
    /// Which collection, as far as the log says.
    pub(crate) identity: Option<Identity>,
    /// Entries that no segment is known to hold.
    pub(crate) entries: usize,
}

/// What is known of a collection in the log.
#[derive(Debug, Default)]
struct Known {
    identity: Option<Identity>,
    /// Where the entries are that were there when the log was opened and that no segment holds, in order; empty once the
    /// collection was opened.
    places: Vec<Place>,
    /// The first entry that is needed.
    needed: Option<u64>,
    /// Whether it has a folder in the data folder.
    has_folder: bool,
    /// Whether the log has anything of it but that it was announced.
    has_written: bool,
    /// Whether the collection was opened since the log was.
    was_opened: bool,
    parked: Option<Parked>,
    /// The entry that says that it was deleted.
    gone: Option<u64>,
}

impl Known {
    /// Whether its entries are kept although it has no folder.
    fn is_orphan(&self) -> bool {
        !self.has_folder && !self.places.is_empty()
    }
}

/// What a collection that was closed had and no segment has.
#[derive(Debug, Clone)]
pub(super) struct Parked {
    pub(super) carried: Carried,
    pub(super) sequence: u64,
    /// The first entry that it is made of.
    pub(super) needed: Option<u64>,
}

/// What a collection finds of itself in the log.
pub(super) enum Left {
    Entries(Entries),
    Parked(Parked),
}

/// Something to be written. `done` is called in the order of the log.
pub(super) struct Ticket {
    pub(super) identity: Identity,
    pub(super) kind: u8,
    pub(super) payload: Vec<u8>,
    pub(super) durability: Durability,
    pub(super) frees_room: bool,
    pub(super) done: Box<dyn FnOnce(Result<u64, StoreError>) + Send>,
}

/// The number of a collection in the log; 0 is the folder's own.
pub(super) fn id_of(identity: Identity) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = identity.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl FolderLog {
    /// Opens the log of the data folder `root`, which is made if it is not there. One log of a folder may be open at a
    /// time.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the log is missing and there are collections that need it, or if a file in its place
    /// is of another folder; [`StoreError::NewerFormat`], [`StoreError::DiskFull`], [`StoreError::Io`].
    pub fn of(root: &Path, threads: &Arc<Threads>, sizes: StoreSizes) -> Result<Arc<Self>, StoreError> {
        let StoreSizes { cache_bytes, segment_bytes, log_bytes_max, requests_max } = sizes;
        let file_bytes = (log_bytes_max / FILES_LEAST).clamp(64 << 10, LogOptions::FILE_BYTES) & !0xfff;
        let log =
            LogOptions { file_bytes, reserve_bytes: (file_bytes / 16) & !0xfff, ..LogOptions::default() };
        let options = FolderOptions { log, log_bytes_max, cache_bytes, segment_bytes, requests_max };
        files::create_private(root).map_err(|e| StoreError::io(root, e))?;
        Ok(Self::open(&(Arc::new(RealDisk) as _), root, threads, options)?.0)
    }

    /// Which collection the segments in `dir`, a collection's folder, are of; `None` if there are none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::NewerFormat`], [`StoreError::Io`].
    pub(crate) fn collection_in(dir: &Path) -> Result<Option<Identity>, StoreError> {
        super::identity_in(&RealDisk, dir)
    }

    /// Opens the log of the data folder `root`, which is made where there is none yet, and gives its writing to the
    /// committers among `threads`.
    /// What is damaged in it is told, too; a collection that it hits is refused when it is opened.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the log is missing and there are collections that need it; if a file in its place is of
    /// another folder. [`StoreError::NewerFormat`], [`StoreError::DiskFull`], [`StoreError::Io`].
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        root: &Path,
        threads: &Arc<Threads>,
        options: FolderOptions,
    ) -> Result<(Arc<Self>, Vec<Damage>), StoreError> {
        let dir = root.join(LOG_DIR);
        let watched = Watched::new(Arc::clone(disk), root);
        let disk: &Arc<dyn Disk> = &(Arc::new(watched.clone()) as _);
        let manifests = Manifests::look(&**disk, &root.join(COLLECTIONS_DIR))?;
        // Half written; what counts is beside it, and the next writing replaces it.
        let _ = disk.remove(&dir.join(FOLDER_BESIDE));
        let (identity, from) = read_or_make(&**disk, &dir, !manifests.is_empty())?;
        let mut collections: BTreeMap<u64, Known> = BTreeMap::new();
        let mut paths: Vec<Arc<Path>> = Vec::new();
        let open = |from: u64, emit: &mut dyn FnMut(log::Entry<'_>)| {
            let (disk, options) = (Arc::clone(disk), options.log.clone());
            Log::open(disk, &dir, identity, options, Sequence(from), emit)
        };
        let mut opened = open(from, &mut |entry| {
            let known = collections.entry(entry.collection).or_default();
            if entry.kind == ANNOUNCED
                && let Ok(identity) = entry.bytes.try_into()
            {
                known.identity = Some(Identity(identity));
            }
            if entry.kind == GONE {
                known.has_written = false;
                known.places.clear();
                known.gone = Some(entry.sequence.0);
                return;
            }
            known.has_written |= entry.kind != ANNOUNCED;
            if paths.last().is_none_or(|last| **last != *entry.file) {
                paths.push(Arc::from(entry.file));
            }
            let Some(path) = paths.last() else { return };
            known.places.push(Place {
                sequence: entry.sequence.0,
                kind: entry.kind,
                path: Arc::clone(path),
                offset: entry.offset,
                len: u32::try_from(entry.bytes.len()).expect("entries are bounded far below"),
                sum: entry.sum,
            });
        })?;
        let (covered, folders) = manifests.of(&identity);
        if opened.next.0 <= covered {
            // The log has lost what segments were made of. It must not give those sequences out again.
            drop(opened);
            opened = open(covered + 1, &mut |_| {})?;
        }
        for (id, known) in &mut collections {
            match folders.get(id) {
                Some((identity, covered)) => {
                    known.has_folder = true;
                    known.identity.get_or_insert(*identity);
                    known.places.retain(|place| place.sequence > *covered);
                }
                // Of a collection that was never made.
                None if !known.has_written => known.places.clear(),
                // Its folder may come back.
                None => {}
            }
            known.needed = known.places.first().map(|place| place.sequence);
        }
        let log::Opened { log, committer, damages, next } = opened;
        let last = next.before().0;
        let is_needed = |damage: &Damage| {
            let end = damage.last.map_or(last, |last| last.0);
            let mut folders = folders.iter();
            // Of a collection whose manifest cannot be read nobody knows what it needs, nor of one without a folder.
            !manifests.is_complete
                || folders.any(|(id, (_, covered))| damage.suspects.contains(*id) && end > *covered)
                || collections.iter().any(|(id, known)| known.is_orphan() && damage.suspects.contains(*id))
        };
        for damage in &damages {
            if is_needed(damage) {
                tracing::error!(target: FINDINGS_TARGET, %damage, "the log is damaged");
            } else {
                tracing::info!(%damage, "the log was damaged, and no collection needs what was there; it goes with its file");
            }
        }
        log.run(committer, &threads.committers);
        let log = FolderLog {
            disk: Arc::clone(disk),
            watched,
            dir,
            cache: Arc::new(BlockCache::new(options.cache_bytes)),
            log,
            bytes_max: options.log_bytes_max,
            segment_bytes: options.segment_bytes,
            requests_max: options.requests_max,
            identity,
            collections: Mutex::new(collections),
            damages: damages.clone(),
            opened_at: last,
            last: AtomicU64::new(last),
            cutting: Mutex::new(from),
            is_unsynced: AtomicBool::new(false),
            syncing: Mutex::default(),
            _threads: Arc::clone(threads),
        };
        Ok((Arc::new(log), damages))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Known>> {
        self.collections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`StoreSizes::segment_bytes`].
    pub(crate) fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    /// See [`StoreSizes::requests_max`].
    pub(super) fn requests_max(&self) -> usize {
        self.requests_max
    }

    /// Where it is kept.
    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Which log it is.
    pub(super) fn identity(&self) -> log::Identity {
        self.identity
    }

    /// Blocks of segments, for all collections.
    pub(super) fn cache(&self) -> &Arc<BlockCache> {
        &self.cache
    }

    /// Takes a number in the log for a collection.
    ///
    /// # Errors
    /// [`StoreError::IdentityTaken`].
    pub(super) fn claim(&self, identity: Identity) -> Result<(), StoreError> {
        let id = id_of(identity);
        let mut collections = self.lock();
        let known = collections.entry(id).or_default();
        if id == 0 || known.identity.is_some_and(|other| other != identity) {
            return Err(StoreError::IdentityTaken { path: self.dir.clone(), identity });
        }
        known.identity = Some(identity);
        Ok(())
    }

    /// A collection is no more: nobody needs its entries.
    pub(super) fn forget(&self, identity: Identity) {
        self.lock().remove(&id_of(identity));
    }

    /// Says in the log that a collection is deleted, durably. To be called before its folder goes, else its entries are
    /// kept for the case that the folder comes back.
    ///
    /// # Errors
    /// As [`super::Store::commit`].
    pub(crate) fn delete(self: &Arc<Self>, identity: Identity) -> Result<(), StoreError> {
        let is_other = self.lock().get(&id_of(identity)).is_some_and(|known| {
            // Another collection that goes by the same number.
            known.identity.is_some_and(|other| other != identity)
        });
        if is_other {
            return Ok(());
        }
        if self.has_written(identity) {
            let (told, answer) = mpsc::sync_channel(1);
            let done = move |written| _ = told.send(written);
            self.append(Ticket {
                identity,
                kind: GONE,
                payload: Vec::new(),
                durability: Durability::Power,
                frees_room: true,
                done: Box::new(done),
            })?;
            answer.recv().unwrap_or_else(|_| Err(StoreError::io(&self.dir, super::ended())))?;
        }
        self.forget(identity);
        Ok(())
    }

    /// Collections whose entries are kept although they have no folder: it was moved away, or is lost.
    pub(crate) fn orphans(&self) -> Vec<Orphan> {
        let collections = self.lock();
        let orphans = collections.values().filter(|known| known.is_orphan());
        orphans.map(|known| Orphan { identity: known.identity, entries: known.places.len() }).collect()
    }

    /// Makes durable what was written without a sync. Whoever puts down elsewhere that entries are not needed any more
    /// calls it before.
    ///
    /// # Errors
    /// As [`super::Store::commit`].
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let _turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_unsynced.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let (told, answer) = mpsc::sync_channel(1);
        let done = move |synced: Result<Sequence, LogError>| _ = told.send(synced.map(drop));
        let synced = self.log.sync(done).and_then(|()| answer.recv().unwrap_or(Err(LogError::Closed)));
        if synced.is_err() {
            self.is_unsynced.store(true, Ordering::SeqCst);
        }
        Ok(synced?)
    }

    /// Whether something was written without a sync that may not be synced yet.
    pub(super) fn is_unsynced(&self) -> bool {
        // Whoever holds the lock took the mark away for a sync that is under way.
        self.syncing.try_lock().is_err() || self.is_unsynced.load(Ordering::SeqCst)
    }

    /// Syncs what was written by now and tells `done`; the mark that something was not is left to [`FolderLog::sync`].
    pub(super) fn sync_and(
        &self,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let done = move |synced: Result<Sequence, LogError>| done(synced.map(drop).map_err(StoreError::from));
        Ok(self.log.sync(done)?)
    }

    /// Says in the log whose number a number is; the sequence of that entry.
    pub(super) fn announce(self: &Arc<Self>, identity: Identity) -> Result<u64, StoreError> {
        let (told, sequence) = mpsc::sync_channel(1);
        let done = move |written| _ = told.send(written);
        let payload = identity.0.to_vec();
        let durability = Durability::Power;
        let done = Box::new(done);
        self.append(Ticket { identity, kind: ANNOUNCED, payload, durability, frees_room: false, done })?;
        sequence.recv().unwrap_or_else(|_| Err(StoreError::io(&self.dir, super::ended())))
    }

    /// Hands in something to be written, durably. Returns at once.
    ///
    /// # Errors
    /// `done` is not called then: [`StoreError::Busy`], [`StoreError::Io`].
    pub(super) fn append(self: &Arc<Self>, ticket: Ticket) -> Result<(), StoreError> {
        let Ticket { identity, kind, payload, durability, frees_room, done } = ticket;
        self.check_synced()?;
        let id = id_of(identity);
        let this = Arc::downgrade(self);
        let done = move |written: Result<Sequence, LogError>| {
            let is_announcement = kind == ANNOUNCED;
            if let (Durability::Process, Some(this)) = (durability, this.upgrade()) {
                // Before it is applied, so that nothing is made of it without a sync.
                this.is_unsynced.store(true, Ordering::SeqCst);
            }
            if let (true, Ok(sequence), Some(this)) = (is_announcement, &written, this.upgrade()) {
                // Nothing is applied, and whoever is told may open the collection at once.
                this.last.store(sequence.0, Ordering::SeqCst);
            }
            done(written.clone().map(|sequence| sequence.0).map_err(StoreError::from));
            if let (Ok(sequence), Some(this)) = (written, this.upgrade()) {
                // After it was applied, and before it counts as applied: nothing that it pins is cut meanwhile.
                if !is_announcement && let Some(known) = this.lock().get_mut(&id) {
                    known.has_written = true;
                    known.needed.get_or_insert(sequence.0);
                }
                this.last.store(sequence.0, Ordering::SeqCst);
            }
        };
        let ticket = log::Ticket::new(id, kind, payload, durability, done);
        let ticket = if frees_room { ticket.frees_room() } else { ticket };
        self.log.submit(ticket).map_err(StoreError::from)
    }

    /// Whether the log has anything of a collection but that it was announced.
    pub(super) fn has_written(&self, identity: Identity) -> bool {
        self.lock().get(&id_of(identity)).is_some_and(|known| known.has_written)
    }

    /// What a collection said after `covered`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if any of it is lost, or may be.
    pub(super) fn left(&self, identity: Identity, covered: u64) -> Result<Left, StoreError> {
        let id = id_of(identity);
        if let Some(damage) = self.damages.iter().find(|damage| {
            let last = damage.last.map_or(self.opened_at, |last| last.0);
            damage.suspects.contains(id) && last > covered
        }) {
            let Damage { file, offset, reason, .. } = damage;
            return Err(StoreError::corrupt(file, format!("at byte {offset}: {reason}; {REMEDY}")));
        }
        let mut collections = self.lock();
        let known = collections.entry(id).or_default();
        if let Some(gone) = known.gone.filter(|gone| *gone > covered) {
            let reason = format!(
                "entry {gone} says that this collection was deleted, so documents that only the log had are lost; put the whole data folder back from one backup, or delete the collection"
            );
            return Err(StoreError::corrupt(&self.dir, reason));
        }
        if let Some(parked) = &known.parked {
            return Ok(Left::Parked(parked.clone()));
        }
        if known.was_opened {
            let reason = "it is open already, or was not closed; restart the server";
            let error = io::Error::new(io::ErrorKind::ResourceBusy, reason);
            return Err(StoreError::io(&self.dir, error));
        }
        if covered > self.last.load(Ordering::SeqCst) {
            let reason = format!("it ends before entry {covered}, which segments hold; {REMEDY}");
            return Err(StoreError::corrupt(&self.dir, reason));
        }
        let places: Vec<Place> =
            known.places.iter().filter(|place| place.sequence > covered).cloned().collect();
        Ok(Left::Entries(Entries::new(&self.disk, places)))
    }

    /// A collection was opened; its entries are in memory.
    pub(super) fn opened(&self, identity: Identity) {
        let mut collections = self.lock();
        let known = collections.entry(id_of(identity)).or_default();
        known.was_opened = true;
        known.has_folder = true;
        known.places = Vec::new();
        known.parked = None;
    }

    /// A collection was closed, and leaves what no segment holds.
    pub(super) fn park(&self, identity: Identity, parked: Parked) {
        if let Some(known) = self.lock().get_mut(&id_of(identity)) {
            known.parked = Some(parked);
        }
    }

    /// A collection says which is the first entry that it needs. Not to be called while one of its entries is applied.
    pub(super) fn need(&self, identity: Identity, first: Option<u64>) {
        if let Some(known) = self.lock().get_mut(&id_of(identity)) {
            known.needed = first;
        }
    }

    /// Whether the log is too large and this collection is why its oldest file stays.
    pub(super) fn is_pinned_by(&self, identity: Identity) -> bool {
        self.pinning(|known| known.identity == Some(identity)).is_some()
    }

    /// Who is to let go of its oldest entries, since the log is too large: seal them, or carry them forward. A
    /// collection that is not open must be opened for it.
    pub(crate) fn pinned_by(&self) -> Option<Identity> {
        self.pinning(|known| known.has_folder && known.identity.is_some())
    }

    /// Of the collections of which `is_asked` says so, the one that keeps the oldest file of a log that is too large.
    fn pinning(&self, is_asked: impl Fn(&Known) -> bool) -> Option<Identity> {
        let (bytes, oldest) = self.log.extent();
        // The file that is written cannot go.
        let oldest = oldest.filter(|_| bytes > self.bytes_max)?;
        let collections = self.lock();
        let asked = collections.values().filter(|known| is_asked(known));
        let first = asked.filter(|known| known.needed.is_some()).min_by_key(|known| known.needed)?;
        first.needed.is_some_and(|needed| needed < oldest.0).then_some(first.identity).flatten()
    }

    /// Removes the files of the log that nobody needs. How many.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Io`]; it can be tried again.
    pub(crate) fn cut(&self) -> Result<usize, StoreError> {
        let mut cutting = self.cutting.lock().unwrap_or_else(PoisonError::into_inner);
        // What is applied later is pinned by no one yet, but is not below.
        let end = self.last.load(Ordering::SeqCst) + 1;
        let below = self.lock().values().filter_map(|known| known.needed).min().unwrap_or(end).min(end);
        if self.log.extent().1.is_none_or(|end| end.0 > below) {
            return Ok(0);
        }
        if below > *cutting {
            write_folder_file(&*self.disk, &self.dir, &self.identity, below)?;
            *cutting = below;
        }
        self.log.cut(Sequence(*cutting)).map_err(StoreError::from)
    }

    /// Why nothing can be written until a restart: the log failed, or a sync of some file of the folder did.
    pub(crate) fn failed(&self) -> Option<String> {
        self.log.failed().map(|error| error.to_string()).or_else(|| self.watched.failed().map(str::to_owned))
    }

    /// Refuses what would be written after a sync that failed.
    fn check_synced(&self) -> Result<(), StoreError> {
        match self.watched.failed() {
            Some(reason) => Err(StoreError::io(&self.dir, io::Error::other(reason.to_owned()))),
            None => Ok(()),
        }
    }

    /// Bytes of its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.log.extent().0
    }

    /// Writes what waits, and takes nothing more.
    pub(crate) fn close(&self) {
        self.log.close();
    }
}

impl From<LogError> for StoreError {
    fn from(error: LogError) -> Self {
        let other = |kind, error: LogError| {
            StoreError::io(Path::new(LOG_DIR), io::Error::new(kind, error.to_string()))
        };
        match error {
            LogError::DiskFull { path } => StoreError::DiskFull { path },
            LogError::FileLimit { path } => StoreError::FileLimit { path },
            LogError::TooLarge { bytes, max } => StoreError::TooLarge { bytes, max },
            LogError::NoHandle { path } => StoreError::NoHandle { path },
            LogError::Io { path, source } => {
                StoreError::Io { path, source: io::Error::new(source.kind(), source.to_string()) }
            }
            LogError::NotOurs { path, reason } => {
                StoreError::corrupt(&path, format!("it is no file of this log ({reason}); move it away"))
            }
            LogError::OtherFolder { path } => StoreError::corrupt(
                &path,
                "it is of the log of another data folder; put it back where it belongs".to_owned(),
            ),
            LogError::NewerFormat { path, got, supported } => {
                StoreError::NewerFormat { path, got: got.into(), supported: supported.into() }
            }
            LogError::Overloaded => StoreError::Busy {
                path: PathBuf::from(LOG_DIR),
                reason: "too many writes wait for the disk".to_owned(),
            },
            error @ LogError::Closed => other(io::ErrorKind::NotConnected, error),
            error @ (LogError::Failed { .. } | LogError::Misled { .. }) => other(io::ErrorKind::Other, error),
        }
    }
}
