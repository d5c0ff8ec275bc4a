//! Objectives are losses over a batch's embeddings, which training minimises; they are written as nodes of a graph.
//!
//! An objective reads `embedding`, `[groups * n, dimension]`, not normalised: n anchors, then what they are compared
//! with, group after group in the same order. It declares the inputs that it needs beside that, and gives one number.
//! The same nodes follow the encoder in one graph, or stand in a graph of their own (GradCache).
//!
//! - [`Objective::Contrastive`]: `-1/n sum_i log softmax_j(cos(a_i, c_j) / temperature)_i`, InfoNCE (van den Oord et
//!   al. 2018, equation 4; SimCSE, Gao et al. 2021, equation 1, and equation 5 with hard negatives). For an encoder
//!   that knows nothing it is near `ln(candidates)`.
//! - [`Objective::Distil`]: the divergence of the student's similarities to a queue of the teacher's embeddings from
//!   the teacher's own (ConGen, Limkonchotiwat et al. 2022, equation 3; SEED, Fang et al. 2021). 0 for a perfect student.
//! - Matryoshka (Kusupati et al. 2022, equation 1): the mean of the loss over prefixes of the vectors.

use crate::onnx::graph::{Axis, DataType, Graph, Value};

/// Added to the logit of a candidate that must not count; its share is exactly 0.
pub const EXCLUDED: f32 = -1e9;

/// Input: float32 `[n, candidates]`, 0 or [`EXCLUDED`].
pub const EXCLUDED_CANDIDATES: &str = "objective.excluded";
/// Input: float32 `[n, n]`, 0 or [`EXCLUDED`], for the way back of a symmetric loss.
pub const EXCLUDED_ANCHORS: &str = "objective.excluded_back";
/// Input: float32 `[n, candidates]`, each row's target distribution.
pub const TARGETS: &str = "objective.targets";
/// Input: float32 `[n, n]`, each row's target distribution on the way back.
pub const TARGETS_BACK: &str = "objective.targets_back";
/// Input: float32 `[n, teacher's dimension]`, unit length.
pub const TEACHER: &str = "objective.teacher";
/// Input: float32 `[queue, teacher's dimension]`, unit length.
pub const QUEUE: &str = "objective.queue";

/// The loss that training minimises.
#[derive(Debug, Clone, PartialEq)]
pub enum Objective {
    /// In-batch negatives, with hard negatives if `groups` is 3.
    Contrastive {
        /// 2: anchors and positives; 3: anchors, positives and hard negatives.
        groups: usize,
        /// Also from positives to anchors; the mean of both.
        symmetric: bool,
        /// Above 0; the literature's tau.
        temperature: f32,
        /// Prefix lengths that must be good by themselves; empty: only the whole vector.
        matryoshka: Vec<usize>,
    },
    /// Similarity distributions of a teacher.
    Distil {
        /// Temperature of the student's distribution, above 0.
        temperature: f32,
        /// Temperature of the teacher's, above 0; sharper (smaller) than the student's.
        teacher_temperature: f32,
    },
}

impl Objective {
    /// Texts of one example.
    pub fn groups(&self) -> usize {
        match self {
            Objective::Contrastive { groups, .. } => *groups,
            Objective::Distil { .. } => 1,
        }
    }

    /// Fewest examples in a batch: with one there is nothing to tell it from.
    pub fn examples_min(&self) -> usize {
        match self {
            Objective::Contrastive { groups: 2, .. } => 2,
            _ => 1,
        }
    }

    /// Writes the loss of `embedding` (`[batch, dimension]`): one number.
    pub fn write(&self, graph: &mut Graph, embedding: &Value, dimension: usize) -> Value {
        match self {
            Objective::Contrastive { groups, symmetric, temperature, matryoshka } => {
                let writer = Contrastive::new(graph, *groups, *symmetric, *temperature);
                let whole = [dimension];
                let lengths = if matryoshka.is_empty() { &whole[..] } else { matryoshka };
                let losses: Vec<Value> =
                    lengths.iter().map(|&length| writer.write(graph, embedding, length, dimension)).collect();
                mean(graph, losses)
            }
            Objective::Distil { temperature, teacher_temperature } => {
                distil(graph, embedding, dimension, *temperature, *teacher_temperature)
            }
        }
    }
}

const EXAMPLES: Axis = Axis::Named("examples");
const CANDIDATES: Axis = Axis::Named("candidates");

struct Contrastive {
    groups: usize,
    temperature: f32,
    excluded: Value,
    targets: Value,
    back: Option<(Value, Value)>,
}

impl Contrastive {
    fn new(graph: &mut Graph, groups: usize, symmetric: bool, temperature: f32) -> Self {
        let mut square = |name, columns| graph.input(name, DataType::Float, &[EXAMPLES, columns]);
        Contrastive {
            groups,
            temperature,
            excluded: square(EXCLUDED_CANDIDATES, CANDIDATES),
            targets: square(TARGETS, CANDIDATES),
            back: symmetric.then(|| (square(EXCLUDED_ANCHORS, EXAMPLES), square(TARGETS_BACK, EXAMPLES))),
        }
    }

    /// The loss of the first `length` numbers of every vector.
    fn write(&self, graph: &mut Graph, embedding: &Value, length: usize, dimension: usize) -> Value {
        let at = |part: &str| format!("loss.{length}.{part}");
        let cut = match length == dimension {
            true => embedding.clone(),
            false => graph.slice(&at("cut"), embedding, 1, 0, length as i64),
        };
        let unit = graph.normalise(&at("unit"), &cut);
        let parts = graph.split(&at("parts"), &unit, 0, self.groups);
        for part in &parts {
            graph.describe(part, DataType::Float, &[EXAMPLES, Axis::Fixed(length)]);
        }
        let candidates = match self.groups {
            2 => parts[1].clone(),
            _ => {
                let all = graph.concat(&at("candidates"), &[&parts[1], &parts[2]], 0);
                graph.describe(&all, DataType::Float, &[CANDIDATES, Axis::Fixed(length)]);
                all
            }
        };
        let there = self.cross_entropy(
            graph,
            &at("there"),
            [&parts[0], &candidates],
            [&self.excluded, &self.targets],
        );
        let Some((excluded, targets)) = &self.back else { return there };
        let back = self.cross_entropy(graph, &at("back"), [&parts[1], &parts[0]], [excluded, targets]);
        mean(graph, vec![there, back])
    }

    fn cross_entropy(
        &self,
        graph: &mut Graph,
        name: &str,
        [from, to]: [&Value; 2],
        [excluded, targets]: [&Value; 2],
    ) -> Value {
        let at = |part: &str| format!("{name}.{part}");
        let cosines = graph.linear(&at("cosines"), from, to, None);
        let sharpness = graph.scalar(1.0 / self.temperature);
        let logits = graph.mul(&at("logits"), &cosines, &sharpness);
        let logits = graph.add(&at("allowed"), &logits, excluded);
        let shares = graph.log_softmax(&at("shares"), &logits);
        let weighted = graph.mul(&at("weighted"), &shares, targets);
        let rows = graph.reduce_sum(&at("rows"), &weighted, &[1], false);
        let mean = graph.reduce_mean(&at("negative"), &rows, &[0], false);
        let minus = graph.scalar(-1.0);
        graph.mul(name, &mean, &minus)
    }
}

fn distil(
    graph: &mut Graph,
    embedding: &Value,
    dimension: usize,
    temperature: f32,
    teacher_temperature: f32,
) -> Value {
    let width = Axis::Fixed(dimension);
    let teacher = graph.input(TEACHER, DataType::Float, &[EXAMPLES, width]);
    let queue = graph.input(QUEUE, DataType::Float, &[CANDIDATES, width]);
    let sharpness = graph.scalar(1.0 / teacher_temperature);
    let cosines = graph.linear("teacher.cosines", &teacher, &queue, None);
    let logits = graph.mul("teacher.logits", &cosines, &sharpness);
    let targets = graph.softmax("teacher.shares", &logits);
    let log_targets = graph.log_softmax("teacher.log_shares", &logits);

    let unit = graph.normalise("student.unit", embedding);
    graph.describe(&unit, DataType::Float, &[EXAMPLES, width]);
    let sharpness = graph.scalar(1.0 / temperature);
    let cosines = graph.linear("student.cosines", &unit, &queue, None);
    let logits = graph.mul("student.logits", &cosines, &sharpness);
    let shares = graph.log_softmax("student.shares", &logits);
    let apart = graph.sub("divergence.apart", &log_targets, &shares);
    let weighted = graph.mul("divergence.weighted", &apart, &targets);
    let rows = graph.reduce_sum("divergence.rows", &weighted, &[1], false);
    graph.reduce_mean("divergence", &rows, &[0], false)
}

fn mean(graph: &mut Graph, mut losses: Vec<Value>) -> Value {
    let mut sum = losses.remove(0);
    if losses.is_empty() {
        return sum;
    }
    let share = graph.scalar(1.0 / (losses.len() + 1) as f32);
    let name = sum.name().to_owned();
    for (n, loss) in losses.iter().enumerate() {
        sum = graph.add(&format!("{name}.plus.{n}"), &sum, loss);
    }
    graph.mul(&format!("{name}.over_all"), &sum, &share)
}

/// The inputs of an objective beside a batch's embeddings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObjectiveInputs {
    /// Name, shape and values of each input.
    pub tensors: Vec<(&'static str, [usize; 2], Vec<f32>)>,
}

impl ObjectiveInputs {
    /// For [`Objective::Contrastive`] on `n` examples: candidate `i` is the target of anchor `i`, and candidates that
    /// are false negatives are excluded. `same(i, j)` tells whether candidate `j`, counted through positives and then
    /// hard negatives, says the same as anchor `i` or as its positive; `same_back(i, j)` whether anchor `j` says the
    /// same as positive `i` or as its anchor.
    pub fn contrastive(
        n: usize,
        groups: usize,
        symmetric: bool,
        same: impl Fn(usize, usize) -> bool,
        same_back: impl Fn(usize, usize) -> bool,
    ) -> Self {
        let columns = n * (groups - 1);
        let exclude = |columns: usize, same: &dyn Fn(usize, usize) -> bool| {
            let value = |at: usize| {
                let (i, j) = (at / columns, at % columns);
                if i != j && same(i, j) { EXCLUDED } else { 0.0 }
            };
            (0..n * columns).map(value).collect::<Vec<f32>>()
        };
        let identity = |columns: usize| {
            let mut values = vec![0.0; n * columns];
            (0..n).for_each(|i| values[i * columns + i] = 1.0);
            values
        };
        let mut tensors = vec![
            (EXCLUDED_CANDIDATES, [n, columns], exclude(columns, &same)),
            (TARGETS, [n, columns], identity(columns)),
        ];
        if symmetric {
            tensors.push((EXCLUDED_ANCHORS, [n, n], exclude(n, &same_back)));
            tensors.push((TARGETS_BACK, [n, n], identity(n)));
        }
        ObjectiveInputs { tensors }
    }

    /// For [`Objective::Distil`]: the teacher's unit vectors of the batch and of the queue, row-major.
    pub fn distil(teacher: Vec<f32>, queue: Vec<f32>, dimension: usize) -> Self {
        let rows = |values: &[f32]| [values.len() / dimension, dimension];
        ObjectiveInputs { tensors: vec![(TEACHER, rows(&teacher), teacher), (QUEUE, rows(&queue), queue)] }
    }
}
