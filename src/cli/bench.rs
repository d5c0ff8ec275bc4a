//! `distilface bench` measures time and memory of this build on this machine, each figure beside what it is compared
//! with.

use std::{fmt::Write, path::PathBuf, time::Duration};

use clap::Subcommand;

use super::{
    App,
    eval::Scratch,
    layout,
    signals::{block_on, stoppable},
};
use crate::{
    bench::{self, memory::MemoryReport, queries::QueriesReport, small::SmallReport, with_text},
    eval::beir,
};

mod encode;
mod load;
mod step;
mod store;

/// Measure time and memory
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Sentences/s and memory of a training step, beside PyTorch's in turn
    Step(step::StepArgs),
    /// Texts/s of the encoder in every way this machine has, beside others' in turn; --save lets `auto` go by it
    Encode(encode::EncodeArgs),
    /// Documents/s of ingestion through gRPC against the bare encoder on the same texts, in turn
    Ingest {
        /// Folder in BEIR layout
        #[arg(value_hint = clap::ValueHint::DirPath)]
        dir: PathBuf,
        /// Only the first N documents
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// How often each side runs; the medians are compared
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Latency of warm text queries through gRPC over TCP, split into stages
    Query {
        /// Folder in BEIR layout; its queries are asked
        #[arg(value_hint = clap::ValueHint::DirPath)]
        dir: PathBuf,
        /// How often every query is asked
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Hits per query
        #[arg(short, default_value_t = 10)]
        k: u32,
    },
    /// Latency of queries that arrive at a constant rate, alone and while documents are ingested
    Load(load::LoadArgs),
    /// Acknowledged writes/s and their latency through gRPC, by number of writers, without an encoder
    Writes(store::WritesArgs),
    /// Time to open a large folder, after a clean end and after a kill, and its memory and disk, without an encoder
    Open(store::OpenArgs),
    /// Disk after every document was written again and again, without an encoder
    Churn(store::ChurnArgs),
    /// Many small collections: made, opened and searched, without an encoder
    Many(store::ManyArgs),
    /// Latency of queries while sealing and merging run, without an encoder
    Beside(store::BesideArgs),
    /// Latency of one small write beside bulk ingestion that runs flat out
    Small {
        /// Folder in BEIR layout; its documents are the bulk
        #[arg(value_hint = clap::ValueHint::DirPath)]
        dir: PathBuf,
        /// Length of each phase
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
    },
    /// Resident memory: after ingesting a folder, then under a load of mixed lengths
    Memory {
        /// Folder in BEIR layout
        #[arg(value_hint = clap::ValueHint::DirPath)]
        dir: PathBuf,
        /// Length of the load
        #[arg(long, default_value_t = 120)]
        seconds: u64,
        /// Clients that ask at once
        #[arg(long, default_value_t = 4)]
        clients: u64,
    },
}

/// Runs the measurement.
pub fn run(app: &App, args: BenchArgs) -> anyhow::Result<()> {
    match args.what {
        What::Step(args) => stoppable(app, || step::run(app, &args)),
        What::Encode(args) => stoppable(app, || encode::run(app, &args)),
        served => block_on(app, app.unless_interrupted(run_served(app, served))),
    }
}

/// The measurements through a server of this process.
async fn run_served(app: &App, what: What) -> anyhow::Result<()> {
    let (config, note) = (&app.loaded.config, |text: &str| app.out.note(text));
    match what {
        What::Step(_) | What::Encode(_) => unreachable!("these need no server"),
        What::Load(args) => load::run(app, &args).await,
        What::Writes(args) => store::writes(app, &args).await,
        What::Open(args) => store::open(app, &args).await,
        What::Churn(args) => store::churn(app, &args).await,
        What::Many(args) => store::many(app, &args).await,
        What::Beside(args) => store::beside(app, &args).await,
        What::Small { dir, seconds } => {
            let (corpus, folder) = (beir::load(&dir, None)?.corpus, Scratch::new("small")?);
            let report = bench::small::measure(config, corpus, seconds, &folder.0, &note).await?;
            app.out.result(&report, |r| small_table(r, app.out.width()))
        }
        What::Ingest { dir, limit, rounds } => {
            let mut corpus = with_text(beir::load(&dir, None)?.corpus);
            corpus.truncate(limit.unwrap_or(usize::MAX));
            let folder = Scratch::new("ingest")?;
            let report = bench::ingest::measure(config, &corpus, rounds, &folder.0, &note).await?;
            app.out.result(&report, |r| {
                format!(
                    "{} documents, {} passages, {}\n  ingest through gRPC {:.1} documents/s\n  bare encoder        {:.1} documents/s\n  ratio               {:.3}\n  padding             {:.1} % of the tokens computed",
                    r.documents, r.passages, r.device, r.ingest_documents_per_second, r.encoder_documents_per_second, r.ratio,
                    100.0 * r.padding_share,
                )
            })
        }
        What::Query { dir, rounds, k } => {
            let set = beir::load(&dir, None)?;
            let folder = Scratch::new("query")?;
            let report = bench::queries::measure(config, set, (k, rounds), &folder.0, &note).await?;
            app.out.result(&report, query_table)
        }
        What::Memory { dir, seconds, clients } => {
            let corpus = with_text(beir::load(&dir, None)?.corpus);
            let (folder, load) = (Scratch::new("memory")?, (clients, Duration::from_secs(seconds)));
            let report = bench::memory::measure(config, &corpus, load, &folder.0, &note).await?;
            app.out.result(&report, memory_table)
        }
    }
}

fn query_table(report: &QueriesReport) -> String {
    let r = &report.queries;
    let mut text = format!(
        "{} queries, {}, plans {:?}\n{:<10} {:>8} {:>8} {:>8} {:>8}  (ms)\n",
        r.queries, r.device, r.plans, "", "p50", "p90", "p99", "max"
    );
    for (name, p) in [
        ("client", r.client),
        ("server", r.server),
        ("tokenize", r.tokenize),
        ("queue", r.queue),
        ("encode", r.encode),
        ("search", r.search),
        ("fetch", r.fetch),
    ] {
        let ms = |us: u64| us as f64 / 1000.0;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{name:<10} {:>8.3} {:>8.3} {:>8.3} {:>8.3}",
            ms(p.p50_us),
            ms(p.p90_us),
            ms(p.p99_us),
            ms(p.max_us)
        );
    }
    let ms = |us: u64| us as f64 / 1000.0;
    let (through, bare) = (ms(report.embed.grpc.p50_us), ms(report.embed.bare.p50_us));
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "embedding one text of {} tokens, p50: {through:.3} through gRPC, {bare:.3} by the encoder alone, {:+.3}",
        report.embed.tokens,
        through - bare
    );
    text
}

fn small_table(r: &SmallReport, width: usize) -> String {
    let ms = |micros: u64| format!("{:.1}", micros as f64 / 1e3);
    let rows: Vec<Vec<String>> = r
        .phases
        .iter()
        .map(|p| {
            vec![
                p.name.to_owned(),
                p.writes.to_string(),
                ms(p.latency.p50_us),
                ms(p.latency.p99_us),
                ms(p.latency.max_us),
                format!("{:.1}", p.bulk_documents_per_second),
            ]
        })
        .collect();
    let headers = ["", "#small writes", "#p50 ms", "#p99 ms", "#max ms", "#bulk documents/s"];
    format!(
        "{}, {} s each\n{}\np99 beside bulk is above the quiet median by {:.0} ms (same collection) and {:.0} ms (another)",
        r.device,
        r.seconds,
        layout::table(&headers, &rows, width),
        r.more_same_ms,
        r.more_other_ms,
    )
}

fn memory_table(r: &MemoryReport) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!(
        "{}\n  after start                  {:>7.0} MiB\n  after {:>6} documents       {:>7.0} MiB\n  load, first quarter at most  {:>7.0} MiB\n  load, last quarter at most   {:>7.0} MiB\n  peak                         {:>7.0} MiB\n  {} requests, {} texts in {:.0} s, {} refused",
        r.device,
        mib(r.start_bytes),
        r.documents,
        mib(r.after_ingest_bytes),
        mib(r.load.first_quarter_bytes),
        mib(r.load.last_quarter_bytes),
        mib(r.load.peak_bytes),
        r.load.requests,
        r.load.texts,
        r.load.seconds,
        r.load.refused,
    )
}
