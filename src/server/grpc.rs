//! The gRPC door: the services of `proto/distilface/v1`, each method a call of the API's.
//!
//! Every request came through [`AdmitLayer`](super::admit::AdmitLayer), which knows its id, its deadline and its memory.
//! Leaves out what a method does (`api`) and how a failure is told (`status.rs`).

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use super::{admit, metrics::Metrics};
use crate::{
    api::{ApiError, Context, backups, collections, documents, encoder, ingest, search},
    engine::Engine,
    proto,
    rpc::{
        backups_server::Backups, collections_server::Collections, documents_server::Documents,
        encoder_server::Encoder, search_server::Search,
    },
};

type Answer<T> = Result<Response<T>, Status>;

/// All services.
#[derive(Debug)]
pub(crate) struct Grpc {
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) draining: CancellationToken,
}

impl Grpc {
    /// Calls a method of the API, and makes a status of its failure.
    async fn answer<Q, A, F>(&self, request: Request<Q>, method: impl FnOnce(Context, Q) -> F) -> Answer<A>
    where
        A: prost::Message,
        F: Future<Output = Result<A, ApiError>>,
    {
        let (request, message) = admit::Request::open(request);
        let context = request.context(&self.engine, &self.metrics);
        context.call(method, message).await.map(Response::new).map_err(|error| request.refuse(&error))
    }
}

#[tonic::async_trait]
impl Collections for Grpc {
    async fn create(
        &self,
        request: Request<proto::CreateCollectionRequest>,
    ) -> Answer<proto::CreateCollectionResponse> {
        self.answer(request, collections::create).await
    }

    async fn get(
        &self,
        request: Request<proto::GetCollectionRequest>,
    ) -> Answer<proto::GetCollectionResponse> {
        self.answer(request, collections::get).await
    }

    async fn list(
        &self,
        request: Request<proto::ListCollectionsRequest>,
    ) -> Answer<proto::ListCollectionsResponse> {
        self.answer(request, collections::list).await
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteCollectionRequest>,
    ) -> Answer<proto::DeleteCollectionResponse> {
        self.answer(request, collections::delete).await
    }

    async fn set_alias(&self, request: Request<proto::SetAliasRequest>) -> Answer<proto::SetAliasResponse> {
        self.answer(request, collections::set_alias).await
    }

    async fn delete_alias(
        &self,
        request: Request<proto::DeleteAliasRequest>,
    ) -> Answer<proto::DeleteAliasResponse> {
        self.answer(request, collections::delete_alias).await
    }

    async fn stats(
        &self,
        request: Request<proto::CollectionStatsRequest>,
    ) -> Answer<proto::CollectionStatsResponse> {
        self.answer(request, collections::stats).await
    }
}

#[tonic::async_trait]
impl Documents for Grpc {
    type IngestStream = ReceiverStream<Result<proto::IngestResponse, Status>>;

    async fn ingest(&self, request: Request<Streaming<proto::IngestRequest>>) -> Answer<Self::IngestStream> {
        let (request, messages) = admit::Request::open(request);
        let context = request.context(&self.engine, &self.metrics);
        let (answers, receiver) = mpsc::channel(ingest::ANSWERS);
        let stream = ingest::Stream {
            requests: numbered(messages, request.clone()),
            answers,
            deadline: request.client_deadline,
            idle_timeout: request.stream_idle_timeout,
            draining: self.draining.clone(),
            request_timeout: request.request_timeout,
            limits: Arc::clone(&request.limits),
            refuse: move |error: &ApiError| request.refuse(error),
        };
        tokio::spawn(ingest::ingest(context, stream).in_current_span());
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn upsert(&self, request: Request<proto::UpsertRequest>) -> Answer<proto::UpsertResponse> {
        self.answer(request, documents::upsert).await
    }

    async fn set_payload(
        &self,
        request: Request<proto::SetPayloadRequest>,
    ) -> Answer<proto::SetPayloadResponse> {
        self.answer(request, documents::set_payload).await
    }

    async fn unset_payload(
        &self,
        request: Request<proto::UnsetPayloadRequest>,
    ) -> Answer<proto::SetPayloadResponse> {
        self.answer(request, documents::unset_payload).await
    }

    async fn get(&self, request: Request<proto::GetDocumentsRequest>) -> Answer<proto::GetDocumentsResponse> {
        self.answer(request, documents::get).await
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteDocumentsRequest>,
    ) -> Answer<proto::DeleteDocumentsResponse> {
        self.answer(request, documents::delete).await
    }

    async fn scroll(&self, request: Request<proto::ScrollRequest>) -> Answer<proto::ScrollResponse> {
        self.answer(request, documents::scroll).await
    }

    async fn count(&self, request: Request<proto::CountRequest>) -> Answer<proto::CountResponse> {
        self.answer(request, documents::count).await
    }
}

#[tonic::async_trait]
impl Search for Grpc {
    async fn search(&self, request: Request<proto::SearchRequest>) -> Answer<proto::SearchResponse> {
        self.answer(request, search::search).await
    }

    async fn search_batch(
        &self,
        request: Request<proto::SearchBatchRequest>,
    ) -> Answer<proto::SearchBatchResponse> {
        self.answer(request, search::search_batch).await
    }
}

#[tonic::async_trait]
impl Encoder for Grpc {
    async fn embed(&self, request: Request<proto::EmbedRequest>) -> Answer<proto::EmbedResponse> {
        self.answer(request, encoder::embed).await
    }

    async fn similarity(
        &self,
        request: Request<proto::SimilarityRequest>,
    ) -> Answer<proto::SimilarityResponse> {
        self.answer(request, encoder::similarity).await
    }

    async fn models(&self, request: Request<proto::ModelsRequest>) -> Answer<proto::ModelsResponse> {
        self.answer(request, encoder::models).await
    }

    async fn use_model(&self, request: Request<proto::UseModelRequest>) -> Answer<proto::UseModelResponse> {
        self.answer(request, encoder::use_model).await
    }
}

#[tonic::async_trait]
impl Backups for Grpc {
    async fn create(
        &self,
        request: Request<proto::CreateBackupRequest>,
    ) -> Answer<proto::CreateBackupResponse> {
        self.answer(request, backups::create).await
    }

    async fn list(&self, request: Request<proto::ListBackupsRequest>) -> Answer<proto::ListBackupsResponse> {
        self.answer(request, backups::list).await
    }

    async fn restore(
        &self,
        request: Request<proto::RestoreBackupRequest>,
    ) -> Answer<proto::RestoreBackupResponse> {
        self.answer(request, backups::restore).await
    }
}

/// The messages of a stream, each with its memory; one that could not be read is refused by its number.
fn numbered(
    messages: impl Stream<Item = Result<proto::IngestRequest, Status>>,
    request: admit::Request,
) -> impl Stream<Item = Result<ingest::Message, Status>> {
    let mut number = 0_u64;
    messages.map(move |message| {
        number += 1;
        match message {
            Ok(message) => Ok(ingest::Message { request: message, memory: request.message_memory() }),
            Err(refused) => Err(request.retell(refused, &format!("message {number} of the stream"))),
        }
    })
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::server::status;

    #[tokio::test]
    async fn a_message_of_a_stream_that_cannot_be_read_is_told_in_our_words() {
        let request = || admit::Request::for_tests(None);
        for (refused, code, word) in [
            (Code::OutOfRange, Code::OutOfRange, "message_bytes_max"),
            (Code::Internal, Code::InvalidArgument, "message 2 of the stream"),
        ] {
            let messages =
                tokio_stream::iter([Ok(proto::IngestRequest::default()), Err(status::bare(refused))]);
            let told: Vec<_> = numbered(messages, request()).collect().await;
            assert!(told[0].is_ok());
            let status = told[1].as_ref().unwrap_err();
            assert_eq!(status.code(), code);
            assert!(status.message().contains(word), "{status}");
        }
    }
}
