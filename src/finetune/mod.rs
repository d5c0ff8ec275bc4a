//! Texts and a base model -> a new model directory: contrastive training on the runtime that serves.
//!
//! A training step is one ONNX graph (forward, loss, backward; `onnx::training`), run by `runtime`; what moves the
//! weights is plain Rust. What it writes, `encoder` opens with no special case.
//!
//! | file | job |
//! |---|---|
//! | [`parameters`] | named float32 tensors, as Hugging Face names and lays them out |
//! | [`data`] | where training examples come from, the guards around them, and which come when |

pub mod data;
pub mod parameters;

use crate::error::ErrorKind;

/// Why a training run could not begin, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum FinetuneError {
    #[error(transparent)]
    Data(#[from] data::DataError),
}

impl FinetuneError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            FinetuneError::Data(e) => e.kind(),
        }
    }
}
