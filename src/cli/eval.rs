//! `distilface eval`: how good the encoder and the search are, on reference values and judged collections.

use std::{fmt::Write, path::PathBuf};

use anyhow::Context;
use clap::Subcommand;

use super::{App, failure::usage};
use crate::{
    encoder::Encoder,
    eval::{
        beir,
        measures::Measures,
        parity::{ParityReport, Reference},
        retrieval::{self, RetrievalReport},
    },
    model::ModelDir,
};

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
    /// nDCG@10, recall@100 and MRR@10 on judged collections in BEIR layout, exact and by the index
    Retrieval {
        /// Folders with corpus.jsonl[.gz], queries.jsonl and qrels.tsv
        #[arg(required = true, value_hint = clap::ValueHint::DirPath)]
        dirs: Vec<PathBuf>,
        /// Another pair of queries and judgements: `train` reads queries-train.jsonl and qrels-train.tsv
        #[arg(long)]
        split: Option<String>,
        /// One passage per document, cut at the model's limit
        #[arg(long)]
        no_chunking: bool,
        /// Candidates kept by the graph [default: the collection's]
        #[arg(long)]
        ef: Option<usize>,
    },
}

/// Runs the measurement; a parity that does not hold is an error after it was shown.
pub fn run(app: &App, args: EvalArgs) -> anyhow::Result<()> {
    match args.what {
        What::Parity { dir } => parity(app, &dir),
        What::Retrieval { dirs, split, no_chunking, ef } => {
            let options = retrieval::Options { chunking_disabled: no_chunking, ef };
            let mut reports = Vec::new();
            for dir in dirs {
                let set = beir::load(&dir, split.as_deref())?;
                app.out.note(&format!(
                    "{}: {} documents, {} queries",
                    set.name,
                    set.corpus.len(),
                    set.queries.len()
                ));
                let folder = Scratch::new("eval")?;
                let runtime = tokio::runtime::Runtime::new().context("starting the async runtime")?;
                reports.push(runtime.block_on(retrieval::evaluate(
                    &set,
                    &app.loaded.config,
                    &folder.0,
                    options,
                ))?);
            }
            app.out.result(&reports, |reports| retrieval_table(reports))
        }
    }
}

fn parity(app: &App, dir: &std::path::Path) -> anyhow::Result<()> {
    let reference = Reference::load(dir)?;
    let config = &app.loaded.config;
    if config.encoder.model == crate::engine::NO_MODEL {
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
        let config = crate::config::EncoderConfig { device, ..config.encoder.clone() };
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

fn retrieval_table(reports: &[RetrievalReport]) -> String {
    let mut text = format!(
        "{:<12} {:>6} {:>9} {:>8} {:>10} {:>7}\n",
        "set", "search", "nDCG@10", "R@100", "MRR@10", "doc/s"
    );
    for r in reports {
        let mut row = |search: &str, m: &Measures, speed: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:<12} {search:>6} {:>9.4} {:>8.4} {:>10.4} {speed:>7}",
                r.set, m.ndcg_at_10, m.recall_at_100, m.mrr_at_10
            );
        };
        row("exact", &r.exact, &format!("{:.0}", r.documents_per_second));
        row("index", &r.index, "");
    }
    text.trim_end().to_owned()
}

/// A folder that is removed when dropped.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new(what: &str) -> anyhow::Result<Self> {
        let unique =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let path = std::env::temp_dir().join(format!("distilface-{what}-{}-{unique}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("making the folder {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left in the folder for temporary files is removed by the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
