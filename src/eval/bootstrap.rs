//! Bootstrap resampling says how sure a measured figure is: it resamples the items that were measured and gives
//! intervals and p-values.
//!
//! Every resample draws as many items as there are, with replacement, from a generator of its own that follows from
//! the seed, so that the answer is the same on any number of threads. Intervals are percentile intervals
//! (Efron & Tibshirani 1993, section 13.3). Two systems are compared on the same resamples, since they answered the
//! same items (Koehn 2004, section 4); the p-value is that of the shift method: the resampled differences, moved to
//! have no effect, against the one observed (Noreen 1989; Smucker, Allan & Carterette 2007, section 3.3).
//!
//! Deliberately absent: bias-corrected intervals. Beside these they move the ends by less than the figures are read to.

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde::Serialize;

use crate::random::SplitMix;

/// How to resample. Default: 1000 resamples, a confidence of 0.95, seed 1.
///
/// ```
/// use distilface::eval::bootstrap::Resampling;
///
/// let estimate = Resampling::default().mean(&[0.2, 0.4, 0.6, 0.8]);
/// assert!(estimate.low < estimate.value && estimate.value < estimate.high);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Resampling {
    /// How many samples are drawn; fewer than some hundreds leave the ends of an interval to chance. Default 1000.
    pub resamples: usize,
    /// Share of resamples inside an interval, between 0 and 1. Default 0.95.
    pub confidence: f64,
    /// Equal seeds give equal answers. Default 1.
    pub seed: u64,
}

impl Default for Resampling {
    fn default() -> Self {
        Resampling { resamples: 1000, confidence: 0.95, seed: 1 }
    }
}

/// A figure with its percentile interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure over all items.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// The difference of two systems: the second's figure minus the first's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Second less first, over all items.
    pub difference: f64,
    /// Lower end of the interval of the difference.
    pub low: f64,
    /// Upper end of the interval of the difference.
    pub high: f64,
    /// Two-sided: how often a difference at least this large comes up where there is none. Never 0, since the
    /// observed sample counts as one of the resamples (Davison & Hinkley 1997, equation 4.11).
    pub p: f64,
}

impl Resampling {
    /// The statistic on every resample of `items` items, in order of the resamples. It is given the numbers of the
    /// items drawn. `stream` sets one set of items apart from another under the same seed.
    pub fn replicates<T: Send>(
        &self,
        items: usize,
        stream: u64,
        statistic: impl Fn(&[usize]) -> T + Sync,
    ) -> Vec<T> {
        // A state from the mixer's output: neighbouring seeds and streams then have nothing in common.
        let base = SplitMix(SplitMix(self.seed).next() ^ stream).next();
        let draw = |resample: usize| {
            let mut random = SplitMix(SplitMix(base ^ resample as u64).next());
            let drawn: Vec<usize> = (0..items)
                .map(|_| usize::try_from(random.below(items as u64)).expect("below a length"))
                .collect();
            statistic(&drawn)
        };
        (0..self.resamples).into_par_iter().map(draw).collect()
    }

    /// A mean and its interval. No values: all zeros.
    pub fn mean(&self, values: &[f64]) -> Estimate {
        let replicates = self.replicates(values.len(), 0, |drawn| mean_of(values, drawn));
        self.estimate(mean(values), &replicates)
    }

    /// The mean of `second` less the mean of `first`, item by item.
    ///
    /// # Panics
    /// If the two have not as many values: they are of the same items.
    pub fn paired_means(&self, first: &[f64], second: &[f64]) -> Difference {
        assert_eq!(first.len(), second.len(), "both systems are measured on the same items");
        let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| b - a).collect();
        let replicates = self.replicates(differences.len(), 0, |drawn| mean_of(&differences, drawn));
        self.difference(mean(&differences), &replicates)
    }

    /// `value` with the interval of its replicates.
    pub fn estimate(&self, value: f64, replicates: &[f64]) -> Estimate {
        let (low, high) = self.percentiles(value, replicates);
        Estimate { value, low, high }
    }

    /// An observed difference with interval and p-value of its replicates.
    pub fn difference(&self, observed: f64, replicates: &[f64]) -> Difference {
        let (low, high) = self.percentiles(observed, replicates);
        // Rounding must not decide between "as large" and "not": equal systems have p = 1.
        let size = observed.abs() * (1.0 - 1e-9);
        let as_large = replicates.iter().filter(|r| (*r - observed).abs() >= size).count();
        let p = (as_large + 1) as f64 / (replicates.len() + 1) as f64;
        Difference { difference: observed, low, high, p }
    }

    /// The k-th smallest and the k-th largest, `k = floor((B + 1) a)`, a the share left out on one side.
    fn percentiles(&self, value: f64, replicates: &[f64]) -> (f64, f64) {
        let mut sorted = replicates.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(&least), Some(&largest)) = (sorted.first(), sorted.last()) else { return (value, value) };
        let outside = ((1.0 - self.confidence) / 2.0).clamp(0.0, 0.5);
        // Written as 1 - 0.95, the share comes out a little below its decimal; that must not cost a place.
        let k = ((sorted.len() + 1) as f64 * outside + 1e-9).floor() as usize;
        let Some(k) = k.checked_sub(1) else { return (least, largest) };
        (sorted[k], sorted[sorted.len() - 1 - k])
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn mean_of(values: &[f64], drawn: &[usize]) -> f64 {
    drawn.iter().map(|&i| values[i]).sum::<f64>() / drawn.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(resamples: usize) -> Resampling {
        Resampling { resamples, ..Resampling::default() }
    }

    #[test]
    fn percentiles_are_the_order_statistics_of_the_book() {
        // B = 999: k = floor(1000 * 0.025) = 25, so the 25th smallest and the 25th largest.
        let replicates: Vec<f64> = (1..=999).rev().map(f64::from).collect();
        let e = plan(999).estimate(500.0, &replicates);
        assert_eq!((e.value, e.low, e.high), (500.0, 25.0, 975.0));
        // B = 19, a = 0.05: k = 1, the ends themselves; with fewer there is nothing outside.
        let ninety = Resampling { confidence: 0.9, ..plan(19) };
        let replicates: Vec<f64> = (1..=19).map(f64::from).collect();
        let e = ninety.estimate(0.0, &replicates);
        assert_eq!((e.low, e.high), (1.0, 19.0));
        let e = ninety.estimate(0.0, &replicates[..3]);
        assert_eq!((e.low, e.high), (1.0, 3.0));
    }

    #[test]
    fn p_counts_shifted_differences_as_large_as_the_one_seen() {
        // Seen 2; less 2 the replicates are -2, 0, 1, 2 and 3: three of five are as large, and the sample itself.
        let d = plan(5).difference(2.0, &[0.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((d.p - 4.0 / 6.0).abs() < 1e-12, "{d:?}");
        let none = plan(5).difference(0.0, &[0.0; 5]);
        assert_eq!((none.difference, none.p), (0.0, 1.0));
        // A difference that every item shows cannot come of chance: only the sample itself is left.
        let sure = plan(999).paired_means(&[0.1, 0.5, 0.3], &[0.2, 0.6, 0.4]);
        assert!((sure.difference - 0.1).abs() < 1e-12 && (sure.p - 0.001).abs() < 1e-12, "{sure:?}");
    }

    #[test]
    fn equal_values_have_no_spread_and_no_values_no_interval() {
        let e = plan(100).mean(&[0.25; 7]);
        assert_eq!((e.value, e.low, e.high), (0.25, 0.25, 0.25));
        let e = plan(100).mean(&[]);
        assert_eq!((e.value, e.low, e.high), (0.0, 0.0, 0.0));
    }

    #[test]
    fn the_seed_decides_and_streams_differ() {
        let first = |plan: Resampling, stream| plan.replicates(1000, stream, <[usize]>::to_vec);
        assert_eq!(first(plan(3), 0), first(plan(3), 0));
        assert_ne!(first(plan(3), 0), first(plan(3), 1));
        assert_ne!(first(plan(3), 0), first(Resampling { seed: 2, ..plan(3) }, 0));
        let drawn = first(plan(3), 0);
        assert_ne!(drawn[0], drawn[1]);
    }

    #[test]
    fn the_spread_of_resampled_means_is_the_standard_error() {
        // 0 to 99: variance 833.25, so the mean of 100 draws has standard deviation 2.887.
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let replicates = plan(4000).replicates(100, 0, |drawn| mean_of(&values, drawn));
        let spread = {
            let m = mean(&replicates);
            (replicates.iter().map(|r| (r - m) * (r - m)).sum::<f64>() / replicates.len() as f64).sqrt()
        };
        assert!((spread - 2.887).abs() < 0.15, "{spread}");
    }

    #[test]
    fn intervals_cover_the_true_mean_about_as_often_as_they_say() {
        let mut random = SplitMix(7);
        let mut uniform = || (random.next() >> 11) as f64 / (1u64 << 53) as f64;
        let mut covered = 0;
        let mut significant = 0;
        for seed in 0..400 {
            let sample: Vec<f64> = (0..60).map(|_| uniform()).collect();
            let other: Vec<f64> = (0..60).map(|_| uniform()).collect();
            let plan = Resampling { seed, ..plan(400) };
            let e = plan.mean(&sample);
            covered += usize::from(e.low <= 0.5 && 0.5 <= e.high);
            significant += usize::from(plan.paired_means(&sample, &other).p <= 0.05);
        }
        // 380 of 400 expected, standard deviation 4.4; the percentile interval of 60 items is a little narrow.
        assert!((360..=394).contains(&covered), "{covered}");
        // Two samples of one source: 20 of 400 expected.
        assert!((6..=38).contains(&significant), "{significant}");
    }

    proptest! {
        #[test]
        fn an_interval_is_in_order_within_the_values(values in prop::collection::vec(-5.0f64..5.0, 1..30), seed: u64) {
            let e = Resampling { resamples: 200, confidence: 0.95, seed }.mean(&values);
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(least - 1e-9 <= e.low && e.low <= e.high && e.high <= largest + 1e-9, "{:?}", e);
        }

        #[test]
        fn swapping_the_systems_turns_the_sign(pairs in prop::collection::vec((-5.0f64..5.0, -5.0f64..5.0), 1..30)) {
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let (forth, back) = (plan(99).paired_means(&a, &b), plan(99).paired_means(&b, &a));
            prop_assert_eq!(forth.difference, -back.difference);
            prop_assert!((forth.p - back.p).abs() < 1e-12);
            prop_assert!((forth.low + back.high).abs() < 1e-9 && (forth.high + back.low).abs() < 1e-9);
        }
    }
}
