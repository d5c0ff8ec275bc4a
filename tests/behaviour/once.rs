//! Writing calls with a request id are done once, and answered as they were the first time.

use std::collections::BTreeMap;

use distilface::proto::{self, WriteMode, WriteStatus, value::Kind};
use tonic::{Code, Status};

use crate::{
    harness::{Server, assert_refused, doc, expression, payload, statuses, with_payload},
    ingest::Ingest,
};

fn upsert(id: &str, documents: Vec<proto::Document>, mode: WriteMode) -> proto::UpsertRequest {
    let (collection, request_id) = ("c".to_owned(), id.to_owned());
    proto::UpsertRequest { collection, documents, mode: mode.into(), request_id, ..Default::default() }
}

fn set(id: &str, n: i64) -> proto::SetPayloadRequest {
    proto::SetPayloadRequest {
        collection: "c".into(),
        payload: payload(&[("n", Kind::Integer(n))]),
        request_id: id.into(),
        ..Default::default()
    }
}

fn delete(id: &str, ids: &[&str], filter: Option<&str>) -> proto::DeleteDocumentsRequest {
    proto::DeleteDocumentsRequest {
        collection: "c".into(),
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        filter: filter.and_then(expression),
        request_id: id.into(),
        ..Default::default()
    }
}

fn unset(id: &str, fields: &[&str]) -> proto::UnsetPayloadRequest {
    proto::UnsetPayloadRequest {
        collection: "c".into(),
        fields: fields.iter().map(|field| (*field).to_owned()).collect(),
        request_id: id.into(),
        ..Default::default()
    }
}

async fn write(server: &mut Server, request: proto::UpsertRequest) -> Result<proto::UpsertResponse, Status> {
    server.documents.upsert(request).await.map(tonic::Response::into_inner)
}

/// The answers to one call of each kind, which change the same documents one after the other.
async fn all_calls(server: &mut Server) -> Vec<String> {
    let mut said = Vec::new();
    let three = vec![doc("1", "a cat"), doc("2", "a dog"), doc("3", "a bird")];
    let insert = upsert("insert", three, WriteMode::InsertOnly);
    said.push(format!("{:?}", write(server, insert).await.unwrap()));
    let mut ingest = Ingest::open(server).await;
    let request = proto::IngestRequest {
        collection: "c".into(),
        sequence: 7,
        // One stands twice, one is wrong.
        documents: vec![doc("2", "the dog"), doc("", "no id"), doc("2", "dogs"), doc("4", "a fish")],
        request_id: "ingest".into(),
        ..Default::default()
    };
    ingest.requests.send(request).await.unwrap();
    said.push(format!("{:?}", ingest.answer().await.unwrap().unwrap()));
    ingest.finish().await;
    let by_id =
        proto::SetPayloadRequest { ids: vec!["1".into(), "none".into(), "2".into()], ..set("set", 1) };
    said.push(format!("{:?}", server.documents.set_payload(by_id).await.unwrap().into_inner()));
    let matching = proto::SetPayloadRequest { filter: expression("n = 1"), ..set("set where", 2) };
    assert_refused(
        server.documents.set_payload(matching.clone()).await,
        Code::InvalidArgument,
        &["set where", "64", "UUID"],
    );
    let matching = proto::SetPayloadRequest { request_id: "set-where".into(), ..matching };
    said.push(format!("{:?}", server.documents.set_payload(matching).await.unwrap().into_inner()));
    let by_id = proto::UnsetPayloadRequest { ids: vec!["1".into(), "3".into()], ..unset("unset", &["n"]) };
    said.push(format!("{:?}", server.documents.unset_payload(by_id).await.unwrap().into_inner()));
    let deletion = delete("delete", &["1", "none"], None);
    said.push(format!("{:?}", server.documents.delete(deletion).await.unwrap().into_inner()));
    let deletion = delete("delete-where", &[], Some("n = 2"));
    said.push(format!("{:?}", server.documents.delete(deletion).await.unwrap().into_inner()));
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_done_once_and_answered_as_the_first_time_also_after_a_restart() {
    let mut server = Server::with_collection().await;
    let first = all_calls(&mut server).await;
    assert_eq!(server.ids("c").await, ["3", "4"]);
    // Done again, each of them would do something else now.
    for n in ["1", "2"] {
        let other = with_payload(doc(n, "others came"), &[("n", Kind::Integer(2))]);
        server.upsert("c", vec![other]).await;
    }
    let stored = server.ids("c").await;
    assert_eq!(all_calls(&mut server).await, first);
    let mut server = server.restart_with(|_| ()).await;
    assert_eq!(all_calls(&mut server).await, first);
    assert_eq!(server.ids("c").await, stored);
    let count = proto::CountRequest { collection: "c".into(), filter: expression("n = 2") };
    assert_eq!(server.documents.count(count).await.unwrap().into_inner().documents, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_was_used_for_something_else_is_refused_and_one_of_another_collection_is_not() {
    let mut server = Server::with_collection().await;
    server.create("other").await;
    write(&mut server, upsert("r", vec![doc("1", "a cat")], WriteMode::Any)).await.unwrap();
    let others: [proto::UpsertRequest; 3] = [
        upsert("r", vec![doc("1", "a dog")], WriteMode::Any),
        upsert("r", vec![doc("1", "a cat")], WriteMode::InsertOnly),
        upsert("r", vec![doc("1", "a cat"), doc("2", "a dog")], WriteMode::Any),
    ];
    for other in others {
        assert_refused(write(&mut server, other).await, Code::AlreadyExists, &["\"r\"", "another request"]);
    }
    let deletion = delete("r", &["1"], None);
    assert_refused(server.documents.delete(deletion).await, Code::AlreadyExists, &["\"r\""]);
    assert_eq!(server.ids("c").await, ["1"]);
    let there = proto::UpsertRequest {
        collection: "other".into(),
        ..upsert("r", vec![doc("1", "a dog")], WriteMode::Any)
    };
    assert_eq!(write(&mut server, there).await.unwrap().results[0].status(), WriteStatus::Inserted);
    // How durable it is to be is no part of it.
    let again = proto::UpsertRequest {
        durability: proto::Durability::Process.into(),
        ..upsert("r", vec![doc("1", "a cat")], WriteMode::Any)
    };
    assert_eq!(statuses(&write(&mut server, again).await.unwrap().results), [WriteStatus::Inserted]);
    for bad in ["x".repeat(65), "a b".into(), "\u{e9}".into()] {
        let refused = write(&mut server, upsert(&bad, vec![doc("9", "x")], WriteMode::Any)).await;
        assert_refused(refused, Code::InvalidArgument, &["request id", "64"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_refused_is_tried_again() {
    let mut server = Server::with_collection().await;
    server.upsert("c", vec![doc("1", "a cat")]).await;
    let insert = || upsert("r", vec![doc("1", "a dog")], WriteMode::InsertOnly);
    for _ in 0..2 {
        assert_refused(write(&mut server, insert()).await, Code::AlreadyExists, &["\"1\""]);
    }
    server.documents.delete(delete("", &["1"], None)).await.unwrap();
    let first = write(&mut server, insert()).await.unwrap();
    assert_eq!(first.results[0].status(), WriteStatus::Inserted);
    assert_eq!(write(&mut server, insert()).await.unwrap(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_call_waits_for_the_first_and_both_get_one_answer() {
    let server = Server::with_collection().await;
    for round in 0..5 {
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let mut documents = server.documents.clone();
                let insert = upsert(
                    &format!("r{round}"),
                    (0..20).map(|n| doc(format!("{round}-{n}"), "the cat and the dog")).collect(),
                    WriteMode::InsertOnly,
                );
                tokio::spawn(async move { documents.upsert(insert).await.unwrap().into_inner().results })
            })
            .collect();
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.unwrap());
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        assert!(answers[0].iter().all(|result| result.status() == WriteStatus::Inserted), "{answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_removed_by_name_or_all_and_nothing_is_encoded() {
    let mut server = Server::with_collection().await;
    let document =
        |id: &str| with_payload(doc(id, "a cat"), &[("n", Kind::Integer(1)), ("draft", Kind::Bool(true))]);
    let first = server.upsert("c", vec![document("1"), document("2"), document("3")]).await;
    let fields = async |server: &mut Server, id: &str| -> Vec<String> {
        let ids = vec![id.to_owned()];
        let request = proto::GetDocumentsRequest { collection: "c".into(), ids, ..Default::default() };
        let stored = server.documents.get(request).await.unwrap().into_inner().documents.remove(0);
        stored.document.unwrap().payload.into_keys().collect()
    };
    let some = proto::UnsetPayloadRequest {
        ids: vec!["1".into(), "none".into()],
        expected_versions: BTreeMap::from([("1".to_owned(), first[0].version)]),
        ..unset("", &["draft", "never"])
    };
    let answer = server.documents.unset_payload(some.clone()).await.unwrap().into_inner();
    assert_eq!((answer.changed, &*answer.missing), (1, &["none".to_owned()][..]));
    assert_eq!((answer.results[0].status(), answer.results[0].tokens), (WriteStatus::Updated, 0));
    assert_eq!(fields(&mut server, "1").await, ["n"]);
    let late = server.documents.unset_payload(some).await.unwrap().into_inner();
    assert_eq!((late.failed, &*late.results[0].error_kind), (1, "PRECONDITION"));
    let all = proto::UnsetPayloadRequest { all: true, filter: expression("draft = true"), ..unset("", &[]) };
    let answer = server.documents.unset_payload(all).await.unwrap().into_inner();
    assert_eq!((answer.matched, answer.changed), (2, 2));
    assert_eq!(fields(&mut server, "2").await, [""; 0]);
    assert_eq!(fields(&mut server, "1").await, ["n"]);
    for (request, words) in [
        (proto::UnsetPayloadRequest { ids: vec!["1".into()], ..unset("", &[]) }, "fields"),
        (proto::UnsetPayloadRequest { ids: vec!["1".into()], all: true, ..unset("", &["n"]) }, "fields"),
        (unset("", &["n"]), "ids"),
    ] {
        assert_refused(server.documents.unset_payload(request).await, Code::InvalidArgument, &[words]);
    }
}
