//! `distilface eval reference`: forward, losses, gradients and the optimizer against a folder of reference values.

use std::path::PathBuf;

use crate::{
    cli::{App, layout},
    finetune::{
        reference::{self, ReferenceReport},
        step::Machine,
    },
};

/// Compare hidden states, poolings, losses, gradients and an AdamW step with a folder of reference values
#[derive(Debug, clap::Args)]
pub(super) struct ReferenceArgs {
    /// Folder with config.json, model.safetensors and reference.safetensors
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
}

/// An error above its limit is an error of the command, after the table was shown.
pub(super) fn run(app: &App, args: &ReferenceArgs) -> anyhow::Result<()> {
    let config = &app.loaded.config;
    // Limits are those of float32, which is what cpu computes in: `auto` could be a provider that rounds.
    let device = match config.encoder.device.as_str() {
        "auto" => crate::runtime::DeviceChoice::Cpu,
        one => one.parse().map_err(crate::Error::from)?,
    };
    let machine = Machine { home: config.data.home.clone(), device, threads: config.encoder.threads };
    let report = reference::compare(&args.dir, &machine)?;
    app.out.result(&report, |r| table(r, app.out.width()))?;
    anyhow::ensure!(report.passed, "this implementation differs from the reference values");
    Ok(())
}

fn table(r: &ReferenceReport, width: usize) -> String {
    let rows = r.largest.iter().map(|(kind, largest)| {
        // Which tensor only matters where something is wrong; JSON has it always.
        let verdict = match largest.error <= largest.limit {
            true => "ok".to_owned(),
            false => format!("TOO LARGE: {}", largest.tensor),
        };
        vec![
            kind.clone(),
            format!("{:.1e}", largest.error),
            format!("{:.0e}", largest.limit),
            largest.compared.to_string(),
            verdict,
        ]
    });
    let rows: Vec<_> = rows.collect();
    let table = layout::table(&["kind", "#largest error", "#allowed", "#tensors", ""], &rows, width);
    format!("{table}\n\n{}, on {}", r.folder, r.device)
}
