//! `distilface bench step`: a training step ([`bench::step`]).

use std::{fmt::Write, path::PathBuf};

use crate::{
    bench::step::{self, Asked, Side, StepReport, StepShape},
    cli::{App, layout},
};

/// Measure a training step
#[derive(Debug, clap::Args)]
pub struct StepArgs {
    /// Shape of the encoder; its weights are random
    #[arg(long, value_enum, default_value_t = ShapeName::Minilm)]
    shape: ShapeName,
    /// Sentences of a batch, each seen twice
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    sentences: u32,
    /// Tokens of a sentence
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=512))]
    tokens: u32,
    /// Steps of a round, after one that is not counted
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: u32,
    /// How often each side runs, in turn; the medians are compared
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Threads [default: all cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
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

impl From<ShapeName> for StepShape {
    fn from(name: ShapeName) -> Self {
        match name {
            ShapeName::Minilm => StepShape::Minilm,
            ShapeName::Distilbert => StepShape::Distilbert,
        }
    }
}

/// Runs `distilface bench step`.
pub fn run(app: &App, args: &StepArgs) -> anyhow::Result<()> {
    let asked = Asked {
        shape: args.shape.into(),
        sentences: args.sentences as usize,
        tokens: args.tokens as usize,
        steps: args.steps as usize,
        rounds: args.rounds as usize,
        threads: args.threads.map(|threads| threads as usize),
        optimizer: !args.no_optimizer,
        peer: args.peer.clone().map(|python| (python, args.peer_script.clone())),
        peer_precision: args.peer_precision.clone(),
    };
    let note = |text: &str| app.out.note(text);
    let report = step::measure(&app.loaded.config, &asked, &note)?;
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
