//! Latency of queries that arrive at a constant rate, alone and while documents are ingested as
//! fast as the server takes them.
//!
//! An open loop: queries are sent when they are due, however long the ones before them take, and a query's time counts
//! from when it was due. A loop that waits for an answer before it asks again would leave out the very queries that a
//! slow moment delays (coordinated omission).

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::{
    BenchError, COLLECTION, Note, REQUEST_DOCUMENTS, Result,
    requests::{Percentiles, Timings, ask},
    served::{Served, send},
    with_text,
};
use crate::{
    config::Config,
    eval::{
        beir::{CorpusDocument, JudgedCollection},
        plot::{LineChart, Series},
    },
    proto,
    rpc::{documents_client::DocumentsClient, search_client::SearchClient},
};

/// What is asked, and how fast.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Queries a second, above 0.
    pub rate: f64,
    /// Length of each phase, 1 or more.
    pub seconds: u64,
    /// Documents that are there before queries begin.
    pub documents: usize,
    /// Hits per query.
    pub k: u32,
    /// Where latency.svg is written to. Default: nowhere.
    pub out: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
pub struct Phase {
    pub name: &'static str,
    pub asked: u64,
    pub answered: u64,
    /// Refused as overloaded; their times are not among the percentiles.
    pub refused: u64,
    pub achieved_per_second: f64,
    pub latency: Percentiles,
    /// As the server tells them, and what is left of the latency.
    pub stages: Vec<(&'static str, Percentiles)>,
    pub documents_per_second: f64,
    #[serde(skip)]
    pub curve: Vec<(f64, f64)>,
}

#[derive(Debug, Serialize)]
pub struct LoadReport {
    pub device: String,
    pub rate: f64,
    pub seconds: u64,
    pub documents: usize,
    pub phases: Vec<Phase>,
    /// p99 with ingestion over p99 without.
    pub p99_ratio: f64,
    pub plot: Option<PathBuf>,
}

/// Ingests the first documents of `set` into a new database in `folder`, and asks its queries as they are due.
///
/// # Errors
/// [`BenchError::Unusable`] without queries; engine and server errors.
pub async fn measure(
    config: &Config,
    set: JudgedCollection,
    asked: &Asked,
    folder: &Path,
    note: Note<'_>,
) -> Result<LoadReport> {
    let queries: Arc<Vec<String>> = Arc::new(set.queries.into_iter().map(|(_, text, _)| text).collect());
    if queries.is_empty() {
        return Err(BenchError::Unusable { reason: format!("{} holds no queries", set.name) });
    }
    let corpus = with_text(set.corpus);
    let first = &corpus[..corpus.len().min(asked.documents)];
    let served = Served::start(config, folder, note).await?;
    note(&format!("ingesting {} documents", first.len()));
    send(&served.channel, first).await?;
    served.engine.wait_indexed(COLLECTION).await?;
    // Loads what the first query of a process loads.
    let mut client = SearchClient::new(served.channel.clone());
    ask(&mut client, COLLECTION, queries[0].clone(), asked.k).await?;

    let mut phases = Vec::new();
    for (name, ingesting) in [("quiet", false), ("while ingesting", true)] {
        note(&format!("{name}: {} queries/s for {} s", asked.rate, asked.seconds));
        let stop = Arc::new(AtomicBool::new(false));
        let stored = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();
        let ingest = ingesting.then(|| {
            let documents = corpus.clone();
            let (stop, stored) = (Arc::clone(&stop), Arc::clone(&stored));
            tokio::spawn(flood(served.channel.clone(), "load".into(), documents, stop, stored))
        });
        if ingesting {
            // The encoder's queue fills first.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let mut phase = open_loop(&served.channel, &queries, asked).await?;
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
    let plot = asked.out.as_ref().map(|folder| plot(folder, &phases)).transpose()?;
    let p99_ratio = phases[1].latency.p99_us as f64 / phases[0].latency.p99_us.max(1) as f64;
    let (rate, seconds, documents) = (asked.rate, asked.seconds, first.len());
    Ok(LoadReport { device, rate, seconds, documents, phases, p99_ratio, plot })
}

/// The parts of a query's time.
pub const STAGES: [&str; 6] = ["queue", "tokenize", "encode", "search", "fetch", "between"];

async fn open_loop(channel: &Channel, queries: &Arc<Vec<String>>, settings: &Asked) -> Result<Phase> {
    let begun = Instant::now();
    let time = Duration::from_secs(settings.seconds);
    let (mut asked, mut refused) = (0u64, 0);
    let mut timings = Timings::default();
    let mut stages: [Timings; 6] = std::array::from_fn(|_| Timings::default());
    let mut running: JoinSet<Result<(u64, proto::Explain), tonic::Status>> = JoinSet::new();
    loop {
        let due = begun + Duration::from_secs_f64(asked as f64 / settings.rate);
        if due.duration_since(begun) >= time {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let text = queries[usize::try_from(asked).unwrap_or(0) % queries.len()].clone();
        let (mut client, k) = (SearchClient::new(channel.clone()), settings.k);
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
            Err(status) => return Err(status.into()),
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

/// Ingests the documents again and again, as new ones each time, until told to stop. Their ids and texts begin with
/// `name`.
pub(super) async fn flood(
    channel: Channel,
    name: String,
    documents: Vec<CorpusDocument>,
    stop: Arc<AtomicBool>,
    stored: Arc<AtomicU64>,
) -> Result<()> {
    let requests = (0u64..).map_while(move |sequence| {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let from = usize::try_from(sequence).unwrap_or(0) * REQUEST_DOCUMENTS;
        let documents = (from..from + REQUEST_DOCUMENTS)
            .map(|n| {
                let document = &documents[n % documents.len()];
                proto::Document {
                    id: format!("{name}-{n}"),
                    title: document.title.clone(),
                    // Else the same text would be recognised the second time.
                    text: format!("{name} {n}. {}", document.text),
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
            if !result.error.is_empty() {
                return Err(BenchError::Document { id: result.id, reason: result.error });
            }
            stored.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn plot(folder: &Path, phases: &[Phase]) -> Result<PathBuf> {
    let chart = LineChart {
        title: "Query latency, from when a query was due".into(),
        x_label: "share answered within, in nines (1: 90 %, 2: 99 %)".into(),
        y_label: "milliseconds".into(),
        log_x: false,
        series: phases.iter().map(|p| Series { name: p.name.into(), points: p.curve.clone() }).collect(),
    };
    let path = folder.join("latency.svg");
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, chart.svg()));
    written.map_err(|source| BenchError::Write { path: path.clone(), source })?;
    Ok(path)
}
