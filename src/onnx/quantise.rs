//! Quantisation rounds an encoder's weights to 8 bits, by the ranges of its activations, for a graph that multiplies
//! integers.
//!
//! What becomes int8: the weight of every linear layer, one scale for each of its outputs, and the word embeddings, one
//! scale a word. What goes into a linear layer is rounded to u8 with a scale and a zero point that were **calibrated
//! once** and stand in the file. Dynamic quantisation, which takes the scale from the batch at hand, would let a text's
//! vector depend on its neighbours, and is rejected for that. Attention's own two products, softmax, norms, GELU and
//! pooling stay float32.
//!
//! Where an input comes out of a norm, single channels are many times larger than the rest and would take all 255 steps.
//! Part of their size is moved into the weights: `x w = (x / s) (s w)`, which changes nothing in exact arithmetic, with
//! `s_j = sqrt(max |x_j| / max |w_j|)` (SmoothQuant, Xiao et al. 2023, arXiv 2211.10438, equation 4 with alpha 0.5). Where
//! we differ: `s` is not folded into the norm, since the residual after it needs the norm's output as it is; it is one
//! multiplication in front of the rounding. Its geometric mean is 1.
//!
//! Ranges are the least and the largest value seen. Clipping them to percentiles or to the least squared error, which
//! helps elsewhere, ruins these encoders: their few huge activations carry what attention and norms depend on.
//! Evening out the channels behind GELU too would bring vectors a little nearer to the full ones for 7 % of the time,
//! and moved no figure of quality beyond chance.
//!
//! Deliberately absent: training with rounding, 4 bits, and anything that runs a graph (`encoder::calibrate` does).

use std::collections::HashMap;

use safetensors::tensor::{Dtype, TensorView};

use super::{
    Architecture, EncoderGraph, OnnxError, Shape, Weights,
    encoder::{LayerNames, encode, tensors},
    graph::{Axis, DataType, Value},
    weights::floats,
};

pub(super) mod nodes;

/// Largest weight. With 63 instead of 127 two products of u8 and i8 always fit 16 bits, so that processors without
/// VNNI, whose instruction adds pairs in 16 bits and saturates, compute the same integers as those with it.
const WEIGHT_MOST: f32 = 63.0;
/// Largest weight where the sums are our own and wide.
pub(super) const WEIGHT_MOST_WIDE: f32 = 127.0;
/// Largest number of a word's embedding, which is not multiplied as an integer.
const WORD_MOST: f32 = 127.0;
/// Steps of an activation.
const INPUT_STEPS: f32 = 255.0;
/// A channel is made smaller or larger at most so many times: one that was silent while calibration ran may still speak.
const SMOOTHING_MOST: f32 = 16.0;

const WORDS: &str = "embeddings.word_embeddings.weight";

/// A value of the graph that linear layers multiply.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Point {
    /// Its name in the graph.
    value: String,
    width: usize,
    /// The layers, by tensor, without `.weight`.
    linears: Vec<String>,
    /// Comes out of a norm.
    smoothed: bool,
}

/// Every such value, in the graph's order.
fn points(architecture: Architecture, shape: &Shape) -> Vec<Point> {
    let Shape { layers, hidden, intermediate, .. } = *shape;
    let mut all = Vec::with_capacity(4 * layers);
    for layer in 0..layers {
        let names = LayerNames::new(architecture, layer);
        let mut point = |value: String, width: usize, linears: Vec<String>, smoothed: bool| {
            all.push(Point { value, width, linears, smoothed });
        };
        point(format!("hidden.{layer}"), hidden, vec![names.query, names.key, names.value], true);
        point(format!("layer.{layer}.attention.context"), hidden, vec![names.attention_output], false);
        point(format!("layer.{layer}.attention.norm"), hidden, vec![names.intermediate], true);
        point(format!("layer.{layer}.gelu"), intermediate, vec![names.output], false);
    }
    all
}

/// Least and largest value of each input channel of the linear layers, over every token seen.
///
/// ```
/// use distilface::{model::ModelDir, onnx::Calibration};
///
/// let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny");
/// let manifest = ModelDir::open(tiny.as_ref()).unwrap().manifest;
/// let mut calibration = Calibration::new(manifest.architecture, &manifest.shape);
/// assert!(calibration.observe(&[]).is_err(), "outputs of another graph are refused");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    points: Vec<Point>,
    /// Smallest values, by point and channel.
    least: Vec<Vec<f32>>,
    most: Vec<Vec<f32>>,
}

impl Calibration {
    /// The calibration of an encoder that has seen no text yet.
    pub fn new(architecture: Architecture, shape: &Shape) -> Self {
        let points = points(architecture, shape);
        let filled = |with: f32| points.iter().map(|p| vec![with; p.width]).collect();
        Calibration { least: filled(f32::INFINITY), most: filled(f32::NEG_INFINITY), points }
    }

    /// Takes what one run of [`calibration_graph`] gave behind the embedding.
    ///
    /// # Errors
    /// [`OnnxError::Calibration`] for outputs of another graph, or values that are not finite.
    pub fn observe(&mut self, outputs: &[(Vec<usize>, Vec<f32>)]) -> Result<(), OnnxError> {
        let wrong = |reason: String| OnnxError::Calibration { reason };
        if outputs.len() != 2 * self.points.len() {
            let expected = 2 * self.points.len();
            return Err(wrong(format!("expected {expected} outputs of the graph, got {}", outputs.len())));
        }
        for (n, pair) in outputs.as_chunks::<2>().0.iter().enumerate() {
            let (value, width) = (&self.points[n].value, self.points[n].width);
            for (_, values) in pair {
                if values.len() != width {
                    return Err(wrong(format!("{value} has {} channels, expected {width}", values.len())));
                }
                if values.iter().any(|v| !v.is_finite()) {
                    return Err(wrong(format!("{value} is not finite")));
                }
            }
            let [(_, least), (_, most)] = pair;
            self.least[n].iter_mut().zip(least).for_each(|(a, b)| *a = a.min(*b));
            self.most[n].iter_mut().zip(most).for_each(|(a, b)| *a = a.max(*b));
        }
        Ok(())
    }
}

/// The encoder's graph in full precision as the bytes of an ONNX file, which for [`Calibration::observe`] also gives
/// the least and the largest value of each channel, float32 `[channels]`, over all tokens of a run. It knows no mask:
/// only texts of one length may go in together.
///
/// # Errors
/// As [`EncoderGraph::to_bytes`].
pub fn calibration_graph(spec: &EncoderGraph<'_>, weights: &Weights) -> Result<Vec<u8>, OnnxError> {
    let mut graph = spec.graph(weights)?;
    for point in points(spec.architecture, spec.shape) {
        let value = Value::named(&point.value);
        let axes = [Axis::Fixed(point.width)];
        let least = graph.reduce_min(&format!("{}.least", point.value), &value, &[0, 1], false);
        graph.output(&least, DataType::Float, &axes);
        let most = graph.reduce_max(&format!("{}.most", point.value), &value, &[0, 1], false);
        graph.output(&most, DataType::Float, &axes);
    }
    encode(&graph.into_model())
}

/// The weights in 8 bits as a safetensors file, which [`EncoderGraph`] writes a graph of integers from.
///
/// A weight `[out, in]` becomes i8 beside `NAME.scale` `[out]`; the word embeddings likewise by row; all else becomes
/// float32. For each value `V` that linear layers multiply there are `inputs.V.scale` and `inputs.V.zero_point` (one
/// number each), and `inputs.V.smoothing` `[in]`, what it is multiplied with before, if it comes out of a norm.
///
/// # Errors
/// Those of [`Weights::tensor`] by tensor; [`OnnxError::Calibration`] for a calibration of another shape, or that has
/// seen nothing.
pub fn quantise(
    architecture: Architecture,
    shape: &Shape,
    weights: &Weights,
    calibration: &Calibration,
) -> Result<Vec<u8>, OnnxError> {
    if calibration.points != points(architecture, shape) {
        return Err(OnnxError::Calibration { reason: "it is of an encoder of another shape".into() });
    }
    if calibration.least.iter().flatten().any(|v| !v.is_finite()) {
        return Err(OnnxError::Calibration { reason: "it has seen no text".into() });
    }
    let mut full: HashMap<String, Vec<f32>> = HashMap::new();
    for (name, dims) in tensors(architecture, shape) {
        let values = floats(&weights.tensor(&spellings(&name), &dims)?);
        full.insert(name, values);
    }
    let mut file = File::default();
    for (n, point) in calibration.points.iter().enumerate() {
        let (mut least, mut most) = (calibration.least[n].clone(), calibration.most[n].clone());
        let smoothing = point.smoothed.then(|| {
            let size: Vec<f32> = least.iter().zip(&most).map(|(a, b)| a.abs().max(b.abs())).collect();
            let mut weight = vec![0.0f32; point.width];
            for linear in &point.linears {
                for row in full[&format!("{linear}.weight")].chunks_exact(point.width) {
                    weight.iter_mut().zip(row).for_each(|(most, w)| *most = most.max(w.abs()));
                }
            }
            smoothing(&size, &weight)
        });
        if let Some(factors) = &smoothing {
            for range in [&mut least, &mut most] {
                range.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
            }
        }
        let input = InputScale::of(
            least.into_iter().fold(f32::INFINITY, f32::min),
            most.into_iter().fold(f32::NEG_INFINITY, f32::max),
        );
        let at = |part: &str| format!("inputs.{}.{part}", point.value);
        file.floats(at("scale"), vec![], &[input.scale]);
        file.push(at("zero_point"), Dtype::U8, vec![], vec![input.zero_point]);
        for linear in &point.linears {
            let name = format!("{linear}.weight");
            let mut values = full.remove(&name).expect("every linear layer's weight is among the tensors");
            if let Some(factors) = &smoothing {
                for row in values.chunks_exact_mut(point.width) {
                    row.iter_mut().zip(factors).for_each(|(w, factor)| *w /= factor);
                }
            }
            file.rows(name, &values, point.width, WEIGHT_MOST);
        }
        if let Some(factors) = smoothing {
            file.floats(at("smoothing"), vec![point.width], &factors);
        }
    }
    let words = full.remove(WORDS).expect("every encoder has word embeddings");
    file.rows(WORDS.to_owned(), &words, shape.hidden, WORD_MOST);
    for (name, dims) in tensors(architecture, shape) {
        if let Some(values) = full.remove(&name) {
            file.floats(name, dims, &values);
        }
    }
    file.finish()
}

/// How an activation is rounded: `(q - zero_point) scale` stands for it, `q` from 0 to 255.
#[derive(Debug, Clone, Copy, PartialEq)]
struct InputScale {
    scale: f32,
    zero_point: u8,
}

impl InputScale {
    /// The rounding of a range, which is widened to hold 0, so that 0 stays exactly 0.
    fn of(least: f32, most: f32) -> Self {
        let (least, most) = (least.min(0.0), most.max(0.0));
        let scale = (most - least) / INPUT_STEPS;
        if scale < f32::MIN_POSITIVE {
            // Nothing but 0 was seen.
            return InputScale { scale: 1.0, zero_point: 0 };
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=255")]
        let zero_point = (-least / scale).round_ties_even().clamp(0.0, INPUT_STEPS) as u8;
        InputScale { scale, zero_point }
    }
}

/// What each channel is multiplied with: `1 / s_j` of SmoothQuant, 1 where activation or weight are all 0.
pub(super) fn smoothing(input: &[f32], weight: &[f32]) -> Vec<f32> {
    let logarithm = |(x, w): (&f32, &f32)| (*x > 0.0 && *w > 0.0).then(|| 0.5 * (w.ln() - x.ln()));
    let logarithms: Vec<Option<f32>> = input.iter().zip(weight).map(logarithm).collect();
    let known = logarithms.iter().flatten().count().max(1) as f32;
    let mean = logarithms.iter().flatten().sum::<f32>() / known;
    let factor =
        |l: &Option<f32>| l.map_or(1.0, |l| (l - mean).exp().clamp(1.0 / SMOOTHING_MOST, SMOOTHING_MOST));
    logarithms.iter().map(factor).collect()
}

/// Rounds each row of `width` values to whole numbers of at most `most`, with a scale for each row; a row of zeros
/// gets scale 1.
pub(super) fn round_rows(values: &[f32], width: usize, most: f32) -> (Vec<i8>, Vec<f32>) {
    let mut scales = Vec::with_capacity(values.len() / width.max(1));
    let mut rounded = Vec::with_capacity(values.len());
    for row in values.chunks_exact(width) {
        let size = row.iter().fold(0.0f32, |size, v| size.max(v.abs())) / most;
        let scale = if size < f32::MIN_POSITIVE { 1.0 } else { size };
        #[expect(clippy::cast_possible_truncation, reason = "clamped to what i8 holds")]
        rounded.extend(row.iter().map(|v| (v / scale).round_ties_even().clamp(-most, most) as i8));
        scales.push(scale);
    }
    (rounded, scales)
}

/// A tensor's name and, for a norm's, the older one.
fn spellings(name: &str) -> Vec<String> {
    let old = [(".weight", ".gamma"), (".bias", ".beta")]
        .iter()
        .find_map(|(new, old)| Some(format!("{}{old}", name.strip_suffix(new)?)));
    [name.to_owned()].into_iter().chain(old).collect()
}

/// A safetensors file being made.
#[derive(Default)]
struct File {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl File {
    fn push(&mut self, name: String, dtype: Dtype, dims: Vec<usize>, data: Vec<u8>) {
        self.tensors.push((name, dtype, dims, data));
    }

    fn floats(&mut self, name: String, dims: Vec<usize>, values: &[f32]) {
        self.push(name, Dtype::F32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    fn rows(&mut self, name: String, values: &[f32], width: usize, most: f32) {
        let (rounded, scales) = round_rows(values, width, most);
        self.floats(format!("{name}.scale"), vec![scales.len()], &scales);
        let bytes = rounded.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.push(name, Dtype::I8, vec![scales.len(), width], bytes);
    }

    fn finish(self) -> Result<Vec<u8>, OnnxError> {
        let views = self.tensors.iter().map(|(name, dtype, dims, data)| {
            let view = TensorView::new(*dtype, dims.clone(), data);
            (name, view.expect("a tensor has as many bytes as its shape says"))
        });
        safetensors::serialize(views, None).map_err(|e| OnnxError::Unreadable { reason: e.to_string() })
    }
}

#[cfg(test)]
mod tests;
