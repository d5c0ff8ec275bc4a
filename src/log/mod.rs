//! The log of a data folder: every change of every collection, in order, before it is anything else.
//!
//! A [`Ticket`] becomes an entry with a [`Sequence`]; many tickets become one block, written at once and synced once;
//! what a caller was answered for is there after the loss of the process or of the power, as it asked. At the next
//! start [`Log::open`] gives the entries out again in the same order, and says what of them is damaged and whose it was.
//!
//! The log does not know what an entry means. It knows whose it is, so that damage stays with the collection it hit.
//!
//! | file | what |
//! |---|---|
//! | `format.rs` | bytes, as in `FORMAT.md` |
//! | `scan.rs`, `recover.rs` | files become entries, damage, and the place to go on |
//! | `append.rs` | blocks become bytes in files |
//! | `queue.rs` | what waits, and whose turn it is |
//! | `committer.rs` | what waits becomes blocks and answers |
//! | `ledger.rs` | which file has what of which collection |
//!
#![doc = include_str!("FORMAT.md")]

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use crate::{
    files::disk::Disk,
    panics::panic_text,
    threads::crew::{Crew, Next, Seat},
};

mod append;
mod committer;
mod error;
mod format;
mod ledger;
mod queue;
mod recover;
mod scan;
#[cfg(test)]
mod tests;

pub(crate) use committer::{Committer, Point};
pub(crate) use error::{Damage, LogError, Suspects};
#[cfg(test)]
pub(crate) use ledger::Sizes;

use append::Appender;
use ledger::Ledger;
use queue::Queue;
use recover::For;

/// What a folder is known by: the log of another one is refused.
pub(crate) type Identity = [u8; 16];

/// The number of an entry: ascending by one over the whole folder, from 1, and never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Sequence(pub(crate) u64);

impl Sequence {
    /// That of the first entry.
    pub(crate) const FIRST: Sequence = Sequence(1);

    /// The one after.
    pub(crate) fn next(self) -> Self {
        Sequence(self.0.saturating_add(1))
    }

    /// The one before; of the first, and of none, none.
    pub(crate) fn before(self) -> Self {
        Sequence(self.0.saturating_sub(1))
    }
}

/// An entry, as it is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) sequence: Sequence,
    /// Whose it is; 0 is the folder itself.
    pub(crate) collection: u64,
    /// What it is, which its collection knows.
    pub(crate) kind: u8,
    pub(crate) bytes: &'a [u8],
    /// Where the bytes are, to be read again.
    pub(crate) file: &'a Path,
    pub(crate) offset: u64,
    /// Their CRC32C.
    pub(crate) sum: u32,
}

/// What is found where an entry is, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen<'a> {
    Entry(Entry<'a>),
    Lost(Lost<'a>),
}

/// An entry whose bytes are not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost<'a> {
    pub(crate) sequence: Sequence,
    pub(crate) collection: u64,
    pub(crate) file: &'a Path,
    /// Where its bytes are.
    pub(crate) offset: u64,
}

/// What must not take away a write that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The loss of power: it is answered after a sync.
    #[default]
    Power,
    /// The end of the process: it is answered when the system has it, and synced within a second.
    Process,
}

/// What is to become of a ticket whose turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "conditions that are decided by the log come next"))]
pub(crate) enum Check {
    /// It is written.
    Write,
    /// It goes with the next block: a ticket of the same collection that is written with this one must be applied first.
    Wait,
    /// Nothing is to be written, and whoever asked has been told.
    Answered,
}

/// What a ticket does besides being written. All of it is called by the committer, one call at a time, so none of it
/// may take long.
pub(crate) trait Outcome: Send {
    /// Decides, in the order of the log, whether the ticket is written. Everything before it is applied but what is
    /// written in the same block.
    fn check(&mut self) -> Check {
        Check::Write
    }

    /// Applies what was written, and answers whoever asked; or tells them why it was not. Called once, in order of
    /// sequence, unless `check` said [`Check::Answered`].
    fn done(self: Box<Self>, written: Result<Sequence, LogError>);
}

impl<F: FnOnce(Result<Sequence, LogError>) + Send> Outcome for F {
    fn done(self: Box<Self>, written: Result<Sequence, LogError>) {
        self(written);
    }
}

/// Something to be written.
pub(crate) struct Ticket {
    collection: u64,
    kind: u8,
    payload: Vec<u8>,
    /// CRC32C of the payload, computed by whoever brings it: not on the committer's time.
    sum: u32,
    durability: Durability,
    frees_room: bool,
    outcome: Box<dyn Outcome>,
}

impl Ticket {
    /// A ticket of `collection` (0: the folder). A closure is called with what became of it.
    pub(crate) fn new(
        collection: u64,
        kind: u8,
        payload: Vec<u8>,
        durability: Durability,
        outcome: impl Outcome + 'static,
    ) -> Self {
        let sum = crc32c::crc32c(&payload);
        let outcome = Box::new(outcome);
        Ticket { collection, kind, payload, sum, durability, frees_room: false, outcome }
    }

    /// A ticket that leads to more room on the disk, as a deletion does: it is written when the disk is full too.
    pub(crate) fn frees_room(self) -> Self {
        Ticket { frees_room: true, ..self }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("collection", &self.collection)
            .field("kind", &self.kind)
            .field("bytes", &self.payload.len())
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

/// Sizes and times of a log.
#[derive(Debug, Clone)]
pub(crate) struct LogOptions {
    /// Bytes of a file. A multiple of 4,096, at least 64 KiB, [`LogOptions::FILE_BYTES`] by default.
    pub(crate) file_bytes: u64,
    /// Bytes of a file that are kept for tickets that free room while there is no next file. By default a sixteenth of
    /// [`LogOptions::FILE_BYTES`].
    pub(crate) reserve_bytes: u64,
    /// Tickets that may wait.
    pub(crate) tickets_max: usize,
    /// Bytes of payload that may wait, and of the largest ticket.
    pub(crate) queue_bytes: usize,
    /// How long what was answered for [`Durability::Process`] may stay without a sync.
    pub(crate) sync_after: Duration,
    #[cfg(test)]
    pub(crate) points: Points,
}

/// What a test does where the log is.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Points(pub(crate) Option<Arc<dyn Fn(Point) + Send + Sync>>);

#[cfg(test)]
impl fmt::Debug for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Points")
    }
}

impl LogOptions {
    /// Bytes of a file by default.
    pub(crate) const FILE_BYTES: u64 = 16 << 20;
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            file_bytes: Self::FILE_BYTES,
            reserve_bytes: Self::FILE_BYTES / 16,
            tickets_max: 1 << 14,
            queue_bytes: 512 << 20,
            sync_after: Duration::from_secs(1),
            #[cfg(test)]
            points: Points::default(),
        }
    }
}

/// A log that is open. Many threads may share it.
#[derive(Debug)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    seat: OnceLock<Seat>,
}

/// What opening a log gives.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) log: Log,
    /// Does the writing, once it has turns: see [`Log::run`].
    pub(crate) committer: Committer,
    /// What is not as it was written, by file and offset.
    pub(crate) damages: Vec<Damage>,
    /// Of the entry that will be written next.
    pub(crate) next: Sequence,
}

/// What a look at a log gives.
#[derive(Debug)]
pub(crate) struct Looked {
    /// What is not as it was written, by file and offset: what opening it would report.
    pub(crate) damages: Vec<Damage>,
    /// A torn tail, which the next opening cuts: file, offset and bytes. It was never answered for.
    pub(crate) torn: Option<(PathBuf, u64, u64)>,
    /// Of the entry that will be written next.
    pub(crate) next: Sequence,
    /// Its files, oldest first.
    pub(crate) files: Vec<PathBuf>,
}

/// What the log and its committer share.
#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: LogOptions,
    state: Mutex<State>,
    ledger: Mutex<Ledger>,
    /// One cut at a time.
    cutting: Mutex<()>,
    failed: OnceLock<Arc<str>>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// Those who wait for a sync of what is written.
    syncs: Vec<Box<dyn Outcome>>,
    /// The committer waits to be woken.
    is_asleep: bool,
    is_closed: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("queue", &self.queue).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Opens the log in `dir`, which is made if it is not there, and gives out its entries from `from` on, in order.
    ///
    /// `from` is the first sequence that is not kept elsewhere: everything below must have been synced
    /// ([`Log::sync`]) before it was put down anywhere as kept. Reads every byte that was written and not cut.
    ///
    /// # Errors
    /// [`LogError::NotOurs`], [`LogError::OtherFolder`], [`LogError::NewerFormat`] name a file that must not be there;
    /// else what the file system says. Damage is no error: it is returned, and everything else is read.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: Identity,
        options: LogOptions,
        from: Sequence,
        emit: &mut dyn FnMut(Entry<'_>),
    ) -> Result<Opened, LogError> {
        let mut emit = |seen: Seen<'_>| {
            if let Seen::Entry(entry) = seen {
                emit(entry);
            }
        };
        let recovered = recover::recover(For::Writing, &disk, dir, &identity, from, &mut emit)?;
        let place = (recovered.next_number, recovered.next);
        let appender = Appender::new(disk.clone(), dir, identity, options.clone(), recovered.active, place);
        let shared = Arc::new(Shared {
            disk,
            dir: dir.to_owned(),
            options,
            state: Mutex::new(State { is_asleep: true, ..State::default() }),
            ledger: Mutex::new(recovered.ledger),
            cutting: Mutex::default(),
            failed: OnceLock::new(),
        });
        let committer = Committer::new(Arc::clone(&shared), appender);
        let log = Log { shared, seat: OnceLock::new() };
        Ok(Opened { log, committer, damages: recovered.damages, next: recovered.next })
    }

    /// Reads the log in `dir` as [`Log::open`] would if it were without the files `without`, and changes nothing: nothing
    /// is made, cut or written once more. An entry that is lost is told in its place, too.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub(crate) fn look(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        identity: &Identity,
        from: Sequence,
        without: &[PathBuf],
        seen: &mut dyn FnMut(Seen<'_>),
    ) -> Result<Looked, LogError> {
        let recovered = recover::recover(For::Looking(without), disk, dir, identity, from, seen)?;
        let recover::Recovered { damages, torn, next, ledger, .. } = recovered;
        let files = ledger.files.into_iter().map(|file| file.path).collect();
        Ok(Looked { damages, torn, next, files })
    }

    /// Identity and first entry of the log whose files are in `dir`, as the oldest file says whose beginning is whole.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn identify(disk: &dyn Disk, dir: &Path) -> Result<Option<(Identity, Sequence)>, LogError> {
        recover::identify(disk, dir)
    }

    /// Writes one entry to a log that was just opened, durably, on the calling thread, and ends it.
    ///
    /// # Errors
    /// As [`Log::submit`], and what the file system says.
    pub(crate) fn write_one(
        opened: Opened,
        collection: u64,
        kind: u8,
        payload: Vec<u8>,
    ) -> Result<Sequence, LogError> {
        let Opened { log, mut committer, .. } = opened;
        let (told, answer) = std::sync::mpsc::channel();
        let done = move |written| _ = told.send(written);
        let submitted = log.submit(Ticket::new(collection, kind, payload, Durability::Power, done));
        log.close();
        while committer.turn() != Next::Leave {}
        submitted?;
        answer.recv().unwrap_or(Err(LogError::Closed))
    }

    /// Lets the threads of a crew do the writing.
    pub(crate) fn run(&self, mut committer: Committer, crew: &Crew) {
        let seat = crew.join(move || committer.turn());
        if self.seat.set(seat).is_ok() {
            self.wake_now();
        }
    }

    /// Hands a ticket in. Returns at once.
    ///
    /// # Errors
    /// The ticket is not taken, and is not told: [`LogError::Overloaded`], [`LogError::TooLarge`], and
    /// [`LogError::Failed`] or [`LogError::Closed`] where nothing is written any more.
    pub(crate) fn submit(&self, ticket: Ticket) -> Result<(), LogError> {
        let (bytes, max) = (ticket.payload.len(), self.shared.options.queue_bytes);
        if bytes > max {
            return Err(LogError::TooLarge { bytes, max });
        }
        self.shared.failure().map_or(Ok(()), Err)?;
        self.enter(|state| state.queue.push(ticket, &self.shared.options))
    }

    /// Syncs what was written and answered by now, and tells `done` up to which sequence everything is synced.
    ///
    /// # Errors
    /// As [`Log::submit`]; `done` is not called then.
    pub(crate) fn sync(&self, done: impl Outcome + 'static) -> Result<(), LogError> {
        self.shared.failure().map_or(Ok(()), Err)?;
        self.enter(|state| {
            state.syncs.push(Box::new(done));
            Ok(())
        })
    }

    fn enter(&self, add: impl FnOnce(&mut State) -> Result<(), LogError>) -> Result<(), LogError> {
        let wakes = {
            let mut state = lock(&self.shared.state);
            if state.is_closed {
                return Err(self.shared.failure().unwrap_or(LogError::Closed));
            }
            add(&mut state)?;
            std::mem::take(&mut state.is_asleep)
        };
        if wakes {
            self.wake_now();
        }
        Ok(())
    }

    fn wake_now(&self) {
        if let Some(seat) = self.seat.get() {
            seat.wake();
        }
    }

    /// The error that every write gets since the log has failed; `None` while it works.
    pub(crate) fn failed(&self) -> Option<LogError> {
        self.shared.failure()
    }

    /// Bytes of all files, and the sequence below which nothing may be needed for the oldest file to go; `None` if there
    /// is only the one that is written. Costs little.
    pub(crate) fn extent(&self) -> (u64, Option<Sequence>) {
        lock(&self.shared.ledger).extent()
    }

    /// How large the log is, and what pins it.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> Sizes {
        lock(&self.shared.ledger).sizes()
    }

    /// Removes the files all of whose entries are below `below`, oldest first; returns how many. To be called when
    /// a later [`Log::open`] is sure to be given `below` or more.
    ///
    /// # Errors
    /// What the file system says. What is left goes with the next cut.
    pub(crate) fn cut(&self, below: Sequence) -> Result<usize, LogError> {
        let _turn = lock(&self.shared.cutting);
        let mut removed = 0;
        loop {
            let oldest = lock(&self.shared.ledger).oldest_below(below).map(|file| file.path.clone());
            let Some(path) = oldest else { break };
            self.shared.reach(Point::Cutting);
            match self.shared.disk.remove(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.map_err(LogError::at(&path))?,
            }
            lock(&self.shared.ledger).remove_oldest();
            removed += 1;
        }
        if removed > 0 {
            self.shared.disk.sync_dir(&self.shared.dir).map_err(LogError::at(&self.shared.dir))?;
        }
        Ok(removed)
    }

    /// Takes no more tickets, writes and syncs what waits, and returns when that is done. Not to be called by an
    /// [`Outcome`].
    pub(crate) fn close(&self) {
        self.leave();
        if let Some(seat) = self.seat.get() {
            seat.wait_left();
        }
    }

    fn leave(&self) {
        lock(&self.shared.state).is_closed = true;
        self.wake_now();
    }
}

impl Drop for Log {
    /// What waits is still written.
    fn drop(&mut self) {
        self.leave();
    }
}

impl Shared {
    fn failure(&self) -> Option<LogError> {
        self.failed.get().map(|reason| LogError::Failed { reason: Arc::clone(reason) })
    }

    fn fail(&self, reason: &str) {
        if self.failed.set(Arc::from(reason)).is_ok() {
            tracing::error!(dir = %self.dir.display(), reason, "log: nothing is written any more until a restart");
        }
    }

    /// Tells an outcome what became of it. If it cannot take that in, memory is not what the log says, and the log is
    /// failed.
    fn answer(&self, outcome: Box<dyn Outcome>, done: Result<Sequence, LogError>) {
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| outcome.done(done)));
        if let Err(panic) = told {
            self.fail(&format!("a write could not be applied: {}", panic_text(&*panic)));
        }
    }

    /// Tests stop the log here.
    fn reach(&self, point: Point) {
        #[cfg(test)]
        if let Some(points) = &self.options.points.0 {
            points(point);
        }
        #[cfg(not(test))]
        let _ = point;
    }
}
