//! `distilface search` answers a query with hits, best first, each with the passage that was nearest.

use std::{borrow::Cow, collections::BTreeMap, io::Read};

use anyhow::Context;
use serde_json::{Value as Json, json};
use tonic::Code;

use super::{
    App,
    client::{OnInterrupt, Session, with_session},
    failure::usage,
    layout::{self, LongWords},
    output::{Output, Style},
    values,
};
use crate::{
    proto::{self, Explain, Filter, SearchRequest, SearchResponse, filter::Form, search_request::Query},
    source::composed,
};

/// Lines of a title that are shown.
const TITLE_LINES_MAX: usize = 2;

/// The collection that commands work on unless `-c` names another.
pub const COLLECTION_DEFAULT: &str = "default";

/// The long help of `--filter`, after a sentence on what the condition is for.
macro_rules! filter_help {
    ($first:literal) => {
        concat!(
            $first,
            ", in quotes for the shell. An example of each operator:\n\n  \
             lang = \"en\"\n  \
             lang != \"en\"\n  \
             year < 2000\n  \
             year <= 2000\n  \
             year > 2000\n  \
             day >= 2024-01-31 (a date or a time stands without quotes)\n  \
             lang in [\"en\", \"de\"]\n  \
             path prefix \"docs/\"\n  \
             tags contains \"draft\" (an element of a list, or a part of a text)\n  \
             exists(year)\n  \
             not exists(year)\n  \
             year >= 2000 and (lang = \"en\" or read = true)\n\n\
             A field whose name is not one plain word stands in backquotes, such as `first name`. Only fields of the \
             payload can be tested: the id, the title and the text of a document are none."
        )
    };
}
pub(super) use filter_help;

/// Find documents by meaning
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  distilface search \"how do plants make sugar\" -c notes -k 5
  distilface search \"tax law\" --filter 'year >= 2000 and lang = \"en\"'
  distilface search --like doc-17 --json")]
pub struct SearchArgs {
    /// What to look for, in plain words
    #[arg(value_name = "QUERY")]
    query: Option<String>,
    /// Collection or alias
    #[arg(long, short, value_name = "NAME", default_value = COLLECTION_DEFAULT)]
    collection: String,
    /// How many hits
    #[arg(long, short, value_name = "N", default_value_t = 10)]
    k: u32,
    /// Only documents whose fields meet this condition, such as 'year >= 2000 and tags contains "draft"'
    #[arg(long, short, value_name = "EXPR", long_help = filter_help!("Only documents whose fields meet this condition"))]
    filter: Option<String>,
    /// Documents like the one with this id, by all its passages: the best score counts
    #[arg(long, value_name = "ID", conflicts_with_all = ["query", "vector"])]
    like: Option<String>,
    /// A vector instead of a text: a JSON array, or - to read one from stdin
    #[arg(long, value_name = "JSON", conflicts_with = "query", allow_hyphen_values = true)]
    vector: Option<String>,
    /// Compare with every vector instead of walking the graph
    #[arg(long)]
    exact: bool,
    /// Candidates that the graph keeps: more finds better and takes longer
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    ef: u32,
    /// Leave out hits with a lower score
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    threshold: Option<f32>,
    /// A hit for each passage instead of one for each document
    #[arg(long)]
    by_passage: bool,
    /// Show the documents' fields
    #[arg(long)]
    payload: bool,
    /// Lines of the passage to show, 0 for all
    #[arg(long, value_name = "N", default_value_t = 4)]
    lines: usize,
    /// Tell where the time went and how the hits were found
    #[arg(long)]
    explain: bool,
}

pub async fn run(app: &App, args: SearchArgs) -> anyhow::Result<()> {
    let vector = match args.vector.clone() {
        Some(given) => Some(app.blocking(move || read_vector(&given)).await?),
        None => None,
    };
    let request = request(&args, vector)?;
    with_session(app, OnInterrupt::Stop, async |session: &Session| {
        let response = match session.search().search(request.clone()).await {
            // An id that is pasted from a list of files may not be in the form in which `ingest` stores it.
            Err(status) if status.code() == Code::NotFound && composed_like(&request).is_some() => {
                session.search().search(composed_like(&request).unwrap_or(request)).await?
            }
            response => response?,
        };
        let response = response.into_inner();
        if response.query.is_some_and(|q| q.truncated) {
            app.out.warn("the query is longer than the model reads; its end was not looked at");
        }
        app.out.hints(&response.hints);
        print(&app.out, &args, &response)
    })
    .await
}

/// The same question with its document's id in the form that file names have as ids, where that is another.
fn composed_like(request: &SearchRequest) -> Option<SearchRequest> {
    let Some(Query::DocumentId(id)) = &request.query else { return None };
    let Cow::Owned(composed) = composed(id) else { return None };
    Some(SearchRequest { query: Some(Query::DocumentId(composed)), ..request.clone() })
}

fn request(args: &SearchArgs, vector: Option<Vec<f32>>) -> anyhow::Result<SearchRequest> {
    let query = match (&args.query, &args.like, vector) {
        (Some(text), ..) => Query::Text(text.clone()),
        (_, Some(id), _) => Query::DocumentId(id.clone()),
        (.., Some(values)) => Query::Vector(proto::Vector { values }),
        _ => return Err(usage("say what to look for: a QUERY in plain words, --like ID or --vector JSON")),
    };
    Ok(SearchRequest {
        collection: args.collection.clone(),
        query: Some(query),
        k: args.k,
        filter: filter(args.filter.as_deref()),
        ef: args.ef,
        exact: args.exact,
        score_threshold: args.threshold,
        by_passage: args.by_passage,
        without_payload: false,
        without_text: false,
        explain: args.explain,
    })
}

/// A filter in its text form; the server reads it.
pub fn filter(expression: Option<&str>) -> Option<Filter> {
    expression.map(|text| Filter { form: Some(Form::Expression(text.to_owned())) })
}

fn read_vector(given: &str) -> anyhow::Result<Vec<f32>> {
    let mut text = given.to_owned();
    if given == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text).context("cannot read the vector from stdin")?;
    }
    serde_json::from_str(&text)
        .map_err(|e| usage(format!("--vector is not a JSON array of numbers such as [0.1, -0.2]: {e}")))
}

fn print(out: &Output, args: &SearchArgs, response: &SearchResponse) -> anyhow::Result<()> {
    if out.is_json() {
        return out.document(&response_json(response));
    }
    if response.hits.is_empty() {
        out.note("nothing found");
    } else {
        let hits = response.hits.iter().enumerate().map(|(i, hit)| hit_words(out, args, i + 1, hit));
        out.line(&hits.collect::<Vec<_>>().join("\n\n"))?;
    }
    match &response.explain {
        Some(explain) => out.line(&format!("\n{}", explain_words(out, explain))),
        None => Ok(()),
    }
}

fn hit_words(out: &Output, args: &SearchArgs, rank: usize, hit: &proto::Hit) -> String {
    const INDENT: &str = "    ";
    let width = out.width();
    let titled = !hit.title.trim().is_empty();
    let head = format!("{rank:>2}. {:.3}  ", hit.score);
    let name = if titled { &hit.title } else { &hit.id };
    let mut lines = layout::wrap_after(&head, name, width, LongWords::Break);
    if titled && let Some((end, _)) = lines.match_indices('\n').nth(TITLE_LINES_MAX - 1) {
        lines.truncate(end);
        let last = lines.rfind('\n').map_or(0, |at| at + 1);
        let cut = layout::cut(&format!("{} …", &lines[last..]), width);
        lines.replace_range(last.., &cut);
    }
    // Wrapped first and painted after: escape codes have no width.
    let (first, rest) = lines.split_at(head.len().min(lines.len()));
    let paint_lines =
        |text: &str, style| text.lines().map(|line| out.paint(style, line)).collect::<Vec<_>>().join("\n");
    let mut text = format!("{}{}", out.paint(Style::Accent, first), paint_lines(rest, Style::Bold));
    if titled {
        let place = hit.passage.as_ref().filter(|p| p.ordinal > 0 || args.by_passage);
        let place = place.map_or_else(String::new, |p| format!(" (passage {})", p.ordinal + 1));
        let id = layout::wrap_after(INDENT, &format!("{}{place}", hit.id), width, LongWords::Keep);
        text.push_str(&format!("\n{}", paint_lines(&id, Style::Dim)));
    }
    if let Some(passage) = &hit.passage {
        let mut lines = layout::wrap_lines(&passage.text, width - INDENT.len(), LongWords::Break);
        if args.lines > 0 {
            // Where lines are counted, none is spent on nothing.
            lines.retain(|line| !line.is_empty());
        }
        if args.lines > 0 && lines.len() > args.lines {
            lines.truncate(args.lines);
            if let Some(last) = lines.last_mut() {
                *last = layout::cut(&format!("{last} …"), width - INDENT.len());
            }
        }
        text.extend(lines.iter().map(|line| format!("\n{INDENT}{line}").trim_end_matches(' ').to_owned()));
    }
    if args.payload && !hit.payload.is_empty() {
        let fields = values::payload_words(&hit.payload);
        let fields = layout::wrap_after(INDENT, &fields, width, LongWords::Break);
        text.push_str(&format!("\n{}", paint_lines(&fields, Style::Dim)));
    }
    text
}

fn explain_words(out: &Output, explain: &Explain) -> String {
    let time = |us: u64| layout::duration(std::time::Duration::from_micros(us));
    let mut pairs = vec![("plan", format!("{} ({})", explain.plan, explain.reason))];
    if explain.ef > 0 {
        pairs.push(("candidates", explain.ef.to_string()));
    }
    pairs.extend([
        ("compared exactly", layout::thousands(explain.scanned)),
        ("matching documents", layout::thousands(explain.matching_documents)),
        ("tokenize", time(explain.tokenize_us)),
        ("wait for encoder", time(explain.queue_us)),
        (
            "encode",
            if explain.encode_cached { "known from before".to_owned() } else { time(explain.encode_us) },
        ),
        ("filter", time(explain.filter_us)),
        ("search", time(explain.search_us)),
        ("fetch", time(explain.fetch_us)),
        ("total", time(explain.total_us)),
    ]);
    if !explain.device.is_empty() {
        pairs.push(("device", explain.device.clone()));
    }
    layout::pairs(&pairs, out.width())
}

fn response_json(response: &SearchResponse) -> Json {
    let hits: Vec<Json> = response.hits.iter().map(hit_json).collect();
    let query = response.query.unwrap_or_default();
    let mut answer = BTreeMap::from([
        ("hits", json!(hits)),
        ("query", json!({ "tokens": query.tokens, "truncated": query.truncated })),
    ]);
    if !response.hints.is_empty() {
        answer.insert("hints", json!(response.hints));
    }
    if let Some(e) = &response.explain {
        let explain = json!({
            "tokenize_us": e.tokenize_us, "queue_us": e.queue_us, "encode_us": e.encode_us,
            "filter_us": e.filter_us, "search_us": e.search_us, "fetch_us": e.fetch_us, "total_us": e.total_us,
            "plan": e.plan, "reason": e.reason, "matching_documents": e.matching_documents,
            "scanned": e.scanned, "ef": e.ef, "device": e.device,
            "encode_cached": e.encode_cached,
        });
        answer.insert("explain", explain);
    }
    json!(answer)
}

fn hit_json(hit: &proto::Hit) -> Json {
    json!({
        "id": hit.id,
        "score": hit.score,
        "title": hit.title,
        "passage": hit.passage.as_ref().map(values::passage_json),
        "payload": values::payload_json(&hit.payload),
        "version": hit.version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_a_json_array_or_wrong_use() {
        assert_eq!(read_vector("[1, -0.5]").unwrap(), [1.0, -0.5]);
        for bad in ["", "1,2", "[\"a\"]", "[NaN]", "{}"] {
            assert!(read_vector(bad).unwrap_err().to_string().contains("JSON array"), "{bad}");
        }
    }
}
