//! The tracing subscriber and the names of metrics.
