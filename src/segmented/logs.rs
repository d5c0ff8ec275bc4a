//! The log of a data folder, as collections see it: whose entries are in it, which of them are needed still, and whose
//! are damaged.
//!
//! The log is replayed once. Of each entry that a collection needs, its place is kept and not its bytes: a collection that
//! is opened reads its own again. What is needed by nobody is cut off, once `log/folder` says so.
//!
//! A collection that is closed leaves what no segment holds with the log, in memory, for its next opening.

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

use super::{
    entries::{ANNOUNCED, Carried, GONE},
    manifest::Manifest,
};
use crate::{
    files::{
        self,
        disk::{Disk, DiskFile, EntryKind, RealDisk},
    },
    log::{self, Damage, Durability, Log, LogError, LogOptions, Sequence},
    segment::{self, BlockCache},
    store::{Identity, StoreError},
    threads::Threads,
};

/// Folder of the log in the data folder.
pub(crate) const LOG_DIR: &str = "log";

/// Folder of the collections' folders in the data folder.
pub(crate) const COLLECTIONS_DIR: &str = "collections";

/// Says what the log is, and where it begins.
pub(super) const FOLDER_FILE: &str = "folder";
const FOLDER_BESIDE: &str = "folder.new";
const FOLDER_MAGIC: [u8; 8] = *b"dffolder";
const FOLDER_VERSION: u16 = 1;
const FOLDER_BYTES: usize = 40;

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
}

impl Default for StoreSizes {
    fn default() -> Self {
        let (segment_bytes, log_bytes_max) = (super::SEAL_BYTES, LOG_BYTES_MAX);
        StoreSizes { cache_bytes: CACHE_BYTES, segment_bytes, log_bytes_max }
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
        }
    }
}

/// The log of a data folder. Many collections share it.
#[derive(Debug)]
pub struct FolderLog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    cache: Arc<BlockCache>,
    log: Log,
    bytes_max: u64,
    segment_bytes: usize,
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

/// Where an entry is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) sequence: u64,
    pub(super) kind: u8,
    pub(super) path: Arc<Path>,
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) sum: u32,
}

/// What a collection that was closed had and no segment has.
#[derive(Debug, Clone)]
pub(super) struct Parked {
    pub(super) carried: Carried,
    pub(super) sequence: u64,
    /// The first entry that it is made of.
    pub(super) needed: Option<u64>,
}

/// An entry, as it is read again.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) sequence: u64,
    pub(super) kind: u8,
    pub(super) bytes: Vec<u8>,
    pub(super) path: Arc<Path>,
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
        let StoreSizes { cache_bytes, segment_bytes, log_bytes_max } = sizes;
        let file_bytes = (log_bytes_max / FILES_LEAST).clamp(64 << 10, LogOptions::FILE_BYTES) & !0xfff;
        let log =
            LogOptions { file_bytes, reserve_bytes: (file_bytes / 16) & !0xfff, ..LogOptions::default() };
        let options = FolderOptions { log, log_bytes_max, cache_bytes, segment_bytes };
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
        for damage in &damages {
            tracing::error!(%damage, "the log is damaged");
        }
        log.run(committer, &threads.committers);
        let last = next.before().0;
        let log = FolderLog {
            disk: Arc::clone(disk),
            dir,
            cache: Arc::new(BlockCache::new(options.cache_bytes)),
            log,
            bytes_max: options.log_bytes_max,
            segment_bytes: options.segment_bytes,
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
        let orphans = collections.values().filter(|known| !known.has_folder && !known.places.is_empty());
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
        let places = known.places.iter().filter(|place| place.sequence > covered).cloned().collect();
        Ok(Left::Entries(Entries { disk: Arc::clone(&self.disk), places, file: None }))
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

    /// Why nothing can be written until a restart.
    pub(crate) fn failed(&self) -> Option<String> {
        self.log.failed().map(|error| error.to_string())
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

/// Entries of a collection, read again from where they are.
pub(super) struct Entries {
    disk: Arc<dyn Disk>,
    places: std::collections::VecDeque<Place>,
    file: Option<(Arc<Path>, Arc<dyn DiskFile>)>,
}

impl Entries {
    pub(super) fn new(disk: &Arc<dyn Disk>, places: impl IntoIterator<Item = Place>) -> Self {
        Entries { disk: Arc::clone(disk), places: places.into_iter().collect(), file: None }
    }

    fn read(&mut self, place: &Place) -> Result<Read, StoreError> {
        let io = |e| StoreError::io(&place.path, e);
        let file = match &self.file {
            Some((path, file)) if *path == place.path => Arc::clone(file),
            _ => {
                let file = self.disk.read_only(&place.path).map_err(io)?;
                self.file = Some((Arc::clone(&place.path), Arc::clone(&file)));
                file
            }
        };
        let mut bytes = vec![0; place.len as usize];
        file.read_exact_at(place.offset, &mut bytes).map_err(io)?;
        if crc32c::crc32c(&bytes) != place.sum {
            let reason = format!("at byte {}: an entry does not match its sum; {REMEDY}", place.offset);
            return Err(StoreError::corrupt(&place.path, reason));
        }
        Ok(Read { sequence: place.sequence, kind: place.kind, bytes, path: Arc::clone(&place.path) })
    }
}

impl Iterator for Entries {
    type Item = Result<Read, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let place = self.places.pop_front()?;
        Some(self.read(&place))
    }
}

/// What the manifests in a data folder say, before anything is opened.
struct Manifests {
    found: Vec<(Identity, Manifest)>,
    /// Whether every manifest could be read.
    is_complete: bool,
}

impl Manifests {
    fn look(disk: &dyn Disk, dir: &Path) -> Result<Self, StoreError> {
        let mut manifests = Manifests { found: Vec::new(), is_complete: true };
        let entries = match disk.list(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(manifests),
            entries => entries.map_err(|e| StoreError::io(dir, e))?,
        };
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Dir) {
            match Manifest::look(disk, &dir.join(&entry.name)) {
                Ok(Some(found)) => manifests.found.push(found),
                // Segments whose manifest is lost, and may come back.
                Ok(None) => {
                    let found = segment::list(disk, &dir.join(&entry.name))?;
                    manifests.is_complete &= found.segments.is_empty();
                }
                // Whoever opens it is told why.
                Err(_) => manifests.is_complete = false,
            }
        }
        Ok(manifests)
    }

    fn is_empty(&self) -> bool {
        self.found.is_empty() && self.is_complete
    }

    /// What those that belong to a log say: the highest sequence that is covered; and by number in the log the identity
    /// and the sequence that is covered. Where a folder was copied there are several of one collection: the entries
    /// stay that any of them needs.
    fn of(&self, log: &log::Identity) -> (u64, BTreeMap<u64, (Identity, u64)>) {
        let mut folders: BTreeMap<u64, (Identity, u64)> = BTreeMap::new();
        let mut covered = 0;
        for (identity, manifest) in self.found.iter().filter(|(_, manifest)| manifest.log == *log) {
            covered = covered.max(manifest.covered);
            let (_, least) = folders.entry(id_of(*identity)).or_insert((*identity, manifest.covered));
            *least = (*least).min(manifest.covered);
        }
        (covered, folders)
    }
}

/// Identity of the log, and the first sequence that is needed of it.
fn read_or_make(disk: &dyn Disk, dir: &Path, is_needed: bool) -> Result<(log::Identity, u64), StoreError> {
    if let Some(found) = read_folder_file(disk, dir)? {
        return Ok(found);
    }
    let files = match disk.list(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            disk.create_dir(dir).map_err(|e| StoreError::full_or_io(dir, e))?;
            let root = dir.parent().unwrap_or(dir);
            disk.sync_dir(root).map_err(|e| StoreError::io(root, e))?;
            Vec::new()
        }
        files => files.map_err(|e| StoreError::io(dir, e))?,
    };
    let is_log = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".log");
    if is_needed || files.iter().any(|file| is_log(&file.name)) {
        return Err(folder_file_damaged(
            dir,
            "it is missing, and there is a log, or collections that need one",
        ));
    }
    let identity = Identity::draw().0;
    write_folder_file(disk, dir, &identity, Sequence::FIRST.0)?;
    Ok((identity, Sequence::FIRST.0))
}

fn folder_file_damaged(dir: &Path, reason: &str) -> StoreError {
    StoreError::corrupt(
        &dir.join(FOLDER_FILE),
        format!(
            "{reason}; `distilface repair` makes it again of the log's files, or put `{LOG_DIR}` back from a backup, with the collections of the same backup"
        ),
    )
}

/// What the file says; `None` if there is none.
pub(super) fn read_folder_file(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<Option<(log::Identity, u64)>, StoreError> {
    let path = dir.join(FOLDER_FILE);
    let damaged = |reason: &str| folder_file_damaged(dir, reason);
    match disk.read_only(&path) {
        Ok(file) => {
            let mut bytes = [0; FOLDER_BYTES];
            let len = file.len().map_err(|e| StoreError::io(&path, e))?;
            if len != FOLDER_BYTES as u64 {
                return Err(damaged("it has not its length"));
            }
            file.read_exact_at(0, &mut bytes).map_err(|e| StoreError::io(&path, e))?;
            let sum = u32::from_le_bytes([bytes[36], bytes[37], bytes[38], bytes[39]]);
            if bytes[..8] != FOLDER_MAGIC || crc32c::crc32c(&bytes[..36]) != sum {
                return Err(damaged("it has a wrong checksum"));
            }
            let version = u16::from_le_bytes([bytes[8], bytes[9]]);
            if version != FOLDER_VERSION {
                let (got, supported) = (version.into(), FOLDER_VERSION.into());
                return Err(StoreError::NewerFormat { path, got, supported });
            }
            let (mut identity, mut from) = ([0; 16], [0; 8]);
            identity.copy_from_slice(&bytes[12..28]);
            from.copy_from_slice(&bytes[28..36]);
            Ok(Some((identity, u64::from_le_bytes(from))))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Err(damaged(&e.to_string())),
        Err(e) => Err(StoreError::io(&path, e)),
    }
}

pub(super) fn write_folder_file(
    disk: &dyn Disk,
    dir: &Path,
    identity: &log::Identity,
    from: u64,
) -> Result<(), StoreError> {
    let (path, beside) = (dir.join(FOLDER_FILE), dir.join(FOLDER_BESIDE));
    let mut bytes = Vec::with_capacity(FOLDER_BYTES);
    bytes.extend_from_slice(&FOLDER_MAGIC);
    bytes.extend_from_slice(&FOLDER_VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(identity);
    bytes.extend_from_slice(&from.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    super::manifest::replace(disk, &path, &beside, &bytes)
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
