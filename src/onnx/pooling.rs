//! Pooling makes one vector a text from its token vectors: the poolings of the paper and its neighbours, as nodes of a
//! graph.
//!
//! The same nodes serve inference and training. Only real tokens count, and a text without any gives zeros, never NaN.
//! Reimers & Gurevych 2019 (cls, mean, max), Su et al. 2021, arXiv 2103.15316 (first and last, last two layers),
//! Devlin et al. 2018, section 5.3 (second to last; the last four summed or put side by side).

use serde::{Deserialize, Serialize};

use super::graph::{DataType, Graph, Value};

/// Stands for a masked token under [`Pooling::Max`].
const MASKED_VALUE: f32 = -1e9;

/// How token vectors become one vector.
///
/// `hidden.0` is what leaves the embeddings, `hidden.N` what leaves the last of N layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first token of the last layer.
    Cls,
    /// Mean over the tokens of the last layer.
    Mean,
    /// Largest value over the tokens of the last layer.
    Max,
    /// Mean over tokens of the mean of `hidden.1` and `hidden.N`.
    FirstLastMean,
    /// Mean over tokens of the mean of `hidden.0` and `hidden.N`.
    EmbeddingLastMean,
    /// Mean over the tokens of `hidden.(N-1)`.
    SecondToLastMean,
    /// Mean over tokens of the mean of the last four of `hidden.0` to `hidden.N`.
    Last4Mean,
    /// Means over tokens of each of the last four of `hidden.0` to `hidden.N`, side by side, the last one at the end.
    Last4ConcatMean,
}

impl Pooling {
    /// Every pooling.
    pub const ALL: [Pooling; 8] = [
        Pooling::Cls,
        Pooling::Mean,
        Pooling::Max,
        Pooling::FirstLastMean,
        Pooling::EmbeddingLastMean,
        Pooling::SecondToLastMean,
        Pooling::Last4Mean,
        Pooling::Last4ConcatMean,
    ];

    /// Its name in manifests, recipes and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Cls => "cls",
            Pooling::Mean => "mean",
            Pooling::Max => "max",
            Pooling::FirstLastMean => "first_last_mean",
            Pooling::EmbeddingLastMean => "embedding_last_mean",
            Pooling::SecondToLastMean => "second_to_last_mean",
            Pooling::Last4Mean => "last4_mean",
            Pooling::Last4ConcatMean => "last4_concat_mean",
        }
    }

    /// Length of the vectors of an encoder of width `hidden`.
    pub fn dimension(self, hidden: usize) -> usize {
        if self == Pooling::Last4ConcatMean { 4 * hidden } else { hidden }
    }

    /// Fewest layers that give it the hidden states it reads.
    pub fn layers_min(self) -> usize {
        match self {
            Pooling::Last4Mean | Pooling::Last4ConcatMean => 3,
            _ => 1,
        }
    }
}

/// Pools `states` (`hidden.0` to `hidden.N`, float32 `[batch, sequence, hidden]`) over the tokens that `mask`
/// (int64 `[batch, sequence]`) names: float32 `[batch, dimension]`, the value `pooled`.
///
/// # Panics
/// If there are fewer than [`Pooling::layers_min`] layers.
pub(super) fn pool(graph: &mut Graph, pooling: Pooling, states: &[Value], mask: &Value) -> Value {
    let weights = graph.unsqueeze("pool.mask", mask, &[2]);
    let weights = graph.cast("pool.mask.float", &weights, DataType::Float);
    let last = states.len() - 1;
    let mean_of = |graph: &mut Graph, name: &str, picked: &[usize]| {
        let mut sum = states[picked[0]].clone();
        for (n, &state) in picked.iter().enumerate().skip(1) {
            sum = graph.add(&format!("{name}.{n}"), &sum, &states[state]);
        }
        let share = graph.scalar(1.0 / picked.len() as f32);
        graph.mul(name, &sum, &share)
    };
    match pooling {
        Pooling::Mean => mean(graph, "pool", "pooled", &states[last], &weights),
        Pooling::SecondToLastMean => mean(graph, "pool", "pooled", &states[last - 1], &weights),
        Pooling::FirstLastMean => {
            let state = mean_of(graph, "pool.layers", &[1, last]);
            mean(graph, "pool", "pooled", &state, &weights)
        }
        Pooling::EmbeddingLastMean => {
            let state = mean_of(graph, "pool.layers", &[0, last]);
            mean(graph, "pool", "pooled", &state, &weights)
        }
        Pooling::Last4Mean => {
            let state = mean_of(graph, "pool.layers", &[last - 3, last - 2, last - 1, last]);
            mean(graph, "pool", "pooled", &state, &weights)
        }
        Pooling::Last4ConcatMean => {
            let parts: Vec<Value> = (last - 3..=last)
                .map(|n| mean(graph, &format!("pool.{n}"), &format!("pool.{n}.mean"), &states[n], &weights))
                .collect();
            graph.concat("pooled", &parts.iter().collect::<Vec<_>>(), 1)
        }
        Pooling::Cls => {
            let first = graph.integer(0);
            let first = graph.gather("pool.first", &states[last], &first, 1);
            let any = graph.reduce_max("pool.any", &weights, &[1], false);
            graph.mul("pooled", &first, &any)
        }
        Pooling::Max => {
            let real = graph.cast("pool.mask.bool", &weights, DataType::Bool);
            let masked = graph.scalar(MASKED_VALUE);
            let kept = graph.node("Where", "pool.kept", &[&real, &states[last], &masked], &[]);
            let largest = graph.reduce_max("pool.largest", &kept, &[1], false);
            let any = graph.reduce_max("pool.any", &weights, &[1], false);
            graph.mul("pooled", &largest, &any)
        }
    }
}

fn mean(graph: &mut Graph, prefix: &str, name: &str, state: &Value, weights: &Value) -> Value {
    let at = |part: &str| format!("{prefix}.{part}");
    let kept = graph.mul(&at("kept"), state, weights);
    let sum = graph.reduce_sum(&at("sum"), &kept, &[1], false);
    let count = graph.reduce_sum(&at("count"), weights, &[1], false);
    let one = graph.scalar(1.0);
    let count = graph.node("Max", &at("count.least"), &[&count, &one], &[]);
    graph.div(name, &sum, &count)
}
