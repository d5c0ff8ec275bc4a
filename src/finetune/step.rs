//! A training step on the runtime takes tokens and weights, and gives loss and gradients.
//!
//! [`Stepper::run`] is one graph: forward, loss, backward. [`Stepper::run_cached`] gives the same loss and gradients
//! for a batch that does not fit: GradCache (Gao et al. 2021, arXiv 2101.06983, section 3.2) encodes micro-batches,
//! takes the gradient of the loss at the embeddings, and runs each micro-batch again, with the same dropout masks, from
//! there backwards. Memory is that of one micro-batch, whatever the batch.
//!
//! Graphs are written and opened when they are first needed. Weights stay with the caller and are lent to each run.

use std::{ops::Range, path::PathBuf};

use prost::Message;
use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};

use super::{
    FinetuneError,
    objective::{Objective, ObjectiveInputs},
    optimizer::Gradient,
    parameters::Parameters,
};
use crate::{
    onnx::{
        graph::{Axis, DataType, Graph, Value},
        training::{BATCH, IDS, MASK, MaskInput, Tape, TrainingGraph, WORDS, is_head},
    },
    runtime::{DeviceChoice, DeviceReport, Session, TensorView},
};

/// Widths are rounded up to a multiple of this, so that the runtime's arena sees few different shapes.
const WIDTH_STEP: usize = 8;

/// Token ids of several texts, padded to one width. Row-major, `[rows, width]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Number of texts.
    pub rows: usize,
    /// Tokens of each row, padding included; a multiple of 8.
    pub width: usize,
    /// Token ids, row-major; 0 where there is padding.
    pub ids: Vec<i64>,
    /// 1 for tokens, 0 for padding.
    pub mask: Vec<i64>,
}

impl Tokens {
    /// Fills texts up with token 0.
    pub fn padded(texts: &[Vec<u32>]) -> Self {
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let width = longest.next_multiple_of(WIDTH_STEP).max(WIDTH_STEP);
        let mut tokens = Tokens {
            rows: texts.len(),
            width,
            ids: vec![0; texts.len() * width],
            mask: vec![0; texts.len() * width],
        };
        for (row, text) in texts.iter().enumerate() {
            for (column, &id) in text.iter().enumerate() {
                tokens.ids[row * width + column] = i64::from(id);
                tokens.mask[row * width + column] = 1;
            }
        }
        tokens
    }

    /// Some of the rows, no wider than they need.
    fn part(&self, rows: Range<usize>) -> Self {
        let texts: Vec<Vec<u32>> = rows
            .map(|row| {
                let line = row * self.width..(row + 1) * self.width;
                let real = self.mask[line.clone()].iter().filter(|&&real| real == 1).count();
                self.ids[line][..real].iter().map(|&id| id as u32).collect()
            })
            .collect();
        Tokens::padded(&texts)
    }
}

/// The gradient of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorGradient {
    /// The gradient of every value, in the tensor's shape.
    Dense(Vec<f32>),
    /// The gradient of a table, by its rows: one row for each token, to be added where an id occurs twice.
    Rows {
        /// Row number of each gradient row.
        ids: Vec<i64>,
        /// The gradient rows, row-major, as wide as the table.
        rows: Vec<f32>,
    },
}

impl TensorGradient {
    /// The gradient in the form that the optimizer takes.
    pub fn view(&self) -> Gradient<'_> {
        match self {
            TensorGradient::Dense(values) => Gradient::Dense(values),
            TensorGradient::Rows { ids, rows } => Gradient::Rows { ids, rows },
        }
    }
}

/// The result of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Mean loss over the batch.
    pub loss: f32,
    /// One for each parameter; `None` for those that are frozen or that the loss does not depend on.
    pub gradients: Vec<Option<TensorGradient>>,
}

impl Outcome {
    /// The gradients in the form that the optimizer takes.
    pub fn views(&self) -> Vec<Gradient<'_>> {
        views(&self.gradients)
    }
}

/// Gradients as the optimizer takes them.
pub fn views(gradients: &[Option<TensorGradient>]) -> Vec<Gradient<'_>> {
    gradients.iter().map(|g| g.as_ref().map_or(Gradient::Absent, TensorGradient::view)).collect()
}

/// Which dropout mask is to be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskRequest {
    /// Number of the micro-batch in the step.
    pub micro_batch: usize,
    /// Number of the mask in the encoder.
    pub index: usize,
    /// Whether it masks attention's shares; otherwise it masks hidden states.
    pub attention: bool,
}

/// Fills a dropout mask with 0 and `1/(1-p)`; must fill the same place alike when it is asked again.
pub type FillMask<'a> = &'a dyn Fn(MaskRequest, &mut [f32]);

/// The device and threads that training runs on.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The home folder, with the runtime's libraries.
    pub home: PathBuf,
    /// The device that training is asked to run on.
    pub device: DeviceChoice,
    /// Threads of one computation; 0 means all cores.
    pub threads: usize,
}

/// The graphs of one model and one objective.
#[derive(Debug)]
pub struct Stepper<'a> {
    machine: Machine,
    spec: TrainingGraph<'a>,
    objective: Objective,
    /// For each parameter.
    trained: Vec<bool>,
    whole: Option<Loaded>,
    encode: Option<Loaded>,
    encode_plain: Option<Loaded>,
    loss: Option<Loaded>,
    backward: Option<Loaded>,
    /// Kept from step to step, since they are large.
    masks: Vec<Mask>,
}

#[derive(Debug)]
struct Loaded {
    session: Session,
    masks: Vec<MaskInput>,
    /// Parameters whose gradients are outputs, behind what else the graph gives.
    gradients: Vec<usize>,
}

impl<'a> Stepper<'a> {
    /// Nothing is opened yet. `trained` says for each of [`TrainingGraph::parameters`] whether it gets a gradient.
    ///
    /// # Panics
    /// If `trained` is not as long as the parameters.
    pub fn new(machine: Machine, spec: TrainingGraph<'a>, objective: Objective, trained: Vec<bool>) -> Self {
        assert_eq!(trained.len(), spec.parameters().len(), "one flag for each parameter");
        Stepper {
            machine,
            spec,
            objective,
            trained,
            whole: None,
            encode: None,
            encode_plain: None,
            loss: None,
            backward: None,
            masks: Vec::new(),
        }
    }

    /// Length of the vectors that the objective sees.
    pub fn dimension(&self) -> usize {
        self.spec.dimension()
    }

    /// Loss and gradients of a batch in one run.
    ///
    /// # Errors
    /// Runtime errors, such as a device that cannot be had.
    pub fn run(
        &mut self,
        parameters: &Parameters,
        tokens: &Tokens,
        inputs: &ObjectiveInputs,
        fill: FillMask<'_>,
    ) -> Result<Outcome, FinetuneError> {
        if self.whole.is_none() {
            self.whole = Some(self.open_whole()?);
        }
        let loaded = self.whole.as_mut().expect("just opened");
        let shape = [tokens.rows, tokens.width];
        fill_masks(&mut self.masks, &loaded.masks, &self.spec, shape, 0, fill);
        let mut views = encoder_views(parameters, tokens, &shape, &self.masks);
        views.extend(objective_views(inputs));
        let mut outputs = loaded.session.run(&views)?;
        let loss = outputs.remove(0).1[0];
        Ok(Outcome { loss, gradients: gradients(outputs, &loaded.gradients, parameters, tokens) })
    }

    /// The same for a batch of any size, `micro_batch` texts at a time.
    ///
    /// # Errors
    /// As [`Stepper::run`].
    pub fn run_cached(
        &mut self,
        parameters: &Parameters,
        tokens: &Tokens,
        inputs: &ObjectiveInputs,
        micro_batch: usize,
        fill: FillMask<'_>,
    ) -> Result<Outcome, FinetuneError> {
        self.open_cached()?;
        let dimension = self.spec.dimension();
        let parts: Vec<Range<usize>> = (0..tokens.rows)
            .step_by(micro_batch.max(1))
            .map(|start| start..(start + micro_batch.max(1)).min(tokens.rows))
            .collect();

        let encode = self.encode.as_mut().expect("opened above");
        let mut embeddings = Vec::with_capacity(tokens.rows * dimension);
        for (n, rows) in parts.iter().enumerate() {
            let part = tokens.part(rows.clone());
            let shape = [part.rows, part.width];
            fill_masks(&mut self.masks, &encode.masks, &self.spec, shape, n, fill);
            let outputs = encode.session.run(&encoder_views(parameters, &part, &shape, &self.masks))?;
            embeddings.extend_from_slice(&outputs[0].1);
        }

        let shape = [tokens.rows, dimension];
        let mut views = vec![(EMBEDDING, TensorView::F32 { shape: &shape, values: &embeddings })];
        views.extend(objective_views(inputs));
        let mut outputs = self.loss.as_mut().expect("opened above").session.run(&views)?;
        let (_, seeds) = outputs.remove(1);
        let loss = outputs.remove(0).1[0];

        let backward = self.backward.as_mut().expect("opened above");
        let mut sum: Option<Vec<Option<TensorGradient>>> = None;
        for (n, rows) in parts.iter().enumerate() {
            let part = tokens.part(rows.clone());
            let shape = [part.rows, part.width];
            fill_masks(&mut self.masks, &backward.masks, &self.spec, shape, n, fill);
            let seed = &seeds[rows.start * dimension..rows.end * dimension];
            let seed_shape = [part.rows, dimension];
            let mut views = encoder_views(parameters, &part, &shape, &self.masks);
            views.push((SEED, TensorView::F32 { shape: &seed_shape, values: seed }));
            let outputs = backward.session.run(&views)?;
            let more = gradients(outputs, &backward.gradients, parameters, &part);
            match &mut sum {
                None => sum = Some(more),
                Some(sum) => add(sum, more),
            }
        }
        Ok(Outcome { loss, gradients: sum.expect("a batch has at least one part") })
    }

    /// Embeddings as the model will give them, without dropout and head: row-major `[rows, dimension]`, not normalised.
    ///
    /// # Errors
    /// As [`Stepper::run`].
    pub fn embed(&mut self, parameters: &Parameters, tokens: &Tokens) -> Result<Vec<f32>, FinetuneError> {
        if self.encode_plain.is_none() {
            let plain = TrainingGraph {
                hidden_dropout: false,
                attention_dropout: false,
                head: None,
                ..self.spec.clone()
            };
            self.encode_plain = Some(self.open_encode(&plain)?);
        }
        let loaded = self.encode_plain.as_mut().expect("just opened");
        let shape = [tokens.rows, tokens.width];
        let mut views = encoder_views(parameters, tokens, &shape, &[]);
        views.retain(|(name, _)| !is_head(name));
        let mut outputs = loaded.session.run(&views)?;
        Ok(outputs.remove(0).1)
    }

    /// The device that it runs on, once a session was opened.
    pub fn device(&self) -> Option<&DeviceReport> {
        [&self.whole, &self.encode, &self.encode_plain]
            .into_iter()
            .flatten()
            .next()
            .map(|loaded| loaded.session.report())
    }

    fn open_whole(&self) -> Result<Loaded, FinetuneError> {
        let mut tape = self.spec.write()?;
        let loss = self.objective.write(&mut tape.graph, &tape.embedding, self.spec.dimension());
        tape.graph.output(&loss, DataType::Float, &[]);
        let one = tape.graph.scalar(1.0);
        self.open_backward(tape, loss, one)
    }

    fn open_cached(&mut self) -> Result<(), FinetuneError> {
        if self.backward.is_some() {
            return Ok(());
        }
        self.encode = Some(self.open_encode(&self.spec)?);

        let mut graph = Graph::new("loss");
        let axes = [BATCH, Axis::Fixed(self.spec.dimension())];
        let embedding = graph.input(EMBEDDING, DataType::Float, &axes);
        let loss = self.objective.write(&mut graph, &embedding, self.spec.dimension());
        graph.output(&loss, DataType::Float, &[]);
        let one = graph.scalar(1.0);
        let gradient = graph.gradients(&[(loss, one)], &[embedding]).remove(0);
        let gradient = gradient.expect("a loss depends on the embeddings");
        graph.output(&gradient, DataType::Float, &axes);
        self.loss =
            Some(Loaded { session: self.load("loss", graph)?, masks: Vec::new(), gradients: Vec::new() });

        let mut tape = self.spec.write()?;
        let seed = tape.graph.input(SEED, DataType::Float, &axes);
        let embedding = tape.embedding.clone();
        self.backward = Some(self.open_backward(tape, embedding, seed)?);
        Ok(())
    }

    fn open_encode(&self, spec: &TrainingGraph<'_>) -> Result<Loaded, FinetuneError> {
        let Tape { mut graph, embedding, masks, .. } = spec.write()?;
        graph.output(&embedding, DataType::Float, &[BATCH, Axis::Fixed(spec.dimension())]);
        Ok(Loaded { session: self.load("encode", graph)?, masks, gradients: Vec::new() })
    }

    /// Gradients of what is trained, each an output.
    fn open_backward(&self, tape: Tape, from: Value, seed: Value) -> Result<Loaded, FinetuneError> {
        let Tape { mut graph, words, parameters, masks, .. } = tape;
        let names = self.spec.parameters();
        let trained: Vec<usize> = (0..names.len()).filter(|&n| self.trained[n]).collect();
        // The table's own gradient would be as large as the table; that of its rows is as large as the batch.
        let values: Vec<Value> = trained
            .iter()
            .map(|&n| if names[n].0 == WORDS { words.clone() } else { parameters[n].clone() })
            .collect();
        let found = graph.gradients(&[(from, seed)], &values);
        let mut kept = Vec::new();
        for (n, gradient) in trained.into_iter().zip(found) {
            let Some(gradient) = gradient else { continue };
            // One value may be the gradient of two parameters, and an output needs a name of its own.
            let out = graph.node("Identity", &format!("gradient_of.{}", names[n].0), &[&gradient], &[]);
            let rank = if names[n].0 == WORDS { 3 } else { names[n].1.len() };
            graph.output(&out, DataType::Float, &vec![Axis::Unknown; rank]);
            kept.push(n);
        }
        Ok(Loaded { session: self.load("step", graph)?, masks, gradients: kept })
    }

    fn load(&self, name: &str, graph: Graph) -> Result<Session, FinetuneError> {
        let bytes = graph.into_model().encode_to_vec();
        let Machine { home, device, threads } = &self.machine;
        Ok(Session::of_bytes(home, name, &bytes, *device, *threads)?)
    }
}

/// Input of the loss graph.
const EMBEDDING: &str = "embedding";
/// Input of the backward graph: the gradient at the embeddings.
const SEED: &str = "embedding.gradient";

/// A dropout mask that is lent to a run.
#[derive(Debug, Default)]
struct Mask {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// Fills the masks that a graph takes for a batch of this shape, reusing what was allocated before.
fn fill_masks(
    masks: &mut Vec<Mask>,
    inputs: &[MaskInput],
    spec: &TrainingGraph<'_>,
    [rows, width]: [usize; 2],
    micro_batch: usize,
    fill: FillMask<'_>,
) {
    masks.resize_with(inputs.len(), Mask::default);
    for (index, (mask, input)) in masks.iter_mut().zip(inputs).enumerate() {
        mask.name.clone_from(&input.name);
        mask.shape = match input.attention {
            true => vec![rows, spec.shape.heads, width, width],
            false => vec![rows * width, spec.shape.hidden],
        };
        mask.values.resize(mask.shape.iter().product(), 0.0);
        fill(MaskRequest { micro_batch, index, attention: input.attention }, &mut mask.values);
    }
}

/// What every graph of the encoder takes.
fn encoder_views<'v>(
    parameters: &'v Parameters,
    tokens: &'v Tokens,
    shape: &'v [usize; 2],
    masks: &'v [Mask],
) -> Vec<(&'v str, TensorView<'v>)> {
    let mut views: Vec<(&str, TensorView<'_>)> = Vec::with_capacity(parameters.list.len() + masks.len() + 8);
    views.push((IDS, TensorView::I64 { shape, values: &tokens.ids }));
    views.push((MASK, TensorView::I64 { shape, values: &tokens.mask }));
    for p in &parameters.list {
        views.push((&p.name, TensorView::F32 { shape: &p.shape, values: &p.values }));
    }
    for m in masks {
        views.push((&m.name, TensorView::F32 { shape: &m.shape, values: &m.values }));
    }
    views
}

fn objective_views(inputs: &ObjectiveInputs) -> impl Iterator<Item = (&str, TensorView<'_>)> {
    inputs.tensors.iter().map(|(name, shape, values)| {
        let name: &str = name;
        (name, TensorView::F32 { shape, values })
    })
}

/// The outputs of a backward pass, each with its parameter.
fn gradients(
    outputs: Vec<crate::runtime::Output>,
    trained: &[usize],
    parameters: &Parameters,
    tokens: &Tokens,
) -> Vec<Option<TensorGradient>> {
    let mut all: Vec<Option<TensorGradient>> = parameters.list.iter().map(|_| None).collect();
    for (&n, (_, values)) in trained.iter().zip(outputs) {
        all[n] = Some(match parameters.list[n].name == WORDS {
            true => TensorGradient::Rows { ids: tokens.ids.clone(), rows: values },
            false => TensorGradient::Dense(values),
        });
    }
    all
}

/// Multiplies all gradients: batches whose gradients were added are averaged so.
pub fn scale(gradients: &mut [Option<TensorGradient>], factor: f32) {
    for gradient in gradients.iter_mut().flatten() {
        let (TensorGradient::Dense(values) | TensorGradient::Rows { rows: values, .. }) = gradient;
        values.par_iter_mut().for_each(|value| *value *= factor);
    }
}

/// Adds the gradients of another micro-batch, or of another batch under accumulation.
pub fn add(sum: &mut [Option<TensorGradient>], more: Vec<Option<TensorGradient>>) {
    for (sum, more) in sum.iter_mut().zip(more) {
        match (sum, more) {
            (Some(TensorGradient::Dense(sum)), Some(TensorGradient::Dense(more))) => {
                sum.par_iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            }
            (
                Some(TensorGradient::Rows { ids, rows }),
                Some(TensorGradient::Rows { ids: more_ids, rows: more }),
            ) => {
                ids.extend(more_ids);
                rows.extend(more);
            }
            (sum @ None, Some(more)) => *sum = Some(more),
            _ => {}
        }
    }
}
