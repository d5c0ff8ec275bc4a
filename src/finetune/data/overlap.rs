//! Finds held-out texts, on which a model will be judged, in training texts.
//!
//! A training text overlaps a held-out one if, looking at letters and digits only and ignoring case,
//!
//! 1. both are the same;
//! 2. it contains the held-out text as a run of words, if that has [`GuardSettings::contained_words`] or more (shorter
//!    ones, "What is it?", stand in anything);
//! 3. both share a run of [`GuardSettings::overlap_words`] words (as Brown et al. 2020, appendix C, do with 13 words
//!    for whole documents); or
//! 4. their shingles' Jaccard similarity is [`GuardSettings::jaccard`] or more.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    DataError,
    guard::GuardSettings,
    near::NearIndex,
    words::{HashedMap, Words, mix},
};
use crate::eval::{beir, rows::Rows};

/// The texts, by the set they belong to.
#[derive(Debug, Clone, Default)]
pub struct HeldOut {
    sets: Vec<(String, Vec<String>)>,
}

/// The number of texts that a set holds out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldOutCount {
    /// Name of the set.
    pub name: String,
    /// Number of texts that it holds out.
    pub texts: usize,
}

impl HeldOut {
    /// Nothing is held out yet.
    pub fn new() -> Self {
        HeldOut::default()
    }

    /// Adds a set.
    pub fn add(&mut self, name: impl Into<String>, texts: Vec<String>) {
        self.sets.push((name.into(), texts));
    }

    /// Adds the sentences of every STS set of a folder: files in TSV whose header has `sentence1` and `sentence2`,
    /// but not those whose name ends in `-train`.
    ///
    /// # Errors
    /// [`DataError`] if the folder cannot be read, has no such file, or a file of it is not as said.
    pub fn add_sts(&mut self, dir: &Path) -> Result<(), DataError> {
        let unread = |source| DataError::Read { path: dir.to_owned(), source };
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(unread)? {
            files.push(entry.map_err(unread)?.path());
        }
        files.sort();
        let mut found = false;
        for path in files {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(name) = name.strip_suffix(".gz").unwrap_or(&name).strip_suffix(".tsv") else { continue };
            if name.ends_with("-train") {
                continue;
            }
            self.add(name, sts_sentences(&path)?);
            found = true;
        }
        if !found {
            let reason = "it has no .tsv file; a folder of STS sets is needed".to_owned();
            return Err(DataError::File { path: dir.to_owned(), reason });
        }
        Ok(())
    }

    /// Adds the queries of a folder in BEIR layout, and its documents if `documents` says so.
    ///
    /// Documents are normally left out: a retrieval model may train on the texts it will search, not on the questions.
    ///
    /// # Errors
    /// [`DataError`] naming the file.
    pub fn add_beir(&mut self, dir: &Path, documents: bool) -> Result<(), DataError> {
        let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy();
        self.add(format!("{name} queries"), beir::queries(dir)?);
        if documents {
            let documents = beir::documents(&beir::corpus_path(dir)?)?;
            let texts = documents.into_iter().flat_map(|d| [d.title, d.text]);
            self.add(format!("{name} documents"), texts.filter(|text| !text.trim().is_empty()).collect());
        }
        Ok(())
    }

    /// The counts of each set.
    pub fn counts(&self) -> Vec<HeldOutCount> {
        let count =
            |(name, texts): &(String, Vec<String>)| HeldOutCount { name: name.clone(), texts: texts.len() };
        self.sets.iter().map(count).collect()
    }
}

fn sts_sentences(path: &Path) -> Result<Vec<String>, DataError> {
    let mut rows = Rows::open(path)?;
    let (_, header) = rows.next().transpose()?.unwrap_or_default();
    let header: Vec<&str> = header.split('\t').collect();
    let at = |name| header.iter().position(|column| *column == name);
    let (Some(first), Some(second)) = (at("sentence1"), at("sentence2")) else {
        return Err(DataError::line(
            path,
            1,
            "a header with the columns sentence1 and sentence2 was expected",
        ));
    };
    let mut texts = Vec::new();
    for row in rows {
        let (number, line) = row?;
        let cells: Vec<&str> = line.split('\t').collect();
        let (Some(one), Some(other)) = (cells.get(first), cells.get(second)) else {
            let reason = format!("{} columns, where {} were expected", cells.len(), header.len());
            return Err(DataError::line(path, number, reason));
        };
        texts.extend([(*one).to_owned(), (*other).to_owned()]);
    }
    Ok(texts)
}

/// Held-out texts, ready to be looked for.
#[derive(Debug)]
pub(super) struct HeldOutIndex<'a> {
    /// Set and text, by number.
    texts: Vec<(&'a str, &'a str)>,
    equal: HashedMap<u32>,
    /// Runs of words that no training text may hold, by hash.
    runs: HashedMap<u32>,
    /// Whether there is a run of so many words.
    lengths: Vec<bool>,
    near: NearIndex,
    shingle_words: usize,
}

/// An overlap that was found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Overlap<'a> {
    pub(super) set: &'a str,
    pub(super) text: &'a str,
    pub(super) how: How,
}

/// The way in which two texts overlap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum How {
    Equal,
    /// They share a run of so many words.
    Run(usize),
    /// Their shingles have this Jaccard similarity.
    Near(f64),
}

impl<'a> HeldOutIndex<'a> {
    pub(super) fn new(held_out: &'a HeldOut, settings: &GuardSettings) -> Self {
        let all = || held_out.sets.iter().flat_map(|(set, texts)| texts.iter().map(move |text| (set, text)));
        let mut index = HeldOutIndex {
            texts: Vec::new(),
            equal: HashedMap::default(),
            runs: HashedMap::default(),
            lengths: vec![false; settings.overlap_words + 1],
            near: NearIndex::new(settings.jaccard, all().count()),
            shingle_words: settings.shingle_words,
        };
        for (set, text) in all() {
            let words = Words::of(text);
            let number = u32::try_from(index.texts.len()).expect("texts in memory are fewer than 2^32");
            // STS sets repeat sentences; one of each is enough to find them all.
            if words.words.is_empty() || index.equal.contains_key(&words.letters) {
                continue;
            }
            index.equal.insert(words.letters, number);
            let width = settings.overlap_words.min(words.words.len());
            if width >= settings.contained_words {
                index.lengths[width] = true;
                for run in words.words.windows(width) {
                    index.runs.entry(run_hash(run)).or_insert(number);
                }
            }
            let shingles = index.shingles(&words);
            let keys = index.near.keys(&shingles);
            index.near.add(&shingles, &keys);
            index.texts.push((set, text));
        }
        index
    }

    /// The first way of the list above in which `words` overlap a held-out text.
    pub(super) fn find(&self, words: &Words) -> Option<Overlap<'a>> {
        if words.words.is_empty() || self.texts.is_empty() {
            return None;
        }
        let overlap = |number: usize, how| {
            let (set, text) = self.texts[number];
            Some(Overlap { set, text, how })
        };
        if let Some(number) = self.equal.get(&words.letters) {
            return overlap(*number as usize, How::Equal);
        }
        for start in 0..words.words.len() {
            let mut hash = RUN_START;
            for (i, word) in words.words[start..].iter().take(self.lengths.len() - 1).enumerate() {
                hash = run_step(hash, *word);
                if self.lengths[i + 1]
                    && let Some(number) = self.runs.get(&mix(hash))
                {
                    return overlap(*number as usize, How::Run(i + 1));
                }
            }
        }
        let shingles = self.shingles(words);
        let (number, similarity) = self.near.find(&shingles, &self.near.keys(&shingles))?;
        overlap(number, How::Near(similarity))
    }

    fn shingles(&self, words: &Words) -> Vec<u32> {
        let mut shingles = Vec::with_capacity(words.words.len());
        words.shingle(self.shingle_words, 0, &mut shingles);
        shingles.sort_unstable();
        shingles.dedup();
        shingles
    }
}

const RUN_START: u64 = 0x7275_6e00;

fn run_step(hash: u64, word: u64) -> u64 {
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(word)
}

fn run_hash(run: &[u64]) -> u64 {
    mix(run.iter().fold(RUN_START, |hash, word| run_step(hash, *word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: [&str; 4] = [
        "A man is playing a guitar on the stage of a small theatre tonight.",
        "Is it so?",
        "The river rose quickly in spring.",
        "...",
    ];

    fn held_out() -> HeldOut {
        let mut held_out = HeldOut::new();
        held_out.add("first", HELD[..2].iter().map(ToString::to_string).collect());
        held_out.add("second", HELD[2..].iter().map(ToString::to_string).collect());
        held_out
    }

    fn how(text: &str) -> Option<(String, String, How)> {
        let held_out = held_out();
        let settings = GuardSettings { contained_words: 5, overlap_words: 8, ..GuardSettings::default() };
        let index = HeldOutIndex::new(&held_out, &settings);
        index.find(&Words::of(text)).map(|o| (o.set.to_owned(), o.text.to_owned(), o.how))
    }

    fn found(set: &str, text: usize, found: How) -> Option<(String, String, How)> {
        Some((set.to_owned(), HELD[text].to_owned(), found))
    }

    #[test]
    fn equal_on_letters_and_digits() {
        assert_eq!(how("is IT, so"), found("first", 1, How::Equal));
        assert_eq!(how("Isit so"), found("first", 1, How::Equal));
        assert_eq!(how("..."), None, "a text without letters equals nothing");
    }

    #[test]
    fn a_longer_text_that_contains_a_held_out_one() {
        let long = "Nobody had expected that the river rose quickly in spring, and so they fled.";
        assert_eq!(how(long), found("second", 2, How::Run(6)));
        assert_eq!(how("They asked: is it so? Nobody knew what to say."), None, "too short to mean anything");
    }

    #[test]
    fn a_long_run_of_shared_words() {
        let shared = "Once a man is playing a guitar on the way, all listen.";
        assert_eq!(how(shared), found("first", 0, How::Run(8)));
        assert_eq!(how("Once a man is playing a guitar on some way, all listen."), None);
    }

    #[test]
    fn nearly_the_same_words() {
        let settings =
            GuardSettings { overlap_words: 40, shingle_words: 1, jaccard: 0.8, ..GuardSettings::default() };
        let held_out = held_out();
        let index = HeldOutIndex::new(&held_out, &settings);
        // 11 of 13 different words are shared.
        let text = "A man is playing a piano on the stage of a small theatre tonight.";
        let overlap = index.find(&Words::of(text)).unwrap();
        assert_eq!((overlap.text, overlap.how), (HELD[0], How::Near(11.0 / 13.0)));
        assert_eq!(
            index.find(&Words::of("A man is playing a piano in the hall of a small town tonight.")),
            None
        );
    }

    #[test]
    fn nothing_held_out_finds_nothing() {
        let none = HeldOut::new();
        assert_eq!(HeldOutIndex::new(&none, &GuardSettings::default()).find(&Words::of("a b c d e f")), None);
    }

    #[test]
    fn sts_folders_give_the_sentences_of_all_but_train_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("b.tsv", "subset\tscore\tsentence1\tsentence2\nx\t1\tone\ttwo\n");
        write("a-train.tsv", "subset\tscore\tsentence1\tsentence2\nx\t1\tthree\tfour\n");
        write("README.md", "no table\n");
        let mut held_out = HeldOut::new();
        held_out.add_sts(dir.path()).unwrap();
        assert_eq!(held_out.sets, [("b".to_owned(), vec!["one".to_owned(), "two".to_owned()])]);

        write("c.tsv", "subset\tscore\tsentence1\tsentence2\nx\t1\tone\n");
        let said = held_out.add_sts(dir.path()).unwrap_err().to_string();
        assert!(said.contains("c.tsv, line 2: 3 columns, where 4"), "{said}");
        write("c.tsv", "a\tb\n");
        let said = held_out.add_sts(dir.path()).unwrap_err().to_string();
        assert!(said.contains("c.tsv, line 1") && said.contains("sentence1"), "{said}");

        let empty = tempfile::tempdir().unwrap();
        assert!(held_out.add_sts(empty.path()).unwrap_err().to_string().contains("no .tsv file"));
        let missing = held_out.add_sts(&empty.path().join("none")).unwrap_err();
        assert!(matches!(missing, DataError::Read { .. }), "{missing}");
    }

    #[test]
    fn beir_folders_give_queries_and_if_asked_documents() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("queries.jsonl", "{\"_id\":\"q\",\"text\":\"who?\"}\n");
        write("corpus.jsonl", "{\"_id\":\"1\",\"title\":\"\",\"text\":\"body\"}\n");
        let mut held_out = HeldOut::new();
        held_out.add_beir(dir.path(), false).unwrap();
        assert_eq!(held_out.counts().len(), 1);
        held_out.add_beir(dir.path(), true).unwrap();
        let counts: Vec<usize> = held_out.counts().iter().map(|c| c.texts).collect();
        assert_eq!(counts, [1, 1, 1]);
        assert_eq!(held_out.sets[2].1, ["body"]);
        std::fs::remove_file(dir.path().join("queries.jsonl")).unwrap();
        assert!(held_out.add_beir(dir.path(), false).unwrap_err().to_string().contains("queries.jsonl"));
    }
}
