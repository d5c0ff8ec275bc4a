//! Trained weights become a model directory like that of the model they began as.

use std::{collections::BTreeMap, fs, path::Path};

use super::{
    MANIFEST_FILE, MODELS_FOLDER, Manifest, ModelDir, ModelError, Pooling, Quantised, TOKENIZER_FILE,
    WEIGHTS_FILE, checksum::FileSum, files, manifest::check_name,
};
use crate::{files::write_whole, onnx::Weights};

/// The parts that a new model is made from.
#[derive(Debug)]
pub struct NewModel<'a> {
    /// The new model's name: 1 to 64 letters, digits, `.`, `_` and `-`.
    pub name: &'a str,
    /// Gives architecture, shape, tokenizer, prompts, normalisation and licence.
    pub base: &'a ModelDir,
    /// How token vectors become one vector.
    pub pooling: Pooling,
    /// A whole safetensors file.
    pub weights: Vec<u8>,
    /// Where the weights come from, for the manifest.
    pub source: String,
    /// Lines about data and settings, for the manifest; may be empty.
    pub lineage: Vec<String>,
    /// How the weights were rounded; `None` for weights in the base's precision.
    pub quantised: Option<Quantised>,
    /// Whether a model of this name is replaced; otherwise it is an error. No default.
    pub force: bool,
}

impl ModelDir {
    /// Whether a model of this name can be made, so that it can be said before anything is computed.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for a name that is none, [`ModelError::Exists`].
    pub fn check_new(home: &Path, name: &str, force: bool) -> Result<(), ModelError> {
        let target = home.join(MODELS_FOLDER).join(name);
        check_name(name).map_err(|reason| ModelError::Unsupported { path: target.clone(), reason })?;
        if target.exists() && !force {
            return Err(ModelError::Exists { name: name.to_owned() });
        }
        Ok(())
    }

    /// Makes the directory `home/models/NAME`, whole or not at all.
    ///
    /// # Errors
    /// As [`ModelDir::check_new`]; [`ModelError::Onnx`] for weights that are not those of the base's shape; file errors.
    pub fn create(home: &Path, new: NewModel<'_>) -> Result<Self, ModelError> {
        ModelDir::check_new(home, new.name, new.force)?;
        let models = home.join(MODELS_FOLDER);
        let target = models.join(new.name);
        let base = &new.base.manifest;
        let tokenizer_path = new.base.tokenizer_path();
        let tokenizer =
            fs::read_to_string(&tokenizer_path).map_err(|e| ModelError::from_io(&tokenizer_path, e))?;
        let manifest = Manifest {
            name: new.name.to_owned(),
            dimension: new.pooling.dimension(base.shape.hidden) as u32,
            pooling: new.pooling,
            source: new.source,
            lineage: new.lineage,
            quantised: new.quantised,
            files: BTreeMap::from([
                (WEIGHTS_FILE.to_owned(), FileSum::of_bytes(&new.weights)),
                (TOKENIZER_FILE.to_owned(), FileSum::of_bytes(tokenizer.as_bytes())),
            ]),
            ..base.clone()
        };
        Manifest::parse(&manifest.to_toml(), &target.join(MANIFEST_FILE))?;
        let weights = bytes::Bytes::from(new.weights);
        Weights::new(weights.clone())
            .and_then(|weights| manifest.graph().model(&weights))
            .map_err(|source| ModelError::Onnx { path: target.join(WEIGHTS_FILE), source })?;
        place(&target, &manifest, &weights, &tokenizer)?;
        ModelDir::open(&target)
    }
}

/// Makes the directory whole, or not at all; one that was there before is replaced.
pub(crate) fn place(
    target: &Path,
    manifest: &Manifest,
    weights: &[u8],
    tokenizer: &str,
) -> Result<(), ModelError> {
    files::replace_folder(target, |building| {
        for (name, content) in [
            (WEIGHTS_FILE, weights),
            (TOKENIZER_FILE, tokenizer.as_bytes()),
            (MANIFEST_FILE, manifest.to_toml().as_bytes()),
        ] {
            let path = building.join(name);
            write_whole(&path, content).map_err(|source| ModelError::Io { path, source })?;
        }
        Ok(())
    })
}
