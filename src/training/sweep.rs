//! Factors and their values become a run for each combination and seed, and a comparison of the dev scores.
//!
//! The sweep's folder holds a folder for each combination, `report.md` with plots, and `sweep.json`. What a combination
//! came to is written beside its runs, so a sweep started again goes on, also with more values.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{Event, Options, Prepared, Progress, TrainingError, json, make_folder, write};
use crate::finetune::{
    FinetuneError,
    recipe::Recipe,
    run::Ending,
    sweep::{Cell, CellResult, Factor, best, cells, markdown, plots},
};

/// A combination's result, beside its runs.
const RESULT_FILE: &str = "result.json";

/// A sweep. It does nothing until it is prepared and run.
#[derive(Debug, Clone)]
pub struct Sweep {
    options: Options,
    factors: Vec<Factor>,
    cells: Vec<Cell>,
    folder: PathBuf,
}

/// How a sweep ended.
#[derive(Debug)]
pub enum SweepOutcome {
    /// Every combination has a result.
    Finished(SweepReport),
    /// It was asked to stop; the same sweep goes on from there.
    Interrupted,
}

/// The result of a sweep.
#[derive(Debug, Clone, Serialize)]
pub struct SweepReport {
    /// The factors of the sweep and their values.
    pub factors: Vec<Factor>,
    /// One for each combination, the last factor changing fastest.
    pub results: Vec<CellResult>,
    /// Values of the combination with the best mean score, in the factors' order; none if every one fell apart.
    pub best: Option<Vec<String>>,
    /// Of the sweep.
    pub folder: String,
}

impl Sweep {
    /// A sweep that is not started; every combination's recipe is checked.
    ///
    /// # Errors
    /// [`TrainingError::NoDevSet`]; recipe errors for a key or value that a recipe cannot have.
    pub fn new(options: Options, factors: Vec<Factor>, folder: PathBuf) -> Result<Self, TrainingError> {
        if options.recipe.dev.is_none() {
            return Err(TrainingError::NoDevSet);
        }
        let cells = cells(&options.recipe, &factors)?;
        Ok(Sweep { options, factors, cells, folder })
    }

    /// What it was asked; its data is read by [`Options::prepare`].
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Trains with every combination whose result is not known, and compares. `stopped` is asked after each step. A
    /// combination whose training falls apart is a result, too.
    ///
    /// # Errors
    /// As [`run`](crate::finetune::run::run); [`TrainingError::Folder`] and [`TrainingError::Write`].
    pub fn run(
        &self,
        prepared: &Prepared,
        progress: &mut dyn Progress,
        stopped: &(dyn Fn() -> bool + Sync),
    ) -> Result<SweepOutcome, TrainingError> {
        make_folder(&self.folder)?;
        let mut results = Vec::with_capacity(self.cells.len());
        for (n, cell) in self.cells.iter().enumerate() {
            let settings = words(&self.factors, cell);
            let (number, total) = (n + 1, self.cells.len());
            progress.event(Event::Combination { number, total, settings: &settings });
            let folder = self.folder.join(file_name(&settings));
            let result = match known(&folder) {
                Some(result) => result,
                None => match self.combination(cell, &folder, prepared, progress, stopped)? {
                    Some(result) => result,
                    None => return Ok(SweepOutcome::Interrupted),
                },
            };
            results.push(result);
        }
        self.report(results, prepared.examples()).map(SweepOutcome::Finished)
    }

    /// Trains with one combination, a seed after the other. `None` if it was stopped.
    fn combination(
        &self,
        cell: &Cell,
        folder: &Path,
        prepared: &Prepared,
        progress: &mut dyn Progress,
        stopped: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<CellResult>, TrainingError> {
        let mut result = CellResult {
            values: cell.values.clone(),
            before: f64::NAN,
            scores: Vec::new(),
            examples_per_second: 0.0,
            failure: None,
        };
        for &seed in &cell.recipe.seeds {
            let of_seed = folder.join(format!("seed-{seed}"));
            let report = match prepared.train(&cell.recipe, seed, &of_seed, progress, stopped) {
                Ok(report) => report,
                Err(error @ TrainingError::Finetune(FinetuneError::Diverged { .. })) => {
                    result.failure = Some(error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            };
            if report.ending == Ending::Interrupted {
                return Ok(None);
            }
            result.before = report.score_before.unwrap_or(f64::NAN);
            result.scores.extend(report.best);
            result.examples_per_second = report.texts_per_second;
        }
        make_folder(folder)?;
        write(&folder.join(RESULT_FILE), &json(&result)?)?;
        Ok(Some(result))
    }

    fn report(&self, results: Vec<CellResult>, examples: usize) -> Result<SweepReport, TrainingError> {
        let recipe = &self.options.recipe;
        let pictures = plots(&self.factors, &results);
        for (name, svg) in &pictures {
            write(&self.folder.join(name), svg)?;
        }
        let setting = setting(recipe, examples);
        let text = markdown(recipe, &self.factors, &results, &pictures, &setting);
        write(&self.folder.join("report.md"), &text)?;
        let report = SweepReport {
            best: best(&results).map(|r| r.values.clone()),
            factors: self.factors.clone(),
            results,
            folder: self.folder.display().to_string(),
        };
        write(&self.folder.join("sweep.json"), &json(&report)?)?;
        Ok(report)
    }
}

/// The result that lies in a combination's folder, if there is one.
fn known(folder: &Path) -> Option<CellResult> {
    let text = fs::read_to_string(folder.join(RESULT_FILE)).ok()?;
    serde_json::from_str(&text).ok()
}

/// What every combination has in common, as a line of the report.
fn setting(recipe: &Recipe, examples: usize) -> String {
    let steps = recipe.steps.map_or_else(|| format!("{} epochs of", recipe.epochs), |s| s.to_string());
    let batch = recipe.batch;
    format!("{steps} steps at most, batch {batch} unless said otherwise, {examples} examples.\n")
}

fn words(factors: &[Factor], cell: &Cell) -> String {
    let words: Vec<String> =
        factors.iter().zip(&cell.values).map(|(f, v)| format!("{} {v}", f.key)).collect();
    words.join(", ")
}

/// Settings as a folder's name.
fn file_name(settings: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' };
    settings.replace(", ", "_").chars().map(plain).collect()
}
