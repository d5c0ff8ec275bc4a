//! A model in full precision and its calibration become a model directory with weights in 8 bits.
//!
//! The new model has a name and a fingerprint of its own, since its vectors differ, and is opened like any other.
//! It serves; training it is refused, because its weights are rounded.

use super::{ModelDir, ModelError, NewModel, Precision, Quantised};
use crate::onnx::{Calibration, quantise::quantise};

use std::path::Path;

/// The parts that a model in 8 bits is made from.
#[derive(Debug)]
pub struct NewQuantised<'a> {
    /// The new model's name: 1 to 64 letters, digits, `.`, `_` and `-`.
    pub name: &'a str,
    /// The model in full precision.
    pub base: &'a ModelDir,
    /// Measured on that model.
    pub calibration: &'a Calibration,
    /// Number of texts that the model was calibrated on.
    pub texts: usize,
    /// Hash of those texts; see [`Quantised::calibration_sha256`].
    pub texts_sha256: String,
    /// Whether a model of this name is replaced; otherwise it is an error. No default.
    pub force: bool,
}

impl ModelDir {
    /// Whether the weights are those that were trained, which training and rounding need.
    ///
    /// # Errors
    /// [`ModelError::Quantised`] naming the model to use instead.
    pub fn check_full_precision(&self) -> Result<(), ModelError> {
        match &self.manifest.quantised {
            None => Ok(()),
            Some(Quantised { precision, from, .. }) => Err(ModelError::Quantised {
                name: self.manifest.name.clone(),
                precision: *precision,
                from: from.clone(),
            }),
        }
    }

    /// Makes the directory `home/models/NAME`, whole or not at all.
    ///
    /// # Errors
    /// As [`ModelDir::check_full_precision`], [`ModelDir::weights`] and [`ModelDir::create`];
    /// [`ModelError::Onnx`] for a calibration of another model.
    pub fn quantise(home: &Path, new: &NewQuantised<'_>) -> Result<Self, ModelError> {
        let base = &new.base.manifest;
        new.base.check_full_precision()?;
        ModelDir::check_new(home, new.name, new.force)?;
        let weights = quantise(base.architecture, &base.shape, &new.base.weights()?, new.calibration)
            .map_err(|source| ModelError::Onnx { path: new.base.weights_path(), source })?;
        let mut lineage = base.lineage.clone();
        lineage.push(format!("base {} {}", base.name, new.base.fingerprint.0));
        lineage.push(format!(
            "rounded to int8 by distilface {}, calibrated on {} texts",
            env!("CARGO_PKG_VERSION"),
            new.texts
        ));
        ModelDir::create(
            home,
            NewModel {
                name: new.name,
                base: new.base,
                pooling: base.pooling,
                weights,
                source: format!("{}, rounded to int8", base.name),
                lineage,
                quantised: Some(Quantised {
                    precision: Precision::Int8,
                    from: base.name.clone(),
                    from_fingerprint: new.base.fingerprint.clone(),
                    calibration_texts: new.texts,
                    calibration_sha256: new.texts_sha256.clone(),
                }),
                force: new.force,
            },
        )
    }
}
