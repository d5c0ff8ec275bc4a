//! A shape and a tokenizer become a model directory with random weights. It serves to measure size and speed of an
//! architecture without published weights, and to train from nothing.
//!
//! Weights are those of BERT before training (Devlin et al. 2018): normal with standard deviation 0.02, biases 0, norms
//! 1 and 0. The row of the padding token is drawn like any other, since the mask removes its effect. The same options
//! give the same bytes on one platform; platforms may differ in the last bit of a logarithm.

use std::{borrow::Cow, collections::BTreeMap, f64::consts::TAU, fs, path::Path};

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use safetensors::tensor::{Dtype, View};

use super::{
    Architecture, MANIFEST_FILE, MANIFEST_FORMAT, MODELS_FOLDER, Manifest, ModelDir, ModelError, Pooling,
    Prompts, Shape, TOKENIZER_FILE, WEIGHTS_FILE, checksum::FileSum, create::place,
};
use crate::{
    onnx::encoder::{FILE_BYTES_MAX, tensors},
    random::SplitMix,
};

const DEVIATION: f64 = 0.02;
/// The positions of all of BERT's published shapes.
const POSITIONS: usize = 512;
const TYPES: usize = 2;
const LAYER_NORM_EPS: f32 = 1e-12;

/// The model to make.
#[derive(Debug, Clone)]
pub struct RandomOptions {
    /// The new model's name: 1 to 64 letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Which encoder to make.
    pub architecture: Architecture,
    /// Transformer layers, at least 1.
    pub layers: usize,
    /// Width of the hidden states, a multiple of `heads`.
    pub hidden: usize,
    /// Attention heads of each layer, at least 1.
    pub heads: usize,
    /// Width of the feed-forward layers. `None` means four times `hidden`.
    pub intermediate: Option<usize>,
    /// Seed of the weights; the same options give the same weights.
    pub seed: u64,
    /// Whether a model of this name is replaced; otherwise it is an error. No default.
    pub force: bool,
}

#[cfg(test)]
impl RandomOptions {
    /// Small enough for any test: two layers, 8 wide.
    pub(crate) fn small(name: &str, architecture: Architecture) -> Self {
        RandomOptions {
            name: name.to_owned(),
            architecture,
            layers: 2,
            hidden: 8,
            heads: 2,
            intermediate: None,
            seed: 1,
            force: false,
        }
    }
}

/// Makes it in `home/models`, with the tokenizer of `vocabulary`.
pub(super) fn random(
    home: &Path,
    vocabulary: &ModelDir,
    options: &RandomOptions,
) -> Result<ModelDir, ModelError> {
    ModelDir::check_new(home, &options.name, options.force)?;
    let target = home.join(MODELS_FOLDER).join(&options.name);
    let wrong = |reason: String| ModelError::Unsupported { path: target.clone(), reason };
    let shape = Shape {
        layers: options.layers,
        hidden: options.hidden,
        heads: options.heads,
        intermediate: options.intermediate.unwrap_or(options.hidden.saturating_mul(4)),
        vocabulary: vocabulary.manifest.shape.vocabulary,
        positions: POSITIONS,
        type_vocabulary: if options.architecture == Architecture::Bert { TYPES } else { 0 },
        layer_norm_eps: LAYER_NORM_EPS,
    };
    check_size(&shape).map_err(wrong)?;
    let tokenizer_path = vocabulary.tokenizer_path();
    let tokenizer =
        fs::read_to_string(&tokenizer_path).map_err(|source| ModelError::from_io(&tokenizer_path, source))?;
    vocabulary.compare(TOKENIZER_FILE, &FileSum::of_bytes(tokenizer.as_bytes()))?;

    let weights = weights(options.architecture, &shape, options.seed);
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        name: options.name.clone(),
        architecture: options.architecture,
        dimension: shape.hidden as u32,
        pooling: Pooling::Mean,
        normalise: true,
        max_tokens: POSITIONS,
        licence: "none: random numbers".into(),
        source: format!(
            "random weights, seed {}, never trained; tokenizer of {}",
            options.seed, vocabulary.manifest.name
        ),
        lineage: Vec::new(),
        shape,
        prompts: Prompts::default(),
        quantised: None,
        files: BTreeMap::from([
            (WEIGHTS_FILE.to_owned(), FileSum::of_bytes(&weights)),
            (TOKENIZER_FILE.to_owned(), FileSum::of_bytes(tokenizer.as_bytes())),
        ]),
    };
    Manifest::parse(&manifest.to_toml(), &target.join(MANIFEST_FILE))?;
    place(&target, &manifest, &weights, &tokenizer)?;
    ModelDir::open(&target)
}

/// Whether such an encoder can exist and fits into one file; checked before any weight is drawn.
fn check_size(shape: &Shape) -> Result<(), String> {
    shape.check().map_err(|error| error.to_string())?;
    let Shape { layers, hidden, intermediate, vocabulary, .. } = *shape;
    let [layers, hidden, intermediate, vocabulary] =
        [layers, hidden, intermediate, vocabulary].map(|n| n as u128);
    // Biases and norms are small beside these.
    let layer = hidden.saturating_mul(4 * hidden + 2 * intermediate);
    let bytes =
        layer.saturating_mul(layers).saturating_add(hidden.saturating_mul(vocabulary)).saturating_mul(4);
    if bytes > FILE_BYTES_MAX as u128 {
        return Err(format!("its weights would take {bytes} bytes; allowed: {FILE_BYTES_MAX} (2 GiB)"));
    }
    Ok(())
}

/// One tensor, float32.
struct Tensor {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Tensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// The whole file. Each tensor has a generator of its own, so that they are drawn side by side.
fn weights(architecture: Architecture, shape: &Shape, seed: u64) -> Vec<u8> {
    let all = tensors(architecture, shape);
    let draw = |(number, (name, shape)): (usize, (String, Vec<usize>))| {
        let count = shape.iter().product();
        // Only norms have a weight of one axis.
        let bytes = match (shape.len(), name.ends_with(".weight")) {
            (1, true) => 1f32.to_le_bytes().repeat(count),
            (1, false) => vec![0; 4 * count],
            _ => normals(SplitMix(SplitMix(seed).next() ^ number as u64).next(), count),
        };
        (name, Tensor { shape, bytes })
    };
    let all: Vec<(String, Tensor)> = all.into_par_iter().enumerate().map(draw).collect();
    safetensors::serialize(all, None).expect("names are distinct and lengths belong to shapes")
}

/// `count` normal numbers (Box & Muller 1958) as little-endian float32.
fn normals(seed: u64, count: usize) -> Vec<u8> {
    let mut random = SplitMix(seed);
    // In (0, 1]: the logarithm of 0 is not a number to scale by.
    let mut uniform = move || ((random.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
    let mut bytes = Vec::with_capacity(4 * count + 4);
    while bytes.len() < 4 * count {
        let (radius, angle) = (DEVIATION * (-2.0 * uniform().ln()).sqrt(), TAU * uniform());
        for value in [radius * angle.cos(), radius * angle.sin()] {
            bytes.extend((value as f32).to_le_bytes());
        }
    }
    bytes.truncate(4 * count);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::tiny, onnx::Weights};

    fn options(architecture: Architecture) -> RandomOptions {
        RandomOptions { hidden: 24, heads: 3, ..RandomOptions::small("made", architecture) }
    }

    fn make(home: &Path, options: RandomOptions) -> Result<ModelDir, ModelError> {
        ModelDir::random(home, &ModelDir::open(&tiny::folder()).unwrap(), &options)
    }

    #[test]
    fn a_random_model_is_a_whole_model() {
        for architecture in [Architecture::Bert, Architecture::Distilbert] {
            let home = tempfile::tempdir().unwrap();
            let model = make(home.path(), options(architecture)).unwrap();
            model.verify().unwrap();
            assert_eq!(model.manifest.shape.intermediate, 96);
            assert!(model.manifest.source.contains("random weights, seed 1"));
            let weights = Weights::new(fs::read(model.weights_path()).unwrap()).unwrap();
            let graph = crate::onnx::EncoderGraph { hidden_outputs: false, ..model.manifest.graph() };
            graph.to_bytes(&weights).unwrap();
        }
    }

    #[test]
    fn weights_are_normal_biases_zero_and_norms_one() {
        let shape = ModelDir::open(&tiny::folder()).unwrap().manifest.shape;
        let file = weights(Architecture::Bert, &shape, 3);
        assert!(file == weights(Architecture::Bert, &shape, 3));
        assert!(file != weights(Architecture::Bert, &shape, 4));
        let all = Weights::new(file).unwrap();
        let read = |name: &str, shape: &[usize]| -> Vec<f64> {
            let bytes = all.tensor(&[name.to_owned()], shape).unwrap();
            bytes.as_chunks::<4>().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect()
        };
        let words = read("embeddings.word_embeddings.weight", &[shape.vocabulary, shape.hidden]);
        let n = words.len() as f64;
        let mean = words.iter().sum::<f64>() / n;
        let deviation = (words.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
        assert!(mean.abs() < 1e-3 && (deviation - 0.02).abs() < 1e-3, "{mean} {deviation}");
        // 68.3 % of a normal distribution are within one deviation.
        let within = words.iter().filter(|v| v.abs() < 0.02).count() as f64 / n;
        assert!((within - 0.683).abs() < 0.02, "{within}");
        assert_eq!(read("embeddings.LayerNorm.weight", &[shape.hidden]), vec![1.0; shape.hidden]);
        assert_eq!(read("encoder.layer.1.output.dense.bias", &[shape.hidden]), vec![0.0; shape.hidden]);
    }

    #[test]
    fn impossible_shapes_and_names_are_refused_before_anything_is_written() {
        let home = tempfile::tempdir().unwrap();
        let base = || options(Architecture::Bert);
        for (options, says) in [
            (RandomOptions { heads: 5, ..base() }, "hidden size 24 cannot be shared out among 5 heads"),
            (RandomOptions { layers: 0, ..base() }, "must all be at least 1"),
            (RandomOptions { hidden: 1 << 20, heads: 1, ..base() }, "bytes; allowed"),
            (RandomOptions { layers: usize::MAX, ..base() }, "bytes; allowed"),
            (RandomOptions { name: "a/b".into(), ..base() }, "cannot be a model's name"),
        ] {
            let error = make(home.path(), options).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(fs::read_dir(home.path()).unwrap().next().is_none());
    }

    #[test]
    fn a_name_that_is_taken_needs_force() {
        let home = tempfile::tempdir().unwrap();
        let first = make(home.path(), options(Architecture::Bert)).unwrap();
        let again = make(home.path(), options(Architecture::Bert)).unwrap_err();
        assert!(matches!(again, ModelError::Exists { .. }));
        let forced = RandomOptions { force: true, seed: 2, ..options(Architecture::Bert) };
        assert_ne!(make(home.path(), forced).unwrap().fingerprint, first.fingerprint);
    }
}
