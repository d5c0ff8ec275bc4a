//! The tensors that are trained: named, float32, row-major, as Hugging Face names and lays them out
//! (a linear layer is `[out, in]`), in the encoder's order.

use crate::{
    onnx::{Architecture, OnnxError, Shape, Weights, encoder::tensors},
    random::SplitMix,
};

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
    #[expect(missing_docs)]
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
        let mut random = SplitMix(seed);
        // The sum of twelve uniform numbers has variance 1 and is close enough to normal.
        let mut normal =
            || (0..12).map(|_| (random.next() >> 40) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0;
        let tensor = |(name, shape): (String, Vec<usize>)| {
            let count = shape.iter().product();
            let values = match (shape.len(), name.ends_with(".weight")) {
                (2, _) => (0..count).map(|_| 0.02 * normal()).collect(),
                (_, true) => vec![1.0; count],
                (_, false) => vec![0.0; count],
            };
            Parameter { name, shape, values }
        };
        Parameters { list: tensors(architecture, shape).into_iter().map(tensor).collect() }
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
