//! The ceiling of a server's memory, held by the built binary under everything that asks for all of it at once.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use distilface::{
    config, proto,
    rpc::{
        collections_client::CollectionsClient, documents_client::DocumentsClient, search_client::SearchClient,
    },
};
use prost::Message as _;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::harness::{by_text, by_vector, call_raw, doc, soon, string, tiny, vector_doc, with_payload};

/// What all requests under way may take (limits.bytes_in_flight_max).
const BUDGET_MIB: u64 = 256;
/// What a server may take besides, beyond what it had before: the store's caches, one text unpacked for each thread,
/// what the allocator keeps, what HTTP/2 has not sent yet, and what is written for the few that were let in.
const MARGIN_MIB: u64 = 256;

/// `distilface serve` as a process of its own; killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(data: &std::path::Path) -> (Self, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_distilface"))
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--metrics-listen", "off"])
            .env("DISTILFACE_DATA__DIR", data.join("db"))
            .env("DISTILFACE_DATA__HOME", config::default_home())
            .env("DISTILFACE_ENCODER__MODEL", tiny())
            .env("DISTILFACE_ENCODER__DEVICE", "cpu")
            .env("DISTILFACE_LOG__FILTER", "error")
            .env("XDG_CONFIG_HOME", data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let started: serde_json::Value = serde_json::from_str(&line).unwrap();
        (Process(child), started["address"].as_str().unwrap().to_owned())
    }

    /// A line of `/proc/PID/status` in MiB.
    fn memory_mib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }
}

async fn connect(address: &str) -> Channel {
    Endpoint::from_shared(address.to_owned()).unwrap().connect().await.unwrap()
}

/// A field of a message, as bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![number << 3 | 2];
    prost::encoding::encode_varint(bytes.len() as u64, &mut message);
    message.extend_from_slice(bytes);
    message
}

/// Small requests that ask for gigabytes, and large ones that would become gigabytes.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let same = proto::GetDocumentsRequest {
        collection: "large".into(),
        ids: vec!["0".into(); 1024],
        with_vectors: true,
    };
    let all = proto::GetDocumentsRequest {
        collection: "large".into(),
        ids: (0..40).map(|i| i.to_string()).collect(),
        with_vectors: true,
    };
    let payloads = proto::SearchBatchRequest { requests: vec![by_vector("payloads", &[1.0, 0.5], 200); 256] };
    let texts = proto::SearchBatchRequest { requests: vec![by_vector("large", &[1.0, 0.5], 1000); 8] };
    let scroll =
        proto::ScrollRequest { collection: "large".into(), limit: 1000, ..proto::ScrollRequest::default() };
    let empty = |number: u8| [number << 3 | 2, 0].repeat(7_500_000);
    vec![
        ("Documents/Get", same.encode_to_vec()),
        ("Documents/Get", all.encode_to_vec()),
        ("Search/SearchBatch", payloads.encode_to_vec()),
        ("Search/SearchBatch", texts.encode_to_vec()),
        ("Documents/Scroll", scroll.encode_to_vec()),
        ("Search/SearchBatch", empty(1)),
        ("Documents/Count", field(2, &field(3, &empty(1)))),
        ("Documents/Upsert", empty(2)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_requests_together_take_more_memory_than_is_said_and_others_are_answered() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let (server, address) = Process::start(data.path());
    let channel = connect(&address).await;
    let mut collections = CollectionsClient::new(channel.clone());
    let mut documents = DocumentsClient::new(channel.clone());
    for (name, vectors_only) in [("large", true), ("payloads", true), ("c", false)] {
        let config = proto::CollectionConfig {
            name: name.into(),
            dimension: if vectors_only { 2 } else { 0 },
            vectors_only,
            ..Default::default()
        };
        let request = proto::CreateCollectionRequest { config: Some(config), ..Default::default() };
        collections.create(request).await.unwrap();
    }
    let mut upsert = async |collection: &str, documents_sent: Vec<proto::Document>| {
        let request = proto::UpsertRequest {
            collection: collection.into(),
            documents: documents_sent,
            ..Default::default()
        };
        soon(documents.upsert(request)).await.unwrap();
    };
    for i in 0..40 {
        let mut document = vector_doc(i, &[1.0, i as f32]);
        document.text = "x".repeat(4 << 20);
        upsert("large", vec![document]).await;
    }
    for i in 0..20 {
        let payload = [("field", string(&"y".repeat(60_000)))];
        let some = (0..10).map(|j| with_payload(vector_doc(i * 10 + j, &[1.0, j as f32]), &payload));
        upsert("payloads", some.collect()).await;
    }
    upsert("c", vec![doc("1", "a cat"), doc("2", "a dog")]).await;
    let before = server.memory_mib("VmHWM");

    let attackers: Vec<_> = attacks()
        .into_iter()
        .map(|(method, bytes)| {
            let address = address.clone();
            tokio::spawn(async move {
                let channel = connect(&address).await;
                for _ in 0..3 {
                    match call_raw(&channel, method, bytes.clone()).await {
                        Ok(_) => {}
                        Err(status) => assert!(
                            matches!(
                                status.code(),
                                Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted
                            ),
                            "{method}: {status}"
                        ),
                    }
                }
            })
        })
        .collect();
    // Somebody else goes on working.
    let other = connect(&address).await;
    let mut search = SearchClient::new(other.clone());
    let mut collections = CollectionsClient::new(other);
    let mut answered = 0;
    while answered < 20 || attackers.iter().any(|attacker| !attacker.is_finished()) {
        let found = soon(search.search(by_text("c", "a cat", 1))).await;
        let listed = soon(collections.list(proto::ListCollectionsRequest {})).await;
        for refused in [found.err(), listed.err()] {
            match refused {
                None => answered += 1,
                Some(status) => assert_eq!(Status::code(&status), Code::ResourceExhausted, "{status}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for attacker in attackers {
        attacker.await.unwrap();
    }
    let peak = server.memory_mib("VmHWM");
    assert!(
        peak <= before + BUDGET_MIB + MARGIN_MIB,
        "{peak} MiB at most, {before} before; {} are free to be used",
        BUDGET_MIB + MARGIN_MIB
    );
    println!("{before} MiB before, {peak} MiB at most");
}
