//! `distilface eval speed`: two models side by side, in size and speed.

use std::path::PathBuf;

use super::open_encoder;
use crate::{
    cli::{App, layout},
    eval::speed::{self, ModelSpeed, SpeedReport, SpeedTexts},
};

/// Size and speed of two models, in alternating rounds
#[derive(Debug, clap::Args)]
pub(super) struct SpeedArgs {
    /// Model by name or path
    #[arg(value_name = "MODEL_A")]
    a: String,
    /// The one it is compared with
    #[arg(value_name = "MODEL_B")]
    b: String,
    /// Texts to encode, one a line, cut to short sentences and to abstracts [default: the sample corpus]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    texts: Option<PathBuf>,
    /// How often each model is timed; the medians are compared
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

pub(super) fn run(app: &App, args: &SpeedArgs) -> anyhow::Result<()> {
    let texts = match &args.texts {
        Some(path) => SpeedTexts::load(path)?,
        None => SpeedTexts::sample(),
    };
    let (a, b) = (open_encoder(app, &args.a)?, open_encoder(app, &args.b)?);
    let rounds = usize::from(args.rounds);
    let report = speed::compare(&a, &b, &texts, rounds, |done| {
        app.out.note(&format!("round {done} of {rounds}"));
    })?;
    app.out.result(&report, |r| table(r, app.out.width()))
}

fn table(r: &SpeedReport, width: usize) -> String {
    let millions = |n: u64| format!("{:.1} M", n as f64 / 1e6);
    let row = |name: String, of: &dyn Fn(&ModelSpeed) -> String, ratio: f64| {
        vec![name, of(&r.a), of(&r.b), format!("{ratio:.2}")]
    };
    let t = &r.ratios;
    let short = format!("sentences/s ({:.0} tokens)", r.short_tokens_mean);
    let long = format!("texts/s ({:.0} tokens)", r.long_tokens_mean);
    let rows = [
        row("parameters".into(), &|m| millions(m.size.parameters), t.parameters),
        row("weights".into(), &|m| layout::bytes(m.size.weights_bytes), t.weights_bytes),
        row("ONNX file".into(), &|m| layout::bytes(m.size.onnx_bytes), t.onnx_bytes),
        row(short, &|m| format!("{:.1}", m.speeds.short_texts_per_second), t.short_texts_per_second),
        row(long, &|m| format!("{:.2}", m.speeds.long_texts_per_second), t.long_texts_per_second),
        row("one query, p50".into(), &|m| format!("{:.2} ms", m.speeds.query_p50_ms), t.query_p50_ms),
    ];
    let (a, b) = (format!("#{}", r.a.model), format!("#{}", r.b.model));
    let table = layout::table(&["", &a, &b, "#A / B"], &rows, width);
    format!("{table}\n\nMedians of {} rounds in turn, on {}.", r.a.rounds.len(), r.a.device)
}
