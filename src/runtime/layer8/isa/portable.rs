//! The inner functions in plain Rust, for every machine.

use super::{GELU, GELU_END};
use crate::runtime::layer8::{
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
    let at = |token: usize, column: usize| &rows[token * head.stride + column..][..head.width];
    let step = |column: usize| {
        let values = (0..head.tokens).flat_map(|token| at(token, column));
        let step = values.fold(0.0f32, |most, v| most.max(v.abs())) / 127.0;
        if step < f32::MIN_POSITIVE { (1.0, 0.0) } else { (step, 1.0 / step) }
    };
    let round = |values: &[f32], inverse: f32| -> Vec<i32> {
        #[expect(clippy::cast_possible_truncation, reason = "-127 to 127")]
        values.iter().map(|v| (v * inverse).round_ties_even() as i32).collect()
    };
    let (queries, keys) = (step(head.queries_at), step(head.keys_at));
    let rounded: Vec<Vec<i32>> = (0..head.tokens).map(|j| round(at(j, head.keys_at), keys.1)).collect();
    let step = queries.0 * keys.0 / (head.width as f32).sqrt();
    for (t, context) in context.chunks_exact_mut(head.width).enumerate() {
        let query = round(at(t, head.queries_at), queries.1);
        let score = |key: &Vec<i32>| query.iter().zip(key).map(|(q, k)| q * k).sum::<i32>();
        let scores: Vec<i32> = rounded.iter().map(score).collect();
        let most = scores.iter().copied().max().unwrap_or(0);
        let shares: Vec<f32> = scores.iter().map(|s| narrow(((s - most) as f32 * step).exp())).collect();
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
