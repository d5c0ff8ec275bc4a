//! Fine-tuning makes a new model directory from texts and a base model: contrastive training on the runtime that
//! serves.
//!
//! A training step is one ONNX graph (forward, loss, backward; `onnx::training`), run by `runtime`; what moves the
//! weights is plain Rust. What it writes, `encoder` opens with no special case.
//!
//! | file | job |
//! |---|---|
//! | [`parameters`] | named float32 tensors, as Hugging Face names and lays them out |
//! | [`objective`] | losses, as nodes of a graph |
//! | [`step`] | one step on the runtime: forward, loss, backward; GradCache |
//! | [`mod@reference`] | an implementation against a folder of reference values |
//! | [`checkpoint`] | the state of a run on disk, to go on from |
//! | [`batch`] | examples -> tokens and an objective's inputs |
//! | [`run`] | the loop: steps, evaluations, checkpoints |
//! | [`metrics`] | what a run reports, and its curves |
//! | [`finish`] | the weights that a run kept -> a model directory with its lineage |
//! | [`data`] | where training examples come from, the guards around them, and which come when |
//! | [`masks`] | dropout masks from a seed and a place in the run |
//! | [`optimizer`] | AdamW: gradients -> moved parameters |
//! | [`recipe`] | every setting of a run, as a file |
//! | [`sweep`] | runs over combinations of settings, compared |
//! | [`schedule`] | the learning rate's course |

pub mod batch;
pub mod checkpoint;
pub mod data;
pub mod finish;
pub mod masks;
pub mod metrics;
pub mod objective;
pub mod optimizer;
pub mod parameters;
pub mod recipe;
pub mod reference;
pub mod run;
pub mod schedule;
pub mod step;
pub mod sweep;

use std::path::PathBuf;

use crate::error::{ErrorKind, Fault};

/// Why a training run could not begin, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum FinetuneError {
    #[error("another process trains in {}; wait for it, or give another folder (--run)", folder.display())]
    Busy { folder: PathBuf },
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
    #[error(transparent)]
    Data(#[from] data::DataError),
    #[error(transparent)]
    Model(#[from] crate::model::ModelError),
    #[error(transparent)]
    Onnx(#[from] crate::onnx::OnnxError),
    #[error(transparent)]
    Runtime(#[from] crate::runtime::RuntimeError),
    #[error("cannot read or write {}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: {reason}", path.display())]
    Reference { path: PathBuf, reason: String },
    #[error("training fell apart at step {step}: {what}; checkpoints and the best weights so far are kept in {}", folder.display())]
    Diverged { step: u64, what: String, folder: PathBuf },
    #[error(transparent)]
    Encoder(#[from] crate::encoder::EncoderError),
    #[error(transparent)]
    Eval(#[from] crate::eval::EvalError),
    #[error(transparent)]
    Dropout(#[from] masks::ProbabilityError),
    #[error(transparent)]
    Optimizer(#[from] optimizer::OptimizerError),
    #[error(transparent)]
    Recipe(#[from] recipe::RecipeError),
}

impl Fault for FinetuneError {
    fn kind(&self) -> ErrorKind {
        match self {
            FinetuneError::Busy { .. } => ErrorKind::Precondition,
            FinetuneError::Checkpoint(e) => e.kind(),
            FinetuneError::Data(e) => e.kind(),
            FinetuneError::Model(e) => e.kind(),
            FinetuneError::Onnx(e) => e.kind(),
            FinetuneError::Runtime(e) => e.kind(),
            FinetuneError::Io { .. } => ErrorKind::Internal,
            FinetuneError::Reference { .. } => ErrorKind::Invalid,
            FinetuneError::Diverged { .. } => ErrorKind::Precondition,
            FinetuneError::Encoder(e) => e.kind(),
            FinetuneError::Eval(e) => e.kind(),
            FinetuneError::Dropout(e) => e.kind(),
            FinetuneError::Optimizer(e) => e.kind(),
            FinetuneError::Recipe(e) => e.kind(),
        }
    }

    fn inner(&self) -> Option<&dyn Fault> {
        match self {
            FinetuneError::Checkpoint(e) => Some(e),
            FinetuneError::Data(e) => Some(e),
            FinetuneError::Model(e) => Some(e),
            FinetuneError::Onnx(e) => Some(e),
            FinetuneError::Runtime(e) => Some(e),
            FinetuneError::Encoder(e) => Some(e),
            FinetuneError::Eval(e) => Some(e),
            FinetuneError::Dropout(e) => Some(e),
            FinetuneError::Optimizer(e) => Some(e),
            FinetuneError::Recipe(e) => Some(e),
            _ => None,
        }
    }
}
