//! Metrics are written as Prometheus text. Only this file uses `prometheus_client`; names are in `telemetry.rs`.
//!
//! Counters are fed by the requests; gauges of collections and of the process are sampled at each scrape.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::connections::{Connection, Places};
use crate::{
    api::Counts,
    engine::{DocumentOutcome, Engine, WriteStatus},
    telemetry::{self, names},
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByMethod {
    method: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByMethodAndCode {
    method: String,
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByStatus {
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByCollection {
    collection: String,
}

/// How long a scrape waits for the counts of collections.
const COUNTS_PATIENCE: Duration = Duration::from_secs(2);

/// Latency from half a millisecond to half a minute.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 17))
}

type Gauges = Family<ByCollection, Gauge<u64, AtomicU64>>;

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<ByMethodAndCode, Counter>,
    seconds: Family<ByMethod, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    documents: Family<ByStatus, Counter>,
    texts: Counter,
    tokens: Counter,
    waiting: Gauge<u64, AtomicU64>,
    models: Gauge<u64, AtomicU64>,
    cache_hits: Counter,
    cache_misses: Counter,
    collections: [Gauges; 3],
    resident_bytes: Gauge<u64, AtomicU64>,
    healthy: Gauge,
    damaged: Gauge<u64, AtomicU64>,
    /// One scrape at a time, since each clears and fills the gauges of the collections.
    scraping: tokio::sync::Mutex<()>,
}

impl Metrics {
    /// `device` is where the encoder runs; empty without one.
    pub(crate) fn new(device: &str) -> Self {
        let mut registry = Registry::with_prefix("distilface");
        let requests = Family::default();
        let seconds = Family::<ByMethod, Histogram, fn() -> Histogram>::new_with_constructor(latency);
        let in_flight = Gauge::default();
        let documents = Family::default();
        let (texts, tokens) = (Counter::default(), Counter::default());
        let (waiting, models) = (Gauge::default(), Gauge::default());
        let (cache_hits, cache_misses) = (Counter::default(), Counter::default());
        let collections: [Gauges; 3] = Default::default();
        let resident_bytes = Gauge::default();
        let healthy = Gauge::default();
        let damaged = Gauge::default();

        registry.register(names::REQUESTS, "Requests answered", requests.clone());
        registry.register(names::REQUEST_SECONDS, "From arrival to the end of the answer", seconds.clone());
        registry.register(names::REQUESTS_IN_FLIGHT, "Requests being worked on", in_flight.clone());
        registry.register(names::DOCUMENTS, "Documents by what became of them", documents.clone());
        registry.register(names::ENCODED_TEXTS, "Texts encoded for requests", texts.clone());
        registry.register(names::ENCODED_TOKENS, "Tokens of those texts", tokens.clone());
        registry.register(names::ENCODER_WAITING, "Texts that wait for the encoder", waiting.clone());
        registry.register(names::MODELS_LOADED, "Models in memory", models.clone());
        registry.register(names::QUERY_CACHE_HITS, "Queries whose vector was known", cache_hits.clone());
        registry.register(names::QUERY_CACHE_MISSES, "Queries whose vector was not", cache_misses.clone());
        for (gauges, (name, help)) in collections.iter().zip([
            (names::COLLECTION_DOCUMENTS, "Documents of a collection"),
            (names::COLLECTION_PASSAGES, "Vectors of a collection that can be found"),
            (names::COLLECTION_INDEXED, "Vectors of a collection that are in the graph"),
        ]) {
            registry.register(name, help, gauges.clone());
        }
        registry.register(names::RESIDENT_BYTES, "Memory of the process", resident_bytes.clone());
        registry.register(names::HEALTHY, "1 while every collection takes writes", healthy.clone());
        registry.register(
            names::COLLECTIONS_DAMAGED,
            "Collections that cannot be opened and are refused by name",
            damaged.clone(),
        );
        let build = vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("device", device.to_owned())];
        registry.register(names::BUILD, "Program and device", Info::new(build));

        Metrics {
            registry,
            requests,
            seconds,
            in_flight,
            documents,
            texts,
            tokens,
            waiting,
            models,
            cache_hits,
            cache_misses,
            collections,
            resident_bytes,
            healthy,
            damaged,
            scraping: tokio::sync::Mutex::default(),
        }
    }

    /// A request came in.
    pub(crate) fn began(&self) {
        self.in_flight.inc();
    }

    /// Requests that came in and have not ended.
    pub(crate) fn running(&self) -> u64 {
        u64::try_from(self.in_flight.get()).unwrap_or(0)
    }

    /// A request ended.
    pub(crate) fn ended(&self, method: &str, code: &'static str, elapsed: Duration) {
        self.in_flight.dec();
        self.requests.get_or_create(&ByMethodAndCode { method: method.to_owned(), code }).inc();
        self.seconds.get_or_create(&ByMethod { method: method.to_owned() }).observe(elapsed.as_secs_f64());
    }

    /// Everything as Prometheus reads it. A collection that is not open is left out of this scrape, and all of them are
    /// where the pool that counts hangs: what shows that must be answered.
    pub(crate) async fn scrape(&self, engine: &Engine) -> String {
        let _one_scrape = self.scraping.lock().await;
        self.healthy.set(engine.healthy().is_ok().into());
        self.resident_bytes.set(telemetry::resident_bytes().unwrap_or(0));
        if let Some(encoders) = engine.encoders() {
            let counters = encoders.counters();
            self.models.set(encoders.all().len() as u64);
            self.waiting.set(counters.waiting.load(Ordering::Relaxed));
            for (counter, now) in
                [(&self.cache_hits, &counters.cache_hits), (&self.cache_misses, &counters.cache_misses)]
            {
                counter.inc_by(now.load(Ordering::Relaxed).saturating_sub(counter.get()));
            }
        }
        for gauges in &self.collections {
            gauges.clear();
        }
        // Those that are open; a scrape opens none and looks at no file.
        if let Ok(Ok(counts)) = tokio::time::timeout(COUNTS_PATIENCE, engine.counts()).await {
            self.damaged.set(counts.damaged as u64);
            for (collection, counts) in counts.open {
                let label = ByCollection { collection };
                for (gauges, value) in
                    self.collections.iter().zip([counts.documents, counts.passages, counts.indexed])
                {
                    gauges.get_or_create(&label).set(value);
                }
            }
        }
        self.text()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}

impl Counts for Metrics {
    fn document(&self, outcome: &DocumentOutcome) {
        let status = match outcome.status {
            WriteStatus::Inserted => "inserted",
            WriteStatus::Updated => "updated",
            WriteStatus::Unchanged => "unchanged",
        };
        self.documents.get_or_create(&ByStatus { status }).inc();
        if outcome.status != WriteStatus::Unchanged && outcome.tokens > 0 {
            self.encoded(outcome.passages.into(), outcome.tokens.into());
        }
    }

    fn document_failed(&self) {
        self.documents.get_or_create(&ByStatus { status: "failed" }).inc();
    }

    fn encoded(&self, texts: u64, tokens: u64) {
        self.texts.inc_by(texts);
        self.tokens.inc_by(tokens);
    }
}

/// Serves `/metrics`, and `/healthz` for those who cannot ask gRPC, until `stopped`.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    engine: Arc<Engine>,
    stopped: CancellationToken,
) {
    let health = {
        let engine = Arc::clone(&engine);
        move || async move {
            match engine.healthy() {
                // The first line says whether it serves; what else is wrong keeps nobody from being served.
                Ok(()) => {
                    let findings = engine.findings();
                    let lines =
                        std::iter::once("ok".to_owned()).chain(findings.iter().map(ToString::to_string));
                    (StatusCode::OK, lines.map(|line| line + "\n").collect())
                }
                Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            }
        }
    };
    let scrape = move || async move { ([(CONTENT_TYPE, OPEN_METRICS)], metrics.scrape(&engine).await) };
    let router = Router::new().route("/metrics", get(scrape)).route("/healthz", get(health));
    let listener = Bounded { listener, places: Places::new(METRICS_CONNECTIONS), stopped: stopped.clone() };
    let serving = axum::serve(listener, router).with_graceful_shutdown(stopped.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "metrics are no longer served");
    }
}

/// Connections to the metrics that may be open at once.
const METRICS_CONNECTIONS: usize = 16;

/// Accepts no more than that: each takes a file handle, and the store needs some.
struct Bounded {
    listener: TcpListener,
    places: Arc<Places>,
    stopped: CancellationToken,
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Connection, Self::Addr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
            if let Some(place) = self.places.admit(&CancellationToken::new()).await {
                return (Connection::new(stream, &self.stopped, place), address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Config, NO_MODEL},
        engine::NewCollection,
    };

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::new("cpu");
        metrics.began();
        metrics.began();
        metrics.ended("Search/Search", "OK", Duration::from_millis(3));
        metrics.document(&DocumentOutcome {
            id: "a".into(),
            status: WriteStatus::Inserted,
            passages: 2,
            tokens: 40,
            truncated: false,
            title_truncated: false,
            unknown_tokens: 0,
            version: 1,
        });
        metrics.document_failed();
        let text = metrics.text();
        for line in [
            "distilface_requests_total{method=\"Search/Search\",code=\"OK\"} 1",
            "distilface_requests_in_flight 1",
            "distilface_request_seconds_count{method=\"Search/Search\"} 1",
            "distilface_documents_total{status=\"inserted\"} 1",
            "distilface_documents_total{status=\"failed\"} 1",
            "distilface_encoded_texts_total 2",
            "distilface_encoded_tokens_total 40",
            "device=\"cpu\"",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn unchanged_documents_cost_no_tokens() {
        let metrics = Metrics::new("");
        metrics.document(&DocumentOutcome {
            id: "a".into(),
            status: WriteStatus::Unchanged,
            passages: 2,
            tokens: 40,
            truncated: false,
            title_truncated: false,
            unknown_tokens: 0,
            version: 1,
        });
        assert!(metrics.text().contains("distilface_encoded_tokens_total 0"));
    }

    #[test]
    fn the_process_keeps_something_in_memory() {
        if cfg!(target_os = "linux") {
            assert!(telemetry::resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_scrape_counts_what_is_open_and_is_answered_though_nobody_can_count() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data.dir = dir.path().join("db");
        config.encoder.model = NO_MODEL.into();
        let engine = Engine::open(&config).unwrap();
        let name = "places".to_owned();
        let new = NewCollection { name, vectors_only: true, dimension: Some(2), ..Default::default() };
        engine.create_collection(new).await.unwrap();
        let metrics = Metrics::new("");
        let counted = "distilface_collection_documents{collection=\"places\"} 0";
        let text = metrics.scrape(&engine).await;
        assert!(text.contains(counted) && text.contains("distilface_collections_damaged 0"), "{text}");
        let held = engine.occupy_work_pool();
        let text = metrics.scrape(&engine).await;
        assert!(!text.contains(counted) && text.contains("distilface_healthy 1"), "{text}");
        drop(held);
        engine.close().await.unwrap();
    }
}
