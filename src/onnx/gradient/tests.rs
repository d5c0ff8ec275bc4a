//! Every rule against central differences, through ONNX Runtime's CPU provider.

use prost::Message;

use super::*;
use crate::{
    random::SplitMix,
    runtime::{DeviceChoice, Session, TensorView},
};

/// Inputs of a test: name, shape, values.
struct Input {
    name: &'static str,
    shape: Vec<usize>,
    values: Vec<f32>,
}

fn input(name: &'static str, shape: &[usize], seed: u64) -> Input {
    let mut random = SplitMix(seed);
    let count: usize = shape.iter().product();
    let values = (0..count).map(|_| (random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect();
    Input { name, shape: shape.to_vec(), values }
}

/// The home folder, or `None`, saying so, where the runtime is not here.
fn home() -> Option<std::path::PathBuf> {
    let home = crate::config::default_home();
    if home.join("runtime").is_dir() {
        return Some(home);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI needs ONNX Runtime: run `distilface setup`");
    println!("skipped: no ONNX Runtime under {}", home.display());
    None
}

/// Compares the gradient of `sum(weights * f(inputs))` with its central differences, for every number of every input.
#[track_caller]
fn check(inputs: Vec<Input>, f: impl Fn(&mut Graph, &[Value]) -> Value) {
    let Some(home) = home() else { return };
    let mut inputs = inputs;
    let mut graph = Graph::new("test");
    let values: Vec<Value> = inputs
        .iter()
        .map(|input| {
            let axes: Vec<Axis> = input.shape.iter().map(|&n| Axis::Fixed(n)).collect();
            graph.input(input.name, DataType::Float, &axes)
        })
        .collect();
    let y = f(&mut graph, &values);
    let axes = graph.axes(&y).expect("the shape of what is differentiated is known").to_vec();
    let rank = axes.len() as i64;
    let seed = graph.input("weights", DataType::Float, &axes);
    let weighted = graph.mul("weighted", &y, &seed);
    let loss = graph.reduce_sum("loss", &weighted, &(0..rank).collect::<Vec<_>>(), false);
    let one = graph.scalar(1.0);
    let gradients = graph.gradients(&[(loss.clone(), one)], &values);
    graph.output(&loss, DataType::Float, &[]);
    for (n, gradient) in gradients.iter().enumerate() {
        let gradient = gradient.as_ref().expect("the result depends on every input");
        // A name of its own, since one value may be the gradient of two inputs.
        let out = graph.node("Identity", &format!("out.{n}"), &[gradient], &[]);
        graph.output(&out, DataType::Float, &axes_of(&inputs[n].shape));
    }
    let model = graph.into_model().encode_to_vec();
    let mut session = Session::of_bytes(&home, "test", &model, DeviceChoice::Cpu, 1).unwrap();

    let seed_shape: Vec<usize> = axes
        .iter()
        .map(|axis| match axis {
            Axis::Fixed(n) => *n,
            _ => panic!("shapes of this test are fixed"),
        })
        .collect();
    let seed = input("weights", &seed_shape, 99);
    let mut run = |inputs: &[Input]| {
        let views: Vec<(&str, TensorView<'_>)> = inputs
            .iter()
            .chain([&seed])
            .map(|i| (i.name, TensorView::F32 { shape: &i.shape, values: &i.values }))
            .collect();
        session.run(&views).unwrap()
    };
    let outputs = run(&inputs);
    let step = 1e-2f32;
    for n in 0..inputs.len() {
        assert_eq!(outputs[n + 1].0, inputs[n].shape, "shape of the gradient of {}", inputs[n].name);
        let scale = outputs[n + 1].1.iter().fold(0.1f32, |m, v| m.max(v.abs()));
        for at in 0..inputs[n].values.len() {
            let before = inputs[n].values[at];
            inputs[n].values[at] = before + step;
            let above = run(&inputs)[0].1[0];
            inputs[n].values[at] = before - step;
            let below = run(&inputs)[0].1[0];
            inputs[n].values[at] = before;
            let difference = (above - below) / (2.0 * step);
            let got = outputs[n + 1].1[at];
            assert!(
                (difference - got).abs() <= 3e-3 * scale,
                "{} at {at}: gradient {got}, difference {difference}",
                inputs[n].name
            );
        }
    }
}

fn axes_of(shape: &[usize]) -> Vec<Axis> {
    shape.iter().map(|&n| Axis::Fixed(n)).collect()
}

#[test]
fn linear_layer() {
    let inputs = vec![input("x", &[4, 3], 1), input("w", &[5, 3], 2), input("b", &[5], 3)];
    check(inputs, |g, v| g.linear("y", &v[0], &v[1], Some(&v[2])));
    check(vec![input("x", &[4, 3], 1), input("w", &[5, 3], 2)], |g, v| g.linear("y", &v[0], &v[1], None));
}

#[test]
fn product_of_stacks_of_matrices() {
    check(vec![input("a", &[2, 3, 4, 5], 1), input("b", &[2, 3, 5, 2], 2)], |g, v| {
        g.matmul("y", &v[0], &v[1])
    });
}

#[test]
fn elementwise_operations_with_every_kind_of_broadcast() {
    for (a, b) in [
        (vec![3, 4], vec![3, 4]),
        (vec![2, 3, 4], vec![3, 4]),
        (vec![3, 4], vec![3, 1]),
        (vec![4], vec![2, 1, 4]),
    ] {
        let inputs = || vec![input("a", &a, 1), input("b", &b, 2)];
        check(inputs(), |g, v| g.add("y", &v[0], &v[1]));
        check(inputs(), |g, v| g.sub("y", &v[0], &v[1]));
        check(inputs(), |g, v| g.mul("y", &v[0], &v[1]));
        let mut away = inputs();
        away[1].values.iter_mut().for_each(|v| *v = v.abs() + 1.0);
        check(away, |g, v| g.div("y", &v[0], &v[1]));
    }
}

#[test]
fn maximum_and_choice_pass_the_gradient_to_what_was_taken() {
    // Far enough apart that no step of the difference changes which is larger.
    let mut inputs = vec![input("a", &[3, 4], 1), input("b", &[3, 4], 2)];
    for n in 0..12 {
        inputs[0].values[n] = if n % 3 == 0 { 1.0 } else { -1.0 };
        inputs[1].values[n] *= 0.5;
    }
    check(inputs, |g, v| g.node("Max", "y", &[&v[0], &v[1]], &[]));
    check(vec![input("a", &[2, 3], 1), input("b", &[2, 3], 2)], |g, v| {
        let zero = g.scalar(0.0);
        let one = g.scalar(1.0);
        let zeros = g.mul("zeros", &v[0], &zero);
        let first = g.weight(
            "first",
            &[3],
            [1f32, 0.0, 1.0].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into(),
        );
        let picked = g.add("picked", &zeros, &first);
        let picked = g.node("Equal", "condition", &[&picked, &one], &[]);
        g.node("Where", "y", &[&picked, &v[0], &v[1]], &[])
    });
}

#[test]
fn softmax_and_its_logarithm() {
    check(vec![input("x", &[3, 5], 1)], |g, v| g.softmax("y", &v[0]));
    check(vec![input("x", &[2, 2, 4], 1)], |g, v| g.log_softmax("y", &v[0]));
}

#[test]
fn activations() {
    let mut wide = input("x", &[40], 1);
    wide.values.iter_mut().for_each(|v| *v *= 4.0);
    check(vec![wide], |g, v| g.gelu("y", &v[0]));
    check(vec![input("x", &[20], 2)], |g, v| g.tanh("y", &v[0]));
    check(vec![input("x", &[20], 3)], |g, v| g.node("Exp", "y", &[&v[0]], &[]));
    check(vec![input("x", &[20], 3)], |g, v| g.node("Identity", "y", &[&v[0]], &[]));
}

#[test]
fn layer_normalisation() {
    let inputs = vec![input("x", &[4, 6], 1), input("scale", &[6], 2), input("bias", &[6], 3)];
    check(inputs, |g, v| g.layer_norm_saving("y", &v[0], &v[1], &v[2], 1e-12));
}

#[test]
fn changes_of_shape() {
    check(vec![input("x", &[2, 6], 1)], |g, v| g.reshape("y", &v[0], &[0, 2, 3]));
    check(vec![input("x", &[2, 3, 4, 2], 1)], |g, v| g.transpose("y", &v[0], &[0, 2, 3, 1]));
    check(vec![input("x", &[2, 3], 1)], |g, v| g.unsqueeze("y", &v[0], &[1, 3]));
    check(vec![input("x", &[3, 6], 1)], |g, v| g.slice("y", &v[0], 1, 1, 4));
    check(vec![input("x", &[3, 2], 1), input("z", &[3, 4], 2)], |g, v| g.concat("y", &[&v[0], &v[1]], 1));
    check(vec![input("x", &[3, 2], 1), input("z", &[1, 2], 2)], |g, v| g.concat("y", &[&v[0], &v[1]], 0));
}

#[test]
fn split_with_a_part_that_nothing_uses() {
    check(vec![input("x", &[6, 2], 1)], |g, v| {
        let parts = g.split("parts", &v[0], 0, 3);
        g.mul("y", &parts[0], &parts[2])
    });
}

#[test]
fn reductions() {
    for keep in [true, false] {
        check(vec![input("x", &[3, 4], 1)], |g, v| g.reduce_sum("y", &v[0], &[1], keep));
        check(vec![input("x", &[3, 4], 2)], |g, v| g.reduce_mean("y", &v[0], &[0], keep));
        check(vec![input("x", &[3, 4], 3)], |g, v| g.reduce_l2("y", &v[0], &[1], keep));
        let mut apart = input("x", &[3, 4], 4);
        apart.values.iter_mut().enumerate().for_each(|(n, v)| *v = ((n * 5) % 12) as f32 / 4.0);
        check(vec![apart], |g, v| g.reduce_max("y", &v[0], &[1], keep));
    }
}

#[test]
fn gather_of_one_row() {
    check(vec![input("x", &[2, 3, 4], 1)], |g, v| {
        let second = g.integer(1);
        g.gather("y", &v[0], &second, 1)
    });
}

#[test]
fn unit_length() {
    check(vec![input("x", &[3, 5], 1)], |g, v| g.normalise("y", &v[0]));
}

#[test]
fn a_value_used_twice_gets_the_sum_and_an_unused_one_nothing() {
    check(vec![input("x", &[2, 3], 1)], |g, v| {
        let square = g.mul("square", &v[0], &v[0]);
        g.add("y", &square, &v[0])
    });
    let mut graph = Graph::new("test");
    let x = graph.input("x", DataType::Float, &[Axis::Fixed(2)]);
    let aside = graph.input("aside", DataType::Float, &[Axis::Fixed(2)]);
    let y = graph.tanh("y", &x);
    let gradients = graph.gradients(&[(y, x.clone())], &[x, aside]);
    assert!(gradients[0].is_some() && gradients[1].is_none());
}

#[test]
fn what_is_frozen_costs_no_nodes() {
    let nodes = |values: fn(&[Value; 2]) -> Vec<Value>| {
        let mut graph = Graph::new("test");
        let x = graph.input("x", DataType::Float, &[Axis::Fixed(2), Axis::Fixed(3)]);
        let w = graph.input("w", DataType::Float, &[Axis::Fixed(4), Axis::Fixed(3)]);
        let y = graph.linear("y", &x, &w, None);
        graph.gradients(&[(y.clone(), y)], &values(&[x, w]));
        graph.into_model().graph.unwrap().node.len()
    };
    assert_eq!(nodes(|[x, _]| vec![x.clone()]), 2);
    assert_eq!(nodes(|[x, w]| vec![x.clone(), w.clone()]), 3);
}

#[test]
#[should_panic(expected = "has no gradient")]
fn an_operation_without_a_rule_is_our_bug() {
    let mut graph = Graph::new("test");
    let x = graph.input("x", DataType::Float, &[Axis::Fixed(2)]);
    let y = graph.node("Sin", "y", &[&x], &[]);
    graph.gradients(&[(y.clone(), y)], &[x]);
}
