//! The tensors that are trained: named, float32, row-major, as Hugging Face names and lays them out
//! (a linear layer is `[out, in]`), in the encoder's order.

use std::{fs, path::Path};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::FinetuneError;
use crate::{
    files::write_whole_with,
    model::ModelDir,
    onnx::{Architecture, OnnxError, Shape, Weights, encoder::tensors},
    random::{SplitMix, mixed},
};

/// Standard deviation of fresh weights.
const DEVIATION: f32 = 0.02;

/// One tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Hugging Face's name without a task head's prefix: `encoder.layer.0.output.dense.weight`.
    pub name: String,
    /// Lengths of its axes; their product is the number of values.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// All tensors of a model, in one order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters {
    /// The tensors, each name once.
    pub list: Vec<Parameter>,
}

impl Parameters {
    /// The encoder's tensors out of a file of weights; older names of norms and prefixes of task heads are known.
    ///
    /// # Errors
    /// [`OnnxError::MissingTensor`], [`OnnxError::WrongShape`], [`OnnxError::WrongType`] by tensor.
    pub fn load(weights: &Weights, architecture: Architecture, shape: &Shape) -> Result<Self, OnnxError> {
        let load = |(name, shape): (String, Vec<usize>)| {
            let old =
                name.strip_suffix("LayerNorm.weight").map(|front| format!("{front}LayerNorm.gamma")).or_else(
                    || name.strip_suffix("LayerNorm.bias").map(|front| format!("{front}LayerNorm.beta")),
                );
            let names: Vec<String> = [name.clone()].into_iter().chain(old).collect();
            let bytes = weights.tensor(&names, &shape)?;
            let values = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            Ok(Parameter { name, shape, values })
        };
        let list = tensors(architecture, shape).into_iter().map(load).collect::<Result<_, OnnxError>>()?;
        Ok(Parameters { list })
    }

    /// Weights as BERT begins with: normal with deviation 0.02, norms 1, biases 0 (Devlin et al. 2018, appendix A.2).
    pub fn random(architecture: Architecture, shape: &Shape, seed: u64) -> Self {
        let tensor = |(n, (name, shape)): (usize, (String, Vec<usize>))| {
            let norm = shape.len() == 1 && name.ends_with(".weight");
            let values = match norm {
                true => vec![1.0; shape[0]],
                false => Parameters::draw(&shape, shape.len() == 1, mixed(seed, n as u64)),
            };
            Parameter { name, shape, values }
        };
        Parameters { list: tensors(architecture, shape).into_iter().enumerate().map(tensor).collect() }
    }

    /// Numbers of one tensor: zeros, or normal with deviation 0.02.
    pub fn draw(shape: &[usize], zero: bool, seed: u64) -> Vec<f32> {
        let count = shape.iter().product();
        if zero || shape.len() == 1 {
            return vec![0.0; count];
        }
        let mut random = SplitMix(seed);
        // The sum of twelve uniform numbers has variance 1 and is close enough to normal.
        let mut normal =
            || (0..12).map(|_| (random.next() >> 40) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0;
        (0..count).map(|_| DEVIATION * normal()).collect()
    }

    /// The encoder's tensors of a model directory, its weights compared with their recorded sum.
    ///
    /// # Errors
    /// Model errors, among them that of a model in 8 bits; those of [`Parameters::load`].
    pub fn of_model(model: &ModelDir) -> Result<Self, FinetuneError> {
        model.check_full_precision()?;
        model.verify()?;
        let path = model.weights_path();
        let content = fs::read(&path).map_err(|source| FinetuneError::Io { path, source })?;
        let manifest = &model.manifest;
        Ok(Parameters::load(&Weights::new(content)?, manifest.architecture, &manifest.shape)?)
    }

    /// All tensors as a safetensors file.
    ///
    /// # Errors
    /// None for tensors whose values fit their shapes.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, FinetuneError> {
        let bytes: Vec<Vec<u8>> =
            self.list.iter().map(|p| p.values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let views = self.list.iter().zip(&bytes).map(|(p, bytes)| {
            let view = TensorView::new(Dtype::F32, p.shape.clone(), bytes);
            (&p.name, view.expect("a parameter has as many values as its shape says"))
        });
        // What transformers looks for before it opens a file.
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        Ok(safetensors::serialize(views, Some(metadata))
            .map_err(|e| OnnxError::Unreadable { reason: e.to_string() })?)
    }

    /// Writes [`Parameters::to_safetensors`] whole or not at all.
    ///
    /// # Errors
    /// [`FinetuneError::Io`], such as a full disk.
    pub fn save(&self, path: &Path) -> Result<(), FinetuneError> {
        let content = self.to_safetensors()?;
        let failed = |source| FinetuneError::Io { path: path.to_owned(), source };
        write_whole_with(path, |file| file.write_all(&content)).map_err(failed)
    }

    /// Reads what [`Parameters::save`] wrote.
    ///
    /// # Errors
    /// [`FinetuneError::Io`]; [`OnnxError::Unreadable`] for a damaged file.
    pub fn read(path: &Path) -> Result<Self, FinetuneError> {
        let content = fs::read(path).map_err(|source| FinetuneError::Io { path: path.to_owned(), source })?;
        let file = SafeTensors::deserialize(&content)
            .map_err(|e| OnnxError::Unreadable { reason: format!("{}: {e}", path.display()) })?;
        let mut list: Vec<(usize, Parameter)> = file
            .iter()
            .map(|(name, view)| {
                let values = view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
                let at = view.data().as_ptr() as usize;
                (at, Parameter { name: name.to_owned(), shape: view.shape().to_vec(), values })
            })
            .collect();
        // A file's header has no order; its data does.
        list.sort_unstable_by_key(|(at, _)| *at);
        Ok(Parameters { list: list.into_iter().map(|(_, parameter)| parameter).collect() })
    }

    /// Values in all tensors together.
    pub fn count(&self) -> usize {
        self.list.iter().map(|p| p.values.len()).sum()
    }

    /// The tensor of this name.
    pub fn find(&self, name: &str) -> Option<&Parameter> {
        self.list.iter().find(|p| p.name == name)
    }
}
