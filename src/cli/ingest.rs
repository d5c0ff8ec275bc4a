//! `distilface ingest`: folders, files and stdin -> documents of a collection.
//!
//! Running it again does no harm: documents whose content is the same are counted and cost nothing. That is also how an
//! interrupted run goes on. What cannot be read or stored is told with its file and line, and the rest goes on.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::sync::mpsc;
use tonic::Code;

use super::{
    App,
    client::{OnInterrupt, Session, with_session},
    failure::Stop,
    layout::{self, LongWords},
    output::{Output, Style},
    search::COLLECTION_DEFAULT,
};
use crate::proto::{CollectionConfig, CreateCollectionRequest, Document, GetCollectionRequest};

mod pump;
mod reading;

use pump::{Batch, End, Piece, Pump};

/// Put a folder, files or stdin into a collection
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Running it again skips what is unchanged, so an interrupted run just goes on.

Examples:
  distilface ingest ~/notes -c notes
  distilface ingest papers.jsonl -c papers --id-field doi --text-field abstract
  distilface ingest prices.csv --type year=integer --type date=datetime
  cat more.jsonl | distilface ingest - -c papers")]
pub struct IngestArgs {
    #[command(flatten)]
    source: reading::SourceArgs,
    /// Collection or alias; made if it is not there
    #[arg(long, short, value_name = "NAME", default_value = COLLECTION_DEFAULT)]
    collection: String,
}

/// What became of the documents so far.
#[derive(Debug, Clone)]
pub struct Tally {
    inserted: u64,
    updated: u64,
    unchanged: u64,
    failed: u64,
    passages: u64,
    tokens: u64,
    truncated: u64,
    started: Instant,
}

pub async fn run(app: &App, args: IngestArgs) -> anyhow::Result<()> {
    let source = args.source.open()?;
    with_session(app, OnInterrupt::Drain, async move |session: &Session| {
        if let Some(skipped) = source.skipped() {
            app.out.note(&skipped);
        }
        let total = source.bytes_total();
        // Reading runs ahead by a few batches at most; then it waits for the server.
        let (tell, mut pieces) = mpsc::channel(2);
        let message_bytes_max = app.loaded.config.limits.message_bytes_max;
        std::thread::Builder::new()
            .name("read".into())
            .spawn(move || pump::read(source.records(), message_bytes_max, &tell))?;
        let tally = Tally::new();
        let mut pump = Pump {
            out: &app.out,
            client: session.documents(),
            collection: &args.collection,
            interrupt: &app.interrupt,
            progress: app.out.progress("ingesting", total),
            tally,
            faults: HashMap::new(),
        };
        // The collection is looked for when there is something to put into it: its first document tells what kind of
        // collection it must be, and a folder without documents makes none.
        let first = loop {
            let piece = tokio::select! {
                piece = pieces.recv() => piece,
                () = app.interrupt.cancelled() => return Err(Stop::Interrupted.into()),
            };
            match piece {
                Some(Piece::Batch(batch)) => break Some(batch),
                Some(Piece::Fault(fault)) => pump.fault(&fault),
                None => break None,
            }
        };
        if let Some(Document { vector, .. }) =
            first.as_ref().and_then(|batch: &Batch| batch.documents.first())
        {
            let dimension = vector.as_ref().map(|v| v.values.len());
            make_if_missing(app, session, &args.collection, dimension).await?;
        }
        let (tally, end) = pump.run(first, pieces).await;
        conclude(&app.out, &args.collection, &tally, end)
    })
    .await
}

async fn make_if_missing(
    app: &App,
    session: &Session,
    name: &str,
    dimension: Option<usize>,
) -> anyhow::Result<()> {
    let model = app.model_asked();
    match session.collections().get(GetCollectionRequest { name: name.to_owned() }).await {
        Ok(answer) => {
            let has = answer.into_inner().collection.unwrap_or_default().model;
            anyhow::ensure!(
                model.is_empty() || dimension.is_some() || has == model,
                "collection {name} was made with model {has}, not {model}: leave --model out, or name another collection"
            );
            return Ok(());
        }
        Err(status) if status.code() == Code::NotFound => {}
        Err(status) => return Err(status.into()),
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
    session.collections().create(request).await?;
    app.out.note(&match dimension {
        Some(dimension) => format!("created collection {name} for vectors of dimension {dimension}"),
        None => format!("created collection {name}"),
    });
    Ok(())
}

fn conclude(out: &Output, collection: &str, tally: &Tally, end: End) -> anyhow::Result<()> {
    let elapsed = tally.started.elapsed();
    if out.is_json() {
        out.document(&json!({
            "collection": collection,
            "inserted": tally.inserted,
            "updated": tally.updated,
            "unchanged": tally.unchanged,
            "failed": tally.failed,
            "passages": tally.passages,
            "tokens": tally.tokens,
            "truncated": tally.truncated,
            "seconds": elapsed.as_secs_f64(),
            "documents_per_second": rate(tally, elapsed),
            "complete": matches!(end, End::Done),
        }))?;
    } else {
        out.line(&summary(out, collection, tally, elapsed))?;
    }
    if tally.truncated > 0 {
        let documents = layout::counted(tally.truncated, "document");
        out.warn(&format!(
            "{documents} had text past the model's limit, which cannot be found (chunking is off)"
        ));
    }
    match end {
        End::Done if tally.failed > 0 => Err(Stop::Partial.into()),
        End::Done => Ok(()),
        End::Interrupted => {
            out.note("run the same command again to go on: what is stored and unchanged is skipped");
            Err(Stop::Interrupted.into())
        }
        End::Broken(status) => {
            out.note("what is counted above is stored; run the same command again to go on");
            Err(status.into())
        }
    }
}

fn rate(tally: &Tally, elapsed: Duration) -> f64 {
    tally.stored() as f64 / elapsed.as_secs_f64().max(1e-3)
}

fn summary(out: &Output, collection: &str, tally: &Tally, elapsed: Duration) -> String {
    let counts = [
        (tally.inserted, "inserted", Style::Good),
        (tally.updated, "updated", Style::Good),
        (tally.unchanged, "unchanged", Style::Dim),
        (tally.failed, "failed", Style::Bad),
    ];
    let counts = counts.map(|(n, word, style)| {
        let text = format!("{} {word}", layout::thousands(n));
        if n > 0 { out.paint(style, &text) } else { text }
    });
    let passages = layout::counted(tally.passages, "passage");
    let mut second = format!("{passages} in {}", layout::duration(elapsed));
    if tally.inserted + tally.updated > 0 {
        second.push_str(&format!(" ({:.1} documents/s)", rate(tally, elapsed)));
    }
    let second = layout::wrap(&second, out.width(), LongWords::Keep).join("\n");
    let name = out.paint(Style::Bold, collection);
    // The longest count is about 15 columns; painted text has no width that could be measured.
    let between = if out.width() < layout::columns(collection) + 60 { "\n  " } else { ", " };
    let first = if between == ", " { " " } else { between };
    format!("{name}:{first}{}\n{second}", counts.join(between))
}
