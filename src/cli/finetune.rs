//! `distilface finetune` trains a base model further on texts, by a recipe.
//!
//! The run's folder holds all that was said and measured: `run.toml` (the recipe with every setting), `data.json`,
//! `metrics.jsonl`, plots, checkpoints, `report.json`. The same command given again goes on where it stopped.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    App, client,
    failure::{Stop, usage, words},
    layout,
    output::{Progress as Bar, Style},
    signals,
};
use crate::{
    finetune::{
        FinetuneError,
        data::{
            documents::SourceDocument,
            source::{Origin, Source},
        },
        recipe::{self, Recipe},
        run,
    },
    proto::{GetCollectionRequest, ScrollRequest},
    training::{Event, Job, NewModel, Options, Outcome, Progress, Records, Report, TrainingError},
};

/// Train an encoder further
#[derive(Debug, clap::Args)]
#[command(after_long_help = recipe_help())]
pub struct FinetuneArgs {
    #[command(flatten)]
    pub(super) training: TrainingArgs,
    /// Name of the new model [default: the base's with the recipe's behind it]
    #[arg(long)]
    name: Option<String>,
    /// Folder of the run [default: runs/NAME under the home folder]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    run: Option<PathBuf>,
    /// Replace a model of this name
    #[arg(long)]
    force: bool,
    /// Only read the data and say what would be used
    #[arg(long)]
    dry_run: bool,
}

/// What training and sweeps take alike.
#[derive(Debug, clap::Args)]
pub struct TrainingArgs {
    /// distilface, simcse, domain, distil, or a file
    #[arg(long, value_name = "NAME", default_value = "domain")]
    pub recipe: String,
    /// Model that training starts from: a name or a path [default: the recipe's]
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// Model that the recipe `distil` learns from
    #[arg(long, value_name = "MODEL")]
    pub teacher: Option<String>,
    /// Text, JSON lines, TSV, a file of documents, a folder in BEIR layout, or a collection (collection:NAME where a file
    /// or folder has the same name); may be given several times
    #[arg(long = "train", value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// Field with the id, in files of documents that --train names [default: id, _id or doc_id]
    #[arg(long, value_name = "FIELD", requires = "sources")]
    pub id_field: Option<String>,
    /// Field with the title [default: title]
    #[arg(long, value_name = "FIELD", requires = "sources")]
    pub title_field: Option<String>,
    /// Field with the text [default: text, body, content or abstract]
    #[arg(long, value_name = "FIELD", requires = "sources")]
    pub text_field: Option<String>,
    /// STS file, or a folder with stsb-dev.tsv, that chooses the best weights
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    pub dev: Option<PathBuf>,
    /// Folder of STS sets or in BEIR layout whose texts and queries must not be trained on
    #[arg(long = "held-out", value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub held_out: Vec<PathBuf>,
    /// Change a setting of the recipe: `temperature=0.03`, `dropout.hidden=0`; see --help for all
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

fn recipe_help() -> String {
    let width = recipe::Recipe::keys().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> =
        Recipe::keys().map(|(name, allowed)| format!("  {name:<width$}  {allowed}")).collect();
    format!("Settings of a recipe (--set KEY=VALUE):\n{}", lines.join("\n"))
}

impl TrainingArgs {
    /// The recipe with the flags laid over it, checked.
    ///
    /// # Errors
    /// Recipe errors; a `--set` that is no pair.
    pub fn recipe(&self) -> anyhow::Result<Recipe> {
        let failed = |e: recipe::RecipeError| crate::Error::from(FinetuneError::from(e));
        let mut recipe = Recipe::find(&self.recipe).map_err(failed)?;
        recipe.base = self.base.clone().unwrap_or(recipe.base);
        recipe.teacher = self.teacher.clone().or(recipe.teacher);
        recipe.dev = self.dev.clone().or(recipe.dev);
        for pair in &self.set {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| usage(format!("--set {pair}: give KEY=VALUE")))?;
            recipe.set(key.trim(), value.trim()).map_err(failed)?;
        }
        recipe.data.extend(self.sources.iter().map(|from| {
            let source = Source::new(from);
            // A folder in BEIR layout and a collection have fields of their own.
            if !Path::new(from).is_file() {
                return source;
            }
            Source {
                id_field: self.id_field.clone(),
                title_field: self.title_field.clone(),
                text_field: self.text_field.clone(),
                ..source
            }
        }));
        if recipe.data.is_empty() {
            return Err(usage(
                "there is nothing to train on: give --train (text, JSON lines, TSV, a BEIR folder or a collection), or [[data]] tables in a recipe file",
            ));
        }
        recipe.validate().map_err(failed)?;
        Ok(recipe)
    }

    /// What a job is asked for.
    ///
    /// # Errors
    /// As [`TrainingArgs::recipe`].
    pub fn options(&self, app: &App) -> anyhow::Result<Options> {
        let config = &app.loaded.config;
        Ok(Options {
            recipe: self.recipe()?,
            recipe_name: self.recipe.clone(),
            held_out: self.held_out.clone(),
            home: config.data.home.clone(),
            encoder: config.encoder.clone(),
        })
    }
}

/// Runs the job. Ctrl-C is heard once the data is read: until then it ends the process, which has written nothing yet.
pub fn run(app: &App, args: &FinetuneArgs) -> anyhow::Result<()> {
    let to = NewModel { name: args.name.clone(), folder: args.run.clone(), force: args.force };
    let job = Job::new(args.training.options(app)?, to);
    if !args.dry_run {
        job.check_name().map_err(in_words)?;
    }
    let mut shown = Shown::new(app);
    let prepared = job.options().prepare(&mut Database(app), &mut shown).map_err(in_words)?;
    let data = prepared.data();
    match (args.dry_run, app.out.is_json()) {
        (true, true) => return app.out.document(data),
        (true, false) => return app.out.line(&data.table()),
        (false, _) => app.out.note(&data.table()),
    }
    signals::follow(app)?;
    let outcome = job.run(&prepared, &mut shown, &|| app.interrupt.is_cancelled());
    match outcome.map_err(in_words)? {
        Outcome::Finished(report) => app.out.result(&*report, |report| summary(app, report)),
        Outcome::Interrupted { steps, steps_planned } => {
            app.out.warn(&format!(
                "interrupted at step {steps} of {steps_planned}; the same command goes on from there ({})",
                job.folder().display()
            ));
            Err(Stop::Interrupted.into())
        }
    }
}

/// A job's error as the command tells it: what another command line would help is wrong use.
pub fn in_words(error: TrainingError) -> anyhow::Error {
    match error {
        TrainingError::Ambiguous { .. } => usage(error.to_string()),
        TrainingError::NoDevSet => {
            usage("a sweep compares dev scores: give --dev an STS file, or a folder with stsb-dev.tsv")
        }
        error => crate::Error::from(error).into(),
    }
}

/// The database that the command works on, asked by gRPC as any other client asks it.
pub struct Database<'a>(pub &'a App);

impl Records for Database<'_> {
    fn database(&self) -> String {
        self.0.target.to_string()
    }

    fn has_collection(&mut self, name: &str) -> bool {
        let app = self.0;
        let ask = async {
            let session = client::Session::open(app).await.ok()?;
            let found =
                session.collections().get(GetCollectionRequest { name: name.to_owned() }).await.is_ok();
            session.close().await.ok()?;
            Some(found)
        };
        tokio::runtime::Runtime::new().is_ok_and(|runtime| runtime.block_on(ask).unwrap_or(false))
    }

    fn documents(&mut self, collection: &str) -> Result<Vec<SourceDocument>, String> {
        let app = self.0;
        let read = async {
            let session = client::Session::open(app).await?;
            // In the server's own pages: a number of ours might be more than it allows.
            let mut request = ScrollRequest { collection: collection.to_owned(), ..ScrollRequest::default() };
            let mut documents = Vec::new();
            let result = loop {
                let page = match session.documents().scroll(request.clone()).await {
                    Ok(page) => page.into_inner(),
                    Err(status) => break Err(anyhow::Error::from(status)),
                };
                for stored in page.documents {
                    let document = stored.document.unwrap_or_default();
                    documents.push(SourceDocument {
                        id: document.id,
                        title: document.title,
                        passages: vec![document.text],
                    });
                }
                if page.next_cursor.is_empty() {
                    break Ok(documents);
                }
                request.cursor = page.next_cursor;
            };
            session.close().await?;
            result
        };
        let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
        runtime.block_on(read).map_err(|e: anyhow::Error| words(&e))
    }
}

/// What happens in a job, as notes and one line on how far a run is.
pub struct Shown<'a> {
    app: &'a App,
    bar: Option<Bar<'a>>,
    score: Option<f64>,
}

impl<'a> Shown<'a> {
    pub fn new(app: &'a App) -> Self {
        Shown { app, bar: None, score: None }
    }

    fn of_run(&mut self, event: run::Event) {
        match event {
            run::Event::Resumed { step } => self.app.out.note(&format!("goes on after step {step}")),
            run::Event::Stepped { step, total, loss, rate, texts_per_second, .. } => {
                let score = self.score.map(|s| format!(", dev {s:.2}")).unwrap_or_default();
                if let Some(bar) = &mut self.bar {
                    bar.set_total(total);
                    bar.set(
                        step,
                        &format!("loss {loss:.4}, rate {rate:.1e}, {texts_per_second:.0} examples/s{score}"),
                    );
                }
            }
            run::Event::Evaluated { step, score, best } => {
                self.score = Some(score);
                let best = if best { ", the best so far" } else { "" };
                self.app.out.note(&format!("step {step}: dev score {score:.2}{best}"));
            }
            run::Event::Saved { .. } => {}
        }
    }
}

impl Progress for Shown<'_> {
    fn event(&mut self, event: Event<'_>) {
        let (app, out) = (self.app, &self.app.out);
        match event {
            Event::Source { from, name, origin: Origin::Collection } => {
                out.note(&format!("{from}: the collection {name} of {}", app.target));
            }
            Event::Source { from, origin: Origin::File, .. } => {
                out.note(&format!("{from}: the file ./{from}"))
            }
            Event::Source { from, origin: Origin::Folder, .. } => {
                out.note(&format!("{from}: the folder ./{from}"));
            }
            Event::Reading => out.note("reading the training data"),
            Event::Combination { number, total, settings } => {
                out.note(&format!("{number} of {total}: {settings}"));
            }
            Event::RunBegan { .. } => {
                (self.bar, self.score) = (Some(out.progress("training", None)), None);
            }
            Event::Run(event) => self.of_run(event),
            Event::RunEnded => self.bar = None,
        }
    }
}

fn summary(app: &App, report: &Report) -> String {
    let run = &report.runs[report.chosen];
    let name = report.model.as_str();
    let mut rows = vec![
        ("model", app.out.paint(Style::Bold, name)),
        ("steps", format!("{} of {}", run.steps, run.steps_planned)),
        ("time", layout::duration(Duration::from_secs_f64(run.seconds))),
        ("speed", format!("{:.0} examples/s on {}", run.texts_per_second, run.device)),
    ];
    if let (Some(before), Some(best), Some(step)) = (run.score_before, run.best, run.best_step) {
        rows.push(("dev score", format!("{before:.2} before, {best:.2} after step {step}")));
        if best <= before {
            rows.push(("note", "it did not get better on the dev set; the base is the better model".into()));
        }
    } else {
        rows.push(("dev score", "none: without --dev nothing says whether it got better".into()));
    }
    if report.runs.len() > 1 {
        let scores: Vec<String> =
            report.runs.iter().map(|r| r.best.map_or("-".into(), |s| format!("{s:.2}"))).collect();
        rows.push(("seeds", format!("{}; seed {} was taken", scores.join(", "), run.seed)));
    }
    rows.push(("run", report.folder.clone()));
    rows.push(("compare", format!("distilface eval sts DIR --models {},{name}", report.recipe.base)));
    rows.push(("use", format!("distilface serve --model {name}")));
    layout::pairs(&rows, app.out.width())
}
