//! Finds the files to read from paths, in order.
//!
//! From a folder all files of a known kind are taken, by name, those packed with gzip or zstd among them; hidden ones are
//! left out, and what is left out is counted. A file that is named is taken whatever its name. A folder in BEIR layout (`corpus.jsonl` beside
//! `queries.jsonl`) gives its corpus only. Links are followed, but no file is taken twice from one folder: a link to what
//! lies in the folder anyway, or that leads back up, or to what another link led to, is left out.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};

use walkdir::{DirEntry, WalkDir};

use super::{
    Format, Input, SourceError,
    text::{content_extension, extension, unpacked_name},
    whole::{self, WholeFiles},
};

pub(super) struct Found {
    pub(super) inputs: VecDeque<Result<Input, SourceError>>,
    pub(super) left_out: LeftOut,
    pub(super) bytes_total: u64,
    pub(super) whole: WholeFiles,
}

/// What folders have and is not read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Files whose extension is not known: how many of each (without an extension: "").
    pub kinds: BTreeMap<String, u64>,
    /// Files and folders whose names begin with a dot; what is in such a folder is not counted.
    pub hidden: u64,
    /// Names of the queries and judgements beside a corpus.
    pub beside_corpus: Vec<String>,
}

/// Finds the files of all paths; only their sizes are read.
pub(super) fn find(paths: &[PathBuf], format: Option<Format>) -> Result<Found, SourceError> {
    let mut found = Found {
        inputs: VecDeque::new(),
        left_out: LeftOut::default(),
        bytes_total: 0,
        whole: WholeFiles::default(),
    };
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
            let name = "standard input".into();
            let input = Input { path: None, name, relative: String::new(), format: Some(format) };
            found.inputs.push_back(Ok(input));
            continue;
        }
        let metadata = std::fs::metadata(path)
            .map_err(|e| SourceError::new(&name, None, format!("cannot open it: {e}")))?;
        if metadata.is_dir() {
            let folder = whole::folder_name(path);
            let mut complete = true;
            let left_out = RefCell::new(std::mem::take(&mut found.left_out));
            for entry in entries(path, &left_out) {
                match entry {
                    Ok((relative, entry)) => {
                        let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
                        match of_name(&relative) {
                            Some(format) => {
                                found.add(&folder, entry.into_path(), relative, Some(format), bytes);
                            }
                            None => {
                                let kind = extension(&relative).unwrap_or_default();
                                *left_out.borrow_mut().kinds.entry(kind).or_default() += 1;
                            }
                        }
                    }
                    Err(error) => {
                        complete = false;
                        found.inputs.push_back(Err(error));
                    }
                }
            }
            found.left_out = left_out.into_inner();
            found.whole.walked(&folder, complete);
        } else {
            match path.file_name().and_then(|name| name.to_str()) {
                Some(file_name) => {
                    let format = format.or_else(|| of_name(file_name));
                    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
                    let folder = whole::folder_name(above.unwrap_or(Path::new(".")));
                    let relative = whole::composed(file_name).into_owned();
                    found.add(&folder, path.clone(), relative, format, metadata.len());
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
        folder: &Arc<str>,
        path: PathBuf,
        relative: String,
        format: Option<Format>,
        bytes: u64,
    ) {
        let name = path.display().to_string();
        if matches!(format, None | Some(Format::Text | Format::Markdown | Format::Html))
            && let Err(first) = self.whole.note(&relative, folder, &name)
        {
            let reason = format!(
                "it would have the same id ({relative:?}) as {first}; give the folder that holds both instead"
            );
            self.inputs.push_back(Err(SourceError::new(&name, None, reason)));
            return;
        }
        self.bytes_total += bytes;
        self.inputs.push_back(Ok(Input { path: Some(path), name, relative, format }));
    }
}

fn of_name(name: &str) -> Option<Format> {
    Format::of_extension(&content_extension(name)?)
}

/// The files below a folder, each with its path from there.
fn entries(
    folder: &Path,
    left_out: &RefCell<LeftOut>,
) -> impl Iterator<Item = Result<(String, DirEntry), SourceError>> {
    let hidden = |entry: &DirEntry| {
        let hidden = entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".");
        left_out.borrow_mut().hidden += u64::from(hidden);
        hidden
    };
    let beside_corpus = |entry: &DirEntry| {
        let beside = beside_corpus(entry);
        if beside {
            let name = entry.file_name().to_string_lossy().into_owned();
            left_out.borrow_mut().beside_corpus.push(name);
        }
        beside
    };
    let walk = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
    let mut once = Once::below(folder);
    walk.filter_entry(move |entry| !hidden(entry) && !beside_corpus(entry) && once.takes(entry)).filter_map(
        move |entry| match entry {
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
        },
    )
}

/// Leaves out what links would give a second time. Without links it asks the system nothing.
struct Once {
    /// Real path of the folder, without links.
    root: PathBuf,
    /// Real paths of what was reached by links. Empty until the first link is followed.
    reached: HashSet<PathBuf>,
}

impl Once {
    fn below(folder: &Path) -> Self {
        let root = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        Once { root, reached: HashSet::new() }
    }

    fn takes(&mut self, entry: &DirEntry) -> bool {
        let link = entry.depth() > 0 && entry.path_is_symlink();
        if !link && self.reached.is_empty() {
            return true;
        }
        let Ok(real) = entry.path().canonicalize() else { return true };
        // A link may give a file a name that says what is in it.
        let kind = |path: &Path| of_name(&path.to_string_lossy());
        let shown = |path: &Path| {
            path.iter().all(|part| !part.as_encoded_bytes().starts_with(b"."))
                && (!entry.file_type().is_file() || kind(path).is_some())
        };
        match real.strip_prefix(&self.root) {
            // What is not behind a link is walked once as it is, and so a link to it is not needed.
            Ok(inside) if shown(inside) => !link,
            _ if link && self.root.starts_with(&real) => false,
            _ => self.reached.insert(real),
        }
    }
}

/// Queries and judgements of a data set in BEIR layout: they are no documents.
fn beside_corpus(entry: &DirEntry) -> bool {
    let path = entry.path();
    let Some(folder) = path.parent().filter(|_| entry.depth() > 0) else { return false };
    let name = entry.file_name().to_string_lossy();
    let unpacked = unpacked_name(&name);
    let suspect = name == "qrels"
        || unpacked.ends_with(".tsv")
        || (unpacked.ends_with(".jsonl") && unpacked != "corpus.jsonl");
    let has = |name: &str| {
        ["", ".gz", ".zst"].iter().any(|packed| folder.join(format!("{name}{packed}")).is_file())
    };
    suspect && has("corpus.jsonl") && has("queries.jsonl")
}

/// The path from the folder, with `/` and composed; `None` if it is not UTF-8.
fn relative(folder: &Path, path: &Path) -> Option<String> {
    let parts = path.strip_prefix(folder).ok()?.components().map(|part| part.as_os_str().to_str());
    Some(whole::composed(&parts.collect::<Option<Vec<_>>>()?.join("/")).into_owned())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, *name).unwrap();
        }
        folder
    }

    fn found(folder: &Path) -> Vec<String> {
        let found = find(&[folder.to_owned()], None).unwrap();
        let mut names: Vec<String> = found.inputs.into_iter().map(|input| input.unwrap().relative).collect();
        names.sort();
        names
    }

    #[test]
    fn a_link_to_what_is_in_the_folder_gives_nothing_twice() {
        let folder = folder(&["real/a.txt", "real/deep/b.md", "data.log", ".hidden/h.txt"]);
        let at = |name: &str| folder.path().join(name);
        symlink(at("real"), at("a-link-before")).unwrap();
        symlink(at("real/deep"), at("z-link")).unwrap();
        symlink(at("real/a.txt"), at("again.txt")).unwrap();
        assert_eq!(found(folder.path()), ["real/a.txt", "real/deep/b.md"]);
        // What is not read under its own name is read under the link's, and once.
        symlink(at("data.log"), at("log.txt")).unwrap();
        symlink(at(".hidden"), at("shown")).unwrap();
        symlink(at(".hidden"), at("shown-again")).unwrap();
        assert_eq!(found(folder.path()), ["log.txt", "real/a.txt", "real/deep/b.md", "shown/h.txt"]);
        // The folder itself may be given by a link.
        symlink(folder.path(), at("real/self")).unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(folder.path(), outside.path().join("l")).unwrap();
        assert_eq!(found(&outside.path().join("l")), found(folder.path()));
    }

    #[test]
    fn what_links_reach_outside_comes_once_and_circles_end() {
        let outside = folder(&["x/one.txt", "x/sub/two.txt"]);
        let folder = folder(&["own.txt"]);
        let (at, there) = (|name: &str| folder.path().join(name), |name: &str| outside.path().join(name));
        symlink(there("x/sub"), at("a")).unwrap();
        symlink(there("x"), at("b")).unwrap();
        symlink(there("x/one.txt"), at("c.txt")).unwrap();
        // Every folder out there leads to every other, and back.
        for name in ["k", "l", "m", "n", "o", "p", "q", "r"] {
            fs::create_dir(there(&format!("x/{name}"))).unwrap();
            symlink(there("x"), there(&format!("x/{name}/up"))).unwrap();
            symlink(folder.path(), there(&format!("x/{name}/home"))).unwrap();
            for other in ["k", "l", "m", "n", "o", "p", "q", "r"] {
                symlink(there(&format!("x/{other}")), there(&format!("x/{name}/to-{other}"))).unwrap();
            }
        }
        assert_eq!(found(folder.path()), ["a/two.txt", "b/one.txt", "own.txt"]);
    }

    #[test]
    fn of_a_judged_collection_only_the_corpus_is_taken_however_it_is_packed() {
        for packed in ["", ".gz", ".zst"] {
            let names = ["corpus.jsonl", "queries.jsonl", "qrels.tsv"].map(|name| format!("{name}{packed}"));
            let folder = folder(&[&names[0], &names[1], &names[2], "qrels/test.tsv", "read.md"]);
            assert_eq!(found(folder.path()), [names[0].as_str(), "read.md"]);
        }
    }

    #[test]
    fn ids_are_composed_and_files_open_all_the_same() {
        let folder = folder(&["Cafe\u{301}/nai\u{308}ve.txt"]);
        let found = find(&[folder.path().to_owned()], None).unwrap();
        let input = found.inputs[0].as_ref().unwrap();
        assert_eq!(input.relative, "Caf\u{e9}/na\u{ef}ve.txt");
        assert!(fs::read(input.path.as_ref().unwrap()).is_ok());
        let alone = folder.path().join("Cafe\u{301}/nai\u{308}ve.txt");
        let found = find(&[alone], None).unwrap();
        assert_eq!(found.inputs[0].as_ref().unwrap().relative, "na\u{ef}ve.txt");
    }
}
