//! CSV or TSV with a header row -> documents; alone names `csv`.
//!
//! What the library can do to us: it collects a record without bound (a quote that is never closed takes in the whole
//! file). The guard is [`Bounded`], which fails the read behind it.

use std::{
    io::{self, Read},
    sync::{Arc, Mutex},
};

use serde_json::{Map, Value as Json};

use super::{
    RECORD_BYTES_MAX, SourceDocument, SourceError,
    fields::{FieldMap, Typing},
    lines::{Unmarked, not_utf8},
};

/// One document per row. Empty cells are left out; a record over several lines is named by its first.
pub(super) struct Rows {
    file: String,
    reader: csv::Reader<Bounded>,
    record: csv::ByteRecord,
    window: Arc<Mutex<Window>>,
    /// Bytes of the file before the first that the library sees.
    skipped: u64,
    header: Option<Vec<String>>,
    ended: bool,
    fields: Arc<FieldMap>,
}

impl Rows {
    pub(super) fn new(file: String, input: Unmarked, fields: Arc<FieldMap>, delimiter: u8) -> Self {
        Self::with_max(file, input, fields, delimiter, RECORD_BYTES_MAX)
    }

    pub(super) fn with_max(
        file: String,
        input: Unmarked,
        fields: Arc<FieldMap>,
        delimiter: u8,
        bytes_max: usize,
    ) -> Self {
        let window = Arc::new(Mutex::new(Window { start: 0, line: 1, bytes: Vec::new() }));
        let bounded = Bounded { inner: input.reader, window: Arc::clone(&window), bytes_max };
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .buffer_capacity(READ_AHEAD)
            .from_reader(bounded);
        let record = csv::ByteRecord::new();
        Rows { file, reader, record, window, skipped: input.skipped, header: None, ended: false, fields }
    }

    /// Reads the next record: the line it begins in and its cells, or `None` at the end.
    fn read(&mut self) -> Result<Option<(u64, Vec<String>)>, SourceError> {
        let start = self.reader.position().byte();
        let read = self.reader.read_byte_record(&mut self.record);
        let mut window = self.window.lock().expect("nothing panics while it is held");
        window.move_to(start);
        let line = window.line;
        match read {
            Ok(false) => {
                self.ended = true;
                Ok(None)
            }
            Ok(true) => match std::str::from_utf8(window.up_to(self.reader.position().byte())) {
                Ok(_) => {
                    // A record of UTF-8 is cut at ASCII bytes only.
                    let cells = self.record.iter().map(|cell| String::from_utf8_lossy(cell).into_owned());
                    Ok(Some((line, cells.collect())))
                }
                Err(e) => {
                    let reason = not_utf8(self.skipped + window.start + e.valid_up_to() as u64);
                    Err(SourceError::new(&self.file, line, reason))
                }
            },
            Err(e) => {
                self.ended = true;
                let reason = match e.into_kind() {
                    csv::ErrorKind::Io(e) => e.to_string(),
                    other => format!("{other:?}"),
                };
                Err(SourceError::new(&self.file, line, format!("{reason}; the rest of the file is left out")))
            }
        }
    }

    fn read_header(&mut self) -> Result<Vec<String>, SourceError> {
        let Some((line, mut names)) = self.read()? else {
            return Err(SourceError::new(&self.file, None, "empty"));
        };
        for i in 0..names.len() {
            names[i] = names[i].trim().to_owned();
            if names[i].is_empty() {
                names[i] = format!("column_{}", i + 1);
            }
            if names[..i].contains(&names[i]) {
                let reason = format!("the header has the column {:?} twice", names[i]);
                return Err(SourceError::new(&self.file, line, reason));
            }
        }
        Ok(names)
    }

    fn document(
        &self,
        line: u64,
        cells: Vec<String>,
        header: &[String],
    ) -> Result<SourceDocument, SourceError> {
        let refuse = |reason: String| SourceError::new(&self.file, line, reason);
        if cells.len() != header.len() {
            return Err(refuse(format!(
                "the row has {} cells, the header has {}",
                cells.len(),
                header.len()
            )));
        }
        let record: Map<String, Json> = header
            .iter()
            .zip(cells)
            .filter(|(_, cell)| !cell.is_empty())
            .map(|(name, cell)| (name.clone(), Json::String(cell)))
            .collect();
        self.fields.document(record, Typing::ByLook, format!("{}:{line}", self.file)).map_err(refuse)
    }
}

impl Iterator for Rows {
    type Item = Result<SourceDocument, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let header = match self.header.take() {
            Some(header) => header,
            None => match self.read_header() {
                Ok(header) => header,
                Err(e) => {
                    self.ended = true;
                    return Some(Err(e));
                }
            },
        };
        let document = match self.read() {
            Ok(None) => return None,
            Ok(Some((line, cells))) => self.document(line, cells, &header),
            Err(e) => Err(e),
        };
        self.header = Some(header);
        Some(document)
    }
}

const READ_AHEAD: usize = 1 << 16;

/// What was read from the beginning of the current record on. The library names the line only roughly: it counts blank
/// lines in front of a record, and the second half of `\r\n`, to the record.
struct Window {
    /// Byte that `bytes` begins with, and its line.
    start: u64,
    line: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Drops what lies before a byte, and line ends right behind it.
    fn move_to(&mut self, byte: u64) {
        let mut at = (byte.saturating_sub(self.start) as usize).min(self.bytes.len());
        at += self.bytes[at..].iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        self.line += self.bytes[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
        self.start += at as u64;
        self.bytes.drain(..at);
    }

    fn up_to(&self, byte: u64) -> &[u8] {
        &self.bytes[..(byte.saturating_sub(self.start) as usize).min(self.bytes.len())]
    }
}

/// Fails once too much was read for one record.
struct Bounded {
    inner: Box<dyn Read + Send>,
    window: Arc<Mutex<Window>>,
    bytes_max: usize,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        let mut window = self.window.lock().expect("nothing panics while it is held");
        window.bytes.extend_from_slice(&buffer[..bytes]);
        // What the library reads ahead does not count.
        if window.bytes.len() > self.bytes_max + 2 * READ_AHEAD {
            return Err(io::Error::other(format!(
                "the record that begins here has more than {} bytes (a quote that is not closed?)",
                self.bytes_max
            )));
        }
        Ok(bytes)
    }
}
