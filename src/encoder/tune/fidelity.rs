//! Fidelity says whether a model's vectors in 8 bits are near enough to those in full precision for `auto` to choose them.
//!
//! Rounding suits most encoders and ruins a few: an encoder whose activations are dominated by a few huge channels loses
//! the information of the others. So fidelity is measured once for each model, when `auto` would choose 8 bits for the
//! first time or `distilface model optimise` asks for it: the sample texts are encoded in both precisions. The result is
//! kept beside the graph that it is about, in `.near`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    config::EncoderConfig,
    encoder::{Encoder, OpenError, TextKind},
    files::regular,
    model::{ModelDir, sample_texts},
    onnx::Layout,
    vector::cosine,
};

/// Mean cosine below which `auto` stays with full precision.
pub const COSINE_MEAN_MIN: f64 = 0.998;
/// Smallest cosine of any text below which `auto` stays with full precision.
pub const COSINE_LEAST_MIN: f64 = 0.99;
/// Texts that are compared.
const TEXTS: usize = 64;

/// Cosines of vectors in 8 bits to those in full precision.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fidelity {
    /// Number of texts that were compared.
    pub texts: usize,
    /// Mean cosine, -1 to 1.
    pub cosine_mean: f64,
    /// Smallest cosine of any text, -1 to 1.
    pub cosine_least: f64,
}

impl Fidelity {
    /// Reads the kept result, or else measures it now and keeps it.
    ///
    /// # Errors
    /// Those of opening both encoders and of encoding; that it could not be kept is only logged.
    pub fn of(model: &ModelDir, home: &Path, config: &EncoderConfig) -> Result<Self, OpenError> {
        let path = path(model)?;
        if let Some(known) = regular::read_text(&path).ok().and_then(|text| toml::from_str(&text).ok()) {
            return Ok(known);
        }
        let texts: Vec<String> = sample_texts().into_iter().take(TEXTS).collect();
        let fidelity = Self::measure(model, home, config, &texts)?;
        fidelity.keep(&path);
        Ok(fidelity)
    }

    /// Measures it on the texts given.
    ///
    /// # Errors
    /// Those of opening both encoders and of encoding.
    pub fn measure(
        model: &ModelDir,
        home: &Path,
        config: &EncoderConfig,
        texts: &[String],
    ) -> Result<Self, OpenError> {
        let encode = |precision: &str| {
            let config =
                EncoderConfig { device: "cpu".into(), precision: precision.into(), ..config.clone() };
            let embeddings = Encoder::open(model, home, &config)?.encode(texts, TextKind::Raw)?;
            Ok::<_, OpenError>(embeddings)
        };
        let (full, rounded) = (encode("fp32")?, encode("int8")?);
        let cosines: Vec<f64> =
            full.iter().zip(&rounded).map(|(a, b)| cosine(&a.values, &b.values)).collect();
        Ok(Fidelity {
            texts: cosines.len(),
            cosine_mean: cosines.iter().sum::<f64>() / cosines.len().max(1) as f64,
            cosine_least: cosines.iter().copied().fold(1.0, f64::min),
        })
    }

    /// Whether `auto` may take 8 bits.
    pub fn is_enough(&self) -> bool {
        self.cosine_mean >= COSINE_MEAN_MIN && self.cosine_least >= COSINE_LEAST_MIN
    }

    fn keep(&self, path: &Path) {
        let text = toml::to_string(self).expect("three numbers are TOML");
        if let Err(e) = std::fs::write(path, text) {
            tracing::warn!(path = %path.display(), error = %e, "will be measured again at the next start");
        }
    }
}

/// The path beside the packed graph, which has the model's fingerprint and its own version in its name.
fn path(model: &ModelDir) -> Result<PathBuf, OpenError> {
    Ok(model.onnx_path_of(Layout::Packed)?.with_extension("near"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::default_home, model::tests::tiny_copy};

    #[test]
    fn it_is_measured_once_and_what_was_kept_decides() {
        let (_home, model) = tiny_copy();
        let config = EncoderConfig { threads: 1, ..EncoderConfig::default() };
        let fidelity = Fidelity::of(&model, &default_home(), &config).unwrap();
        assert!(fidelity.is_enough() && fidelity.texts == TEXTS, "{fidelity:?}");
        let file = path(&model).unwrap();
        assert_eq!(toml::from_str::<Fidelity>(&std::fs::read_to_string(&file).unwrap()).unwrap(), fidelity);

        // A model that rounding ruins stays in full precision under `auto`, and says why.
        let ruined = Fidelity { cosine_mean: 0.9, ..fidelity };
        ruined.keep(&file);
        assert_eq!(Fidelity::of(&model, &default_home(), &config).unwrap(), ruined);
        let open = |precision: &str| {
            let config =
                EncoderConfig { device: "cpu".into(), precision: precision.into(), ..config.clone() };
            Encoder::open(&model, &default_home(), &config).unwrap()
        };
        if crate::runtime::has_fast_integers() {
            let auto = open("auto");
            assert_eq!(auto.device().device, "cpu (fp32)");
            assert!(auto.device().reason.contains("mean cosine 0.9"), "{}", auto.device().reason);
        }
        assert_eq!(open("int8").device().device, "cpu (int8)");
    }
}
