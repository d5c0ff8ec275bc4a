//! Why text is not encoded, and why an encoder is not opened.

use super::tune;
use crate::{
    error::{ErrorKind, Fault},
    model::ModelError,
    onnx::OnnxError,
    runtime::RuntimeError,
    vector::VectorError,
};

/// Why text was not encoded.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum EncoderError {
    #[error("the tokenizer {path} cannot be used: {reason}")]
    Tokenizer { path: String, reason: String },
    #[error("chunking: {reason}")]
    Chunking { reason: String },
    #[error(
        "calibration needs at least {} texts that are not empty, and there are {got}",
        tune::calibrate::CALIBRATION_TEXTS_MIN
    )]
    Calibration { got: usize },
    #[error("the encoder's queue is full ({limit} texts wait); retry later")]
    QueueFull { limit: usize },
    #[error("the deadline passed before the text was encoded")]
    Expired,
    #[error("the request was cancelled")]
    Cancelled,
    #[error("the encoder is shutting down")]
    Closed,
    #[error("inference failed: {reason}")]
    Failed { reason: String },
    #[error("the model gave a vector that is not finite; it cannot be stored")]
    NotFinite,
    #[error(
        "the tokenizer finds no token in the text, so there is nothing to encode; give it words that this model knows"
    )]
    NoTokens,
}

/// Why an encoder could not be opened, or measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error(transparent)]
#[expect(missing_docs, reason = "each variant wraps the error of the module it is named after")]
pub enum OpenError {
    Encoder(#[from] EncoderError),
    Model(#[from] ModelError),
    Onnx(#[from] OnnxError),
    Runtime(#[from] RuntimeError),
    Vector(#[from] VectorError),
}

impl Fault for OpenError {
    fn kind(&self) -> ErrorKind {
        match self {
            OpenError::Encoder(e) => e.kind(),
            OpenError::Model(e) => e.kind(),
            OpenError::Onnx(e) => e.kind(),
            OpenError::Runtime(e) => e.kind(),
            OpenError::Vector(e) => e.kind(),
        }
    }
}

impl Fault for EncoderError {
    fn kind(&self) -> ErrorKind {
        match self {
            EncoderError::Tokenizer { .. } => ErrorKind::Precondition,
            EncoderError::Chunking { .. } | EncoderError::Calibration { .. } | EncoderError::NoTokens => {
                ErrorKind::Invalid
            }
            EncoderError::QueueFull { .. } => ErrorKind::Overloaded,
            EncoderError::Expired => ErrorKind::Timeout,
            EncoderError::Cancelled | EncoderError::Closed => ErrorKind::Unavailable,
            EncoderError::Failed { .. } | EncoderError::NotFinite => ErrorKind::Internal,
        }
    }
}
