//! What a write is not lost by is asked for in its request, and said in its answer.

use distilface::proto::{self, Durability, value::Kind};
use tonic::Code;

use crate::{
    harness::{Server, assert_refused, doc, payload},
    ingest::Ingest,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_write_says_how_durable_it_is_and_an_unknown_wish_is_refused() {
    let mut server = Server::with_collection().await;
    for (asked, given) in [
        (Durability::Unspecified, Durability::Power),
        (Durability::Power, Durability::Power),
        (Durability::Process, Durability::Process),
    ] {
        let (collection, durability) = ("c".to_owned(), asked.into());
        let documents = vec![doc("1", format!("a cat, {asked:?}")), doc("2", "a dog")];
        let upsert = proto::UpsertRequest { collection, documents, durability, ..Default::default() };
        let answer = server.documents.upsert(upsert).await.unwrap().into_inner();
        assert_eq!(answer.durability(), given);
        let set = proto::SetPayloadRequest {
            collection: "c".into(),
            ids: vec!["2".into()],
            payload: payload(&[("n", Kind::Integer(i64::from(durability)))]),
            durability,
            ..Default::default()
        };
        let answer = server.documents.set_payload(set).await.unwrap().into_inner();
        assert_eq!((answer.durability(), answer.matched), (given, 1));
        let delete = proto::DeleteDocumentsRequest {
            collection: "c".into(),
            ids: vec!["2".into()],
            durability,
            ..Default::default()
        };
        let answer = server.documents.delete(delete).await.unwrap().into_inner();
        assert_eq!((answer.durability(), answer.deleted), (given, 1));
    }
    let mut ingest = Ingest::open(&server).await;
    ingest.send(1, vec![doc("3", "a bird")]).await;
    assert_eq!(ingest.answer().await.unwrap().unwrap().durability(), Durability::Power);

    let upsert = proto::UpsertRequest {
        collection: "c".into(),
        documents: vec![doc("4", "a fish")],
        durability: 7,
        ..Default::default()
    };
    assert_refused(server.documents.upsert(upsert).await, Code::InvalidArgument, &["durability"]);
    drop(ingest);
    server.stop().await;
    let mut server = server.restart_with(|_| ()).await;
    assert_eq!(server.ids("c").await, ["1", "3"]);
}
