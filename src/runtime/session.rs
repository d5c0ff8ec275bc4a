//! One loaded graph: tensors in, float tensors out. Not shared between threads; its owner calls it in turn.

use std::path::{Path, PathBuf};

use ort::{
    session::{
        Session as OrtSession, SessionInputValue,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::TensorRef,
};

use super::{
    DeviceChoice, DeviceReport, Precision, RuntimeError,
    library::{self, Loaded},
    provider::{self, Provider},
};
use crate::onnx::Layout;

/// A tensor that is lent to a run; row-major.
#[derive(Debug, Clone, Copy)]
pub enum TensorView<'a> {
    /// Numbers in single precision.
    F32 {
        /// Length of each axis.
        shape: &'a [usize],
        /// The values; as many as the product of the lengths.
        values: &'a [f32],
    },
    /// Integers, such as token ids.
    I64 {
        /// Length of each axis.
        shape: &'a [usize],
        /// The values; as many as the product of the lengths.
        values: &'a [i64],
    },
}

/// An output of a run: shape and values, row-major.
pub type Output = (Vec<usize>, Vec<f32>);

/// Where and in what form a model will run, settled before its graph is written.
#[derive(Debug, Clone)]
pub struct Plan {
    home: PathBuf,
    provider: Provider,
    report: DeviceReport,
}

impl Plan {
    /// Resolves `device` and `precision` on this machine with the libraries in `home`; `packable` says whether a packed
    /// graph can be written for the model.
    ///
    /// # Errors
    /// Everything of [`RuntimeError`] but `Load` and `Run`.
    pub fn new(
        home: &Path,
        device: DeviceChoice,
        precision: Precision,
        packable: bool,
    ) -> Result<Self, RuntimeError> {
        let resolve = |loaded: &mut Loaded| provider::resolve(loaded, home, device, precision, packable);
        let (provider, report) = library::with_runtime(home, resolve)?;
        Ok(Plan { home: home.to_owned(), provider, report })
    }

    /// The form of the graph.
    pub fn layout(&self) -> Layout {
        self.provider.layout()
    }

    /// The device that it will run on, and why.
    pub fn report(&self) -> &DeviceReport {
        &self.report
    }

    /// Whether several sessions of one model are worth their memory: on the processor they take turns by the system's
    /// scheduler, on a GPU they would only be in each other's way.
    pub fn shares_the_processor(&self) -> bool {
        !matches!(self.provider, Provider::Cuda { .. })
    }
}

/// A loaded graph on one device.
#[derive(Debug)]
pub struct Session {
    inner: OrtSession,
    report: DeviceReport,
}

impl Session {
    /// Loads the graph in `file`, which has the plan's layout, with `threads` threads of its own (0: all cores).
    ///
    /// # Errors
    /// [`RuntimeError::Load`].
    pub fn open(plan: &Plan, file: &Path, threads: usize) -> Result<Self, RuntimeError> {
        if !file.exists() {
            return Err(RuntimeError::Load {
                path: file.to_owned(),
                reason: "the file does not exist".into(),
            });
        }
        // Spinning threads starve tokenising and search on small machines.
        build(plan, file, threads, false, |mut builder| builder.commit_from_file(file))
    }

    /// A padded graph that was written in this process, in full precision where the device has it, for work that has the
    /// machine to itself: its threads spin between operations. `name` stands for the graph in errors.
    ///
    /// # Errors
    /// As [`Plan::new`] and [`Session::open`].
    pub fn of_bytes(
        home: &Path,
        name: &str,
        model: &[u8],
        choice: DeviceChoice,
        threads: usize,
    ) -> Result<Self, RuntimeError> {
        Session::of_plan(&Plan::new(home, choice, Precision::Auto, false)?, name, model, threads)
    }

    /// [`Session::of_bytes`] where and in the precision that `plan` says.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn of_plan(plan: &Plan, name: &str, model: &[u8], threads: usize) -> Result<Self, RuntimeError> {
        build(plan, Path::new(name), threads, true, |mut builder| builder.commit_from_memory(model))
    }

    /// The device that it runs on, and why.
    pub fn report(&self) -> &DeviceReport {
        &self.report
    }

    /// Runs the graph and gives every output, in the graph's order, as (shape, values).
    ///
    /// # Errors
    /// [`RuntimeError::Run`] if an input does not fit the graph or an output is not float32.
    pub fn run(&mut self, inputs: &[(&str, TensorView<'_>)]) -> Result<Vec<Output>, RuntimeError> {
        let run = |reason: String| RuntimeError::Run { reason };
        let mut values: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for (name, view) in inputs {
            let value = match *view {
                TensorView::F32 { shape, values } => {
                    TensorRef::from_array_view((shape.to_vec(), values)).map(SessionInputValue::from)
                }
                TensorView::I64 { shape, values } => {
                    TensorRef::from_array_view((shape.to_vec(), values)).map(SessionInputValue::from)
                }
            };
            values.push((name, value.map_err(|e| run(e.to_string()))?));
        }
        let outputs = self.inner.run(values).map_err(|e| run(e.to_string()))?;
        outputs
            .iter()
            .map(|(_, value)| {
                let (shape, values) = value.try_extract_tensor::<f32>().map_err(|e| run(e.to_string()))?;
                let shape = shape.iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect();
                Ok((shape, values.to_vec()))
            })
            .collect()
    }
}

fn build(
    plan: &Plan,
    name: &Path,
    threads: usize,
    spinning: bool,
    commit: impl FnOnce(SessionBuilder) -> ort::Result<OrtSession>,
) -> Result<Session, RuntimeError> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    library::with_runtime(&plan.home, |loaded| {
        let build = || -> Result<OrtSession, String> {
            let text = |e: &dyn std::fmt::Display| e.to_string();
            let builder = OrtSession::builder(&loaded.environment).map_err(|e| text(&e))?;
            let builder =
                builder.with_optimization_level(GraphOptimizationLevel::All).map_err(|e| text(&e))?;
            let builder = builder.with_intra_threads(threads).map_err(|e| text(&e))?;
            let builder = builder.with_inter_threads(1).map_err(|e| text(&e))?;
            // Shapes vary, so a remembered layout would only be kept, not used.
            let builder = builder.with_memory_pattern(false).map_err(|e| text(&e))?;
            let builder = builder.with_intra_op_spinning(spinning).map_err(|e| text(&e))?;
            let builder = provider::apply(builder, loaded, plan.provider, threads)?;
            commit(builder).map_err(|e| e.to_string())
        };
        let load = |reason: String| RuntimeError::Load { path: name.to_owned(), reason };
        Ok(Session { inner: build().map_err(load)?, report: plan.report.clone() })
    })
}
