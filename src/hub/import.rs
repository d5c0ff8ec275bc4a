//! Makes a model directory from a Hugging Face directory.
//!
//! Reads `config.json`, `model.safetensors`, `tokenizer.json` (or `vocab.txt`), and what sentence-transformers puts
//! beside them, and `distilface.json` of an exported model. What the encoder could not do faithfully is refused by name, never approximated. Config and weights
//! are checked against each other tensor by tensor before anything appears under `models/`, and the directory
//! appears whole, by a rename. Deliberately absent: other formats of weights, downloads.

mod hub;

use std::{collections::BTreeMap, path::Path};

use super::ImportOptions;
use crate::{
    model::{
        Architecture, MANIFEST_FILE, MANIFEST_FORMAT, MAX_TOKENS_LEAST, Manifest, ModelDir, ModelError,
        Pooling, Shape, TOKENIZER_FILE, WEIGHTS_FILE, checksum::FileSum, create::place, files,
        manifest::check_name,
    },
    onnx::{OnnxError, Weights},
};
use hub::Source;

/// Imports `from` into the folder `models`.
pub(super) fn import(models: &Path, from: &Path, options: ImportOptions) -> Result<ModelDir, ModelError> {
    let name = match options.name {
        Some(name) => name,
        None => name_of(from),
    };
    check_name(&name).map_err(|reason| unsupported(from, reason))?;
    let target = models.join(&name);
    if target.exists() && !options.force {
        return Err(ModelError::Exists { name });
    }

    let source = Source::read(from)?;
    source.check_weights_there()?;
    let tokenizer = source.tokenizer()?;
    let positions = source.shape.positions;
    let max_tokens = match options.max_tokens {
        Some(asked) => asked,
        None => source.max_tokens.unwrap_or(positions).min(positions),
    };
    if !(MAX_TOKENS_LEAST..=positions).contains(&max_tokens) {
        let reason = format!(
            "max tokens {max_tokens} is not between {MAX_TOKENS_LEAST} and its {positions} positions"
        );
        return Err(unsupported(from, reason));
    }

    let weights_path = source.folder.join(WEIGHTS_FILE);
    let content = files::read(&weights_path, files::WEIGHTS_BYTES_MAX)?;
    let content = match &source.header {
        Some(header) => header.restore(content),
        None => content,
    };
    let pooling = options.pooling.or(source.pooling).unwrap_or(Pooling::Mean);
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        name,
        architecture: source.architecture,
        dimension: pooling.dimension(source.shape.hidden) as u32,
        pooling,
        normalise: options.normalise.unwrap_or(source.normalise),
        max_tokens,
        licence: options.licence.or(source.licence).unwrap_or_else(|| "unknown".into()),
        source: options.source.or(source.name).unwrap_or_else(|| name_of(from)),
        lineage: source.lineage,
        shape: source.shape,
        prompts: options.prompts.unwrap_or(source.prompts),
        quantised: None,
        files: BTreeMap::from([
            (WEIGHTS_FILE.to_owned(), FileSum::of_bytes(&content)),
            (TOKENIZER_FILE.to_owned(), FileSum::of_bytes(tokenizer.as_bytes())),
        ]),
    };
    // The checks of opening hold here too: better now, with the source at hand.
    Manifest::parse(&manifest.to_toml(), &target.join(MANIFEST_FILE))?;
    let content = check_weights(&manifest, content, &weights_path)?;
    place(&target, &manifest, &content, &tokenizer)?;
    ModelDir::open(&target)
}

/// Whether what a directory says about itself, but for its weights and tokenizer, is something we can run: known from
/// small files, before large ones are fetched.
pub(super) fn check_encoder(from: &Path) -> Result<(), ModelError> {
    Source::read(from).map(drop)
}

/// Architecture and shape by `config.json`.
pub(super) fn encoder_of(from: &Path) -> Result<(Architecture, Shape), ModelError> {
    let source = Source::read(from)?;
    Ok((source.architecture, source.shape))
}

/// Writes the graph once and throws it away: every tensor is there, in its shape, in a type we read, of finite values.
fn check_weights(manifest: &Manifest, content: Vec<u8>, path: &Path) -> Result<bytes::Bytes, ModelError> {
    let content = bytes::Bytes::from(content);
    let graph = manifest.graph();
    Weights::new(content.clone()).and_then(|weights| graph.model(&weights)).map_err(
        |source| match source {
            source @ OnnxError::NotFinite { .. } => unsupported(path, source.to_string()),
            source => ModelError::Onnx { path: path.to_owned(), source },
        },
    )?;
    Ok(content)
}

fn name_of(from: &Path) -> String {
    let whole = from.canonicalize().unwrap_or_else(|_| from.to_owned());
    whole.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn unsupported(path: &Path, reason: impl Into<String>) -> ModelError {
    ModelError::Unsupported { path: path.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests;
