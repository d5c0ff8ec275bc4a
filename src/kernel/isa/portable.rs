//! In plain Rust, for every machine.

use super::{GELU, GELU_END};
use crate::kernel::{
    Norm,
    attention::Head,
    linear::{GROUP, PANEL, Panel, Tile},
};

pub(super) fn round_row(row: &[f32], smoothing: Option<&[f32]>, out: &mut [u8]) -> (f32, i32) {
    let value = |i: usize| row[i] * smoothing.map_or(1.0, |s| s[i]);
    let (least, most) =
        (0..row.len()).map(value).fold((0.0f32, 0.0f32), |(least, most), v| (least.min(v), most.max(v)));
    let scale = (most - least) / 255.0;
    if scale < f32::MIN_POSITIVE {
        out.fill(0);
        return (1.0, 0);
    }
    let (step, zero) = (1.0 / scale, (-least / scale).round_ties_even());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=255")]
    for (i, out) in out.iter_mut().enumerate() {
        *out = value(i).mul_add(step, zero).round_ties_even().clamp(0.0, 255.0) as u8;
    }
    #[expect(clippy::cast_possible_truncation, reason = "0 to 255")]
    (scale, zero as i32)
}

pub(super) fn tile(panel: &Panel<'_>, tile: &Tile<'_>, out: &mut [f32], stride: usize) {
    for r in 0..tile.scale.len() {
        let row = &tile.values[r * tile.stride..][..tile.stride];
        let mut sums = [0i32; PANEL];
        for (line, weights) in panel.weights.iter().enumerate() {
            // A line holds the weights of 16 outputs for one group of inputs.
            let (group, column) = (line * 16 / PANEL, line * 16 % PANEL);
            for (at, &weight) in weights.0.iter().enumerate() {
                sums[column + at / GROUP] += i32::from(row[group * GROUP + at % GROUP]) * i32::from(weight);
            }
        }
        for (o, out) in out[r * stride..][..panel.columns].iter_mut().enumerate() {
            let sum = sums[o] - tile.zero_point[r] * panel.sums[o];
            *out = (sum as f32).mul_add(tile.scale[r] * panel.scale[o], panel.bias[o]);
        }
    }
}

pub(super) fn attend(head: &Head, rows: &[f32], context: &mut [f32]) {
    let narrow = |v: f32| half::bf16::from_f32(v).to_f32();
    let scale = 1.0 / (head.width as f32).sqrt();
    let at = |token: usize, column: usize| &rows[token * head.stride + column..][..head.width];
    for (t, context) in context.chunks_exact_mut(head.width).enumerate() {
        let query: Vec<f32> = at(t, head.queries_at).iter().map(|q| narrow(q * scale)).collect();
        let scores: Vec<f32> = (0..head.tokens)
            .map(|j| query.iter().zip(at(j, head.keys_at)).map(|(q, k)| q * narrow(*k)).sum())
            .collect();
        let most = scores.iter().fold(f32::NEG_INFINITY, |most, s| most.max(*s));
        let shares: Vec<f32> = scores.iter().map(|s| narrow((s - most).exp())).collect();
        context.fill(0.0);
        for (j, share) in shares.iter().enumerate() {
            let value = at(j, head.values_at);
            context.iter_mut().zip(value).for_each(|(sum, v)| *sum += share * narrow(*v));
        }
        let total: f32 = shares.iter().sum();
        context.iter_mut().for_each(|v| *v /= total);
    }
}

pub(super) fn gelu(values: &mut [f32]) {
    for v in values {
        let c = v.clamp(-GELU_END, GELU_END);
        let p = GELU.iter().rev().fold(0.0f32, |p, coefficient| p.mul_add(c * c, *coefficient));
        *v *= c.mul_add(p, 0.5);
    }
}

pub(super) fn add_norm(x: &mut [f32], residual: &[f32], norm: &Norm) {
    let width = norm.gain.len();
    for (x, residual) in x.chunks_exact_mut(width).zip(residual.chunks_exact(width)) {
        x.iter_mut().zip(residual).for_each(|(x, r)| *x += r);
        let mean = x.iter().sum::<f32>() / width as f32;
        let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / width as f32;
        let rate = 1.0 / (variance + norm.epsilon).sqrt();
        for ((x, gain), bias) in x.iter_mut().zip(&norm.gain).zip(&norm.bias) {
            *x = ((*x - mean) * rate).mul_add(*gain, *bias);
        }
    }
}
