//! `distilface model`: the models on this machine, or (with `--server`) those that a server has.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::{
    App,
    client::{NamedBy, OnInterrupt, Session, Target, with_session},
    failure::usage,
    layout,
    output::{Output, Style},
    parsers,
    signals::{block_on, stoppable},
};
use crate::{
    hub::ImportOptions,
    model::{ModelDir, Pooling, Prompts},
    proto::{Model, ModelsRequest, UseModelRequest},
};

mod export;
mod optimise;
mod pull;
mod quantise;
mod random;

/// List, show, make, pull, import, export and verify models
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ModelCommand {
    /// List the models of this machine, or of the server that --server or $DISTILFACE_URL names
    List,
    /// Show one model's manifest
    Show {
        /// Name or path [default: the configured one]
        name: Option<String>,
    },
    /// Make a model of a Hugging Face folder with a BERT or DistilBERT encoder
    Import(Box<ImportArgs>),
    /// Download a model from a Hugging Face hub and import it
    Pull(Box<pull::PullArgs>),
    /// Write a model as a Hugging Face folder that transformers and sentence-transformers open
    Export(export::ExportArgs),
    /// Make a model of a given shape with random weights, to measure size and speed or to train from nothing
    Random(random::RandomArgs),
    /// Make a smaller, faster model of one: weights in 8 bits, with scales calibrated on texts
    Quantise(quantise::QuantiseArgs),
    /// Write a model's graph in 8 bits, and check that its vectors stay near those in full precision
    Optimise(optimise::OptimiseArgs),
    /// Make a model the default of a running server, without a pause, until it ends
    Use {
        /// One of the server's models, as `model list --server` shows them
        name: String,
    },
    /// Read every file of a model and compare its checksum
    Verify {
        /// Name or path [default: every model of this machine]
        name: Option<String>,
    },
}

/// A folder, and what it does not say.
#[derive(Debug, clap::Args)]
struct ImportArgs {
    /// Folder with config.json, model.safetensors and tokenizer.json or vocab.txt
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    from: PathBuf,
    #[command(flatten)]
    options: OptionArgs,
}

/// What the files of a model do not say.
#[derive(Debug, clap::Args)]
struct OptionArgs {
    /// Name of the new model [default: the folder's or the repository's]
    #[arg(long)]
    name: Option<String>,
    /// How token vectors become one [default: what the files say, else mean]
    #[arg(long, value_parser = parsers::pooling())]
    pooling: Option<Pooling>,
    /// Whether vectors get unit length [default: what the files say]
    #[arg(long, value_name = "BOOL")]
    normalise: Option<bool>,
    /// Longest input, special tokens included [default: what the files say]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Licence of the weights, such as Apache-2.0 [default: what the files say]
    #[arg(long)]
    licence: Option<String>,
    /// Where the weights come from [default: what the files say, or the repository and its commit]
    #[arg(long)]
    source: Option<String>,
    /// Text that goes in front of queries
    #[arg(long, value_name = "TEXT")]
    query_prompt: Option<String>,
    /// Text that goes in front of documents
    #[arg(long, value_name = "TEXT")]
    document_prompt: Option<String>,
    /// Replace a model of this name
    #[arg(long)]
    force: bool,
}

impl OptionArgs {
    fn options(self) -> ImportOptions {
        let prompts = self.query_prompt.is_some() || self.document_prompt.is_some();
        ImportOptions {
            name: self.name,
            pooling: self.pooling,
            normalise: self.normalise,
            max_tokens: self.max_tokens,
            licence: self.licence,
            source: self.source,
            prompts: prompts.then(|| Prompts {
                query: self.query_prompt.unwrap_or_default(),
                document: self.document_prompt.unwrap_or_default(),
            }),
            force: self.force,
        }
    }
}

pub fn run(app: &App, args: ModelArgs) -> anyhow::Result<()> {
    match args.command {
        ModelCommand::List
            if matches!(app.target, Target::Server { by: NamedBy::Flag | NamedBy::Variable, .. }) =>
        {
            block_on(app, list_remote(app))
        }
        ModelCommand::Pull(args) => {
            block_on(app, async { tell_imported(&app.out, &pull::run(app, *args).await?) })
        }
        ModelCommand::Use { name } => block_on(app, use_model(app, name)),
        here => stoppable(app, || run_here(app, here)),
    }
}

/// The commands that read and write files on this thread.
fn run_here(app: &App, command: ModelCommand) -> anyhow::Result<()> {
    let home = &app.loaded.config.data.home;
    let out = &app.out;
    match command {
        ModelCommand::List => list(out, home),
        ModelCommand::Show { name } => {
            let name = name.unwrap_or_else(|| app.loaded.config.encoder.model.clone());
            let model = ModelDir::find(home, &name).map_err(crate::Error::from)?;
            show(out, &model)
        }
        ModelCommand::Import(args) => {
            let ImportArgs { from, options } = *args;
            let model = ModelDir::import(home, &from, options.options()).map_err(crate::Error::from)?;
            tell_imported(out, &model)
        }
        ModelCommand::Export(args) => export::run(out, home, &args),
        ModelCommand::Random(args) => show(out, &random::make(home, args)?),
        ModelCommand::Quantise(args) => show(out, &quantise::make(app, &args)?),
        ModelCommand::Optimise(args) => optimise::run(app, &args),
        ModelCommand::Verify { name } => verify(out, home, name.as_deref()),
        ModelCommand::Pull(_) | ModelCommand::Use { .. } => unreachable!("these wait for somebody else"),
    }
}

fn tell_imported(out: &Output, model: &ModelDir) -> anyhow::Result<()> {
    out.note(&format!("imported {0}; run it with `distilface serve --model {0}`", model.manifest.name));
    show(out, model)
}

fn list(out: &Output, home: &Path) -> anyhow::Result<()> {
    let mut models = Vec::new();
    for model in ModelDir::list(home) {
        match model {
            Ok(model) => models.push(model),
            Err(error) => out.warn(&error.to_string()),
        }
    }
    if out.is_json() {
        return out.document(&models.iter().map(model_json).collect::<Vec<_>>());
    }
    if models.is_empty() {
        out.note(&format!(
            "no models in {}; `distilface setup` gets the default one",
            home.join("models").display()
        ));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = models
        .iter()
        .map(|model| {
            let m = &model.manifest;
            let names = [architecture(model), m.licence.clone(), short(&model.fingerprint.0)];
            let [architecture, licence, fingerprint] = names;
            let (dimension, tokens) = (m.dimension.to_string(), m.max_tokens.to_string());
            vec![m.name.clone(), architecture, dimension, tokens, licence, fingerprint]
        })
        .collect();
    let headers = ["name", "architecture", "#dimension", "#max tokens", "licence", "fingerprint"];
    out.line(&layout::table(&headers, &rows, out.width()))
}

async fn list_remote(app: &App) -> anyhow::Result<()> {
    with_session(app, OnInterrupt::Stop, async |session: &Session| {
        let models = session.encoder().models(ModelsRequest {}).await?.into_inner().models;
        let out = &app.out;
        if out.is_json() {
            let of_server = |m: &Model| {
                let mut model = remote_json(m);
                if let (Some(fields), Target::Server { url, .. }) = (model.as_object_mut(), &app.target) {
                    fields.insert("server".to_owned(), json!(url));
                }
                model
            };
            return out.document(&models.iter().map(of_server).collect::<Vec<_>>());
        }
        out.note(&format!("models of {}", app.target));
        let row = |m: &Model| {
            let runs = match (m.loaded, m.default) {
                (false, _) => "not loaded".to_owned(),
                (true, false) => m.device.clone(),
                (true, true) => format!("{}, the default", m.device),
            };
            let (dimension, tokens) = (m.dimension.to_string(), m.max_tokens.to_string());
            vec![m.name.clone(), m.architecture.clone(), dimension, tokens, runs, short(&m.fingerprint)]
        };
        let headers = ["name", "architecture", "#dimension", "#max tokens", "runs on", "fingerprint"];
        out.line(&layout::table(&headers, &models.iter().map(row).collect::<Vec<_>>(), out.width()))
    })
    .await
}

async fn use_model(app: &App, name: String) -> anyhow::Result<()> {
    if app.target == Target::Folder {
        return Err(usage(
            "`model use` asks a running server; for a folder name the model with --model, or set encoder.model",
        ));
    }
    with_session(app, OnInterrupt::Stop, async |session: &Session| {
        let answer = session.encoder().use_model(UseModelRequest { name: name.clone() }).await?.into_inner();
        let model = answer.model.unwrap_or_default();
        app.out.result(&remote_json(&model), |_| {
            format!("{} serves from now on, on {}", model.name, model.device)
        })?;
        app.out.note(
            "collections keep the model they were made with; set encoder.model to keep this after a restart",
        );
        Ok(())
    })
    .await
}

fn remote_json(m: &Model) -> Json {
    json!({
        "name": m.name, "architecture": m.architecture, "dimension": m.dimension,
        "max_tokens": m.max_tokens, "pooling": m.pooling, "fingerprint": m.fingerprint,
        "licence": m.licence, "loaded": m.loaded, "default": m.default, "device": m.device,
        "device_reason": m.device_reason,
    })
}

fn show(out: &Output, model: &ModelDir) -> anyhow::Result<()> {
    out.result(&model_json(model), |_| {
        let m = &model.manifest;
        let mut pairs = vec![
            ("name", m.name.clone()),
            ("folder", model.path.display().to_string()),
            ("architecture", architecture(model)),
            ("dimension", m.dimension.to_string()),
            ("layers", m.shape.layers.to_string()),
            (
                "pooling",
                format!("{:?}{}", m.pooling, if m.normalise { ", normalised" } else { "" }).to_lowercase(),
            ),
            ("max tokens", m.max_tokens.to_string()),
            ("licence", m.licence.clone()),
            ("source", m.source.clone()),
            ("fingerprint", model.fingerprint.0.clone()),
        ];
        for (label, prompt) in [("query prompt", &m.prompts.query), ("document prompt", &m.prompts.document)]
        {
            if !prompt.is_empty() {
                pairs.push((label, format!("{prompt:?}")));
            }
        }
        if let Some(q) = &m.quantised {
            pairs.push((
                "weights",
                format!("{}, calibrated on {} texts", q.precision.name(), q.calibration_texts),
            ));
            pairs.push(("made from", q.from.clone()));
        }
        if !m.lineage.is_empty() {
            pairs.push(("lineage", m.lineage.join(" -> ")));
        }
        layout::pairs(&pairs, out.width())
    })
}

fn verify(out: &Output, home: &Path, name: Option<&str>) -> anyhow::Result<()> {
    let models = match name {
        Some(name) => vec![ModelDir::find(home, name)],
        None => ModelDir::list(home),
    };
    let mut answers = Vec::new();
    let mut failures = Vec::new();
    for model in models {
        match model.and_then(|model| model.verify().map(|()| model)) {
            Ok(model) => {
                let files = model.manifest.files.len();
                answers.push(json!({ "name": model.manifest.name, "files": files, "good": true }));
                if !out.is_json() {
                    let good = out.paint(Style::Good, "good");
                    let files = layout::counted(files as u64, "file");
                    out.line(&format!("{}: {good}, {files}", model.manifest.name))?;
                }
            }
            Err(error) => failures.push(error),
        }
    }
    if out.is_json() {
        out.document(&json!({ "verified": answers, "failed": failures.iter().map(ToString::to_string).collect::<Vec<_>>() }))?;
    } else if answers.is_empty() && failures.is_empty() {
        out.note("no models here to verify; `distilface setup` gets the default one");
    }
    // The first is the answer of the command; the others are told before it.
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else { return Ok(()) };
    for error in failures {
        out.warn(&error.to_string());
    }
    Err(crate::Error::from(first).into())
}

fn architecture(model: &ModelDir) -> String {
    format!("{:?}", model.manifest.architecture).to_lowercase()
}

fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(12).collect()
}

fn model_json(model: &ModelDir) -> Json {
    json!({ "path": model.path, "fingerprint": model.fingerprint.0, "manifest": model.manifest })
}
