//! A builder of ONNX graphs: named values in, nodes and initializers out, in the order they were asked for.
//!
//! The same calls give the same bytes. An operation that a model is made of is one method here, so that its
//! gradient has one place to stand when training graphs are written: each such method ends in [`Graph::node`],
//! which is where a tape would record it. What the builder does not do: infer shapes or check types.

use std::{collections::HashMap, rc::Rc};

use bytes::Bytes;

use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

pub use super::proto::tensor_proto::DataType;

/// Version of the operator set that the graphs are written in: LayerNormalization came with 17, Gelu with 20.
pub const OPSET: i64 = 20;
/// Version of the file format, the one that goes with [`OPSET`] and is read by every runtime since 2024.
pub const IR_VERSION: i64 = 10;

/// A tensor of the graph, by name: an input, an initializer or what a node gives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Value(Rc<str>);

impl Value {
    /// Its name in the file.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// One dimension of an input or output.
#[derive(Debug, Clone, Copy)]
pub enum Axis {
    /// Known when the graph is written.
    Fixed(usize),
    /// Known at run time; equal names are equal lengths.
    Named(&'static str),
}

/// An attribute of a node.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Text(&'static str),
}

/// A graph being written.
#[derive(Debug, Default)]
pub struct Graph {
    proto: GraphProto,
    /// Constants by type and content, each written once.
    constants: HashMap<(DataType, Vec<usize>, Vec<u8>), Value>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Graph { proto: GraphProto { name: Some(name.into()), ..Default::default() }, ..Default::default() }
    }

    /// Declares an input.
    pub fn input(&mut self, name: &str, data_type: DataType, axes: &[Axis]) -> Value {
        self.proto.input.push(value_info(name, data_type, axes));
        Value(name.into())
    }

    /// Declares a value as an output, under the name it has.
    pub fn output(&mut self, value: &Value, data_type: DataType, axes: &[Axis]) {
        self.proto.output.push(value_info(value.name(), data_type, axes));
    }

    /// Notes the shape of a value where the runtime cannot work it out; some of its fusions ask for known shapes.
    pub fn describe(&mut self, value: &Value, data_type: DataType, axes: &[Axis]) {
        self.proto.value_info.push(value_info(value.name(), data_type, axes));
    }

    /// Adds a tensor of weights: float32, little-endian, row-major. The bytes are shared, not copied.
    pub fn weight(&mut self, name: &str, dims: &[usize], data: Bytes) -> Value {
        self.initializer(name, DataType::Float, dims, data)
    }

    /// A float32 scalar.
    pub fn scalar(&mut self, value: f32) -> Value {
        self.constant(DataType::Float, &[], value.to_le_bytes().to_vec())
    }

    /// A list of int64, such as a shape or a list of axes.
    pub fn integers(&mut self, values: &[i64]) -> Value {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(DataType::Int64, &[values.len()], data)
    }

    /// An int64 scalar.
    pub fn integer(&mut self, value: i64) -> Value {
        self.constant(DataType::Int64, &[], value.to_le_bytes().to_vec())
    }

    /// Adds a node with one output, which gets the node's name.
    pub fn node(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attribute)],
    ) -> Value {
        debug_assert!(
            self.proto.node.iter().all(|node| node.name() != name),
            "two values of one graph are named {name}"
        );
        self.proto.node.push(NodeProto {
            input: inputs.iter().map(|value| value.name().to_owned()).collect(),
            output: vec![name.into()],
            name: Some(name.into()),
            op_type: Some(op.into()),
            domain: None,
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        });
        Value(name.into())
    }

    /// `x w`: the last axis of `x` is the first of `w`, or the matrices of two equally long stacks.
    pub fn matmul(&mut self, name: &str, x: &Value, w: &Value) -> Value {
        self.node("MatMul", name, &[x, w], &[])
    }

    /// `a + b`, broadcast.
    pub fn add(&mut self, name: &str, a: &Value, b: &Value) -> Value {
        self.node("Add", name, &[a, b], &[])
    }

    /// `a * b`, broadcast.
    pub fn mul(&mut self, name: &str, a: &Value, b: &Value) -> Value {
        self.node("Mul", name, &[a, b], &[])
    }

    /// `a / b`, broadcast.
    pub fn div(&mut self, name: &str, a: &Value, b: &Value) -> Value {
        self.node("Div", name, &[a, b], &[])
    }

    /// The same numbers in another shape; 0 keeps a dimension, -1 is worked out.
    pub fn reshape(&mut self, name: &str, x: &Value, shape: &[i64]) -> Value {
        let shape = self.integers(shape);
        self.node("Reshape", name, &[x, &shape], &[])
    }

    /// Axis `i` of the result is axis `order[i]` of `x`.
    pub fn transpose(&mut self, name: &str, x: &Value, order: &[i64]) -> Value {
        self.node("Transpose", name, &[x], &[("perm", Attribute::Ints(order.to_vec()))])
    }

    /// Softmax over the last axis.
    pub fn softmax(&mut self, name: &str, x: &Value) -> Value {
        self.node("Softmax", name, &[x], &[("axis", Attribute::Int(-1))])
    }

    /// Gaussian error linear unit, exact (with erf, not with tanh): Hendrycks & Gimpel 2016, section 2.
    pub fn gelu(&mut self, name: &str, x: &Value) -> Value {
        self.node("Gelu", name, &[x], &[("approximate", Attribute::Text("none"))])
    }

    /// Layer normalisation over the last axis: Ba, Kiros & Hinton 2016, section 3.
    pub fn layer_norm(&mut self, name: &str, x: &Value, scale: &Value, bias: &Value, epsilon: f32) -> Value {
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
        self.node("LayerNormalization", name, &[x, scale, bias], &attributes)
    }

    /// Sum over `axes`, which stay with length 1 if `keep`.
    pub fn reduce_sum(&mut self, name: &str, x: &Value, axes: &[i64], keep: bool) -> Value {
        self.reduce("ReduceSum", name, x, axes, keep)
    }

    /// Largest value over `axes`, which stay with length 1 if `keep`.
    pub fn reduce_max(&mut self, name: &str, x: &Value, axes: &[i64], keep: bool) -> Value {
        self.reduce("ReduceMax", name, x, axes, keep)
    }

    /// Euclidean length over `axes`, which stay with length 1 if `keep`.
    pub fn reduce_l2(&mut self, name: &str, x: &Value, axes: &[i64], keep: bool) -> Value {
        self.reduce("ReduceL2", name, x, axes, keep)
    }

    /// Rows of `table` by number.
    pub fn gather(&mut self, name: &str, table: &Value, indices: &Value, axis: i64) -> Value {
        self.node("Gather", name, &[table, indices], &[("axis", Attribute::Int(axis))])
    }

    /// Adds axes of length 1 at `axes` of the result.
    pub fn unsqueeze(&mut self, name: &str, x: &Value, axes: &[i64]) -> Value {
        let axes = self.integers(axes);
        self.node("Unsqueeze", name, &[x, &axes], &[])
    }

    /// The same values in another number format.
    pub fn cast(&mut self, name: &str, x: &Value, to: DataType) -> Value {
        self.node("Cast", name, &[x], &[("to", Attribute::Int(to as i64))])
    }

    /// The finished model, with the operator set it is written in.
    pub fn into_model(self) -> ModelProto {
        ModelProto {
            ir_version: Some(IR_VERSION),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
            producer_name: Some("distilface".into()),
            graph: Some(self.proto),
            ..Default::default()
        }
    }

    fn reduce(&mut self, op: &str, name: &str, x: &Value, axes: &[i64], keep: bool) -> Value {
        let axes = self.integers(axes);
        self.node(op, name, &[x, &axes], &[("keepdims", Attribute::Int(i64::from(keep)))])
    }

    fn constant(&mut self, data_type: DataType, dims: &[usize], data: Vec<u8>) -> Value {
        let key = (data_type, dims.to_vec(), data.clone());
        if let Some(value) = self.constants.get(&key) {
            return value.clone();
        }
        let name = format!("constant.{}", self.constants.len());
        let value = self.initializer(&name, data_type, dims, data.into());
        self.constants.insert(key, value.clone());
        value
    }

    fn initializer(&mut self, name: &str, data_type: DataType, dims: &[usize], data: Bytes) -> Value {
        self.proto.initializer.push(TensorProto {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(data_type as i32),
            name: Some(name.into()),
            raw_data: Some(data),
        });
        Value(name.into())
    }
}

fn value_info(name: &str, data_type: DataType, axes: &[Axis]) -> ValueInfoProto {
    let dim = axes
        .iter()
        .map(|axis| Dimension {
            value: Some(match axis {
                Axis::Fixed(length) => dimension::Value::DimValue(*length as i64),
                Axis::Named(name) => dimension::Value::DimParam((*name).into()),
            }),
        })
        .collect();
    let tensor =
        type_proto::Tensor { elem_type: Some(data_type as i32), shape: Some(TensorShapeProto { dim }) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)) };
    ValueInfoProto { name: Some(name.into()), r#type: Some(r#type) }
}

fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    let mut proto = AttributeProto { name: Some(name.into()), ..Default::default() };
    let kind = match value {
        Attribute::Int(i) => {
            proto.i = Some(*i);
            AttributeType::Int
        }
        Attribute::Ints(ints) => {
            proto.ints.clone_from(ints);
            AttributeType::Ints
        }
        Attribute::Float(f) => {
            proto.f = Some(*f);
            AttributeType::Float
        }
        Attribute::Text(text) => {
            proto.s = Some(text.as_bytes().to_vec());
            AttributeType::String
        }
    };
    proto.r#type = Some(kind as i32);
    proto
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_constants_are_written_once() {
        let mut graph = Graph::new("test");
        let one = graph.scalar(1.0);
        assert_eq!(graph.scalar(1.0), one);
        assert_ne!(graph.scalar(2.0), one);
        assert_ne!(graph.integers(&[1]), graph.integer(1));
        assert_eq!(graph.into_model().graph.unwrap().initializer.len(), 4);
    }

    #[test]
    fn node_carries_its_inputs_name_and_attributes() {
        let mut graph = Graph::new("test");
        let x = graph.input("x", DataType::Float, &[Axis::Named("batch"), Axis::Fixed(3)]);
        let y = graph.transpose("y", &x, &[1, 0]);
        graph.output(&y, DataType::Float, &[Axis::Fixed(3), Axis::Named("batch")]);
        let model = graph.into_model();
        assert_eq!((model.ir_version(), model.opset_import[0].version()), (IR_VERSION, OPSET));
        let proto = model.graph.unwrap();
        let node = &proto.node[0];
        assert_eq!(
            (node.op_type(), node.input[0].as_str(), node.output[0].as_str()),
            ("Transpose", "x", "y")
        );
        assert_eq!(node.attribute[0].ints, [1, 0]);
        assert_eq!(node.attribute[0].r#type, Some(AttributeType::Ints as i32));
        assert_eq!(proto.output[0].name(), "y");
    }

    #[test]
    #[should_panic(expected = "two values of one graph are named y")]
    fn a_name_used_twice_is_our_bug() {
        let mut graph = Graph::new("test");
        let x = graph.input("x", DataType::Float, &[]);
        graph.gelu("y", &x);
        graph.gelu("y", &x);
    }
}
