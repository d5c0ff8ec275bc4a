//! The pump with a worker whose every step is decided by the test.

use std::{collections::HashMap, sync::Mutex};

use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::{config::LimitsConfig, error::ErrorKind, proto::Document};

/// What the door of these tests makes of a failure.
type Failure = (ErrorKind, String);

/// Finishes the request of that sequence.
type Finish = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<(), ApiError>>>>>;

/// A stream and its client's ends of it.
#[expect(clippy::type_complexity, reason = "the closure's type has no name")]
fn stream() -> (
    mpsc::Sender<Result<Message, Failure>>,
    mpsc::Receiver<Result<IngestResponse, Failure>>,
    Stream<ReceiverStream<Result<Message, Failure>>, impl Fn(&ApiError) -> Failure, Failure>,
) {
    let (requests, incoming) = mpsc::channel(16);
    let (answers, receiver) = mpsc::channel(ANSWERS);
    let stream = Stream {
        requests: ReceiverStream::new(incoming),
        answers,
        refuse: |error: &ApiError| (error.kind(), error.to_string()),
        deadline: None,
        idle_timeout: Duration::from_secs(60),
        draining: CancellationToken::new(),
        request_timeout: Duration::from_secs(60),
        limits: Arc::new(Limits::new(&LimitsConfig::default())),
    };
    (requests, receiver, stream)
}

/// Tells which requests began, and finishes each when the test says so.
struct Steps {
    began: mpsc::UnboundedSender<u64>,
    finish: Finish,
}

impl Worker for Steps {
    fn work(
        &mut self,
        request: IngestRequest,
        _: usize,
    ) -> impl Future<Output = Result<IngestResponse, ApiError>> + Send + 'static {
        let (sender, receiver) = oneshot::channel();
        self.finish.lock().unwrap().insert(request.sequence, sender);
        self.began.send(request.sequence).unwrap();
        async move {
            receiver.await.expect("the test finishes every request it waits for")?;
            Ok(IngestResponse { sequence: request.sequence, ..IngestResponse::default() })
        }
    }
}

struct Opened {
    requests: Option<mpsc::Sender<Result<Message, Failure>>>,
    answers: mpsc::Receiver<Result<IngestResponse, Failure>>,
    began: mpsc::UnboundedReceiver<u64>,
    finish: Finish,
    draining: CancellationToken,
    pump: JoinHandle<()>,
}

impl Opened {
    fn new() -> Self {
        Opened::with(None, Duration::from_secs(60))
    }

    fn with(deadline: Option<Instant>, idle_timeout: Duration) -> Self {
        let (requests, answers, mut stream) = stream();
        (stream.deadline, stream.idle_timeout) = (deadline, idle_timeout);
        let (began_sender, began) = mpsc::unbounded_channel();
        let finish = Arc::default();
        let worker = Steps { began: began_sender, finish: Arc::clone(&finish) };
        let draining = stream.draining.clone();
        let pump = tokio::spawn(pump(stream, worker));
        Opened { requests: Some(requests), answers, began, finish, draining, pump }
    }

    async fn refuse(&self, told: Failure) {
        self.requests.as_ref().unwrap().send(Err(told)).await.unwrap();
    }

    async fn send(&self, sequence: u64, id: &str) {
        let documents = vec![Document { id: id.into(), ..Default::default() }];
        let request = IngestRequest { collection: "c".into(), sequence, documents, ..Default::default() };
        let message = Message { request, memory: None };
        self.requests.as_ref().unwrap().send(Ok(message)).await.unwrap();
    }

    fn finish(&self, sequence: u64, outcome: Result<(), ApiError>) {
        self.finish.lock().unwrap().remove(&sequence).expect("it began").send(outcome).unwrap();
    }

    async fn begins(&mut self, sequence: u64) {
        assert_eq!(soon(self.began.recv()).await, Some(sequence));
    }

    async fn answers(&mut self, sequence: u64) {
        assert_eq!(soon(self.answers.recv()).await.unwrap().unwrap().sequence, sequence);
    }

    async fn ends_with(&mut self, kind: ErrorKind) -> String {
        let told = soon(self.answers.recv()).await.unwrap().unwrap_err();
        assert_eq!(told.0, kind, "{told:?}");
        self.ends().await;
        told.1
    }

    async fn ends(&mut self) {
        assert!(soon(self.answers.recv()).await.is_none());
    }

    /// Lets everything that can run do so.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it happens soon")
}

#[tokio::test]
async fn answers_keep_the_order_of_the_requests() {
    let mut stream = Opened::new();
    for sequence in [1, 2] {
        stream.send(sequence, &sequence.to_string()).await;
        stream.begins(sequence).await;
    }
    stream.finish(2, Ok(()));
    stream.settle().await;
    assert!(stream.answers.try_recv().is_err(), "2 overtook 1");
    stream.finish(1, Ok(()));
    stream.answers(1).await;
    stream.answers(2).await;
    stream.requests = None;
    stream.ends().await;
}

#[tokio::test]
async fn no_more_than_a_few_requests_are_read_ahead() {
    let mut stream = Opened::new();
    for sequence in 0..8 {
        stream.send(sequence, &sequence.to_string()).await;
    }
    for sequence in 0..READ_AHEAD as u64 {
        stream.begins(sequence).await;
    }
    stream.settle().await;
    assert!(stream.began.try_recv().is_err());
    stream.finish(0, Ok(()));
    stream.begins(READ_AHEAD as u64).await;
}

#[tokio::test]
async fn a_request_waits_for_the_one_with_the_same_document() {
    let mut stream = Opened::new();
    stream.send(1, "a").await;
    stream.begins(1).await;
    stream.send(2, "a").await;
    stream.settle().await;
    assert!(stream.began.try_recv().is_err(), "both write document a at once");
    stream.finish(1, Ok(()));
    stream.begins(2).await;
    stream.finish(2, Ok(()));
    stream.answers(1).await;
    stream.answers(2).await;
}

#[tokio::test]
async fn a_failed_request_ends_the_stream_after_the_answers_before_it() {
    let mut stream = Opened::new();
    for sequence in [1, 2, 3] {
        stream.send(sequence, &sequence.to_string()).await;
        stream.begins(sequence).await;
    }
    let failure = EngineError::NoCollection { name: "c".into(), known: String::new() };
    stream.finish(2, Err(failure.into()));
    stream.finish(1, Ok(()));
    stream.answers(1).await;
    stream.ends_with(ErrorKind::NotFound).await;
    soon(&mut stream.pump).await.unwrap();
    stream.settle().await;
    let third = stream.finish.lock().unwrap().remove(&3).unwrap();
    assert!(third.is_closed(), "work that nobody will be told of goes on");
}

#[tokio::test]
async fn draining_finishes_what_was_read_and_ends_with_unavailable() {
    let mut stream = Opened::new();
    stream.send(1, "a").await;
    stream.begins(1).await;
    stream.draining.cancel();
    stream.settle().await;
    stream.send(2, "b").await;
    stream.settle().await;
    assert!(stream.began.try_recv().is_err(), "it read on while draining");
    stream.finish(1, Ok(()));
    stream.answers(1).await;
    stream.ends_with(ErrorKind::Unavailable).await;
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_work_with_it() {
    let mut stream = Opened::new();
    stream.send(1, "a").await;
    stream.begins(1).await;
    let (_, closed) = mpsc::channel(1);
    drop(std::mem::replace(&mut stream.answers, closed));
    soon(&mut stream.pump).await.unwrap();
    stream.settle().await;
    assert!(stream.finish.lock().unwrap()[&1].is_closed(), "work goes on for nobody");
}

#[tokio::test]
async fn a_stream_past_its_deadline_ends() {
    let mut stream = Opened::with(Some(Instant::now() + Duration::from_millis(20)), Duration::from_secs(60));
    stream.send(1, "a").await;
    stream.begins(1).await;
    stream.ends_with(ErrorKind::Timeout).await;
}

#[tokio::test]
async fn a_message_that_the_door_refused_ends_the_stream_after_the_answers_before_it() {
    let mut stream = Opened::new();
    stream.send(1, "a").await;
    stream.begins(1).await;
    stream.refuse((ErrorKind::Invalid, "as the door says it".into())).await;
    stream.settle().await;
    stream.finish(1, Ok(()));
    stream.answers(1).await;
    assert_eq!(stream.ends_with(ErrorKind::Invalid).await, "as the door says it");
}

#[tokio::test]
async fn a_silent_stream_is_ended_but_not_while_it_has_work() {
    let idle = Duration::from_millis(30);
    let mut stream = Opened::with(None, idle);
    stream.send(1, "a").await;
    stream.begins(1).await;
    tokio::time::sleep(4 * idle).await;
    assert!(stream.answers.try_recv().is_err(), "it was ended while it had work");
    stream.finish(1, Ok(()));
    stream.answers(1).await;
    let message = stream.ends_with(ErrorKind::Timeout).await;
    assert!(message.contains("server.stream_idle_timeout"), "{message}");
}

#[tokio::test]
async fn a_stream_whose_answers_are_not_read_is_ended() {
    let mut stream = Opened::with(None, Duration::from_millis(30));
    for sequence in [1, 2] {
        stream.send(sequence, &sequence.to_string()).await;
        stream.begins(sequence).await;
        stream.finish(sequence, Ok(()));
    }
    soon(&mut stream.pump).await.unwrap();
    stream.answers(1).await;
    let message = stream.ends_with(ErrorKind::Timeout).await;
    assert!(message.contains("not read"), "{message}");
}

#[tokio::test]
async fn a_message_gives_its_memory_back_when_its_work_is_done() {
    let budget = crate::budget::Budget::new(1 << 20);
    let memory = Some(budget.reserve(1 << 10).unwrap());
    let (began, _began) = mpsc::unbounded_channel();
    let finish = Finish::default();
    let mut worker = Steps { began, finish: Arc::clone(&finish) };
    let message = Message { request: IngestRequest::default(), memory };
    let mut pending = Pending::start(message, &mut worker);
    assert!(budget.free_bytes() < 1 << 20);
    finish.lock().unwrap().remove(&0).unwrap().send(Ok(())).unwrap();
    while !pending.task.is_finished() {
        tokio::task::yield_now().await;
    }
    assert_eq!(budget.free_bytes(), 1 << 20, "an answer that nobody reads holds memory");
    pending.answer().await.unwrap();
}

#[tokio::test]
async fn a_panic_in_the_work_is_internal() {
    struct Panics;
    impl Worker for Panics {
        #[expect(clippy::manual_async_fn, reason = "the trait asks for a future that outlives the borrow")]
        fn work(
            &mut self,
            _: IngestRequest,
            _: usize,
        ) -> impl Future<Output = Result<IngestResponse, ApiError>> + Send + 'static {
            async { panic!("as the test wants it") }
        }
    }
    let (requests, mut answers, stream) = stream();
    tokio::spawn(pump(stream, Panics));
    requests.send(Ok(Message { request: IngestRequest::default(), memory: None })).await.unwrap();
    assert_eq!(soon(answers.recv()).await.unwrap().unwrap_err().0, ErrorKind::Internal);
}

#[test]
fn each_message_has_its_own_time_but_not_past_the_streams() {
    let request_timeout = Duration::from_secs(60);
    assert!(message_deadline(None, request_timeout) > Instant::now() + Duration::from_secs(300));
    let end = Instant::now() + Duration::from_secs(1);
    assert_eq!(message_deadline(Some(end), request_timeout), end);
}
