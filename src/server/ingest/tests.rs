//! The pump with a worker whose every step is decided by the test.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::*;
use crate::proto::Document;

/// Finishes the request of that sequence.
type Finish = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<(), ServerError>>>>>;

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
    ) -> impl Future<Output = Result<IngestResponse, ServerError>> + Send + 'static {
        let (sender, receiver) = oneshot::channel();
        self.finish.lock().unwrap().insert(request.sequence, sender);
        self.began.send(request.sequence).unwrap();
        async move {
            receiver.await.expect("the test finishes every request it waits for")?;
            Ok(IngestResponse { sequence: request.sequence, results: vec![] })
        }
    }
}

struct Stream {
    requests: Option<mpsc::Sender<Result<IngestRequest, Status>>>,
    answers: mpsc::Receiver<Answer>,
    began: mpsc::UnboundedReceiver<u64>,
    finish: Finish,
    draining: CancellationToken,
    pump: JoinHandle<()>,
}

impl Stream {
    fn open() -> Self {
        Stream::with_deadline(None)
    }

    fn with_deadline(deadline: Option<Instant>) -> Self {
        Stream::with_context(admit::Request::for_tests(deadline))
    }

    fn with_context(context: admit::Request) -> Self {
        let (requests, incoming) = mpsc::channel(16);
        let (sender, answers) = mpsc::channel(ANSWERS);
        let (began_sender, began) = mpsc::unbounded_channel();
        let finish = Arc::default();
        let worker = Steps { began: began_sender, finish: Arc::clone(&finish) };
        let draining = CancellationToken::new();
        let pump =
            tokio::spawn(pump(ReceiverStream::new(incoming), sender, draining.clone(), context, worker));
        Stream { requests: Some(requests), answers, began, finish, draining, pump }
    }

    async fn send(&self, sequence: u64, id: &str) {
        let documents = vec![Document { id: id.into(), ..Default::default() }];
        let request = IngestRequest { collection: "c".into(), sequence, documents };
        self.requests.as_ref().unwrap().send(Ok(request)).await.unwrap();
    }

    fn finish(&self, sequence: u64, outcome: Result<(), ServerError>) {
        self.finish.lock().unwrap().remove(&sequence).expect("it began").send(outcome).unwrap();
    }

    async fn begins(&mut self, sequence: u64) {
        assert_eq!(soon(self.began.recv()).await, Some(sequence));
    }

    async fn answers(&mut self, sequence: u64) {
        assert_eq!(soon(self.answers.recv()).await.unwrap().unwrap().sequence, sequence);
    }

    async fn ends_with(&mut self, code: Code) {
        assert_eq!(soon(self.answers.recv()).await.unwrap().unwrap_err().code(), code);
        self.ends().await;
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
    let mut stream = Stream::open();
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
    let mut stream = Stream::open();
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
    let mut stream = Stream::open();
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
    let mut stream = Stream::open();
    for sequence in [1, 2, 3] {
        stream.send(sequence, &sequence.to_string()).await;
        stream.begins(sequence).await;
    }
    let failure = EngineError::NoCollection { name: "c".into(), known: String::new() };
    stream.finish(2, Err(failure.into()));
    stream.finish(1, Ok(()));
    stream.answers(1).await;
    stream.ends_with(Code::NotFound).await;
    soon(&mut stream.pump).await.unwrap();
    stream.settle().await;
    let third = stream.finish.lock().unwrap().remove(&3).unwrap();
    assert!(third.is_closed(), "work that nobody will be told of goes on");
}

#[tokio::test]
async fn draining_finishes_what_was_read_and_ends_with_unavailable() {
    let mut stream = Stream::open();
    stream.send(1, "a").await;
    stream.begins(1).await;
    stream.draining.cancel();
    stream.settle().await;
    stream.send(2, "b").await;
    stream.settle().await;
    assert!(stream.began.try_recv().is_err(), "it read on while draining");
    stream.finish(1, Ok(()));
    stream.answers(1).await;
    stream.ends_with(Code::Unavailable).await;
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_work_with_it() {
    let mut stream = Stream::open();
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
    let mut stream = Stream::with_deadline(Some(Instant::now() + Duration::from_millis(20)));
    stream.send(1, "a").await;
    stream.begins(1).await;
    stream.ends_with(Code::DeadlineExceeded).await;
}

#[tokio::test]
async fn an_oversized_message_is_told_in_our_words_after_the_answers_before_it() {
    let mut stream = Stream::open();
    stream.send(1, "a").await;
    stream.begins(1).await;
    stream.requests.as_ref().unwrap().send(Err(status::bare(Code::OutOfRange))).await.unwrap();
    stream.settle().await;
    stream.finish(1, Ok(()));
    stream.answers(1).await;
    let status = soon(stream.answers.recv()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("message_bytes_max"), "{status}");
}

#[tokio::test]
async fn a_message_that_cannot_be_read_ends_the_stream_after_the_answers_before_it() {
    let mut stream = Stream::open();
    stream.send(1, "a").await;
    stream.begins(1).await;
    stream.requests.as_ref().unwrap().send(Err(status::bare(Code::Internal))).await.unwrap();
    stream.settle().await;
    stream.finish(1, Ok(()));
    stream.answers(1).await;
    let status = soon(stream.answers.recv()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("message 2 of the stream"), "{status}");
}

#[tokio::test]
async fn a_silent_stream_is_ended_but_not_while_it_has_work() {
    let idle = Duration::from_millis(30);
    let mut context = admit::Request::for_tests(None);
    context.stream_idle_timeout = idle;
    let mut stream = Stream::with_context(context);
    stream.send(1, "a").await;
    stream.begins(1).await;
    tokio::time::sleep(4 * idle).await;
    assert!(stream.answers.try_recv().is_err(), "it was ended while it had work");
    stream.finish(1, Ok(()));
    stream.answers(1).await;
    let status = soon(stream.answers.recv()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("server.stream_idle_timeout"), "{status}");
}

#[tokio::test]
async fn a_stream_whose_answers_are_not_read_is_ended() {
    let mut context = admit::Request::for_tests(None);
    context.stream_idle_timeout = Duration::from_millis(30);
    let mut stream = Stream::with_context(context);
    for sequence in [1, 2] {
        stream.send(sequence, &sequence.to_string()).await;
        stream.begins(sequence).await;
        stream.finish(sequence, Ok(()));
    }
    soon(&mut stream.pump).await.unwrap();
    stream.answers(1).await;
    let status = soon(stream.answers.recv()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("not read"), "{status}");
    stream.ends().await;
}

#[tokio::test]
async fn a_message_gives_its_memory_back_when_its_work_is_done() {
    let budget = crate::budget::Budget::new(1 << 20);
    let memory = Some(budget.reserve(1 << 10).unwrap());
    let (began, _began) = mpsc::unbounded_channel();
    let finish = Finish::default();
    let mut worker = Steps { began, finish: Arc::clone(&finish) };
    let context = admit::Request::for_tests(None);
    let mut pending = Pending::start(IngestRequest::default(), memory, &mut worker, &context);
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
        ) -> impl Future<Output = Result<IngestResponse, ServerError>> + Send + 'static {
            async { panic!("as the test wants it") }
        }
    }
    let (requests, incoming) = mpsc::channel(1);
    let (sender, mut answers) = mpsc::channel(ANSWERS);
    let context = admit::Request::for_tests(None);
    tokio::spawn(pump(ReceiverStream::new(incoming), sender, CancellationToken::new(), context, Panics));
    requests.send(Ok(IngestRequest::default())).await.unwrap();
    assert_eq!(soon(answers.recv()).await.unwrap().unwrap_err().code(), Code::Internal);
}
