//! Writes the nodes that multiply weights in 8 bits.
//!
//! Rounding and its reverse are written with the standard's QuantizeLinear and DequantizeLinear around a plain MatMul.
//! ONNX Runtime's CPU provider makes one integer product of the four (`MatMulIntegerToFloat`) and still fuses bias with
//! GELU behind it; a provider that knows no integer product computes the same numbers in float32.
//! MatMulInteger with Cast and Mul behind it, also standard, is fused with nothing and was about a tenth slower.

use bytes::Bytes;
use safetensors::tensor::Dtype;

use super::WORDS;
use crate::onnx::{
    OnnxError, Weights,
    graph::{Attribute, DataType, Graph, Value},
};

/// Whether the weights hold this tensor in 8 bits.
pub(in crate::onnx) fn is_rounded(weights: &Weights, tensor: &str) -> bool {
    weights.stored_type(tensor) == Some(Dtype::I8)
}

/// `x w` for a linear layer `[inputs, outputs]` that is stored in 8 bits.
///
/// # Errors
/// [`OnnxError::MissingTensor`], [`OnnxError::WrongShape`], [`OnnxError::WrongType`] by tensor.
pub(in crate::onnx) fn product(
    graph: &mut Graph,
    weights: &Weights,
    name: &str,
    tensor: &str,
    x: &Value,
    [inputs, outputs]: [usize; 2],
) -> Result<Value, OnnxError> {
    let (rounded, scale, zero_point) = input(graph, weights, x, inputs)?;
    let x = graph.node("DequantizeLinear", &format!("{name}.input"), &[&rounded, &scale, &zero_point], &[]);

    let weight_name = format!("{tensor}.weight");
    let data = weights.stored(&weight_name, Dtype::I8, &[outputs, inputs])?;
    let weight = graph.initializer(
        &format!("{weight_name}.transposed"),
        DataType::Int8,
        &[inputs, outputs],
        transpose(&data, outputs, inputs),
    );
    let scale_name = format!("{weight_name}.scale");
    let scale = weights.stored(&scale_name, Dtype::F32, &[outputs])?;
    let scale = graph.weight(&scale_name, &[outputs], scale);
    // The runtime's fusion wants the zero points of the columns written out.
    let zeros = graph.constant(DataType::Int8, &[outputs], vec![0; outputs]);
    let columns = [("axis", Attribute::Int(1))];
    let weight =
        graph.node("DequantizeLinear", &format!("{name}.weight"), &[&weight, &scale, &zeros], &columns);
    Ok(graph.matmul(name, &x, &weight))
}

/// `x` rounded, once for all layers that multiply it; its scale and its zero point.
fn input(
    graph: &mut Graph,
    weights: &Weights,
    x: &Value,
    width: usize,
) -> Result<(Value, Value, Value), OnnxError> {
    let at = |part: &str| format!("inputs.{}.{part}", x.name());
    let scale = weights.stored(&at("scale"), Dtype::F32, &[])?;
    let scale = graph.constant(DataType::Float, &[], scale.to_vec());
    let zero_point = weights.stored(&at("zero_point"), Dtype::U8, &[])?;
    let zero_point = graph.constant(DataType::Uint8, &[], zero_point.to_vec());
    let name = format!("{}.rounded", x.name());
    if graph.holds(&name) {
        return Ok((Value::named(&name), scale, zero_point));
    }
    let mut value = x.clone();
    if weights.stored_type(&at("smoothing")).is_some() {
        let factors = weights.stored(&at("smoothing"), Dtype::F32, &[width])?;
        let factors = graph.weight(&at("smoothing"), &[width], factors);
        value = graph.mul(&format!("{}.smoothed", x.name()), x, &factors);
    }
    Ok((graph.node("QuantizeLinear", &name, &[&value, &scale, &zero_point], &[]), scale, zero_point))
}

/// Rows of the word embeddings by number, float32 `[batch, sequence, hidden]`, from a table in 8 bits: only the rows
/// that are asked for are widened.
///
/// # Errors
/// Multiplies as [`product`] does.
pub(in crate::onnx) fn words(
    graph: &mut Graph,
    weights: &Weights,
    name: &str,
    ids: &Value,
    [vocabulary, hidden]: [usize; 2],
) -> Result<Value, OnnxError> {
    let table = weights.stored(WORDS, Dtype::I8, &[vocabulary, hidden])?;
    let table = graph.initializer(WORDS, DataType::Int8, &[vocabulary, hidden], table);
    let scale_name = format!("{WORDS}.scale");
    let scales = weights.stored(&scale_name, Dtype::F32, &[vocabulary])?;
    let scales = graph.weight(&scale_name, &[vocabulary, 1], scales);
    let rows = graph.gather(&format!("{name}.rounded"), &table, ids, 0);
    let rows = graph.cast(&format!("{name}.float"), &rows, DataType::Float);
    let scales = graph.gather(&format!("{name}.scale"), &scales, ids, 0);
    Ok(graph.mul(name, &rows, &scales))
}

/// Transposes `[rows, columns]` of single bytes to `[columns, rows]`.
fn transpose(stored: &[u8], rows: usize, columns: usize) -> Bytes {
    let mut turned = vec![0u8; stored.len()];
    for (row, line) in stored.chunks_exact(columns).enumerate() {
        for (column, value) in line.iter().enumerate() {
            turned[column * rows + row] = *value;
        }
    }
    turned.into()
}
