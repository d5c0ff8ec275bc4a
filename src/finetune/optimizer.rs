//! The optimizer moves parameters by their gradients: AdamW, with clipping and with a sparse form for word embeddings.
//!
//! Kingma & Ba 2015 (Adam, algorithm 1, arXiv 1412.6980) with the decoupled decay of Loshchilov & Hutter 2019 (AdamW,
//! algorithm 2, arXiv 1711.05101), as PyTorch has it: the decay is multiplied by the learning rate.
//!
//! Promises: the same bits whatever the number of threads (work is cut into fixed pieces, sums are added in one order);
//! a step that cannot be made changes nothing.
//! Left out: learning rates ([`schedule`](super::schedule)), and adding the gradients of several micro-batches.
//!
//! Where we differ from PyTorch: a matrix of which a step sees few rows is moved as by its SparseAdam (moments of the
//! other rows stay as they are, the bias correction counts all steps), and yet decays as by AdamW: a row is multiplied
//! by the decay that it missed when it is next touched, or by [`AdamW::flush`]. From zero moments one step is dense
//! AdamW's, bit for bit.

use rayon::prelude::*;

use super::parameters::{Parameter, Parameters};
use crate::{
    error::{ErrorKind, Fault},
    onnx::training::WORDS,
};

mod rows;
#[cfg(test)]
mod tests;

use rows::RowSums;

/// Values in one piece of work: large enough to be worth handing to a thread, small enough to stay in its cache.
const PIECE: usize = 1 << 14;
/// Added to the norm before dividing, as in PyTorch's `clip_grad_norm_`.
const CLIP_EPS: f64 = 1e-6;
/// Beyond it the square of a gradient may leave float32.
const NORM_MAX: f64 = 1e18;
/// A row that would be multiplied by less is brought level at once: products must not run out of numbers.
const PRODUCT_MIN: f64 = 1e-100;
/// Ends of the names of the attention's key biases, in BERT and DistilBERT.
const KEY_BIASES: [&str; 2] = ["attention.self.key.bias", "attention.k_lin.bias"];

/// The settings that are the same for all parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// How much of the first and the second moment stays at a step, each in [0, 1). Default 0.9 and 0.999.
    pub betas: [f64; 2],
    /// Added to the root of the second moment, above 0. Default 1e-8.
    pub eps: f64,
    /// Decay of parameters that decay: a step multiplies them by `1 - rate * weight_decay`. Default 0.01.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }
    }
}

/// The treatment of one parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterSettings {
    /// Whether it decays.
    pub decay: bool,
    /// Whether it stays as it is. It needs no gradient, has no moments, and does not count in the norm.
    pub frozen: bool,
    /// Whether its gradients come as [`Gradient::Rows`].
    pub sparse: bool,
}

impl ParameterSettings {
    /// The usual treatment: biases and norms (all that is no matrix) do not decay, the word embeddings are sparse,
    /// and the key biases of the attention are frozen: softmax does not see them, so their gradient is zero and what
    /// is computed for it is rounding, which Adam would scale up to full steps.
    pub fn usual(parameter: &Parameter) -> Self {
        ParameterSettings {
            decay: parameter.shape.len() > 1,
            frozen: KEY_BIASES.iter().any(|end| parameter.name.ends_with(end)),
            sparse: parameter.name == WORDS,
        }
    }
}

/// The gradient of one parameter.
#[derive(Debug, Clone, Copy)]
pub enum Gradient<'a> {
    /// None was computed; only for a frozen parameter.
    Absent,
    /// One number for each value of the parameter.
    Dense(&'a [f32]),
    /// Of some rows of a matrix; rows of the same number are added, in the order in which they stand.
    Rows {
        /// Which row each is of.
        ids: &'a [i64],
        /// `[ids, width]`, row-major.
        rows: &'a [f32],
    },
}

/// The statistics of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Euclidean length of all gradients together, before clipping.
    pub gradient_norm: f64,
    /// Whether they were made shorter.
    pub clipped: bool,
}

/// What an optimizer remembers of one parameter; all empty for a frozen one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Moments {
    /// Running mean of the gradient, of the parameter's shape.
    pub first: Vec<f32>,
    /// Running mean of its square.
    pub second: Vec<f32>,
    /// Of a sparse parameter, for each row, the value of `decayed` when it last was level.
    pub levels: Vec<f64>,
    /// Product of `1 - rate * weight_decay` over the steps since all rows were level.
    pub decayed: f64,
}

/// All that a run needs to go on, beside the parameters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OptimizerState {
    /// Steps made.
    pub steps: u64,
    /// One for each parameter, in their order.
    pub moments: Vec<Moments>,
}

/// The optimizer of one run.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    settings: Vec<ParameterSettings>,
    state: OptimizerState,
}

/// Why a step was not made; parameters and moments are as before it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum OptimizerError {
    #[error(
        "the gradient of {parameter} is not finite or far too large (length of all gradients: {norm:e}); lower the learning rate, clip, or use a device that computes in float32"
    )]
    NotFinite { parameter: String, norm: f64 },
    #[error("{parameter}: {what} has {got} values, expected {expected}")]
    Length { parameter: String, what: &'static str, got: usize, expected: usize },
    #[error("{parameter}: a gradient of row {row}, but there are rows 0 to {last}")]
    Row { parameter: String, row: i64, last: usize },
    #[error("{parameter}: its gradient is {got}, expected {expected}")]
    Form { parameter: String, got: &'static str, expected: &'static str },
    #[error(
        "learning rate {rate} with weight decay {weight_decay}: their product must be at least 0 and below 1"
    )]
    Rate { rate: f64, weight_decay: f64 },
}

impl Fault for OptimizerError {
    fn kind(&self) -> ErrorKind {
        match self {
            OptimizerError::NotFinite { .. } => ErrorKind::Precondition,
            OptimizerError::Rate { .. } => ErrorKind::Invalid,
            OptimizerError::Length { .. } | OptimizerError::Row { .. } | OptimizerError::Form { .. } => {
                ErrorKind::Internal
            }
        }
    }
}

impl AdamW {
    /// Begins with moments of zero. `settings` are in the parameters' order.
    ///
    /// # Errors
    /// [`OptimizerError::Length`] unless there is one setting for each parameter.
    pub fn new(
        parameters: &Parameters,
        config: AdamWConfig,
        settings: Vec<ParameterSettings>,
    ) -> Result<Self, OptimizerError> {
        let fresh = |(parameter, settings): (&Parameter, &ParameterSettings)| {
            let count = if settings.frozen { 0 } else { parameter.values.len() };
            let rows = if settings.sparse && !settings.frozen { parameter.shape[0] } else { 0 };
            Moments {
                first: vec![0.0; count],
                second: vec![0.0; count],
                levels: vec![1.0; rows],
                decayed: 1.0,
            }
        };
        let moments = parameters.list.iter().zip(&settings).map(fresh).collect();
        AdamW::resume(parameters, config, settings, OptimizerState { steps: 0, moments })
    }

    /// Continues from a saved state.
    ///
    /// # Errors
    /// [`OptimizerError::Length`] if the state is not of these parameters and settings.
    pub fn resume(
        parameters: &Parameters,
        config: AdamWConfig,
        settings: Vec<ParameterSettings>,
        state: OptimizerState,
    ) -> Result<Self, OptimizerError> {
        let count = parameters.list.len();
        length("all of them", "the list of settings", settings.len(), count)?;
        length("all of them", "the list of moments", state.moments.len(), count)?;
        for ((parameter, settings), moments) in parameters.list.iter().zip(&settings).zip(&state.moments) {
            let name = &parameter.name;
            let values = if settings.frozen { 0 } else { parameter.values.len() };
            let rows = if settings.sparse && !settings.frozen { parameter.shape[0] } else { 0 };
            length(name, "the first moment", moments.first.len(), values)?;
            length(name, "the second moment", moments.second.len(), values)?;
            length(name, "the list of its rows' decay", moments.levels.len(), rows)?;
        }
        Ok(AdamW { config, settings, state })
    }

    /// The state to be saved, so that a run can continue from here.
    pub fn state(&self) -> &OptimizerState {
        &self.state
    }

    /// The treatment of each parameter.
    pub fn settings(&self) -> &[ParameterSettings] {
        &self.settings
    }

    /// Moves the parameters by one step at learning rate `rate`, with gradients shortened to a common length of at
    /// most `clip`. `gradients` are in the parameters' order.
    ///
    /// # Errors
    /// [`OptimizerError::NotFinite`] naming the first such parameter; the other kinds if gradients and parameters do
    /// not belong together. Nothing was changed then.
    pub fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &[Gradient],
        rate: f64,
        clip: Option<f64>,
    ) -> Result<StepReport, OptimizerError> {
        let keep = 1.0 - rate * self.config.weight_decay;
        if !(keep > 0.0 && keep <= 1.0) {
            return Err(OptimizerError::Rate { rate, weight_decay: self.config.weight_decay });
        }
        let gradients = self.check(parameters, gradients)?;
        let norm = norm(parameters, &gradients, clip)?;
        let scale = clip.map_or(1.0, |longest| longest / (norm + CLIP_EPS)).min(1.0);

        self.state.steps += 1;
        let update = Update::new(&self.config, self.state.steps, rate, scale);
        let mut pieces = Vec::new();
        let each = parameters.list.iter_mut().zip(&self.settings).zip(&mut self.state.moments);
        for (((parameter, settings), moments), gradient) in each.zip(&gradients) {
            let keep = if settings.decay { keep } else { 1.0 };
            match gradient {
                Checked::None => {}
                Checked::Dense(gradient) => {
                    pieces.extend(dense_pieces(parameter, gradient, moments, keep as f32));
                }
                Checked::Rows(sums) => row_pieces(&mut pieces, parameter, sums, moments, keep),
            }
        }
        pieces.into_par_iter().for_each(|piece| update.apply(piece));
        self.level(parameters, |moments| moments.decayed < PRODUCT_MIN);
        Ok(StepReport { gradient_norm: norm, clipped: scale < 1.0 })
    }

    /// Decays all rows that no step has touched of late, so that the parameters are what they mean: before they are
    /// evaluated or written as a model.
    ///
    /// Not before a run's state is saved: to round earlier than the run itself would is to change its bits, and the
    /// state says how far each row is behind.
    pub fn flush(&mut self, parameters: &mut Parameters) {
        self.level(parameters, |_| true);
    }

    fn level(&mut self, parameters: &mut Parameters, which: impl Fn(&Moments) -> bool) {
        for (parameter, moments) in parameters.list.iter_mut().zip(&mut self.state.moments) {
            if moments.levels.is_empty() || !which(moments) {
                continue;
            }
            let decayed = std::mem::replace(&mut moments.decayed, 1.0);
            let width = parameter.values.len() / moments.levels.len();
            parameter.values.par_chunks_mut(width.max(1)).zip(moments.levels.par_iter_mut()).for_each(
                |(row, level)| {
                    if *level != decayed {
                        let keep = (decayed / *level) as f32;
                        row.iter_mut().for_each(|value| *value *= keep);
                    }
                    *level = 1.0;
                },
            );
        }
    }

    /// Gradients of the right form and length, rows summed.
    fn check<'a>(
        &self,
        parameters: &Parameters,
        gradients: &[Gradient<'a>],
    ) -> Result<Vec<Checked<'a>>, OptimizerError> {
        let count = self.settings.len();
        length("all of them", "the list of parameters", parameters.list.len(), count)?;
        length("all of them", "the list of gradients", gradients.len(), count)?;
        let each = parameters.list.iter().zip(&self.settings).zip(gradients);
        each.map(|((parameter, settings), gradient)| {
            let form = |got, expected| {
                Err(OptimizerError::Form { parameter: parameter.name.clone(), got, expected })
            };
            match (*gradient, settings.sparse) {
                _ if settings.frozen => Ok(Checked::None),
                (Gradient::Absent, false) => form("absent", "dense"),
                (Gradient::Absent, true) => form("absent", "given by rows"),
                (Gradient::Dense(_), true) => form("dense", "given by rows"),
                (Gradient::Rows { .. }, false) => form("given by rows", "dense"),
                (Gradient::Dense(values), false) => {
                    length(&parameter.name, "its gradient", values.len(), parameter.values.len())?;
                    Ok(Checked::Dense(values))
                }
                (Gradient::Rows { ids, rows }, true) => {
                    Ok(Checked::Rows(RowSums::new(parameter, ids, rows)?))
                }
            }
        })
        .collect()
    }
}

fn length(parameter: &str, what: &'static str, got: usize, expected: usize) -> Result<(), OptimizerError> {
    if got == expected {
        return Ok(());
    }
    Err(OptimizerError::Length { parameter: parameter.to_owned(), what, got, expected })
}

/// A gradient that belongs to its parameter.
enum Checked<'a> {
    None,
    Dense(&'a [f32]),
    Rows(RowSums),
}

impl Checked<'_> {
    fn values(&self) -> &[f32] {
        match self {
            Checked::None => &[],
            Checked::Dense(values) => values,
            Checked::Rows(sums) => &sums.rows,
        }
    }
}

/// Length of all gradients together: squares are summed by piece, in float64, and the pieces' sums in their order.
fn norm(parameters: &Parameters, gradients: &[Checked], clip: Option<f64>) -> Result<f64, OptimizerError> {
    let pieces: Vec<(usize, &[f32])> = gradients
        .iter()
        .enumerate()
        .flat_map(|(at, gradient)| gradient.values().chunks(PIECE).map(move |piece| (at, piece)))
        .collect();
    let sums: Vec<f64> = pieces.par_iter().map(|(_, piece)| squares(piece)).collect();
    let norm = sums.iter().sum::<f64>().sqrt();
    let too_long = clip.is_none() && norm > NORM_MAX;
    if norm.is_finite() && !too_long {
        return Ok(norm);
    }
    // Squares of finite float32 numbers cannot overflow float64: some gradient itself is not finite, or the longest
    // is the one to name.
    let worst = sums
        .iter()
        .position(|sum| !sum.is_finite())
        .or_else(|| (0..sums.len()).max_by(|&a, &b| sums[a].total_cmp(&sums[b])));
    let at = worst.map_or(0, |piece| pieces[piece].0);
    Err(OptimizerError::NotFinite { parameter: parameters.list[at].name.clone(), norm })
}

fn squares(values: &[f32]) -> f64 {
    // Eight sums side by side, because a compiler may not reorder one.
    let (eights, rest) = values.as_chunks::<8>();
    let mut sums = [0f64; 8];
    for eight in eights {
        for (sum, &value) in sums.iter_mut().zip(eight) {
            *sum += f64::from(value) * f64::from(value);
        }
    }
    let rest: f64 = rest.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    sums.iter().sum::<f64>() + rest
}

/// Numbers of one parameter that move together.
struct Piece<'a> {
    values: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    /// What decay leaves of them.
    keep: f32,
}

fn dense_pieces<'a>(
    parameter: &'a mut Parameter,
    gradient: &'a [f32],
    moments: &'a mut Moments,
    keep: f32,
) -> impl Iterator<Item = Piece<'a>> {
    let moments = moments.first.chunks_mut(PIECE).zip(moments.second.chunks_mut(PIECE));
    let values = parameter.values.chunks_mut(PIECE).zip(gradient.chunks(PIECE));
    values.zip(moments).map(move |((values, gradient), (first, second))| Piece {
        values,
        gradient,
        first,
        second,
        keep,
    })
}

/// One piece for each row that has a gradient; the others only fall behind.
fn row_pieces<'a>(
    pieces: &mut Vec<Piece<'a>>,
    parameter: &'a mut Parameter,
    sums: &'a RowSums,
    moments: &'a mut Moments,
    keep: f64,
) {
    let before = moments.decayed;
    moments.decayed *= keep;
    let width = sums.width;
    let mut values = parameter.values.chunks_exact_mut(width);
    let mut first = moments.first.chunks_exact_mut(width);
    let mut second = moments.second.chunks_exact_mut(width);
    let mut next = 0;
    for (&id, gradient) in sums.ids.iter().zip(sums.rows.chunks_exact(width)) {
        let skip = id - next;
        next = id + 1;
        let (Some(values), Some(first), Some(second)) = (values.nth(skip), first.nth(skip), second.nth(skip))
        else {
            unreachable!("rows were checked against the parameter, and ascend");
        };
        let level = &mut moments.levels[id];
        // A row that is level takes this step's factor itself: a quotient of products may round otherwise.
        let keep = if *level == before { keep } else { moments.decayed / *level };
        *level = moments.decayed;
        pieces.push(Piece { values, gradient, first, second, keep: keep as f32 });
    }
}

/// The numbers of one step; algorithm 2 of Loshchilov & Hutter.
struct Update {
    scale: f32,
    /// `1 - beta`. A mean moves towards the gradient by this share: `1 - beta` has more digits in float32 than `beta`.
    shares: [f32; 2],
    eps: f32,
    /// `rate / (1 - beta1^t)`.
    rate: f32,
    /// `1 / sqrt(1 - beta2^t)`.
    root: f32,
}

impl Update {
    fn new(config: &AdamWConfig, steps: u64, rate: f64, scale: f64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(steps as f64);
        let [beta1, beta2] = config.betas;
        Update {
            scale: scale as f32,
            shares: [(1.0 - beta1) as f32, (1.0 - beta2) as f32],
            eps: config.eps as f32,
            rate: (rate / correction(beta1)) as f32,
            root: correction(beta2).sqrt().recip() as f32,
        }
    }

    fn apply(&self, piece: Piece) {
        let Piece { values, gradient, first, second, keep } = piece;
        let moments = first.iter_mut().zip(second);
        for ((value, &gradient), (first, second)) in values.iter_mut().zip(gradient).zip(moments) {
            let gradient = gradient * self.scale;
            *first += self.shares[0] * (gradient - *first);
            *second += self.shares[1] * (gradient * gradient - *second);
            let step = self.rate * *first / (second.sqrt() * self.root + self.eps);
            *value = *value * keep - step;
        }
    }
}
