//! `distilface finetune`: a recipe, a base model and texts -> a model that was trained further.
//!
//! The run's folder holds all that was said and measured: `run.toml` (the recipe with every setting), `data.json`,
//! `metrics.jsonl`, plots, checkpoints, `report.json`. The same command given again goes on where it stopped.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use serde::Serialize;

use super::{
    App,
    client::{self, Target},
    failure::{Stop, usage},
    layout,
    output::{Progress, Style},
};
use crate::{
    config::EncoderConfig,
    encoder::Encoder,
    eval::{beir, sts},
    finetune::{
        FinetuneError,
        data::{
            self, DataError,
            documents::SourceDocument,
            overlap::HeldOut,
            source::{COLLECTION_MARK, Origin, Source},
        },
        finish::{Finish, finish},
        metrics,
        recipe::{self, Recipe},
        run::{self, Ending, Event, Plan, RunReport},
        step::Machine,
    },
    model::ModelDir,
    proto::{GetCollectionRequest, ScrollRequest},
};

/// Documents of one answer while a collection is read.
const PAGE: u32 = 200;
/// Folder of the runs under the home folder.
const RUNS_FOLDER: &str = "runs";
const RECIPE_FILE: &str = "run.toml";
const DATA_FILE: &str = "data.json";
const REPORT_FILE: &str = "report.json";

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
}

/// Everything that runs of one recipe share.
pub struct Prepared {
    pub base: ModelDir,
    pub teacher: Option<Encoder>,
    pub loaded: data::Loaded,
    pub dev: Vec<sts::StsSet>,
    pub machine: Machine,
}

impl Prepared {
    fn plan<'a>(&'a self, recipe: &'a Recipe, seed: u64, folder: &'a Path) -> Plan<'a> {
        Plan {
            recipe,
            base: &self.base,
            teacher: self.teacher.as_ref(),
            datasets: &self.loaded.datasets,
            dev: &self.dev,
            seed,
            folder,
            machine: &self.machine,
        }
    }
}

/// Opens models, reads and guards the data, and tells what is used.
///
/// # Errors
/// What is missing or wrong, by name.
pub fn prepare(app: &App, recipe: &Recipe, held_out: &[PathBuf]) -> anyhow::Result<Prepared> {
    let config = &app.loaded.config;
    let home = &config.data.home;
    let base = ModelDir::find(home, &recipe.base).map_err(crate::Error::from)?;
    // Said before the data is read, which may take long.
    base.check_full_precision().map_err(crate::Error::from)?;
    let dev = match &recipe.dev {
        Some(path) if path.is_file() => vec![sts::load(path)?],
        Some(path) => sts::load_dev(path)?.into_iter().take(1).collect(),
        None => Vec::new(),
    };
    let mut held = HeldOut::new();
    for set in &dev {
        let texts = set.pairs.iter().flat_map(|p| [p.first.clone(), p.second.clone()]).collect();
        held.add(format!("dev set {}", set.name), texts);
    }
    let failed = |e: DataError| crate::Error::from(FinetuneError::from(e));
    for dir in held_out {
        let beir = beir::corpus_path(dir).is_ok();
        if beir { held.add_beir(dir, false) } else { held.add_sts(dir) }.map_err(failed)?;
    }
    tell_origins(app, &recipe.data)?;
    app.out.note("reading the training data");
    let mut collection = |name: &str| collection_documents(app, name);
    let loaded = data::load(&recipe.data, &recipe.guards, &held, &mut collection).map_err(failed)?;

    let teacher = match (recipe.objective, &recipe.teacher) {
        (recipe::Objective::Distil, Some(name)) => {
            let model = ModelDir::find(home, name).map_err(crate::Error::from)?;
            Some(Encoder::open(&model, home, &EncoderConfig { ..config.encoder.clone() })?)
        }
        _ => None,
    };
    let device = config.encoder.device.parse().map_err(crate::Error::from)?;
    let machine = Machine { home: home.clone(), device, threads: config.encoder.threads };
    Ok(Prepared { base, teacher, loaded, dev, machine })
}

/// Says what each source is taken for where its name does not, and refuses what could be two things.
fn tell_origins(app: &App, sources: &[Source]) -> anyhow::Result<()> {
    for source in
        sources.iter().filter(|source| source.may_be_either() || source.from.starts_with(COLLECTION_MARK))
    {
        let (from, name) = (&source.from, source.collection());
        let what = match source.origin() {
            // What cannot be read is told when it is read.
            None => continue,
            Some(Origin::Collection) => {
                app.out.note(&format!("{from}: the collection {name} of {}", app.target));
                continue;
            }
            Some(Origin::File) => "file",
            Some(Origin::Folder) => "folder",
        };
        if collection_exists(app, name) {
            return Err(usage(format!(
                "{from} is a {what} here and a collection of {}: say ./{from} or {COLLECTION_MARK}{from}",
                app.target
            )));
        }
        app.out.note(&format!("{from}: the {what} ./{from}"));
    }
    Ok(())
}

/// Whether the database has a collection of this name. No, where there is no database or it cannot be asked.
fn collection_exists(app: &App, name: &str) -> bool {
    // Opening a folder makes one where none is.
    if app.target == Target::Folder && !app.loaded.config.data.dir.is_dir() {
        return false;
    }
    let ask = async {
        let session = client::Session::open(&app.target, &app.loaded.config, &app.out).await.ok()?;
        let found = session.collections().get(GetCollectionRequest { name: name.to_owned() }).await.is_ok();
        session.close().await.ok()?;
        Some(found)
    };
    tokio::runtime::Runtime::new().is_ok_and(|runtime| runtime.block_on(ask).unwrap_or(false))
}

/// All documents of a collection, in passages.
fn collection_documents(app: &App, name: &str) -> Result<Vec<SourceDocument>, DataError> {
    let unusable = |reason: String| DataError::Unusable {
        name: name.to_owned(),
        reason: format!("it is no file or folder here, and as a collection it cannot be read: {reason}"),
    };
    let read = async {
        let session = client::Session::open(&app.target, &app.loaded.config, &app.out).await?;
        let mut request =
            ScrollRequest { collection: name.to_owned(), limit: PAGE, ..ScrollRequest::default() };
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
    let runtime = tokio::runtime::Runtime::new().map_err(|e| unusable(e.to_string()))?;
    runtime.block_on(read).map_err(|e: anyhow::Error| unusable(super::failure::words(&e)))
}

/// One line on how far a run is.
pub struct Told<'a> {
    app: &'a App,
    progress: Progress<'a>,
    score: Option<f64>,
}

impl<'a> Told<'a> {
    pub fn new(app: &'a App, what: &str) -> Self {
        Told { app, progress: app.out.progress(what, None), score: None }
    }

    pub fn event(&mut self, event: Event) {
        match event {
            Event::Resumed { step } => self.app.out.note(&format!("goes on after step {step}")),
            Event::Stepped { step, total, loss, rate, texts_per_second, .. } => {
                self.progress.set_total(total);
                let score = self.score.map(|s| format!(", dev {s:.2}")).unwrap_or_default();
                self.progress.set(
                    step,
                    &format!("loss {loss:.4}, rate {rate:.1e}, {texts_per_second:.0} examples/s{score}"),
                );
            }
            Event::Evaluated { step, score, best } => {
                self.score = Some(score);
                let best = if best { ", the best so far" } else { "" };
                self.app.out.note(&format!("step {step}: dev score {score:.2}{best}"));
            }
            Event::Saved { .. } => {}
        }
    }
}

/// The result of a command.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: Option<String>,
    fingerprint: Option<String>,
    path: Option<String>,
    run: String,
    recipe: &'a Recipe,
    runs: Vec<RunReport>,
}

pub fn run(app: &App, args: &FinetuneArgs) -> anyhow::Result<()> {
    let mut recipe = args.training.recipe()?;
    let home = app.loaded.config.data.home.clone();
    let name = args.name.clone().unwrap_or_else(|| default_name(&recipe.base, &args.training.recipe));
    if !args.dry_run {
        ModelDir::check_new(&home, &name, args.force).map_err(crate::Error::from)?;
    }
    let folder = args.run.clone().unwrap_or_else(|| home.join(RUNS_FOLDER).join(&name));
    let prepared = prepare(app, &recipe, &args.training.held_out)?;
    if app.out.is_json() && args.dry_run {
        return app.out.document(&prepared.loaded.report);
    }
    if args.dry_run {
        return app.out.line(&prepared.loaded.report.table());
    }
    app.out.note(&prepared.loaded.report.table());
    let seeds = std::mem::take(&mut recipe.seeds);
    // What is there of another run stays as it is.
    for &seed in &seeds {
        recipe.seeds = vec![seed];
        let of_seed = folder_of(&folder, &seeds, seed);
        run::check(&prepared.plan(&recipe, seed, &of_seed)).map_err(crate::Error::from)?;
    }
    recipe.seeds.clone_from(&seeds);
    fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    write(&folder.join(RECIPE_FILE), &toml::to_string(&recipe)?)?;
    write(&folder.join(DATA_FILE), &serde_json::to_string_pretty(&prepared.loaded.report)?)?;

    let (mut reports, mut folders) = (Vec::new(), Vec::new());
    for &seed in &seeds {
        recipe.seeds = vec![seed];
        let of_seed = folder_of(&folder, &seeds, seed);
        let report = train(app, &prepared, &recipe, seed, &of_seed)?;
        let interrupted = report.ending == Ending::Interrupted;
        reports.push(report);
        folders.push(of_seed);
        if interrupted {
            draw(&folder, &seeds, &folders)?;
            app.out.warn(&format!(
                "interrupted at step {} of {}; the same command goes on from there ({})",
                reports.last().map_or(0, |r| r.steps),
                reports.last().map_or(0, |r| r.steps_planned),
                folder.display()
            ));
            return Err(Stop::Interrupted.into());
        }
    }
    draw(&folder, &seeds, &folders)?;
    recipe.seeds = seeds;

    // The seed with the best dev score, or the first.
    let chosen = (1..reports.len()).fold(0, |best, n| {
        if reports[n].best.unwrap_or(f64::MIN) > reports[best].best.unwrap_or(f64::MIN) { n } else { best }
    });
    let model = finish(&Finish {
        home: &home,
        name: &name,
        force: args.force,
        recipe: &recipe,
        base: &prepared.base,
        folder: &folders[chosen],
        report: &reports[chosen],
        lineage: lineage(&args.training.recipe, &recipe, &prepared)?,
    })
    .map_err(crate::Error::from)?;
    let report = Report {
        model: Some(name.clone()),
        fingerprint: Some(model.fingerprint.0.clone()),
        path: Some(model.path.display().to_string()),
        run: folder.display().to_string(),
        recipe: &recipe,
        runs: reports,
    };
    write(&folder.join(REPORT_FILE), &serde_json::to_string_pretty(&report)?)?;
    app.out.result(&report, |report| summary(app, report, chosen, &recipe))
}

/// Where the run of one seed lies.
fn folder_of(folder: &Path, seeds: &[u64], seed: u64) -> PathBuf {
    if seeds.len() == 1 { folder.to_owned() } else { folder.join(format!("seed-{seed}")) }
}

fn default_name(base: &str, recipe: &str) -> String {
    let last = |path: &str| Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    format!("{}-{}", last(base), last(recipe))
}

/// One run, with its progress shown and Ctrl-C heard.
pub fn train(
    app: &App,
    prepared: &Prepared,
    recipe: &Recipe,
    seed: u64,
    folder: &Path,
) -> anyhow::Result<RunReport> {
    let plan = prepared.plan(recipe, seed, folder);
    let mut told = Told::new(app, "training");
    let report = super::with_signals(app, || {
        run::run(&plan, &mut |event| told.event(event), &|| app.interrupt.is_cancelled())
    })?;
    Ok(report.map_err(crate::Error::from)?)
}

fn draw(folder: &Path, seeds: &[u64], folders: &[PathBuf]) -> anyhow::Result<()> {
    let mut curves = Vec::new();
    for (seed, of_seed) in seeds.iter().zip(folders) {
        curves.push((format!("seed {seed}"), metrics::read(of_seed).map_err(crate::Error::from)?));
    }
    Ok(metrics::draw(folder, &curves).map_err(crate::Error::from)?)
}

/// What the new model's manifest says of data and settings.
fn lineage(name: &str, recipe: &Recipe, prepared: &Prepared) -> anyhow::Result<Vec<String>> {
    let settings = toml::to_string(recipe)?;
    let sum = crate::model::FileSum::of_bytes(settings.as_bytes());
    let mut lines = vec![format!(
        "recipe {name} (sha256 {}): {:?}, temperature {}, batch {}, learning rate {}, {} tokens",
        sum.sha256,
        recipe.objective,
        recipe.temperature,
        recipe.batch,
        recipe.learning_rate,
        recipe.max_tokens
    )];
    if let Some(teacher) = &prepared.teacher {
        lines.push(format!("teacher {} {}", teacher.name(), teacher.fingerprint().0));
    }
    for source in &prepared.loaded.report.sources {
        let files: Vec<String> = source.files.iter().map(|f| format!("sha256 {}", f.sha256)).collect();
        let licence = source.licence.as_ref().map(|l| format!("; {l}")).unwrap_or_default();
        lines.push(format!(
            "data {}: {} examples{licence}{}{}",
            source.name,
            source.kept,
            if files.is_empty() { "" } else { "; " },
            files.join(", ")
        ));
    }
    Ok(lines)
}

fn summary(app: &App, report: &Report<'_>, chosen: usize, recipe: &Recipe) -> String {
    let run = &report.runs[chosen];
    let name = report.model.as_deref().unwrap_or_default();
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
    rows.push(("run", report.run.clone()));
    rows.push(("compare", format!("distilface eval sts DIR --models {},{name}", recipe.base)));
    rows.push(("use", format!("distilface serve --model {name}")));
    layout::pairs(&rows, app.out.width())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
