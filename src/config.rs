//! Every setting with its unit, default and bounds.
//!
//! Settings come in layers, of which the later wins: defaults, file, `DISTILFACE_*` environment (`__` between levels),
//! flags. [`Loaded::read`] merges them and reports every fault at once; [`Config::validate`] checks the bounds.
//! A [`Config`] is plain data: it can be printed, compared and sent, and it holds no live component.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, Fault};

mod bounds;
mod layers;
mod meaning;
#[cfg(test)]
mod tests;

pub use layers::{Loaded, Origin, Override};

/// Variables that begin with `DISTILFACE_` but are not settings: they name folders, or tests read them.
pub const RESERVED_VARIABLES: [&str; 4] =
    ["DISTILFACE_HOME", FILE_VARIABLE, "DISTILFACE_SHARED", "DISTILFACE_URL"];

/// The default of [`LogConfig::filter`]: events of the process, without the messages that the graph library logs at every start.
pub const LOG_FILTER_DEFAULT: &str = "info,hnsw_rs=warn";

/// The name in [`EncoderConfig::model`] that runs a process without an encoder.
pub const NO_MODEL: &str = "none";

/// What the last start found wrong, for `distilface doctor`: a line each, what is wrong, a tab, and what to do.
pub(crate) const FINDINGS_FILE: &str = "findings";

/// All settings of a process.
///
/// ```
/// use distilface::config::Config;
///
/// let mut config = Config::default();
/// config.limits.k_max = 50;
/// config.validate().unwrap();
///
/// config.limits.k_max = 0;
/// config.limits.batch_max = 0;
/// let error = config.validate().unwrap_err().to_string();
/// assert!(error.contains("limits.k_max") && error.contains("limits.batch_max"), "{error}");
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the database, runtime libraries and models are kept, and how many collections are open.
    pub data: DataConfig,
    /// Addresses and time limits of the server.
    pub server: ServerConfig,
    /// The model, its device and its queue.
    pub encoder: EncoderConfig,
    /// What one request may ask for.
    pub limits: LimitsConfig,
    /// Which log lines are written, and in which form.
    pub log: LogConfig,
}

/// Where the database, runtime libraries and models are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Folder of the database. Default: `$XDG_DATA_HOME/distilface/db`.
    pub dir: PathBuf,
    /// Folder of runtime libraries and models that `distilface setup` fills. Default: `$XDG_DATA_HOME/distilface`.
    pub home: PathBuf,
    /// Folder in which clients of the server may make and restore backups, by name: absolute, and outside of the
    /// database's. Default: empty, which means that they may not.
    pub backups: PathBuf,
    /// Memory in bytes for unpacked documents of all open collections together, 1 MiB to 1 TiB. Default 192 MiB.
    pub store_cache_bytes: u64,
    /// Bytes that a collection keeps in memory and in the log before they become a segment, 64 KiB to 1 GiB; up to four
    /// times as many wait while one is made. Default 64 MiB.
    pub segment_bytes: u64,
    /// Bytes of the log above which collections are asked to let go of its oldest part, 1 MiB to 1 TiB. Default 256 MiB.
    pub log_bytes_max: u64,
    /// Writing calls with a request id that each collection remembers for a day, 1 to 10000000, so that the same call sent
    /// again is not done again. They take memory, at most 512 bytes times this for a collection: of calls with many
    /// documents, of which each takes about 40 bytes, fewer are remembered. Default 100000.
    pub requests_max: usize,
    /// Collections that may be open at once, 1 to 65536; the least recently used one is closed for another. Fewer are
    /// open where the process may have only few files open. Default 64.
    pub open_collections_max: usize,
    /// Seconds after which an unused collection is closed, 0 (never) to 31536000; it opens again when it is needed.
    /// Default 3600.
    #[serde(with = "seconds")]
    pub close_after: Duration,
}

/// The gRPC server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// gRPC address, numeric or `localhost`, with a port; port 0 takes a free one. Default 127.0.0.1:7700.
    #[serde(deserialize_with = "address::deserialize")]
    pub listen: SocketAddr,
    /// Address of Prometheus metrics over HTTP at `/metrics`; `off` serves none. Default 127.0.0.1:7701.
    #[serde(with = "address_or_off")]
    pub metrics_listen: Option<SocketAddr>,
    /// Must be true for an address that is not loopback: the server has no authentication of its own. Default false.
    pub allow_remote: bool,
    /// Longest time in seconds that a request may take where the client names no deadline, 0.001 to 86400. Default 60.
    #[serde(with = "seconds")]
    pub request_timeout: Duration,
    /// Seconds that running requests get after SIGTERM, 0 to 3600. Default 20.
    #[serde(with = "seconds")]
    pub drain_timeout: Duration,
    /// Seconds that flushing and closing the data folder get after that, 0.1 to 86400; then the process ends anyway,
    /// with an error. Nothing that was acknowledged is lost, but graphs may be built again at the next start. Default
    /// 60.
    #[serde(with = "seconds")]
    pub close_timeout: Duration,
    /// Seconds after which an Ingest stream is ended that sends nothing, or whose answers nobody reads, 0.001 to 86400.
    /// Default 300.
    #[serde(with = "seconds")]
    pub stream_idle_timeout: Duration,
    /// Seconds after which the health service reports NOT_SERVING, since a pool, a writer, an encoder or the disk does
    /// not answer a probe, 0.1 to 3600; it reports SERVING again when it answers. Default 30.
    #[serde(with = "seconds")]
    pub health_timeout: Duration,
}

/// The encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EncoderConfig {
    /// Name of a model under `home/models`, or a path to a model directory. Default `minilm-l6`.
    pub model: String,
    /// `auto`, `cpu`, `openvino` or `cuda[:N]`. Default `auto`.
    pub device: String,
    /// `auto`, `fp32`, `bf16`, `fp16` or `int8`. Default `auto`: the fastest that keeps a vector's cosine to full precision
    /// above 0.998.
    pub precision: String,
    /// Threads of one inference, 0 (all cores) to 1024. Default 0.
    pub threads: usize,
    /// Tokens of one batch, padding included, 16 to 1048576: larger ones are no faster, and a query waits for the one
    /// that runs. Default 2048.
    pub batch_tokens_max: usize,
    /// Texts that may wait for the encoder, 1 to 1048576; more are refused as overloaded. Default 4096.
    pub queue_max: usize,
    /// Queries whose vectors are cached, 0 (none) to 16777216; the least recently used one is dropped first. Each takes
    /// 4 bytes a dimension and its text. Default 10000.
    pub query_cache: usize,
    /// How far the encoding of documents yields to queries and other processes, as the system's niceness, 0 (not at
    /// all) to 19. Linux only. Default 10.
    pub bulk_niceness: u8,
    /// Models in memory at once, `model` among them, 2 to 1024; beyond it the least recently used one is unloaded. A
    /// collection names the model it was made with, which is loaded when the collection needs it. Default 4.
    pub models_max: usize,
    /// Seconds after which an unused model leaves memory, 0 (never) to 31536000; `model` always stays. Default 600.
    #[serde(with = "seconds")]
    pub unload_after: Duration,
}

/// What one request may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Size of one gRPC message in bytes, 64 KiB to 1 GiB. Default 16 MiB.
    pub message_bytes_max: usize,
    /// Documents or texts in one request, 1 to 65536. Default 1024.
    pub batch_max: usize,
    /// Queries in one SearchBatch, 1 to 65536. Default 256.
    pub queries_max: usize,
    /// Size of a query's text in bytes, 1 byte to 1 MiB. A longer text of a search is refused; a longer text of an
    /// Embed or Similarity is encoded with the priority of documents. Default 32 KiB.
    pub query_bytes_max: usize,
    /// Bytes of one document's title and text, 1 byte to 1 GiB. Default 4 MiB.
    pub text_bytes_max: usize,
    /// Bytes of one document's payload, 1 byte to 1 GiB. Default 64 KiB.
    pub payload_bytes_max: usize,
    /// Distinct field names in the payloads of one collection, 1 to 1073741824; they are kept in memory. Default
    /// 1000000.
    pub field_names_max: usize,
    /// Hits of one search, 1 to 1048576. Default 1000.
    pub k_max: usize,
    /// Requests that run at once, 1 to 65536; more are refused as overloaded. An Ingest stream counts only while one of
    /// its messages is written, and waits for its turn. Default 256.
    pub concurrent_requests_max: usize,
    /// Memory in bytes that all running requests may take together, for their messages and their answers, 1 MiB to 1
    /// TiB; beyond it calls are refused as overloaded, and streams wait. It is never less than ten times
    /// `message_bytes_max`, so that every request finds room when it is alone. Default 256 MiB.
    pub bytes_in_flight_max: usize,
    /// Ingest streams open at once, 1 to 1048576; more are refused as overloaded. Default 1024.
    pub streams_max: usize,
    /// Ingest streams of one client, which is one connection, 1 to 1048576. Default 64.
    pub streams_per_client_max: usize,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A `tracing` filter such as `info` or `distilface=debug`. Default [`LOG_FILTER_DEFAULT`].
    pub filter: String,
    /// `text` or `json`. Default `text`.
    pub format: LogFormat,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for DataConfig {
    fn default() -> Self {
        let home = default_home();
        DataConfig {
            dir: home.join("db"),
            home,
            backups: PathBuf::new(),
            store_cache_bytes: 192 << 20,
            segment_bytes: 64 << 20,
            log_bytes_max: 256 << 20,
            requests_max: 100_000,
            open_collections_max: 64,
            close_after: Duration::from_secs(3600),
        }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 7700)),
            metrics_listen: Some(SocketAddr::from(([127, 0, 0, 1], 7701))),
            allow_remote: false,
            request_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(60),
            stream_idle_timeout: Duration::from_secs(300),
            health_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for EncoderConfig {
    fn default() -> Self {
        EncoderConfig {
            model: "minilm-l6".into(),
            device: "auto".into(),
            precision: "auto".into(),
            threads: 0,
            batch_tokens_max: 2048,
            queue_max: 4096,
            query_cache: 10_000,
            bulk_niceness: crate::threads::priority::BACKGROUND,
            models_max: 4,
            unload_after: Duration::from_secs(600),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            message_bytes_max: 16 << 20,
            batch_max: 1024,
            queries_max: 256,
            query_bytes_max: 32 << 10,
            text_bytes_max: 4 << 20,
            payload_bytes_max: 64 << 10,
            field_names_max: 1_000_000,
            k_max: 1000,
            concurrent_requests_max: 256,
            bytes_in_flight_max: 256 << 20,
            streams_max: 1024,
            streams_per_client_max: 64,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { filter: LOG_FILTER_DEFAULT.into(), format: LogFormat::Text }
    }
}

/// `$DISTILFACE_HOME`, else `$XDG_DATA_HOME/distilface`, else `~/.local/share/distilface`.
pub fn default_home() -> PathBuf {
    home_in(|name| std::env::var_os(name))
}

/// Reads [`default_home`] from a given environment.
fn home_in(var: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let var = |name| var(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("DISTILFACE_HOME")
        .or_else(|| var("XDG_DATA_HOME").map(|d| d.join("distilface")))
        .or_else(|| var("HOME").map(|d| d.join(".local/share/distilface")))
        .unwrap_or_else(|| PathBuf::from(".distilface"))
}

/// The explanation of a setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// What it is for, with its unit.
    pub meaning: &'static str,
    /// The values it may have, in words.
    pub allowed: String,
    /// The value it has where no layer sets it, as a file has it.
    pub default: String,
}

/// Explains the setting with this key, `section.name`; all texts are empty for a key that does not exist.
///
/// ```
/// let explained = distilface::config::explain("encoder.queue_max");
/// assert_eq!((&*explained.allowed, &*explained.default), ("1 to 1048576", "4096"));
/// ```
pub fn explain(key: &str) -> Explained {
    Explained { meaning: meaning::of(key), allowed: bounds::allowed(key), default: default_of(key) }
}

/// A setting's default as a file has it, whole numbers without a fraction.
fn default_of(key: &str) -> String {
    let find = || {
        // A folder whose name is not UTF-8 cannot be written into a file.
        let defaults = toml::Table::try_from(Config::default()).ok()?;
        let (section, name) = key.split_once('.')?;
        Some(match defaults.get(section)?.get(name)? {
            toml::Value::Float(number) => number.to_string(),
            value => value.to_string(),
        })
    };
    find().unwrap_or_default()
}

/// The variable that names the settings file.
pub const FILE_VARIABLE: &str = "DISTILFACE_CONFIG";

/// The settings file that [`FILE_VARIABLE`] names; `None` where it is not set or empty.
pub fn file_of_variable() -> Option<PathBuf> {
    layers::file_of_variable(|name| std::env::var_os(name))
}

/// The user's own settings file: `$XDG_CONFIG_HOME/distilface/config.toml`, else `~/.config/distilface/config.toml`;
/// `None` where neither variable is set.
pub fn own_file() -> Option<PathBuf> {
    layers::own_file(|name| std::env::var_os(name))
}

impl Config {
    /// Layers defaults, `file` (else `$DISTILFACE_CONFIG`, else `$XDG_CONFIG_HOME/distilface/config.toml` where it
    /// exists), the environment and flags. [`Loaded::read`] also reports where each value came from.
    ///
    /// # Errors
    /// [`ConfigError::Faults`] with every fault of every layer; [`ConfigError::Read`].
    ///
    /// # Example
    /// ```
    /// use distilface::config::Config;
    ///
    /// let env = [("DISTILFACE_LIMITS__K_MAX".into(), "50".into())];
    /// assert_eq!(Config::load(None, env, &[]).unwrap().limits.k_max, 50);
    ///
    /// let env = [("DISTILFACE_LIMITS__K_MAX".into(), "many".into())];
    /// let error = Config::load(None, env, &[]).unwrap_err().to_string();
    /// assert!(error.contains("DISTILFACE_LIMITS__K_MAX"), "{error}");
    /// ```
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        overrides: &[Override],
    ) -> Result<Config, ConfigError> {
        Loaded::read(file, env, overrides).map(|loaded| loaded.config)
    }

    /// Checks every value against its bounds.
    ///
    /// # Errors
    /// [`ConfigError::Faults`] with all of them.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let faults: Vec<String> =
            bounds::faults(self).into_iter().map(|f| format!("{}: {}", f.key, f.message)).collect();
        if faults.is_empty() { Ok(()) } else { Err(ConfigError::Faults { faults }) }
    }
}

/// Writes and reads a duration as a number of seconds, whole or not.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(d.as_secs_f64())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(d)?).map_err(D::Error::custom)
    }
}

/// Writes and reads an address, or the word `off`.
mod address_or_off {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const OFF: &str = "off";

    pub fn serialize<S: Serializer>(address: &Option<SocketAddr>, s: S) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => s.collect_str(address),
            None => s.serialize_str(OFF),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(d)?;
        if text == OFF { Ok(None) } else { super::address::parse(&text).map(Some).map_err(D::Error::custom) }
    }
}

/// Reads a numeric address and a port. The one name is `localhost`, which is 127.0.0.1: no other is looked up.
mod address {
    use std::net::{AddrParseError, Ipv4Addr, SocketAddr};

    use serde::{Deserialize, Deserializer, de::Error};

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<SocketAddr, D::Error> {
        parse(&String::deserialize(d)?).map_err(D::Error::custom)
    }

    pub fn parse(text: &str) -> Result<SocketAddr, AddrParseError> {
        match text.strip_prefix("localhost:").map(str::parse) {
            Some(Ok(port)) => Ok((Ipv4Addr::LOCALHOST, port).into()),
            _ => text.parse(),
        }
    }
}

/// Why settings were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Every fault that was found, not only the first.
    #[error("{} in the configuration:\n  {}", if faults.len() == 1 { "a fault".into() } else { format!("{} faults", faults.len()) }, faults.join("\n  "))]
    Faults {
        /// One sentence each, naming the key, what is allowed and where the value came from.
        faults: Vec<String>,
    },
    /// The file could not be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it could not be read.
        source: std::io::Error,
    },
}

impl Fault for ConfigError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}
