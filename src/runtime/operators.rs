//! Operators of our own for the built-in provider: `kernel` behind the runtime's interface.
//!
//! A kernel is made once for each node of a loaded graph; the graph's weights are laid out anew then, so a session
//! holds them twice. ONNX Runtime calls it from whichever thread runs the session, and lends it its threads.

use ort::{
    operator::{
        ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
    },
    value::{DynTensorValueType, TensorElementType},
};

use super::layer8::{self, Buffers, INPUTS_MAX, Layer, Linear, Norm, PackedPooling};
use crate::{onnx::graph::OWN_DOMAIN, simd::Isa};

/// All of them, for one session.
pub(super) fn domain() -> ort::Result<OperatorDomain> {
    OperatorDomain::new(OWN_DOMAIN)?.add(EncoderLayer)?.add(PackedPool)
}

const INPUT_F32: TensorElementType = TensorElementType::Float32;
const INPUT_I64: TensorElementType = TensorElementType::Int64;
const INPUT_I8: TensorElementType = TensorElementType::Int8;

/// One transformer layer over the tokens of many texts: `x` f32 `[tokens, hidden]` and `starts` i64 `[texts + 1]`, then
/// the weights in the order of [`LAYER_WEIGHTS`]. It gives f32 `[tokens, hidden]`.
struct EncoderLayer;

/// Of queries and keys, of values, of attention's output, its norm, the inner layer, the outer one, its norm.
const LAYER_WEIGHTS: [TensorElementType; 22] = [
    INPUT_I8, INPUT_F32, INPUT_F32, INPUT_F32, // weight, scale, bias, smoothing
    INPUT_I8, INPUT_F32, INPUT_F32, INPUT_F32, // the same
    INPUT_I8, INPUT_F32, INPUT_F32, // weight, scale, bias
    INPUT_F32, INPUT_F32, // gain, bias
    INPUT_I8, INPUT_F32, INPUT_F32, INPUT_F32, // weight, scale, bias, smoothing
    INPUT_I8, INPUT_F32, INPUT_F32, // weight, scale, bias
    INPUT_F32, INPUT_F32, // gain, bias
];

impl Operator for EncoderLayer {
    type Kernel<'attr> = LayerKernel;

    fn name(&self) -> &str {
        "EncoderLayer"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [INPUT_F32, INPUT_I64].into_iter().chain(LAYER_WEIGHTS).map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(INPUT_F32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<LayerKernel> {
        let isa = layer8::best_isa();
        let heads: i64 = attribute(context, "heads")?;
        let epsilon: f32 = attribute(context, "epsilon")?;
        let norm = |at: usize| -> ort::Result<Norm> {
            Ok(Norm { gain: floats(context, at)?, bias: floats(context, at + 1)?, epsilon })
        };
        let layer = Layer {
            isa,
            heads: usize::try_from(heads).map_err(|_| wrong("heads is negative"))?,
            queries_keys: linear(context, isa, 2, true)?,
            values: linear(context, isa, 6, true)?,
            attention_output: linear(context, isa, 10, false)?,
            attention_norm: norm(13)?,
            intermediate: linear(context, isa, 15, true)?,
            output: linear(context, isa, 19, false)?,
            output_norm: norm(22)?,
        };
        // Whatever wrote the graph, no length may go wrong inside.
        let (hidden, inner) = (layer.hidden(), layer.intermediate.outputs());
        let fits = layer.heads > 0
            && hidden % layer.heads == 0
            && (layer.queries_keys.inputs(), layer.queries_keys.outputs()) == (hidden, 2 * hidden)
            && layer.values.outputs() == hidden
            && (layer.attention_output.inputs(), layer.attention_output.outputs()) == (hidden, hidden)
            && layer.intermediate.inputs() == hidden
            && (layer.output.inputs(), layer.output.outputs()) == (inner, hidden)
            && [&layer.attention_norm, &layer.output_norm]
                .iter()
                .all(|norm| norm.gain.len() == hidden && norm.bias.len() == hidden);
        if !fits {
            return Err(wrong("the weights of a layer do not belong together"));
        }
        Ok(LayerKernel { layer, buffers: Buffers::default(), starts: Vec::new() })
    }
}

pub(super) struct LayerKernel {
    layer: Layer,
    buffers: Buffers,
    starts: Vec<usize>,
}

impl Kernel for LayerKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let x = context.input(0)?.ok_or_else(|| wrong("there is no input 0"))?;
        let (shape, x) = x.try_extract_tensor::<f32>()?;
        let hidden = self.layer.hidden();
        if shape.len() != 2 || usize::try_from(shape[1]) != Ok(hidden) {
            return Err(wrong(&format!("the tokens have shape {shape:?}, expected [tokens, {hidden}]")));
        }
        read_starts(context, x.len() / hidden, &mut self.starts)?;
        let mut out = context.output(0, shape.clone())?.ok_or_else(|| wrong("there is no output 0"))?;
        let (_, out) = out.try_extract_tensor_mut::<f32>()?;
        // A failure to share out is told once the layer is done; what was not computed then is never read.
        let failed = std::sync::Mutex::new(None);
        let parallel = |n: usize, work: &(dyn Fn(usize) + Sync)| {
            if let Err(e) = context.par_for(n, n, work) {
                *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(e);
            }
        };
        self.layer.forward(x, &self.starts, out, &mut self.buffers, &parallel);
        failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// Pools token vectors to one vector a text: from `tokens` f32 `[tokens, hidden]` and `starts` i64 `[texts + 1]` to f32
/// `[texts, hidden]`, by `kind`: `first`, `mean` or `max`.
struct PackedPool;

impl Operator for PackedPool {
    type Kernel<'attr> = PoolKernel;

    fn name(&self) -> &str {
        "PackedPool"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [INPUT_F32, INPUT_I64].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(INPUT_F32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<PoolKernel> {
        let kind: String = attribute(context, "kind")?;
        let kind = match kind.as_str() {
            "first" => PackedPooling::First,
            "mean" => PackedPooling::Mean,
            "max" => PackedPooling::Max,
            other => return Err(wrong(&format!("no pooling is called {other}"))),
        };
        Ok(PoolKernel { kind, starts: Vec::new() })
    }
}

pub(super) struct PoolKernel {
    kind: PackedPooling,
    starts: Vec<usize>,
}

impl Kernel for PoolKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let tokens = context.input(0)?.ok_or_else(|| wrong("there is no input 0"))?;
        let (shape, tokens) = tokens.try_extract_tensor::<f32>()?;
        let &[rows, width] = shape.as_ref() else { return Err(wrong("the tokens are not a matrix")) };
        let (rows, hidden) = (usize::try_from(rows).unwrap_or(0), usize::try_from(width).unwrap_or(0));
        read_starts(context, rows, &mut self.starts)?;
        let shape = [self.starts.len() as i64 - 1, width];
        let mut out = context.output(0, shape)?.ok_or_else(|| wrong("there is no output 0"))?;
        let (_, out) = out.try_extract_tensor_mut::<f32>()?;
        if hidden > 0 {
            layer8::pool(self.kind, tokens, hidden, &self.starts, out);
        }
        Ok(())
    }
}

fn wrong(what: &str) -> ort::Error {
    ort::Error::new(what)
}

/// Input 1, checked: from 0 to `tokens` without a step back.
fn read_starts(context: &ComputeContext, tokens: usize, into: &mut Vec<usize>) -> ort::Result<()> {
    let starts = context.input(1)?.ok_or_else(|| wrong("there is no input 1"))?;
    let (_, starts) = starts.try_extract_tensor::<i64>()?;
    into.clear();
    into.extend(starts.iter().map(|&start| usize::try_from(start).unwrap_or(usize::MAX)));
    if into.first() == Some(&0) && into.last() == Some(&tokens) && into.is_sorted() {
        return Ok(());
    }
    Err(wrong(&format!("starts must go from 0 up to {tokens}, the number of tokens")))
}

fn attribute<'a, T: ort::operator::FromKernelContext<'a>>(
    context: &KernelContext<'a>,
    name: &str,
) -> ort::Result<T> {
    context.get(name).ok_or_else(|| wrong(&format!("the attribute {name} is missing")))
}

fn floats(context: &KernelContext<'_>, at: usize) -> ort::Result<Vec<f32>> {
    let value = context.constant_input::<DynTensorValueType>(at)?;
    Ok(value.try_extract_tensor::<f32>()?.1.to_vec())
}

/// The linear layer whose weight is input `at`.
fn linear(context: &KernelContext<'_>, isa: Isa, at: usize, smoothed: bool) -> ort::Result<Linear> {
    let weight = context.constant_input::<DynTensorValueType>(at)?;
    let (shape, weight) = weight.try_extract_tensor::<i8>()?;
    let (scale, bias) = (floats(context, at + 1)?, floats(context, at + 2)?);
    let smoothing = if smoothed { Some(floats(context, at + 3)?) } else { None };
    let &[outputs, inputs] = shape.as_ref() else { return Err(wrong("a weight is not a matrix")) };
    let (outputs, inputs) = (usize::try_from(outputs).unwrap_or(0), usize::try_from(inputs).unwrap_or(0));
    let fits = (1..=INPUTS_MAX).contains(&inputs)
        && (scale.len(), bias.len()) == (outputs, outputs)
        && smoothing.as_ref().is_none_or(|s| s.len() == inputs);
    if !fits {
        return Err(wrong(&format!(
            "a weight of shape {shape:?} does not fit its scales, bias or smoothing"
        )));
    }
    Ok(Linear::new(isa, inputs, weight, &scale, &bias, smoothing.as_deref()))
}
