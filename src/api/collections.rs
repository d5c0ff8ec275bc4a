//! The methods of the Collections service.

use super::{ApiError, Context, convert};
use crate::{engine::FieldsRequest, proto};

/// Fields in an answer of [`stats`] where the client names no number, and the most it may name: with names of the largest
/// size, less than the 4 MiB that gRPC clients take.
const FIELDS_PAGE: u32 = 1_000;
const FIELDS_PAGE_MAX: u32 = 10_000;

/// Makes a collection.
pub(crate) async fn create(
    context: Context,
    request: proto::CreateCollectionRequest,
) -> Result<proto::CreateCollectionResponse, ApiError> {
    let new = context.read(|| convert::new_collection_from(request))?;
    let (info, created) = context.engine.create_collection(new).await?;
    Ok(proto::CreateCollectionResponse { collection: Some(convert::collection_to(info)), created })
}

/// One collection, by its name or an alias.
pub(crate) async fn get(
    context: Context,
    request: proto::GetCollectionRequest,
) -> Result<proto::GetCollectionResponse, ApiError> {
    let info = context.engine.collection(&request.name).await?;
    Ok(proto::GetCollectionResponse { collection: Some(convert::collection_to(info)) })
}

/// All collections.
pub(crate) async fn list(
    context: Context,
    _: proto::ListCollectionsRequest,
) -> Result<proto::ListCollectionsResponse, ApiError> {
    let infos = context.engine.collections().await?;
    let collections = infos.into_iter().map(convert::collection_to).collect();
    Ok(proto::ListCollectionsResponse { collections })
}

/// Removes a collection and all that it holds.
pub(crate) async fn delete(
    context: Context,
    request: proto::DeleteCollectionRequest,
) -> Result<proto::DeleteCollectionResponse, ApiError> {
    context.engine.delete_collection(&request.name).await?;
    Ok(proto::DeleteCollectionResponse {})
}

/// Makes an alias, or points it elsewhere.
pub(crate) async fn set_alias(
    context: Context,
    request: proto::SetAliasRequest,
) -> Result<proto::SetAliasResponse, ApiError> {
    let previous = context.engine.set_alias(&request.alias, &request.collection).await?;
    Ok(proto::SetAliasResponse { previous: previous.unwrap_or_default() })
}

/// Removes an alias; its collection stays.
pub(crate) async fn delete_alias(
    context: Context,
    request: proto::DeleteAliasRequest,
) -> Result<proto::DeleteAliasResponse, ApiError> {
    context.engine.delete_alias(&request.alias).await?;
    Ok(proto::DeleteAliasResponse {})
}

/// Counts of a collection, and a page of its fields.
pub(crate) async fn stats(
    context: Context,
    request: proto::CollectionStatsRequest,
) -> Result<proto::CollectionStatsResponse, ApiError> {
    let limit = match request.fields_page_size {
        0 => FIELDS_PAGE,
        size if size <= FIELDS_PAGE_MAX => size,
        size => {
            let reason = format!("it must be at most {FIELDS_PAGE_MAX}, got {size}; 0 means {FIELDS_PAGE}");
            return Err(ApiError::field("fields_page_size", reason));
        }
    };
    let fields = FieldsRequest {
        prefix: request.fields_prefix,
        after: request.fields_page_token,
        limit: limit as usize,
    };
    let stats = context.engine.stats(&request.name, fields).await?;
    Ok(context.convert(|| convert::stats_to(stats)))
}
