//! distilface: a semantic search database. Text in, ranked hits out.

pub mod cli;
pub mod collection;
pub mod config;
pub mod encoder;
pub mod engine;
pub mod error;
pub mod eval;
pub mod index;
pub mod model;
pub mod onnx;
pub mod proto;
pub mod runtime;
pub mod server;
pub mod setup;
pub mod store;
pub mod telemetry;
pub mod vector;

pub use error::{Error, ErrorKind, Result};
