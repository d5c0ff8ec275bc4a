//! `distilface bench load`: latency of queries that arrive at a constant rate, alone and while documents are ingested as
//! fast as the server takes them.
//!
//! An open loop: queries are sent when they are due, however long the ones before them take, and a query's time counts
//! from when it was due. A loop that waits for an answer before it asks again would leave out the very queries that a
//! slow moment delays (coordinated omission).

use std::{
    fmt::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use serde::Serialize;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::{
    COLLECTION, REQUEST_DOCUMENTS, Served,
    requests::{Percentiles, Timings, ask},
    send, with_text,
};
use crate::{
    cli::{App, layout},
    eval::{
        beir::{self, CorpusDocument},
        plot::{LineChart, Series},
    },
    proto,
    rpc::{documents_client::DocumentsClient, search_client::SearchClient},
};

/// Measure latency under load
#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    /// Folder in BEIR layout: its documents are ingested, its queries asked
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    /// Queries a second
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Length of each phase
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Documents that are there before queries begin
    #[arg(long, default_value_t = 1000)]
    documents: usize,
    /// Hits per query
    #[arg(short, default_value_t = 10)]
    k: u32,
    /// Also write latency.svg there
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    out: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Phase {
    name: &'static str,
    asked: u64,
    answered: u64,
    /// Refused as overloaded; their times are not among the percentiles.
    refused: u64,
    achieved_per_second: f64,
    latency: Percentiles,
    /// As the server tells them, and what is left of the latency.
    stages: Vec<(&'static str, Percentiles)>,
    documents_per_second: f64,
    #[serde(skip)]
    curve: Vec<(f64, f64)>,
}

#[derive(Debug, Serialize)]
struct LoadReport {
    device: String,
    rate: f64,
    seconds: u64,
    documents: usize,
    phases: Vec<Phase>,
    /// p99 with ingestion over p99 without.
    p99_ratio: f64,
    plot: Option<PathBuf>,
}

pub async fn run(app: &App, args: &LoadArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.rate > 0.0 && args.rate <= 1e5,
        "--rate must be above 0, to 100000 queries a second"
    );
    anyhow::ensure!(args.seconds > 0, "--seconds must be at least 1");
    let set = beir::load(&args.dir, None)?;
    let queries: Arc<Vec<String>> = Arc::new(set.queries.into_iter().map(|(_, text, _)| text).collect());
    anyhow::ensure!(!queries.is_empty(), "{} holds no queries", args.dir.display());
    let corpus = with_text(set.corpus);
    let first = &corpus[..corpus.len().min(args.documents)];
    let served = Served::start(app, "load").await?;
    app.out.note(&format!("ingesting {} documents", first.len()));
    send(&served.channel, first).await?;
    served.engine.wait_indexed(COLLECTION).await?;
    // Loads what the first query of a process loads.
    let mut client = SearchClient::new(served.channel.clone());
    ask(&mut client, COLLECTION, queries[0].clone(), args.k).await.map_err(|s| anyhow::anyhow!("{s}"))?;

    let mut phases = Vec::new();
    for (name, ingesting) in [("quiet", false), ("while ingesting", true)] {
        app.out.note(&format!("{name}: {} queries/s for {} s", args.rate, args.seconds));
        let stop = Arc::new(AtomicBool::new(false));
        let stored = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();
        let ingest = ingesting.then(|| {
            let documents = corpus.clone();
            tokio::spawn(flood(served.channel.clone(), documents, Arc::clone(&stop), Arc::clone(&stored)))
        });
        if ingesting {
            // The encoder's queue fills first.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let mut phase = open_loop(&served.channel, &queries, args).await?;
        phase.documents_per_second = stored.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
        phase.name = name;
        stop.store(true, Ordering::Relaxed);
        if let Some(ingest) = ingest {
            ingest.await??;
        }
        phases.push(phase);
    }
    let device = served.device();
    served.stop().await?;
    let plot = args.out.as_ref().map(|folder| plot(folder, &phases)).transpose()?;
    let p99_ratio = phases[1].latency.p99_us as f64 / phases[0].latency.p99_us.max(1) as f64;
    let (rate, seconds, documents) = (args.rate, args.seconds, first.len());
    let report = LoadReport { device, rate, seconds, documents, phases, p99_ratio, plot };
    app.out.result(&report, |r| table(r, app.out.width()))
}

/// The parts of a query's time.
const STAGES: [&str; 6] = ["queue", "tokenize", "encode", "search", "fetch", "between"];

async fn open_loop(channel: &Channel, queries: &Arc<Vec<String>>, args: &LoadArgs) -> anyhow::Result<Phase> {
    let begun = Instant::now();
    let time = Duration::from_secs(args.seconds);
    let (mut asked, mut refused) = (0u64, 0);
    let mut timings = Timings::default();
    let mut stages: [Timings; 6] = std::array::from_fn(|_| Timings::default());
    let mut running: JoinSet<Result<(u64, proto::Explain), tonic::Status>> = JoinSet::new();
    loop {
        let due = begun + Duration::from_secs_f64(asked as f64 / args.rate);
        if due.duration_since(begun) >= time {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let text = queries[usize::try_from(asked).unwrap_or(0) % queries.len()].clone();
        let (mut client, k) = (SearchClient::new(channel.clone()), args.k);
        running.spawn(async move {
            let explain = ask(&mut client, COLLECTION, text, k).await?;
            Ok((u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX), explain))
        });
        asked += 1;
    }
    while let Some(answer) = running.join_next().await {
        match answer? {
            Ok((micros, e)) => {
                timings.record(micros);
                let told = [e.queue_us, e.tokenize_us, e.encode_us, e.search_us, e.fetch_us];
                let between = micros.saturating_sub(told.iter().sum());
                stages.iter_mut().zip(told.into_iter().chain([between])).for_each(|(s, us)| s.record(us));
            }
            Err(status) if status.code() == tonic::Code::ResourceExhausted => refused += 1,
            Err(status) => anyhow::bail!("a query failed: {:?}: {}", status.code(), status.message()),
        }
    }
    let answered = asked - refused;
    Ok(Phase {
        name: "",
        asked,
        answered,
        refused,
        achieved_per_second: answered as f64 / begun.elapsed().as_secs_f64(),
        latency: timings.percentiles(),
        stages: STAGES.into_iter().zip(stages.iter().map(Timings::percentiles)).collect(),
        documents_per_second: 0.0,
        curve: timings.curve(),
    })
}

/// Ingests the documents again and again, as new ones each time, until told to stop.
async fn flood(
    channel: Channel,
    documents: Vec<CorpusDocument>,
    stop: Arc<AtomicBool>,
    stored: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let requests = (0u64..).map_while(move |sequence| {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let from = usize::try_from(sequence).unwrap_or(0) * REQUEST_DOCUMENTS;
        let documents = (from..from + REQUEST_DOCUMENTS)
            .map(|n| {
                let document = &documents[n % documents.len()];
                proto::Document {
                    id: format!("load-{n}"),
                    title: document.title.clone(),
                    // Else the same text would be recognised the second time.
                    text: format!("{n}. {}", document.text),
                    ..proto::Document::default()
                }
            })
            .collect();
        Some(proto::IngestRequest {
            collection: COLLECTION.into(),
            sequence,
            documents,
            ..Default::default()
        })
    });
    let mut client = DocumentsClient::new(channel);
    let mut answers = client.ingest(tokio_stream::iter(requests)).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        for result in answer.results {
            anyhow::ensure!(result.error.is_empty(), "document {}: {}", result.id, result.error);
            stored.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn plot(folder: &std::path::Path, phases: &[Phase]) -> anyhow::Result<PathBuf> {
    let chart = LineChart {
        title: "Query latency, from when a query was due".into(),
        x_label: "share answered within, in nines (1: 90 %, 2: 99 %)".into(),
        y_label: "milliseconds".into(),
        log_x: false,
        series: phases.iter().map(|p| Series { name: p.name.into(), points: p.curve.clone() }).collect(),
    };
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join("latency.svg");
    std::fs::write(&path, chart.svg()).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn table(report: &LoadReport, width: usize) -> String {
    let ms = |micros: u64| format!("{:.2}", micros as f64 / 1e3);
    let rows: Vec<Vec<String>> = report
        .phases
        .iter()
        .map(|p| {
            let l = &p.latency;
            vec![
                p.name.to_owned(),
                format!("{:.1}", p.achieved_per_second),
                ms(l.p50_us),
                ms(l.p90_us),
                ms(l.p99_us),
                ms(l.max_us),
                p.refused.to_string(),
                format!("{:.1}", p.documents_per_second),
            ]
        })
        .collect();
    let headers = ["", "#queries/s", "#p50 ms", "#p90 ms", "#p99 ms", "#max ms", "#refused", "#documents/s"];
    let mut text = format!(
        "{}, {} queries/s due for {} s over {} documents\n",
        report.device, report.rate, report.seconds, report.documents
    );
    text += &layout::table(&headers, &rows, width);
    let rows: Vec<Vec<String>> = report
        .phases
        .iter()
        .map(|p| {
            std::iter::once(p.name.to_owned()).chain(p.stages.iter().map(|(_, s)| ms(s.p99_us))).collect()
        })
        .collect();
    let headers: Vec<String> = std::iter::once("p99 by stage, ms".to_owned())
        .chain(STAGES.iter().map(|stage| format!("#{stage}")))
        .collect();
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    text += &format!("\n{}", layout::table(&headers, &rows, width));
    // Writing to a String cannot fail.
    let _ = write!(text, "\np99 while ingesting is {:.2} times the quiet one", report.p99_ratio);
    if let Some(path) = &report.plot {
        let _ = write!(text, "\n{}", path.display());
    }
    text
}
