//! Writes ONNX models: messages, a builder of nodes, and the encoders written with it.

pub mod encoder;
mod gradient;
pub mod graph;
mod pooling;
pub mod proto;
pub mod quantise;
mod shapes;
pub mod training;
pub mod weights;

pub use encoder::{Architecture, EncoderGraph, Layout, Shape};
pub use pooling::Pooling;
pub use quantise::Calibration;
pub use weights::Weights;

use crate::error::{ErrorKind, Fault};

/// Why a model could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum OnnxError {
    #[error("the weights have no tensor {name}; config and weights do not belong together")]
    MissingTensor { name: String },
    #[error("tensor {name} has shape {got:?}, but the config says {expected:?}")]
    WrongShape { name: String, expected: Vec<usize>, got: Vec<usize> },
    #[error("tensor {name} has type {got}; supported: F32, F16, BF16")]
    WrongType { name: String, got: String },
    #[error(
        "tensor {name} has values that are not finite (NaN or infinity); vectors made with it would be worthless"
    )]
    NotFinite { name: String },
    #[error("not a whole safetensors file: {reason}")]
    Unreadable { reason: String },
    #[error("the config is not an encoder's: {reason}")]
    BadShape { reason: String },
    #[error("the calibration cannot be used: {reason}")]
    Calibration { reason: String },
    #[error("the graph takes {bytes} bytes, but an ONNX file holds at most {}", encoder::FILE_BYTES_MAX)]
    TooLarge { bytes: usize },
}

impl Fault for OnnxError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Precondition
    }
}
