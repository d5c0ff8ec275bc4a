//! The methods of the Encoder service.

use super::{ApiError, Context, convert};
use crate::{engine::EngineError, model::ModelDir, proto};

/// The vectors of texts, in their order.
pub(crate) async fn embed(
    context: Context,
    request: proto::EmbedRequest,
) -> Result<proto::EmbedResponse, ApiError> {
    let kind = context.read(|| convert::text_kind_from(request.kind))?;
    let encoder = context.engine.encoder_named(&request.model).await?;
    let vector_bytes = encoder.dim().len() * size_of::<f32>();
    context.room.take(request.texts.len().saturating_mul(vector_bytes), 0)?;
    let embeddings = context.engine.embed(&encoder, request.texts, kind, context.caller()).await?;
    let tokens = embeddings.iter().map(|e| u64::from(e.tokens)).sum();
    context.counts.encoded(embeddings.len() as u64, tokens);
    Ok(proto::EmbedResponse {
        embeddings: embeddings.into_iter().map(convert::embedding_to).collect(),
        model: encoder.name().to_owned(),
        model_fingerprint: encoder.fingerprint().0.clone(),
    })
}

/// How near a text is to each of the others.
pub(crate) async fn similarity(
    context: Context,
    request: proto::SimilarityRequest,
) -> Result<proto::SimilarityResponse, ApiError> {
    let encoder = context.engine.encoder_named(&request.model).await?;
    let (text, others) = (request.text, request.others);
    let scores = context.engine.similarity(&encoder, text, others, context.caller()).await?;
    Ok(proto::SimilarityResponse { scores })
}

/// The models that are installed, those in memory first, the default one before all.
pub(crate) async fn models(
    context: Context,
    _: proto::ModelsRequest,
) -> Result<proto::ModelsResponse, ApiError> {
    let home = context.engine.config().data.home.clone();
    let listed = tokio::task::spawn_blocking(move || ModelDir::list(&home))
        .await
        .map_err(|e| EngineError::Panicked { reason: e.to_string() })?;
    // The loaded ones come first; the default may live outside the folder of models.
    let loaded = context.engine.encoders().map(|encoders| encoders.all()).unwrap_or_default();
    let mut models: Vec<proto::Model> =
        loaded.iter().enumerate().map(|(place, encoder)| convert::loaded_to(encoder, place == 0)).collect();
    for model in listed {
        match model {
            Ok(model) if loaded.iter().any(|e| *e.fingerprint() == model.fingerprint) => {}
            Ok(model) => models.push(convert::model_to(&model)),
            Err(error) => tracing::warn!(%error, "a model is left out of the list"),
        }
    }
    Ok(proto::ModelsResponse { models })
}

/// Makes a model the default one, and loads it if need be.
pub(crate) async fn use_model(
    context: Context,
    request: proto::UseModelRequest,
) -> Result<proto::UseModelResponse, ApiError> {
    if request.name.is_empty() {
        return Err(ApiError::field("name", "name a model; Models lists them"));
    }
    let encoder = context.engine.use_model(&request.name).await?;
    Ok(proto::UseModelResponse { model: Some(convert::loaded_to(&encoder, true)) })
}
