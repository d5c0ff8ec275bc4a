//! The ingest stream answers requests in order, one for one.
//!
//! Promises: an answer says that its documents are durable; at most [`READ_AHEAD`] requests are worked on, so that
//! the next is tokenised and encoded while the one before is committed, and HTTP/2 flow control slows down a client
//! that writes faster; a request that names a document of one still in work waits for it, so the last one sent wins.
//! A request that fails as a whole ends the stream after the answers before it. While the server drains nothing
//! more is read, what was read is finished and answered, and the stream ends with UNAVAILABLE.
//! A client that goes away takes its unfinished work with it. A silent stream holds nothing that others wait for, each
//! message takes its turn among all requests when it is written and gives back its memory when that is done, read or
//! not. A stream that has nothing in work, or whose answers nobody reads, is ended after `server.stream_idle_timeout`.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::Instrument;

use super::{ServerError, admit, convert, metrics::Metrics, status};
use crate::{
    aside::aside,
    budget::Held,
    engine::{Engine, EngineError},
    error::Fault,
    proto::{DocumentResult, IngestRequest, IngestResponse},
};

/// Requests of one stream that are worked on at once: one commits, one is encoded, one is tokenised.
const READ_AHEAD: usize = 3;

/// Places for answers on their way: one for the next, so that a client that does not read stops us, and one that is kept
/// for how the stream ends.
pub(crate) const ANSWERS: usize = 2;

type Answer = Result<IngestResponse, Status>;

/// Turns requests into work. A trait so that the pump can be tested without an engine.
pub(crate) trait Worker: Send + 'static {
    /// `bytes` is about what the request takes in memory.
    fn work(
        &mut self,
        request: IngestRequest,
        bytes: usize,
    ) -> impl Future<Output = Result<IngestResponse, ServerError>> + Send + 'static;
}

/// Reads, works, answers, until the stream ends. `answers` has [`ANSWERS`] places.
pub(crate) async fn pump(
    mut requests: impl Stream<Item = Result<IngestRequest, Status>> + Unpin,
    answers: mpsc::Sender<Answer>,
    draining: CancellationToken,
    context: admit::Request,
    mut worker: impl Worker,
) {
    let Ok(last_word) = answers.clone().reserve_owned().await else { return };
    let mut pending = VecDeque::<Pending>::new();
    let mut waiting: Option<(IngestRequest, Option<Held>)> = None;
    let mut reading = true;
    let mut ending = None;
    let (mut messages, mut quiet_since) = (0_u64, Instant::now());
    loop {
        if let Some((request, memory)) =
            waiting.take_if(|(request, _)| !pending.iter().any(|p| p.shares_a_document(request)))
        {
            pending.push_back(Pending::start(request, memory, &mut worker, &context));
        }
        if pending.is_empty() && !reading {
            break;
        }
        let room = waiting.is_none() && pending.len() < READ_AHEAD;
        tokio::select! {
            biased;
            () = answers.closed() => return,
            answer = first(&mut pending), if !pending.is_empty() => {
                pending.pop_front();
                quiet_since = Instant::now();
                match answer {
                    Ok(answer) => {
                        let unread = quiet_since.checked_add(context.stream_idle_timeout);
                        tokio::select! {
                            sent = answers.send(Ok(answer)) => if sent.is_err() {
                                return;
                            },
                            () = passed(context.client_deadline) => {
                                ending = Some(context.refuse(&EngineError::Expired.into()));
                                break;
                            }
                            () = passed(unread) => {
                                let seconds = context.stream_idle_timeout.as_secs_f64();
                                ending = Some(context.refuse(&ServerError::Unread { seconds }));
                                break;
                            }
                        }
                    }
                    Err(failed) => {
                        ending = Some(failed);
                        break;
                    }
                }
            }
            () = passed(context.client_deadline) => {
                ending = Some(context.refuse(&EngineError::Expired.into()));
                break;
            }
            () = passed(quiet_since.checked_add(context.stream_idle_timeout)), if pending.is_empty() => {
                let seconds = context.stream_idle_timeout.as_secs_f64();
                ending = Some(context.refuse(&ServerError::Idle { seconds }));
                break;
            }
            () = draining.cancelled(), if reading => {
                reading = false;
                ending = Some(context.refuse(&EngineError::Closing.into()));
            }
            message = requests.next(), if reading && room => match message {
                Some(Ok(request)) => {
                    messages += 1;
                    waiting = Some((request, context.message_memory()));
                }
                Some(Err(refused)) => {
                    reading = false;
                    ending = Some(context.retell(refused, &format!("message {} of the stream", messages + 1)));
                }
                None => reading = false,
            },
        }
    }
    // Nobody waits for what is still pending; dropping it takes it back.
    drop((pending, worker));
    if let Some(status) = ending {
        // Heard when the client reads; one that has gone does not need to hear it.
        last_word.send(Err(status));
    }
}

/// The answer of the oldest request in work.
async fn first(pending: &mut VecDeque<Pending>) -> Answer {
    match pending.front_mut() {
        Some(oldest) => oldest.answer().await,
        None => std::future::pending().await,
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// A request in work. Dropped, it is taken back as far as it has not begun.
struct Pending {
    ids: HashSet<String>,
    task: JoinHandle<Result<IngestResponse, ServerError>>,
    context: admit::Request,
}

impl Pending {
    fn start(
        request: IngestRequest,
        memory: Option<Held>,
        worker: &mut impl Worker,
        context: &admit::Request,
    ) -> Self {
        let ids = request.documents.iter().map(|document| document.id.clone()).collect();
        let work = worker.work(request, memory.as_ref().map_or(0, Held::bytes));
        let work = async move {
            // Free again when the work is done: its answer is small, and may lie unread for long.
            let _memory = memory;
            work.await
        };
        let task = tokio::spawn(work.in_current_span());
        Pending { ids, task, context: context.clone() }
    }

    fn shares_a_document(&self, request: &IngestRequest) -> bool {
        request.documents.iter().any(|document| self.ids.contains(&document.id))
    }

    async fn answer(&mut self) -> Answer {
        let outcome = (&mut self.task)
            .await
            .unwrap_or_else(|e| Err(EngineError::Panicked { reason: e.to_string() }.into()));
        outcome.map_err(|error| self.context.refuse(&error))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Gives the documents of each request to the engine.
pub(crate) struct Work {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    context: admit::Request,
    /// Named by the first request; later ones may leave it out.
    collection: String,
}

impl Work {
    pub(crate) fn new(engine: Arc<Engine>, metrics: Arc<Metrics>, context: admit::Request) -> Self {
        Work { engine, metrics, context, collection: String::new() }
    }
}

impl Worker for Work {
    fn work(
        &mut self,
        request: IngestRequest,
        bytes: usize,
    ) -> impl Future<Output = Result<IngestResponse, ServerError>> + Send + 'static {
        if !request.collection.is_empty() {
            self.collection.clone_from(&request.collection);
        }
        let (engine, metrics) = (Arc::clone(&self.engine), Arc::clone(&self.metrics));
        let (context, collection) = (self.context.next_message(), self.collection.clone());
        async move {
            if collection.is_empty() {
                let reason = "the first request of the stream must name the collection";
                return Err(ServerError::field("collection", reason));
            }
            let work = async {
                let _turn = context.turn().await?;
                write(&engine, &metrics, &context, &collection, (request, bytes)).await
            };
            context.within_deadline(work).await
        }
    }
}

/// Writes the documents of one request, which takes so many bytes, each by itself.
async fn write(
    engine: &Engine,
    metrics: &Metrics,
    context: &admit::Request,
    collection: &str,
    (request, bytes): (IngestRequest, usize),
) -> Result<IngestResponse, ServerError> {
    let failed = |id: String, error: &dyn Fault| {
        metrics.document_failed();
        status::log_if_ours(error, &context.id);
        convert::failure_to(id, error)
    };
    let mut results: Vec<DocumentResult> = vec![DocumentResult::default(); request.documents.len()];
    let (mut documents, mut places) = (Vec::new(), Vec::new());
    aside(bytes, || {
        for (place, document) in request.documents.into_iter().enumerate() {
            let id = document.id.clone();
            match convert::document_from(document) {
                Ok(document) => {
                    documents.push(document);
                    places.push((place, id));
                }
                Err(error) => results[place] = failed(id, &error),
            }
        }
    });
    let outcomes = engine.ingest(collection, documents, context.caller()).await?;
    for ((place, id), outcome) in places.into_iter().zip(outcomes) {
        results[place] = match outcome {
            Ok(outcome) => {
                metrics.document(&outcome);
                convert::outcome_to(outcome)
            }
            Err(error) => failed(id, &error),
        };
    }
    Ok(IngestResponse { sequence: request.sequence, results })
}

#[cfg(test)]
mod tests;
