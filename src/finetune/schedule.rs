//! The schedule gives the share of the learning rate for each step.
//!
//! It is that of `get_*_schedule_with_warmup` in Hugging Face's transformers: a linear rise from 0, so the very first
//! step of a
//! warmup moves nothing, then constant, linear to 0, or half a cosine to 0 (Loshchilov & Hutter 2017, SGDR, equation 5,
//! without restarts). It keeps no state: a run that continues asks for its step.

use serde::{Deserialize, Serialize};

/// The course of the rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decline {
    /// The whole rate to the end.
    Constant,
    /// Evenly to 0.
    #[default]
    Linear,
    /// Half a cosine to 0: slow, fast, slow.
    Cosine,
}

/// The length of the warm-up, in which the rate rises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Warmup {
    /// This number of steps.
    Steps(u64),
    /// This share of all steps, rounded up.
    Ratio(f64),
}

/// The course of the learning rate over a run.
///
/// ```
/// use distilface::finetune::schedule::{Decline, Schedule, Warmup};
///
/// let schedule = Schedule { decline: Decline::Linear, warmup: Warmup::Steps(10) };
/// assert_eq!(schedule.share(5, 100), 0.5);
/// assert_eq!(schedule.share(55, 100), 0.5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// How the rate falls after the warm-up.
    pub decline: Decline,
    /// How long the rate rises from 0.
    pub warmup: Warmup,
}

impl Schedule {
    /// Share of the learning rate, 0 to 1, for step `step` (from 0) of `total`.
    pub fn share(&self, step: u64, total: u64) -> f64 {
        let warmup = self.warmup_steps(total);
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        let length = total.saturating_sub(warmup).max(1);
        let progress = ((step - warmup) as f64 / length as f64).min(1.0);
        match self.decline {
            Decline::Constant => 1.0,
            Decline::Linear => 1.0 - progress,
            Decline::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }

    /// Steps of the rise.
    pub fn warmup_steps(&self, total: u64) -> u64 {
        match self.warmup {
            Warmup::Steps(steps) => steps,
            Warmup::Ratio(ratio) => (total as f64 * ratio).ceil() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares<const N: usize>(decline: Decline, warmup: Warmup, steps: [u64; N], total: u64) -> [f64; N] {
        steps.map(|step| Schedule { decline, warmup }.share(step, total))
    }

    fn close<const N: usize>(got: [f64; N], expected: [f64; N]) {
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{got} instead of {expected}");
        }
    }

    #[test]
    fn worked_by_hand() {
        let steps = [0, 1, 4, 5, 10, 15, 19, 20];
        close(
            shares(Decline::Constant, Warmup::Steps(4), steps, 20),
            [0.0, 0.25, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        );
        close(
            shares(Decline::Linear, Warmup::Steps(4), steps, 20),
            [0.0, 0.25, 1.0, 15.0 / 16.0, 10.0 / 16.0, 5.0 / 16.0, 1.0 / 16.0, 0.0],
        );
        // cos(pi/3) is a half, cos(pi/2) is 0, cos(2 pi/3) is minus a half.
        close(
            shares(Decline::Cosine, Warmup::Steps(2), [0, 1, 2, 8, 11, 14, 20], 20),
            [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0],
        );
    }

    #[test]
    fn without_warmup_the_first_step_has_the_whole_rate() {
        for decline in [Decline::Constant, Decline::Linear, Decline::Cosine] {
            close(shares(decline, Warmup::Steps(0), [0], 10), [1.0]);
            close(shares(decline, Warmup::Ratio(0.0), [0], 10), [1.0]);
        }
    }

    #[test]
    fn a_ratio_is_rounded_up_to_whole_steps() {
        let schedule = |ratio| Schedule { decline: Decline::Linear, warmup: Warmup::Ratio(ratio) };
        assert_eq!(schedule(0.1).warmup_steps(1000), 100);
        assert_eq!(schedule(0.1).warmup_steps(15), 2);
        assert_eq!(schedule(1.0).warmup_steps(7), 7);
        close([schedule(0.1).share(1, 15)], [0.5]);
    }

    #[test]
    fn beyond_the_end_the_rate_stays_where_it_ended() {
        close(shares(Decline::Linear, Warmup::Steps(2), [30, 1_000_000], 20), [0.0, 0.0]);
        close(shares(Decline::Cosine, Warmup::Steps(2), [30], 20), [0.0]);
        // A warmup longer than the run, and a run of no steps, divide by nothing.
        close(shares(Decline::Linear, Warmup::Steps(8), [0, 2, 4], 4), [0.0, 0.25, 0.5]);
        close(shares(Decline::Cosine, Warmup::Ratio(0.5), [0], 0), [1.0]);
    }
}
