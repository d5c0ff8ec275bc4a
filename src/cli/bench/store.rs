//! `distilface bench writes`, `open`, `churn`, `many` and `beside`: what the store alone can do ([`bench::store`]).

use std::path::PathBuf;

use clap::{Args, value_parser};

use crate::{
    bench::store::{
        Made,
        beside::{self, BesideReport},
        churn::{self, ChurnReport},
        many::{self, Held, ManyReport},
        open::{self, OpenReport, Opened},
        writes::{self, WritesReport},
    },
    cli::{App, eval::Scratch, layout},
};

/// What documents are made of
#[derive(Debug, Clone, Copy, Args)]
pub struct MadeArgs {
    /// Numbers of a vector
    #[arg(long, default_value_t = 384, value_parser = value_parser!(u32).range(1..=65_536))]
    dimension: u32,
    /// Bytes of a text
    #[arg(long, default_value_t = 1024, value_parser = value_parser!(u32).range(1..=1 << 20))]
    text_bytes: u32,
}

impl From<MadeArgs> for Made {
    fn from(args: MadeArgs) -> Self {
        Made { dimension: args.dimension, text_bytes: args.text_bytes as usize }
    }
}

/// Measure acknowledged writes
#[derive(Debug, Args)]
pub struct WritesArgs {
    /// Writers at once, one measurement for each number
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64], value_parser = value_parser!(u32).range(1..=4096))]
    writers: Vec<u32>,
    /// Length of each measurement
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u64).range(1..=3600))]
    seconds: u64,
    #[command(flatten)]
    made: MadeArgs,
    /// Python with the peers, to run benches/peers/store.py in turn with this
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// Where store.py lies
    #[arg(long, value_name = "FILE", default_value = "benches/peers/store.py")]
    peer_script: PathBuf,
}

/// Measure opening a large folder
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// Documents of one passage
    #[arg(long, default_value_t = 100_000, value_parser = value_parser!(u32).range(1..=100_000_000))]
    documents: u32,
    #[command(flatten)]
    made: MadeArgs,
}

/// Measure what rewriting costs the disk
#[derive(Debug, Args)]
pub struct ChurnArgs {
    /// Documents
    #[arg(long, default_value_t = 100_000, value_parser = value_parser!(u32).range(1..=100_000_000))]
    documents: u32,
    /// How often each is written
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(2..=1000))]
    versions: u32,
    #[command(flatten)]
    made: MadeArgs,
}

/// Measure many small collections
#[derive(Debug, Args)]
pub struct ManyArgs {
    /// Collections
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=100_000))]
    collections: u32,
    /// Documents of each
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=10_000))]
    documents: u32,
    #[command(flatten)]
    made: MadeArgs,
}

/// Measure queries beside sealing and merging
#[derive(Debug, Args)]
pub struct BesideArgs {
    /// Documents that are there before
    #[arg(long, default_value_t = 20_000, value_parser = value_parser!(u32).range(1..=100_000_000))]
    documents: u32,
    /// Queries a second
    #[arg(long, default_value_t = 50, value_parser = value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Documents written a second
    #[arg(long, default_value_t = 400, value_parser = value_parser!(u32).range(20..=1_000_000))]
    writes: u32,
    /// Length of each phase
    #[arg(long, default_value_t = 20, value_parser = value_parser!(u64).range(1..=3600))]
    seconds: u64,
    #[command(flatten)]
    made: MadeArgs,
}

/// Runs `distilface bench writes`.
pub(super) async fn writes(app: &App, args: &WritesArgs) -> anyhow::Result<()> {
    let folder = Scratch::new("writes")?;
    let asked = writes::Asked {
        writers: args.writers.iter().map(|writers| *writers as usize).collect(),
        seconds: args.seconds,
        made: args.made.into(),
        peers: args.peer.clone().map(|python| (python, args.peer_script.clone())),
    };
    let note = |text: &str| app.out.note(text);
    let report = writes::measure(&app.loaded.config, &asked, &folder.0, &note).await?;
    app.out.result(&report, |r| writes_table(r, app.out.width()))
}

fn writes_table(report: &WritesReport, width: usize) -> String {
    let rows: Vec<Vec<String>> = report
        .cells
        .iter()
        .map(|cell| {
            vec![
                cell.writers.to_string(),
                cell.store.clone(),
                format!("{:.0}", cell.acknowledged_per_second),
                format!("{:.2}", cell.writes_per_sync),
                format!("{:.2}", cell.p50_ms),
                format!("{:.2}", cell.p99_ms),
                cell.promise.clone(),
            ]
        })
        .collect();
    let headers = ["#writers", "store", "#writes/s", "#a sync", "#p50 ms", "#p99 ms", "acknowledged means"];
    let setting = format!(
        "{}; vectors of {}, texts of {} bytes; the disk alone: {:.0} synced appends/s",
        report.processor, report.dimension, report.text_bytes, report.disk_syncs_per_second
    );
    let mut text = layout::wrap_after("", &setting, width, layout::LongWords::Keep);
    text.push('\n');
    text += &layout::table(&headers, &rows, width);
    for absent in &report.absent {
        text += "\nno figures of ";
        text += absent;
    }
    text
}

/// Runs `distilface bench open`.
pub(super) async fn open(app: &App, args: &OpenArgs) -> anyhow::Result<()> {
    let (folder, note) = (Scratch::new("open")?, |text: &str| app.out.note(text));
    let documents = args.documents as usize;
    let report = open::measure(&app.loaded.config, documents, args.made.into(), &folder.0, &note).await?;
    app.out.result(&report, open_table)
}

fn open_table(r: &OpenReport) -> String {
    let opened = |how: &str, o: &Opened| {
        format!(
            "{how} in {:.2} s, with the first search of {:.1} ms\n    later searches p50 {:.2} ms, p99 {:.2} ms; resident {}",
            o.open_seconds,
            o.first_search_ms,
            o.p50_ms,
            o.p99_ms,
            layout::bytes(o.resident_bytes),
        )
    };
    format!(
        "{}; {} documents with vectors of {}\n  filled with {:.0} documents/s, the graph was level {:.1} s later\n  on disk {}, {} segments; resident {}\n  {}\n  {}",
        r.processor,
        layout::thousands(r.documents as u64),
        r.dimension,
        r.fill_documents_per_second,
        r.index_seconds,
        layout::bytes(r.disk_bytes),
        r.segments,
        layout::bytes(r.filled_resident_bytes),
        opened("opened after a clean end", &r.clean),
        opened("opened as a kill leaves it", &r.killed),
    )
}

/// Runs `distilface bench churn`.
pub(super) async fn churn(app: &App, args: &ChurnArgs) -> anyhow::Result<()> {
    let (folder, note) = (Scratch::new("churn")?, |text: &str| app.out.note(text));
    let asked = (args.documents as usize, args.versions as usize);
    let report = churn::measure(&app.loaded.config, asked, args.made.into(), &folder.0, &note).await?;
    app.out.result(&report, churn_table)
}

fn churn_table(r: &ChurnReport) -> String {
    format!(
        "{}; {} documents, each written {} times, vectors of {}, texts of {} bytes\n  texts and vectors as they are  {}\n  on disk, written once          {}\n  the most while writing         {}\n  after the last write           {}\n  when merging has come to rest  {}, {:.0} s later: {:.2} times written once\n  {:.0} writes/s",
        r.processor,
        layout::thousands(r.documents as u64),
        r.versions,
        r.dimension,
        r.text_bytes,
        layout::bytes(r.plain_bytes),
        layout::bytes(r.once_bytes),
        layout::bytes(r.most_bytes),
        layout::bytes(r.written_bytes),
        layout::bytes(r.settled_bytes),
        r.settle_seconds,
        r.ratio,
        r.writes_per_second,
    )
}

/// Runs `distilface bench many`.
pub(super) async fn many(app: &App, args: &ManyArgs) -> anyhow::Result<()> {
    let (folder, note) = (Scratch::new("many")?, |text: &str| app.out.note(text));
    let asked = (args.collections as usize, args.documents as usize);
    let report = many::measure(&app.loaded.config, asked, args.made.into(), &folder.0, &note).await?;
    app.out.result(&report, many_table)
}

fn many_table(r: &ManyReport) -> String {
    let held = |h: Held| {
        format!("resident {}, {} threads, {} handles", layout::bytes(h.resident_bytes), h.threads, h.handles)
    };
    format!(
        "{}; {} collections of {} documents\n  made at {:.0} collections/s; on disk {}\n  opened in {:.2} s, until the first one answered\n  the first search of each: p50 {:.2} ms, p99 {:.2} ms\n  one searched  {}\n  all searched  {}",
        r.processor,
        layout::thousands(r.collections as u64),
        r.documents,
        r.made_per_second,
        layout::bytes(r.disk_bytes),
        r.open_seconds,
        r.first_search_p50_ms,
        r.first_search_p99_ms,
        held(r.one),
        held(r.all),
    )
}

/// Runs `distilface bench beside`.
pub(super) async fn beside(app: &App, args: &BesideArgs) -> anyhow::Result<()> {
    let (folder, note) = (Scratch::new("beside")?, |text: &str| app.out.note(text));
    let asked = beside::Asked {
        rate: f64::from(args.rate),
        writes: f64::from(args.writes),
        seconds: args.seconds,
        documents: args.documents as usize,
        made: args.made.into(),
    };
    let report = beside::measure(&app.loaded.config, asked, &folder.0, &note).await?;
    app.out.result(&report, |r| beside_table(r, app.out.width()))
}

fn beside_table(r: &BesideReport, width: usize) -> String {
    let rows: Vec<Vec<String>> = r
        .phases
        .iter()
        .map(|p| {
            vec![
                p.name.to_owned(),
                p.queries.to_string(),
                format!("{:.2}", p.p50_ms),
                format!("{:.2}", p.p99_ms),
                format!("{:.2}", p.max_ms),
                format!("{:.0}", p.documents_per_second),
                p.segments.to_string(),
            ]
        })
        .collect();
    let headers = ["", "#queries", "#p50 ms", "#p99 ms", "#max ms", "#documents/s", "#segments"];
    format!(
        "{}; {} queries/s over {} documents with vectors of {}\n{}\np99 with seals and merges is {:.2} times the quiet one, {:.2} times that with writes alone",
        r.processor,
        r.rate,
        layout::thousands(r.documents as u64),
        r.dimension,
        layout::table(&headers, &rows, width),
        r.ratio,
        r.ratio_to_writes,
    )
}
