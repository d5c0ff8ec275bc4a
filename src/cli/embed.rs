//! `distilface embed` gives the vectors of texts, and `distilface similarity` says how near texts are.

use std::io::BufRead;

use anyhow::Context;
use serde_json::{Value as Json, json};

use super::{
    App,
    client::{OnInterrupt, Session, with_session},
    failure::usage,
    layout::{self, LongWords},
    output::{Output, Style},
};
use crate::proto::{EmbedRequest, EmbedResponse, SimilarityRequest, TextKind};

/// Texts of one request when they come from stdin.
const BATCH: usize = 64;

/// Turn texts into vectors
#[derive(Debug, clap::Args)]
pub struct EmbedArgs {
    /// Texts; a lone - reads them from stdin, one a line
    #[arg(required = true, value_name = "TEXT")]
    texts: Vec<String>,
    /// Put the model's prompt for queries or for documents in front
    #[arg(long = "as", value_enum, default_value_t, value_name = "KIND")]
    kind: Kind,
}

/// Which prompt goes in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Kind {
    /// None
    #[default]
    Raw,
    /// The one for queries
    Query,
    /// The one for documents
    Document,
}

pub async fn run(app: &App, args: EmbedArgs) -> anyhow::Result<()> {
    let kind = match args.kind {
        Kind::Raw => TextKind::Unspecified,
        Kind::Query => TextKind::Query,
        Kind::Document => TextKind::Document,
    };
    with_session(app, OnInterrupt::Stop, async |session: &Session| {
        let embed = async |texts: Vec<String>| {
            let request = EmbedRequest { texts, kind: kind.into(), model: app.model_asked() };
            anyhow::Ok(session.encoder().embed(request).await?.into_inner())
        };
        if args.texts != ["-"] {
            let response = embed(args.texts.clone()).await?;
            return print(&app.out, &args.texts, &response, false);
        }
        loop {
            let texts = app.blocking(lines).await?;
            if texts.is_empty() {
                return Ok(());
            }
            let response = embed(texts.clone()).await?;
            print(&app.out, &texts, &response, true)?;
        }
    })
    .await
}

/// The next lines of stdin.
fn lines() -> anyhow::Result<Vec<String>> {
    let lines = std::io::stdin().lock().lines().take(BATCH);
    lines.collect::<Result<_, _>>().context("cannot read stdin as UTF-8")
}

/// One document for the texts of the command line, JSON lines for those of stdin.
fn print(out: &Output, texts: &[String], response: &EmbedResponse, as_lines: bool) -> anyhow::Result<()> {
    let each = texts.iter().zip(&response.embeddings);
    for (_, embedding) in each.clone().filter(|(_, e)| e.truncated) {
        out.warn(&format!(
            "a text of {} tokens is longer than the model reads; its end was not encoded",
            embedding.tokens
        ));
    }
    if out.is_json() {
        let embeddings: Vec<Json> = each
            .map(|(text, e)| json!({ "text": text, "tokens": e.tokens, "truncated": e.truncated, "vector": e.values }))
            .collect();
        if as_lines {
            return embeddings.iter().try_for_each(|line| out.json_line(line));
        }
        return out.json_line(&json!({
            "model": response.model,
            "model_fingerprint": response.model_fingerprint,
            "embeddings": embeddings,
        }));
    }
    for (text, e) in each {
        let head = format!("{} dimensions, {} tokens", e.values.len(), e.tokens);
        let name = layout::cut(&layout::one_line(text), out.width().saturating_sub(2));
        let shown: Vec<String> = e.values.iter().take(4).map(|v| format!("{v:.4}")).collect();
        let values = layout::wrap_after(
            "  ",
            &format!("{head}: [{}, …]", shown.join(", ")),
            out.width(),
            LongWords::Keep,
        );
        out.line(&format!("{}\n{values}", out.paint(Style::Bold, &name)))?;
    }
    if !as_lines {
        out.note("(--json prints all values)");
    }
    Ok(())
}

/// Tell how near texts are in meaning
#[derive(Debug, clap::Args)]
pub struct SimilarityArgs {
    /// The text to compare
    #[arg(value_name = "TEXT")]
    text: String,
    /// With these
    #[arg(required = true, value_name = "OTHER")]
    others: Vec<String>,
}

pub async fn run_similarity(app: &App, args: SimilarityArgs) -> anyhow::Result<()> {
    if args.text.trim().is_empty() {
        return Err(usage("the text to compare is empty"));
    }
    with_session(app, OnInterrupt::Stop, async |session: &Session| {
        let (text, others) = (args.text.clone(), args.others.clone());
        let request = SimilarityRequest { text, others, model: app.model_asked() };
        let scores = session.encoder().similarity(request).await?.into_inner().scores;
        let out = &app.out;
        if out.is_json() {
            let others =
                args.others.iter().zip(&scores).map(|(text, score)| json!({ "text": text, "score": score }));
            return out.document(&json!({ "text": args.text, "others": others.collect::<Vec<_>>() }));
        }
        for (text, score) in args.others.iter().zip(&scores) {
            let head = format!("{score:>6.3}  ");
            let lines = layout::wrap_after(&head, text, out.width(), LongWords::Break);
            out.line(&lines)?;
        }
        Ok(())
    })
    .await
}
