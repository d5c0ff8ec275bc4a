//! The methods of the Documents service; its stream is in `ingest.rs`.

use prost::Message;

use super::{ApiError, Context, convert};
use crate::{collection::PAGE_BYTES, engine::ListingQuery, proto, value::PointId};

/// Documents of a page where the client names no number.
const SCROLL_LIMIT: u32 = 100;

/// Writes documents; if one is refused, all are.
pub(crate) async fn upsert(
    context: Context,
    request: proto::UpsertRequest,
) -> Result<proto::UpsertResponse, ApiError> {
    let documents = context
        .read(|| request.documents.into_iter().map(convert::document_from).collect::<Result<_, _>>())?;
    let outcomes = context.engine.upsert(&request.collection, documents, context.caller()).await?;
    outcomes.iter().for_each(|outcome| context.counts.document(outcome));
    let results = outcomes.into_iter().map(convert::outcome_to).collect();
    Ok(proto::UpsertResponse { results })
}

/// Changes the payloads of documents; their vectors stay.
pub(crate) async fn set_payload(
    context: Context,
    request: proto::SetPayloadRequest,
) -> Result<proto::SetPayloadResponse, ApiError> {
    let ids = request.ids.clone();
    let (collection, change) = context.read(|| convert::payload_change_from(request))?;
    let outcomes = context.engine.set_payload(&collection, ids.clone(), change, context.caller()).await?;
    let mut answer = proto::SetPayloadResponse::default();
    for (id, outcome) in ids.into_iter().zip(outcomes) {
        match outcome {
            Some(Ok(outcome)) => answer.results.push(convert::outcome_to(outcome)),
            Some(Err(error)) => answer.results.push(convert::failure_to(id, &error)),
            None => answer.missing.push(id),
        }
    }
    Ok(answer)
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
    let engine = &context.engine;
    let mut hints = Vec::new();
    let deleted = match (request.ids.is_empty(), request.filter) {
        (false, None) => engine.delete(&request.collection, request.ids).await?,
        (true, Some(filter)) => {
            let (filter, explained) = context.read(|| twice(convert::filter_from(filter)))?;
            // Before: what is deleted takes its fields with it.
            hints = engine.hints(&request.collection, explained).await?;
            engine.delete_matching(&request.collection, filter).await?
        }
        (false, Some(_)) => {
            return Err(ApiError::field("filter", "give either ids or a filter, not both"));
        }
        (true, None) => {
            return Err(ApiError::field("ids", "say what to delete: give ids or a filter"));
        }
    };
    Ok(proto::DeleteDocumentsResponse { deleted, hints })
}

/// A page of documents, in the order of their ids.
pub(crate) async fn scroll(
    context: Context,
    request: proto::ScrollRequest,
) -> Result<proto::ScrollResponse, ApiError> {
    let query = ListingQuery {
        filter: context.read(|| convert::filter_from_optional(request.filter))?,
        cursor: Some(request.cursor).filter(|cursor| !cursor.is_empty()),
        limit: if request.limit == 0 { SCROLL_LIMIT } else { request.limit } as usize,
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
