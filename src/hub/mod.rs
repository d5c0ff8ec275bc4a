//! Models in and out: a Hugging Face directory becomes a model directory and back, and a hub's files come into its cache.

use std::path::Path;

use crate::model::{Architecture, MODELS_FOLDER, ModelDir, ModelError, Pooling, Prompts, Shape};

mod export;
mod exported;
mod import;
mod pull;
pub(crate) mod wordpiece;

pub use export::Export;
pub use pull::{Hub, PullError, PullEvent, Pulled, Repository};

impl ModelDir {
    /// Makes a model directory `home/models/NAME` from a Hugging Face directory of a BERT or DistilBERT encoder
    /// (`config.json`, `model.safetensors`, `tokenizer.json` or `vocab.txt`; sentence-transformers' module files
    /// give pooling, normalisation and maximal length if they are there).
    ///
    /// # Errors
    /// [`ModelError::Unsupported`], [`ModelError::Exists`], file errors.
    pub fn import(home: &Path, from: &Path, options: ImportOptions) -> Result<Self, ModelError> {
        import::import(&home.join(MODELS_FOLDER), from, options)
    }

    /// Which encoder a Hugging Face directory holds, by its `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`], [`ModelError::MissingFile`].
    pub fn encoder_of(from: &Path) -> Result<(Architecture, Shape), ModelError> {
        import::encoder_of(from)
    }

    /// Writes the model as a Hugging Face directory `target`, which transformers opens, and sentence-transformers
    /// too if it has a module for the pooling. [`ModelDir::import`] makes the same model of it.
    ///
    /// `force` replaces an exported model that is there; any other folder with something in it is left alone.
    ///
    /// # Errors
    /// [`ModelError::Occupied`], [`ModelError::Checksum`] for damaged weights, file errors. Nothing is left then.
    pub fn export(&self, target: &Path, force: bool) -> Result<Export, ModelError> {
        export::export(self, target, force)
    }
}

/// What [`ModelDir::import`] cannot read from the directory. `None`: read it, else the default.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ImportOptions {
    pub name: Option<String>,
    pub pooling: Option<Pooling>,
    pub normalise: Option<bool>,
    pub max_tokens: Option<usize>,
    pub licence: Option<String>,
    pub source: Option<String>,
    pub prompts: Option<Prompts>,
    /// Replace a model of this name.
    pub force: bool,
}
