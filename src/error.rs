//! The whole contract of failure: every module's error becomes an [`Error`], and every [`Error`] answers
//! what its caller should do, its [`ErrorKind`].

use std::time::Duration;

/// What the caller of a failed call can do about it. A kind exists only where the caller would act differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong: change it.
    Invalid,
    /// What was named does not exist: choose another name, or create it first.
    NotFound,
    /// What was to be created exists: choose another name.
    Exists,
    /// The request is right but the state is not (another model, another dimension, missing set-up): fix the state.
    Precondition,
    /// A queue or a limit is full: back off and retry.
    Overloaded,
    /// Starting, draining or gone: retry.
    Unavailable,
    /// The deadline passed: retry with more time.
    Timeout,
    /// Stored bytes are not what was written: call the operator.
    Corrupt,
    /// A bug of ours: report it.
    Internal,
}

impl ErrorKind {
    /// Every kind, for tests that walk the whole contract.
    pub const ALL: [ErrorKind; 9] = [
        ErrorKind::Invalid,
        ErrorKind::NotFound,
        ErrorKind::Exists,
        ErrorKind::Precondition,
        ErrorKind::Overloaded,
        ErrorKind::Unavailable,
        ErrorKind::Timeout,
        ErrorKind::Corrupt,
        ErrorKind::Internal,
    ];
}

/// Any failure of this crate, with its source kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error(transparent)]
#[expect(missing_docs, reason = "each variant wraps the error of the module it is named after")]
pub enum Error {
    Budget(#[from] crate::budget::BudgetError),
    Config(#[from] crate::config::ConfigError),
    Vector(#[from] crate::vector::VectorError),
    Runtime(#[from] crate::runtime::RuntimeError),
    Onnx(#[from] crate::onnx::OnnxError),
    Model(#[from] crate::model::ModelError),
    Encoder(#[from] crate::encoder::EncoderError),
    Index(#[from] crate::index::IndexError),
    Store(#[from] crate::store::StoreError),
    Collection(#[from] crate::collection::CollectionError),
    Filter(#[from] crate::collection::filter::FilterError),
    Engine(#[from] crate::engine::EngineError),
    Server(#[from] crate::server::ServerError),
    Setup(#[from] crate::setup::SetupError),
    Finetune(#[from] crate::finetune::FinetuneError),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Budget(e) => e.kind(),
            Error::Config(e) => e.kind(),
            Error::Vector(e) => e.kind(),
            Error::Runtime(e) => e.kind(),
            Error::Onnx(e) => e.kind(),
            Error::Model(e) => e.kind(),
            Error::Encoder(e) => e.kind(),
            Error::Index(e) => e.kind(),
            Error::Store(e) => e.kind(),
            Error::Collection(e) => e.kind(),
            Error::Filter(e) => e.kind(),
            Error::Engine(e) => e.kind(),
            Error::Server(e) => e.kind(),
            Error::Setup(e) => e.kind(),
            Error::Finetune(e) => e.kind(),
        }
    }

    /// How long an overloaded service asks its caller to wait, where it knows.
    pub fn retry_after(&self) -> Option<Duration> {
        (self.kind() == ErrorKind::Overloaded).then_some(Duration::from_millis(200))
    }
}
