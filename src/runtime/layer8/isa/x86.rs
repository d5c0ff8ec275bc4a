//! The inner functions in AVX-512 with VNNI, and with BF16 where the processor has it.
//!
//! Pointers and masks: what is masked out is neither read nor written, so a mask with a bit for each value that is
//! there makes the ends of rows safe. Lengths were checked by the callers that each SAFETY comment names.

#![expect(unsafe_code, reason = "instructions beyond the build's target, chosen at run time")]

use std::arch::x86_64::{
    __m128i, __m256bh, __m256i, __m512, __m512bh, __m512i, __mmask16, _mm_setzero_si128, _mm_storeu_si128,
    _mm256_storeu_si256, _mm512_abs_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtepi32_epi8, _mm512_cvtepi32_epi16,
    _mm512_cvtepi32_ps, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_cvtps_epi32, _mm512_dpbf16_ps,
    _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_load_si512, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_cvtusepi32_storeu_epi8, _mm512_mask_max_epi32, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_maskz_mov_ps, _mm512_maskz_sub_ps, _mm512_max_epi32, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_mullo_epi32, _mm512_or_si512, _mm512_permutex2var_epi32, _mm512_permutexvar_epi16,
    _mm512_reduce_add_ps, _mm512_reduce_max_epi32, _mm512_reduce_max_ps, _mm512_reduce_min_ps,
    _mm512_set_epi32, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_shuffle_i64x2, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_si512,
    _mm512_sub_epi32, _mm512_sub_ps,
};

use super::{GELU, GELU_END};
use crate::runtime::layer8::{
    Norm,
    attention::{Head, Scratch},
    linear::{GROUP, GROUP_BYTES, Panel, TILE, Tile},
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

// SAFETY of the functions down to the next line: they are called for an `Isa` of `Set::Vnni` or `Set::VnniBf16` alone,
// and `simd.rs` makes one only after it has found the features; `attend` for one of `Set::VnniBf16` alone.

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
    unsafe { bf16::attend(head, rows, context, scratch) }
}

pub(super) fn attend_by_shifts(head: &Head, rows: &[f32], context: &mut [f32], scratch: &mut Scratch) {
    // SAFETY: see above; nothing there is compiled for BF16.
    unsafe { shifts::attend(head, rows, context, scratch) }
}

pub(super) fn gelu_round_row(row: &mut [f32], out: &mut [u8]) -> (f32, i32) {
    // SAFETY: see above.
    unsafe { gelu_round_row_avx512(row, out) }
}

pub(super) fn add_norm(x: &mut [f32], residual: &[f32], norm: &Norm) {
    // SAFETY: see above.
    unsafe { add_norm_avx512(x, residual, norm) }
}

// ---------------------------------------------------------------------------------------------------------------------

/// Sixteen values of a row from `i` on, times their smoothing.
///
/// # Safety
/// `smoothing` is as long as `row`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn smoothed(row: &[f32], smoothing: Option<&[f32]>, i: usize) -> __m512 {
    let some = mask(row.len(), i);
    // SAFETY: the mask has bits only for the rows' own values.
    unsafe {
        let x = _mm512_maskz_loadu_ps(some, row.as_ptr().wrapping_add(i));
        match smoothing {
            Some(s) => _mm512_mul_ps(x, _mm512_maskz_loadu_ps(some, s.as_ptr().wrapping_add(i))),
            None => x,
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn round_row_avx512(row: &[f32], smoothing: Option<&[f32]>, out: &mut [u8]) -> (f32, i32) {
    assert!(smoothing.is_none_or(|s| s.len() == row.len()));
    let (mut least, mut most) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    for i in (0..row.len()).step_by(LANES) {
        // SAFETY: just checked.
        let x = unsafe { smoothed(row, smoothing, i) };
        least = _mm512_min_ps(least, x);
        most = _mm512_max_ps(most, x);
    }
    round_between(row, smoothing, least, most, out)
}

/// The second half of rounding a row, the least and the largest of its values being known by lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn round_between(
    row: &[f32],
    smoothing: Option<&[f32]>,
    least: __m512,
    most: __m512,
    out: &mut [u8],
) -> (f32, i32) {
    let n = row.len();
    assert!(out.len() == n && smoothing.is_none_or(|s| s.len() == n));
    let (least, most) = (_mm512_reduce_min_ps(least), _mm512_reduce_max_ps(most));
    let scale = (most - least) / 255.0;
    if scale < f32::MIN_POSITIVE {
        out.fill(0);
        return (1.0, 0);
    }
    let zero = (-least / scale).round_ties_even();
    let (step, shift) = (_mm512_set1_ps(1.0 / scale), _mm512_set1_ps(zero));
    for i in (0..n).step_by(LANES) {
        // SAFETY: the lengths were checked, and the mask keeps to them. Values above 255 become 255.
        unsafe {
            let q = _mm512_cvtps_epi32(_mm512_fmadd_ps(smoothed(row, smoothing, i), step, shift));
            let q = _mm512_max_epi32(q, _mm512_setzero_si512());
            _mm512_mask_cvtusepi32_storeu_epi8(out.as_mut_ptr().wrapping_add(i).cast(), mask(n, i), q);
        }
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

/// `2^x` for `x` from -126 to 0, within 8e-5 of it relatively, a fiftieth of bfloat16's step: the polynomial of degree 3
/// whose largest error between -1/2 and 1/2 is the least. What is below -126 gives `2^-126`.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp2(x: __m512) -> __m512 {
    let x = _mm512_max_ps(x, _mm512_set1_ps(-126.0));
    // In the sum with 3 x 2^22 the nearest integer stands in the lowest bits.
    let large = _mm512_set1_ps(12_582_912.0);
    let sum = _mm512_add_ps(x, large);
    let f = _mm512_sub_ps(x, _mm512_sub_ps(sum, large));
    let mut p = _mm512_set1_ps(5.517_179e-2);
    for c in [0.242_611_42, 0.693_261, 0.999_928] {
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
    }
    let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(sum));
    _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), exponent))
}

/// 0 to 15.
#[inline]
#[target_feature(enable = "avx512f")]
fn lanes() -> __m512i {
    _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
}

/// Numbers of a query or key that are turned together.
const TURNED: usize = 32;

/// Transposes eight words of each of sixteen tokens, so that for each of the eight the sixteen tokens' words lie side
/// by side.
#[inline]
#[target_feature(enable = "avx512f")]
fn turn(block: &[[__m128i; 2]; LANES]) -> [__m512i; 8] {
    let at = block.as_ptr().cast::<__m512i>();
    // SAFETY: the block is 512 bytes; two tokens are a register.
    let x: [__m512i; 8] = std::array::from_fn(|n| unsafe { at.add(n).read_unaligned() });
    // Pairs of registers are merged three times: runs of 2 tokens become 4, 8, 16, and words of a register 8, 4, 2, 1.
    let low = _mm512_set_epi32(27, 19, 11, 3, 26, 18, 10, 2, 25, 17, 9, 1, 24, 16, 8, 0);
    let high = _mm512_add_epi32(low, _mm512_set1_epi32(4));
    let four: [[__m512i; 2]; 4] = std::array::from_fn(|n| {
        [low, high].map(|order| _mm512_permutex2var_epi32(x[2 * n], order, x[2 * n + 1]))
    });
    let low = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
    let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    let eight: [[__m512i; 4]; 2] = std::array::from_fn(|n| {
        let [a, b] = [four[2 * n], four[2 * n + 1]];
        std::array::from_fn(|w| {
            _mm512_permutex2var_epi32(a[w / 2], if w % 2 == 0 { low } else { high }, b[w / 2])
        })
    });
    std::array::from_fn(|g| {
        let [a, b] = [eight[0][g / 2], eight[1][g / 2]];
        if g % 2 == 0 {
            _mm512_shuffle_i64x2::<0b01_00_01_00>(a, b)
        } else {
            _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b)
        }
    })
}

/// [`Scratch`] for one block of queries.
struct Parts<'a> {
    tokens: usize,
    width: usize,
    /// What a step of a score stands for, in powers of 2.
    step: f32,
    queries: &'a [u8],
    keys: &'a [u32],
    shifts: &'a [i32],
    values: &'a [u32],
    scores: &'a mut [i32],
    shares: &'a mut [u32],
}

/// Attention, once for every way to compute with bfloat16: a function that is compiled for instructions may use them
/// anywhere, so those of BF16 stand in the list of the one form alone.
macro_rules! attention {
    ($features:literal) => {
        use super::*;

        /// [`Isa::attend`](crate::simd::Isa).
        #[target_feature(enable = $features)]
        pub(super) fn attend(head: &Head, rows: &[f32], context: &mut [f32], scratch: &mut Scratch) {
            // Zeros fill all up to whole registers.
            let (tokens, width) = (head.tokens.next_multiple_of(LANES), head.width.next_multiple_of(LANES));
            let turned = head.width.next_multiple_of(TURNED);
            scratch.queries.resize(head.tokens * turned, 0);
            scratch.keys.resize(turned / GROUP * tokens, 0);
            scratch.shifts.resize(tokens, 0);
            scratch.values.resize(tokens / 2 * width, 0);
            scratch.scores.resize(QUERIES * tokens, 0);
            scratch.shares.resize(QUERIES * tokens / 2, 0);

            let load = |token: usize, column: usize, d: usize| {
                if token >= head.tokens {
                    return _mm512_setzero_ps();
                }
                let row = &rows[token * head.stride + column..][..head.width];
                // SAFETY: the mask has bits only for what is left of the row's `width` numbers.
                unsafe { _mm512_maskz_loadu_ps(mask(head.width, d), row.as_ptr().wrapping_add(d)) }
            };
            // One step for all queries of the text and one for all its keys: with a step for each token the vectors come out
            // nearer to full precision by 1e-5 of cosine, and finding the steps takes as long as the products.
            let mut most = [_mm512_setzero_ps(); 2];
            for token in 0..head.tokens {
                for d in (0..width).step_by(LANES) {
                    for (most, column) in most.iter_mut().zip([head.queries_at, head.keys_at]) {
                        *most = _mm512_max_ps(*most, _mm512_abs_ps(load(token, column, d)));
                    }
                }
            }
            let [query, key] = most.map(|most| {
                let step = _mm512_reduce_max_ps(most) / 127.0;
                if step < f32::MIN_POSITIVE { (1.0, 0.0) } else { (step, 1.0 / step) }
            });
            let round = |x: __m512, inverse: f32, zero: i32| {
                let q = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(inverse)));
                _mm512_cvtepi32_epi8(_mm512_add_epi32(q, _mm512_set1_epi32(zero)))
            };
            for (token, out) in scratch.queries.chunks_exact_mut(turned).enumerate() {
                for (n, out) in out.chunks_exact_mut(LANES).enumerate() {
                    let q = round(load(token, head.queries_at, n * LANES), query.1, 128);
                    // SAFETY: the chunk has 16 bytes.
                    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), q) };
                }
            }
            let zero = _mm512_set1_epi8(-128);
            for at in (0..tokens).step_by(LANES) {
                let mut shift = _mm512_setzero_si512();
                for from in (0..turned).step_by(TURNED) {
                    let mut block = [[_mm_setzero_si128(); 2]; LANES];
                    for (token, row) in block.iter_mut().enumerate() {
                        for (n, part) in row.iter_mut().enumerate() {
                            *part = round(load(at + token, head.keys_at, from + n * LANES), key.1, 0);
                        }
                    }
                    for (g, words) in turn(&block).into_iter().enumerate() {
                        shift = _mm512_dpbusd_epi32(shift, zero, words);
                        let to = &mut scratch.keys[(from / GROUP + g) * tokens + at..][..LANES];
                        // SAFETY: the slice holds 16 words.
                        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), words) };
                    }
                }
                let shift = _mm512_sub_epi32(_mm512_setzero_si512(), shift);
                // SAFETY: the slice holds 16 words.
                unsafe { _mm512_storeu_si512(scratch.shifts[at..][..LANES].as_mut_ptr().cast(), shift) };
            }
            for d in (0..width).step_by(LANES) {
                for token in (0..tokens).step_by(2) {
                    let both = pairs(load(token, head.values_at, d), load(token + 1, head.values_at, d));
                    let to = &mut scratch.values[token / 2 * width + d..][..LANES];
                    // SAFETY: the slice holds 16 words.
                    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), both) };
                }
            }
            // Scores come out in powers of 2 instead of e.
            let step = query.0 * key.0 * std::f32::consts::LOG2_E / (head.width as f32).sqrt();
            for (n, context) in context.chunks_mut(QUERIES * head.width).enumerate() {
                let parts = Parts {
                    tokens: head.tokens,
                    width: head.width,
                    step,
                    queries: &scratch.queries[n * QUERIES * turned..],
                    keys: &scratch.keys,
                    shifts: &scratch.shifts,
                    values: &scratch.values,
                    scores: &mut scratch.scores,
                    shares: &mut scratch.shares,
                };
                match context.len() / head.width {
                    1 => block::<1>(parts, context),
                    2 => block::<2>(parts, context),
                    3 => block::<3>(parts, context),
                    _ => block::<QUERIES>(parts, context),
                }
            }
        }

        /// Attention of `R` queries.
        #[inline]
        #[target_feature(enable = $features)]
        fn block<const R: usize>(parts: Parts<'_>, context: &mut [f32]) {
            let (tokens, width) = (parts.tokens.next_multiple_of(LANES), parts.width.next_multiple_of(LANES));
            let turned = parts.width.next_multiple_of(TURNED);
            assert!(parts.queries.len() >= R * turned && parts.keys.len() >= turned / GROUP * tokens);
            assert!(parts.shifts.len() >= tokens && parts.scores.len() >= R * tokens);
            assert!(parts.values.len() >= tokens / 2 * width && parts.shares.len() >= R * tokens / 2);
            assert!(context.len() == R * parts.width);
            let values = parts.values.as_ptr();
            let (scores, shares) = (parts.scores.as_mut_ptr(), parts.shares.as_mut_ptr());

            // Scores: as many keys at once as fill four registers, then one register at a time.
            let mut most = [_mm512_set1_epi32(i32::MIN); R];
            let mut key = 0;
            while key < tokens {
                if key + 4 * LANES <= tokens {
                    // SAFETY: the lengths checked above, for `C` registers of keys from `key` on.
                    unsafe { score::<R, 4>(&parts, scores, key, &mut most) };
                    key += 4 * LANES;
                } else {
                    // SAFETY: as above.
                    unsafe { score::<R, 1>(&parts, scores, key, &mut most) };
                    key += LANES;
                }
            }
            // Softmax without its division, which comes last.
            let step = _mm512_set1_ps(parts.step);
            let mut total = [0.0f32; R];
            for (r, total) in total.iter_mut().enumerate() {
                let top = _mm512_set1_epi32(_mm512_reduce_max_epi32(most[r]));
                let share = |key: usize| {
                    // SAFETY: `scores` holds R x tokens.
                    let score = unsafe { _mm512_loadu_si512(scores.add(r * tokens + key).cast()) };
                    exp2(_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(score, top)), step))
                };
                let keep = |key: usize, share: __m512| {
                    // SAFETY: `shares` holds half as many words as there are scores.
                    unsafe { _mm256_storeu_si256(shares.add((r * tokens + key) / 2).cast(), halves(share)) };
                };
                let mut sum = _mm512_setzero_ps();
                let last = tokens - LANES;
                for key in (0..last).step_by(LANES) {
                    let share = share(key);
                    sum = _mm512_add_ps(sum, share);
                    keep(key, share);
                }
                let share = _mm512_maskz_mov_ps(mask(parts.tokens, last), share(last));
                keep(last, share);
                *total = _mm512_reduce_add_ps(_mm512_add_ps(sum, share));
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
                        let second =
                            if registers == 2 { _mm512_loadu_si512(at.add(LANES).cast()) } else { first };
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let share = _mm512_set1_epi32((*shares.add(r * tokens / 2 + p)).cast_signed());
                            sums[0] = dot(sums[0], share, first);
                            sums[1] = dot(sums[1], share, second);
                        }
                    }
                }
                for (r, sums) in sums.iter().enumerate() {
                    let inverse = _mm512_set1_ps(1.0 / total[r]);
                    for (c, &sum) in sums[..registers].iter().enumerate() {
                        let at = d + LANES * c;
                        let to = context.as_mut_ptr().wrapping_add(r * parts.width + at);
                        // SAFETY: the mask keeps to the row's own numbers.
                        unsafe {
                            _mm512_mask_storeu_ps(to, mask(parts.width, at), _mm512_mul_ps(sum, inverse))
                        };
                    }
                }
                d += registers * LANES;
            }
        }
    };
}

/// bfloat16 by the instructions for it.
mod bf16 {
    attention!("avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16");

    /// `sum + low(a) low(b) + high(a) high(b)` for pairs of bfloat16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn dot(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: both types are 512 bits without any rule about them.
        let pairs = |x: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(x) };
        _mm512_dpbf16_ps(sum, pairs(a), pairs(b))
    }

    /// Sixteen numbers as bfloat16, in eight words.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn halves(x: __m512) -> __m256i {
        // SAFETY: both types are 256 bits without any rule about them.
        unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)) }
    }

    /// Two rows of sixteen numbers as bfloat16, those of one place in one word, the first's in its low half.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn pairs(first: __m512, second: __m512) -> __m512i {
        let side_by_side = _mm512_cvtne2ps_pbh(second, first);
        // SAFETY: both types are 512 bits without any rule about them.
        let side_by_side = unsafe { std::mem::transmute::<__m512bh, __m512i>(side_by_side) };
        let order = _mm512_add_epi32(
            _mm512_set1_epi32(0x0010_0000),
            _mm512_mullo_epi32(lanes(), _mm512_set1_epi32(0x0001_0001)),
        );
        _mm512_permutexvar_epi16(order, side_by_side)
    }
}

/// bfloat16 as the upper half of a number, for processors without the instructions.
mod shifts {
    attention!("avx512f,avx512bw,avx512vl,avx512vnni");

    /// `sum + low(a) low(b) + high(a) high(b)` for pairs of bfloat16.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn dot(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        let high = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
        let low = |x| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x));
        let high = |x| _mm512_castsi512_ps(_mm512_and_si512(x, high));
        _mm512_fmadd_ps(high(a), high(b), _mm512_fmadd_ps(low(a), low(b), sum))
    }

    /// Sixteen numbers as bfloat16, in eight words.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn halves(x: __m512) -> __m256i {
        _mm512_cvtepi32_epi16(narrow(x))
    }

    /// Two rows of sixteen numbers as bfloat16, those of one place in one word, the first's in its low half.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn pairs(first: __m512, second: __m512) -> __m512i {
        _mm512_or_si512(narrow(first), _mm512_slli_epi32::<16>(narrow(second)))
    }
}

/// Scores of `R` queries and `C` registers of keys from `key` on; those of keys beyond the text do not count for `most`.
///
/// # Safety
/// `parts` holds `R` queries and as many keys as `key` and `C` say, `scores` `R` rows of tokens rounded up to 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn score<const R: usize, const C: usize>(
    parts: &Parts<'_>,
    scores: *mut i32,
    key: usize,
    most: &mut [__m512i; R],
) {
    let (stride, turned) = (parts.tokens.next_multiple_of(LANES), parts.width.next_multiple_of(TURNED));
    let (queries, keys) = (parts.queries.as_ptr(), parts.keys.as_ptr());
    let mut sums = [[_mm512_setzero_si512(); C]; R];
    for c in 0..C {
        // SAFETY: the caller's promise.
        let shift = unsafe { _mm512_loadu_si512(parts.shifts.as_ptr().add(key + LANES * c).cast()) };
        sums.iter_mut().for_each(|sums| sums[c] = shift);
    }
    for g in 0..turned / GROUP {
        // SAFETY: the caller's promise.
        unsafe {
            let at = keys.add(g * stride + key);
            let mut b = [_mm512_setzero_si512(); C];
            for (c, b) in b.iter_mut().enumerate() {
                *b = _mm512_loadu_si512(at.add(LANES * c).cast());
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let query = queries.add(r * turned + GROUP * g).cast::<i32>().read_unaligned();
                let query = _mm512_set1_epi32(query);
                for c in 0..C {
                    sums[c] = _mm512_dpbusd_epi32(sums[c], query, b[c]);
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (c, &sum) in sums.iter().enumerate() {
            let at = key + LANES * c;
            most[r] = if at + LANES <= parts.tokens {
                _mm512_max_epi32(most[r], sum)
            } else {
                _mm512_mask_max_epi32(most[r], mask(parts.tokens, at), most[r], sum)
            };
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_si512(scores.add(r * stride + at).cast(), sum) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn gelu_round_row_avx512(row: &mut [f32], out: &mut [u8]) -> (f32, i32) {
    let (end, half) = (_mm512_set1_ps(GELU_END), _mm512_set1_ps(0.5));
    let coefficients = GELU.map(|c| _mm512_set1_ps(c));
    let n = row.len();
    let (mut least, mut most) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    for i in (0..n).step_by(LANES) {
        let at = row.as_mut_ptr().wrapping_add(i);
        // SAFETY: the mask has bits only for the slice's own values.
        unsafe {
            let x = _mm512_maskz_loadu_ps(mask(n, i), at);
            let c = _mm512_max_ps(_mm512_min_ps(x, end), _mm512_sub_ps(_mm512_setzero_ps(), end));
            let square = _mm512_mul_ps(c, c);
            let mut p = coefficients[coefficients.len() - 1];
            for coefficient in coefficients.iter().rev().skip(1) {
                p = _mm512_fmadd_ps(p, square, *coefficient);
            }
            let y = _mm512_mul_ps(x, _mm512_fmadd_ps(c, p, half));
            _mm512_mask_storeu_ps(at, mask(n, i), y);
            least = _mm512_min_ps(least, y);
            most = _mm512_max_ps(most, y);
        }
    }
    round_between(row, None, least, most, out)
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
