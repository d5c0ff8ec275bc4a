//! Time and memory of a running server, measured from a client's side.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;
use tonic::transport::Channel;

use super::{BenchError, Result};
use crate::{
    encoder::{Class, Encoder, TextKind},
    proto,
    random::SplitMix,
    rpc,
};

/// A distribution of durations, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// Longest duration told apart: ten minutes.
const MICROS_MAX: u64 = 600_000_000;

/// Collects durations.
#[derive(Debug)]
pub struct Timings(Histogram<u64>);

impl Default for Timings {
    fn default() -> Self {
        Timings(Histogram::new_with_max(MICROS_MAX, 3).expect("these are valid bounds"))
    }
}

impl Timings {
    /// Adds one, in microseconds.
    pub fn record(&mut self, micros: u64) {
        self.0.saturating_record(micros);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Duration in milliseconds by the share answered within it, in nines: 1 is 90 %, 2 is 99 %.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let nines = (1..=30).map(|n| f64::from(n) / 10.0);
        // More nines than there are queries would only repeat the largest.
        let most = (self.0.len().max(1) as f64).log10();
        let at = |nines: f64| self.0.value_at_quantile(1.0 - 10f64.powf(-nines)) as f64 / 1e3;
        nines.take_while(|nines| *nines <= most).map(|nines| (nines, at(nines))).collect()
    }

    /// The times that were collected.
    pub fn percentiles(&self) -> Percentiles {
        let at = |q| self.0.value_at_quantile(q);
        Percentiles { p50_us: at(0.5), p90_us: at(0.9), p99_us: at(0.99), max_us: self.0.max() }
    }
}

/// Where the time of a text query goes, one query at a time, everything warm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueryReport {
    pub queries: usize,
    pub device: String,
    pub plans: std::collections::BTreeMap<String, usize>,
    /// Times as the client sees them, through gRPC.
    pub client: Percentiles,
    /// Times as the server reports them.
    pub server: Percentiles,
    pub tokenize: Percentiles,
    pub queue: Percentiles,
    pub encode: Percentiles,
    pub search: Percentiles,
    pub fetch: Percentiles,
}

/// One text query, and what the server tells of it.
///
/// # Errors
/// The server's refusal.
pub async fn ask(
    client: &mut rpc::search_client::SearchClient<Channel>,
    collection: &str,
    text: String,
    k: u32,
) -> Result<proto::Explain, tonic::Status> {
    let request = proto::SearchRequest {
        collection: collection.to_owned(),
        query: Some(proto::search_request::Query::Text(text)),
        k,
        explain: true,
        ..proto::SearchRequest::default()
    };
    Ok(client.search(request).await?.into_inner().explain.unwrap_or_default())
}

/// Asks every text `rounds` times, after one round that is not counted.
///
/// # Errors
/// [`BenchError`].
pub async fn queries(
    channel: Channel,
    collection: &str,
    texts: &[String],
    k: u32,
    rounds: usize,
) -> Result<QueryReport> {
    let mut client = rpc::search_client::SearchClient::new(channel);
    let mut timings: [Timings; 7] = std::array::from_fn(|_| Timings::default());
    let mut plans = std::collections::BTreeMap::new();
    let mut device = String::new();
    for round in 0..=rounds {
        for text in texts {
            let started = Instant::now();
            let explain = ask(&mut client, collection, text.clone(), k).await?;
            let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            if round == 0 {
                device = explain.device;
                continue;
            }
            *plans.entry(explain.plan).or_insert(0) += 1;
            let stages = [
                took,
                explain.total_us,
                explain.tokenize_us,
                explain.queue_us,
                explain.encode_us,
                explain.search_us,
                explain.fetch_us,
            ];
            for (timing, micros) in timings.iter_mut().zip(stages) {
                timing.record(micros);
            }
        }
    }
    let [client, server, tokenize, queue, encode, search, fetch] = timings.map(|t| t.percentiles());
    let queries = texts.len() * rounds;
    Ok(QueryReport { queries, device, plans, client, server, tokenize, queue, encode, search, fetch })
}

/// One short text, again and again: through gRPC, and by the encoder alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EmbedReport {
    pub tokens: u32,
    pub grpc: Percentiles,
    pub bare: Percentiles,
}

/// Twelve tokens with the two special ones, in BERT's vocabulary.
pub const SHORT: &str = "how do owls hunt in the dark of winter?";
const EMBEDDINGS: usize = 400;

/// Embeds a text of twelve tokens in turn both ways.
///
/// # Errors
/// [`BenchError`].
pub async fn embed(channel: Channel, encoder: Arc<Encoder>) -> Result<EmbedReport> {
    let mut client = rpc::encoder_client::EncoderClient::new(channel);
    let (mut grpc, mut bare, mut tokens) = (Timings::default(), Timings::default(), 0);
    let micros = |started: Instant| u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    for round in 0..=EMBEDDINGS {
        let kind = proto::TextKind::Query.into();
        let started = Instant::now();
        client
            .embed(proto::EmbedRequest { texts: vec![SHORT.to_owned()], kind, ..Default::default() })
            .await?;
        let through = micros(started);
        let encoder = Arc::clone(&encoder);
        let asked = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let embeddings = encoder.encode_as(&[SHORT], TextKind::Query, Class::Query)?;
            Ok::<_, BenchError>((micros(started), embeddings[0].tokens))
        });
        let (alone, count) = asked.await??;
        tokens = count;
        if round > 0 {
            grpc.record(through);
            bare.record(alone);
        }
    }
    Ok(EmbedReport { tokens, grpc: grpc.percentiles(), bare: bare.percentiles() })
}

/// Resident memory under a load of mixed lengths.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SoakReport {
    pub seconds: f64,
    pub requests: u64,
    pub texts: u64,
    pub refused: u64,
    pub before_bytes: u64,
    /// Highest seen in the first quarter of the time, and in the last.
    pub first_quarter_bytes: u64,
    pub last_quarter_bytes: u64,
    pub peak_bytes: u64,
}

/// Embeds batches of random numbers of texts of random lengths from several clients at once for `time`, reading
/// memory with `resident_bytes` twice a second.
///
/// # Errors
/// [`BenchError`] for anything but a refusal because of load.
pub async fn soak(
    channel: Channel,
    time: Duration,
    clients: u64,
    resident_bytes: impl Fn() -> u64,
) -> Result<SoakReport> {
    let started = Instant::now();
    let before_bytes = resident_bytes();
    let tasks: Vec<_> =
        (0..clients).map(|seed| tokio::spawn(soak_client(channel.clone(), seed, started, time))).collect();
    let (mut first, mut last) = (before_bytes, 0);
    let mut peak_bytes = before_bytes;
    while started.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = resident_bytes();
        peak_bytes = peak_bytes.max(now);
        if started.elapsed() < time / 4 {
            first = first.max(now);
        } else if started.elapsed() > time * 3 / 4 {
            last = last.max(now);
        }
    }
    let (mut requests, mut texts, mut refused) = (0, 0, 0);
    for task in tasks {
        let (r, t, f) = task.await??;
        requests += r;
        texts += t;
        refused += f;
    }
    Ok(SoakReport {
        seconds: started.elapsed().as_secs_f64(),
        requests,
        texts,
        refused,
        before_bytes,
        first_quarter_bytes: first,
        last_quarter_bytes: last,
        peak_bytes,
    })
}

async fn soak_client(
    channel: Channel,
    seed: u64,
    started: Instant,
    time: Duration,
) -> Result<(u64, u64, u64)> {
    let mut client = rpc::encoder_client::EncoderClient::new(channel);
    let mut random = SplitMix(seed);
    let (mut requests, mut texts, mut refused) = (0, 0, 0);
    while started.elapsed() < time {
        // Mostly small requests, now and then a large one, as a day of use would have.
        let batch = if random.below(10) == 0 { 1 + random.below(256) } else { 1 + random.below(8) };
        let request = proto::EmbedRequest {
            texts: (0..batch).map(|_| random_text(&mut random)).collect(),
            kind: proto::TextKind::Document.into(),
            ..Default::default()
        };
        match client.embed(request).await {
            Ok(_) => {
                requests += 1;
                texts += batch;
            }
            Err(status) if status.code() == tonic::Code::ResourceExhausted => {
                refused += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(status) => return Err(status.into()),
        }
    }
    Ok((requests, texts, refused))
}

/// 1 to 512 words, short texts more often than long ones.
fn random_text(random: &mut SplitMix) -> String {
    const WORDS: [&str; 8] =
        ["river", "engine", "quietly", "of", "seventeen", "photosynthesis", "the", "law"];
    let longest = 1 << random.below(10);
    let count = 1 + random.below(longest);
    let words: Vec<&str> = (0..count).map(|_| WORDS[random.below(8) as usize]).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_every_length_are_told_apart() {
        let mut timings = Timings::default();
        for micros in [50, 9_000, 9_000, 2_000_000, u64::MAX] {
            timings.record(micros);
        }
        let p = timings.percentiles();
        assert!(p.p50_us.abs_diff(9_000) < 10, "{p:?}");
        assert!(p.max_us >= MICROS_MAX, "{p:?}");
        // Five durations tell no more than 0.7 nines: the least share is that of the median and more.
        let curve = timings.curve();
        assert!(curve.len() == 6 && curve.is_sorted_by(|a, b| a.1 <= b.1), "{curve:?}");
    }

    #[test]
    fn texts_are_from_one_word_to_many_and_the_same_for_a_seed() {
        let lengths = |seed| -> Vec<usize> {
            let mut random = SplitMix(seed);
            (0..500).map(|_| random_text(&mut random).split(' ').count()).collect()
        };
        let found = lengths(1);
        assert!(found.contains(&1) && found.iter().any(|n| *n > 200) && found.iter().all(|n| *n <= 512));
        assert_eq!(found, lengths(1));
        assert_ne!(found, lengths(2));
    }
}
