//! Reads the tensors of `model.safetensors` as an ONNX initializer needs them: float32, little-endian, row-major.
//!
//! Every tensor is checked against the shape it is asked for, so that a config and weights that do not belong
//! together are found by name. Names are found with and without the prefix that a task head's file puts before
//! them (`bert.`, `distilbert.`). Nothing is computed here but changes of number format and the one transposition.

use bytes::Bytes;
use half::{bf16, f16};
use safetensors::{
    SafeTensors,
    tensor::{Dtype, Metadata, TensorInfo},
};

use super::OnnxError;

/// Prefixes under which an encoder's tensors are found, tried in this order.
pub(crate) const PREFIXES: [&str; 3] = ["", "bert.", "distilbert."];

/// An opened `model.safetensors`.
#[derive(Debug)]
pub struct Weights {
    file: Bytes,
    metadata: Metadata,
    /// Where the tensors begin in `file`.
    data_start: usize,
}

impl Weights {
    /// Takes a whole file.
    ///
    /// # Errors
    /// [`OnnxError::Unreadable`] if the header is broken or does not describe exactly these bytes.
    pub fn new(file: impl Into<Bytes>) -> Result<Self, OnnxError> {
        let file = file.into();
        let (header_bytes, metadata) = SafeTensors::read_metadata(&file)
            .map_err(|error| OnnxError::Unreadable { reason: error.to_string() })?;
        Ok(Weights { data_start: 8 + header_bytes, metadata, file })
    }

    /// A tensor as float32 in the order it is stored. Cost: one reading; float32 is not copied.
    ///
    /// `names` are the names it may have; errors name the first.
    ///
    /// # Errors
    /// [`OnnxError::MissingTensor`], [`OnnxError::WrongShape`], [`OnnxError::WrongType`]; [`OnnxError::NotFinite`] for
    /// NaN and infinity.
    pub fn tensor(&self, names: &[String], expected: &[usize]) -> Result<Bytes, OnnxError> {
        let (name, info) = self.find(names)?;
        if info.shape != expected {
            return Err(OnnxError::WrongShape { name, expected: expected.to_vec(), got: info.shape.clone() });
        }
        let (start, end) = info.data_offsets;
        let stored = self.file.slice(self.data_start + start..self.data_start + end);
        let values = match info.dtype {
            Dtype::F32 => stored,
            Dtype::F16 => widen(&stored, |bits| f16::from_le_bytes(bits).to_f32()),
            Dtype::BF16 => widen(&stored, |bits| bf16::from_le_bytes(bits).to_f32()),
            other => return Err(OnnxError::WrongType { name, got: format!("{other:?}") }),
        };
        if values.as_chunks::<4>().0.iter().all(|&value| f32::from_le_bytes(value).is_finite()) {
            Ok(values)
        } else {
            Err(OnnxError::NotFinite { name })
        }
    }

    /// The weight of a linear layer, stored `[out, in]`, as `[in, out]`: what MatMul multiplies by.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn linear(&self, names: &[String], inputs: usize, outputs: usize) -> Result<Bytes, OnnxError> {
        Ok(transpose(&self.tensor(names, &[outputs, inputs])?, outputs, inputs))
    }

    /// The number format of a tensor, if it is there under exactly this name.
    pub fn stored_type(&self, name: &str) -> Option<Dtype> {
        self.metadata.info(name).map(|info| info.dtype)
    }

    /// The bytes of a tensor that must be stored under exactly this name, in exactly this format.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn stored(&self, name: &str, dtype: Dtype, expected: &[usize]) -> Result<Bytes, OnnxError> {
        let name = name.to_owned();
        let Some(info) = self.metadata.info(&name) else { return Err(OnnxError::MissingTensor { name }) };
        if info.shape != expected {
            return Err(OnnxError::WrongShape { name, expected: expected.to_vec(), got: info.shape.clone() });
        }
        if info.dtype != dtype {
            return Err(OnnxError::WrongType { name, got: format!("{:?}", info.dtype) });
        }
        let (start, end) = info.data_offsets;
        Ok(self.file.slice(self.data_start + start..self.data_start + end))
    }

    fn find(&self, names: &[String]) -> Result<(String, &TensorInfo), OnnxError> {
        for prefix in PREFIXES {
            for name in names {
                let name = format!("{prefix}{name}");
                if let Some(info) = self.metadata.info(&name) {
                    return Ok((name, info));
                }
            }
        }
        Err(OnnxError::MissingTensor { name: names.first().cloned().unwrap_or_default() })
    }
}

/// Reads float32 numbers from little-endian bytes.
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
}

fn widen(stored: &[u8], to_f32: impl Fn([u8; 2]) -> f32) -> Bytes {
    let (pairs, _) = stored.as_chunks::<2>();
    pairs.iter().flat_map(|&bits| to_f32(bits).to_le_bytes()).collect::<Vec<u8>>().into()
}

/// Transposes `[rows, columns]` of float32 to `[columns, rows]`.
fn transpose(stored: &[u8], rows: usize, columns: usize) -> Bytes {
    let (values, _) = stored.as_chunks::<4>();
    let mut turned = vec![[0u8; 4]; values.len()];
    for (row, line) in values.chunks_exact(columns).enumerate() {
        for (column, value) in line.iter().enumerate() {
            turned[column * rows + row] = *value;
        }
    }
    turned.into_flattened().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    fn names(name: &str) -> Vec<String> {
        vec![name.to_owned()]
    }

    fn file(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> Vec<u8> {
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            (*name, TensorView::new(*dtype, shape.to_vec(), data).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn linear_weight_is_turned_to_in_out() {
        let data = f32s(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let weights = Weights::new(file(&[("w", Dtype::F32, &[2, 3], &data)])).unwrap();
        let turned = weights.linear(&names("w"), 3, 2).unwrap();
        assert_eq!(turned, f32s(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    }

    #[test]
    fn half_precision_is_widened_exactly() {
        let values = [1.5f32, -0.25, 2.0];
        let halves: Vec<u8> = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        let brains: Vec<u8> = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
        let weights =
            Weights::new(file(&[("a", Dtype::F16, &[3], &halves), ("b", Dtype::BF16, &[3], &brains)]))
                .unwrap();
        assert_eq!(weights.tensor(&names("a"), &[3]).unwrap(), f32s(&values));
        assert_eq!(weights.tensor(&names("b"), &[3]).unwrap(), f32s(&values));
    }

    #[test]
    fn tensor_is_found_under_each_prefix_and_each_of_its_names() {
        let data = f32s(&[7.0]);
        for stored in ["norm.gamma", "bert.norm.gamma", "distilbert.norm.weight"] {
            let weights = Weights::new(file(&[(stored, Dtype::F32, &[1], &data)])).unwrap();
            let found = weights.tensor(&["norm.weight".into(), "norm.gamma".into()], &[1]).unwrap();
            assert_eq!(found, data);
        }
    }

    #[test]
    fn missing_tensor_wrong_shape_and_wrong_type_are_named() {
        let data = f32s(&[7.0]);
        let weights =
            Weights::new(file(&[("a", Dtype::F32, &[1], &data), ("i", Dtype::I32, &[1], &data)])).unwrap();
        let missing = weights.tensor(&names("b"), &[1]).unwrap_err();
        assert!(matches!(missing, OnnxError::MissingTensor { name } if name == "b"));
        let shape = weights.tensor(&names("a"), &[2]).unwrap_err();
        assert_eq!(shape.to_string(), "tensor a has shape [1], but the config says [2]");
        let dtype = weights.tensor(&names("i"), &[1]).unwrap_err();
        assert_eq!(dtype.to_string(), "tensor i has type I32; supported: F32, F16, BF16");
    }

    #[test]
    fn values_that_are_not_finite_are_named() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let half: Vec<u8> = [1.0, bad].iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
            let file = file(&[("a", Dtype::F32, &[2], &f32s(&[1.0, bad])), ("h", Dtype::F16, &[2], &half)]);
            let weights = Weights::new(file).unwrap();
            for name in ["a", "h"] {
                let error = weights.tensor(&names(name), &[2]).unwrap_err();
                assert!(matches!(&error, OnnxError::NotFinite { name: named } if named == name), "{error}");
            }
        }
    }

    #[test]
    fn truncated_file_is_refused() {
        let mut bytes = file(&[("a", Dtype::F32, &[1], &f32s(&[7.0]))]);
        bytes.pop();
        assert!(matches!(Weights::new(bytes), Err(OnnxError::Unreadable { .. })));
        assert!(matches!(Weights::new(vec![1, 2]), Err(OnnxError::Unreadable { .. })));
    }
}
