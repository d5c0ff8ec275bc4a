//! Converts between messages of `proto/distilface/v1` and the engine's types, both ways.
//!
//! Promises: every enum and every oneof is checked, so what the engine gets is what the client said; a refusal
//! names the field and what is allowed. Leaves out limits (`limits.rs`) and meaning (the engine).

mod filter;
pub(crate) mod value;

pub(crate) use filter::{filter_from, optional as filter_from_optional};

use std::collections::BTreeMap;

use crate::{
    api::ApiError,
    collection::{
        CollectionStats, Durability,
        point::{Hit, StoredPoint},
    },
    encoder::{Embedding, Encoder, TextKind},
    engine::{
        Ask, Backup, BackupCollection, CollectionInfo, Condition, Document, DocumentOutcome, EngineError,
        NewCollection, NewIndex, PayloadChange, PayloadCounts, RequestId, Restored, SearchAnswer,
        SearchQuery, Target, WriteStatus,
    },
    error::{Fault, with_sources},
    index::{self, Bounds, IndexKind},
    model::{Architecture, ModelDir},
    proto::{self, search_request},
    vector::Metric,
};

const NO_VERSION: &str = "no document has version 0; give the one that you read";

/// Reads an enum whose unknown numbers are refused.
fn enum_from<E: TryFrom<i32>>(number: i32, field: &str) -> Result<E, ApiError> {
    E::try_from(number).map_err(|_| {
        ApiError::field(field, format!("{number} is no value of this enum that this server knows"))
    })
}

/// Zero means the default.
fn non_zero(number: u32) -> Option<usize> {
    (number != 0).then_some(number as usize)
}

// Collections

/// The settings of a new collection.
///
/// # Errors
/// [`ApiError::Field`].
pub(crate) fn new_collection_from(
    request: proto::CreateCollectionRequest,
) -> Result<NewCollection, ApiError> {
    let config = request
        .config
        .ok_or_else(|| ApiError::field("config", "it is missing; give at least the collection's name"))?;
    let chunking = config.chunking.unwrap_or_default();
    Ok(NewCollection {
        name: config.name,
        dimension: (config.dimension != 0).then_some(config.dimension),
        metric: match enum_from(config.metric, "config.metric")? {
            proto::Metric::Unspecified => None,
            proto::Metric::Cosine => Some(Metric::Cosine),
            proto::Metric::Dot => Some(Metric::Dot),
            proto::Metric::Euclidean => Some(Metric::Euclidean),
        },
        index: index_from(config.index.unwrap_or_default())?,
        chunking_disabled: chunking.disabled,
        chunk_max_tokens: non_zero(chunking.max_tokens),
        chunk_overlap_tokens: non_zero(chunking.overlap_tokens),
        vectors_only: config.vectors_only,
        model: config.model,
        if_not_exists: request.if_not_exists,
    })
}

fn index_from(given: proto::IndexConfig) -> Result<NewIndex, ApiError> {
    // Checked here, since the engine takes 16 bits: a number past them is refused, not cut.
    let within = |bounds: Bounds, number: u32| match number {
        0 => Ok(None),
        number => bounds.check(number).map(Some).map_err(EngineError::from),
    };
    Ok(NewIndex {
        kind: match enum_from(given.kind, "config.index.kind")? {
            proto::IndexKind::Unspecified => None,
            proto::IndexKind::Flat => Some(IndexKind::Flat),
            proto::IndexKind::HnswRs => Some(IndexKind::HnswRs),
        },
        m: within(index::M, given.m)?,
        ef_construction: within(index::EF_CONSTRUCTION, given.ef_construction)?,
        ef_search: within(index::EF_SEARCH, given.ef_search)?,
        seed: None,
    })
}

/// A collection as it goes out.
pub(crate) fn collection_to(info: CollectionInfo) -> proto::Collection {
    let vectors_only = info.model.is_none();
    let (model, model_fingerprint) = info.model.map(|m| (m.name, m.fingerprint.0)).unwrap_or_default();
    let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
    let chunking =
        info.chunking.map_or(proto::ChunkingConfig { disabled: true, ..Default::default() }, |chunking| {
            proto::ChunkingConfig {
                disabled: false,
                max_tokens: count(chunking.max_tokens),
                overlap_tokens: count(chunking.overlap_tokens),
            }
        });
    let metric = match info.metric {
        Metric::Cosine => proto::Metric::Cosine,
        Metric::Dot => proto::Metric::Dot,
        Metric::Euclidean => proto::Metric::Euclidean,
    };
    let kind = match info.index.kind {
        IndexKind::Flat => proto::IndexKind::Flat,
        IndexKind::HnswRs => proto::IndexKind::HnswRs,
    };
    proto::Collection {
        config: Some(proto::CollectionConfig {
            name: info.name,
            dimension: info.dimension,
            metric: metric.into(),
            index: Some(proto::IndexConfig {
                kind: kind.into(),
                m: info.index.m.into(),
                ef_construction: info.index.ef_construction.into(),
                ef_search: info.index.ef_search.into(),
            }),
            chunking: Some(chunking),
            vectors_only,
            model: model.clone(),
        }),
        model,
        model_fingerprint,
        created_at: Some(value::timestamp(info.created_at)),
        aliases: info.aliases,
        damage: info.damage.unwrap_or_default(),
    }
}

/// A backup as it goes out.
pub(crate) fn backup_to(backup: Backup) -> proto::Backup {
    let Backup { name, folder, made_at, version, collections, bytes, damage } = backup;
    let collections = collections.into_iter().map(|collection| {
        let BackupCollection { name, documents, passages, bytes, aliases } = collection;
        proto::BackupCollection { name, documents, passages, bytes, aliases }
    });
    proto::Backup {
        made_at: damage.is_none().then(|| value::timestamp(made_at)),
        name,
        version,
        collections: collections.collect(),
        bytes,
        folder: folder.to_string_lossy().into_owned(),
        damage: damage.unwrap_or_default(),
    }
}

/// A restored collection as it goes out.
pub(crate) fn restored_to(restored: Restored) -> proto::RestoredCollection {
    let Restored { info, from, documents, passages, aliases_left, missing_model } = restored;
    proto::RestoredCollection {
        collection: Some(collection_to(info)),
        source: from,
        documents,
        passages,
        aliases_left,
        missing_model: missing_model.unwrap_or_default(),
    }
}

/// Counts as they go out.
pub(crate) fn stats_to(stats: CollectionStats) -> proto::CollectionStatsResponse {
    proto::CollectionStatsResponse {
        documents: stats.documents,
        passages: stats.passages,
        indexed: stats.indexed,
        tombstones: stats.tombstones,
        disk_bytes: stats.disk_bytes,
        segments: stats.segments,
        dead_documents: stats.dead_documents,
        unsealed_bytes: stats.unsealed_bytes,
        vector_bytes: stats.vector_bytes,
        fields_total: stats.fields.total,
        next_fields_page_token: stats
            .fields
            .fields
            .last()
            .filter(|_| stats.fields.more)
            .map(|(field, ..)| field.clone())
            .unwrap_or_default(),
        fields: stats
            .fields
            .fields
            .into_iter()
            .map(|(field, types, documents)| proto::FieldStats {
                field,
                types: types.into_iter().map(str::to_owned).collect(),
                documents,
            })
            .collect(),
    }
}

// Documents

/// What a request's mode asks of each of its documents.
///
/// # Errors
/// [`ApiError::Field`].
pub(crate) fn mode_from(mode: i32) -> Result<Condition, ApiError> {
    Ok(match enum_from(mode, "mode")? {
        proto::WriteMode::Unspecified | proto::WriteMode::Any => Condition::Any,
        proto::WriteMode::InsertOnly => Condition::Absent,
        proto::WriteMode::ReplaceOnly => Condition::Present,
    })
}

/// How durable a request wants its writes.
///
/// # Errors
/// [`ApiError::Field`].
pub(crate) fn durability_from(durability: i32) -> Result<Durability, ApiError> {
    Ok(match enum_from(durability, "durability")? {
        proto::Durability::Unspecified | proto::Durability::Power => Durability::Power,
        proto::Durability::Process => Durability::Process,
    })
}

/// The id of a request, if it has one.
///
/// # Errors
/// Those of [`RequestId::new`].
pub(crate) fn request_id_from(id: &str) -> Result<Option<RequestId>, ApiError> {
    if id.is_empty() {
        return Ok(None);
    }
    Ok(Some(RequestId::new(id)?))
}

/// How durable they are, as it goes out.
pub(crate) fn durability_to(durability: Durability) -> i32 {
    match durability {
        Durability::Power => proto::Durability::Power,
        Durability::Process => proto::Durability::Process,
    }
    .into()
}

/// A document as it came in, in a request of this mode.
///
/// # Errors
/// [`ApiError::Field`].
pub(crate) fn document_from(document: proto::Document, mode: Condition) -> Result<Document, ApiError> {
    Ok(Document {
        condition: condition_from(&document, mode)?,
        payload: value::payload_from(&document.id, document.payload)?,
        id: document.id,
        title: document.title,
        text: document.text,
        vector: document.vector.map(|v| v.values),
    })
}

/// What must be stored under a document's id. A version that is expected says more than a mode.
fn condition_from(document: &proto::Document, mode: Condition) -> Result<Condition, ApiError> {
    let Some(version) = document.expected_version else { return Ok(mode) };
    let id: String = document.id.chars().take(80).collect();
    let refuse =
        |reason: String| Err(ApiError::field("expected_version", format!("document {id:?}: {reason}")));
    match (mode, version) {
        (_, 0) => refuse(format!("{NO_VERSION}, or leave it out")),
        (Condition::Absent, _) => refuse(
            "a document that is only inserted has no version yet; leave it out, or write in another mode"
                .to_owned(),
        ),
        _ => Ok(Condition::Version(version)),
    }
}

/// Documents by id, each with the version that is expected of it.
///
/// # Errors
/// [`ApiError::Field`].
pub(crate) fn targets_from(
    ids: Vec<String>,
    expected_versions: BTreeMap<String, u64>,
) -> Result<Vec<Target>, ApiError> {
    let mut left: BTreeMap<&str, u64> =
        expected_versions.iter().map(|(id, version)| (&**id, *version)).collect();
    for id in &ids {
        if left.remove(&**id) == Some(0) {
            return Err(refused_version(id, &format!("{NO_VERSION}, or leave it out")));
        }
    }
    if let Some(id) = left.into_keys().next() {
        return Err(refused_version(
            id,
            "a version is expected of this id, and it is not among ids; add it there",
        ));
    }
    let target = |id: String| Target { expected_version: expected_versions.get(&id).copied(), id };
    Ok(ids.into_iter().map(target).collect())
}

/// Refuses versions that are expected of what a filter matches.
///
/// # Errors
/// [`ApiError::Field`].
pub(crate) fn no_versions(expected_versions: &BTreeMap<String, u64>) -> Result<(), ApiError> {
    match expected_versions.keys().next() {
        None => Ok(()),
        Some(id) => Err(refused_version(id, "versions are expected of ids; give ids instead of a filter")),
    }
}

fn refused_version(id: &str, reason: &str) -> ApiError {
    let id: String = id.chars().take(80).collect();
    ApiError::field(format!("expected_versions[{id:?}]"), reason)
}

/// The change of payloads that came in.
///
/// # Errors
/// [`ApiError::Field`].
pub(crate) fn payload_change_from(
    payload: BTreeMap<String, proto::Value>,
    remove: Vec<String>,
    replace: bool,
) -> Result<PayloadChange, ApiError> {
    let set = payload.into_iter().map(|(field, value)| {
        let value = value::value_from(value, || format!("payload[{field:?}]"))?;
        Ok((field, value))
    });
    Ok(PayloadChange { set: set.collect::<Result<_, ApiError>>()?, remove, replace })
}

/// The fields that are to go.
///
/// # Errors
/// [`ApiError::Field`].
pub(crate) fn unset_from(fields: Vec<String>, all: bool) -> Result<PayloadChange, ApiError> {
    match (fields.is_empty(), all) {
        (true, false) => {
            Err(ApiError::field("fields", "say which fields are to go: give fields, or set all"))
        }
        (false, true) => Err(ApiError::field("fields", "all removes every field; leave fields out, or all")),
        (_, all) => Ok(PayloadChange { remove: fields, replace: all, ..PayloadChange::default() }),
    }
}

/// What became of the documents that a filter matched.
pub(crate) fn payload_counts_to(counts: PayloadCounts) -> proto::SetPayloadResponse {
    let PayloadCounts { changed, unchanged, failed, failures } = counts;
    proto::SetPayloadResponse {
        results: failures.into_iter().map(|(id, error)| failure_to(id, &error)).collect(),
        matched: changed + unchanged + failed,
        changed,
        unchanged,
        failed,
        ..Default::default()
    }
}

/// What became of a document.
pub(crate) fn outcome_to(outcome: DocumentOutcome) -> proto::DocumentResult {
    let status = match outcome.status {
        WriteStatus::Inserted => proto::WriteStatus::Inserted,
        WriteStatus::Updated => proto::WriteStatus::Updated,
        WriteStatus::Unchanged => proto::WriteStatus::Unchanged,
    };
    proto::DocumentResult {
        id: outcome.id,
        status: status.into(),
        error: String::new(),
        passages: outcome.passages,
        tokens: outcome.tokens,
        truncated: outcome.truncated,
        title_truncated: outcome.title_truncated,
        unknown_tokens: outcome.unknown_tokens,
        version: outcome.version,
        error_kind: String::new(),
    }
}

/// A document of an ingest that failed in its place. What is our fault is told in one sentence.
pub(crate) fn failure_to(id: String, error: &dyn Fault) -> proto::DocumentResult {
    let error_kind = error.kind().name().to_owned();
    let error = if error.is_for_callers() {
        with_sources(error)
    } else {
        "the server failed on this document; see its log".to_owned()
    };
    let status = proto::WriteStatus::Failed.into();
    proto::DocumentResult { id, status, error, error_kind, ..Default::default() }
}

/// A stored document as it goes out.
pub(crate) fn stored_to(point: StoredPoint) -> proto::StoredDocument {
    proto::StoredDocument {
        document: Some(proto::Document {
            id: point.id.as_str().to_owned(),
            title: point.title,
            text: point.text,
            payload: value::payload_to(&point.payload),
            vector: point.vector.map(|values| proto::Vector { values }),
            expected_version: None,
        }),
        passages: (0..)
            .zip(point.passages)
            .map(|(ordinal, range)| proto::Passage {
                ordinal,
                start: range.start,
                end: range.end,
                text: String::new(),
            })
            .collect(),
        updated_at: Some(value::timestamp(point.updated_at)),
        version: point.version,
    }
}

// Search

/// The collection and the search that came in.
///
/// # Errors
/// [`ApiError::Field`]; filter errors.
pub(crate) fn search_from(request: proto::SearchRequest) -> Result<(String, SearchQuery), ApiError> {
    use search_request::Query;
    let ask = match request.query {
        Some(Query::Text(text)) => Ask::Text(text),
        Some(Query::Vector(vector)) => Ask::Vector(vector.values),
        Some(Query::DocumentId(id)) => Ask::Document(id),
        None => {
            let reason = "nothing is searched for; set text, vector or document_id";
            return Err(ApiError::field("query", reason));
        }
    };
    let query = SearchQuery {
        ask,
        k: request.k as usize,
        filter: filter_from_optional(request.filter)?,
        ef: non_zero(request.ef),
        exact: request.exact,
        score_threshold: request.score_threshold,
        by_passage: request.by_passage,
        with_payload: !request.without_payload,
        with_text: !request.without_text,
    };
    Ok((request.collection, query))
}

/// Hits as they go out; `explain` on which device, if asked for.
pub(crate) fn answer_to(answer: SearchAnswer, explain: bool) -> proto::SearchResponse {
    let micros = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    let SearchAnswer { hits, tokens, truncated, device, encode, mut trace, total } = answer;
    let hints = std::mem::take(&mut trace.hints);
    let explain = explain.then(|| {
        let (filter_us, search_us) = (micros(trace.filter_time), micros(trace.search_time()));
        let fetch_us = micros(trace.fetch_time());
        // One retriever looks; what the field tells of several is not decided.
        let retrieval = trace.retrievals.into_iter().next().unwrap_or_default();
        proto::Explain {
            tokenize_us: micros(encode.tokenize),
            queue_us: micros(encode.queue),
            encode_us: micros(encode.encode),
            filter_us,
            search_us,
            fetch_us,
            total_us: micros(total),
            plan: retrieval.plan.to_owned(),
            reason: retrieval.reason,
            matching_documents: trace.matching_documents,
            scanned: retrieval.scanned,
            ef: retrieval.ef,
            device,
            encode_cached: encode.cached,
        }
    });
    proto::SearchResponse {
        hits: hits.into_iter().map(hit_to).collect(),
        query: Some(proto::QueryInfo { tokens, truncated }),
        explain,
        hints,
    }
}

fn hit_to(hit: Hit) -> proto::Hit {
    proto::Hit {
        id: hit.id.as_str().to_owned(),
        score: hit.score,
        title: hit.title.as_ref().to_owned(),
        passage: Some(proto::Passage {
            ordinal: hit.ordinal,
            start: hit.range.start,
            end: hit.range.end,
            text: hit.passage.as_ref().to_owned(),
        }),
        payload: value::payload_to(&hit.payload),
        version: hit.version,
    }
}

// Encoder

/// Which prompt goes in front.
///
/// # Errors
/// [`ApiError::Field`].
pub(crate) fn text_kind_from(kind: i32) -> Result<TextKind, ApiError> {
    Ok(match enum_from(kind, "kind")? {
        proto::TextKind::Unspecified => TextKind::Raw,
        proto::TextKind::Query => TextKind::Query,
        proto::TextKind::Document => TextKind::Document,
    })
}

/// A vector of a text as it goes out.
pub(crate) fn embedding_to(embedding: Embedding) -> proto::Embedding {
    proto::Embedding {
        values: embedding.values,
        tokens: embedding.tokens,
        truncated: embedding.truncated,
        unknown_tokens: embedding.unknown,
    }
}

/// A model in memory as it goes out.
pub(crate) fn loaded_to(encoder: &Encoder, default: bool) -> proto::Model {
    let device = encoder.device();
    proto::Model {
        loaded: true,
        device: device.device.clone(),
        device_reason: device.reason.clone(),
        default,
        ..model_to(encoder.model())
    }
}

/// A model that is installed as it goes out.
pub(crate) fn model_to(model: &ModelDir) -> proto::Model {
    let manifest = &model.manifest;
    proto::Model {
        name: manifest.name.clone(),
        architecture: match manifest.architecture {
            Architecture::Bert => "bert",
            Architecture::Distilbert => "distilbert",
        }
        .to_owned(),
        dimension: manifest.dimension,
        max_tokens: u32::try_from(manifest.max_tokens).unwrap_or(u32::MAX),
        pooling: manifest.pooling.name().to_owned(),
        fingerprint: model.fingerprint.0.clone(),
        licence: manifest.licence.clone(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
