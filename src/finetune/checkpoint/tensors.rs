//! Writes named tensors to a safetensors file and reads them back.
//!
//! Written piece by piece, so that saving a model needs no second copy of it in memory; read with the crate.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, json};

use crate::finetune::parameters::{Parameter, Parameters};

/// Values that are turned into bytes at once.
const PIECE: usize = 1 << 14;
/// The data begin at a multiple of it.
const ALIGNMENT: usize = 8;

/// A tensor to be written, or one that was read.
#[derive(Debug)]
pub(super) struct Tensor<'a> {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Values<'a>,
}

/// Row-major.
#[derive(Debug)]
pub(super) enum Values<'a> {
    Single(Cow<'a, [f32]>),
    Double(Cow<'a, [f64]>),
}

impl Values<'_> {
    fn bytes(&self) -> usize {
        match self {
            Values::Single(values) => 4 * values.len(),
            Values::Double(values) => 8 * values.len(),
        }
    }

    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        match self {
            Values::Single(values) => values.chunks(PIECE).try_for_each(|piece| {
                to.write_all(&piece.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
            }),
            Values::Double(values) => values.chunks(PIECE).try_for_each(|piece| {
                to.write_all(&piece.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
            }),
        }
    }
}

/// Parameters, to be written.
pub(super) fn of(parameters: &Parameters) -> Vec<Tensor<'_>> {
    let list = parameters.list.iter();
    list.map(|Parameter { name, shape, values }| Tensor {
        name: name.clone(),
        shape: shape.clone(),
        values: Values::Single(Cow::Borrowed(values)),
    })
    .collect()
}

/// Parameters from what was read; float64 tensors are none.
pub(super) fn parameters(tensors: Vec<Tensor<'static>>) -> Parameters {
    let list = tensors.into_iter().filter_map(|Tensor { name, shape, values }| match values {
        Values::Single(values) => Some(Parameter { name, shape, values: values.into_owned() }),
        Values::Double(_) => None,
    });
    Parameters { list: list.collect() }
}

/// Writes a file: eight bytes of length, a JSON header, the data in the tensors' order.
/// <https://github.com/huggingface/safetensors#format>
pub(super) fn write(to: &mut dyn Write, tensors: &[Tensor]) -> io::Result<()> {
    let mut header = Map::new();
    let mut end = 0;
    // Readers may ask for data that lie on a multiple of their size: the wider ones come first.
    let (wide, narrow): (Vec<&Tensor>, Vec<&Tensor>) =
        tensors.iter().partition(|tensor| matches!(tensor.values, Values::Double(_)));
    let ordered = || wide.iter().chain(&narrow);
    for tensor in ordered() {
        let begin = end;
        end += tensor.values.bytes();
        let dtype = if matches!(tensor.values, Values::Double(_)) { "F64" } else { "F32" };
        let entry = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [begin, end] });
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    ordered().try_for_each(|tensor| tensor.values.write(to))
}

/// Reads a file, tensors in the order of their data.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Tensor<'static>>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut views = file.tensors();
    views.sort_by_key(|(_, view)| view.data().as_ptr().addr());
    views
        .into_iter()
        .map(|(name, view)| {
            let values = match view.dtype() {
                Dtype::F32 => {
                    let (values, _) = view.data().as_chunks::<4>();
                    Values::Single(values.iter().map(|&value| f32::from_le_bytes(value)).collect())
                }
                Dtype::F64 => {
                    let (values, _) = view.data().as_chunks::<8>();
                    Values::Double(values.iter().map(|&value| f64::from_le_bytes(value)).collect())
                }
                other => return Err(format!("{name} is {other:?}, expected F32 or F64")),
            };
            Ok(Tensor { name, shape: view.shape().to_vec(), values })
        })
        .collect()
}
