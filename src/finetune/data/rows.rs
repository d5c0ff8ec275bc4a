//! Reads examples from a file of rows: one sentence a line (`.txt`), JSON objects or arrays (`.jsonl`), or columns
//! separated
//! by tabs (`.tsv`); each also packed (`.gz`, `.zst`).
//!
//! White space around a text is cut, and nothing else about it is changed. A row that cannot be read is an error that
//! names its line: a file that is half understood would train on something nobody looked at.

use std::path::Path;

use serde_json::Value;

use super::{
    DataError, Example, Kind,
    source::{Column, Source, SourceKind},
};
use crate::{eval::rows as eval, source::title_and_text};

/// What a file's name says about its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Jsonl,
    Tsv,
}

impl Format {
    /// The form for the name's ending, without `.gz` or `.zst`.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        let unpacked = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
        let (_, ending) = unpacked.rsplit_once('.')?;
        match ending {
            "txt" => Some(Format::Text),
            "jsonl" | "ndjson" => Some(Format::Jsonl),
            "tsv" => Some(Format::Tsv),
            _ => None,
        }
    }

    fn known(path: &Path) -> Result<Self, DataError> {
        Format::of(path).ok_or_else(|| DataError::File {
            path: path.to_owned(),
            reason: "its name does not tell what is in it; names end in .txt (a sentence a line), .jsonl or .tsv, \
                     packed ones in .gz or .zst; any file of documents is read with `kind = \"documents\"` or --text-field"
                .to_owned(),
        })
    }
}

/// Examples of one kind, each with the line it stood in.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) kind: Kind,
    pub(super) examples: Vec<Example>,
    pub(super) lines: Vec<u32>,
    /// Number of rows, without blank lines and the header.
    pub(super) rows: usize,
    pub(super) blank: usize,
}

/// Names under which columns of tables and keys of JSON objects are known.
const ANCHORS: &[&str] =
    &["anchor", "query", "question", "premise", "sentence", "sentence1", "sent0", "text"];
const POSITIVES: &[&str] =
    &["positive", "pos", "answer", "entailment", "rewrite", "passage", "sentence2", "sent1"];
const NEGATIVES: &[&str] = &["negative", "neg", "contradiction", "hard_neg", "hard_negative"];
/// Names of columns that say something about a row and are no text of it.
const ASIDE: &[&str] = &["id", "_id", "index", "genre", "subset", "split", "source"];
/// Names of columns that say how alike the two texts of a row are.
const SCORES: &[&str] = &["score", "similarity_score", "label", "relatedness_score"];

/// What a column of this name holds.
fn column(name: &str) -> Option<Column> {
    let name = name.trim().to_lowercase();
    let among = |names: &[&str]| names.contains(&name.as_str());
    if among(ANCHORS) {
        Some(Column::Anchor)
    } else if among(POSITIVES) {
        Some(Column::Positive)
    } else if among(NEGATIVES) {
        Some(Column::Negative)
    } else {
        (among(ASIDE) || among(SCORES)).then_some(Column::Skip)
    }
}

fn scored(name: &str) -> String {
    format!(
        "{name} says how alike the texts of a row are, but pairs for training must all mean the same; \
         keep the rows of a high score and leave {name} out"
    )
}

/// Makes the examples of a file's rows.
pub(super) fn read(path: &Path, mut lines: eval::Rows, source: &Source) -> Result<Rows, DataError> {
    let format = Format::known(path)?;
    let mut into = Reader {
        path,
        stated: source.kind,
        rows: Rows { kind: Kind::Texts, examples: Vec::new(), lines: Vec::new(), rows: 0, blank: 0 },
    };
    match format {
        Format::Text => {
            for line in lines.by_ref() {
                let (number, line) = line?;
                into.add(number, Example::text(line.trim()))?;
            }
        }
        Format::Jsonl => {
            for line in lines.by_ref() {
                let (number, line) = line?;
                let value = serde_json::from_str(&line)
                    .map_err(|e| DataError::line(path, number, format!("not JSON: {e}")))?;
                into.rows.rows += 1;
                for example in of_json(value).map_err(|reason| DataError::line(path, number, reason))? {
                    into.push(number, example)?;
                }
            }
        }
        Format::Tsv => table(&mut lines, &mut into, source)?,
    }
    into.rows.blank = lines.blank();
    Ok(into.rows)
}

/// Takes rows and sees to it that they are of one kind.
struct Reader<'a> {
    path: &'a Path,
    stated: SourceKind,
    rows: Rows,
}

impl Reader<'_> {
    fn add(&mut self, line: usize, example: Example) -> Result<(), DataError> {
        self.rows.rows += 1;
        self.push(line, example)
    }

    fn push(&mut self, line: usize, mut example: Example) -> Result<(), DataError> {
        let got = example.kind();
        let expected = match self.stated {
            SourceKind::Text => {
                for text in example.texts() {
                    self.keep(line, Example::text(text));
                }
                return Ok(());
            }
            SourceKind::Pairs => {
                example.negative = None;
                Kind::Pairs
            }
            SourceKind::Triplets => Kind::Triplets,
            SourceKind::Auto | SourceKind::Beir | SourceKind::Collection | SourceKind::Documents => {
                if self.rows.examples.is_empty() { got } else { self.rows.kind }
            }
        };
        let is = example.kind();
        if is != expected && self.stated == SourceKind::Auto {
            return Err(DataError::Mixed { path: self.path.to_owned(), line, expected, got });
        }
        if is != expected {
            let reason = format!("a {}, where `kind` says that the file has {}", got.one(), expected.many());
            return Err(DataError::line(self.path, line, reason));
        }
        self.rows.kind = expected;
        self.keep(line, example);
        Ok(())
    }

    fn keep(&mut self, line: usize, example: Example) {
        self.rows.examples.push(example);
        self.rows.lines.push(u32::try_from(line).unwrap_or(u32::MAX));
    }
}

fn table(lines: &mut eval::Rows, into: &mut Reader<'_>, source: &Source) -> Result<(), DataError> {
    let path = into.path;
    let Some((first, line)) = lines.next().transpose()? else { return Ok(()) };
    let cells: Vec<&str> = line.split('\t').collect();
    let named: Vec<Option<Column>> = cells.iter().map(|cell| column(cell)).collect();
    let header = source
        .header
        .unwrap_or_else(|| named.iter().all(Option::is_some) && named.contains(&Some(Column::Anchor)));
    let columns = if !source.columns.is_empty() {
        source.columns.clone()
    } else if header && named.contains(&Some(Column::Anchor)) {
        if let Some(score) = cells.iter().find(|cell| SCORES.contains(&cell.trim().to_lowercase().as_str())) {
            let reason = format!("{}, or state `columns`", scored(score.trim()));
            return Err(DataError::line(path, first, reason));
        }
        named.iter().map(|column| column.unwrap_or(Column::Skip)).collect()
    } else {
        by_number(cells.len()).map_err(|reason| DataError::line(path, first, reason))?
    };
    let at = |wanted| columns.iter().position(|column| *column == wanted);
    let twice = [Column::Anchor, Column::Positive, Column::Negative]
        .into_iter()
        .any(|wanted| columns.iter().filter(|column| **column == wanted).count() > 1);
    let (anchor, positive, negative) = (at(Column::Anchor), at(Column::Positive), at(Column::Negative));
    let Some(anchor) = anchor.filter(|_| !twice && (negative.is_none() || positive.is_some())) else {
        let reason =
            "its columns are not one anchor, at most one positive and at most one negative; state `columns`";
        return Err(DataError::line(path, first, reason));
    };
    let mut row = if header { lines.next().transpose()? } else { Some((first, line.clone())) };
    while let Some((number, line)) = row {
        let cells: Vec<&str> = line.split('\t').map(str::trim).collect();
        if cells.len() != columns.len() {
            let reason = format!(
                "{} columns separated by tabs, where {} {}",
                cells.len(),
                columns.len(),
                if source.columns.is_empty() { "were expected, as in the first row" } else { "were stated" }
            );
            return Err(DataError::line(path, number, reason));
        }
        let cell = |at: Option<usize>| at.map(|at| cells[at].to_owned());
        let example =
            Example { anchor: cells[anchor].to_owned(), positive: cell(positive), negative: cell(negative) };
        into.add(number, example)?;
        row = lines.next().transpose()?;
    }
    Ok(())
}

fn by_number(columns: usize) -> Result<Vec<Column>, String> {
    let all = [Column::Anchor, Column::Positive, Column::Negative];
    all.get(..columns).map(<[_]>::to_vec).ok_or_else(|| {
        format!(
            "{columns} columns, and no header that names them; without one there are 1 (text), 2 (pair) or 3 \
             (triplet); state `columns`"
        )
    })
}

/// The examples of one row: several if it lists several positives.
fn of_json(value: Value) -> Result<Vec<Example>, String> {
    let object = match value {
        Value::Array(list) => return of_list(list, "an array").map(|example| vec![example]),
        Value::Object(object) => object,
        other => return Err(format!("expected an object or an array of texts, got {}", shape(&other))),
    };
    let (mut anchor, mut positives, mut negatives) = (None, Vec::new(), Vec::new());
    let mut taken: [Option<String>; 3] = [None, None, None];
    for (key, value) in object {
        if key == "set" {
            let Value::Array(list) = value else {
                return Err(format!("set: expected two texts, got {}", shape(&value)));
            };
            if list.len() != 2 {
                return Err(format!("set: expected two texts, got {}", list.len()));
            }
            return of_list(list, "set").map(|example| vec![example]);
        }
        if SCORES.contains(&key.as_str()) {
            return Err(scored(&key));
        }
        // `null` is how many writers leave a field out.
        let (Some(column), false) = (column(&key), value.is_null()) else { continue };
        let slot = match column {
            Column::Anchor => 0,
            Column::Positive => 1,
            Column::Negative => 2,
            Column::Skip => continue,
        };
        if let Some(other) = taken[slot].replace(key.clone()) {
            return Err(format!("{other} and {key} would be the same side of the example; leave one out"));
        }
        match column {
            Column::Anchor => anchor = Some(text(value, &key)?),
            Column::Positive => positives = one_or_many(value, &key)?,
            _ => negatives = one_or_many(value, &key)?,
        }
    }
    let anchor = anchor.ok_or_else(|| {
        format!(
            "no text found; an object has one of {}, and may have `positive` and `negative`",
            ANCHORS.join(", ")
        )
    })?;
    if positives.is_empty() {
        if !negatives.is_empty() {
            return Err("a negative without a positive".to_owned());
        }
        return Ok(vec![Example::text(anchor)]);
    }
    // As many examples as positives; negatives are dealt out in turn.
    let dealt = positives.into_iter().enumerate().map(|(i, positive)| Example {
        anchor: anchor.clone(),
        positive: Some(positive),
        negative: (!negatives.is_empty()).then(|| negatives[i % negatives.len()].clone()),
    });
    Ok(dealt.collect())
}

fn of_list(list: Vec<Value>, what: &str) -> Result<Example, String> {
    let mut texts =
        list.into_iter().map(|value| text(value, what)).collect::<Result<Vec<_>, _>>()?.into_iter();
    match (texts.next(), texts.next(), texts.next(), texts.len()) {
        (Some(anchor), positive, negative, 0) => Ok(Example { anchor, positive, negative }),
        (None, ..) => Err(format!("{what}: expected one to three texts, got none")),
        (_, _, _, more) => Err(format!("{what}: expected one to three texts, got {}", 3 + more)),
    }
}

fn one_or_many(value: Value, key: &str) -> Result<Vec<String>, String> {
    match value {
        Value::Array(list) => list.into_iter().map(|value| text(value, key)).collect(),
        value => Ok(vec![text(value, key)?]),
    }
}

fn text(value: Value, key: &str) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.trim().to_owned()),
        other => Err(format!("{key}: expected a text, got {}", shape(&other))),
    }
}

fn shape(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Whether a file that says nothing of its kind holds documents: its first row is an object with a title and a text, or
/// with a text by a name that rows do not have (`abstract`, `body`, `content`).
pub(super) fn are_documents(path: &Path, source: &Source) -> Result<bool, DataError> {
    if source.kind != SourceKind::Auto || Format::of(path) != Some(Format::Jsonl) {
        return Ok(false);
    }
    let (_, first) = eval::Rows::open(path)?.next().transpose()?.unwrap_or_default();
    let Ok(Value::Object(first)) = serde_json::from_str(&first) else { return Ok(false) };
    let is_row = first.keys().any(|key| matches!(column(key), Some(Column::Anchor | Column::Positive)));
    let (title, text) = title_and_text(&first);
    Ok(text.is_some() && (title.is_some() || !is_row))
}

#[cfg(test)]
mod tests;
