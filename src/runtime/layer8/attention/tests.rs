use super::*;
use crate::runtime::layer8::{isa, linear::tests::values};

/// Attention in double precision.
fn exact(head: &Head, rows: &[f32]) -> Vec<f64> {
    let at = |token: usize, column: usize| {
        rows[token * head.stride + column..][..head.width].iter().map(|v| f64::from(*v))
    };
    let mut context = Vec::new();
    for t in 0..head.tokens {
        let scores: Vec<f64> = (0..head.tokens)
            .map(|j| at(t, head.queries_at).zip(at(j, head.keys_at)).map(|(q, k)| q * k).sum::<f64>())
            .map(|score| (score / (head.width as f64).sqrt()).exp())
            .collect();
        let total: f64 = scores.iter().sum();
        let mut sums = vec![0.0; head.width];
        for (j, score) in scores.iter().enumerate() {
            sums.iter_mut().zip(at(j, head.values_at)).for_each(|(sum, v)| *sum += score / total * v);
        }
        context.extend(sums);
    }
    context
}

#[test]
fn every_form_agrees_with_double_precision_as_far_as_bfloat16_reaches() {
    let mut scratch = Scratch::default();
    // Around a register of keys, around four of them, widths that fill registers and that do not.
    for (tokens, width) in
        [(1, 32), (2, 1), (5, 26), (16, 64), (17, 16), (63, 40), (64, 32), (65, 32), (200, 48)]
    {
        let (stride, seed) = (3 * width + 7, (tokens * 1000 + width) as u64);
        let head =
            Head { tokens, width, stride, queries_at: 2, keys_at: width + 3, values_at: 2 * width + 5 };
        let rows: Vec<f32> = values(seed, tokens * stride).iter().map(|v| 2.0 * v).collect();
        let expected = exact(&head, &rows);
        for isa in isa::available() {
            // What an earlier, larger head left behind must not be seen.
            scratch.keys.iter_mut().chain(&mut scratch.values).for_each(|word| *word = 0x7f80_7f80);
            let mut context = vec![0.0; tokens * width];
            attend(isa, &head, &rows, &mut context, &mut scratch);
            for (got, expected) in context.iter().zip(&expected) {
                let error = (f64::from(*got) - expected).abs();
                assert!(error < 0.02, "{isa:?} {tokens} tokens of {width}: {got}, {expected}");
            }
        }
    }
}

#[test]
fn scores_far_apart_neither_overflow_nor_give_nan() {
    let head = Head { tokens: 3, width: 16, stride: 48, queries_at: 0, keys_at: 16, values_at: 32 };
    let rows: Vec<f32> = (0..3 * 48).map(|i| if i / 48 == 1 { 300.0 } else { -300.0 }).collect();
    for isa in isa::available() {
        let mut context = vec![0.0; 48];
        attend(isa, &head, &rows, &mut context, &mut Scratch::default());
        // The second token's query likes its own key, the others' each other's, by an immense margin.
        let expected = |token: usize| if token == 1 { 300.0 } else { -300.0 };
        for (i, v) in context.iter().enumerate() {
            assert!((v - expected(i / 16)).abs() <= 2.0, "{isa:?}: {context:?}");
        }
    }
}
