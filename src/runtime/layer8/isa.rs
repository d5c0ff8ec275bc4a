//! The inner functions, once in portable Rust and once in the instructions of x86-64 processors with AVX-512 VNNI.
//!
//! The portable form is what the others are tested against; it is not meant to be fast, and where nothing else can be
//! had, `auto` keeps to full precision.

use std::sync::LazyLock;

use super::{
    Norm,
    attention::{Head, Scratch},
    linear::{Panel, Tile},
};
use crate::simd::{Isa, Set};

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

/// The instruction sets that have functions here, fastest last.
const SETS: &[Set] = &[
    Set::Portable,
    #[cfg(target_arch = "x86_64")]
    Set::Vnni,
    #[cfg(target_arch = "x86_64")]
    Set::VnniBf16,
];

static BEST: LazyLock<Isa> = LazyLock::new(|| *available().last().unwrap_or(&Isa::PORTABLE));

/// All instruction sets that this machine can run, fastest last.
pub(crate) fn available() -> Vec<Isa> {
    Isa::available(SETS)
}

/// The fastest of them.
pub(crate) fn best() -> Isa {
    *BEST
}

impl Isa {
    /// Rounds a row, each value times its smoothing, to u8: scale and zero point, `(q - zero_point) scale` standing for
    /// a value. The range is widened to hold 0, which stays exactly 0.
    #[inline]
    pub(super) fn round_row(self, row: &[f32], smoothing: Option<&[f32]>, out: &mut [u8]) -> (f32, i32) {
        assert!(out.len() == row.len() && smoothing.is_none_or(|s| s.len() == row.len()));
        match self.set() {
            #[cfg(target_arch = "x86_64")]
            Set::Vnni | Set::VnniBf16 => x86::round_row(row, smoothing, out),
            _ => portable::round_row(row, smoothing, out),
        }
    }

    /// One tile's rows times one panel's weights: `out[r][o]` for the panel's outputs, rows `stride` apart.
    #[inline]
    pub(super) fn tile(self, panel: &Panel<'_>, tile: &Tile<'_>, out: &mut [f32], stride: usize) {
        match self.set() {
            #[cfg(target_arch = "x86_64")]
            Set::Vnni | Set::VnniBf16 => x86::tile(panel, tile, out, stride),
            _ => portable::tile(panel, tile, out, stride),
        }
    }

    /// [`super::attention::attend`], which has checked the lengths.
    #[inline]
    pub(super) fn attend(self, head: &Head, rows: &[f32], context: &mut [f32], scratch: &mut Scratch) {
        match self.set() {
            #[cfg(target_arch = "x86_64")]
            Set::Vnni => x86::attend_by_shifts(head, rows, context, scratch),
            #[cfg(target_arch = "x86_64")]
            Set::VnniBf16 => x86::attend(head, rows, context, scratch),
            _ => portable::attend(head, rows, context),
        }
    }

    /// Gaussian error linear unit of each value, for those between -8 and 8 within 1e-4 of the exact one (a hundredth of
    /// a step of the rounding); then [`Isa::round_row`]. What `row` holds afterwards means nothing.
    #[inline]
    pub(super) fn gelu_round_row(self, row: &mut [f32], out: &mut [u8]) -> (f32, i32) {
        assert_eq!(out.len(), row.len());
        match self.set() {
            #[cfg(target_arch = "x86_64")]
            Set::Vnni | Set::VnniBf16 => x86::gelu_round_row(row, out),
            _ => {
                portable::gelu(row);
                portable::round_row(row, None, out)
            }
        }
    }

    /// `x = norm(x + residual)`, row by row.
    #[inline]
    pub(super) fn add_norm(self, x: &mut [f32], residual: &[f32], norm: &Norm) {
        assert!(x.len() == residual.len() && norm.gain.len() == norm.bias.len() && !norm.gain.is_empty());
        match self.set() {
            #[cfg(target_arch = "x86_64")]
            Set::Vnni | Set::VnniBf16 => x86::add_norm(x, residual, norm),
            _ => portable::add_norm(x, residual, norm),
        }
    }
}

/// Coefficients of `P` in `gelu(x) = x (1/2 + c P(c^2))`, `c` being `x` cut at 4.25 on both sides: a fit of the normal
/// distribution's integral with the least largest error of the product up to 8, 8e-5.
const GELU: [f32; 8] = [
    0.398_436_75,
    -0.065_480_53,
    0.009_272_339,
    -0.000_944_091,
    6.601_054e-5,
    -2.973_723_2e-6,
    7.700_527e-8,
    -8.654_196e-10,
];
const GELU_END: f32 = 4.25;
