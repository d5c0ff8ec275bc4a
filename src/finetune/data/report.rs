//! The data report counts what was read, made, dropped and kept; it is part of a model's lineage.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    DataError, Example, Kind, Made,
    documents::Way,
    guard::{Action, GuardSettings},
    overlap::HeldOutCount,
    source::Source,
};

/// Samples shown for each reason.
const SAMPLES: usize = 3;
/// Characters of a text that a sample shows.
const SAMPLE_CHARS: usize = 80;

/// A report about a run's training data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataReport {
    /// One for each source, in the recipe's order.
    pub sources: Vec<SourceReport>,
    /// Sets whose texts training texts were compared with.
    pub held_out: Vec<HeldOutCount>,
    /// The settings of the guards that looked at the examples.
    pub guards: GuardSettings,
}

/// One source. `made = not_drawn + kept + everything in dropped`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceReport {
    /// Its name in reports.
    pub name: String,
    /// The source as the recipe names it.
    pub from: String,
    /// What each example consists of.
    pub kind: Kind,
    /// Share of the batches, relative to the other sources.
    pub weight: f64,
    /// The licence as the recipe states it; `None` where it states none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// None for a collection of the database.
    pub files: Vec<FileReport>,
    /// Rows or documents read.
    pub read: usize,
    /// Rows or documents without text.
    pub blank: usize,
    /// Examples made, by way.
    pub made: BTreeMap<Way, usize>,
    /// Examples that a limit left out.
    pub not_drawn: usize,
    /// Examples that remain for training.
    pub kept: usize,
    /// Examples left out, by reason.
    pub dropped: BTreeMap<Reason, Found>,
    /// Examples that a guard found and a setting kept or refused, by reason.
    pub found: BTreeMap<Reason, Found>,
    /// Examples, of those kept, with a text above [`GuardSettings::long_words`].
    pub over_long: usize,
    /// Lengths of the texts kept.
    pub words: Words,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    /// Path of the file.
    pub path: PathBuf,
    /// Size in bytes, packed or not as it is on disk.
    pub bytes: u64,
    /// Checksum of those bytes, in hex.
    pub sha256: String,
}

/// Why an example was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A text of it is missing.
    Empty,
    /// Anchor and positive are the same but for white space.
    SidesEqual,
    /// The negative is the positive.
    NegativeIsPositive,
    /// The negative is the anchor.
    NegativeIsAnchor,
    /// It overlaps held-out data.
    TestOverlap,
    /// The same example, but for white space, occurred before.
    Duplicate,
    /// Nearly the same example occurred before.
    NearDuplicate,
}

impl Reason {
    fn words(self) -> &'static str {
        match self {
            Reason::Empty => "with an empty text",
            Reason::SidesEqual => "whose two sides are equal",
            Reason::NegativeIsPositive => "whose negative is the positive",
            Reason::NegativeIsAnchor => "whose negative is the anchor",
            Reason::TestOverlap => "that overlap held-out data",
            Reason::Duplicate => "that were there before",
            Reason::NearDuplicate => "nearly the same as an earlier one",
        }
    }
}

/// A count, and the first few samples of what was counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Found {
    /// How many there are.
    pub count: usize,
    /// The first few.
    pub samples: Vec<Sample>,
}

/// A sample of the examples that were counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Line or document.
    pub at: String,
    /// Beginnings of its texts.
    pub texts: Vec<String>,
    /// The text that it resembles; empty where there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub like: String,
}

impl Sample {
    pub(super) fn new(at: String, example: &Example, like: String) -> Self {
        Sample { at, texts: example.texts().map(shortened).collect(), like }
    }
}

/// The beginning of a text, in one line.
pub(super) fn shortened(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = line.char_indices().nth(SAMPLE_CHARS) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

/// Lengths of texts, in words separated by white space. A percentile is the smallest length that so many do not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Words {
    /// Number of texts.
    pub texts: usize,
    /// Mean length in words.
    pub mean: f64,
    /// Median length in words.
    pub p50: u32,
    /// 95th percentile of the lengths in words.
    pub p95: u32,
    /// 99th percentile of the lengths in words.
    pub p99: u32,
    /// Largest length in words.
    pub max: u32,
}

impl Words {
    pub(super) fn of(mut lengths: Vec<u32>) -> Self {
        lengths.sort_unstable();
        let Some(&max) = lengths.last() else { return Words::default() };
        let percentile = |percent: usize| lengths[(lengths.len() * percent).div_ceil(100).max(1) - 1];
        Words {
            texts: lengths.len(),
            mean: lengths.iter().map(|&n| f64::from(n)).sum::<f64>() / lengths.len() as f64,
            p50: percentile(50),
            p95: percentile(95),
            p99: percentile(99),
            max,
        }
    }
}

impl SourceReport {
    pub(super) fn new(source: &Source, made: &Made, not_drawn: usize) -> Self {
        SourceReport {
            name: source.name(),
            from: source.from.clone(),
            kind: made.kind,
            weight: source.weight,
            licence: source.licence.clone(),
            files: made.files.clone(),
            read: made.read,
            blank: made.blank,
            made: made.ways.clone(),
            not_drawn,
            kept: 0,
            dropped: BTreeMap::new(),
            found: BTreeMap::new(),
            over_long: 0,
            words: Words::default(),
        }
    }

    /// Counts an example that is left out.
    pub(super) fn drop(&mut self, reason: Reason, sample: impl FnOnce() -> Sample) {
        count(self.dropped.entry(reason).or_default(), sample);
    }

    /// Counts an example that a guard found; answers whether it is left out.
    pub(super) fn act(&mut self, action: Action, reason: Reason, sample: impl FnOnce() -> Sample) -> bool {
        if action == Action::Drop {
            self.drop(reason, sample);
        } else {
            count(self.found.entry(reason).or_default(), sample);
        }
        action == Action::Drop
    }

    /// The error that the settings ask for, if a guard found something.
    pub(super) fn refusal(&self, name: &str, kind: Kind, settings: &GuardSettings) -> Result<(), DataError> {
        let refusing = [
            (Reason::TestOverlap, settings.test_overlap, "test_overlap"),
            (Reason::NearDuplicate, settings.near_duplicates, "near_duplicates"),
        ];
        for (reason, action, setting) in refusing {
            let (Action::Refuse, Some(found)) = (action, self.found.get(&reason)) else { continue };
            let sample = found.samples.first().map(|s| format!("{} ({})", s.at, s.like)).unwrap_or_default();
            return Err(DataError::Refused {
                name: name.to_owned(),
                kind,
                count: found.count,
                what: reason.words(),
                sample,
                setting,
            });
        }
        Ok(())
    }

    /// Describes why examples were left out; `None` if none was.
    pub(super) fn losses(&self) -> Option<String> {
        let dropped =
            self.dropped.iter().map(|(reason, found)| format!("{} {}", found.count, reason.words()));
        let words = dropped.collect::<Vec<_>>().join(", ");
        (!words.is_empty()).then(|| format!("dropped {words}"))
    }
}

fn count(found: &mut Found, sample: impl FnOnce() -> Sample) {
    found.count += 1;
    if found.samples.len() < SAMPLES {
        found.samples.push(sample());
    }
}

impl DataReport {
    /// A table of the sources, and under it what was dropped, with samples.
    pub fn table(&self) -> String {
        let header = [
            "source", "kind", "weight", "read", "made", "kept", "dropped", "words", "p50", "p95", "p99",
            "max",
        ];
        let mut rows = vec![header.map(str::to_owned)];
        for s in &self.sources {
            rows.push([
                s.name.clone(),
                s.kind.many().to_owned(),
                format!("{}", s.weight),
                s.read.to_string(),
                s.made.values().sum::<usize>().to_string(),
                s.kept.to_string(),
                s.dropped.values().map(|found| found.count).sum::<usize>().to_string(),
                format!("{:.1}", s.words.mean),
                s.words.p50.to_string(),
                s.words.p95.to_string(),
                s.words.p99.to_string(),
                s.words.max.to_string(),
            ]);
        }
        let mut text = aligned(&rows);
        for source in &self.sources {
            source.notes(&mut text);
        }
        if !self.held_out.is_empty() {
            let sets = self.held_out.iter().map(|set| format!("{} ({})", set.name, set.texts));
            let sets = sets.collect::<Vec<_>>().join(", ");
            line(&mut text, format_args!("\ncompared with held-out texts of: {sets}"));
        }
        text
    }
}

impl SourceReport {
    fn notes(&self, text: &mut String) {
        line(text, format_args!("\n{}", self.name));
        for file in &self.files {
            let path = file.path.display();
            line(text, format_args!("  from {path}, {} bytes, sha256 {}", file.bytes, file.sha256));
        }
        if self.files.is_empty() {
            line(text, format_args!("  from the collection {}", self.from));
        }
        if let Some(licence) = &self.licence {
            line(text, format_args!("  licence: {licence}"));
        }
        for (way, count) in self.made.iter().filter(|(way, _)| **way != Way::Row) {
            line(text, format_args!("  made by {}: {count}", way.name()));
        }
        let numbers = [
            (self.blank, "without text"),
            (self.not_drawn, "not drawn, because of the limit"),
            (self.over_long, "with a text that is too long"),
        ];
        for (count, what) in numbers.iter().filter(|(count, _)| *count > 0) {
            line(text, format_args!("  {count} {what}"));
        }
        for (label, list) in [("dropped", &self.dropped), ("kept", &self.found)] {
            for (reason, found) in list {
                line(text, format_args!("  {label} {} {}:", found.count, reason.words()));
                for sample in &found.samples {
                    let texts = sample.texts.join(" | ");
                    line(text, format_args!("    {}: {texts}", sample.at));
                    if !sample.like.is_empty() {
                        line(text, format_args!("      like {}", sample.like));
                    }
                }
            }
        }
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("writing to a string cannot fail");
}

/// Columns as wide as their widest cell; the first two are words and stand left, the others are numbers and stand right.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = (0..N)
            .map(|i| {
                let (cell, width) = (&row[i], widths[i]);
                if i < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            })
            .collect();
        line(&mut text, format_args!("{}", cells.join("  ").trim_end()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_lengths_that_occur() {
        let words = Words::of((1..=200).rev().collect());
        assert_eq!((words.p50, words.p95, words.p99, words.max), (100, 190, 198, 200));
        assert_eq!((words.texts, words.mean), (200, 100.5));
        assert_eq!(Words::of(vec![7]), Words { texts: 1, mean: 7.0, p50: 7, p95: 7, p99: 7, max: 7 });
        assert_eq!(Words::of(vec![]), Words::default());
    }

    #[test]
    fn a_sample_is_one_line_cut_between_characters() {
        assert_eq!(shortened("a\n  b"), "a b");
        assert_eq!(shortened(&"ä".repeat(200)), "ä".repeat(SAMPLE_CHARS) + "…");
    }
}
