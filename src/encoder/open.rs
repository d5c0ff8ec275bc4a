//! A model directory becomes an encoder: the device and the precision are chosen, the session is opened and warmed.

use std::{path::Path, sync::Arc};

use super::{
    Common, Encoder, EncoderError, OpenError, Parts, TextKind,
    cache::{QueryCache, UnfinishedCache},
    scheduler::{Lanes, Scheduler},
    tokenize::Tokenizer,
    tune::{fidelity::Fidelity, tuned::Tuned},
};
use crate::{
    config::EncoderConfig,
    model::ModelDir,
    onnx::Layout,
    runtime::{Plan, Precision, Session},
    threads::large::Large,
    vector::Dim,
};

impl Encoder {
    /// Loads the model on the device that `config` names, with libraries from `home`.
    ///
    /// # Errors
    /// Model and runtime errors; [`EncoderError::Tokenizer`].
    pub fn open(model: &ModelDir, home: &Path, config: &EncoderConfig) -> Result<Self, OpenError> {
        Encoder::open_among(model, home, config, Arc::default())
    }

    pub(super) fn open_among(
        model: &ModelDir,
        home: &Path,
        config: &EncoderConfig,
        common: Arc<Common>,
    ) -> Result<Self, OpenError> {
        let manifest = &model.manifest;
        let dim = Dim::new(manifest.dimension)?;
        let tokenizer = Tokenizer::open(&model.tokenizer_path(), manifest.max_tokens)?;
        if tokenizer.vocabulary() > manifest.shape.vocabulary {
            return Err(EncoderError::Tokenizer {
                path: model.tokenizer_path().display().to_string(),
                reason: format!(
                    "it has {} tokens, but the weights have {}; they do not belong together",
                    tokenizer.vocabulary(),
                    manifest.shape.vocabulary
                ),
            }
            .into());
        }
        let packable = manifest.quantised.is_none();
        let tuned = tuned(home, config, packable);
        let config = tuned.as_ref().map_or(config, |(config, _)| config);
        let (place, precision) = (config.device.parse()?, config.precision.parse()?);
        let mut plan = Plan::new(home, place, precision, packable)?;
        let mut device = plan.report().clone();
        if let Some((_, reason)) = &tuned {
            device.reason.clone_from(reason);
        }
        // Only what the user asked for by name goes unchecked.
        if plan.layout() == Layout::Packed && (precision == Precision::Auto || tuned.is_some()) {
            let near = Fidelity::of(model, home, config)?;
            if !near.is_enough() {
                plan = Plan::new(home, place, Precision::Auto, false)?;
                device = plan.report().clone();
                device.reason = format!(
                    "{}; 8 bits would move this model's vectors too far (mean cosine {:.4}, least {:.4})",
                    device.reason, near.cosine_mean, near.cosine_least
                );
            }
        }
        let layout = plan.layout();
        let file = model.onnx_path_of(layout)?;
        let threads = config.threads;
        let scheduler = Scheduler::start(Lanes {
            layout,
            query_lane: plan.shares_the_processor(),
            open: Box::new(move || Session::open(&plan, &file, threads)),
            bulk_niceness: config.bulk_niceness,
            dim: dim.len(),
            batch_tokens_max: config.batch_tokens_max,
            queue_max: config.queue_max,
            common: Arc::clone(&common),
        })?;
        let queries = QueryCache::new(config.query_cache).map(Arc::new);
        let encoder = Encoder {
            model: model.clone(),
            dim,
            layout,
            device,
            common,
            parts: Large::new(Parts {
                tokenizer: Arc::new(tokenizer),
                queries,
                unfinished: Arc::new(UnfinishedCache::new(dim.len())),
                scheduler,
            }),
        };
        // The first run of a session allocates and compiles: better now than in the first request.
        encoder.encode(&["warm"], TextKind::Raw)?;
        Ok(encoder)
    }
}

/// `config` with what was measured on this machine in place of `auto`, and a sentence that says so; `None` where
/// nothing was measured or the user chose.
fn tuned(home: &Path, config: &EncoderConfig, packable: bool) -> Option<(EncoderConfig, String)> {
    if config.device != "auto" || config.precision != "auto" {
        return None;
    }
    let tuned = Tuned::load(home).filter(|tuned| packable || tuned.precision != "int8")?;
    let reason = format!(
        "the fastest here by `distilface bench encode --save`: {:.1} documents/s, cosine {:.5}",
        tuned.documents_per_second, tuned.cosine_mean
    );
    let usual = EncoderConfig::default();
    let chosen = EncoderConfig {
        device: tuned.device,
        precision: tuned.precision,
        threads: if config.threads == usual.threads { tuned.threads } else { config.threads },
        batch_tokens_max: if config.batch_tokens_max == usual.batch_tokens_max {
            tuned.batch_tokens_max
        } else {
            config.batch_tokens_max
        },
        ..config.clone()
    };
    Some((chosen, reason))
}
