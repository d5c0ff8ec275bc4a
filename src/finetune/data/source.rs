//! A recipe's `[[data]]` table says where examples are; this file finds and reads them.
//!
//! ```toml
//! [[data]]
//! from = "corpus/scifact"            # a file, a folder in BEIR layout, or a collection of the database
//! make = ["title", "inverse_cloze"]
//! weight = 3.0
//! ```

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    DataError, Kind, Made,
    documents::{self, PASSAGE_WORDS, SourceDocument, Way},
    report::FileReport,
    rows,
};
use crate::{
    eval::{beir, rows::Rows},
    model::FileSum,
    random::SplitMix,
};

/// One source of training examples, as it stands in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A file, a folder in BEIR layout, or the name of a collection. `collection:NAME` is always a collection, and what
    /// begins with `./` always a file or folder.
    pub from: String,
    /// What the source is. Default [`SourceKind::Auto`].
    #[serde(default)]
    pub kind: SourceKind,
    /// Its name in reports. Default: the last part of `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How examples are made of documents. Default [`super::documents::DEFAULT_WAYS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "one_or_many")]
    pub make: Vec<Way>,
    /// Words that a passage may have when examples are made of documents.
    #[serde(default = "passage_words")]
    pub passage_words: usize,
    /// Share of the batches, relative to the other sources.
    #[serde(default = "weight")]
    pub weight: f64,
    /// Examples taken at most, drawn at random before the guards look at them. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Seed of that draw, and of every other choice made while examples are made.
    #[serde(default)]
    pub limit_seed: u64,
    /// Whether the first line of a TSV file names its columns; by default it does if it consists of known names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// What the columns of a TSV file are, whatever its header says: `anchor`, `positive`, `negative` or `skip`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
    /// Field with the text of a document [default: text, body, content or abstract]. Naming a field says that the file
    /// holds documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_field: Option<String>,
    /// Field with the title of a document [default: title].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title_field: Option<String>,
    /// Field with the id of a document [default: id, _id or doc_id].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_field: Option<String>,
    /// The text's licence, repeated in the report and so in the model's lineage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A folder is one in BEIR layout, a file is recognised by its name and its first row, and any other name is a
    /// collection.
    #[default]
    Auto,
    /// Single texts. Of pairs and triplets every text is taken by itself.
    Text,
    /// Pairs. Of triplets the negative is left out.
    Pairs,
    /// Anchor, positive and negative.
    Triplets,
    /// A folder in BEIR layout; only its documents are read, never its queries or judgements.
    Beir,
    /// A collection of the database.
    Collection,
    /// A file of documents, of any form that `ingest` reads.
    Documents,
}

/// What a column of a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Column {
    /// The text that is compared.
    Anchor,
    /// A text that is near the anchor in meaning.
    Positive,
    /// A text that is far from it.
    Negative,
    /// A column that is not read.
    Skip,
}

fn weight() -> f64 {
    1.0
}

fn passage_words() -> usize {
    PASSAGE_WORDS
}

/// `make = "title"` and `make = ["title", "neighbours"]` are both natural.
mod one_or_many {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Way;

    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "one of title, neighbours, inverse_cloze, sentences, passages, or a list of them"
    )]
    enum OneOrMany {
        One(Way),
        Many(Vec<Way>),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Way>, D::Error> {
        Ok(match OneOrMany::deserialize(from)? {
            OneOrMany::One(way) => vec![way],
            OneOrMany::Many(ways) => ways,
        })
    }

    pub(super) fn serialize<S: Serializer>(ways: &[Way], to: S) -> Result<S::Ok, S::Error> {
        ways.serialize(to)
    }
}

impl Source {
    /// A source with every default.
    pub fn new(from: impl Into<String>) -> Self {
        Source {
            from: from.into(),
            kind: SourceKind::Auto,
            name: None,
            make: Vec::new(),
            passage_words: PASSAGE_WORDS,
            weight: 1.0,
            limit: None,
            limit_seed: 0,
            header: None,
            columns: Vec::new(),
            text_field: None,
            title_field: None,
            id_field: None,
            licence: None,
        }
    }

    /// What its `from` is resolved to; `None` where it cannot be read at all.
    pub fn origin(&self) -> Option<Origin> {
        // Also one that no examples can be made of: its name may be meant for a collection's.
        if self.kind == SourceKind::Auto && Path::new(&self.from).is_dir() {
            return Some(Origin::Folder);
        }
        match place(self).ok()? {
            Place::Collection => Some(Origin::Collection),
            Place::File(_) | Place::Documents(_) => Some(Origin::File),
            Place::Corpus(_) => Some(Origin::Folder),
        }
    }

    /// Whether `from` is a bare name that a collection could have, too: nothing says which is meant.
    pub fn may_be_either(&self) -> bool {
        let bare = !self.from.contains(['/', '\\', ':']) && rows::Format::of(Path::new(&self.from)).is_none();
        self.kind == SourceKind::Auto && bare
    }

    /// The name of the collection that it is, or would be.
    pub fn collection(&self) -> &str {
        self.from.strip_prefix(COLLECTION_MARK).unwrap_or(&self.from)
    }

    /// Its name in reports and errors.
    pub fn name(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        if self.from.starts_with(COLLECTION_MARK) {
            return self.collection().to_owned();
        }
        let last = Path::new(&self.from).file_name().map(|n| n.to_string_lossy().into_owned());
        let last = last.unwrap_or_else(|| self.from.clone());
        let stem = last.strip_suffix(".gz").or_else(|| last.strip_suffix(".zst")).unwrap_or(&last);
        [".txt", ".jsonl", ".tsv", ".csv", ".json"]
            .iter()
            .find_map(|e| stem.strip_suffix(e))
            .unwrap_or(stem)
            .to_owned()
    }

    /// # Errors
    /// [`DataError::Unusable`] naming the setting and what it may be.
    pub fn check(&self) -> Result<(), DataError> {
        let wrong = |reason: String| Err(DataError::Unusable { name: self.name(), reason });
        if self.from.trim().is_empty() {
            return wrong("`from` is empty; it names a file, a folder or a collection".to_owned());
        }
        if !(self.weight.is_finite() && self.weight > 0.0) {
            return wrong(format!("weight = {}; it must be a number above 0", self.weight));
        }
        if self.limit.is_some_and(|limit| limit < 2) {
            return wrong("limit must be 2 or more".to_owned());
        }
        if self.passage_words < documents::PASSAGE_WORDS_MIN {
            let min = documents::PASSAGE_WORDS_MIN;
            return wrong(format!("passage_words = {}; it must be {min} or more", self.passage_words));
        }
        let texts = self.make.iter().filter(|way| way.kind() == Kind::Texts).count();
        if texts > 0 && texts < self.make.len() {
            let reason = "make mixes ways that give texts (sentences, passages) with ways that give pairs \
                          (title, neighbours, inverse_cloze); write two [[data]] tables";
            return wrong(reason.to_owned());
        }
        if self.names_fields() && !matches!(self.kind, SourceKind::Auto | SourceKind::Documents) {
            let reason = "text_field, title_field and id_field name fields of documents; leave them out, or state \
                          `kind = \"documents\"`";
            return wrong(reason.to_owned());
        }
        let count = |wanted| self.columns.iter().filter(|c| **c == wanted).count();
        let (anchors, positives, negatives) =
            (count(Column::Anchor), count(Column::Positive), count(Column::Negative));
        if !self.columns.is_empty()
            && (anchors != 1 || positives > 1 || negatives > 1 || negatives > positives)
        {
            let reason = "columns must name one anchor, at most one positive, and a negative only beside \
                          a positive; any others are `skip`";
            return wrong(reason.to_owned());
        }
        Ok(())
    }

    fn names_fields(&self) -> bool {
        self.text_field.is_some() || self.title_field.is_some() || self.id_field.is_some()
    }

    /// Keeps `limit` examples, drawn by seed, in their order; answers how many were not drawn.
    pub(super) fn draw(&self, made: &mut Made) -> usize {
        let (count, Some(limit)) = (made.examples.len(), self.limit) else { return 0 };
        if count <= limit {
            return 0;
        }
        // Selection sampling (Knuth, TAOCP 2, 3.4.2, algorithm S): in order, each draw equally likely.
        let mut random = SplitMix(self.limit_seed ^ 0x6c69_6d69_7400_0000);
        let (mut left, mut wanted) = (count as u64, limit as u64);
        let mut drawn = Vec::with_capacity(count);
        for _ in 0..count {
            let take = random.below(left) < wanted;
            wanted -= u64::from(take);
            left -= 1;
            drawn.push(take);
        }
        keep(&mut made.examples, &drawn);
        keep(&mut made.origins, &drawn);
        count - limit
    }
}

fn keep<T>(list: &mut Vec<T>, which: &[bool]) {
    let mut which = which.iter();
    list.retain(|_| *which.next().expect("one for each"));
    list.shrink_to_fit();
}

/// Stands in front of the name of a collection that could be mistaken for a file's.
pub const COLLECTION_MARK: &str = "collection:";

/// What a source's `from` is resolved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File,
    /// A folder in BEIR layout.
    Folder,
    /// A collection of the database.
    Collection,
}

/// Where the examples of a source are.
enum Place {
    File(PathBuf),
    Documents(PathBuf),
    Corpus(PathBuf),
    Collection,
}

fn place(source: &Source) -> Result<Place, DataError> {
    let path = PathBuf::from(&source.from);
    match source.kind {
        SourceKind::Collection => Ok(Place::Collection),
        SourceKind::Auto if source.from.starts_with(COLLECTION_MARK) => Ok(Place::Collection),
        SourceKind::Beir => Ok(Place::Corpus(beir::corpus_path(&path)?)),
        SourceKind::Documents => Ok(Place::Documents(path)),
        SourceKind::Auto if source.names_fields() || (path.is_file() && is_of_documents(&path)) => {
            Ok(Place::Documents(path))
        }
        SourceKind::Auto if path.is_dir() => Ok(Place::Corpus(beir::corpus_path(&path)?)),
        // What is no file and has neither a folder nor a known ending in its name can only be a collection.
        SourceKind::Auto
            if !path.exists() && !source.from.contains(['/', '\\']) && rows::Format::of(&path).is_none() =>
        {
            Ok(Place::Collection)
        }
        SourceKind::Auto | SourceKind::Text | SourceKind::Pairs | SourceKind::Triplets => {
            Ok(Place::File(path))
        }
    }
}

/// Whether a file's name says that there are documents in it, not rows.
fn is_of_documents(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let unpacked = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    [".csv", ".json", ".md", ".markdown", ".html", ".htm"].iter().any(|ending| unpacked.ends_with(ending))
}

/// Reads a source and makes its examples.
pub(super) fn read(
    source: &Source,
    collection: &mut dyn FnMut(&str) -> Result<Vec<SourceDocument>, DataError>,
) -> Result<Made, DataError> {
    let name = source.name();
    let (documents, files) = match place(source)? {
        Place::Collection => (collection(source.collection())?, Vec::new()),
        Place::Corpus(path) => {
            (beir::documents(&path)?.into_iter().map(Into::into).collect(), vec![sum(&path)?])
        }
        Place::Documents(path) => {
            if path.is_dir() {
                let reason = "it is a folder, where a file of documents is wanted; name its files one by one, or ingest \
                              it and train on the collection";
                return Err(DataError::File { path, reason: reason.to_owned() });
            }
            (documents::read(&path, source)?, vec![sum(&path)?])
        }
        Place::File(path) => {
            if !rows::are_documents(&path, source)? {
                return of_rows(&path, source);
            }
            (documents::read(&path, source)?, vec![sum(&path)?])
        }
    };
    if documents.is_empty() {
        return Err(DataError::Unusable { name, reason: "there is no document in it".to_owned() });
    }
    Ok(documents::make(documents, source, files))
}

fn of_rows(path: &Path, source: &Source) -> Result<Made, DataError> {
    if !source.make.is_empty() {
        let reason = "`make` says how examples are made of documents, and this is a file of rows; leave it out, \
                      or state `kind = \"documents\"`";
        return Err(DataError::Unusable { name: source.name(), reason: reason.to_owned() });
    }
    let read = rows::read(path, Rows::open(path)?, source)?;
    Ok(Made {
        kind: read.kind,
        read: read.rows,
        blank: read.blank,
        ways: BTreeMap::from([(Way::Row, read.examples.len())]),
        examples: read.examples,
        origins: read.lines,
        documents: Vec::new(),
        files: vec![sum(path)?],
    })
}

fn sum(path: &Path) -> Result<FileReport, DataError> {
    let sum = FileSum::of_file(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    Ok(FileReport { path: path.to_owned(), bytes: sum.bytes, sha256: sum.sha256 })
}
