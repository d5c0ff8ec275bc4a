//! The part of `distilface bench encode` that reports how much of the machine's arithmetic the encoder uses, and where
//! the
//! rest of the time goes.

use std::{fmt::Write as _, path::Path, sync::atomic::Ordering, time::Instant};

use serde::Serialize;

use super::encode::Load;
use crate::{
    cli::layout,
    config::EncoderConfig,
    encoder::{Class, Encoder, TextKind, tune::arithmetic},
};

/// Texts of a load that are looked at.
const TEXTS: usize = 512;

/// Figures of one way to encode.
#[derive(Debug, Clone, Serialize)]
pub struct Arithmetic {
    /// One large product of matrices, in 10^9 products of two numbers a second.
    peak_gmacs: f64,
    loads: Vec<OfLoad>,
}

#[derive(Debug, Clone, Serialize)]
struct OfLoad {
    name: String,
    tokens_per_text: f64,
    /// From text to vectors, everything counted in the time.
    gmacs: f64,
    of_peak: f64,
    /// Shares of the time from text to vectors.
    tokenizer_share: f64,
    graph_share: f64,
    /// Of a layer's time, on one core, where the layers are ours.
    layer: Option<Vec<arithmetic::Part>>,
}

impl Arithmetic {
    /// `rates` are texts/s by load.
    pub fn measure(
        encoder: &Encoder,
        home: &Path,
        config: &EncoderConfig,
        loads: &[Load],
        rates: &[f64],
    ) -> anyhow::Result<Self> {
        let peak = arithmetic::peak(encoder, home, config)?;
        let loads = loads.iter().zip(rates).map(|(load, &rate)| OfLoad::measure(encoder, load, rate, peak));
        Ok(Arithmetic { peak_gmacs: peak / 1e9, loads: loads.collect::<anyhow::Result<_>>()? })
    }

    /// The text for people.
    pub fn words(&self, name: &str, width: usize) -> String {
        let headers =
            ["", "#tokens/text", "#10^9 products/s", "#of the peak", "#tokenizer", "#graph", "#rest"];
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let rows: Vec<Vec<String>> = self
            .loads
            .iter()
            .map(|l| {
                vec![
                    l.name.clone(),
                    format!("{:.1}", l.tokens_per_text),
                    format!("{:.0}", l.gmacs),
                    percent(l.of_peak),
                    percent(l.tokenizer_share),
                    percent(l.graph_share),
                    percent((1.0 - l.tokenizer_share - l.graph_share).max(0.0)),
                ]
            })
            .collect();
        let mut text = format!(
            "{name}: one large product of matrices does {:.0} 10^9 products/s\n{}",
            self.peak_gmacs,
            layout::table(&headers, &rows, width)
        );
        let profiles: Vec<_> =
            self.loads.iter().filter_map(|l| Some((l.name.as_str(), l.layer.as_ref()?))).collect();
        let Some((_, first)) = profiles.first() else { return text };
        let mut headers = vec!["a layer's time, one core".to_owned()];
        headers.extend(profiles.iter().map(|(name, _)| format!("#{name}")));
        let cell = |part: &arithmetic::Part| {
            let rate = part.gmacs.map_or_else(String::new, |g| format!(" ({g:.0})"));
            format!("{}{rate}", percent(part.share))
        };
        let rows: Vec<Vec<String>> = (0..first.len())
            .map(|n| {
                let name = first[n].name.to_owned();
                std::iter::once(name).chain(profiles.iter().map(|(_, parts)| cell(&parts[n]))).collect()
            })
            .collect();
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n{}\n(in brackets 10^9 products/s of the part)",
            layout::table(&headers, &rows, width)
        );
        text
    }
}

impl OfLoad {
    fn measure(encoder: &Encoder, load: &Load, rate: f64, peak: f64) -> anyhow::Result<Self> {
        let length = |text: &String| Ok(encoder.token_ids(text)?.0.len());
        let all: Vec<usize> = load.texts.iter().map(length).collect::<anyhow::Result<_>>()?;
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
