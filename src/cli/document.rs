//! `distilface document`: get, set fields, delete, list in order of ids, count.

use std::{borrow::Cow, collections::HashSet};

use serde_json::{Map, Value as Json, json};

use super::{
    App,
    client::{OnInterrupt, Session, with_session},
    collection::{confirm_change, confirm_deletion},
    failure::{Stop, usage},
    ingest::{Durability, field_type},
    layout::{self, LongWords},
    output::{Output, Style},
    search::{COLLECTION_DEFAULT, filter, filter_help},
    values,
};
use crate::{
    api::convert::value::payload_to,
    meant,
    proto::{
        CountRequest, DeleteDocumentsRequest, GetCollectionRequest, GetDocumentsRequest,
        GetDocumentsResponse, ScrollRequest, SetPayloadRequest, SetPayloadResponse, StoredDocument,
        UnsetPayloadRequest, WriteStatus,
    },
    source::{FieldMap, ValueType, composed, long_integers},
    value::json::{integer_out_of_bounds, payload_from_json},
};

/// Documents of one page, where the server allows as many.
const PAGE: u64 = 100;

/// Get, change, delete, list and count documents
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct DocumentArgs {
    #[command(subcommand)]
    command: DocumentCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DocumentCommand {
    /// Print documents by id
    Get {
        /// Ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// Collection or alias
        #[arg(long, short, value_name = "NAME", default_value = COLLECTION_DEFAULT)]
        collection: String,
        /// With the first passage's vector (under --json)
        #[arg(long)]
        vectors: bool,
    },
    /// Set or remove fields of a document, or of all that match; no text is encoded again
    Set(SetArgs),
    /// Remove fields of documents, or all of them; no text is encoded again
    Unset(UnsetArgs),
    /// Delete documents by id or by filter
    Delete {
        /// Ids
        #[arg(value_name = "ID")]
        ids: Vec<String>,
        /// Collection or alias
        #[arg(long, short, value_name = "NAME", default_value = COLLECTION_DEFAULT)]
        collection: String,
        /// All that meet this condition, such as 'year < 2000'; --help lists the operators
        #[arg(long, short, value_name = "EXPR", conflicts_with = "ids", long_help = filter_help!("All documents whose fields meet this condition"))]
        filter: Option<String>,
        /// Only if the document (one ID) still has this version, which `document get --json` tells
        #[arg(long, value_name = "VERSION", conflicts_with = "filter", value_parser = clap::value_parser!(u64).range(1..))]
        expected_version: Option<u64>,
        /// What they must outlive when it is answered
        #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
        durability: Durability,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// List documents in the order of their ids; with --json one a line, in a form that `ingest` reads again
    /// with every type as it was
    Scroll {
        /// Collection or alias
        #[arg(long, short, value_name = "NAME", default_value = COLLECTION_DEFAULT)]
        collection: String,
        /// Only those that meet this condition, such as 'year < 2000'; --help lists the operators
        #[arg(long, short, value_name = "EXPR", long_help = filter_help!("Only documents whose fields meet this condition"))]
        filter: Option<String>,
        /// How many
        #[arg(long, short = 'n', value_name = "N", default_value_t = 20, conflicts_with = "all")]
        limit: u64,
        /// Every one
        #[arg(long, short)]
        all: bool,
        /// Go on where an earlier listing said
        #[arg(long, value_name = "CURSOR")]
        cursor: Option<String>,
        /// Leave out the texts
        #[arg(long)]
        no_text: bool,
        /// With the vectors (under --json), which a collection made with --vectors-only is read again from
        #[arg(long)]
        vectors: bool,
    },
    /// Count documents
    Count {
        /// Collection or alias
        #[arg(long, short, value_name = "NAME", default_value = COLLECTION_DEFAULT)]
        collection: String,
        /// Only those that meet this condition, such as 'year < 2000'; --help lists the operators
        #[arg(long, short, value_name = "EXPR", long_help = filter_help!("Only documents whose fields meet this condition"))]
        filter: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A value is read as JSON where it is JSON (5, 0.5, true, [\"a\",\"b\"], \"5\"), else as text.
An integer that does not fit into 64 bits is refused: read it with --type as string, or as float.

Examples:
  distilface document set paper-7 -c papers year=2001 lang=en
  distilface document set paper-7 -c papers --remove draft
  distilface document set -c papers --where 'year < 2000' archived=true
  distilface document set paper-7 -c papers seen=2024-05-01 --type seen=datetime")]
struct SetArgs {
    /// Id, unless --where chooses the documents; then fields and their values
    #[arg(value_name = "ID|FIELD=VALUE")]
    words: Vec<String>,
    /// Change all documents that meet this condition
    #[arg(long = "where", visible_alias = "filter", short = 'f', value_name = "EXPR")]
    filter: Option<String>,
    /// Only if the document still has this version, which `document get --json` tells
    #[arg(long, value_name = "VERSION", conflicts_with = "filter", value_parser = clap::value_parser!(u64).range(1..))]
    expected_version: Option<u64>,
    /// Do not ask before all documents that match are changed
    #[arg(long, short)]
    yes: bool,
    /// Collection or alias
    #[arg(long, short, value_name = "NAME", default_value = COLLECTION_DEFAULT)]
    collection: String,
    /// Remove a field; may be repeated
    #[arg(long, value_name = "FIELD", conflicts_with = "replace")]
    remove: Vec<String>,
    /// Remove all other fields
    #[arg(long)]
    replace: bool,
    /// Read a value as string, integer, float, bool or datetime; may be repeated
    #[arg(long = "type", value_name = "FIELD=TYPE", value_parser = field_type)]
    types: Vec<(String, ValueType)>,
    /// What the change must outlive when it is answered
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    durability: Durability,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  distilface document unset paper-7 paper-8 -c papers --field draft --field seen
  distilface document unset -c papers --where 'year < 2000' --field archived
  distilface document unset paper-7 -c papers --all")]
struct UnsetArgs {
    /// Ids, unless --where chooses the documents
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All documents that meet this condition
    #[arg(
        long = "where",
        visible_alias = "filter",
        short = 'w',
        value_name = "EXPR",
        conflicts_with = "ids"
    )]
    filter: Option<String>,
    /// A field that goes; may be repeated
    #[arg(long = "field", short = 'f', value_name = "FIELD", required_unless_present = "all")]
    fields: Vec<String>,
    /// Every field goes
    #[arg(long, conflicts_with = "fields")]
    all: bool,
    /// Only if the document (one ID) still has this version, which `document get --json` tells
    #[arg(long, value_name = "VERSION", conflicts_with = "filter", value_parser = clap::value_parser!(u64).range(1..))]
    expected_version: Option<u64>,
    /// Do not ask before all documents that match are changed
    #[arg(long, short)]
    yes: bool,
    /// Collection or alias
    #[arg(long, short, value_name = "NAME", default_value = COLLECTION_DEFAULT)]
    collection: String,
    /// What the change must outlive when it is answered
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    durability: Durability,
}

impl UnsetArgs {
    fn request(&self) -> anyhow::Result<UnsetPayloadRequest> {
        if self.ids.is_empty() && self.filter.is_none() {
            return Err(usage("say which documents: one ID or more, or --where EXPR for all that match"));
        }
        if self.expected_version.is_some() && self.ids.len() != 1 {
            return Err(usage("--expected-version is of one document; give one ID"));
        }
        Ok(UnsetPayloadRequest {
            collection: self.collection.clone(),
            ids: self.ids.clone(),
            filter: filter(self.filter.as_deref()),
            fields: self.fields.clone(),
            all: self.all,
            expected_versions: self.ids.first().cloned().zip(self.expected_version).into_iter().collect(),
            durability: self.durability.to_wire().into(),
            ..UnsetPayloadRequest::default()
        })
    }
}

impl SetArgs {
    fn request(&self) -> anyhow::Result<SetPayloadRequest> {
        let (id, changes) = match (&self.filter, &*self.words) {
            (Some(_), words) => (None, words),
            (None, [id, changes @ ..]) => (Some(id), changes),
            (None, []) => {
                return Err(usage(
                    "say which document to change: its ID, or --where EXPR for all that match",
                ));
            }
        };
        if changes.is_empty() && self.remove.is_empty() && !self.replace {
            return Err(usage("say what to change: FIELD=VALUE, --remove FIELD or --replace"));
        }
        let mut fields = Map::new();
        for given in changes {
            let (field, value) = given
                .split_once('=')
                .filter(|(field, _)| !field.is_empty())
                .ok_or_else(|| usage(format!("{given:?} is not FIELD=VALUE, such as year=2001")))?;
            let value = self.value(field, value)?;
            if fields.insert(field.to_owned(), value).is_some() {
                return Err(usage(format!("field {field:?} is given twice")));
            }
        }
        let mut payload = payload_from_json(&fields)
            .map_err(|(field, reason)| usage(format!("field {field:?}: {reason}")))?;
        for (field, kind) in &self.types {
            if !payload.contains_key(field) && !fields.contains_key(field) {
                let meant = meant::hint(field, payload.keys());
                return Err(usage(format!(
                    "--type {field}={kind}: the field {field:?} is not set here{meant}; give {field}=VALUE, or leave \
                     this --type out"
                )));
            }
        }
        let types = self.types.iter().cloned().collect();
        FieldMap { types, ..FieldMap::default() }.coerce(&mut payload).map_err(usage)?;
        Ok(SetPayloadRequest {
            collection: self.collection.clone(),
            ids: id.cloned().into_iter().collect(),
            payload: payload_to(&payload),
            remove_fields: self.remove.clone(),
            replace: self.replace,
            filter: filter(self.filter.as_deref()),
            expected_versions: id.cloned().zip(self.expected_version).into_iter().collect(),
            durability: self.durability.to_wire().into(),
            ..SetPayloadRequest::default()
        })
    }

    /// JSON where it is JSON, else text. An integer beyond 64 bits is refused, unless a type says what becomes of it.
    fn value(&self, field: &str, given: &str) -> anyhow::Result<Json> {
        let kind =
            |name: &str| self.types.iter().rev().find(|(typed, _)| typed == name).map(|(_, kind)| *kind);
        let text = || Json::String(given.to_owned());
        if kind(field).is_some_and(ValueType::is_text) {
            return Ok(text());
        }
        let nearest = serde_json::from_str::<Json>(given).ok();
        let Some((digits, long)) = long_integers::read_value(given, field) else {
            return Ok(nearest.unwrap_or_else(text));
        };
        let is = |name: &String, typed: ValueType| kind(name) == Some(typed);
        if let Some(name) =
            long.keys().find(|name| !is(name, ValueType::String) && !is(name, ValueType::Float))
        {
            return Err(usage(format!(
                "field {name:?}: {}; --type {name}=string keeps the digits of what does not fit into 64 bits",
                integer_out_of_bounds(&long[name])
            )));
        }
        // Of a field read as float nothing but the nearest one is asked for.
        let floats = long.keys().all(|name| is(name, ValueType::Float));
        Ok(nearest.filter(|_| floats).unwrap_or(digits))
    }
}

async fn set(out: &Output, session: &Session, args: &SetArgs) -> anyhow::Result<()> {
    let answer = session.documents().set_payload(args.request()?).await?.into_inner();
    if args.filter.is_some() {
        return matching_set(out, &answer);
    }
    let Some(result) = answer.results.first() else {
        let id = answer.missing.first().map_or("", |id| id);
        anyhow::bail!("no document {id:?} in {:?}", args.collection);
    };
    let word = match result.status() {
        WriteStatus::Failed => anyhow::bail!("{}", result.error),
        WriteStatus::Unchanged => "unchanged",
        _ => "updated",
    };
    out.result(&json!({ "id": result.id, "status": word, "version": result.version }), |_| {
        format!("{word} {}", layout::one_line(&result.id))
    })
}

async fn unset(out: &Output, session: &Session, args: &UnsetArgs) -> anyhow::Result<()> {
    let answer = session.documents().unset_payload(args.request()?).await?.into_inner();
    if args.filter.is_some() {
        return matching_set(out, &answer);
    }
    for result in answer.results.iter().filter(|result| result.status() == WriteStatus::Failed) {
        out.warn(&format!("{:?} was not changed: {}", result.id, result.error));
    }
    for id in &answer.missing {
        out.warn(&format!("no document {id:?} in {:?}", args.collection));
    }
    let SetPayloadResponse { matched, changed, unchanged, failed, .. } = answer;
    let missing = answer.missing.len() as u64;
    let counts = json!({
        "matched": matched, "changed": changed, "unchanged": unchanged, "failed": failed, "missing": missing,
    });
    out.result(&counts, |_| {
        format!("changed {}, {unchanged} had none of the fields", layout::counted(changed, "document"))
    })?;
    if failed + missing > 0 { Err(Stop::Partial.into()) } else { Ok(()) }
}

/// What became of all documents that matched.
fn matching_set(out: &Output, answer: &SetPayloadResponse) -> anyhow::Result<()> {
    let SetPayloadResponse { matched, changed, unchanged, failed, .. } = *answer;
    out.hints(&answer.hints);
    for failure in &answer.results {
        out.warn(&format!("{:?} was not changed: {}", failure.id, failure.error));
    }
    if failed > answer.results.len() as u64 {
        out.warn(&format!("and {} more failed", failed - answer.results.len() as u64));
    }
    let counts = json!({ "matched": matched, "changed": changed, "unchanged": unchanged, "failed": failed });
    out.result(&with_hints(counts, &answer.hints), |_| {
        let told = format!("changed {}, {unchanged} were so already", layout::counted(changed, "document"));
        if failed > 0 { format!("{told}, {failed} failed") } else { told }
    })?;
    if failed > 0 { Err(Stop::Partial.into()) } else { Ok(()) }
}

pub async fn run(app: &App, args: DocumentArgs) -> anyhow::Result<()> {
    let out = &app.out;
    if let DocumentCommand::Delete { ids, collection, filter, yes, expected_version, .. } = &args.command {
        if ids.is_empty() && filter.is_none() {
            return Err(usage("say what to delete: one ID or more, or --filter EXPR"));
        }
        if expected_version.is_some() && ids.len() != 1 {
            return Err(usage("--expected-version is of one document; give one ID"));
        }
        let what = match filter {
            Some(filter) => format!("all documents with {filter}"),
            None => layout::counted(ids.len() as u64, "document"),
        };
        confirm_deletion(app, *yes, &format!("Delete {what} from {collection:?}?")).await?;
    }
    if let DocumentCommand::Set(args @ SetArgs { filter: Some(filter), .. }) = &args.command {
        // What cannot be sent is told before anybody is asked.
        args.request()?;
        let question = format!("Change all documents with {filter} in {:?}?", args.collection);
        confirm_change(app, args.yes, &question).await?;
    }
    if let DocumentCommand::Unset(args) = &args.command {
        // What cannot be sent is told before anybody is asked.
        args.request()?;
        if let Some(filter) = &args.filter {
            let question = format!("Change all documents with {filter} in {:?}?", args.collection);
            confirm_change(app, args.yes, &question).await?;
        }
    }
    with_session(app, OnInterrupt::Stop, async |session: &Session| match &args.command {
        DocumentCommand::Get { ids, collection, vectors } => {
            let request = GetDocumentsRequest {
                collection: collection.clone(),
                ids: ids.clone(),
                with_vectors: *vectors,
            };
            let mut response = session.documents().get(request.clone()).await?.into_inner();
            find_composed(session, request, &mut response).await?;
            for document in &response.documents {
                if out.is_json() {
                    out.json_line(&values::stored_json(document))?;
                } else {
                    out.line(&format!("{}\n", document_words(out, document, usize::MAX)))?;
                }
            }
            if response.missing.is_empty() {
                return Ok(());
            }
            for id in &response.missing {
                out.warn(&format!("no document {id:?} in {collection:?}"));
            }
            Err(anyhow::anyhow!(
                "{} missing, of {} asked for",
                layout::counted(response.missing.len() as u64, "document"),
                layout::thousands(ids.len() as u64)
            ))
        }
        DocumentCommand::Set(args) => set(out, session, args).await,
        DocumentCommand::Unset(args) => unset(out, session, args).await,
        DocumentCommand::Delete {
            ids, collection, filter: expression, expected_version, durability, ..
        } => {
            let ids = as_stored(session, collection, ids).await?;
            let request = DeleteDocumentsRequest {
                collection: collection.clone(),
                filter: filter(expression.as_deref()),
                expected_versions: ids.first().cloned().zip(*expected_version).into_iter().collect(),
                ids: ids.clone(),
                durability: durability.to_wire().into(),
                ..DeleteDocumentsRequest::default()
            };
            let response = session.documents().delete(request).await?.into_inner();
            let deleted = response.deleted;
            out.hints(&response.hints);
            let asked = ids.iter().collect::<HashSet<_>>().len() as u64;
            if deleted < asked {
                let missing = asked - deleted;
                let ids = if asked == 1 {
                    format!("no document {:?}", ids[0])
                } else {
                    format!(
                        "{} of the {asked} ids {} no document",
                        missing,
                        if missing == 1 { "has" } else { "have" }
                    )
                };
                out.warn(&format!("{ids} in {collection:?}"));
            }
            out.result(&with_hints(json!({ "deleted": deleted }), &response.hints), |_| {
                format!("deleted {}", layout::counted(deleted, "document"))
            })
        }
        DocumentCommand::Scroll { collection, filter: expression, limit, all, cursor, no_text, vectors } => {
            let request = ScrollRequest {
                collection: collection.clone(),
                filter: filter(expression.as_deref()),
                limit: 0,
                cursor: cursor.clone().unwrap_or_default(),
                without_text: *no_text,
                with_vectors: *vectors,
            };
            scroll(out, session, request, if *all { u64::MAX } else { *limit }).await
        }
        DocumentCommand::Count { collection, filter: expression } => {
            let request =
                CountRequest { collection: collection.clone(), filter: filter(expression.as_deref()) };
            let response = session.documents().count(request).await?.into_inner();
            let documents = response.documents;
            out.hints(&response.hints);
            out.result(&with_hints(json!({ "documents": documents }), &response.hints), |_| {
                documents.to_string()
            })
        }
    })
    .await
}

/// An answer with the server's remarks, if there are any.
fn with_hints(mut answer: serde_json::Value, hints: &[String]) -> serde_json::Value {
    if !hints.is_empty() {
        answer["hints"] = json!(hints);
    }
    answer
}

/// Ids that are written differently where `ingest` made them of file names: what is pasted from a list of files may not
/// be in the form that is stored.
fn composed_ids(ids: &[String]) -> Vec<String> {
    let composed = ids.iter().map(|id| composed(id));
    composed.filter_map(|id| if let Cow::Owned(id) = id { Some(id) } else { None }).collect()
}

/// The ids with those that are not there replaced by the form that `ingest` gives to file names.
async fn as_stored(session: &Session, collection: &str, ids: &[String]) -> anyhow::Result<Vec<String>> {
    let differing: Vec<String> =
        ids.iter().filter(|id| matches!(composed(id), Cow::Owned(_))).cloned().collect();
    if differing.is_empty() {
        return Ok(ids.to_vec());
    }
    let request =
        GetDocumentsRequest { collection: collection.to_owned(), ids: differing, ..Default::default() };
    let missing = session.documents().get(request).await?.into_inner().missing;
    let stored = |id: &String| if missing.contains(id) { composed(id).into_owned() } else { id.clone() };
    Ok(ids.iter().map(stored).collect())
}

/// Looks for what is missing under the form of its id that `ingest` gives to file names.
async fn find_composed(
    session: &Session,
    request: GetDocumentsRequest,
    response: &mut GetDocumentsResponse,
) -> anyhow::Result<()> {
    let ids = composed_ids(&response.missing);
    if ids.is_empty() {
        return Ok(());
    }
    let more = session.documents().get(GetDocumentsRequest { ids, ..request }).await?.into_inner();
    response.documents.extend(more.documents);
    response.missing.retain(|id| {
        let composed = composed(id);
        matches!(composed, Cow::Borrowed(_)) || more.missing.iter().any(|missing| *missing == composed)
    });
    Ok(())
}

async fn scroll(
    out: &Output,
    session: &Session,
    mut request: ScrollRequest,
    limit: u64,
) -> anyhow::Result<()> {
    let mut left = limit;
    let mut checks_vectors = out.is_json() && !request.with_vectors;
    while left > 0 {
        // The server's own page is this large, or smaller where it allows no more at once.
        request.limit = if left >= PAGE { 0 } else { u32::try_from(left).unwrap_or_default() };
        let page = session.documents().scroll(request.clone()).await?.into_inner();
        left -= left.min(page.documents.len() as u64);
        out.hints(&page.hints);
        if checks_vectors && !page.documents.is_empty() {
            checks_vectors = false;
            warn_of_left_out_vectors(out, session, &request.collection).await;
        }
        for document in &page.documents {
            if out.is_json() {
                out.json_line(&values::document_json(document, !request.without_text))?;
            } else {
                out.line(&format!("{}\n", document_words(out, document, 2)))?;
            }
        }
        if page.next_cursor.is_empty() {
            return Ok(());
        }
        request.cursor = page.next_cursor;
    }
    out.remark(&format!("there are more: --all, or go on with --cursor '{}'", request.cursor));
    Ok(())
}

/// Warns where the lines cannot be read again: documents of a vectors-only collection are nothing without them.
async fn warn_of_left_out_vectors(out: &Output, session: &Session, collection: &str) {
    let request = GetCollectionRequest { name: collection.to_owned() };
    // What cannot be asked is no reason to stop: the documents are here.
    let Ok(answer) = session.collections().get(request).await else { return };
    let config = answer.into_inner().collection.and_then(|collection| collection.config);
    if config.is_some_and(|config| config.vectors_only) {
        out.warn(&format!(
            "{collection} holds vectors only, and they are left out, so ingest cannot read these lines again; \
             --vectors brings them"
        ));
    }
}

/// Id and title, some lines of the text, the fields.
fn document_words(out: &Output, stored: &StoredDocument, lines_max: usize) -> String {
    let document = stored.document.clone().unwrap_or_default();
    let width = out.width();
    let mut text = out.paint(Style::Bold, &layout::one_line(&document.id));
    if !document.title.is_empty() {
        text.push_str(&format!("\n{}", layout::wrap_after("  ", &document.title, width, LongWords::Break)));
    }
    // A whole document keeps its lines; an extract does not.
    let lines: Vec<String> = if lines_max == usize::MAX {
        document.text.lines().flat_map(|line| layout::wrap(line, width - 2, LongWords::Break)).collect()
    } else {
        layout::wrap(&document.text, width - 2, LongWords::Break)
    };
    let cut = lines.len() > lines_max;
    for (i, line) in lines.iter().take(lines_max).enumerate() {
        let line = if cut && i + 1 == lines_max {
            layout::cut(&format!("{line} …"), width - 2)
        } else {
            line.clone()
        };
        text.push_str(&format!("\n  {line}"));
    }
    if !document.payload.is_empty() {
        let fields =
            layout::wrap_after("  ", &values::payload_words(&document.payload), width, LongWords::Break);
        text.push_str(&format!("\n{}", out.paint(Style::Dim, &fields)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(fields: &[&str], types: &[&str]) -> Result<SetPayloadRequest, String> {
        let texts = |given: &[&str]| given.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let args = SetArgs {
            words: texts(&[&["a"], fields].concat()),
            filter: None,
            expected_version: None,
            yes: false,
            collection: "c".into(),
            remove: Vec::new(),
            replace: false,
            durability: Durability::Power,
            types: types.iter().map(|given| field_type(given).unwrap()).collect(),
        };
        args.request().map_err(|e| e.to_string())
    }

    #[test]
    fn an_integer_beyond_64_bits_is_refused_and_not_rounded() {
        for digits in ["123456789012345678901", "18446744073709551615", "[1,123456789012345678901]"] {
            let error = set(&[&format!("n={digits}")], &[]).unwrap_err();
            assert!(error.contains("64 bits") && error.contains("--type n=string"), "{error}");
        }
        let kept = set(&["n=123456789012345678901"], &["n=string"]).unwrap();
        let kept = format!("{:?}", kept.payload["n"]);
        assert!(kept.contains("\"123456789012345678901\""), "{kept}");
        set(&["n=9223372036854775807", "zip=01067", "t=a 123456789012345678901"], &[]).unwrap();
    }
}
