//! The arithmetic of rounding by itself, and the graph of integers against the one in full precision.

use super::*;
use crate::{
    config::default_home,
    onnx::Pooling,
    random::SplitMix,
    runtime::{DeviceChoice, Session, TensorView as Lent},
};

const SHAPE: Shape = Shape {
    layers: 2,
    hidden: 16,
    heads: 2,
    intermediate: 32,
    vocabulary: 24,
    positions: 12,
    type_vocabulary: 2,
    layer_norm_eps: 1e-12,
};

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut random = SplitMix(seed);
    (0..count).map(|_| (random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

fn spec() -> EncoderGraph<'static> {
    EncoderGraph {
        architecture: Architecture::Bert,
        shape: &SHAPE,
        pooling: Pooling::Mean,
        normalise: true,
        hidden_outputs: false,
    }
}

/// Random weights; some channels of the norms are ten times the others, as in trained encoders.
fn weights() -> Weights {
    let mut file = File::default();
    for (n, (name, dims)) in tensors(Architecture::Bert, &SHAPE).into_iter().enumerate() {
        let mut values = random(dims.iter().product(), n as u64);
        if name.ends_with("LayerNorm.weight") {
            values
                .iter_mut()
                .enumerate()
                .for_each(|(i, v)| *v = if i % 7 == 3 { 10.0 } else { 1.0 + 0.1 * *v });
        }
        file.floats(name, dims, &values);
    }
    Weights::new(file.finish().unwrap()).unwrap()
}

fn session(graph: &[u8]) -> Session {
    Session::of_bytes(&default_home(), "test", graph, DeviceChoice::Cpu, 1)
        .expect("ONNX Runtime is needed: run `make setup` first")
}

fn run(session: &mut Session, ids: &[i64], mask: &[i64], rows: usize) -> Vec<(Vec<usize>, Vec<f32>)> {
    let shape = [rows, ids.len() / rows];
    session
        .run(&[
            ("input_ids", Lent::I64 { shape: &shape, values: ids }),
            ("attention_mask", Lent::I64 { shape: &shape, values: mask }),
        ])
        .unwrap()
}

fn text(n: i64) -> Vec<i64> {
    (0..8).map(|i| (7 * n + 5 * i + n * i) % SHAPE.vocabulary as i64).collect()
}

fn calibrated() -> Calibration {
    let mut calibration = Calibration::new(Architecture::Bert, &SHAPE);
    let mut session = session(&calibration_graph(&spec(), &weights()).unwrap());
    for n in 0..24 {
        calibration.observe(&run(&mut session, &text(n), &[1; 8], 1)[1..]).unwrap();
    }
    calibration
}

fn rounded() -> Weights {
    let file = quantise(Architecture::Bert, &SHAPE, &weights(), &calibrated()).unwrap();
    Weights::new(file).unwrap()
}

#[test]
fn rounding_is_off_by_at_most_half_a_step_of_its_row() {
    for most in [WEIGHT_MOST, WORD_MOST] {
        let width = 24;
        let values: Vec<f32> = random(40 * width, 5)
            .iter()
            .enumerate()
            .map(|(i, v)| v * 10f32.powi((i / width) as i32 % 7 - 3))
            .collect();
        let (rounded, scales) = round_rows(&values, width, most);
        assert_eq!(scales.len(), 40);
        for (i, (&v, &q)) in values.iter().zip(&rounded).enumerate() {
            let scale = scales[i / width];
            assert!((f32::from(q) * scale - v).abs() <= 0.5001 * scale, "{v} became {q} steps of {scale}");
            assert!(f32::from(q).abs() <= most);
        }
        // Each row uses all of its steps.
        for row in rounded.chunks_exact(width) {
            assert!(row.iter().any(|q| f32::from(*q).abs() == most));
        }
    }
}

#[test]
fn row_of_zeros_stays_zeros() {
    let (rounded, scales) = round_rows(&[0.0, 0.0, 1.0, -0.25], 2, WEIGHT_MOST);
    assert_eq!(rounded, [0, 0, 63, -16]);
    assert_eq!((scales[0], scales[1]), (1.0, 1.0 / 63.0));
}

#[test]
fn products_of_two_pairs_fit_sixteen_bits() {
    assert!(2.0 * INPUT_STEPS * WEIGHT_MOST <= f32::from(i16::MAX));
}

#[test]
fn zero_is_exact_and_the_ends_of_a_range_are_kept() {
    for (least, most) in [(-0.17f32, 24.9f32), (-3.0, 1.0), (0.5, 2.0), (-2.0, -1.0), (-1e-3, 1e3)] {
        let InputScale { scale, zero_point } = InputScale::of(least, most);
        let round = |x: f32| ((x / scale).round_ties_even() + f32::from(zero_point)).clamp(0.0, 255.0);
        let back = |x: f32| (round(x) - f32::from(zero_point)) * scale;
        assert_eq!(back(0.0), 0.0);
        for x in [least, most] {
            assert!((back(x) - x).abs() <= 0.51 * scale, "{x} came back as {}", back(x));
        }
    }
}

#[test]
fn input_that_is_always_zero_or_always_one_number_is_rounded_exactly() {
    assert_eq!(InputScale::of(0.0, 0.0), InputScale { scale: 1.0, zero_point: 0 });
    assert_eq!(InputScale::of(5.1, 5.1), InputScale { scale: 5.1 / 255.0, zero_point: 0 });
    let InputScale { scale, zero_point } = InputScale::of(-5.1, -5.1);
    assert_eq!((scale, zero_point), (5.1 / 255.0, 255));
}

#[test]
fn smoothing_changes_no_product_and_evens_out_the_channels() {
    let (width, outputs) = (16, 12);
    let weight = random(width * outputs, 1);
    let mut x = random(width, 2);
    x[3] = 28.5;
    x[9] = 0.0;
    let size: Vec<f32> = x.iter().map(|v| v.abs()).collect();
    let mut largest = vec![0.0f32; width];
    for row in weight.chunks_exact(width) {
        largest.iter_mut().zip(row).for_each(|(most, w)| *most = most.max(w.abs()));
    }
    let factors = smoothing(&size, &largest);
    assert_eq!(factors[9], 1.0);
    assert!(factors[3] < 0.5, "{factors:?}");
    for row in weight.chunks_exact(width) {
        let plain: f64 = row.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        let moved: f64 =
            (0..width).map(|i| f64::from(row[i] / factors[i]) * f64::from(x[i] * factors[i])).sum();
        // As exact as float32 itself.
        assert!((plain - moved).abs() < 1e-5, "{plain} {moved}");
    }
    let spread = |v: &[f32]| v.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    let after: Vec<f32> = x.iter().zip(&factors).map(|(x, f)| x * f).collect();
    assert!(spread(&after) < 0.5 * spread(&x));
    // Nothing to even out, nothing changed.
    assert_eq!(smoothing(&[0.0; 3], &[1.0; 3]), [1.0; 3]);
    assert_eq!(smoothing(&[2.0; 3], &[0.5; 3]), [1.0; 3]);
}

#[test]
fn calibration_that_does_not_fit_is_refused() {
    let mut calibration = Calibration::new(Architecture::Bert, &SHAPE);
    let said = |result: Result<Vec<u8>, OnnxError>| result.unwrap_err().to_string();
    assert!(said(quantise(Architecture::Bert, &SHAPE, &weights(), &calibration)).contains("seen no text"));
    assert!(calibration.observe(&[]).unwrap_err().to_string().contains("expected 16 outputs"));
    let other = Calibration::new(Architecture::Bert, &Shape { layers: 1, ..SHAPE });
    assert!(said(quantise(Architecture::Bert, &SHAPE, &weights(), &other)).contains("another shape"));
    let of = |value: f32| -> Vec<(Vec<usize>, Vec<f32>)> {
        calibration.points.iter().flat_map(|p| [p.width; 2]).map(|w| (vec![w], vec![value; w])).collect()
    };
    let (wrong, right) = (of(f32::NAN), of(0.0));
    assert!(calibration.observe(&wrong).unwrap_err().to_string().contains("not finite"));
    calibration.observe(&right).unwrap();
    // An encoder whose activations are all zero is odd, not wrong.
    quantise(Architecture::Bert, &SHAPE, &weights(), &calibration).unwrap();
}

#[test]
fn same_weights_and_texts_give_the_same_bytes_in_a_quarter_of_the_space() {
    let (weights, calibration) = (weights(), calibrated());
    let make = || quantise(Architecture::Bert, &SHAPE, &weights, &calibration).unwrap();
    assert_eq!(make(), make());
    let (full, small) = (spec().to_bytes(&weights).unwrap(), spec().to_bytes(&rounded()).unwrap());
    // The nodes take about as much as these few weights.
    assert!(small.len() < full.len(), "{} {}", small.len(), full.len());
    assert!(weights.tensor(&[WORDS.into()], &[SHAPE.vocabulary, SHAPE.hidden]).is_ok());
    assert!(matches!(
        rounded().tensor(&[WORDS.into()], &[SHAPE.vocabulary, SHAPE.hidden]),
        Err(OnnxError::WrongType { .. })
    ));
}

#[test]
fn every_linear_layer_multiplies_integers_and_inputs_are_rounded_once() {
    let graph = spec().model(&rounded()).unwrap().graph.unwrap();
    let count = |op: &str| graph.node.iter().filter(|node| node.op_type() == op).count();
    // Six layers' weights and inputs are widened again; query, key and value share what they multiply.
    assert_eq!(count("DequantizeLinear"), SHAPE.layers * 6 * 2);
    assert_eq!(count("QuantizeLinear"), SHAPE.layers * 4);
    assert!(graph.node.iter().all(|node| node.domain.as_deref().unwrap_or_default().is_empty()));
}

#[test]
fn rounded_encoder_is_near_the_full_one_and_does_not_heed_its_company() {
    let mut full = session(&spec().to_bytes(&weights()).unwrap());
    let mut small = session(&spec().to_bytes(&rounded()).unwrap());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let alone: Vec<Vec<f32>> = (30..40).map(|n| run(&mut small, &text(n), &[1; 8], 1).remove(0).1).collect();
    for (n, vector) in (30..).zip(&alone) {
        let exact = run(&mut full, &text(n), &[1; 8], 1).remove(0).1;
        assert!(dot(vector, &exact) > 0.98, "text {n}: {}", dot(vector, &exact));
    }
    // In one batch, with padding behind each, and one neighbour that is far louder than any text of the calibration.
    let mut ids: Vec<i64> = (30..40).flat_map(|n| [text(n), vec![0; 4]].concat()).collect();
    let mut mask = [[1i64; 8].as_slice(), &[0; 4]].concat().repeat(10);
    ids.extend([SHAPE.vocabulary as i64 - 1; 12]);
    mask.extend([1; 12]);
    let together = run(&mut small, &ids, &mask, 11).remove(0).1;
    for (vector, row) in alone.iter().zip(together.chunks_exact(SHAPE.hidden)) {
        assert!(1.0 - dot(vector, row) < 1e-5, "{}", 1.0 - dot(vector, row));
    }
}
