//! The command line: one file per command; the only module that prints.
//!
//! A command is a struct of arguments and a `run`. Those that touch a database speak gRPC through `client`, to a
//! server or to an engine inside this process, and print through `output`; `failure` makes exit codes of errors.

use std::{io::Write as _, path::PathBuf};

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::{
    allocator,
    config::{Loaded, LogFormat, Origin, Override},
    process, telemetry,
};

mod backup;
mod bench;
mod client;
mod collection;
mod completions;
mod config;
mod doctor;
mod document;
mod embed;
mod eval;
pub mod failure;
mod finetune;
mod ingest;
pub mod layout;
mod model;
pub mod output;
mod parsers;
mod repair;
mod restore;
mod search;
mod serve;
mod setup;
mod signals;
mod sweep;
mod values;
mod verify;

use client::{Needs, Target};
use output::{ColorChoice, Output};
use signals::block_on;

/// A semantic search database: text in, ranked hits out.
#[derive(Debug, Parser)]
#[command(
    name = "distilface",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = failure::EXIT_CODES
)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Globals {
    /// Settings from this file [default: $DISTILFACE_CONFIG, else ~/.config/distilface/config.toml]
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Work on this data folder; all commands but `serve` then need no server
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    data: Option<PathBuf>,
    /// Work on the server at this address [default: $DISTILFACE_URL, else http://127.0.0.1:7700]
    #[arg(long, global = true, value_name = "URL", value_hint = clap::ValueHint::Url)]
    server: Option<String>,
    /// The encoder: a name under the models folder, a path, or "none"; of a server, the name of one of its models
    #[arg(long, global = true, value_name = "NAME")]
    model: Option<String>,
    /// Where the encoder runs: auto, cpu, openvino, cuda or cuda:N
    #[arg(long, global = true, value_name = "DEVICE")]
    device: Option<String>,
    /// The numbers it computes in: auto, fp32, bf16, fp16 or int8
    #[arg(long, global = true, value_name = "PRECISION")]
    precision: Option<String>,
    /// Answer as JSON; errors too, on stderr
    #[arg(long, global = true)]
    json: bool,
    /// Only results, warnings and errors
    #[arg(long, short, global = true)]
    quiet: bool,
    /// When to colour
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        hide_possible_values = true
    )]
    color: ColorChoice,
}

#[derive(Debug, Subcommand)]
enum Command {
    Setup(setup::SetupArgs),
    /// Run the server
    Serve(serve::ServeArgs),
    /// Put a folder, files or stdin into a collection
    Ingest(ingest::IngestArgs),
    /// Find documents by meaning
    Search(search::SearchArgs),
    /// Turn texts into vectors
    Embed(embed::EmbedArgs),
    /// Tell how near texts are in meaning
    Similarity(embed::SimilarityArgs),
    /// Create, show and delete collections and aliases
    Collection(collection::CollectionArgs),
    /// Get, delete, list and count documents
    Document(document::DocumentArgs),
    /// List, show, pull, import, export and verify models
    Model(model::ModelArgs),
    Finetune(Box<finetune::FinetuneArgs>),
    Sweep(Box<sweep::SweepArgs>),
    /// Measure quality on reference values, sentence pairs and judged collections, and speed
    Eval(eval::EvalArgs),
    /// Measure time and memory on this machine
    Bench(bench::BenchArgs),
    Doctor(doctor::DoctorArgs),
    Verify(verify::VerifyArgs),
    Repair(repair::RepairArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    /// Print the effective settings and where each comes from
    Config(config::ConfigArgs),
    /// Write a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// The context that a command works with.
struct App {
    out: Output,
    loaded: Loaded,
    target: Target,
    /// What the command needs of a data folder that it opens.
    needs: Needs,
    /// The first SIGINT or SIGTERM, where the command looks at it; see [`signals`].
    interrupt: CancellationToken,
}

impl App {
    /// The model that a request to a server names: what `--model` says. A folder opened here has it as its default
    /// already.
    fn model_asked(&self) -> String {
        match (&self.target, self.loaded.origin("encoder.model")) {
            (Target::Server { .. }, Origin::Flag(_)) => self.loaded.config.encoder.model.clone(),
            _ => String::new(),
        }
    }
}

/// Parses the process's arguments, runs the command and ends the process with its exit code.
pub fn main() -> ! {
    allocator::bound();
    process::outlive_file_limit();
    let code = command();
    // A closed pipe was told already, if anybody is to hear of it.
    let _ = std::io::stdout().flush();
    process::end(code.into())
}

/// Runs the command that the arguments name; its exit code.
fn command() -> u8 {
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            if error.use_stderr() && (arguments.iter().any(|a| a == "--json") || logs_json(&arguments)) {
                let text = in_plain_words(&error.to_string());
                let message = text.trim_start_matches("error: ").trim();
                Output::new(true, false, ColorChoice::Never).error(message, "usage", code);
            } else if error.use_stderr() && in_plain_words(&error.to_string()) != error.to_string() {
                // What clap prints is laid out already.
                Output::new(false, false, ColorChoice::Never).as_it_is(&in_plain_words(&error.to_string()));
            } else {
                // A closed pipe below `--help` is nobody's problem.
                let _ = error.print();
            }
            return code;
        }
    };
    let json = cli.globals.json || logs_json(&arguments);
    let out = Output::new(json, cli.globals.quiet, cli.globals.color);
    match run(cli, out) {
        Ok(()) => 0,
        Err((out, error)) => failure::report(&out, &error),
    }
}

/// An error of the command line without the words that Rust has for a number that cannot be read.
fn in_plain_words(error: &str) -> String {
    const WORDS: [(&str, &str); 6] = [
        ("invalid digit found in string", "it is not a whole number"),
        ("cannot parse integer from empty string", "a whole number is missing"),
        ("number too large to fit in target type", "the number is too large"),
        ("number too small to fit in target type", "the number is too small"),
        ("invalid float literal", "it is not a number"),
        ("cannot parse float from empty string", "a number is missing"),
    ];
    WORDS.iter().fold(error.to_owned(), |error, (rust, plain)| error.replace(rust, plain))
}

/// Whether these are the arguments of a server whose log is to be JSON: then whatever it says is, also that it cannot
/// start since its arguments or settings are wrong.
fn logs_json(arguments: &[std::ffi::OsString]) -> bool {
    let named = arguments.iter().position(|argument| argument == "--config").map(|at| at + 1);
    let file = match named {
        Some(at) => arguments.get(at).map(PathBuf::from),
        None => arguments
            .iter()
            .find_map(|argument| Some(PathBuf::from(argument.to_str()?.strip_prefix("--config=")?))),
    };
    arguments.iter().skip(1).any(|argument| argument == "serve")
        && LogFormat::told(file.as_deref(), std::env::vars_os()) == LogFormat::Json
}

fn run(cli: Cli, out: Output) -> Result<(), (Output, anyhow::Error)> {
    let Cli { globals, command } = cli;
    if let Command::Completions(args) = &command {
        // Needs neither settings nor a database, and must work where those are broken.
        return completions::run(args, &out).map_err(|error| (out, error));
    }
    if let Command::Config(args) = &command
        && let Some(written) = args.init(globals.config.as_deref(), &out)
    {
        return written.map_err(|error| (out, error));
    }
    let prepared = prepare(&globals, &command);
    let (loaded, target) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Err((out, error)),
    };
    let needs = needs(&command);
    let app = App { out, loaded, target, needs, interrupt: CancellationToken::new() };
    dispatch(&app, command).map_err(|error| (app.out, error))
}

fn prepare(globals: &Globals, command: &Command) -> anyhow::Result<(Loaded, Target)> {
    let mut loaded =
        Loaded::read(globals.config.as_deref(), std::env::vars_os(), &overrides(globals, command)?)
            .map_err(crate::Error::from)?;
    // Evaluation is about the model, not about rounding, unless rounding is asked for.
    let encoder = &loaded.config.encoder;
    let on_cpu = matches!(encoder.device.as_str(), "auto" | "cpu");
    if matches!(command, Command::Eval(_)) && encoder.precision == "auto" && on_cpu {
        loaded.config.encoder.precision = "fp32".into();
    }
    let mut log = loaded.config.log.clone();
    if !matches!(command, Command::Serve(_)) && loaded.origin("log.filter") == &Origin::Default {
        // The life of an engine that opens for one command interests nobody; `serve` tells it. What is wrong in the folder
        // the command says itself, once.
        log.filter = format!("warn,{}=off", crate::engine::FINDINGS_TARGET);
    }
    telemetry::init(&log).map_err(crate::Error::from)?;
    let data = globals.data.is_some() && !matches!(command, Command::Serve(_));
    let target = Target::choose(data, globals.server.as_deref())?;
    Ok((loaded, target))
}

/// What a command needs of a data folder that it opens itself.
fn needs(command: &Command) -> Needs {
    match command {
        Command::Serve(_) | Command::Ingest(_) | Command::Restore(_) => Needs::Any,
        Command::Collection(args) if args.makes() => Needs::Any,
        Command::Embed(_) | Command::Similarity(_) | Command::Model(_) => Needs::None,
        _ => Needs::There,
    }
}

fn overrides(globals: &Globals, command: &Command) -> anyhow::Result<Vec<Override>> {
    let mut all = Vec::new();
    let mut set = |key, flag, value: Option<String>| {
        all.extend(value.map(|value| Override { key, value, flag }));
    };
    let data = match &globals.data {
        Some(dir) => {
            Some(dir.to_str().ok_or_else(|| failure::usage("--data: the path is not UTF-8"))?.to_owned())
        }
        None => None,
    };
    set("data.dir", "--data", data);
    set("encoder.model", "--model", globals.model.clone());
    set("encoder.device", "--device", globals.device.clone());
    set("encoder.precision", "--precision", globals.precision.clone());
    if let Command::Serve(args) = command {
        set("server.listen", "--listen", args.listen.clone());
        set("server.metrics_listen", "--metrics-listen", args.metrics_listen.clone());
        set("server.allow_remote", "--allow-remote", args.allow_remote.then(|| "true".to_owned()));
    }
    Ok(all)
}

fn dispatch(app: &App, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => block_on(app, serve::run(app, &args)),
        Command::Ingest(args) => block_on(app, ingest::run(app, args)),
        Command::Search(args) => block_on(app, search::run(app, args)),
        Command::Embed(args) => block_on(app, embed::run(app, args)),
        Command::Similarity(args) => block_on(app, embed::run_similarity(app, args)),
        Command::Collection(args) => block_on(app, collection::run(app, args)),
        Command::Document(args) => block_on(app, document::run(app, args)),
        Command::Model(args) => model::run(app, args),
        Command::Finetune(args) => finetune::run(app, &args),
        Command::Sweep(args) => sweep::run(app, &args),
        Command::Eval(args) => eval::run(app, args),
        Command::Bench(args) => bench::run(app, args),
        Command::Setup(args) => setup::run(&args, &app.out, &app.loaded.config),
        Command::Verify(args) => verify::run(app, &args),
        Command::Repair(args) => repair::run(app, &args),
        Command::Backup(args) => block_on(app, backup::run(app, args)),
        Command::Restore(args) => block_on(app, restore::run(app, args)),
        Command::Doctor(args) => doctor::run(&args, &app.out, &app.loaded),
        Command::Config(args) => config::run(&args, &app.out, &app.loaded),
        Command::Completions(args) => completions::run(&args, &app.out),
    }
}
