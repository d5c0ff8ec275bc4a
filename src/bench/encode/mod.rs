//! Texts/s, query latency and cosine of every device and precision of this machine, beside others' programs in turn; and
//! what `auto` goes by from then on.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Instant,
};

use serde::Serialize;

use super::{BenchError, Note, Result, median, requests::SHORT};
use crate::{
    config::{Config, EncoderConfig},
    encoder::{Class, Encoder, TextKind, tune::tuned::Tuned},
    error::with_sources,
    eval::{beir, speed::SpeedTexts, sts},
    model::ModelDir,
    vector::cosine,
};

pub mod arithmetic;
mod peer;

use arithmetic::Arithmetic;
use peer::Peer;

/// Cosines are taken of so many texts of each load.
const COMPARED: usize = 200;
/// Nearer than this to full precision, a way may be chosen, ours or a peer's.
pub const COSINE_MIN: f64 = 0.999;
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

/// What is measured.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Each is a load: a folder in BEIR layout, a folder or table of STS pairs, or a file with one text a line; several are
    /// also measured mixed. Default: none, which stands for the sample texts, short and long.
    pub sources: Vec<PathBuf>,
    /// Only so many texts of each source, evenly out of the whole, 1 or more.
    pub limit: usize,
    /// How often everything runs, in turn, at least once; medians are compared.
    pub rounds: usize,
    /// Only these ways, such as `cpu/int8`. Default: none, which stands for all that can be had.
    pub only: Vec<String>,
    /// Lets `auto` use the fastest way from now on.
    pub save: bool,
    /// A Python that has the peers, and the program that runs them. Default: no peers.
    pub peer: Option<(PathBuf, PathBuf)>,
}

/// Texts that are encoded in one go.
#[derive(Debug)]
pub struct Load {
    /// Of its source.
    pub name: String,
    /// At least one.
    pub texts: Vec<String>,
}

/// One way to encode: a device with a precision, or a peer.
#[derive(Debug, Clone, Serialize)]
pub struct Way {
    pub name: String,
    pub ours: bool,
    /// By load: medians.
    pub texts_per_second: Vec<f64>,
    pub cosine_mean: f64,
    pub cosine_min: f64,
    pub query_p50_ms: f64,
    /// Share of padding in the tokens computed; only ours tell.
    pub padding: Option<f64>,
    /// Only ours.
    pub arithmetic: Option<Arithmetic>,
    #[serde(skip)]
    config: Option<EncoderConfig>,
    #[serde(skip)]
    rounds: Vec<Vec<f64>>,
}

/// All ways, in turn over the same texts.
#[derive(Debug, Serialize)]
pub struct EncodeReport {
    pub model: String,
    pub threads: usize,
    pub rounds: usize,
    pub loads: Vec<(String, usize)>,
    pub ways: Vec<Way>,
    /// The fastest of ours over the fastest peer, of those near enough to full precision, by load.
    pub ratio_to_best_peer: Vec<f64>,
    pub saved: Option<PathBuf>,
}

/// Measures every way that `asked` names and this machine has, over the texts of its sources. `folder` is empty and takes
/// what a peer reads.
///
/// # Errors
/// [`BenchError::Unusable`] where a source holds no texts, a way is unknown, or none may be saved; [`BenchError::NoWay`];
/// [`BenchError::Peer`]; model, encoder and reading errors.
pub fn measure(config: &Config, asked: &Asked, folder: &Path, note: Note<'_>) -> Result<EncodeReport> {
    let names: Vec<String> = WAYS.iter().map(|(device, precision)| format!("{device}/{precision}")).collect();
    if let Some(unknown) = asked.only.iter().find(|name| !names.contains(name)) {
        let known = names.join(", ");
        return Err(unusable(format!("there is no way to encode called {unknown:?}; there are {known}")));
    }
    let home = &config.data.home;
    let config = &config.encoder;
    let model = ModelDir::find(home, &config.model)?;
    let threads = match config.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    let loads = loads(&asked.sources, asked.limit)?;
    let rounds = asked.rounds.max(1);
    let mut peer = match &asked.peer {
        Some(program) => {
            note("starting the peer");
            Some(Peer::start(program, &model, threads, folder)?)
        }
        None => None,
    };
    let exact = EncoderConfig { device: "cpu".into(), precision: "fp32".into(), threads, ..config.clone() };
    let exact = vectors(&Encoder::open(&model, home, &exact)?, &loads)?;

    let mut ways = Vec::new();
    for (device, precision) in WAYS {
        let name = format!("{device}/{precision}");
        if !asked.only.is_empty() && !asked.only.contains(&name) {
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
            Err(e) => note(&format!("{name}: {}", with_sources(&e))),
        }
    }
    if ways.is_empty() {
        return Err(BenchError::NoWay { asked: asked.only.join(", ") });
    }
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
            note(&format!("round {round} of {rounds}: {} {told}", way.name));
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
    let saved = if asked.save { Some(save(home, &ways, threads)?) } else { None };
    Ok(EncodeReport {
        model: model.manifest.name.clone(),
        threads,
        rounds,
        loads: loads.iter().map(|l| (l.name.clone(), l.texts.len())).collect(),
        ways,
        ratio_to_best_peer,
        saved,
    })
}

fn loads(sources: &[PathBuf], limit: usize) -> Result<Vec<Load>> {
    if sources.is_empty() {
        let sample = SpeedTexts::sample();
        let (short, long, _) = sample.parts();
        let load = |name: &str, texts: &[String], times: usize| Load {
            name: name.into(),
            texts: texts.iter().cycle().take(texts.len() * times).cloned().collect(),
        };
        return Ok(vec![load("short", short, 1), load("long", long, 6)]);
    }
    let mut loads = Vec::new();
    for source in sources {
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
            let read = |e| BenchError::Read { path: source.clone(), source: e };
            let text = std::fs::read_to_string(source).map_err(read)?;
            text.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned).collect()
        };
        // Evenly out of the whole, not its beginning alone.
        let step = (texts.len() / limit.max(1)).max(1);
        texts = texts.into_iter().step_by(step).take(limit).collect();
        if texts.is_empty() {
            return Err(unusable(format!("{} holds no texts", source.display())));
        }
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

fn vectors(encoder: &Encoder, loads: &[Load]) -> Result<Vec<Vec<Vec<f32>>>> {
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
) -> Result<Way> {
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
) -> Result<String> {
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
fn query_p50(encoder: &Encoder) -> Result<f64> {
    let ask = || -> Result<f64> {
        let started = Instant::now();
        encoder.encode_as(&[SHORT], TextKind::Query, Class::Query)?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    };
    for _ in 0..5 {
        ask()?;
    }
    Ok(median((0..QUERIES).map(|_| ask()).collect::<Result<_>>()?))
}

fn save(home: &Path, ways: &[Way], threads: usize) -> Result<PathBuf> {
    let near = ways.iter().filter(|w| w.cosine_mean >= COSINE_MIN);
    // Loads differ in size by much: what counts is the mean of the ratios, so their logarithms are added.
    let score = |w: &Way| w.texts_per_second.iter().map(|r| r.ln()).sum::<f64>();
    let best = near
        .filter_map(|w| w.config.as_ref().map(|config| (w, config)))
        .max_by(|a, b| score(a.0).total_cmp(&score(b.0)))
        .ok_or_else(|| unusable("no way to encode came near enough to full precision to be saved".into()))?;
    let (way, config) = best;
    let mut tuned = Tuned::here(&config.device, &config.precision, threads, config.batch_tokens_max);
    tuned.documents_per_second = way.texts_per_second[way.texts_per_second.len() - 1];
    tuned.cosine_mean = way.cosine_mean;
    tuned.save(home).map_err(|source| BenchError::Write { path: home.to_owned(), source })
}

fn unusable(reason: String) -> BenchError {
    BenchError::Unusable { reason }
}
