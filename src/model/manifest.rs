//! The [`Manifest`] is what a model directory says about itself in `model.toml`; it is checked when it is read.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    ModelError, TOKENIZER_FILE, WEIGHTS_FILE,
    checksum::{FileSum, hex},
};
use crate::{
    onnx::{Architecture, EncoderGraph, Pooling, Shape},
    vector::Dim,
};

/// The form of `model.toml` that this version reads and writes.
pub const MANIFEST_FORMAT: u32 = 1;

/// Fewest tokens a model may be limited to: the two special ones and one of text.
pub const MAX_TOKENS_LEAST: usize = 3;

/// Text put in front of what is encoded.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prompts {
    /// Goes in front of a query. Default: empty.
    pub query: String,
    /// Goes in front of a document. Default: empty.
    pub document: String,
}

/// The numbers that an encoder keeps and multiplies its weights in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Floating point, as trained.
    Full,
    /// 8-bit integers with scales calibrated once; for serving only.
    Int8,
}

impl Precision {
    /// Its name in manifests and reports.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Full => "full",
            Precision::Int8 => "int8",
        }
    }
}

/// How a model was rounded to fewer bits. The scales themselves stand in `model.safetensors`, under its
/// checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantised {
    /// The numbers that its weights are kept in.
    pub precision: Precision,
    /// Name of the model in full precision.
    pub from: String,
    /// Fingerprint of the model in full precision.
    pub from_fingerprint: Fingerprint,
    /// Number of texts that the scales were calibrated on.
    pub calibration_texts: usize,
    /// SHA-256 of those texts, each followed by a line feed, in hex.
    pub calibration_sha256: String,
}

/// The contents of `model.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file's form: [`MANIFEST_FORMAT`].
    pub format: u32,
    /// Name of the model: 1 to 64 letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Which encoder the weights are for.
    pub architecture: Architecture,
    /// Values of one vector, 1 to [`DIM_MAX`](crate::vector::DIM_MAX).
    pub dimension: u32,
    /// How token vectors become one vector.
    pub pooling: Pooling,
    /// Whether every vector is scaled to unit length.
    pub normalise: bool,
    /// Longest text in tokens, special tokens included; at least [`MAX_TOKENS_LEAST`].
    pub max_tokens: usize,
    /// Licence of the weights.
    pub licence: String,
    /// Where the weights come from.
    pub source: String,
    /// Lines about the data and settings of training. Default: empty.
    #[serde(default)]
    pub lineage: Vec<String>,
    /// Layers and sizes of the encoder.
    pub shape: Shape,
    /// Text put in front of queries and documents. Default: none.
    #[serde(default)]
    pub prompts: Prompts,
    /// How the weights were rounded; set only for a model made by `distilface model quantise`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantised: Option<Quantised>,
    /// Size and checksum of `model.safetensors` and `tokenizer.json`.
    pub files: BTreeMap<String, FileSum>,
}

/// Hash of weights, tokenizer, pooling and normalisation, in hex: vectors of two models with one fingerprint can
/// be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub String);

impl Manifest {
    /// The encoder that this manifest describes.
    pub(crate) fn graph(&self) -> EncoderGraph<'_> {
        EncoderGraph {
            architecture: self.architecture,
            shape: &self.shape,
            pooling: self.pooling,
            normalise: self.normalise,
            hidden_outputs: false,
        }
    }

    /// Reads and checks the text of a `model.toml`; `path` is for the errors.
    ///
    /// # Errors
    /// [`ModelError::Manifest`] naming the key.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ModelError> {
        let wrong = |reason: String| ModelError::Manifest { path: path.to_owned(), reason };
        // The version comes first: a newer form may have keys that would only confuse here.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format } = toml::from_str(text).map_err(|error| wrong(said(&error)))?;
        if format != MANIFEST_FORMAT {
            return Err(wrong(format!("its format is {format}, but this version reads {MANIFEST_FORMAT}")));
        }
        let manifest: Manifest = toml::from_str(text).map_err(|error| wrong(said(&error)))?;
        manifest.check().map_err(wrong)?;
        Ok(manifest)
    }

    /// Writes the text of a `model.toml`.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a manifest is plain strings, numbers and tables")
    }

    /// The numbers that it keeps its weights in.
    pub fn precision(&self) -> Precision {
        self.quantised.as_ref().map_or(Precision::Full, |quantised| quantised.precision)
    }

    /// The fingerprint that vectors of this model are recorded under.
    pub fn fingerprint(&self) -> Fingerprint {
        let Manifest { pooling, normalise, .. } = self;
        let mut hasher = Sha256::new();
        hasher.update("distilface fingerprint 1\n");
        for name in [WEIGHTS_FILE, TOKENIZER_FILE] {
            hasher.update(format!("{name} {}\n", self.file(name).sha256));
        }
        hasher.update(format!("pooling {}\nnormalise {normalise}\n", pooling.name()));
        Fingerprint(hex(&hasher.finalize()))
    }

    /// Size and checksum that one of the two files must have.
    pub(super) fn file(&self, name: &str) -> &FileSum {
        self.files.get(name).expect("a manifest is checked to name both files")
    }

    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        self.shape.check().map_err(|error| error.to_string())?;
        Dim::new(self.dimension).map_err(|error| error.to_string())?;
        self.shape.check_pooling(self.pooling).map_err(|error| error.to_string())?;
        let dimension = self.pooling.dimension(self.shape.hidden);
        if self.dimension as usize != dimension {
            return Err(format!(
                "dimension is {}, but shape.hidden is {} and pooling {} makes {dimension} of it",
                self.dimension,
                self.shape.hidden,
                self.pooling.name()
            ));
        }
        if !(MAX_TOKENS_LEAST..=self.shape.positions).contains(&self.max_tokens) {
            return Err(format!(
                "max_tokens is {}; allowed: {MAX_TOKENS_LEAST} to the {} positions of the model",
                self.max_tokens, self.shape.positions
            ));
        }
        if self.quantised.is_some() && self.precision() == Precision::Full {
            return Err(
                "quantised.precision is \"full\", but a model in full precision has no such table".into()
            );
        }
        let names: Vec<&str> = self.files.keys().map(String::as_str).collect();
        if names != [WEIGHTS_FILE, TOKENIZER_FILE] {
            return Err(format!(
                "files must be {WEIGHTS_FILE} and {TOKENIZER_FILE}, got {}",
                names.join(", ")
            ));
        }
        for (name, sum) in &self.files {
            let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            if sum.sha256.len() != 64 || !sum.sha256.bytes().all(is_hex) {
                return Err(format!("sha256 of {name} must be 64 lowercase hexadecimal digits"));
            }
        }
        Ok(())
    }
}

/// Names are folder names on every system: letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && name.len() <= 64 && name.chars().all(plain) {
        return Ok(());
    }
    Err(format!(
        "{name:?} cannot be a model's name; allowed: 1 to 64 letters, digits, '.', '_' and '-', beginning with a \
         letter or digit"
    ))
}

/// One line, with the line number that the long form draws.
fn said(error: &toml::de::Error) -> String {
    error.to_string().lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
