//! Versions of documents, and writes that are done only if what is stored is what the writer expects.

use std::collections::BTreeMap;

use distilface::proto::{self, WriteMode, WriteStatus, value::Kind};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{Server, assert_refused, by_text, doc, expression, payload, statuses, string, with_payload},
    ingest::Ingest,
};

fn upsert(documents: Vec<proto::Document>, mode: WriteMode) -> proto::UpsertRequest {
    proto::UpsertRequest {
        collection: "c".into(),
        documents,
        mode: mode.into(),
        ..proto::UpsertRequest::default()
    }
}

fn expecting(version: u64, document: proto::Document) -> proto::Document {
    proto::Document { expected_version: Some(version), ..document }
}

fn versions(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(id, version)| ((*id).to_owned(), *version)).collect()
}

async fn stored(server: &mut Server, id: &str) -> proto::StoredDocument {
    let request =
        proto::GetDocumentsRequest { collection: "c".into(), ids: vec![id.into()], ..Default::default() };
    server.documents.get(request).await.unwrap().into_inner().documents.remove(0)
}

async fn set(
    server: &mut Server,
    request: proto::SetPayloadRequest,
) -> Result<proto::SetPayloadResponse, Status> {
    let request = proto::SetPayloadRequest { collection: "c".into(), ..request };
    server.documents.set_payload(request).await.map(tonic::Response::into_inner)
}

/// The field that the refusal blames.
fn blamed(status: &Status) -> String {
    let details = status.get_error_details();
    details.bad_request().map_or_else(String::new, |bad| bad.field_violations[0].field.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_the_version_and_it_ascends_also_over_a_restart() {
    let mut server = Server::with_collection().await;
    let first = server.upsert("c", vec![doc("1", "a cat"), doc("2", "a dog")]).await;
    assert!(first[0].version > 0 && first[1].version > first[0].version, "{first:?}");
    let unchanged = server.upsert("c", vec![doc("1", "a cat")]).await.remove(0);
    assert_eq!((unchanged.status(), unchanged.version), (WriteStatus::Unchanged, first[0].version));
    let change = proto::SetPayloadRequest {
        ids: vec!["1".into()],
        payload: payload(&[("n", Kind::Integer(1))]),
        ..Default::default()
    };
    let changed = set(&mut server, change.clone()).await.unwrap().results.remove(0);
    assert!(changed.version > first[1].version, "{changed:?}");
    assert_eq!(set(&mut server, change).await.unwrap().results[0].version, changed.version);
    assert_eq!(stored(&mut server, "1").await.version, changed.version);
    assert_eq!(server.find(by_text("c", "a cat", 1)).await[0].version, changed.version);
    let scroll = proto::ScrollRequest { collection: "c".into(), ..Default::default() };
    let page = server.documents.scroll(scroll).await.unwrap().into_inner().documents;
    assert_eq!(page.iter().map(|d| d.version).collect::<Vec<_>>(), [changed.version, first[1].version]);
    // A stream tells them too; and a version is not given out again for a document that comes back.
    let delete =
        proto::DeleteDocumentsRequest { collection: "c".into(), ids: vec!["1".into()], ..Default::default() };
    server.documents.delete(delete).await.unwrap();
    let mut server = server.restart_with(|_| ()).await;
    let mut ingest = Ingest::open(&server).await;
    ingest.send(1, vec![doc("1", "a cat"), doc("2", "a dog")]).await;
    let answer = ingest.answer().await.unwrap().unwrap();
    assert_eq!(statuses(&answer.results), [WriteStatus::Inserted, WriteStatus::Unchanged]);
    assert!(answer.results[0].version > changed.version, "{answer:?}");
    assert_eq!(answer.results[1].version, first[1].version);
    assert_eq!(stored(&mut server, "1").await.version, answer.results[0].version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_only_inserts_or_only_replaces_does_no_more() {
    let mut server = Server::with_collection().await;
    server.documents.upsert(upsert(vec![doc("1", "a cat")], WriteMode::InsertOnly)).await.unwrap();
    // Also with the content that is stored; and all or none.
    for text in ["a cat", "a dog"] {
        let request = upsert(vec![doc("2", "a bird"), doc("1", text)], WriteMode::InsertOnly);
        let refused = server.documents.upsert(request).await;
        assert_eq!(refused.as_ref().map_err(blamed).unwrap_err(), "mode");
        assert_refused(refused, Code::AlreadyExists, &["\"1\"", "is there already", "another mode"]);
    }
    let request = upsert(vec![doc("1", "a dog"), doc("2", "a bird")], WriteMode::ReplaceOnly);
    let refused = server.documents.upsert(request).await;
    assert_eq!(refused.as_ref().map_err(blamed).unwrap_err(), "mode");
    assert_refused(refused, Code::NotFound, &["\"2\"", "insert it first"]);
    assert_eq!(server.ids("c").await, ["1"]);
    assert_eq!(stored(&mut server, "1").await.document.unwrap().text, "a cat");
    let replaced = server.documents.upsert(upsert(vec![doc("1", "a dog")], WriteMode::ReplaceOnly)).await;
    assert_eq!(statuses(&replaced.unwrap().into_inner().results), [WriteStatus::Updated]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_written_only_over_the_version_that_was_read() {
    let mut server = Server::with_collection().await;
    let old = server.upsert("c", vec![doc("1", "a cat")]).await[0].version;
    let new = server.upsert("c", vec![doc("1", "a dog")]).await[0].version;
    // What is stored already is refused as well: who read the old version has not seen this one.
    for text in ["a bird", "a dog"] {
        let request = upsert(vec![doc("2", "a fish"), expecting(old, doc("1", text))], WriteMode::Any);
        let refused = server.documents.upsert(request).await;
        assert_eq!(refused.as_ref().map_err(blamed).unwrap_err(), "expected_version");
        let words = ["\"1\"", &format!("version {new}"), &format!("not {old}"), "read it again"];
        assert_refused(refused, Code::FailedPrecondition, &words);
    }
    let gone = upsert(vec![expecting(old, doc("nobody", "a bird"))], WriteMode::Any);
    let words = ["\"nobody\"", "not there", &format!("version {old}"), "read it again"];
    assert_refused(server.documents.upsert(gone).await, Code::FailedPrecondition, &words);
    assert_eq!(server.ids("c").await, ["1"]);
    for mode in [WriteMode::Any, WriteMode::ReplaceOnly] {
        let version = stored(&mut server, "1").await.version;
        let text = format!("a bird, {mode:?}");
        let request = upsert(vec![expecting(version, doc("1", text))], mode);
        let written = server.documents.upsert(request).await.unwrap().into_inner().results.remove(0);
        assert_eq!(written.status(), WriteStatus::Updated);
        assert!(written.version > version);
    }
    // The same content over the version that it has.
    let version = stored(&mut server, "1").await.version;
    let same = stored(&mut server, "1").await.document.unwrap();
    let request = upsert(vec![expecting(version, same)], WriteMode::Any);
    let written = server.documents.upsert(request).await.unwrap().into_inner().results.remove(0);
    assert_eq!((written.status(), written.version), (WriteStatus::Unchanged, version));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_stream_only_the_document_that_does_not_fit_fails() {
    let mut server = Server::with_collection().await;
    let stored = server.upsert("c", vec![doc("1", "a cat"), doc("2", "a dog")]).await;
    let mut ingest = Ingest::open(&server).await;
    let send = async |ingest: &mut Ingest, mode: WriteMode, documents| {
        let (collection, mode) = ("c".to_owned(), mode.into());
        let request = proto::IngestRequest {
            collection,
            sequence: 1,
            documents,
            mode,
            ..proto::IngestRequest::default()
        };
        ingest.requests.send(request).await.unwrap();
        ingest.answer().await.unwrap().unwrap().results
    };
    use WriteStatus::{Failed, Inserted, Unchanged, Updated};
    let told = |results: &[proto::DocumentResult]| {
        results.iter().map(|r| (r.status(), r.error_kind.clone())).collect::<Vec<_>>()
    };
    let of = |status, kind: &str| (status, kind.to_owned());
    let documents = vec![doc("1", "a cat"), doc("3", "a bird"), doc("3", "again"), doc("2", "a fish")];
    let results = send(&mut ingest, WriteMode::InsertOnly, documents).await;
    let exists = of(Failed, "EXISTS");
    assert_eq!(told(&results), [exists.clone(), of(Inserted, ""), exists.clone(), exists]);
    assert!(results[0].error.contains("\"1\"") && results[0].version == 0, "{results:?}");
    let documents = vec![doc("4", "a fox"), doc("1", "a new cat")];
    let results = send(&mut ingest, WriteMode::ReplaceOnly, documents).await;
    assert_eq!(told(&results), [of(Failed, "NOT_FOUND"), of(Updated, "")]);
    let documents = vec![
        expecting(stored[0].version, doc("1", "stale")),
        expecting(stored[1].version, doc("2", "a dog")),
        expecting(0, doc("3", "no such version")),
        doc("5", "a hen"),
    ];
    let results = send(&mut ingest, WriteMode::Any, documents).await;
    let expected = [of(Failed, "PRECONDITION"), of(Unchanged, ""), of(Failed, "INVALID"), of(Inserted, "")];
    assert_eq!(told(&results), expected);
    assert_eq!(results[1].version, stored[1].version);
    assert!(ingest.finish().await.is_empty());
    assert_eq!(server.ids("c").await, ["1", "2", "3", "5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_keeps_what_was_changed_since_it_was_read() {
    let mut server = Server::with_collection().await;
    let read = server.upsert("c", vec![doc("1", "a cat"), doc("2", "a dog"), doc("3", "a hen")]).await;
    let now = server.upsert("c", vec![doc("2", "a new dog")]).await[0].version;
    let delete = |ids: &[&str], expected: &[(&str, u64)]| proto::DeleteDocumentsRequest {
        collection: "c".into(),
        ids: ids.iter().map(ToString::to_string).collect(),
        expected_versions: versions(expected),
        ..Default::default()
    };
    let stale = delete(&["1", "2"], &[("2", read[1].version)]);
    let words = ["\"2\"", &format!("version {now}"), "read it again"];
    assert_refused(server.documents.delete(stale).await, Code::FailedPrecondition, &words);
    let gone = delete(&["1", "nobody"], &[("nobody", 1)]);
    assert_refused(server.documents.delete(gone).await, Code::FailedPrecondition, &["\"nobody\""]);
    assert_eq!(server.ids("c").await, ["1", "2", "3"]);
    let good = delete(&["1", "2", "1"], &[("2", now), ("1", read[0].version)]);
    assert_eq!(server.documents.delete(good).await.unwrap().into_inner().deleted, 2);
    assert_eq!(server.ids("c").await, ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_changed_only_of_the_version_that_was_read() {
    let mut server = Server::with_collection().await;
    let read = server.upsert("c", vec![doc("1", "a cat"), doc("2", "a dog")]).await;
    let change = |n, expected: &[(&str, u64)]| proto::SetPayloadRequest {
        ids: vec!["1".into(), "2".into(), "nobody".into()],
        payload: payload(&[("n", Kind::Integer(n))]),
        expected_versions: versions(expected),
        ..Default::default()
    };
    let expected = [("1", read[0].version), ("nobody", 1)];
    let first = set(&mut server, change(1, &expected)).await.unwrap();
    assert_eq!(statuses(&first.results), [WriteStatus::Updated; 2]);
    assert_eq!(first.missing, ["nobody"]);
    assert_eq!((first.matched, first.changed, first.unchanged, first.failed), (2, 2, 0, 0));
    // One that is stale does not stop the other; whether the fields would be new or not.
    for n in [1, 2] {
        let again = set(&mut server, change(n, &expected)).await.unwrap();
        assert_eq!(
            (again.results[0].status(), &*again.results[0].error_kind),
            (WriteStatus::Failed, "PRECONDITION")
        );
        let error = &again.results[0].error;
        assert!(error.contains(&format!("version {}", first.results[0].version)), "{error}");
        assert_eq!((again.matched, again.failed), (2, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_or_a_mode_that_makes_no_sense_is_refused_by_name() {
    let mut server = Server::with_collection().await;
    let version = server.upsert("c", vec![doc("1", "a cat")]).await[0].version;
    let check = |status: Status, field: &str, words: &[&str]| {
        assert_eq!(blamed(&status), field, "{status}");
        assert_refused(Err::<(), _>(status), Code::InvalidArgument, words);
    };
    let upserts = [
        (upsert(vec![expecting(0, doc("1", "x"))], WriteMode::Any), "expected_version", "leave it out"),
        (
            upsert(vec![expecting(version, doc("1", "x"))], WriteMode::InsertOnly),
            "expected_version",
            "another mode",
        ),
        (proto::UpsertRequest { mode: 9, ..upsert(vec![doc("1", "x")], WriteMode::Any) }, "mode", "9"),
    ];
    for (request, field, word) in upserts {
        check(server.documents.upsert(request).await.unwrap_err(), field, &[word]);
    }
    let filter = || expression("n = 1");
    let one = || vec!["1".to_owned()];
    type Chosen = (Vec<String>, Option<proto::Filter>, BTreeMap<String, u64>);
    let chosen: [(Chosen, &str, &str); 5] = [
        ((one(), None, versions(&[("1", 0)])), "expected_versions[\"1\"]", "leave it out"),
        ((one(), None, versions(&[("2", 1)])), "expected_versions[\"2\"]", "not among ids"),
        ((vec![], filter(), versions(&[("1", 1)])), "expected_versions[\"1\"]", "instead of a filter"),
        ((one(), filter(), versions(&[])), "filter", "not both"),
        ((vec![], None, versions(&[])), "ids", "ids or a filter"),
    ];
    for ((ids, filter, expected_versions), field, word) in chosen {
        let change = proto::SetPayloadRequest {
            ids: ids.clone(),
            filter: filter.clone(),
            expected_versions: expected_versions.clone(),
            payload: payload(&[("n", Kind::Integer(1))]),
            ..Default::default()
        };
        check(set(&mut server, change).await.unwrap_err(), field, &[word]);
        let collection = "c".into();
        let delete = proto::DeleteDocumentsRequest {
            collection,
            ids,
            filter,
            expected_versions,
            ..Default::default()
        };
        check(server.documents.delete(delete).await.unwrap_err(), field, &[word]);
    }
    let unknown =
        proto::SetPayloadRequest { filter: Some(proto::Filter { form: None }), ..Default::default() };
    assert_refused(set(&mut server, unknown).await, Code::InvalidArgument, &["no form"]);
    assert_eq!(stored(&mut server, "1").await.version, version);
}

/// Each client reads the counter and writes it with one more, over the version that it read.
#[tokio::test(flavor = "multi_thread")]
async fn a_counter_that_many_clients_keep_loses_no_increment() {
    const CLIENTS: i64 = 6;
    const INCREMENTS: i64 = 8;
    let mut server = Server::with_collection().await;
    let counter = |n| with_payload(doc("counter", "a counter"), &[("n", Kind::Integer(n))]);
    server.upsert("c", vec![counter(0)]).await;
    let client = || {
        let mut documents = server.documents.clone();
        tokio::spawn(async move {
            let mut refused = 0;
            for _ in 0..INCREMENTS {
                loop {
                    let request = proto::GetDocumentsRequest {
                        collection: "c".into(),
                        ids: vec!["counter".into()],
                        ..Default::default()
                    };
                    let read = documents.get(request).await.unwrap().into_inner().documents.remove(0);
                    let n = read.document.as_ref().unwrap().payload["n"].kind.clone();
                    let Some(Kind::Integer(n)) = n else { panic!("{read:?}") };
                    let request = upsert(vec![expecting(read.version, counter(n + 1))], WriteMode::Any);
                    match documents.upsert(request).await {
                        Ok(_) => break,
                        Err(status) => assert_eq!(status.code(), Code::FailedPrecondition, "{status}"),
                    }
                    refused += 1;
                }
            }
            refused
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| client()).collect();
    let mut refused = 0;
    for client in clients {
        refused += client.await.unwrap();
    }
    println!("{refused} writes met a version that was not theirs");
    let last = stored(&mut server, "counter").await.document.unwrap();
    assert_eq!(last.payload["n"].kind, Some(Kind::Integer(CLIENTS * INCREMENTS)));
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_all_that_match_are_changed_counted_and_not_encoded() {
    let mut server = Server::with_collection().await;
    let document = |i: i64| {
        let fields = [("n", Kind::Integer(i)), ("state", string(if i < 60 { "open" } else { "done" }))];
        with_payload(doc(format!("{i:03}"), format!("task {i}")), &fields)
    };
    server.upsert("c", (0..100).map(document).collect()).await;
    server.metrics_have("distilface_encoded_texts_total 100").await;
    let all = |filter: &str, state: &str| proto::SetPayloadRequest {
        filter: expression(filter),
        payload: payload(&[("state", string(state))]),
        ..Default::default()
    };
    let counts = |answer: &proto::SetPayloadResponse| {
        [answer.matched, answer.changed, answer.unchanged, answer.failed]
    };
    let answer = set(&mut server, all("n < 70", "done")).await.unwrap();
    assert_eq!(counts(&answer), [70, 60, 10, 0]);
    assert!(answer.results.is_empty() && answer.missing.is_empty() && answer.hints.is_empty(), "{answer:?}");
    assert_eq!(counts(&set(&mut server, all("state = 'open'", "done")).await.unwrap()), [0; 4]);
    // Failures are counted, and the first of them told.
    let long = set(&mut server, all("n >= 50", &"x".repeat(70_000))).await.unwrap();
    assert_eq!((counts(&long), long.results.len()), ([50, 0, 0, 50], 10));
    assert!(long.results.iter().all(|r| r.status() == WriteStatus::Failed && r.error_kind == "INVALID"));
    let hinted = set(&mut server, all("stat = 'done'", "open")).await.unwrap();
    assert!(hinted.hints[0].contains("did you mean \"state\"?"), "{hinted:?}");
    let replace = proto::SetPayloadRequest { replace: true, ..all("n = 3", "alone") };
    assert_eq!(counts(&set(&mut server, replace).await.unwrap()), [1, 1, 0, 0]);
    let count = |filter: &str| proto::CountRequest { collection: "c".into(), filter: expression(filter) };
    for (filter, documents) in [("state = 'done'", 99), ("exists(n)", 99), ("state = 'alone'", 1)] {
        let counted = server.documents.count(count(filter)).await.unwrap().into_inner().documents;
        assert_eq!(counted, documents, "{filter}");
    }
    server.metrics_have("distilface_encoded_texts_total 100").await;
    assert_eq!(server.find(by_text("c", "task 7", 100)).await.len(), 100);
}
