//! Where a layer's time goes, and what the processor could do at most: for benchmarks, never while serving.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use super::{
    Buffers, Layer, Linear, Norm, best_isa,
    linear::{Rows, TILE},
};
use crate::random::SplitMix;

/// A part of a layer's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Rounding,
    QueriesKeysValues,
    Attention,
    AttentionOutput,
    Intermediate,
    Gelu,
    Output,
    Norms,
    Gathering,
}

impl Stage {
    pub(crate) const ALL: [Stage; 9] = [
        Stage::QueriesKeysValues,
        Stage::Attention,
        Stage::AttentionOutput,
        Stage::Intermediate,
        Stage::Output,
        Stage::Rounding,
        Stage::Gelu,
        Stage::Norms,
        Stage::Gathering,
    ];

    /// The stage's name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stage::Rounding => "rounding to 8 bits",
            Stage::QueriesKeysValues => "queries, keys, values",
            Stage::Attention => "attention",
            Stage::AttentionOutput => "attention's output",
            Stage::Intermediate => "inner layer",
            Stage::Gelu => "GELU and rounding",
            Stage::Output => "outer layer",
            Stage::Norms => "residuals and norms",
            Stage::Gathering => "gathering heads",
        }
    }

    /// Products of numbers that it adds up, for texts of these lengths.
    fn macs(self, hidden: usize, intermediate: usize, lengths: &[usize]) -> u64 {
        let tokens: usize = lengths.iter().sum();
        let macs = match self {
            Stage::QueriesKeysValues => tokens * 3 * hidden * hidden,
            Stage::Attention => lengths.iter().map(|n| 2 * n * n * hidden).sum(),
            Stage::AttentionOutput => tokens * hidden * hidden,
            Stage::Intermediate | Stage::Output => tokens * hidden * intermediate,
            Stage::Rounding | Stage::Gelu | Stage::Norms | Stage::Gathering => 0,
        };
        macs as u64
    }
}

/// Measures the time of each stage, or does nothing.
pub(super) trait Clock: Sync {
    type Mark: Copy;

    fn now(&self) -> Self::Mark;

    /// Books the time since `mark` to a stage, and sets the mark to now.
    fn lap(&self, mark: &mut Self::Mark, stage: Stage);
}

/// Takes no time and costs none.
pub(super) struct Silent;

impl Clock for Silent {
    type Mark = ();

    #[inline(always)]
    fn now(&self) {}

    #[inline(always)]
    fn lap(&self, (): &mut (), _: Stage) {}
}

#[derive(Default)]
struct Watch([AtomicU64; Stage::ALL.len()]);

impl Clock for Watch {
    type Mark = Instant;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn lap(&self, mark: &mut Instant, stage: Stage) {
        let nanos = u64::try_from(mark.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0[stage as usize].fetch_add(nanos, Ordering::Relaxed);
        *mark = Instant::now();
    }
}

/// Time of one stage on one core.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StageTime {
    pub(crate) stage: Stage,
    pub(crate) seconds: f64,
    /// Products added up, 0 where that is not what it does.
    pub(crate) macs: u64,
}

/// A layer of that shape with weights drawn at random, over texts of these lengths, on this thread alone: time by stage,
/// of the quickest of several runs.
pub(crate) fn profile(hidden: usize, heads: usize, intermediate: usize, lengths: &[usize]) -> Vec<StageTime> {
    let mut random = SplitMix(7);
    let mut linear = |inputs: usize, outputs: usize, smoothed: bool| {
        let weights = bytes(&mut random, inputs * outputs);
        let smoothing = vec![1.0; inputs];
        let (scale, bias) = (vec![1e-3; outputs], vec![0.0; outputs]);
        Linear::new(best_isa(), inputs, &weights, &scale, &bias, smoothed.then_some(&smoothing[..]))
    };
    let norm = || Norm { gain: vec![1.0; hidden], bias: vec![0.0; hidden], epsilon: 1e-12 };
    let layer = Layer {
        isa: best_isa(),
        heads,
        queries_keys: linear(hidden, 2 * hidden, true),
        values: linear(hidden, hidden, true),
        attention_output: linear(hidden, hidden, false),
        attention_norm: norm(),
        intermediate: linear(hidden, intermediate, true),
        output: linear(intermediate, hidden, false),
        output_norm: norm(),
    };
    let mut starts = vec![0];
    starts.extend(lengths.iter().scan(0, |end, n| {
        *end += n;
        Some(*end)
    }));
    let tokens = lengths.iter().sum::<usize>();
    let x: Vec<f32> = (0..tokens * hidden).map(|_| random.below(2001) as f32 / 1000.0 - 1.0).collect();
    let mut out = vec![0.0; x.len()];
    let mut buffers = Buffers::default();
    let alone = |n: usize, work: &(dyn Fn(usize) + Sync)| (0..n).for_each(work);
    let mut best: Option<[u64; Stage::ALL.len()]> = None;
    for _ in 0..5 {
        let watch = Watch::default();
        layer.forward_timed(&x, &starts, &mut out, &mut buffers, &alone, &watch);
        let nanos = watch.0.map(AtomicU64::into_inner);
        if best.is_none_or(|best| nanos.iter().sum::<u64>() < best.iter().sum()) {
            best = Some(nanos);
        }
    }
    let best = best.unwrap_or_default();
    Stage::ALL
        .iter()
        .map(|&stage| StageTime {
            stage,
            seconds: best[stage as usize] as f64 * 1e-9,
            macs: stage.macs(hidden, intermediate, lengths),
        })
        .collect()
}

/// Products a second that add up in one large product of matrices in 8 bits, each of `threads` threads with rows of its
/// own: what the linear layers could do at most. The best of several runs.
pub(crate) fn product_rate(threads: usize) -> f64 {
    const INPUTS: usize = 1536;
    const OUTPUTS: usize = 384;
    const ROWS: usize = 40 * TILE;
    const TIMES: usize = 12;
    let mut random = SplitMix(7);
    let weights = bytes(&mut random, INPUTS * OUTPUTS);
    let (scale, bias) = (vec![1e-3; OUTPUTS], vec![0.0; OUTPUTS]);
    let linear = Linear::new(best_isa(), INPUTS, &weights, &scale, &bias, None);
    let x: Vec<f32> = (0..ROWS * INPUTS).map(|_| random.below(2001) as f32 / 1000.0 - 1.0).collect();
    let mut best = 0.0f64;
    for _ in 0..7 {
        let seconds = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads.max(1))
                .map(|_| {
                    scope.spawn(|| {
                        let (mut rows, mut out) = (Rows::default(), vec![0.0; ROWS * OUTPUTS]);
                        linear.round(&x, &mut rows);
                        linear.apply(&rows, &mut out, OUTPUTS);
                        let started = Instant::now();
                        for _ in 0..TIMES {
                            linear.apply(&rows, &mut out, OUTPUTS);
                        }
                        started.elapsed().as_secs_f64()
                    })
                })
                .collect();
            threads.into_iter().filter_map(|t| t.join().ok()).fold(0.0, f64::max)
        });
        let macs = (threads.max(1) * TIMES * ROWS * INPUTS * OUTPUTS) as f64;
        best = best.max(macs / seconds.max(1e-9));
    }
    best
}

fn bytes(random: &mut SplitMix, n: usize) -> Vec<i8> {
    (0..n).map(|_| (random.below(255) as i64 - 127) as i8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_has_every_stage_once_and_its_products() {
        let times = profile(32, 4, 64, &[5, 9]);
        let stages: Vec<_> = times.iter().map(|t| t.stage).collect();
        assert_eq!(stages, Stage::ALL);
        assert!(times.iter().all(|t| t.seconds > 0.0), "{times:?}");
        let macs: u64 = times.iter().map(|t| t.macs).sum();
        assert_eq!(macs, 14 * (4 * 32 * 32 + 2 * 32 * 64) + 2 * (25 + 81) * 32);
        assert!(product_rate(2) > 0.0);
    }
}
