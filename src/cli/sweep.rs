//! `distilface sweep`: the paper's experiments, or any others, as one command.

use std::{fs, path::PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::{
    App,
    failure::{Stop, usage},
    finetune::{TrainingArgs, prepare, train},
    layout,
};
use crate::finetune::{
    FinetuneError,
    run::Ending,
    sweep::{Cell, CellResult, Factor, best, cells, markdown, plots, rows},
};

/// Train with every combination of some settings, and compare
///
/// The paper's questions: --over pooling=cls,mean,max --over temperature=0.01,0.05,0.1 --over batch=32,64,128,256
/// --over dropout=0,0.1,0.2 --over learning_rate=1e-5,3e-5,1e-4
#[derive(Debug, clap::Args)]
pub struct SweepArgs {
    #[command(flatten)]
    training: TrainingArgs,
    /// A setting of the recipe and its values; may be given several times
    #[arg(long = "over", value_name = "KEY=VALUE,VALUE", required = true)]
    over: Vec<Factor>,
    /// Folder of the sweep's runs, table, plots and report; given again, it goes on
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    out: PathBuf,
}

#[derive(Debug, Serialize)]
struct Report {
    factors: Vec<Factor>,
    results: Vec<CellResult>,
    best: Option<Vec<String>>,
    folder: String,
}

/// A combination's result, beside its runs.
const RESULT_FILE: &str = "result.json";

pub fn run(app: &App, args: &SweepArgs) -> anyhow::Result<()> {
    let recipe = args.training.recipe()?;
    if recipe.dev.is_none() {
        return Err(usage(
            "a sweep compares dev scores: give --dev an STS file, or a folder with stsb-dev.tsv",
        ));
    }
    let failed = |e: crate::finetune::recipe::RecipeError| crate::Error::from(FinetuneError::from(e));
    let cells = cells(&recipe, &args.over).map_err(failed)?;
    let prepared = prepare(app, &recipe, &args.training.held_out)?;
    fs::create_dir_all(&args.out).with_context(|| format!("making the folder {}", args.out.display()))?;
    let mut results = Vec::with_capacity(cells.len());
    for (n, cell) in cells.iter().enumerate() {
        let folder = args.out.join(file_name(&args.over, cell));
        app.out.note(&format!("{} of {}: {}", n + 1, cells.len(), words(&args.over, cell)));
        let known = fs::read_to_string(folder.join(RESULT_FILE)).ok();
        if let Some(result) = known.and_then(|text| serde_json::from_str::<CellResult>(&text).ok()) {
            results.push(result);
            continue;
        }
        let mut result = CellResult {
            values: cell.values.clone(),
            before: f64::NAN,
            scores: Vec::new(),
            examples_per_second: 0.0,
            failure: None,
        };
        for &seed in &cell.recipe.seeds {
            let report = match train(app, &prepared, &cell.recipe, seed, &folder.join(format!("seed-{seed}")))
            {
                Ok(report) => report,
                Err(error) if is_divergence(&error) => {
                    result.failure = Some(error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            };
            if report.ending == Ending::Interrupted {
                app.out.warn("interrupted; the same command goes on from there");
                return Err(Stop::Interrupted.into());
            }
            result.before = report.score_before.unwrap_or(f64::NAN);
            result.scores.extend(report.best);
            result.examples_per_second = report.texts_per_second;
        }
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(RESULT_FILE), serde_json::to_string_pretty(&result)?)
            .with_context(|| format!("writing into {}", folder.display()))?;
        results.push(result);
    }
    let pictures = plots(&args.over, &results);
    for (name, svg) in &pictures {
        fs::write(args.out.join(name), svg).with_context(|| format!("writing {name}"))?;
    }
    let setting = format!(
        "{} steps at most, batch {} unless said otherwise, {} examples.\n",
        recipe.steps.map_or_else(|| format!("{} epochs of", recipe.epochs), |s| s.to_string()),
        recipe.batch,
        prepared.loaded.datasets.iter().map(|d| d.examples.len()).sum::<usize>(),
    );
    let text = markdown(&recipe, &args.over, &results, &pictures, &setting);
    fs::write(args.out.join("report.md"), text).context("writing report.md")?;
    let report = Report {
        best: best(&results).map(|r| r.values.clone()),
        factors: args.over.clone(),
        results,
        folder: args.out.display().to_string(),
    };
    fs::write(args.out.join("sweep.json"), serde_json::to_string_pretty(&report)?)
        .context("writing sweep.json")?;
    app.out.result(&report, |report| {
        let (headers, rows) = rows(&report.factors, &report.results);
        let headers: Vec<String> = headers
            .into_iter()
            .enumerate()
            .map(|(n, h)| if n < report.factors.len() { h } else { format!("#{h}") })
            .collect();
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        format!(
            "{}\n\nreport.md and plots in {}",
            layout::table(&headers, &rows, app.out.width()),
            report.folder
        )
    })
}

fn is_divergence(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<crate::Error>(),
        Some(crate::Error::Finetune(FinetuneError::Diverged { .. }))
    )
}

fn words(factors: &[Factor], cell: &Cell) -> String {
    let words: Vec<String> =
        factors.iter().zip(&cell.values).map(|(f, v)| format!("{} {v}", f.key)).collect();
    words.join(", ")
}

/// Settings as a folder's name.
fn file_name(factors: &[Factor], cell: &Cell) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' };
    words(factors, cell).replace(", ", "_").chars().map(plain).collect()
}
