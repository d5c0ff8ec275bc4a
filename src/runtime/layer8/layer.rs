//! One transformer layer: attention and feed-forward, each with its residual and normalised after it (Devlin et al.
//! 2018), over the tokens of many texts.
//!
//! Three steps, each shared out among threads: queries, keys and values by blocks of tokens; attention by text and head;
//! the rest by blocks of tokens, from the attention's output to the last norm, so that a block's numbers stay in the
//! cache. A batch of one block, such as a query, is done by the calling thread alone: waking another takes longer.

use std::{cell::RefCell, sync::Mutex};

use super::{
    attention::{self, Head},
    linear::{Linear, Rows, TILE},
    profile::{Clock, Silent, Stage},
};
use crate::simd::Isa;

/// Most tokens of a block: eight tiles. Its inner activations (48 x 1536 numbers for MiniLM) fit a core's cache.
const BLOCK: usize = 8 * TILE;

/// Does `work(0)` to `work(n - 1)`, on any threads, and returns when all are done.
pub(crate) type Parallel<'a> = &'a dyn Fn(usize, &(dyn Fn(usize) + Sync));

/// Gain and bias of a layer normalisation (Ba, Kiros & Hinton 2016).
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) gain: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) epsilon: f32,
}

/// A layer's weights. `hidden` is a multiple of `heads`.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) isa: Isa,
    pub(crate) heads: usize,
    /// Projects hidden states to queries and keys, side by side.
    pub(crate) queries_keys: Linear,
    /// Projects hidden states to values. It is separate, since their weights are much smaller on the channels where
    /// those of queries and keys are
    /// large, so that no one smoothing suits them both: together, the cosine to full precision is 4e-4 less.
    pub(crate) values: Linear,
    pub(crate) attention_output: Linear,
    pub(crate) attention_norm: Norm,
    pub(crate) intermediate: Linear,
    /// Does not smooth.
    pub(crate) output: Linear,
    pub(crate) output_norm: Norm,
}

/// Buffers between the steps; reused from call to call.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// `[tokens][3 hidden]`
    qkv: Vec<f32>,
    /// By text: `[heads][tokens of the text][width of a head]`.
    context: Vec<f32>,
}

/// Buffers of one thread for its share.
#[derive(Debug, Default)]
struct Scratch {
    rows: Rows,
    gathered: Vec<f32>,
    attended: Vec<f32>,
    inner: Vec<f32>,
    attention: attention::Scratch,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Layer {
    /// Width of a token.
    pub(crate) fn hidden(&self) -> usize {
        self.values.inputs()
    }

    /// `x` and `out` are `[tokens][hidden]`; text `i` is the tokens from `starts[i]` to before `starts[i + 1]`.
    ///
    /// # Panics
    /// If lengths do not belong together, `starts` falls somewhere, or it does not go from 0 to the number of tokens.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        starts: &[usize],
        out: &mut [f32],
        buffers: &mut Buffers,
        parallel: Parallel<'_>,
    ) {
        self.forward_timed(x, starts, out, buffers, parallel, &Silent);
    }

    /// [`Layer::forward`] under a clock.
    pub(super) fn forward_timed<C: Clock>(
        &self,
        x: &[f32],
        starts: &[usize],
        out: &mut [f32],
        buffers: &mut Buffers,
        parallel: Parallel<'_>,
        clock: &C,
    ) {
        let hidden = self.hidden();
        let tokens = x.len() / hidden;
        assert_eq!((x.len(), out.len()), (tokens * hidden, tokens * hidden));
        assert!(starts.first() == Some(&0) && starts.last() == Some(&tokens) && starts.is_sorted());
        if tokens == 0 {
            return;
        }
        let blocks = tokens.div_ceil(BLOCK);
        let block = tokens.div_ceil(blocks).next_multiple_of(TILE).min(BLOCK);
        let alone = |n: usize, work: &(dyn Fn(usize) + Sync)| (0..n).for_each(work);
        let share: Parallel<'_> = if blocks == 1 { &alone } else { parallel };

        buffers.qkv.resize(tokens * 3 * hidden, 0.0);
        buffers.context.resize(tokens * hidden, 0.0);
        shared_out(share, buffers.qkv.chunks_mut(block * 3 * hidden), |n, qkv| {
            let x = &x[n * block * hidden..][..qkv.len() / 3];
            SCRATCH.with_borrow_mut(|scratch| {
                let mut mark = clock.now();
                self.queries_keys.round(x, &mut scratch.rows);
                clock.lap(&mut mark, Stage::Rounding);
                self.queries_keys.apply(&scratch.rows, qkv, 3 * hidden);
                clock.lap(&mut mark, Stage::QueriesKeysValues);
                self.values.round(x, &mut scratch.rows);
                clock.lap(&mut mark, Stage::Rounding);
                self.values.apply(&scratch.rows, &mut qkv[2 * hidden..], 3 * hidden);
                clock.lap(&mut mark, Stage::QueriesKeysValues);
            });
        });
        self.attention(&buffers.qkv, starts, &mut buffers.context, share, clock);
        let context = &buffers.context;
        shared_out(share, out.chunks_mut(block * hidden), |n, out| {
            let from = n * block;
            let x = &x[from * hidden..][..out.len()];
            SCRATCH.with_borrow_mut(|scratch| self.rest(x, from, starts, context, out, scratch, clock));
        });
    }

    fn attention<C: Clock>(
        &self,
        qkv: &[f32],
        starts: &[usize],
        context: &mut [f32],
        share: Parallel<'_>,
        clock: &C,
    ) {
        let (hidden, width) = (self.hidden(), self.hidden() / self.heads);
        let mut parts = Vec::with_capacity((starts.len() - 1) * self.heads);
        let mut left = context;
        for bounds in starts.windows(2).filter(|b| b[0] < b[1]) {
            for head in 0..self.heads {
                let (part, behind) = left.split_at_mut((bounds[1] - bounds[0]) * width);
                left = behind;
                parts.push((bounds[0], head, part));
            }
        }
        shared_out(share, parts.into_iter(), |_, (start, number, context)| {
            let head = Head {
                tokens: context.len() / width,
                width,
                stride: 3 * hidden,
                queries_at: *number * width,
                keys_at: hidden + *number * width,
                values_at: 2 * hidden + *number * width,
            };
            let rows = &qkv[*start * 3 * hidden..];
            SCRATCH.with_borrow_mut(|scratch| {
                let mut mark = clock.now();
                attention::attend(self.isa, &head, rows, context, &mut scratch.attention);
                clock.lap(&mut mark, Stage::Attention);
            });
        });
    }

    /// From the attention's context to the end, for the tokens from `from` on, as many as `x` and `out` hold.
    #[expect(
        clippy::too_many_arguments,
        reason = "one step of `forward`, in a function of its own to be read"
    )]
    fn rest<C: Clock>(
        &self,
        x: &[f32],
        from: usize,
        starts: &[usize],
        context: &[f32],
        out: &mut [f32],
        scratch: &mut Scratch,
        clock: &C,
    ) {
        let mut mark = clock.now();
        let hidden = self.hidden();
        let Scratch { rows, gathered, attended, inner, .. } = scratch;
        gathered.resize(x.len(), 0.0);
        self.gather(from, starts, context, gathered);
        clock.lap(&mut mark, Stage::Gathering);
        self.attention_output.round(gathered, rows);
        clock.lap(&mut mark, Stage::Rounding);
        attended.resize(x.len(), 0.0);
        self.attention_output.apply(rows, attended, hidden);
        clock.lap(&mut mark, Stage::AttentionOutput);
        self.isa.add_norm(attended, x, &self.attention_norm);
        clock.lap(&mut mark, Stage::Norms);

        self.intermediate.round(attended, rows);
        clock.lap(&mut mark, Stage::Rounding);
        inner.resize(x.len() / hidden * self.intermediate.outputs(), 0.0);
        self.intermediate.apply(rows, inner, self.intermediate.outputs());
        clock.lap(&mut mark, Stage::Intermediate);
        self.output.gelu_round(inner, rows);
        clock.lap(&mut mark, Stage::Gelu);
        self.output.apply(rows, out, hidden);
        clock.lap(&mut mark, Stage::Output);
        self.isa.add_norm(out, attended, &self.output_norm);
        clock.lap(&mut mark, Stage::Norms);
    }

    /// Heads of a token side by side again.
    fn gather(&self, from: usize, starts: &[usize], context: &[f32], into: &mut [f32]) {
        let (hidden, width) = (self.hidden(), self.hidden() / self.heads);
        // The last text that begins at or before the first token; empty ones share their beginning with the next.
        let mut text = starts.partition_point(|&start| start <= from) - 1;
        for (token, row) in (from..).zip(into.chunks_exact_mut(hidden)) {
            while token >= starts[text + 1] {
                text += 1;
            }
            let (start, end) = (starts[text], starts[text + 1]);
            let text = &context[start * hidden..end * hidden];
            for (head, part) in row.chunks_exact_mut(width).enumerate() {
                part.copy_from_slice(&text[(head * (end - start) + token - start) * width..][..width]);
            }
        }
    }
}

/// `work` on each part, whatever thread it falls to. Each part has a lock that nobody ever waits for: it says to the
/// compiler what is so anyway, that no two threads write to the same one.
fn shared_out<T: Send>(
    share: Parallel<'_>,
    parts: impl Iterator<Item = T>,
    work: impl Fn(usize, &mut T) + Sync,
) {
    let parts: Vec<Mutex<T>> = parts.map(Mutex::new).collect();
    share(parts.len(), &|n| {
        let mut part = parts[n].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        work(n, &mut part);
    });
}

#[cfg(test)]
mod tests;
