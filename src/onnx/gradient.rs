//! Reverse mode over a graph's nodes: for each operation the nodes that carry a gradient from its output to its inputs.
//!
//! Griewank & Walther 2008, chapter 3. The list of nodes is the tape. Only what lies between the values that are asked
//! for and the seeded ones is written, so a frozen weight costs nothing. Gradients of one value from several places
//! are added. An operation without a rule here is a bug of the graph that asks for its gradient, found when the graph
//! is written. Every rule is tested against finite differences.
//!
//! Only operators of the ONNX standard are used, as everywhere in this module.

use std::collections::{HashMap, HashSet};

use super::{
    graph::{Attribute, Axis, DataType, Graph, Value},
    proto::NodeProto,
    shapes::place,
};

impl Graph {
    /// Writes the gradients of `seeds` with respect to `values`.
    ///
    /// `seeds` are values of the graph, each with the gradient that enters there, of its shape (for a loss: 1).
    /// Returns one gradient for each of `values`, of its shape; `None` where none of the seeds depends on it.
    ///
    /// # Panics
    /// If an operation on the way has no rule, or the rule needs a shape that is not known.
    pub fn gradients(&mut self, seeds: &[(Value, Value)], values: &[Value]) -> Vec<Option<Value>> {
        let tape = self.proto.node.clone();
        let mut depends: HashSet<&str> = values.iter().map(Value::name).collect();
        for node in &tape {
            if node.input.iter().any(|input| depends.contains(input.as_str())) {
                depends.extend(node.output.iter().map(String::as_str));
            }
        }
        let mut gradients: HashMap<String, Value> =
            seeds.iter().map(|(value, seed)| (value.name().to_owned(), seed.clone())).collect();
        for node in tape.iter().rev() {
            if !node.output.iter().any(|output| gradients.contains_key(output)) {
                continue;
            }
            let wanted: Vec<bool> = node.input.iter().map(|input| depends.contains(input.as_str())).collect();
            if !wanted.contains(&true) {
                continue;
            }
            let incoming: Vec<Option<Value>> =
                node.output.iter().map(|output| gradients.get(output).cloned()).collect();
            let outgoing = self.rule(node, &incoming, &wanted);
            for ((input, wanted), gradient) in node.input.iter().zip(wanted).zip(outgoing) {
                let Some(gradient) = gradient.filter(|_| wanted) else { continue };
                let sum = match gradients.remove(input) {
                    Some(before) => self.emit("Add", &[&before, &gradient], &[]),
                    None => gradient,
                };
                gradients.insert(input.clone(), sum);
            }
        }
        values.iter().map(|value| gradients.get(value.name()).cloned()).collect()
    }

    /// A node of the backward pass, under a name of its own.
    fn emit(&mut self, op: &str, inputs: &[&Value], attributes: &[(&str, Attribute)]) -> Value {
        let name = format!("gradient.{}", self.gradient_nodes);
        self.gradient_nodes += 1;
        self.node(op, &name, inputs, attributes)
    }

    /// Gradients of the inputs of `node`, where `wanted`, from those of its outputs.
    fn rule(&mut self, node: &NodeProto, incoming: &[Option<Value>], wanted: &[bool]) -> Vec<Option<Value>> {
        let inputs: Vec<Value> = node.input.iter().map(|name| Value::named(name)).collect();
        let x = &inputs[0];
        let y = Value::named(&node.output[0]);
        if node.op_type() == "Split" {
            return vec![Some(self.split_gradient(node, incoming))];
        }
        let g = incoming[0].clone().unwrap_or_else(|| {
            panic!("only the first output of {} ({}) has a gradient", node.name(), node.op_type())
        });
        let g = &g;
        match node.op_type() {
            "Gemm" => self.gemm_gradient(node, &inputs, g, wanted),
            "MatMul" => {
                let a = wanted[0].then(|| {
                    let b = self.turned(&inputs[1]);
                    self.emit("MatMul", &[g, &b], &[])
                });
                let b = wanted[1].then(|| {
                    let a = self.turned(x);
                    self.emit("MatMul", &[&a, g], &[])
                });
                vec![a, b]
            }
            "Add" => (0..2).map(|n| wanted[n].then(|| self.reduced(g, &inputs[n]))).collect(),
            "Sub" => {
                let a = wanted[0].then(|| self.reduced(g, x));
                let b = wanted[1].then(|| {
                    let negative = self.emit("Neg", &[g], &[]);
                    self.reduced(&negative, &inputs[1])
                });
                vec![a, b]
            }
            "Mul" => (0..2)
                .map(|n| {
                    wanted[n].then(|| {
                        let part = self.emit("Mul", &[g, &inputs[1 - n]], &[]);
                        self.reduced(&part, &inputs[n])
                    })
                })
                .collect(),
            "Div" => {
                let a = wanted[0].then(|| {
                    let part = self.emit("Div", &[g, &inputs[1]], &[]);
                    self.reduced(&part, x)
                });
                let b = wanted[1].then(|| {
                    // d(a/b)/db = -(a/b)/b
                    let part = self.emit("Div", &[&y, &inputs[1]], &[]);
                    let part = self.emit("Mul", &[g, &part], &[]);
                    let negative = self.emit("Neg", &[&part], &[]);
                    self.reduced(&negative, &inputs[1])
                });
                vec![a, b]
            }
            // Where both are equal the gradient goes to neither: a set of measure zero.
            "Max" => (0..2)
                .map(|n| {
                    wanted[n].then(|| {
                        let larger = self.emit("Greater", &[&inputs[n], &inputs[1 - n]], &[]);
                        let larger = self.as_float(&larger);
                        let part = self.emit("Mul", &[g, &larger], &[]);
                        self.reduced(&part, &inputs[n])
                    })
                })
                .collect(),
            "Where" => {
                let zero = self.scalar(0.0);
                let a = wanted[1].then(|| {
                    let part = self.emit("Where", &[x, g, &zero], &[]);
                    self.reduced(&part, &inputs[1])
                });
                let b = wanted[2].then(|| {
                    let part = self.emit("Where", &[x, &zero, g], &[]);
                    self.reduced(&part, &inputs[2])
                });
                vec![None, a, b]
            }
            "Softmax" => {
                let gy = self.emit("Mul", &[g, &y], &[]);
                let sum = self.sum_over(&gy, &[-1], true);
                let pulled = self.emit("Mul", &[&y, &sum], &[]);
                vec![Some(self.emit("Sub", &[&gy, &pulled], &[]))]
            }
            "LogSoftmax" => {
                let shares = self.emit("Exp", &[&y], &[]);
                let sum = self.sum_over(g, &[-1], true);
                let pulled = self.emit("Mul", &[&shares, &sum], &[]);
                vec![Some(self.emit("Sub", &[g, &pulled], &[]))]
            }
            "Gelu" => vec![Some(self.gelu_gradient(x, g))],
            "Tanh" => {
                let square = self.emit("Mul", &[&y, &y], &[]);
                let one = self.scalar(1.0);
                let slope = self.emit("Sub", &[&one, &square], &[]);
                vec![Some(self.emit("Mul", &[g, &slope], &[]))]
            }
            "Exp" => vec![Some(self.emit("Mul", &[g, &y], &[]))],
            "Identity" => vec![Some(g.clone())],
            "LayerNormalization" => self.layer_norm_gradient(node, &inputs, g, wanted),
            "Reshape" => {
                let shape = self.emit("Shape", &[x], &[]);
                let axes = self.known(x);
                let name = format!("gradient.{}", self.gradient_nodes);
                self.gradient_nodes += 1;
                vec![Some(self.reshape_to(&name, g, &shape, &axes)), None]
            }
            "Transpose" => {
                let order = ints(node, "perm").expect("a transposition names its order");
                let mut inverse = vec![0; order.len()];
                order.iter().enumerate().for_each(|(n, &from)| inverse[from as usize] = n as i64);
                vec![Some(self.emit("Transpose", &[g], &[("perm", Attribute::Ints(inverse))]))]
            }
            "Unsqueeze" => {
                let turned = self.emit("Squeeze", &[g, &inputs[1]], &[]);
                self.keep_axes(&turned, x);
                vec![Some(turned), None]
            }
            "ReduceSum" => {
                let wide = self.with_reduced_axes(node, &inputs, g);
                let shape = self.emit("Shape", &[x], &[]);
                let spread = self.emit("Expand", &[&wide, &shape], &[]);
                self.keep_axes(&spread, x);
                vec![Some(spread), None]
            }
            "ReduceMean" => {
                // Each of n numbers carries 1/n; n is only known at run time.
                let ratio: Vec<Value> = [&y, x]
                    .iter()
                    .map(|value| {
                        let size = self.emit("Size", &[value], &[]);
                        self.as_float(&size)
                    })
                    .collect();
                let ratio = self.emit("Div", &[&ratio[0], &ratio[1]], &[]);
                let wide = self.with_reduced_axes(node, &inputs, g);
                let shares = self.emit("Mul", &[&wide, &ratio], &[]);
                let shape = self.emit("Shape", &[x], &[]);
                let spread = self.emit("Expand", &[&shares, &shape], &[]);
                self.keep_axes(&spread, x);
                vec![Some(spread), None]
            }
            "ReduceL2" => {
                let wide = self.with_reduced_axes(node, &inputs, g);
                let length = self.with_reduced_axes(node, &inputs, &y);
                // A length of zero has no direction; its gradient is that of the shortest length we divide by.
                let least = self.scalar(super::graph::LENGTH_MIN);
                let length = self.emit("Max", &[&length, &least], &[]);
                let direction = self.emit("Div", &[x, &length], &[]);
                vec![Some(self.emit("Mul", &[&direction, &wide], &[])), None]
            }
            "ReduceMax" => {
                let wide = self.with_reduced_axes(node, &inputs, g);
                let largest = self.with_reduced_axes(node, &inputs, &y);
                let here = self.emit("Equal", &[x, &largest], &[]);
                let here = self.as_float(&here);
                vec![Some(self.emit("Mul", &[&here, &wide], &[])), None]
            }
            "Concat" => self.concat_gradient(node, &inputs, g),
            "Slice" => {
                let axis = self.integers_of(&inputs[3]).expect("a slice's axis is a constant")[0];
                let start = self.integers_of(&inputs[1]).expect("a slice's start is a constant")[0];
                let padded = self.padded(g, x, axis, start, &inputs[2].clone());
                vec![Some(padded), None, None, None]
            }
            "Gather" => {
                let axis = int(node, "axis").unwrap_or(0);
                let index = self.integers_of(&inputs[1]).map(<[i64]>::to_vec);
                let scalar = self.axes(&inputs[1]).is_some_and(<[Axis]>::is_empty);
                let (Some(index), true) = (index, scalar) else {
                    panic!("{}: only a gather by one constant number has a gradient", node.name());
                };
                let at = self.integers(&[axis]);
                let wide = self.emit("Unsqueeze", &[g, &at], &[]);
                let end = self.integers(&[index[0] + 1]);
                vec![Some(self.padded(&wide, x, axis, index[0], &end)), None]
            }
            other => panic!("{} ({other}) has no gradient", node.name()),
        }
    }

    fn gemm_gradient(
        &mut self,
        node: &NodeProto,
        inputs: &[Value],
        g: &Value,
        wanted: &[bool],
    ) -> Vec<Option<Value>> {
        assert!(
            int(node, "transA").unwrap_or(0) == 0 && int(node, "transB") == Some(1),
            "{}: only x w^T has a gradient",
            node.name()
        );
        let a = wanted[0].then(|| self.emit("Gemm", &[g, &inputs[1]], &[]));
        let b = wanted[1].then(|| self.emit("Gemm", &[g, &inputs[0]], &[("transA", Attribute::Int(1))]));
        let mut all = vec![a, b];
        if let Some(bias) = inputs.get(2) {
            all.push(wanted[2].then(|| self.reduced(g, bias)));
        }
        all
    }

    /// `g (Phi(x) + x phi(x))`: Hendrycks & Gimpel 2016 differentiated.
    fn gelu_gradient(&mut self, x: &Value, g: &Value) -> Value {
        let root = self.scalar(std::f32::consts::FRAC_1_SQRT_2);
        let half = self.scalar(0.5);
        let scaled = self.emit("Mul", &[x, &root], &[]);
        let erf = self.emit("Erf", &[&scaled], &[]);
        let half_erf = self.emit("Mul", &[&erf, &half], &[]);
        let cumulative = self.emit("Add", &[&half_erf, &half], &[]);
        // phi(x) = exp(-x^2 / 2) / sqrt(2 pi), and x^2 / 2 is `scaled` squared.
        let square = self.emit("Mul", &[&scaled, &scaled], &[]);
        let negative = self.emit("Neg", &[&square], &[]);
        let bell = self.emit("Exp", &[&negative], &[]);
        let height = self.scalar((2.0 * std::f32::consts::PI).sqrt().recip());
        let x_height = self.emit("Mul", &[x, &height], &[]);
        let moved = self.emit("Mul", &[&x_height, &bell], &[]);
        let slope = self.emit("Add", &[&cumulative, &moved], &[]);
        self.emit("Mul", &[g, &slope], &[])
    }

    /// With `h` the normalised rows and `G = g scale`: `dx = (G - mean(G) - h mean(G h)) / deviation`.
    fn layer_norm_gradient(
        &mut self,
        node: &NodeProto,
        inputs: &[Value],
        g: &Value,
        wanted: &[bool],
    ) -> Vec<Option<Value>> {
        assert!(node.output.len() == 3, "{}: write it with layer_norm_saving", node.name());
        let (mean, inverse) = (Value::named(&node.output[1]), Value::named(&node.output[2]));
        let centred = self.emit("Sub", &[&inputs[0], &mean], &[]);
        let normal = self.emit("Mul", &[&centred, &inverse], &[]);
        let bias = wanted[2].then(|| self.reduced(g, &inputs[2]));
        let scale = wanted[1].then(|| {
            let part = self.emit("Mul", &[g, &normal], &[]);
            self.reduced(&part, &inputs[1])
        });
        let x = wanted[0].then(|| {
            let big = self.emit("Mul", &[g, &inputs[1]], &[]);
            let mean_big = self.mean_over_last(&big);
            let product = self.emit("Mul", &[&big, &normal], &[]);
            let mean_product = self.mean_over_last(&product);
            let along = self.emit("Mul", &[&normal, &mean_product], &[]);
            let rest = self.emit("Sub", &[&big, &mean_big], &[]);
            let rest = self.emit("Sub", &[&rest, &along], &[]);
            self.emit("Mul", &[&rest, &inverse], &[])
        });
        vec![x, scale, bias]
    }

    fn concat_gradient(&mut self, node: &NodeProto, inputs: &[Value], g: &Value) -> Vec<Option<Value>> {
        let axis = int(node, "axis").expect("a concatenation names its axis");
        let at = self.integers(&[place(axis, self.known(&inputs[0]).len()) as i64]);
        let lengths: Vec<Value> = inputs
            .iter()
            .map(|input| {
                let shape = self.emit("Shape", &[input], &[]);
                self.emit("Gather", &[&shape, &at], &[("axis", Attribute::Int(0))])
            })
            .collect();
        let lengths =
            self.emit("Concat", &lengths.iter().collect::<Vec<_>>(), &[("axis", Attribute::Int(0))]);
        let name = format!("gradient.{}", self.gradient_nodes);
        self.gradient_nodes += 1;
        let parts = self.node_with_outputs(
            "Split",
            &name,
            &[g, &lengths],
            &[("axis", Attribute::Int(axis))],
            inputs.len(),
        );
        for (part, input) in parts.iter().zip(inputs) {
            self.keep_axes(part, input);
        }
        parts.into_iter().map(Some).collect()
    }

    /// A part that nothing depends on gets zeros.
    fn split_gradient(&mut self, node: &NodeProto, incoming: &[Option<Value>]) -> Value {
        let axis = int(node, "axis").expect("a split names its axis");
        let parts: Vec<Value> = incoming
            .iter()
            .zip(&node.output)
            .map(|(gradient, output)| match gradient {
                Some(gradient) => gradient.clone(),
                None => {
                    let (part, zero) = (Value::named(output), self.scalar(0.0));
                    self.emit("Mul", &[&part, &zero], &[])
                }
            })
            .collect();
        let whole = self.emit("Concat", &parts.iter().collect::<Vec<_>>(), &[("axis", Attribute::Int(axis))]);
        self.keep_axes(&whole, &Value::named(&node.input[0]));
        whole
    }

    /// `g` with zeros before `start` and behind `end` along `axis`, so that it has the shape of `x`.
    fn padded(&mut self, g: &Value, x: &Value, axis: i64, start: i64, end: &Value) -> Value {
        let rank = self.known(x).len();
        let axis = place(axis, rank) as i64;
        let shape = self.emit("Shape", &[x], &[]);
        let at = self.integers(&[axis]);
        let length = self.emit("Gather", &[&shape, &at], &[("axis", Attribute::Int(0))]);
        let behind = self.emit("Sub", &[&length, end], &[]);
        let before = self.integers(&[start]);
        let pads = self.emit("Concat", &[&before, &behind], &[("axis", Attribute::Int(0))]);
        let zero = self.scalar(0.0);
        let padded = self.emit("Pad", &[g, &pads, &zero, &at], &[]);
        self.keep_axes(&padded, x);
        padded
    }

    /// `g`, which has the shape of an elementwise result, summed to the shape of the operand `x`.
    fn reduced(&mut self, g: &Value, x: &Value) -> Value {
        let (of_g, of_x) = (self.known(g), self.known(x));
        let lead = of_g.len() - of_x.len();
        let mut over: Vec<i64> = (0..lead as i64).collect();
        if !over.is_empty() {
            let sum = self.sum_over(g, &over, false);
            return self.reduced(&sum, x);
        }
        over.extend(
            (0..of_x.len())
                .filter(|&n| of_x[n] == Axis::Fixed(1) && of_g[n] != Axis::Fixed(1))
                .map(|n| n as i64),
        );
        if over.is_empty() { g.clone() } else { self.sum_over(g, &over, true) }
    }

    fn sum_over(&mut self, x: &Value, axes: &[i64], keep: bool) -> Value {
        let axes = self.integers(axes);
        self.emit("ReduceSum", &[x, &axes], &[("keepdims", Attribute::Int(i64::from(keep)))])
    }

    fn mean_over_last(&mut self, x: &Value) -> Value {
        let axes = self.integers(&[-1]);
        self.emit("ReduceMean", &[x, &axes], &[("keepdims", Attribute::Int(1))])
    }

    /// `value`, which has the shape of a reduction's output, with the reduced axes at length 1.
    fn with_reduced_axes(&mut self, node: &NodeProto, inputs: &[Value], value: &Value) -> Value {
        if int(node, "keepdims") == Some(1) {
            return value.clone();
        }
        self.emit("Unsqueeze", &[value, &inputs[1]], &[])
    }

    /// The last two axes exchanged.
    fn turned(&mut self, x: &Value) -> Value {
        let rank = self.known(x).len() as i64;
        let mut order: Vec<i64> = (0..rank).collect();
        order.swap(rank as usize - 1, rank as usize - 2);
        self.emit("Transpose", &[x], &[("perm", Attribute::Ints(order))])
    }

    fn as_float(&mut self, x: &Value) -> Value {
        self.emit("Cast", &[x], &[("to", Attribute::Int(DataType::Float as i64))])
    }

    fn known(&self, x: &Value) -> Vec<Axis> {
        self.axes(x).unwrap_or_else(|| panic!("the shape of {} is not known", x.name())).to_vec()
    }

    fn keep_axes(&mut self, value: &Value, like: &Value) {
        if let Some(axes) = self.axes(like).map(<[Axis]>::to_vec) {
            self.set_axes(value, axes);
        }
    }
}

fn int(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|a| a.name() == name).map(|a| a.i())
}

fn ints(node: &NodeProto, name: &str) -> Option<Vec<i64>> {
    node.attribute.iter().find(|a| a.name() == name).map(|a| a.ints.clone())
}

#[cfg(test)]
mod tests;
