//! Dot product and squared distance of two slices of one length, in the widest registers of this machine.
//!
//! The best of AVX-512F, AVX2 with FMA, and a portable form (which the compiler vectorises for the build's target)
//! is chosen once, at the first call. The forms add in different orders, so their results differ in the last bits;
//! on one machine the same input always gives the same bits, and so does exchanging the two slices.
//! Where the lengths differ, the tail of the longer slice is ignored.

#![expect(unsafe_code, reason = "instructions beyond the build's target, chosen at run time")]

use std::sync::LazyLock;

use crate::simd::{Isa, Set};

/// The two kernels of one kind of machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernels {
    #[cfg_attr(not(test), expect(dead_code, reason = "names the kernels in failed tests"))]
    pub name: &'static str,
    pub dot: fn(&[f32], &[f32]) -> f32,
    pub squared_euclidean: fn(&[f32], &[f32]) -> f32,
}

/// The kernels that work on every machine; the others are tested against them.
pub(super) const PORTABLE: Kernels =
    Kernels { name: "portable", dot: portable_dot, squared_euclidean: portable_squared_euclidean };

/// The instruction sets that have kernels here, fastest last.
const SETS: &[Set] = &[
    Set::Portable,
    #[cfg(target_arch = "x86_64")]
    Set::Avx2,
    #[cfg(target_arch = "x86_64")]
    Set::Avx512,
];

/// The fastest kernels that this machine can run.
pub(super) static BEST: LazyLock<Kernels> = LazyLock::new(|| *available().last().unwrap_or(&PORTABLE));

/// All kernels that this machine can run, fastest last.
pub(super) fn available() -> Vec<Kernels> {
    Isa::available(SETS).into_iter().map(of).collect()
}

fn of(isa: Isa) -> Kernels {
    match isa.set() {
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => Kernels {
            name: "avx2",
            // SAFETY: both kernels are compiled for the two features of the set, and the token says that they are there.
            dot: |a, b| unsafe { x86::dot_avx2(a, b) },
            // SAFETY: as above.
            squared_euclidean: |a, b| unsafe { x86::squared_euclidean_avx2(a, b) },
        },
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => Kernels {
            name: "avx512",
            // SAFETY: both kernels are compiled for the feature of the set, and the token says that it is there.
            dot: |a, b| unsafe { x86::dot_avx512(a, b) },
            // SAFETY: as above.
            squared_euclidean: |a, b| unsafe { x86::squared_euclidean_avx512(a, b) },
        },
        _ => PORTABLE,
    }
}

fn portable_dot(a: &[f32], b: &[f32]) -> f32 {
    fold16(a, b, |x, y| x * y)
}

fn portable_squared_euclidean(a: &[f32], b: &[f32]) -> f32 {
    fold16(a, b, |x, y| (x - y) * (x - y))
}

/// Adds in 16 partial sums that the compiler keeps in SIMD registers.
#[inline(always)]
fn fold16(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 16];
    let n = a.len().min(b.len());
    let (a16, a_rest) = a[..n].as_chunks::<16>();
    let (b16, b_rest) = b[..n].as_chunks::<16>();
    for (x, y) in a16.iter().zip(b16) {
        for i in 0..16 {
            sums[i] += f(x[i], y[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&x, &y)| f(x, y)).sum();
    sums.iter().sum::<f32>() + rest
}

/// Four registers of partial sums hide the latency of a fused multiply-add.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, __mmask16, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps,
        _mm256_add_ps, _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_setzero_ps, _mm256_sub_ps, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_maskz_loadu_ps, _mm512_reduce_add_ps, _mm512_setzero_ps, _mm512_sub_ps,
    };

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
        fold_avx2(a, b, |sum, x, y| _mm256_fmadd_ps(x, y, sum))
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn squared_euclidean_avx2(a: &[f32], b: &[f32]) -> f32 {
        fold_avx2(a, b, |sum, x, y| {
            let d = _mm256_sub_ps(x, y);
            _mm256_fmadd_ps(d, d, sum)
        })
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn dot_avx512(a: &[f32], b: &[f32]) -> f32 {
        fold_avx512(a, b, |sum, x, y| _mm512_fmadd_ps(x, y, sum))
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn squared_euclidean_avx512(a: &[f32], b: &[f32]) -> f32 {
        fold_avx512(a, b, |sum, x, y| {
            let d = _mm512_sub_ps(x, y);
            _mm512_fmadd_ps(d, d, sum)
        })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn fold_avx2(a: &[f32], b: &[f32], step: impl Fn(__m256, __m256, __m256) -> __m256) -> f32 {
        let n = a.len().min(b.len());
        let (a32, a_rest) = a[..n].as_chunks::<32>();
        let (b32, b_rest) = b[..n].as_chunks::<32>();
        let mut sums = [_mm256_setzero_ps(); 4];
        for (x, y) in a32.iter().zip(b32) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: i is below 4, so 8 values from 8 * i on lie within the chunk of 32.
                let (x, y) = unsafe {
                    (_mm256_loadu_ps(x.as_ptr().add(8 * i)), _mm256_loadu_ps(y.as_ptr().add(8 * i)))
                };
                *sum = step(*sum, x, y);
            }
        }
        // The rest is copied into zeros, which add nothing, so that it runs through the same steps.
        for (x, y) in a_rest.chunks(8).zip(b_rest.chunks(8)) {
            let (mut x8, mut y8) = ([0.0f32; 8], [0.0f32; 8]);
            x8[..x.len()].copy_from_slice(x);
            y8[..y.len()].copy_from_slice(y);
            // SAFETY: both arrays hold 8 values.
            let (x, y) = unsafe { (_mm256_loadu_ps(x8.as_ptr()), _mm256_loadu_ps(y8.as_ptr())) };
            sums[0] = step(sums[0], x, y);
        }
        let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
        let sum = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
        let sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
        _mm_cvtss_f32(_mm_add_ss(sum, _mm_shuffle_ps::<1>(sum, sum)))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn fold_avx512(a: &[f32], b: &[f32], step: impl Fn(__m512, __m512, __m512) -> __m512) -> f32 {
        let n = a.len().min(b.len());
        let (a64, a_rest) = a[..n].as_chunks::<64>();
        let (b64, b_rest) = b[..n].as_chunks::<64>();
        let mut sums = [_mm512_setzero_ps(); 4];
        for (x, y) in a64.iter().zip(b64) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: i is below 4, so 16 values from 16 * i on lie within the chunk of 64.
                let (x, y) = unsafe {
                    (_mm512_loadu_ps(x.as_ptr().add(16 * i)), _mm512_loadu_ps(y.as_ptr().add(16 * i)))
                };
                *sum = step(*sum, x, y);
            }
        }
        for (x, y) in a_rest.chunks(16).zip(b_rest.chunks(16)) {
            let mask = (0xffff_u32 >> (16 - x.len())) as __mmask16;
            // SAFETY: `x` and `y` are of one length, 1 to 16, and the mask has a bit for each of their values only;
            // what is masked out is not read.
            let (x, y) =
                unsafe { (_mm512_maskz_loadu_ps(mask, x.as_ptr()), _mm512_maskz_loadu_ps(mask, y.as_ptr())) };
            sums[0] = step(sums[0], x, y);
        }
        _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In f64, one after the other.
    fn reference(a: &[f32], b: &[f32], f: impl Fn(f64, f64) -> f64) -> (f64, f64) {
        let terms = a.iter().zip(b).map(|(&x, &y)| f(x.into(), y.into()));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    }

    fn pairs() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
        proptest::collection::vec((-100.0f32..100.0, -100.0f32..100.0), 0..700)
            .prop_map(|pairs| pairs.into_iter().unzip())
    }

    proptest! {
        #[test]
        fn every_kernel_agrees_with_the_sum_in_double_precision((a, b) in pairs()) {
            for kernels in available() {
                let (dot, size) = reference(&a, &b, |x, y| x * y);
                let got = f64::from((kernels.dot)(&a, &b));
                prop_assert!((got - dot).abs() <= 1e-5 * size, "{} dot {got}, {dot}", kernels.name);
                let (squares, size) = reference(&a, &b, |x, y| (x - y) * (x - y));
                let got = f64::from((kernels.squared_euclidean)(&a, &b));
                prop_assert!((got - squares).abs() <= 1e-5 * size, "{} {got}, {squares}", kernels.name);
            }
        }

        #[test]
        fn every_kernel_gives_the_same_bits_again_and_either_way_round((a, b) in pairs()) {
            for kernels in available() {
                for f in [kernels.dot, kernels.squared_euclidean] {
                    let bits = f(&a, &b).to_bits();
                    // Elsewhere in memory, so that alignment differs.
                    let shifted: Vec<f32> = std::iter::once(0.0).chain(a.iter().copied()).collect();
                    prop_assert_eq!(f(&shifted[1..], &b).to_bits(), bits, "{}", kernels.name);
                    prop_assert_eq!(f(&b, &a).to_bits(), bits, "{}", kernels.name);
                }
            }
        }
    }

    #[test]
    fn every_length_around_a_register_counts_every_value_once() {
        for kernels in available() {
            for n in 0..200usize {
                let (ones, twos) = (vec![1.0f32; n], vec![3.0f32; n + n % 3]);
                assert_eq!((kernels.dot)(&ones, &twos), 3.0 * n as f32, "{} {n}", kernels.name);
                assert_eq!((kernels.squared_euclidean)(&ones, &twos), 4.0 * n as f32, "{} {n}", kernels.name);
            }
        }
    }
}
