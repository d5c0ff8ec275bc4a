//! The tensors that are trained: named, float32, row-major, as Hugging Face names and lays them out
//! (a linear layer is `[out, in]`), in the encoder's order.

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
    /// Values in all tensors together.
    pub fn count(&self) -> usize {
        self.list.iter().map(|p| p.values.len()).sum()
    }

    /// The tensor of this name.
    pub fn find(&self, name: &str) -> Option<&Parameter> {
        self.list.iter().find(|p| p.name == name)
    }
}
