//! distilface: a semantic search database. Text in, ranked hits out.
//!
//! # The path of data
//!
//! Text becomes tokens, tokens become a vector, the vector is kept and indexed, and a query walks the same path and
//! comes back as hits.
//!
//! ```text
//! main -> cli -> server -> engine -> collection -> index, store --> vector, config, error
//!          |                  \----> encoder -> model, onnx, runtime
//!          \---> finetune, eval, source, setup ---> engine, encoder, model, onnx, runtime
//! ```
//!
//! | module | turns | into |
//! |---|---|---|
//! | [`budget`] | bytes asked for | memory that a request may take, or a refusal |
//! | [`setup`] | wheels | runtime libraries and the default model |
//! | [`model`], [`onnx`] | weights | a model directory, and the encoder as an ONNX graph |
//! | [`runtime`] | a graph and a device | something that runs (alone names `ort`) |
//! | `kernel` | tokens of many texts | the same after a layer, in 8 bits; an operator of the runtime |
//! | `simd` | a processor | a token for the instructions that it has |
//! | [`encoder`] | text | vectors: tokenize, cut, batch |
//! | [`index`] | a vector | the nearest slots |
//! | [`store`] | records | bytes on disk that are there after a kill |
//! | [`collection`] | points | store and index kept in step; filters; search plans |
//! | [`engine`] | text | hits: encoders and collections; where async begins |
//! | [`server`] | gRPC | engine calls (with [`cli`], alone names `tonic`) |
//! | [`source`] | folders, files and standard input | documents, each with the place it was read from |
//! | [`finetune`] | texts and a base model | a new model directory: contrastive training on the same runtime |
//! | [`eval`] | judged collections, reference values | measures |
//! | [`cli`] | arguments | all of it; the only module that prints |
//!
//! `encoder`, `index` and `store` are siblings and do not know each other. `collection` sees vectors, never the encoder.
//! Nothing below `server` knows the wire. A test reads the sources and checks these walls.
//!
//! # The invariants
//!
//! 1. The store is the truth; the index is a cache of it. Deleting every index file loses time, never data.
//! 2. A write reaches the store before the index, and is answered only when it is durable.
//! 3. A [`vector::Vector`] is finite and of the right dimension from the moment it exists; under cosine it also has unit
//!    length. Nobody further in checks again.
//! 4. An [`index::Slot`] is never reused. Upsert takes new slots; the old ones become tombstones until the next rebuild.
//! 5. Queries and documents pass the same encoder; a collection records the model's fingerprint and takes no other.
//! 6. One text and one model give one embedding, alone or in a batch, padded or not, within a stated tolerance.
//! 7. Async code neither computes nor touches disk; everything under `engine` is plain synchronous Rust.

mod allocator;
pub mod budget;
pub mod cli;
pub mod collection;
pub mod config;
pub mod encoder;
pub mod engine;
pub mod error;
pub mod eval;
pub mod finetune;
mod handles;
pub mod index;
mod kernel;
mod meant;
pub mod model;
pub mod onnx;
mod priority;
pub mod proto;
mod random;
mod regular;
pub mod runtime;
pub mod server;
pub mod setup;
mod simd;
pub mod source;
mod spelling;
pub mod stop;
pub mod store;
pub mod telemetry;
mod threads;
pub mod vector;
#[cfg(test)]
mod walls;

pub use error::{Error, ErrorKind, Result};

/// The examples of the README, so that they are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
