//! Hashes the words and shingles of a text: letters and digits only, case ignored, so that two spellings of one
//! sentence that differ in punctuation, case or spacing give the same.
//!
//! A word is a run of letters and digits; in scripts that are written without spaces (Han, kana) each character counts
//! as a word. Hashes are 64 bits; two words of a corpus that fall together by chance change a measure of overlap by
//! nothing that matters.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A text's words, as hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    /// The words, in order.
    pub(super) words: Vec<u64>,
    /// Hash of all letters and digits, word borders ignored: equal for "e-mail" and "email".
    pub(super) letters: u64,
}

const START: u64 = 0xcbf2_9ce4_8422_2325;

impl Words {
    pub(super) fn of(text: &str) -> Self {
        let mut words = Vec::with_capacity(text.len() / 5);
        let (mut letters, mut word) = (START, START);
        let mut end = |word: &mut u64| {
            if *word != START {
                words.push(mix(*word));
                *word = START;
            }
        };
        for c in text.chars() {
            if !c.is_alphanumeric() {
                // A combining mark or an apostrophe inside a word does not end it for a reader, but every text is cut
                // by the same rule, and that is all that is asked for.
                end(&mut word);
                continue;
            }
            let alone = stands_alone(c);
            if alone {
                end(&mut word);
            }
            if c.is_ascii() {
                let c = u64::from(c.to_ascii_lowercase() as u32);
                (word, letters) = (step(word, c), step(letters, c));
            } else {
                for c in c.to_lowercase() {
                    (word, letters) = (step(word, u64::from(c as u32)), step(letters, u64::from(c as u32)));
                }
            }
            if alone {
                end(&mut word);
            }
        }
        end(&mut word);
        Words { words, letters: mix(letters) }
    }

    /// Adds the hashes of every run of `width` words to `shingles`, marked with the `side` of the example they come
    /// from; of a text with fewer words, the hash of all of them. No words, no shingle.
    pub(super) fn shingle(&self, width: usize, side: u64, shingles: &mut Vec<u32>) {
        if self.words.is_empty() {
            return;
        }
        for run in self.words.windows(width.min(self.words.len())) {
            let hash = run.iter().fold(START ^ side, |hash, word| step(hash, *word));
            shingles.push((mix(hash) >> 32) as u32);
        }
    }
}

/// FNV-1a, over values instead of bytes; [`mix`] makes up for its weak high bits.
fn step(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x0000_0100_0000_01b3)
}

/// Spreads every bit over all bits (the finisher of SplitMix64).
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Scripts without spaces between words.
fn stands_alone(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Share of the shingles of both that are in both (Jaccard); both sorted, without repeats. Two empty sets share nothing.
pub(super) fn jaccard(a: &[u32], b: &[u32]) -> f64 {
    let (mut i, mut j, mut both) = (0, 0, 0usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, both) = (i + 1, j + 1, both + 1),
        }
    }
    let either = a.len() + b.len() - both;
    if either == 0 { 0.0 } else { both as f64 / either as f64 }
}

/// A map whose keys are hashes already.
pub(super) type HashedMap<V> = HashMap<u64, V, BuildHasherDefault<AsIs>>;

/// Takes a hash for its own hash.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64, which are written by write_u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn case_punctuation_and_spacing_do_not_count() {
        assert_eq!(Words::of("The CAT, (sat)!"), Words::of("  the cat sat"));
        assert_eq!(Words::of("ÄRGER"), Words::of("ärger"));
        assert_ne!(Words::of("the cat sat"), Words::of("the cat sits"));
        assert_ne!(Words::of("the cat sat").words, Words::of("thecat sat").words);
        assert_eq!(Words::of("e-mail").letters, Words::of("email").letters);
        assert!(Words::of("?!").words.is_empty());
    }

    #[test]
    fn characters_of_scripts_without_spaces_are_words() {
        assert_eq!(Words::of("日本語 ok").words.len(), 4);
        assert_eq!(Words::of("x日y").words.len(), 3);
    }

    #[test]
    fn shingles_are_runs_of_words_and_sides_are_told_apart() {
        let shingles = |text: &str, side| {
            let mut shingles = Vec::new();
            Words::of(text).shingle(2, side, &mut shingles);
            shingles
        };
        assert_eq!(shingles("a b c", 0).len(), 2);
        assert_eq!(shingles("a b c", 0)[1], shingles("b c", 0)[0]);
        assert_eq!(shingles("a", 0).len(), 1);
        assert_ne!(shingles("a", 0), shingles("a", 1));
        assert!(shingles("", 0).is_empty());
    }

    proptest! {
        #[test]
        fn jaccard_is_that_of_the_sets(a in prop::collection::btree_set(0u32..40, 0..30), b in prop::collection::btree_set(0u32..40, 0..30)) {
            let sorted = |s: &BTreeSet<u32>| s.iter().copied().collect::<Vec<_>>();
            let (both, either) = (a.intersection(&b).count(), a.union(&b).count());
            let expected = if either == 0 { 0.0 } else { both as f64 / either as f64 };
            prop_assert_eq!(jaccard(&sorted(&a), &sorted(&b)), expected);
        }
    }
}
