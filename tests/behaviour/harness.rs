//! A server for one test, and short words for what tests say often.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use distilface::{
    config::{self, Config},
    engine::Engine,
    proto::{self, Document, Value, value::Kind},
    rpc::{
        collections_client::CollectionsClient, documents_client::DocumentsClient,
        encoder_client::EncoderClient, search_client::SearchClient,
    },
    server::{self, Running},
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running server with clients of its services. Its data lives as long as it does.
pub struct Server {
    pub config: Config,
    pub channel: Channel,
    pub collections: CollectionsClient<Channel>,
    pub documents: DocumentsClient<Channel>,
    pub search: SearchClient<Channel>,
    pub encoder: EncoderClient<Channel>,
    running: Option<Running>,
    data: Arc<TempDir>,
}

impl Server {
    pub async fn start() -> Self {
        Server::start_with(|_| ()).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let data = Arc::new(TempDir::new().unwrap());
        let mut config = config(data.path());
        change(&mut config);
        Server::open(config, data).await
    }

    /// With a collection `c` that encodes text.
    pub async fn with_collection() -> Self {
        let mut server = Server::start().await;
        server.create("c").await;
        server
    }

    /// With a collection `v` that takes vectors of two dimensions.
    pub async fn with_vectors() -> Self {
        let mut server = Server::start().await;
        server
            .create_with(proto::CollectionConfig {
                name: "v".into(),
                dimension: 2,
                vectors_only: true,
                ..Default::default()
            })
            .await;
        server
    }

    async fn open(config: Config, data: Arc<TempDir>) -> Self {
        let engine = open_engine(&config).await.unwrap();
        let running = server::start(engine).await.unwrap();
        let channel =
            Endpoint::from_shared(format!("http://{}", running.address)).unwrap().connect().await.unwrap();
        let limit = 64 << 20;
        Server {
            config,
            collections: CollectionsClient::new(channel.clone()),
            documents: DocumentsClient::new(channel.clone()).max_decoding_message_size(limit),
            search: SearchClient::new(channel.clone()).max_decoding_message_size(limit),
            encoder: EncoderClient::new(channel.clone()).max_decoding_message_size(limit),
            channel,
            running: Some(running),
            data,
        }
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Stops; the clients stay, and find nobody.
    pub async fn stop(&mut self) {
        self.take().stop().await.unwrap();
    }

    /// What stops the server, for a test that stops it while it does something else.
    pub fn take(&mut self) -> Running {
        self.running.take().unwrap()
    }

    /// The same data under a new server, perhaps with other settings.
    pub async fn restart_with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        if self.running.is_some() {
            self.stop().await;
        }
        let mut config = self.config;
        change(&mut config);
        Server::open(config, self.data).await
    }

    pub async fn create(&mut self, name: &str) -> proto::Collection {
        self.create_with(proto::CollectionConfig { name: name.into(), ..Default::default() }).await
    }

    pub async fn create_with(&mut self, config: proto::CollectionConfig) -> proto::Collection {
        let request = proto::CreateCollectionRequest { config: Some(config), if_not_exists: false };
        self.collections.create(request).await.unwrap().into_inner().collection.unwrap()
    }

    pub async fn upsert(&mut self, collection: &str, documents: Vec<Document>) -> Vec<proto::DocumentResult> {
        let request = proto::UpsertRequest { collection: collection.into(), documents, ..Default::default() };
        self.documents.upsert(request).await.unwrap().into_inner().results
    }

    pub async fn count(&mut self, collection: &str) -> u64 {
        let request = proto::CountRequest { collection: collection.into(), filter: None };
        self.documents.count(request).await.unwrap().into_inner().documents
    }

    /// The ids of a collection, in order.
    pub async fn ids(&mut self, collection: &str) -> Vec<String> {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let request =
                proto::ScrollRequest { collection: collection.into(), cursor, ..Default::default() };
            let page = self.documents.scroll(request).await.unwrap().into_inner();
            ids.extend(page.documents.into_iter().map(|d| d.document.unwrap().id));
            cursor = page.next_cursor;
            if cursor.is_empty() {
                return ids;
            }
        }
    }

    pub async fn find(&mut self, request: proto::SearchRequest) -> Vec<proto::Hit> {
        self.search.search(request).await.unwrap().into_inner().hits
    }

    /// What Prometheus would read.
    pub async fn metrics(&self) -> String {
        http_get(self.running().metrics_address.unwrap(), "/metrics").await
    }

    /// Asks for metrics until one of its lines is there.
    pub async fn metrics_have(&self, line: &str) {
        let start = Instant::now();
        loop {
            let metrics = self.metrics().await;
            if metrics.lines().any(|l| l == line) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{line} is not in\n{metrics}");
            tokio::task::yield_now().await;
        }
    }
}

/// Settings for one test: free ports, one thread, the tiny model on the CPU.
fn config(data: &Path) -> Config {
    let home = config::default_home();
    assert!(
        home.join("runtime").is_dir() || std::env::var_os("ORT_DYLIB_PATH").is_some(),
        "ONNX Runtime is not in {}: run `make setup` first",
        home.display()
    );
    let mut config = Config::default();
    config.data.dir = data.join("db");
    config.data.home = home;
    config.server.listen = ([127, 0, 0, 1], 0).into();
    config.server.metrics_listen = Some(([127, 0, 0, 1], 0).into());
    config.encoder.model = tiny().to_str().unwrap().to_owned();
    config.encoder.device = "cpu".into();
    config.encoder.threads = 1;
    config
}

/// A home of its own with two models, `first` (the default) and `second`: the same weights, pooled in two ways.
pub fn two_models(config: &mut Config) {
    let home = config.data.dir.with_file_name("home");
    for (name, pooling) in [("first", "mean"), ("second", "cls")] {
        let to = home.join("models").join(name);
        std::fs::create_dir_all(&to).unwrap();
        for file in ["model.safetensors", "tokenizer.json"] {
            std::fs::copy(tiny().join(file), to.join(file)).unwrap();
        }
        let manifest = std::fs::read_to_string(tiny().join("model.toml")).unwrap();
        let manifest = manifest
            .replace("name = \"tiny\"", &format!("name = \"{name}\""))
            .replace("pooling = \"mean\"", &format!("pooling = \"{pooling}\""));
        std::fs::write(to.join("model.toml"), manifest).unwrap();
    }
    std::os::unix::fs::symlink(config.data.home.join("runtime"), home.join("runtime")).unwrap();
    config.data.home = home;
    config.encoder.model = "first".into();
}

pub fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny")
}

pub async fn open_engine(config: &Config) -> Result<Arc<Engine>, distilface::engine::EngineError> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || Engine::open(&config)).await.unwrap()
}

pub async fn http_get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Asks again and again until it is so.
pub async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !so().await {
        assert!(start.elapsed() < PATIENCE, "never came true: {what}");
        tokio::task::yield_now().await;
    }
}

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in good time")
}

/// The refusal has this code and its message these words.
#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, words: &[&str]) {
    let status = result.expect_err("it should be refused");
    assert_eq!(status.code(), code, "{status}");
    for word in words {
        assert!(status.message().contains(word), "{word:?} is not in: {}", status.message());
    }
}

pub fn doc(id: impl ToString, text: impl ToString) -> Document {
    Document { id: id.to_string(), text: text.to_string(), ..Default::default() }
}

pub fn with_payload(mut document: Document, fields: &[(&str, Kind)]) -> Document {
    document.payload = payload(fields);
    document
}

pub fn payload(fields: &[(&str, Kind)]) -> BTreeMap<String, Value> {
    fields.iter().map(|(field, kind)| ((*field).to_owned(), value(kind.clone()))).collect()
}

pub fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

pub fn list(kinds: &[Kind]) -> Kind {
    Kind::List(proto::ValueList { values: kinds.iter().cloned().map(value).collect() })
}

pub fn string(s: &str) -> Kind {
    Kind::String(s.into())
}

pub fn vector_doc(id: impl ToString, values: &[f32]) -> Document {
    let vector = Some(proto::Vector { values: values.to_vec() });
    Document { id: id.to_string(), vector, ..Default::default() }
}

pub fn expression(text: &str) -> Option<proto::Filter> {
    Some(proto::Filter { form: Some(proto::filter::Form::Expression(text.into())) })
}

pub fn by_text(collection: &str, text: &str, k: u32) -> proto::SearchRequest {
    let query = Some(proto::search_request::Query::Text(text.into()));
    proto::SearchRequest { collection: collection.into(), query, k, ..Default::default() }
}

pub fn by_vector(collection: &str, values: &[f32], k: u32) -> proto::SearchRequest {
    let query = Some(proto::search_request::Query::Vector(proto::Vector { values: values.to_vec() }));
    proto::SearchRequest { collection: collection.into(), query, k, ..Default::default() }
}

pub fn by_id(collection: &str, id: &str, k: u32) -> proto::SearchRequest {
    let query = Some(proto::search_request::Query::DocumentId(id.into()));
    proto::SearchRequest { collection: collection.into(), query, k, ..Default::default() }
}

pub fn ids(hits: &[proto::Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.id.as_str()).collect()
}

pub fn statuses(results: &[proto::DocumentResult]) -> Vec<proto::WriteStatus> {
    results.iter().map(proto::DocumentResult::status).collect()
}

/// Bytes as they are, for requests that no client would send.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl tonic::codec::Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl tonic::codec::Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, bytes: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(bytes, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, bytes: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; bytes::Buf::remaining(bytes)];
        bytes::Buf::copy_to_slice(bytes, &mut item);
        Ok(Some(item))
    }
}

/// Calls a method such as `Documents/Get` with these bytes as its message.
pub async fn call_raw(channel: &Channel, method: &str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(64 << 20);
    grpc.ready().await.unwrap();
    let path = format!("/distilface.v1.{method}").parse().unwrap();
    Ok(grpc.unary(tonic::Request::new(message), path, Raw).await?.into_inner())
}
