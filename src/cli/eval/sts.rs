//! `distilface eval sts`: models on the seven sets of sentence pairs, side by side.

use std::{path::PathBuf, time::Instant};

use serde::Serialize;

use super::{ResamplingArgs, open_encoder, with_interval, with_p};
use crate::{
    cli::{App, layout},
    encoder::{Encoder, TextKind},
    eval::{
        EvalError,
        bootstrap::Resampling,
        sts::{self, StsDifferences, StsEvaluation, StsScores, StsSet},
    },
};

/// Spearman's rho on the seven STS sets, with confidence intervals
#[derive(Debug, clap::Args)]
pub(super) struct StsArgs {
    /// Folder with sts12.tsv to sts16.tsv, stsb-test.tsv and sickr-test.tsv, or one file of that form
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    dir: PathBuf,
    /// Only stsb-dev.tsv and (if it is there) sickr-dev.tsv: what a model may be chosen by
    #[arg(long)]
    dev: bool,
    /// Models by name or path, each compared with the first [default: the configured one]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    models: Vec<String>,
    #[command(flatten)]
    resampling: ResamplingArgs,
}

/// A model and its figures.
#[derive(Debug, Serialize)]
struct ModelScores {
    model: String,
    device: String,
    fingerprint: String,
    #[serde(flatten)]
    scores: StsScores,
    /// Distinct sentences.
    sentences: usize,
    /// Sentences whose end the model did not read.
    truncated: usize,
    seconds: f64,
}

/// A model against the first.
#[derive(Debug, Serialize)]
struct Compared {
    model: String,
    against: String,
    sets: Vec<SetDifference>,
    average: crate::eval::bootstrap::Difference,
}

#[derive(Debug, Serialize)]
struct SetDifference {
    set: String,
    #[serde(flatten)]
    difference: crate::eval::bootstrap::Difference,
}

#[derive(Debug, Serialize)]
struct Report {
    models: Vec<ModelScores>,
    differences: Vec<Compared>,
    resampling: Resampling,
}

pub(super) fn run(app: &App, args: &StsArgs) -> anyhow::Result<()> {
    let sets = sts::load_any(&args.dir, args.dev)?;
    let configured = std::slice::from_ref(&app.loaded.config.encoder.model);
    let names = if args.models.is_empty() { configured } else { &args.models };
    let plan = Resampling::from(&args.resampling);

    let mut cosines = Vec::new();
    let mut told = Vec::new();
    for name in names {
        let encoder = open_encoder(app, name)?;
        let started = Instant::now();
        let (made, sentences, truncated) = encode(app, &sets, &encoder)?;
        if truncated > 0 {
            app.out.warn(&format!(
                "{name}: {truncated} sentences are longer than the model reads; their ends were not encoded"
            ));
        }
        cosines.push(made);
        told.push((encoder, sentences, truncated, started.elapsed().as_secs_f64()));
    }
    let StsEvaluation { scores, differences } = sts::evaluate(&sets, &cosines, &plan);

    let models: Vec<ModelScores> = told
        .into_iter()
        .zip(scores)
        .map(|((encoder, sentences, truncated, seconds), scores)| ModelScores {
            model: encoder.name().to_owned(),
            device: encoder.device().device.clone(),
            fingerprint: encoder.fingerprint().0.clone(),
            scores,
            sentences,
            truncated,
            seconds,
        })
        .collect();
    let differences = differences
        .into_iter()
        .enumerate()
        .map(|(i, StsDifferences { sets, average })| Compared {
            model: models[i + 1].model.clone(),
            against: models[0].model.clone(),
            sets: sets.into_iter().map(|(set, difference)| SetDifference { set, difference }).collect(),
            average,
        })
        .collect();
    let report = Report { models, differences, resampling: plan };
    app.out.result(&report, |r| table(r, app.out.width()))
}

/// The cosines of all pairs, the number of distinct sentences and how many were cut.
fn encode(app: &App, sets: &[StsSet], encoder: &Encoder) -> Result<(Vec<Vec<f64>>, usize, usize), EvalError> {
    let total = sts::distinct(sets).len();
    let mut progress = app.out.progress(encoder.name(), Some(total as u64));
    let (mut done, mut truncated) = (0, 0);
    let made = sts::cosines::<crate::eval::EvalError>(sets, &mut |texts| {
        let embeddings = encoder.encode(texts, TextKind::Raw)?;
        done += texts.len();
        truncated += embeddings.iter().filter(|e| e.truncated).count();
        progress.set(done as u64, &format!("{done} of {total} sentences"));
        Ok(embeddings.into_iter().map(|e| e.values).collect())
    })?;
    Ok((made, total, truncated))
}

fn table(report: &Report, width: usize) -> String {
    let mut headers = vec!["set".to_owned(), "#pairs".to_owned()];
    headers.extend(report.models.iter().map(|m| format!("#{}", m.model)));
    for compared in &report.differences {
        // With several columns of differences, each says whose it is.
        let whose = if report.differences.len() > 1 { format!(" {}", compared.model) } else { String::new() };
        headers.extend([format!("#difference{whose}"), "#p".to_owned()]);
    }
    let sets = &report.models[0].scores.sets;
    let mut rows = Vec::new();
    for (i, set) in sets.iter().enumerate() {
        let mut row = vec![set.set.clone(), layout::thousands(set.pairs as u64)];
        row.extend(report.models.iter().map(|m| with_interval(&m.scores.sets[i].spearman, 1)));
        row.extend(report.differences.iter().flat_map(|d| with_p(&d.sets[i].difference, 1)));
        rows.push(row);
    }
    if sets.len() > 1 {
        let mut row = vec!["average".to_owned(), String::new()];
        row.extend(report.models.iter().map(|m| with_interval(&m.scores.average, 1)));
        row.extend(report.differences.iter().flat_map(|d| with_p(&d.average, 1)));
        rows.push(row);
    }
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let mut text = layout::figures(&headers, &rows, width);
    text += &format!(
        "\n\nSpearman's rho times 100; in brackets the 95 % interval of {} resamples of the pairs.",
        layout::thousands(report.resampling.resamples as u64)
    );
    for compared in &report.differences {
        text += &format!(
            "\nThe difference is {} less {}, on the same resamples.",
            compared.model, compared.against
        );
    }
    for m in &report.models {
        let sentences = layout::thousands(m.sentences as u64);
        text +=
            &format!("\n{}: {sentences} distinct sentences in {:.1} s on {}.", m.model, m.seconds, m.device);
    }
    text
}
