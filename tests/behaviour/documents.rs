//! Documents one request at a time.

use distilface::proto::{self, WriteStatus, value::Kind};
use tonic::Code;

use crate::harness::{
    Server, assert_refused, by_text, doc, expression, ids, list, statuses, string, value, vector_doc,
    with_payload,
};

fn get(ids: &[&str]) -> proto::GetDocumentsRequest {
    proto::GetDocumentsRequest {
        collection: "c".into(),
        ids: ids.iter().map(ToString::to_string).collect(),
        with_vectors: false,
    }
}

fn upsert(documents: Vec<proto::Document>) -> proto::UpsertRequest {
    proto::UpsertRequest { collection: "c".into(), documents, ..Default::default() }
}

fn delete(ids: &[&str]) -> proto::DeleteDocumentsRequest {
    proto::DeleteDocumentsRequest {
        collection: "c".into(),
        ids: ids.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_comes_back_as_it_was_sent() {
    let mut server = Server::with_collection().await;
    let time = prost_types::Timestamp { seconds: -1, nanos: 5_000 };
    let mut sent = with_payload(
        doc("ä/1", "Grüße, 世界 🚀. The cat."),
        &[
            ("s", string("text")),
            ("i", Kind::Integer(i64::MIN)),
            ("f", Kind::Float(-0.5)),
            ("b", Kind::Bool(false)),
            ("t", Kind::Datetime(time)),
            ("l", list(&[string("a"), string("b")])),
        ],
    );
    sent.title = "A title".into();
    server.upsert("c", vec![sent.clone()]).await;
    let answer = server.documents.get(get(&["ä/1", "missing"])).await.unwrap().into_inner();
    assert_eq!(answer.missing, ["missing"]);
    let stored = &answer.documents[0];
    assert_eq!(stored.document.as_ref().unwrap(), &sent);
    assert_eq!(stored.passages.len(), 1);
    assert!(stored.updated_at.is_some());

    let with_vectors = proto::GetDocumentsRequest { with_vectors: true, ..get(&["ä/1"]) };
    let answer = server.documents.get(with_vectors).await.unwrap().into_inner();
    let vector = answer.documents[0].document.as_ref().unwrap().vector.clone().unwrap();
    assert_eq!(vector.values.len(), 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_inserted_then_unchanged_then_updated() {
    let mut server = Server::with_collection().await;
    for (text, expected) in
        [("a cat", WriteStatus::Inserted), ("a cat", WriteStatus::Unchanged), ("a dog", WriteStatus::Updated)]
    {
        assert_eq!(statuses(&server.upsert("c", vec![doc("1", text)]).await), [expected]);
    }
    assert_eq!(server.count("c").await, 1);
    // The payload belongs to the content.
    let tagged = with_payload(doc("1", "a dog"), &[("tag", string("x"))]);
    assert_eq!(statuses(&server.upsert("c", vec![tagged]).await), [WriteStatus::Updated]);
    assert_eq!(ids(&server.find(by_text("c", "a dog", 5)).await), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_document_refuses_the_whole_upsert() {
    let mut server = Server::with_collection().await;
    let refused = server.documents.upsert(upsert(vec![doc("1", "a cat"), doc("2", " ")])).await;
    assert_refused(refused, Code::InvalidArgument, &["\"2\"", "empty"]);
    assert_eq!(server.count("c").await, 0);
    let unknown_kind = proto::Document {
        payload: [("x".to_owned(), proto::Value { kind: None })].into(),
        ..doc("3", "a dog")
    };
    let refused = server.documents.upsert(upsert(vec![doc("1", "a cat"), unknown_kind])).await;
    assert_refused(refused, Code::InvalidArgument, &["payload[\"x\"]", "no kind"]);
    assert_eq!(server.count("c").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_document_is_never_returned() {
    let mut server = Server::with_collection().await;
    server.upsert("c", vec![doc("1", "the cat"), doc("2", "the kitten"), doc("3", "the dog")]).await;
    let deleted = server.documents.delete(delete(&["1", "1", "nobody"])).await.unwrap().into_inner().deleted;
    assert_eq!(deleted, 1);
    let hits = server.find(by_text("c", "the cat", 10)).await;
    assert_eq!(hits.len(), 2);
    assert!(!ids(&hits).contains(&"1"));
    assert_eq!(server.ids("c").await, ["2", "3"]);
    assert_eq!(server.documents.get(get(&["1"])).await.unwrap().into_inner().missing, ["1"]);
    // The same again is a new document.
    assert_eq!(statuses(&server.upsert("c", vec![doc("1", "the cat")]).await), [WriteStatus::Inserted]);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_deleted_by_what_their_payload_says() {
    let mut server = Server::with_collection().await;
    let documents =
        (0..10).map(|i| with_payload(doc(i, "a bird"), &[("n", Kind::Integer(i))])).collect::<Vec<_>>();
    server.upsert("c", documents).await;
    let request = proto::DeleteDocumentsRequest { filter: expression("n >= 3"), ..delete(&[]) };
    assert_eq!(server.documents.delete(request).await.unwrap().into_inner().deleted, 7);
    assert_eq!(server.ids("c").await, ["0", "1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_names_either_ids_or_a_filter() {
    let mut server = Server::with_collection().await;
    server.upsert("c", vec![doc("1", "a bird")]).await;
    assert_refused(server.documents.delete(delete(&[])).await, Code::InvalidArgument, &["ids or a filter"]);
    let both = proto::DeleteDocumentsRequest { filter: expression("n = 1"), ..delete(&["1"]) };
    assert_refused(server.documents.delete(both).await, Code::InvalidArgument, &["not both"]);
    // An empty filter message must not mean "everything".
    let open = Some(proto::Filter { form: None });
    let open = proto::DeleteDocumentsRequest { filter: open, ..delete(&[]) };
    assert_refused(server.documents.delete(open).await, Code::InvalidArgument, &["no form"]);
    assert_eq!(server.count("c").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn scrolling_visits_each_document_once_in_order_of_ids() {
    let mut server = Server::with_collection().await;
    let documents = (0..25).map(|i| doc(format!("{i:02}"), format!("number {i}"))).collect();
    server.upsert("c", documents).await;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    let mut pages = 0;
    loop {
        let request = proto::ScrollRequest {
            collection: "c".into(),
            limit: 10,
            cursor,
            without_text: true,
            ..Default::default()
        };
        let page = server.documents.scroll(request).await.unwrap().into_inner();
        assert!(page.documents.len() <= 10);
        assert!(page.documents.iter().all(|d| d.document.as_ref().unwrap().text.is_empty()));
        seen.extend(page.documents.into_iter().map(|d| d.document.unwrap().id));
        pages += 1;
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(seen, (0..25).map(|i| format!("{i:02}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_large_documents_ends_early_and_nothing_is_lost() {
    let mut server = Server::with_vectors().await;
    for i in 0..5 {
        let text = "x".repeat(900_000);
        server.upsert("v", vec![proto::Document { text, ..vector_doc(i, &[1.0, 0.0]) }]).await;
    }
    let request = proto::ScrollRequest { collection: "v".into(), ..Default::default() };
    let page = server.documents.scroll(request).await.unwrap().into_inner();
    assert_eq!(page.documents.len(), 2);
    assert!(!page.next_cursor.is_empty());
    assert_eq!(server.ids("v").await, ["0", "1", "2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn counting_and_scrolling_take_filters() {
    let mut server = Server::with_collection().await;
    let documents =
        (0..6).map(|i| with_payload(doc(i, "a bird"), &[("even", Kind::Bool(i % 2 == 0))])).collect();
    server.upsert("c", documents).await;
    let request = proto::CountRequest { collection: "c".into(), filter: expression("even = true") };
    assert_eq!(server.documents.count(request).await.unwrap().into_inner().documents, 3);
    let filter = Some(proto::Filter {
        form: Some(proto::filter::Form::Condition(proto::Condition {
            field: "even".into(),
            test: Some(proto::condition::Test::Eq(value(Kind::Bool(false)))),
        })),
    });
    let request = proto::ScrollRequest { collection: "c".into(), filter, ..Default::default() };
    let page = server.documents.scroll(request).await.unwrap().into_inner();
    let odd: Vec<_> = page.documents.into_iter().map(|d| d.document.unwrap().id).collect();
    assert_eq!(odd, ["1", "3", "5"]);
}

fn scroll(collection: &str, filter: Option<proto::Filter>, cursor: &str) -> proto::ScrollRequest {
    let (collection, cursor) = (collection.into(), cursor.into());
    proto::ScrollRequest { collection, filter, cursor, limit: 2, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_goes_on_in_its_own_listing_only() {
    let mut server = Server::with_collection().await;
    server.create("other").await;
    for collection in ["c", "other"] {
        let documents = (0..6)
            .map(|i| with_payload(doc(format!("{collection}{i}"), "a bird"), &[("n", Kind::Integer(i))]))
            .collect();
        server.upsert(collection, documents).await;
    }
    let alias =
        |collection: &str| proto::SetAliasRequest { alias: "live".into(), collection: collection.into() };
    server.collections.set_alias(alias("c")).await.unwrap();

    let first = server.documents.scroll(scroll("live", None, "")).await.unwrap().into_inner();
    let cursor = first.next_cursor;
    // The collection under its own name is the same one.
    let second = server.documents.scroll(scroll("c", None, &cursor)).await.unwrap().into_inner();
    assert_eq!(second.documents[0].document.as_ref().unwrap().id, "c2");

    let filtered = server.documents.scroll(scroll("live", expression("n < 5"), &cursor)).await;
    assert_refused(filtered, Code::InvalidArgument, &["another filter", "start again"]);
    server.collections.set_alias(alias("other")).await.unwrap();
    let switched = server.documents.scroll(scroll("live", None, &cursor)).await;
    assert_refused(switched, Code::InvalidArgument, &["another collection", "start again"]);
    for bad in ["c1", "no cursor", &cursor[1..]] {
        let refused = server.documents.scroll(scroll("c", None, bad)).await;
        assert_refused(refused, Code::InvalidArgument, &["none that this server gives", "start again"]);
    }

    // Written otherwise, the filter is the same.
    let first =
        server.documents.scroll(scroll("c", expression("n>=1 AND n != 9"), "")).await.unwrap().into_inner();
    let again = scroll("c", expression("n >= 1 and n != 9"), &first.next_cursor);
    assert_eq!(server.documents.scroll(again).await.unwrap().into_inner().documents.len(), 2);

    // A collection made again under its name is another.
    let name = proto::DeleteCollectionRequest { name: "c".into() };
    server.collections.delete(name).await.unwrap();
    server.create("c").await;
    let remade = server.documents.scroll(scroll("c", None, &cursor)).await;
    assert_refused(remade, Code::InvalidArgument, &["another collection"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_may_find_less_than_was_meant_is_answered_with_a_hint() {
    let mut server = Server::with_collection().await;
    let zips = [Kind::Integer(10115), string("01067"), Kind::Integer(80331)];
    let documents =
        zips.iter().enumerate().map(|(i, zip)| with_payload(doc(i, "a town"), &[("zip", zip.clone())]));
    server.upsert("c", documents.collect()).await;

    let told = |hints: &[String], word: &str| {
        assert!(hints.len() == 1 && hints[0].contains(word), "{word}: {hints:?}");
    };
    for (filter, word) in [("zip = '10115'", "without quotes"), ("zpi = 10115", "did you mean \"zip\"?")] {
        let search = proto::SearchRequest { filter: expression(filter), ..by_text("c", "a town", 3) };
        let found = server.search.search(search.clone()).await.unwrap().into_inner();
        assert!(found.hits.is_empty());
        told(&found.hints, word);
        let batch = proto::SearchBatchRequest { requests: vec![by_text("c", "a town", 3), search] };
        let found = server.search.search_batch(batch).await.unwrap().into_inner().responses;
        assert!(found[0].hints.is_empty());
        told(&found[1].hints, word);
        let count = proto::CountRequest { collection: "c".into(), filter: expression(filter) };
        let counted = server.documents.count(count).await.unwrap().into_inner();
        assert_eq!(counted.documents, 0);
        told(&counted.hints, word);
        let page = server.documents.scroll(scroll("c", expression(filter), "")).await.unwrap().into_inner();
        told(&page.hints, word);
        let request = proto::DeleteDocumentsRequest { filter: expression(filter), ..delete(&[]) };
        let deleted = server.documents.delete(request).await.unwrap().into_inner();
        assert_eq!(deleted.deleted, 0);
        told(&deleted.hints, word);
    }
    let search = proto::SearchRequest { filter: expression("zip = 10115"), ..by_text("c", "a town", 3) };
    let found = server.search.search(search).await.unwrap().into_inner();
    assert_eq!(
        (found.hits.len(), found.hints.len()),
        (1, 1),
        "the text 01067 is not compared: {:?}",
        found.hints
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_of_the_calendar_are_stored_and_found() {
    let mut server = Server::with_collection().await;
    let ends = [
        prost_types::Timestamp { seconds: 253_402_300_799, nanos: 999_999_000 },
        prost_types::Timestamp { seconds: -62_135_596_800, nanos: 0 },
    ];
    for (id, end) in ends.iter().enumerate() {
        let sent = with_payload(doc(id, "a law"), &[("end", Kind::Datetime(*end))]);
        server.upsert("c", vec![sent.clone()]).await;
        let stored = server.documents.get(get(&[&id.to_string()])).await.unwrap().into_inner();
        assert_eq!(stored.documents[0].document.as_ref().unwrap(), &sent);
    }
    for (filter, found) in [
        ("end >= 9999-12-31", 1),
        ("end <= 9999-12-31T23:59:59.999999Z", 2),
        ("end = 0001-01-01", 1),
        ("end > 0001-01-01T00:00:00+14:00", 1),
    ] {
        let request = proto::CountRequest { collection: "c".into(), filter: expression(filter) };
        assert_eq!(server.documents.count(request).await.unwrap().into_inner().documents, found, "{filter}");
    }
    let request = proto::CountRequest { collection: "c".into(), filter: expression("end < 10000-01-01") };
    assert_refused(
        server.documents.count(request).await,
        Code::InvalidArgument,
        &["outside the years 1 to 9999"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_changed_without_encoding() {
    let mut server = Server::with_collection().await;
    let first = with_payload(doc("1", "the cat"), &[("year", Kind::Integer(1)), ("lang", string("en"))]);
    server.upsert("c", vec![first, doc("2", "the dog")]).await;
    server.metrics_have("distilface_encoded_texts_total 2").await;
    let change = |ids: &[&str], fields: &[(&str, Kind)], remove: &[&str]| proto::SetPayloadRequest {
        collection: "c".into(),
        ids: ids.iter().map(ToString::to_string).collect(),
        payload: crate::harness::payload(fields),
        remove_fields: remove.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    let request = change(&["2", "nobody", "1"], &[("year", Kind::Integer(2))], &["lang"]);
    let answer = server.documents.set_payload(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.missing, ["nobody"]);
    assert_eq!(statuses(&answer.results), [WriteStatus::Updated; 2]);
    assert_eq!(answer.results[0].id, "2");
    let again = server.documents.set_payload(request).await.unwrap().into_inner();
    assert_eq!(statuses(&again.results), [WriteStatus::Unchanged; 2]);
    let found = server
        .find(proto::SearchRequest {
            filter: expression("year = 2 and not exists(lang)"),
            ..by_text("c", "the cat", 5)
        })
        .await;
    assert_eq!(ids(&found), ["1", "2"]);
    // One that cannot be is told in its place, and stays as it was.
    let too_long = string(&"x".repeat(70_000));
    let answer = server.documents.set_payload(change(&["1"], &[("x", too_long)], &[])).await.unwrap();
    let failed = &answer.into_inner().results[0];
    assert!(failed.status() == WriteStatus::Failed && failed.error.contains("65536"), "{failed:?}");
    let nothing = server.documents.set_payload(change(&["1"], &[], &[])).await;
    assert_refused(nothing, Code::InvalidArgument, &["nothing is to be changed"]);
    let mut server = server.restart_with(|_| ()).await;
    assert_eq!(
        server
            .find(proto::SearchRequest { filter: expression("year = 2"), ..by_text("c", "dog", 5) })
            .await
            .len(),
        2
    );
}
