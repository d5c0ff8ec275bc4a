//! A request is followed to the last byte of its answer, then counted and logged once.
//!
//! What it holds (memory, its place among the streams, its connection) is free again when that byte is sent, or when
//! its client goes away before.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http_body::{Frame, SizeHint};
use tonic::{Code, Status, body::Body};

use super::{connections::Busy, holding::Holding, metrics::Metrics, status, streams::OpenStream};

/// Follows one request to its end, which is counted and logged once; dropped before, it was cancelled.
#[derive(Debug)]
pub(super) struct Following {
    metrics: Arc<Metrics>,
    pub(super) method: Arc<str>,
    id: Arc<str>,
    arrived: Instant,
    /// What it holds lives as long as its answer.
    _holding: Arc<Holding>,
    /// Its place among the streams, if it is one.
    pub(super) stream: Option<OpenStream>,
    /// Its connection is not idle.
    pub(super) busy: Option<Busy>,
    ended: bool,
}

impl Following {
    pub(super) fn begin(
        metrics: &Arc<Metrics>,
        method: Arc<str>,
        holding: &Arc<Holding>,
        id: Arc<str>,
        arrived: Instant,
    ) -> Self {
        metrics.began();
        Following {
            metrics: Arc::clone(metrics),
            method,
            id,
            arrived,
            _holding: Arc::clone(holding),
            stream: None,
            busy: None,
            ended: false,
        }
    }

    /// Every failure has one line in the log, the client's and ours; a client that went away is no failure.
    pub(super) fn end(&mut self, status: &Status) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.stream = None;
        let (code, elapsed) = (status::code_name(status.code()), self.arrived.elapsed());
        self.metrics.ended(&self.method, code, elapsed);
        let elapsed_ms = (elapsed.as_secs_f64() * 1e6).round() / 1e3;
        let (method, request_id) = (&*self.method, &*self.id);
        if matches!(status.code(), Code::Ok | Code::Cancelled) {
            tracing::debug!(method, request_id, code, elapsed_ms, "request ended");
        } else {
            let reason = status::without_texts(status.message());
            tracing::info!(method, request_id, code, reason, elapsed_ms, "request refused or failed");
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.end(&status::bare(Code::Cancelled));
    }
}

/// An answer that is followed to its trailers.
pub(super) struct FollowedBody {
    pub(super) body: Body,
    pub(super) following: Following,
}

impl http_body::Body for FollowedBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let ended = Status::from_header_map(trailers);
                    self.following.end(&ended.unwrap_or_else(|| status::bare(Code::Ok)));
                }
            }
            Some(Err(status)) => self.following.end(status),
            None => self.following.end(&status::bare(Code::Ok)),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
