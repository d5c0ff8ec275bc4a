//! The bounds of every setting, and the words that state them.
//!
//! [`KEYS`] is the list of all keys with what each allows; the words are made of the numbers that are checked, and tests
//! hold the list against [`Config`]'s own fields and their documentation. [`faults`] checks values that already have the
//! right type.

use std::{fmt::Display, time::Duration};

use super::Config;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Seconds of a day and of a year.
const DAY: f64 = 86_400.0;
const YEAR: f64 = 365.0 * DAY;

/// A key and what it allows.
#[derive(Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub allowed: Allowed,
}

/// The values that a setting may have.
#[derive(Debug)]
pub(super) enum Allowed {
    /// What is no number, in words.
    Words(&'static str),
    Range(Range),
}

/// Numbers from `min` to `max`, both included. All are exact: none is above 2^53.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub min: f64,
    pub max: f64,
    pub unit: Unit,
    /// What 0 means, where it is allowed and not a number like others.
    zero: Option<&'static str>,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// What the meaning of the key says.
    Things,
    Bytes,
    Seconds,
}

const fn words(name: &'static str, words: &'static str) -> Key {
    Key { name, allowed: Allowed::Words(words) }
}

const fn range(name: &'static str, min: f64, max: f64, unit: Unit) -> Key {
    Key { name, allowed: Allowed::Range(Range { min, max, unit, zero: None }) }
}

const fn count(name: &'static str, min: u64, max: u64) -> Key {
    range(name, min as f64, max as f64, Unit::Things)
}

const fn bytes(name: &'static str, min: u64, max: u64) -> Key {
    range(name, min as f64, max as f64, Unit::Bytes)
}

const fn seconds(name: &'static str, min: f64, max: f64) -> Key {
    range(name, min, max, Unit::Seconds)
}

impl Key {
    /// The same key, where 0 means this.
    const fn zero(self, meaning: &'static str) -> Key {
        let Key { name, allowed } = self;
        match allowed {
            Allowed::Range(range) => {
                Key { name, allowed: Allowed::Range(Range { zero: Some(meaning), ..range }) }
            }
            Allowed::Words(_) => Key { name, allowed },
        }
    }
}

impl Range {
    /// `1 MiB to 1 TiB`, `0 (never) to 31536000`: as people write it, without the unit where that is no byte.
    pub(super) fn short(&self) -> String {
        match self.unit {
            Unit::Bytes => format!("{} to {}", binary(self.min), binary(self.max)),
            Unit::Things | Unit::Seconds => self.numbers(),
        }
    }

    fn numbers(&self) -> String {
        match self.zero {
            Some(zero) => format!("{} ({zero}) to {}", self.min, self.max),
            None => format!("{} to {}", self.min, self.max),
        }
    }

    fn words(&self) -> String {
        match self.unit {
            Unit::Things => self.numbers(),
            Unit::Seconds => format!("{} seconds", self.numbers()),
            Unit::Bytes => format!("{} bytes ({})", self.numbers(), self.short()),
        }
    }
}

/// A number of bytes in the largest unit that it is a multiple of.
pub(super) fn binary(bytes: f64) -> String {
    let units = [(TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
    match units.iter().find(|(size, _)| bytes >= *size as f64 && bytes % *size as f64 == 0.0) {
        Some((size, unit)) => format!("{} {unit}", bytes / *size as f64),
        None if bytes == 1.0 => "1 byte".to_owned(),
        None => format!("{bytes} bytes"),
    }
}

/// Every setting, in the order of the file.
pub(super) static KEYS: [Key; 41] = [
    words("data.dir", "a folder"),
    words("data.home", "a folder"),
    words("data.backups", "an absolute path that is not in data.dir; \"\" for none"),
    bytes("data.store_cache_bytes", MIB, TIB),
    bytes("data.segment_bytes", 64 << 10, 1 << 30),
    bytes("data.log_bytes_max", MIB, TIB),
    count("data.requests_max", 1, 10_000_000),
    count("data.open_collections_max", 1, 65_536),
    seconds("data.close_after", 0.0, YEAR).zero("never"),
    words("server.listen", "a numeric address and a port, such as \"127.0.0.1:7700\"; or \"localhost:7700\""),
    words(
        "server.metrics_listen",
        "a numeric address and a port, such as \"127.0.0.1:7701\"; \"localhost:7701\"; \"off\"",
    ),
    words("server.allow_remote", "true or false"),
    seconds("server.request_timeout", 0.001, DAY),
    seconds("server.drain_timeout", 0.0, 3600.0),
    seconds("server.close_timeout", 0.1, DAY),
    seconds("server.stream_idle_timeout", 0.001, DAY),
    seconds("server.health_timeout", 0.1, 3600.0),
    words("encoder.model", "the name of a model, a path to its folder, or \"none\""),
    words("encoder.device", "\"auto\", \"cpu\", \"openvino\", \"cuda\" or \"cuda:N\""),
    words("encoder.precision", "\"auto\", \"fp32\", \"bf16\", \"fp16\" or \"int8\""),
    count("encoder.threads", 0, 1024).zero("all cores"),
    count("encoder.batch_tokens_max", 16, MIB),
    count("encoder.queue_max", 1, MIB),
    count("encoder.query_cache", 0, 16 * MIB).zero("none"),
    count("encoder.bulk_niceness", 0, 19).zero("not at all"),
    count("encoder.models_max", 2, 1024),
    seconds("encoder.unload_after", 0.0, YEAR).zero("never"),
    bytes("limits.message_bytes_max", 64 * KIB, GIB),
    count("limits.batch_max", 1, 65_536),
    count("limits.queries_max", 1, 65_536),
    bytes("limits.query_bytes_max", 1, MIB),
    bytes("limits.text_bytes_max", 1, GIB),
    bytes("limits.payload_bytes_max", 1, GIB),
    count("limits.field_names_max", 1, GIB),
    count("limits.k_max", 1, MIB),
    count("limits.concurrent_requests_max", 1, 65_536),
    bytes("limits.bytes_in_flight_max", MIB, TIB),
    count("limits.streams_max", 1, MIB),
    count("limits.streams_per_client_max", 1, MIB),
    words("log.filter", "a tracing filter such as \"info\" or \"distilface=debug\""),
    words("log.format", "\"text\" or \"json\""),
];

/// What a key allows, in words; empty for a key that does not exist.
pub(super) fn allowed(key: &str) -> String {
    match of(key) {
        Some(Allowed::Words(words)) => (*words).to_owned(),
        Some(Allowed::Range(range)) => range.words(),
        None => String::new(),
    }
}

fn of(key: &str) -> Option<&'static Allowed> {
    KEYS.iter().find(|k| k.name == key).map(|k| &k.allowed)
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
    let backups = &data.backups;
    check.that(
        "data.backups",
        backups.as_os_str().is_empty() || (backups.is_absolute() && !backups.starts_with(&data.dir)),
        format_args!("{} will not do", backups.display()),
    );
    check.whole("data.store_cache_bytes", data.store_cache_bytes);
    check.whole("data.segment_bytes", data.segment_bytes);
    check.whole("data.log_bytes_max", data.log_bytes_max);
    check.whole("data.requests_max", data.requests_max as u64);
    check.whole("data.open_collections_max", data.open_collections_max as u64);
    check.seconds("data.close_after", data.close_after);

    check.reachable("server.listen", Some(server.listen), server.allow_remote);
    check.reachable("server.metrics_listen", server.metrics_listen, server.allow_remote);
    let same = server.listen.port() != 0 && server.metrics_listen == Some(server.listen);
    check.that("server.metrics_listen", !same, "is the same as server.listen; give it a port of its own");
    check.seconds("server.request_timeout", server.request_timeout);
    check.seconds("server.drain_timeout", server.drain_timeout);
    check.seconds("server.close_timeout", server.close_timeout);
    check.seconds("server.stream_idle_timeout", server.stream_idle_timeout);
    check.seconds("server.health_timeout", server.health_timeout);

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
    for (key, value) in [
        ("encoder.threads", encoder.threads),
        ("encoder.batch_tokens_max", encoder.batch_tokens_max),
        ("encoder.queue_max", encoder.queue_max),
        ("encoder.query_cache", encoder.query_cache),
        ("encoder.bulk_niceness", encoder.bulk_niceness.into()),
        ("encoder.models_max", encoder.models_max),
        ("limits.message_bytes_max", limits.message_bytes_max),
        ("limits.batch_max", limits.batch_max),
        ("limits.queries_max", limits.queries_max),
        ("limits.query_bytes_max", limits.query_bytes_max),
        ("limits.text_bytes_max", limits.text_bytes_max),
        ("limits.payload_bytes_max", limits.payload_bytes_max),
        ("limits.field_names_max", limits.field_names_max),
        ("limits.k_max", limits.k_max),
        ("limits.concurrent_requests_max", limits.concurrent_requests_max),
        ("limits.bytes_in_flight_max", limits.bytes_in_flight_max),
        ("limits.streams_max", limits.streams_max),
        ("limits.streams_per_client_max", limits.streams_per_client_max),
    ] {
        check.whole(key, value as u64);
    }
    check.seconds("encoder.unload_after", encoder.unload_after);

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

    fn whole(&mut self, key: &'static str, value: u64) {
        self.within(key, value as f64, value);
    }

    fn seconds(&mut self, key: &'static str, value: Duration) {
        self.within(key, value.as_secs_f64(), value.as_secs_f64());
    }

    fn within(&mut self, key: &'static str, value: f64, shown: impl Display) {
        let Some(Allowed::Range(Range { min, max, .. })) = of(key) else {
            unreachable!("{key} has no range");
        };
        self.that(key, (*min..=*max).contains(&value), format_args!("{shown} is out of bounds"));
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
