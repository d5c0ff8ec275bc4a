//! The meaning of each setting with its unit, for `distilface config` and the file that `config init` writes.
//!
//! A test holds the list against [`Config`](super::Config)'s own fields, and every default that a sentence names is the
//! default: it is not repeated here. Nor are bounds, which [`bounds`](super::bounds) has.

/// A key and its meaning.
const MEANINGS: &[(&str, &str)] = &[
    ("data.dir", "Where the database is kept"),
    ("data.home", "Where runtime libraries and models are kept, which `distilface setup` fills"),
    ("data.backups", "Where clients of the server may make and restore backups, by name; nowhere if empty"),
    ("data.store_cache_bytes", "Memory for unpacked documents of all open collections, in bytes"),
    ("data.segment_bytes", "Bytes of a collection that are kept in memory before they become a segment"),
    ("data.log_bytes_max", "Bytes of the log above which collections let go of its oldest part"),
    (
        "data.requests_max",
        "Writing calls with a request id that each collection remembers, so that the same call is not done again",
    ),
    (
        "data.open_collections_max",
        "Collections that may be open at once; the least recently used one is closed for another",
    ),
    (
        "data.close_after",
        "Time after which an unused collection is closed, in seconds; it opens again when needed",
    ),
    ("server.listen", "Address of the gRPC server; port 0 takes a free one"),
    ("server.metrics_listen", "Address of Prometheus metrics over HTTP, at /metrics"),
    (
        "server.allow_remote",
        "Must be true for an address that is not loopback, since the server has no authentication",
    ),
    ("server.request_timeout", "Longest time of a request whose client names no deadline, in seconds"),
    ("server.drain_timeout", "Time that running requests get after SIGTERM, in seconds"),
    (
        "server.close_timeout",
        "Time that closing the data folder gets after that, in seconds; then the process ends with an error",
    ),
    (
        "server.stream_idle_timeout",
        "Time after which an Ingest stream that sends nothing, or whose answers nobody reads, is ended, in seconds",
    ),
    (
        "server.health_timeout",
        "Time after which a part of the server that does not answer makes it report NOT_SERVING, in seconds",
    ),
    ("encoder.model", "The model that encodes unless a collection names another"),
    ("encoder.device", "Where it runs; auto takes the fastest that is there"),
    (
        "encoder.precision",
        "The numbers it computes in; auto takes the fastest that keeps vectors near full precision",
    ),
    ("encoder.threads", "Threads of one inference"),
    ("encoder.batch_tokens_max", "Tokens of one batch, padding included"),
    ("encoder.queue_max", "Texts that may wait for the encoder; more are refused as overloaded"),
    ("encoder.query_cache", "Queries whose vectors are kept in memory"),
    (
        "encoder.bulk_niceness",
        "How far the encoding of documents yields to queries, as the system's niceness (Linux only)",
    ),
    ("encoder.models_max", "Models in memory at once; beyond it the least recently used one is unloaded"),
    ("encoder.unload_after", "Time without a request after which a model leaves memory, in seconds"),
    ("limits.message_bytes_max", "Size of one gRPC message, in bytes"),
    ("limits.batch_max", "Documents or texts in one request"),
    ("limits.queries_max", "Queries in one SearchBatch"),
    ("limits.query_bytes_max", "Size of a text that counts as a query, in bytes"),
    ("limits.text_bytes_max", "Size of one document's title and text, in bytes"),
    ("limits.payload_bytes_max", "Size of one document's fields, in bytes"),
    ("limits.field_names_max", "Distinct field names in the payloads of one collection"),
    ("limits.k_max", "Hits of one search"),
    ("limits.concurrent_requests_max", "Requests worked on at once; more are refused as overloaded"),
    (
        "limits.bytes_in_flight_max",
        "Memory for what all requests under way sent and are answered, in bytes; at least ten messages",
    ),
    ("limits.streams_max", "Ingest streams open at once; more are refused as overloaded"),
    ("limits.streams_per_client_max", "Ingest streams of one client, which is one connection"),
    ("log.filter", "Which log lines are written"),
    ("log.format", "Form of the log lines: text for people, json for programs"),
];

/// The meaning of a key, with its unit; empty for a key that does not exist.
pub(super) fn of(key: &str) -> &'static str {
    MEANINGS.iter().find(|(name, _)| *name == key).map_or("", |(_, meaning)| meaning)
}
