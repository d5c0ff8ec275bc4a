//! JSON lines, or a JSON file of objects -> documents.
//!
//! In JSON lines a broken line is an error and the next one is read. A JSON file (a list of objects, or objects one
//! after another over several lines) is read whole, and ends at its first broken value: there is no telling where the
//! next one begins.

use std::{io::Read, sync::Arc};

use serde_json::{Deserializer, Map, Value as Json};

use super::{
    Documents, RECORD_BYTES_MAX, SourceDocument, SourceError,
    fields::{FieldMap, Typing},
    lines::{self, Unmarked, not_utf8},
};

/// One document per line; blank lines are left out.
pub(super) struct Lines {
    file: String,
    lines: lines::Lines,
    fields: Arc<FieldMap>,
    any: bool,
}

impl Lines {
    pub(super) fn new(file: String, input: Unmarked, fields: Arc<FieldMap>) -> Self {
        Lines { file, lines: lines::Lines::new(input), fields, any: false }
    }
}

impl Iterator for Lines {
    type Item = Result<SourceDocument, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let first = !std::mem::replace(&mut self.any, true);
            let line = match self.lines.next() {
                None if first => return Some(Err(SourceError::new(&self.file, None, "empty"))),
                None => return None,
                Some(Err(e)) => return Some(Err(SourceError::new(&self.file, e.number, e.reason))),
                Some(Ok(line)) => line,
            };
            if line.text.trim().is_empty() {
                continue;
            }
            let refuse = |reason: String| SourceError::new(&self.file, line.number, reason);
            let document = serde_json::from_str(&line.text)
                .map_err(|e| broken(&e))
                .and_then(object)
                .and_then(|record| {
                    self.fields.document(record, Typing::Own, format!("{}:{}", self.file, line.number))
                })
                .map_err(refuse);
            return Some(document);
        }
    }
}

/// The documents of a `.json` file, which may be JSON lines after all.
pub(super) fn documents(file: String, input: Unmarked, fields: Arc<FieldMap>) -> Documents {
    let failed = |error: SourceError| -> Documents { Box::new(std::iter::once(Err(error))) };
    let Unmarked { mut reader, skipped } = input;
    let mut bytes = Vec::new();
    if let Err(e) = reader.by_ref().take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes) {
        return failed(SourceError::new(&file, None, format!("cannot read it: {e}")));
    }
    let start = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let first_line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let lines = start != Some(&b'[') && serde_json::from_slice::<Map<String, Json>>(first_line).is_ok();
    if lines {
        let reader = Box::new(std::io::Cursor::new(bytes).chain(reader));
        return Box::new(Lines::new(file, Unmarked { reader, skipped }, fields));
    }
    if bytes.len() > RECORD_BYTES_MAX {
        let reason = format!(
            "larger than {RECORD_BYTES_MAX} bytes, which only JSON lines may be; convert it, for example with `jq -c '.[]'`"
        );
        return failed(SourceError::new(&file, None, reason));
    }
    match String::from_utf8(bytes) {
        Ok(text) if text.trim().is_empty() => failed(SourceError::new(&file, None, "empty")),
        Ok(text) => Box::new(Values::new(file, text, fields)),
        Err(e) => {
            let valid = e.utf8_error().valid_up_to();
            let line = 1 + count_lines(&e.as_bytes()[..valid]);
            failed(SourceError::new(&file, line, not_utf8(skipped + valid as u64)))
        }
    }
}

/// The values of a list, or one after another.
struct Values {
    file: String,
    text: String,
    /// Byte of the text where the next value is looked for, and its line.
    next: usize,
    line: u64,
    in_list: bool,
    ended: bool,
    fields: Arc<FieldMap>,
}

impl Values {
    fn new(file: String, text: String, fields: Arc<FieldMap>) -> Self {
        let mut values = Values { file, text, next: 0, line: 1, in_list: false, ended: false, fields };
        values.skip_blanks();
        if values.rest().starts_with('[') {
            values.in_list = true;
            values.advance(1);
        }
        values
    }

    fn rest(&self) -> &str {
        &self.text[self.next..]
    }

    fn advance(&mut self, bytes: usize) {
        self.line += count_lines(&self.text.as_bytes()[self.next..self.next + bytes]);
        self.next += bytes;
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.advance(rest.len() - rest.trim_start().len());
    }
}

impl Iterator for Values {
    type Item = Result<SourceDocument, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        self.skip_blanks();
        if self.in_list && self.rest().starts_with(']') {
            self.advance(1);
            self.skip_blanks();
            self.ended = true;
            let surplus = !self.rest().is_empty();
            return surplus
                .then(|| Err(SourceError::new(&self.file, self.line, "text behind the end of the list")));
        }
        if !self.in_list && self.rest().is_empty() {
            return None;
        }
        let line = self.line;
        let mut stream = Deserializer::from_str(self.rest()).into_iter::<Json>();
        let value = match stream.next() {
            Some(Ok(value)) => value,
            Some(Err(e)) => {
                self.ended = true;
                let reason = format!("{}; the rest of the file is left out", broken(&e));
                return Some(Err(SourceError::new(&self.file, line + e.line() as u64 - 1, reason)));
            }
            None => {
                self.ended = true;
                return Some(Err(SourceError::new(&self.file, line, "the list has no end")));
            }
        };
        let used = stream.byte_offset();
        self.advance(used);
        if self.in_list {
            self.skip_blanks();
            if self.rest().starts_with(',') {
                self.advance(1);
            }
        }
        let document = object(value)
            .and_then(|record| self.fields.document(record, Typing::Own, format!("{}:{line}", self.file)))
            .map_err(|reason| SourceError::new(&self.file, line, reason));
        Some(document)
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn object(value: Json) -> Result<Map<String, Json>, String> {
    match value {
        Json::Object(record) => Ok(record),
        Json::Array(_) => Err("a list where an object such as {\"id\": …, \"text\": …} is wanted".into()),
        _ => Err("a single value where an object such as {\"id\": …, \"text\": …} is wanted".into()),
    }
}

/// serde_json's message with the column only: the line is known, and counts differently there.
fn broken(e: &serde_json::Error) -> String {
    let message = e.to_string();
    let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    format!("broken JSON, column {}: {what}", e.column())
}
