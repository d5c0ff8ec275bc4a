//! Guards keep the examples that are worth training on, and give the reason for every other one.
//!
//! Guards check in this order, and the first that holds decides: a text is empty; two sides are the same; a text
//! overlaps held-out data; the example occurred before; one nearly the same occurred before. Over-long texts are
//! counted and stay: the encoder cuts them. One pass, in linear time, the costly part on all threads of the pool.

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde::{Deserialize, Serialize};

use super::{
    DataError, Example, Made,
    near::{BandKeys, NearIndex},
    overlap::{HeldOutIndex, How, Overlap},
    report::{Reason, Sample, SourceReport, Words as WordCounts},
    split::content_hash,
    words::{HashedMap, Words},
};

/// Examples that are prepared at once, before they are gone through in order.
const CHUNK: usize = 16_384;

/// What is done with an example that a guard finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Leave it out, and report it.
    #[default]
    Drop,
    /// Do not train.
    Refuse,
    /// Keep it and report it.
    Keep,
}

/// The settings of the guards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardSettings {
    /// What to do with an example that is nearly the same as an earlier one of its source. Default: drop it.
    pub near_duplicates: Action,
    /// What to do with an example that overlaps held-out data. Default: drop it.
    pub test_overlap: Action,
    /// Jaccard similarity of two texts' shingles from which on they are nearly the same; 0.5 to 1. Default 0.8.
    pub jaccard: f64,
    /// Words in a shingle, 1 to 8. More make word order count for more. Default 2.
    pub shingle_words: usize,
    /// Words in a row that a training text may not share with a held-out one; `contained_words`
    /// to 100. Default 8.
    pub overlap_words: usize,
    /// Words from which on a held-out text may not stand inside a training text; 1 or more.
    /// Default 5.
    pub contained_words: usize,
    /// Words above which a text is counted as too long; 0 or more. Default 200.
    pub long_words: usize,
}

impl Default for GuardSettings {
    fn default() -> Self {
        GuardSettings {
            near_duplicates: Action::Drop,
            test_overlap: Action::Drop,
            jaccard: 0.8,
            shingle_words: 2,
            overlap_words: 8,
            contained_words: 5,
            long_words: 200,
        }
    }
}

impl GuardSettings {
    /// # Errors
    /// [`DataError::Unusable`] naming the setting and its bounds.
    pub fn check(&self) -> Result<(), DataError> {
        let wrong = |reason: String| Err(DataError::Unusable { name: "guards".to_owned(), reason });
        if !(0.5..=1.0).contains(&self.jaccard) {
            return wrong(format!("jaccard = {}; it must be 0.5 to 1", self.jaccard));
        }
        if !(1..=8).contains(&self.shingle_words) {
            return wrong(format!("shingle_words = {}; it must be 1 to 8", self.shingle_words));
        }
        if self.contained_words == 0 {
            return wrong("contained_words = 0; it must be 1 or more".to_owned());
        }
        if self.overlap_words < self.contained_words || self.overlap_words > 100 {
            return wrong(format!(
                "overlap_words = {}; it must be {} (contained_words) to 100",
                self.overlap_words, self.contained_words
            ));
        }
        Ok(())
    }
}

/// The examples that remain.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) examples: Vec<Example>,
    /// Their groups; see [`super::Dataset::groups`].
    pub(super) groups: Vec<u32>,
}

/// What the threads find out about an example by itself.
struct Looked<'a> {
    fault: Option<Reason>,
    overlap: Option<Overlap<'a>>,
    hash: u64,
    shingles: Vec<u32>,
    keys: BandKeys,
}

fn look<'a>(
    example: &Example,
    settings: &GuardSettings,
    near: &NearIndex,
    index: &HeldOutIndex<'a>,
) -> Looked<'a> {
    let fault = fault(example);
    let mut looked = Looked { fault, overlap: None, hash: 0, shingles: Vec::new(), keys: near.keys(&[]) };
    if fault.is_some() {
        return looked;
    }
    for (side, text) in example.texts().enumerate() {
        let words = Words::of(text);
        looked.overlap = looked.overlap.or_else(|| index.find(&words));
        words.shingle(settings.shingle_words, side as u64, &mut looked.shingles);
    }
    looked.shingles.sort_unstable();
    looked.shingles.dedup();
    looked.keys = near.keys(&looked.shingles);
    looked.hash = content_hash(example.texts());
    looked
}

/// What is wrong with an example whatever the others are.
fn fault(example: &Example) -> Option<Reason> {
    if example.texts().any(|text| text.trim().is_empty()) {
        return Some(Reason::Empty);
    }
    let same = |a: &str, b: &str| a.split_whitespace().eq(b.split_whitespace());
    let positive = example.positive.as_deref()?;
    if same(&example.anchor, positive) {
        return Some(Reason::SidesEqual);
    }
    let negative = example.negative.as_deref()?;
    if same(negative, positive) {
        return Some(Reason::NegativeIsPositive);
    }
    same(negative, &example.anchor).then_some(Reason::NegativeIsAnchor)
}

/// Goes through a source's examples and writes what it finds into `report`.
pub(super) fn guard(
    mut made: Made,
    name: &str,
    settings: &GuardSettings,
    index: &HeldOutIndex<'_>,
    report: &mut SourceReport,
) -> Result<Kept, DataError> {
    let count = made.examples.len();
    let mut near = NearIndex::new(settings.jaccard, count);
    let mut kept: Vec<Example> = Vec::with_capacity(count);
    let mut origins: Vec<u32> = Vec::with_capacity(count);
    // Content -> place in `kept`.
    let mut seen: HashedMap<usize> = HashedMap::default();
    let mut lengths: Vec<u32> = Vec::new();
    let mut examples = std::mem::take(&mut made.examples).into_iter();
    let mut of_examples = made.origins.iter();
    loop {
        let chunk: Vec<Example> = examples.by_ref().take(CHUNK).collect();
        if chunk.is_empty() {
            break;
        }
        let looked: Vec<Looked<'_>> =
            chunk.par_iter().map(|example| look(example, settings, &near, index)).collect();
        for (example, looked) in chunk.into_iter().zip(looked) {
            let origin = *of_examples.next().expect("one for each example");
            let sample = |with: String| Sample::new(made.place(origin), &example, with);
            let earlier = |at: usize| made.place(origins[at]);
            let stop = if let Some(reason) = looked.fault {
                report.drop(reason, || sample(String::new()));
                true
            } else if let Some(overlap) = &looked.overlap {
                report.act(settings.test_overlap, Reason::TestOverlap, || sample(described(overlap)))
            } else if let Some(at) = seen.get(&looked.hash) {
                report.drop(Reason::Duplicate, || sample(earlier(*at)));
                true
            } else if let Some((at, similarity)) = near.find(&looked.shingles, &looked.keys) {
                let with = || sample(format!("{}, similarity {similarity:.2}", earlier(at)));
                report.act(settings.near_duplicates, Reason::NearDuplicate, with)
            } else {
                false
            };
            if stop {
                continue;
            }
            let words = example.texts().map(|text| text.split_whitespace().count());
            let before = lengths.len();
            lengths.extend(words.map(|words| u32::try_from(words).unwrap_or(u32::MAX)));
            report.over_long +=
                usize::from(lengths[before..].iter().any(|words| *words as usize > settings.long_words));
            // The numbers of the index are places in `kept`.
            let at = near.add(&looked.shingles, &looked.keys);
            debug_assert_eq!(at, kept.len());
            seen.entry(looked.hash).or_insert(at);
            kept.push(example);
            origins.push(origin);
        }
    }
    report.kept = kept.len();
    report.words = WordCounts::of(lengths);
    report.refusal(name, made.kind, settings)?;
    Ok(Kept { examples: kept, groups: if made.documents.is_empty() { Vec::new() } else { origins } })
}

fn described(overlap: &Overlap<'_>) -> String {
    let how = match overlap.how {
        How::Equal => "equal".to_owned(),
        How::Run(words) => format!("{words} words in a row"),
        How::Near(similarity) => format!("similarity {similarity:.2}"),
    };
    format!("{}, {how}: {}", overlap.set, super::report::shortened(overlap.text))
}
