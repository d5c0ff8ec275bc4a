//! The Search service.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{admit, convert, metrics::Metrics};
use crate::{
    engine::{Engine, SearchAnswer},
    proto,
    rpc::search_server::Search,
};

/// Ranked hits.
#[derive(Debug)]
pub(crate) struct SearchService {
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: Arc<Metrics>,
}

impl SearchService {
    fn answer(&self, answer: SearchAnswer, explain: bool) -> proto::SearchResponse {
        if answer.tokens > 0 {
            self.metrics.encoded(1, answer.tokens.into());
        }
        convert::answer_to(answer, explain)
    }
}

#[tonic::async_trait]
impl Search for SearchService {
    async fn search(
        &self,
        request: Request<proto::SearchRequest>,
    ) -> Result<Response<proto::SearchResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                let explain = message.explain;
                let queries = vec![convert::search_from(message)?];
                let mut answers = self.engine.search_batch(queries, context.caller(), context.room()).await?;
                let answer = answers.pop().expect("one answer per query");
                Ok(context.convert(|| self.answer(answer, explain)))
            })
            .await
    }

    async fn search_batch(
        &self,
        request: Request<proto::SearchBatchRequest>,
    ) -> Result<Response<proto::SearchBatchResponse>, Status> {
        let (context, message) = admit::Request::open(request);
        context
            .answer(async {
                let (mut queries, mut explain) = (Vec::new(), Vec::new());
                for request in message.requests {
                    explain.push(request.explain);
                    queries.push(convert::search_from(request)?);
                }
                let answers = self.engine.search_batch(queries, context.caller(), context.room()).await?;
                let answers = answers.into_iter().zip(explain);
                let responses = context
                    .convert(|| answers.map(|(answer, explain)| self.answer(answer, explain)).collect());
                Ok(proto::SearchBatchResponse { responses })
            })
            .await
    }
}
