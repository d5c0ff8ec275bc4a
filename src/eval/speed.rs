//! Two models side by side: how large each is, and how fast on this machine.
//!
//! Parameters and bytes are read from the models. Times are measured in rounds that alternate between the two, so
//! that a machine which slows down meanwhile slows down both, and the medians of the rounds are compared. What is
//! timed is the whole encoder as it serves: tokenizer, batching and inference, in one process.
//!
//! Three loads: short sentences in bulk, texts of an abstract's length in bulk, and one short query after another.

use std::{path::Path, time::Instant};

use serde::Serialize;

use super::{EvalError, read_text};
use crate::{
    encoder::{Encoder, TextKind},
    model::{ModelDir, sample_texts},
    onnx::encoder::tensors,
};

/// Words of a short sentence, a query and a long text.
const SHORT_WORDS: usize = 20;
const QUERY_WORDS: usize = 8;
const LONG_WORDS: usize = 200;
/// Texts of a round.
const SHORT_TEXTS: usize = 256;
const LONG_TEXTS: usize = 16;
const QUERIES: usize = 25;
/// Fewer words than this make no load worth timing.
const WORDS_MIN: usize = LONG_WORDS;

/// The texts that both models encode.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeedTexts {
    short: Vec<String>,
    long: Vec<String>,
    queries: Vec<String>,
}

impl SpeedTexts {
    /// Short texts, long texts and queries.
    pub fn parts(&self) -> (&[String], &[String], &[String]) {
        (&self.short, &self.long, &self.queries)
    }

    /// Of the sample corpus that is compiled in.
    pub fn sample() -> Self {
        cut(&sample_texts()).expect("the sample has many more words")
    }

    /// Of a file with one text a line.
    ///
    /// # Errors
    /// [`EvalError::Read`]; [`EvalError::Folder`] for a file with too few words to time anything.
    pub fn load(path: &Path) -> Result<Self, EvalError> {
        let texts: Vec<String> = read_text(path)?.lines().map(str::to_owned).collect();
        cut(&texts).map_err(|reason| EvalError::Folder { path: path.to_owned(), reason })
    }
}

/// Cuts texts to the loads: running words, so that any text gives the same lengths; begun again where it ends.
fn cut(texts: &[String]) -> Result<SpeedTexts, String> {
    let words: Vec<&str> = texts.iter().flat_map(|t| t.split_whitespace()).collect();
    if words.len() < WORDS_MIN {
        return Err(format!("it has {} words, but at least {WORDS_MIN} are needed", words.len()));
    }
    let mut endless = words.iter().copied().cycle();
    let mut make = |count: usize, length: &dyn Fn(usize) -> usize| -> Vec<String> {
        (0..count).map(|i| endless.by_ref().take(length(i)).collect::<Vec<_>>().join(" ")).collect()
    };
    Ok(SpeedTexts {
        // Sentences are not of one length: half to one and a half of the mean, in turn.
        short: make(SHORT_TEXTS, &|i| SHORT_WORDS / 2 + i % (SHORT_WORDS + 1)),
        long: make(LONG_TEXTS, &|i| LONG_WORDS - 8 * (i % 4)),
        queries: make(QUERIES, &|_| QUERY_WORDS),
    })
}

/// The size of a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ModelSize {
    /// Numbers in the encoder's tensors; a task head that the file may also hold does not count.
    pub parameters: u64,
    /// Of the weights' file.
    pub weights_bytes: u64,
    /// Of the generated ONNX file.
    pub onnx_bytes: u64,
}

impl ModelSize {
    /// Reads it of a model, generating its ONNX file if there is none yet.
    ///
    /// # Errors
    /// Model errors; [`EvalError::Read`].
    pub fn of(model: &ModelDir) -> Result<Self, EvalError> {
        let bytes = |path: std::path::PathBuf| {
            std::fs::metadata(&path).map(|m| m.len()).map_err(|source| EvalError::Read { path, source })
        };
        let tensors = tensors(model.manifest.architecture, &model.manifest.shape);
        let parameters = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum();
        let onnx = model.onnx_path()?;
        Ok(ModelSize { parameters, weights_bytes: bytes(model.weights_path())?, onnx_bytes: bytes(onnx)? })
    }
}

/// Medians over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speeds {
    /// Short texts encoded per second.
    pub short_texts_per_second: f64,
    /// Long texts encoded per second.
    pub long_texts_per_second: f64,
    /// Median time of one short query alone, in milliseconds.
    pub query_p50_ms: f64,
}

/// The size and speed of one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelSpeed {
    /// Name of the model.
    pub model: String,
    /// The device that it ran on.
    pub device: String,
    /// Parameters and bytes.
    #[serde(flatten)]
    pub size: ModelSize,
    /// Median figures over the rounds.
    #[serde(flatten)]
    pub speeds: Speeds,
    /// Round by round.
    pub rounds: Vec<Speeds>,
}

/// The first model's figures over the second's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SpeedRatios {
    /// Ratio of parameters.
    pub parameters: f64,
    /// Ratio of the weights' sizes.
    pub weights_bytes: f64,
    /// Ratio of the graphs' sizes.
    pub onnx_bytes: f64,
    /// Ratio of short texts per second.
    pub short_texts_per_second: f64,
    /// Ratio of long texts per second.
    pub long_texts_per_second: f64,
    /// Ratio of a query's median times.
    pub query_p50_ms: f64,
}

/// The figures of two models, and their ratios.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeedReport {
    /// The first model.
    pub a: ModelSpeed,
    /// The second model.
    pub b: ModelSpeed,
    /// A over B.
    pub ratios: SpeedRatios,
    /// Mean tokens of the short texts that A encodes, special tokens included.
    pub short_tokens_mean: f64,
    /// Mean tokens of the long texts that A encodes, special tokens included.
    pub long_tokens_mean: f64,
}

/// Measures two models in `rounds` alternating rounds; `told` is called with the number of rounds that are done.
///
/// # Errors
/// Encoder errors, and those of [`ModelSize::of`].
pub fn compare(
    a: &Encoder,
    b: &Encoder,
    texts: &SpeedTexts,
    rounds: usize,
    mut told: impl FnMut(usize),
) -> Result<SpeedReport, EvalError> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for round in 0..rounds.max(1) {
        // Who goes first changes too.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for model in order {
            let (encoder, into) = if model == 0 { (a, &mut first) } else { (b, &mut second) };
            into.push(time(encoder, texts)?);
        }
        told(round + 1);
    }
    let of = |encoder: &Encoder, rounds: Vec<Speeds>| -> Result<ModelSpeed, EvalError> {
        Ok(ModelSpeed {
            model: encoder.name().to_owned(),
            device: encoder.device().device.clone(),
            size: ModelSize::of(encoder.model())?,
            speeds: medians(&rounds),
            rounds,
        })
    };
    let (of_a, of_b) = (of(a, first)?, of(b, second)?);
    Ok(SpeedReport {
        ratios: ratios(&of_a, &of_b),
        a: of_a,
        b: of_b,
        short_tokens_mean: tokens_mean(a, &texts.short)?,
        long_tokens_mean: tokens_mean(a, &texts.long)?,
    })
}

fn time(encoder: &Encoder, texts: &SpeedTexts) -> Result<Speeds, EvalError> {
    let encode = |texts: &[String]| -> Result<f64, EvalError> {
        let started = Instant::now();
        encoder.encode(texts, TextKind::Raw)?;
        Ok(started.elapsed().as_secs_f64())
    };
    let mut queries = Vec::with_capacity(texts.queries.len());
    for query in &texts.queries {
        queries.push(1000.0 * encode(std::slice::from_ref(query))?);
    }
    Ok(Speeds {
        short_texts_per_second: texts.short.len() as f64 / encode(&texts.short)?,
        long_texts_per_second: texts.long.len() as f64 / encode(&texts.long)?,
        query_p50_ms: median(queries),
    })
}

fn tokens_mean(encoder: &Encoder, texts: &[String]) -> Result<f64, EvalError> {
    let mut tokens = 0;
    for text in texts {
        tokens += encoder.token_ids(text)?.0.len();
    }
    Ok(tokens as f64 / texts.len() as f64)
}

fn medians(rounds: &[Speeds]) -> Speeds {
    let of = |f: fn(&Speeds) -> f64| median(rounds.iter().map(f).collect());
    Speeds {
        short_texts_per_second: of(|s| s.short_texts_per_second),
        long_texts_per_second: of(|s| s.long_texts_per_second),
        query_p50_ms: of(|s| s.query_p50_ms),
    }
}

/// The middle value; of two in the middle, their mean.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

fn ratios(a: &ModelSpeed, b: &ModelSpeed) -> SpeedRatios {
    let sizes = |f: fn(&ModelSize) -> u64| f(&a.size) as f64 / f(&b.size) as f64;
    let speeds = |f: fn(&Speeds) -> f64| f(&a.speeds) / f(&b.speeds);
    SpeedRatios {
        parameters: sizes(|s| s.parameters),
        weights_bytes: sizes(|s| s.weights_bytes),
        onnx_bytes: sizes(|s| s.onnx_bytes),
        short_texts_per_second: speeds(|s| s.short_texts_per_second),
        long_texts_per_second: speeds(|s| s.long_texts_per_second),
        query_p50_ms: speeds(|s| s.query_p50_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_to_the_loads_whatever_they_were() {
        let sample = SpeedTexts::sample();
        let words = |texts: &[String]| texts.iter().map(|t| t.split_whitespace().count()).collect::<Vec<_>>();
        assert_eq!(sample.short.len(), SHORT_TEXTS);
        assert!(words(&sample.short).iter().all(|n| (10..=30).contains(n)));
        assert!(words(&sample.long).iter().all(|n| (176..=200).contains(n)));
        assert!(words(&sample.queries).iter().all(|n| *n == QUERY_WORDS));
        let one_line = vec!["word ".repeat(250)];
        let many = vec!["word".to_owned(); 250];
        assert_eq!(cut(&one_line).unwrap(), cut(&many).unwrap());
    }

    #[test]
    fn a_file_with_too_few_words_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("few.txt");
        std::fs::write(&path, "just these words\n").unwrap();
        let error = SpeedTexts::load(&path).unwrap_err().to_string();
        assert!(error.contains("3 words, but at least 200"), "{error}");
        assert!(SpeedTexts::load(&dir.path().join("none")).is_err());
    }

    #[test]
    fn medians_are_taken_measure_by_measure() {
        let of = |short: f64, p50: f64| Speeds {
            short_texts_per_second: short,
            long_texts_per_second: 1.0,
            query_p50_ms: p50,
        };
        let m = medians(&[of(3.0, 9.0), of(1.0, 7.0), of(2.0, 8.0)]);
        assert_eq!((m.short_texts_per_second, m.query_p50_ms), (2.0, 8.0));
        let m = medians(&[of(3.0, 9.0), of(1.0, 7.0)]);
        assert_eq!((m.short_texts_per_second, m.query_p50_ms), (2.0, 8.0));
    }

    #[test]
    fn size_of_the_tiny_model_is_that_of_its_tensors() {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
        let dir = tempfile::tempdir().unwrap();
        for name in ["model.toml", "model.safetensors", "tokenizer.json"] {
            std::fs::copy(from.join(name), dir.path().join(name)).unwrap();
        }
        let model = ModelDir::open(dir.path()).unwrap();
        let size = ModelSize::of(&model).unwrap();
        let v = model.manifest.shape.vocabulary as u64;
        // Words, 64 positions, one type and a norm; two layers of 4 square, two oblong layers and two norms.
        let layer = 4 * (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32) + 2 * 64;
        assert_eq!(size.parameters, 32 * (v + 64 + 1) + 64 + 2 * layer);
        // The tiny model keeps halves; the graph holds whole floats and joins the type with the positions.
        assert!(size.weights_bytes > 2 * size.parameters && size.onnx_bytes > 4 * (size.parameters - 32));
    }
}
