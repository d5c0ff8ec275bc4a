//! `distilface eval`: how good the encoder and the search are, on reference values, sentence pairs and judged
//! collections; how sure that is; how fast two models are; and whether training computes what it should.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::Context;
use clap::Subcommand;

use super::{App, failure::usage};
use crate::{
    config::EncoderConfig,
    encoder::Encoder,
    eval::{
        bootstrap::{Difference, Estimate, Resampling},
        parity::{ParityReport, Reference},
    },
    model::ModelDir,
};

mod reference;
mod retrieval;
mod speed;
mod sts;

/// Measure quality
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Compare token ids and vectors with a folder of reference values, and a text alone with itself in a batch
    Parity {
        /// Folder with texts.jsonl, tokens.jsonl and embeddings.f32
        #[arg(value_hint = clap::ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Compare hidden states, poolings, losses, gradients and an AdamW step with a folder of reference values
    Reference(reference::ReferenceArgs),
    /// Spearman's rho on the seven STS sets, with confidence intervals
    Sts(sts::StsArgs),
    /// nDCG@10, recall@100 and MRR@10 on judged collections in BEIR layout, exact and by the index
    Retrieval(retrieval::RetrievalArgs),
    /// Size and speed of two models, in alternating rounds
    Speed(speed::SpeedArgs),
}

/// Confidence intervals.
#[derive(Debug, clap::Args)]
struct ResamplingArgs {
    /// Bootstrap resamples behind intervals and p-values
    #[arg(long, value_name = "N", default_value_t = Resampling::default().resamples, value_parser = resamples)]
    resamples: usize,
    /// Of the resamples
    #[arg(long, value_name = "N", default_value_t = Resampling::default().seed)]
    seed: u64,
}

impl From<&ResamplingArgs> for Resampling {
    fn from(args: &ResamplingArgs) -> Self {
        Resampling { resamples: args.resamples, seed: args.seed, ..Resampling::default() }
    }
}

fn resamples(text: &str) -> Result<usize, String> {
    const ALLOWED: std::ops::RangeInclusive<usize> = 100..=1_000_000;
    text.parse().ok().filter(|n| ALLOWED.contains(n)).ok_or_else(|| {
        format!(
            "allowed: {} to {}; fewer leave the ends of an interval to chance",
            ALLOWED.start(),
            ALLOWED.end()
        )
    })
}

/// Runs the measurement; a parity that does not hold is an error after it was shown.
pub fn run(app: &App, args: EvalArgs) -> anyhow::Result<()> {
    match args.what {
        What::Parity { dir } => parity(app, &dir),
        What::Reference(args) => reference::run(app, &args),
        What::Sts(args) => sts::run(app, &args),
        What::Retrieval(args) => retrieval::run(app, &args),
        What::Speed(args) => speed::run(app, &args),
    }
}

/// Opens a model by name or path, on the device of the settings.
fn open_encoder(app: &App, name: &str) -> anyhow::Result<Encoder> {
    let config = &app.loaded.config;
    if name == crate::config::NO_MODEL {
        return Err(usage("this needs an encoder: name a model instead of \"none\""));
    }
    let model = ModelDir::find(&config.data.home, name).map_err(crate::Error::from)?;
    let config = EncoderConfig { model: name.to_owned(), ..config.encoder.clone() };
    Ok(Encoder::open(&model, &app.loaded.config.data.home, &config)?)
}

/// `71.2 [69.8, 72.5]`
fn with_interval(e: &Estimate, decimals: usize) -> String {
    format!("{:.decimals$} [{:.decimals$}, {:.decimals$}]", e.value, e.low, e.high)
}

/// `+1.2 [+0.3, +2.0]`, and the p-value by itself.
fn with_p(d: &Difference, decimals: usize) -> [String; 2] {
    let text = format!("{:+.decimals$} [{:+.decimals$}, {:+.decimals$}]", d.difference, d.low, d.high);
    [text, format!("{:.3}", d.p)]
}

fn parity(app: &App, dir: &Path) -> anyhow::Result<()> {
    let reference = Reference::load(dir)?;
    let config = &app.loaded.config;
    if config.encoder.model == crate::config::NO_MODEL {
        return Err(usage("parity needs an encoder: leave --model none out"));
    }
    let model = ModelDir::find(&config.data.home, &config.encoder.model).map_err(crate::Error::from)?;
    // Every device that can be had, unless one was asked for.
    let devices: Vec<String> = match config.encoder.device.as_str() {
        "auto" => {
            let found = crate::runtime::inspect(&config.data.home);
            let mut devices = vec!["cpu".to_owned()];
            devices.extend(found.openvino.is_ok().then(|| "openvino".to_owned()));
            devices.extend(found.cuda.is_ok().then(|| "cuda".to_owned()));
            devices
        }
        one => vec![one.to_owned()],
    };
    let mut reports = Vec::new();
    for device in devices {
        let config = EncoderConfig { device, ..config.encoder.clone() };
        let encoder = Encoder::open(&model, &app.loaded.config.data.home, &config)?;
        reports.push(reference.compare(&encoder)?);
    }
    app.out.result(&reports, |reports| parity_table(reports))?;
    anyhow::ensure!(reports.iter().all(|r| r.passed), "the encoder differs from the reference values");
    Ok(())
}

fn parity_table(reports: &[ParityReport]) -> String {
    let mut text = String::new();
    for r in reports {
        let verdict = if r.passed { "same" } else { "DIFFERENT" };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{}: {verdict}\n  {} texts, {} with other tokens\n  cosine to the reference: least {:.7} (text {}, at least {}), mean {:.7}\n  alone against in a batch: 1 - cosine at most {:.1e} (allowed {:.0e})\n",
            r.device,
            r.texts,
            r.token_mismatches.len(),
            r.cosine_min,
            r.cosine_min_text,
            r.cosine_floor,
            r.cosine_mean,
            r.batch_deviation_max,
            r.batch_deviation_ceiling,
        );
    }
    text.trim_end().to_owned()
}

/// A folder that only this user may look into, and that is removed when dropped.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new(what: &str) -> anyhow::Result<Self> {
        let unique =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let path = std::env::temp_dir().join(format!("distilface-{what}-{}-{unique}", std::process::id()));
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).with_context(|| format!("making the folder {}", path.display()))?;
        SCRATCHES.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        Ok(Scratch(path))
    }

    /// Removes those of the whole process, which ends without dropping them.
    pub(super) fn remove_all() {
        for path in SCRATCHES.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            remove(&path);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SCRATCHES.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| *path != self.0);
        remove(&self.0);
    }
}

/// The folders that are there now.
static SCRATCHES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn remove(path: &Path) {
    // What is left in the folder for temporary files is removed by the system.
    let _ = std::fs::remove_dir_all(path);
}
