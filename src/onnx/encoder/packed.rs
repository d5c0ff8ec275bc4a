//! The same encoder without padding: the tokens of all texts one behind the other, a layer one operator of our own
//! (`kernel`, by way of `runtime/operators.rs`).
//!
//! Inputs `input_ids` and `positions`, int64 `[tokens]`, and `starts`, int64 `[texts + 1]`, the first token of each text
//! and at the end the number of tokens; output `embedding`, float32 `[texts, dimension]`.
//!
//! Linear layers are in 8 bits, one scale for each output; what goes in is rounded token by token as it comes, so
//! nothing is calibrated. Where it comes out of a norm, single channels are many times larger than the rest and would
//! take all 255 steps. Part of their size is moved into the weights (SmoothQuant, Xiao et al. 2023, arXiv 2211.10438,
//! equation 4 with alpha 0.5). Where we differ: how large a channel grows is not measured on texts but read off the
//! norm's gain and bias, which on MiniLM comes within 2e-4 of the cosine that measuring gives.

use bytes::Bytes;

use super::{LayerNames, Writer};
use crate::onnx::{
    OnnxError, Pooling, Shape, Weights,
    graph::{Attribute, Axis, DataType, Value},
    quantise::{WEIGHT_MOST_WIDE, round_rows, smoothing},
    weights::floats,
};

/// Raised whenever the graph written for given weights changes; part of the generated file's name.
pub const PACKED_VERSION: u32 = 2;

/// A normalised channel is taken to reach so many standard deviations. More or fewer changed the cosine by 1e-4.
const DEVIATIONS: f32 = 2.0;

impl Writer<'_> {
    pub(super) fn write_packed(&mut self) -> Result<(), OnnxError> {
        let (tokens, hidden) = (Axis::Named("tokens"), self.spec.shape.hidden);
        let ids = self.graph.input("input_ids", DataType::Int64, &[tokens]);
        let positions = self.graph.input("positions", DataType::Int64, &[tokens]);
        let starts = self.graph.input("starts", DataType::Int64, &[Axis::Named("starts")]);

        let word = self.words("embeddings.words", &ids, [self.spec.shape.vocabulary, hidden])?;
        let places = self.places()?;
        let places = self.graph.weight("embeddings.positions", &[self.spec.shape.positions, hidden], places);
        let place = self.graph.gather("embeddings.places", &places, &positions, 0);
        let sum = self.graph.add("embeddings.sum", &word, &place);
        let mut states = vec![self.layer_norm("hidden.0", "embeddings.LayerNorm", &sum)?];
        let mut norm = "embeddings.LayerNorm".to_owned();
        for layer in 0..self.spec.shape.layers {
            let names = LayerNames::new(self.spec.architecture, layer);
            let state = self.packed_layer(layer, &names, &norm, &states[layer], &starts)?;
            norm = names.output_norm;
            states.push(state);
        }
        let pooled = self.packed_pooling(&states, &starts);
        let embedding = self.finish(&pooled);
        let dimension = Axis::Fixed(self.spec.pooling.dimension(hidden));
        self.graph.output(&embedding, DataType::Float, &[Axis::Named("texts"), dimension]);
        Ok(())
    }

    /// `norm` is the one that `x` comes out of.
    fn packed_layer(
        &mut self,
        layer: usize,
        names: &LayerNames,
        norm: &str,
        x: &Value,
        starts: &Value,
    ) -> Result<Value, OnnxError> {
        let Shape { hidden, intermediate, heads, layer_norm_eps, .. } = *self.spec.shape;
        let at = |part: &str| format!("layer.{layer}.{part}");
        let mut inputs = vec![x.clone(), starts.clone()];
        let before = self.norm_size(norm)?;
        let queries_keys = [&names.query, &names.key];
        inputs.extend(self.rounded(&at("queries_keys"), &queries_keys, [hidden; 2], Some(&before))?);
        inputs.extend(self.rounded(&at("values"), &[&names.value], [hidden; 2], Some(&before))?);
        inputs.extend(self.rounded(
            &at("attention.output"),
            &[&names.attention_output],
            [hidden; 2],
            None,
        )?);
        inputs.extend(self.norm_weights(&names.attention_norm)?);
        let inner = [hidden, intermediate];
        let before = self.norm_size(&names.attention_norm)?;
        inputs.extend(self.rounded(&at("intermediate"), &[&names.intermediate], inner, Some(&before))?);
        inputs.extend(self.rounded(&at("output"), &[&names.output], [intermediate, hidden], None)?);
        inputs.extend(self.norm_weights(&names.output_norm)?);
        let attributes =
            [("heads", Attribute::Int(heads as i64)), ("epsilon", Attribute::Float(layer_norm_eps))];
        let inputs: Vec<&Value> = inputs.iter().collect();
        let axes = [Axis::Named("tokens"), Axis::Fixed(hidden)];
        let name = format!("hidden.{}", layer + 1);
        Ok(self.graph.own_node("EncoderLayer", &name, &inputs, &attributes, &axes))
    }

    /// Weight i8, scale and bias of linear layers that share an input, one behind the other; and what the input is to
    /// be multiplied with, where its channels' sizes are given.
    fn rounded(
        &mut self,
        name: &str,
        tensors: &[&String],
        [inputs, outputs]: [usize; 2],
        sizes: Option<&[f32]>,
    ) -> Result<Vec<Value>, OnnxError> {
        let mut weight = Vec::with_capacity(tensors.len() * inputs * outputs);
        let mut bias = Vec::new();
        for tensor in tensors {
            weight.extend(load(self.weights, &format!("{tensor}.weight"), &[outputs, inputs])?);
            bias.extend(load(self.weights, &format!("{tensor}.bias"), &[outputs])?);
        }
        let factors = sizes.map(|sizes| {
            let mut most = vec![0.0f32; inputs];
            for row in weight.chunks_exact(inputs) {
                most.iter_mut().zip(row).for_each(|(most, w)| *most = most.max(w.abs()));
            }
            smoothing(sizes, &most)
        });
        if let Some(factors) = &factors {
            for row in weight.chunks_exact_mut(inputs) {
                row.iter_mut().zip(factors).for_each(|(w, factor)| *w /= factor);
            }
        }
        let (rounded, scale) = round_rows(&weight, inputs, WEIGHT_MOST_WIDE);
        let rows = scale.len();
        let rounded: Vec<u8> = rounded.into_iter().map(i8::cast_unsigned).collect();
        let graph = &mut self.graph;
        let mut values = vec![
            graph.initializer(&format!("{name}.weight"), DataType::Int8, &[rows, inputs], rounded.into()),
            graph.weight(&format!("{name}.scale"), &[rows], bytes_of(&scale)),
            graph.weight(&format!("{name}.bias"), &[rows], bytes_of(&bias)),
        ];
        if let Some(factors) = factors {
            values.push(graph.weight(&format!("{name}.smoothing"), &[inputs], bytes_of(&factors)));
        }
        Ok(values)
    }

    /// How large each channel of a norm's output is taken to grow.
    fn norm_size(&self, tensor: &str) -> Result<Vec<f32>, OnnxError> {
        let (gain, bias) = self.norm_floats(tensor)?;
        Ok(gain.iter().zip(&bias).map(|(gain, bias)| bias.abs() + DEVIATIONS * gain.abs()).collect())
    }

    fn norm_weights(&mut self, tensor: &str) -> Result<[Value; 2], OnnxError> {
        let hidden = self.spec.shape.hidden;
        let (gain, bias) = self.norm_floats(tensor)?;
        let gain = self.graph.weight(&format!("{tensor}.weight"), &[hidden], bytes_of(&gain));
        Ok([gain, self.graph.weight(&format!("{tensor}.bias"), &[hidden], bytes_of(&bias))])
    }

    /// Gain and bias; older files call them `gamma` and `beta`.
    fn norm_floats(&self, tensor: &str) -> Result<(Vec<f32>, Vec<f32>), OnnxError> {
        let read = |new: &str, old: &str| {
            let names = [format!("{tensor}.{new}"), format!("{tensor}.{old}")];
            Ok::<_, OnnxError>(floats(&self.weights.tensor(&names, &[self.spec.shape.hidden])?))
        };
        Ok((read("weight", "gamma")?, read("bias", "beta")?))
    }

    /// As [`super::pooling::pool`], over texts of unequal length.
    fn packed_pooling(&mut self, states: &[Value], starts: &Value) -> Value {
        let (last, hidden) = (states.len() - 1, self.spec.shape.hidden);
        let graph = &mut self.graph;
        let mut pool = |kind: &'static str, name: &str, state: usize| {
            let axes = [Axis::Named("texts"), Axis::Fixed(hidden)];
            graph.own_node(
                "PackedPool",
                name,
                &[&states[state], starts],
                &[("kind", Attribute::Text(kind))],
                &axes,
            )
        };
        let several = match self.spec.pooling {
            Pooling::Cls => return pool("first", "pooled", last),
            Pooling::Max => return pool("max", "pooled", last),
            Pooling::Mean => return pool("mean", "pooled", last),
            Pooling::SecondToLastMean => return pool("mean", "pooled", last - 1),
            Pooling::FirstLastMean => vec![1, last],
            Pooling::EmbeddingLastMean => vec![0, last],
            Pooling::Last4Mean | Pooling::Last4ConcatMean => (last - 3..=last).collect(),
        };
        // A mean over tokens of a mean over layers is the mean over layers of means over tokens.
        let parts: Vec<Value> =
            several.iter().enumerate().map(|(n, &state)| pool("mean", &format!("pool.{n}"), state)).collect();
        if self.spec.pooling == Pooling::Last4ConcatMean {
            return graph.concat("pooled", &parts.iter().collect::<Vec<_>>(), 1);
        }
        let mut sum = parts[0].clone();
        for (n, part) in parts.iter().enumerate().skip(1) {
            sum = graph.add(&format!("pool.sum.{n}"), &sum, part);
        }
        let share = graph.scalar(1.0 / parts.len() as f32);
        graph.mul("pooled", &sum, &share)
    }
}

fn load(weights: &Weights, name: &str, dims: &[usize]) -> Result<Vec<f32>, OnnxError> {
    Ok(floats(&weights.tensor(&[name.to_owned()], dims)?))
}

fn bytes_of(values: &[f32]) -> Bytes {
    values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()
}
