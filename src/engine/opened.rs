//! Which collections are open. Each opens when it is first needed and closes when it was not needed for long; no more
//! than a bound are open at once, and the one that was needed least lately makes room.
//!
//! A caller that holds a collection ([`InUse`]) keeps it open, so a request holds it from beginning to end. Opening and
//! closing take time and touch the disk: the calling thread does them, never async code, and holds no lock meanwhile.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::{Duration, Instant},
};

use super::{
    EngineError, FINDINGS_TARGET, Finding,
    catalog::{identify, named},
    error::Result,
};
use crate::{
    allocator,
    collection::{Collection, CollectionError, CollectionOptions, CollectionSpec, FolderLog, Identity, Made},
    error::{ErrorKind, Fault as _, with_sources},
    store::StoreError,
    threads::{Threads, large::dispose},
};

/// The time that a caller waits for another collection to be given up, where all that may be open are in use. Tests
/// wait longer, so that a busy machine does not fail them.
const ROOM_PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 120 } else { 10 });
/// How often it looks.
const ROOM_LOOK: Duration = Duration::from_millis(20);
/// A collection that could not be opened for want of something, such as file handles, is tried again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What a collection that closes gives back, at least; see `allocator`.
const MEMORY_BYTES: usize = 1 << 20;

/// What bounds the collections that are open.
#[derive(Debug)]
pub(super) struct Shelf {
    max: usize,
    /// See [`ROOM_PATIENCE`].
    patience: Duration,
    options: CollectionOptions,
    room: Mutex<Room>,
    /// Held while a collection's description is changed.
    describing: Mutex<()>,
}

#[derive(Debug)]
struct Room {
    /// Open, or being opened or closed.
    taken: usize,
    open: Vec<Weak<Place>>,
}

/// One collection, open or not.
#[derive(Debug)]
pub(super) struct Place {
    name: String,
    dir: PathBuf,
    spec: CollectionSpec,
    /// Not known until the first opening where an earlier version described it.
    identity: OnceLock<Identity>,
    shelf: Arc<Shelf>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
enum State {
    Shut,
    /// Somebody opens or closes it.
    Busy,
    Open {
        collection: Arc<Collection>,
        used: Instant,
        taken: Taken,
    },
    /// It is damaged, until a restart.
    Damaged {
        finding: Finding,
        /// What lies in its folder is another collection's.
        of_another: bool,
    },
    /// It could not be opened, for a reason that may pass.
    Unopened {
        finding: Finding,
        kind: ErrorKind,
        at: Instant,
    },
    /// It is never opened again.
    Gone,
}

/// The place of one that is open, or being opened or closed. Dropped, another one has it.
#[derive(Debug)]
struct Taken(Arc<Shelf>);

impl Drop for Taken {
    fn drop(&mut self) {
        // What the collection kept in memory lay in small pieces among those of others.
        allocator::given_back(MEMORY_BYTES);
        let mut room = lock(&self.0.room);
        room.taken -= 1;
        room.open.retain(|place| place.strong_count() > 0);
    }
}

/// An open collection in the hands of a caller, which keep it open. One that was closed meanwhile, as its deletion does,
/// is freed by its last caller: beside the thread that lets go of it, which may be an async one or a query's.
#[derive(Debug)]
pub(super) struct InUse(Option<Arc<Collection>>);

impl InUse {
    fn new(collection: &Arc<Collection>) -> Self {
        InUse(Some(Arc::clone(collection)))
    }
}

impl Deref for InUse {
    type Target = Collection;

    fn deref(&self) -> &Collection {
        self.0.as_ref().expect("it is taken when it is dropped, not before")
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Some(last) = self.0.take().and_then(Arc::into_inner) {
            dispose(last);
        }
    }
}

/// Why a collection does not answer.
#[derive(Debug)]
pub(super) enum Refusal {
    Damaged(Finding),
    Unopened(Finding, ErrorKind),
    NoRoom { limit: usize },
    Gone,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    /// For at most `max` open collections.
    pub(super) fn new(max: usize, log: Arc<FolderLog>, threads: Arc<Threads>) -> Arc<Self> {
        let max = max.max(1);
        let (options, patience) = (CollectionOptions { log, threads }, ROOM_PATIENCE);
        let room = Mutex::new(Room { taken: 0, open: Vec::new() });
        Arc::new(Shelf { max, patience, options, room, describing: Mutex::default() })
    }

    /// The log of the data folder.
    pub(super) fn log(&self) -> &Arc<FolderLog> {
        &self.options.log
    }

    /// To be held while a collection's description is changed.
    pub(super) fn describing(&self) -> MutexGuard<'_, ()> {
        lock(&self.describing)
    }

    /// How many may be open.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Takes a place for one more, closing another if it must.
    fn make_room(self: &Arc<Self>) -> Result<Taken, Refusal> {
        let until = Instant::now() + self.patience;
        loop {
            {
                let mut room = lock(&self.room);
                if room.taken < self.max {
                    room.taken += 1;
                    return Ok(Taken(Arc::clone(self)));
                }
            }
            if !self.close_least_used() {
                if Instant::now() >= until {
                    return Err(Refusal::NoRoom { limit: self.max });
                }
                std::thread::sleep(ROOM_LOOK);
            }
        }
    }

    /// Those that are open, the least lately used first.
    fn places(&self) -> Vec<Arc<Place>> {
        let open: Vec<Arc<Place>> = lock(&self.room).open.iter().filter_map(Weak::upgrade).collect();
        let mut used: Vec<(Instant, Arc<Place>)> =
            open.into_iter().filter_map(|place| Some((place.used()?, place))).collect();
        used.sort_by_key(|(used, _)| *used);
        used.into_iter().map(|(_, place)| place).collect()
    }

    fn close_least_used(&self) -> bool {
        self.places().iter().any(|place| place.close_unused(|_, _| true))
    }

    /// Closes what nobody has needed for `idle`, and what has nothing left to build.
    pub(super) fn close_idle(&self, idle: Duration) {
        for place in self.places() {
            place.close_unused(|collection, used| used.elapsed() >= idle && collection.is_settled());
        }
    }

    /// Whether [`Shelf::close_idle`] might find something.
    pub(super) fn has_idle(&self, idle: Duration) -> bool {
        self.places().first().and_then(|place| place.used()).is_some_and(|used| used.elapsed() >= idle)
    }
}

impl Place {
    /// A collection in a folder, not open yet.
    pub(super) fn new(shelf: &Arc<Shelf>, (name, dir): (&str, &Path), made: Made) -> Arc<Self> {
        Arc::new(Place {
            name: name.to_owned(),
            dir: dir.to_owned(),
            spec: made.spec,
            identity: made.identity.map(OnceLock::from).unwrap_or_default(),
            shelf: Arc::clone(shelf),
            state: Mutex::new(State::Shut),
            changed: Condvar::new(),
        })
    }

    /// A new collection, made by `make` and open.
    ///
    /// # Errors
    /// Those of `make`; [`EngineError::TooManyOpen`].
    pub(super) fn create(
        shelf: &Arc<Shelf>,
        (name, dir): (&str, &Path),
        spec: CollectionSpec,
        make: impl FnOnce(CollectionOptions) -> Result<Arc<Collection>>,
    ) -> Result<Arc<Self>> {
        let place = Place::new(shelf, (name, dir), Made { spec, identity: None });
        let taken = shelf.make_room().map_err(|refusal| refusal.of(name))?;
        let collection = make(shelf.options.clone())?;
        place.identity.get_or_init(|| collection.identity());
        place.enter(collection, taken);
        Ok(place)
    }

    fn used(&self) -> Option<Instant> {
        match &*lock(&self.state) {
            State::Open { used, .. } => Some(*used),
            _ => None,
        }
    }

    /// The collection if it is open, for a caller that only looks at it. This never waits.
    pub(super) fn open_now(&self) -> Option<InUse> {
        match &*lock(&self.state) {
            State::Open { collection, .. } => Some(InUse::new(collection)),
            _ => None,
        }
    }

    /// [`Place::collection`] if it is open already. Waits for nothing.
    pub(super) fn use_now(&self) -> Option<InUse> {
        match &mut *lock(&self.state) {
            State::Open { collection, used, .. } => {
                *used = Instant::now();
                Some(InUse::new(collection))
            }
            _ => None,
        }
    }

    /// Why it cannot be opened, as far as is known.
    pub(super) fn damage(&self) -> Option<Finding> {
        match &*lock(&self.state) {
            State::Damaged { finding, .. } | State::Unopened { finding, .. } => Some(finding.clone()),
            _ => None,
        }
    }

    /// Why it cannot be opened, if what lies in its folder is another collection's.
    pub(super) fn holds_another(&self) -> Option<Finding> {
        match &*lock(&self.state) {
            State::Damaged { finding, of_another: true } => Some(finding.clone()),
            _ => None,
        }
    }

    /// Which collection it is, as far as is known.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity.get().copied()
    }

    /// The collection, opened if it is not. Slow then; never call it from async code unless it was open just before.
    pub(super) fn collection(self: &Arc<Self>) -> Result<InUse, Refusal> {
        {
            let mut state = lock(&self.state);
            loop {
                match &mut *state {
                    State::Open { collection, used, .. } => {
                        *used = Instant::now();
                        return Ok(InUse::new(collection));
                    }
                    State::Damaged { finding, .. } => return Err(Refusal::Damaged(finding.clone())),
                    State::Unopened { finding, kind, at } if at.elapsed() < RETRY_AFTER => {
                        return Err(Refusal::Unopened(finding.clone(), *kind));
                    }
                    State::Gone => return Err(Refusal::Gone),
                    State::Busy => {
                        state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    }
                    State::Shut | State::Unopened { .. } => {
                        *state = State::Busy;
                        break;
                    }
                }
            }
        }
        // From here on this thread opens it; should it panic, the next one tries.
        let busy = Busy(self);
        let taken = self.shelf.make_room()?;
        let made = Made { spec: self.spec.clone(), identity: self.identity() };
        match named(&self.name, || Collection::open(&self.dir, made, self.shelf.options.clone())) {
            Ok(collection) => {
                if self.identity().is_none() {
                    let identity = *self.identity.get_or_init(|| collection.identity());
                    let _one = self.shelf.describing();
                    identify(&self.dir, identity);
                }
                let in_use = InUse::new(&collection);
                self.enter(collection, taken);
                Ok(in_use)
            }
            Err(error) => {
                drop(taken);
                let damaged = error.kind() == ErrorKind::Corrupt;
                let finding = unopened(&error, &self.dir, damaged);
                tracing::error!(
                    target: FINDINGS_TARGET,
                    what = finding.what,
                    remedy = finding.remedy,
                    "a collection cannot be opened"
                );
                let (state, refusal) = if damaged {
                    let of_another = is_of_another(&error);
                    (State::Damaged { finding: finding.clone(), of_another }, Refusal::Damaged(finding))
                } else {
                    let (kind, at) = (error.kind(), Instant::now());
                    let state = State::Unopened { finding: finding.clone(), kind, at };
                    (state, Refusal::Unopened(finding, kind))
                };
                *lock(&self.state) = state;
                drop(busy);
                Err(refusal)
            }
        }
    }

    fn enter(self: &Arc<Self>, collection: Arc<Collection>, taken: Taken) {
        lock(&self.shelf.room).open.push(Arc::downgrade(self));
        *lock(&self.state) = State::Open { collection, used: Instant::now(), taken };
        self.changed.notify_all();
    }

    /// Closes it if it is open, nobody uses it, and `why` says so; whether it did.
    fn close_unused(&self, why: impl FnOnce(&Collection, Instant) -> bool) -> bool {
        let (collection, taken) = {
            let mut state = lock(&self.state);
            match &*state {
                // One that failed to write, or whose damage a read met, stays: it would forget that.
                State::Open { collection, used, .. }
                    if Arc::strong_count(collection) == 1
                        && collection.read_only().is_none()
                        && collection.damage().is_none()
                        && why(collection, *used) => {}
                _ => return false,
            }
            let State::Open { collection, taken, .. } = std::mem::replace(&mut *state, State::Busy) else {
                unreachable!("it was looked at under this lock");
            };
            (collection, taken)
        };
        let busy = Busy(self);
        if let Err(error) = collection.close() {
            tracing::error!(collection = self.name, %error, "closing a collection that was not used");
        }
        // Its memory goes here, and not on the thread of a query.
        drop(collection);
        self.leave();
        drop(taken);
        drop(busy);
        true
    }

    /// It is not among those that are open any more.
    fn leave(&self) {
        lock(&self.shelf.room).open.retain(|place| !std::ptr::eq(place.as_ptr(), self));
    }

    /// Closes it for good, also under those who use it.
    ///
    /// # Errors
    /// As [`Collection::close`].
    pub(super) fn close(&self) -> Result<(), CollectionError> {
        let mut state = lock(&self.state);
        while matches!(&*state, State::Busy) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let State::Open { collection, .. } = &*state else {
            *state = State::Gone;
            return Ok(());
        };
        // It stays visible until it is closed, for a caller that asks what the shutdown waits for.
        let collection = Arc::clone(collection);
        drop(state);
        let closed = collection.close();
        // What was there gives its place back when it is dropped, which is after the lock is let go.
        let before = std::mem::replace(&mut *lock(&self.state), State::Gone);
        self.leave();
        drop(before);
        closed
    }
}

/// The caller that opens or closes a collection. If it is dropped before it reports the result, the collection stays
/// closed.
struct Busy<'a>(&'a Place);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        if matches!(&*state, State::Busy) {
            *state = State::Shut;
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Refusal {
    /// For the collection of that name.
    pub(super) fn of(self, name: &str) -> EngineError {
        match self {
            Refusal::Damaged(finding) => {
                EngineError::Damaged { name: name.to_owned(), reason: finding.to_string() }
            }
            Refusal::Unopened(finding, kind) => EngineError::Unopened {
                name: name.to_owned(),
                reason: finding.to_string(),
                retry: kind != ErrorKind::Precondition,
            },
            Refusal::NoRoom { limit } => EngineError::TooManyOpen { limit },
            Refusal::Gone => EngineError::Closing,
        }
    }
}

fn is_of_another(error: &CollectionError) -> bool {
    matches!(error, CollectionError::Store(error) if matches!(**error, StoreError::OtherCollection { .. }))
}

/// Why a collection cannot be opened.
fn unopened(error: &CollectionError, dir: &Path, damaged: bool) -> Finding {
    let what = with_sources(error);
    let dir = dir.display();
    let remedy = if is_of_another(error) {
        format!("put that right, or put {dir} back from a backup, and start again")
    } else if damaged {
        format!("repair that, or put {dir} back from a backup, and start again; or delete the collection")
    } else {
        format!(
            "see to that; nothing says that {dir} is damaged, and every later call tries to open it again"
        )
    };
    Finding { what, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        collection::StoreSizes,
        index::IndexParams,
        vector::{Dim, Metric},
    };

    #[test]
    fn who_finds_no_room_in_time_is_refused_and_the_next_is_served_when_there_is_some() {
        let folder = tempfile::tempdir().unwrap();
        let spec = CollectionSpec {
            dim: Dim::new(2).unwrap(),
            metric: Metric::Cosine,
            index: IndexParams::default(),
            fingerprint: String::new(),
        };
        let threads = Threads::new(1).unwrap();
        let log = FolderLog::of(folder.path(), &threads, StoreSizes::default()).unwrap();
        let mut shelf = Shelf::new(1, log, threads);
        Arc::get_mut(&mut shelf).unwrap().patience = Duration::ZERO;
        let create = |name: &str| {
            let dir = folder.path().join("collections").join(name);
            let make = |options| Ok(Collection::create(&dir, spec.clone(), options)?);
            Place::create(&shelf, (name, &dir), spec.clone(), make)
        };
        let first = create("first").unwrap();
        let in_use = first.collection().unwrap();
        let error = create("second").unwrap_err();
        assert!(matches!(error, EngineError::TooManyOpen { limit: 1 }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        drop(in_use);
        let second = create("second").unwrap();
        assert!(first.open_now().is_none() && second.open_now().is_some());
        let in_use = second.collection().unwrap();
        let refusal = first.collection().unwrap_err();
        assert!(matches!(refusal, Refusal::NoRoom { limit: 1 }), "{refusal:?}");
        drop(in_use);
        first.collection().unwrap();
    }
}
