//! Evaluation measures how good, how sure and how fast: reference values, sentence similarity, judged collections and
//! speed; and it draws plots.
//!
//! Nothing here prints, and nothing knows the engine: what embeds or searches is handed in ([`sts::Embed`],
//! [`retrieval::Retrieve`]).

pub mod beir;
pub mod bootstrap;
pub mod measures;
pub mod parity;
pub mod plot;
pub mod retrieval;
pub(crate) mod rows;
pub mod speed;
pub mod sts;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use crate::{
    encoder::{EncoderError, OpenError},
    error::{ErrorKind, Fault},
    model::ModelError,
    onnx::OnnxError,
    source::{NotText, whole_text},
};

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
    Encoder(#[from] EncoderError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Onnx(#[from] OnnxError),
}

/// A file of text, whole; packed with gzip or zstd, or in UTF-16 with its mark, as documents may be.
///
/// # Errors
/// [`EvalError::Read`] if it cannot be opened, [`EvalError::Folder`] if it is no text or cannot be unpacked,
/// [`EvalError::Line`] at the first line that is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String, EvalError> {
    let file = File::open(path).map_err(|source| EvalError::Read { path: path.to_owned(), source })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    whole_text(&name, file).map_err(|e| EvalError::not_text(path, e))
}

/// Refuses a path where nothing is, before anything is missed in it.
///
/// # Errors
/// [`EvalError::Read`].
fn check_there(path: &Path) -> Result<(), EvalError> {
    let there = std::fs::metadata(path).map(drop);
    there.map_err(|source| EvalError::Read { path: path.to_owned(), source })
}

impl EvalError {
    fn not_text(path: &Path, NotText { line, reason }: NotText) -> Self {
        let path = path.to_owned();
        match line {
            Some(line) => EvalError::Line { path, line: usize::try_from(line).unwrap_or(usize::MAX), reason },
            None => EvalError::Folder { path, reason },
        }
    }
}

impl Fault for EvalError {
    fn kind(&self) -> ErrorKind {
        match self {
            EvalError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            EvalError::Read { .. } | EvalError::Vectors { .. } => ErrorKind::Internal,
            EvalError::Line { .. } | EvalError::Folder { .. } => ErrorKind::Invalid,
            EvalError::Encoder(e) => e.kind(),
            EvalError::Open(e) => e.kind(),
            EvalError::Model(e) => e.kind(),
            EvalError::Onnx(e) => e.kind(),
        }
    }

    fn inner(&self) -> Option<&dyn Fault> {
        match self {
            EvalError::Encoder(e) => Some(e),
            EvalError::Open(e) => Some(e),
            EvalError::Model(e) => Some(e),
            EvalError::Onnx(e) => Some(e),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs `content` as `name.zst` in `dir`.
    fn packed(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
        let path = dir.join(format!("{name}.zst"));
        std::fs::write(&path, zstd::stream::encode_all(content, 1).unwrap()).unwrap();
        path
    }

    #[test]
    fn plain_and_packed_text_read_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = packed(dir.path(), "a.txt", "Zwölf\n".as_bytes());
        assert_eq!(read_text(&path).unwrap(), "Zwölf\n");
        std::fs::write(dir.path().join("b.txt"), "Zwölf\n").unwrap();
        assert_eq!(read_text(&dir.path().join("b.txt")).unwrap(), "Zwölf\n");
    }

    #[test]
    fn a_file_that_is_missing_damaged_or_not_text_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let missing = read_text(&dir.path().join("none.gz")).unwrap_err();
        assert!(matches!(missing, EvalError::Read { .. }), "{missing}");

        let path = packed(dir.path(), "cut.txt", &[b'a'; 4000]);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 8]).unwrap();
        let damaged = read_text(&path).unwrap_err().to_string();
        assert!(damaged.contains("cut.txt.zst") && damaged.contains("cannot be unpacked"), "{damaged}");

        let path = packed(dir.path(), "latin1.txt", b"one\ntwo\nzw\xf6lf\n");
        let not_text = read_text(&path).unwrap_err().to_string();
        assert!(not_text.contains("latin1.txt.zst, line 3") && not_text.contains("UTF-8"), "{not_text}");
    }

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
            (EvalError::Encoder(EncoderError::Expired), ErrorKind::Timeout),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
