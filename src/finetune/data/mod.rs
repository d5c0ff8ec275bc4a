//! Training examples come from files and collections: they are read, made, guarded, counted, and put in an order.
//!
//! | file | job |
//! |---|---|
//! | [`source`] | a recipe's `[[data]]` table, and what its `from` turns out to be |
//! | `rows` | lines, JSONL and TSV -> examples |
//! | [`documents`] | documents -> self-made pairs, sentences or passages |
//! | `words` | a text -> its words and shingles, as hashes |
//! | `near` | which earlier text is nearly the same |
//! | [`overlap`] | which text that the model will be judged on is in a training text |
//! | [`guard`] | what is dropped, and why |
//! | [`report`] | what was used, in numbers |
//! | [`split`] | a data set -> training and dev parts |
//! | [`sampler`] | which examples form batch number so-and-so |
//! | [`repetition`] | ESimCSE's repeated words |
//!
//! Nothing is dropped silently: each example that was made is kept, dropped for a named reason, or not drawn because a
//! limit was set, and [`report::DataReport`] holds all three numbers.

pub mod documents;
pub mod guard;
mod near;
pub mod overlap;
pub mod repetition;
pub mod report;
mod rows;
pub mod sampler;
pub mod source;
pub mod split;
#[cfg(test)]
mod tests;
mod words;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    error::{ErrorKind, Fault},
    eval::EvalError,
};
use documents::SourceDocument;
use guard::GuardSettings;
use overlap::{HeldOut, HeldOutIndex};
use report::DataReport;
use source::Source;

/// What a data set's examples are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Single texts.
    Texts,
    /// A text and one that means the same, or a question and its answer.
    Pairs,
    /// A pair, and a text that is near but wrong.
    Triplets,
}

impl Kind {
    /// The word for one example of this kind.
    pub fn one(self) -> &'static str {
        match self {
            Kind::Texts => "text",
            Kind::Pairs => "pair",
            Kind::Triplets => "triplet",
        }
    }

    /// The word for several.
    pub fn many(self) -> &'static str {
        match self {
            Kind::Texts => "texts",
            Kind::Pairs => "pairs",
            Kind::Triplets => "triplets",
        }
    }
}

/// One example. The data set's [`Kind`] says which fields are set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The text that is compared.
    pub anchor: String,
    /// A text that is near the anchor in meaning; set for pairs and triplets.
    pub positive: Option<String>,
    /// A text that is far from it; set for triplets.
    pub negative: Option<String>,
}

impl Example {
    /// A single text.
    pub fn text(text: impl Into<String>) -> Self {
        Example { anchor: text.into(), positive: None, negative: None }
    }

    /// A pair.
    pub fn pair(anchor: impl Into<String>, positive: impl Into<String>) -> Self {
        Example { anchor: anchor.into(), positive: Some(positive.into()), negative: None }
    }

    /// A triplet.
    pub fn triplet(
        anchor: impl Into<String>,
        positive: impl Into<String>,
        negative: impl Into<String>,
    ) -> Self {
        Example { negative: Some(negative.into()), ..Example::pair(anchor, positive) }
    }

    /// The kind that its fields make it.
    pub fn kind(&self) -> Kind {
        match (&self.positive, &self.negative) {
            (None, _) => Kind::Texts,
            (Some(_), None) => Kind::Pairs,
            (Some(_), Some(_)) => Kind::Triplets,
        }
    }

    /// Its one to three texts: anchor, positive, negative.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        [Some(&self.anchor), self.positive.as_ref(), self.negative.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
    }
}

/// Examples of one kind from one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Its name in reports.
    pub name: String,
    /// What each example consists of.
    pub kind: Kind,
    /// The examples, in the order of the source.
    pub examples: Vec<Example>,
    /// Share of the batches that come from here, relative to the others.
    pub weight: f64,
    /// Which document each example was made of, by number: examples of one document are nearly about the same thing, so
    /// they stay on one side of a split and, where possible, out of one batch. Empty if the examples stand alone.
    pub groups: Vec<u32>,
}

impl Dataset {
    /// Examples that stand alone, of weight 1.
    pub fn new(name: impl Into<String>, kind: Kind, examples: Vec<Example>) -> Self {
        Dataset { name: name.into(), kind, examples, weight: 1.0, groups: Vec::new() }
    }
}

/// The data sets that [`load`] reads, and a report about them.
#[derive(Debug)]
pub struct Loaded {
    /// One for each source, in the order of the sources.
    pub datasets: Vec<Dataset>,
    /// What was read, kept and left out.
    pub report: DataReport,
}

/// Reads every source, makes its examples and guards them. Each source becomes one data set.
///
/// `collection` answers the documents of a collection of the database, by name: this module does not know where
/// they are kept. Work is shared among the threads of the rayon pool that it is called on.
///
/// Duplicates are looked for within a source, not across sources: the same text may rightly be an example of two kinds.
///
/// # Errors
/// [`DataError`] naming the source, the file and the line. A source that leaves fewer than two examples is an error:
/// every loss here tells a text from others.
pub fn load(
    sources: &[Source],
    settings: &GuardSettings,
    held_out: &HeldOut,
    collection: &mut dyn FnMut(&str) -> Result<Vec<SourceDocument>, DataError>,
) -> Result<Loaded, DataError> {
    settings.check()?;
    let index = HeldOutIndex::new(held_out, settings);
    let mut datasets = Vec::with_capacity(sources.len());
    let mut reports = Vec::with_capacity(sources.len());
    for source in sources {
        let (dataset, report) = load_one(source, settings, &index, collection)?;
        datasets.push(dataset);
        reports.push(report);
    }
    let report = DataReport { sources: reports, held_out: held_out.counts(), guards: settings.clone() };
    Ok(Loaded { datasets, report })
}

fn load_one(
    source: &Source,
    settings: &GuardSettings,
    index: &HeldOutIndex<'_>,
    collection: &mut dyn FnMut(&str) -> Result<Vec<SourceDocument>, DataError>,
) -> Result<(Dataset, report::SourceReport), DataError> {
    source.check()?;
    let mut made = source::read(source, collection)?;
    let not_drawn = source.draw(&mut made);
    let mut report = report::SourceReport::new(source, &made, not_drawn);
    let name = source.name();
    let kind = made.kind;
    let kept = guard::guard(made, &name, settings, index, &mut report)?;
    if kept.examples.len() < 2 {
        return Err(DataError::TooFew {
            name,
            left: kept.examples.len(),
            kind,
            why: report.losses().unwrap_or_else(|| "it holds no more".to_owned()),
        });
    }
    let dataset = Dataset { name, kind, examples: kept.examples, weight: source.weight, groups: kept.groups };
    Ok((dataset, report))
}

/// Examples on their way from a source to the guards.
#[derive(Debug)]
struct Made {
    kind: Kind,
    examples: Vec<Example>,
    /// Per example, where it comes from: a line's number from 1, or a document's from 0.
    origins: Vec<u32>,
    /// Ids of the documents that examples were made of; empty if they come from rows.
    documents: Vec<String>,
    /// Rows or documents that were read.
    read: usize,
    /// Rows without a character, which were passed over.
    blank: usize,
    /// Examples made, by way.
    ways: std::collections::BTreeMap<documents::Way, usize>,
    files: Vec<report::FileReport>,
}

impl Made {
    /// Describes where an example comes from.
    fn place(&self, origin: u32) -> String {
        match self.documents.get(origin as usize) {
            Some(id) => format!("document {id}"),
            None => format!("line {origin}"),
        }
    }
}

/// Why training data could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum DataError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}, line {line}: {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{}, line {line}: a {} in a file of {}, as its first row is; put them into two files, or state `kind = \"{}\"`", path.display(), got.one(), expected.many(), if *expected == Kind::Texts || *got == Kind::Texts { "text" } else { "pairs" })]
    Mixed { path: PathBuf, line: usize, expected: Kind, got: Kind },
    #[error("{name}: {reason}")]
    Unusable { name: String, reason: String },
    #[error("{name}: {left} {} left, and a loss needs two or more to tell apart: {why}", if *left == 1 { kind.one() } else { kind.many() })]
    TooFew { name: String, left: usize, kind: Kind, why: String },
    #[error("{name}: {count} {} {what}, first {sample}; take them out, or set `{setting}` to \"drop\" or \"keep\"", kind.many())]
    Refused {
        name: String,
        kind: Kind,
        count: usize,
        what: &'static str,
        sample: String,
        setting: &'static str,
    },
    #[error(
        "{name} has {examples} {} and a batch takes {batch_size}; add data, or make the batch smaller",
        if *examples == 1 { kind.one() } else { kind.many() }
    )]
    SmallerThanBatch { name: String, kind: Kind, examples: usize, batch_size: usize },
}

impl DataError {
    fn line(path: &Path, line: usize, reason: impl Into<String>) -> Self {
        DataError::Line { path: path.to_owned(), line, reason: reason.into() }
    }
}

impl Fault for DataError {
    fn kind(&self) -> ErrorKind {
        match self {
            DataError::Read { .. } => ErrorKind::Precondition,
            DataError::Line { .. }
            | DataError::File { .. }
            | DataError::Mixed { .. }
            | DataError::Unusable { .. }
            | DataError::TooFew { .. }
            | DataError::Refused { .. }
            | DataError::SmallerThanBatch { .. } => ErrorKind::Invalid,
        }
    }
}

/// Judged collections and packed files are read by `eval`; what it finds wrong is wrong with the data here.
impl From<EvalError> for DataError {
    fn from(error: EvalError) -> Self {
        match error {
            EvalError::Read { path, source } => DataError::Read { path, source },
            EvalError::Line { path, line, reason } => DataError::Line { path, line, reason },
            EvalError::Folder { path, reason } => DataError::File { path, reason },
            other => DataError::Unusable { name: "evaluation data".to_owned(), reason: other.to_string() },
        }
    }
}
