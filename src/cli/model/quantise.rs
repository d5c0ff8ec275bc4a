//! `distilface model quantise`: a model's weights in 8 bits, with scales calibrated on texts.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use crate::{
    cli::App,
    encoder::tune::calibrate::calibrate,
    eval::read_text,
    model::{FileSum, ModelDir, NewQuantised},
};

/// More texts than this change no range worth the time.
const TEXTS_MAX: usize = 1000;

/// What to round, and on what.
#[derive(Debug, clap::Args)]
pub(super) struct QuantiseArgs {
    /// Name or path of a model in full precision
    name: String,
    /// Texts like those that will be encoded: one a line, or JSON lines with a key "text"; also packed (.gz)
    /// [default: the sample corpus]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    calibrate: Option<PathBuf>,
    /// Name of the new model [default: NAME-int8]
    #[arg(long = "as", value_name = "NAME")]
    new_name: Option<String>,
    /// Replace a model of this name
    #[arg(long)]
    force: bool,
}

pub(super) fn make(app: &App, args: &QuantiseArgs) -> anyhow::Result<ModelDir> {
    let config = &app.loaded.config;
    let home = &config.data.home;
    let base = ModelDir::find(home, &args.name).map_err(crate::Error::from)?;
    base.check_full_precision().map_err(crate::Error::from)?;
    let name = args.new_name.clone().unwrap_or_else(|| format!("{}-int8", base.manifest.name));
    // Said before anything is computed.
    ModelDir::check_new(home, &name, args.force).map_err(crate::Error::from)?;
    let texts = match &args.calibrate {
        Some(path) => read(path)?,
        None => crate::model::sample_texts(),
    };
    let texts = spread(texts, TEXTS_MAX);
    let sum = FileSum::of_bytes(texts.iter().flat_map(|t| [t, "\n"]).collect::<String>().as_bytes());
    let mut progress = app.out.progress("calibrating", Some(texts.len() as u64));
    let calibration =
        calibrate(&base, home, config.encoder.threads, &texts, |done| progress.set(done as u64, ""))?;
    drop(progress);
    let new = NewQuantised {
        name: &name,
        base: &base,
        calibration: &calibration,
        texts: texts.len(),
        texts_sha256: sum.sha256,
        force: args.force,
    };
    Ok(ModelDir::quantise(home, &new).map_err(crate::Error::from)?)
}

/// Texts of a file, blank ones left out.
fn read(path: &Path) -> anyhow::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Row {
        text: String,
    }
    let content = read_text(path)?;
    let name = path.to_string_lossy();
    let json = [".jsonl", ".ndjson"].iter().any(|end| name.trim_end_matches(".gz").ends_with(end));
    let mut texts = Vec::new();
    for (n, line) in (1..).zip(content.lines()) {
        let text = match line.trim() {
            "" => continue,
            row if json => {
                let row: Row = serde_json::from_str(row)
                    .with_context(|| format!("{name}:{n} is not a JSON object with a key \"text\""))?;
                row.text.trim().to_owned()
            }
            text => text.to_owned(),
        };
        if !text.is_empty() {
            texts.push(text);
        }
    }
    Ok(texts)
}

/// At most `most` of them, from the whole length: files are often sorted.
fn spread(texts: Vec<String>, most: usize) -> Vec<String> {
    let step = texts.len().div_ceil(most).max(1);
    texts.into_iter().step_by(step).collect()
}
