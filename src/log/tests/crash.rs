//! Seeded losses of power, at any call, also while a log is opened; deaths of the process; failed syncs; full disks.
//!
//! An oracle knows what was handed in, in which block it went, and what was answered. `files/seeds.rs` says how other
//! seeds are asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{files::seeds, random::SplitMix};

/// Seeds that a normal run tries. With those of `segmented/tests/`, losses of power are tried with 10,000.
const SEEDS: u64 = 7_000;

/// What was handed in: by the number that its payload begins with.
#[derive(Debug, Clone)]
struct Given {
    collection: u64,
    bytes: Vec<u8>,
    /// The turn in which it was to be written.
    block: Option<u64>,
}

#[derive(Debug, Default)]
struct Oracle {
    given: BTreeMap<u64, Given>,
    /// What must be there after a loss of power, by sequence.
    kept: BTreeMap<u64, u64>,
    /// What must be there after the end of the process.
    written: BTreeMap<u64, u64>,
    turn: u64,
}

/// A ticket that tells the oracle.
struct Asked {
    oracle: Arc<Mutex<Oracle>>,
    id: u64,
    durability: Durability,
}

impl Outcome for Asked {
    fn check(&mut self) -> Check {
        let mut oracle = lock(&self.oracle);
        let turn = oracle.turn;
        oracle.given.get_mut(&self.id).unwrap().block = Some(turn);
        Check::Write
    }

    fn done(self: Box<Self>, written: Result<Sequence, LogError>) {
        let mut oracle = lock(&self.oracle);
        if let Ok(sequence) = written {
            assert_eq!(oracle.written.insert(sequence.0, self.id), None, "a sequence is given once");
            if self.durability == Durability::Power {
                // One sync serves all that was written before.
                let last = oracle.kept.last_key_value().map_or(0, |(last, _)| *last);
                let written = oracle.written.split_off(&(last + 1));
                oracle.kept.extend(&written);
                oracle.written.extend(written);
            }
        }
    }
}

struct Run {
    random: SplitMix,
    oracle: Arc<Mutex<Oracle>>,
    disk: ForgetfulDisk,
    /// What a checkpoint would say.
    from: u64,
    next_id: u64,
}

impl Run {
    fn submit(&mut self, opened: &Opened) {
        let random = &mut self.random;
        let len = match random.below(8) {
            0 => random.below(12_000),
            1..3 => random.below(3_000),
            _ => random.below(60),
        };
        self.next_id += 1;
        let id = self.next_id;
        let mut bytes = id.to_le_bytes().to_vec();
        bytes.resize(8 + len as usize, id as u8);
        let collection = random.below(5);
        let durability = if random.below(3) == 0 { Durability::Process } else { Durability::Power };
        let given = Given { collection, bytes: bytes.clone(), block: None };
        lock(&self.oracle).given.insert(id, given);
        let asked = Asked { oracle: Arc::clone(&self.oracle), id, durability };
        let ticket = Ticket::new(collection, 1, bytes, durability, asked);
        let ticket = if random.below(4) == 0 { ticket.frees_room() } else { ticket };
        opened.log.submit(ticket).unwrap_or_else(|error| assert!(opened.log.failed().is_some(), "{error}"));
    }

    fn turn(&mut self, opened: &mut Opened) {
        lock(&self.oracle).turn += 1;
        opened.committer.turn();
    }

    /// A life of the process, until the power goes or it ends.
    fn live(&mut self, opened: &mut Opened) {
        let steps = self.random.below(40);
        for _ in 0..steps {
            if self.disk.is_off() {
                return;
            }
            match self.random.below(20) {
                0 => self.checkpoint(opened),
                1 => self.disk.set_room([0, 5_000, 50_000][self.random.below(3) as usize]),
                2 => self.disk.set_room(u64::MAX),
                3 if self.random.below(4) == 0 => self.disk.fail_sync(1 + self.random.below(6)),
                n if n < 11 => self.submit(opened),
                _ => self.turn(opened),
            }
        }
    }

    /// Everything up to a point is kept elsewhere, and the log is cut.
    fn checkpoint(&mut self, opened: &mut Opened) {
        let (told, done) = told();
        if opened.log.sync(done).is_err() {
            return;
        }
        self.turn(opened);
        let synced = lock(&told).pop().expect("a sync is answered");
        if let Ok(synced) = synced {
            let mut oracle = lock(&self.oracle);
            let written = oracle.written.clone();
            oracle.kept.extend(written.range(..=synced.0));
            drop(oracle);
            self.from += self.random.below((synced.0 + 2).saturating_sub(self.from).max(1));
            if self.random.below(2) == 0 {
                let _ = opened.log.cut(Sequence(self.from));
            }
        }
    }

    /// The next start: `survived` is what has to be there.
    fn reopen(&mut self, mut survived: BTreeMap<u64, u64>) -> Opened {
        let (opened, read) = loop {
            if self.random.below(3) == 0 {
                self.disk.crash_at_call(1 + self.random.below(6));
            }
            match try_open(&self.disk, self.from) {
                Ok(opened) => break opened,
                Err(error) => {
                    assert!(self.disk.is_off(), "{error}");
                    self.disk = self.disk.crash(self.random.next());
                    survived = lock(&self.oracle).kept.clone();
                }
            }
        };
        self.disk.crash_at_call(u64::MAX / 2);
        assert_eq!(opened.damages, [], "a loss of power is no damage");
        let oracle = lock(&self.oracle);
        let mut present = BTreeMap::new();
        let mut last_of = BTreeMap::new();
        for (read, sequence) in read.iter().zip(self.from..) {
            assert_eq!(read.sequence, sequence, "nothing is left out");
            let id = u64::from_le_bytes(read.bytes[..8].try_into().unwrap());
            let given = &oracle.given[&id];
            assert_eq!(
                (read.collection, &read.bytes),
                (given.collection, &given.bytes),
                "nothing is invented"
            );
            assert!(last_of.insert(read.collection, id) < Some(id), "a collection keeps its order");
            assert_eq!(present.insert(sequence, id), None);
        }
        for (sequence, id) in survived.range(self.from..) {
            assert_eq!(present.get(sequence), Some(id), "what was answered is there: {sequence}");
        }
        let end = self.from + read.len() as u64;
        assert_eq!(opened.next.0, end);
        let old = oracle.kept.range(..self.from).map(|(sequence, id)| (*sequence, *id));
        present.extend(old);
        let there: BTreeSet<u64> = present.values().copied().collect();
        let mut blocks: BTreeMap<u64, Vec<bool>> = BTreeMap::new();
        for (id, given) in &oracle.given {
            if let Some(block) = given.block {
                blocks.entry(block).or_default().push(there.contains(id));
            }
        }
        for (block, parts) in blocks {
            let is_whole = parts.iter().all(|is_there| *is_there == parts[0]);
            assert!(is_whole, "a block is there or is not: {block}");
        }
        drop(oracle);
        // What an opening gave out stays.
        let mut oracle = lock(&self.oracle);
        oracle.kept = present.clone();
        oracle.written = present;
        // What is not there never comes back.
        oracle.given.retain(|id, _| there.contains(id));
        opened
    }
}

fn run(seed: u64) {
    let mut random = SplitMix(seed);
    let disk = ForgetfulDisk::new(random.next());
    if random.below(4) == 0 {
        disk.set_allocates(false);
    }
    let mut run = Run { random, oracle: Arc::default(), disk, from: 1, next_id: 0 };
    let mut survived = BTreeMap::new();
    for _ in 0..4 {
        let mut opened = run.reopen(survived);
        if run.random.below(4) > 0 {
            run.disk.crash_at_call(1 + run.random.below(80));
        }
        run.live(&mut opened);
        let is_killed = !run.disk.is_off() && run.random.below(3) == 0;
        if !run.disk.is_off() && run.random.below(4) == 0 {
            lock(&run.oracle).turn += 1;
            opened.log.leave();
            while opened.committer.turn() != crate::threads::crew::Next::Leave {
                lock(&run.oracle).turn += 1;
            }
        }
        let has_failed = opened.log.failed().is_some();
        // Whoever waits is answered.
        drop(opened);
        let oracle = lock(&run.oracle);
        // After a failed sync the system may show what it did not save, or not.
        survived = if is_killed && !has_failed && !run.disk.is_off() {
            oracle.written.clone()
        } else {
            oracle.kept.clone()
        };
        drop(oracle);
        if !is_killed {
            run.disk = run.disk.crash(run.random.next());
        }
        run.disk.set_room(u64::MAX);
        run.disk.crash_at_call(u64::MAX / 2);
        run.disk.fail_sync(u64::MAX / 2);
    }
    run.reopen(survived);
}

#[test]
fn answered_writes_survive_and_blocks_are_whole_wherever_the_power_goes() {
    let tried = seeds::each(SEEDS, run);
    println!("{tried} seeds");
}
