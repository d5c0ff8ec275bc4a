//! Gathers records from a reader in batches, each of which is one request of the ingest stream.
//!
//! A batch is as large as the server answers in about [`ANSWER_TIME`], within bounds: large ones on a fast machine, since
//! each has a cost of its own, and small ones on a slow machine, where the user sees nothing move until an answer
//! comes.

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use crate::{cli::layout, proto::Document};

/// Documents of one request: a few full encoder batches of short texts.
const BATCH_DOCUMENTS: usize = 64;
/// Bytes of one request, reached only where the server is fast or the texts are long.
const BATCH_BYTES_MAX: usize = 1 << 20;
const BATCH_BYTES_MIN: usize = 2 << 10;
/// Bytes of the first requests, before it is known how fast the server is.
const BATCH_BYTES_FIRST: usize = 8 << 10;
/// The time that the server should need for one request.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// What an earlier answer still counts beside the newest, for the pace.
const MEMORY: f64 = 0.7;

/// Ids of a run that are remembered to count repeated ones, in some 80 MiB; of more, the first are.
const IDS_MET_MAX: usize = 4 << 20;

/// A document and where it was read.
#[derive(Debug)]
pub struct Record {
    pub place: String,
    pub document: Document,
    /// Of a document that is a whole file: the folder that its id is a path below.
    pub folder: Option<Arc<str>>,
}

/// Something that could not be read as a document.
#[derive(Debug)]
pub struct Fault {
    pub place: String,
    pub reason: String,
    /// The options do not suit the only source: nothing can be read.
    pub wrong_use: bool,
}

/// The items that the reading thread hands over.
#[derive(Debug)]
pub enum Piece {
    Batch(Batch),
    Fault(Fault),
    /// Nothing more comes, since the server could not be asked.
    Broken(Status),
}

/// What is known of a document besides what is sent.
#[derive(Debug, Clone)]
pub struct Mark {
    pub place: String,
    pub folder: Option<Arc<str>>,
    /// An earlier document of this run had the same id.
    pub repeated: bool,
}

/// Documents of one request, each with its mark.
#[derive(Debug, Default)]
pub struct Batch {
    pub documents: Vec<Document>,
    pub marks: Vec<Mark>,
    pub bytes: usize,
    /// Bytes of the source that were read when the batch was closed.
    pub read: u64,
}

impl Batch {
    fn takes(&self, bytes: usize, bytes_max: usize) -> bool {
        self.documents.is_empty()
            || (self.documents.len() < BATCH_DOCUMENTS && self.bytes + bytes <= bytes_max)
    }

    fn push(&mut self, record: Record, bytes: usize, repeated: bool) {
        let Record { place, document, folder } = record;
        self.bytes += bytes;
        self.documents.push(document);
        self.marks.push(Mark { place, folder, repeated });
    }
}

/// How many bytes the server works off in [`ANSWER_TIME`]; told by the answers, asked by the reader.
#[derive(Debug)]
pub struct Pace {
    batch_bytes: AtomicUsize,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { batch_bytes: AtomicUsize::new(BATCH_BYTES_FIRST) }
    }
}

/// Bytes that were answered, and how long that took: recent answers count more.
#[derive(Debug, Default)]
pub struct Answered {
    bytes: f64,
    seconds: f64,
}

impl Answered {
    /// One more answer to so many bytes, this long after the one before it.
    pub fn add(&mut self, bytes: usize, time: Duration, pace: &Pace) {
        self.bytes = self.bytes * MEMORY + bytes as f64;
        self.seconds = self.seconds * MEMORY + time.as_secs_f64();
        let wanted = self.bytes / self.seconds.max(1e-3) * ANSWER_TIME.as_secs_f64();
        let wanted = (wanted as usize).clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX);
        pace.batch_bytes.store(wanted, Ordering::Relaxed);
    }
}

/// Reads everything, in the caller's thread. Ends early when nobody listens any more.
pub fn read(
    source: impl Iterator<Item = (Result<Record, Fault>, u64)>,
    message_bytes_max: usize,
    pace: &Pace,
    pieces: &mpsc::Sender<Piece>,
) {
    let mut batch = Batch::default();
    // Only hashes: two ids of one hash would be counted wrong, and nothing else.
    let mut met = HashSet::new();
    for (record, read) in source {
        let record = record.and_then(|record| {
            let bytes = record.document.encoded_len();
            // Some room for the request around it.
            if bytes + 1024 > message_bytes_max {
                let (bytes, most) = (layout::bytes(bytes as u64), layout::bytes(message_bytes_max as u64));
                let reason =
                    format!("the document has {bytes}, a request may have {most} (limits.message_bytes_max)");
                return Err(Fault { place: record.place, reason, wrong_use: false });
            }
            Ok((record, bytes))
        });
        let sent = match record {
            Err(fault) => pieces.blocking_send(Piece::Fault(fault)),
            Ok((record, bytes)) => {
                let bytes_max = pace.batch_bytes.load(Ordering::Relaxed);
                let full = (!batch.takes(bytes, bytes_max)).then(|| std::mem::take(&mut batch));
                let id = hash_of(&record.document.id);
                let repeated = if met.len() < IDS_MET_MAX { !met.insert(id) } else { met.contains(&id) };
                batch.push(record, bytes, repeated);
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

fn hash_of(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, text: &str) -> (Result<Record, Fault>, u64) {
        let document = Document { id: id.into(), text: text.into(), ..Default::default() };
        (Ok(Record { place: format!("f:{id}"), document, folder: None }), 1)
    }

    fn pieces(source: Vec<(Result<Record, Fault>, u64)>, most: usize) -> Vec<Piece> {
        let (tell, mut heard) = mpsc::channel(source.len() + 1);
        read(source.into_iter(), most, &Pace::default(), &tell);
        drop(tell);
        std::iter::from_fn(|| heard.blocking_recv()).collect()
    }

    fn sizes(pieces: &[Piece]) -> Vec<usize> {
        let size = |piece: &Piece| match piece {
            Piece::Batch(batch) => batch.documents.len(),
            Piece::Fault(_) | Piece::Broken(_) => 0,
        };
        pieces.iter().map(size).collect()
    }

    #[test]
    fn batches_close_on_count_and_on_bytes() {
        let many = (0..BATCH_DOCUMENTS + 3).map(|i| record(&i.to_string(), "t")).collect();
        assert_eq!(sizes(&pieces(many, 1 << 24)), [BATCH_DOCUMENTS, 3]);
        let long = "x".repeat(BATCH_BYTES_FIRST / 2);
        let three = (0..3).map(|i| record(&i.to_string(), &long)).collect();
        assert_eq!(sizes(&pieces(three, 1 << 24)), [1, 1, 1]);
    }

    #[test]
    fn a_repeated_id_is_marked_wherever_it_comes() {
        let repeated = ["a", "b", "a", "a"].map(|id| record(id, "t")).into();
        let pieces = pieces(repeated, 1 << 24);
        let [Piece::Batch(batch)] = &pieces[..] else { panic!("{pieces:?}") };
        assert_eq!(batch.marks.iter().map(|m| m.repeated).collect::<Vec<_>>(), [false, false, true, true]);
    }

    #[test]
    fn batches_grow_and_shrink_with_the_pace_of_the_answers() {
        let (pace, mut answered) = (Pace::default(), Answered::default());
        let bytes = || pace.batch_bytes.load(Ordering::Relaxed);
        for _ in 0..20 {
            answered.add(8 << 10, Duration::from_millis(1), &pace);
        }
        assert_eq!(bytes(), BATCH_BYTES_MAX);
        for _ in 0..40 {
            answered.add(8 << 10, Duration::from_secs(2), &pace);
        }
        assert!((3 << 10..6 << 10).contains(&bytes()), "{}", bytes());
        for _ in 0..40 {
            answered.add(BATCH_BYTES_MIN, Duration::from_secs(60), &pace);
        }
        assert_eq!(bytes(), BATCH_BYTES_MIN);
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
        read(endless, 1 << 24, &Pace::default(), &tell);
    }
}
