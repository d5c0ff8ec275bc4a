//! How many durable writes the disk of this machine takes. It asserts nothing about time:
//! `cargo test --release --lib log::tests::speed -- --ignored --nocapture`.

use std::{sync::mpsc::channel, thread, time::Instant};

use super::*;
use crate::{files::disk::RealDisk, threads::crew::Crew};

const BYTES: usize = 2_500;
const LASTS: Duration = Duration::from_secs(4);

#[test]
#[ignore = "it measures"]
fn acknowledged_writes_a_second() {
    // Not where temporary files are, which may be in memory.
    let root = std::env::var_os("DISTILFACE_LOG_DIR").map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(root).unwrap();
    let alone = one_sync_each(folder.path());
    println!("one write and one fdatasync for each entry of {BYTES} bytes: {alone:.0}/s");
    for submitters in [1, 8, 64] {
        let (rate, syncs) = submitted(&folder.path().join(format!("log-{submitters}")), submitters);
        println!(
            "{submitters:>2} submitters: {rate:.0} acknowledged entries/s with {syncs:.0} syncs/s, {:.1} times that",
            rate / alone
        );
    }
}

/// The least that one entry needs when it is alone, in a file that has its room.
fn one_sync_each(dir: &Path) -> f64 {
    let file = RealDisk.create(&dir.join("alone")).unwrap();
    file.allocate(64 << 20).unwrap();
    file.sync_all().unwrap();
    let (begin, mut n) = (Instant::now(), 0);
    while begin.elapsed() < LASTS {
        file.write_at(n % 16_000 * 4096, &[n as u8; BYTES]).unwrap();
        file.sync_data().unwrap();
        n += 1;
    }
    n as f64 / begin.elapsed().as_secs_f64()
}

fn submitted(dir: &Path, submitters: u64) -> (f64, f64) {
    let syncs = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let points = {
        let syncs = Arc::clone(&syncs);
        Points(Some(Arc::new(move |point| {
            if point == Point::Synced {
                syncs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        })))
    };
    let options = LogOptions { points, ..LogOptions::default() };
    let opened = Log::open(Arc::new(RealDisk), dir, IDENTITY, options, Sequence::FIRST, &mut |_| ()).unwrap();
    let (log, crew) = (Arc::new(opened.log), Crew::new("committer", 1, 0).unwrap());
    log.run(opened.committer, &crew);
    let begin = Instant::now();
    let threads: Vec<_> = (0..submitters)
        .map(|n| {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                let mut written = 0u64;
                while begin.elapsed() < LASTS {
                    let (send, answer) = channel();
                    let done = move |done: Result<Sequence, LogError>| send.send(done).unwrap();
                    let ticket = Ticket::new(n, 0, vec![n as u8; BYTES], Durability::Power, done);
                    log.submit(ticket).unwrap();
                    answer.recv().unwrap().unwrap();
                    written += 1;
                }
                written
            })
        })
        .collect();
    let written: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    let seconds = begin.elapsed().as_secs_f64();
    log.close();
    let syncs = syncs.load(std::sync::atomic::Ordering::Relaxed);
    (written as f64 / seconds, syncs as f64 / seconds)
}
