//! `distilface.json` of an exported model: what Hugging Face's and sentence-transformers' files cannot say, so that
//! importing the directory gives back the same model, fingerprint included.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::{Manifest, ModelError, Pooling, Prompts, checksum::FileSum, files, header};

/// The file that holds it.
pub(super) const EXPORTED_FILE: &str = "distilface.json";
/// The form that this version reads and writes.
const FORMAT: u32 = 1;

/// The part of a manifest that is not in the other files, or only roughly.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exported {
    /// [`FORMAT`].
    pub format: u32,
    pub pooling: Pooling,
    pub normalise: bool,
    pub max_tokens: usize,
    pub prompts: Prompts,
    pub licence: String,
    pub source: String,
    pub lineage: Vec<String>,
    /// Where the exported weights begin with another header than the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_header: Option<OwnHeader>,
}

/// The header of the model's `model.safetensors`, and the file that it belongs to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnHeader {
    /// Sum of the exported file: weights that changed since are a model of their own.
    pub exported_sha256: String,
    pub header: String,
}

impl Exported {
    pub fn new(manifest: &Manifest, own_header: Option<OwnHeader>) -> Self {
        let Manifest { pooling, normalise, max_tokens, .. } = *manifest;
        Exported {
            format: FORMAT,
            pooling,
            normalise,
            max_tokens,
            prompts: manifest.prompts.clone(),
            licence: manifest.licence.clone(),
            source: manifest.source.clone(),
            lineage: manifest.lineage.clone(),
            own_header,
        }
    }

    /// Reads the file of a directory; `None` where another tool made the directory.
    ///
    /// # Errors
    /// [`ModelError::Damaged`] for a file that is not of this form, [`ModelError::Unsupported`] for a newer one.
    pub fn read(from: &Path) -> Result<Option<Self>, ModelError> {
        let path = from.join(EXPORTED_FILE);
        let content = match files::read_text(&path, files::DESCRIPTION_BYTES_MAX) {
            Ok(content) => content,
            Err(ModelError::MissingFile { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged =
            |error: serde_json::Error| ModelError::Damaged { path: path.clone(), reason: error.to_string() };
        // The version comes first: a newer form may have keys that would only confuse here.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format } = serde_json::from_str(&content).map_err(damaged)?;
        if format != FORMAT {
            let reason = format!("its format is {format}, but this version reads {FORMAT}");
            return Err(ModelError::Unsupported { path, reason });
        }
        serde_json::from_str(&content).map_err(damaged).map(Some)
    }
}

impl OwnHeader {
    /// The model's own file, if `file` is what was exported of it; else `file`.
    pub fn restore(&self, file: Vec<u8>) -> Vec<u8> {
        if FileSum::of_bytes(&file).sha256 != self.exported_sha256 {
            return file;
        }
        match header::split(&file) {
            Some((_, tensors)) => header::join(&self.header, tensors),
            None => file,
        }
    }
}
