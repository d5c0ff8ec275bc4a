//! Sends batches on the ingest stream with several requests in flight, and accounts for every answer.
//!
//! A thread reads and fills batches; this task sends them, hears the answers and the interrupt. What was sent before an
//! interrupt is waited for, for at most [`DRAIN_TIME`]; what was only read is forgotten: it was never promised.
//! A stream that the server ended since the source gave nothing for a long time is opened again.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};

use super::{
    batch::{Answered, Batch, Fault, Mark, Pace, Piece},
    durability::Durability,
    mode::Mode,
    tally::Tally,
};
use crate::{
    cli::{layout, output::Output, output::Progress},
    proto::{DocumentResult, IngestRequest, IngestResponse, WriteStatus},
    rpc::documents_client::DocumentsClient,
    source::UnderstoodFiles,
};

/// Requests that wait for their answer. Enough to keep the encoder fed while one answer travels.
const IN_FLIGHT: usize = 4;
/// Faults of one file that a person is told; a program is told all.
const FAULTS_TOLD: u64 = 10;
/// The time that an interrupted run waits for what it sent.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// What must be known of a request that waits for its answer.
struct Sent {
    marks: Vec<Mark>,
    bytes: usize,
    read: u64,
    at: Instant,
}

/// The result of pumping.
#[derive(Debug)]
pub enum End {
    Done,
    Interrupted,
    /// The stream broke; what was answered before stands.
    Broken(Status),
}

/// Sends batches and hears answers until the reader is done and all is answered, or an end comes sooner.
pub struct Pump<'a> {
    out: &'a Output,
    client: DocumentsClient<Channel>,
    collection: &'a str,
    mode: Mode,
    durability: Durability,
    interrupt: &'a CancellationToken,
    understood: Arc<UnderstoodFiles>,
    progress: Progress<'a>,
    pace: Arc<Pace>,
    tally: Tally,
    /// How many each file had.
    faults: HashMap<String, u64>,
    in_flight: HashMap<u64, Sent>,
    answered: Answered,
    last_answer: Instant,
}

impl<'a> Pump<'a> {
    /// Counts from now.
    pub fn new(
        out: &'a Output,
        client: DocumentsClient<Channel>,
        (collection, mode, durability): (&'a str, Mode, Durability),
        interrupt: &'a CancellationToken,
        (bytes_total, understood): (Option<u64>, Arc<UnderstoodFiles>),
        pace: Arc<Pace>,
    ) -> Self {
        let mut progress = out.progress("ingesting", bytes_total);
        progress.set(0, "nothing answered yet");
        Pump {
            out,
            client,
            collection,
            mode,
            durability,
            interrupt,
            understood,
            progress,
            pace,
            tally: Tally::new(),
            faults: HashMap::new(),
            in_flight: HashMap::new(),
            answered: Answered::default(),
            last_answer: Instant::now(),
        }
    }

    /// Returns the counts and how it ended.
    pub async fn run(mut self, first: Option<Batch>, mut pieces: mpsc::Receiver<Piece>) -> (Tally, End) {
        // As many places as requests may be in flight: sending never waits.
        let (requests, stream) = mpsc::channel(IN_FLIGHT);
        let mut answers = answers(self.client.clone(), stream);
        let mut requests = Some(requests);
        let mut sequence = 0;
        let mut waiting = first;
        let mut end = End::Done;
        let mut drained_by = None;
        loop {
            if let (Some(batch), Some(requests)) = (waiting.take(), &requests) {
                sequence += 1;
                let Batch { documents, marks, bytes, read } = batch;
                let collection = self.collection.to_owned();
                // A closed channel means a broken stream, which `answers` is about to tell.
                let mode = self.mode.to_wire().into();
                let durability = self.durability.to_wire().into();
                let request = IngestRequest {
                    collection,
                    sequence,
                    documents,
                    mode,
                    durability,
                    ..IngestRequest::default()
                };
                let _ = requests.try_send(request);
                self.in_flight.insert(sequence, Sent { marks, bytes, read, at: Instant::now() });
            }
            tokio::select! {
                piece = pieces.recv(), if requests.is_some() && self.in_flight.len() < IN_FLIGHT => {
                    self.tell_understood();
                    match piece {
                        Some(Piece::Batch(batch)) => waiting = Some(batch),
                        Some(Piece::Fault(fault)) => self.fault(&fault),
                        Some(Piece::Broken(status)) => return self.ended(End::Broken(status)),
                        None => requests = None,
                    }
                }
                answer = answers.recv() => match answer {
                    Some(Ok(response)) => self.settle(response),
                    Some(Err(status)) if self.was_idle(&status) && requests.is_some() => {
                        let (more, stream) = mpsc::channel(IN_FLIGHT);
                        answers = self::answers(self.client.clone(), stream);
                        requests = Some(more);
                    }
                    Some(Err(status)) => return self.ended(End::Broken(status)),
                    None if self.in_flight.is_empty() => return self.ended(end),
                    None => {
                        let early = Status::unavailable("the server ended the stream before all was answered");
                        return self.ended(End::Broken(early));
                    }
                },
                () = self.interrupt.cancelled(), if drained_by.is_none() => {
                    let sent = layout::counted(self.unanswered(), "document");
                    self.out.note(&format!(
                        "interrupted: waiting up to {} for the answer to {sent} that were sent (again to stop at once)",
                        layout::duration(DRAIN_TIME)
                    ));
                    drained_by = Some(tokio::time::Instant::now() + DRAIN_TIME);
                    end = End::Interrupted;
                    requests = None;
                    pieces.close();
                }
                () = passed(drained_by) => return self.ended(end),
            }
        }
    }

    /// Counts and tells something that could not be stored.
    pub fn fault(&mut self, fault: &Fault) {
        self.tally.failed += 1;
        self.tell_not_stored(fault);
    }

    /// A program hears all, a person the first of each file.
    fn tell_not_stored(&mut self, fault: &Fault) {
        let file = fault.place.rsplit_once(':').map_or(&*fault.place, |(file, _)| file);
        let met = self.faults.entry(file.to_owned()).or_default();
        *met += 1;
        if self.out.is_json() || *met <= FAULTS_TOLD {
            self.out.warn(&format!("{}: {}", fault.place, fault.reason));
        } else if *met == FAULTS_TOLD + 1 {
            self.out.warn(&format!("{file}: more faults are only counted (--json tells all)"));
        }
    }

    /// Tells how the columns of files were understood that were opened since.
    pub fn tell_understood(&self) {
        for understood in self.understood.take() {
            self.out.note(&format!("reading {understood}"));
        }
    }

    /// Whether the server ended the stream only since nothing came for a long time: then another may be opened.
    fn was_idle(&self, status: &Status) -> bool {
        status.code() == Code::DeadlineExceeded && self.in_flight.is_empty()
    }

    fn ended(mut self, end: End) -> (Tally, End) {
        self.tally.unanswered = self.unanswered();
        (self.tally, end)
    }

    /// Documents that were sent and not answered yet.
    fn unanswered(&self) -> u64 {
        self.in_flight.values().map(|sent| sent.marks.len() as u64).sum()
    }

    fn settle(&mut self, response: IngestResponse) {
        let Some(sent) = self.in_flight.remove(&response.sequence) else {
            self.out.warn(&format!("the server answered request {}, which was not sent", response.sequence));
            return;
        };
        // It was worked on since the answer before it, or since it was sent.
        self.answered.add(sent.bytes, self.last_answer.max(sent.at).elapsed(), &self.pace);
        self.last_answer = Instant::now();
        for (i, result) in response.results.iter().enumerate() {
            self.settle_one(result, sent.marks.get(i));
        }
        if response.results.len() != sent.marks.len() {
            let (got, asked) = (response.results.len(), sent.marks.len());
            self.out.warn(&format!("the server answered {got} of {asked} documents of a request"));
            self.tally.failed += asked.saturating_sub(got) as u64;
        }
        self.progress.set(sent.read, &self.tally.so_far());
    }

    fn settle_one(&mut self, result: &DocumentResult, mark: Option<&Mark>) {
        let tally = &mut self.tally;
        match result.status() {
            WriteStatus::Inserted => tally.inserted += 1,
            WriteStatus::Updated => tally.updated += 1,
            WriteStatus::Unchanged => tally.unchanged += 1,
            WriteStatus::Failed | WriteStatus::Unspecified => {
                let place = mark.map_or_else(|| format!("document {:?}", result.id), |m| m.place.clone());
                let fault = Fault { place, reason: result.error.clone(), wrong_use: false };
                if !self.mode.refused(result) {
                    return self.fault(&fault);
                }
                tally.refused += 1;
                return self.tell_not_stored(&fault);
            }
        }
        tally.passages += u64::from(result.passages);
        tally.tokens += u64::from(result.tokens);
        tally.truncated += u64::from(result.truncated);
        tally.titles_truncated += u64::from(result.title_truncated);
        tally.with_unknown += u64::from(result.unknown_tokens > 0);
        tally.unknown_tokens += u64::from(result.unknown_tokens);
        let Some(mark) = mark else { return };
        if mark.repeated && result.status() == WriteStatus::Updated {
            tally.replaced(&mark.place, &result.id);
        }
        if let Some(folder) = &mark.folder {
            *tally.of_folder.entry(Arc::clone(folder)).or_default() += u64::from(!mark.repeated);
        }
    }
}

/// The end of the time that an interrupted run has.
async fn passed(by: Option<tokio::time::Instant>) {
    match by {
        Some(by) => tokio::time::sleep_until(by).await,
        None => std::future::pending().await,
    }
}

/// Opens the stream in a task of its own: a server may hold back its first answer until the first request came.
fn answers(
    mut client: DocumentsClient<Channel>,
    requests: mpsc::Receiver<IngestRequest>,
) -> mpsc::Receiver<Result<IngestResponse, Status>> {
    let (tell, answers) = mpsc::channel(IN_FLIGHT);
    tokio::spawn(async move {
        let mut stream = match client.ingest(ReceiverStream::new(requests)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return drop(tell.send(Err(status)).await),
        };
        while let Some(answer) = stream.message().await.transpose() {
            let last = answer.is_err();
            if tell.send(answer).await.is_err() || last {
                return;
            }
        }
    });
    answers
}
