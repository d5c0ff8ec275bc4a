//! ONNX Runtime: library, providers, threads, sessions.

use std::path::{Path, PathBuf};

use crate::error::ErrorKind;

/// Where inference runs, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum DeviceChoice {
    Auto,
    Cpu,
    OpenVino,
    Cuda(u32),
}

impl std::str::FromStr for DeviceChoice {
    type Err = RuntimeError;
    fn from_str(_s: &str) -> Result<Self, RuntimeError> {
        unimplemented!()
    }
}

/// Where inference runs, and why there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReport {
    /// `cpu`, `openvino` or `cuda:N`, with the precision: `openvino (bf16)`.
    pub device: String,
    /// In words.
    pub reason: String,
}

/// What the doctor tells about the runtime.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct RuntimeReport {
    pub library: Result<PathBuf, String>,
    pub version: Option<String>,
    pub openvino: Result<PathBuf, String>,
    pub cuda: Result<String, String>,
}

/// Looks at what is installed under `home`, loading libraries but no model.
pub fn inspect(_home: &Path) -> RuntimeReport {
    unimplemented!()
}

/// Why the runtime refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum RuntimeError {
    #[error("unknown device {got:?}; allowed: auto, cpu, openvino, cuda, cuda:N")]
    UnknownDevice { got: String },
    #[error("ONNX Runtime is missing: {} does not exist; run `distilface setup`, or point ORT_DYLIB_PATH at a libonnxruntime", path.display())]
    LibraryMissing { path: PathBuf },
    #[error("ONNX Runtime at {} cannot be used: {reason}; run `distilface setup --force`, or point ORT_DYLIB_PATH at another", path.display())]
    LibraryUnusable { path: PathBuf, reason: String },
    #[error("device {device} was asked for but cannot be had: {reason}")]
    DeviceUnavailable { device: String, reason: String },
    #[error("ONNX Runtime could not load {}: {reason}", path.display())]
    Load { path: PathBuf, reason: String },
    #[error("inference failed: {reason}")]
    Run { reason: String },
}

impl RuntimeError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RuntimeError::UnknownDevice { .. } => ErrorKind::Invalid,
            RuntimeError::LibraryMissing { .. }
            | RuntimeError::LibraryUnusable { .. }
            | RuntimeError::DeviceUnavailable { .. }
            | RuntimeError::Load { .. } => ErrorKind::Precondition,
            RuntimeError::Run { .. } => ErrorKind::Internal,
        }
    }
}
