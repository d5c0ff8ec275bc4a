//! Texts to vectors, for searches and for documents: in which class, on which thread, in which portions.
//!
//! Promises: nothing longer than [`INLINE_BYTES_MAX`] is tokenized on a thread of the async runtime; texts beyond
//! `limits.query_bytes_max` never go among the queries; and a request of many texts that runs out of time keeps what it
//! has, says how far it came, and goes on from there when it is sent again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Caller, Engine, EngineError, error::Result};
use crate::{
    encoder::{
        CancelOnDrop, Class, Embedding, EncodeTimes, Encoder, EncoderError, Limits, TextKind, Unfinished,
    },
    error::{ErrorKind, Fault},
};

/// Texts up to this many are encoded before bulk work.
const QUERY_TEXTS_MAX: usize = 16;
/// Bytes of text that are tokenized where the request is handled, which takes less than handing them over and 500
/// microseconds at most. More go to a pool.
const INLINE_BYTES_MAX: usize = 512;
/// Passages of one small write, and of all that are encoded before bulk work at a time: a query waits for no more.
pub(super) const SMALL_TEXTS_MAX: usize = 8;
/// Bytes of a small write, which the encoder takes about as long for as for a few queries.
const SMALL_BYTES_MAX: usize = 2048;
/// Texts that are handed to the encoder at a time, so that one large request does not fill its queue.
const SLICE_TEXTS: usize = 256;
/// A request of more texts than this keeps what it has when it runs out of time.
const UNFINISHED_TEXTS_MIN: usize = 16;
/// The answer to a request that runs out of time needs time, too: one part in so many of what there was, and at most
/// [`ANSWER_TIME_MAX`].
const ANSWER_SHARE: u32 = 20;
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

impl Engine {
    /// The class of texts that a client wants encoded for themselves.
    pub(super) fn class_of(&self, texts: &[String]) -> Class {
        let bytes_max = self.config().limits.query_bytes_max;
        if texts.len() <= QUERY_TEXTS_MAX && texts.iter().all(|text| text.len() <= bytes_max) {
            Class::Query
        } else {
            Class::Bulk
        }
    }

    /// Encodes any number of texts as bulk, some at a time, waiting for room in the encoder's queue; a small write goes
    /// before bulk.
    ///
    /// # Errors
    /// [`EngineError::Unfinished`] if there are many and the time is over; encoder errors.
    pub(super) async fn encode_bulk(
        &self,
        encoder: &Arc<Encoder>,
        texts: Vec<String>,
        kind: TextKind,
        caller: Caller,
    ) -> Result<Vec<Embedding>> {
        let total = texts.len();
        if let Some(permit) = self.room_for_small(&texts, kind) {
            let slice = Slice { permit: Some(permit), ..Slice::new(texts, kind, Class::Query) };
            return Ok(self.encode_slice(encoder, slice, caller).await?.wait().await?.0);
        }
        if total <= UNFINISHED_TEXTS_MIN {
            return self.encode_slices(encoder, texts, kind, caller, None).await;
        }
        let unfinished = encoder.unfinished();
        let work = self.encode_slices(encoder, texts, kind, caller, Some(&unfinished));
        let result = match caller.deadline {
            Some(deadline) => tokio::time::timeout_at(answer_by(deadline).into(), work)
                .await
                .unwrap_or_else(|_| Err(EncoderError::Expired.into())),
            None => work.await,
        };
        match result {
            Ok(embeddings) => {
                // Documents may yet miss their deadline while they are written: theirs stay until newer ones need the room.
                if kind != TextKind::Document {
                    self.pools().work(move || unfinished.finish()).await?;
                }
                Ok(embeddings)
            }
            Err(error) if error.kind() == ErrorKind::Timeout => {
                Err(EngineError::Unfinished { done: unfinished.done(), total })
            }
            Err(error) => Err(error),
        }
    }

    /// Lets a small write go before bulk work, unless others do already: many of them at once are bulk, too, and are
    /// encoded together.
    fn room_for_small(&self, texts: &[String], kind: TextKind) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let bytes: usize = texts.iter().map(String::len).sum();
        if kind != TextKind::Document || texts.len() > SMALL_TEXTS_MAX || bytes > SMALL_BYTES_MAX {
            return None;
        }
        let permits = u32::try_from(texts.len()).ok()?;
        Arc::clone(self.small()).try_acquire_many_owned(permits).ok()
    }

    async fn encode_slices(
        &self,
        encoder: &Arc<Encoder>,
        texts: Vec<String>,
        kind: TextKind,
        caller: Caller,
        unfinished: Option<&Arc<Unfinished>>,
    ) -> Result<Vec<Embedding>> {
        let mut waiting = Vec::new();
        let mut texts = texts.into_iter().peekable();
        while texts.peek().is_some() {
            let slice: Vec<String> = texts.by_ref().take(SLICE_TEXTS).collect();
            let permits = u32::try_from(slice.len()).unwrap_or(u32::MAX).min(self.bulk_room());
            let permit = Arc::clone(self.bulk())
                .acquire_many_owned(permits)
                .await
                .map_err(|_| EngineError::Closing)?;
            let slice = Slice { permit: Some(permit), ..Slice::new(slice, kind, Class::Bulk) };
            let slice = Slice { unfinished: unfinished.map(Arc::clone), ..slice };
            waiting.push(self.encode_slice(encoder, slice, caller).await?);
        }
        let mut all = Vec::new();
        for slice in waiting {
            all.extend(slice.wait().await?.0);
        }
        Ok(all)
    }

    /// Hands texts to the encoder; the answer comes later. Dropping the answer cancels what has not begun.
    pub(super) async fn encode_slice(
        &self,
        encoder: &Arc<Encoder>,
        slice: Slice,
        caller: Caller,
    ) -> Result<Encoding> {
        let Slice { texts, kind, class, permit, unfinished } = slice;
        let (guard, cancelled) = CancelOnDrop::new();
        let (send, receive) = oneshot::channel();
        let limits = Limits {
            deadline: caller.deadline,
            cancelled: Some(cancelled),
            client: caller.client,
            unfinished,
        };
        let is_short = texts.iter().map(String::len).sum::<usize>() <= INLINE_BYTES_MAX;
        let encoder = Arc::clone(encoder);
        let submit = move || {
            encoder.submit(
                texts,
                kind,
                class,
                limits,
                Box::new(move |result| {
                    drop(permit);
                    // The asker may have gone.
                    let _ = send.send(result);
                }),
            );
        };
        if class == Class::Query && is_short {
            submit();
        } else {
            self.pools().tokenize(submit).await?;
        }
        Ok(Encoding { receive, _guard: guard })
    }
}

/// Texts that go to the encoder together.
pub(super) struct Slice {
    texts: Vec<String>,
    kind: TextKind,
    class: Class,
    /// Room in the encoder's bulk queue.
    permit: Option<tokio::sync::OwnedSemaphorePermit>,
    unfinished: Option<Arc<Unfinished>>,
}

impl Slice {
    /// Texts that need no room and keep nothing.
    pub(super) fn new(texts: Vec<String>, kind: TextKind, class: Class) -> Self {
        Slice { texts, kind, class, permit: None, unfinished: None }
    }
}

/// Texts on their way through the encoder.
pub(super) struct Encoding {
    receive: oneshot::Receiver<Result<(Vec<Embedding>, EncodeTimes), EncoderError>>,
    _guard: CancelOnDrop,
}

impl Encoding {
    pub(super) async fn wait(self) -> Result<(Vec<Embedding>, EncodeTimes)> {
        Ok(self.receive.await.map_err(|_| EngineError::Closing)??)
    }
}

/// Until when to work, so that the client still hears of it.
pub(super) fn answer_by(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline.checked_sub((left / ANSWER_SHARE).min(ANSWER_TIME_MAX)).unwrap_or(deadline)
}
