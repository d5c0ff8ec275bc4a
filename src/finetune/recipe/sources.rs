//! The parts of a recipe that say where examples come from and what they may not be.

use serde::{Deserialize, Serialize};

/// One source of training examples: a `[[data]]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    /// A file, a folder in BEIR layout, or the name of a collection.
    pub from: String,
    /// Default `auto`.
    #[serde(default)]
    pub kind: SourceKind,
    /// What it is called in reports. Default: the last part of `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How examples are made of documents. Default: all ways that make pairs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub make: Vec<Way>,
    /// Share of the batches, relative to the other sources. Above 0, to 1000000. Default 1.
    #[serde(default = "weight")]
    pub weight: f64,
    /// At most so many examples, drawn at random. 2 or more. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

fn weight() -> f64 {
    1.0
}

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Told by its name and its first row.
    #[default]
    Auto,
    /// Single texts.
    Text,
    /// Pairs.
    Pairs,
    /// A pair, and a text that is near but wrong.
    Triplets,
    /// A folder in BEIR layout, of which only the documents are read.
    Beir,
    /// A collection of the database.
    Collection,
    /// A JSONL file of documents.
    Documents,
}

/// How examples are made of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Its title, with its first passage.
    Title,
    /// A passage, with the next one.
    Neighbours,
    /// A sentence, with the rest of its passage.
    InverseCloze,
    /// Each sentence by itself.
    Sentences,
    /// Each passage by itself.
    Passages,
}

/// What examples may not be: the `[guards]` table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guards {
    /// What to do with an example that is nearly the same as an earlier one of its source. Default `drop`.
    pub near_duplicates: Action,
    /// What to do with an example that overlaps held-out data. Default `drop`.
    pub test_overlap: Action,
    /// Jaccard similarity of two texts' shingles from which on they are nearly the same. 0.5 to 1. Default 0.8.
    pub jaccard: f64,
}

impl Default for Guards {
    fn default() -> Self {
        Guards { near_duplicates: Action::Drop, test_overlap: Action::Drop, jaccard: 0.8 }
    }
}

/// What to do with what a guard finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Leave it out, and report it.
    #[default]
    Drop,
    /// Do not train.
    Refuse,
    /// Only report it.
    Keep,
}
