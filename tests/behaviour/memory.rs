//! What a request may take: answers are counted while they are made, elements before they are decoded.

use distilface::proto;
use prost::Message as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::harness::{Server, assert_refused, by_vector, call_raw, string, vector_doc, with_payload};

/// A server with a collection `v` of documents that have some text and some payload.
async fn server_with(documents: usize, text_bytes: usize, payload_bytes: usize) -> Server {
    let mut server = Server::start_with(|config| config.limits.message_bytes_max = 1 << 20).await;
    server
        .create_with(proto::CollectionConfig {
            name: "v".into(),
            dimension: 2,
            vectors_only: true,
            ..Default::default()
        })
        .await;
    for i in 0..documents {
        let mut document = vector_doc(i, &[1.0, i as f32 / documents as f32]);
        document.text = "x".repeat(text_bytes);
        let document = with_payload(document, &[("field", string(&"y".repeat(payload_bytes)))]);
        server.upsert("v", vec![document]).await;
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_asked_for_many_times_is_served_once() {
    let mut server = server_with(1, 600_000, 10).await;
    let request = proto::GetDocumentsRequest {
        collection: "v".into(),
        ids: ["0", "none"].repeat(512).into_iter().map(str::to_owned).collect(),
        with_vectors: false,
    };
    let answer = server.documents.get(request).await.unwrap().into_inner();
    assert_eq!((answer.documents.len(), answer.missing), (1, vec!["none".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_the_limit_is_refused_by_every_method_that_reads() {
    let mut server = server_with(8, 200_000, 20_000).await;
    let words = ["limits.message_bytes_max", "1048576", "ask for less"];
    let request = proto::GetDocumentsRequest {
        collection: "v".into(),
        ids: (0..8).map(|i| i.to_string()).collect(),
        with_vectors: true,
    };
    assert_refused(server.documents.get(request).await, Code::OutOfRange, &words);
    assert_refused(server.search.search(by_vector("v", &[1.0, 0.0], 8)).await, Code::OutOfRange, &words);
    // Each of these fits alone.
    let one = proto::SearchRequest { without_payload: true, ..by_vector("v", &[1.0, 0.0], 2) };
    server.search.search(one.clone()).await.unwrap();
    let batch = proto::SearchBatchRequest { requests: vec![one; 4] };
    assert_refused(server.search.search_batch(batch).await, Code::OutOfRange, &words);
    // Without what is large, everything fits.
    let lean = proto::SearchRequest { without_text: true, ..by_vector("v", &[1.0, 0.0], 8) };
    let batch = proto::SearchBatchRequest { requests: vec![lean; 4] };
    let answers = server.search.search_batch(batch).await.unwrap().into_inner().responses;
    assert!(answers.iter().all(|answer| answer.hits.len() == 8));
    // A scroll answers as much as a page holds, and goes on from there.
    assert_eq!(server.ids("v").await.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_of_a_batch_are_whole_though_they_share_what_they_read() {
    let mut server = server_with(5, 100, 50).await;
    let plain = by_vector("v", &[1.0, 0.0], 5);
    let requests = vec![
        proto::SearchRequest { without_payload: true, ..plain.clone() },
        plain.clone(),
        proto::SearchRequest { without_text: true, ..plain.clone() },
        proto::SearchRequest { by_passage: true, ..plain },
    ];
    let request = proto::SearchBatchRequest { requests };
    let answers = server.search.search_batch(request).await.unwrap().into_inner().responses;
    for (answer, (text, payload)) in answers.iter().zip([(100, 0), (100, 1), (0, 1), (100, 1)]) {
        assert_eq!(answer.hits.len(), 5);
        for hit in &answer.hits {
            assert_eq!(hit.passage.as_ref().unwrap().text.len(), text);
            assert_eq!(hit.payload.len(), payload);
        }
    }
}

/// `Service/Method` and whether the client streams, of everything in the API.
fn methods() -> Vec<(String, bool)> {
    let set = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.into_iter().filter(|f| f.package() == "distilface.v1").flat_map(|f| f.service);
    services
        .flat_map(|s| {
            let service = s.name().to_owned();
            s.method.into_iter().map(move |m| (format!("{service}/{}", m.name()), m.client_streaming()))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_are_the_clients_fault_in_every_method() {
    let server = Server::with_collection().await;
    let methods = methods();
    assert!(methods.len() >= 19, "{methods:?}");
    for (method, streaming) in methods {
        if streaming {
            continue;
        }
        // A field whose length reaches beyond the message; a key without an end.
        for bytes in [vec![0x0a, 200, 1], vec![0xff; 20]] {
            let status = call_raw(&server.channel, &method, bytes).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{method}: {status}");
            assert!(status.message().contains("protobuf"), "{method}: {status}");
            assert_eq!(status.get_error_details().error_info().unwrap().reason, "INVALID", "{method}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_are_not_utf8_are_the_clients_fault() {
    let server = Server::with_collection().await;
    for (method, bytes, field) in [
        ("Documents/Get", vec![0x0a, 2, 0xc3, 0x28], "collection"),
        ("Documents/Upsert", vec![0x12, 4, 0x1a, 2, 0xc3, 0x28], "text"),
        ("Search/Search", vec![0x12, 1, 0xff], "query"),
        ("Encoder/Embed", vec![0x0a, 1, 0xff], "texts"),
        ("Collections/Get", vec![0x0a, 1, 0xff], "name"),
    ] {
        let status = call_raw(&server.channel, method, bytes).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{method}: {status}");
        for word in ["UTF-8", field] {
            assert!(status.message().contains(word), "{method}: {word} is not in {status}");
        }
    }
    // A field of another type than it should be.
    let status = call_raw(&server.channel, "Documents/Get", vec![0x08, 1]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn millions_of_empty_elements_are_refused_before_they_are_decoded() {
    let server = Server::with_collection().await;
    let mut and = Vec::from([0x1a]);
    prost::encoding::encode_varint(15_000_000, &mut and);
    and.extend([0x0a, 0].repeat(7_500_000));
    let mut count = Vec::from([0x12]);
    prost::encoding::encode_varint(and.len() as u64, &mut count);
    count.extend(and);
    for (method, bytes) in [
        ("Search/SearchBatch", [0x0a, 0].repeat(7_500_000)),
        ("Documents/Upsert", [0x12, 0].repeat(7_500_000)),
        ("Documents/Count", count),
    ] {
        let status = call_raw(&server.channel, method, bytes).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{method}: {status}");
        assert!(status.message().contains("so many parts"), "{method}: {status}");
    }
}
