//! Repeats some of a text's token ids: ESimCSE's word repetition (Wu et al. 2022, arXiv 2109.04380,
//! section 3.1), so that the two views of a text differ in length and the encoder does not learn to match lengths.

use std::ops::Range;

use crate::random::SplitMix;

/// The share of tokens that the paper repeats at most.
pub const DUP_RATE: f64 = 0.32;

/// Repeats some of a text's tokens, each right behind itself.
///
/// `ids[text]` are the text's tokens; the ids around them are special and are not touched. How many are repeated is
/// drawn evenly from 0 to `max(2, dup_rate * N)` for the text's N tokens, and which ones evenly without replacement,
/// both by `seed`. Unlike in the paper, never so many that the result would exceed `tokens_max`: an encoder that cuts
/// would take the repeated tokens at the price of the last ones.
///
/// # Panics
/// If `text` does not lie within `ids`.
pub fn repeat_words(
    ids: &[u32],
    text: Range<usize>,
    dup_rate: f64,
    tokens_max: usize,
    seed: u64,
) -> Vec<u32> {
    let words = &ids[text.clone()];
    let most = ((dup_rate * words.len() as f64) as usize)
        .max(2)
        .min(words.len())
        .min(tokens_max.saturating_sub(ids.len()));
    let mut random = SplitMix(seed);
    let mut wanted = random.below(most as u64 + 1);
    let mut repeated = Vec::with_capacity(ids.len() + wanted as usize);
    repeated.extend_from_slice(&ids[..text.start]);
    // Selection sampling (Knuth, TAOCP 2, 3.4.2, algorithm S).
    for (i, &id) in words.iter().enumerate() {
        repeated.push(id);
        if random.below((words.len() - i) as u64) < wanted {
            repeated.push(id);
            wanted -= 1;
        }
    }
    repeated.extend_from_slice(&ids[text.end..]);
    repeated
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_and_places_are_drawn_evenly() {
        // [CLS] and ten different tokens and [SEP]; up to max(2, 0.5 * 10) = 5 more.
        let ids: Vec<u32> = [101].into_iter().chain(1..=10).chain([102]).collect();
        let (mut by_length, mut by_place) = ([0; 6], [0; 11]);
        for seed in 0..6000 {
            let repeated = repeat_words(&ids, 1..11, 0.5, 512, seed);
            by_length[repeated.len() - ids.len()] += 1;
            for pair in repeated.windows(2).filter(|pair| pair[0] == pair[1]) {
                by_place[pair[0] as usize] += 1;
            }
        }
        assert!(by_length.iter().all(|n| (850..1150).contains(n)), "{by_length:?}");
        // 2.5 of 10 on average.
        assert!(by_place[1..].iter().all(|n| (1350..1650).contains(n)), "{by_place:?}");
    }

    #[test]
    fn short_texts_get_up_to_two() {
        let longest = |n: u32, max| {
            let ids: Vec<u32> = (0..n).collect();
            (0..200).map(|seed| repeat_words(&ids, 0..n as usize, 0.0, max, seed).len()).max().unwrap()
        };
        assert_eq!(longest(5, 99), 7);
        assert_eq!(longest(1, 99), 2, "no token is repeated twice");
        assert_eq!(longest(0, 99), 0);
        assert_eq!(longest(5, 6), 6, "the model's limit");
        assert_eq!(longest(5, 3), 5, "nothing is taken away");
    }

    proptest! {
        #[test]
        fn the_text_stays_as_it_was_but_for_repeats(
            words in prop::collection::vec(5u32..1000, 0..40), rate in 0.0f64..1.0, room in 0usize..20, seed: u64,
        ) {
            let ids: Vec<u32> = [1].into_iter().chain(words.iter().copied()).chain([2]).collect();
            let repeated = repeat_words(&ids, 1..ids.len() - 1, rate, ids.len() + room, seed);
            prop_assert_eq!(&repeated, &repeat_words(&ids, 1..ids.len() - 1, rate, ids.len() + room, seed));
            prop_assert!(repeated.len() <= ids.len() + room);
            prop_assert!(repeated.len() - ids.len() <= (rate * words.len() as f64).max(2.0) as usize);
            let runs = |ids: &[u32]| -> Vec<(u32, usize)> {
                ids.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect()
            };
            let (before, after) = (runs(&ids), runs(&repeated));
            prop_assert_eq!(before.len(), after.len());
            for ((id, n), (same, more)) in before.into_iter().zip(after) {
                let most = if id < 5 { n } else { 2 * n };
                prop_assert!(id == same && n <= more && more <= most);
            }
        }
    }
}
