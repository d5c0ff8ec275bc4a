use super::*;
use crate::runtime::layer8::{
    isa,
    linear::tests::{values, weights},
};

const HIDDEN: usize = 40;
const HEADS: usize = 4;

fn layer(isa: Isa) -> Layer {
    let linear = |seed: u64, inputs: usize, outputs: usize, smoothed: bool| {
        let scale: Vec<f32> = values(seed, outputs).iter().map(|v| 3e-3 + 1e-3 * v).collect();
        let smoothing: Vec<f32> = values(seed + 1, inputs).iter().map(|v| 1.0 + 0.3 * v).collect();
        Linear::new(
            isa,
            inputs,
            &weights(seed + 2, inputs * outputs),
            &scale,
            &values(seed + 3, outputs),
            smoothed.then_some(&smoothing[..]),
        )
    };
    let norm = |seed: u64| Norm {
        gain: values(seed, HIDDEN).iter().map(|v| 1.0 + 0.2 * v).collect(),
        bias: values(seed + 1, HIDDEN),
        epsilon: 1e-12,
    };
    Layer {
        isa,
        heads: HEADS,
        queries_keys: linear(10, HIDDEN, 2 * HIDDEN, true),
        values: linear(15, HIDDEN, HIDDEN, true),
        attention_output: linear(20, HIDDEN, HIDDEN, false),
        attention_norm: norm(30),
        intermediate: linear(40, HIDDEN, 100, true),
        output: linear(50, 100, HIDDEN, false),
        output_norm: norm(60),
    }
}

/// On three threads of their own.
fn on_threads(n: usize, work: &(dyn Fn(usize) + Sync)) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if i >= n {
                        break;
                    }
                    work(i);
                }
            });
        }
    });
}

fn run(isa: Isa, x: &[f32], starts: &[usize]) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len()];
    layer(isa).forward(x, starts, &mut out, &mut Buffers::default(), &on_threads);
    out
}

/// Texts of these lengths, as rows and starts.
fn texts(lengths: &[usize]) -> (Vec<f32>, Vec<usize>) {
    let mut starts = vec![0];
    for length in lengths {
        starts.push(starts[starts.len() - 1] + length);
    }
    (values(7, starts[starts.len() - 1] * HIDDEN), starts)
}

#[test]
fn a_text_alone_gives_the_same_bits_as_in_company() {
    let (x, starts) = texts(&[3, 1, 60, 0, 130, 17, 0, 48, 2]);
    for isa in isa::available() {
        let together = run(isa, &x, &starts);
        assert!(together.iter().all(|v| v.is_finite()));
        for bounds in starts.windows(2) {
            let range = bounds[0] * HIDDEN..bounds[1] * HIDDEN;
            let alone = run(isa, &x[range.clone()], &[0, bounds[1] - bounds[0]]);
            assert_eq!(alone, together[range], "{isa:?} tokens {bounds:?}");
        }
    }
}

#[test]
fn forms_for_different_processors_agree() {
    let (x, starts) = texts(&[5, 90, 31]);
    let portable = run(Isa::PORTABLE, &x, &starts);
    for isa in isa::available() {
        let got = run(isa, &x, &starts);
        let (dot, a, b) = portable.iter().zip(&got).fold((0.0, 0.0, 0.0), |(dot, a, b), (x, y)| {
            (dot + f64::from(x * y), a + f64::from(x * x), b + f64::from(y * y))
        });
        // A last bit of a score may carry a share over to bfloat16's next step.
        assert!(dot / (a * b).sqrt() > 1.0 - 5e-5, "{isa:?}: {}", dot / (a * b).sqrt());
    }
}

#[test]
fn gelu_and_norm_are_what_they_are_called() {
    // Gelu of -3, -1, 0, 1, 3 by scipy; far out it is 0 or the value itself.
    let points = [-3.0f32, -1.0, 0.0, 1.0, 3.0, -7.0, 7.0];
    let exact = [-0.004_049_7, -0.158_655_3, 0.0, 0.841_344_7, 2.995_950_3, 0.0, 7.0];
    for isa in isa::available() {
        let rounded = |row: &[f32]| {
            let mut out = vec![0; row.len()];
            let (scale, zero) = isa.gelu_round_row(&mut row.to_vec(), &mut out);
            let values: Vec<f32> = out.iter().map(|&q| (i32::from(q) - zero) as f32 * scale).collect();
            (scale, values)
        };
        // In a long row they are as near as its step, and beside zeros, the only other value, exact.
        let (scale, together) = rounded(&points.repeat(5));
        assert!((scale - 7.158_655 / 255.0).abs() < 1e-5, "{isa:?}: {scale}");
        for (got, y) in together.iter().zip(exact.iter().cycle()) {
            assert!((got - y).abs() < scale / 2.0 + 1e-4, "{isa:?}: {got}, {y}");
        }
        for (x, y) in points.into_iter().zip(exact) {
            let (_, alone) = rounded(&[0.0, x, 0.0]);
            assert!((alone[1] - y).abs() < 1e-4, "{isa:?}: {}, {y}", alone[1]);
        }

        let norm = Norm { gain: vec![2.0; 20], bias: vec![0.5; 20], epsilon: 1e-12 };
        let mut x: Vec<f32> = (0..40).map(|i| i as f32).collect();
        isa.add_norm(&mut x, &[1.0; 40], &norm);
        for row in x.chunks_exact(20) {
            let mean = row.iter().sum::<f32>() / 20.0;
            let deviation = (row.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 20.0).sqrt();
            assert!(
                (mean - 0.5).abs() < 1e-5 && (deviation - 2.0).abs() < 1e-5,
                "{isa:?}: {mean}, {deviation}"
            );
        }
    }
}
