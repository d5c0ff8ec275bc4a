use proptest::prelude::*;

use super::*;
use crate::random::SplitMix;

const PLAIN: ParameterSettings = ParameterSettings { decay: true, frozen: false, sparse: false };
const SPARSE: ParameterSettings = ParameterSettings { decay: true, frozen: false, sparse: true };
const FROZEN: ParameterSettings = ParameterSettings { decay: true, frozen: true, sparse: false };

fn parameters(list: &[(&str, &[usize], Vec<f32>)]) -> Parameters {
    let list = list.iter().map(|(name, shape, values)| Parameter {
        name: (*name).to_owned(),
        shape: shape.to_vec(),
        values: values.clone(),
    });
    Parameters { list: list.collect() }
}

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut random = SplitMix(seed);
    (0..count).map(|_| (random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

fn config(weight_decay: f64) -> AdamWConfig {
    AdamWConfig { weight_decay, ..AdamWConfig::default() }
}

/// Algorithm 2 in float64, as it is printed. A row of a sparse gradient that is not `touched` only decays.
struct Naive {
    config: AdamWConfig,
    steps: i32,
    values: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
}

impl Naive {
    fn new(config: AdamWConfig, values: &[f32]) -> Self {
        let zeros = vec![0.0; values.len()];
        let values = values.iter().map(|&v| f64::from(v)).collect();
        Naive { config, steps: 0, values, first: zeros.clone(), second: zeros }
    }

    fn step(&mut self, gradient: &[f64], rate: f64, touched: impl Fn(usize) -> bool) {
        let AdamWConfig { betas: [beta1, beta2], eps, weight_decay } = self.config;
        self.steps += 1;
        for (i, &g) in gradient.iter().enumerate() {
            self.values[i] *= 1.0 - rate * weight_decay;
            if !touched(i) {
                continue;
            }
            self.first[i] = beta1 * self.first[i] + (1.0 - beta1) * g;
            self.second[i] = beta2 * self.second[i] + (1.0 - beta2) * g * g;
            let first = self.first[i] / (1.0 - beta1.powi(self.steps));
            let second = self.second[i] / (1.0 - beta2.powi(self.steps));
            self.values[i] -= rate * first / (second.sqrt() + eps);
        }
    }

    fn farthest_from(&self, values: &[f32]) -> f64 {
        assert_eq!(values.len(), self.values.len());
        values.iter().zip(&self.values).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max)
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

#[test]
fn two_steps_worked_by_hand() {
    let mut p = parameters(&[("w", &[1, 1], vec![1.0])]);
    let mut adam = AdamW::new(&p, config(0.1), vec![PLAIN]).unwrap();
    let report = adam.step(&mut p, &[Gradient::Dense(&[0.5])], 0.1, None).unwrap();
    assert_eq!(report, StepReport { gradient_norm: 0.5, clipped: false });
    // 1 * (1 - 0.1 * 0.1) - 0.1 * 0.5 / 0.5
    assert!((p.list[0].values[0] - 0.89).abs() < 1e-6);
    adam.step(&mut p, &[Gradient::Dense(&[-0.5])], 0.1, None).unwrap();
    // first = (0.9 * 0.05 - 0.05) / 0.19, second = 0.25: 0.89 * 0.99 + 0.1 * 0.005 / 0.19 / 0.5
    assert!((p.list[0].values[0] - 0.886_363_2).abs() < 1e-6);
    assert_eq!(adam.state().steps, 2);
}

#[test]
fn many_dense_steps_are_those_of_float64() {
    let values = random(1, 600);
    let mut p = parameters(&[("w", &[20, 30], values.clone()), ("b", &[5], random(2, 5))]);
    let no_decay = ParameterSettings { decay: false, ..PLAIN };
    let mut adam = AdamW::new(&p, config(0.1), vec![PLAIN, no_decay]).unwrap();
    let mut weights = Naive::new(config(0.1), &values);
    let mut biases = Naive::new(config(0.0), &p.list[1].values);
    for step in 0..200 {
        let (w, b) = (random(100 + step, 600), random(900 + step, 5));
        let rate = 1e-3 * (1.0 - step as f64 / 200.0);
        adam.step(&mut p, &[Gradient::Dense(&w), Gradient::Dense(&b)], rate, None).unwrap();
        weights.step(&wide(&w), rate, |_| true);
        biases.step(&wide(&b), rate, |_| true);
    }
    assert!(weights.farthest_from(&p.list[0].values) < 2e-6);
    assert!(biases.farthest_from(&p.list[1].values) < 2e-6);
}

#[test]
fn many_sparse_steps_are_lazy_adam_with_the_decay_of_all_rows() {
    let (rows, width) = (50, 7);
    let values = random(3, rows * width);
    let mut p = parameters(&[("words", &[rows, width], values.clone())]);
    let mut adam = AdamW::new(&p, config(0.5), vec![SPARSE]).unwrap();
    let mut naive = Naive::new(config(0.5), &values);
    let mut random_ids = SplitMix(8);
    for step in 0..100 {
        // Few enough tokens to leave rows out, and rows that come many times.
        let ids: Vec<i64> = (0..12).map(|_| (random_ids.below(40) * random_ids.below(2)) as i64).collect();
        let gradients = random(200 + step, ids.len() * width);
        adam.step(&mut p, &[Gradient::Rows { ids: &ids, rows: &gradients }], 1e-2, None).unwrap();
        let mut dense = vec![0.0; rows * width];
        for (&id, row) in ids.iter().zip(gradients.chunks(width)) {
            row.iter().enumerate().for_each(|(at, &g)| dense[id as usize * width + at] += f64::from(g));
        }
        naive.step(&dense, 1e-2, |i| ids.contains(&((i / width) as i64)));
        if step == 60 {
            adam.flush(&mut p);
            assert!(naive.farthest_from(&p.list[0].values) < 4e-6);
        }
    }
    let behind = naive.farthest_from(&p.list[0].values);
    assert!(behind > 1e-3, "rows 40 to 49 were never touched since, and yet are level: {behind}");
    adam.flush(&mut p);
    assert!(naive.farthest_from(&p.list[0].values) < 4e-6);
}

/// The same step twice: gradients by rows, and the same as one matrix.
fn both_ways(rows: usize, width: usize, ids: &[i64], weight_decay: f64) -> [Parameters; 2] {
    let gradients = random(5, ids.len() * width);
    let start = parameters(&[("words", &[rows, width], random(6, rows * width))]);
    let mut dense = vec![0f64; rows * width];
    for (&id, row) in ids.iter().zip(gradients.chunks(width)) {
        row.iter().enumerate().for_each(|(at, &g)| dense[id as usize * width + at] += f64::from(g));
    }
    let dense: Vec<f32> = dense.iter().map(|&g| g as f32).collect();
    let sparse = Gradient::Rows { ids, rows: &gradients };
    [(SPARSE, sparse), (PLAIN, Gradient::Dense(&dense))].map(|(settings, gradient)| {
        let mut p = start.clone();
        let mut adam = AdamW::new(&p, config(weight_decay), vec![settings]).unwrap();
        adam.step(&mut p, &[gradient], 1e-3, None).unwrap();
        adam.flush(&mut p);
        p
    })
}

proptest! {
    #[test]
    fn one_sparse_step_is_the_dense_one_bit_for_bit(
        ids in proptest::collection::vec(0i64..30, 0..60),
        weight_decay in prop_oneof![Just(0.0), 0.001..10.0f64],
    ) {
        let [sparse, dense] = both_ways(30, 5, &ids, weight_decay);
        prop_assert_eq!(sparse, dense);
    }
}

#[test]
fn rows_that_no_step_saw_have_decayed() {
    let [sparse, _] = both_ways(4, 3, &[1, 1], 0.1);
    let start = random(6, 12);
    for row in [0, 2, 3] {
        let decayed: Vec<f32> =
            start[row * 3..][..3].iter().map(|value| value * (1.0 - 1e-3 * 0.1) as f32).collect();
        assert_eq!(sparse.list[0].values[row * 3..][..3], decayed);
    }
}

#[test]
fn a_product_too_small_for_numbers_is_not_reached() {
    let mut p = parameters(&[("words", &[2, 1], vec![1.0, 1e30])]);
    let mut adam = AdamW::new(&p, config(0.9), vec![SPARSE]).unwrap();
    // Each step leaves a tenth: 400 of them are beyond float64.
    for _ in 0..400 {
        adam.step(&mut p, &[Gradient::Rows { ids: &[0], rows: &[0.0] }], 1.0, None).unwrap();
        assert!(adam.state().moments[0].decayed >= PRODUCT_MIN);
    }
    adam.flush(&mut p);
    assert_eq!(p.list[0].values, [0.0, 0.0]);
}

#[test]
fn gradients_are_shortened_together() {
    let start = parameters(&[("a", &[2], vec![1.0, 2.0]), ("words", &[2, 1], vec![3.0, 4.0])]);
    let settings = vec![PLAIN, SPARSE];
    // Length of (3, 0, 0, 2 + 2) is 5.
    let a = [3.0, 0.0];
    let words = Gradient::Rows { ids: &[1, 1], rows: &[2.0, 2.0] };
    let step = |clip| {
        let mut p = start.clone();
        let mut adam = AdamW::new(&p, config(0.0), settings.clone()).unwrap();
        let report = adam.step(&mut p, &[Gradient::Dense(&a), words], 1e-3, clip).unwrap();
        (report, adam.state().moments.clone())
    };
    let (report, moments) = step(None);
    assert_eq!(report, StepReport { gradient_norm: 5.0, clipped: false });
    let (report, clipped) = step(Some(1.0));
    assert_eq!(report, StepReport { gradient_norm: 5.0, clipped: true });
    let scale = 1.0 / (5.0 + 1e-6);
    for (long, short) in moments.iter().zip(&clipped) {
        for (long, short) in long.first.iter().zip(&short.first) {
            assert!((f64::from(*long) * scale - f64::from(*short)).abs() < 1e-7);
        }
    }
    assert!((f64::from(clipped[0].second[0]) - 0.001 * (3.0 * scale).powi(2)).abs() < 1e-9);
    let (report, within) = step(Some(6.0));
    assert!(!report.clipped);
    assert_eq!(within, moments);
}

#[test]
fn frozen_parameters_stay_and_do_not_count() {
    let start = parameters(&[("a", &[1, 2], vec![1.0, 2.0]), ("b", &[1], vec![3.0])]);
    let mut p = start.clone();
    let mut adam = AdamW::new(&p, config(0.1), vec![FROZEN, PLAIN]).unwrap();
    assert!(adam.state().moments[0].first.is_empty());
    for gradient in [Gradient::Absent, Gradient::Dense(&[4.0, f32::NAN])] {
        let report = adam.step(&mut p, &[gradient, Gradient::Dense(&[2.0])], 1e-3, None).unwrap();
        assert_eq!(report.gradient_norm, 2.0);
    }
    assert_eq!(p.list[0], start.list[0]);
    assert_ne!(p.list[1], start.list[1]);
}

#[test]
fn the_usual_settings_spare_biases_norms_and_key_biases() {
    let of = |name: &str, shape: &[usize]| {
        let shape = shape.to_vec();
        ParameterSettings::usual(&Parameter { name: name.to_owned(), shape, values: Vec::new() })
    };
    assert_eq!(of(WORDS, &[100, 8]), SPARSE);
    assert_eq!(of("encoder.layer.0.output.dense.weight", &[8, 8]), PLAIN);
    assert_eq!(of("embeddings.position_embeddings.weight", &[16, 8]), PLAIN);
    let spared = ParameterSettings { decay: false, ..PLAIN };
    assert_eq!(of("embeddings.LayerNorm.weight", &[8]), spared);
    assert_eq!(of("encoder.layer.0.attention.self.query.bias", &[8]), spared);
    let frozen = ParameterSettings { decay: false, ..FROZEN };
    assert_eq!(of("encoder.layer.11.attention.self.key.bias", &[8]), frozen);
    assert_eq!(of("transformer.layer.0.attention.k_lin.bias", &[8]), frozen);
    assert_eq!(of("transformer.layer.0.attention.k_lin.weight", &[8, 8]), PLAIN);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (rows, width) = (3000, 24);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut p = parameters(&[
                ("words", &[rows, width], random(1, rows * width)),
                ("a", &[300, 333], random(2, 300 * 333)),
                ("b", &[333], random(3, 333)),
            ]);
            let mut adam = AdamW::new(&p, config(0.1), vec![SPARSE, PLAIN, PLAIN]).unwrap();
            let mut norms = Vec::new();
            for step in 0..4 {
                let mut numbers = SplitMix(step);
                let ids: Vec<i64> = (0..4000).map(|_| numbers.below(2000) as i64).collect();
                let words = random(step + 10, ids.len() * width);
                let (a, b) = (random(step + 20, 300 * 333), random(step + 30, 333));
                let gradients =
                    [Gradient::Rows { ids: &ids, rows: &words }, Gradient::Dense(&a), Gradient::Dense(&b)];
                let report = adam.step(&mut p, &gradients, 1e-3, Some(1.0)).unwrap();
                assert!(report.clipped);
                norms.push(report.gradient_norm.to_bits());
            }
            adam.flush(&mut p);
            (p, adam.state().clone(), norms)
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(3));
}

#[test]
fn a_run_goes_on_from_its_state_bit_for_bit() {
    let mut p = parameters(&[("words", &[9, 2], random(1, 18)), ("a", &[4], random(2, 4))]);
    let settings = vec![SPARSE, PLAIN];
    let mut adam = AdamW::new(&p, config(0.1), settings.clone()).unwrap();
    let step = |adam: &mut AdamW, p: &mut Parameters, n: u64| {
        let (words, a) = (random(n, 4), random(n + 50, 4));
        let ids = [n as i64 % 9, 3];
        let gradients = [Gradient::Rows { ids: &ids, rows: &words }, Gradient::Dense(&a)];
        adam.step(p, &gradients, 1e-2, None).unwrap();
    };
    (0..5).for_each(|n| step(&mut adam, &mut p, n));
    let mut again = p.clone();
    let mut resumed = AdamW::resume(&p, config(0.1), settings, adam.state().clone()).unwrap();
    for n in 5..20 {
        step(&mut adam, &mut p, n);
        step(&mut resumed, &mut again, n);
    }
    adam.flush(&mut p);
    resumed.flush(&mut again);
    assert_eq!(p, again);
    assert_eq!(adam.state(), resumed.state());
}

/// A step that cannot be made; checks that it left no trace.
fn refused(gradients: &[Gradient], rate: f64, clip: Option<f64>) -> OptimizerError {
    let mut p = parameters(&[("words", &[3, 2], random(1, 6)), ("a", &[2], random(2, 2))]);
    let mut adam = AdamW::new(&p, config(0.1), vec![SPARSE, PLAIN]).unwrap();
    let good = [Gradient::Rows { ids: &[0], rows: &[1.0, 2.0] }, Gradient::Dense(&[1.0, 2.0])];
    adam.step(&mut p, &good, 1e-3, None).unwrap();
    let (before, state) = (p.clone(), adam.state().clone());
    let error = adam.step(&mut p, gradients, rate, clip).unwrap_err();
    assert_eq!(p, before);
    assert_eq!(*adam.state(), state);
    error
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let words = Gradient::Rows { ids: &[0], rows: &[1.0, 2.0] };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = refused(&[words, Gradient::Dense(&[0.0, bad])], 1e-3, Some(1.0));
        assert!(matches!(&error, OptimizerError::NotFinite { parameter, .. } if parameter == "a"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Precondition);
        let rows = Gradient::Rows { ids: &[0, 2, 2], rows: &[0.0, 0.0, 0.0, bad, 1.0, 1.0] };
        let error = refused(&[rows, Gradient::Dense(&[0.0, 0.0])], 1e-3, None);
        assert!(error.to_string().contains("gradient of words"), "{error}");
    }
    // Finite, but its square is not: clipping makes it usable, without it the step is refused.
    let error = refused(&[words, Gradient::Dense(&[0.0, 1e30])], 1e-3, None);
    assert!(error.to_string().contains("gradient of a is not finite or far too large"), "{error}");
    let mut p = parameters(&[("a", &[1], vec![1.0])]);
    let mut adam = AdamW::new(&p, config(0.0), vec![PLAIN]).unwrap();
    adam.step(&mut p, &[Gradient::Dense(&[1e30])], 1e-3, Some(1.0)).unwrap();
    assert!((p.list[0].values[0] - 0.999).abs() < 1e-6);
}

#[test]
fn gradients_that_do_not_belong_are_named() {
    let words = Gradient::Rows { ids: &[0], rows: &[1.0, 2.0] };
    let a = Gradient::Dense(&[1.0, 2.0]);
    let says = |gradients: &[Gradient], text: &str| {
        let error = refused(gradients, 1e-3, None);
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.kind(), ErrorKind::Internal);
    };
    says(&[words], "list of gradients has 1 values, expected 2");
    says(&[words, Gradient::Dense(&[1.0])], "a: its gradient has 1 values, expected 2");
    says(&[words, Gradient::Absent], "a: its gradient is absent, expected dense");
    says(&[words, words], "a: its gradient is given by rows, expected dense");
    says(&[a, a], "words: its gradient is dense, expected given by rows");
    says(&[Gradient::Absent, a], "words: its gradient is absent");
    says(&[Gradient::Rows { ids: &[0, 1], rows: &[1.0] }, a], "words: its gradient has 1 values, expected 4");
    for row in [3, -1, i64::MIN] {
        says(&[Gradient::Rows { ids: &[row], rows: &[1.0, 1.0] }, a], "but there are rows 0 to 2");
    }
}

#[test]
fn a_rate_at_which_decay_turns_the_sign_is_refused() {
    let gradients = [Gradient::Rows { ids: &[], rows: &[] }, Gradient::Dense(&[1.0, 2.0])];
    for rate in [10.0, 11.0, -1.0, f64::NAN] {
        let error = refused(&gradients, rate, None);
        assert!(matches!(error, OptimizerError::Rate { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_state_of_other_parameters_is_refused() {
    let p = parameters(&[("words", &[3, 2], random(1, 6)), ("a", &[2], random(2, 2))]);
    let state = AdamW::new(&p, config(0.1), vec![SPARSE, PLAIN]).unwrap().state().clone();
    let resume = |settings: Vec<ParameterSettings>, state: OptimizerState| {
        AdamW::resume(&p, config(0.1), settings, state).unwrap_err().to_string()
    };
    assert!(resume(vec![PLAIN], state.clone()).contains("the list of settings has 1 values, expected 2"));
    assert!(resume(vec![PLAIN, PLAIN], state.clone()).contains("rows' decay has 3 values, expected 0"));
    assert!(
        resume(vec![SPARSE, FROZEN], state.clone()).contains("a: the first moment has 2 values, expected 0")
    );
    let mut short = state.clone();
    short.moments[1].second.pop();
    assert!(resume(vec![SPARSE, PLAIN], short).contains("a: the second moment has 1 values"));
    let mut short = state;
    short.moments.pop();
    assert!(resume(vec![SPARSE, PLAIN], short).contains("the list of moments has 1 values"));
}

/// Against PyTorch: `../shared/fixtures`.
mod reference {
    use std::path::PathBuf;

    use safetensors::SafeTensors;

    use super::*;

    fn fixture(name: &str) -> Option<PathBuf> {
        let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
        let shared = std::env::var_os("DISTILFACE_SHARED").map_or_else(beside, PathBuf::from);
        let folder = shared.join("fixtures").join(name);
        if !folder.is_dir() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", folder.display());
            println!("skipped: {} is missing", folder.display());
            return None;
        }
        Some(folder)
    }

    fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
        let (values, _) = file.tensor(name).unwrap().data().as_chunks::<4>();
        values.iter().map(|&value| f32::from_le_bytes(value)).collect()
    }

    fn one_step(name: &str, sparse: bool) {
        let Some(folder) = fixture(name) else { return };
        let model = std::fs::read(folder.join("model.safetensors")).unwrap();
        let model = SafeTensors::deserialize(&model).unwrap();
        let reference = std::fs::read(folder.join("reference.safetensors")).unwrap();
        let reference = SafeTensors::deserialize(&reference).unwrap();
        let names: Vec<&str> =
            reference.names().iter().filter_map(|name| name.strip_prefix("adamw1.")).collect();
        assert!(names.len() > 80, "{} parameters", names.len());
        let mut p = Parameters {
            list: names
                .iter()
                .map(|&name| Parameter {
                    name: name.to_owned(),
                    shape: model.tensor(name).unwrap().shape().to_vec(),
                    values: floats(&model, name),
                })
                .collect(),
        };
        let gradients: Vec<Vec<f32>> =
            names.iter().map(|name| floats(&reference, &format!("grad.{name}"))).collect();
        let ids: Vec<i64> = (0..500).collect();
        let is_sparse = |p: &Parameter| sparse && p.name == WORDS;
        let settings = p.list.iter().map(|p| if is_sparse(p) { SPARSE } else { PLAIN }).collect();
        let mut adam = AdamW::new(&p, config(0.01), settings).unwrap();
        let given: Vec<Gradient> = p
            .list
            .iter()
            .zip(&gradients)
            .map(|(p, values)| match is_sparse(p) {
                true => Gradient::Rows { ids: &ids, rows: values },
                false => Gradient::Dense(values),
            })
            .collect();
        adam.step(&mut p, &given, 1e-3, None).unwrap();
        for parameter in &p.list {
            let expected = floats(&reference, &format!("adamw1.{}", parameter.name));
            let off = parameter.values.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off <= 1e-6, "{}: off by {off:e}", parameter.name);
        }
    }

    #[test]
    fn a_step_on_bert_is_that_of_pytorch() {
        one_step("bert-tiny", false);
        one_step("bert-tiny", true);
    }

    #[test]
    fn a_step_on_distilbert_is_that_of_pytorch() {
        one_step("distilbert-tiny", false);
        one_step("distilbert-tiny", true);
    }
}
