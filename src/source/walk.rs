//! Paths -> the files to read, in order.
//!
//! From a folder all files of a known kind are taken, by name; hidden ones and links that lead back up are left out, and
//! so is `.json`, which in a folder is more often settings than text. A folder in BEIR layout (`corpus.jsonl` beside
//! `queries.jsonl`) gives its corpus only.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::{Path, PathBuf},
};

use walkdir::{DirEntry, WalkDir};

use super::{Format, Input, SourceError, text::extension};

pub(super) struct Found {
    pub(super) inputs: VecDeque<Result<Input, SourceError>>,
    /// Unknown extensions, and how many files of each were left out.
    pub(super) skipped: BTreeMap<String, u64>,
    pub(super) bytes_total: u64,
}

/// Finds the files of all paths; only their sizes are read.
pub(super) fn find(paths: &[PathBuf], format: Option<Format>) -> Result<Found, SourceError> {
    let mut found = Found { inputs: VecDeque::new(), skipped: BTreeMap::new(), bytes_total: 0 };
    let mut ids = HashMap::new();
    for path in paths {
        let name = path.display().to_string();
        if name == "-" {
            let Some(format) = format else {
                let reason = "standard input needs --format (text, markdown, html, jsonl, json, csv or tsv)";
                return Err(SourceError::new("standard input", None, reason));
            };
            let again = |input: &Result<Input, _>| matches!(input, Ok(Input { path: None, .. }));
            if found.inputs.iter().any(again) {
                return Err(SourceError::new("standard input", None, "`-` is given twice"));
            }
            let input = Input { path: None, name: "standard input".into(), relative: String::new(), format };
            found.inputs.push_back(Ok(input));
            continue;
        }
        let metadata = std::fs::metadata(path)
            .map_err(|e| SourceError::new(&name, None, format!("cannot open it: {e}")))?;
        if metadata.is_dir() {
            for entry in entries(path) {
                match entry {
                    Ok((relative, entry)) => {
                        let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
                        let format = extension(&relative).and_then(|e| Format::of_extension(&e));
                        let format = format.filter(|format| *format != Format::Json);
                        found.add(&mut ids, entry.into_path(), relative, format, bytes);
                    }
                    Err(error) => found.inputs.push_back(Err(error)),
                }
            }
        } else {
            match path.file_name().and_then(|name| name.to_str()) {
                Some(file_name) => {
                    let format = format.or_else(|| Format::of_extension(&extension(file_name)?));
                    found.add(&mut ids, path.clone(), file_name.to_owned(), format, metadata.len());
                }
                None => found.inputs.push_back(Err(SourceError::new(&name, None, "its name is not UTF-8"))),
            }
        }
    }
    Ok(found)
}

impl Found {
    fn add(
        &mut self,
        ids: &mut HashMap<String, String>,
        path: PathBuf,
        relative: String,
        format: Option<Format>,
        bytes: u64,
    ) {
        let Some(format) = format else {
            *self.skipped.entry(extension(&relative).unwrap_or_default()).or_default() += 1;
            return;
        };
        let name = path.display().to_string();
        if matches!(format, Format::Text | Format::Markdown | Format::Html) {
            if let Some(first) = ids.get(&relative) {
                let reason = format!(
                    "it would have the same id ({relative:?}) as {first}; give the folder that holds both instead"
                );
                self.inputs.push_back(Err(SourceError::new(&name, None, reason)));
                return;
            }
            ids.insert(relative.clone(), name.clone());
        }
        self.bytes_total += bytes;
        self.inputs.push_back(Ok(Input { path: Some(path), name, relative, format }));
    }
}

/// The files below a folder, each with its path from there.
fn entries(folder: &Path) -> impl Iterator<Item = Result<(String, DirEntry), SourceError>> {
    let hidden =
        |entry: &DirEntry| entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".");
    let walk = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
    walk.filter_entry(move |entry| !hidden(entry) && !beside_corpus(entry)).filter_map(move |entry| {
        match entry {
            Ok(entry) if entry.file_type().is_file() => match relative(folder, entry.path()) {
                Some(relative) => Some(Ok((relative, entry))),
                None => {
                    let name = entry.path().display().to_string();
                    Some(Err(SourceError::new(&name, None, "its name is not UTF-8")))
                }
            },
            Ok(_) => None,
            Err(e) if e.loop_ancestor().is_some() => None,
            Err(e) => {
                let name = e.path().unwrap_or(folder).display().to_string();
                let reason = e.io_error().map_or_else(|| e.to_string(), ToString::to_string);
                Some(Err(SourceError::new(&name, None, format!("cannot open it: {reason}"))))
            }
        }
    })
}

/// Queries and judgements of a data set in BEIR layout: they are no documents.
fn beside_corpus(entry: &DirEntry) -> bool {
    let path = entry.path();
    let Some(folder) = path.parent().filter(|_| entry.depth() > 0) else { return false };
    let name = entry.file_name().to_string_lossy();
    let suspect =
        name == "qrels" || name.ends_with(".tsv") || (name.ends_with(".jsonl") && name != "corpus.jsonl");
    suspect && folder.join("corpus.jsonl").is_file() && folder.join("queries.jsonl").is_file()
}

/// The path from the folder, with `/`; `None` if it is not UTF-8.
fn relative(folder: &Path, path: &Path) -> Option<String> {
    let parts = path.strip_prefix(folder).ok()?.components().map(|part| part.as_os_str().to_str());
    Some(parts.collect::<Option<Vec<_>>>()?.join("/"))
}
