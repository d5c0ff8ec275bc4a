//! The body of a request on its way to tonic: bounded, measured and paid for, message by message.
//!
//! A message is gathered as its frames come in, weighed before anything is decoded (`api::Limits`), and passed on as a
//! whole. Its memory is reserved from the budget of all requests: a call's as its bytes come in, and it is refused
//! where there is no room; a stream's when the first [`FIRST_BYTES`] of its next message are here, for its whole
//! length, and it waits, since it holds nothing of that message yet. Of a message of which nothing comes for [`PAUSE`],
//! only what is here stays reserved, so that announcing much and sending little keeps nobody out. A call gets its
//! permit when all of it is there, so a client that has sent half of its requests keeps nobody out. A client that stops
//! in the middle of a message is given up after [`STALL_PATIENCE`], and one that does not end its call at the deadline.
//! Leaves out how long a stream may be silent between messages: that is the stream's (`api::ingest`).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Frame;
use tokio::time::Sleep;
use tonic::{Status, body::Body};

use super::{holding::Holding, status};
use crate::{
    api::{ApiError, Limits, Method},
    aside::aside,
    budget::{BudgetError, Held},
    engine::EngineError,
};

/// A message that has begun is given up when nothing of it comes for this time.
const STALL_PATIENCE: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(10) };
/// When nothing of it comes for this time, what was reserved for the rest of it is given back until more comes.
const PAUSE: Duration = if cfg!(test) { Duration::from_millis(5) } else { Duration::from_secs(1) };
/// Bytes of a stream's message that are here before memory is reserved for the rest.
const FIRST_BYTES: usize = 16 << 10;
/// How long a message of a stream waits for memory that others hold.
const ROOM_PATIENCE: Duration = Duration::from_secs(30);
/// What goes in front of each message: a flag and its length.
const HEADER_BYTES: usize = 5;

/// The body of a request as tonic sees it.
pub(super) struct Inbound {
    body: Body,
    limits: Arc<Limits>,
    method: Method,
    holding: Arc<Holding>,
    request_id: Arc<str>,
    /// Of a call; a stream has none that holds for its body.
    deadline: Option<Instant>,
    /// Bytes that came and belong to no message yet passed on.
    gathered: BytesMut,
    /// The message that is being gathered.
    begun: Option<Begun>,
    waiting: Option<Waiting>,
    /// A call's message, until its end is there too.
    whole: Option<Bytes>,
    patience: Option<Pin<Box<Sleep>>>,
    pause: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

/// Memory that is not free yet.
type Waiting = Pin<Box<dyn Future<Output = Result<Held, ApiError>> + Send>>;

/// A message whose length is known.
struct Begun {
    bytes: usize,
    held: Option<Held>,
    /// Bytes that `held` covers.
    paid: usize,
}

impl Inbound {
    pub(super) fn new(
        body: Body,
        limits: Arc<Limits>,
        method: Method,
        holding: Arc<Holding>,
        request_id: Arc<str>,
        deadline: Instant,
    ) -> Self {
        let deadline = (!method.streaming).then_some(deadline);
        Inbound {
            body,
            limits,
            method,
            holding,
            request_id,
            deadline,
            gathered: BytesMut::new(),
            begun: None,
            waiting: None,
            whole: None,
            patience: None,
            pause: None,
            ended: false,
        }
    }

    /// The next message, as far as it is here; `None`: more bytes are needed.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ApiError>> {
        let mut begun = match self.begun.take() {
            Some(begun) => begun,
            None => {
                let Some(header) = self.gathered.get(1..HEADER_BYTES) else { return Poll::Ready(Ok(None)) };
                let length = header.try_into().map_or(u32::MAX, u32::from_be_bytes);
                Begun { bytes: self.check_begin(length)?, held: None, paid: 0 }
            }
        };
        let here = begun.bytes.min(self.gathered.len() - HEADER_BYTES);
        if self.method.streaming && begun.held.is_none() && here < begun.bytes.min(FIRST_BYTES) {
            self.begun = Some(begun);
            return Poll::Ready(Ok(None));
        }
        if self.method.streaming && (begun.held.is_none() || here > begun.paid) {
            match self.poll_memory(cx, begun.bytes - begun.paid) {
                Poll::Ready(held) => {
                    let held = held?;
                    match &mut begun.held {
                        Some(before) => before.merge(held),
                        None => begun.held = Some(held),
                    }
                    begun.paid = begun.bytes;
                }
                Poll::Pending => {
                    self.begun = Some(begun);
                    return Poll::Pending;
                }
            }
        }
        if !self.method.streaming {
            let held = begun.held.get_or_insert_with(|| self.limits.budget.nothing());
            held.grow(self.reserved(here - begun.paid))?;
            begun.paid = here;
        }
        let whole = HEADER_BYTES + begun.bytes;
        if self.gathered.len() < whole {
            self.gathered.reserve(whole - self.gathered.len());
            self.begun = Some(begun);
            return Poll::Ready(Ok(None));
        }
        let message = self.gathered.split_to(whole).freeze();
        if let Some(held) = begun.held {
            self.pay(&message, held)?;
        }
        Poll::Ready(Ok(Some(message)))
    }

    fn check_begin(&self, length: u32) -> Result<usize, ApiError> {
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        self.limits.check_length(bytes)?;
        if self.whole.is_some() {
            return Err(ApiError::malformed("a call has one message, and this one has more"));
        }
        Ok(bytes)
    }

    fn reserved(&self, bytes: usize) -> usize {
        self.limits.reserved_bytes(&self.method, bytes)
    }

    fn poll_memory(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<Result<Held, ApiError>> {
        let wanted = self.reserved(bytes);
        let waiting = self.waiting.get_or_insert_with(|| {
            let budget = Arc::clone(&self.limits.budget);
            let limit = budget.bytes_max();
            Box::pin(async move {
                let held = tokio::time::timeout(ROOM_PATIENCE, budget.wait(wanted)).await;
                held.map_err(|_| BudgetError::InFlight { limit }.into())
            })
        });
        let held = std::task::ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(held)
    }

    /// Measures a message, and reserves what it takes beyond its length.
    fn pay(&self, message: &Bytes, mut held: Held) -> Result<(), ApiError> {
        // A message with the flag of a compression goes to tonic, which refuses it: none was offered.
        if message.first() == Some(&0) {
            let bytes = &message[HEADER_BYTES..];
            held.grow(aside(bytes.len(), || self.limits.weigh(&self.method, bytes))?)?;
        }
        self.holding.take_message(held);
        Ok(())
    }

    /// A call is here as a whole: it takes its turn, or is refused.
    fn begin_call(&self) -> Result<(), ApiError> {
        self.holding.take_turn(self.limits.begin()?);
        Ok(())
    }

    /// Nothing comes: after a while the rest of a stream's message holds no memory until more comes.
    fn poll_pause(&mut self, cx: &mut Context<'_>) {
        let Some(Begun { bytes, held: Some(held), paid }) = &mut self.begun else { return };
        if !self.method.streaming || paid != bytes {
            return;
        }
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(PAUSE)));
        if pause.as_mut().poll(cx).is_ready() {
            self.pause = None;
            *paid = self.gathered.len().saturating_sub(HEADER_BYTES);
            held.shrink(self.limits.reserved_bytes(&self.method, *paid));
        }
    }

    /// Nothing comes: whether to go on waiting.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<ApiError> {
        let in_a_message = self.begun.is_some() || !self.gathered.is_empty();
        if !in_a_message && self.deadline.is_none() {
            self.patience = None;
            return Poll::Pending;
        }
        let deadline = self.deadline;
        let patience = self.patience.get_or_insert_with(|| {
            let stall = Instant::now() + STALL_PATIENCE;
            Box::pin(tokio::time::sleep_until(deadline.map_or(stall, |d| d.min(stall)).into()))
        });
        std::task::ready!(patience.as_mut().poll(cx));
        Poll::Ready(match deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            true => EngineError::Expired.into(),
            false => ApiError::Stalled { seconds: STALL_PATIENCE.as_secs() },
        })
    }

    fn refuse(&mut self, error: &ApiError) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.ended = true;
        Poll::Ready(Some(Err(status::of(error, &self.request_id))))
    }
}

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        while !this.ended {
            match this.poll_message(cx) {
                Poll::Ready(Ok(Some(message))) if this.method.streaming => {
                    return Poll::Ready(Some(Ok(Frame::data(message))));
                }
                Poll::Ready(Ok(Some(message))) => {
                    this.whole = Some(message);
                    continue;
                }
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Err(error)) => return this.refuse(&error),
                Poll::Pending => return Poll::Pending,
            }
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    (this.patience, this.pause) = (None, None);
                    // Trailers of a request say nothing that a method asks for.
                    if let Ok(mut data) = frame.into_data() {
                        let data = data.copy_to_bytes(data.remaining());
                        if this.gathered.is_empty() {
                            // Nearly always a whole message, which is then not copied.
                            this.gathered = BytesMut::from(data);
                        } else {
                            this.gathered.extend_from_slice(&data);
                        }
                    }
                }
                Poll::Ready(Some(Err(status))) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(None) => {
                    if !this.gathered.is_empty() || this.begun.is_some() {
                        return this.refuse(&ApiError::malformed("it ends in the middle"));
                    }
                    this.ended = true;
                    if let Some(message) = this.whole.take() {
                        if let Err(error) = this.begin_call() {
                            return this.refuse(&error);
                        }
                        return Poll::Ready(Some(Ok(Frame::data(message))));
                    }
                }
                Poll::Pending => {
                    this.poll_pause(cx);
                    let error = std::task::ready!(this.poll_patience(cx));
                    return this.refuse(&error);
                }
            }
        }
        Poll::Ready(None)
    }
}
