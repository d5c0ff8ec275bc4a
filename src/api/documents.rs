//! The methods of the Documents service; its stream is in `ingest.rs`.

use std::collections::BTreeMap;

use prost::Message;

use super::{ApiError, Context, convert, zero::SCROLL_LIMIT};
use crate::{
    collection::PAGE_BYTES,
    engine::{Caller, ListingQuery, PayloadChange, PayloadOutcome, Target, WriteStatus},
    proto,
    value::{PointId, filter::Filter},
};

/// Writes documents; if one is refused, all are.
pub(crate) async fn upsert(
    context: Context,
    request: proto::UpsertRequest,
) -> Result<proto::UpsertResponse, ApiError> {
    let caller = caller_of(&context, request.durability, &request.request_id)?;
    let documents = context.read(|| {
        let mode = convert::mode_from(request.mode)?;
        let documents = request.documents.into_iter().map(|document| convert::document_from(document, mode));
        documents.collect::<Result<_, ApiError>>()
    })?;
    let outcomes = context.engine.upsert(&request.collection, documents, caller).await?;
    outcomes.iter().for_each(|outcome| context.counts.document(outcome));
    let results = outcomes.into_iter().map(convert::outcome_to).collect();
    Ok(proto::UpsertResponse { results, durability: convert::durability_to(caller.durability) })
}

/// The caller of a write.
fn caller_of(context: &Context, durability: i32, request_id: &str) -> Result<Caller, ApiError> {
    context.read(|| {
        let durability = convert::durability_from(durability)?;
        let request = convert::request_id_from(request_id)?;
        Ok(Caller { durability, request, ..context.caller() })
    })
}

/// Changes the payloads of documents by their ids, or of all that a filter matches; their vectors stay.
pub(crate) async fn set_payload(
    context: Context,
    request: proto::SetPayloadRequest,
) -> Result<proto::SetPayloadResponse, ApiError> {
    let proto::SetPayloadRequest {
        collection,
        ids,
        payload,
        remove_fields,
        replace,
        filter,
        expected_versions,
        durability,
        request_id,
    } = request;
    let chosen = Chosen::read(&context, (ids, filter), expected_versions, "change")?;
    let change = context.read(|| convert::payload_change_from(payload, remove_fields, replace))?;
    let caller = caller_of(&context, durability, &request_id)?;
    change_payloads(&context, &collection, chosen, change, caller).await
}

/// Removes fields of documents by their ids, or of all that a filter matches; their vectors stay.
pub(crate) async fn unset_payload(
    context: Context,
    request: proto::UnsetPayloadRequest,
) -> Result<proto::SetPayloadResponse, ApiError> {
    let proto::UnsetPayloadRequest {
        collection,
        ids,
        filter,
        fields,
        all,
        expected_versions,
        durability,
        request_id,
    } = request;
    let chosen = Chosen::read(&context, (ids, filter), expected_versions, "change")?;
    let change = context.read(|| convert::unset_from(fields, all))?;
    let caller = caller_of(&context, durability, &request_id)?;
    change_payloads(&context, &collection, chosen, change, caller).await
}

async fn change_payloads(
    context: &Context,
    collection: &str,
    chosen: Chosen,
    change: PayloadChange,
    caller: Caller,
) -> Result<proto::SetPayloadResponse, ApiError> {
    let engine = &context.engine;
    let mut answer = match chosen {
        Chosen::Targets(targets) => {
            let ids: Vec<String> = targets.iter().map(|target| target.id.clone()).collect();
            let outcomes = engine.set_payload(collection, targets, change, caller).await?;
            payloads_to(ids, outcomes)
        }
        Chosen::Matching { filter, explained } => {
            // Before: a change may take fields that the filter names from the collection.
            let hints = engine.hints(collection, *explained).await?;
            let counts = engine.set_payload_matching(collection, *filter, change, caller).await?;
            proto::SetPayloadResponse { hints, ..convert::payload_counts_to(counts) }
        }
    };
    answer.durability = convert::durability_to(caller.durability);
    Ok(answer)
}

/// What became of documents that were named.
fn payloads_to(ids: Vec<String>, outcomes: Vec<PayloadOutcome>) -> proto::SetPayloadResponse {
    let mut answer = proto::SetPayloadResponse::default();
    for (id, outcome) in ids.into_iter().zip(outcomes) {
        let Some(outcome) = outcome else {
            answer.missing.push(id);
            continue;
        };
        answer.matched += 1;
        answer.results.push(match outcome {
            Ok(outcome) => {
                match outcome.status {
                    WriteStatus::Unchanged => answer.unchanged += 1,
                    _ => answer.changed += 1,
                }
                convert::outcome_to(outcome)
            }
            Err(error) => {
                answer.failed += 1;
                convert::failure_to(id, &error)
            }
        });
    }
    answer
}

/// The documents that a request is about.
enum Chosen {
    Targets(Vec<Target>),
    /// A filter for the change and for its hints. It may be large, so it is copied where it is read.
    Matching {
        filter: Box<Filter>,
        explained: Box<Filter>,
    },
}

impl Chosen {
    /// Either ids or a filter; `what` is what is to be done with them.
    fn read(
        context: &Context,
        (ids, filter): (Vec<String>, Option<proto::Filter>),
        expected_versions: BTreeMap<String, u64>,
        what: &str,
    ) -> Result<Self, ApiError> {
        context.read(|| match (ids.is_empty(), filter) {
            (false, None) => Ok(Chosen::Targets(convert::targets_from(ids, expected_versions)?)),
            (true, Some(filter)) => {
                convert::no_versions(&expected_versions)?;
                let filter = Box::new(convert::filter_from(filter)?);
                Ok(Chosen::Matching { explained: filter.clone(), filter })
            }
            (false, Some(_)) => Err(ApiError::field("filter", "give either ids or a filter, not both")),
            (true, None) => Err(ApiError::field("ids", format!("say what to {what}: give ids or a filter"))),
        })
    }
}

/// Documents by their ids, and which of them are not there.
pub(crate) async fn get(
    context: Context,
    request: proto::GetDocumentsRequest,
) -> Result<proto::GetDocumentsResponse, ApiError> {
    let room = context.room.clone();
    let found = context.engine.get(&request.collection, request.ids, request.with_vectors, room).await?;
    Ok(context.convert(|| {
        let mut answer = proto::GetDocumentsResponse::default();
        for (id, point) in found {
            match point {
                Some(point) => answer.documents.push(convert::stored_to(point)),
                None => answer.missing.push(id.as_str().to_owned()),
            }
        }
        answer
    }))
}

/// Removes documents by their ids, or all that a filter matches.
pub(crate) async fn delete(
    context: Context,
    request: proto::DeleteDocumentsRequest,
) -> Result<proto::DeleteDocumentsResponse, ApiError> {
    let proto::DeleteDocumentsRequest { collection, ids, filter, expected_versions, durability, request_id } =
        request;
    let caller = caller_of(&context, durability, &request_id)?;
    let engine = &context.engine;
    let mut hints = Vec::new();
    let deleted = match Chosen::read(&context, (ids, filter), expected_versions, "delete")? {
        Chosen::Targets(targets) => engine.delete(&collection, targets, caller).await?,
        Chosen::Matching { filter, explained } => {
            // Before: what is deleted takes its fields with it.
            hints = engine.hints(&collection, *explained).await?;
            engine.delete_matching(&collection, *filter, caller).await?
        }
    };
    let durability = convert::durability_to(caller.durability);
    Ok(proto::DeleteDocumentsResponse { deleted, hints, durability })
}

/// A page of documents, in the order of their ids.
pub(crate) async fn scroll(
    context: Context,
    request: proto::ScrollRequest,
) -> Result<proto::ScrollResponse, ApiError> {
    let limit = match request.limit {
        0 => context.engine.config().limits.batch_max.min(SCROLL_LIMIT as usize),
        limit => limit as usize,
    };
    let query = ListingQuery {
        filter: context.read(|| convert::filter_from_optional(request.filter))?,
        cursor: Some(request.cursor).filter(|cursor| !cursor.is_empty()),
        limit,
        with_text: !request.without_text,
        with_vectors: request.with_vectors,
    };
    let mut page = context.engine.scroll(&request.collection, query, context.room.clone()).await?;
    Ok(context.convert(|| {
        let mut answer = proto::ScrollResponse {
            hints: std::mem::take(&mut page.hints),
            next_cursor: page.next_cursor.take().unwrap_or_default(),
            ..Default::default()
        };
        let mut page_bytes = 0;
        let mut last_id: Option<PointId> = None;
        for point in std::mem::take(&mut page.points) {
            let id = point.id.clone();
            let document = convert::stored_to(point);
            page_bytes += document.encoded_len();
            // What was counted while it was read is a lower bound.
            if page_bytes > PAGE_BYTES
                && let Some(last_id) = &last_id
            {
                // Cut here; the next page begins with this document.
                answer.next_cursor = page.cursor_after(last_id);
                break;
            }
            answer.documents.push(document);
            last_id = Some(id);
        }
        answer
    }))
}

/// How many documents there are, or match a filter.
pub(crate) async fn count(
    context: Context,
    request: proto::CountRequest,
) -> Result<proto::CountResponse, ApiError> {
    let (filter, explained) = context.read(|| twice(convert::filter_from_optional(request.filter)))?;
    let documents = context.engine.count(&request.collection, filter).await?;
    let hints = match explained {
        Some(filter) => context.engine.hints(&request.collection, filter).await?,
        None => Vec::new(),
    };
    Ok(proto::CountResponse { documents, hints })
}

/// A filter for its answer and for its hints. It may be large, so it is copied where it is read.
fn twice<T: Clone>(filter: Result<T, ApiError>) -> Result<(T, T), ApiError> {
    filter.map(|filter| (filter.clone(), filter))
}
