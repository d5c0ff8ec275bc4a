//! Ingestion through gRPC against the bare encoder on the same texts, in turn.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use serde::Serialize;

use super::{
    COLLECTION, Note, Result, median,
    served::{Served, send},
};
use crate::{
    config::Config,
    encoder::{Chunking, Encoder, EncoderCounters, Limits, TextKind},
    eval::beir::CorpusDocument,
};

/// Ingestion against the bare encoder.
#[derive(Debug, Serialize)]
pub struct IngestReport {
    pub documents: usize,
    pub passages: usize,
    pub device: String,
    /// Medians, documents per second.
    pub ingest_documents_per_second: f64,
    pub encoder_documents_per_second: f64,
    /// Ingest over encoder.
    pub ratio: f64,
    /// Share of padding in the tokens that the encoder computed.
    pub padding_share: f64,
}

/// Ingests `corpus` and encodes its passages in turn, `rounds` times (at least once), each time over a new database
/// below `folder`.
///
/// # Errors
/// [`BenchError::NoEncoder`]; engine, encoder and server errors.
pub async fn measure(
    config: &Config,
    corpus: &[CorpusDocument],
    rounds: usize,
    folder: &Path,
    note: Note<'_>,
) -> Result<IngestReport> {
    let (mut through, mut bare) = (Vec::new(), Vec::new());
    let (mut passages, mut device, mut padding_share) = (0, String::new(), 0.0);
    for round in 1..=rounds.max(1) {
        let served = Served::start(config, &folder.join(round.to_string()), note).await?;
        let encoder = served.encoder()?;
        device = served.device();
        // The texts as ingestion cuts them: both sides encode the same.
        let chunking = served.engine.collection(COLLECTION).await?.chunking;
        let texts = passage_texts(&encoder, corpus, chunking)?;
        passages = texts.len();
        let started = Instant::now();
        let before = counted(encoder.counters());
        let worker = Arc::clone(&encoder);
        tokio::task::spawn_blocking(move || worker.encode(&texts, TextKind::Document)).await??;
        let after = counted(encoder.counters());
        bare.push(corpus.len() as f64 / started.elapsed().as_secs_f64());
        padding_share = 1.0 - (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64;

        let started = Instant::now();
        send(&served.channel, corpus).await?;
        through.push(corpus.len() as f64 / started.elapsed().as_secs_f64());
        note(&format!(
            "round {round}: bare encoder {:.1}, ingest {:.1} documents/s",
            bare[bare.len() - 1],
            through[through.len() - 1]
        ));
        drop(encoder);
        served.stop().await?;
    }
    let (ingest, encoder) = (median(through), median(bare));
    Ok(IngestReport {
        documents: corpus.len(),
        passages,
        device,
        ingest_documents_per_second: ingest,
        encoder_documents_per_second: encoder,
        ratio: ingest / encoder,
        padding_share,
    })
}

fn passage_texts(
    encoder: &Encoder,
    corpus: &[CorpusDocument],
    chunking: Option<Chunking>,
) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for d in corpus {
        let title = encoder.short_title(&d.title, &d.text, chunking)?;
        let ranges = match chunking {
            Some(chunking) => encoder.chunk(title, &d.text, chunking, &Limits::default())?,
            None => std::iter::once(0..d.text.len()).collect(),
        };
        texts.extend(ranges.into_iter().map(|r| Encoder::passage_text(title, &d.text[r]).into_owned()));
    }
    Ok(texts)
}

/// Real tokens and tokens computed.
fn counted(counters: &EncoderCounters) -> (u64, u64) {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    (get(&counters.tokens), get(&counters.padded_tokens))
}
