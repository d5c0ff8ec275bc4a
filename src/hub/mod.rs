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

/// What [`ModelDir::import`] cannot read from the directory. `None` means that the directory's value is used,
/// or else the default.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name of the new model: 1 to 64 letters, digits, `.`, `_` and `-`. Default: the directory's own name.
    pub name: Option<String>,
    /// How token vectors become one vector. Default: the directory's way, else the mean.
    pub pooling: Option<Pooling>,
    /// Whether every vector is scaled to unit length. Default: as the directory says.
    pub normalise: Option<bool>,
    /// Longest text in tokens, special tokens included; 3 to the positions that it has.
    /// Default: as the directory says, else all of them.
    pub max_tokens: Option<usize>,
    /// Licence of the weights. Default: the directory's, else `unknown`.
    pub licence: Option<String>,
    /// Where the weights come from. Default: as the directory says, else its name.
    pub source: Option<String>,
    /// Text put in front of queries and documents. Default: the directory's, else none.
    pub prompts: Option<Prompts>,
    /// Replace a model of this name. Default: no.
    pub force: bool,
}
