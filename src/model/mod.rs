//! A model directory: manifest, checksums, fingerprint.
//!
//! `model.toml`, `model.safetensors`, `tokenizer.json`, and `onnx/` generated from them. Whatever made it (import,
//! setup, later training), it is opened in one way. Opening reads the manifest and compares sizes; checksums are
//! compared by [`ModelDir::verify`] and before anything is generated from the weights.
//! Deliberately absent: the tokenizer's inside, sessions.

pub(crate) mod checksum;
pub(crate) mod create;
pub(crate) mod files;
mod generated;
pub(crate) mod header;
pub(crate) mod manifest;
mod quantised;
mod random;
mod sample;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    error::{ErrorKind, Fault},
    onnx::Weights,
};

use crate::onnx::Layout;
pub use crate::onnx::{Architecture, Pooling, Shape};
pub use checksum::FileSum;
pub use create::NewModel;
pub use manifest::{Fingerprint, MANIFEST_FORMAT, MAX_TOKENS_LEAST, Manifest, Precision, Prompts, Quantised};
pub use quantised::NewQuantised;
pub use random::RandomOptions;
pub use sample::sample_texts;

/// The file that makes a folder a model directory.
pub const MANIFEST_FILE: &str = "model.toml";
/// The weights, under Hugging Face's tensor names.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The tokenizer, in the form of Hugging Face's `tokenizers`.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Folder of the models under the home folder.
pub(crate) const MODELS_FOLDER: &str = "models";

/// An opened model directory. Its manifest was read, and its files exist with the right sizes.
///
/// ```
/// use distilface::model::ModelDir;
///
/// let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny");
/// let model = ModelDir::open(tiny.as_ref()).unwrap();
/// model.verify().unwrap();
/// assert!(model.manifest.dimension > 0);
/// ```
#[derive(Debug, Clone)]
pub struct ModelDir {
    /// The directory.
    pub path: PathBuf,
    /// What `model.toml` says.
    pub manifest: Manifest,
    /// Identifies the vectors that this model makes; see [`Fingerprint`].
    pub fingerprint: Fingerprint,
}

impl ModelDir {
    /// Finds a model by name under `home/models`, or by path.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] naming what there is and how to get the default model; manifest and file errors.
    pub fn find(home: &Path, name_or_path: &str) -> Result<Self, ModelError> {
        match ModelDir::find_named(home, name_or_path) {
            Err(ModelError::NotFound { .. }) if Path::new(name_or_path).is_dir() => {
                ModelDir::open(Path::new(name_or_path))
            }
            found => found,
        }
    }

    /// [`ModelDir::find`] by name alone.
    ///
    /// # Errors
    /// As [`ModelDir::find`].
    pub fn find_named(home: &Path, name: &str) -> Result<Self, ModelError> {
        let models = home.join(MODELS_FOLDER);
        if manifest::check_name(name).is_ok() {
            let path = models.join(name);
            if path.is_dir() {
                return ModelDir::open(&path);
            }
        }
        let known: Vec<String> = folders(&models)
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(ModelError::NotFound { name: name.to_owned(), known })
    }

    /// Opens a directory. Cost: reads the manifest and compares file sizes; no file is read whole.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`], [`ModelError::Manifest`], [`ModelError::Damaged`] for a file of another size.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let manifest_path = path.join(MANIFEST_FILE);
        let text = files::read(&manifest_path, files::DESCRIPTION_BYTES_MAX)?;
        let text = String::from_utf8(text).map_err(|error| ModelError::Manifest {
            path: manifest_path.clone(),
            reason: format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()),
        })?;
        let manifest = Manifest::parse(&text, &manifest_path)?;
        for (name, expected) in &manifest.files {
            let path = path.join(name);
            let metadata = fs::metadata(&path).map_err(|source| ModelError::from_io(&path, source))?;
            if !metadata.is_file() {
                return Err(ModelError::MissingFile { path });
            }
            if metadata.len() != expected.bytes {
                let reason = format!("it has {} bytes, expected {}", metadata.len(), expected.bytes);
                return Err(ModelError::Damaged { path, reason });
            }
        }
        Ok(ModelDir { path: path.to_owned(), fingerprint: manifest.fingerprint(), manifest })
    }

    /// All models under `home/models`, by name; broken ones as errors.
    pub fn list(home: &Path) -> Vec<Result<Self, ModelError>> {
        folders(&home.join(MODELS_FOLDER)).iter().map(|path| ModelDir::open(path)).collect()
    }

    /// Reads every file and compares its SHA-256 with the manifest.
    ///
    /// # Errors
    /// [`ModelError::Checksum`], [`ModelError::MissingFile`].
    pub fn verify(&self) -> Result<(), ModelError> {
        for name in self.manifest.files.keys() {
            let path = self.path.join(name);
            let got = FileSum::of_file(&path).map_err(|source| ModelError::from_io(&path, source))?;
            self.compare(name, &got)?;
        }
        Ok(())
    }

    /// Path of `tokenizer.json`.
    pub fn tokenizer_path(&self) -> PathBuf {
        self.path.join(TOKENIZER_FILE)
    }

    /// Path of `model.safetensors`.
    pub fn weights_path(&self) -> PathBuf {
        self.path.join(WEIGHTS_FILE)
    }

    /// The weights, compared with their recorded sum: a damaged file would give wrong vectors for ever after.
    ///
    /// # Errors
    /// [`ModelError::Checksum`], [`ModelError::Onnx`] if it is no safetensors file, io errors.
    pub fn weights(&self) -> Result<Weights, ModelError> {
        let path = self.weights_path();
        let content = files::read(&path, files::WEIGHTS_BYTES_MAX)?;
        self.compare(WEIGHTS_FILE, &FileSum::of_bytes(&content))?;
        Weights::new(content).map_err(|source| ModelError::Onnx { path, source })
    }

    /// The encoder as an ONNX file, written from the weights at the first call and whenever the writer's version
    /// or the fingerprint changed. Inputs `input_ids` and `attention_mask` int64 `[batch, seq]`;
    /// output `embedding` float32 `[batch, dimension]`, pooled and (if the manifest says so) normalised.
    ///
    /// It lies in `onnx/` of the model directory, or in the user's cache folder where that cannot be written.
    ///
    /// # Errors
    /// [`ModelError::Checksum`] for damaged weights, [`ModelError::Onnx`], io errors.
    pub fn onnx_path(&self) -> Result<PathBuf, ModelError> {
        self.onnx_path_of(Layout::Padded)
    }

    /// [`ModelDir::onnx_path`] in a given layout: packed, the inputs are `input_ids` and `positions`, int64 `[tokens]`,
    /// and `starts`, int64 `[batch + 1]`, and linear layers compute in 8 bits.
    ///
    /// # Errors
    /// As [`ModelDir::onnx_path`]; [`ModelError::Onnx`] for the packed graph of weights that are in 8 bits already.
    pub fn onnx_path_of(&self, layout: Layout) -> Result<PathBuf, ModelError> {
        generated::onnx_path(self, layout)
    }

    /// Makes a model directory `home/models/NAME` of a given shape with random weights and the tokenizer of
    /// `vocabulary`.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for a shape that no encoder has, [`ModelError::Exists`], file errors.
    pub fn random(home: &Path, vocabulary: &ModelDir, options: &RandomOptions) -> Result<Self, ModelError> {
        random::random(home, vocabulary, options)
    }

    fn compare(&self, name: &str, got: &FileSum) -> Result<(), ModelError> {
        let expected = self.manifest.file(name);
        if expected == got {
            return Ok(());
        }
        Err(ModelError::Checksum {
            path: self.path.join(name),
            expected: expected.sha256.clone(),
            got: got.sha256.clone(),
        })
    }
}

/// Folders that should be models, by name; a folder that is not there has none.
fn folders(models: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(models)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    paths.sort();
    paths
}

/// Why a model directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ModelError {
    #[error(
        "no model {name:?} (there are: {known}); run `distilface setup` for the default model, or `distilface model import DIR`"
    )]
    NotFound { name: String, known: String },
    #[error("model file {} is missing; run `distilface setup --force` or import the model again", path.display())]
    MissingFile { path: PathBuf },
    #[error("model manifest {} is not right: {reason}", path.display())]
    Manifest { path: PathBuf, reason: String },
    #[error("model file {} is not what its manifest says (sha256 {got}, expected {expected}); run `distilface setup --force` or import the model again", path.display())]
    Checksum { path: PathBuf, expected: String, got: String },
    #[error("model file {} is damaged: {reason}; run `distilface setup --force` or import the model again", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} is not a model that distilface can run: {reason}", path.display())]
    Unsupported { path: PathBuf, reason: String },
    #[error("a model named {name:?} exists; choose another --name, or --force to replace it")]
    Exists { name: String },
    #[error("cannot export to {}: {reason}", path.display())]
    Occupied { path: PathBuf, reason: String },
    #[error(
        "model {name:?} holds {} weights, which can only be served; use {from:?}, the model it was made from",
        precision.name()
    )]
    Quantised { name: String, precision: Precision, from: String },
    #[error("cannot read or write {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot write the ONNX graph of {}", path.display())]
    Onnx { path: PathBuf, source: crate::onnx::OnnxError },
}

impl ModelError {
    /// Distinguishes a missing file, since only that has its own way out.
    pub(crate) fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => ModelError::MissingFile { path },
            _ => ModelError::Io { path, source },
        }
    }
}

impl Fault for ModelError {
    fn kind(&self) -> ErrorKind {
        match self {
            ModelError::NotFound { .. } => ErrorKind::NotFound,
            ModelError::Exists { .. } | ModelError::Occupied { .. } => ErrorKind::Exists,
            ModelError::Unsupported { .. } => ErrorKind::Invalid,
            ModelError::MissingFile { .. }
            | ModelError::Manifest { .. }
            | ModelError::Onnx { .. }
            | ModelError::Quantised { .. } => ErrorKind::Precondition,
            ModelError::Checksum { .. } | ModelError::Damaged { .. } => ErrorKind::Corrupt,
            ModelError::Io { .. } => ErrorKind::Internal,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) mod tiny;
