//! A file -> its rows ([`source::Rows`](crate::source::Rows)), with errors that name the file and the line.
//!
//! The forms themselves are fixed by others and stand apart from the documents that `ingest` reads: BEIR and SentEval
//! name their fields and columns, and a file with other ones must be refused, not understood as well as may be.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use super::EvalError;
use crate::source;

/// The rows of a file: number of the line, from 1, and text; blank lines are passed over.
pub(crate) struct Rows {
    path: PathBuf,
    rows: source::Rows,
}

impl Rows {
    /// Opens a file.
    ///
    /// # Errors
    /// [`EvalError::Read`] if it cannot be opened, [`EvalError::Folder`] if it is no text or cannot be unpacked. A row:
    /// [`EvalError::Line`] for what is not UTF-8.
    pub(crate) fn open(path: &Path) -> Result<Self, EvalError> {
        let file = File::open(path).map_err(|source| EvalError::Read { path: path.to_owned(), source })?;
        Rows::of(path, file)
    }

    /// Reads `raw` as the content of a file.
    ///
    /// # Errors
    /// As [`Rows::open`].
    pub(crate) fn of(path: &Path, raw: impl Read + Send + 'static) -> Result<Self, EvalError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let rows = source::Rows::begin(&name, raw).map_err(|e| EvalError::not_text(path, e))?;
        Ok(Rows { path: path.to_owned(), rows })
    }

    /// Blank lines so far.
    pub(crate) fn blank(&self) -> usize {
        self.rows.blank()
    }
}

impl Iterator for Rows {
    type Item = Result<(usize, String), EvalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        Some(match row {
            Ok(row) => Ok((usize::try_from(row.number).unwrap_or(usize::MAX), row.text)),
            Err(e) => Err(EvalError::not_text(&self.path, e)),
        })
    }
}

/// All values of a file of JSON lines.
///
/// # Errors
/// As [`Rows::open`]; [`EvalError::Line`] for a line that is not such a value.
pub(crate) fn json_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, EvalError> {
    let value = |row: Result<(usize, String), EvalError>| {
        let (line, text) = row?;
        serde_json::from_str(&text).map_err(|e| EvalError::Line {
            path: path.to_owned(),
            line,
            reason: e.to_string(),
        })
    };
    Rows::open(path)?.map(value).collect()
}
