//! The Documents service; its stream is in `ingest.rs`.

use std::sync::Arc;

use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use super::{ServerError, admit, convert, ingest, metrics::Metrics};
use crate::{
    collection::PAGE_BYTES,
    engine::{Engine, ListingQuery},
    proto,
    rpc::documents_server::Documents,
    value::PointId,
};

/// Documents of a page where the client names no number.
const SCROLL_LIMIT: u32 = 100;

/// Documents in and out.
#[derive(Debug)]
pub(crate) struct DocumentsService {
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) draining: CancellationToken,
}

#[tonic::async_trait]
impl Documents for DocumentsService {
    type IngestStream = ReceiverStream<Result<proto::IngestResponse, Status>>;

    async fn ingest(
        &self,
        request: Request<Streaming<proto::IngestRequest>>,
    ) -> Result<Response<Self::IngestStream>, Status> {
        let (context, requests) = admit::Request::open(request);
        let (answers, receiver) = mpsc::channel(ingest::ANSWERS);
        let work = ingest::Work::new(Arc::clone(&self.engine), Arc::clone(&self.metrics), context.clone());
        let pump = ingest::pump(requests, answers, self.draining.clone(), context, work);
        tokio::spawn(pump.in_current_span());
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn upsert(
        &self,
        request: Request<proto::UpsertRequest>,
    ) -> Result<Response<proto::UpsertResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                let documents = message.documents.into_iter().map(convert::document_from);
                let documents = context.read(|| documents.collect::<Result<_, _>>())?;
                let outcomes = self.engine.upsert(&message.collection, documents, context.caller()).await?;
                outcomes.iter().for_each(|outcome| self.metrics.document(outcome));
                let results = outcomes.into_iter().map(convert::outcome_to).collect();
                Ok(proto::UpsertResponse { results })
            })
            .await
    }

    async fn set_payload(
        &self,
        request: Request<proto::SetPayloadRequest>,
    ) -> Result<Response<proto::SetPayloadResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                let ids = message.ids.clone();
                let (collection, change) = context.read(|| convert::payload_change_from(message))?;
                let outcomes =
                    self.engine.set_payload(&collection, ids.clone(), change, context.caller()).await?;
                let mut answer = proto::SetPayloadResponse::default();
                for (id, outcome) in ids.into_iter().zip(outcomes) {
                    match outcome {
                        Some(Ok(outcome)) => answer.results.push(convert::outcome_to(outcome)),
                        Some(Err(error)) => answer.results.push(convert::failure_to(id, &error)),
                        None => answer.missing.push(id),
                    }
                }
                Ok(answer)
            })
            .await
    }

    async fn get(
        &self,
        request: Request<proto::GetDocumentsRequest>,
    ) -> Result<Response<proto::GetDocumentsResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                let room = context.room();
                let found =
                    self.engine.get(&message.collection, message.ids, message.with_vectors, room).await?;
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
            })
            .await
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteDocumentsRequest>,
    ) -> Result<Response<proto::DeleteDocumentsResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                let mut hints = Vec::new();
                let deleted = match (message.ids.is_empty(), message.filter) {
                    (false, None) => self.engine.delete(&message.collection, message.ids).await?,
                    (true, Some(filter)) => {
                        let filter = convert::filter_from(filter)?;
                        // Before: what is deleted takes its fields with it.
                        hints = self.engine.hints(&message.collection, filter.clone()).await?;
                        self.engine.delete_matching(&message.collection, filter).await?
                    }
                    (false, Some(_)) => {
                        return Err(ServerError::field("filter", "give either ids or a filter, not both"));
                    }
                    (true, None) => {
                        return Err(ServerError::field("ids", "say what to delete: give ids or a filter"));
                    }
                };
                Ok(proto::DeleteDocumentsResponse { deleted, hints })
            })
            .await
    }

    async fn scroll(
        &self,
        request: Request<proto::ScrollRequest>,
    ) -> Result<Response<proto::ScrollResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                let query = ListingQuery {
                    filter: convert::filter_from_optional(message.filter)?,
                    cursor: Some(message.cursor).filter(|cursor| !cursor.is_empty()),
                    limit: if message.limit == 0 { SCROLL_LIMIT } else { message.limit } as usize,
                    with_text: !message.without_text,
                    with_vectors: message.with_vectors,
                };
                let mut page = self.engine.scroll(&message.collection, query, context.room()).await?;
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
            })
            .await
    }

    async fn count(
        &self,
        request: Request<proto::CountRequest>,
    ) -> Result<Response<proto::CountResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                let filter = convert::filter_from_optional(message.filter)?;
                let documents = self.engine.count(&message.collection, filter.clone()).await?;
                let hints = match filter {
                    Some(filter) => self.engine.hints(&message.collection, filter).await?,
                    None => Vec::new(),
                };
                Ok(proto::CountResponse { documents, hints })
            })
            .await
    }
}
