//! Dropout masks of 0 and `1/(1-p)` follow from a seed and a place in the run.
//!
//! The generator is counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): an element is a
//! pure function of seed, step, micro-batch, mask and its number, so any part of any mask can be made again, by any
//! number of threads, and a run that continues needs no generator's state.
//!
//! The function is SplitMix64's (Steele, Lea & Flood 2014): a 64-bit counter times the golden ratio, through the
//! finaliser, which passes BigCrush. SplitMix64 alone would make all masks windows of one sequence, which may overlap; so
//! a mask has two 64-bit keys, one added to the counter and one mixed in between the finaliser's rounds, and two masks
//! could only run alike if both were equal. Each 64-bit word serves four elements, 16 bits each, so `p` is rounded to
//! 1/65536; what is kept is scaled for the rounded `p`, and the expectation is exact.

use rayon::prelude::*;

use crate::{
    error::{ErrorKind, Fault},
    random::SplitMix,
};

/// Elements that one thread makes at a time.
const BLOCK: usize = 1 << 14;
/// Elements of one word.
const LANES: usize = 4;
/// Words made side by side, so that the processor's multipliers are kept busy.
const WORDS: usize = 16;
/// Values that 16 bits have.
const STEPS: u32 = 1 << 16;
/// SplitMix64's increment and the factors of its finaliser.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTORS: [u64; 2] = [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];

/// A number that is not a dropout probability.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("dropout {got}: allowed is 0 (none) to below 1")]
pub struct ProbabilityError {
    /// The number; 0 to below 1 is allowed.
    pub got: f64,
}

impl Fault for ProbabilityError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// Which mask of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskPlace {
    /// Step of the optimizer, from 0.
    pub step: u64,
    /// Part of the step's batch, from 0.
    pub micro_batch: u32,
    /// Number of the mask input; give the two passes of one text different numbers.
    pub mask: u32,
}

/// Makes masks of one dropout rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    seed: u64,
    /// Number of values dropped, of [`STEPS`].
    dropped: u32,
    scale: f32,
}

impl Dropout {
    /// Elements are 0 with probability `p`, rounded to 1/65536 (and to no more than 65535/65536).
    ///
    /// # Errors
    /// [`ProbabilityError`] unless `p` is in [0, 1).
    pub fn new(seed: u64, p: f64) -> Result<Self, ProbabilityError> {
        if !(0.0..1.0).contains(&p) {
            return Err(ProbabilityError { got: p });
        }
        let dropped = ((p * f64::from(STEPS)).round() as u32).min(STEPS - 1);
        let scale = f64::from(STEPS) / f64::from(STEPS - dropped);
        Ok(Dropout { seed, dropped, scale: scale as f32 })
    }

    /// The probability after rounding.
    pub fn probability(&self) -> f64 {
        f64::from(self.dropped) / f64::from(STEPS)
    }

    /// Fills `mask` with 0 and `1/(1-p)`; element `i` depends on `i`, not on the mask's length.
    pub fn fill(&self, place: MaskPlace, mask: &mut [f32]) {
        if self.dropped == 0 {
            mask.fill(1.0);
            return;
        }
        let keys = self.keys(place);
        mask.par_chunks_mut(BLOCK).enumerate().for_each(|(block, elements)| {
            let mut counter = (block * BLOCK / LANES) as u64;
            for elements in elements.chunks_mut(WORDS * LANES) {
                self.fill_words(keys, counter, elements);
                counter += WORDS as u64;
            }
        });
    }

    /// Each part of the place goes through the generator, with the parts before it, before the next is mixed in: places
    /// that differ in one bit have keys that differ in half of theirs.
    fn keys(&self, place: MaskPlace) -> [u64; 2] {
        let mut random = SplitMix(self.seed);
        for part in [place.step, u64::from(place.micro_batch) << 32 | u64::from(place.mask)] {
            random = SplitMix(random.next() ^ part);
        }
        [random.next(), random.next()]
    }

    fn fill_words(&self, keys: [u64; 2], counter: u64, elements: &mut [f32]) {
        let mut lanes = [0u16; WORDS * LANES];
        for (at, lanes) in lanes.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let word = word(keys, counter + at as u64);
            *lanes = std::array::from_fn(|lane| (word >> (16 * lane)) as u16);
        }
        for (element, lane) in elements.iter_mut().zip(lanes) {
            *element = if u32::from(lane) < self.dropped { 0.0 } else { self.scale };
        }
    }
}

/// SplitMix64's finaliser of a counter, with a key on it and one inside it.
#[inline]
fn word(keys: [u64; 2], counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(GOLDEN).wrapping_add(keys[0]);
    z = (z ^ (z >> 30)).wrapping_mul(FACTORS[0]) ^ keys[1];
    z = (z ^ (z >> 27)).wrapping_mul(FACTORS[1]);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: MaskPlace = MaskPlace { step: 3, micro_batch: 1, mask: 7 };

    fn mask(seed: u64, p: f64, place: MaskPlace, count: usize) -> Vec<f32> {
        let mut mask = vec![f32::NAN; count];
        Dropout::new(seed, p).unwrap().fill(place, &mut mask);
        mask
    }

    #[test]
    fn the_word_of_empty_keys_is_splitmix() {
        let mut random = SplitMix(0);
        for counter in 1..100 {
            assert_eq!(word([0, 0], counter), random.next());
        }
    }

    #[test]
    fn share_of_zeros_is_the_probability_and_the_rest_is_scaled() {
        let count = 1 << 20;
        for (p, scale) in [(0.1, 65_536.0 / 58_982.0), (0.5, 2.0), (0.0001, 65_536.0 / 65_529.0)] {
            let mask = mask(1, p, PLACE, count);
            let zeros = mask.iter().filter(|&&m| m == 0.0).count() as f64;
            assert!(mask.iter().all(|&m| m == 0.0 || m == scale as f32));
            let rounded = Dropout::new(1, p).unwrap().probability();
            assert!((rounded - p).abs() <= 0.5 / 65_536.0);
            // Five standard deviations of a binomial share.
            let bound = 5.0 * (rounded * (1.0 - rounded) / count as f64).sqrt();
            assert!((zeros / count as f64 - rounded).abs() < bound, "p {p}: {zeros} of {count}");
        }
    }

    #[test]
    fn every_lane_and_every_stretch_has_its_share() {
        let count = 1 << 18;
        let mask = mask(5, 0.25, PLACE, count);
        let zeros = |part: Vec<f32>| part.iter().filter(|&&m| m == 0.0).count() as f64 / part.len() as f64;
        for lane in 0..LANES {
            let share = zeros(mask.iter().skip(lane).step_by(LANES).copied().collect());
            assert!((share - 0.25).abs() < 0.01, "lane {lane}: {share}");
        }
        for stretch in mask.chunks(BLOCK) {
            let share = zeros(stretch.to_vec());
            assert!((share - 0.25).abs() < 0.02, "{share}");
        }
    }

    /// Correlation of two masks of zeros and others.
    fn correlation(a: &[f32], b: &[f32]) -> f64 {
        let dropped = |m: &[f32]| m.iter().map(|&m| f64::from(u8::from(m == 0.0))).collect::<Vec<_>>();
        let (a, b) = (dropped(a), dropped(b));
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let (mean_a, mean_b) = (mean(&a), mean(&b));
        let product = |x: &[f64], mean_x: f64, y: &[f64], mean_y: f64| {
            x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>()
        };
        let spread = product(&a, mean_a, &a, mean_a) * product(&b, mean_b, &b, mean_b);
        product(&a, mean_a, &b, mean_b) / spread.sqrt()
    }

    #[test]
    fn masks_of_other_places_are_not_alike() {
        let count = 1 << 16;
        let base = mask(1, 0.5, PLACE, count);
        let others = [
            mask(2, 0.5, PLACE, count),
            mask(1, 0.5, MaskPlace { step: 4, ..PLACE }, count),
            mask(1, 0.5, MaskPlace { micro_batch: 2, ..PLACE }, count),
            mask(1, 0.5, MaskPlace { mask: 8, ..PLACE }, count),
            mask(1, 0.5, MaskPlace { micro_batch: 7, mask: 1, ..PLACE }, count),
        ];
        // Five standard deviations of independent masks' correlation, 1 / sqrt(count).
        let bound = 5.0 / (count as f64).sqrt();
        for (at, other) in others.iter().enumerate() {
            let share = correlation(&base, other);
            assert!(share.abs() < bound, "mask {at}: {share}");
        }
        for shift in [1, 2, 4, 64, 768] {
            let share = correlation(&base[shift..], &base[..count - shift]);
            assert!(share.abs() < bound, "with itself, {shift} further: {share}");
        }
        assert_eq!(base, mask(1, 0.5, PLACE, count));
    }

    #[test]
    fn an_element_depends_neither_on_length_nor_on_threads() {
        let long = mask(9, 0.3, PLACE, 3 * BLOCK + 77);
        for count in [0, 1, 3, 64, 65, BLOCK, BLOCK + 1] {
            assert_eq!(mask(9, 0.3, PLACE, count), long[..count], "{count} elements");
        }
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(|| mask(9, 0.3, PLACE, long.len())), long);
    }

    #[test]
    fn no_dropout_is_ones() {
        assert!(mask(1, 0.0, PLACE, 1000).iter().all(|&m| m == 1.0));
    }

    #[test]
    fn what_is_no_probability_of_dropping_is_refused() {
        for p in [-0.1, 1.0, 1.5, f64::NAN, f64::INFINITY] {
            let error = Dropout::new(1, p).unwrap_err();
            assert!(error.to_string().contains("below 1"), "{error}");
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        // All but dropped: still finite.
        let mask = mask(1, 0.999_999_9, PLACE, 1 << 18);
        assert!(mask.iter().all(|m| m.is_finite()) && mask.contains(&65_536.0));
    }
}
