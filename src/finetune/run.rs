//! A training run consists of batches, steps, evaluations and checkpoints; its results are in one folder.
//!
//! ```text
//! FOLDER/metrics.jsonl     one line for every report: loss, learning rate, gradient norm, speed, dev score
//! FOLDER/checkpoints/      what a run that was stopped goes on from, bit for bit on a device that computes alike
//! FOLDER/best.safetensors  the weights with the best dev score so far, or the last ones where there is no dev set
//! ```
//!
//! Everything that is drawn follows from the seed and the number of the step, so a run that goes on is the run that
//! was not stopped. Left out: making a model of the weights ([`finish`](super::finish)).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    FinetuneError,
    batch::{contrastive_inputs, objective_of, texts, tokens},
    checkpoint::{Best, Checkpoints, RunState},
    data::{Dataset, Kind, sampler::Sampler},
    masks::{Dropout, MaskPlace},
    metrics::{Line, Metrics},
    objective::{Objective, ObjectiveInputs},
    optimizer::{AdamW, AdamWConfig, OptimizerError, ParameterSettings},
    parameters::{Parameter, Parameters},
    recipe::{self, FREE_ON_RESUME, Recipe},
    step::{self, Machine, Outcome, Stepper, Tokens},
};
use crate::{
    encoder::{Encoder, TextKind, Tokenizer},
    eval::sts::StsSet,
    model::ModelDir,
    onnx::training::{self, Adapter, Head, TrainingGraph},
    random::mixed,
};

/// Texts embedded at once in an evaluation.
const EVALUATION_BATCH: usize = 64;
/// Name of the queue among a checkpoint's tensors.
const QUEUE: &str = "queue";
/// Added to a run's seed for draws that must not be those of the masks.
const VIEWS: u64 = 1;
const ORDER: u64 = 2;
const WEIGHTS: u64 = 3;

/// What is trained on which data, and where the result is written.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The settings of the training.
    pub recipe: &'a Recipe,
    /// The model that training begins from.
    pub base: &'a ModelDir,
    /// The model to learn from; only [`recipe::Objective::Distil`] needs it.
    pub teacher: Option<&'a Encoder>,
    /// The training examples, at least one set.
    pub datasets: &'a [Dataset],
    /// Sets whose mean score chooses the best weights; if empty, the last weights are taken.
    pub dev: &'a [StsSet],
    /// Seed of all random draws.
    pub seed: u64,
    /// Folder of the run's checkpoints and metrics.
    pub folder: &'a Path,
    /// Where training runs.
    pub machine: &'a Machine,
}

/// Progress of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// The run continues from a checkpoint.
    Resumed {
        /// Steps that were made before.
        step: u64,
    },
    /// Steps are made; the figures are those since the last report.
    Stepped {
        /// Steps made so far.
        step: u64,
        /// Steps of the whole run.
        total: u64,
        /// Mean loss.
        loss: f64,
        /// Learning rate of the last step.
        rate: f64,
        /// Texts per second.
        texts_per_second: f64,
        /// Expected time until the last step.
        left: Duration,
    },
    /// The dev sets were scored.
    Evaluated {
        /// Steps made so far.
        step: u64,
        /// Mean dev score, 0 to 100.
        score: f64,
        /// Whether it is the best so far.
        best: bool,
    },
    /// A checkpoint was written.
    Saved {
        /// Steps made so far.
        step: u64,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All steps were made.
    Finished,
    /// The dev score had not risen for as many evaluations as the recipe allows.
    NoGain,
    /// It was asked to stop; the same plan continues from here.
    Interrupted,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// Seed of the run.
    pub seed: u64,
    /// How the run ended.
    pub ending: Ending,
    /// Steps made.
    pub steps: u64,
    /// Steps of the whole run.
    pub steps_planned: u64,
    /// The device that training ran on.
    pub device: String,
    /// Dev score of the base, 0 to 100; `None` without dev sets.
    pub score_before: Option<f64>,
    /// Best dev score, 0 to 100; `None` without one.
    pub best: Option<f64>,
    /// Step of the best dev score; `None` without one.
    pub best_step: Option<u64>,
    /// Mean loss since the last report.
    pub loss: f64,
    /// Duration in seconds; time before an interruption does not count.
    pub seconds: f64,
    /// Texts per second.
    pub texts_per_second: f64,
}

/// The settings that a run must go on with.
#[derive(Debug, Serialize)]
struct Settings<'a> {
    recipe: &'a Recipe,
    base: &'a str,
    teacher: Option<&'a str>,
    seed: u64,
    /// Name and number of examples of each data set.
    examples: BTreeMap<&'a str, usize>,
}

/// The path of a run's best weights.
pub fn best_path(folder: &Path) -> PathBuf {
    folder.join("best.safetensors")
}

/// How the encoder of `base` is trained under `recipe`. A student whose vectors are not as long as its teacher's
/// (`teacher` numbers) is compared with it through a linear layer that only training has.
pub fn graph<'a>(recipe: &Recipe, base: &'a ModelDir, teacher: Option<usize>) -> TrainingGraph<'a> {
    let manifest = &base.manifest;
    let pooling = recipe.pooling.unwrap_or(manifest.pooling);
    let width = pooling.dimension(manifest.shape.hidden);
    TrainingGraph {
        architecture: manifest.architecture,
        shape: &manifest.shape,
        pooling,
        hidden_dropout: recipe.dropout.hidden > 0.0,
        attention_dropout: recipe.dropout.attention > 0.0,
        adapter: recipe
            .lora
            .map(|lora| Adapter { rank: lora.rank, scale: (lora.alpha / lora.rank as f64) as f32 }),
        head: match (teacher.filter(|&length| length != width), recipe.head) {
            (Some(width), _) => Some(Head { width, tanh: false }),
            (None, recipe::Head::None) => None,
            (None, recipe::Head::MlpTrain) => Some(Head { width, tanh: true }),
        },
    }
}

/// The encoder's weights, and fresh ones for adapters and head: A normal, B zero (Hu et al. 2021, section 4.1), so that
/// an adapter changes nothing at first; a head as BERT begins.
///
/// # Errors
/// Weights that do not fit their manifest.
pub fn beginning(base: &ModelDir, graph: &TrainingGraph<'_>, seed: u64) -> Result<Parameters, FinetuneError> {
    let mut parameters = Parameters::of_model(base)?;
    for (n, (name, shape)) in graph.parameters().into_iter().enumerate().skip(parameters.list.len()) {
        let zero = name.starts_with("lora_B.");
        let values = Parameters::draw(&shape, zero, mixed(mixed(seed, WEIGHTS), n as u64));
        parameters.list.push(Parameter { name, shape, values });
    }
    Ok(parameters)
}

/// Trains until the plan is done, nothing is gained any more, or `cancelled` says so (asked after each step).
///
/// Continues from the newest checkpoint in the folder, if there is one.
///
/// # Errors
/// [`FinetuneError::Diverged`] when loss or gradients are no numbers any more: checkpoints and best weights stay;
/// resuming with other settings; data, runtime and disk errors.
pub fn run(
    plan: &Plan<'_>,
    tell: &mut dyn FnMut(Event),
    cancelled: &dyn Fn() -> bool,
) -> Result<RunReport, FinetuneError> {
    let mut run = Run::begin(plan, tell)?;
    let begun = Instant::now();
    let first = run.state.step;
    if run.state.step == 0 && !plan.dev.is_empty() {
        let score = run.score()?;
        run.state.sums.insert("score_before".into(), score);
        run.metrics.write(&Line { step: 0, score: Some(score), ..Line::default() })?;
        tell(Event::Evaluated { step: 0, score, best: false });
    }
    let mut ending = Ending::Finished;
    while run.state.step < run.total {
        run.step()?;
        let step = run.state.step;
        let last = step == run.total;
        if step.is_multiple_of(plan.recipe.log_every) || last {
            run.report(tell)?;
        }
        let evaluate = plan.recipe.evaluate_every;
        if last || (evaluate > 0 && step.is_multiple_of(evaluate)) {
            run.evaluate(tell)?;
            if plan.recipe.patience > 0 && run.state.without_gain >= plan.recipe.patience {
                ending = Ending::NoGain;
            }
        }
        let interrupted = !last && cancelled();
        if interrupted {
            ending = Ending::Interrupted;
        }
        let stops = ending != Ending::Finished;
        if step.is_multiple_of(plan.recipe.checkpoint_every) || last || stops {
            run.save()?;
            tell(Event::Saved { step });
        }
        if stops {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let made = (run.state.step - first) as f64 * (plan.recipe.batch * plan.recipe.accumulate) as f64;
    Ok(RunReport {
        seed: plan.seed,
        ending,
        steps: run.state.step,
        steps_planned: run.total,
        device: run.device(),
        score_before: run.state.sums.get("score_before").copied(),
        best: run.state.best.map(|best| best.score),
        best_step: run.state.best.map(|best| best.step),
        loss: run.last_loss,
        seconds,
        texts_per_second: made / seconds.max(1e-9),
    })
}

/// Whether this plan may go on with what its folder holds, so that it can be said before anything is written.
///
/// # Errors
/// Those of [`Checkpoints::check`].
pub fn check(plan: &Plan<'_>) -> Result<(), FinetuneError> {
    let free = free_settings();
    Ok(checkpoints(plan).check(&settings_of(plan), &free.each_ref().map(String::as_str))?)
}

fn checkpoints(plan: &Plan<'_>) -> Checkpoints {
    Checkpoints::new(&plan.folder.join("checkpoints"))
}

struct Run<'a> {
    plan: &'a Plan<'a>,
    total: u64,
    tokenizer: Tokenizer,
    sampler: Sampler,
    /// One for each objective that the data sets need.
    steppers: Vec<(Objective, Stepper<'a>)>,
    parameters: Parameters,
    optimizer: AdamW,
    dropout: [Dropout; 2],
    checkpoints: Checkpoints,
    metrics: Metrics,
    state: RunState,
    /// The teacher's embeddings of earlier texts, oldest first; row-major.
    queue: Vec<f32>,
    since: Instant,
    texts: u64,
    last_loss: f64,
}

impl<'a> Run<'a> {
    fn begin(plan: &'a Plan<'a>, tell: &mut dyn FnMut(Event)) -> Result<Self, FinetuneError> {
        let Plan { recipe, base, seed, .. } = *plan;
        let graph = graph(recipe, base, plan.teacher.map(|teacher| teacher.dim().len()));
        let mut parameters = beginning(base, &graph, seed)?;
        let adapted = recipe.lora.is_some();
        let settings: Vec<ParameterSettings> = parameters
            .list
            .iter()
            .map(|p| {
                let usual = ParameterSettings::usual(p);
                let apart = adapted && !training::is_adapter(&p.name) && !training::is_head(&p.name);
                ParameterSettings { frozen: usual.frozen || apart || !graph.is_seen(&p.name), ..usual }
            })
            .collect();
        let trained: Vec<bool> = settings.iter().map(|s| !s.frozen).collect();
        let mut steppers: Vec<(Objective, Stepper<'a>)> = Vec::new();
        for set in plan.datasets {
            let objective = objective_of(recipe, set.kind);
            if steppers.iter().all(|(known, _)| *known != objective) {
                let stepper =
                    Stepper::new(plan.machine.clone(), graph.clone(), objective.clone(), trained.clone());
                steppers.push((objective, stepper));
            }
        }
        let config = AdamWConfig { betas: recipe.betas, eps: recipe.eps, weight_decay: recipe.weight_decay };
        let mut optimizer = AdamW::new(&parameters, config, settings.clone())?;
        let mut sampler = Sampler::new(plan.datasets, recipe.batch, mixed(seed, ORDER))?;
        let total = recipe.steps.unwrap_or_else(|| {
            let batches = sampler.steps(1) as f64 * recipe.epochs;
            ((batches / recipe.accumulate as f64) as u64).max(1)
        });

        let checkpoints = checkpoints(plan);
        let free = free_settings();
        let (mut state, mut queue) = (RunState { seed, ..RunState::default() }, Vec::new());
        if let Some(saved) = checkpoints.load(&settings_of(plan), &free.each_ref().map(String::as_str))? {
            tell(Event::Resumed { step: saved.state.step });
            optimizer = AdamW::resume(&saved.parameters, config, settings, saved.optimizer)?;
            parameters = saved.parameters;
            state = saved.state;
            queue = saved.extra.find(QUEUE).map(|q| q.values.clone()).unwrap_or_default();
        }
        let metrics = Metrics::open(plan.folder, state.step)?;
        Ok(Run {
            plan,
            total,
            tokenizer: Tokenizer::open(
                &base.tokenizer_path(),
                recipe.max_tokens.min(base.manifest.max_tokens),
            )?,
            sampler,
            steppers,
            parameters,
            optimizer,
            dropout: [
                Dropout::new(seed, recipe.dropout.hidden)?,
                Dropout::new(seed, recipe.dropout.attention)?,
            ],
            checkpoints,
            metrics,
            state,
            queue,
            since: Instant::now(),
            texts: 0,
            last_loss: f64::NAN,
        })
    }

    /// One step of the optimizer, over as many batches as the recipe accumulates.
    fn step(&mut self) -> Result<(), FinetuneError> {
        let recipe = self.plan.recipe;
        let number = self.state.step;
        let (mut loss, mut sum): (f64, Option<Vec<Option<step::TensorGradient>>>) = (0.0, None);
        for part in 0..recipe.accumulate as u64 {
            let outcome = self.batch(number * recipe.accumulate as u64 + part)?;
            loss += f64::from(outcome.loss) / recipe.accumulate as f64;
            match &mut sum {
                None => sum = Some(outcome.gradients),
                Some(sum) => step::add(sum, outcome.gradients),
            }
        }
        let mut gradients = sum.expect("a step has at least one batch");
        if recipe.accumulate > 1 {
            step::scale(&mut gradients, 1.0 / recipe.accumulate as f32);
        }
        let diverged = |what: String| FinetuneError::Diverged {
            step: number + 1,
            what,
            folder: self.plan.folder.to_owned(),
        };
        if !loss.is_finite() {
            return Err(diverged(format!("the loss is {loss}")));
        }
        let rate = self.rate(number);
        let clip = (recipe.clip > 0.0).then_some(recipe.clip);
        let views = step::views(&gradients);
        let report = match self.optimizer.step(&mut self.parameters, &views, rate, clip) {
            Ok(report) => report,
            Err(error @ OptimizerError::NotFinite { .. }) => return Err(diverged(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        self.state.step += 1;
        self.texts += (recipe.batch * recipe.accumulate) as u64;
        for (name, value) in [("loss", loss), ("norm", report.gradient_norm), ("steps", 1.0)] {
            *self.state.sums.entry(name.into()).or_insert(0.0) += value;
        }
        Ok(())
    }

    fn rate(&self, step: u64) -> f64 {
        self.plan.recipe.learning_rate * self.plan.recipe.schedule().share(step, self.total)
    }

    /// Loss and gradients of one batch.
    fn batch(&mut self, number: u64) -> Result<Outcome, FinetuneError> {
        let recipe = self.plan.recipe;
        let batch = self.sampler.batch(number);
        let set = &self.plan.datasets[batch.dataset];
        let objective = objective_of(recipe, set.kind);
        let texts = texts(set, &batch.examples, &objective);
        let two_views = set.kind == Kind::Texts && objective.groups() == 2;
        let seed = mixed(mixed(self.plan.seed, VIEWS), number);
        let tokens = tokens(&self.tokenizer, &texts, two_views, recipe, seed)?;
        let inputs = match objective {
            Objective::Contrastive { .. } => contrastive_inputs(&texts, &objective),
            Objective::Distil { .. } => self.teach(&texts)?,
        };
        let [hidden, attention] = self.dropout;
        let fill = |at: step::MaskRequest, mask: &mut [f32]| {
            let place = MaskPlace { step: number, micro_batch: at.micro_batch as u32, mask: at.index as u32 };
            if at.attention { attention.fill(place, mask) } else { hidden.fill(place, mask) }
        };
        let (_, stepper) = self
            .steppers
            .iter_mut()
            .find(|(known, _)| *known == objective)
            .expect("there is a stepper for every data set's objective");
        let micro = recipe.micro_batch * objective.groups();
        match micro > 0 && micro < tokens.rows {
            true => stepper.run_cached(&self.parameters, &tokens, &inputs, micro, &fill),
            false => stepper.run(&self.parameters, &tokens, &inputs, &fill),
        }
    }

    /// The teacher's embeddings of a batch, in front of the queue that they then join.
    fn teach(&mut self, texts: &[&str]) -> Result<ObjectiveInputs, FinetuneError> {
        let teacher = self.plan.teacher.expect("a recipe with this objective has a teacher");
        let mut fresh = Vec::with_capacity(texts.len() * teacher.dim().len());
        for mut embedding in teacher.encode(texts, TextKind::Raw)? {
            let length = embedding.values.iter().map(|v| v * v).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
            embedding.values.iter_mut().for_each(|v| *v /= length);
            fresh.extend(embedding.values);
        }
        let dimension = teacher.dim().len();
        let all: Vec<f32> = fresh.iter().chain(&self.queue).copied().collect();
        let inputs = ObjectiveInputs::distil(fresh, all.clone(), dimension);
        self.queue = all;
        self.queue.truncate(self.plan.recipe.queue * dimension);
        Ok(inputs)
    }

    /// Mean Spearman correlation on the dev sets, times 100, with every row of the weights level.
    fn score(&mut self) -> Result<f64, FinetuneError> {
        self.optimizer.flush(&mut self.parameters);
        let Run { steppers, tokenizer, parameters, plan, .. } = self;
        let stepper = &mut steppers[0].1;
        let mut embed = |texts: &[&str]| -> Result<Vec<Vec<f32>>, FinetuneError> {
            let mut vectors = Vec::with_capacity(texts.len());
            for some in texts.chunks(EVALUATION_BATCH) {
                let ids: Result<Vec<Vec<u32>>, _> =
                    some.iter().map(|text| tokenizer.encode(text).map(|t| t.ids)).collect();
                let tokens = Tokens::padded(&ids?);
                let flat = stepper.embed(parameters, &tokens)?;
                let dimension = flat.len() / some.len();
                vectors.extend(flat.chunks(dimension).map(<[f32]>::to_vec));
            }
            Ok(vectors)
        };
        let mut sum = 0.0;
        for set in plan.dev {
            sum += 100.0 * set.score(&mut embed)?;
        }
        Ok(sum / plan.dev.len() as f64)
    }

    /// Keeps the weights if they are the best so far; without a dev set the last are.
    fn evaluate(&mut self, tell: &mut dyn FnMut(Event)) -> Result<(), FinetuneError> {
        let step = self.state.step;
        if self.plan.dev.is_empty() {
            self.optimizer.flush(&mut self.parameters);
            return self.keep();
        }
        let score = self.score()?;
        let best = self.state.best.is_none_or(|before| score > before.score);
        if best {
            self.state.best = Some(Best { score, step });
            self.state.without_gain = 0;
            self.keep()?;
        } else {
            self.state.without_gain += 1;
        }
        self.metrics.write(&Line { step, score: Some(score), ..Line::default() })?;
        tell(Event::Evaluated { step, score, best });
        Ok(())
    }

    fn keep(&self) -> Result<(), FinetuneError> {
        self.parameters.save(&best_path(self.plan.folder))
    }

    fn report(&mut self, tell: &mut dyn FnMut(Event)) -> Result<(), FinetuneError> {
        let step = self.state.step;
        let mut take = |name: &str| self.state.sums.remove(name).unwrap_or(0.0);
        let (steps, loss, norm) = (take("steps").max(1.0), take("loss"), take("norm"));
        let texts_per_second = self.texts as f64 / self.since.elapsed().as_secs_f64().max(1e-9);
        let pace = self.since.elapsed() / u32::try_from(steps as u64).unwrap_or(u32::MAX).max(1);
        let left = pace * u32::try_from(self.total - step).unwrap_or(u32::MAX);
        self.since = Instant::now();
        self.texts = 0;
        let (loss, rate) = (loss / steps, self.rate(step - 1));
        self.last_loss = loss;
        self.metrics.write(&Line {
            step,
            loss: Some(loss),
            learning_rate: Some(rate),
            gradient_norm: Some(norm / steps),
            texts_per_second: Some(texts_per_second),
            score: None,
        })?;
        tell(Event::Stepped { step, total: self.total, loss, rate, texts_per_second, left });
        Ok(())
    }

    fn save(&mut self) -> Result<(), FinetuneError> {
        let dimension = self.plan.teacher.map_or(1, |teacher| teacher.dim().len());
        let queue = Parameter {
            name: QUEUE.to_owned(),
            shape: vec![self.queue.len() / dimension, dimension],
            values: self.queue.clone(),
        };
        let extra = Parameters { list: if self.queue.is_empty() { Vec::new() } else { vec![queue] } };
        let settings = settings_of(self.plan);
        let state = &self.state;
        self.checkpoints.save(&settings, state, &self.parameters, self.optimizer.state(), &extra)?;
        Ok(())
    }

    fn device(&self) -> String {
        let device = self.steppers.iter().find_map(|(_, stepper)| stepper.device());
        device.map(|d| d.device.clone()).unwrap_or_default()
    }
}

/// [`FREE_ON_RESUME`] as keys of [`Settings`].
fn free_settings() -> [String; FREE_ON_RESUME.len()] {
    FREE_ON_RESUME.map(|key| format!("recipe.{key}"))
}

fn settings_of<'a>(plan: &Plan<'a>) -> Settings<'a> {
    Settings {
        recipe: plan.recipe,
        base: &plan.base.fingerprint.0,
        teacher: plan.teacher.map(|teacher| teacher.fingerprint().0.as_str()),
        seed: plan.seed,
        examples: plan.datasets.iter().map(|set| (set.name.as_str(), set.examples.len())).collect(),
    }
}

#[cfg(test)]
mod tests;
