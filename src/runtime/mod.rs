//! ONNX Runtime: library, providers, threads, sessions.
//!
//! [`Session::open`] opens an ONNX file on a [`DeviceChoice`]; [`inspect`] reports which libraries are installed.
//!
//! What ONNX Runtime and `ort` can do to us, and the guard:
//! - `ort` panics lazily if its library cannot be loaded: the file is checked and loaded before anything else is called.
//! - Once a plugin provider is registered, a session that names no device may take it: every session names its device.
//! - Only one environment may exist in a process and it keeps the first library: a second home with another library
//!   is refused instead of silently ignored.
//! - Its arena never gives memory back: callers bucket their shapes (`encoder::scheduler`), and memory patterns are off.

use std::path::PathBuf;

use crate::error::{ErrorKind, Fault};

pub(crate) mod layer8;
mod library;
mod operators;
mod provider;
mod session;

pub use library::inspect;
pub use session::{Output, Plan, Session, TensorView};

/// The device that inference is asked to run on. The text form is `auto`, `cpu`, `openvino`, `cuda` or
/// `cuda:N`.
///
/// ```
/// use distilface::runtime::DeviceChoice;
///
/// assert_eq!("cuda:1".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(1));
/// assert!("gpu".parse::<DeviceChoice>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The fastest device that exists.
    Auto,
    /// The processor, with ONNX Runtime's own kernels.
    Cpu,
    /// The processor, with Intel's OpenVINO provider.
    OpenVino,
    /// The NVIDIA GPU of this number, from 0.
    Cuda(u32),
}

impl std::str::FromStr for DeviceChoice {
    type Err = RuntimeError;
    fn from_str(s: &str) -> Result<Self, RuntimeError> {
        let unknown = || RuntimeError::UnknownDevice { got: s.to_owned() };
        match s {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "openvino" => Ok(DeviceChoice::OpenVino),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            other => {
                let number = other.strip_prefix("cuda:").ok_or_else(unknown)?;
                // `parse` alone would let "+1" through.
                let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| number.parse().ok()).flatten().map(DeviceChoice::Cuda).ok_or_else(unknown)
            }
        }
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::OpenVino => f.write_str("openvino"),
            DeviceChoice::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// The numbers that the encoder is asked to compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// The fastest that keeps a vector's cosine to full precision above 0.998.
    Auto,
    /// Full precision.
    Fp32,
    /// Products of bfloat16 with float32 sums; the `openvino` device.
    Bf16,
    /// Linear layers' products in float16; the `cuda` device.
    Fp16,
    /// Linear layers in 8 bits with a scale for each token, attention in bfloat16; the `cpu` device.
    Int8,
}

impl Precision {
    /// Every precision, `auto` first.
    pub const ALL: [Precision; 5] =
        [Precision::Auto, Precision::Fp32, Precision::Bf16, Precision::Fp16, Precision::Int8];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Auto => "auto",
            Precision::Fp32 => "fp32",
            Precision::Bf16 => "bf16",
            Precision::Fp16 => "fp16",
            Precision::Int8 => "int8",
        }
    }
}

impl std::str::FromStr for Precision {
    type Err = RuntimeError;
    fn from_str(s: &str) -> Result<Self, RuntimeError> {
        let known = Precision::ALL.into_iter().find(|p| p.name() == s);
        known.ok_or_else(|| RuntimeError::UnknownPrecision { got: s.to_owned() })
    }
}

/// Whether this processor multiplies 8-bit integers fast enough that `auto` takes them.
pub fn has_fast_integers() -> bool {
    crate::runtime::layer8::is_fast()
}

/// The device that inference runs on, and why it was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReport {
    /// `cpu`, `openvino` or `cuda:N`, with the precision: `openvino (bf16)`.
    pub device: String,
    /// Why it was chosen, as a sentence.
    pub reason: String,
}

/// The runtime's libraries and providers, for `distilface doctor`.
#[derive(Debug, Clone)]
pub struct RuntimeReport {
    /// Path of ONNX Runtime's library, or why it cannot be loaded.
    pub library: Result<PathBuf, String>,
    /// Version of ONNX Runtime; `None` where the library cannot be loaded.
    pub version: Option<String>,
    /// Path of Intel's provider, or why it cannot be used.
    pub openvino: Result<PathBuf, String>,
    /// A sentence saying that the CUDA provider loads, or why it cannot be used.
    pub cuda: Result<String, String>,
}

/// Why the runtime refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum RuntimeError {
    #[error("unknown device {got:?}; allowed: auto, cpu, openvino, cuda, cuda:N")]
    UnknownDevice { got: String },
    #[error("unknown precision {got:?}; allowed: auto, fp32, bf16, fp16, int8")]
    UnknownPrecision { got: String },
    #[error("precision {precision} cannot be had on device {device}: {reason}")]
    PrecisionUnavailable { precision: String, device: String, reason: String },
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
    #[error("ONNX Runtime was already loaded from {} in this process, {} cannot be loaded beside it", loaded.display(), asked.display())]
    OtherLibrary { loaded: PathBuf, asked: PathBuf },
}

impl Fault for RuntimeError {
    fn kind(&self) -> ErrorKind {
        match self {
            RuntimeError::UnknownDevice { .. } | RuntimeError::UnknownPrecision { .. } => ErrorKind::Invalid,
            RuntimeError::PrecisionUnavailable { .. }
            | RuntimeError::LibraryMissing { .. }
            | RuntimeError::OtherLibrary { .. }
            | RuntimeError::LibraryUnusable { .. }
            | RuntimeError::DeviceUnavailable { .. }
            | RuntimeError::Load { .. } => ErrorKind::Precondition,
            RuntimeError::Run { .. } => ErrorKind::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_read_and_written_back() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("openvino", DeviceChoice::OpenVino),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
    }

    #[test]
    fn precisions_are_read_and_others_refused_with_what_is_allowed() {
        for precision in Precision::ALL {
            assert_eq!(precision.name().parse::<Precision>().unwrap(), precision);
        }
        let error = "fp64".parse::<Precision>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("allowed: auto, fp32, bf16, fp16, int8"), "{error}");
    }

    #[test]
    fn an_unknown_device_is_refused_with_what_is_allowed() {
        for text in ["", "gpu", "cuda:", "cuda:+1", "cuda:x", "CPU", "cuda:99999999999"] {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("allowed: auto, cpu, openvino"), "{error}");
        }
    }
}
