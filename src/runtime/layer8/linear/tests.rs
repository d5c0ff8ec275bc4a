use proptest::prelude::*;

use super::*;
use crate::runtime::layer8::isa;

/// Values from -1 to 1 that depend on nothing but the seed.
pub(in crate::runtime::layer8) fn values(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "from -127 to 127")]
pub(in crate::runtime::layer8) fn weights(seed: u64, n: usize) -> Vec<i8> {
    values(seed, n).into_iter().map(|v| (v * 127.0) as i8).collect()
}

/// The product in double precision, and the error that rounding a row to 255 steps may make.
fn exact(row: &[f32], smoothing: &[f32], weights: &[i8], scale: f32, bias: f32) -> (f64, f64) {
    let x: Vec<f64> = row.iter().zip(smoothing).map(|(x, s)| f64::from(x * s)).collect();
    let least = x.iter().copied().fold(0.0, f64::min);
    let step = (x.iter().copied().fold(0.0, f64::max) - least) / 255.0;
    let sum: f64 = x.iter().zip(weights).map(|(x, w)| x * f64::from(*w)).sum();
    let size: f64 = weights.iter().map(|w| f64::from(*w).abs()).sum();
    (f64::from(bias) + sum * f64::from(scale), 0.51 * step * size * f64::from(scale) + 1e-4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_form_gives_the_product_within_half_a_step_of_each_input(
        inputs in 1usize..200, outputs in 1usize..150, rows in 0usize..14, seed in any::<u64>(),
    ) {
        let (x, w) = (values(seed, rows * inputs), weights(seed ^ 1, inputs * outputs));
        let scale: Vec<f32> = values(seed ^ 2, outputs).iter().map(|v| 0.02 + 0.01 * v).collect();
        let bias = values(seed ^ 3, outputs);
        let smoothing: Vec<f32> = values(seed ^ 4, inputs).iter().map(|v| 1.5 + v).collect();
        let mut first: Option<Vec<f32>> = None;
        for isa in isa::available() {
            let linear = Linear::new(isa, inputs, &w, &scale, &bias, Some(&smoothing));
            let (mut rounded, mut out) = (Rows::default(), vec![0.0; rows * outputs]);
            linear.round(&x, &mut rounded);
            linear.apply(&rounded, &mut out, linear.outputs());
            for r in 0..rows {
                for o in 0..outputs {
                    let weights = &w[o * inputs..][..inputs];
                    let (y, allowed) = exact(&x[r * inputs..][..inputs], &smoothing, weights, scale[o], bias[o]);
                    let got = f64::from(out[r * outputs + o]);
                    prop_assert!((got - y).abs() <= allowed, "{isa:?} row {r} output {o}: {got}, {y}");
                }
            }
            // Integers are the same in every form.
            prop_assert_eq!(first.get_or_insert_with(|| out.clone()), &out, "{:?}", isa);
        }
    }

    #[test]
    fn a_row_alone_gives_the_same_bits(rows in 1usize..20, seed in any::<u64>()) {
        let (inputs, outputs) = (52, 70);
        let (x, w) = (values(seed, rows * inputs), weights(seed, inputs * outputs));
        let (scale, bias) = (vec![0.01; outputs], values(seed, outputs));
        for isa in isa::available() {
            let linear = Linear::new(isa, inputs, &w, &scale, &bias, None);
            let mut rounded = Rows::default();
            let mut together = vec![0.0; rows * outputs];
            linear.round(&x, &mut rounded);
            linear.apply(&rounded, &mut together, outputs);
            for r in 0..rows {
                let mut alone = vec![0.0; outputs];
                linear.round(&x[r * inputs..][..inputs], &mut rounded);
                linear.apply(&rounded, &mut alone, outputs);
                prop_assert_eq!(&alone, &together[r * outputs..][..outputs], "{:?}", isa);
            }
        }
    }
}

#[test]
fn zeros_huge_numbers_and_one_sign_are_rounded_within_a_step() {
    for isa in isa::available() {
        for row in [vec![0.0; 20], vec![3e37; 20], vec![-5.0; 7], (0..40).map(|i| i as f32 * 1e-3).collect()]
        {
            let mut out = vec![9; row.len()];
            let (scale, zero) = isa.round_row(&row, None, &mut out);
            for (x, q) in row.iter().zip(&out) {
                let back = (i32::from(*q) - zero) as f32 * scale;
                assert!((back - x).abs() <= 0.51 * scale, "{isa:?}: {x} came back as {back}");
            }
        }
    }
}

#[test]
fn most_inputs_at_their_largest_do_not_leave_the_integers() {
    let inputs = INPUTS_MAX;
    for isa in isa::available() {
        let linear = Linear::new(isa, inputs, &vec![127; inputs], &[1.0], &[0.0], None);
        let (mut rounded, mut out) = (Rows::default(), [0.0]);
        linear.round(&vec![1.0; inputs], &mut rounded);
        linear.apply(&rounded, &mut out, linear.outputs());
        assert!((out[0] / (127.0 * inputs as f32) - 1.0).abs() < 1e-3, "{isa:?}: {}", out[0]);
    }
}
