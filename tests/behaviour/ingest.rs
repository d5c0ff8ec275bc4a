//! The bulk load stream.

use distilface::proto::{self, IngestRequest, IngestResponse, WriteStatus, value::Kind};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::harness::{Server, assert_refused, by_text, doc, ids, soon, statuses, vector_doc, with_payload};

/// An open stream; dropping `requests` ends the client's half.
pub struct Ingest {
    pub requests: mpsc::Sender<IngestRequest>,
    pub answers: Streaming<IngestResponse>,
}

impl Ingest {
    pub async fn open(server: &Server) -> Self {
        let (requests, outgoing) = mpsc::channel(64);
        let mut documents = server.documents.clone();
        let answers = soon(documents.ingest(ReceiverStream::new(outgoing))).await.unwrap().into_inner();
        Ingest { requests, answers }
    }

    pub async fn send(&self, sequence: u64, documents: Vec<proto::Document>) {
        self.send_to("c", sequence, documents).await;
    }

    pub async fn send_to(&self, collection: &str, sequence: u64, documents: Vec<proto::Document>) {
        let request =
            IngestRequest { collection: collection.into(), sequence, documents, ..Default::default() };
        soon(self.requests.send(request)).await.unwrap();
    }

    pub async fn answer(&mut self) -> Result<Option<IngestResponse>, Status> {
        soon(self.answers.message()).await
    }

    /// Ends the client's half and collects what is still answered.
    pub async fn finish(mut self) -> Vec<IngestResponse> {
        drop(self.requests);
        let mut answers = Vec::new();
        while let Some(answer) = soon(self.answers.message()).await.unwrap() {
            answers.push(answer);
        }
        answers
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_in_order() {
    let mut server = Server::with_collection().await;
    let ingest = Ingest::open(&server).await;
    for sequence in 0..30 {
        // Later requests leave the collection out.
        let collection = if sequence == 0 { "c" } else { "" };
        let documents = (0..5).map(|i| doc(format!("{sequence}-{i}"), "the cat and the dog")).collect();
        ingest.send_to(collection, sequence, documents).await;
    }
    let answers = ingest.finish().await;
    let sequences: Vec<_> = answers.iter().map(|a| a.sequence).collect();
    assert_eq!(sequences, (0..30).collect::<Vec<_>>());
    for (sequence, answer) in answers.iter().enumerate() {
        let ids: Vec<_> = answer.results.iter().map(|r| r.id.clone()).collect();
        assert_eq!(ids, (0..5).map(|i| format!("{sequence}-{i}")).collect::<Vec<_>>());
        assert_eq!(statuses(&answer.results), [WriteStatus::Inserted; 5]);
    }
    assert_eq!(server.count("c").await, 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_document_fails_in_its_place_and_the_rest_goes_on() {
    let mut server = Server::with_collection().await;
    server.upsert("c", vec![doc("same", "a cat")]).await;
    let mut ingest = Ingest::open(&server).await;
    let no_kind = proto::Document {
        payload: [("x".to_owned(), proto::Value { kind: None })].into(),
        ..doc("kind", "a dog")
    };
    let documents =
        vec![doc("same", "a cat"), doc("", "a cat"), no_kind, doc("blank", "  "), doc("good", "a dog")];
    ingest.send(7, documents).await;
    let answer = ingest.answer().await.unwrap().unwrap();
    use WriteStatus::{Failed, Inserted, Unchanged};
    assert_eq!(statuses(&answer.results), [Unchanged, Failed, Failed, Failed, Inserted]);
    for (place, word) in [(1, "empty"), (2, "payload[\"x\"]"), (3, "empty")] {
        assert!(answer.results[place].error.contains(word), "{:?}", answer.results[place]);
    }
    // All of a request's documents may be bad, and the stream still goes on.
    ingest.send(8, vec![doc("blank", "")]).await;
    assert_eq!(statuses(&ingest.answer().await.unwrap().unwrap().results), [Failed]);
    assert!(ingest.finish().await.is_empty());
    assert_eq!(server.ids("c").await, ["good", "same"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_versions_in_one_stream_the_later_is_kept() {
    let mut server = Server::with_collection().await;
    let ingest = Ingest::open(&server).await;
    for sequence in 0..20 {
        // The earlier versions are longer, so they take longer to encode.
        let text = format!("version {sequence} {}", "of the long story about a king ".repeat(20 - sequence));
        ingest.send(sequence as u64, vec![doc("one", text)]).await;
    }
    assert_eq!(ingest.finish().await.len(), 20);
    let hits = server.find(by_text("c", "version", 5)).await;
    assert_eq!(ids(&hits), ["one"]);
    assert!(hits[0].passage.as_ref().unwrap().text.starts_with("version 19 "), "{hits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_names_a_collection_that_exists() {
    let server = Server::with_collection().await;
    for (collection, code, word) in
        [("", Code::InvalidArgument, "collection"), ("nowhere", Code::NotFound, "\"nowhere\"")]
    {
        let mut ingest = Ingest::open(&server).await;
        ingest.send_to(collection, 1, vec![doc("1", "a cat")]).await;
        assert_refused(ingest.answer().await, code, &[word]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_before_a_failed_request_is_there() {
    let mut server = Server::with_collection().await;
    let mut ingest = Ingest::open(&server).await;
    ingest.send(1, vec![doc("1", "a cat")]).await;
    ingest.send_to("nowhere", 2, vec![doc("2", "a cat")]).await;
    assert_eq!(ingest.answer().await.unwrap().unwrap().sequence, 1);
    assert_refused(ingest.answer().await, Code::NotFound, &["\"nowhere\""]);
    assert_eq!(server.ids("c").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_documents_than_allowed_in_one_request_end_the_stream() {
    let mut server = Server::start_with(|config| config.limits.batch_max = 4).await;
    server.create("c").await;
    let mut ingest = Ingest::open(&server).await;
    ingest.send(1, (0..5).map(|i| doc(i, "a cat")).collect()).await;
    assert_refused(ingest.answer().await, Code::InvalidArgument, &["at most 4, got 5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_none_fails_its_document_alone_and_names_it() {
    let mut server = Server::with_vectors().await;
    let nan_vector = |i: u32| vector_doc(i, &[f32::NAN, 1.0]);
    let nan_field = |i: u32| with_payload(vector_doc(i, &[1.0, 0.0]), &[("weight", Kind::Float(f64::NAN))]);
    let documents = (0..300).map(|i| match i {
        149 => nan_vector(i),
        150 => nan_field(i),
        i => vector_doc(i, &[1.0, 0.0]),
    });
    let ingest = Ingest::open(&server).await;
    ingest.send_to("v", 0, documents.collect()).await;
    let answers = ingest.finish().await;
    let failed: Vec<_> =
        answers[0].results.iter().filter(|result| result.status() == WriteStatus::Failed).collect();
    assert_eq!(failed.iter().map(|result| result.id.as_str()).collect::<Vec<_>>(), ["149", "150"]);
    assert!(failed[0].error.contains("document \"149\"") && failed[0].error.contains("finite"), "{failed:?}");
    assert!(failed[1].error.contains("document \"150\", payload[\"weight\"]"), "{failed:?}");
    assert_eq!(server.count("v").await, 298);

    // All or none: the one to blame is named.
    for bad in [nan_vector(1000), nan_field(1000)] {
        let documents = vec![vector_doc(2000, &[1.0, 0.0]), bad];
        let request = proto::UpsertRequest { collection: "v".into(), documents, ..Default::default() };
        let refused = server.documents.upsert(request).await;
        assert_refused(refused, Code::InvalidArgument, &["document \"1000\"", "finite"]);
    }
    assert_eq!(server.count("v").await, 298);
}
