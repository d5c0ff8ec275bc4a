//! How good, how sure and how fast: reference values, sentence similarity, judged collections, speed; and plots.
//!
//! Nothing here prints; the command line shows what these functions answer.

pub mod beir;
pub mod bootstrap;
pub mod measures;
pub mod parity;
pub mod plot;
pub mod retrieval;
pub mod speed;
pub mod sts;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::error::ErrorKind;

/// Why an evaluation could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum EvalError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}, line {line}: {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("{}: {reason}", path.display())]
    Folder { path: PathBuf, reason: String },
    #[error("the encoder under evaluation gave {reason}")]
    Vectors { reason: String },
    #[error(transparent)]
    Run(#[from] crate::Error),
}

impl EvalError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            EvalError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            EvalError::Read { .. } | EvalError::Vectors { .. } => ErrorKind::Internal,
            EvalError::Line { .. } | EvalError::Folder { .. } => ErrorKind::Invalid,
            EvalError::Run(e) => e.kind(),
        }
    }
}

fn read(path: &Path) -> Result<String, EvalError> {
    std::fs::read_to_string(path).map_err(|source| EvalError::Read { path: path.to_owned(), source })
}

/// Cosine in double precision, so that differences of 1e-7 are seen; equal vectors give 1 exactly, so that pairs of
/// equal sentences tie.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut ab, mut aa, mut bb) = (0.0f64, 0.0f64, 0.0f64);
    for (&x, &y) in a.iter().zip(b) {
        let (x, y) = (f64::from(x), f64::from(y));
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    if aa == 0.0 || bb == 0.0 { 0.0 } else { ab / (aa * bb).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_tells_what_to_do() {
        let path = || PathBuf::from("x");
        let read = |kind: io::ErrorKind| EvalError::Read { path: path(), source: kind.into() };
        for (error, kind) in [
            (read(io::ErrorKind::NotFound), ErrorKind::NotFound),
            (read(io::ErrorKind::InvalidData), ErrorKind::Internal),
            (EvalError::Line { path: path(), line: 1, reason: String::new() }, ErrorKind::Invalid),
            (EvalError::Folder { path: path(), reason: String::new() }, ErrorKind::Invalid),
            (EvalError::Vectors { reason: String::new() }, ErrorKind::Internal),
            (EvalError::Run(crate::encoder::EncoderError::Expired.into()), ErrorKind::Timeout),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[test]
    fn equal_vectors_have_cosine_one_exactly() {
        let v = [0.1f32, -0.7, 0.33];
        assert_eq!(cosine(&v, &v), 1.0);
        assert_eq!(cosine(&v, &[0.0; 3]), 0.0);
    }
}
