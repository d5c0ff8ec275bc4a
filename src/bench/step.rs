//! Sentences/s and memory of a training step, beside PyTorch in the same run.

use std::{path::PathBuf, process::Command, time::Instant};

use serde::Serialize;
use serde_json::Value as Json;

use super::{BenchError, Note, Result};
use crate::{
    config::Config,
    finetune::{
        FinetuneError,
        masks::{Dropout, MaskPlace},
        objective::{Objective, ObjectiveInputs},
        optimizer::{AdamW, AdamWConfig, ParameterSettings},
        parameters::Parameters,
        step::{Machine, Stepper, Tokens},
    },
    model::{Architecture, Pooling, Shape},
    onnx::training::TrainingGraph,
    random::SplitMix,
};

/// The values of the paper's recipe.
const TEMPERATURE: f32 = 0.05;
const DROPOUT: f64 = 0.1;
const RATE: f64 = 3e-5;
const CLIP: f64 = 1.0;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Asked {
    pub shape: StepShape,
    /// Sentences of a batch, each seen twice, 2 or more.
    pub sentences: usize,
    /// Tokens of a sentence, 1 to 512.
    pub tokens: usize,
    /// Steps of a round, after one that is not counted, 1 or more.
    pub steps: usize,
    /// How often each side runs, in turn, 1 or more.
    pub rounds: usize,
    /// Default: as many as there are cores.
    pub threads: Option<usize>,
    /// Whether the optimizer's step is part of it.
    pub optimizer: bool,
    /// A Python that has PyTorch and transformers, and the program that runs them. Default: no peer.
    pub peer: Option<(PathBuf, PathBuf)>,
    /// The peer's arithmetic: `fp32` or `bf16`.
    pub peer_precision: String,
}

/// Shape of the encoder; its weights are random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepShape {
    /// BERT of 6 layers, 384 wide, 12 heads
    Minilm,
    /// DistilBERT of 6 layers, 768 wide, 12 heads
    Distilbert,
}

impl StepShape {
    fn encoder(self) -> (Architecture, Shape) {
        let (architecture, hidden, type_vocabulary) = match self {
            StepShape::Minilm => (Architecture::Bert, 384, 2),
            StepShape::Distilbert => (Architecture::Distilbert, 768, 0),
        };
        let shape = Shape {
            layers: 6,
            hidden,
            heads: 12,
            intermediate: 4 * hidden,
            vocabulary: 30_522,
            positions: 512,
            type_vocabulary,
            layer_norm_eps: 1e-12,
        };
        (architecture, shape)
    }

    fn name(self) -> &'static str {
        match self {
            StepShape::Minilm => "minilm",
            StepShape::Distilbert => "distilbert",
        }
    }
}

/// One side's figures.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    pub name: String,
    pub median_seconds: f64,
    pub sentences_per_second: f64,
    /// Largest resident memory of its process.
    pub peak_mib: f64,
}

/// Ours, and a peer's where one was asked for.
#[derive(Debug, Serialize)]
pub struct StepReport {
    pub shape: &'static str,
    pub sentences: usize,
    pub tokens: usize,
    pub threads: usize,
    pub optimizer: bool,
    pub ours: Side,
    pub peer: Option<Side>,
    /// Ours over the peer's; above 1 is better.
    pub speed_ratio: Option<f64>,
    /// Ours over the peer's; below 1 is better.
    pub memory_ratio: Option<f64>,
}

/// Runs steps of ours and of the peer in turn.
///
/// # Errors
/// [`BenchError::Peer`]; runtime and finetune errors.
pub fn measure(config: &Config, asked: &Asked, note: Note<'_>) -> Result<StepReport> {
    let threads = asked
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let (mut ours, mut theirs, mut peer_peak) = (Vec::new(), Vec::new(), 0f64);
    let mut bench = Bench::new(config, asked, threads)?;
    for round in 0..asked.rounds {
        note(&format!("round {} of {}", round + 1, asked.rounds));
        ours.extend(bench.round(asked.steps)?);
        if let Some(program) = &asked.peer {
            let answer = peer(program, asked, threads)?;
            let seconds = answer["seconds"].as_array();
            theirs.extend(seconds.into_iter().flatten().filter_map(Json::as_f64));
            peer_peak = peer_peak.max(answer["peak_memory_mib"].as_f64().unwrap_or(0.0));
        }
    }
    let side = |name: String, mut seconds: Vec<f64>, peak_mib: f64| {
        seconds.sort_by(f64::total_cmp);
        let median_seconds = seconds[seconds.len() / 2];
        Side { name, median_seconds, sentences_per_second: asked.sentences as f64 / median_seconds, peak_mib }
    };
    let ours = side(format!("distilface, {}", bench.device), ours, peak_mib());
    let peer =
        (!theirs.is_empty()).then(|| side(format!("PyTorch {}", asked.peer_precision), theirs, peer_peak));
    Ok(StepReport {
        shape: asked.shape.name(),
        sentences: asked.sentences,
        tokens: asked.tokens,
        threads,
        optimizer: asked.optimizer,
        speed_ratio: peer.as_ref().map(|p| p.median_seconds / ours.median_seconds),
        memory_ratio: peer.as_ref().map(|p| ours.peak_mib / p.peak_mib),
        ours,
        peer,
    })
}

struct Bench<'a> {
    stepper: Stepper<'a>,
    parameters: Parameters,
    optimizer: Option<AdamW>,
    tokens: Tokens,
    inputs: ObjectiveInputs,
    dropout: Dropout,
    step: u64,
    device: String,
}

impl Bench<'_> {
    fn new(config: &Config, asked: &Asked, threads: usize) -> Result<Self> {
        let (architecture, shape) = asked.shape.encoder();
        // Lives as long as the process, like the graphs that are written for it.
        let shape: &'static Shape = Box::leak(Box::new(shape));
        let spec = TrainingGraph {
            architecture,
            shape,
            pooling: Pooling::Mean,
            hidden_dropout: true,
            attention_dropout: true,
            adapter: None,
            head: None,
        };
        let parameters = Parameters::random(architecture, shape, 7);
        let settings: Vec<ParameterSettings> = parameters.list.iter().map(ParameterSettings::usual).collect();
        let trained = settings.iter().map(|s| !s.frozen).collect();
        let objective = Objective::Contrastive {
            groups: 2,
            symmetric: false,
            temperature: TEMPERATURE,
            matryoshka: Vec::new(),
        };
        let device = config.encoder.device.parse().map_err(FinetuneError::from)?;
        let machine = Machine { home: config.data.home.clone(), device, threads };
        let optimizer = match asked.optimizer {
            true => {
                Some(AdamW::new(&parameters, AdamWConfig::default(), settings).map_err(FinetuneError::from)?)
            }
            false => None,
        };
        let rows = 2 * asked.sentences;
        let mut random = SplitMix(11);
        let ids = (0..rows * asked.tokens).map(|_| 1000 + random.below(29_000) as i64).collect();
        let tokens = Tokens { rows, width: asked.tokens, ids, mask: vec![1; rows * asked.tokens] };
        let inputs = ObjectiveInputs::contrastive(asked.sentences, 2, false, |_, _| false, |_, _| false);
        let stepper = Stepper::new(machine, spec, objective, trained);
        let dropout = Dropout::new(3, DROPOUT).map_err(FinetuneError::from)?;
        let mut bench =
            Bench { stepper, parameters, optimizer, tokens, inputs, dropout, step: 0, device: String::new() };
        // Opens the graph and fills the runtime's arena.
        bench.round(1)?;
        bench.device = bench.stepper.device().map(|d| d.device.clone()).unwrap_or_default();
        Ok(bench)
    }

    /// Seconds of each step.
    fn round(&mut self, steps: usize) -> Result<Vec<f64>> {
        let mut seconds = Vec::with_capacity(steps);
        for _ in 0..steps {
            let begun = Instant::now();
            let (dropout, step) = (&self.dropout, self.step);
            let outcome = self.stepper.run(&self.parameters, &self.tokens, &self.inputs, &|at, mask| {
                let place = MaskPlace { step, micro_batch: at.micro_batch as u32, mask: at.index as u32 };
                dropout.fill(place, mask);
            })?;
            if let Some(optimizer) = &mut self.optimizer {
                optimizer
                    .step(&mut self.parameters, &outcome.views(), RATE, Some(CLIP))
                    .map_err(FinetuneError::from)?;
            }
            self.step += 1;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        Ok(seconds)
    }
}

/// Runs the peer's steps; its last line of JSON is the answer.
fn peer((python, script): &(PathBuf, PathBuf), asked: &Asked, threads: usize) -> Result<Json> {
    let failed = |reason: String| BenchError::Peer { reason };
    let mut command = Command::new(python);
    command.arg(script).args(["--shape", asked.shape.name(), "--precision", &asked.peer_precision]);
    command.args(["--threads", &threads.to_string(), "--steps", &asked.steps.to_string()]);
    command.args(["--sentences", &asked.sentences.to_string(), "--tokens", &asked.tokens.to_string()]);
    if !asked.optimizer {
        command.arg("--no-optimizer");
    }
    let output =
        command.output().map_err(|e| failed(format!("{} cannot be started: {e}", python.display())))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{}: {}", output.status, told.trim())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find(|line| line.trim_start().starts_with('{'));
    let line = line.ok_or_else(|| failed("it printed no JSON".into()))?;
    serde_json::from_str(line).map_err(|e| failed(format!("its answer is not understood: {e}")))
}

/// Largest resident memory of this process, where the system tells.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
