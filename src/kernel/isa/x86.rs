//! In AVX-512 with VNNI, and with BF16 where there is one.
//!
//! Pointers and masks: what is masked out is neither read nor written, so a mask with a bit for each value that is
//! there makes the ends of rows safe. Lengths were checked by the callers that each SAFETY comment names.

#![expect(unsafe_code, reason = "instructions beyond the build's target, chosen at run time")]

use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, __mmask16, _mm256_storeu_si256, _mm512_add_epi32,
    _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtepi32_epi16,
    _mm512_cvtepi32_ps, _mm512_cvtneps_pbh, _mm512_cvtps_epi32, _mm512_dpbf16_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_load_si512, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_blend_ps,
    _mm512_mask_cvtusepi32_storeu_epi8, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_maskz_sub_ps,
    _mm512_max_epi32, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_mullo_epi32, _mm512_or_si512,
    _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_reduce_min_ps, _mm512_roundscale_ps, _mm512_scalef_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi32,
    _mm512_srli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_epi32, _mm512_sub_ps,
};

use super::{GELU, GELU_END};
use crate::kernel::{
    Norm,
    attention::{Head, Scratch},
    linear::{GROUP_BYTES, Panel, TILE, Tile},
};

/// Numbers of a register.
const LANES: usize = 16;
/// Queries that go through the keys together.
const QUERIES: usize = 4;

/// A bit for each of the values from `at` on, of `n` in all; at most 16.
#[inline(always)]
fn mask(n: usize, at: usize) -> __mmask16 {
    let left = n.saturating_sub(at);
    if left >= LANES { !0 } else { (1 << left) - 1 }
}

// SAFETY of the functions down to the next line: the only values of `Isa` that lead here are those that
// `Isa::available` gives, after it has found the features.

pub(super) fn round_row(row: &[f32], smoothing: Option<&[f32]>, out: &mut [u8]) -> (f32, i32) {
    // SAFETY: see above.
    unsafe { round_row_avx512(row, smoothing, out) }
}

pub(super) fn tile(panel: &Panel<'_>, tile: &Tile<'_>, out: &mut [f32], stride: usize) {
    // SAFETY: see above.
    unsafe {
        match tile.scale.len() {
            1 => rows::<1>(panel, tile, out, stride),
            2 => rows::<2>(panel, tile, out, stride),
            3 => rows::<3>(panel, tile, out, stride),
            4 => rows::<4>(panel, tile, out, stride),
            5 => rows::<5>(panel, tile, out, stride),
            _ => rows::<TILE>(panel, tile, out, stride),
        }
    }
}

pub(super) fn attend(head: &Head, rows: &[f32], context: &mut [f32], scratch: &mut Scratch) {
    // SAFETY: see above.
    unsafe { attend_with::<true>(head, rows, context, scratch) }
}

pub(super) fn attend_by_shifts(head: &Head, rows: &[f32], context: &mut [f32], scratch: &mut Scratch) {
    // SAFETY: see above; without `BF16` no instruction of that set is reached.
    unsafe { attend_with::<false>(head, rows, context, scratch) }
}

pub(super) fn gelu(values: &mut [f32]) {
    // SAFETY: see above.
    unsafe { gelu_avx512(values) }
}

pub(super) fn add_norm(x: &mut [f32], residual: &[f32], norm: &Norm) {
    // SAFETY: see above.
    unsafe { add_norm_avx512(x, residual, norm) }
}

// ---------------------------------------------------------------------------------------------------------------------

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn round_row_avx512(row: &[f32], smoothing: Option<&[f32]>, out: &mut [u8]) -> (f32, i32) {
    let n = row.len();
    assert!(out.len() >= n && smoothing.is_none_or(|s| s.len() >= n));
    let load = |i: usize| {
        // SAFETY: both slices hold `n` values, and the mask has bits only for those.
        unsafe {
            let x = _mm512_maskz_loadu_ps(mask(n, i), row.as_ptr().add(i));
            match smoothing {
                Some(s) => _mm512_mul_ps(x, _mm512_maskz_loadu_ps(mask(n, i), s.as_ptr().add(i))),
                None => x,
            }
        }
    };
    let (mut least, mut most) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    for i in (0..n).step_by(LANES) {
        let x = load(i);
        least = _mm512_min_ps(least, x);
        most = _mm512_max_ps(most, x);
    }
    let (least, most) = (_mm512_reduce_min_ps(least), _mm512_reduce_max_ps(most));
    let scale = (most - least) / 255.0;
    if scale < f32::MIN_POSITIVE {
        out.fill(0);
        return (1.0, 0);
    }
    let zero = (-least / scale).round_ties_even();
    let (step, shift) = (_mm512_set1_ps(1.0 / scale), _mm512_set1_ps(zero));
    for i in (0..n).step_by(LANES) {
        let q = _mm512_cvtps_epi32(_mm512_fmadd_ps(load(i), step, shift));
        let q = _mm512_max_epi32(q, _mm512_setzero_si512());
        // SAFETY: as above. Values above 255 become 255.
        unsafe { _mm512_mask_cvtusepi32_storeu_epi8(out.as_mut_ptr().add(i).cast(), mask(n, i), q) };
    }
    #[expect(clippy::cast_possible_truncation, reason = "0 to 255")]
    (scale, zero as i32)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn rows<const R: usize>(panel: &Panel<'_>, tile: &Tile<'_>, out: &mut [f32], stride: usize) {
    let groups = panel.weights.len() * 64 / GROUP_BYTES;
    assert!(tile.scale.len() == R && tile.zero_point.len() == R && tile.values.len() >= R * tile.stride);
    assert!(tile.stride >= 4 * groups && out.len() >= (R - 1) * stride + panel.columns);
    let mut sums = [[_mm512_setzero_si512(); 4]; R];
    let mut weights = panel.weights.as_ptr().cast::<u8>();
    let values = tile.values.as_ptr();
    for g in 0..groups {
        // SAFETY: the panel has 256 bytes for each group, on whole cache lines; each row has four for each.
        unsafe {
            let b = [0, 64, 128, 192].map(|at| _mm512_load_si512(weights.add(at).cast()));
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = values.add(r * tile.stride + 4 * g).cast::<i32>().read_unaligned();
                let x = _mm512_set1_epi32(x);
                for c in 0..4 {
                    sums[c] = _mm512_dpbusd_epi32(sums[c], x, b[c]);
                }
            }
            weights = weights.add(GROUP_BYTES);
        }
    }
    for (r, row) in sums.iter().enumerate() {
        let (scale, zero) = (_mm512_set1_ps(tile.scale[r]), _mm512_set1_epi32(tile.zero_point[r]));
        for (c, &sum) in row.iter().enumerate() {
            let at = LANES * c;
            // SAFETY: scale, bias and sums are arrays of 64; the mask keeps to the columns that `out` was checked for.
            unsafe {
                let shift = _mm512_mullo_epi32(zero, _mm512_loadu_si512(panel.sums.as_ptr().add(at).cast()));
                let y = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, shift));
                let scale = _mm512_mul_ps(scale, _mm512_loadu_ps(panel.scale.as_ptr().add(at)));
                let y = _mm512_fmadd_ps(y, scale, _mm512_loadu_ps(panel.bias.as_ptr().add(at)));
                let to = out.as_mut_ptr().wrapping_add(r * stride + at);
                _mm512_mask_storeu_ps(to, mask(panel.columns, at), y);
            }
        }
    }
}

/// Rounded to bfloat16, to nearest and ties to even, in the low half of each word. Not for NaN.
#[inline]
#[target_feature(enable = "avx512f")]
fn narrow(x: __m512) -> __m512i {
    let bits = _mm512_castps_si512(x);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))))
}

/// `sum + low(a) low(b) + high(a) high(b)` for pairs of bfloat16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn dot<const BF16: bool>(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    if BF16 {
        // SAFETY: both types are 512 bits without any rule about them.
        let pairs = |x: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(x) };
        _mm512_dpbf16_ps(sum, pairs(a), pairs(b))
    } else {
        let high = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
        let low = |x| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x));
        let high = |x| _mm512_castsi512_ps(_mm512_and_si512(x, high));
        _mm512_fmadd_ps(high(a), high(b), _mm512_fmadd_ps(low(a), low(b), sum))
    }
}

/// `2^x` within 3e-6 of it relatively, a thousandth of bfloat16's step: the polynomial of degree 4 whose largest error
/// between -1/2 and 1/2 is the least.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp2(x: __m512) -> __m512 {
    let n = _mm512_roundscale_ps::<8>(x);
    let f = _mm512_sub_ps(x, n);
    let mut p = _mm512_set1_ps(9.569_91e-3);
    for c in [5.591_734e-2, 0.240_247_45, 0.693_121_9, 0.999_999_3] {
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
    }
    _mm512_scalef_ps(p, n)
}

/// Sixteen numbers as bfloat16, in eight words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn halves<const BF16: bool>(x: __m512) -> __m256i {
    if BF16 {
        // SAFETY: both types are 256 bits without any rule about them.
        unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)) }
    } else {
        _mm512_cvtepi32_epi16(narrow(x))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn attend_with<const BF16: bool>(head: &Head, rows: &[f32], context: &mut [f32], scratch: &mut Scratch) {
    // Zeros fill both up to whole registers.
    let (tokens, width) = (head.tokens.next_multiple_of(LANES), head.width.next_multiple_of(LANES));
    scratch.queries.resize(head.tokens * width / 2, 0);
    scratch.keys.resize(width / 2 * tokens, 0);
    scratch.values.resize(tokens / 2 * width, 0);
    scratch.scores.resize(QUERIES * tokens, 0.0);
    scratch.shares.resize(QUERIES * tokens / 2, 0);

    let load = |token: usize, column: usize, d: usize| {
        if token >= head.tokens {
            return _mm512_setzero_ps();
        }
        let row = &rows[token * head.stride + column..][..head.width];
        // SAFETY: the mask has bits only for what is left of the row's `width` numbers.
        unsafe { _mm512_maskz_loadu_ps(mask(head.width, d), row.as_ptr().wrapping_add(d)) }
    };
    // Two neighbouring numbers of a register in each word.
    let pairs = |x: __m512| {
        let mut words = [0u32; LANES / 2];
        // SAFETY: 16 numbers of 16 bits are 8 words.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), halves::<BF16>(x)) };
        words
    };
    // Scores come out in powers of 2 instead of e.
    let scale = _mm512_set1_ps(std::f32::consts::LOG2_E / (head.width as f32).sqrt());
    for d in (0..width).step_by(LANES) {
        for token in 0..head.tokens {
            let query = _mm512_mul_ps(load(token, head.queries_at, d), scale);
            scratch.queries[(token * width + d) / 2..][..LANES / 2].copy_from_slice(&pairs(query));
        }
        for token in 0..tokens {
            for (p, word) in pairs(load(token, head.keys_at, d)).into_iter().enumerate() {
                scratch.keys[(d / 2 + p) * tokens + token] = word;
            }
        }
        for token in (0..tokens).step_by(2) {
            let first = narrow(load(token, head.values_at, d));
            let second = narrow(load(token + 1, head.values_at, d));
            let both = _mm512_or_si512(first, _mm512_slli_epi32::<16>(second));
            let to = &mut scratch.values[token / 2 * width + d..][..LANES];
            // SAFETY: the slice holds 16 words.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), both) };
        }
    }
    for (n, context) in context.chunks_mut(QUERIES * head.width).enumerate() {
        let queries = &scratch.queries[n * QUERIES * width / 2..];
        let parts = Parts {
            tokens: head.tokens,
            width: head.width,
            queries,
            keys: &scratch.keys,
            values: &scratch.values,
            scores: &mut scratch.scores,
            shares: &mut scratch.shares,
        };
        match context.len() / head.width {
            1 => block::<BF16, 1>(parts, context),
            2 => block::<BF16, 2>(parts, context),
            3 => block::<BF16, 3>(parts, context),
            _ => block::<BF16, QUERIES>(parts, context),
        }
    }
}

/// [`Scratch`] for one block of queries.
struct Parts<'a> {
    tokens: usize,
    width: usize,
    queries: &'a [u32],
    keys: &'a [u32],
    values: &'a [u32],
    scores: &'a mut [f32],
    shares: &'a mut [u32],
}

/// Attention of `R` queries.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn block<const BF16: bool, const R: usize>(parts: Parts<'_>, context: &mut [f32]) {
    let (tokens, width) = (parts.tokens.next_multiple_of(LANES), parts.width.next_multiple_of(LANES));
    let pairs = width / 2;
    assert!(parts.queries.len() >= R * pairs && parts.keys.len() >= pairs * tokens);
    assert!(parts.values.len() >= tokens / 2 * width && parts.scores.len() >= R * tokens);
    assert!(parts.shares.len() >= R * tokens / 2 && context.len() == R * parts.width);
    let (queries, keys, values) = (parts.queries.as_ptr(), parts.keys.as_ptr(), parts.values.as_ptr());
    let (scores, shares) = (parts.scores.as_mut_ptr(), parts.shares.as_mut_ptr());

    // Scores: as many keys at once as fill four registers, then one register at a time.
    let mut most = [_mm512_set1_ps(f32::NEG_INFINITY); R];
    let mut key = 0;
    while key < tokens {
        if key + 4 * LANES <= tokens {
            // SAFETY: the lengths checked above, for `C` registers of keys from `key` on.
            unsafe { score::<BF16, R, 4>(queries, keys, scores, key, parts.tokens, pairs, &mut most) };
            key += 4 * LANES;
        } else {
            // SAFETY: as above.
            unsafe { score::<BF16, R, 1>(queries, keys, scores, key, parts.tokens, pairs, &mut most) };
            key += LANES;
        }
    }
    // Softmax without its division, which comes last.
    let mut total = [0.0f32; R];
    for (r, total) in total.iter_mut().enumerate() {
        let top = _mm512_set1_ps(_mm512_reduce_max_ps(most[r]));
        let mut sum = _mm512_setzero_ps();
        for key in (0..tokens).step_by(LANES) {
            // SAFETY: `scores` holds R x tokens, `shares` half as many words.
            unsafe {
                let share = exp2(_mm512_sub_ps(_mm512_loadu_ps(scores.add(r * tokens + key)), top));
                sum = _mm512_add_ps(sum, share);
                _mm256_storeu_si256(shares.add((r * tokens + key) / 2).cast(), halves::<BF16>(share));
            }
        }
        *total = _mm512_reduce_add_ps(sum);
    }
    // Shares times values, two registers of a value at once where it has them.
    let mut d = 0;
    while d < width {
        let registers = if d + 2 * LANES <= width { 2 } else { 1 };
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        for p in 0..tokens / 2 {
            // SAFETY: `values` holds tokens / 2 rows of `width` words, of which those from `d` on are read.
            unsafe {
                let at = values.add(p * width + d);
                let first = _mm512_loadu_si512(at.cast());
                let second = if registers == 2 { _mm512_loadu_si512(at.add(LANES).cast()) } else { first };
                for (r, sums) in sums.iter_mut().enumerate() {
                    let share = _mm512_set1_epi32((*shares.add(r * tokens / 2 + p)).cast_signed());
                    sums[0] = dot::<BF16>(sums[0], share, first);
                    sums[1] = dot::<BF16>(sums[1], share, second);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let inverse = _mm512_set1_ps(1.0 / total[r]);
            for (c, &sum) in sums[..registers].iter().enumerate() {
                let at = d + LANES * c;
                let to = context.as_mut_ptr().wrapping_add(r * parts.width + at);
                // SAFETY: the mask keeps to the row's own numbers.
                unsafe { _mm512_mask_storeu_ps(to, mask(parts.width, at), _mm512_mul_ps(sum, inverse)) };
            }
        }
        d += registers * LANES;
    }
}

/// Scores of `R` queries and `C` registers of keys from `key` on; keys beyond `tokens` get minus infinity.
///
/// # Safety
/// `queries` holds `R * pairs` words, `keys` `pairs` rows and `scores` `R` rows of `tokens` rounded up to 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn score<const BF16: bool, const R: usize, const C: usize>(
    queries: *const u32,
    keys: *const u32,
    scores: *mut f32,
    key: usize,
    tokens: usize,
    pairs: usize,
    most: &mut [__m512; R],
) {
    let stride = tokens.next_multiple_of(LANES);
    let mut sums = [[_mm512_setzero_ps(); C]; R];
    for p in 0..pairs {
        // SAFETY: the caller's promise.
        unsafe {
            let at = keys.add(p * stride + key);
            let mut b = [_mm512_setzero_si512(); C];
            for (c, b) in b.iter_mut().enumerate() {
                *b = _mm512_loadu_si512(at.add(LANES * c).cast());
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let query = _mm512_set1_epi32((*queries.add(r * pairs + p)).cast_signed());
                for c in 0..C {
                    sums[c] = dot::<BF16>(sums[c], query, b[c]);
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (c, &sum) in sums.iter().enumerate() {
            let at = key + LANES * c;
            let sum = _mm512_mask_blend_ps(mask(tokens, at), _mm512_set1_ps(f32::NEG_INFINITY), sum);
            most[r] = _mm512_max_ps(most[r], sum);
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_ps(scores.add(r * stride + at), sum) };
        }
    }
}

#[target_feature(enable = "avx512f")]
fn gelu_avx512(values: &mut [f32]) {
    let (end, half) = (_mm512_set1_ps(GELU_END), _mm512_set1_ps(0.5));
    let coefficients = GELU.map(|c| _mm512_set1_ps(c));
    let n = values.len();
    for i in (0..n).step_by(LANES) {
        let at = values.as_mut_ptr().wrapping_add(i);
        // SAFETY: the mask has bits only for the slice's own values.
        unsafe {
            let x = _mm512_maskz_loadu_ps(mask(n, i), at);
            let c = _mm512_max_ps(_mm512_min_ps(x, end), _mm512_sub_ps(_mm512_setzero_ps(), end));
            let square = _mm512_mul_ps(c, c);
            let mut p = _mm512_setzero_ps();
            for coefficient in coefficients.iter().rev() {
                p = _mm512_fmadd_ps(p, square, *coefficient);
            }
            _mm512_mask_storeu_ps(at, mask(n, i), _mm512_mul_ps(x, _mm512_fmadd_ps(c, p, half)));
        }
    }
}

#[target_feature(enable = "avx512f")]
fn add_norm_avx512(x: &mut [f32], residual: &[f32], norm: &Norm) {
    let n = norm.gain.len();
    assert_eq!(norm.bias.len(), n);
    let load = |from: *const f32, i: usize| {
        // SAFETY: `from` is a row of `n` values, and the mask has bits only for those.
        unsafe { _mm512_maskz_loadu_ps(mask(n, i), from.wrapping_add(i)) }
    };
    for (x, residual) in x.chunks_exact_mut(n).zip(residual.chunks_exact(n)) {
        // SAFETY: as above.
        let store =
            |to: *mut f32, i: usize, v| unsafe { _mm512_mask_storeu_ps(to.wrapping_add(i), mask(n, i), v) };
        let mut sum = _mm512_setzero_ps();
        for i in (0..n).step_by(LANES) {
            let v = _mm512_add_ps(load(x.as_ptr(), i), load(residual.as_ptr(), i));
            sum = _mm512_add_ps(sum, v);
            store(x.as_mut_ptr(), i, v);
        }
        let mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / n as f32);
        let mut sum = _mm512_setzero_ps();
        for i in (0..n).step_by(LANES) {
            let v = _mm512_maskz_sub_ps(mask(n, i), load(x.as_ptr(), i), mean);
            sum = _mm512_fmadd_ps(v, v, sum);
        }
        let variance = _mm512_reduce_add_ps(sum) / n as f32;
        let rate = _mm512_set1_ps(1.0 / (variance + norm.epsilon).sqrt());
        for i in (0..n).step_by(LANES) {
            let v = _mm512_mul_ps(_mm512_sub_ps(load(x.as_ptr(), i), mean), rate);
            let v = _mm512_fmadd_ps(v, load(norm.gain.as_ptr(), i), load(norm.bias.as_ptr(), i));
            store(x.as_mut_ptr(), i, v);
        }
    }
}
