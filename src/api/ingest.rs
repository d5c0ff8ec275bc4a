//! The ingest stream answers requests in order, one for one.
//!
//! Promises: an answer says that its documents are durable; at most [`READ_AHEAD`] requests are worked on, so that
//! the next is tokenised and encoded while the one before is committed, and a client that writes faster is not read
//! meanwhile; a request that names a document of one still in work waits for it, so the last one sent wins.
//! A request that fails as a whole ends the stream after the answers before it. While the door drains nothing
//! more is read, what was read is finished and answered, and the stream ends with [`EngineError::Closing`].
//! A client that goes away takes its unfinished work with it. A silent stream holds nothing that others wait for, each
//! message takes its turn among all requests when it is written and gives back its memory when that is done, read or
//! not. A stream that has nothing in work, or whose answers nobody reads, is ended after `server.stream_idle_timeout`.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{ApiError, Context, Limits, context::bounded, convert, log_if_ours};
use crate::{
    budget::Held,
    engine::Caller,
    engine::EngineError,
    error::Fault,
    proto::{DocumentResult, IngestRequest, IngestResponse},
};

/// Requests of one stream that are worked on at once: one commits, one is encoded, one is tokenised.
const READ_AHEAD: usize = 3;

/// Places for answers on their way: one for the next, so that a client that does not read stops us, and one that is kept
/// for how the stream ends.
pub(crate) const ANSWERS: usize = 2;

/// A message of a stream has this many times the time of a request: it may hold a thousand long documents and waits
/// behind those before it.
const MESSAGE_PATIENCE: u32 = 10;

/// A stream as its door hands it over. `E` is what the door makes of a failure.
pub(crate) struct Stream<R, F, E> {
    /// What comes in; `Err` is a message that the door itself refused, which ends the stream.
    pub(crate) requests: R,
    /// With [`ANSWERS`] places.
    pub(crate) answers: mpsc::Sender<Result<IngestResponse, E>>,
    /// Says a failure in the door's words.
    pub(crate) refuse: F,
    /// What the client itself set: the only deadline of the stream as a whole.
    pub(crate) deadline: Option<Instant>,
    /// How long it may be silent while nothing of it is in work, and how long its answers may lie unread.
    pub(crate) idle_timeout: Duration,
    /// The door closes: nothing more is read.
    pub(crate) draining: CancellationToken,
    /// What a request has that is no stream.
    pub(crate) request_timeout: Duration,
    pub(crate) limits: Arc<Limits>,
}

/// A message of a stream.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) request: IngestRequest,
    /// What was reserved for it; free again when its work is done.
    pub(crate) memory: Option<Held>,
}

/// Writes the documents of a stream, until it ends. The deadline and the room of `context` stand for those of its
/// messages, each of which has its own.
pub(crate) async fn ingest<R, F, E>(context: Context, stream: Stream<R, F, E>)
where
    R: tokio_stream::Stream<Item = Result<Message, E>> + Unpin,
    F: Fn(&ApiError) -> E,
{
    let work = Work {
        context,
        deadline: stream.deadline,
        request_timeout: stream.request_timeout,
        limits: Arc::clone(&stream.limits),
        collection: String::new(),
    };
    pump(stream, work).await;
}

/// Turns requests into work. A trait so that the pump can be tested without an engine.
pub(crate) trait Worker: Send + 'static {
    /// `bytes` is about what the request takes in memory.
    fn work(
        &mut self,
        request: IngestRequest,
        bytes: usize,
    ) -> impl Future<Output = Result<IngestResponse, ApiError>> + Send + 'static;
}

/// Reads, works, answers, until the stream ends.
async fn pump<R, F, E>(stream: Stream<R, F, E>, mut worker: impl Worker)
where
    R: tokio_stream::Stream<Item = Result<Message, E>> + Unpin,
    F: Fn(&ApiError) -> E,
{
    let Stream { mut requests, answers, refuse, deadline, idle_timeout, draining, .. } = stream;
    let Ok(last_word) = answers.clone().reserve_owned().await else { return };
    let mut pending = VecDeque::<Pending>::new();
    let mut waiting: Option<Message> = None;
    let mut reading = true;
    let mut ending = None;
    let mut quiet_since = Instant::now();
    loop {
        if let Some(message) =
            waiting.take_if(|message| !pending.iter().any(|p| p.shares_a_document(&message.request)))
        {
            pending.push_back(Pending::start(message, &mut worker));
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
                        let unread = quiet_since.checked_add(idle_timeout);
                        tokio::select! {
                            sent = answers.send(Ok(answer)) => if sent.is_err() {
                                return;
                            },
                            () = passed(deadline) => {
                                ending = Some(refuse(&EngineError::Expired.into()));
                                break;
                            }
                            () = passed(unread) => {
                                let seconds = idle_timeout.as_secs_f64();
                                ending = Some(refuse(&ApiError::Unread { seconds }));
                                break;
                            }
                        }
                    }
                    Err(failed) => {
                        ending = Some(refuse(&failed));
                        break;
                    }
                }
            }
            () = passed(deadline) => {
                ending = Some(refuse(&EngineError::Expired.into()));
                break;
            }
            () = passed(quiet_since.checked_add(idle_timeout)), if pending.is_empty() => {
                let seconds = idle_timeout.as_secs_f64();
                ending = Some(refuse(&ApiError::Idle { seconds }));
                break;
            }
            () = draining.cancelled(), if reading => {
                reading = false;
                ending = Some(refuse(&EngineError::Closing.into()));
            }
            message = requests.next(), if reading && room => match message {
                Some(Ok(message)) => waiting = Some(message),
                Some(Err(refused)) => {
                    reading = false;
                    ending = Some(refused);
                }
                None => reading = false,
            },
        }
    }
    // Nobody waits for what is still pending; dropping it takes it back.
    drop((pending, worker));
    if let Some(ending) = ending {
        // Heard when the client reads; one that has gone does not need to hear it.
        last_word.send(Err(ending));
    }
}

/// The answer of the oldest request in work.
async fn first(pending: &mut VecDeque<Pending>) -> Result<IngestResponse, ApiError> {
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
    task: JoinHandle<Result<IngestResponse, ApiError>>,
}

impl Pending {
    fn start(message: Message, worker: &mut impl Worker) -> Self {
        let Message { request, memory } = message;
        let ids = request.documents.iter().map(|document| document.id.clone()).collect();
        let work = worker.work(request, memory.as_ref().map_or(0, Held::bytes));
        let work = async move {
            // Free again when the work is done: its answer is small, and may lie unread for long.
            let _memory = memory;
            work.await
        };
        let task = tokio::spawn(work.in_current_span());
        Pending { ids, task }
    }

    fn shares_a_document(&self, request: &IngestRequest) -> bool {
        request.documents.iter().any(|document| self.ids.contains(&document.id))
    }

    async fn answer(&mut self) -> Result<IngestResponse, ApiError> {
        (&mut self.task).await.unwrap_or_else(|e| Err(EngineError::Panicked { reason: e.to_string() }.into()))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Gives the documents of each request to the engine.
struct Work {
    context: Context,
    /// Of the stream.
    deadline: Option<Instant>,
    request_timeout: Duration,
    limits: Arc<Limits>,
    /// Named by the first request; later ones may leave it out.
    collection: String,
}

/// Until when a message that comes in now is worth its cost: a stream may last as long as its client lets it, its messages
/// may not.
fn message_deadline(of_stream: Option<Instant>, request_timeout: Duration) -> Instant {
    let fresh = Instant::now() + request_timeout * MESSAGE_PATIENCE;
    of_stream.map_or(fresh, |deadline| deadline.min(fresh))
}

impl Worker for Work {
    fn work(
        &mut self,
        request: IngestRequest,
        bytes: usize,
    ) -> impl Future<Output = Result<IngestResponse, ApiError>> + Send + 'static {
        if !request.collection.is_empty() {
            self.collection.clone_from(&request.collection);
        }
        let deadline = message_deadline(self.deadline, self.request_timeout);
        let context = Context { deadline, request_bytes: bytes, ..self.context.clone() };
        let (limits, collection) = (Arc::clone(&self.limits), self.collection.clone());
        async move {
            if collection.is_empty() {
                let reason = "the first request of the stream must name the collection";
                return Err(ApiError::field("collection", reason));
            }
            let work = async {
                let _turn = limits.turn().await?;
                write(&context, &collection, request).await
            };
            bounded(deadline, &context.room, work).await
        }
    }
}

/// Writes the documents of one request, each by itself.
async fn write(
    context: &Context,
    collection: &str,
    request: IngestRequest,
) -> Result<IngestResponse, ApiError> {
    let failed = |id: String, error: &dyn Fault| {
        context.counts.document_failed();
        log_if_ours(error, &context.request_id);
        convert::failure_to(id, error)
    };
    let mut results: Vec<DocumentResult> = vec![DocumentResult::default(); request.documents.len()];
    let (mut documents, mut places) = (Vec::new(), Vec::new());
    let durability = context.read(|| convert::durability_from(request.durability))?;
    let id = context.read(|| convert::request_id_from(&request.request_id))?;
    context.read(|| {
        let mode = convert::mode_from(request.mode)?;
        for (place, document) in request.documents.into_iter().enumerate() {
            let id = document.id.clone();
            match convert::document_from(document, mode) {
                Ok(document) => {
                    documents.push(document);
                    places.push((place, id));
                }
                Err(error) => results[place] = failed(id, &error),
            }
        }
        Ok::<_, ApiError>(())
    })?;
    let caller = Caller { durability, request: id, ..context.caller() };
    let outcomes = context.engine.ingest(collection, documents, caller).await?;
    for ((place, id), outcome) in places.into_iter().zip(outcomes) {
        results[place] = match outcome {
            Ok(outcome) => {
                context.counts.document(&outcome);
                convert::outcome_to(outcome)
            }
            Err(error) => failed(id, &error),
        };
    }
    let durability = convert::durability_to(durability);
    Ok(IngestResponse { sequence: request.sequence, results, durability })
}

#[cfg(test)]
mod tests;
