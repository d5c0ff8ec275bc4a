//! Writes BERT and DistilBERT encoders as ONNX models from their weights, pooling and normalisation included.
//!
//! Inputs `input_ids` and `attention_mask`, int64 `[batch, sequence]`; output `embedding`, float32
//! `[batch, hidden]`. Position numbers and token types (all of type 0) are made inside.
//!
//! Promises: the same weights give the same bytes. What stands behind the mask changes nothing: its attention
//! is exactly zero in float32. A text whose mask is all zero gives zeros, never NaN, which is why the mask is a
//! large finite number instead of infinity.
//!
//! Only operators of the ONNX standard are used, so that every provider can take the whole graph. ONNX Runtime's CPU
//! provider fuses bias with GELU, residual with norm, and scale and turned keys with their products. Its fusion of
//! attention as a whole only knows operator sets up to 12, from before LayerNormalization and Gelu; writing those
//! out in its form saved 6 % of the CPU time of a batch of long texts and nothing on a query, so it was rejected.
//! Weights in 8 bits (`quantise.rs`) give a graph that multiplies integers; the weights' file alone decides, by tensor.
//! Deliberately absent: dropout, heads, token types other than 0, relative positions.
//!
//! Devlin et al. 2018 (BERT), Sanh et al. 2019 (DistilBERT), Reimers & Gurevych 2019 (poolings).

use bytes::Bytes;
use half::f16;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{
    OnnxError, Weights,
    graph::{Axis, DataType, Graph, LENGTH_MIN, Value},
    pooling::{self, Pooling},
    proto::ModelProto,
    quantise::nodes,
    weights::floats,
};

mod packed;

pub use packed::PACKED_VERSION;

/// Raised whenever the graph written for given weights changes; part of the generated file's name.
pub const WRITER_VERSION: u32 = 1;

/// Protobuf's limit on one message.
pub const FILE_BYTES_MAX: usize = (1 << 31) - 1;

/// Added to the attention scores of masked tokens. Its exponential is 0 in float32 beside any real score.
pub(super) const MASKED_SCORE: f32 = -10_000.0;

/// Which graph a model is written as: how it takes texts, and in what numbers it multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `input_ids` and `attention_mask`, `[batch, sequence]`.
    Padded,
    /// The same, with the products of its linear layers in float16, for processors that do those several times as fast.
    PaddedHalf,
    /// `input_ids` and `positions`, `[tokens]`, and `starts`, `[batch + 1]`: one text behind the other.
    Packed,
}

impl Layout {
    /// Whether texts of a batch are padded to one length.
    pub fn pads(self) -> bool {
        self != Layout::Packed
    }
}

/// Which encoder the weights are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// BERT (Devlin et al. 2018).
    Bert,
    /// DistilBERT (Sanh et al. 2019): BERT without token types.
    Distilbert,
}

/// Shape of the encoder, as in Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Transformer layers, at least 1.
    pub layers: usize,
    /// Width of the hidden states, a multiple of `heads`.
    pub hidden: usize,
    /// Attention heads of each layer, at least 1.
    pub heads: usize,
    /// Width of the feed-forward layers, at least 1.
    pub intermediate: usize,
    /// Rows of the token table, at least 1.
    pub vocabulary: usize,
    /// Rows of the position table, at least 1: the longest text in tokens.
    pub positions: usize,
    /// Rows of the token type table; 0 for DistilBERT, which has none.
    pub type_vocabulary: usize,
    /// Epsilon of the layer norms, above 0 and below 1.
    pub layer_norm_eps: f32,
}

impl Shape {
    /// Whether an encoder can have this shape at all.
    ///
    /// # Errors
    /// [`OnnxError::BadShape`] if heads do not divide the hidden size or something is 0.
    pub fn check(&self) -> Result<(), OnnxError> {
        let Shape { layers, hidden, heads, intermediate, vocabulary, positions, .. } = *self;
        let bad = |reason: String| Err(OnnxError::BadShape { reason });
        if [layers, hidden, heads, intermediate, vocabulary, positions].contains(&0) {
            return bad(format!(
                "layers {layers}, hidden {hidden}, heads {heads}, intermediate {intermediate}, vocabulary \
                 {vocabulary} and positions {positions} must all be at least 1"
            ));
        }
        if hidden % heads != 0 {
            return bad(format!("hidden size {hidden} cannot be shared out among {heads} heads"));
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps < 1.0) {
            return bad(format!("layer_norm_eps {} is not between 0 and 1", self.layer_norm_eps));
        }
        Ok(())
    }

    /// Whether an encoder of this shape has the hidden states that `pooling` reads.
    ///
    /// # Errors
    /// [`OnnxError::BadShape`] if it has too few layers.
    pub fn check_pooling(&self, pooling: Pooling) -> Result<(), OnnxError> {
        if self.layers >= pooling.layers_min() {
            return Ok(());
        }
        Err(OnnxError::BadShape {
            reason: format!(
                "pooling {} needs at least {} layers, and the encoder has {}",
                pooling.name(),
                pooling.layers_min(),
                self.layers
            ),
        })
    }
}

/// The encoder to write.
#[derive(Debug, Clone)]
pub struct EncoderGraph<'a> {
    /// Which encoder.
    pub architecture: Architecture,
    /// Its layers and sizes.
    pub shape: &'a Shape,
    /// How token vectors become one vector.
    pub pooling: Pooling,
    /// Scale every embedding to unit length.
    pub normalise: bool,
    /// Also give `hidden.0` (after the embeddings) to `hidden.N` (after the last layer),
    /// float32 `[batch, sequence, hidden]`; rows behind the mask are not defined.
    pub hidden_outputs: bool,
}

impl EncoderGraph<'_> {
    /// The model as the bytes of an ONNX file.
    ///
    /// # Errors
    /// As [`EncoderGraph::model`], and [`OnnxError::TooLarge`].
    pub fn to_bytes(&self, weights: &Weights) -> Result<Vec<u8>, OnnxError> {
        encode(&self.model(weights)?)
    }

    /// The model with the products of its linear layers in float16: weights of half the size, what goes in narrowed and
    /// what comes out widened again; all else stays in float32.
    ///
    /// # Errors
    /// As [`EncoderGraph::to_bytes`].
    pub fn to_half_bytes(&self, weights: &Weights) -> Result<Vec<u8>, OnnxError> {
        encode(&self.graph_in(weights, true)?.into_model())
    }

    /// The model as messages.
    ///
    /// # Errors
    /// [`OnnxError::BadShape`] if heads do not divide the hidden size or something is 0;
    /// [`OnnxError::MissingTensor`], [`OnnxError::WrongShape`], [`OnnxError::WrongType`] by tensor.
    pub fn model(&self, weights: &Weights) -> Result<ModelProto, OnnxError> {
        Ok(self.graph(weights)?.into_model())
    }

    /// The encoder for texts that stand one behind the other, with linear layers in 8 bits, as the bytes of an ONNX file.
    ///
    /// # Errors
    /// As [`EncoderGraph::to_bytes`]; [`OnnxError::WrongType`] for weights that are in 8 bits already.
    pub fn to_packed_bytes(&self, weights: &Weights) -> Result<Vec<u8>, OnnxError> {
        self.shape.check()?;
        self.shape.check_pooling(self.pooling)?;
        let mut writer = Writer { spec: self, weights, half: false, graph: Graph::new("encoder") };
        writer.write_packed()?;
        encode(&writer.graph.into_model())
    }

    /// The model as a graph that can be added to.
    pub(super) fn graph(&self, weights: &Weights) -> Result<Graph, OnnxError> {
        self.graph_in(weights, false)
    }

    fn graph_in(&self, weights: &Weights, half: bool) -> Result<Graph, OnnxError> {
        self.shape.check()?;
        self.shape.check_pooling(self.pooling)?;
        let mut writer = Writer { spec: self, weights, half, graph: Graph::new("encoder") };
        writer.write()?;
        Ok(writer.graph)
    }
}

/// A model as the bytes of a file, if it fits one.
pub(super) fn encode(model: &ModelProto) -> Result<Vec<u8>, OnnxError> {
    let bytes = model.encoded_len();
    if bytes > FILE_BYTES_MAX {
        return Err(OnnxError::TooLarge { bytes });
    }
    Ok(model.encode_to_vec())
}

/// The names of one layer's tensors in each architecture.
pub(super) struct LayerNames {
    pub(super) query: String,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) attention_output: String,
    pub(super) attention_norm: String,
    pub(super) intermediate: String,
    pub(super) output: String,
    pub(super) output_norm: String,
}

/// Name and shape of every tensor of an encoder, in the order in which Hugging Face's models hold them.
pub fn tensors(architecture: Architecture, shape: &Shape) -> Vec<(String, Vec<usize>)> {
    let Shape { layers, hidden, intermediate, vocabulary, positions, type_vocabulary, .. } = *shape;
    let mut all: Vec<(String, Vec<usize>)> = vec![
        ("embeddings.word_embeddings.weight".into(), vec![vocabulary, hidden]),
        ("embeddings.position_embeddings.weight".into(), vec![positions, hidden]),
    ];
    if architecture == Architecture::Bert {
        all.push(("embeddings.token_type_embeddings.weight".into(), vec![type_vocabulary, hidden]));
    }
    let mut both = |name: &str, weight: Vec<usize>| {
        let bias = vec![weight[0]];
        all.extend([(format!("{name}.weight"), weight), (format!("{name}.bias"), bias)]);
    };
    both("embeddings.LayerNorm", vec![hidden]);
    for layer in 0..layers {
        let names = LayerNames::new(architecture, layer);
        both(&names.query, vec![hidden, hidden]);
        both(&names.key, vec![hidden, hidden]);
        both(&names.value, vec![hidden, hidden]);
        both(&names.attention_output, vec![hidden, hidden]);
        both(&names.attention_norm, vec![hidden]);
        both(&names.intermediate, vec![intermediate, hidden]);
        both(&names.output, vec![hidden, intermediate]);
        both(&names.output_norm, vec![hidden]);
    }
    all
}

impl LayerNames {
    pub(super) fn new(architecture: Architecture, layer: usize) -> Self {
        match architecture {
            Architecture::Bert => {
                let name = |rest: &str| format!("encoder.layer.{layer}.{rest}");
                LayerNames {
                    query: name("attention.self.query"),
                    key: name("attention.self.key"),
                    value: name("attention.self.value"),
                    attention_output: name("attention.output.dense"),
                    attention_norm: name("attention.output.LayerNorm"),
                    intermediate: name("intermediate.dense"),
                    output: name("output.dense"),
                    output_norm: name("output.LayerNorm"),
                }
            }
            Architecture::Distilbert => {
                let name = |rest: &str| format!("transformer.layer.{layer}.{rest}");
                LayerNames {
                    query: name("attention.q_lin"),
                    key: name("attention.k_lin"),
                    value: name("attention.v_lin"),
                    attention_output: name("attention.out_lin"),
                    attention_norm: name("sa_layer_norm"),
                    intermediate: name("ffn.lin1"),
                    output: name("ffn.lin2"),
                    output_norm: name("output_layer_norm"),
                }
            }
        }
    }
}

struct Writer<'a> {
    spec: &'a EncoderGraph<'a>,
    weights: &'a Weights,
    /// Linear layers in float16.
    half: bool,
    graph: Graph,
}

impl Writer<'_> {
    fn write(&mut self) -> Result<(), OnnxError> {
        let tokens = [Axis::Named("batch"), Axis::Named("sequence")];
        let ids = self.graph.input("input_ids", DataType::Int64, &tokens);
        let mask = self.graph.input("attention_mask", DataType::Int64, &tokens);

        let scores_mask = self.scores_mask(&mask);
        let mut hidden = self.embeddings(&ids)?;
        let mut states = vec![hidden.clone()];
        for layer in 0..self.spec.shape.layers {
            hidden = self.layer(layer, &hidden, &scores_mask)?;
            states.push(hidden.clone());
        }
        let pooled = pooling::pool(&mut self.graph, self.spec.pooling, &states, &mask);
        let embedding = self.finish(&pooled);

        let width = Axis::Fixed(self.spec.shape.hidden);
        let dimension = Axis::Fixed(self.spec.pooling.dimension(self.spec.shape.hidden));
        self.graph.output(&embedding, DataType::Float, &[Axis::Named("batch"), dimension]);
        if self.spec.hidden_outputs {
            for state in &states {
                self.graph.output(state, DataType::Float, &[tokens[0], tokens[1], width]);
            }
        }
        Ok(())
    }

    /// What is added to the attention scores: `[batch, 1, 1, sequence]`, 0 for tokens, [`MASKED_SCORE`] for padding.
    fn scores_mask(&mut self, mask: &Value) -> Value {
        let wide = self.graph.unsqueeze("mask.heads", mask, &[1]);
        let wide = self.graph.unsqueeze("mask.queries", &wide, &[2]);
        let wide = self.graph.cast("mask.float", &wide, DataType::Float);
        let one = self.graph.scalar(1.0);
        let padding = self.graph.node("Sub", "mask.padding", &[&one, &wide], &[]);
        let masked = self.graph.scalar(MASKED_SCORE);
        self.graph.mul("mask.scores", &padding, &masked)
    }

    /// Word + position + type 0, normalised: `[batch, sequence, hidden]`.
    fn embeddings(&mut self, ids: &Value) -> Result<Value, OnnxError> {
        let Shape { hidden, vocabulary, positions, .. } = *self.spec.shape;
        let word = self.words("embeddings.words", ids, [vocabulary, hidden])?;
        let places = self.places()?;
        let places = self.graph.weight("embeddings.positions", &[positions, hidden], places);

        let shape = self.graph.node("Shape", "input.shape", &[ids], &[]);
        let one = self.graph.integers(&[1]);
        let length = self.graph.gather("input.sequence", &shape, &one, 0);
        let start = self.graph.integers(&[0]);
        let place = self.graph.node("Slice", "embeddings.places", &[&places, &start, &length, &start], &[]);
        let sum = self.graph.add("embeddings.sum", &word, &place);
        // The length of a slice is not seen as `sequence`; without this no residual below would be fused.
        let axes = [Axis::Named("batch"), Axis::Named("sequence"), Axis::Fixed(hidden)];
        self.graph.describe(&sum, DataType::Float, &axes);
        self.layer_norm("hidden.0", "embeddings.LayerNorm", &sum)
    }

    /// What is added to a token by its place, float32 `[positions, hidden]`.
    fn places(&self) -> Result<Bytes, OnnxError> {
        let Shape { hidden, positions, type_vocabulary, .. } = *self.spec.shape;
        let mut places =
            self.weights.tensor(&["embeddings.position_embeddings.weight".into()], &[positions, hidden])?;
        if self.spec.architecture == Architecture::Bert {
            // Every token is of type 0, so that row is the same for all and goes into the positions.
            let types = self
                .weights
                .tensor(&["embeddings.token_type_embeddings.weight".into()], &[type_vocabulary, hidden])?;
            places = add_row(
                &places,
                types.get(..4 * hidden).ok_or_else(|| OnnxError::BadShape {
                    reason: "type_vocab_size is 0, but BERT adds token type 0 to every token".into(),
                })?,
            );
        }
        Ok(places)
    }

    /// One transformer layer: attention and feed-forward, each with its residual and normalised after it.
    fn layer(&mut self, layer: usize, x: &Value, scores_mask: &Value) -> Result<Value, OnnxError> {
        let names = LayerNames::new(self.spec.architecture, layer);
        let at = |part: &str| format!("layer.{layer}.{part}");
        let Shape { hidden, intermediate, .. } = *self.spec.shape;

        let context = self.attention(layer, &names, x, scores_mask)?;
        let attended =
            self.linear(&at("attention.output"), &names.attention_output, &context, [hidden; 2])?;
        let sum = self.graph.add(&at("attention.sum"), &attended, x);
        let x = self.layer_norm(&at("attention.norm"), &names.attention_norm, &sum)?;

        let inner = self.linear(&at("intermediate"), &names.intermediate, &x, [hidden, intermediate])?;
        let inner = self.graph.gelu(&at("gelu"), &inner);
        let outer = self.linear(&at("output"), &names.output, &inner, [intermediate, hidden])?;
        let sum = self.graph.add(&at("sum"), &outer, &x);
        self.layer_norm(&format!("hidden.{}", layer + 1), &names.output_norm, &sum)
    }

    /// `softmax(q k^T / sqrt(width of a head) + mask) v` for each head: Vaswani et al. 2017, equation 1.
    fn attention(
        &mut self,
        layer: usize,
        names: &LayerNames,
        x: &Value,
        scores_mask: &Value,
    ) -> Result<Value, OnnxError> {
        let at = |part: &str| format!("layer.{layer}.attention.{part}");
        let Shape { hidden, heads, .. } = *self.spec.shape;
        let head_width = hidden / heads;
        let split = [0, 0, heads as i64, head_width as i64];

        let mut parts = Vec::with_capacity(3);
        // Keys are turned at once so that scores are a plain product.
        for (part, name, order) in [
            ("query", &names.query, [0, 2, 1, 3]),
            ("key", &names.key, [0, 2, 3, 1]),
            ("value", &names.value, [0, 2, 1, 3]),
        ] {
            let y = self.linear(&at(part), name, x, [hidden; 2])?;
            let y = self.graph.reshape(&at(&format!("{part}.split")), &y, &split);
            parts.push(self.graph.transpose(&at(&format!("{part}.heads")), &y, &order));
        }
        let scores = self.graph.matmul(&at("scores"), &parts[0], &parts[1]);
        let root = self.graph.scalar((head_width as f32).sqrt());
        let scores = self.graph.div(&at("scores.scaled"), &scores, &root);
        let scores = self.graph.add(&at("scores.masked"), &scores, scores_mask);
        let shares = self.graph.softmax(&at("shares"), &scores);
        let context = self.graph.matmul(&at("context.heads"), &shares, &parts[2]);
        let context = self.graph.transpose(&at("context.split"), &context, &[0, 2, 1, 3]);
        Ok(self.graph.reshape(&at("context"), &context, &[0, 0, hidden as i64]))
    }

    /// Unit length if asked for; always the value named `embedding`.
    fn finish(&mut self, pooled: &Value) -> Value {
        let graph = &mut self.graph;
        if !self.spec.normalise {
            return graph.node("Identity", "embedding", &[pooled], &[]);
        }
        let length = graph.reduce_l2("length", pooled, &[1], true);
        let least = graph.scalar(LENGTH_MIN);
        let length = graph.node("Max", "length.least", &[&length, &least], &[]);
        graph.div("embedding", pooled, &length)
    }

    fn linear(
        &mut self,
        name: &str,
        tensor: &str,
        x: &Value,
        [inputs, outputs]: [usize; 2],
    ) -> Result<Value, OnnxError> {
        let (product, weight) = (format!("{name}.product"), format!("{tensor}.weight"));
        let product = if nodes::is_rounded(self.weights, &weight) {
            nodes::product(&mut self.graph, self.weights, &product, tensor, x, [inputs, outputs])?
        } else {
            let data = self.weights.linear(std::slice::from_ref(&weight), inputs, outputs)?;
            if self.half {
                let data: Vec<u8> =
                    floats(&data).iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
                let (weight, dims) = (format!("{weight}.half"), [inputs, outputs]);
                let weight = self.graph.initializer(&weight, DataType::Float16, &dims, data.into());
                let x = self.graph.cast(&format!("{name}.narrow"), x, DataType::Float16);
                let y = self.graph.matmul(&format!("{name}.half"), &x, &weight);
                self.graph.cast(&product, &y, DataType::Float)
            } else {
                let weight = self.graph.weight(&format!("{weight}.transposed"), &[inputs, outputs], data);
                self.graph.matmul(&product, x, &weight)
            }
        };
        let bias = self.tensor(&format!("{tensor}.bias"), &[outputs])?;
        Ok(self.graph.add(name, &product, &bias))
    }

    /// Rows of the word embeddings by number.
    fn words(&mut self, name: &str, ids: &Value, dims: [usize; 2]) -> Result<Value, OnnxError> {
        let tensor = "embeddings.word_embeddings.weight";
        if nodes::is_rounded(self.weights, tensor) {
            return nodes::words(&mut self.graph, self.weights, name, ids, dims);
        }
        let words = self.tensor(tensor, &dims)?;
        Ok(self.graph.gather(name, &words, ids, 0))
    }

    /// Older files call scale and bias of a norm `gamma` and `beta`.
    fn layer_norm(&mut self, name: &str, tensor: &str, x: &Value) -> Result<Value, OnnxError> {
        let hidden = self.spec.shape.hidden;
        let mut load = |new: &str, old: &str| {
            let names = [format!("{tensor}.{new}"), format!("{tensor}.{old}")];
            let data = self.weights.tensor(&names, &[hidden])?;
            Ok::<_, OnnxError>(self.graph.weight(&names[0], &[hidden], data))
        };
        let scale = load("weight", "gamma")?;
        let bias = load("bias", "beta")?;
        Ok(self.graph.layer_norm(name, x, &scale, &bias, self.spec.shape.layer_norm_eps))
    }

    fn tensor(&mut self, name: &str, dims: &[usize]) -> Result<Value, OnnxError> {
        let data = self.weights.tensor(&[name.to_owned()], dims)?;
        Ok(self.graph.weight(name, dims, data))
    }
}

/// Adds one row to every row; both float32, little-endian.
fn add_row(rows: &[u8], row: &[u8]) -> Bytes {
    let row = floats(row);
    floats(rows)
        .chunks_exact(row.len())
        .flat_map(|line| line.iter().zip(&row).flat_map(|(a, b)| (a + b).to_le_bytes()))
        .collect::<Vec<u8>>()
        .into()
}

#[cfg(test)]
mod tests;
