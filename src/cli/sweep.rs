//! `distilface sweep`: the paper's experiments, or any others, as one command.

use std::path::PathBuf;

use super::{
    App,
    failure::Stop,
    finetune::{Database, Shown, TrainingArgs, in_words},
    layout, signals,
};
use crate::{
    finetune::sweep::{Factor, rows},
    training::{Sweep, SweepOutcome},
};

/// Train with every combination of some settings, and compare
///
/// The paper's questions: --over pooling=cls,mean,max --over temperature=0.01,0.05,0.1 --over batch=32,64,128,256
/// --over dropout=0,0.1,0.2 --over learning_rate=1e-5,3e-5,1e-4
#[derive(Debug, clap::Args)]
pub struct SweepArgs {
    #[command(flatten)]
    training: TrainingArgs,
    /// A setting of the recipe and its values; may be given several times
    #[arg(long = "over", value_name = "KEY=VALUE,VALUE", required = true)]
    over: Vec<Factor>,
    /// Folder of the sweep's runs, table, plots and report; given again, it goes on
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    out: PathBuf,
}

/// Runs the sweep. Ctrl-C is heard once the data is read: until then it ends the process, which has written nothing yet.
pub fn run(app: &App, args: &SweepArgs) -> anyhow::Result<()> {
    let options = args.training.options(app)?;
    let sweep = Sweep::new(options, args.over.clone(), args.out.clone()).map_err(in_words)?;
    let mut shown = Shown::new(app);
    let prepared = sweep.options().prepare(&mut Database(app), &mut shown).map_err(in_words)?;
    signals::follow(app)?;
    let outcome = sweep.run(&prepared, &mut shown, &|| app.interrupt.is_cancelled());
    let report = match outcome.map_err(in_words)? {
        SweepOutcome::Finished(report) => report,
        SweepOutcome::Interrupted => {
            app.out.warn("interrupted; the same command goes on from there");
            return Err(Stop::Interrupted.into());
        }
    };
    app.out.result(&report, |report| {
        let (headers, rows) = rows(&report.factors, &report.results);
        let headers: Vec<String> = headers
            .into_iter()
            .enumerate()
            .map(|(n, h)| if n < report.factors.len() { h } else { format!("#{h}") })
            .collect();
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        format!(
            "{}\n\nreport.md and plots in {}",
            layout::table(&headers, &rows, app.out.width()),
            report.folder
        )
    })
}
