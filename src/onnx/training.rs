//! BERT and DistilBERT for training: weights are inputs, dropout is an input, and every node has a gradient.
//!
//! The forward pass is the one of [`encoder`](super::encoder) in another form: all tokens of a batch are rows of one
//! matrix, so that each linear layer and each of its gradients is one product, and weights stay `[out, in]`, as they
//! are stored. What a caller puts behind it: an objective, [`Graph::gradients`], outputs.
//!
//! Dropout stands where Hugging Face's classes have it: behind the embeddings' norm, on the attention's shares, behind
//! the attention's output layer (BERT only) and behind the second feed-forward layer. A mask holds 0 or `1/(1-p)`.
//!
//! Low-rank adapters: Hu et al. 2021, arXiv 2106.09685, equation 3, on the linear layers of attention and feed-forward.

use super::{
    Architecture, OnnxError, Pooling, Shape,
    encoder::{LayerNames, MASKED_SCORE, tensors},
    graph::{Axis, DataType, Graph, Value},
    pooling,
};

/// What a training graph is written for.
#[derive(Debug, Clone)]
pub struct TrainingGraph<'a> {
    /// Which encoder.
    pub architecture: Architecture,
    /// Its layers and sizes.
    pub shape: &'a Shape,
    /// How token vectors become one vector.
    pub pooling: Pooling,
    /// Masks behind norms and linear layers.
    pub hidden_dropout: bool,
    /// Masks on the attention's shares.
    pub attention_dropout: bool,
    /// Rank and scale of low-rank adapters beside each linear layer of the encoder.
    pub adapter: Option<Adapter>,
    /// Dense and tanh behind the pooling, to this width: Gao et al. 2021 (SimCSE), section 6.3.
    pub head: Option<Head>,
}

/// A low-rank adapter: `y += scale B A x`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adapter {
    /// Rows of A and columns of B.
    pub rank: usize,
    /// `alpha / rank`.
    pub scale: f32,
}

/// A layer that only training has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Length of the vectors behind it.
    pub width: usize,
    /// Whether a tanh follows; without it the layer is linear.
    pub tanh: bool,
}

/// An input that holds a dropout mask, float32.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskInput {
    /// Name of the graph's input.
    pub name: String,
    /// Whether it masks attention, with shape `[batch, heads, sequence, sequence]`; otherwise the shape is
    /// `[batch * sequence, hidden]`.
    pub attention: bool,
}

/// A written forward pass.
#[derive(Debug)]
pub struct Tape {
    /// The graph, to be continued.
    pub graph: Graph,
    /// Pooled (and behind the head), not normalised: `[batch, dimension]`.
    pub embedding: Value,
    /// `hidden.0` to `hidden.N`: `[batch, sequence, hidden]`.
    pub states: Vec<Value>,
    /// Rows of the word embeddings, `[batch, sequence, hidden]`: their gradient is that of the rows, to be added by
    /// token number.
    pub words: Value,
    /// Every weight that is an input, in the order of [`TrainingGraph::parameters`].
    pub parameters: Vec<Value>,
    /// The mask inputs, in the order in which a run gives them.
    pub masks: Vec<MaskInput>,
}

/// Name of the word embeddings' tensor.
pub const WORDS: &str = "embeddings.word_embeddings.weight";
/// Inputs beside weights and masks: int64 `[batch, sequence]`.
pub const IDS: &str = "input_ids";
/// 1 for tokens, 0 for padding.
pub const MASK: &str = "attention_mask";
/// Length of a batch.
pub const BATCH: Axis = Axis::Named("batch");
const SEQUENCE: Axis = Axis::Named("sequence");

/// Prefixes of an adapter's two matrices.
const ADAPTER_A: &str = "lora_A.";
const ADAPTER_B: &str = "lora_B.";
const HEAD: &str = "head.dense";

impl TrainingGraph<'_> {
    /// Name and shape of every weight: the encoder's, then the adapters', then the head's.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let mut all = tensors(self.architecture, self.shape);
        if let Some(Adapter { rank, .. }) = self.adapter {
            let linear: Vec<(String, Vec<usize>)> =
                all.iter().filter(|(name, shape)| is_adapted(name, shape)).cloned().collect();
            for (name, shape) in linear {
                all.push((format!("{ADAPTER_A}{name}"), vec![rank, shape[1]]));
                all.push((format!("{ADAPTER_B}{name}"), vec![shape[0], rank]));
            }
        }
        if let Some(Head { width, .. }) = self.head {
            let from = self.pooling.dimension(self.shape.hidden);
            all.push((format!("{HEAD}.weight"), vec![width, from]));
            all.push((format!("{HEAD}.bias"), vec![width]));
        }
        all
    }

    /// Whether the embedding depends on a parameter: some poolings do not see the last layer.
    pub fn is_seen(&self, parameter: &str) -> bool {
        let last = self.shape.layers - 1;
        self.pooling != Pooling::SecondToLastMean
            || !["encoder", "transformer"].iter().any(|stack| {
                let name = parameter.trim_start_matches(ADAPTER_A).trim_start_matches(ADAPTER_B);
                name.starts_with(&format!("{stack}.layer.{last}."))
            })
    }

    /// Length of the vectors that [`Tape::embedding`] has.
    pub fn dimension(&self) -> usize {
        self.head.map_or(self.pooling.dimension(self.shape.hidden), |head| head.width)
    }

    /// Writes the forward pass.
    ///
    /// # Errors
    /// [`OnnxError::BadShape`].
    pub fn write(&self) -> Result<Tape, OnnxError> {
        self.shape.check()?;
        self.shape.check_pooling(self.pooling)?;
        let mut graph = Graph::new("training");
        let ids = graph.input(IDS, DataType::Int64, &[BATCH, SEQUENCE]);
        let mask = graph.input(MASK, DataType::Int64, &[BATCH, SEQUENCE]);
        let names = self.parameters();
        let parameters: Vec<Value> = names
            .iter()
            .map(|(name, shape)| {
                let axes: Vec<Axis> = shape.iter().map(|&n| Axis::Fixed(n)).collect();
                graph.input(name, DataType::Float, &axes)
            })
            .collect();
        let mut writer = Writer { spec: self, graph, names, parameters, masks: Vec::new() };
        let (states, words) = writer.encoder(&ids, &mask);
        let mut embedding = pooling::pool(&mut writer.graph, self.pooling, &states, &mask);
        if let Some(head) = self.head {
            embedding = writer.linear(HEAD, HEAD, &embedding);
            if head.tanh {
                embedding = writer.graph.tanh("head", &embedding);
            }
        }
        let Writer { graph, parameters, masks, .. } = writer;
        Ok(Tape { graph, embedding, states, words, parameters, masks })
    }
}

/// Whether a tensor is the weight of a linear layer inside the encoder.
pub fn is_adapted(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2 && !name.starts_with("embeddings.") && name.ends_with(".weight")
}

/// Names of the two matrices of the adapter beside the weight `name`: A `[rank, in]` and B `[out, rank]`.
pub fn adapter_names(name: &str) -> [String; 2] {
    [format!("{ADAPTER_A}{name}"), format!("{ADAPTER_B}{name}")]
}

/// Whether a parameter belongs to an adapter.
pub fn is_adapter(name: &str) -> bool {
    name.starts_with(ADAPTER_A) || name.starts_with(ADAPTER_B)
}

/// Whether a parameter belongs to the head that only training has.
pub fn is_head(name: &str) -> bool {
    name.starts_with(HEAD)
}

struct Writer<'a> {
    spec: &'a TrainingGraph<'a>,
    graph: Graph,
    names: Vec<(String, Vec<usize>)>,
    parameters: Vec<Value>,
    masks: Vec<MaskInput>,
}

/// Shapes and masks that all layers share.
struct Shared {
    scores_mask: Value,
    /// `[batch, sequence, heads, width of a head]`.
    heads: Value,
}

impl Writer<'_> {
    /// Hidden states as `[batch, sequence, hidden]`, and the rows of the word embeddings.
    fn encoder(&mut self, ids: &Value, mask: &Value) -> (Vec<Value>, Value) {
        let Shape { layers, hidden, heads, .. } = *self.spec.shape;
        let size = self.graph.node("Shape", "input.shape", &[ids], &[]);
        let split = self.graph.integers(&[heads as i64, (hidden / heads) as i64]);
        let width = self.graph.integers(&[hidden as i64]);
        let shared = Shared {
            scores_mask: self.scores_mask(mask),
            heads: self.graph.concat("shape.heads", &[&size, &split], 0),
        };
        let whole = self.graph.concat("shape.hidden", &[&size, &width], 0);
        let (mut x, words) = self.embeddings(ids, &size);
        let mut states = Vec::with_capacity(layers + 1);
        let axes = [BATCH, SEQUENCE, Axis::Fixed(hidden)];
        states.push(self.graph.reshape_to("hidden.0", &x, &whole, &axes));
        for layer in 0..layers {
            x = self.layer(layer, &x, &shared);
            states.push(self.graph.reshape_to(&format!("hidden.{}", layer + 1), &x, &whole, &axes));
        }
        (states, words)
    }

    fn scores_mask(&mut self, mask: &Value) -> Value {
        let wide = self.graph.unsqueeze("mask.wide", mask, &[1, 2]);
        let wide = self.graph.cast("mask.float", &wide, DataType::Float);
        let one = self.graph.scalar(1.0);
        let padding = self.graph.sub("mask.padding", &one, &wide);
        let masked = self.graph.scalar(MASKED_SCORE);
        self.graph.mul("mask.scores", &padding, &masked)
    }

    fn embeddings(&mut self, ids: &Value, size: &Value) -> (Value, Value) {
        let hidden = self.spec.shape.hidden;
        let table = self.parameter(WORDS);
        let words = self.graph.gather("embeddings.words", &table, ids, 0);
        let one = self.graph.integers(&[1]);
        let length = self.graph.gather("input.sequence", size, &one, 0);
        let table = self.parameter("embeddings.position_embeddings.weight");
        let zero = self.graph.integers(&[0]);
        let places = self.graph.node("Slice", "embeddings.places", &[&table, &zero, &length, &zero], &[]);
        self.graph.set_axes(&places, vec![SEQUENCE, Axis::Fixed(hidden)]);
        let mut sum = self.graph.add("embeddings.placed", &words, &places);
        if self.spec.architecture == Architecture::Bert {
            let table = self.parameter("embeddings.token_type_embeddings.weight");
            let first = self.graph.integer(0);
            let first = self.graph.gather("embeddings.type", &table, &first, 0);
            sum = self.graph.add("embeddings.typed", &sum, &first);
        }
        let rows = self.graph.reshape("embeddings.rows", &sum, &[-1, hidden as i64]);
        let x = self.layer_norm("embeddings.norm", "embeddings.LayerNorm", &rows);
        (self.dropout("embeddings.kept", "dropout.embeddings", &x, self.spec.hidden_dropout), words)
    }

    /// One transformer layer on rows `[batch * sequence, hidden]`.
    fn layer(&mut self, layer: usize, x: &Value, shared: &Shared) -> Value {
        let names = LayerNames::new(self.spec.architecture, layer);
        let at = |part: &str| format!("layer.{layer}.{part}");
        let mask = |part: &str| format!("dropout.{layer}.{part}");
        let context = self.attention(layer, &names, x, shared);
        let attended = self.linear(&at("attention.output"), &names.attention_output, &context);
        let drop = self.spec.hidden_dropout && self.spec.architecture == Architecture::Bert;
        let attended = self.dropout(&at("attention.kept"), &mask("attention_output"), &attended, drop);
        let sum = self.graph.add(&at("attention.sum"), &attended, x);
        let x = self.layer_norm(&at("attention.norm"), &names.attention_norm, &sum);

        let inner = self.linear(&at("intermediate"), &names.intermediate, &x);
        let inner = self.graph.gelu(&at("gelu"), &inner);
        let outer = self.linear(&at("output"), &names.output, &inner);
        let outer = self.dropout(&at("kept"), &mask("output"), &outer, self.spec.hidden_dropout);
        let sum = self.graph.add(&at("sum"), &outer, &x);
        self.layer_norm(&at("norm"), &names.output_norm, &sum)
    }

    fn attention(&mut self, layer: usize, names: &LayerNames, x: &Value, shared: &Shared) -> Value {
        let at = |part: &str| format!("layer.{layer}.attention.{part}");
        let Shape { hidden, heads, .. } = *self.spec.shape;
        let width = hidden / heads;
        let axes = [BATCH, SEQUENCE, Axis::Fixed(heads), Axis::Fixed(width)];
        let mut parts = Vec::with_capacity(3);
        for (part, name, order) in [
            ("query", &names.query, [0, 2, 1, 3]),
            ("key", &names.key, [0, 2, 3, 1]),
            ("value", &names.value, [0, 2, 1, 3]),
        ] {
            let y = self.linear(&at(part), name, x);
            // Scaling queries instead of scores touches fewer numbers where texts are longer than a head is wide,
            // and where they are not, few numbers are touched anyway.
            let y = if part == "query" {
                let root = self.graph.scalar((width as f32).sqrt().recip());
                self.graph.mul(&at("query.scaled"), &y, &root)
            } else {
                y
            };
            let y = self.graph.reshape_to(&at(&format!("{part}.split")), &y, &shared.heads, &axes);
            parts.push(self.graph.transpose(&at(&format!("{part}.heads")), &y, &order));
        }
        let scores = self.graph.matmul(&at("scores"), &parts[0], &parts[1]);
        let scores = self.graph.add(&at("scores.masked"), &scores, &shared.scores_mask);
        let shares = self.graph.softmax(&at("shares"), &scores);
        let shares = if self.spec.attention_dropout {
            let name = format!("dropout.{layer}.attention");
            let axes = [BATCH, Axis::Fixed(heads), SEQUENCE, SEQUENCE];
            let mask = self.graph.input(&name, DataType::Float, &axes);
            self.masks.push(MaskInput { name, attention: true });
            self.graph.mul(&at("shares.kept"), &shares, &mask)
        } else {
            shares
        };
        let context = self.graph.matmul(&at("context.heads"), &shares, &parts[2]);
        let context = self.graph.transpose(&at("context.split"), &context, &[0, 2, 1, 3]);
        self.graph.reshape(&at("context"), &context, &[-1, hidden as i64])
    }

    fn dropout(&mut self, name: &str, input: &str, x: &Value, on: bool) -> Value {
        if !on {
            return x.clone();
        }
        let axes = [Axis::Unknown, Axis::Fixed(self.spec.shape.hidden)];
        let mask = self.graph.input(input, DataType::Float, &axes);
        self.masks.push(MaskInput { name: input.to_owned(), attention: false });
        self.graph.mul(name, x, &mask)
    }

    fn linear(&mut self, name: &str, tensor: &str, x: &Value) -> Value {
        let weight = self.parameter(&format!("{tensor}.weight"));
        let bias = self.parameter(&format!("{tensor}.bias"));
        let adapter = self.spec.adapter.filter(|_| tensor != HEAD);
        let Some(Adapter { scale, .. }) = adapter else {
            return self.graph.linear(name, x, &weight, Some(&bias));
        };
        let [a, b] = adapter_names(&format!("{tensor}.weight")).map(|name| self.parameter(&name));
        let base = self.graph.linear(&format!("{name}.frozen"), x, &weight, Some(&bias));
        let inner = self.graph.linear(&format!("{name}.adapter.inner"), x, &a, None);
        let scale = self.graph.scalar(scale);
        let inner = self.graph.mul(&format!("{name}.adapter.scaled"), &inner, &scale);
        let outer = self.graph.linear(&format!("{name}.adapter"), &inner, &b, None);
        self.graph.add(name, &base, &outer)
    }

    fn layer_norm(&mut self, name: &str, tensor: &str, x: &Value) -> Value {
        let scale = self.parameter(&format!("{tensor}.weight"));
        let bias = self.parameter(&format!("{tensor}.bias"));
        self.graph.layer_norm_saving(name, x, &scale, &bias, self.spec.shape.layer_norm_eps)
    }

    fn parameter(&self, name: &str) -> Value {
        let at = self.names.iter().position(|(known, _)| known == name);
        self.parameters[at.expect("every tensor that the graph reads is among the parameters")].clone()
    }
}
