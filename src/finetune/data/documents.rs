//! Makes examples from documents without labels: a title with its body, neighbouring passages, a sentence with the
//! passage it stands in; or just sentences or passages.
//!
//! A document's text is cut into sentences and these are packed into passages again, whatever passages it came in:
//! so overlapping passages of a collection do not teach that two texts match because they share sentences.

use std::{collections::BTreeMap, path::Path};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{DataError, Example, Kind, Made, report::FileReport, source::Source};
use crate::{
    encoder::sentences,
    eval::beir::CorpusDocument,
    random::SplitMix,
    source::{self, FieldMap, SourceError, SourceOptions, Sources, is_content_id},
};

/// Default of [`Source::passage_words`]: about 130 tokens, which the recipes' encoders take whole.
pub const PASSAGE_WORDS: usize = 100;
/// Below this a passage is hardly more than a sentence.
pub const PASSAGE_WORDS_MIN: usize = 8;
/// A sentence of fewer words ("See Fig. 2.") is neither an example nor a query.
const SENTENCE_WORDS_MIN: usize = 4;
/// How often the query stays in its passage: 1 - the masking rate of Lee et al. 2019, section 4.
const IN_PLACE_PERCENT: u64 = 10;

/// The way in which an example is made from a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// It stood in a file.
    #[serde(skip_deserializing)]
    Row,
    /// A document's title, with its first passage.
    Title,
    /// A passage, with the next one of the document.
    Neighbours,
    /// A sentence, with the rest of its passage; in 10 % of cases with the whole passage.
    /// Inverse cloze task, Lee et al. 2019 (arXiv 1906.00300), section 4; there the title is in front of the passage.
    InverseCloze,
    /// Each sentence by itself.
    Sentences,
    /// Each passage by itself.
    Passages,
}

impl Way {
    /// Kind of the examples of documents made this way.
    pub fn kind(self) -> Kind {
        match self {
            Way::Sentences | Way::Passages | Way::Row => Kind::Texts,
            Way::Title | Way::Neighbours | Way::InverseCloze => Kind::Pairs,
        }
    }

    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Way::Row => "row",
            Way::Title => "title",
            Way::Neighbours => "neighbours",
            Way::InverseCloze => "inverse_cloze",
            Way::Sentences => "sentences",
            Way::Passages => "passages",
        }
    }
}

/// The ways taken if a source names none.
pub const DEFAULT_WAYS: [Way; 3] = [Way::Title, Way::Neighbours, Way::InverseCloze];

/// A document that examples are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDocument {
    /// The document's id.
    pub id: String,
    /// Empty if it has none.
    pub title: String,
    /// Its text in order, whole or in passages; passages may overlap in whole sentences.
    pub passages: Vec<String>,
}

impl From<CorpusDocument> for SourceDocument {
    fn from(document: CorpusDocument) -> Self {
        SourceDocument { id: document.id, title: document.title, passages: vec![document.text] }
    }
}

/// Reads a file of documents as `ingest` reads it; one without an id is called by its line.
///
/// # Errors
/// What is wrong with the first record that is no document.
pub(super) fn read(path: &Path, source: &Source) -> Result<Vec<SourceDocument>, DataError> {
    let fields = FieldMap {
        id: source.id_field.clone(),
        title: source.title_field.clone(),
        text: source.text_field.clone(),
        without_payload: true,
        ..FieldMap::default()
    };
    let failed = |error: SourceError| match error.line {
        Some(line) => DataError::line(path, usize::try_from(line).unwrap_or(usize::MAX), error.reason),
        None => DataError::File { path: path.to_owned(), reason: error.reason },
    };
    let options = SourceOptions { fields, ..SourceOptions::default() };
    let files = Sources::open(&[path.to_owned()], options).map_err(failed)?;
    let documents = files.map(|read| {
        let source::SourceDocument { id, title, text, place, .. } = read.map_err(failed)?;
        let line = place.rsplit_once(':').map_or("", |(_, line)| line);
        let id = if is_content_id(&id) { format!("in line {line}") } else { id };
        Ok(SourceDocument { id, title, passages: vec![text] })
    });
    documents.collect()
}

/// Makes the examples of all documents, in the order of the documents.
pub(super) fn make(documents: Vec<SourceDocument>, source: &Source, files: Vec<FileReport>) -> Made {
    let ways = if source.make.is_empty() { &DEFAULT_WAYS[..] } else { &source.make[..] };
    let of_each: Vec<Vec<(Way, Example)>> = documents
        .par_iter()
        .map(|document| of_one(document, ways, source.passage_words, source.limit_seed))
        .collect();
    let mut made = Made {
        kind: ways[0].kind(),
        examples: Vec::new(),
        origins: Vec::new(),
        read: documents.len(),
        blank: documents.iter().filter(|d| d.passages.iter().all(|p| p.trim().is_empty())).count(),
        documents: documents.into_iter().map(|d| d.id).collect(),
        // A way that gave nothing is shown with its zero.
        ways: ways.iter().map(|way| (*way, 0)).collect::<BTreeMap<_, _>>(),
        files,
    };
    for (number, examples) in of_each.into_iter().enumerate() {
        for (way, example) in examples {
            *made.ways.entry(way).or_default() += 1;
            made.examples.push(example);
            made.origins.push(u32::try_from(number).expect("documents in memory are fewer than 2^32"));
        }
    }
    made
}

fn of_one(document: &SourceDocument, ways: &[Way], words_max: usize, seed: u64) -> Vec<(Way, Example)> {
    let sentences = all_sentences(&document.passages);
    let passages = packed(&sentences, words_max);
    let mut made = Vec::new();
    let mut add = |way, example| made.push((way, example));
    for &way in ways {
        match way {
            Way::Row => {}
            Way::Title => {
                if let (false, Some(first)) = (document.title.trim().is_empty(), passages.first()) {
                    add(way, Example::pair(document.title.trim(), first.join(" ")));
                }
            }
            Way::Neighbours => {
                for pair in passages.windows(2) {
                    add(way, Example::pair(pair[0].join(" "), pair[1].join(" ")));
                }
            }
            Way::InverseCloze => {
                // By the document's id, so that adding documents changes nothing for those that were there.
                let mut random = SplitMix(seed ^ digest(&document.id));
                for passage in &passages {
                    if let Some(example) = inverse_cloze(passage, &mut random) {
                        add(way, example);
                    }
                }
            }
            Way::Sentences => {
                for sentence in sentences.iter().filter(|s| words(s) >= SENTENCE_WORDS_MIN) {
                    add(way, Example::text(*sentence));
                }
            }
            Way::Passages => {
                for passage in &passages {
                    add(way, Example::text(passage.join(" ")));
                }
            }
        }
    }
    made
}

/// All sentences of a document, those that passages share only once.
fn all_sentences(passages: &[String]) -> Vec<&str> {
    let mut all: Vec<&str> = Vec::new();
    for passage in passages {
        let next: Vec<&str> = sentences(passage).collect();
        let shared =
            (1..=all.len().min(next.len())).rev().find(|&n| all[all.len() - n..] == next[..n]).unwrap_or(0);
        all.extend(&next[shared..]);
    }
    all
}

/// Whole sentences in passages of at most `words_max` words; a longer sentence is a passage of its own.
fn packed<'a>(sentences: &[&'a str], words_max: usize) -> Vec<Vec<&'a str>> {
    let mut passages: Vec<Vec<&str>> = Vec::new();
    let mut used = 0;
    for &sentence in sentences {
        let words = words(sentence);
        match passages.last_mut() {
            Some(passage) if used + words <= words_max => {
                passage.push(sentence);
                used += words;
            }
            _ => {
                passages.push(vec![sentence]);
                used = words;
            }
        }
    }
    passages
}

fn inverse_cloze(passage: &[&str], random: &mut SplitMix) -> Option<Example> {
    // Both numbers are drawn for every passage, so that one without a query does not move the others' choices.
    let (which, in_place) = (random.next(), random.below(100) < IN_PLACE_PERCENT);
    let queries: Vec<usize> =
        (0..passage.len()).filter(|&i| words(passage[i]) >= SENTENCE_WORDS_MIN).collect();
    if passage.len() < 2 || queries.is_empty() {
        return None;
    }
    let at = queries[(which % queries.len() as u64) as usize];
    let rest: Vec<&str> =
        passage.iter().enumerate().filter(|(i, _)| in_place || *i != at).map(|(_, s)| *s).collect();
    Some(Example::pair(passage[at], rest.join(" ")))
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

fn digest(text: &str) -> u64 {
    u64::from_le_bytes(*Sha256::digest(text.as_bytes()).first_chunk().expect("32 bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document(title: &str, passages: &[&str]) -> SourceDocument {
        SourceDocument {
            id: "d".into(),
            title: title.into(),
            passages: passages.iter().map(ToString::to_string).collect(),
        }
    }

    fn source(make: &[Way], passage_words: usize) -> Source {
        Source { make: make.to_vec(), passage_words, ..Source::new("x") }
    }

    fn examples(document: SourceDocument, make: &[Way], passage_words: usize) -> Vec<Example> {
        super::make(vec![document], &source(make, passage_words), Vec::new()).examples
    }

    const FOUR: &str =
        "The first is here now. The second comes then. And a third one came. It ends with four.";

    #[test]
    fn title_goes_with_the_first_passage_and_neighbours_with_each_other() {
        let made = examples(document(" T ", &[FOUR]), &[Way::Title, Way::Neighbours], 9);
        assert_eq!(
            made,
            [
                Example::pair("T", "The first is here now. The second comes then."),
                Example::pair(
                    "The first is here now. The second comes then.",
                    "And a third one came. It ends with four."
                ),
            ]
        );
        assert_eq!(examples(document("", &[FOUR]), &[Way::Title], 9), []);
        assert_eq!(examples(document("T", &[" "]), &[Way::Title], 9), []);
    }

    #[test]
    fn overlap_of_passages_is_taken_out() {
        let made = examples(
            document(
                "",
                &["One is the first of them. Two is the second.", "Two is the second. Three is more."],
            ),
            &[Way::Sentences],
            9,
        );
        assert_eq!(made.len(), 2 + usize::from(words("Three is more.") >= SENTENCE_WORDS_MIN));
        let made = examples(document("", &["A b c d. E f g h.", "E f g h. I j k l."]), &[Way::Neighbours], 8);
        assert_eq!(made, [Example::pair("A b c d. E f g h.", "I j k l.")]);
    }

    #[test]
    fn a_sentence_is_asked_for_the_rest_of_its_passage_and_one_time_in_ten_for_all_of_it() {
        let all: Vec<&str> = sentences(FOUR).collect();
        let mut random = SplitMix(7);
        let (mut kept, mut chosen) = (0, [0; 4]);
        for _ in 0..2000 {
            let made = inverse_cloze(&all, &mut random).unwrap();
            let at = all.iter().position(|s| **s == made.anchor).unwrap();
            chosen[at] += 1;
            let positive = made.positive.unwrap();
            if positive == FOUR {
                kept += 1;
            } else {
                let mut rest = all.clone();
                rest.remove(at);
                assert_eq!(positive, rest.join(" "));
            }
        }
        assert!((150..250).contains(&kept), "{kept}");
        assert!(chosen.iter().all(|n| (400..600).contains(n)), "{chosen:?}");
    }

    #[test]
    fn short_sentences_and_passages_of_one_sentence_are_not_asked() {
        let mut random = SplitMix(1);
        assert_eq!(inverse_cloze(&["One sentence that is alone."], &mut random), None);
        assert_eq!(inverse_cloze(&["See Fig. 2.", "See Fig. 3."], &mut random), None);
    }

    #[test]
    fn a_new_document_changes_no_example_of_the_others() {
        let make = |ids: &[&str]| {
            let documents = ids.iter().map(|id| SourceDocument { id: (*id).into(), ..document("", &[FOUR]) });
            super::make(documents.collect(), &source(&[Way::InverseCloze], 30), Vec::new()).examples
        };
        assert_eq!(make(&["a", "b"])[..], make(&["x", "a", "b"])[1..]);
        let many: Vec<String> = (0..20).map(|i| i.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let anchors: std::collections::BTreeSet<_> = make(&many).into_iter().map(|e| e.anchor).collect();
        assert_eq!(anchors.len(), 4, "every sentence is chosen by some document");
    }

    proptest! {
        #[test]
        fn passages_hold_every_sentence_once_in_order_within_the_limit(
            sentences in prop::collection::vec("[a-z]{1,4}( [a-z]{1,4}){0,12}", 0..30), max in 8usize..40,
        ) {
            let sentences: Vec<&str> = sentences.iter().map(String::as_str).collect();
            let passages = packed(&sentences, max);
            prop_assert_eq!(passages.concat(), sentences);
            for passage in &passages {
                prop_assert!(passage.len() == 1 || passage.iter().map(|s| words(s)).sum::<usize>() <= max);
            }
        }
    }
}
