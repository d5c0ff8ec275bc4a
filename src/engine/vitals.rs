//! Is every lane of the engine still moving? Small jobs go through each pool, each writer and the disk; what does not
//! answer in time, or answers with a fault, is told by name until it answers well again.
//!
//! One probe of a lane is under way at a time, so a lane that hangs costs no more than one job. Encoders are looked at
//! and not probed: their lanes say themselves since when they have been at a batch.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::catalog::Names;
use crate::{
    collection::{Durability, WriteOptions},
    encoder::Encoders,
    store,
    threads::{self, Threads},
};

/// How often a pool or a writer is probed.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How often the disk is: a probe waits for it to sync.
const DISK_EVERY: Duration = if cfg!(test) { PROBE_EVERY } else { Duration::from_secs(5) };

/// What was found at the last probes.
#[derive(Debug)]
pub(super) struct Vitals {
    /// A lane that does not answer for this long hangs.
    patience: Duration,
    data: PathBuf,
    lanes: Arc<Mutex<BTreeMap<String, Lane>>>,
}

#[derive(Debug)]
struct Lane {
    /// When the probe under way began; `None`: none is.
    probing: Option<Instant>,
    /// When the next may begin.
    next: Instant,
    /// What the last one found.
    fault: Option<String>,
}

/// Told when a probe of a lane comes back.
pub(super) struct Probe {
    lanes: Arc<Mutex<BTreeMap<String, Lane>>>,
    name: String,
    every: Duration,
}

impl Probe {
    /// The lane moves; `fault` is what is wrong all the same.
    pub(super) fn answered(self, fault: Option<String>) {
        let mut lanes = lock(&self.lanes);
        if let Some(lane) = lanes.get_mut(&self.name) {
            *lane = Lane { probing: None, next: Instant::now() + self.every, fault };
        }
    }
}

fn lock(lanes: &Mutex<BTreeMap<String, Lane>>) -> MutexGuard<'_, BTreeMap<String, Lane>> {
    lanes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vitals {
    pub(super) fn new(patience: Duration, data: PathBuf) -> Self {
        Vitals { patience, data, lanes: Arc::default() }
    }

    /// Sends probes where it is time for one. Waits for nothing.
    pub(super) fn probe(&self, threads: &Threads, names: &Names) {
        for (name, pool) in threads.pools() {
            if let Some(probe) = self.begin(name, PROBE_EVERY) {
                pool.start(move || probe.answered(None));
            }
        }
        // Keepers and mergers are not: a piece of their work may well take longer than a lane that hangs.
        for (name, crew) in
            [("the crew of indexers", &threads.indexers), ("the writer of the log", &threads.committers)]
        {
            if let Some(probe) = self.begin(name, PROBE_EVERY) {
                crew.start(move || probe.answered(None));
            }
        }
        let open = names.open_collections();
        let writer = |name: &str| format!("the writer of collection {name}");
        // What was closed or deleted meanwhile hangs no more.
        let writers: Vec<String> = open.iter().map(|(name, _)| writer(name)).collect();
        lock(&self.lanes).retain(|lane, _| !lane.starts_with(&writer("")) || writers.contains(lane));
        for (name, collection) in open {
            if let Some(probe) = self.begin(&writer(&name), PROBE_EVERY) {
                // A write of nothing passes the queue, and touches no disk where nothing has to outlive the power. What it
                // answers is told elsewhere.
                let options = WriteOptions { durability: Durability::Process, ..WriteOptions::default() };
                collection.submit_with(Vec::new(), options, Box::new(move |_| probe.answered(None)));
            }
        }
        if let Some(probe) = self.begin("the disk", DISK_EVERY) {
            let data = self.data.clone();
            // A disk that hangs takes this thread with it, and no other.
            let started = threads::start_thread("disk-probe", move || {
                probe.answered(store::probe(&data).err().map(|e| e.to_string()));
            });
            if let Err(error) = started {
                self.fail("the disk", format!("no thread to look at it: {error}"));
            }
        }
    }

    fn begin(&self, name: &str, every: Duration) -> Option<Probe> {
        let now = Instant::now();
        let mut lanes = lock(&self.lanes);
        // The first probe of a lane begins after `every`, so that short-lived engines see none.
        let lane =
            lanes.entry(name.to_owned()).or_insert(Lane { probing: None, next: now + every, fault: None });
        if lane.probing.is_some() || lane.next > now {
            return None;
        }
        lane.probing = Some(now);
        Some(Probe { lanes: Arc::clone(&self.lanes), name: name.to_owned(), every })
    }

    fn fail(&self, name: &str, fault: String) {
        if let Some(lane) = lock(&self.lanes).get_mut(name) {
            *lane = Lane { probing: None, next: Instant::now() + DISK_EVERY, fault: Some(fault) };
        }
    }

    /// What hangs or fails, if something does. Only looks.
    pub(super) fn fault(&self, encoders: Option<&Encoders>) -> Option<String> {
        let hanging = |since: Instant| {
            let waited = since.elapsed();
            (waited > self.patience).then(|| format!("has not answered for {:.0} s", waited.as_secs_f64()))
        };
        let lanes = lock(&self.lanes);
        let probed = lanes.iter().find_map(|(name, lane)| {
            let hangs = lane.probing.and_then(hanging);
            hangs
                .or_else(|| lane.fault.clone().map(|fault| format!("fails: {fault}")))
                .map(|what| format!("{name} {what}"))
        });
        drop(lanes);
        probed.or_else(|| encoders?.fault(self.patience))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use crate::{
        config::{Config, DataConfig, EncoderConfig, NO_MODEL, ServerConfig},
        engine::{Engine, NewCollection},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn open(dir: &std::path::Path) -> Arc<Engine> {
        let config = Config {
            data: DataConfig { dir: dir.join("db"), ..DataConfig::default() },
            encoder: EncoderConfig { model: NO_MODEL.to_owned(), ..EncoderConfig::default() },
            server: ServerConfig { health_timeout: Duration::from_millis(200), ..ServerConfig::default() },
            ..Config::default()
        };
        Engine::open(&config).unwrap()
    }

    /// Probes until the engine is healthy, or is not and says these words.
    fn until(engine: &Engine, words: Option<&str>) {
        let begun = Instant::now();
        loop {
            engine.probe();
            match (engine.healthy(), words) {
                (Ok(()), None) => return,
                (Err(reason), Some(words)) if reason.contains(words) => return,
                (now, _) => assert!(begun.elapsed() < PATIENCE, "{words:?} never came, but {now:?}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Keeps every thread of a pool until the answer is dropped.
    fn block(pool: impl Fn(Box<dyn FnOnce() + Send>)) -> Vec<Sender<()>> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let hold = || {
            let (send, hold) = channel::<()>();
            pool(Box::new(move || {
                let _ = hold.recv();
            }));
            send
        };
        (0..threads).map(|_| hold()).collect()
    }

    #[test]
    fn a_pool_that_hangs_shows_and_so_does_its_recovery() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        until(&engine, None);
        let held = block(|f| engine.pools().search.start(f));
        until(&engine, Some("the search pool has not answered"));
        drop(held);
        until(&engine, None);
        let held = block(|f| engine.pools().work.start(f));
        until(&engine, Some("the work pool has not answered"));
        drop(held);
        until(&engine, None);
        let held = block(|f| engine.pools().build.start(f));
        until(&engine, Some("the building pool has not answered"));
        drop(held);
        until(&engine, None);
        let held = block(|f| engine.pools().indexers.start(f));
        until(&engine, Some("the crew of indexers has not answered"));
        drop(held);
        until(&engine, None);
    }

    #[test]
    fn a_disk_that_fails_shows_and_so_does_its_recovery() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        let in_the_way = dir.path().join("db/probe");
        std::fs::create_dir(&in_the_way).unwrap();
        until(&engine, Some("the disk fails"));
        std::fs::remove_dir(&in_the_way).unwrap();
        until(&engine, None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_look_at_the_disk_that_was_given_up_keeps_no_later_one_from_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        let held = block(|f| engine.pools().work.start(f));
        // As the health service does while the pool is busy.
        tokio::time::timeout(Duration::from_millis(50), engine.examine()).await.unwrap_err();
        drop(held);
        let begun = Instant::now();
        while engine.examining.load(std::sync::atomic::Ordering::SeqCst) {
            assert!(begun.elapsed() < PATIENCE, "no look will ever begin");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn a_log_that_hangs_shows_and_so_does_its_recovery() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        let (release, hold) = channel::<()>();
        engine.pools().committers.start(move || {
            let _ = hold.recv();
        });
        until(&engine, Some("the writer of the log has not answered"));
        drop(release);
        until(&engine, None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_writer_that_hangs_shows_and_so_does_its_recovery() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        let new =
            NewCollection { name: "c".into(), dimension: Some(2), vectors_only: true, ..Default::default() };
        engine.create_collection(new).await.unwrap();
        until(&engine, None);
        let (release, hold) = channel::<()>();
        let (_, collection) = engine.names().open_collections().pop().unwrap();
        collection.submit(
            Vec::new(),
            Box::new(move |_| {
                let _ = hold.recv();
            }),
        );
        until(&engine, Some("the writer of collection c has not answered"));
        drop(release);
        until(&engine, None);
    }
}
