//! Writes that must outlive the power beside writes that need not, while collections are sealed and merged: nothing that
//! is put down elsewhere may know more than the log is sure of.

use std::sync::{
    Condvar,
    atomic::{AtomicU64, AtomicUsize, Ordering},
    mpsc,
};

use super::*;
use crate::{
    files::{forgetful::ForgetfulDisk, seeds},
    log::{Point, Points},
};

const IDENTITIES: [Identity; 2] = [Identity([3; 16]), Identity([5; 16])];

/// What is stored: each number, and the document that it was put with. A number may be given out again once the write that
/// gave it out is lost, so documents are told apart by something that never comes twice.
type Documents = BTreeMap<u64, u64>;

/// A write that the log took: what it puts and what it buries.
struct Change {
    new: Documents,
    buried: Vec<u64>,
}

/// A collection as it may be found: what it had for sure, and the writes since, in order.
#[derive(Default)]
struct Course {
    base: Documents,
    changes: Vec<Change>,
    /// How many of the writes must be found: an acknowledged one that outlives the power comes after them, or is the last of
    /// them.
    sure: usize,
    /// How many of the writes were acknowledged.
    acknowledged: usize,
}

impl Course {
    /// After so many of the writes.
    fn after(&self, count: usize) -> Documents {
        let mut documents = self.base.clone();
        for Change { new, buried } in &self.changes[..count] {
            documents.retain(|number, _| !buried.contains(number));
            documents.extend(new);
        }
        documents
    }

    /// What was found is a beginning of what was written, and long enough.
    fn found(&mut self, found: Documents, what: &str) {
        let fits = (self.sure..=self.changes.len()).any(|count| self.after(count) == found);
        assert!(fits, "{what}: {} of {} writes must be there", self.sure, self.changes.len());
        *self = Course { base: found, ..Course::default() };
    }
}

/// A folder with two collections, and a process that has it.
struct Pair {
    disk: ForgetfulDisk,
    world: World,
    points: Points,
}

impl Pair {
    fn new(disk: ForgetfulDisk, points: Points) -> Self {
        let world = World::new(Arc::new(disk.clone()), Path::new("/data"));
        Pair { disk, world, points }
    }

    fn dir(&self, at: usize) -> PathBuf {
        self.world.root.join("collections").join(["x", "y"][at])
    }

    fn log(&self) -> Result<Arc<FolderLog>, StoreError> {
        let mut place = self.world.log.lock().unwrap();
        if let Some(log) = &*place {
            return Ok(Arc::clone(log));
        }
        let mut options = folder_options();
        options.log.points = self.points.clone();
        let opened = FolderLog::open(&self.world.disk, &self.world.root, &self.world.threads, options)?.0;
        *place = Some(Arc::clone(&opened));
        Ok(opened)
    }

    fn create(&self) -> [Store; 2] {
        self.disk.create_dir(&self.world.root).unwrap();
        self.disk.sync_dir(Path::new("/")).unwrap();
        [0, 1].map(|at| {
            self.world.make_folder(&self.dir(at));
            let log = self.log().unwrap();
            Store::create(&log, &self.dir(at), IDENTITIES[at], space(DIMENSION), OPTIONS).unwrap()
        })
    }

    fn open(&self) -> Result<[Store; 2], StoreError> {
        let open =
            |at: usize| Store::open(&self.log()?, &self.dir(at), IDENTITIES[at], space(DIMENSION), OPTIONS);
        Ok([open(0)?, open(1)?])
    }

    /// The process ends, the power is gone, and the next process starts with what is left.
    fn lose_power(self, seed: u64) -> Self {
        self.world.stop();
        let disk = self.disk.crash(seed);
        let world = self.world.on(Arc::new(disk.clone()));
        Pair { disk, world, points: Points::default() }
    }
}

/// Every document of a store, whole, with what it was put with.
fn documents(store: &Store) -> Documents {
    let mut found = Documents::new();
    store
        .load(|Loaded { number, id, vectors: got_vectors, .. }| {
            let of = id.as_str().rsplit(' ').next().unwrap().parse().unwrap();
            let got = store.snapshot().head(number, Path::new("x"))?;
            assert_eq!(got, Some(head(of)), "document {number}");
            assert_eq!(got_vectors, vectors(of, DIMENSION).concat(), "document {number}");
            assert_eq!(text_in(store, number), text(of), "document {number}");
            found.insert(number, of);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    found
}

/// What was acknowledged, in that order: of which collection, and whether it must outlive the power.
type Acknowledged = Arc<Mutex<Vec<(usize, Durability)>>>;

/// Hands in a few writes at once and waits for all of them. `false` if the power is gone.
fn write_some(
    stores: &[Store; 2],
    courses: &mut [Course; 2],
    next_document: &mut u64,
    random: &mut SplitMix,
) -> bool {
    let acknowledged = Acknowledged::default();
    let (told, answers) = mpsc::channel();
    let mut waiting = 0;
    let mut live = [0, 1].map(|at| courses[at].after(courses[at].changes.len()));
    let mut is_on = true;
    for _ in 0..1 + random.below(5) {
        let at = usize::from(random.below(2) == 0);
        // Mostly without a sync, so that much is at stake.
        let durability = if random.below(4) == 0 { Durability::Power } else { Durability::Process };
        let numbers: BTreeSet<u64> = live[at].keys().copied().collect();
        let buried = some(&numbers, 2, random);
        let count = u64::from(buried.is_empty()) + random.below(3);
        let mut new = Documents::new();
        let build = |next: u64| {
            let mut batch = StoreBatch::default();
            for number in next..next + count {
                put_as(&mut batch, number, *next_document);
                new.insert(number, *next_document);
                *next_document += 1;
            }
            for number in &buried {
                batch.bury(*number, head(live[at][number]).passages());
            }
            batch
        };
        let (told, acknowledged) = (told.clone(), Arc::clone(&acknowledged));
        let done = move |result: Result<(), StoreError>| {
            if result.is_ok() {
                acknowledged.lock().unwrap().push((at, durability));
            }
            told.send(result.is_ok()).unwrap();
        };
        match stores[at].hand_in(build, durability, done) {
            Ok(()) => waiting += 1,
            // Nothing was taken: what grew has to be sealed first.
            Err(StoreError::Busy { .. }) => {
                is_on &= stores[at].seal().is_ok();
                continue;
            }
            Err(_) => {
                is_on = false;
                break;
            }
        }
        // What it puts is not buried before it is there.
        buried.iter().for_each(|number| _ = live[at].remove(number));
        courses[at].changes.push(Change { new, buried });
    }
    is_on &= answers.iter().take(waiting).filter(|is_ok| !is_ok).count() == 0;
    for (at, durability) in acknowledged.lock().unwrap().iter() {
        courses[*at].acknowledged += 1;
        if *durability == Durability::Power {
            // Whatever the folder acknowledged before it.
            courses.iter_mut().for_each(|course| course.sure = course.acknowledged);
        }
    }
    is_on
}

/// Random steps until the power goes.
fn go_on(stores: &[Store; 2], courses: &mut [Course; 2], next_document: &mut u64, random: &mut SplitMix) {
    loop {
        let store = &stores[usize::from(random.below(2) == 0)];
        let done = match random.below(9) {
            0 => store.seal().map(drop),
            1 => store.merge_all(&Stop::default()).map(drop),
            2 => store.carry_forward().map(drop),
            3 => maintain(store).and_then(|_| store.log().cut()).map(drop),
            // Both at once.
            4 => std::thread::scope(|scope| {
                let other = scope.spawn(|| stores[0].seal());
                stores[1].merge_all(&Stop::default())?;
                other.join().unwrap().map(drop)
            }),
            _ if write_some(stores, courses, next_document, random) => Ok(()),
            _ => return,
        };
        if done.is_err() {
            return;
        }
    }
}

#[test]
fn after_a_loss_of_power_each_collection_has_a_beginning_of_its_writes_with_all_that_outlive_it() {
    // Of the writes that a loss of power may take, some are taken and some are not.
    let (lost, kept) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let tried = seeds::each(1_000, |seed| {
        let mut random = SplitMix(seed);
        let mut pair = Pair::new(ForgetfulDisk::new(seed), Points::default());
        let mut courses = [Course::default(), Course::default()];
        let mut next_document = 0;
        let mut stores = Some(pair.create());
        for round in 0..4 {
            pair.disk.crash_at_call(1 + random.below(200));
            // The power may also go while they are opened.
            match stores.take().map_or_else(|| pair.open(), Ok) {
                Ok(stores) => go_on(&stores, &mut courses, &mut next_document, &mut random),
                Err(error) => assert!(pair.disk.is_off(), "{error}"),
            }
            assert!(pair.disk.is_off());
            pair = pair.lose_power(random.next());
            let opened = pair.open().unwrap();
            for (at, course) in courses.iter_mut().enumerate() {
                let (sure, all) = (course.after(course.sure), course.after(course.changes.len()));
                let found = documents(&opened[at]);
                lost.fetch_add(usize::from(found != all), Ordering::Relaxed);
                kept.fetch_add(usize::from(found != sure), Ordering::Relaxed);
                course.found(found, &format!("seed {seed}, round {round}, collection {at}"));
            }
            stores = Some(opened);
        }
    });
    let (lost, kept) = (lost.into_inner(), kept.into_inner());
    println!("{tried} seeds; {lost} times not all was there, {kept} times more than had to be");
    assert!(
        tried == 1 || lost > 300 && kept > 300,
        "the power takes too little or too much to test anything"
    );
}

/// Holds the committer where it is about to sync.
#[derive(Default)]
struct Gate {
    /// Whether syncs are held, and how many came.
    state: Mutex<(bool, u64)>,
    changed: Condvar,
}

impl Gate {
    fn points(self: &Arc<Self>) -> Points {
        let gate = Arc::clone(self);
        Points(Some(Arc::new(move |point| {
            if point == Point::BeforeSync {
                let mut state = gate.state.lock().unwrap();
                state.1 += 1;
                gate.changed.notify_all();
                drop(gate.changed.wait_while(state, |(is_held, _)| *is_held).unwrap());
            }
        })))
    }

    fn hold(&self) {
        *self.state.lock().unwrap() = (true, 0);
    }

    fn wait_for_one(&self) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |(_, came)| *came == 0).unwrap());
    }

    fn let_go(&self) {
        self.state.lock().unwrap().0 = false;
        self.changed.notify_all();
    }
}

fn write_unsynced(store: &Store, document: u64) {
    // As if an earlier write had reserved numbers, which is synced.
    store.0.reserved.fetch_max(1 << 20, Ordering::SeqCst);
    let (told, answer) = mpsc::channel();
    let build = |next| {
        let mut batch = StoreBatch::default();
        put_as(&mut batch, next, document);
        batch
    };
    store.hand_in(build, Durability::Process, move |result| told.send(result).unwrap()).unwrap();
    answer.recv().unwrap().unwrap();
}

/// The one that seals second finds a sync under way, which is not yet one that has happened.
#[test]
fn a_segment_waits_for_the_sync_that_another_collection_has_begun() {
    let gate = Arc::new(Gate::default());
    let pair = Pair::new(ForgetfulDisk::new(1), gate.points());
    let stores = pair.create();
    for (document, store) in (1..).zip(&stores) {
        write_unsynced(store, document);
    }
    gate.hold();
    let sealed = AtomicU64::new(0);
    let seal = |store: &Store| {
        store.seal().unwrap();
        sealed.fetch_add(1, Ordering::SeqCst);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| seal(&stores[0]));
        gate.wait_for_one();
        scope.spawn(|| seal(&stores[1]));
        // Long enough for a segment of one document.
        std::thread::sleep(std::time::Duration::from_millis(500));
        let early = sealed.load(Ordering::SeqCst);
        gate.let_go();
        assert_eq!(early, 0, "a segment holds what is not synced");
    });
    assert_eq!(sealed.load(Ordering::SeqCst), 2);
    drop(stores);
    let pair = pair.lose_power(1);
    for (document, store) in (1..).zip(&pair.open().unwrap()) {
        assert_eq!(documents(store), Documents::from([(0, document)]));
    }
}

/// Asked again, a log that could not sync does not say that it has.
#[test]
fn nothing_is_sealed_that_could_not_be_synced() {
    let pair = Pair::new(ForgetfulDisk::new(2), Points::default());
    let stores = pair.create();
    write_unsynced(&stores[0], 1);
    let log = pair.log().unwrap();
    pair.disk.fail_sync(1);
    for _ in 0..3 {
        log.sync().unwrap_err();
    }
    drop(stores);
    pair.world.stop();
    log.sync().unwrap_err();
}
