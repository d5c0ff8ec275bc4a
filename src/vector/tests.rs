//! What a vector is never, and what a metric always is.

use proptest::prelude::*;

use super::*;

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::Euclidean];

fn dim(n: usize) -> Dim {
    Dim::new(n as u32).unwrap()
}

fn vector(values: &[f32], metric: Metric) -> Vector {
    Vector::new(values.to_vec(), dim(values.len()), metric).unwrap()
}

fn length(v: &Vector) -> f64 {
    v.as_slice().iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn distances_worked_by_hand() {
    let (a, b) = ([3.0, 4.0], [4.0, 3.0]);
    let distance = |m: Metric| m.distance(vector(&a, m).as_slice(), vector(&b, m).as_slice());
    assert!((distance(Metric::Cosine) - 0.04).abs() < 1e-6);
    assert_eq!(distance(Metric::Dot), -24.0);
    assert_eq!(distance(Metric::Euclidean), 2.0);
    assert!((Metric::Cosine.score(0.04) - 0.96).abs() < 1e-6);
    assert_eq!(Metric::Dot.score(-24.0), 24.0);
    assert_eq!(Metric::Euclidean.score(9.0), 0.25);
}

#[test]
fn opposite_directions_are_two_apart_and_equal_ones_nothing() {
    let (a, b) = (vector(&[1.0, 2.0, -3.0], Metric::Cosine), vector(&[-1.0, -2.0, 3.0], Metric::Cosine));
    assert!((Metric::Cosine.distance(a.as_slice(), b.as_slice()) - 2.0).abs() < 1e-6);
    assert!(Metric::Cosine.distance(a.as_slice(), a.as_slice()) < 1e-6);
}

#[test]
fn wrong_dimensions_are_refused() {
    for metric in METRICS {
        for got in [0, 2, 4] {
            let e = Vector::new(vec![1.0; got], dim(3), metric).unwrap_err();
            assert_eq!(e, VectorError::WrongDim { expected: 3, got });
            assert_eq!(
                e.to_string(),
                format!("the vector has {got} values, but this collection's dimension is 3")
            );
            assert_eq!(e.kind(), ErrorKind::Invalid);
        }
    }
    for got in [0, DIM_MAX + 1, u32::MAX] {
        let e = Dim::new(got).unwrap_err();
        assert_eq!(e.to_string(), format!("dimension must be between 1 and 8192, got {got}"));
        assert!(serde_json::from_str::<Dim>(&got.to_string()).is_err());
    }
    assert_eq!(Dim::new(DIM_MAX).unwrap().len(), 8192);
}

#[test]
fn values_that_are_not_finite_are_refused_with_their_position() {
    for metric in METRICS {
        for (bad, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            let e = Vector::new(vec![1.0, 2.0, bad], dim(3), metric).unwrap_err();
            assert_eq!(
                e.to_string(),
                format!("the vector's value at position 2 is {shown}; every value must be finite")
            );
        }
    }
}

#[test]
fn a_zero_vector_has_no_direction_but_is_a_point() {
    let e = Vector::new(vec![0.0, -0.0], dim(2), Metric::Cosine).unwrap_err();
    assert_eq!(e, VectorError::ZeroLength);
    assert!(e.to_string().contains("all zero"));
    for metric in [Metric::Dot, Metric::Euclidean] {
        assert_eq!(vector(&[0.0, 0.0], metric).as_slice(), [0.0, 0.0]);
    }
}

#[test]
fn huge_and_tiny_vectors_get_unit_length() {
    let smallest = f32::from_bits(1);
    for values in [
        [f32::MAX, -f32::MAX, f32::MAX],
        [smallest, 0.0, -smallest],
        [f32::MAX, smallest, 1.0],
        [1e-30, 2e-30, 0.0],
    ] {
        let v = vector(&values, Metric::Cosine);
        assert!((length(&v) - 1.0).abs() < 1e-6, "{values:?} {}", length(&v));
    }
}

#[test]
fn a_unit_vector_keeps_its_bits() {
    let once = vector(&[0.3, -0.2, 17.0, 4.0], Metric::Cosine);
    assert_eq!(vector(once.as_slice(), Metric::Cosine), once);
}

#[test]
fn sums_that_overflow_give_the_ends_of_the_scale() {
    let (up, down) = ([f32::MAX, f32::MAX], [-f32::MAX, -f32::MAX]);
    assert_eq!(Metric::Dot.distance(&up, &up), f32::MIN);
    assert_eq!(Metric::Dot.distance(&up, &down), f32::MAX);
    assert_eq!(Metric::Euclidean.distance(&up, &down), f32::MAX);
    // Infinity minus infinity on the way.
    let (a, b) =
        ([f32::MAX; 40], std::array::from_fn::<f32, 40, _>(|i| f32::MAX * (i % 2 * 2) as f32 - f32::MAX));
    assert!(Metric::Dot.distance(&a, &b).is_finite());
}

fn two() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    let value = prop_oneof![4 => -10.0f32..10.0, 1 => any::<f32>().prop_filter("finite", |v| v.is_finite())];
    proptest::collection::vec((value.clone(), value), 1..100)
        .prop_map(|pairs| pairs.into_iter().unzip::<f32, f32, Vec<_>, Vec<_>>())
        .prop_filter("not zero", |(a, b)| a.iter().any(|v| *v != 0.0) && b.iter().any(|v| *v != 0.0))
}

#[test]
fn equal_vectors_have_cosine_one_exactly() {
    let v = [0.1f32, -0.7, 0.33];
    assert_eq!(cosine(&v, &v), 1.0);
    assert_eq!(cosine(&v, &[0.0; 3]), 0.0);
}

proptest! {
    #[test]
    fn a_metric_is_finite_and_the_same_either_way_round((a, b) in two()) {
        for metric in METRICS {
            let (a, b) = (vector(&a, metric), vector(&b, metric));
            let there = metric.distance(a.as_slice(), b.as_slice());
            let back = metric.distance(b.as_slice(), a.as_slice());
            prop_assert!(there.is_finite());
            prop_assert_eq!(there.to_bits(), back.to_bits());
            match metric {
                Metric::Cosine => prop_assert!((0.0..=2.0).contains(&there)),
                Metric::Euclidean => {
                    prop_assert!(there >= 0.0);
                    prop_assert_eq!(metric.distance(a.as_slice(), a.as_slice()), 0.0);
                }
                Metric::Dot => {}
            }
        }
    }

    #[test]
    fn score_falls_as_distance_grows(near in -1e3f32..1e3, step in 0.01f32..1e3) {
        for metric in METRICS {
            let near = if metric == Metric::Euclidean { near.abs() } else { near };
            prop_assert!(metric.score(near) > metric.score(near + step), "{metric:?} {near} {step}");
        }
    }

    #[test]
    fn cosine_vectors_have_unit_length_and_others_their_own((a, _) in two()) {
        prop_assert!((length(&vector(&a, Metric::Cosine)) - 1.0).abs() < 1e-5);
        let kept = vector(&a, Metric::Dot);
        prop_assert_eq!(kept.as_slice(), a.as_slice());
    }
}
