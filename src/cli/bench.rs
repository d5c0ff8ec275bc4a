//! `distilface bench` measures time and memory of this build on this machine, each figure beside what it is compared
//! with.

use std::{
    fmt::Write,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Subcommand;
use serde::Serialize;
use tonic::transport::{Channel, Endpoint};

use super::{
    App, client,
    eval::Scratch,
    signals::{block_on, stoppable},
};
mod arithmetic;
mod encode;
mod load;
mod requests;
mod step;
mod store;

use crate::{
    encoder::{Encoder, EncoderCounters, Limits, TextKind},
    engine::{Engine, NewCollection},
    eval::beir::{self, CorpusDocument},
    proto, rpc, server,
};

pub(super) const COLLECTION: &str = "bench";
/// Documents of one request, as `distilface ingest` sends them.
pub(super) const REQUEST_DOCUMENTS: usize = 64;

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
    /// Time to open a large folder and to answer from it, and its memory and disk, without an encoder
    Open(store::OpenArgs),
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

/// Ingestion against the bare encoder.
#[derive(Debug, Serialize)]
struct IngestReport {
    documents: usize,
    passages: usize,
    device: String,
    /// Medians, documents per second.
    ingest_documents_per_second: f64,
    encoder_documents_per_second: f64,
    /// Ingest over encoder.
    ratio: f64,
    /// Share of padding in the tokens that the encoder computed.
    padding_share: f64,
}

/// Queries, and what the wire adds to one embedding.
#[derive(Debug, Serialize)]
struct QueriesReport {
    #[serde(flatten)]
    queries: requests::QueryReport,
    embed: requests::EmbedReport,
}

/// Memory after ingestion and under load.
#[derive(Debug, Serialize)]
struct MemoryReport {
    device: String,
    documents: usize,
    start_bytes: u64,
    after_ingest_bytes: u64,
    load: requests::SoakReport,
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
    match what {
        What::Step(_) | What::Encode(_) => unreachable!("these need no server"),
        What::Load(args) => load::run(app, &args).await,
        What::Writes(args) => store::writes(app, &args).await,
        What::Open(args) => store::open(app, &args).await,
        What::Ingest { dir, limit, rounds } => {
            let mut corpus = with_text(beir::load(&dir, None)?.corpus);
            corpus.truncate(limit.unwrap_or(usize::MAX));
            let report = ingest(app, &corpus, rounds.max(1)).await?;
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
            let corpus = with_text(set.corpus);
            let served = Served::start(app, "query").await?;
            app.out.note(&format!("ingesting {} documents", corpus.len()));
            send(&served.channel, &corpus).await?;
            served.engine.wait_indexed(COLLECTION).await?;
            let texts: Vec<String> = set.queries.into_iter().map(|(_, text, _)| text).collect();
            let report =
                requests::queries(served.channel.clone(), COLLECTION, &texts, k, rounds.max(1)).await?;
            let encoder = served.engine.encoder().context("this needs an encoder: leave --model none out")?;
            let embed = requests::embed(served.channel.clone(), encoder).await?;
            let report = QueriesReport { queries: report, embed };
            served.stop().await?;
            app.out.result(&report, query_table)
        }
        What::Memory { dir, seconds, clients } => {
            let corpus = with_text(beir::load(&dir, None)?.corpus);
            let served = Served::start(app, "memory").await?;
            let start_bytes = resident_bytes();
            app.out.note(&format!("ingesting {} documents", corpus.len()));
            send(&served.channel, &corpus).await?;
            served.engine.wait_indexed(COLLECTION).await?;
            let after_ingest_bytes = resident_bytes();
            app.out.note(&format!("{clients} clients with mixed lengths for {seconds} s"));
            let load =
                requests::soak(served.channel.clone(), Duration::from_secs(seconds), clients, resident_bytes)
                    .await?;
            let device = served.device();
            served.stop().await?;
            let report =
                MemoryReport { device, documents: corpus.len(), start_bytes, after_ingest_bytes, load };
            app.out.result(&report, memory_table)
        }
    }
}

/// Without the documents that have no text, which a collection refuses.
pub(super) fn with_text(mut corpus: Vec<CorpusDocument>) -> Vec<CorpusDocument> {
    corpus.retain(|d| !(d.title.trim().is_empty() && d.text.trim().is_empty()));
    corpus
}

/// A server on a free loopback port over a database that is removed afterwards.
pub(super) struct Served {
    pub(super) engine: Arc<Engine>,
    running: server::Running,
    pub(super) channel: Channel,
    _folder: Scratch,
}

impl Served {
    pub(super) async fn start(app: &App, what: &str) -> anyhow::Result<Self> {
        let collection = NewCollection { name: COLLECTION.into(), ..NewCollection::default() };
        Self::start_with(app, what, &app.loaded.config.encoder.model, collection).await
    }

    /// With another model, and another collection.
    async fn start_with(
        app: &App,
        what: &str,
        model: &str,
        collection: NewCollection,
    ) -> anyhow::Result<Self> {
        let folder = Scratch::new(what)?;
        let mut config = app.loaded.config.clone();
        model.clone_into(&mut config.encoder.model);
        folder.0.clone_into(&mut config.data.dir);
        config.server.listen = ([127, 0, 0, 1], 0).into();
        config.server.metrics_listen = None;
        // What is asked again must be encoded again.
        config.encoder.query_cache = 0;
        let engine = client::open_engine(config, &app.out).await?;
        engine.create_collection(collection).await?;
        let running = server::start(Arc::clone(&engine)).await?;
        let endpoint = Endpoint::from_shared(format!("http://{}", running.address))?.tcp_nodelay(true);
        let channel = endpoint.connect().await.context("connecting to the server that was just started")?;
        Ok(Served { engine, running, channel, _folder: folder })
    }

    pub(super) fn device(&self) -> String {
        self.engine.encoder().map_or_else(String::new, |e| e.device().device.clone())
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let Served { running, channel, engine, _folder } = self;
        drop((channel, engine));
        Ok(running.stop().await?)
    }
}

pub(super) async fn send(channel: &Channel, corpus: &[CorpusDocument]) -> anyhow::Result<()> {
    let mut client = rpc::documents_client::DocumentsClient::new(channel.clone());
    let requests: Vec<proto::IngestRequest> = corpus
        .chunks(REQUEST_DOCUMENTS)
        .zip(0..)
        .map(|(some, sequence)| proto::IngestRequest {
            collection: COLLECTION.into(),
            sequence,
            documents: some
                .iter()
                .map(|d| proto::Document {
                    id: d.id.clone(),
                    title: d.title.clone(),
                    text: d.text.clone(),
                    ..proto::Document::default()
                })
                .collect(),
            ..Default::default()
        })
        .collect();
    let mut answers = client.ingest(tokio_stream::iter(requests)).await?.into_inner();
    let mut stored = 0;
    while let Some(answer) = answers.message().await? {
        for result in answer.results {
            anyhow::ensure!(result.error.is_empty(), "document {}: {}", result.id, result.error);
            stored += 1;
        }
    }
    anyhow::ensure!(stored == corpus.len(), "{stored} of {} documents were stored", corpus.len());
    Ok(())
}

async fn ingest(app: &App, corpus: &[CorpusDocument], rounds: usize) -> anyhow::Result<IngestReport> {
    let (mut through, mut bare) = (Vec::new(), Vec::new());
    let (mut passages, mut device, mut padding_share) = (0, String::new(), 0.0);
    for round in 1..=rounds {
        let served = Served::start(app, "ingest").await?;
        let encoder = served.engine.encoder().context("this needs an encoder: leave --model none out")?;
        device = served.device();
        // The texts as ingestion cuts them: both sides encode the same.
        let chunking = served.engine.collection(COLLECTION).await?.chunking;
        let texts = passage_texts(&encoder, corpus, chunking)?;
        passages = texts.len();
        let started = Instant::now();
        let before = counted(encoder.counters());
        let worker = Arc::clone(&encoder);
        tokio::task::spawn_blocking(move || worker.encode(&texts, TextKind::Document)).await??;
        let after = counted(encoder.counters());
        bare.push(corpus.len() as f64 / started.elapsed().as_secs_f64());
        padding_share = 1.0 - (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64;

        let started = Instant::now();
        send(&served.channel, corpus).await?;
        through.push(corpus.len() as f64 / started.elapsed().as_secs_f64());
        app.out.note(&format!(
            "round {round}: bare encoder {:.1}, ingest {:.1} documents/s",
            bare[bare.len() - 1],
            through[through.len() - 1]
        ));
        drop(encoder);
        served.stop().await?;
    }
    let (ingest, encoder) = (median(through), median(bare));
    Ok(IngestReport {
        documents: corpus.len(),
        passages,
        device,
        ingest_documents_per_second: ingest,
        encoder_documents_per_second: encoder,
        ratio: ingest / encoder,
        padding_share,
    })
}

fn passage_texts(
    encoder: &Encoder,
    corpus: &[CorpusDocument],
    chunking: Option<crate::encoder::Chunking>,
) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    for d in corpus {
        let title = encoder.short_title(&d.title, &d.text, chunking).map_err(crate::Error::from)?;
        let ranges = match chunking {
            Some(chunking) => {
                encoder.chunk(title, &d.text, chunking, &Limits::default()).map_err(crate::Error::from)?
            }
            None => std::iter::once(0..d.text.len()).collect(),
        };
        texts.extend(ranges.into_iter().map(|r| Encoder::passage_text(title, &d.text[r]).into_owned()));
    }
    Ok(texts)
}

/// Real tokens and tokens computed.
fn counted(counters: &EncoderCounters) -> (u64, u64) {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    (get(&counters.tokens), get(&counters.padded_tokens))
}

/// Of an even number the mean of the middle two; 0 of none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |n: usize| values.get(n).copied().unwrap_or(0.0);
    f64::midpoint(at(values.len().saturating_sub(1) / 2), at(values.len() / 2))
}

/// Resident memory of this process, which is client and server in one; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    crate::telemetry::resident_bytes().unwrap_or(0)
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
