//! The sampler gives the examples of each step's batch. It is a pure function of data sets, batch size and seed, so
//! that an interrupted run continues at any step as if it had not been interrupted.
//!
//! Each batch comes from one data set: in-batch negatives of another kind of text would be distinguished by their kind.
//! Which one is drawn by weight from a low-discrepancy sequence (multiples of the golden ratio): after any number of
//! steps the shares are as near to the weights as whole batches allow, so a small share of labelled data is replayed
//! at even distances.
//!
//! A data set is gone through in a new seeded order each epoch. No batch goes across an epoch's end: what does not fill
//! a batch is left out of that epoch. Examples that share a text are kept out of one batch where that is possible,
//! because each would be the other's false negative; examples of one document too, if there are documents enough.

use std::collections::{HashSet, VecDeque};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::{DataError, Dataset, Example, Kind, split::content_hash};
use crate::random::{SplitMix, mixed};

/// Lookahead, in batch sizes, for examples that share nothing with the batch.
const LOOK_AHEAD: usize = 8;
/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The examples of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Which data set, by number.
    pub dataset: usize,
    /// Which of its examples.
    pub examples: Vec<usize>,
    /// How often the data set was gone through before.
    pub epoch: u64,
    /// How many of the examples share a text with an earlier one of the batch.
    pub repeated: usize,
}

/// Chooses the examples of each batch. It holds no texts.
#[derive(Debug)]
pub struct Sampler {
    sets: Vec<Set>,
    batch_size: usize,
    seed: u64,
    /// Batches of each set among the first `counted` steps: kept so that asking in order costs nothing.
    counts: Vec<u64>,
    counted: u64,
}

#[derive(Debug)]
struct Set {
    examples: usize,
    /// Up to where on the circle of 2^64 a draw falls on this set; the sets lie side by side.
    end: u64,
    /// Hashes of each example's texts; empty if no two examples share one.
    texts: Vec<Vec<u64>>,
    /// Groups as in [`Dataset::groups`]; empty if there are too few to keep apart.
    groups: Vec<u32>,
    /// The epoch that was asked for last, in order.
    order: Option<(u64, Vec<u32>)>,
}

impl Sampler {
    /// Batches of `batch_size` examples.
    ///
    /// # Errors
    /// [`DataError::SmallerThanBatch`] for a data set that cannot fill one batch; [`DataError::Unusable`] if there is no
    /// data set, a batch is to have fewer than two examples, or a weight is not a number above 0.
    pub fn new(datasets: &[Dataset], batch_size: usize, seed: u64) -> Result<Self, DataError> {
        let wrong = |name: &str, reason: String| DataError::Unusable { name: name.to_owned(), reason };
        if datasets.is_empty() {
            return Err(wrong(
                "training data",
                "there is none; a recipe has one [[data]] table or more".into(),
            ));
        }
        if batch_size < 2 {
            let reason = format!(
                "{batch_size} is too small: a loss tells examples of a batch apart, so it takes 2 or more"
            );
            return Err(wrong("batch size", reason));
        }
        for set in datasets {
            if !(set.weight.is_finite() && set.weight > 0.0) {
                return Err(wrong(
                    &set.name,
                    format!("weight = {}; it must be a number above 0", set.weight),
                ));
            }
            if set.examples.len() < batch_size {
                return Err(DataError::SmallerThanBatch {
                    name: set.name.clone(),
                    kind: set.kind,
                    examples: set.examples.len(),
                    batch_size,
                });
            }
        }
        let total: f64 = datasets.iter().map(|set| set.weight).sum();
        let mut sum = 0.0;
        let mut sets: Vec<Set> = Vec::with_capacity(datasets.len());
        for set in datasets {
            sum += set.weight / total;
            let distinct = set.groups.iter().collect::<HashSet<_>>().len();
            sets.push(Set {
                examples: set.examples.len(),
                end: (sum * 2f64.powi(64)) as u64,
                texts: shared_texts(set),
                groups: if distinct >= 2 * batch_size { set.groups.clone() } else { Vec::new() },
                order: None,
            });
        }
        // Whatever rounding did, the circle is covered.
        sets.last_mut().expect("there is a data set").end = u64::MAX;
        let counts = vec![0; sets.len()];
        Ok(Sampler { sets, batch_size, seed, counts, counted: 0 })
    }

    /// The batch of a step, from 0. Cheap in order; the first of an epoch orders the epoch, and going back counts anew.
    pub fn batch(&mut self, step: u64) -> Batch {
        self.count(step);
        let dataset = self.drawn(step);
        let batches = self.batches_per_epoch(dataset);
        let (epoch, at) = (self.counts[dataset] / batches, (self.counts[dataset] % batches) as usize);
        let (size, seed) = (self.batch_size, mixed(mixed(self.seed, dataset as u64), epoch));
        let set = &mut self.sets[dataset];
        if set.order.as_ref().is_none_or(|(ordered, _)| *ordered != epoch) {
            set.order = Some((epoch, set.ordered(size, seed)));
        }
        let (_, order) = set.order.as_ref().expect("it was just made");
        let examples: Vec<usize> =
            order[at * size..(at + 1) * size].iter().map(|&example| example as usize).collect();
        Batch { dataset, repeated: set.repeated(&examples), examples, epoch }
    }

    /// Batches in which a data set is gone through once.
    pub fn batches_per_epoch(&self, dataset: usize) -> u64 {
        (self.sets[dataset].examples / self.batch_size) as u64
    }

    /// Steps after which the first data set has been gone through `epochs` times; the others come along by weight.
    pub fn steps(&mut self, epochs: u64) -> u64 {
        let wanted = epochs.saturating_mul(self.batches_per_epoch(0));
        self.count(0);
        while self.counts[0] < wanted {
            self.count(self.counted + 1);
        }
        self.counted
    }

    /// Brings `counts` to the steps before `step`.
    fn count(&mut self, step: u64) {
        if step < self.counted {
            self.counts.fill(0);
            self.counted = 0;
        }
        while self.counted < step {
            let drawn = self.drawn(self.counted);
            self.counts[drawn] += 1;
            self.counted += 1;
        }
    }

    /// The data set of a step.
    fn drawn(&self, step: u64) -> usize {
        let at = mixed(self.seed, u64::MAX).wrapping_add(step.wrapping_mul(GOLDEN));
        self.sets.iter().position(|set| at <= set.end).expect("the last set ends at the end")
    }
}

/// Hashes of the texts of every example, if any text is in two of them.
fn shared_texts(set: &Dataset) -> Vec<Vec<u64>> {
    let of_one = |example: &Example| -> Vec<u64> {
        let mut hashes: Vec<u64> = example.texts().map(|text| content_hash([text].into_iter())).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    };
    // Guarded texts are all different: their lists would take more memory than all else here.
    let mut anchors: Vec<u64> = if set.kind == Kind::Texts {
        set.examples.par_iter().map(|example| content_hash(example.texts())).collect()
    } else {
        set.examples.par_iter().flat_map_iter(of_one).collect()
    };
    let count = anchors.len();
    anchors.sort_unstable();
    anchors.dedup();
    if anchors.len() == count { Vec::new() } else { set.examples.par_iter().map(of_one).collect() }
}

impl Set {
    /// An epoch's examples, batch after batch; what does not fill a batch is left out.
    fn ordered(&self, batch_size: usize, seed: u64) -> Vec<u32> {
        let mut random = SplitMix(seed);
        let mut order: Vec<u32> =
            (0..u32::try_from(self.examples).expect("examples in memory are fewer than 2^32")).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i as u64 + 1) as usize);
        }
        if self.texts.is_empty() && self.groups.is_empty() {
            order.truncate(self.examples / batch_size * batch_size);
            return order;
        }
        self.spread(order, batch_size)
    }

    /// Moves examples that share something with their batch into a later one. Linear: a batch looks at a bounded number.
    fn spread(&self, order: Vec<u32>, batch_size: usize) -> Vec<u32> {
        let batches = order.len() / batch_size;
        let mut spread = Vec::with_capacity(batches * batch_size);
        let mut coming = order.into_iter();
        let mut waiting: VecDeque<u32> = VecDeque::new();
        for end in (1..=batches).map(|batch| batch * batch_size) {
            let mut taken = Taken::default();
            for _ in 0..waiting.len().min(LOOK_AHEAD * batch_size) {
                if spread.len() == end {
                    break;
                }
                let example = waiting.pop_front().expect("counted");
                if taken.fits(self, example) {
                    spread.push(example);
                } else {
                    waiting.push_back(example);
                }
            }
            let mut passed = 0;
            while spread.len() < end && passed < LOOK_AHEAD * batch_size {
                let Some(example) = coming.next() else { break };
                if taken.fits(self, example) {
                    spread.push(example);
                } else {
                    waiting.push_back(example);
                    passed += 1;
                }
            }
            // Too alike: the batch takes what there is, and its `repeated` says so.
            while spread.len() < end {
                let next = waiting.pop_front().or_else(|| coming.next());
                spread.push(next.expect("the batches hold no more than there are examples"));
            }
        }
        spread
    }

    fn repeated(&self, examples: &[usize]) -> usize {
        if self.texts.is_empty() {
            return 0;
        }
        let mut seen: HashSet<u64> = HashSet::new();
        let shares = |example: &&usize| {
            let texts = &self.texts[**example];
            let shares = texts.iter().any(|text| seen.contains(text));
            seen.extend(texts);
            shares
        };
        examples.iter().filter(shares).count()
    }
}

/// What the examples of a batch hold.
#[derive(Default)]
struct Taken {
    texts: HashSet<u64>,
    groups: HashSet<u32>,
}

impl Taken {
    /// Whether an example shares nothing with them; then it is one of them.
    fn fits(&mut self, set: &Set, example: u32) -> bool {
        let texts = set.texts.get(example as usize).map_or(&[][..], Vec::as_slice);
        let group = set.groups.get(example as usize);
        if texts.iter().any(|text| self.texts.contains(text))
            || group.is_some_and(|g| self.groups.contains(g))
        {
            return false;
        }
        self.texts.extend(texts);
        self.groups.extend(group);
        true
    }
}

#[cfg(test)]
mod tests;
