//! Compares an encoder with reference values: token ids, vectors, and independence of batch-mates.
//!
//! A folder of reference values holds `texts.jsonl` (`text`), `tokens.jsonl` (`tokens`: count before the cut,
//! `input_ids`: after it) and `embeddings.f32` (little-endian float32, one row a text), each text encoded alone.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{EvalError, rows::json_lines};
use crate::{
    encoder::{Encoder, TextKind, tune::fidelity},
    model::Precision,
    random::SplitMix,
    vector::cosine,
};

/// The result of a comparison with reference values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParityReport {
    /// The device that the encoder ran on.
    pub device: String,
    /// Texts compared.
    pub texts: usize,
    /// Texts whose token ids or token count differ from the reference, by number from 1.
    pub token_mismatches: Vec<usize>,
    /// Smallest cosine to the reference.
    pub cosine_min: f64,
    /// Text of the smallest cosine, by number from 1.
    pub cosine_min_text: usize,
    /// Mean cosine to the reference.
    pub cosine_mean: f64,
    /// Largest `1 - cosine` between a text alone and the same text in a mixed batch.
    pub batch_deviation_max: f64,
    /// What `cosine_min` must reach on this device.
    pub cosine_floor: f64,
    /// What `batch_deviation_max` may reach on this device.
    pub batch_deviation_ceiling: f64,
    /// Whether all of it holds.
    pub passed: bool,
}

#[derive(Deserialize)]
struct TextLine {
    text: String,
}

#[derive(Deserialize)]
struct TokenLine {
    tokens: usize,
    input_ids: Vec<u32>,
}

/// Reference values.
#[derive(Debug)]
pub struct Reference {
    texts: Vec<String>,
    tokens: Vec<(usize, Vec<u32>)>,
    embeddings: Vec<Vec<f32>>,
}

impl Reference {
    /// Reads a folder.
    ///
    /// # Errors
    /// [`EvalError`] naming file and line, or counts that disagree.
    pub fn load(dir: &Path) -> Result<Self, EvalError> {
        let texts: Vec<String> =
            json_lines::<TextLine>(&dir.join("texts.jsonl"))?.into_iter().map(|l| l.text).collect();
        let tokens: Vec<_> = json_lines::<TokenLine>(&dir.join("tokens.jsonl"))?
            .into_iter()
            .map(|l| (l.tokens, l.input_ids))
            .collect();
        let path = dir.join("embeddings.f32");
        let bytes = std::fs::read(&path).map_err(|source| EvalError::Read { path: path.clone(), source })?;
        let wrong = |reason: String| EvalError::Folder { path: dir.to_owned(), reason };
        if texts.is_empty() || tokens.len() != texts.len() || !bytes.len().is_multiple_of(4 * texts.len()) {
            return Err(wrong(format!(
                "{} texts, {} token lines and {} bytes of embeddings do not belong together",
                texts.len(),
                tokens.len(),
                bytes.len()
            )));
        }
        let row = bytes.len() / texts.len();
        let embeddings = bytes
            .chunks_exact(row.max(4))
            .map(|r| r.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
            .collect();
        Ok(Reference { texts, tokens, embeddings })
    }

    /// Compares `encoder` with these values.
    ///
    /// # Errors
    /// Encoder errors; [`EvalError::Folder`] if the dimensions differ.
    pub fn compare(&self, encoder: &Encoder) -> Result<ParityReport, EvalError> {
        let device = encoder.device().device.clone();
        let (cosine_floor, batch_deviation_ceiling) =
            match (encoder.model().manifest.precision(), device.starts_with("cpu")) {
                // What `auto` asks of a model before it rounds; the same bits in any company.
                (Precision::Full, true) if device.ends_with("(int8)") => (fidelity::COSINE_LEAST_MIN, 1e-12),
                (Precision::Full, true) => (0.999_99, 1e-5),
                // Eight bits turn a vector by some degrees. The scales do not depend on the batch, so neither does that.
                (Precision::Int8, true) => (0.97, 1e-5),
                // bf16 keeps 8 bits of mantissa; where it rounds depends on how the batch is blocked.
                (Precision::Full, false) => (0.999, 1e-3),
                (Precision::Int8, false) => (0.97, 1e-3),
            };

        let mut token_mismatches = Vec::new();
        for (i, (text, (count, ids))) in self.texts.iter().zip(&self.tokens).enumerate() {
            if encoder.token_ids(text)? != (ids.clone(), *count) {
                token_mismatches.push(i + 1);
            }
        }
        let encode = |texts: &[&String]| -> Result<Vec<Vec<f32>>, EvalError> {
            let embeddings = encoder.encode(texts, TextKind::Raw)?;
            Ok(embeddings.into_iter().map(|e| e.values).collect())
        };
        let mut alone = Vec::with_capacity(self.texts.len());
        for text in &self.texts {
            alone.extend(encode(&[text])?);
        }
        if let (Some(ours), Some(theirs)) = (alone.first(), self.embeddings.first())
            && ours.len() != theirs.len()
        {
            let reason = format!("its vectors have {} values, the model's have {}", theirs.len(), ours.len());
            return Err(EvalError::Folder { path: "embeddings.f32".into(), reason });
        }
        let cosines: Vec<f64> = alone.iter().zip(&self.embeddings).map(|(a, b)| cosine(a, b)).collect();
        let (worst, &cosine_min) =
            cosines.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).expect("there is a text");

        // Mixed company: all together in several orders, so that neighbours and padding differ.
        let mut batch_deviation_max = 0.0f64;
        for round in 0..4u64 {
            let order = shuffled(self.texts.len(), round);
            let together = encode(&order.iter().map(|&i| &self.texts[i]).collect::<Vec<_>>())?;
            for (&i, vector) in order.iter().zip(&together) {
                batch_deviation_max = batch_deviation_max.max(1.0 - cosine(&alone[i], vector));
            }
        }
        Ok(ParityReport {
            texts: self.texts.len(),
            passed: token_mismatches.is_empty()
                && cosine_min >= cosine_floor
                && batch_deviation_max <= batch_deviation_ceiling,
            token_mismatches,
            cosine_min,
            cosine_min_text: worst + 1,
            cosine_mean: cosines.iter().sum::<f64>() / cosines.len() as f64,
            batch_deviation_max,
            cosine_floor,
            batch_deviation_ceiling,
            device,
        })
    }
}

/// A seeded order of `0..n` (Fisher-Yates).
fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut random = SplitMix(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let j = usize::try_from(random.below(i as u64 + 1)).expect("below a length");
        order.swap(i, j);
    }
    order
}
