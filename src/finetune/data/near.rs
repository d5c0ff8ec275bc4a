//! Finds an earlier text that shares nearly all shingles of a text: MinHash (Broder 1997, "On the resemblance and
//! containment of documents") with banded locality-sensitive hashing (Leskovec, Rajaraman & Ullman, "Mining of Massive
//! Datasets", section 3.4).
//!
//! For sets of Jaccard similarity s, `bands` bands of `rows` minima each agree in at least one band with probability
//! `1 - (1 - s^rows)^bands`. What agrees is compared exactly, so nothing is called near that is not; what is missed at
//! the threshold itself is [`MISSED`] at most, and far less above it. Time and memory are linear in the number of
//! texts: a bucket answers with at most [`BUCKET`] texts, so that a million variants of one sentence do not make a
//! million million comparisons. (Where a bucket overflows, pairs in it may be missed beyond that rate.)

use super::words::{jaccard, mix};
use crate::random::SplitMix;

/// Share of the pairs exactly at the threshold that may be missed.
const MISSED: f64 = 1e-3;
/// Texts that one bucket of one band answers with.
const BUCKET: usize = 8;
/// The same minima in every run: what is dropped must not depend on a run's seed.
const SEED: u64 = 0x6d69_6e68_6173_6821;

/// Texts, by number in the order they were added.
#[derive(Debug)]
pub(super) struct NearIndex {
    threshold: f64,
    rows: usize,
    /// One per minimum: h(x) = (a x + b) >> 32, a odd.
    hashes: Vec<(u64, u64)>,
    tables: Vec<Table>,
    shingles: Vec<u32>,
    /// Where a text's shingles end.
    ends: Vec<usize>,
}

/// Keys of a text in every band; none for a text without shingles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BandKeys(Vec<u32>);

impl NearIndex {
    /// For at most `texts` texts, and pairs whose Jaccard similarity is `threshold` (above 0, at most 1) or more.
    pub(super) fn new(threshold: f64, texts: usize) -> Self {
        // As many minima a band as leave two in five of the pairs at the threshold in one band: fewer give more pairs
        // that must be compared in vain, more give more bands to fill.
        let rows = ((0.4f64.ln() / threshold.ln()).floor().clamp(1.0, 16.0)) as usize;
        let agree = threshold.powi(i32::try_from(rows).expect("16 at most"));
        let bands = if agree >= 1.0 { 1 } else { (MISSED.ln() / (1.0 - agree).ln()).ceil() as usize };
        let mut random = SplitMix(SEED);
        NearIndex {
            threshold,
            rows,
            hashes: (0..rows * bands).map(|_| (random.next() | 1, random.next())).collect(),
            tables: (0..bands).map(|_| Table::new(texts)).collect(),
            shingles: Vec::new(),
            ends: Vec::with_capacity(texts),
        }
    }

    /// The costly part of finding and adding, which needs no order: for the pool's threads.
    /// `shingles` are sorted, without repeats.
    pub(super) fn keys(&self, shingles: &[u32]) -> BandKeys {
        if shingles.is_empty() {
            return BandKeys(Vec::new());
        }
        let minimum = |&(a, b): &(u64, u64)| {
            shingles.iter().map(|&x| (a.wrapping_mul(u64::from(x)).wrapping_add(b) >> 32) as u32).min()
        };
        let key = |band: &[(u64, u64)]| {
            let folded = band
                .iter()
                .fold(0u64, |key, hash| mix(key ^ u64::from(minimum(hash).expect("there is a shingle"))));
            (folded >> 32) as u32
        };
        BandKeys(self.hashes.chunks_exact(self.rows).map(key).collect())
    }

    /// An earlier text at or above the threshold, and how similar it is.
    pub(super) fn find(&self, shingles: &[u32], keys: &BandKeys) -> Option<(usize, f64)> {
        let candidates = self.tables.iter().zip(&keys.0).flat_map(|(table, key)| table.with(*key));
        candidates
            .map(|text| (text, jaccard(shingles, self.of(text))))
            .find(|(_, similarity)| *similarity >= self.threshold)
    }

    /// Adds a text; answers its number.
    pub(super) fn add(&mut self, shingles: &[u32], keys: &BandKeys) -> usize {
        let text = self.ends.len();
        self.shingles.extend_from_slice(shingles);
        self.ends.push(self.shingles.len());
        for (table, key) in self.tables.iter_mut().zip(&keys.0) {
            table.add(*key, text);
        }
        text
    }

    fn of(&self, text: usize) -> &[u32] {
        let start = if text == 0 { 0 } else { self.ends[text - 1] };
        &self.shingles[start..self.ends[text]]
    }
}

/// One band's buckets: open addressing with linear probing, at most half full; 8 bytes a slot, where a map of lists
/// would take ten times that.
#[derive(Debug)]
struct Table {
    /// Key, and the text's number from 1; 0 is an empty slot.
    slots: Vec<(u32, u32)>,
}

impl Table {
    fn new(texts: usize) -> Self {
        Table { slots: vec![(0, 0); (2 * texts).next_power_of_two().max(2)] }
    }

    fn probe(&self, key: u32) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len() - 1;
        let start = key as usize & mask;
        (0..=mask).map(move |i| (start + i) & mask)
    }

    fn with(&self, key: u32) -> impl Iterator<Item = usize> {
        self.probe(key)
            .map(|at| self.slots[at])
            .take_while(|slot| slot.1 != 0)
            .filter(move |slot| slot.0 == key)
            .map(|slot| slot.1 as usize - 1)
    }

    fn add(&mut self, key: u32, text: usize) {
        let mut same = 0;
        for at in self.probe(key) {
            match self.slots[at] {
                (_, 0) => {
                    let number = u32::try_from(text + 1).expect("texts in memory are fewer than 2^32");
                    self.slots[at] = (key, number);
                    return;
                }
                (other, _) if other == key => {
                    same += 1;
                    if same == BUCKET {
                        return;
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::finetune::data::words::Words;

    fn shingles(text: &str) -> Vec<u32> {
        let mut shingles = Vec::new();
        Words::of(text).shingle(2, 0, &mut shingles);
        shingles.sort_unstable();
        shingles.dedup();
        shingles
    }

    #[test]
    fn the_same_words_are_found_and_others_are_not() {
        let mut index = NearIndex::new(0.8, 3);
        for text in ["The cat sat on the mat today.", "", "A dog ran over the wide green field."] {
            let shingles = shingles(text);
            index.add(&shingles, &index.keys(&shingles));
        }
        let find = |text: &str| index.find(&shingles(text), &index.keys(&shingles(text)));
        assert_eq!(find("a dog ran; over the wide, GREEN field"), Some((2, 1.0)));
        assert_eq!(find("A dog ran."), None);
        assert_eq!(find(""), None, "texts without words are not alike");
    }

    #[test]
    fn pairs_at_the_threshold_are_found_nearly_always() {
        for threshold in [0.5, 0.7, 0.8, 0.9, 1.0] {
            let mut random = SplitMix(11);
            let (mut found, mut all) = (0, 0);
            for _ in 0..400 {
                // Two sets of 100 in all, of which just the threshold's share is in both.
                let both = (100.0 * threshold) as usize;
                let values: Vec<u32> = (0..100).map(|_| (random.next() >> 32) as u32).collect();
                let own = (100 - both) / 2;
                let mut a = [&values[..both], &values[both..both + own]].concat();
                let mut b = [&values[..both], &values[both + own..both + 2 * own]].concat();
                a.sort_unstable();
                b.sort_unstable();
                let mut index = NearIndex::new(threshold, 1);
                index.add(&a, &index.keys(&a));
                found += usize::from(index.find(&b, &index.keys(&b)).is_some());
                all += 1;
            }
            assert!(found >= all - 4, "threshold {threshold}: {found} of {all}");
        }
    }

    #[test]
    fn an_overfull_bucket_costs_no_more_than_its_limit() {
        let mut table = Table::new(100);
        (0..100).for_each(|text| table.add(7, text));
        assert_eq!(table.with(7).collect::<Vec<_>>(), (0..BUCKET).collect::<Vec<_>>());
        // A neighbour in the probing order is found behind them.
        table.add(8, 100);
        assert_eq!(table.with(8).collect::<Vec<_>>(), [100]);
        assert_eq!(table.with(9).count(), 0);
    }

    proptest! {
        #[test]
        fn what_is_found_is_near_and_what_is_equal_is_found(
            texts in prop::collection::vec("[ab]( [abc]){0,8}", 1..60), threshold in 0.5f64..=1.0,
        ) {
            let sets: Vec<Vec<u32>> = texts.iter().map(|t| shingles(t)).collect();
            let mut index = NearIndex::new(threshold, texts.len());
            let mut kept: Vec<usize> = Vec::new();
            for (i, set) in sets.iter().enumerate() {
                let keys = index.keys(set);
                let equal = kept.iter().any(|&k| sets[k] == *set);
                match index.find(set, &keys) {
                    Some((at, similarity)) => {
                        let exact = jaccard(&sets[kept[at]], set);
                        prop_assert!(exact >= threshold && exact == similarity);
                    }
                    None => {
                        prop_assert!(!equal, "{:?} is there already", texts[i]);
                        prop_assert_eq!(index.add(set, &keys), kept.len());
                        kept.push(i);
                    }
                }
            }
        }
    }
}
