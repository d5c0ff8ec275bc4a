//! The Encoder service.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{ServerError, admit, convert, metrics::Metrics};
use crate::{engine::Engine, model::ModelDir, proto, rpc::encoder_server::Encoder};

/// Texts as vectors.
#[derive(Debug)]
pub(crate) struct EncoderService {
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl Encoder for EncoderService {
    async fn embed(
        &self,
        request: Request<proto::EmbedRequest>,
    ) -> Result<Response<proto::EmbedResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                let kind = convert::text_kind_from(message.kind)?;
                let encoder = self.engine.encoder_named(&message.model).await?;
                let vector_bytes = encoder.dim().len() * size_of::<f32>();
                context.room().take(message.texts.len().saturating_mul(vector_bytes), 0)?;
                let embeddings = self.engine.embed(&encoder, message.texts, kind, context.caller()).await?;
                let tokens = embeddings.iter().map(|e| u64::from(e.tokens)).sum();
                self.metrics.encoded(embeddings.len() as u64, tokens);
                Ok(proto::EmbedResponse {
                    embeddings: embeddings.into_iter().map(convert::embedding_to).collect(),
                    model: encoder.name().to_owned(),
                    model_fingerprint: encoder.fingerprint().0.clone(),
                })
            })
            .await
    }

    async fn similarity(
        &self,
        request: Request<proto::SimilarityRequest>,
    ) -> Result<Response<proto::SimilarityResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                let encoder = self.engine.encoder_named(&message.model).await?;
                let (text, others) = (message.text, message.others);
                let scores = self.engine.similarity(&encoder, text, others, context.caller()).await?;
                Ok(proto::SimilarityResponse { scores })
            })
            .await
    }

    async fn models(
        &self,
        request: Request<proto::ModelsRequest>,
    ) -> Result<Response<proto::ModelsResponse>, Status> {
        let (context, _) = admit::Request::open(request);
        context
            .answer(async {
                let home = self.engine.config().data.home.clone();
                let listed = tokio::task::spawn_blocking(move || ModelDir::list(&home))
                    .await
                    .map_err(|e| ServerError::Transport { reason: e.to_string() })?;
                // The loaded ones come first; the default may live outside the folder of models.
                let loaded = self.engine.encoders().map(|encoders| encoders.all()).unwrap_or_default();
                let mut models: Vec<proto::Model> = loaded
                    .iter()
                    .enumerate()
                    .map(|(place, e)| convert::model_to(e.model(), Some(e.device()), place == 0))
                    .collect();
                for model in listed {
                    match model {
                        Ok(model) if loaded.iter().any(|e| *e.fingerprint() == model.fingerprint) => {}
                        Ok(model) => models.push(convert::model_to(&model, None, false)),
                        Err(error) => tracing::warn!(%error, "a model is left out of the list"),
                    }
                }
                Ok(proto::ModelsResponse { models })
            })
            .await
    }

    async fn use_model(
        &self,
        request: Request<proto::UseModelRequest>,
    ) -> Result<Response<proto::UseModelResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                if message.name.is_empty() {
                    let reason = "name a model; Models lists them";
                    return Err(ServerError::field("name", reason));
                }
                let encoder = self.engine.use_model(&message.name).await?;
                let model = convert::model_to(encoder.model(), Some(encoder.device()), true);
                Ok(proto::UseModelResponse { model: Some(model) })
            })
            .await
    }
}
