//! The Collections service.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{ServerError, admit, convert};
use crate::{
    engine::{Engine, FieldsAsked},
    proto,
    rpc::collections_server::Collections,
};

/// Fields in an answer of Stats where the client names no number, and the most it may name: with names of the largest
/// size, less than the 4 MiB that gRPC clients take.
const FIELDS_PAGE: u32 = 1_000;
const FIELDS_PAGE_MAX: u32 = 10_000;

/// Collections and their aliases.
#[derive(Debug)]
pub(crate) struct CollectionsService {
    pub(crate) engine: Arc<Engine>,
}

#[tonic::async_trait]
impl Collections for CollectionsService {
    async fn create(
        &self,
        request: Request<proto::CreateCollectionRequest>,
    ) -> Result<Response<proto::CreateCollectionResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                let (info, created) =
                    self.engine.create_collection(convert::new_collection_from(message)?).await?;
                Ok(proto::CreateCollectionResponse {
                    collection: Some(convert::collection_to(info)),
                    created,
                })
            })
            .await
    }

    async fn get(
        &self,
        request: Request<proto::GetCollectionRequest>,
    ) -> Result<Response<proto::GetCollectionResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                let info = self.engine.collection(&message.name).await?;
                Ok(proto::GetCollectionResponse { collection: Some(convert::collection_to(info)) })
            })
            .await
    }

    async fn list(
        &self,
        request: Request<proto::ListCollectionsRequest>,
    ) -> Result<Response<proto::ListCollectionsResponse>, Status> {
        let (context, _) = admit::Request::open(request);
        context
            .answer(async {
                let infos = self.engine.collections().await?;
                let collections = infos.into_iter().map(convert::collection_to).collect();
                Ok(proto::ListCollectionsResponse { collections })
            })
            .await
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteCollectionRequest>,
    ) -> Result<Response<proto::DeleteCollectionResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                self.engine.delete_collection(&message.name).await?;
                Ok(proto::DeleteCollectionResponse {})
            })
            .await
    }

    async fn set_alias(
        &self,
        request: Request<proto::SetAliasRequest>,
    ) -> Result<Response<proto::SetAliasResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                let previous = self.engine.set_alias(&message.alias, &message.collection).await?;
                Ok(proto::SetAliasResponse { previous: previous.unwrap_or_default() })
            })
            .await
    }

    async fn delete_alias(
        &self,
        request: Request<proto::DeleteAliasRequest>,
    ) -> Result<Response<proto::DeleteAliasResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                self.engine.delete_alias(&message.alias).await?;
                Ok(proto::DeleteAliasResponse {})
            })
            .await
    }

    async fn stats(
        &self,
        request: Request<proto::CollectionStatsRequest>,
    ) -> Result<Response<proto::CollectionStatsResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                let limit = match message.fields_page_size {
                    0 => FIELDS_PAGE,
                    size if size <= FIELDS_PAGE_MAX => size,
                    size => {
                        let reason = format!("it must be between 0 and {FIELDS_PAGE_MAX}, got {size}");
                        return Err(ServerError::field("fields_page_size", reason));
                    }
                };
                let fields = FieldsAsked {
                    prefix: message.fields_prefix,
                    after: message.fields_page_token,
                    limit: limit as usize,
                };
                let stats = self.engine.stats(&message.name, fields).await?;
                Ok(context.convert(|| convert::stats_to(stats)))
            })
            .await
    }
}
