//! The methods of the Search service.

use super::{ApiError, Context, convert};
use crate::{engine::SearchAnswer, proto};

/// The hits of one query.
pub(crate) async fn search(
    context: Context,
    request: proto::SearchRequest,
) -> Result<proto::SearchResponse, ApiError> {
    let explain = request.explain;
    let queries = vec![context.read(|| convert::search_from(request))?];
    let mut answers = context.engine.search_batch(queries, context.caller(), context.room.clone()).await?;
    let answer = answers.pop().expect("one answer per query");
    Ok(context.convert(|| response(&context, answer, explain)))
}

/// The hits of several queries, in their order; if one fails, all do.
pub(crate) async fn search_batch(
    context: Context,
    request: proto::SearchBatchRequest,
) -> Result<proto::SearchBatchResponse, ApiError> {
    let explain: Vec<bool> = request.requests.iter().map(|request| request.explain).collect();
    let queries =
        context.read(|| request.requests.into_iter().map(convert::search_from).collect::<Result<_, _>>())?;
    let answers = context.engine.search_batch(queries, context.caller(), context.room.clone()).await?;
    let answers = answers.into_iter().zip(explain);
    let responses =
        context.convert(|| answers.map(|(answer, explain)| response(&context, answer, explain)).collect());
    Ok(proto::SearchBatchResponse { responses })
}

fn response(context: &Context, answer: SearchAnswer, explain: bool) -> proto::SearchResponse {
    if answer.tokens > 0 {
        context.counts.encoded(1, answer.tokens.into());
    }
    convert::answer_to(answer, explain)
}
