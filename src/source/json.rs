//! Reads documents from JSON lines or from a JSON file of objects.
//!
//! In JSON lines a broken line is an error and the next one is read. A JSON file (a list of objects, or objects one
//! after another over several lines) is read whole, and ends at its first broken value: there is no telling where the
//! next one begins. A value that only holds something broken (half of a surrogate pair) is an error by itself.

use std::{
    collections::BTreeSet,
    io::{Cursor, Read},
    sync::Arc,
};

use serde_json::{Deserializer, Map, Value as Json, value::RawValue};

use super::{
    Documents, RECORD_BYTES_MAX, RECORD_MIB_MAX, SourceDocument, SourceError, Understood, UnderstoodColumn,
    UnderstoodFiles,
    fields::{FieldMap, ID_NAMES, Typing},
    lines::not_utf8,
    long_integers,
    open::{Unmarked, said},
    rows::Rows,
};

/// A file's name and what its records are taken for.
pub(super) struct Reading {
    pub(super) file: String,
    pub(super) fields: Arc<FieldMap>,
    pub(super) understood: Arc<UnderstoodFiles>,
    /// Whether it was noted how the records are understood.
    pub(super) noted: bool,
}

impl Reading {
    /// The document of one value that begins in this line.
    fn document(&mut self, text: &str, line: u64) -> Result<SourceDocument, SourceError> {
        let read = self.read(text, line);
        read.map_err(|reason| SourceError::new(&self.file, line, reason))
    }

    fn read(&mut self, text: &str, line: u64) -> Result<SourceDocument, String> {
        let (value, long) = if long_integers::are_in(text) {
            long_integers::read(text)
        } else {
            serde_json::from_str(text).map(|value| (value, BTreeSet::new()))
        }
        .map_err(|e| self.broken(&e, text))?;
        let record = object(value)?;
        let there = record.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str());
        let roles = self.fields.roles(there)?;
        if !std::mem::replace(&mut self.noted, true) {
            let columns = record.keys().map(|name| UnderstoodColumn {
                name: name.clone(),
                role: roles.of(name),
                kind: self.fields.types.get(name).copied(),
            });
            let columns = columns.collect();
            self.understood.note(Understood { file: self.file.clone(), delimiter: None, columns });
        }
        self.fields.document(record, &roles, Typing::Own(&long), format!("{}:{line}", self.file))
    }

    /// serde_json's message with the column only: the line is known, and counts differently there. The id is told if it
    /// can be made out.
    fn broken(&self, e: &serde_json::Error, text: &str) -> String {
        if let Some(start) = text.trim_start().get(..1).filter(|start| !"{[".contains(start)) {
            return format!(
                "it begins with {start:?}, and JSON lines begin with {{, such as {{\"id\": \"1\", \"text\": \"...\"}}; \
                 --format says that it is another form: text, markdown, html, json, csv or tsv"
            );
        }
        let message = e.to_string();
        let what = match message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what) {
            "expected ident" => "expected true, false or null",
            "expected value" => "expected a value",
            what => what,
        };
        let at = text.get(e.column().saturating_sub(1)..).unwrap_or_default();
        let hint =
            if e.line() == 1 && ["NaN", "Infinity", "-Infinity"].iter().any(|word| at.starts_with(word)) {
                " (JSON has no NaN and no Infinity; leave the field out, or write null)"
            } else {
                ""
            };
        let of_document = self.id(text).map(|id| format!("document {id:?}: ")).unwrap_or_default();
        format!("{of_document}broken JSON, column {}: {what}{hint}", e.column())
    }

    /// The id in a record that cannot be read: what stands behind the first key of an id's name.
    fn id(&self, text: &str) -> Option<String> {
        let names = self.fields.id.as_deref().map_or(&ID_NAMES[..], |_| &[]);
        let names = self.fields.id.as_deref().into_iter().chain(names.iter().copied());
        let mut found = names.filter_map(|name| {
            let (_, behind) = text.split_once(&format!("{}", Json::from(name)))?;
            let behind = behind.trim_start().strip_prefix(':')?;
            match Deserializer::from_str(behind).into_iter::<Json>().next()?.ok()? {
                Json::String(id) => Some(id.chars().take(80).collect()),
                Json::Number(id) => Some(id.to_string()),
                _ => None,
            }
        });
        found.next()
    }
}

/// One document per line; blank lines are left out.
pub(super) struct Lines {
    reading: Reading,
    rows: Rows,
    any: bool,
}

impl Lines {
    pub(super) fn new(reading: Reading, input: Unmarked) -> Self {
        Lines { reading, rows: Rows::new(input), any: false }
    }
}

impl Iterator for Lines {
    type Item = Result<SourceDocument, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = !std::mem::replace(&mut self.any, true);
        Some(match self.rows.next() {
            None if first && self.rows.blank() == 0 => {
                Err(SourceError::new(&self.reading.file, None, "empty"))
            }
            None => return None,
            Some(Err(e)) => Err(SourceError::new(&self.reading.file, e.line, e.reason)),
            Some(Ok(row)) => self.reading.document(&row.text, row.number),
        })
    }
}

/// The documents of a `.json` file, which may be JSON lines after all.
pub(super) fn documents(reading: Reading, input: Unmarked) -> Documents {
    let file = reading.file.clone();
    let failed = |error: SourceError| -> Documents { Box::new(std::iter::once(Err(error))) };
    let Unmarked { mut reader, skipped, head, converted } = input;
    let mut bytes = Vec::new();
    if let Err(e) = reader.by_ref().take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes) {
        return failed(SourceError::new(&file, None, said(&e)));
    }
    let start = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let first_line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let lines = start != Some(&b'[') && serde_json::from_slice::<Map<String, Json>>(first_line).is_ok();
    if lines {
        let reader = Box::new(Cursor::new(bytes).chain(reader));
        return Box::new(Lines::new(reading, Unmarked { reader, skipped, head, converted }));
    }
    if bytes.len() > RECORD_BYTES_MAX {
        let reason = format!(
            "larger than {RECORD_MIB_MAX} MiB, which only JSON lines may be; convert it, for example with `jq -c '.[]'`"
        );
        return failed(SourceError::new(&file, None, reason));
    }
    match String::from_utf8(bytes) {
        Ok(text) if text.trim().is_empty() => failed(SourceError::new(&file, None, "empty")),
        Ok(text) => Box::new(Values::new(reading, text)),
        Err(e) => {
            let valid = e.utf8_error().valid_up_to();
            let line = 1 + count_lines(&e.as_bytes()[..valid]);
            failed(SourceError::new(&file, line, not_utf8(skipped + valid as u64)))
        }
    }
}

/// The values of a list, or one after another.
struct Values {
    reading: Reading,
    text: String,
    /// Byte of the text where the next value is looked for, and its line.
    next: usize,
    line: u64,
    in_list: bool,
    ended: bool,
}

impl Values {
    fn new(reading: Reading, text: String) -> Self {
        let mut values = Values { reading, text, next: 0, line: 1, in_list: false, ended: false };
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
            return surplus.then(|| {
                Err(SourceError::new(&self.reading.file, self.line, "text behind the end of the list"))
            });
        }
        if !self.in_list && self.rest().is_empty() {
            return None;
        }
        let line = self.line;
        let start = self.next;
        let mut stream = Deserializer::from_str(self.rest()).into_iter::<&RawValue>();
        match stream.next() {
            Some(Ok(_)) => {}
            Some(Err(e)) => {
                let reason = self.reading.broken(&e, self.rest());
                let reason = format!("{reason}; the rest of the file is left out");
                self.ended = true;
                let line = line + e.line() as u64 - 1;
                return Some(Err(SourceError::new(&self.reading.file, line, reason)));
            }
            None => {
                self.ended = true;
                return Some(Err(SourceError::new(&self.reading.file, line, "the list has no end")));
            }
        }
        let used = stream.byte_offset();
        self.advance(used);
        if self.in_list {
            self.skip_blanks();
            if self.rest().starts_with(',') {
                self.advance(1);
            }
        }
        Some(self.reading.document(&self.text[start..start + used], line))
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
