//! The tracing subscriber and the names of metrics.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, LogConfig, LogFormat};

/// Starts logging to standard error. Only the first call of a process counts, so tests may call it at will.
///
/// In the form of JSON every line is one object with `timestamp`, `level`, `target`, `message`, the event's fields and
/// `span`, the innermost span (a request, a collection), and a panic is such a line too. A field must not bear one of
/// those names, since a key would stand twice.
///
/// # Errors
/// [`ConfigError::Faults`] if the filter cannot be read.
pub fn init(config: &LogConfig) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|e| ConfigError::Faults {
        faults: vec![format!(
            "log.filter {:?} cannot be read ({e}); examples: info, distilface=debug,warn",
            config.filter
        )],
    })?;
    // Told of a line that cannot be written, the library would print to the same place, and panic.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let started = match config.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => {
            builder.json().flatten_event(true).with_span_list(false).with_ansi(false).try_init()
        }
    };
    // The only failure is that a subscriber is there already.
    if started.is_ok() && config.format == LogFormat::Json {
        std::panic::set_hook(Box::new(log_panic));
    }
    Ok(())
}

/// What the standard hook prints in several lines, as an event.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    tracing::error!(
        thread = thread.name(),
        place = panic.location().map(tracing::field::display),
        reason = panic.payload_as_str().unwrap_or("unknown"),
        "a thread panicked"
    );
}

/// Names of metrics, without the prefix `distilface_` and the suffix `_total` that counters get.
pub mod names {
    /// Requests answered, by method and gRPC code.
    pub const REQUESTS: &str = "requests";
    /// Seconds from a request's arrival to the end of its answer, by method.
    pub const REQUEST_SECONDS: &str = "request_seconds";
    /// Requests being worked on.
    pub const REQUESTS_IN_FLIGHT: &str = "requests_in_flight";
    /// Documents written or refused, by what became of them.
    pub const DOCUMENTS: &str = "documents";
    /// Texts encoded for requests (a document counts once per passage).
    pub const ENCODED_TEXTS: &str = "encoded_texts";
    /// Tokens of those texts.
    pub const ENCODED_TOKENS: &str = "encoded_tokens";
    /// Texts that wait for the encoder now.
    pub const ENCODER_WAITING: &str = "encoder_waiting_texts";
    /// Models in memory.
    pub const MODELS_LOADED: &str = "models_loaded";
    /// Queries whose vector was known.
    pub const QUERY_CACHE_HITS: &str = "query_cache_hits";
    /// Queries whose vector had to be computed.
    pub const QUERY_CACHE_MISSES: &str = "query_cache_misses";
    /// Documents of each collection.
    pub const COLLECTION_DOCUMENTS: &str = "collection_documents";
    /// Vectors of each collection that can be found.
    pub const COLLECTION_PASSAGES: &str = "collection_passages";
    /// Of those, in the graph.
    pub const COLLECTION_INDEXED: &str = "collection_indexed";
    /// Memory of the process.
    pub const RESIDENT_BYTES: &str = "process_resident_memory_bytes";
    /// 1 while every collection takes writes, else 0.
    pub const HEALTHY: &str = "healthy";
    /// Collections that cannot be opened and are refused by name.
    pub const COLLECTIONS_DAMAGED: &str = "collections_damaged";
    /// Version of the program and where the encoder runs.
    pub const BUILD: &str = "build";
}

/// What the kernel says this process keeps in memory. Linux only.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_a_fault_of_the_configuration() {
        let config = LogConfig { filter: "distilface=loud".into(), ..Default::default() };
        let message = init(&config).unwrap_err().to_string();
        assert!(message.contains("log.filter") && message.contains("loud"), "{message}");
    }

    /// The arguments of every logging macro in the sources, with its file.
    fn events() -> Vec<(std::path::PathBuf, String)> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut events = Vec::new();
        for file in walkdir::WalkDir::new(root).into_iter().map(Result::unwrap) {
            let other = file.path().extension().is_none_or(|extension| extension != "rs");
            // This file names the macros without calling them.
            if other || file.file_name() == "telemetry.rs" {
                continue;
            }
            let text = std::fs::read_to_string(file.path()).unwrap();
            for level in ["error!(", "warn!(", "info!(", "debug!(", "_span!("] {
                for (at, _) in text.match_indices(level) {
                    let arguments = &text[at + level.len()..];
                    let mut depth = 1;
                    let end = arguments.find(|c| {
                        depth += i32::from(c == '(') - i32::from(c == ')');
                        depth == 0
                    });
                    let end = end.unwrap_or(arguments.len());
                    events.push((file.path().to_owned(), arguments[..end].to_owned()));
                }
            }
        }
        assert!(events.len() > 30, "the sources were not found");
        events
    }

    #[test]
    fn no_event_has_a_debug_form_or_a_key_that_the_line_has_already() {
        let mut faults = Vec::new();
        for (file, arguments) in events() {
            for argument in arguments.split([',', '\n']).map(str::trim) {
                let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
                let name = name.trim().trim_start_matches('%');
                if name.starts_with('?') || value.trim().starts_with('?') || value.contains(":?}") {
                    faults.push(format!("{}: {argument} is in Rust's debug form", file.display()));
                }
                if ["message", "level", "target", "timestamp", "span"].contains(&name) {
                    faults.push(format!("{}: {name} would stand twice in the line", file.display()));
                }
            }
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    #[test]
    fn starting_twice_is_harmless() {
        for format in [LogFormat::Text, LogFormat::Json] {
            init(&LogConfig { format, ..Default::default() }).unwrap();
        }
    }
}
