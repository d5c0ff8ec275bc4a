//! A text -> its rows: numbered lines, without the blank ones, for JSON lines and for every form that has a row a line.
//!
//! Ingest reads documents of these rows, training its examples, and evaluation its judged collections and sentence
//! pairs: what a file may be packed with, how its lines end and how long they may be is the same for all. What a row
//! means is left to the reader of its form.

use std::io::Read;

use super::{
    lines::{Line, LineError, Lines},
    open::{self, NotText, Unmarked},
};

/// The rows of a text. After a line that cannot be read the next one is.
pub(crate) struct Rows {
    lines: Lines,
    blank: usize,
}

impl Rows {
    /// Begins to read. `name` tells by its ending whether the text must be packed.
    ///
    /// # Errors
    /// What is no text, or is not packed as the name says.
    pub(crate) fn begin(name: &str, raw: impl Read + Send + 'static) -> Result<Self, NotText> {
        open::text(Box::new(raw), open::packing(name), true)
            .map(Rows::new)
            .map_err(|refused| NotText { line: None, reason: refused.text })
    }

    pub(super) fn new(input: Unmarked) -> Self {
        Rows { lines: Lines::new(input), blank: 0 }
    }

    /// Blank lines so far.
    pub(crate) fn blank(&self) -> usize {
        self.blank
    }
}

impl Iterator for Rows {
    type Item = Result<Line, NotText>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.lines.next()? {
                Ok(line) if line.text.trim().is_empty() => self.blank += 1,
                Ok(line) => return Some(Ok(line)),
                Err(LineError { number, reason }) => {
                    return Some(Err(NotText { line: Some(number), reason }));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn rows_keep_the_numbers_of_their_lines_and_blank_ones_are_counted() {
        let text = "\u{feff}one\r\n\n \t\n  two  \n";
        let packed = zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
        for (name, bytes) in [("a.txt", text.as_bytes().to_vec()), ("a.jsonl.zst", packed)] {
            let mut rows = Rows::begin(name, Cursor::new(bytes)).unwrap();
            let read: Vec<(u64, String)> =
                rows.by_ref().map(|row| row.unwrap()).map(|row| (row.number, row.text)).collect();
            assert_eq!(read, [(1, "one".to_owned()), (4, "  two  ".to_owned())]);
            assert_eq!(rows.blank(), 2);
        }
        assert_eq!(Rows::begin("a", Cursor::new(b"")).unwrap().count(), 0);
    }

    #[test]
    fn a_row_that_is_no_text_names_its_line_and_a_file_that_is_none_says_so() {
        let mut rows = Rows::begin("a", Cursor::new(b"one\n\nzw\xf6lf\nfour")).unwrap();
        assert!(rows.next().unwrap().is_ok());
        let error = rows.next().unwrap().unwrap_err();
        assert!(error.line == Some(3) && error.reason.contains("UTF-8"), "{error:?}");
        assert_eq!(rows.next().unwrap().unwrap().text, "four");
        let error = Rows::begin("a.gz", Cursor::new(b"plain")).err().unwrap();
        assert!(error.line.is_none() && error.reason.contains("cannot be unpacked"), "{error:?}");
    }
}
