//! Documents from a reader -> the ingest stream, several requests in flight, every answer accounted for.
//!
//! A thread reads and fills batches; this task sends them, hears the answers and the interrupt. All counts live here.
//! What was sent before an interrupt is waited for, what was only read is forgotten: it was never promised.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

use super::Tally;
use crate::{
    cli::{layout, output::Output, output::Progress},
    proto::{
        Document, DocumentResult, IngestRequest, IngestResponse, WriteStatus,
        documents_client::DocumentsClient,
    },
};

/// Requests that wait for their answer. Enough to keep the encoder fed while one answer travels.
const IN_FLIGHT: usize = 4;
/// Documents of one request: a few full encoder batches of short texts.
const BATCH_DOCUMENTS: usize = 64;
/// Bytes of one request, reached only by long texts.
const BATCH_BYTES: usize = 1 << 20;
/// Faults of one file that a person is told; a program is told all.
const FAULTS_TOLD: u64 = 10;

/// A document and where it was read.
#[derive(Debug)]
pub struct Record {
    pub place: String,
    pub document: Document,
}

/// Something that could not be read as a document.
#[derive(Debug)]
pub struct Fault {
    pub place: String,
    pub reason: String,
}

/// What the reading thread hands over.
#[derive(Debug)]
pub enum Piece {
    Batch(Batch),
    Fault(Fault),
}

/// Documents of one request.
#[derive(Debug, Default)]
pub struct Batch {
    pub documents: Vec<Document>,
    places: Vec<String>,
    ids: HashSet<String>,
    bytes: usize,
    /// Bytes of the source that were read when the batch was closed.
    read: u64,
}

/// What must be known of a request that waits for its answer.
struct Sent {
    places: Vec<String>,
    read: u64,
}

impl Batch {
    fn takes(&self, document: &Document, bytes: usize) -> bool {
        self.documents.is_empty()
            || (self.documents.len() < BATCH_DOCUMENTS
                && self.bytes + bytes <= BATCH_BYTES
                // One request names each id once; a later line that repeats it goes into a later request.
                && !self.ids.contains(&document.id))
    }

    fn push(&mut self, record: Record, bytes: usize) {
        self.bytes += bytes;
        self.ids.insert(record.document.id.clone());
        self.documents.push(record.document);
        self.places.push(record.place);
    }
}

/// Reads everything, in the caller's thread. Ends early when nobody listens any more.
pub fn read(
    source: impl Iterator<Item = (Result<Record, Fault>, u64)>,
    message_bytes_max: usize,
    pieces: &mpsc::Sender<Piece>,
) {
    let mut batch = Batch::default();
    for (record, read) in source {
        let record = record.and_then(|record| {
            let bytes = record.document.encoded_len();
            // Some room for the request around it.
            if bytes + 1024 > message_bytes_max {
                let (bytes, most) = (layout::bytes(bytes as u64), layout::bytes(message_bytes_max as u64));
                let reason =
                    format!("the document has {bytes}, a request may have {most} (limits.message_bytes_max)");
                return Err(Fault { place: record.place, reason });
            }
            Ok((record, bytes))
        });
        let sent = match record {
            Err(fault) => pieces.blocking_send(Piece::Fault(fault)),
            Ok((record, bytes)) => {
                let full = (!batch.takes(&record.document, bytes)).then(|| std::mem::take(&mut batch));
                batch.push(record, bytes);
                batch.read = read;
                match full {
                    Some(full) => pieces.blocking_send(Piece::Batch(full)),
                    None => Ok(()),
                }
            }
        };
        if sent.is_err() {
            return;
        }
    }
    if !batch.documents.is_empty() {
        // Nobody listening means interrupted: then this batch is not wanted.
        let _ = pieces.blocking_send(Piece::Batch(batch));
    }
}

/// How pumping ended.
#[derive(Debug)]
pub enum End {
    Done,
    Interrupted,
    /// The stream broke; what was answered before stands.
    Broken(Status),
}

/// Sends batches and hears answers until the reader is done and all is answered, or an end comes sooner.
pub struct Pump<'a> {
    pub out: &'a Output,
    pub client: DocumentsClient<Channel>,
    pub collection: &'a str,
    pub interrupt: &'a CancellationToken,
    pub progress: Progress<'a>,
    pub tally: Tally,
    /// How many each file had.
    pub faults: HashMap<String, u64>,
}

impl Pump<'_> {
    /// Returns the counts and how it ended.
    pub async fn run(mut self, first: Option<Batch>, mut pieces: mpsc::Receiver<Piece>) -> (Tally, End) {
        // As many places as requests may be in flight: sending never waits.
        let (requests, stream) = mpsc::channel(IN_FLIGHT);
        let mut answers = answers(self.client.clone(), stream);
        let mut requests = Some(requests);
        let mut in_flight: HashMap<u64, Sent> = HashMap::new();
        let mut sequence = 0;
        let mut waiting = first;
        let mut end = End::Done;
        loop {
            if let (Some(batch), Some(requests)) = (waiting.take(), &requests) {
                sequence += 1;
                let Batch { documents, places, read, .. } = batch;
                let collection = self.collection.to_owned();
                // A closed channel means a broken stream, which `answers` is about to tell.
                let _ = requests.try_send(IngestRequest { collection, sequence, documents });
                in_flight.insert(sequence, Sent { places, read });
            }
            tokio::select! {
                piece = pieces.recv(), if requests.is_some() && in_flight.len() < IN_FLIGHT => match piece {
                    Some(Piece::Batch(batch)) => waiting = Some(batch),
                    Some(Piece::Fault(fault)) => self.fault(&fault),
                    None => requests = None,
                },
                answer = answers.recv() => match answer {
                    Some(Ok(response)) => self.settle(response, &mut in_flight),
                    Some(Err(status)) => return (self.tally, End::Broken(status)),
                    None if in_flight.is_empty() => return (self.tally, end),
                    None => {
                        let early = Status::unavailable("the server ended the stream before all was answered");
                        return (self.tally, End::Broken(early));
                    }
                },
                () = self.interrupt.cancelled(), if !matches!(end, End::Interrupted) => {
                    self.out.note("interrupted: waiting for what was sent (again to stop at once)");
                    end = End::Interrupted;
                    requests = None;
                    pieces.close();
                }
            }
        }
    }

    /// Tells of something that was not stored. A program hears all, a person the first of each file.
    pub fn fault(&mut self, fault: &Fault) {
        self.tally.failed += 1;
        let file = fault.place.rsplit_once(':').map_or(&*fault.place, |(file, _)| file);
        let met = self.faults.entry(file.to_owned()).or_default();
        *met += 1;
        if self.out.is_json() || *met <= FAULTS_TOLD {
            self.out.warn(&format!("{}: {}", fault.place, fault.reason));
        } else if *met == FAULTS_TOLD + 1 {
            self.out.warn(&format!("{file}: more faults are only counted (--json tells all)"));
        }
    }

    fn settle(&mut self, response: IngestResponse, in_flight: &mut HashMap<u64, Sent>) {
        let Some(sent) = in_flight.remove(&response.sequence) else {
            self.out.warn(&format!("the server answered request {}, which was not sent", response.sequence));
            return;
        };
        for (i, result) in response.results.iter().enumerate() {
            self.settle_one(result, sent.places.get(i));
        }
        if response.results.len() != sent.places.len() {
            let (got, asked) = (response.results.len(), sent.places.len());
            self.out.warn(&format!("the server answered {got} of {asked} documents of a request"));
            self.tally.failed += asked.saturating_sub(got) as u64;
        }
        let done = self.tally.stored() + self.tally.failed;
        let rate = done as f64 / self.tally.started.elapsed().as_secs_f64().max(0.001);
        self.progress.set(sent.read, &format!("{}, {rate:.0}/s", layout::counted(done, "document")));
    }

    fn settle_one(&mut self, result: &DocumentResult, place: Option<&String>) {
        let tally = &mut self.tally;
        match result.status() {
            WriteStatus::Inserted => tally.inserted += 1,
            WriteStatus::Updated => tally.updated += 1,
            WriteStatus::Unchanged => tally.unchanged += 1,
            WriteStatus::Failed | WriteStatus::Unspecified => {
                let place = place.map_or_else(|| format!("document {:?}", result.id), Clone::clone);
                return self.fault(&Fault { place, reason: result.error.clone() });
            }
        }
        tally.passages += u64::from(result.passages);
        tally.tokens += u64::from(result.tokens);
        tally.truncated += u64::from(result.truncated);
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

impl Tally {
    /// Counts from now.
    pub fn new() -> Self {
        Tally {
            inserted: 0,
            updated: 0,
            unchanged: 0,
            failed: 0,
            passages: 0,
            tokens: 0,
            truncated: 0,
            started: Instant::now(),
        }
    }

    /// Documents that are now as they were sent.
    pub fn stored(&self) -> u64 {
        self.inserted + self.updated + self.unchanged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, text: &str) -> (Result<Record, Fault>, u64) {
        let document = Document { id: id.into(), text: text.into(), ..Default::default() };
        (Ok(Record { place: format!("f:{id}"), document }), 1)
    }

    fn pieces(source: Vec<(Result<Record, Fault>, u64)>, most: usize) -> Vec<Piece> {
        let (tell, mut heard) = mpsc::channel(source.len() + 1);
        read(source.into_iter(), most, &tell);
        drop(tell);
        std::iter::from_fn(|| heard.blocking_recv()).collect()
    }

    fn sizes(pieces: &[Piece]) -> Vec<usize> {
        let size = |piece: &Piece| match piece {
            Piece::Batch(batch) => batch.documents.len(),
            Piece::Fault(_) => 0,
        };
        pieces.iter().map(size).collect()
    }

    #[test]
    fn batches_close_on_count_on_bytes_and_on_a_repeated_id() {
        let many = (0..BATCH_DOCUMENTS + 3).map(|i| record(&i.to_string(), "t")).collect();
        assert_eq!(sizes(&pieces(many, 1 << 24)), [BATCH_DOCUMENTS, 3]);
        let long = "x".repeat(BATCH_BYTES / 2);
        let three = (0..3).map(|i| record(&i.to_string(), &long)).collect();
        assert_eq!(sizes(&pieces(three, 1 << 24)), [1, 1, 1]);
        let repeated = ["a", "b", "a", "a"].map(|id| record(id, "t")).into();
        assert_eq!(sizes(&pieces(repeated, 1 << 24)), [2, 1, 1]);
    }

    #[test]
    fn a_document_too_large_for_a_request_is_a_fault_with_its_place() {
        let source = vec![record("a", "t"), record("b", &"x".repeat(5000)), record("c", "t")];
        let pieces = pieces(source, 4096);
        assert_eq!(sizes(&pieces), [0, 2]);
        let Piece::Fault(fault) = &pieces[0] else { panic!("{pieces:?}") };
        assert!(fault.place == "f:b" && fault.reason.contains("message_bytes_max"), "{fault:?}");
    }

    #[test]
    fn reading_stops_when_nobody_listens() {
        let (tell, heard) = mpsc::channel(1);
        drop(heard);
        let mut read_so_far = 0;
        let endless = std::iter::repeat_with(|| {
            read_so_far += 1;
            record(&read_so_far.to_string(), "t")
        });
        read(endless, 1 << 24, &tell);
    }
}
