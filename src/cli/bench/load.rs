//! `distilface bench load`: latency of queries that arrive at a constant rate ([`bench::load`]).

use std::{fmt::Write as _, path::PathBuf};

use crate::{
    bench::{
        self,
        load::{Asked, LoadReport, STAGES},
    },
    cli::{App, eval::Scratch, layout},
    eval::beir,
};

/// Measure latency under load
#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    /// Folder in BEIR layout: its documents are ingested, its queries asked
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    /// Queries a second
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Length of each phase
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Documents that are there before queries begin
    #[arg(long, default_value_t = 1000)]
    documents: usize,
    /// Hits per query
    #[arg(short, default_value_t = 10)]
    k: u32,
    /// Also write latency.svg there
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    out: Option<PathBuf>,
}

pub async fn run(app: &App, args: &LoadArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.rate > 0.0 && args.rate <= 1e5,
        "--rate must be above 0, to 100000 queries a second"
    );
    anyhow::ensure!(args.seconds > 0, "--seconds must be at least 1");
    let set = beir::load(&args.dir, None)?;
    let LoadArgs { rate, seconds, documents, k, .. } = *args;
    let asked = Asked { rate, seconds, documents, k, out: args.out.clone() };
    let folder = Scratch::new("load")?;
    let note = |text: &str| app.out.note(text);
    let report = bench::load::measure(&app.loaded.config, set, &asked, &folder.0, &note).await?;
    app.out.result(&report, |r| table(r, app.out.width()))
}

fn table(report: &LoadReport, width: usize) -> String {
    let ms = |micros: u64| format!("{:.2}", micros as f64 / 1e3);
    let rows: Vec<Vec<String>> = report
        .phases
        .iter()
        .map(|p| {
            let l = &p.latency;
            vec![
                p.name.to_owned(),
                format!("{:.1}", p.achieved_per_second),
                ms(l.p50_us),
                ms(l.p90_us),
                ms(l.p99_us),
                ms(l.max_us),
                p.refused.to_string(),
                format!("{:.1}", p.documents_per_second),
            ]
        })
        .collect();
    let headers = ["", "#queries/s", "#p50 ms", "#p90 ms", "#p99 ms", "#max ms", "#refused", "#documents/s"];
    let mut text = format!(
        "{}, {} queries/s due for {} s over {} documents\n",
        report.device, report.rate, report.seconds, report.documents
    );
    text += &layout::table(&headers, &rows, width);
    let rows: Vec<Vec<String>> = report
        .phases
        .iter()
        .map(|p| {
            std::iter::once(p.name.to_owned()).chain(p.stages.iter().map(|(_, s)| ms(s.p99_us))).collect()
        })
        .collect();
    let headers: Vec<String> = std::iter::once("p99 by stage, ms".to_owned())
        .chain(STAGES.iter().map(|stage| format!("#{stage}")))
        .collect();
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    text += &format!("\n{}", layout::table(&headers, &rows, width));
    // Writing to a String cannot fail.
    let _ = write!(text, "\np99 while ingesting is {:.2} times the quiet one", report.p99_ratio);
    if let Some(path) = &report.plot {
        let _ = write!(text, "\n{}", path.display());
    }
    text
}
