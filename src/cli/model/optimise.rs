//! `distilface model optimise`: the graph in 8 bits, and whether it may be used.

use std::path::PathBuf;

use serde::Serialize;

use super::super::{App, failure::usage};
use crate::{
    config::EncoderConfig,
    encoder::{
        Encoder,
        tune::fidelity::{COSINE_LEAST_MIN, COSINE_MEAN_MIN, Fidelity},
    },
    eval::sts,
    model::ModelDir,
    onnx::Layout,
};

/// Write a model's graph in 8 bits, and check it
#[derive(Debug, clap::Args)]
pub(super) struct OptimiseArgs {
    /// Name or path [default: the configured one]
    name: Option<String>,
    /// Also compare both on STS sets: a folder or a table
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::AnyPath)]
    sts: Option<PathBuf>,
    /// Points of the STS average that may be lost
    #[arg(long, value_name = "POINTS", default_value_t = 0.5)]
    sts_loss_max: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    padded_bytes: u64,
    packed_bytes: u64,
    #[serde(flatten)]
    nearness: Fidelity,
    cosine_mean_min: f64,
    cosine_least_min: f64,
    /// Averages over the sets: full precision, 8 bits.
    sts: Option<(f64, f64)>,
    accepted: bool,
}

pub(super) fn run(app: &App, args: &OptimiseArgs) -> anyhow::Result<()> {
    let (home, config) = (&app.loaded.config.data.home, &app.loaded.config.encoder);
    let name = args.name.as_ref().unwrap_or(&config.model);
    let model = ModelDir::find(home, name).map_err(crate::Error::from)?;
    if model.manifest.quantised.is_some() {
        return Err(usage(format!(
            "{name} is in 8 bits already, made by `model quantise`; optimise the model it was made of"
        )));
    }
    app.out.note("writing the graphs in full precision and in 8 bits, unless they are there");
    let size = |layout: Layout| -> anyhow::Result<u64> {
        let path = model.onnx_path_of(layout).map_err(crate::Error::from)?;
        Ok(std::fs::metadata(path)?.len())
    };
    let (padded_bytes, packed_bytes) = (size(Layout::Padded)?, size(Layout::Packed)?);
    app.out.note("comparing the vectors of sample texts in both, unless that was done before");
    let nearness = Fidelity::of(&model, home, config)?;
    let sts = match &args.sts {
        None => None,
        Some(dir) => {
            let sets = sts::load_any(dir, false)?;
            let average = |precision: &str| -> anyhow::Result<f64> {
                app.out.note(&format!("STS in {precision}"));
                let config =
                    EncoderConfig { device: "cpu".into(), precision: precision.into(), ..config.clone() };
                let encoder = Encoder::open(&model, home, &config)?;
                let mut embed = sts::encode_with(&encoder);
                let scores: Vec<f64> =
                    sets.iter().map(|set| set.score(&mut embed)).collect::<Result<_, _>>()?;
                Ok(100.0 * scores.iter().sum::<f64>() / scores.len().max(1) as f64)
            };
            Some((average("fp32")?, average("int8")?))
        }
    };
    let lost = sts.map_or(0.0, |(full, rounded)| full - rounded);
    let accepted = nearness.is_enough() && lost <= args.sts_loss_max;
    let report = Report {
        model: model.manifest.name.clone(),
        padded_bytes,
        packed_bytes,
        nearness,
        cosine_mean_min: COSINE_MEAN_MIN,
        cosine_least_min: COSINE_LEAST_MIN,
        sts,
        accepted,
    };
    app.out.result(&report, text)?;
    anyhow::ensure!(
        accepted,
        "the graph in 8 bits is refused: its vectors are too far from those in full precision, which serves on"
    );
    Ok(())
}

fn text(r: &Report) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut lines = vec![
        format!("model    {}", r.model),
        format!(
            "graph    {:.1} MiB in full precision, {:.1} MiB in 8 bits",
            mib(r.padded_bytes),
            mib(r.packed_bytes)
        ),
        format!(
            "cosine   {:.5} in the mean (at least {}), {:.5} at least ({}), over {} texts",
            r.nearness.cosine_mean,
            r.cosine_mean_min,
            r.nearness.cosine_least,
            r.cosine_least_min,
            r.nearness.texts
        ),
    ];
    if let Some((full, rounded)) = r.sts {
        lines.push(format!(
            "STS      {full:.2} in full precision, {rounded:.2} in 8 bits, {:+.2}",
            rounded - full
        ));
    }
    lines.push(if r.accepted {
        "accepted: encoder.precision = \"auto\" takes it where the processor multiplies 8-bit integers"
            .to_owned()
    } else {
        "refused".to_owned()
    });
    lines.join("\n")
}
