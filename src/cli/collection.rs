//! `distilface collection`: create, list, show, delete, stats, and aliases.

use serde_json::{Value as Json, json};

use super::{
    App,
    client::{OnInterrupt, Session, with_session},
    failure::usage,
    layout,
    output::{Output, Style},
    values,
};
use crate::proto::{
    ChunkingConfig, Collection, CollectionConfig, CollectionStatsRequest, CollectionStatsResponse,
    CreateCollectionRequest, DeleteAliasRequest, DeleteCollectionRequest, GetCollectionRequest, IndexConfig,
    IndexKind, ListCollectionsRequest, Metric, SetAliasRequest,
};

/// Create, show and delete collections and aliases
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct CollectionArgs {
    #[command(subcommand)]
    command: CollectionCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CollectionCommand {
    /// Make a new, empty collection
    Create(Box<CreateArgs>),
    /// List all collections
    List,
    /// Show how a collection was made
    Show {
        /// Collection or alias
        name: String,
    },
    /// Delete a collection with all its documents and aliases
    Delete {
        /// Collection
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Count what a collection holds
    Stats {
        /// Collection or alias
        name: String,
        /// Show only payload fields whose names begin so
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        field_prefix: String,
        /// Show every payload field, however many there are (otherwise the first 1000)
        #[arg(long)]
        all_fields: bool,
    },
    /// Point an alias at a collection, in one step
    Alias {
        /// The other name
        alias: String,
        /// The collection it stands for
        collection: String,
    },
    /// Remove an alias; the collection stays
    Unalias {
        /// The other name
        alias: String,
    },
}

/// How nearness is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum MetricArg {
    Cosine,
    Dot,
    Euclidean,
}

/// How vectors are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum IndexArg {
    /// Compare with all
    Flat,
    /// A graph
    #[value(name = "hnsw_rs", alias = "hnsw-rs", alias = "hnsw")]
    HnswRs,
}

/// The settings of a new collection.
#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// 1 to 128 letters, digits, '_', '-', '.'
    name: String,
    /// Length of vectors [default: the model's]
    #[arg(long, value_name = "N", required_if_eq("vectors_only", "true"))]
    dimension: Option<u32>,
    /// How nearness is measured [default: cosine]
    #[arg(long, value_enum)]
    metric: Option<MetricArg>,
    /// How vectors are found [default: hnsw_rs]
    #[arg(long, value_enum)]
    index: Option<IndexArg>,
    /// Links of each node of the graph [default: 16]
    #[arg(long, value_name = "N")]
    m: Option<u32>,
    /// Candidates kept while building [default: 200]
    #[arg(long, value_name = "N")]
    ef_construction: Option<u32>,
    /// Candidates kept while searching [default: 96]
    #[arg(long, value_name = "N")]
    ef_search: Option<u32>,
    /// Encode each document as one passage, however long it is
    #[arg(long, conflicts_with_all = ["chunk_tokens", "chunk_overlap"])]
    no_chunking: bool,
    /// Longest passage in tokens [default: the model's limit, at most 254]
    #[arg(long, value_name = "N")]
    chunk_tokens: Option<u32>,
    /// Tokens that passages share [default: an eighth of the longest]
    #[arg(long, value_name = "N")]
    chunk_overlap: Option<u32>,
    /// No encoder: documents and queries bring their vectors
    #[arg(long)]
    vectors_only: bool,
    /// Do nothing if it is there; the settings that are named here must be its own
    #[arg(long)]
    if_not_exists: bool,
}

impl CreateArgs {
    fn check(&self) -> anyhow::Result<()> {
        // Zero means the default on the wire, so a zero that was typed must be refused here.
        let given = [
            ("--dimension", self.dimension),
            ("--m", self.m),
            ("--ef-construction", self.ef_construction),
            ("--ef-search", self.ef_search),
            ("--chunk-tokens", self.chunk_tokens),
            ("--chunk-overlap", self.chunk_overlap),
        ];
        if let Some((flag, _)) = given.iter().find(|(_, value)| *value == Some(0)) {
            return Err(usage(format!("{flag} must be at least 1; leave it out for the default")));
        }
        Ok(())
    }
}

impl CollectionArgs {
    /// Whether it may be the first thing that is done with a data folder.
    pub fn makes(&self) -> bool {
        matches!(self.command, CollectionCommand::Create(_))
    }
}

pub async fn run(app: &App, args: CollectionArgs) -> anyhow::Result<()> {
    match &args.command {
        CollectionCommand::Delete { yes: false, .. } if !app.out.can_ask() => return Err(nobody_to_ask()),
        CollectionCommand::Create(args) => args.check()?,
        _ => {}
    }
    let out = &app.out;
    with_session(app, OnInterrupt::Stop, async |session: &Session| match &args.command {
        CollectionCommand::Create(args) => create(out, session, args, app.model_asked()).await,
        CollectionCommand::List => list(out, session).await,
        CollectionCommand::Show { name } => {
            let request = GetCollectionRequest { name: name.clone() };
            let collection =
                session.collections().get(request).await?.into_inner().collection.unwrap_or_default();
            out.result(&collection_json(&collection), |_| collection_words(out, &collection))
        }
        CollectionCommand::Delete { name, yes } => delete(app, session, name, *yes).await,
        CollectionCommand::Stats { name, field_prefix, all_fields } => {
            let mut request = CollectionStatsRequest {
                name: name.clone(),
                fields_prefix: field_prefix.clone(),
                ..Default::default()
            };
            let mut stats = session.collections().stats(request.clone()).await?.into_inner();
            while *all_fields && !stats.next_fields_page_token.is_empty() {
                request.fields_page_token = std::mem::take(&mut stats.next_fields_page_token);
                let page = session.collections().stats(request.clone()).await?.into_inner();
                stats.fields.extend(page.fields);
                stats.next_fields_page_token = page.next_fields_page_token;
            }
            out.result(&stats_json(&stats), |_| stats_words(out, &stats))
        }
        CollectionCommand::Alias { alias, collection } => {
            let request = SetAliasRequest { alias: alias.clone(), collection: collection.clone() };
            let previous = session.collections().set_alias(request).await?.into_inner().previous;
            let before = if previous.is_empty() { String::new() } else { format!(" (before: {previous})") };
            let answer = json!({ "alias": alias, "collection": collection, "previous": previous });
            done(out, &answer, &format!("{alias} now means {collection}{before}"))
        }
        CollectionCommand::Unalias { alias } => {
            session.collections().delete_alias(DeleteAliasRequest { alias: alias.clone() }).await?;
            done(out, &json!({ "unaliased": alias }), &format!("removed alias {alias}"))
        }
    })
    .await
}

/// Asks on a terminal; elsewhere only `--yes` will do.
pub(super) async fn confirm_deletion(app: &App, yes: bool, question: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    match app.confirm(question).await? {
        Some(true) => Ok(()),
        Some(false) => Err(anyhow::anyhow!("nothing was deleted")),
        None => Err(nobody_to_ask()),
    }
}

/// Asks before many documents are changed at once; `yes` is the flag that it is meant.
pub(super) async fn confirm_change(app: &App, yes: bool, question: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    match app.confirm(question).await? {
        Some(true) => Ok(()),
        Some(false) => Err(anyhow::anyhow!("nothing was changed")),
        None => Err(usage(
            "a change of every document that matches cannot be undone; --yes confirms it where nobody can be asked",
        )),
    }
}

fn nobody_to_ask() -> anyhow::Error {
    usage("deleting cannot be undone, and there is no terminal to ask on; give --yes to delete all the same")
}

/// Deletes a collection; its aliases go with it, so they are named before and after.
async fn delete(app: &App, session: &Session, name: &str, yes: bool) -> anyhow::Result<()> {
    // Not by Get, which refuses a collection that is damaged; that one can be deleted too.
    let collections = session.collections().list(ListCollectionsRequest {}).await?.into_inner().collections;
    let is_it = |collection: &Collection| collection.config.as_ref().is_some_and(|c| c.name == name);
    let aliases =
        collections.into_iter().find(is_it).map(|collection| collection.aliases).unwrap_or_default();
    let with_aliases = match &*aliases {
        [] => String::new(),
        [alias] => format!(" and its alias {alias}"),
        several => format!(" and its aliases {}", several.join(", ")),
    };
    let question = format!("Delete collection {name:?} with all its documents{with_aliases}?");
    confirm_deletion(app, yes, &question).await?;
    session.collections().delete(DeleteCollectionRequest { name: name.to_owned() }).await?;
    let answer = json!({ "deleted": name, "aliases": aliases });
    done(&app.out, &answer, &format!("deleted collection {name}{with_aliases}"))
}

/// What was done, in words or as JSON; words on stderr, since there is no result.
fn done(out: &Output, json: &Json, words: &str) -> anyhow::Result<()> {
    if out.is_json() {
        return out.document(json);
    }
    out.note(words);
    Ok(())
}

async fn create(out: &Output, session: &Session, args: &CreateArgs, model: String) -> anyhow::Result<()> {
    let metric = match args.metric {
        None => Metric::Unspecified,
        Some(MetricArg::Cosine) => Metric::Cosine,
        Some(MetricArg::Dot) => Metric::Dot,
        Some(MetricArg::Euclidean) => Metric::Euclidean,
    };
    let kind = match args.index {
        None => IndexKind::Unspecified,
        Some(IndexArg::Flat) => IndexKind::Flat,
        Some(IndexArg::HnswRs) => IndexKind::HnswRs,
    };
    let config = CollectionConfig {
        name: args.name.clone(),
        dimension: args.dimension.unwrap_or_default(),
        metric: metric.into(),
        index: Some(IndexConfig {
            kind: kind.into(),
            m: args.m.unwrap_or_default(),
            ef_construction: args.ef_construction.unwrap_or_default(),
            ef_search: args.ef_search.unwrap_or_default(),
        }),
        chunking: Some(ChunkingConfig {
            disabled: args.no_chunking,
            max_tokens: args.chunk_tokens.unwrap_or_default(),
            overlap_tokens: args.chunk_overlap.unwrap_or_default(),
        }),
        vectors_only: args.vectors_only,
        model,
    };
    let request = CreateCollectionRequest { config: Some(config), if_not_exists: args.if_not_exists };
    let response = session.collections().create(request).await?.into_inner();
    let collection = response.collection.unwrap_or_default();
    out.note(&if response.created {
        format!("created collection {}", args.name)
    } else {
        format!("collection {} was there already", args.name)
    });
    out.result(&json!({ "created": response.created, "collection": collection_json(&collection) }), |_| {
        collection_words(out, &collection)
    })
}

async fn list(out: &Output, session: &Session) -> anyhow::Result<()> {
    let collections = session.collections().list(ListCollectionsRequest {}).await?.into_inner().collections;
    if out.is_json() {
        return out.document(&collections.iter().map(collection_json).collect::<Vec<_>>());
    }
    if collections.is_empty() {
        out.note("no collections yet; `distilface ingest FOLDER -c NAME` makes one");
        return Ok(());
    }
    let mut rows = Vec::new();
    for collection in &collections {
        let config = collection.config.clone().unwrap_or_default();
        let (documents, passages) = if collection.damage.is_empty() {
            let request = CollectionStatsRequest { name: config.name.clone(), ..Default::default() };
            let stats = session.collections().stats(request).await?.into_inner();
            (layout::thousands(stats.documents), layout::thousands(stats.passages))
        } else {
            out.warn(&format!("collection {} is damaged: {}", config.name, collection.damage));
            ("damaged".to_owned(), String::new())
        };
        rows.push(vec![
            config.name.clone(),
            documents,
            passages,
            config.dimension.to_string(),
            metric_name(&config).to_owned(),
            model_name(collection).to_owned(),
            collection.aliases.join(", "),
        ]);
    }
    let headers = ["name", "#documents", "#passages", "#dimension", "metric", "model", "aliases"];
    out.line(&layout::table(&headers, &rows, out.width()))
}

fn metric_name(config: &CollectionConfig) -> &'static str {
    match config.metric() {
        Metric::Unspecified | Metric::Cosine => "cosine",
        Metric::Dot => "dot",
        Metric::Euclidean => "euclidean",
    }
}

fn index_name(index: &IndexConfig) -> &'static str {
    match index.kind() {
        IndexKind::Flat => "flat",
        IndexKind::Unspecified | IndexKind::HnswRs => "hnsw_rs",
    }
}

fn model_name(collection: &Collection) -> &str {
    if collection.model.is_empty() { "none (vectors only)" } else { &collection.model }
}

/// A collection as `--json` shows it.
pub(super) fn collection_json(collection: &Collection) -> Json {
    let config = collection.config.clone().unwrap_or_default();
    let index = config.index.unwrap_or_default();
    let chunking = config.chunking.unwrap_or_default();
    json!({
        "name": config.name,
        "dimension": config.dimension,
        "metric": metric_name(&config),
        "index": {
            "kind": index_name(&index), "m": index.m,
            "ef_construction": index.ef_construction, "ef_search": index.ef_search,
        },
        "chunking": {
            "enabled": !chunking.disabled && !config.vectors_only,
            "max_tokens": chunking.max_tokens, "overlap_tokens": chunking.overlap_tokens,
        },
        "vectors_only": config.vectors_only,
        "model": (!collection.model.is_empty()).then_some(&collection.model),
        "model_fingerprint": (!collection.model_fingerprint.is_empty()).then_some(&collection.model_fingerprint),
        "created_at": collection.created_at.as_ref().map(values::time),
        "aliases": collection.aliases,
        "damage": (!collection.damage.is_empty()).then_some(&collection.damage),
    })
}

fn collection_words(out: &Output, collection: &Collection) -> String {
    let config = collection.config.clone().unwrap_or_default();
    let index = config.index.unwrap_or_default();
    let chunking = config.chunking.unwrap_or_default();
    let mut pairs = vec![
        ("name", config.name.clone()),
        ("model", model_name(collection).to_owned()),
        ("dimension", config.dimension.to_string()),
        ("metric", metric_name(&config).to_owned()),
    ];
    pairs.push(match index.kind() {
        IndexKind::Flat => ("index", "flat (exact)".into()),
        _ => {
            let IndexConfig { m, ef_construction, ef_search, .. } = index;
            let name = index_name(&index);
            ("index", format!("{name}, m {m}, ef_construction {ef_construction}, ef_search {ef_search}"))
        }
    });
    if !config.vectors_only {
        pairs.push(match chunking {
            ChunkingConfig { disabled: true, .. } => ("chunking", "off".into()),
            ChunkingConfig { max_tokens, overlap_tokens, .. } => {
                ("chunking", format!("passages of at most {max_tokens} tokens, {overlap_tokens} shared"))
            }
        });
    }
    if !collection.model_fingerprint.is_empty() {
        pairs.push(("fingerprint", collection.model_fingerprint.clone()));
    }
    if let Some(created) = &collection.created_at {
        pairs.push(("created", values::time(created)));
    }
    if !collection.aliases.is_empty() {
        pairs.push(("aliases", collection.aliases.join(", ")));
    }
    if !collection.damage.is_empty() {
        pairs.push(("damaged", out.paint(Style::Bad, &collection.damage)));
    }
    layout::pairs(&pairs, out.width())
}

fn stats_json(stats: &CollectionStatsResponse) -> Json {
    let fields = stats.fields.iter();
    let fields = fields.map(|f| json!({ "field": f.field, "types": f.types, "documents": f.documents }));
    json!({
        "documents": stats.documents,
        "passages": stats.passages,
        "indexed": stats.indexed,
        "tombstones": stats.tombstones,
        "disk_bytes": stats.disk_bytes,
        "segments": stats.segments,
        "dead_documents": stats.dead_documents,
        "unsealed_bytes": stats.unsealed_bytes,
        "vector_bytes": stats.vector_bytes,
        "fields": fields.collect::<Vec<_>>(),
        "fields_total": stats.fields_total,
    })
}

fn stats_words(out: &Output, stats: &CollectionStatsResponse) -> String {
    let pairs = [
        ("documents", layout::thousands(stats.documents)),
        ("passages", layout::thousands(stats.passages)),
        ("in the graph", layout::thousands(stats.indexed)),
        ("deleted, still in the graph", layout::thousands(stats.tombstones)),
        ("segments", layout::thousands(stats.segments)),
        ("dead on disk", layout::thousands(stats.dead_documents)),
        ("on disk", layout::bytes(stats.disk_bytes)),
        ("vectors in memory", layout::bytes(stats.vector_bytes)),
    ];
    let mut text = layout::pairs(&pairs, out.width());
    if !stats.fields.is_empty() {
        let rows = stats.fields.iter();
        let rows = rows.map(|f| vec![f.field.clone(), f.types.join(", "), layout::thousands(f.documents)]);
        let table = layout::table(&["field", "type", "#documents"], &rows.collect::<Vec<_>>(), out.width());
        text.push_str(&format!("\n\n{}\n{table}", out.paint(Style::Bold, "Fields")));
        if !stats.next_fields_page_token.is_empty() {
            let (shown, total) =
                (layout::thousands(stats.fields.len() as u64), layout::thousands(stats.fields_total));
            text.push_str(&format!(
                "\n{shown} of {total} fields are shown; --all-fields shows all, --field-prefix TEXT those that begin so"
            ));
        }
    }
    text
}
