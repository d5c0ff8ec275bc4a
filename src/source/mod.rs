//! Sources read paths as a lazy sequence of documents, each with the place it was read from.
//!
//! Folders, text, Markdown, HTML, JSON, CSV and TSV, standard input; each also packed with gzip or zstd. What cannot be
//! read is a [`SourceError`] in the sequence, with file and line, and reading continues behind it. Memory holds one
//! line or one text file at a time, each of at most [`RECORD_BYTES_MAX`]. Nothing is printed here; whether the document
//! suits a collection is decided by the engine.

use std::{
    collections::VecDeque,
    fmt,
    io::Read,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::value::Payload;

mod columns;
mod delimiter;
mod export;
mod fields;
mod front_matter;
mod html;
mod json;
mod lines;
pub mod long_integers;
mod markdown;
mod open;
mod records;
mod remarks;
mod rows;
mod table;
mod text;
mod understood;
mod walk;
mod whole;

#[cfg(test)]
mod tests;

pub use export::TYPES;
pub use fields::{FieldMap, ValueType};
pub(crate) use fields::{is_content_id, title_and_text};
pub(crate) use open::{NotText, whole_text};
pub use remarks::Remarks;
pub(crate) use rows::Rows;
pub use understood::{Role, Understood, UnderstoodColumn, UnderstoodFiles};
pub use walk::LeftOut;
pub use whole::{WalkedFolder, WholeFiles, composed};

/// Longest line, record or text file that is read; longer ones are errors.
pub const RECORD_BYTES_MAX: usize = RECORD_MIB_MAX << 20;
/// The same in MiB, for messages.
const RECORD_MIB_MAX: usize = 64;

/// A document as a file gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceDocument {
    /// The document's id, never empty: from the file, else its relative path, else a hash of the content.
    pub id: String,
    /// The title; may be empty.
    pub title: String,
    /// The text; empty only if there is a title or a vector.
    pub text: String,
    /// The typed fields; may be empty.
    pub payload: Payload,
    /// The vector that the file gives; `None` if the document is to be encoded. It is not checked here.
    pub vector: Option<Vec<f32>>,
    /// `file:line`, for messages.
    pub place: String,
}

/// Why something could not be read. What follows it in the sequence is not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {reason}", line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct SourceError {
    /// The file as the user gave it, or as it was found below a folder that the user gave.
    pub file: String,
    /// The line, from 1; `None` if the error is not in a line.
    pub line: Option<u64>,
    /// What is wrong, for the user.
    pub reason: String,
    /// Whether the options do not fit the only source: no document was read, and none will be.
    pub wrong_use: bool,
}

impl SourceError {
    fn new(file: &str, line: impl Into<Option<u64>>, reason: impl Into<String>) -> Self {
        SourceError { file: file.to_owned(), line: line.into(), reason: reason.into(), wrong_use: false }
    }
}

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One document per file; the first short line is its title.
    Text,
    /// One document per file; front matter, headings and links are understood, the rest is kept as written.
    Markdown,
    /// One document per file, without markup and menus.
    Html,
    /// One JSON object per line.
    JsonLines,
    /// A list of JSON objects, objects one after another, or JSON lines.
    Json,
    /// A header row, then a document per row; cells separated by `,`, or by `;`, tabs or `|` where the file shows that.
    Csv,
    /// A header row, then a document per row; cells separated by tabs, without quotes.
    Tsv,
}

impl Format {
    /// The format of a file whose name does not say it, by how the file begins.
    fn of_head(head: &[u8]) -> Format {
        let head = String::from_utf8_lossy(&head[..head.len().min(1 << 10)]);
        let text = head.trim_start();
        let begins =
            |with: &str| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
        let behind = |open: char| text.strip_prefix(open).map(str::trim_start);
        if behind('{').is_some_and(|text| text.starts_with(['"', '}']))
            || behind('[').is_some_and(|text| text.starts_with('{'))
        {
            Format::Json
        } else if begins("<!doctype html") || begins("<html") {
            Format::Html
        } else {
            Format::Text
        }
    }

    /// The format for a file name's extension, in lower case.
    fn of_extension(extension: &str) -> Option<Format> {
        Some(match extension {
            "txt" | "text" => Format::Text,
            "md" | "markdown" => Format::Markdown,
            "html" | "htm" => Format::Html,
            "jsonl" | "ndjson" => Format::JsonLines,
            "json" => Format::Json,
            "csv" => Format::Csv,
            "tsv" => Format::Tsv,
            _ => return None,
        })
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "text" | "txt" => Format::Text,
            "markdown" | "md" => Format::Markdown,
            "html" => Format::Html,
            "jsonl" => Format::JsonLines,
            "json" => Format::Json,
            "csv" => Format::Csv,
            "tsv" => Format::Tsv,
            _ => {
                return Err(format!(
                    "unknown format {name:?}; give one of text, markdown, html, jsonl, json, csv, tsv"
                ));
            }
        })
    }
}

/// The progress of reading, for a progress bar.
#[derive(Debug, Default)]
pub struct Progress {
    /// Grows while the sequence is read; ahead of the documents by what is buffered.
    pub bytes_read: AtomicU64,
    /// Size of all files when they were found. Standard input counts 0: its size is not known.
    pub bytes_total: u64,
}

/// The user's options for reading files.
#[derive(Debug, Clone, Default)]
pub struct SourceOptions {
    /// The format of standard input (where it is required) and of files named one by one. Default: by the extension; of
    /// a file that is named and has none that is known, by how it begins.
    pub format: Option<Format>,
    /// Which fields of JSON and CSV are what. Default: [`FieldMap::default`].
    pub fields: FieldMap,
    /// Keeps of web pages what is left out otherwise: menus, the page's header and footer, hidden parts. Default: no.
    pub keep_menus: bool,
}

/// The documents of all paths, in order: paths as given, folders by name.
///
/// ```
/// use distilface::source::{SourceOptions, Sources};
///
/// let dir = tempfile::tempdir().unwrap();
/// let path = dir.path().join("films.jsonl");
/// std::fs::write(&path, r#"{"id": "1", "text": "A whale hunts.", "year": 1956}"#).unwrap();
///
/// let mut sources = Sources::open(&[path], SourceOptions::default()).unwrap();
/// let document = sources.next().unwrap().unwrap();
/// assert_eq!((document.id.as_str(), document.text.as_str()), ("1", "A whale hunts."));
/// assert!(document.payload.contains_key("year"));
/// assert!(sources.next().is_none());
/// ```
pub struct Sources {
    waiting: VecDeque<Result<Input, SourceError>>,
    current: Option<Documents>,
    left_out: LeftOut,
    progress: Arc<Progress>,
    whole: Arc<WholeFiles>,
    fields: Arc<FieldMap>,
    understood: Arc<UnderstoodFiles>,
    remarks: Arc<Remarks>,
    /// Whether there is no other source.
    alone: bool,
    keep_menus: bool,
    stdin: Option<Box<dyn Read + Send>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

type Documents = Box<dyn Iterator<Item = Result<SourceDocument, SourceError>> + Send>;

/// One file (or standard input) that is to be read.
#[derive(Debug)]
struct Input {
    /// `None`: standard input.
    path: Option<PathBuf>,
    /// Its name in messages.
    name: String,
    /// The path below the folder that was given, with `/`; a single file's name; empty for standard input.
    relative: String,
    /// `None` means that its beginning decides.
    format: Option<Format>,
}

impl Sources {
    /// Finds the files; reads nothing yet. `-` is standard input.
    ///
    /// # Errors
    /// A path that does not exist; `-` without a format or twice; a type for what is the id, the title or the text.
    pub fn open(paths: &[PathBuf], options: SourceOptions) -> Result<Self, SourceError> {
        Self::open_with_stdin(paths, options, Box::new(std::io::stdin()))
    }

    fn open_with_stdin(
        paths: &[PathBuf],
        options: SourceOptions,
        stdin: Box<dyn Read + Send>,
    ) -> Result<Self, SourceError> {
        let found = walk::find(paths, options.format)?;
        // Front matter may have a field of any name, and what has no known ending may be Markdown.
        let markdown = |input: &Result<Input, _>| {
            matches!(input, Ok(Input { format: None | Some(Format::Markdown), .. }))
        };
        if !found.inputs.iter().any(markdown) {
            options.fields.check_types()?;
        }
        Ok(Sources {
            alone: found.inputs.len() == 1,
            waiting: found.inputs,
            current: None,
            left_out: found.left_out,
            progress: Arc::new(Progress { bytes_read: AtomicU64::new(0), bytes_total: found.bytes_total }),
            whole: Arc::new(found.whole),
            remarks: Arc::new(Remarks::new(&options.fields.types)),
            fields: Arc::new(options.fields),
            understood: Arc::default(),
            keep_menus: options.keep_menus,
            stdin: Some(stdin),
        })
    }

    /// Shared with a progress bar.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// How the columns of tables and the fields of JSON were understood; filled while the sequence is read, and shared
    /// with the code that reports it. A file's entry exists before its first document.
    pub fn understood(&self) -> Arc<UnderstoodFiles> {
        Arc::clone(&self.understood)
    }

    /// What is remarked on files and fields; complete when the sequence is read.
    pub fn remarks(&self) -> Arc<Remarks> {
        Arc::clone(&self.remarks)
    }

    /// The files that become one document each. Complete from the start.
    pub fn whole_files(&self) -> Arc<WholeFiles> {
        Arc::clone(&self.whole)
    }

    /// What folders have and is not read. Complete from the start.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Whether nothing was found that could be read. Only before the first document.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn start(&mut self, input: Input) -> Result<Documents, SourceError> {
        let fields = Arc::clone(&self.fields);
        let understood = Arc::clone(&self.understood);
        let opened = match &input.path {
            Some(path) => Opened::path(path).map_err(|reason| SourceError::new(&input.name, None, reason))?,
            None => {
                let raw = self.stdin.take().expect("`walk::find` refuses a second `-`");
                Opened { raw, again: false }
            }
        };
        let counted = Box::new(Counted { inner: opened.raw, progress: Arc::clone(&self.progress) });
        let begin = |raw, wait| {
            open::text(raw, open::packing(&input.relative), wait).map_err(|refused| {
                SourceError::new(&input.name, Some(1).filter(|_| refused.in_text), refused.text)
            })
        };
        let text = begin(counted, opened.again)?;
        let format = input.format.unwrap_or_else(|| Format::of_head(&text.head));
        let table = match format {
            Format::Text | Format::Markdown | Format::Html => {
                let keep_menus = self.keep_menus;
                let remarks = Arc::clone(&self.remarks);
                let read = move || text::document(&input, format, text, &fields, keep_menus, &remarks);
                return Ok(Box::new(std::iter::once_with(read)));
            }
            Format::JsonLines | Format::Json => {
                let reading = json::Reading { file: input.name, fields, understood, noted: false };
                return Ok(match format {
                    Format::JsonLines => Box::new(json::Lines::new(reading, text)),
                    _ => json::documents(reading, text),
                });
            }
            Format::Csv => table::Kind::Csv,
            Format::Tsv => table::Kind::Tsv,
        };
        let first = match &input.path {
            Some(path) if opened.again => {
                let again =
                    Opened::path(path).map_err(|reason| SourceError::new(&input.name, None, reason))?;
                Some(begin(again.raw, true)?)
            }
            _ => None,
        };
        let table = table::Table {
            file: input.name,
            kind: table,
            fields,
            understood,
            bytes_max: RECORD_BYTES_MAX,
            alone: self.alone,
        };
        Ok(match first {
            Some(first) => table.twice(first, text),
            None => table.once(text),
        })
    }
}

/// Bytes of a file or a pipe.
struct Opened {
    raw: Box<dyn Read + Send>,
    /// Whether it can be opened again and gives the same.
    again: bool,
}

impl Opened {
    fn path(path: &std::path::Path) -> Result<Self, String> {
        let opened = std::fs::File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|e| format!("cannot open it: {e}"))?;
        if metadata.is_dir() {
            return Err("a folder, where a file was".into());
        }
        Ok(Opened { raw: Box::new(file), again: metadata.is_file() })
    }
}

impl Iterator for Sources {
    type Item = Result<SourceDocument, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(document) = self.current.as_mut().and_then(Iterator::next) {
                self.remarks.see(&document);
                return Some(document);
            }
            self.current = None;
            match self.waiting.pop_front()?.and_then(|input| self.start(input)) {
                Ok(documents) => self.current = Some(documents),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

struct Counted {
    inner: Box<dyn Read + Send>,
    progress: Arc<Progress>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.progress.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}
