//! Compares this implementation with a folder of reference values.
//!
//! The folder holds a Hugging Face model (`config.json`, `model.safetensors`) and `reference.safetensors` with
//! `input_ids`, `attention_mask`, `pair_input_ids`, `pair_attention_mask` (int64 `[rows, width]`) and, as far as they
//! are to be compared, `hidden.N`, `pool.NAME`, `loss.one_way`, `loss.symmetric` (InfoNCE on mean-pooled unit vectors,
//! temperature 0.05, no dropout, row i of the pair being the positive of row i), `grad.NAME` (of `loss.one_way`) and
//! `adamw1.NAME` (the parameter after one step of AdamW on that gradient). Nothing is known of them beforehand.

use std::{collections::BTreeMap, fs, path::Path};

use safetensors::{SafeTensors, tensor::Dtype};
use serde::Serialize;

use super::{
    FinetuneError,
    objective::{Objective, ObjectiveInputs},
    optimizer::{AdamW, AdamWConfig, Gradient, ParameterSettings},
    parameters::{Parameter, Parameters},
    step::{Machine, Outcome, Stepper, TensorGradient, Tokens},
};
use crate::{
    model::ModelDir,
    onnx::{
        Pooling, Weights,
        graph::{Axis, DataType},
        training::{IDS, MASK, TrainingGraph, WORDS},
    },
    runtime::{Session, TensorView},
};

/// File of the reference values.
const FILE: &str = "reference.safetensors";
/// Temperature of the reference's losses.
const TEMPERATURE: f32 = 0.05;
/// Numbers with smaller gradients are not compared after a step on our own gradients.
const STEP_GRADIENT_MIN: f32 = 1e-6;
/// Learning rate of the reference's step.
const RATE: f64 = 1e-3;
/// A gradient is compared relative to the largest of its tensor, but not to less than this share of the largest of
/// all: the exact gradient of attention's key biases is zero, and what both sides have there is rounding.
const GRADIENT_FLOOR: f64 = 1e-3;

/// Allowed on a device that computes in float32: [`Largest::error`] of each kind.
const LIMITS: [(&str, f64); 7] = [
    ("hidden", 1e-5),
    ("pool", 1e-5),
    ("loss", 1e-6),
    ("gradient", 1e-5),
    ("gradient_cached", 1e-5),
    ("adamw", 1e-6),
    ("step", 1e-6),
];

/// The largest error of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Largest {
    /// Absolute; for gradients relative to the largest of their tensor, for losses above 1 relative to the loss.
    pub error: f64,
    /// Which tensor.
    pub tensor: String,
    /// The largest difference that passes.
    pub limit: f64,
    /// Tensors compared.
    pub compared: usize,
}

/// The differences of this implementation from reference values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReferenceReport {
    /// Folder of the reference values.
    pub folder: String,
    /// The device that computed.
    pub device: String,
    /// The largest difference of each kind of value, by the kind's name.
    pub largest: BTreeMap<String, Largest>,
    /// Whether every difference is within its limit.
    pub passed: bool,
}

struct Reference {
    content: Vec<u8>,
}

impl Reference {
    fn open(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.content).expect("it was read once when it was loaded")
    }

    fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let tensors = self.open();
        let tensor = tensors.tensor(name).ok().filter(|t| t.dtype() == Dtype::F32)?;
        Some(tensor.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
    }

    fn tokens(&self, ids: &str, mask: &str) -> Option<Tokens> {
        let tensors = self.open();
        let read = |name: &str| {
            let tensor = tensors.tensor(name).ok().filter(|t| t.dtype() == Dtype::I64)?;
            let values: Vec<i64> =
                tensor.data().as_chunks::<8>().0.iter().map(|&b| i64::from_le_bytes(b)).collect();
            Some((tensor.shape().to_vec(), values))
        };
        let ((shape, ids), (_, mask)) = (read(ids)?, read(mask)?);
        Some(Tokens { rows: *shape.first()?, width: *shape.get(1)?, ids, mask })
    }
}

/// Compares everything that the folder has.
///
/// # Errors
/// [`FinetuneError::Reference`] if the folder is not of this kind; model and runtime errors.
pub fn compare(dir: &Path, machine: &Machine) -> Result<ReferenceReport, FinetuneError> {
    let path = dir.join(FILE);
    let content = fs::read(&path).map_err(|source| FinetuneError::Io { path: path.clone(), source })?;
    let wrong = |reason: String| FinetuneError::Reference { path: path.clone(), reason };
    SafeTensors::deserialize(&content).map_err(|e| wrong(e.to_string()))?;
    let reference = Reference { content };
    let missing = |name: &str| wrong(format!("it has no int64 {name}"));
    let a = reference.tokens("input_ids", "attention_mask").ok_or_else(|| missing("input_ids"))?;
    let b =
        reference.tokens("pair_input_ids", "pair_attention_mask").ok_or_else(|| missing("pair_input_ids"))?;
    if a.rows != b.rows {
        return Err(wrong(format!("{} texts and {} of the pair do not belong together", a.rows, b.rows)));
    }

    let (architecture, shape) = ModelDir::encoder_of(dir)?;
    let weights_path = dir.join(crate::model::WEIGHTS_FILE);
    let content =
        fs::read(&weights_path).map_err(|source| FinetuneError::Io { path: weights_path, source })?;
    let parameters = Parameters::load(&Weights::new(content)?, architecture, &shape)?;
    let spec = TrainingGraph {
        architecture,
        shape: &shape,
        pooling: Pooling::Mean,
        hidden_dropout: false,
        attention_dropout: false,
        adapter: None,
        head: None,
    };

    let mut errors = Errors::default();
    let device = forward(&reference, &spec, &parameters, &a, machine, &mut errors)?;
    let outcome = losses(&reference, &spec, &parameters, [&a, &b], machine, &mut errors)?;
    adamw(&reference, &parameters, &outcome, &mut errors)?;
    if errors.largest.is_empty() {
        return Err(wrong(
            "it holds none of hidden.N, pool.NAME, loss.NAME, grad.NAME and adamw1.NAME".into(),
        ));
    }
    let passed = errors.largest.values().all(|l| l.error <= l.limit);
    Ok(ReferenceReport { folder: dir.display().to_string(), device, largest: errors.largest, passed })
}

#[derive(Default)]
struct Errors {
    largest: BTreeMap<String, Largest>,
}

impl Errors {
    fn add(&mut self, kind: &str, tensor: &str, error: f64) {
        let limit = LIMITS.iter().find(|(k, _)| *k == kind).map_or(0.0, |(_, limit)| *limit);
        let largest = self.largest.entry(kind.to_owned()).or_insert_with(|| Largest {
            error: 0.0,
            tensor: tensor.to_owned(),
            limit,
            compared: 0,
        });
        largest.compared += 1;
        // A NaN is an error above any limit.
        let error = if error.is_nan() { f64::INFINITY } else { error };
        if error > largest.error {
            largest.error = error;
            largest.tensor = tensor.to_owned();
        }
    }
}

/// Largest absolute difference; infinite if the lengths differ.
fn difference(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    // `f64::max` would drop a NaN.
    a.iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs())
        .fold(0.0, |largest, error| if error.is_nan() || error > largest { error } else { largest })
}

fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |largest, value| f64::from(value.abs()).max(largest))
}

/// Hidden states of real tokens, and every pooling. Gives the device's name.
fn forward(
    reference: &Reference,
    spec: &TrainingGraph<'_>,
    parameters: &Parameters,
    tokens: &Tokens,
    machine: &Machine,
    errors: &mut Errors,
) -> Result<String, FinetuneError> {
    use prost::Message;
    let mut device = String::new();
    for pooling in Pooling::ALL {
        if spec.shape.check_pooling(pooling).is_err() {
            continue;
        }
        let spec = TrainingGraph { pooling, ..spec.clone() };
        let mut tape = spec.write()?;
        tape.graph.output(&tape.embedding.clone(), DataType::Float, &[Axis::Unknown; 2]);
        for state in &tape.states.clone() {
            tape.graph.output(state, DataType::Float, &[Axis::Unknown; 3]);
        }
        let model = tape.graph.into_model().encode_to_vec();
        let mut session =
            Session::of_bytes(&machine.home, "forward", &model, machine.device, machine.threads)?;
        session.report().device.clone_into(&mut device);
        let shape = [tokens.rows, tokens.width];
        let mut views = vec![
            (IDS, TensorView::I64 { shape: &shape, values: &tokens.ids }),
            (MASK, TensorView::I64 { shape: &shape, values: &tokens.mask }),
        ];
        for p in &parameters.list {
            views.push((&p.name, TensorView::F32 { shape: &p.shape, values: &p.values }));
        }
        let outputs = session.run(&views)?;
        let name = format!("pool.{}", pooling.name());
        if let Some(expected) = reference.floats(&name) {
            errors.add("pool", &name, difference(&outputs[0].1, &expected));
        }
        let hidden = spec.shape.hidden;
        for layer in 0..=spec.shape.layers {
            let name = format!("hidden.{layer}");
            let Some(expected) = reference.floats(&name) else { continue };
            let got = &outputs[layer + 1].1;
            // Rows behind the mask are not defined.
            let real = |values: &[f32]| -> Vec<f32> {
                let rows = values.chunks(hidden).zip(&tokens.mask).filter(|(_, real)| **real == 1);
                rows.flat_map(|(row, _)| row.iter().copied()).collect()
            };
            errors.add("hidden", &name, difference(&real(got), &real(&expected)));
        }
    }
    Ok(device)
}

/// Losses, and the gradients of the one-way loss in one graph and by GradCache. Gives the former.
fn losses(
    reference: &Reference,
    spec: &TrainingGraph<'_>,
    parameters: &Parameters,
    [a, b]: [&Tokens; 2],
    machine: &Machine,
    errors: &mut Errors,
) -> Result<Outcome, FinetuneError> {
    let both = joined(a, b);
    let none = |_, _: &mut [f32]| {};
    let mut one_way = None;
    for (name, symmetric) in [("loss.symmetric", true), ("loss.one_way", false)] {
        let objective =
            Objective::Contrastive { groups: 2, symmetric, temperature: TEMPERATURE, matryoshka: Vec::new() };
        let inputs = ObjectiveInputs::contrastive(a.rows, 2, symmetric, |_, _| false, |_, _| false);
        let trained = vec![true; parameters.list.len()];
        let mut stepper = Stepper::new(machine.clone(), spec.clone(), objective, trained);
        let outcome = stepper.run(parameters, &both, &inputs, &none)?;
        let cached = stepper.run_cached(parameters, &both, &inputs, 2, &none)?;
        if let Some(expected) = reference.floats(name) {
            // Above 1 the steps between float32 numbers grow with the loss.
            let scale = largest(&expected).max(1.0);
            errors.add("loss", name, difference(&[outcome.loss], &expected) / scale);
            errors.add("loss", name, difference(&[cached.loss], &expected) / scale);
        }
        one_way = Some((outcome, cached));
    }
    let (outcome, cached) = one_way.expect("the list above is not empty");
    let expected: Vec<Option<Vec<f32>>> =
        parameters.list.iter().map(|p| reference.floats(&format!("grad.{}", p.name))).collect();
    let floor = GRADIENT_FLOOR * expected.iter().flatten().map(|e| largest(e)).fold(0.0, f64::max);
    for (kind, outcome) in [("gradient", &outcome), ("gradient_cached", &cached)] {
        for ((parameter, gradient), expected) in parameters.list.iter().zip(&outcome.gradients).zip(&expected)
        {
            let Some(expected) = expected else { continue };
            let got = gradient.as_ref().map(|g| dense(g, &parameter.shape)).unwrap_or_default();
            let scale = largest(expected).max(floor);
            errors.add(kind, &format!("grad.{}", parameter.name), difference(&got, expected) / scale);
        }
    }
    Ok(outcome)
}

/// Rows of one width, filled up: anchors, then their positives.
fn joined(a: &Tokens, b: &Tokens) -> Tokens {
    let width = a.width.max(b.width);
    let mut all = Tokens { rows: a.rows + b.rows, width, ids: Vec::new(), mask: Vec::new() };
    for tokens in [a, b] {
        for (from, to) in [(&tokens.ids, &mut all.ids), (&tokens.mask, &mut all.mask)] {
            for row in from.chunks(tokens.width) {
                to.extend_from_slice(row);
                to.resize(to.len() + width - tokens.width, 0);
            }
        }
    }
    all
}

/// A gradient in the shape of its tensor.
fn dense(gradient: &TensorGradient, shape: &[usize]) -> Vec<f32> {
    match gradient {
        TensorGradient::Dense(values) => values.clone(),
        TensorGradient::Rows { ids, rows } => {
            let width = shape[1];
            let mut table = vec![0.0; shape[0] * width];
            for (&id, row) in ids.iter().zip(rows.chunks(width)) {
                let at = id as usize * width;
                table[at..at + width].iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
            table
        }
    }
}

/// Weights after one step of AdamW as the reference takes it (everything decays), on the reference's gradients
/// (`adamw`) and on ours (`step`).
///
/// A first step is `rate g / (|g| + eps)`: where a gradient is hardly above eps it makes much of what is rounding, so
/// that numbers with gradients below [`STEP_GRADIENT_MIN`] are left out of `step`. So are the key biases, whose exact
/// gradient is zero and which training therefore freezes: a step on them is all rounding.
fn adamw(
    reference: &Reference,
    parameters: &Parameters,
    outcome: &Outcome,
    errors: &mut Errors,
) -> Result<(), FinetuneError> {
    let expected: Vec<Option<(Vec<f32>, Vec<f32>)>> = parameters
        .list
        .iter()
        .map(|p| {
            let of = |what: &str| reference.floats(&format!("{what}.{}", p.name));
            let (gradient, moved) = (of("grad")?, of("adamw1")?);
            (gradient.len() == p.values.len()).then_some((gradient, moved))
        })
        .collect();
    let everything = |sparse| ParameterSettings { decay: true, frozen: false, sparse };
    for (kind, sparse) in [("adamw", false), ("step", true)] {
        let skip = |p: &Parameter, expected: &Option<_>| {
            expected.is_none() || (sparse && ParameterSettings::usual(p).frozen)
        };
        let settings = |(p, expected): (&Parameter, &Option<_>)| ParameterSettings {
            frozen: skip(p, expected),
            ..everything(sparse && p.name == WORDS)
        };
        let settings = parameters.list.iter().zip(&expected).map(settings).collect();
        let mut moved = parameters.clone();
        let mut optimizer = AdamW::new(&moved, AdamWConfig::default(), settings)?;
        let theirs: Vec<Gradient<'_>> = expected
            .iter()
            .map(|e| e.as_ref().map_or(Gradient::Absent, |(gradient, _)| Gradient::Dense(gradient)))
            .collect();
        let gradients = if sparse { outcome.views() } else { theirs };
        optimizer.step(&mut moved, &gradients, RATE, None)?;
        optimizer.flush(&mut moved);
        for (parameter, expected) in moved.list.iter().zip(&expected) {
            if skip(parameter, expected) {
                continue;
            }
            let Some((gradient, expected)) = expected else { continue };
            // Rows without a gradient only decay, and are compared too.
            let counts = |g: f32| !sparse || g == 0.0 || g.abs() >= STEP_GRADIENT_MIN;
            let keep = |values: &[f32]| -> Vec<f32> {
                values.iter().zip(gradient).filter(|(_, g)| counts(**g)).map(|(v, _)| *v).collect()
            };
            let error = difference(&keep(&parameter.values), &keep(expected));
            errors.add(kind, &format!("adamw1.{}", parameter.name), error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::DeviceChoice;

    fn machine() -> Machine {
        Machine { home: crate::config::default_home(), device: DeviceChoice::Cpu, threads: 1 }
    }

    #[test]
    fn training_gives_the_reference_values() {
        let beside = || std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
        let shared = std::env::var_os("DISTILFACE_SHARED").map_or_else(beside, std::path::PathBuf::from);
        let folder = shared.join("fixtures");
        if !folder.is_dir() || !machine().home.join("runtime").is_dir() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "fixtures or the runtime are missing");
            println!("skipped: {} or the runtime is missing", folder.display());
            return;
        }
        for name in ["bert-tiny", "distilbert-tiny"] {
            let report = compare(&folder.join(name), &machine()).unwrap();
            println!("{report:#?}");
            assert!(report.passed, "{report:#?}");
        }
    }
}
