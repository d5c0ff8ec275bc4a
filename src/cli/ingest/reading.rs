//! The flags that say what is read give the records for the pump.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use super::{
    batch::{Fault, Record},
    origin::{FOLDER_FIELD, folder_value},
};
use crate::{
    api::convert::value::payload_to,
    cli::{failure::usage, layout},
    proto::{Document, Vector},
    source::{
        FieldMap, Format, LeftOut, Progress, Remarks, SourceDocument, SourceOptions, Sources,
        UnderstoodFiles, ValueType, WholeFiles,
    },
};

/// Payload field with the id of a whole file; the reader writes its path there.
const PATH_FIELD: &str = "path";

/// What is read, and which of its fields are what.
#[derive(Debug, clap::Args)]
pub struct SourceArgs {
    /// Folders, files (.txt .md .html .jsonl .json .csv .tsv, each also .gz or .zst), or - for stdin
    #[arg(required = true, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Form of stdin and of files named one by one: text, markdown, html, jsonl, json, csv or tsv
    /// [default: by the file's name; jsonl for stdin]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Field with the document's id [default: id, _id or doc_id, else made from the content]
    #[arg(long, value_name = "FIELD")]
    id_field: Option<String>,
    /// Field with the title [default: title]
    #[arg(long, value_name = "FIELD")]
    title_field: Option<String>,
    /// Field with the text [default: text, body, content or abstract]
    #[arg(long, value_name = "FIELD")]
    text_field: Option<String>,
    /// Field with a vector, for collections without an encoder [default: vector]
    #[arg(long, value_name = "FIELD")]
    vector_field: Option<String>,
    /// Read a field as string, integer, float, bool or datetime; may be repeated
    #[arg(long = "type", value_name = "FIELD=TYPE", value_parser = field_type)]
    types: Vec<(String, ValueType)>,
    /// Put this and a / in front of the ids of text, Markdown and HTML files, which else are their paths below the
    /// folder that is given: keeps files of the same name from two folders apart
    #[arg(long, value_name = "PREFIX", value_parser = id_prefix)]
    id_prefix: Option<String>,
    /// Keep what is left out of web pages: menus (<nav>), the page's <header> and <footer>, hidden parts
    #[arg(long)]
    keep_menus: bool,
}

/// Not empty, and without the `/` that is put behind it.
fn id_prefix(given: &str) -> Result<String, String> {
    match given.trim_end_matches('/') {
        "" => Err("it is empty; give a word such as the folder's name".to_owned()),
        prefix => Ok(prefix.to_owned()),
    }
}

/// `FIELD=TYPE`. The last `=` counts, since field names may hold one and types do not.
pub fn field_type(given: &str) -> Result<(String, ValueType), String> {
    let (field, kind) = given.rsplit_once('=').filter(|(field, _)| !field.is_empty()).ok_or_else(|| {
        "give FIELD=TYPE, such as year=integer; types: string, integer, float, bool, datetime".to_owned()
    })?;
    Ok((field.to_owned(), kind.parse()?))
}

impl SourceArgs {
    /// Finds what is to be read.
    ///
    /// # Errors
    /// A path that does not exist: wrong use.
    pub fn open(&self) -> anyhow::Result<Source> {
        let stdin = self.paths.iter().any(|path| path.as_os_str() == "-");
        let options = SourceOptions {
            format: self.format.or((stdin && self.paths.len() == 1).then_some(Format::JsonLines)),
            fields: FieldMap {
                id: self.id_field.clone(),
                title: self.title_field.clone(),
                text: self.text_field.clone(),
                vector: self.vector_field.clone(),
                types: self.types.iter().cloned().collect::<BTreeMap<_, _>>(),
                ..FieldMap::default()
            },
            keep_menus: self.keep_menus,
        };
        let sources = Sources::open(&self.paths, options).map_err(|error| usage(error.to_string()))?;
        let (progress, files) = (sources.progress(), sources.whole_files());
        Ok(Source { progress, files: Files { files, prefix: self.id_prefix.clone() }, sources, stdin })
    }
}

/// Files that were found and not yet read.
pub struct Source {
    sources: Sources,
    progress: Arc<Progress>,
    files: Files,
    stdin: bool,
}

/// The files that become one document each, and how their ids are made.
#[derive(Debug, Clone)]
pub struct Files {
    files: Arc<WholeFiles>,
    prefix: Option<String>,
}

impl Files {
    /// All of them.
    pub fn whole(&self) -> &WholeFiles {
        &self.files
    }

    /// Whether a file that is there now has this id: one that was found, or one that is left out where the whole folder
    /// is read, such as a hidden one, and was named by itself before.
    pub fn has(&self, folder: &str, id: &str) -> bool {
        let relative = match &self.prefix {
            None => Some(id),
            Some(prefix) => id.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_prefix('/')),
        };
        relative.is_some_and(|relative| {
            self.files.has(folder, relative) || Path::new(folder).join(relative).is_file()
        })
    }

    fn record(&self, read: SourceDocument) -> Record {
        let SourceDocument { mut id, title, text, payload, vector, place } = read;
        let mut payload = payload_to(&payload);
        let folder = self.files.folder_of(&id, &place).cloned();
        if let Some(folder) = &folder {
            if let Some(prefix) = &self.prefix {
                id = format!("{prefix}/{id}");
                payload.insert(PATH_FIELD.to_owned(), folder_value(&id));
            }
            if let Some(front) = payload.insert(FOLDER_FIELD.to_owned(), folder_value(folder)) {
                payload.insert(format!("front_matter.{FOLDER_FIELD}"), front);
            }
        }
        let vector = vector.map(|values| Vector { values });
        Record {
            place,
            document: Document { id, title, text, payload, vector, expected_version: None },
            folder,
        }
    }
}

impl Source {
    /// How the columns of files were understood, as they are opened.
    pub fn understood(&self) -> Arc<UnderstoodFiles> {
        self.sources.understood()
    }

    /// What is remarked on files and fields; complete when all is read.
    pub fn remarks(&self) -> Arc<Remarks> {
        self.sources.remarks()
    }

    /// The files that become one document each.
    pub fn files(&self) -> Files {
        self.files.clone()
    }

    /// Bytes of all files; `None` where stdin is among them.
    pub fn bytes_total(&self) -> Option<u64> {
        (!self.stdin).then_some(self.progress.bytes_total)
    }

    /// Whether there is nothing to read at all.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// What folders have and is not read, in words.
    pub fn left_out(&self) -> Vec<String> {
        let LeftOut { kinds, hidden, beside_corpus } = self.sources.left_out();
        let mut told = Vec::new();
        if !beside_corpus.is_empty() {
            let names = beside_corpus.iter().take(8).map(|name| layout::one_line(name)).collect::<Vec<_>>();
            let more = if beside_corpus.len() > 8 { ", and others" } else { "" };
            told.push(format!(
                "left out the queries and judgements beside corpus.jsonl, which are no documents: {}{more}",
                names.join(", ")
            ));
        }
        if !kinds.is_empty() {
            let files = layout::counted(kinds.values().sum(), "file");
            let names = kinds.iter().take(8).map(|(extension, n)| match extension.as_str() {
                "" => format!("{n} without extension"),
                extension => format!("{n} .{extension}"),
            });
            let names = names.collect::<Vec<_>>().join(", ");
            let more = if kinds.len() > 8 { ", and others" } else { "" };
            told.push(format!("left out {files} of a kind that is not read: {names}{more}"));
        }
        if *hidden > 0 {
            let hidden = layout::counted_as(*hidden, "hidden file or folder", "hidden files and folders");
            told.push(format!("left out {hidden} (with a dot before the name)"));
        }
        told
    }

    /// Each record or fault with the bytes that were read by then.
    pub fn records(self) -> impl Iterator<Item = (Result<Record, Fault>, u64)> + Send {
        let Source { sources, progress, files, .. } = self;
        sources.map(move |read| {
            let record = read.map(|read| files.record(read)).map_err(|error| {
                let place = match error.line {
                    Some(line) => format!("{}:{line}", error.file),
                    None => error.file,
                };
                Fault { place, reason: error.reason, wrong_use: error.wrong_use }
            });
            (record, progress.bytes_read.load(Ordering::Relaxed))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_and_its_type_are_read_at_the_last_equals_sign() {
        assert_eq!(field_type("year=integer").unwrap(), ("year".into(), ValueType::Integer));
        assert_eq!(field_type("a=b=bool").unwrap(), ("a=b".into(), ValueType::Bool));
        for bad in ["year", "=integer", "year=number", ""] {
            assert!(field_type(bad).unwrap_err().contains("integer"), "{bad}");
        }
    }

    #[test]
    fn a_prefix_is_a_word_without_the_slash_behind_it() {
        assert_eq!((id_prefix("b/").unwrap(), id_prefix("x/y").unwrap()), ("b".into(), "x/y".into()));
        assert!(id_prefix("/").is_err() && id_prefix("").is_err());
    }
}
