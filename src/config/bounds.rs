//! The bounds of every setting, and the words that state them.
//!
//! [`KEYS`] is the list of all keys with what each allows; a test holds it against [`Config`]'s own fields.
//! [`faults`] checks values that already have the right type.

use std::{fmt::Display, ops::RangeInclusive};

use super::Config;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A key and what it allows, in words.
pub(super) struct Key {
    pub name: &'static str,
    pub allowed: &'static str,
}

const ADDRESS: &str = "a numeric address and a port, such as \"127.0.0.1:7700\"; or \"localhost:7700\"";

/// Every setting, in the order of the file.
pub(super) const KEYS: [Key; 37] = [
    Key { name: "data.dir", allowed: "a folder" },
    Key { name: "data.home", allowed: "a folder" },
    Key { name: "data.store_cache_bytes", allowed: "1048576 to 1099511627776 bytes (1 MiB to 1 TiB)" },
    Key { name: "data.open_collections_max", allowed: "1 to 65536" },
    Key { name: "data.close_after", allowed: "0 (never) to 31536000 seconds" },
    Key { name: "server.listen", allowed: ADDRESS },
    Key {
        name: "server.metrics_listen",
        allowed: "a numeric address and a port, such as \"127.0.0.1:7701\"; \"localhost:7701\"; \"off\"",
    },
    Key { name: "server.allow_remote", allowed: "true or false" },
    Key { name: "server.request_timeout", allowed: "0.001 to 86400 seconds" },
    Key { name: "server.drain_timeout", allowed: "0 to 3600 seconds" },
    Key { name: "server.close_timeout", allowed: "0.1 to 86400 seconds" },
    Key { name: "server.stream_idle_timeout", allowed: "0.001 to 86400 seconds" },
    Key { name: "server.health_timeout", allowed: "0.1 to 3600 seconds" },
    Key { name: "encoder.model", allowed: "the name of a model, a path to its folder, or \"none\"" },
    Key { name: "encoder.device", allowed: "\"auto\", \"cpu\", \"openvino\", \"cuda\" or \"cuda:N\"" },
    Key { name: "encoder.precision", allowed: "\"auto\", \"fp32\", \"bf16\", \"fp16\" or \"int8\"" },
    Key { name: "encoder.threads", allowed: "0 (all cores) to 1024" },
    Key { name: "encoder.batch_tokens_max", allowed: "16 to 1048576" },
    Key { name: "encoder.queue_max", allowed: "1 to 1048576" },
    Key { name: "encoder.query_cache", allowed: "0 (none) to 16777216 queries" },
    Key { name: "encoder.bulk_niceness", allowed: "0 to 19" },
    Key { name: "encoder.models_max", allowed: "2 to 1024" },
    Key { name: "encoder.unload_after", allowed: "0 (never) to 31536000 seconds" },
    Key { name: "limits.message_bytes_max", allowed: "65536 to 1073741824 bytes (64 KiB to 1 GiB)" },
    Key { name: "limits.batch_max", allowed: "1 to 65536" },
    Key { name: "limits.queries_max", allowed: "1 to 65536" },
    Key { name: "limits.query_bytes_max", allowed: "1 to 1048576 bytes (1 byte to 1 MiB)" },
    Key { name: "limits.text_bytes_max", allowed: "1 to 1073741824 bytes (1 byte to 1 GiB)" },
    Key { name: "limits.payload_bytes_max", allowed: "1 to 1073741824 bytes (1 byte to 1 GiB)" },
    Key { name: "limits.field_names_max", allowed: "1 to 1073741824" },
    Key { name: "limits.k_max", allowed: "1 to 1048576" },
    Key { name: "limits.concurrent_requests_max", allowed: "1 to 65536" },
    Key { name: "limits.bytes_in_flight_max", allowed: "1048576 to 1099511627776 bytes (1 MiB to 1 TiB)" },
    Key { name: "limits.streams_max", allowed: "1 to 1048576" },
    Key { name: "limits.streams_per_client_max", allowed: "1 to 1048576" },
    Key { name: "log.filter", allowed: "a tracing filter such as \"info\" or \"distilface=debug\"" },
    Key { name: "log.format", allowed: "\"text\" or \"json\"" },
];

/// What a key allows; empty for a key that does not exist.
pub(super) fn allowed(key: &str) -> &'static str {
    KEYS.iter().find(|k| k.name == key).map_or("", |k| k.allowed)
}

/// A value out of bounds.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub key: &'static str,
    pub message: String,
}

/// Everything that is out of bounds.
pub(super) fn faults(config: &Config) -> Vec<Fault> {
    let mut check = Check::default();
    let Config { data, server, encoder, limits, log } = config;

    check.that("data.dir", !data.dir.as_os_str().is_empty(), "is empty");
    check.that("data.home", !data.home.as_os_str().is_empty(), "is empty");
    check.within("data.store_cache_bytes", data.store_cache_bytes, MIB..=1024 * GIB);
    check.within("data.open_collections_max", data.open_collections_max as u64, 1..=65_536);
    check.within("data.close_after", data.close_after.as_secs_f64(), 0.0..=31_536_000.0);

    check.reachable("server.listen", Some(server.listen), server.allow_remote);
    check.reachable("server.metrics_listen", server.metrics_listen, server.allow_remote);
    let same = server.listen.port() != 0 && server.metrics_listen == Some(server.listen);
    check.that("server.metrics_listen", !same, "is the same as server.listen; give it a port of its own");
    check.within("server.request_timeout", server.request_timeout.as_secs_f64(), 0.001..=86_400.0);
    check.within("server.drain_timeout", server.drain_timeout.as_secs_f64(), 0.0..=3600.0);
    check.within("server.close_timeout", server.close_timeout.as_secs_f64(), 0.1..=86_400.0);
    let idle = server.stream_idle_timeout.as_secs_f64();
    check.within("server.stream_idle_timeout", idle, 0.001..=86_400.0);
    check.within("server.health_timeout", server.health_timeout.as_secs_f64(), 0.1..=3600.0);

    check.that("encoder.model", !encoder.model.trim().is_empty(), "is empty");
    check.that(
        "encoder.device",
        device_is_known(&encoder.device),
        format_args!("{:?} is not a device", encoder.device),
    );
    check.that(
        "encoder.precision",
        matches!(encoder.precision.as_str(), "auto" | "fp32" | "bf16" | "fp16" | "int8"),
        format_args!("{:?} is not a precision", encoder.precision),
    );
    check.within("encoder.threads", encoder.threads as u64, 0..=1024);
    check.within("encoder.batch_tokens_max", encoder.batch_tokens_max as u64, 16..=MIB);
    check.within("encoder.queue_max", encoder.queue_max as u64, 1..=MIB);
    check.within("encoder.query_cache", encoder.query_cache as u64, 0..=16 * MIB);
    check.within("encoder.bulk_niceness", u64::from(encoder.bulk_niceness), 0..=19);
    check.within("encoder.models_max", encoder.models_max as u64, 2..=1024);
    check.within("encoder.unload_after", encoder.unload_after.as_secs_f64(), 0.0..=31_536_000.0);

    check.within("limits.message_bytes_max", limits.message_bytes_max as u64, 64 * KIB..=GIB);
    check.within("limits.batch_max", limits.batch_max as u64, 1..=65_536);
    check.within("limits.queries_max", limits.queries_max as u64, 1..=65_536);
    check.within("limits.query_bytes_max", limits.query_bytes_max as u64, 1..=MIB);
    check.within("limits.text_bytes_max", limits.text_bytes_max as u64, 1..=GIB);
    check.within("limits.payload_bytes_max", limits.payload_bytes_max as u64, 1..=GIB);
    check.within("limits.field_names_max", limits.field_names_max as u64, 1..=GIB);
    check.within("limits.k_max", limits.k_max as u64, 1..=MIB);
    check.within("limits.concurrent_requests_max", limits.concurrent_requests_max as u64, 1..=65_536);
    check.within("limits.bytes_in_flight_max", limits.bytes_in_flight_max as u64, MIB..=1024 * GIB);
    check.within("limits.streams_max", limits.streams_max as u64, 1..=MIB);
    check.within("limits.streams_per_client_max", limits.streams_per_client_max as u64, 1..=MIB);

    check.that("log.filter", !log.filter.trim().is_empty(), "is empty");
    check.0
}

/// Whether [`crate::runtime::DeviceChoice`] reads this name. The configuration stands below the runtime, so it parses
/// names itself, and a test compares the two.
fn device_is_known(device: &str) -> bool {
    matches!(device, "auto" | "cpu" | "openvino" | "cuda")
        || device.strip_prefix("cuda:").is_some_and(|n| {
            !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && n.parse::<u32>().is_ok()
        })
}

/// Collects faults.
#[derive(Default)]
struct Check(Vec<Fault>);

impl Check {
    fn that(&mut self, key: &'static str, good: bool, problem: impl Display) {
        if !good {
            self.0.push(Fault { key, message: format!("{problem}; allowed: {}", allowed(key)) });
        }
    }

    fn within<T: PartialOrd + Display + Copy>(
        &mut self,
        key: &'static str,
        value: T,
        range: RangeInclusive<T>,
    ) {
        self.that(key, range.contains(&value), format_args!("{value} is out of bounds"));
    }

    fn reachable(&mut self, key: &'static str, address: Option<std::net::SocketAddr>, allow_remote: bool) {
        let Some(address) = address else { return };
        if !allow_remote && !address.ip().is_loopback() {
            let message = format!(
                "{address} can be reached from other machines and this server has no authentication; \
                 allowed: a loopback address, or set server.allow_remote = true (--allow-remote) if that is meant"
            );
            self.0.push(Fault { key, message });
        }
    }
}
