//! distilface: a semantic search database. Text in, ranked hits out.
//!
//! # The path of data
//!
//! Text becomes tokens, tokens become a vector, the vector is kept and indexed, and a query walks the same path and
//! comes back as hits.
//!
//! ```text
//! main -> cli -> server -> api -> engine -> collection -> index, segmented -> log, segment -> vector, value, error
//!          |                         \----> encoder -> model, onnx, runtime
//!          \---> training -> finetune, eval, engine
//! ```
//!
//! | module | turns | into |
//! |---|---|---|
//! | [`cli`] | arguments | all of it; the only module that prints |
//! | [`server`] | gRPC | calls of `api` (with [`cli`] and [`rpc`], the only users of `tonic`) |
//! | `api` | a request | a response: one function for each method, whichever door it came through |
//! | [`proto`], [`rpc`] | `proto/distilface/v1` | generated messages; generated clients and services |
//! | [`training`] | a recipe or a judged collection | a job that any caller starts, watches and stops |
//! | [`engine`] | text | hits: encoders, and collections by way of one trait, wherever they are kept; where async begins |
//! | [`collection`] | points | documents and index kept in step; a query as a pipeline of stages: plan, retrieve, fuse, rerank, group, fetch |
//! | `segmented` | batches of a collection | entries of the log and segments: what collections stand on |
//! | `log` | changes of all collections | one order, which is there after the loss of the process or of the power |
//! | `segment` | documents with their vectors | immutable files that are read where they lie |
//! | [`store`] | records | the catalogue, and what says which folder is which collection; what earlier versions kept of a collection, to be read |
//! | [`index`] | a vector | the nearest slots |
//! | [`finetune`] | texts and a base model | a new model directory: contrastive training on the same runtime |
//! | [`eval`] | judged collections, reference values | measures; whatever embeds or searches is handed in |
//! | [`encoder`] | text | vectors: tokenize, cut, batch |
//! | [`source`] | folders, files and standard input | documents and rows, each with the place it was read from |
//! | [`hub`] | names on the hub, other programs' folders | models pulled, imported and exported |
//! | `bench` | settings and texts | times and memory of this build, through a server of its own |
//! | [`setup`] | wheels | runtime libraries and the default model |
//! | [`model`], [`onnx`] | weights | a model directory, and the encoder as an ONNX graph |
//! | [`runtime`] | a graph and a device | something that runs (only here `ort` is used) |
//! | [`config`] | file, environment, flags | settings, checked all at once |
//! | [`telemetry`] | spans and events | a log |
//! | [`value`] | JSON and text | ids, values, payloads and filters |
//! | [`vector`] | numbers | a vector, and distances |
//! | [`budget`] | bytes asked for | memory that a request may take, or a refusal |
//! | [`stop`] | a deadline, an asker who may leave | the signal to stop |
//! | `threads` | the cores | named pools, shared by the whole process |
//! | `files` | bytes | a file that is there whole or not at all; the file system, as a trait |
//! | `simd` | a processor | a token for the instructions that it has |
//!
//! `encoder`, `index`, `store` and `log` are siblings and do not know each other; `collection` reaches the log by way of
//! `segmented` alone. `collection` sees vectors, never the encoder.
//! `eval` and `finetune` see no engine. Nothing below `server` knows the wire: `api` knows the messages and their limits,
//! not what carries them. A test reads the sources, checks these walls and prints the map of who names whom:
//! `cargo test --lib walls -- --nocapture`.
//!
//! # The invariants
//!
//! 1. Log and segments are the truth; the index is a cache of them. Deleting every index file loses time, never data.
//! 2. A write is answered only when it is durable, and every search that begins later sees it.
//! 3. A [`vector::Vector`] is finite and of the right dimension from the moment it exists; under cosine it also has unit
//!    length. Nobody further in checks again.
//! 4. A search compares vectors over a view that it owns: it waits for no graph that is being built and for no write to
//!    the disk. Ids and filters are looked up under a lock that the writer takes for the time in which it enters a batch
//!    that is durable already.
//! 5. Queries and documents pass the same encoder; a collection records the model's fingerprint and takes no other.
//! 6. One text and one model give one embedding, alone or in a batch, padded or not, within a stated tolerance.
//! 7. Async code neither computes nor touches the disk nor waits for a lock: that is done on a named pool, and no task
//!    waits for another task of its own pool.
//!
//! Work that an async task hands over is called by where it goes: to a pool by the pool's name (`search`, `tokenize`,
//! `work`); `aside` where the thread at hand does it and tokio replaces that thread; `blocking` where a thread that tokio
//! keeps for waiting does it; `apart` where it gets a thread of its own, since it may hang.

mod allocator;
mod api;
mod aside;
mod bench;
pub mod budget;
pub mod cli;
pub mod collection;
pub mod config;
pub mod encoder;
pub mod engine;
pub mod error;
pub mod eval;
mod files;
pub mod finetune;
mod handles;
pub mod hub;
pub mod index;
mod log;
mod meant;
pub mod model;
pub mod onnx;
mod panics;
mod process;
mod processor;
pub mod proto;
mod random;
pub mod rpc;
pub mod runtime;
mod segment;
mod segmented;
pub mod server;
pub mod setup;
mod simd;
pub mod source;
mod spelling;
pub mod stop;
pub mod store;
pub mod telemetry;
pub mod threads;
pub mod training;
pub mod value;
pub mod vector;
#[cfg(test)]
mod walls;

pub use error::{ErrorKind, Fault};

/// Any failure of this crate, for a caller that uses several of its modules. No module below [`cli`] names it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error(transparent)]
#[expect(missing_docs, reason = "each variant wraps the error of the module it is named after")]
pub enum Error {
    Config(#[from] config::ConfigError),
    Vector(#[from] vector::VectorError),
    Value(#[from] value::ValueError),
    Filter(#[from] value::filter::FilterError),
    Runtime(#[from] runtime::RuntimeError),
    Onnx(#[from] onnx::OnnxError),
    Model(#[from] model::ModelError),
    Pull(#[from] hub::PullError),
    Encoder(#[from] encoder::EncoderError),
    Open(#[from] encoder::OpenError),
    Index(#[from] index::IndexError),
    Store(#[from] store::StoreError),
    Collection(#[from] collection::CollectionError),
    Engine(#[from] engine::EngineError),
    Server(#[from] server::ServerError),
    Setup(#[from] setup::SetupError),
    Eval(#[from] eval::EvalError),
    Finetune(#[from] finetune::FinetuneError),
    Training(#[from] training::TrainingError),
}

/// `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The fault that `error` is, if it is an error of this crate, for a caller that holds any error.
pub(crate) fn fault_of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a dyn Fault> {
    macro_rules! first_of {
        ($($type:ty),* $(,)?) => {
            None$(.or_else(|| error.downcast_ref::<$type>().map(|e| e as &dyn Fault)))*
        };
    }
    first_of!(
        Error,
        api::ApiError,
        bench::BenchError,
        budget::BudgetError,
        collection::CollectionError,
        config::ConfigError,
        encoder::EncoderError,
        encoder::OpenError,
        engine::cursor::CursorError,
        engine::EngineError,
        eval::EvalError,
        finetune::FinetuneError,
        finetune::checkpoint::CheckpointError,
        finetune::data::DataError,
        finetune::masks::ProbabilityError,
        finetune::optimizer::OptimizerError,
        finetune::recipe::RecipeError,
        hub::PullError,
        index::IndexError,
        log::LogError,
        model::ModelError,
        onnx::OnnxError,
        runtime::RuntimeError,
        segment::SegmentError,
        server::ServerError,
        setup::SetupError,
        store::StoreError,
        threads::ThreadsError,
        training::TrainingError,
        value::ValueError,
        value::filter::FilterError,
        vector::VectorError,
    )
}

impl Error {
    fn fault(&self) -> &dyn Fault {
        match self {
            Error::Config(e) => e,
            Error::Vector(e) => e,
            Error::Value(e) => e,
            Error::Filter(e) => e,
            Error::Runtime(e) => e,
            Error::Onnx(e) => e,
            Error::Model(e) => e,
            Error::Pull(e) => e,
            Error::Encoder(e) => e,
            Error::Open(e) => e,
            Error::Index(e) => e,
            Error::Store(e) => e,
            Error::Collection(e) => e,
            Error::Engine(e) => e,
            Error::Server(e) => e,
            Error::Setup(e) => e,
            Error::Eval(e) => e,
            Error::Finetune(e) => e,
            Error::Training(e) => e,
        }
    }
}

impl Fault for Error {
    fn kind(&self) -> ErrorKind {
        self.fault().kind()
    }

    fn inner(&self) -> Option<&dyn Fault> {
        Some(self.fault())
    }
}

/// The examples of the README, so that they are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
