//! `distilface bench encode`: texts/s, query latency and cosine of every device and precision of this machine, beside
//! others' programs in turn; and what `auto` goes by from then on.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::Ordering,
    time::Instant,
};

use anyhow::Context;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::arithmetic::Arithmetic;
use crate::{
    bench::{median, requests::SHORT},
    cli::{App, eval::Scratch, layout},
    config::EncoderConfig,
    encoder::{Class, Encoder, TextKind, tune::tuned::Tuned},
    eval::{beir, speed::SpeedTexts, sts},
    model::ModelDir,
    vector::cosine,
};

/// Cosines are taken of so many texts of each load.
const COMPARED: usize = 200;
/// Nearer than this to full precision, a way may be chosen, ours or a peer's.
const COSINE_MIN: f64 = 0.999;
const QUERIES: usize = 60;

/// Everything that can be asked for.
const WAYS: [(&str, &str); 6] = [
    ("cpu", "fp32"),
    ("cpu", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("cuda", "fp32"),
    ("cuda", "fp16"),
];

/// Measure the encoder
#[derive(Debug, clap::Args)]
pub struct EncodeArgs {
    /// Texts, each source a load: a folder in BEIR layout, a folder or table of STS pairs, or a file with one text a line;
    /// several are also measured mixed [default: the sample corpus, short and long]
    #[arg(value_name = "SOURCE", value_hint = clap::ValueHint::AnyPath)]
    sources: Vec<PathBuf>,
    /// Only the first N texts of each source
    #[arg(long, value_name = "N", default_value_t = 2000)]
    limit: usize,
    /// How often everything runs, in turn; medians are compared
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only these ways, such as cpu/int8 [default: all that can be had]
    #[arg(long, value_name = "DEVICE/PRECISION", value_delimiter = ',')]
    only: Vec<String>,
    /// Let `auto` use the fastest way from now on
    #[arg(long)]
    save: bool,
    /// Python with sentence-transformers, to run benches/peers/encode.py in turn with this
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// Where encode.py lies
    #[arg(long, value_name = "FILE", default_value = "benches/peers/encode.py")]
    peer_script: PathBuf,
}

/// Texts that are encoded in one go.
pub struct Load {
    pub name: String,
    pub texts: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Way {
    name: String,
    ours: bool,
    /// By load: medians.
    texts_per_second: Vec<f64>,
    cosine_mean: f64,
    cosine_min: f64,
    query_p50_ms: f64,
    /// Share of padding in the tokens computed; only ours tell.
    padding: Option<f64>,
    /// Only ours.
    arithmetic: Option<Arithmetic>,
    #[serde(skip)]
    config: Option<EncoderConfig>,
    #[serde(skip)]
    rounds: Vec<Vec<f64>>,
}

#[derive(Debug, Serialize)]
struct EncodeReport {
    model: String,
    threads: usize,
    rounds: usize,
    loads: Vec<(String, usize)>,
    ways: Vec<Way>,
    /// The fastest of ours over the fastest peer, of those near enough to full precision, by load.
    ratio_to_best_peer: Vec<f64>,
    saved: Option<PathBuf>,
}

pub fn run(app: &App, args: &EncodeArgs) -> anyhow::Result<()> {
    let config = &app.loaded.config.encoder;
    let home = &app.loaded.config.data.home;
    let model = ModelDir::find(home, &config.model).map_err(crate::Error::from)?;
    let threads = match config.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    let loads = loads(args)?;
    let rounds = args.rounds.max(1);
    let mut peer =
        args.peer.as_ref().map(|python| Peer::start(app, python, args, &model, threads)).transpose()?;
    let exact = EncoderConfig { device: "cpu".into(), precision: "fp32".into(), threads, ..config.clone() };
    let exact = vectors(&Encoder::open(&model, home, &exact)?, &loads)?;

    let mut ways = Vec::new();
    for (device, precision) in WAYS {
        let name = format!("{device}/{precision}");
        if !args.only.is_empty() && !args.only.contains(&name) {
            continue;
        }
        let config = EncoderConfig {
            device: device.into(),
            precision: precision.into(),
            threads,
            // Nothing else should run meanwhile, and what does should disturb every candidate equally.
            bulk_niceness: 0,
            query_cache: 0,
            ..config.clone()
        };
        // Opened once before anything is measured, so that graphs are written and what cannot be had is told at once.
        match Encoder::open(&model, home, &config) {
            Ok(encoder) => ways.push(first_look(name, config, &encoder, &loads, &exact)?),
            Err(e) => app.out.note(&format!("{name}: {:#}", anyhow::Error::from(e))),
        }
    }
    anyhow::ensure!(
        !ways.is_empty(),
        "none of these ways to encode can be had here: {}",
        args.only.join(", ")
    );
    let modes = peer.as_ref().map(|p| p.modes.clone()).unwrap_or_default();
    ways.extend(modes.into_iter().map(|name| Way {
        name,
        ours: false,
        texts_per_second: Vec::new(),
        cosine_mean: 1.0,
        cosine_min: 1.0,
        query_p50_ms: 0.0,
        padding: None,
        arithmetic: None,
        config: None,
        rounds: vec![Vec::new(); loads.len()],
    }));
    for round in 1..=rounds {
        for way in &mut ways {
            let told = match (&way.config, &mut peer) {
                (Some(config), _) => ours(&model, home, config, &loads, &mut way.rounds)?,
                (None, Some(peer)) => peer.round(way, &loads)?,
                (None, None) => continue,
            };
            app.out.note(&format!("round {round} of {rounds}: {} {told}", way.name));
        }
    }
    for way in &mut ways {
        way.texts_per_second = way.rounds.iter().map(|rates| median(rates.clone())).collect();
        match (&way.config, &mut peer) {
            (Some(config), _) => {
                let encoder = Encoder::open(&model, home, config)?;
                way.query_p50_ms = query_p50(&encoder)?;
                way.arithmetic =
                    Some(Arithmetic::measure(&encoder, home, config, &loads, &way.texts_per_second)?);
            }
            (None, Some(peer)) => way.query_p50_ms = peer.query(&way.name)?,
            (None, None) => {}
        }
    }
    let best = |ours: bool, load: usize| {
        let near = ways.iter().filter(|w| w.ours == ours && w.cosine_mean >= COSINE_MIN);
        near.map(|w| w.texts_per_second[load]).fold(0.0, f64::max)
    };
    let ratio_to_best_peer = match peer {
        Some(_) => (0..loads.len()).map(|n| best(true, n) / best(false, n)).collect(),
        None => Vec::new(),
    };
    let saved = if args.save { Some(save(home, &ways, threads)?) } else { None };
    let report = EncodeReport {
        model: model.manifest.name.clone(),
        threads,
        rounds,
        loads: loads.iter().map(|l| (l.name.clone(), l.texts.len())).collect(),
        ways,
        ratio_to_best_peer,
        saved,
    };
    app.out.result(&report, |r| table(r, app.out.width()))
}

fn loads(args: &EncodeArgs) -> anyhow::Result<Vec<Load>> {
    if args.sources.is_empty() {
        let sample = SpeedTexts::sample();
        let (short, long, _) = sample.parts();
        let load = |name: &str, texts: &[String], times: usize| Load {
            name: name.into(),
            texts: texts.iter().cycle().take(texts.len() * times).cloned().collect(),
        };
        return Ok(vec![load("short", short, 1), load("long", long, 6)]);
    }
    let mut loads = Vec::new();
    for source in &args.sources {
        let name = source.file_stem().unwrap_or(source.as_os_str()).to_string_lossy().into_owned();
        let mut texts: Vec<String> = if beir::corpus_path(source).is_ok() {
            let documents = beir::documents(&beir::corpus_path(source)?)?;
            documents.iter().map(|d| Encoder::passage_text(&d.title, &d.text).into_owned()).collect()
        } else if source.is_dir() || source.extension().is_some_and(|e| e == "tsv") {
            let sets = if source.is_dir() { sts::load_found(source)? } else { sts::load_any(source, false)? };
            // `distinct` sorts by length, which nobody's texts are.
            let mut seen = std::collections::HashSet::new();
            let pairs = sets.iter().flat_map(|s| &s.pairs).flat_map(|p| [&p.first, &p.second]);
            pairs.filter(|text| seen.insert(*text)).cloned().collect()
        } else {
            let text =
                std::fs::read_to_string(source).with_context(|| format!("reading {}", source.display()))?;
            text.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned).collect()
        };
        // Evenly out of the whole, not its beginning alone.
        let step = (texts.len() / args.limit.max(1)).max(1);
        texts = texts.into_iter().step_by(step).take(args.limit).collect();
        anyhow::ensure!(!texts.is_empty(), "{} holds no texts", source.display());
        loads.push(Load { name, texts });
    }
    if loads.len() > 1 {
        let longest = loads.iter().map(|l| l.texts.len()).max().unwrap_or(0);
        let mixed =
            (0..longest).flat_map(|i| loads.iter().filter_map(move |l| l.texts.get(i))).cloned().collect();
        loads.push(Load { name: "mixed".into(), texts: mixed });
    }
    Ok(loads)
}

fn vectors(encoder: &Encoder, loads: &[Load]) -> anyhow::Result<Vec<Vec<Vec<f32>>>> {
    loads
        .iter()
        .map(|load| {
            let some = &load.texts[..load.texts.len().min(COMPARED)];
            Ok(encoder.encode(some, TextKind::Raw)?.into_iter().map(|e| e.values).collect())
        })
        .collect()
}

/// Everything but the times.
fn first_look(
    name: String,
    config: EncoderConfig,
    encoder: &Encoder,
    loads: &[Load],
    exact: &[Vec<Vec<f32>>],
) -> anyhow::Result<Way> {
    let cosines: Vec<f64> = vectors(encoder, loads)?
        .iter()
        .flatten()
        .zip(exact.iter().flatten())
        .map(|(a, b)| cosine(a, b))
        .collect();
    for load in loads {
        encoder.encode(&load.texts[..load.texts.len().min(COMPARED)], TextKind::Raw)?;
    }
    let counters = encoder.counters();
    let (tokens, computed) =
        (counters.tokens.load(Ordering::Relaxed), counters.padded_tokens.load(Ordering::Relaxed));
    Ok(Way {
        name,
        ours: true,
        texts_per_second: Vec::new(),
        cosine_mean: cosines.iter().sum::<f64>() / cosines.len().max(1) as f64,
        cosine_min: cosines.iter().copied().fold(1.0, f64::min),
        query_p50_ms: 0.0,
        padding: Some(1.0 - tokens as f64 / computed.max(1) as f64),
        arithmetic: None,
        config: Some(config),
        rounds: vec![Vec::new(); loads.len()],
    })
}

/// One round: every load from text to vectors, tokenizer included. The encoder is opened for it and closed behind it, so
/// that no other way's threads or memory are there.
fn ours(
    model: &ModelDir,
    home: &Path,
    config: &EncoderConfig,
    loads: &[Load],
    rounds: &mut [Vec<f64>],
) -> anyhow::Result<String> {
    let encoder = Encoder::open(model, home, config)?;
    let mut told = String::new();
    for (load, rates) in loads.iter().zip(rounds) {
        encoder.encode(&load.texts[..load.texts.len().min(64)], TextKind::Raw)?;
        let started = Instant::now();
        encoder.encode(&load.texts, TextKind::Raw)?;
        rates.push(load.texts.len() as f64 / started.elapsed().as_secs_f64());
        // Writing to a String cannot fail.
        let _ = write!(told, " {} {:.1}/s", load.name, rates[rates.len() - 1]);
    }
    Ok(told)
}

/// Median time of one query after another, in the lane for queries.
fn query_p50(encoder: &Encoder) -> anyhow::Result<f64> {
    let ask = || -> anyhow::Result<f64> {
        let started = Instant::now();
        encoder.encode_as(&[SHORT], TextKind::Query, Class::Query)?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    };
    for _ in 0..5 {
        ask()?;
    }
    Ok(median((0..QUERIES).map(|_| ask()).collect::<anyhow::Result<_>>()?))
}

fn save(home: &Path, ways: &[Way], threads: usize) -> anyhow::Result<PathBuf> {
    let near = ways.iter().filter(|w| w.cosine_mean >= COSINE_MIN);
    // Loads differ in size by much: what counts is the mean of the ratios, so their logarithms are added.
    let score = |w: &Way| w.texts_per_second.iter().map(|r| r.ln()).sum::<f64>();
    let best = near
        .filter_map(|w| w.config.as_ref().map(|config| (w, config)))
        .max_by(|a, b| score(a.0).total_cmp(&score(b.0)))
        .context("no way to encode came near enough to full precision to be saved")?;
    let (way, config) = best;
    let mut tuned = Tuned::here(&config.device, &config.precision, threads, config.batch_tokens_max);
    tuned.documents_per_second = way.texts_per_second[way.texts_per_second.len() - 1];
    tuned.cosine_mean = way.cosine_mean;
    tuned.save(home).with_context(|| format!("writing into {}", home.display()))
}

fn table(report: &EncodeReport, width: usize) -> String {
    let headers: Vec<String> = ["".to_owned()]
        .into_iter()
        .chain(report.loads.iter().map(|(name, _)| format!("#{name}/s")))
        .chain(["#cosine".into(), "#least".into(), "#query ms".into(), "#padding".into()])
        .collect();
    let rows: Vec<Vec<String>> = report
        .ways
        .iter()
        .map(|way| {
            let mut row = vec![way.name.clone()];
            row.extend(way.texts_per_second.iter().map(|r| format!("{r:.1}")));
            row.push(format!("{:.5}", way.cosine_mean));
            row.push(format!("{:.5}", way.cosine_min));
            row.push(format!("{:.2}", way.query_p50_ms));
            row.push(way.padding.map_or_else(String::new, |p| format!("{:.1} %", 100.0 * p)));
            row
        })
        .collect();
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let sizes: Vec<String> = report.loads.iter().map(|(name, n)| format!("{name} {n}")).collect();
    let mut text = format!(
        "{}, {} threads, texts: {}, medians of {} rounds in turn\n",
        report.model,
        report.threads,
        sizes.join(", "),
        report.rounds
    );
    text += &layout::table(&headers, &rows, width);
    // Writing to a String cannot fail.
    if !report.ratio_to_best_peer.is_empty() {
        let ratios = report.loads.iter().zip(&report.ratio_to_best_peer);
        let ratios: Vec<String> = ratios.map(|((name, _), r)| format!("{name} {r:.2}")).collect();
        let _ =
            write!(text, "\nover the fastest peer with a mean cosine of {COSINE_MIN}: {}", ratios.join(", "));
    }
    for way in &report.ways {
        if let Some(arithmetic) = &way.arithmetic {
            let _ = write!(text, "\n\n{}", arithmetic.words(&way.name, width));
        }
    }
    if let Some(path) = &report.saved {
        let _ = write!(text, "\nkept in {}; encoder.device = \"auto\" goes by it", path.display());
    }
    text
}

/// A program that encodes the same texts, waiting while we do.
struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    modes: Vec<String>,
    folder: Scratch,
}

impl Peer {
    fn start(
        app: &App,
        python: &Path,
        args: &EncodeArgs,
        model: &ModelDir,
        threads: usize,
    ) -> anyhow::Result<Self> {
        let folder = Scratch::new("encode")?;
        let exported = folder.0.join("model");
        model.export(&exported, false).map_err(crate::Error::from)?;
        app.out.note("starting the peer");
        let mut child = Command::new(python)
            .arg(&args.peer_script)
            .arg(&exported)
            .args(["--threads", &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", python.display()))?;
        let requests = child.stdin.take().context("the peer has no input")?;
        let answers = BufReader::new(child.stdout.take().context("the peer has no output")?);
        let mut peer = Peer { child, requests, answers, modes: Vec::new(), folder };
        peer.modes = serde_json::from_value(peer.answer()?)?;
        Ok(peer)
    }

    fn answer(&mut self) -> anyhow::Result<Json> {
        let mut line = String::new();
        anyhow::ensure!(self.answers.read_line(&mut line)? > 0, "the peer ended; what it wrote stands above");
        Ok(serde_json::from_str(&line)?)
    }

    fn ask(&mut self, request: &Json) -> anyhow::Result<Json> {
        writeln!(self.requests, "{request}")?;
        self.requests.flush()?;
        self.answer()
    }

    fn round(&mut self, way: &mut Way, loads: &[Load]) -> anyhow::Result<String> {
        let mut told = String::new();
        for (n, load) in loads.iter().enumerate() {
            let file = self.folder.0.join(format!("{n}.json"));
            if !file.exists() {
                std::fs::write(&file, serde_json::to_vec(&load.texts)?)?;
            }
            let answer = self.ask(&json!({ "mode": way.name, "texts": file }))?;
            let seconds = answer["seconds"].as_f64().context("the peer told no seconds")?;
            way.rounds[n].push(load.texts.len() as f64 / seconds);
            way.cosine_mean = way.cosine_mean.min(answer["cosine_mean"].as_f64().unwrap_or(0.0));
            way.cosine_min = way.cosine_min.min(answer["cosine_min"].as_f64().unwrap_or(0.0));
            // Writing to a String cannot fail.
            let _ = write!(told, " {} {:.1}/s", load.name, load.texts.len() as f64 / seconds);
        }
        Ok(told)
    }

    fn query(&mut self, mode: &str) -> anyhow::Result<f64> {
        let answer = self.ask(&json!({ "mode": mode, "query": SHORT, "times": QUERIES }))?;
        answer["p50_ms"].as_f64().context("the peer told no time")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It would wait for requests for ever; that it is gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
