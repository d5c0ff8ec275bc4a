//! One recipe becomes a model: a run for each seed, the best of them chosen, and its weights made a model directory.
//!
//! The job's folder holds all that was asked and measured: `run.toml` (the recipe with every setting), `data.json`,
//! `metrics.jsonl`, plots, checkpoints, `report.json`; of several seeds each has a folder of its own in it. A job
//! started again with the same settings goes on where it stopped.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Options, Prepared, Progress, TrainingError, json, make_folder, write};
use crate::{
    finetune::{
        finish::{Finish, finish},
        metrics,
        recipe::Recipe,
        run::{self, Ending, RunReport},
    },
    model::{FileSum, ModelDir},
};

/// Folder of the runs under the home folder.
const RUNS_FOLDER: &str = "runs";
const RECIPE_FILE: &str = "run.toml";
const DATA_FILE: &str = "data.json";
const REPORT_FILE: &str = "report.json";

/// Where a job's results go.
#[derive(Debug, Clone, Default)]
pub struct NewModel {
    /// Name of the new model. Default: the base's with the recipe's behind it.
    pub name: Option<String>,
    /// Folder of the job. Default: `runs/NAME` under the home folder.
    pub folder: Option<PathBuf>,
    /// Replace a model of this name. Default: no.
    pub force: bool,
}

/// A training job. It does nothing until it is prepared and run, and it can be asked for its names before.
#[derive(Debug, Clone)]
pub struct Job {
    options: Options,
    name: String,
    folder: PathBuf,
    force: bool,
}

/// How a job ended.
#[derive(Debug)]
pub enum Outcome {
    /// The model is made.
    Finished(Box<Report>),
    /// It was asked to stop; the same job goes on from there.
    Interrupted {
        /// Steps made by the run that was stopped.
        steps: u64,
        /// Of so many.
        steps_planned: u64,
    },
}

/// The result of a job.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Name of the new model.
    pub model: String,
    /// Of the new model, as collections record it.
    pub fingerprint: String,
    /// Where the new model lies.
    pub path: String,
    /// The job's folder.
    #[serde(rename = "run")]
    pub folder: String,
    /// As it was trained, with every setting.
    pub recipe: Recipe,
    /// One for each seed, in the recipe's order.
    pub runs: Vec<RunReport>,
    /// Which of the runs became the model: the one with the best dev score, or the first.
    #[serde(skip)]
    pub chosen: usize,
}

impl Job {
    /// A job that is not started.
    pub fn new(options: Options, to: NewModel) -> Self {
        let name = to.name.unwrap_or_else(|| default_name(&options.recipe.base, &options.recipe_name));
        let folder = to.folder.unwrap_or_else(|| options.home.join(RUNS_FOLDER).join(&name));
        Job { options, name, folder, force: to.force }
    }

    /// The job's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Checks that the new model's name can be had. Cheap: say it before the data is read.
    ///
    /// # Errors
    /// Model errors: a name that is taken, and is not to be replaced, or that is none.
    pub fn check_name(&self) -> Result<(), TrainingError> {
        Ok(ModelDir::check_new(&self.options.home, &self.name, self.force)?)
    }

    /// What it was asked; its data is read by [`Options::prepare`].
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Trains, a seed after the other, and makes the model. `stopped` is asked after each step.
    ///
    /// # Errors
    /// As [`run::run`] and [`finish`]; [`TrainingError::Folder`] and [`TrainingError::Write`]. A folder that holds a run
    /// with other settings is refused, and stays as it is.
    pub fn run(
        &self,
        prepared: &Prepared,
        progress: &mut dyn Progress,
        stopped: &(dyn Fn() -> bool + Sync),
    ) -> Result<Outcome, TrainingError> {
        let seeds = &self.options.recipe.seeds;
        for &seed in seeds {
            run::check(&prepared.plan(&self.of_seed(seed), seed, &self.folder_of(seed)))?;
        }
        make_folder(&self.folder)?;
        write(&self.folder.join(RECIPE_FILE), &toml::to_string(&self.options.recipe)?)?;
        write(&self.folder.join(DATA_FILE), &json(prepared.data())?)?;

        let mut runs = Vec::with_capacity(seeds.len());
        for &seed in seeds {
            let report =
                prepared.train(&self.of_seed(seed), seed, &self.folder_of(seed), progress, stopped)?;
            if report.ending == Ending::Interrupted {
                self.draw(runs.len() + 1)?;
                let RunReport { steps, steps_planned, .. } = report;
                return Ok(Outcome::Interrupted { steps, steps_planned });
            }
            runs.push(report);
        }
        self.draw(runs.len())?;
        self.finish(prepared, runs).map(|report| Outcome::Finished(Box::new(report)))
    }

    /// The recipe with one seed.
    fn of_seed(&self, seed: u64) -> Recipe {
        Recipe { seeds: vec![seed], ..self.options.recipe.clone() }
    }

    /// Where the run of one seed lies.
    fn folder_of(&self, seed: u64) -> PathBuf {
        match self.options.recipe.seeds.len() {
            1 => self.folder.clone(),
            _ => self.folder.join(format!("seed-{seed}")),
        }
    }

    /// Draws the curves of the first `runs` seeds.
    fn draw(&self, runs: usize) -> Result<(), TrainingError> {
        let mut curves = Vec::with_capacity(runs);
        for &seed in self.options.recipe.seeds.iter().take(runs) {
            curves.push((format!("seed {seed}"), metrics::read(&self.folder_of(seed))?));
        }
        Ok(metrics::draw(&self.folder, &curves)?)
    }

    fn finish(&self, prepared: &Prepared, runs: Vec<RunReport>) -> Result<Report, TrainingError> {
        let chosen = best(&runs);
        let model = finish(&Finish {
            home: &self.options.home,
            name: &self.name,
            force: self.force,
            recipe: &self.options.recipe,
            base: &prepared.base,
            folder: &self.folder_of(runs[chosen].seed),
            report: &runs[chosen],
            lineage: lineage(&self.options, prepared)?,
        })?;
        let report = Report {
            model: self.name.clone(),
            fingerprint: model.fingerprint.0.clone(),
            path: model.path.display().to_string(),
            folder: self.folder.display().to_string(),
            recipe: self.options.recipe.clone(),
            runs,
            chosen,
        };
        write(&self.folder.join(REPORT_FILE), &json(&report)?)?;
        Ok(report)
    }
}

/// The run with the best dev score, or the first.
fn best(runs: &[RunReport]) -> usize {
    let score = |n: usize| runs[n].best.unwrap_or(f64::MIN);
    (1..runs.len()).fold(0, |best, n| if score(n) > score(best) { n } else { best })
}

fn default_name(base: &str, recipe: &str) -> String {
    let last = |path: &str| Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    format!("{}-{}", last(base), last(recipe))
}

/// What the new model's manifest says of data and settings.
fn lineage(options: &Options, prepared: &Prepared) -> Result<Vec<String>, TrainingError> {
    let Options { recipe, recipe_name: name, .. } = options;
    let sum = FileSum::of_bytes(toml::to_string(recipe)?.as_bytes());
    let mut lines = vec![format!(
        "recipe {name} (sha256 {}): {:?}, temperature {}, batch {}, learning rate {}, {} tokens",
        sum.sha256,
        recipe.objective,
        recipe.temperature,
        recipe.batch,
        recipe.learning_rate,
        // As many as the model reads.
        recipe.max_tokens.min(prepared.base.manifest.max_tokens)
    )];
    if let Some(teacher) = &prepared.teacher {
        lines.push(format!("teacher {} {}", teacher.name(), teacher.fingerprint().0));
    }
    for source in &prepared.data().sources {
        let files: Vec<String> = source.files.iter().map(|f| format!("sha256 {}", f.sha256)).collect();
        let licence = source.licence.as_ref().map(|l| format!("; {l}")).unwrap_or_default();
        lines.push(format!(
            "data {}: {} examples{licence}{}{}",
            source.name,
            source.kept,
            if files.is_empty() { "" } else { "; " },
            files.join(", ")
        ));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_dev_score_is_chosen_and_of_equals_the_first() {
        let run = |best| RunReport {
            seed: 0,
            ending: Ending::Finished,
            steps: 1,
            steps_planned: 1,
            device: String::new(),
            score_before: None,
            best,
            best_step: None,
            loss: 0.0,
            seconds: 0.0,
            texts_per_second: 0.0,
        };
        for (scores, chosen) in [
            (vec![None], 0),
            (vec![None, None], 0),
            (vec![Some(70.0), Some(71.0), Some(69.0)], 1),
            (vec![Some(70.0), Some(70.0)], 0),
        ] {
            assert_eq!(best(&scores.iter().copied().map(run).collect::<Vec<_>>()), chosen, "{scores:?}");
        }
    }

    #[test]
    fn a_model_is_called_after_its_base_and_recipe() {
        assert_eq!(default_name("models/minilm-l6", "recipes/mine.toml"), "minilm-l6-mine");
        assert_eq!(default_name("minilm-l6", "domain"), "minilm-l6-domain");
    }
}
