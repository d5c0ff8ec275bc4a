//! A builder of ONNX graphs: named values in, nodes and initializers out, in the order they were asked for.
//!
//! The same calls give the same bytes. An operation that a model is made of is one method here, so that its
//! gradient has one place to stand (`gradient.rs`): each such method ends in [`Graph::node`], and the list of nodes is
//! the tape that reverse mode walks. Ranks and fixed lengths are followed (`shapes.rs`) as far as gradients need them.
//! What the builder does not do: check types, or see that lengths agree.

use std::{collections::HashMap, rc::Rc};

use bytes::Bytes;

use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};
use super::shapes;

pub use super::proto::tensor_proto::DataType;

/// Version of the operator set that the graphs are written in: LayerNormalization came with 17, Gelu with 20.
pub const OPSET: i64 = 20;
/// Version of the file format, the one that goes with [`OPSET`] and is read by every runtime since 2024.
pub const IR_VERSION: i64 = 10;

/// Operators of our own (`runtime/operators.rs`).
pub const OWN_DOMAIN: &str = "ai.distilface";
/// The version of these operators.
pub const OWN_OPSET: i64 = 1;

/// Shortest length that normalisation divides by, as in PyTorch's `normalize`.
pub const LENGTH_MIN: f32 = 1e-12;

/// A tensor of the graph, by name: an input, an initializer or what a node gives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Value(Rc<str>);

impl Value {
    /// The value of this name, which some graph must hold.
    pub(super) fn named(name: &str) -> Self {
        Value(name.into())
    }

    /// Its name in the file.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// One dimension of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Known when the graph is written.
    Fixed(usize),
    /// Known at run time; equal names are equal lengths.
    Named(&'static str),
    /// Known at run time.
    Unknown,
}

/// An attribute of a node.
#[derive(Debug, Clone)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A number in single precision.
    Float(f32),
    /// A string.
    Text(&'static str),
}

/// A graph being written.
#[derive(Debug, Default)]
pub struct Graph {
    pub(super) proto: GraphProto,
    /// Constants by type and content, each written once.
    constants: HashMap<(DataType, Vec<usize>, Vec<u8>), Value>,
    /// Content of the integer constants, by name: axes and shapes.
    integers: HashMap<Value, Vec<i64>>,
    /// Axes of every value whose rank is known.
    shapes: HashMap<Value, Vec<Axis>>,
    /// Gradient nodes written so far, for their names.
    pub(super) gradient_nodes: usize,
    /// Whether operators of our own are among the nodes.
    own_operators: bool,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Graph { proto: GraphProto { name: Some(name.into()), ..Default::default() }, ..Default::default() }
    }

    /// Declares an input.
    pub fn input(&mut self, name: &str, data_type: DataType, axes: &[Axis]) -> Value {
        self.proto.input.push(value_info(name, data_type, axes));
        let value = Value(name.into());
        self.shapes.insert(value.clone(), axes.to_vec());
        value
    }

    /// Declares a value as an output, under the name it has.
    pub fn output(&mut self, value: &Value, data_type: DataType, axes: &[Axis]) {
        self.proto.output.push(value_info(value.name(), data_type, axes));
    }

    /// Notes the shape of a value where the runtime cannot work it out; some of its fusions ask for known shapes.
    pub fn describe(&mut self, value: &Value, data_type: DataType, axes: &[Axis]) {
        self.proto.value_info.push(value_info(value.name(), data_type, axes));
        self.shapes.insert(value.clone(), axes.to_vec());
    }

    /// Axes of a value, where they are known.
    pub(super) fn axes(&self, value: &Value) -> Option<&[Axis]> {
        self.shapes.get(value).map(Vec::as_slice)
    }

    pub(super) fn set_axes(&mut self, value: &Value, axes: Vec<Axis>) {
        self.shapes.insert(value.clone(), axes);
    }

    /// Whether a node of this name was added.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.proto.node.iter().any(|node| node.name() == name)
    }

    /// Content of an integer constant.
    pub(super) fn integers_of(&self, value: &Value) -> Option<&[i64]> {
        self.integers.get(value).map(Vec::as_slice)
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
        let value = self.constant(DataType::Int64, &[values.len()], data);
        self.integers.insert(value.clone(), values.to_vec());
        value
    }

    /// An int64 scalar.
    pub fn integer(&mut self, value: i64) -> Value {
        let constant = self.constant(DataType::Int64, &[], value.to_le_bytes().to_vec());
        self.integers.insert(constant.clone(), vec![value]);
        constant
    }

    /// Adds a node with one output, which gets the node's name.
    pub fn node(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attribute)],
    ) -> Value {
        let [value] = self.node_of(op, name, inputs, attributes, &[""]);
        value
    }

    /// [`Graph::node`] of an operator of our own, which gives float32 of these axes.
    pub fn own_node(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attribute)],
        axes: &[Axis],
    ) -> Value {
        let value = self.node(op, name, inputs, attributes);
        if let Some(node) = self.proto.node.last_mut() {
            node.domain = Some(OWN_DOMAIN.into());
        }
        self.own_operators = true;
        self.describe(&value, DataType::Float, axes);
        value
    }

    /// Adds a node whose outputs get the node's name with each of `suffixes` behind it.
    pub fn node_of<const N: usize>(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attribute)],
        suffixes: &[&str; N],
    ) -> [Value; N] {
        let outputs = suffixes.map(|suffix| Value(format!("{name}{suffix}").into()));
        self.push(op, name, inputs, attributes, &outputs);
        outputs
    }

    /// Adds a node with `count` outputs, which get the node's name and a number.
    pub fn node_with_outputs(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attribute)],
        count: usize,
    ) -> Vec<Value> {
        let outputs: Vec<Value> = (0..count).map(|n| Value(format!("{name}.{n}").into())).collect();
        self.push(op, name, inputs, attributes, &outputs);
        outputs
    }

    fn push(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attribute)],
        outputs: &[Value],
    ) {
        debug_assert!(
            self.proto.node.iter().all(|node| node.name() != name),
            "two values of one graph are named {name}"
        );
        self.proto.node.push(NodeProto {
            input: inputs.iter().map(|value| value.name().to_owned()).collect(),
            output: outputs.iter().map(|value| value.name().to_owned()).collect(),
            name: Some(name.into()),
            op_type: Some(op.into()),
            domain: None,
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        });
        for (value, axes) in outputs.iter().zip(shapes::infer(self, op, inputs, attributes, outputs.len())) {
            if let Some(axes) = axes {
                self.shapes.insert(value.clone(), axes);
            }
        }
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

    /// `a - b`, broadcast.
    pub fn sub(&mut self, name: &str, a: &Value, b: &Value) -> Value {
        self.node("Sub", name, &[a, b], &[])
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

    /// `x w^T + bias`: `x` `[n, in]`, `w` `[out, in]` as PyTorch stores a linear layer, `bias` `[out]`.
    pub fn linear(&mut self, name: &str, x: &Value, w: &Value, bias: Option<&Value>) -> Value {
        let inputs: Vec<&Value> = [x, w].into_iter().chain(bias).collect();
        self.node("Gemm", name, &inputs, &[("transB", Attribute::Int(1))])
    }

    /// The same numbers in a shape that is a value of the graph and comes out as `axes`.
    pub fn reshape_to(&mut self, name: &str, x: &Value, shape: &Value, axes: &[Axis]) -> Value {
        let value = self.node("Reshape", name, &[x, shape], &[]);
        self.shapes.insert(value.clone(), axes.to_vec());
        value
    }

    /// `x[.., start..end, ..]` along `axis`.
    pub fn slice(&mut self, name: &str, x: &Value, axis: i64, start: i64, end: i64) -> Value {
        let (start, end, axis) = (self.integers(&[start]), self.integers(&[end]), self.integers(&[axis]));
        self.node("Slice", name, &[x, &start, &end, &axis], &[])
    }

    /// `x` in equal parts along `axis`.
    pub fn split(&mut self, name: &str, x: &Value, axis: i64, parts: usize) -> Vec<Value> {
        let attributes = [("axis", Attribute::Int(axis)), ("num_outputs", Attribute::Int(parts as i64))];
        self.node_with_outputs("Split", name, &[x], &attributes, parts)
    }

    /// Logarithm of the softmax over the last axis.
    pub fn log_softmax(&mut self, name: &str, x: &Value) -> Value {
        self.node("LogSoftmax", name, &[x], &[("axis", Attribute::Int(-1))])
    }

    /// Hyperbolic tangent.
    pub fn tanh(&mut self, name: &str, x: &Value) -> Value {
        self.node("Tanh", name, &[x], &[])
    }

    /// Rows of `x` scaled to unit length, as PyTorch's `normalize`.
    pub fn normalise(&mut self, name: &str, x: &Value) -> Value {
        let length = self.reduce_l2(&format!("{name}.length"), x, &[1], true);
        let least = self.scalar(LENGTH_MIN);
        let length = self.node("Max", &format!("{name}.length.least"), &[&length, &least], &[]);
        self.div(name, x, &length)
    }

    /// [`Graph::layer_norm`] that also keeps each row's mean and inverse deviation, which its gradient needs.
    pub fn layer_norm_saving(
        &mut self,
        name: &str,
        x: &Value,
        scale: &Value,
        bias: &Value,
        epsilon: f32,
    ) -> Value {
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
        let suffixes = ["", ".mean", ".inverse_deviation"];
        let [value, _, _] =
            self.node_of("LayerNormalization", name, &[x, scale, bias], &attributes, &suffixes);
        value
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

    /// Mean over `axes`, which stay with length 1 if `keep`.
    pub fn reduce_mean(&mut self, name: &str, x: &Value, axes: &[i64], keep: bool) -> Value {
        self.reduce("ReduceMean", name, x, axes, keep)
    }

    /// Largest value over `axes`, which stay with length 1 if `keep`.
    pub fn reduce_max(&mut self, name: &str, x: &Value, axes: &[i64], keep: bool) -> Value {
        self.reduce("ReduceMax", name, x, axes, keep)
    }

    /// Least value over `axes`, which stay with length 1 if `keep`.
    pub fn reduce_min(&mut self, name: &str, x: &Value, axes: &[i64], keep: bool) -> Value {
        self.reduce("ReduceMin", name, x, axes, keep)
    }

    /// Euclidean length over `axes`, which stay with length 1 if `keep`.
    pub fn reduce_l2(&mut self, name: &str, x: &Value, axes: &[i64], keep: bool) -> Value {
        self.reduce("ReduceL2", name, x, axes, keep)
    }

    /// Rows of `table` by number.
    pub fn gather(&mut self, name: &str, table: &Value, indices: &Value, axis: i64) -> Value {
        self.node("Gather", name, &[table, indices], &[("axis", Attribute::Int(axis))])
    }

    /// `parts` one behind the other along `axis`.
    pub fn concat(&mut self, name: &str, parts: &[&Value], axis: i64) -> Value {
        self.node("Concat", name, parts, &[("axis", Attribute::Int(axis))])
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
        let set = |domain: &str, version| OperatorSetIdProto {
            domain: Some(domain.to_owned()),
            version: Some(version),
        };
        let own = self.own_operators.then(|| set(OWN_DOMAIN, OWN_OPSET));
        ModelProto {
            ir_version: Some(IR_VERSION),
            opset_import: [set("", OPSET)].into_iter().chain(own).collect(),
            producer_name: Some("distilface".into()),
            graph: Some(self.proto),
            ..Default::default()
        }
    }

    fn reduce(&mut self, op: &str, name: &str, x: &Value, axes: &[i64], keep: bool) -> Value {
        let axes = self.integers(axes);
        self.node(op, name, &[x, &axes], &[("keepdims", Attribute::Int(i64::from(keep)))])
    }

    pub(super) fn constant(&mut self, data_type: DataType, dims: &[usize], data: Vec<u8>) -> Value {
        let key = (data_type, dims.to_vec(), data.clone());
        if let Some(value) = self.constants.get(&key) {
            return value.clone();
        }
        let name = format!("constant.{}", self.constants.len());
        let value = self.initializer(&name, data_type, dims, data.into());
        self.constants.insert(key, value.clone());
        value
    }

    pub(super) fn initializer(
        &mut self,
        name: &str,
        data_type: DataType,
        dims: &[usize],
        data: Bytes,
    ) -> Value {
        self.proto.initializer.push(TensorProto {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(data_type as i32),
            name: Some(name.into()),
            raw_data: Some(data),
        });
        let value = Value(name.into());
        self.shapes.insert(value.clone(), dims.iter().map(|&dim| Axis::Fixed(dim)).collect());
        value
    }
}

fn value_info(name: &str, data_type: DataType, axes: &[Axis]) -> ValueInfoProto {
    let dim = axes
        .iter()
        .map(|axis| Dimension {
            value: match axis {
                Axis::Fixed(length) => Some(dimension::Value::DimValue(*length as i64)),
                Axis::Named(name) => Some(dimension::Value::DimParam((*name).into())),
                Axis::Unknown => None,
            },
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
