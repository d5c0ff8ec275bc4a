//! A model directory: manifest, checksums, import, fingerprint.
//!
//! `model.toml`, `model.safetensors`, `tokenizer.json`, and the ONNX files generated from them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;

/// Which encoder the weights are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Architecture {
    Bert,
    Distilbert,
}

/// How token vectors become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum Pooling {
    Cls,
    Mean,
    Max,
}

/// Shape of the encoder, as in Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub struct Shape {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub intermediate: usize,
    pub vocabulary: usize,
    pub positions: usize,
    pub type_vocabulary: usize,
    pub layer_norm_eps: f32,
}

/// Text put in front of what is encoded.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Prompts {
    pub query: String,
    pub document: String,
}

/// `model.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Manifest {
    /// Version of this file's form; 1.
    pub format: u32,
    pub name: String,
    pub architecture: Architecture,
    pub dimension: u32,
    pub pooling: Pooling,
    pub normalise: bool,
    /// Special tokens included.
    pub max_tokens: usize,
    pub licence: String,
    /// Where the weights come from.
    pub source: String,
    #[serde(default)]
    pub lineage: Vec<String>,
    pub shape: Shape,
    #[serde(default)]
    pub prompts: Prompts,
    /// File name -> SHA-256 in hex, for `model.safetensors` and `tokenizer.json`.
    pub sha256: std::collections::BTreeMap<String, String>,
}

/// Hash of weights, tokenizer and pooling: vectors of two models with one fingerprint can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub String);

/// An opened model directory whose manifest was read and whose files are there with the right sizes.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ModelDir {
    pub path: PathBuf,
    pub manifest: Manifest,
    pub fingerprint: Fingerprint,
}

impl ModelDir {
    /// Finds a model by name under `home/models`, or by path.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] naming what there is and how to get the default model; manifest and file errors.
    pub fn find(_home: &Path, _name_or_path: &str) -> Result<Self, ModelError> {
        unimplemented!()
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`], [`ModelError::Manifest`].
    pub fn open(_path: &Path) -> Result<Self, ModelError> {
        unimplemented!()
    }

    /// All models under `home/models`, by name; broken ones as errors.
    pub fn list(_home: &Path) -> Vec<Result<Self, ModelError>> {
        unimplemented!()
    }

    /// Reads every file and compares its SHA-256 with the manifest.
    ///
    /// # Errors
    /// [`ModelError::Checksum`], [`ModelError::MissingFile`].
    pub fn verify(&self) -> Result<(), ModelError> {
        unimplemented!()
    }

    /// Path of `tokenizer.json`.
    pub fn tokenizer_path(&self) -> PathBuf {
        self.path.join("tokenizer.json")
    }

    /// The encoder as an ONNX file, written from the weights at the first call and whenever the writer's version
    /// or the fingerprint changed. Inputs `input_ids` and `attention_mask` int64 `[batch, seq]`;
    /// output `embedding` float32 `[batch, dimension]`, pooled and (if the manifest says so) normalised.
    ///
    /// # Errors
    /// [`ModelError::Onnx`], io errors.
    pub fn onnx_path(&self) -> Result<PathBuf, ModelError> {
        unimplemented!()
    }

    /// Makes a model directory `home/models/NAME` from a Hugging Face directory of a BERT or DistilBERT encoder
    /// (`config.json`, `model.safetensors`, `tokenizer.json` or `vocab.txt`; sentence-transformers' module files
    /// give pooling, normalisation and maximal length if they are there).
    ///
    /// # Errors
    /// [`ModelError::Unsupported`], [`ModelError::Exists`], file errors.
    pub fn import(_home: &Path, _from: &Path, _options: ImportOptions) -> Result<Self, ModelError> {
        unimplemented!()
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

/// What is wrong with a model directory.
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
    #[error("model file {} cannot be read: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} is not a model that distilface can run: {reason}", path.display())]
    Unsupported { path: PathBuf, reason: String },
    #[error("a model named {name:?} exists; choose another --name, or --force to replace it")]
    Exists { name: String },
    #[error("cannot read or write {}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("cannot write the ONNX graph of {}", path.display())]
    Onnx { path: PathBuf, source: crate::onnx::OnnxError },
}

impl ModelError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ModelError::NotFound { .. } => ErrorKind::NotFound,
            ModelError::Exists { .. } => ErrorKind::Exists,
            ModelError::Unsupported { .. } => ErrorKind::Invalid,
            ModelError::MissingFile { .. } | ModelError::Manifest { .. } | ModelError::Onnx { .. } => {
                ErrorKind::Precondition
            }
            ModelError::Checksum { .. } | ModelError::Damaged { .. } => ErrorKind::Corrupt,
            ModelError::Io { .. } => ErrorKind::Internal,
        }
    }
}
