//! `distilface ingest` stores folders, files and standard input as documents of a collection.
//!
//! Running it again does no harm: documents whose content is the same are counted and cost nothing. (An id that repeats
//! is the exception: of its documents each replaces the other, every time.) That is also how an
//! interrupted run goes on. What cannot be read or stored is told with its file and line, and the rest goes on. Of an id
//! that comes twice in one run the later document stays, wherever requests end, and the result says how many there were.
//! `--mode` narrows this to documents that are new or to those that are stored already; the others are refused, told
//! and counted.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    App,
    client::{OnInterrupt, Session, with_session},
    failure::{self, Stop, usage},
    layout,
    output::Output,
    search::COLLECTION_DEFAULT,
};
use crate::proto::{
    Collection, CollectionConfig, CreateCollectionRequest, Document, GetCollectionRequest,
    ListCollectionsRequest,
};

mod batch;
mod durability;
mod mode;
mod origin;
mod prune;
mod pump;
mod reading;
mod tally;

use batch::{Batch, Pace, Piece};
pub use durability::Durability;
use mode::Mode;
use origin::Origins;
use pump::{End, Pump};
pub use reading::field_type;
use tally::Tally;

/// Put a folder, files or stdin into a collection
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Running it again skips what is unchanged, so an interrupted run just goes on.
A text, Markdown or HTML file becomes a document whose id is its path below the folder that is given.
A file whose id came from another folder before is refused: see --id-prefix and --take-over.
A file that is gone leaves its document behind: see --prune.
Of an id that comes twice in one run the later document stays; both are encoded each time.
What --mode refuses is told, counted as refused, and ends the run with exit code 3.

Examples:
  distilface ingest ~/notes -c notes
  distilface ingest ~/notes -c notes --prune
  distilface ingest papers.jsonl -c papers --id-field doi --text-field abstract
  distilface ingest papers.jsonl -c papers --mode insert
  distilface ingest prices.csv --type year=integer --type date=datetime
  cat more.jsonl | distilface ingest - -c papers")]
pub struct IngestArgs {
    #[command(flatten)]
    source: reading::SourceArgs,
    /// Collection or alias; made if it is not there
    #[arg(long, short, value_name = "NAME", default_value = COLLECTION_DEFAULT)]
    collection: String,
    /// Whether documents are only made, only replaced, or either
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    mode: Mode,
    /// What documents are not lost by once they are answered
    #[arg(long, value_enum, value_name = "LOSS", default_value_t)]
    durability: Durability,
    /// Replace documents of the same id that came from another folder, such as the one that was moved here
    #[arg(long)]
    take_over: bool,
    #[command(flatten)]
    prune: prune::PruneArgs,
}

pub async fn run(app: &App, args: IngestArgs) -> anyhow::Result<()> {
    args.prune.check(&app.out)?;
    let source = args.source.open()?;
    with_session(app, OnInterrupt::Drain, async move |session: &Session| {
        source.left_out().iter().for_each(|left_out| app.out.note(left_out));
        let empty = source.is_empty();
        if empty {
            app.out.warn("there is no file to read; see `distilface ingest --help` for what is read");
        }
        let files = source.files();
        let mut origins = Origins { client: session.documents(), collection: args.collection.clone() };
        if args.prune.dry_run {
            return app.unless_interrupted(prune::show(&app.out, &mut origins, &files)).await;
        }
        let there = app.unless_interrupted(find(session, &args.collection)).await?;
        if args.mode == Mode::Replace && there.is_none() {
            // Nothing can be replaced in it: the server says so, and which collections there are.
            let request = GetCollectionRequest { name: args.collection.clone() };
            session.collections().get(request).await?;
        }
        let remarks = source.remarks();
        let shown = (source.bytes_total(), source.understood());
        let pace = Arc::new(Pace::default());
        // Reading runs ahead by a few batches at most; then it waits for the server.
        let (tell, mut pieces) = mpsc::channel(2);
        let message_bytes_max = app.loaded.config.limits.message_bytes_max;
        let pace_of_reader = Arc::clone(&pace);
        std::thread::Builder::new()
            .name("read".into())
            .spawn(move || batch::read(source.records(), message_bytes_max, &pace_of_reader, &tell))?;
        // Nothing is replaced under that mode, whichever folder it came from.
        if !args.take_over && args.mode != Mode::Insert {
            let (guarded, passed) = mpsc::channel(2);
            let read = std::mem::replace(&mut pieces, passed);
            tokio::spawn(origins.clone().guard(there.is_some(), read, guarded));
        }
        let to = (args.collection.as_str(), args.mode, args.durability);
        let mut pump = Pump::new(&app.out, session.documents(), to, &app.interrupt, shown, pace);
        // The collection is looked for when there is something to put into it: its first document tells what kind of
        // collection it must be, and a folder without documents makes none.
        let first = loop {
            let piece = tokio::select! {
                piece = pieces.recv() => piece,
                () = app.interrupt.cancelled() => return Err(Stop::Interrupted.into()),
            };
            pump.tell_understood();
            match piece {
                Some(Piece::Batch(batch)) => break Some(batch),
                Some(Piece::Fault(fault)) if fault.wrong_use => {
                    return Err(usage(format!("{}: {}", fault.place, fault.reason)));
                }
                Some(Piece::Fault(fault)) => pump.fault(&fault),
                Some(Piece::Broken(status)) => return Err(status.into()),
                None => break None,
            }
        };
        if let Some(Document { vector, .. }) =
            first.as_ref().and_then(|batch: &Batch| batch.documents.first())
        {
            let dimension = vector.as_ref().map(|v| v.values.len());
            let made = make_if_missing(app, session, (&args.collection, there), dimension);
            let made = app.unless_interrupted(made).await?;
            if !made && !files.whole().folders().is_empty() {
                tell_of_unknown_folders(&app.out, &mut origins).await;
            }
        }
        let (mut tally, mut end) = pump.run(first, pieces).await;
        tally.remark(&remarks, matches!(end, End::Done));
        if matches!(end, End::Done) {
            let pruned = prune::after(app, &args.prune, &mut origins, &files, &mut tally);
            tokio::select! {
                pruned = pruned => pruned?,
                () = app.interrupt.cancelled() => end = End::Interrupted,
            }
        }
        conclude(app, session, (to.0, to.1), &tally, (empty, end))
    })
    .await
}

/// The collection of this name or alias. All are asked for, since a server notes a question for one that is missing as
/// a refusal.
async fn find(session: &Session, name: &str) -> anyhow::Result<Option<Collection>> {
    let all = session.collections().list(ListCollectionsRequest {}).await?.into_inner().collections;
    let is_it = |collection: &Collection| {
        collection.config.as_ref().is_some_and(|config| config.name == name)
            || collection.aliases.iter().any(|alias| alias == name)
    };
    Ok(all.into_iter().find(is_it))
}

/// Whether it was made.
async fn make_if_missing(
    app: &App,
    session: &Session,
    (name, there): (&str, Option<Collection>),
    dimension: Option<usize>,
) -> anyhow::Result<bool> {
    let model = app.model_asked();
    if let Some(Collection { model: has, .. }) = there {
        anyhow::ensure!(
            model.is_empty() || dimension.is_some() || has == model,
            "collection {name} was made with model {has}, not {model}: leave --model out, or name another collection"
        );
        return Ok(false);
    }
    let config = CollectionConfig {
        name: name.to_owned(),
        dimension: dimension.and_then(|d| u32::try_from(d).ok()).unwrap_or_default(),
        vectors_only: dimension.is_some(),
        model: if dimension.is_some() { String::new() } else { model },
        ..Default::default()
    };
    // Another ingest may make it at the same moment.
    let request = CreateCollectionRequest { config: Some(config), if_not_exists: true };
    if !session.collections().create(request).await?.into_inner().created {
        return Ok(false);
    }
    app.out.note(&match dimension {
        Some(dimension) => format!("created collection {name} for vectors of dimension {dimension}"),
        None => format!("created collection {name}"),
    });
    Ok(true)
}

/// Files that were stored by a program that did not write down where from.
async fn tell_of_unknown_folders(out: &Output, origins: &mut Origins) {
    // What cannot be counted is no reason to stop: it is only told.
    let unknown = origins.without_folder().await.unwrap_or(0);
    if unknown > 0 {
        out.note(&format!(
            "{} of files were stored by an earlier version, which did not keep their folder; \
             those with the path of a file here are taken for that file's",
            layout::counted(unknown, "document")
        ));
    }
}

/// Prints the result. `empty`: there was nothing to read, which was told.
fn conclude(
    app: &App,
    session: &Session,
    (collection, mode): (&str, Mode),
    tally: &Tally,
    (empty, end): (bool, End),
) -> anyhow::Result<()> {
    let out = &app.out;
    let nothing = tally.done() + tally.unanswered == 0;
    if nothing && !empty && matches!(end, End::Done) {
        out.warn("no document was found in what was read");
    }
    if out.is_json() {
        out.document(&tally.json(collection, matches!(end, End::Done)))?;
    } else {
        out.line(&tally.words(out, collection, mode))?;
    }
    tally.tell(out);
    let open = match tally.unanswered {
        0 => String::new(),
        n => format!("; {} more were sent and not answered, and may be stored", layout::thousands(n)),
    };
    let stored = layout::counted(tally.stored(), "document");
    let go_on = format!(
        "{stored} acknowledged and stored{open}. Run the same command again to go on: {}",
        mode.again()
    );
    match end {
        End::Done if tally.failed + tally.refused > 0 => Err(Stop::Partial.into()),
        End::Done => Ok(()),
        End::Interrupted => {
            out.note(&go_on);
            Err(Stop::Interrupted.into())
        }
        End::Broken(status) => {
            out.note(&go_on);
            Err(match failure::transport_fault(&status) {
                Some(reason) => Stop::ServerGone { server: session.name().to_owned(), reason }.into(),
                None => status.into(),
            })
        }
    }
}

/// Refuses what would need an answer from somebody who cannot be asked.
fn needs_yes(out: &Output, yes: bool) -> anyhow::Result<()> {
    if yes || out.can_ask() {
        return Ok(());
    }
    Err(usage(
        "--prune removes documents for good, and there is no terminal to ask on; look with --dry-run, then give --yes",
    ))
}
