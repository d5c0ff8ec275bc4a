//! How much of the machine's arithmetic the encoder uses, and where the rest of the time goes.

use std::{path::Path, sync::atomic::Ordering, time::Instant};

use serde::Serialize;

use super::Load;
use crate::{
    bench::Result,
    config::EncoderConfig,
    encoder::{Class, Encoder, TextKind, tune::arithmetic},
};

/// Texts of a load that are looked at.
const TEXTS: usize = 512;

/// Figures of one way to encode.
#[derive(Debug, Clone, Serialize)]
pub struct Arithmetic {
    /// One large product of matrices, in 10^9 products of two numbers a second.
    pub peak_gmacs: f64,
    /// By load.
    pub loads: Vec<OfLoad>,
}

/// Figures of one load.
#[derive(Debug, Clone, Serialize)]
pub struct OfLoad {
    pub name: String,
    pub tokens_per_text: f64,
    /// From text to vectors, everything counted in the time.
    pub gmacs: f64,
    pub of_peak: f64,
    /// Shares of the time from text to vectors.
    pub tokenizer_share: f64,
    pub graph_share: f64,
    /// Of a layer's time, on one core, where the layers are ours.
    pub layer: Option<Vec<arithmetic::Part>>,
}

impl Arithmetic {
    /// `rates` are texts/s by load.
    pub(super) fn measure(
        encoder: &Encoder,
        home: &Path,
        config: &EncoderConfig,
        loads: &[Load],
        rates: &[f64],
    ) -> Result<Self> {
        let peak = arithmetic::peak(encoder, home, config)?;
        let loads = loads.iter().zip(rates).map(|(load, &rate)| OfLoad::measure(encoder, load, rate, peak));
        Ok(Arithmetic { peak_gmacs: peak / 1e9, loads: loads.collect::<Result<_>>()? })
    }
}

impl OfLoad {
    fn measure(encoder: &Encoder, load: &Load, rate: f64, peak: f64) -> Result<Self> {
        let length = |text: &String| Ok(encoder.token_ids(text)?.0.len());
        let all: Vec<usize> = load.texts.iter().map(length).collect::<Result<_>>()?;
        let seconds = load.texts.len() as f64 / rate;
        let macs = arithmetic::macs(&encoder.model().manifest.shape, &all) / seconds.max(f64::MIN_POSITIVE);

        let some = &load.texts[..load.texts.len().min(TEXTS)];
        let busy = || encoder.counters().busy_micros.load(Ordering::Relaxed) as f64 * 1e-6;
        let (before, started) = (busy(), Instant::now());
        let (_, times) = encoder.encode_timed(some, TextKind::Raw, Class::Bulk)?;
        let wall = started.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        Ok(OfLoad {
            name: load.name.clone(),
            tokens_per_text: all.iter().sum::<usize>() as f64 / all.len().max(1) as f64,
            gmacs: macs / 1e9,
            of_peak: macs / peak,
            tokenizer_share: times.tokenize.as_secs_f64() / wall,
            graph_share: (busy() - before) / wall,
            layer: arithmetic::profile(encoder, &all[..some.len()]),
        })
    }
}
