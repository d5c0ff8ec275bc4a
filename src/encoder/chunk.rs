//! Chunking cuts a long text into passages with their place in it.
//!
//! Passages are made of whole sentences (Unicode Standard Annex 29), packed greedily up to a number of tokens;
//! each begins with the last sentences of the one before, up to the overlap.
//! A sentence that is longer than a passage is cut between words.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::tokenize::TokenPlaces;

/// A piece that is never cut further: a sentence, or a part of an overlong one.
struct Unit {
    range: Range<usize>,
    tokens: usize,
}

/// Cuts `text`, whose tokens lie at `places`, into passages of at most `tokens_max` tokens that share at most
/// `overlap` tokens with the one before.
///
/// Returns byte ranges, trimmed of white space, in order; together they cover every character that is not white space.
pub(super) fn passages(
    text: &str,
    places: &TokenPlaces,
    tokens_max: usize,
    overlap: usize,
) -> Vec<Range<usize>> {
    debug_assert!(overlap < tokens_max);
    if places.ranges.len() <= tokens_max {
        return vec![trimmed(text, 0..text.len())];
    }
    let units = units(text, places, tokens_max);
    let mut passages: Vec<Range<usize>> = Vec::new();
    let mut first = 0;
    while first < units.len() {
        let mut tokens = 0;
        let mut end = first;
        while end < units.len() && (end == first || tokens + units[end].tokens <= tokens_max) {
            tokens += units[end].tokens;
            end += 1;
        }
        let range = trimmed(text, units[first].range.start..units[end - 1].range.end);
        if !range.is_empty() {
            passages.push(range);
        }
        if end == units.len() {
            break;
        }
        // Step back over whole units while they fit the overlap, but always forward by at least one.
        let mut shared = 0;
        let mut next = end;
        while next > first + 1 && shared + units[next - 1].tokens <= overlap {
            shared += units[next - 1].tokens;
            next -= 1;
        }
        // Overlap that leaves no room for the next unit would repeat itself without getting on.
        while next < end && shared + units[end].tokens > tokens_max {
            shared -= units[next].tokens;
            next += 1;
        }
        first = next;
    }
    if passages.is_empty() {
        passages.push(0..0);
    }
    passages
}

/// The sentences of a text (Unicode Standard Annex 29), without the white space around them, in order.
///
/// ```
/// let sentences: Vec<_> = distilface::encoder::sentences("One.  Two? Three").collect();
/// assert_eq!(sentences, ["One.", "Two?", "Three"]);
/// ```
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.unicode_sentences().map(str::trim).filter(|sentence| !sentence.is_empty())
}

fn units(text: &str, places: &TokenPlaces, tokens_max: usize) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut token = 0;
    let mut start = 0;
    for (sentence_start, sentence) in text.split_sentence_bound_indices() {
        let mut end = sentence_start + sentence.len();
        let first = token;
        while token < places.ranges.len() && places.ranges[token].start < end {
            // A token is never cut, should a tokenizer see no border where the annex sees one.
            end = floor_char(text, places.ranges[token].end.max(end));
            token += 1;
        }
        if end <= start {
            continue;
        }
        if token - first <= tokens_max {
            units.push(Unit { range: start..end, tokens: token - first });
            start = end;
            continue;
        }
        // Too long: cut in front of the last word that still fits.
        let mut from_byte = start;
        let mut from = first;
        while token - from > tokens_max {
            let limit = from + tokens_max;
            let cut = (from + 1..=limit).rev().find(|&t| places.begins_word[t]).unwrap_or(limit);
            let cut_byte = floor_char(text, places.ranges[cut].start).max(from_byte);
            units.push(Unit { range: from_byte..cut_byte, tokens: cut - from });
            (from, from_byte) = (cut, cut_byte);
        }
        units.push(Unit { range: from_byte..end, tokens: token - from });
        start = end;
    }
    units
}

fn floor_char(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    let end = start + part.trim().len();
    start..end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One token per word, as far as white space tells.
    fn words(text: &str) -> TokenPlaces {
        let ranges: Vec<_> = text
            .split_whitespace()
            .map(|w| {
                let start = w.as_ptr() as usize - text.as_ptr() as usize;
                start..start + w.len()
            })
            .collect();
        TokenPlaces { begins_word: vec![true; ranges.len()], ranges }
    }

    fn cut(text: &str, max: usize, overlap: usize) -> Vec<&str> {
        passages(text, &words(text), max, overlap).into_iter().map(|r| &text[r]).collect()
    }

    #[test]
    fn a_short_text_is_one_passage_without_its_outer_white_space() {
        assert_eq!(cut("  One two three.  ", 5, 1), ["One two three."]);
        assert_eq!(passages("", &words(""), 5, 1), vec![0..0]);
        assert_eq!(passages(" \n ", &words(" \n "), 5, 1).len(), 1);
    }

    #[test]
    fn sentences_are_packed_whole_and_overlap_whole() {
        let text = "A b c. D e f. G h i. J k l.";
        assert_eq!(cut(text, 6, 0), ["A b c. D e f.", "G h i. J k l."]);
        assert_eq!(cut(text, 6, 3), ["A b c. D e f.", "D e f. G h i.", "G h i. J k l."]);
        // An overlap smaller than any sentence shares nothing.
        assert_eq!(cut(text, 6, 2), ["A b c. D e f.", "G h i. J k l."]);
    }

    #[test]
    fn a_token_across_a_sentence_border_is_not_cut() {
        // One token to this tokenizer, two sentences to the annex.
        assert_eq!(cut("A!ß ß?", 1, 0), ["A!ß", "ß?"]);
    }

    #[test]
    fn an_overlong_sentence_is_cut_between_words() {
        assert_eq!(cut("a b c d e f g", 3, 0), ["a b c", "d e f", "g"]);
        assert_eq!(cut("Hi. A b c d e f g. End.", 3, 0), ["Hi.", "A b c", "d e f", "g. End."]);
    }

    proptest! {
        #[test]
        fn passages_cover_every_word_in_order_within_the_limit(
            text in "([A-Za-zäß漢]{1,6}[ .!?\n]{1,2}){0,60}", max in 1usize..12, overlap in 0usize..12,
        ) {
            let overlap = overlap.min(max - 1);
            let places = words(&text);
            let ranges = passages(&text, &places, max, overlap);
            let tokens_in = |r: &Range<usize>| places.ranges.iter().filter(|t| r.start <= t.start && t.end <= r.end).count();
            for r in &ranges {
                prop_assert!(tokens_in(r) <= max.max(1));
            }
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].start < pair[1].start && pair[0].end < pair[1].end);
            }
            for t in &places.ranges {
                prop_assert!(ranges.iter().any(|r| r.start <= t.start && t.end <= r.end), "{t:?} is in no passage");
            }
        }
    }
}
