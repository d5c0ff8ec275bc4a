//! The state is an ordered map of small keys to checked values, durable when [`State::commit`] returns. Only this file
//! uses `sled`.
//!
//! What sled 0.34.7 does to us, as its source says, and the guard against it:
//!
//! - `flush` writes with `pwrite` and `sync_file_range`, which orders nothing in the device and does not store the
//!   file's length. We `fdatasync` its file `db` ourselves, through a handle opened before the first write, so an
//!   error that the kernel reports once per handle is not lost to sled's own background sync, which only logs it.
//! - A *page* above `segment_size / 4 - 52` bytes (131,020 at the default of 512 KiB) goes into a file of its own under
//!   `blobs/`, which sled never syncs. A leaf splits above 16 entries, so it is the sum that counts, not one value:
//!   values are cut into pieces of [`PIECE_BYTES`] and keys stay short. Should a blob appear all the same, it is synced.
//! - A batch is atomic: a manifest in front of it names the last log position it needs, and recovery stops at the
//!   manifest if the log ends earlier. But a damaged message in the *middle* of the log is taken for its end, and later
//!   segments are applied or zeroed without a word. `documents.rs` therefore keeps a digest of everything in each batch.
//! - It panics on some damaged files, and its destructor panics if a sync fails: every call is caught.
//! - After an io error it refuses everything for ever. So do we after a failed sync, see [`State::failed`]. A write that
//!   found no room has lost nothing: the database is opened again once there is room, and then holds the batch or not;
//!   if it does, it is taken back: its caller was told that it was refused.
//!   A file that could not be opened because too many are open is handled in the same way. A commit itself opens none:
//!   what it needs is held open, so clients that use up the handles do not make a store read-only.
//! - A *read* completes the splits and merges of pages that writes left behind, which are writes. A commit therefore
//!   walks to each key that it touched, so that reads find nothing to do and go on while the disk is full.
//! - The lock of `db` is `flock`, so opening the file again and closing it does not release it; threads of a database
//!   just dropped may hold it a moment longer.
//! - One reader-writer lock guards *all* databases of a process: reads wait while any batch is applied.

use std::{
    fs::File,
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    StoreError,
    disk::Disk,
    private,
    record::{frame, unframe},
};
use crate::{
    files,
    handles::{self, Folder},
    panics::panic_text,
};

/// Longest value that is given to sled; see the module's head. 17 entries of it are half of what sled keeps in a page.
pub(crate) const PIECE_BYTES: usize = 3584;

/// Free space that a write leaves for deletes, for the index and for others.
pub(crate) const RESERVE_BYTES: u64 = 32 << 20;

/// Free space that a delete needs.
pub(crate) const DELETE_RESERVE_BYTES: u64 = 4 << 20;

/// Bytes of file that a byte of value may need: pages are rewritten while they fill.
const WRITE_AMPLIFICATION: u64 = 4;

/// Free space with which a database is opened: its own bookkeeping needs some. One that found no room is not opened
/// again with less.
pub(crate) const OPEN_BYTES: u64 = DELETE_RESERVE_BYTES;

/// How often that is tried.
const REVIVE_EVERY: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 500 });

/// The key of the values that change with every batch, where a caller keeps such. They tell whether a batch is there.
pub(crate) const TOTALS_KEY: &[u8] = b"m";

/// How often sled's thread gives space back. Durability does not hang on it.
const CLEAN_EVERY: Duration = Duration::from_secs(5);

/// How long threads of a database just closed in this process may still hold its lock.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// sled's name of its file.
const DB_FILE: &str = "db";

/// sled's name of its settings, and the beginning of the names of its snapshots.
const CONF_FILE: &str = "conf";
const SNAPSHOT: &str = "snap.";

/// sled's name of the folder of what is too large for a page.
const BLOBS_DIR: &str = "blobs";

/// How long a commit that is already written waits for a handle, and how often it looks.
const HANDLE_TRIES: u32 = 100;
const HANDLE_EVERY: Duration = Duration::from_millis(50);

/// An ordered durable map. A key is any short bytes of which none is the beginning of another with the same first byte.
#[derive(Debug)]
pub(crate) struct State {
    /// `None` once closed.
    db: Mutex<Option<sled::Db>>,
    dir: PathBuf,
    file: File,
    /// Where sled puts what is too large for a page.
    blobs: Folder,
    disk: Arc<dyn Disk>,
    cache_bytes: u64,
    failed: OnceLock<String>,
    /// Since a write found no room. Held while the database is opened again, which may take long.
    broken: Mutex<Option<Broken>>,
    /// Whether `broken` is something, for those who may not wait for that.
    is_broken: AtomicBool,
    /// Whether that is for want of a handle, and not of room.
    lacks_handles: AtomicBool,
    /// Whether that is since a file is as large as it may be, and not since the disk is full.
    at_file_limit: AtomicBool,
    /// The batch that found no room was stored after all, and nobody has taken it back yet.
    late: AtomicBool,
}

/// What is known of a database that found no room.
#[derive(Debug)]
struct Broken {
    /// The totals of the batch that met it: they tell later whether it is there.
    totals: Option<Vec<u8>>,
    tried: Option<Instant>,
}

/// Changes that are committed together.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    batch: sled::Batch,
    keys: Vec<sled::IVec>,
    totals: Option<Vec<u8>>,
    bytes: u64,
    any: bool,
    grows: bool,
}

impl Changes {
    /// Says that these changes bring new data, so they must leave [`RESERVE_BYTES`] free.
    pub(crate) fn grow(&mut self) {
        self.grows = true;
    }

    /// Puts a value, in a frame and cut into pieces. Returns its checksum.
    /// An older value under the key must be removed before it if it may have had more pieces.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> u32 {
        let (framed, crc) = frame(value);
        for (part, piece) in (0u32..).zip(framed.chunks(PIECE_BYTES)) {
            let piece_key = sled::IVec::from(piece_key(key, part));
            self.keys.push(piece_key.clone());
            self.batch.insert(piece_key, piece);
            self.bytes += (key.len() + 4 + piece.len()) as u64;
        }
        self.any = true;
        if key == TOTALS_KEY {
            self.totals = Some(value.to_vec());
        }
        crc
    }

    fn remove_piece(&mut self, key: sled::IVec) {
        self.keys.push(key.clone());
        self.batch.remove(key);
        self.any = true;
    }

    /// Whether there is nothing to commit.
    pub(crate) fn is_empty(&self) -> bool {
        !self.any
    }
}

fn piece_key(key: &[u8], part: u32) -> Vec<u8> {
    [key, &part.to_be_bytes()].concat()
}

impl State {
    /// Makes a new database in `dir`, which must not hold one.
    pub(crate) fn create(dir: &Path, cache_bytes: u64, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        if dir.join(DB_FILE).exists() {
            let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(StoreError::io(&dir.join(DB_FILE), exists));
        }
        files::create_private(dir).map_err(|e| StoreError::io(dir, e))?;
        // sled makes its files readable by everybody; this one is made before it, the others are narrowed below.
        let file = dir.join(DB_FILE);
        private::create_file(&file).map_err(|e| StoreError::io(&file, e))?;
        Self::start(dir, cache_bytes, disk)
    }

    /// Opens a database. One that is missing is damage: an empty one is never made in its place.
    pub(crate) fn open(dir: &Path, cache_bytes: u64, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        match std::fs::metadata(dir.join(DB_FILE)) {
            Ok(found) if found.is_file() => Self::start(dir, cache_bytes, disk),
            Ok(_) => Err(StoreError::corrupt(dir, format!("{DB_FILE} is not a file"))),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(StoreError::corrupt(dir, format!("the file {DB_FILE} is missing")))
            }
            Err(e) => Err(StoreError::io(&dir.join(DB_FILE), e)),
        }
    }

    fn start(dir: &Path, cache_bytes: u64, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        check_kinds(dir)?;
        let db = open_db(dir, cache_bytes).map_err(|error| match error {
            StoreError::Io { path, source } => StoreError::opening(&path, source),
            error => error,
        })?;
        let sync_all = || {
            // What sled created without syncing: its settings, its snapshot, and the entries of all of them.
            let file = File::options().read(true).write(true).open(dir.join(DB_FILE))?;
            file.sync_all()?;
            if let Ok(conf) = File::open(dir.join(CONF_FILE)) {
                conf.sync_all()?;
            }
            if let Err(error) = private::narrow(dir) {
                tracing::warn!(dir = %dir.display(), %error, "others may read these files, and this cannot be changed");
            }
            disk.sync_dir(dir)?;
            if let Some(parent) = dir.parent() {
                disk.sync_dir(parent)?;
            }
            Ok(file)
        };
        let file = sync_all().map_err(|e| StoreError::opening(dir, e))?;
        let blobs = dir.join(BLOBS_DIR);
        let blobs = Folder::open(&blobs).map_err(|e| StoreError::io(&blobs, e))?;
        Ok(State {
            db: Mutex::new(Some(db)),
            dir: dir.to_owned(),
            file,
            blobs,
            disk,
            cache_bytes,
            failed: OnceLock::new(),
            broken: Mutex::new(None),
            is_broken: AtomicBool::new(false),
            lacks_handles: AtomicBool::new(false),
            at_file_limit: AtomicBool::new(false),
            late: AtomicBool::new(false),
        })
    }

    /// Where it lies.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Why nothing can be written: for good, or until there is room again. Waits for nothing.
    pub(crate) fn failed(&self) -> Option<String> {
        self.failed.get().cloned().or_else(|| self.is_broken().then(|| self.lack().to_string()))
    }

    /// What a database that is broken waits for.
    fn lack(&self) -> StoreError {
        let path = self.dir.clone();
        if self.lacks_handles.load(Ordering::SeqCst) {
            StoreError::NoHandle { path }
        } else if self.at_file_limit.load(Ordering::SeqCst) {
            StoreError::FileLimit { path }
        } else {
            StoreError::DiskFull { path }
        }
    }

    fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::SeqCst)
    }

    /// An error of sled as the caller hears it. One that says that there is no room is remembered.
    fn note(&self, error: StoreError, totals: Option<Vec<u8>>) -> StoreError {
        let lacks_handles = matches!(error, StoreError::NoHandle { .. });
        let at_limit =
            matches!(&error, StoreError::Io { source, .. } if source.kind() == ErrorKind::FileTooLarge);
        let full = matches!(&error, StoreError::Io { source, .. } if super::is_full(source));
        if !full && !at_limit && !lacks_handles {
            return error;
        }
        tracing::warn!(dir = %self.dir.display(), %error, "the store found no room, or no handle");
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.get_or_insert(Broken { totals, tried: None });
        self.lacks_handles.store(lacks_handles, Ordering::SeqCst);
        self.at_file_limit.store(at_limit, Ordering::SeqCst);
        self.is_broken.store(true, Ordering::SeqCst);
        self.lack()
    }

    /// Opens the database again after it found no room, if there is room now. Until then the old one is kept, since it
    /// can still be read.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::NoHandle`] while there is none.
    pub(crate) fn revive(&self) -> Result<(), StoreError> {
        let mut guard = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(broken) = &mut *guard else { return Ok(()) };
        let full = || self.lack();
        if broken.tried.replace(Instant::now()).is_some_and(|tried| tried.elapsed() < REVIVE_EVERY) {
            return Err(full());
        }
        if self.disk.available(&self.dir).map_err(|e| StoreError::io(&self.dir, e))? < OPEN_BYTES {
            return Err(full());
        }
        let mut place = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        let old = place.take();
        // Its destructor may panic, as it does after any failed write.
        let _ = guarded(&self.dir, || {
            drop(old);
            Ok(())
        });
        let db = open_db(&self.dir, self.cache_bytes).map_err(|error| {
            tracing::warn!(dir = %self.dir.display(), %error, "the store cannot be opened again yet");
            full()
        })?;
        let mut totals = Scan { dir: &self.dir, owner: None, pieces: db.scan_prefix(TOTALS_KEY), next: None };
        let found = totals.next().transpose()?.map(|(_, value, _)| value);
        if broken.totals.is_some() && broken.totals == found {
            self.late.store(true, Ordering::SeqCst);
        }
        drop(totals);
        *place = Some(db);
        drop(place);
        *guard = None;
        self.is_broken.store(false, Ordering::SeqCst);
        tracing::info!(dir = %self.dir.display(), "there is room again; the store was opened again");
        Ok(())
    }

    /// Whether a commit that answered [`StoreError::DiskFull`] may have to be taken back: first [`State::revive`], then
    /// [`State::late`] tells.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.is_broken() || self.late.load(Ordering::SeqCst)
    }

    /// Whether the batch that found no room was stored after all. It must be taken back by the next commit, which
    /// forgets this.
    pub(crate) fn late(&self) -> bool {
        self.late.load(Ordering::SeqCst)
    }

    fn db(&self) -> Result<sled::Db, StoreError> {
        if self.is_broken()
            && let Err(error) = self.revive()
            && self.db.lock().unwrap_or_else(PoisonError::into_inner).is_none()
        {
            return Err(error);
        }
        self.db.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| {
            StoreError::io(&self.dir, std::io::Error::new(std::io::ErrorKind::NotConnected, "it is closed"))
        })
    }

    /// The value under a key and its checksum.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<(Vec<u8>, u32)>, StoreError> {
        let first = match self.scan(key)?.next() {
            // Room may have come back since: the second try opens the database again.
            Some(Err(error)) if error.is_passing() => self.scan(key)?.next(),
            first => first,
        };
        match first {
            Some(Ok((found, value, crc))) if found == key => Ok(Some((value, crc))),
            Some(Err(e)) => Err(e),
            _ => Ok(None),
        }
    }

    /// All keys that begin with `prefix`, in order, each with its value and checksum.
    pub(crate) fn scan(&self, prefix: &[u8]) -> Result<Scan<'_>, StoreError> {
        Ok(Scan { dir: &self.dir, owner: Some(self), pieces: self.db()?.scan_prefix(prefix), next: None })
    }

    /// Adds the removal of a key, whatever pieces it has, to `changes`.
    pub(crate) fn remove(&self, changes: &mut Changes, key: &[u8]) -> Result<(), StoreError> {
        let mut pieces = self.db()?.scan_prefix(key);
        while let Some(entry) =
            guarded(&self.dir, || pieces.next().transpose()).map_err(|error| self.note(error, None))?
        {
            if entry.0.len() == key.len() + 4 {
                changes.remove_piece(entry.0);
            }
        }
        Ok(())
    }

    /// Makes all changes, or none, and returns when they are on the device.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::NoHandle`]: nothing was done, unless [`State::is_unsettled`]. Any other
    /// error leaves it unknown whether the changes will be found after a restart; from then on every commit fails,
    /// since a failed sync may not be tried again: the kernel forgets the pages it could not write.
    pub(crate) fn commit(&self, changes: Changes) -> Result<(), StoreError> {
        if let Some(reason) = self.failed.get() {
            return Err(StoreError::io(&self.dir, std::io::Error::other(reason.clone())));
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.revive()?;
        let db = self.db()?;
        let reserve = if changes.grows { RESERVE_BYTES } else { DELETE_RESERVE_BYTES };
        let needed = reserve + changes.bytes * WRITE_AMPLIFICATION;
        let free = self.disk.available(&self.dir).map_err(|e| StoreError::io(&self.dir, e))?;
        if free < needed {
            return Err(StoreError::DiskFull { path: self.dir.clone() });
        }
        let Changes { batch, keys, totals, .. } = changes;
        let written = self.disk.written(&self.dir).map_err(|e| StoreError::io(&self.dir, e)).and_then(|()| {
            guarded(&self.dir, || {
                db.apply_batch(batch)?;
                // Splits and merges happen on the way to a key: now, and not when somebody reads.
                for key in keys {
                    db.get(key)?;
                }
                db.flush().map(|_| ())
            })
        });
        let written =
            written.and_then(|()| self.disk.flushed(&self.dir).map_err(|e| StoreError::io(&self.dir, e)));
        drop(db);
        let written = match written.map_err(|error| self.note(error, totals)) {
            Err(error) if error.is_passing() => return Err(error),
            written => written,
        };
        let written =
            written.and_then(|()| self.sync().map_err(|e| StoreError::io(&self.dir.join(DB_FILE), e)));
        match &written {
            Ok(()) => self.late.store(false, Ordering::SeqCst),
            Err(error) => self.fail(error),
        }
        written
    }

    /// Takes no more writes, since one failed in a way that leaves unknown what is on the device.
    pub(crate) fn fail(&self, error: &StoreError) {
        let reason = match error {
            StoreError::Io { path, source } => format!("{}: {source}", path.display()),
            other => other.to_string(),
        };
        tracing::error!(dir = %self.dir.display(), reason, "a write failed; no more are taken");
        let _ = self.failed.set(reason);
    }

    fn sync(&self) -> std::io::Result<()> {
        self.disk.sync(&self.file)?;
        let blobs = self.dir.join(BLOBS_DIR);
        let mut any = false;
        for blob in self.blobs.names()? {
            match open_patiently(&blobs.join(blob)) {
                Ok(file) => self.disk.sync(&file)?,
                // sled removes those it no longer needs while we look.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            }
            any = true;
        }
        if any { self.disk.sync_dir(&blobs) } else { Ok(()) }
    }

    /// Closes the database. Idempotent; what was committed needs it not.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        let db = self.db.lock().unwrap_or_else(PoisonError::into_inner).take();
        guarded(&self.dir, || {
            drop(db);
            Ok(())
        })
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(dir = %self.dir.display(), %error, "the store did not close cleanly");
        }
    }
}

/// A key, its value, and the value's checksum.
pub(crate) type Entry = (Vec<u8>, Vec<u8>, u32);

/// Values in the order of their keys.
pub(crate) struct Scan<'a> {
    dir: &'a Path,
    /// Hears what goes wrong.
    owner: Option<&'a State>,
    pieces: sled::Iter,
    /// First piece of the next value.
    next: Option<(sled::IVec, sled::IVec)>,
}

impl Scan<'_> {
    fn piece(&mut self) -> Result<Option<(sled::IVec, sled::IVec)>, StoreError> {
        guarded(self.dir, || self.pieces.next().transpose()).map_err(|error| match self.owner {
            Some(state) => state.note(error, None),
            None => error,
        })
    }

    fn value(&mut self) -> Result<Option<Entry>, StoreError> {
        let first = match self.next.take() {
            Some(piece) => piece,
            None => match self.piece()? {
                Some(piece) => piece,
                None => return Ok(None),
            },
        };
        let (key, part) = split_piece_key(&first.0)
            .ok_or_else(|| StoreError::corrupt(self.dir, "a key is cut short".into()))?;
        let key = key.to_vec();
        let mut framed = first.1.to_vec();
        if part != 0 {
            return Err(StoreError::corrupt(self.dir, "a record has lost its beginning".into()));
        }
        let mut expected = 1;
        while let Some(piece) = self.piece()? {
            match split_piece_key(&piece.0) {
                Some((next_key, next_part)) if next_key == key => {
                    if next_part != expected {
                        return Err(StoreError::corrupt(self.dir, "a record has lost a piece".into()));
                    }
                    framed.extend_from_slice(&piece.1);
                    expected += 1;
                }
                _ => {
                    self.next = Some(piece);
                    break;
                }
            }
        }
        let (value, crc) = unframe(&framed, self.dir, "a record")?;
        Ok(Some((key, value, crc)))
    }
}

fn split_piece_key(key: &[u8]) -> Option<(&[u8], u32)> {
    key.split_last_chunk::<4>().map(|(key, part)| (key, u32::from_be_bytes(*part)))
}

impl Iterator for Scan<'_> {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.value().transpose()
    }
}

/// Refuses what is none of the files that sled made: it opens whatever has their names, and waits for the other end
/// of a pipe for ever.
fn check_kinds(dir: &Path) -> Result<(), StoreError> {
    for entry in std::fs::read_dir(dir).map_err(|e| StoreError::io(dir, e))? {
        let entry = entry.map_err(|e| StoreError::io(dir, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(found) = std::fs::metadata(entry.path()) else { continue };
        let is_file = name == DB_FILE || name == CONF_FILE || name.starts_with(SNAPSHOT);
        if is_file && !found.is_file() {
            return Err(StoreError::corrupt(dir, format!("{name} is not a file")));
        }
        if name == BLOBS_DIR && !found.is_dir() {
            return Err(StoreError::corrupt(dir, format!("{name} is not a folder")));
        }
    }
    Ok(())
}

fn open_db(dir: &Path, cache_bytes: u64) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(cache_bytes)
        .flush_every_ms(u64::try_from(CLEAN_EVERY.as_millis()).ok());
    let begun = Instant::now();
    loop {
        match guarded(dir, || config.open()) {
            Err(StoreError::Locked { .. }) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            opened => return opened,
        }
    }
}

/// Opens a file that is already written. That it cannot be opened for want of a handle says nothing of the device.
fn open_patiently(path: &Path) -> std::io::Result<File> {
    for _ in 0..HANDLE_TRIES {
        match File::open(path) {
            Err(error) if handles::none_left(&error) => std::thread::sleep(HANDLE_EVERY),
            opened => return opened,
        }
    }
    File::open(path)
}

/// Calls sled, turning its errors and its panics into ours.
fn guarded<T>(dir: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(e))) if e.to_string().contains("could not acquire lock") => {
            Err(StoreError::Locked { path: dir.to_owned(), holder: "it holds the lock of the store".into() })
        }
        Ok(Err(sled::Error::Io(e))) => match e.kind() {
            // sled found less or other than it wrote.
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData => {
                Err(StoreError::corrupt(dir, e.to_string()))
            }
            _ => Err(StoreError::io(dir, e)),
        },
        Ok(Err(sled::Error::Corruption { .. })) => {
            Err(StoreError::corrupt(dir, "its log cannot be read".to_owned()))
        }
        Ok(Err(e)) => Err(StoreError::corrupt(dir, e.to_string())),
        Err(panic) => {
            Err(StoreError::corrupt(dir, format!("the store failed on it: {}", panic_text(&*panic))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_in_plain_words() {
        let corruption = sled::Error::Corruption { at: None, bt: () };
        let error = guarded(Path::new("state"), || Err::<(), _>(corruption)).unwrap_err();
        assert_eq!(error.to_string(), "state is damaged: its log cannot be read");
    }
}
