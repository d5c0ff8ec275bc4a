//! The registry holds the encoders of one process. A model is loaded when something first needs it, shared by all
//! callers that do, and dropped when none has needed it for a while.
//!
//! They are distinguished by fingerprint, so a new model under an old name is another one, and both can be loaded at
//! once. A caller that holds an encoder keeps it: dropping it here, or replacing the default, ends no request.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc},
    time::{Duration, Instant},
};

use super::{Common, Encoder, EncoderCounters, OpenError};
use crate::{
    config::EncoderConfig,
    model::{Fingerprint, ModelDir, ModelError},
};

/// The loaded encoders. No method waits unless its documentation says so.
#[derive(Debug)]
pub struct Encoders {
    inner: Arc<Inner>,
    /// The thread that unloads ends when this goes.
    _unloading: Option<mpsc::Sender<()>>,
}

#[derive(Debug)]
struct Inner {
    home: PathBuf,
    config: EncoderConfig,
    common: Arc<Common>,
    state: Mutex<State>,
    /// Held while a model is loaded: a caller that needs the same one meanwhile waits for it instead of loading it
    /// again.
    loading: Mutex<()>,
}

#[derive(Debug)]
struct State {
    default: Arc<Encoder>,
    /// All encoders but the default.
    others: HashMap<Fingerprint, Loaded>,
}

#[derive(Debug)]
struct Loaded {
    encoder: Arc<Encoder>,
    used_at: Instant,
}

impl Encoders {
    /// Loads `config.model`, the default, with libraries from `home`. Slow.
    ///
    /// # Errors
    /// Those of [`ModelDir::find`] and [`Encoder::open`].
    pub fn open(home: PathBuf, config: EncoderConfig) -> Result<Self, OpenError> {
        let common = Arc::<Common>::default();
        let model = ModelDir::find(&home, &config.model)?;
        let default = Arc::new(Encoder::open_among(&model, &home, &config, Arc::clone(&common))?);
        let state = Mutex::new(State { default, others: HashMap::new() });
        let unload_after = config.unload_after;
        let inner = Arc::new(Inner { home, config, common, state, loading: Mutex::default() });
        let unloading = (!unload_after.is_zero()).then(|| unload_idle(Arc::downgrade(&inner), unload_after));
        Ok(Encoders { inner, _unloading: unloading.transpose()? })
    }

    /// The default encoder, which serves where no model is named.
    pub fn default_encoder(&self) -> Arc<Encoder> {
        Arc::clone(&self.inner.lock().default)
    }

    /// The loaded encoder with this fingerprint.
    pub fn loaded(&self, fingerprint: &Fingerprint) -> Option<Arc<Encoder>> {
        self.inner.loaded(fingerprint)
    }

    /// All loaded encoders: the default, then the others by name.
    pub fn all(&self) -> Vec<Arc<Encoder>> {
        let state = self.inner.lock();
        let mut others: Vec<_> = state.others.values().map(|l| Arc::clone(&l.encoder)).collect();
        others.sort_by(|a, b| a.name().cmp(b.name()));
        std::iter::once(Arc::clone(&state.default)).chain(others).collect()
    }

    /// Why one of them is not healthy, if so. This never waits.
    pub(crate) fn fault(&self, patience: Duration) -> Option<String> {
        let all = self.all();
        all.iter().find_map(|e| e.fault(patience).map(|fault| format!("model {}: {fault}", e.name())))
    }

    /// Counters of all encoders, unloaded ones included.
    pub fn counters(&self) -> &EncoderCounters {
        &self.inner.common.counters
    }

    /// The installed model of that name, else a loaded one that has it. Names only: a path would let every
    /// client open any folder of the server's machine. Reads a manifest.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] and those of [`ModelDir::open`].
    pub fn find(&self, name: &str) -> Result<ModelDir, ModelError> {
        ModelDir::find_named(&self.inner.home, name).or_else(|error| {
            let loaded = self.all().into_iter().find(|encoder| encoder.name() == name);
            match (&error, loaded) {
                (ModelError::NotFound { .. }, Some(encoder)) => Ok(encoder.model().clone()),
                _ => Err(error),
            }
        })
    }

    /// The installed model with that fingerprint, whatever it is called now; `None` if there is none. Reads manifests.
    pub fn find_fingerprint(&self, fingerprint: &Fingerprint) -> Option<ModelDir> {
        ModelDir::list(&self.inner.home).into_iter().flatten().find(|m| m.fingerprint == *fingerprint)
    }

    /// The model's encoder, loaded if it is not. Slow; never call it from async code.
    ///
    /// # Errors
    /// Those of [`Encoder::open`].
    pub fn get(&self, model: &ModelDir) -> Result<Arc<Encoder>, OpenError> {
        self.inner.get(model)
    }

    /// Puts the model in the default's place; the former default stays loaded until it is idle. Slow, if it must be
    /// loaded; never call it from async code.
    ///
    /// # Errors
    /// Those of [`Encoder::open`]; the default stays what it was.
    pub fn set_default(&self, model: &ModelDir) -> Result<Arc<Encoder>, OpenError> {
        let encoder = self.inner.get(model)?;
        let mut state = self.inner.lock();
        if state.default.fingerprint() != encoder.fingerprint() {
            state.others.remove(encoder.fingerprint());
            let former = std::mem::replace(&mut state.default, Arc::clone(&encoder));
            state
                .others
                .insert(former.fingerprint().clone(), Loaded { encoder: former, used_at: Instant::now() });
        }
        Ok(encoder)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loaded(&self, fingerprint: &Fingerprint) -> Option<Arc<Encoder>> {
        let mut state = self.lock();
        if state.default.fingerprint() == fingerprint {
            return Some(Arc::clone(&state.default));
        }
        let loaded = state.others.get_mut(fingerprint)?;
        loaded.used_at = Instant::now();
        Some(Arc::clone(&loaded.encoder))
    }

    fn get(&self, model: &ModelDir) -> Result<Arc<Encoder>, OpenError> {
        if let Some(encoder) = self.loaded(&model.fingerprint) {
            return Ok(encoder);
        }
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(encoder) = self.loaded(&model.fingerprint) {
            return Ok(encoder);
        }
        let started = Instant::now();
        let encoder =
            Arc::new(Encoder::open_among(model, &self.home, &self.config, Arc::clone(&self.common))?);
        let device = encoder.device();
        tracing::info!(
            model = encoder.name(),
            device = device.device,
            reason = device.reason,
            seconds = started.elapsed().as_secs_f32(),
            "model loaded"
        );
        let mut state = self.lock();
        let loaded = Loaded { encoder: Arc::clone(&encoder), used_at: Instant::now() };
        state.others.insert(model.fingerprint.clone(), loaded);
        let mut gone = Vec::new();
        while state.others.len() + 1 > self.config.models_max {
            let least = state
                .others
                .iter()
                .filter(|(_, l)| l.encoder.fingerprint() != &model.fingerprint)
                .min_by_key(|(_, l)| l.used_at)
                .map(|(fingerprint, _)| fingerprint.clone());
            let Some(least) = least else { break };
            gone.extend(state.others.remove(&least));
        }
        drop(state);
        for loaded in gone {
            tracing::info!(model = loaded.encoder.name(), "model unloaded to make room");
        }
        Ok(encoder)
    }

    /// Drops encoders that no caller holds and none has asked for since `unload_after`.
    fn unload(&self, unload_after: Duration) {
        let mut state = self.lock();
        let is_idle = |_: &Fingerprint, loaded: &mut Loaded| {
            if Arc::strong_count(&loaded.encoder) > 1 {
                // A request that takes long is use, too.
                loaded.used_at = Instant::now();
            }
            loaded.used_at.elapsed() >= unload_after
        };
        let gone: Vec<_> = state.others.extract_if(is_idle).collect();
        // Ending its threads takes a moment, in which others may go on.
        drop(state);
        for (_, loaded) in gone {
            tracing::info!(model = loaded.encoder.name(), "model unloaded, nobody asked for it");
        }
    }
}

/// A thread that unloads what is idle, until the sender it gives is dropped.
fn unload_idle(inner: Weak<Inner>, unload_after: Duration) -> Result<mpsc::Sender<()>, OpenError> {
    let (stop, stopped) = mpsc::channel::<()>();
    // Seen often enough that a model stays no more than a quarter longer than was asked.
    let period = (unload_after / 4).clamp(Duration::from_millis(10), Duration::from_secs(60));
    std::thread::Builder::new()
        .name("encoder-unload".into())
        .spawn(move || {
            while stopped.recv_timeout(period) == Err(mpsc::RecvTimeoutError::Timeout) {
                let Some(inner) = inner.upgrade() else { return };
                inner.unload(unload_after);
            }
        })
        .map_err(|e| super::EncoderError::Failed { reason: format!("no thread could be started: {e}") })?;
    Ok(stop)
}

#[cfg(test)]
mod tests;
