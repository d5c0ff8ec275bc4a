//! One loaded graph: tensors in, float tensors out. Not shared between threads; its owner calls it in turn.

use std::path::Path;

use ort::{
    session::{
        Session as OrtSession, SessionInputValue,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::TensorRef,
};

use super::{DeviceChoice, DeviceReport, RuntimeError, library, provider};

/// A tensor that is lent to a run; row-major.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names say it")]
pub enum TensorView<'a> {
    F32 { shape: &'a [usize], values: &'a [f32] },
    I64 { shape: &'a [usize], values: &'a [i64] },
}

/// An output of a run: shape and values, row-major.
pub type Output = (Vec<usize>, Vec<f32>);

/// A loaded graph on one device.
#[derive(Debug)]
pub struct Session {
    inner: OrtSession,
    report: DeviceReport,
}

impl Session {
    /// Loads the graph in `file` with `threads` threads of its own (0: all cores), on the device that `choice`
    /// comes to; libraries come from `home`.
    ///
    /// # Errors
    /// Everything of [`RuntimeError`] but `Run`.
    pub fn open(
        home: &Path,
        file: &Path,
        choice: DeviceChoice,
        threads: usize,
    ) -> Result<Self, RuntimeError> {
        if !file.exists() {
            return Err(RuntimeError::Load {
                path: file.to_owned(),
                reason: "the file does not exist".into(),
            });
        }
        // Spinning threads starve tokenising and search on small machines.
        build(home, file, choice, threads, false, |mut builder| builder.commit_from_file(file))
    }

    /// [`Session::open`] of a graph that was written in this process, for work that has the machine to itself:
    /// its threads spin between operations. `name` stands for the graph in errors.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn of_bytes(
        home: &Path,
        name: &str,
        model: &[u8],
        choice: DeviceChoice,
        threads: usize,
    ) -> Result<Self, RuntimeError> {
        build(home, Path::new(name), choice, threads, true, |mut builder| builder.commit_from_memory(model))
    }

    /// Where it runs and why there.
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
    home: &Path,
    name: &Path,
    choice: DeviceChoice,
    threads: usize,
    spinning: bool,
    commit: impl FnOnce(SessionBuilder) -> ort::Result<OrtSession>,
) -> Result<Session, RuntimeError> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    library::with_runtime(home, |loaded| {
        let (provider, report) = provider::resolve(loaded, home, choice)?;
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
            let builder = provider::apply(builder, loaded, provider, threads)?;
            commit(builder).map_err(|e| e.to_string())
        };
        let load = |reason: String| RuntimeError::Load { path: name.to_owned(), reason };
        Ok(Session { inner: build().map_err(load)?, report })
    })
}
