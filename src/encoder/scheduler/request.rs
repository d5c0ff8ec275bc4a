//! A request is answered once: with all of its texts, or with one failure.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::super::{Embedding, EncodeDone, EncodeTimes, EncoderError, Limits, cache::UnfinishedPart};

/// One request, whose texts are answered together.
pub(super) struct Request {
    pub(super) state: Mutex<Progress>,
    pub(super) unfinished: Option<Arc<UnfinishedPart>>,
    pub(super) limits: Limits,
    pub(super) tokenize: Duration,
    pub(super) queued_at: Instant,
}

pub(super) struct Progress {
    pub(super) embeddings: Vec<Option<Embedding>>,
    pub(super) left: usize,
    /// Taken when answered.
    pub(super) done: Option<EncodeDone>,
    pub(super) started_at: Option<Instant>,
}

impl Request {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers once; later calls do nothing.
    pub(super) fn fail(&self, error: EncoderError) {
        let done = self.lock().done.take();
        if let Some(done) = done {
            answer(done, Err(error));
        }
    }

    /// Whether the request still wants its texts; answers it if it does not.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        if self.lock().done.is_none() {
            return false;
        }
        if self.limits.cancelled.as_ref().is_some_and(|c| c.load(Ordering::Relaxed)) {
            self.fail(EncoderError::Cancelled);
            return false;
        }
        if self.limits.deadline.is_some_and(|d| d <= now) {
            self.fail(EncoderError::Expired);
            return false;
        }
        true
    }

    pub(super) fn start(&self, now: Instant) {
        self.lock().started_at.get_or_insert(now);
    }

    pub(super) fn finish_one(&self, place: usize, embedding: Embedding) {
        if let Some(unfinished) = &self.unfinished {
            unfinished.put(place, &embedding);
        }
        let mut progress = self.lock();
        progress.embeddings[place] = Some(embedding);
        progress.left -= 1;
        if progress.left > 0 {
            return;
        }
        let embeddings = std::mem::take(&mut progress.embeddings).into_iter().flatten().collect();
        let started = progress.started_at.unwrap_or(self.queued_at);
        let times = EncodeTimes {
            tokenize: self.tokenize,
            queue: started.duration_since(self.queued_at),
            encode: started.elapsed(),
            cached: false,
        };
        let done = progress.done.take();
        drop(progress);
        if let Some(done) = done {
            answer(done, Ok((embeddings, times)));
        }
    }
}

/// A callback that panics must not take the thread, and every other request of its batch, with it.
fn answer(done: EncodeDone, result: Result<(Vec<Embedding>, EncodeTimes), EncoderError>) {
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("the receiver of an encoder's answer panicked");
    }
}

/// A flag that cancels its request when dropped before it was disarmed.
#[derive(Debug)]
pub struct CancelOnDrop(Arc<AtomicBool>);

impl CancelOnDrop {
    /// A fresh flag, and the guard that raises it.
    pub fn new() -> (Self, Arc<AtomicBool>) {
        let flag = Arc::new(AtomicBool::new(false));
        (CancelOnDrop(Arc::clone(&flag)), flag)
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        // After the answer this changes nothing: the request has left the queue.
        self.0.store(true, Ordering::Relaxed);
    }
}
