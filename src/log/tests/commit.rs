//! The committer: what is answered when, in which order, with how many syncs; and what happens when it cannot.

use std::{
    sync::{
        Condvar,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::channel,
    },
    thread,
};

use super::*;
use crate::{
    files::faulty::FaultyDisk,
    threads::crew::{Crew, Next},
};

fn ignore(_: Result<Sequence, LogError>) {}

const PATIENCE: Duration = Duration::from_secs(60);

/// Hands in without a turn; returns what will be told.
fn submit(opened: &Opened, collection: u64, bytes: usize, durability: Durability) -> Told {
    let (told, done) = told();
    opened.log.submit(Ticket::new(collection, 1, vec![1; bytes], durability, done)).unwrap();
    told
}

fn sequence(told: &Told) -> Option<u64> {
    lock(told).first().map(|done| done.as_ref().unwrap().0)
}

#[test]
fn many_threads_write_at_once_and_every_one_is_answered_in_order() {
    let (finished, watch) = channel();
    let test = thread::spawn(move || {
        let disk = ForgetfulDisk::new(1);
        let (opened, _) = try_open_with(&disk, LogOptions { file_bytes: 1 << 20, ..options() }, 1).unwrap();
        let log = Arc::new(opened.log);
        let crew = Crew::new("test", 2, 0).unwrap();
        log.run(opened.committer, &crew);
        let order = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = (0..24u64)
            .map(|thread| {
                let (log, order) = (Arc::clone(&log), Arc::clone(&order));
                thread::spawn(move || {
                    let mut answers = Vec::new();
                    for n in 0..60u64 {
                        let durability =
                            if (thread + n) % 4 == 0 { Durability::Process } else { Durability::Power };
                        let (send, answer) = channel();
                        let order = Arc::clone(&order);
                        let bytes = [thread.to_le_bytes(), n.to_le_bytes()].concat();
                        // Several at once, so that there is an order to keep.
                        let done = move |done: Result<Sequence, LogError>| {
                            lock(&order).push(done.clone().unwrap().0);
                            send.send(done.unwrap()).unwrap();
                        };
                        log.submit(Ticket::new(thread % 6, 0, bytes, durability, done)).unwrap();
                        answers.push(answer);
                        if n % 3 == 2 {
                            let answers = answers.drain(..).map(|a| a.recv_timeout(PATIENCE).unwrap());
                            let answers: Vec<_> = answers.collect();
                            assert!(answers.is_sorted(), "{answers:?}");
                        }
                        if n == 30 && thread == 3 {
                            log.sync(|synced: Result<Sequence, LogError>| assert!(synced.is_ok())).unwrap();
                            log.cut(Sequence::FIRST).unwrap();
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        log.close();
        assert_eq!(*lock(&order), (1..=24 * 60).collect::<Vec<u64>>(), "applied in the order of the log");
        let refused = log.submit(Ticket::new(1, 0, vec![], Durability::Power, ignore));
        assert!(matches!(refused, Err(LogError::Closed)));
        let (opened, read) = try_open_with(&disk.crash(5), options(), 1).unwrap();
        assert!(opened.damages.is_empty() && read.len() == 24 * 60);
        for thread in 0..24u64 {
            let own = read.iter().filter(|read| read.bytes[..8] == thread.to_le_bytes());
            let own: Vec<u64> =
                own.map(|read| u64::from_le_bytes(read.bytes[8..].try_into().unwrap())).collect();
            assert_eq!(own, (0..60).collect::<Vec<_>>());
        }
        finished.send(()).unwrap();
    });
    let ended = watch.recv_timeout(PATIENCE);
    assert!(ended.is_ok() || test.is_finished(), "it hangs");
    test.join().unwrap();
}

/// Lets the committer pass a point only when the test says so.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
    waits: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.waits.fetch_add(1, Ordering::SeqCst);
        let open = self.changed.wait_timeout_while(lock(&self.open), PATIENCE, |open| !*open).unwrap();
        assert!(*open.0, "the test has left it closed");
    }

    fn open(&self) {
        *lock(&self.open) = true;
        self.changed.notify_all();
    }

    fn wait_for(&self, waits: usize) {
        while self.waits.load(Ordering::SeqCst) < waits {
            thread::yield_now();
        }
    }
}

#[test]
fn while_a_block_is_synced_the_next_one_gathers_and_needs_one_sync() {
    let gate = Arc::new(Gate::default());
    let points = {
        let gate = Arc::clone(&gate);
        Points(Some(Arc::new(move |point| {
            if point == Point::BeforeSync {
                gate.pass();
            }
        })))
    };
    let disk = ForgetfulDisk::new(1);
    let (opened, _) = try_open_with(&disk, LogOptions { points, ..options() }, 1).unwrap();
    let (log, crew) = (opened.log, Crew::new("test", 1, 0).unwrap());
    log.run(opened.committer, &crew);
    let (send, answers) = channel();
    let submit = |collection, durability| {
        let send = send.clone();
        let done = move |done: Result<Sequence, LogError>| send.send(done.unwrap().0).unwrap();
        log.submit(Ticket::new(collection, 0, vec![0; 10], durability, done)).unwrap();
    };
    submit(1, Durability::Power);
    gate.wait_for(1);
    for n in 0..50 {
        submit(n % 5, Durability::Power);
    }
    assert!(answers.try_recv().is_err(), "nothing is answered before its sync");
    gate.open();
    let all: Vec<u64> = (0..51).map(|_| answers.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(all, (1..=51).collect::<Vec<_>>());
    assert_eq!(gate.waits.load(Ordering::SeqCst), 2, "one sync served fifty");
    log.close();
}

#[test]
fn what_wants_no_sync_is_answered_before_it_where_its_order_allows() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::new(Mutex::new(Vec::new()));
    let points = {
        let (seen, told) = (Arc::clone(&seen), Arc::clone(&told));
        Points(Some(Arc::new(move |point| {
            if point == Point::BeforeSync {
                *lock(&seen) = lock(&told).clone();
            }
        })))
    };
    let disk = ForgetfulDisk::new(1);
    let (mut opened, _) = try_open_with(&disk, LogOptions { points, ..options() }, 1).unwrap();
    for (collection, kind, durability) in [
        (1, 'a', Durability::Power),
        (2, 'b', Durability::Process),
        (1, 'c', Durability::Process),
        (3, 'd', Durability::Process),
    ] {
        let told = Arc::clone(&told);
        let done = move |done: Result<Sequence, LogError>| lock(&told).push((kind, done.unwrap().0));
        opened.log.submit(Ticket::new(collection, 0, vec![], durability, done)).unwrap();
    }
    opened.committer.turn();
    assert_eq!(*lock(&seen), [('b', 1), ('d', 2)]);
    assert_eq!(*lock(&told), [('b', 1), ('d', 2), ('a', 3), ('c', 4)]);
}

#[test]
fn what_wants_no_sync_is_synced_after_a_while() {
    let after = |sync_after| {
        let disk = ForgetfulDisk::new(1);
        let (mut opened, _) = try_open_with(&disk, LogOptions { sync_after, ..options() }, 1).unwrap();
        let told = submit(&opened, 1, 10, Durability::Process);
        let next = opened.committer.turn();
        assert_eq!(sequence(&told), Some(1));
        let kept = (0..20).filter(|seed| open(&disk.crash(*seed)).1.len() == 1).count();
        (next, kept)
    };
    let (next, kept) = after(Duration::ZERO);
    assert_eq!((next, kept), (Next::Woken, 20), "it is time at once");
    let (next, kept) = after(Duration::from_secs(3600));
    assert!(matches!(next, Next::At(_)) && kept < 20, "{kept}");
}

/// A ticket that answers `check` as it is told to.
struct Asked {
    says: Vec<Check>,
    told: Told,
}

impl Outcome for Asked {
    fn check(&mut self) -> Check {
        self.says.pop().expect("it is asked no more often")
    }

    fn done(self: Box<Self>, written: Result<Sequence, LogError>) {
        lock(&self.told).push(written);
    }
}

#[test]
fn a_ticket_may_wait_for_the_next_block_or_need_none() {
    let disk = ForgetfulDisk::new(1);
    let (mut opened, _) = open(&disk);
    let asked = |opened: &Opened, collection, says: &[Check]| {
        let told = Told::default();
        let asked = Asked { says: says.iter().rev().copied().collect(), told: Arc::clone(&told) };
        opened.log.submit(Ticket::new(collection, 0, vec![], Durability::Power, asked)).unwrap();
        told
    };
    let first = asked(&opened, 1, &[Check::Write]);
    let waits = asked(&opened, 1, &[Check::Wait, Check::Write]);
    let behind = asked(&opened, 1, &[Check::Write]);
    let answered = asked(&opened, 2, &[Check::Answered]);
    let other = asked(&opened, 2, &[Check::Write]);
    assert_eq!(opened.committer.turn(), Next::Again);
    assert_eq!((sequence(&first), sequence(&other)), (Some(1), Some(2)));
    assert!(lock(&waits).is_empty() && lock(&behind).is_empty());
    assert_eq!(opened.committer.turn(), Next::Woken);
    assert_eq!((sequence(&waits), sequence(&behind)), (Some(3), Some(4)));
    assert!(lock(&answered).is_empty(), "it was told by its own check");
    // Nothing of its block could be waited for.
    let forever = asked(&opened, 1, &[Check::Wait]);
    assert_eq!(opened.committer.turn(), Next::Woken);
    assert!(matches!(lock(&forever)[0], Err(LogError::Misled { .. })));
}

struct Panics;

impl Outcome for Panics {
    fn check(&mut self) -> Check {
        panic!("as planned")
    }

    fn done(self: Box<Self>, written: Result<Sequence, LogError>) {
        assert!(matches!(written, Err(LogError::Misled { .. })));
    }
}

#[test]
fn a_panic_of_a_ticket_harms_no_other_and_one_while_applying_stops_the_log() {
    let disk = ForgetfulDisk::new(1);
    let (mut opened, _) = open(&disk);
    opened.log.submit(Ticket::new(1, 0, vec![], Durability::Power, Panics)).unwrap();
    write(&mut opened, 1, b"a", Durability::Power).unwrap();
    assert!(opened.log.failed().is_none());
    opened
        .log
        .submit(Ticket::new(1, 0, vec![], Durability::Power, |_: Result<Sequence, LogError>| {
            panic!("as planned")
        }))
        .unwrap();
    let after = submit(&opened, 1, 1, Durability::Power);
    opened.committer.turn();
    assert!(lock(&after)[0].is_err());
    let error = opened.log.failed().unwrap();
    assert!(error.to_string().contains("as planned"), "{error}");
    assert!(matches!(write(&mut opened, 1, b"b", Durability::Power), Err(LogError::Failed { .. })));
}

#[test]
fn after_a_failed_sync_nothing_is_written_and_what_was_answered_is_there() {
    for seed in 0..200 {
        let disk = ForgetfulDisk::new(seed);
        let (mut opened, _) = open(&disk);
        write(&mut opened, 1, b"kept", Durability::Power).unwrap();
        disk.fail_sync(1);
        let [early, lost] = [Durability::Process, Durability::Power].map(|d| submit(&opened, 2, 10, d));
        opened.committer.turn();
        assert_eq!(sequence(&early), Some(2), "it was answered when it was written");
        let first = lock(&lost)[0].clone().unwrap_err();
        assert!(first.to_string().contains("the device is gone"), "{first}");
        let later = write(&mut opened, 1, b"later", Durability::Power).unwrap_err();
        assert_eq!(later.to_string(), first.to_string(), "the first reason stays");
        assert!(matches!(opened.log.sync(ignore), Err(LogError::Failed { .. })));
        close(opened);
        // The next start, on the same running system: what it shows, it keeps.
        let (opened, shown) = open(&disk);
        assert!(opened.damages.is_empty() && shown[0].bytes == b"kept");
        drop(opened);
        let (opened, read) = open(&disk.crash(seed));
        assert!(opened.damages.is_empty());
        assert_eq!(read, shown, "seed {seed}");
    }
}

#[test]
fn on_a_full_disk_only_what_frees_room_is_written_and_nothing_is_lost() {
    let disk = ForgetfulDisk::new(1);
    let (mut opened, _) = open(&disk);
    let mut written = 0;
    write(&mut opened, 1, &[1; 3000], Durability::Power).unwrap();
    written += 1;
    disk.set_room(0);
    let error = loop {
        match write(&mut opened, 1, &[1; 3000], Durability::Power) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 20);
    };
    assert!(matches!(error, LogError::DiskFull { .. }) && opened.log.failed().is_none(), "{error}");
    let (told, done) = told();
    let refused = submit(&opened, 2, 10, Durability::Power);
    let frees = Ticket::new(1, 2, b"delete".to_vec(), Durability::Power, done).frees_room();
    opened.log.submit(frees).unwrap();
    opened.committer.turn();
    assert!(matches!(lock(&refused)[0], Err(LogError::DiskFull { .. })));
    assert_eq!(sequence(&told), Some(written + 1), "what frees room is written with the others refused");
    // A start on the full disk.
    close(opened);
    let (mut opened, read) = open(&disk);
    assert_eq!((read.len() as u64, read.last().unwrap().kind), (written + 1, 2));
    assert!(write(&mut opened, 1, &[1; 3000], Durability::Power).is_err());
    disk.set_room(u64::MAX);
    write(&mut opened, 1, &[2; 3000], Durability::Power).unwrap();
    close(opened);
    let (opened, read) = open(&disk.crash(1));
    assert!(opened.damages.is_empty() && read.len() as u64 == written + 2);
}

#[test]
fn where_files_may_not_be_large_they_are_smaller() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let options = LogOptions { file_bytes: 1 << 20, ..LogOptions::default() };
    let open = || {
        let mut read = 0;
        let mut emit = |_: Entry<'_>| read += 1;
        let place = dir.path().join("log");
        std::fs::create_dir_all(&place).unwrap();
        let disk = Arc::new(disk.clone());
        (Log::open(disk, &place, IDENTITY, options.clone(), Sequence(1), &mut emit).unwrap(), read)
    };
    disk.0.file_bytes_max.store(200 << 10, Ordering::SeqCst);
    let (mut opened, _) = open();
    for _ in 0..20 {
        write(&mut opened, 1, &[1; 50_000], Durability::Power).unwrap();
    }
    let error = write(&mut opened, 1, &[1; 300_000], Durability::Power).unwrap_err();
    assert!(
        matches!(error, LogError::FileLimit { .. }) && error.to_string().contains("ulimit -f"),
        "{error}"
    );
    write(&mut opened, 1, &[1; 10], Durability::Power).unwrap();
    let sizes = opened.log.sizes();
    assert!(sizes.files.len() >= 6 && sizes.files.iter().all(|file| file.bytes <= 200 << 10), "{sizes:?}");
    close(opened);
    let (opened, read) = open();
    assert_eq!((read, opened.damages), (21, vec![]));
}

#[test]
fn a_write_that_finds_no_room_halfway_is_undone() {
    for room in (0..20_000).step_by(512) {
        let disk = ForgetfulDisk::new(1);
        disk.set_allocates(false);
        let (mut opened, _) = open(&disk);
        write(&mut opened, 1, b"a", Durability::Power).unwrap();
        disk.set_room(room);
        let done = write(&mut opened, 1, &[7; 12_000], Durability::Power);
        let is_written = done.is_ok();
        assert!(is_written || matches!(done, Err(LogError::DiskFull { .. })), "{done:?}");
        disk.set_room(u64::MAX);
        write(&mut opened, 1, b"b", Durability::Power).unwrap();
        let (opened, read) = open(&disk.crash(room));
        assert!(opened.damages.is_empty());
        assert_eq!(read.len(), if is_written { 3 } else { 2 });
        assert_eq!(read.last().unwrap().bytes, b"b");
    }
}

#[test]
fn without_a_handle_for_the_next_file_writes_are_refused_until_there_is_one() {
    let disk = ForgetfulDisk::new(1);
    let (mut opened, _) = open(&disk);
    disk.set_handles_max(0);
    let error = write(&mut opened, 1, b"a", Durability::Power).unwrap_err();
    assert!(matches!(error, LogError::NoHandle { .. }) && opened.log.failed().is_none(), "{error}");
    disk.set_handles_max(9);
    write(&mut opened, 1, b"a", Durability::Power).unwrap();
}

#[test]
fn small_tickets_do_not_wait_behind_a_queue_of_large_ones() {
    let disk = ForgetfulDisk::new(1);
    let (mut opened, _) = try_open_with(&disk, LogOptions { file_bytes: 8 << 20, ..options() }, 1).unwrap();
    let large: Vec<Told> = (0..8).map(|_| submit(&opened, 1, 3 << 20, Durability::Power)).collect();
    let small = submit(&opened, 2, 10, Durability::Power);
    assert_eq!(opened.committer.turn(), Next::Again);
    assert_eq!((sequence(&small), sequence(&large[0]), sequence(&large[1])), (Some(1), Some(2), None));
    let later = submit(&opened, 3, 10, Durability::Power);
    opened.committer.turn();
    assert_eq!((sequence(&later), sequence(&large[1])), (Some(3), Some(4)));
}

#[test]
fn a_full_queue_is_overloaded_and_a_log_that_ends_answers_all() {
    let disk = ForgetfulDisk::new(1);
    let (opened, _) = try_open_with(&disk, LogOptions { tickets_max: 4, ..options() }, 1).unwrap();
    let waiting: Vec<Told> = (0..4).map(|n| submit(&opened, n, 9, Durability::Power)).collect();
    let refused = opened.log.submit(Ticket::new(9, 0, vec![], Durability::Power, ignore));
    let error = refused.unwrap_err();
    assert!(matches!(error, LogError::Overloaded));
    assert!(crate::error::Fault::retry_after(&error).is_some());
    let synced = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&synced);
    opened
        .log
        .sync(move |done: Result<Sequence, LogError>| heard.store(done.is_err(), Ordering::SeqCst))
        .unwrap();
    drop(opened.committer);
    assert!(waiting.iter().all(|told| matches!(lock(told)[0], Err(LogError::Closed))));
    assert!(synced.load(Ordering::SeqCst));
    assert!(matches!(opened.log.sync(ignore), Err(LogError::Closed)));
}

#[test]
fn a_stopped_cut_is_finished_by_the_next_one() {
    let disk = ForgetfulDisk::new(1);
    let (mut opened, _) = open(&disk);
    for _ in 0..30 {
        write(&mut opened, 1, &[1; 3000], Durability::Power).unwrap();
    }
    close(opened);
    for call in 1..8 {
        for seed in 0..10 {
            let disk = disk.copy();
            let (opened, _) = try_open(&disk, 30).unwrap();
            disk.crash_at_call(call);
            let _ = opened.log.cut(Sequence(30));
            drop(opened);
            let disk = disk.crash(seed);
            let (opened, read) = try_open(&disk, 30).unwrap();
            assert!(opened.damages.is_empty() && read.len() == 1, "{:?}", opened.damages);
            opened.log.cut(Sequence(30)).unwrap();
            assert_eq!(opened.log.sizes().files.len(), 1);
            assert_eq!(disk.list(dir()).unwrap().len(), 1);
        }
    }
}
