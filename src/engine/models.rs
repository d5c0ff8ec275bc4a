//! Which encoder serves what: the default one, the one a request names, the one a collection was made with.
//!
//! A collection's model is loaded when the collection first needs it; looking one up among the loaded ones costs nothing
//! that a query would feel.

use std::{path::Path, sync::Arc};

use super::{CollectionInfo, Engine, EngineError, error::Result, short};
use crate::{
    encoder::{Encoder, Encoders},
    model::{Fingerprint, ModelDir},
};

impl Engine {
    /// Those that are loaded; `None` where the process runs without an encoder.
    pub fn encoders(&self) -> Option<&Arc<Encoders>> {
        self.encoders.as_ref()
    }

    /// The default one; `None` where the process runs without an encoder.
    pub fn encoder(&self) -> Option<Arc<Encoder>> {
        self.encoders.as_ref().map(|encoders| encoders.default_encoder())
    }

    /// The encoder of an installed model, loaded if need be; the default one for an empty name.
    ///
    /// # Errors
    /// [`EngineError::EncoderOff`]; those of finding and opening the model.
    pub async fn encoder_named(&self, model: &str) -> Result<Arc<Encoder>> {
        let encoders = self.encoders.as_ref().ok_or(EngineError::EncoderOff)?;
        if model.is_empty() {
            return Ok(encoders.default_encoder());
        }
        let name = model.to_owned();
        blocking(encoders, move |encoders| Ok(encoders.get(&encoders.find(&name)?)?)).await
    }

    /// Makes an installed model the default from now on: for new collections, and for texts whose request names none.
    /// It is loaded first; requests go on all the while, and those under way end with the encoder they began with.
    /// Until the process ends; the setting `encoder.model` stays what it is.
    ///
    /// # Errors
    /// As [`Engine::encoder_named`]; the default stays what it was.
    pub async fn use_model(&self, model: &str) -> Result<Arc<Encoder>> {
        self.check_open()?;
        let encoders = self.encoders.as_ref().ok_or(EngineError::EncoderOff)?;
        let name = model.to_owned();
        let encoder =
            blocking(encoders, move |encoders| Ok(encoders.set_default(&encoders.find(&name)?)?)).await?;
        tracing::info!(
            model = encoder.name(),
            fingerprint = short(&encoder.fingerprint().0),
            "default model"
        );
        Ok(encoder)
    }

    /// The encoder for a collection's texts, loaded if need be: none for `vectors_only`.
    pub(super) async fn encoder_for(&self, info: &CollectionInfo) -> Result<Option<Arc<Encoder>>> {
        let Some(model) = &info.model else { return Ok(None) };
        let encoders =
            self.encoders.as_ref().ok_or_else(|| EngineError::NoEncoder { collection: info.name.clone() })?;
        if let Some(encoder) = encoders.loaded(&model.fingerprint) {
            return Ok(Some(encoder));
        }
        let (collection, model, home) = (info.name.clone(), model.clone(), self.config.data.home.clone());
        blocking(encoders, move |encoders| match encoders.find_fingerprint(&model.fingerprint) {
            Some(found) => Ok(Some(encoders.get(&found)?)),
            // The list reads every manifest, as the look for this one did.
            None => Err(EngineError::WrongModel {
                collection,
                name: model.name,
                fingerprint: short(&model.fingerprint.0),
                known: listed(installed(&home, Some(&encoders.default_encoder()))),
            }),
        })
        .await
    }
}

/// Loading takes a second or more: on a blocking thread of tokio's, not on one of the few that compute.
async fn blocking<T: Send + 'static>(
    encoders: &Arc<Encoders>,
    work: impl FnOnce(&Encoders) -> Result<T> + Send + 'static,
) -> Result<T> {
    let encoders = Arc::clone(encoders);
    tokio::task::spawn_blocking(move || work(&encoders))
        .await
        .map_err(|e| EngineError::Panicked { reason: format!("loading a model: {e}") })?
}

/// Why texts cannot be encoded for a collection with what is installed, if so. Reads every model's manifest.
pub(super) fn missing_model(
    home: &Path,
    default: Option<&Encoder>,
    info: &CollectionInfo,
) -> Option<EngineError> {
    let model = info.model.as_ref()?;
    let installed = installed(home, default);
    if installed.iter().any(|(_, fingerprint)| *fingerprint == model.fingerprint) {
        return None;
    }
    Some(EngineError::WrongModel {
        collection: info.name.clone(),
        name: model.name.clone(),
        fingerprint: short(&model.fingerprint.0),
        known: listed(installed),
    })
}

fn installed(home: &Path, default: Option<&Encoder>) -> Vec<(String, Fingerprint)> {
    let installed = ModelDir::list(home).into_iter().flatten();
    let default = default.map(|default| (default.name().to_owned(), default.fingerprint().clone()));
    default.into_iter().chain(installed.map(|m| (m.manifest.name.clone(), m.fingerprint))).collect()
}

/// Models with the beginning of their fingerprints.
fn listed(models: Vec<(String, Fingerprint)>) -> String {
    let mut all: Vec<String> =
        models.into_iter().map(|(name, fingerprint)| format!("{name} ({})", short(&fingerprint.0))).collect();
    all.sort();
    all.dedup();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
