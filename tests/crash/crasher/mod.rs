//! The real server is killed at random moments while many clients write, change, delete, search and make collections, and
//! is held against everything that it acknowledged.
//!
//! After each restart every acknowledged write is there as it was sent, nothing is there that nobody wrote, requests that
//! were not answered are there wholly or not at all and stay so, and all ways of asking agree: listing, ids, counts,
//! statistics, filters, exact search, and the graph about as well as before. Some servers are killed while they start,
//! some twice in a row, some are told to end instead. `oracle.rs` knows what must be, `clients.rs` what is done,
//! `hot.rs` looks at documents that all write at once, `names.rs` at collections and aliases, `backups.rs` at backups that
//! are made and restored meanwhile, `linear.rs` does without kills.
//!
//! Three variables change it:
//!
//! - `DISTILFACE_CRASH_SECONDS`: how long it goes on; 60 if not given, 3600 for a night.
//! - `DISTILFACE_TEST_SEED`: the seed, which every run prints. It decides what each client does and when kills come; how
//!   the clients' calls interleave is the machine's to decide.
//! - `DISTILFACE_CRASH_KEEP`: a folder in which the data folder is laid down before each start, to look at what a server
//!   could not open.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use distilface::{
    proto::{CreateCollectionRequest, IndexKind, ListCollectionsRequest, Metric},
    rpc::collections_client::CollectionsClient,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use self::{
    backups::{Backer, Backups},
    clients::{Client, Place, Shared, WRITERS},
    content::Shape,
    hot::Hot,
    look::{Figures, Look},
    names::{Expected, Namer},
};
use crate::{
    Random,
    process::{Launch, Server},
};

mod backups;
mod clients;
mod content;
mod hot;
mod linear;
mod look;
mod names;
mod oracle;
mod watch;

const SECONDS_DEFAULT: u64 = 60;
const SEED_DEFAULT: u64 = 20_261_127;
/// However slow the machine is.
const ROUNDS_LEAST: u64 = 5;

/// How much lower recall may be than it was before the first kill: the documents are others, and so are the queries.
const RECALL_LESS: f64 = 0.05;

/// What the data folder may have, whatever it holds.
const DISK_BYTES: u64 = 128 << 20;
/// What it may have more for each byte that is stored.
const DISK_FACTOR: u64 = 8;

/// What keeps a slow machine from being taken for a fault.
const SETTINGS: [(&str, &str); 6] = [
    ("LIMITS__BYTES_IN_FLIGHT_MAX", "1073741824"),
    ("LIMITS__K_MAX", "100000"),
    ("SERVER__REQUEST_TIMEOUT", "3600"),
    ("SERVER__HEALTH_TIMEOUT", "600"),
    ("ENCODER__THREADS", "2"),
    ("LOG__FILTER", "info"),
];

const SHAPES: [Shape; 3] = [
    // Long texts and vectors: its log and its segments grow fast.
    Shape {
        name: "flat",
        dimension: 1024,
        metric: Metric::Dot,
        index: IndexKind::Flat,
        documents: 200,
        noise: (1_000, 40_000),
        batch: 8,
    },
    // Enough documents for a graph.
    Shape {
        name: "graph",
        dimension: 48,
        metric: Metric::Euclidean,
        index: IndexKind::HnswRs,
        documents: 3_000,
        noise: (0, 300),
        batch: 12,
    },
    Shape {
        name: "text",
        dimension: 0,
        metric: Metric::Cosine,
        index: IndexKind::HnswRs,
        documents: 100,
        noise: (0, 0),
        batch: 4,
    },
];

/// Which of the shapes has the hot documents.
const HOT_PLACE: usize = 1;
const HOT_DOCUMENTS: u64 = 4;

pub(crate) fn seed() -> u64 {
    std::env::var("DISTILFACE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED_DEFAULT)
}

/// What happened so far.
#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    kills_while_starting: u64,
    ends: u64,
    disk_bytes_max: u64,
    recall_first: Option<f64>,
    recall_least: Option<f64>,
    by_graph: u64,
    /// The largest number of a segment in each collection's folder: so many were made in it.
    segments: BTreeMap<PathBuf, u64>,
    starting: Duration,
    looking: Duration,
    working: Duration,
}

struct Crasher {
    seed: u64,
    round: u64,
    random: Random,
    folder: tempfile::TempDir,
    keep: Option<PathBuf>,
    /// Small, so that there are many segments and the log is cut often.
    segment_bytes: String,
    log_bytes_max: String,
    shared: Arc<Shared>,
    names: Expected,
    backups: Arc<Mutex<Backups>>,
    /// How long the last start took.
    start: Duration,
    tally: Tally,
}

impl Crasher {
    fn new(seed: u64) -> Self {
        let places = SHAPES.into_iter().map(Place::new).collect();
        let mut random = Random(seed);
        Crasher {
            seed,
            round: 0,
            segment_bytes: (128_u64 << 10 << random.below(6)).to_string(),
            log_bytes_max: (1_u64 << 20 << random.below(6)).to_string(),
            random,
            folder: tempfile::tempdir().unwrap(),
            keep: std::env::var_os("DISTILFACE_CRASH_KEEP").map(PathBuf::from),
            shared: Arc::new(Shared::new(places, HOT_PLACE, Hot::new(HOT_DOCUMENTS))),
            names: Expected::default(),
            backups: Arc::default(),
            start: Duration::from_secs(1),
            tally: Tally::default(),
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    fn backups_folder(&self) -> PathBuf {
        self.folder.path().join("backups")
    }

    async fn backer(&self, server: &Server) -> Backer {
        let channel = server.connect().await;
        Backer::new(self.seed, self.round, &self.shared, &self.backups, &self.backups_folder(), channel)
    }

    fn launch(&self) -> Launch {
        if let Some(keep) = &self.keep {
            let _ = std::fs::remove_dir_all(keep.join("db"));
            copy(&self.data(), &keep.join("db"));
        }
        let backups = self.backups_folder();
        let sizes = [
            ("DATA__SEGMENT_BYTES", &*self.segment_bytes),
            ("DATA__LOG_BYTES_MAX", &*self.log_bytes_max),
            ("DATA__BACKUPS", backups.to_str().unwrap()),
        ];
        let settings: Vec<(&str, &str)> = SETTINGS.into_iter().chain(sizes).collect();
        Launch::new(&self.data(), &settings, &self.folder.path().join("server.log"))
    }

    /// Fails with everything that must not be, if there is something, and leaves the folder where it is.
    fn verdict(&mut self) {
        let faults = self.shared.take_faults();
        if !faults.is_empty() {
            self.fail(&faults);
        }
    }

    fn fail(&mut self, faults: &[String]) -> ! {
        self.folder.disable_cleanup(true);
        let lines: String = faults.iter().take(20).map(|fault| format!("\n- {fault}")).collect();
        panic!(
            "seed {}, round {}: {} things that must not be; data and the server's log are kept in {}:{lines}\n{}",
            self.seed,
            self.round,
            faults.len(),
            self.folder.path().display(),
            self.told()
        );
    }

    async fn start(&mut self) -> Server {
        let begun = Instant::now();
        match self.launch().serving().await {
            Ok(server) => {
                self.start = begun.elapsed();
                self.tally.starting += self.start;
                server
            }
            Err(fault) => self.fail(&[fault]),
        }
    }

    /// Kills a server before it serves, perhaps, and perhaps again.
    async fn kill_while_starting(&mut self) {
        let kills = match self.random.below(6) {
            0 => 1,
            1 => 2,
            _ => 0,
        };
        for _ in 0..kills {
            let launch = self.launch();
            let most = self.start.mul_f64(1.2).as_micros() as u64;
            tokio::time::sleep(Duration::from_micros(self.random.below(most + 1))).await;
            launch.kill();
            self.tally.kills_while_starting += 1;
        }
    }

    async fn create(&self, server: &Server) {
        let mut collections = CollectionsClient::new(server.channel.clone());
        for shape in SHAPES {
            let request = CreateCollectionRequest { config: Some(shape.config()), if_not_exists: false };
            collections.create(request).await.unwrap();
        }
        let mut filling = Vec::new();
        for number in 0..WRITERS {
            let client = Client::new(number, self.seed, 0, Arc::clone(&self.shared), server.connect().await);
            filling.push(tokio::spawn(client.fill()));
        }
        for filling in filling {
            self.shared.watch.call("filling".into(), filling).await.unwrap().unwrap();
        }
    }

    /// Looks at everything, while nobody writes.
    async fn look(&mut self, server: &Server) {
        let begun = Instant::now();
        let shared = Arc::clone(&self.shared);
        shared.watch.call("the look at the health".into(), self.look_at_health(server)).await;
        let mut live_bytes = 0;
        for (number, place) in shared.places.iter().enumerate() {
            let mut look = Look::new(&shared, place, Random(self.random.next()), &server.channel);
            let looking = shared.watch.call(format!("the look at {}", place.shape.name), look.everything());
            let (hot, figures) = match looking.await {
                Ok(seen) => seen,
                Err(status) => self.fail_by(&format!("the look at {}", place.shape.name), &status),
            };
            if number == shared.hot_place {
                let (answers, faults) = shared.hot.conclude(&hot);
                shared.check(answers);
                faults.into_iter().for_each(|fault| shared.fault(fault));
            }
            live_bytes += figures.live_bytes;
            self.look_at_recall(place.shape, figures);
            self.tally.by_graph += figures.by_graph;
        }
        let mut namer = Namer::new(self.seed, self.round << 8, Arc::clone(&shared), server.channel.clone());
        let expected = std::mem::take(&mut self.names);
        match shared.watch.call("the look at collections".into(), namer.look(expected)).await {
            Ok(expected) => self.names = expected,
            Err(status) => self.fail_by("the look at collections", &status),
        }
        let mut backer = self.backer(server).await;
        if let Err(status) = shared.watch.call("the look at backups".into(), backer.look()).await {
            self.fail_by("the look at backups", &status);
        }
        shared.watch.call("the look at the folder".into(), self.look_at_folder(server, live_bytes)).await;
        self.count_segments();
        self.tally.looking += begun.elapsed();
        self.verdict();
    }

    fn fail_by(&mut self, what: &str, status: &Status) -> ! {
        let mut faults = self.shared.take_faults();
        faults.insert(0, format!("{what} is answered with {status:?}"));
        self.fail(&faults)
    }

    /// It serves, and has found nothing to report.
    async fn look_at_health(&self, server: &Server) {
        let mut client = HealthClient::new(server.channel.clone());
        let begun = Instant::now();
        loop {
            let service = String::new();
            let answer = client.check(HealthCheckRequest { service }).await;
            let serving =
                matches!(&answer, Ok(answer) if answer.get_ref().status() == ServingStatus::Serving);
            let metrics = server.metrics.as_ref().unwrap();
            let said = http_get(metrics, "/healthz").await;
            let is_well = said.split("\r\n\r\n").nth(1).is_some_and(|body| body.trim() == "ok");
            if serving && is_well {
                return self.shared.check(2);
            }
            if begun.elapsed() > Duration::from_secs(60) {
                return self.shared.fault(format!("health is {answer:?}, and {said}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn look_at_recall(&mut self, shape: Shape, figures: Figures) {
        let Some(recall) = figures.recall else { return };
        if shape.index != IndexKind::HnswRs {
            if recall < 0.999 {
                self.shared.fault(format!("{}: an exact scan is not exact: {recall}", shape.name));
            }
            return;
        }
        let first = *self.tally.recall_first.get_or_insert(recall);
        self.tally.recall_least = Some(self.tally.recall_least.unwrap_or(1.0).min(recall));
        if recall < first - RECALL_LESS {
            self.shared.fault(format!("{}: recall is {recall}, and was {first}", shape.name));
        }
    }

    /// The folder holds what it needs, and not much more.
    async fn look_at_folder(&mut self, server: &Server, live_bytes: u64) {
        let bytes = bytes_below(&self.data());
        self.tally.disk_bytes_max = self.tally.disk_bytes_max.max(bytes);
        if bytes > DISK_BYTES + DISK_FACTOR * live_bytes {
            self.shared.fault(format!("the folder has {bytes} bytes for {live_bytes} that are stored"));
        }
        // What an unfinished creation, deletion, sealing or merge left is removed by the next server, which takes a while.
        let mut client = CollectionsClient::new(server.channel.clone());
        let listed = client.list(ListCollectionsRequest {}).await.unwrap().into_inner().collections.len();
        let begun = Instant::now();
        loop {
            let folders = std::fs::read_dir(self.data().join("collections")).unwrap();
            let folders = folders.filter_map(Result::ok).count();
            let unfinished = unfinished_below(&self.data());
            if folders == listed && unfinished.is_empty() {
                return self.shared.check(3);
            }
            if begun.elapsed() > Duration::from_secs(120) {
                let fault =
                    format!("{folders} folders of {listed} collections are there, and {unfinished:?}");
                return self.shared.fault(fault);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn count_segments(&mut self) {
        let Ok(folders) = std::fs::read_dir(self.data().join("collections")) else { return };
        for folder in folders.filter_map(Result::ok) {
            let Ok(entries) = std::fs::read_dir(folder.path()) else { continue };
            let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
            let most = self.tally.segments.entry(folder.path()).or_default();
            *most = numbers.fold(*most, u64::max);
        }
    }

    /// Lets all clients work, ends the server at some moment, and hears how they ended.
    async fn work(&mut self, server: Server) {
        let begun = Instant::now();
        let mut clients = Vec::new();
        for number in 0..WRITERS {
            let channel = server.connect().await;
            let client = Client::new(number, self.seed, self.round, Arc::clone(&self.shared), channel);
            clients.push(tokio::spawn(async move { (client.work().await, Instant::now()) }));
        }
        let namer = Namer::new(self.seed, self.round, Arc::clone(&self.shared), server.connect().await);
        let expected = std::mem::take(&mut self.names);
        let namer = tokio::spawn(async move { (namer.work(expected).await, Instant::now()) });
        let backer = self.backer(&server).await;
        let backer = tokio::spawn(async move { (backer.work().await, Instant::now()) });

        // Some moments are told by the work that is done, some by the clock.
        let writes = self.random.below(600);
        let pause = Duration::from_micros(self.random.below(30_000));
        let time = Duration::from_micros(self.random.below(2_000_000));
        if self.random.below(3) > 0 {
            let until = self.shared.acknowledged() + writes;
            let shared = Arc::clone(&self.shared);
            let waiting = async {
                while shared.acknowledged() < until && !clients.iter().all(|client| client.is_finished()) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            self.shared.watch.call(format!("waiting for {writes} writes"), waiting).await;
            tokio::time::sleep(pause).await;
        } else {
            tokio::time::sleep(time).await;
        }
        let told = Instant::now();
        if self.random.below(8) == 0 {
            let ending = tokio::task::spawn_blocking(move || server.terminate());
            let code = self.shared.watch.call("the server's end".into(), ending).await.unwrap();
            self.tally.ends += 1;
            if code != Some(0) {
                self.shared.fault(format!("told to end, the server ended with {code:?}"));
            }
        } else {
            server.kill();
            self.tally.kills += 1;
        }

        for (number, client) in clients.into_iter().enumerate() {
            let (status, at) =
                self.shared.watch.call(format!("the end of client {number}"), client).await.unwrap();
            self.look_at_end(&format!("client {number}"), &status, at < told);
        }
        let ((status, expected), at) =
            self.shared.watch.call("the end of the client of collections".into(), namer).await.unwrap();
        self.look_at_end("the client of collections", &status, at < told);
        self.names = expected;
        let (status, at) =
            self.shared.watch.call("the end of the client of backups".into(), backer).await.unwrap();
        self.look_at_end("the client of backups", &status, at < told);
        self.tally.working += begun.elapsed();
        self.verdict();
    }

    /// A client is refused by a server that ends, and by no other, unless that has too much to do.
    fn look_at_end(&self, who: &str, status: &Status, too_early: bool) {
        let is_busy = matches!(status.code(), Code::ResourceExhausted | Code::DeadlineExceeded);
        if too_early && !is_busy {
            self.shared.fault(format!("{who} was refused by a server that nobody ended: {status:?}"));
        }
    }

    async fn run(&mut self, budget: Duration) {
        let begun = Instant::now();
        let server = self.start().await;
        self.create(&server).await;
        self.look(&server).await;
        let mut server = Some(server);
        while begun.elapsed() < budget || self.round < ROUNDS_LEAST {
            self.round += 1;
            let running = match server.take() {
                Some(server) => server,
                None => {
                    self.kill_while_starting().await;
                    let server = self.start().await;
                    self.look(&server).await;
                    server
                }
            };
            self.work(running).await;
        }
        let server = self.start().await;
        self.look(&server).await;
    }

    fn told(&self) -> String {
        let tally = &self.tally;
        let (made, read, restored) = self.backups.lock().unwrap().counts;
        format!(
            "segments of {} bytes, log of {}; {} kills, {} more while starting, {} orderly ends; {} writes acknowledged, {} checks; recall {:.3} at first \
             and {:.3} at least, {} queries by the graph; {} segments made, {} MiB of disk at most; starting took {:.1?}, \
             looking {:.1?}, working {:.1?}; {} backups made, {} read to the last byte, {} restored and looked at",
            self.segment_bytes,
            self.log_bytes_max,
            tally.kills,
            tally.kills_while_starting,
            tally.ends,
            self.shared.acknowledged(),
            self.shared.checks(),
            tally.recall_first.unwrap_or_default(),
            tally.recall_least.unwrap_or_default(),
            tally.by_graph,
            tally.segments.values().sum::<u64>(),
            tally.disk_bytes_max >> 20,
            tally.starting,
            tally.looking,
            tally.working,
            made,
            read,
            restored
        )
    }
}

async fn http_get(address: &str, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Of all files below a folder; what goes while it looks is left out.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(bytes).sum()
}

/// Files and folders that are not finished, or being removed.
fn unfinished_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let unfinished = |entry: std::fs::DirEntry| {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if [".new", ".gone", ".begun", ".tmp"].iter().any(|end| name.ends_with(end)) {
            return vec![path];
        }
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder { unfinished_below(&path) } else { Vec::new() }
    };
    entries.filter_map(Result::ok).flat_map(unfinished).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let Ok(entries) = std::fs::read_dir(from) else { return };
    for entry in entries.filter_map(Result::ok) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn everything_acknowledged_survives_kills_and_nothing_else() {
    let seed = seed();
    let seconds = std::env::var("DISTILFACE_CRASH_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    println!("seed {seed}; set DISTILFACE_TEST_SEED for another");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut crasher = Crasher::new(seed);
    runtime.block_on(crasher.run(Duration::from_secs(seconds.unwrap_or(SECONDS_DEFAULT))));
    println!("seed {seed}: {}", crasher.told());
    assert!(crasher.tally.kills > 0, "the test tests nothing");
    let (made, read, restored) = crasher.backups.lock().unwrap().counts;
    assert!(made > 0 && read > 0 && restored > 0, "no backup was made, or none was looked at");
}
