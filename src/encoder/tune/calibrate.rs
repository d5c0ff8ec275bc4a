//! Calibration finds the ranges of a model's activations on texts; its weights are rounded to 8 bits by them.
//!
//! The graph in full precision runs on the CPU, one text after another, so that there is no padding to leave out; it
//! gives only the least and the largest value of each channel, so that memory does not grow with the texts.
//! The two prompts stand in front in turn, as they will when the model serves. Texts need no labels, and should be of
//! the kind
//! that will be encoded; never take the test texts of a benchmark.

use std::path::Path;

use crate::{
    encoder::{EncoderError, OpenError, Tokenizer},
    model::{ModelDir, ModelError},
    onnx::{Calibration, quantise::calibration_graph},
    runtime::{DeviceChoice, Session, TensorView},
};

/// Fewer texts than this leave ranges to chance.
pub const CALIBRATION_TEXTS_MIN: usize = 32;

/// Runs every text through `model`; `told` hears how many are done.
///
/// # Errors
/// [`EncoderError::Calibration`] for fewer than [`CALIBRATION_TEXTS_MIN`] texts; [`ModelError::Quantised`] for a model
/// that is in 8 bits already; model, tokenizer and runtime errors.
pub fn calibrate(
    model: &ModelDir,
    home: &Path,
    threads: usize,
    texts: &[String],
    mut told: impl FnMut(usize),
) -> Result<Calibration, OpenError> {
    model.check_full_precision()?;
    if texts.len() < CALIBRATION_TEXTS_MIN {
        return Err(EncoderError::Calibration { got: texts.len() }.into());
    }
    let manifest = &model.manifest;
    let tokenizer = Tokenizer::open(&model.tokenizer_path(), manifest.max_tokens)?;
    let graph = calibration_graph(&manifest.graph(), &model.weights()?)
        .map_err(|source| ModelError::Onnx { path: model.weights_path(), source })?;
    let name = format!("{}, calibration", manifest.name);
    let mut session = Session::of_bytes(home, &name, &graph, DeviceChoice::Cpu, threads)?;
    let mut calibration = Calibration::new(manifest.architecture, &manifest.shape);
    let prompts = [&manifest.prompts.document, &manifest.prompts.query];
    for (n, text) in texts.iter().enumerate() {
        let ids = tokenizer.encode(&format!("{}{text}", prompts[n % 2]))?.ids;
        let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
        let (shape, mask) = ([1, ids.len()], vec![1; ids.len()]);
        let outputs = session.run(&[
            ("input_ids", TensorView::I64 { shape: &shape, values: &ids }),
            ("attention_mask", TensorView::I64 { shape: &shape, values: &mask }),
        ])?;
        // The first is the embedding.
        calibration.observe(&outputs[1..])?;
        told(n + 1);
    }
    Ok(calibration)
}

#[cfg(test)]
mod tests;
