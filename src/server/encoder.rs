//! The Encoder service.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{ServerError, admit, convert, metrics::Metrics};
use crate::{
    engine::{Engine, EngineError},
    model::ModelDir,
    proto::{self, encoder_server::Encoder},
};

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
                let encoder = self.engine.encoder().ok_or(EngineError::EncoderOff)?;
                let embeddings = self.engine.embed(message.texts, kind, context.caller()).await?;
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
                let scores = self.engine.similarity(message.text, message.others, context.caller()).await?;
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
                let encoder = self.engine.encoder();
                let is_loaded = |model: &ModelDir| encoder.is_some_and(|e| e.model().path == model.path);
                let mut models = Vec::new();
                for model in listed {
                    match model {
                        Ok(model) if is_loaded(&model) => {}
                        Ok(model) => models.push(convert::model_to(&model, None)),
                        Err(error) => tracing::warn!(%error, "a model is left out of the list"),
                    }
                }
                // The loaded model comes first; it may live outside the folder of models.
                if let Some(encoder) = encoder {
                    models.insert(0, convert::model_to(encoder.model(), Some(encoder.device())));
                }
                Ok(proto::ModelsResponse { models })
            })
            .await
    }
}
