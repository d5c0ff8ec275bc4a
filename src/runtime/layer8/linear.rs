//! A linear layer in 8 bits: rows of float32 go in and come out, and the products between are of integers.
//!
//! Weights are i8 with one scale for each output. A row that goes in is rounded to u8 with a scale and a zero point of
//! its own, from its least and its largest value, so that a token never meets its neighbours. Sums are exact in i32.

use crate::simd::Isa;

/// Outputs of one panel: four registers of 16 sums.
pub(super) const PANEL: usize = 64;
/// Rows of one tile: six of them with four registers of sums each fill 24 of 32 registers.
pub(super) const TILE: usize = 6;
/// Inputs that one instruction multiplies and adds for each output.
pub(super) const GROUP: usize = 4;
/// Bytes of a panel's weights for one group of inputs.
pub(super) const GROUP_BYTES: usize = PANEL * GROUP;
/// Rows are kept in whole cache lines.
const ROW_ALIGNMENT: usize = 64;
/// Most inputs of a layer: 2^16 products of 255 and 127 fit i32.
pub(crate) const INPUTS_MAX: usize = 1 << 16;

/// Weights and bias of a linear layer, laid out for the tiles.
#[derive(Debug)]
pub(crate) struct Linear {
    isa: Isa,
    inputs: usize,
    outputs: usize,
    /// `[panels][groups][64 outputs][4 inputs]`, zeros beyond the ends.
    weights: Vec<Line>,
    /// One for each output; zeros fill whole panels.
    scale: Vec<f32>,
    bias: Vec<f32>,
    /// Sum of each output's weights: what a step of a zero point adds.
    sums: Vec<i32>,
    /// What each input is multiplied with before it is rounded.
    smoothing: Option<Vec<f32>>,
}

/// A cache line, so that the weights lie on whole ones.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [i8; 64]);

/// Rows in 8 bits; reused from call to call.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(super) stride: usize,
    /// `[rows][stride]`
    pub(super) values: Vec<u8>,
    pub(super) scale: Vec<f32>,
    pub(super) zero_point: Vec<i32>,
}

impl Linear {
    /// `weights` is `[outputs][inputs]` as models hold it, `scale` and `bias` `[outputs]`, `smoothing` `[inputs]`.
    ///
    /// # Panics
    /// If the lengths do not belong together or there are more than [`INPUTS_MAX`] inputs.
    pub(crate) fn new(
        isa: Isa,
        inputs: usize,
        weights: &[i8],
        scale: &[f32],
        bias: &[f32],
        smoothing: Option<&[f32]>,
    ) -> Self {
        let outputs = scale.len();
        assert!((1..=INPUTS_MAX).contains(&inputs), "{inputs} inputs");
        assert_eq!((weights.len(), bias.len()), (inputs * outputs, outputs));
        assert!(smoothing.is_none_or(|s| s.len() == inputs));
        let (panels, groups) = (outputs.div_ceil(PANEL), inputs.div_ceil(GROUP));
        let mut packed = vec![Line([0; 64]); panels * groups * GROUP_BYTES / 64];
        let mut sums = vec![0; panels * PANEL];
        for (output, row) in weights.chunks_exact(inputs).enumerate() {
            let (panel, column) = (output / PANEL, output % PANEL);
            for (input, &weight) in row.iter().enumerate() {
                let at = ((panel * groups + input / GROUP) * PANEL + column) * GROUP + input % GROUP;
                packed[at / 64].0[at % 64] = weight;
                sums[output] += i32::from(weight);
            }
        }
        let whole_panels = |values: &[f32]| {
            let mut values = values.to_vec();
            values.resize(panels * PANEL, 0.0);
            values
        };
        Linear {
            isa,
            inputs,
            outputs,
            weights: packed,
            scale: whole_panels(scale),
            bias: whole_panels(bias),
            sums,
            smoothing: smoothing.map(<[f32]>::to_vec),
        }
    }

    /// Length of a row that goes in.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Length of a row that comes out.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Rounds rows `[n][inputs]` as this layer wants them.
    pub(crate) fn round(&self, rows: &[f32], into: &mut Rows) {
        let smoothing = self.smoothing.as_deref();
        self.round_each(rows.chunks_exact(self.inputs), into, |row, out| {
            self.isa.round_row(row, smoothing, out)
        });
    }

    /// [`Linear::round`] of each value's Gaussian error linear unit (Hendrycks & Gimpel 2016), for a layer that does not
    /// smooth. `rows` is used up.
    ///
    /// # Panics
    /// If the layer smooths.
    pub(crate) fn gelu_round(&self, rows: &mut [f32], into: &mut Rows) {
        assert!(self.smoothing.is_none(), "what a GELU gives is not smoothed");
        self.round_each(rows.chunks_exact_mut(self.inputs), into, |row, out| {
            self.isa.gelu_round_row(row, out)
        });
    }

    fn round_each<T>(
        &self,
        rows: impl ExactSizeIterator<Item = T>,
        into: &mut Rows,
        round: impl Fn(T, &mut [u8]) -> (f32, i32),
    ) {
        into.stride = self.inputs.next_multiple_of(ROW_ALIGNMENT);
        into.values.resize(rows.len() * into.stride, 0);
        into.scale.resize(rows.len(), 0.0);
        into.zero_point.resize(rows.len(), 0);
        for (i, row) in rows.enumerate() {
            let out = &mut into.values[i * into.stride..][..into.stride];
            (into.scale[i], into.zero_point[i]) = round(row, &mut out[..self.inputs]);
            // Weights beyond the last input are 0, whatever stands here; but a buffer is reused, so that one run
            // would differ from the next to a tool that looks for uninitialised memory.
            out[self.inputs..].fill(0);
        }
    }

    /// `out[r][o] = bias[o] + sum over i of rows[r][i] weights[o][i]`; rows of `out` are `stride` apart, and what is
    /// beyond the layer's outputs in them stays as it is.
    ///
    /// # Panics
    /// If the rows were rounded for a layer of another width, or `out` is too short.
    pub(crate) fn apply(&self, rows: &Rows, out: &mut [f32], stride: usize) {
        let n = rows.scale.len();
        assert_eq!(rows.stride, self.inputs.next_multiple_of(ROW_ALIGNMENT));
        assert!(stride >= self.outputs && (n == 0 || out.len() >= (n - 1) * stride + self.outputs));
        let lines = self.inputs.div_ceil(GROUP) * GROUP_BYTES / 64;
        for (panel, weights) in self.weights.chunks_exact(lines).enumerate() {
            let from = panel * PANEL;
            let panel = Panel {
                weights,
                scale: self.scale[from..].first_chunk().expect("whole panels"),
                bias: self.bias[from..].first_chunk().expect("whole panels"),
                sums: self.sums[from..].first_chunk().expect("whole panels"),
                columns: (self.outputs - from).min(PANEL),
            };
            let mut row = 0;
            while row < n {
                let height = (n - row).min(TILE);
                let tile = Tile {
                    values: &rows.values[row * rows.stride..][..height * rows.stride],
                    stride: rows.stride,
                    scale: &rows.scale[row..row + height],
                    zero_point: &rows.zero_point[row..row + height],
                };
                self.isa.tile(&panel, &tile, &mut out[row * stride + from..], stride);
                row += height;
            }
        }
    }
}

/// Up to 64 outputs of a layer.
pub(super) struct Panel<'a> {
    /// `[groups][64 outputs][4 inputs]`
    pub(super) weights: &'a [Line],
    pub(super) scale: &'a [f32; PANEL],
    pub(super) bias: &'a [f32; PANEL],
    pub(super) sums: &'a [i32; PANEL],
    /// How many of the 64 there are.
    pub(super) columns: usize,
}

/// Up to six rows; as many as there are scales.
pub(super) struct Tile<'a> {
    /// `[rows][stride]`
    pub(super) values: &'a [u8],
    pub(super) stride: usize,
    pub(super) scale: &'a [f32],
    pub(super) zero_point: &'a [i32],
}

#[cfg(test)]
pub(super) mod tests;
