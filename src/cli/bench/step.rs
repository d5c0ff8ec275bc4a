//! `distilface bench step`: sentences/s and memory of a training step, beside PyTorch in the same run.

use std::{fmt::Write, path::PathBuf, process::Command, time::Instant};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value as Json;

use crate::{
    cli::{App, layout},
    finetune::{
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

/// Measure a training step
#[derive(Debug, clap::Args)]
pub struct StepArgs {
    /// Shape of the encoder; its weights are random
    #[arg(long, value_enum, default_value_t = ShapeName::Minilm)]
    shape: ShapeName,
    /// Sentences of a batch, each seen twice
    #[arg(long, default_value_t = 64)]
    sentences: usize,
    /// Tokens of a sentence
    #[arg(long, default_value_t = 32)]
    tokens: usize,
    /// Steps of a round, after one that is not counted
    #[arg(long, default_value_t = 4)]
    steps: usize,
    /// How often each side runs, in turn; the medians are compared
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Threads [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
    /// Leave the optimizer out
    #[arg(long)]
    no_optimizer: bool,
    /// Python with PyTorch and transformers, to run benches/peers/train_step.py in turn with this
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// Where train_step.py lies
    #[arg(long, value_name = "FILE", default_value = "benches/peers/train_step.py")]
    peer_script: PathBuf,
    /// The peer's arithmetic
    #[arg(long, default_value = "fp32", value_parser = ["fp32", "bf16"])]
    peer_precision: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ShapeName {
    /// BERT of 6 layers, 384 wide, 12 heads
    Minilm,
    /// DistilBERT of 6 layers, 768 wide, 12 heads
    Distilbert,
}

impl ShapeName {
    fn encoder(self) -> (Architecture, Shape) {
        let (architecture, hidden, type_vocabulary) = match self {
            ShapeName::Minilm => (Architecture::Bert, 384, 2),
            ShapeName::Distilbert => (Architecture::Distilbert, 768, 0),
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
            ShapeName::Minilm => "minilm",
            ShapeName::Distilbert => "distilbert",
        }
    }
}

/// One side's figures.
#[derive(Debug, Clone, Serialize)]
struct Side {
    name: String,
    median_seconds: f64,
    sentences_per_second: f64,
    /// Largest resident memory of its process.
    peak_mib: f64,
}

#[derive(Debug, Serialize)]
struct StepReport {
    shape: &'static str,
    sentences: usize,
    tokens: usize,
    threads: usize,
    optimizer: bool,
    ours: Side,
    peer: Option<Side>,
    /// Ours over the peer's; above 1 is better.
    speed_ratio: Option<f64>,
    /// Ours over the peer's; below 1 is better.
    memory_ratio: Option<f64>,
}

pub fn run(app: &App, args: &StepArgs) -> anyhow::Result<()> {
    let threads = args
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let (mut ours, mut theirs, mut peer_peak) = (Vec::new(), Vec::new(), 0f64);
    let mut bench = Bench::new(app, args, threads)?;
    for round in 0..args.rounds.max(1) {
        app.out.note(&format!("round {} of {}", round + 1, args.rounds.max(1)));
        ours.extend(bench.round(args.steps)?);
        if let Some(python) = &args.peer {
            let answer = peer(python, args, threads)?;
            let seconds = answer["seconds"].as_array();
            theirs.extend(seconds.into_iter().flatten().filter_map(Json::as_f64));
            peer_peak = peer_peak.max(answer["peak_memory_mib"].as_f64().unwrap_or(0.0));
        }
    }
    let side = |name: String, mut seconds: Vec<f64>, peak_mib: f64| {
        seconds.sort_by(f64::total_cmp);
        let median_seconds = seconds[seconds.len() / 2];
        Side { name, median_seconds, sentences_per_second: args.sentences as f64 / median_seconds, peak_mib }
    };
    let ours = side(format!("distilface, {}", bench.device), ours, peak_mib());
    let peer =
        (!theirs.is_empty()).then(|| side(format!("PyTorch {}", args.peer_precision), theirs, peer_peak));
    let report = StepReport {
        shape: args.shape.name(),
        sentences: args.sentences,
        tokens: args.tokens,
        threads,
        optimizer: !args.no_optimizer,
        speed_ratio: peer.as_ref().map(|p| p.median_seconds / ours.median_seconds),
        memory_ratio: peer.as_ref().map(|p| ours.peak_mib / p.peak_mib),
        ours,
        peer,
    };
    app.out.result(&report, |r| table(r, app.out.width()))
}

fn table(report: &StepReport, width: usize) -> String {
    let row = |side: &Side| {
        vec![
            side.name.clone(),
            format!("{:.3}", side.median_seconds),
            format!("{:.1}", side.sentences_per_second),
            format!("{:.0}", side.peak_mib),
        ]
    };
    let rows: Vec<Vec<String>> =
        [Some(&report.ours), report.peer.as_ref()].into_iter().flatten().map(row).collect();
    let mut text = format!(
        "{} shape, {} sentences x 2 x {} tokens, {} threads, optimizer {}\n",
        report.shape,
        report.sentences,
        report.tokens,
        report.threads,
        if report.optimizer { "included" } else { "left out" }
    );
    text += &layout::table(&["", "#s/step", "#sentences/s", "#peak MiB"], &rows, width);
    if let (Some(speed), Some(memory)) = (report.speed_ratio, report.memory_ratio) {
        // Writing to a String cannot fail.
        let _ = write!(text, "\nspeed {speed:.2} times the peer's, memory {memory:.2} times");
    }
    text
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
    fn new(app: &App, args: &StepArgs, threads: usize) -> anyhow::Result<Self> {
        let (architecture, shape) = args.shape.encoder();
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
        let config = &app.loaded.config;
        let device = config.encoder.device.parse().map_err(crate::Error::from)?;
        let machine = Machine { home: config.data.home.clone(), device, threads };
        let optimizer = match args.no_optimizer {
            true => None,
            false => Some(
                AdamW::new(&parameters, AdamWConfig::default(), settings)
                    .map_err(|e| crate::Error::from(crate::finetune::FinetuneError::from(e)))?,
            ),
        };
        let rows = 2 * args.sentences;
        let mut random = SplitMix(11);
        let ids = (0..rows * args.tokens).map(|_| 1000 + random.below(29_000) as i64).collect();
        let tokens = Tokens { rows, width: args.tokens, ids, mask: vec![1; rows * args.tokens] };
        let inputs = ObjectiveInputs::contrastive(args.sentences, 2, false, |_, _| false, |_, _| false);
        let stepper = Stepper::new(machine, spec, objective, trained);
        let dropout = Dropout::new(3, DROPOUT).map_err(|e| anyhow::anyhow!(e))?;
        let mut bench =
            Bench { stepper, parameters, optimizer, tokens, inputs, dropout, step: 0, device: String::new() };
        // Opens the graph and fills the runtime's arena.
        bench.round(1)?;
        bench.device = bench.stepper.device().map(|d| d.device.clone()).unwrap_or_default();
        Ok(bench)
    }

    /// Seconds of each step.
    fn round(&mut self, steps: usize) -> anyhow::Result<Vec<f64>> {
        let mut seconds = Vec::with_capacity(steps);
        for _ in 0..steps {
            let begun = Instant::now();
            let (dropout, step) = (&self.dropout, self.step);
            let outcome = self
                .stepper
                .run(&self.parameters, &self.tokens, &self.inputs, &|at, mask| {
                    let place = MaskPlace { step, micro_batch: at.micro_batch as u32, mask: at.index as u32 };
                    dropout.fill(place, mask);
                })
                .map_err(crate::Error::from)?;
            if let Some(optimizer) = &mut self.optimizer {
                optimizer
                    .step(&mut self.parameters, &outcome.views(), RATE, Some(CLIP))
                    .map_err(|e| anyhow::anyhow!(e))?;
            }
            self.step += 1;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        Ok(seconds)
    }
}

fn peer(python: &PathBuf, args: &StepArgs, threads: usize) -> anyhow::Result<Json> {
    let mut command = Command::new(python);
    command.arg(&args.peer_script).args(["--shape", args.shape.name(), "--precision", &args.peer_precision]);
    command.args(["--threads", &threads.to_string(), "--steps", &args.steps.to_string()]);
    command.args(["--sentences", &args.sentences.to_string(), "--tokens", &args.tokens.to_string()]);
    if args.no_optimizer {
        command.arg("--no-optimizer");
    }
    let output = command.output().with_context(|| format!("starting {}", python.display()))?;
    anyhow::ensure!(
        output.status.success(),
        "{} failed: {}",
        args.peer_script.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find(|line| line.trim_start().starts_with('{'));
    Ok(serde_json::from_str(line.context("the peer printed no JSON")?)?)
}

/// Largest resident memory of this process, where the system tells.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
