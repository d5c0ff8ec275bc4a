//! Runs on the tiny model, through ONNX Runtime's CPU provider.

use std::cell::Cell;

use super::*;
use crate::{
    config::EncoderConfig,
    eval::sts::StsPair,
    finetune::{
        data::Example,
        finish::{Finish, finish},
        recipe::{Lora, Objective as What},
    },
    runtime::DeviceChoice,
};

/// A home folder with the runtime of this machine and the tiny model; `None`, saying so, without a runtime.
struct Place {
    folder: tempfile::TempDir,
    base: ModelDir,
    machine: Machine,
}

impl Place {
    fn new() -> Option<Self> {
        let home = crate::config::default_home();
        if !home.join("runtime").is_dir() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "CI needs ONNX Runtime: run `distilface setup`"
            );
            println!("skipped: no ONNX Runtime under {}", home.display());
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let tiny = folder.path().join("models/tiny");
        std::fs::create_dir_all(&tiny).unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), tiny.join(entry.file_name())).unwrap();
            }
        }
        let machine = Machine { home, device: DeviceChoice::Cpu, threads: 1 };
        Some(Place { base: ModelDir::open(&tiny).unwrap(), folder, machine })
    }

    fn run(&self, name: &str, recipe: &Recipe, datasets: &[Dataset]) -> Result<RunReport, FinetuneError> {
        self.run_until(name, recipe, datasets, u64::MAX)
    }

    /// As if Ctrl-C came after `stop` looks.
    fn run_until(
        &self,
        name: &str,
        recipe: &Recipe,
        datasets: &[Dataset],
        stop: u64,
    ) -> Result<RunReport, FinetuneError> {
        let teacher = (recipe.objective == What::Distil).then(|| {
            let config = EncoderConfig { device: "cpu".into(), threads: 1, ..EncoderConfig::default() };
            Encoder::open(&self.base, &self.machine.home, &config).unwrap()
        });
        let dev = [dev()];
        let plan = Plan {
            recipe,
            base: &self.base,
            teacher: teacher.as_ref(),
            datasets,
            dev: &dev,
            seed: 5,
            folder: &self.path(name),
            machine: &self.machine,
        };
        let looks = Cell::new(0);
        run(&plan, &mut |_| {}, &|| {
            looks.set(looks.get() + 1);
            looks.get() >= stop
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn best(&self, name: &str) -> Parameters {
        Parameters::read(&best_path(&self.path(name))).unwrap()
    }
}

fn dev() -> StsSet {
    let pair = |score, first: &str, second: &str| StsPair {
        score,
        first: first.to_owned(),
        second: second.to_owned(),
    };
    StsSet {
        name: "dev".into(),
        pairs: vec![
            pair(5.0, "the cat sleeps", "a cat is sleeping"),
            pair(3.0, "the dog runs", "a horse runs"),
            pair(1.0, "rain and snow", "bread and cheese"),
            pair(0.0, "the bank lends money", "music and song"),
        ],
    }
}

fn words() -> Vec<String> {
    let one =
        ["cat", "dog", "car", "bread", "apple", "sea", "rain", "house", "doctor", "school", "song", "code"];
    let two = ["sleeps", "runs", "grows", "sings", "works", "falls"];
    one.iter().flat_map(|a| two.iter().map(move |b| format!("the {a} {b}"))).collect()
}

fn sentences() -> Vec<Dataset> {
    vec![Dataset::new("sentences", Kind::Texts, words().into_iter().map(Example::text).collect())]
}

fn pairs() -> Dataset {
    let pair = |text: String| {
        let turned: Vec<&str> = text.split(' ').rev().collect();
        Example::pair(text.clone(), turned.join(" "))
    };
    Dataset::new("pairs", Kind::Pairs, words().into_iter().map(pair).collect())
}

fn recipe() -> Recipe {
    Recipe {
        batch: 8,
        steps: Some(6),
        learning_rate: 1e-3,
        evaluate_every: 2,
        checkpoint_every: 100,
        log_every: 1,
        ..Recipe::default()
    }
}

#[test]
fn a_run_makes_the_loss_smaller_and_its_weights_become_a_model() {
    let Some(place) = Place::new() else { return };
    let recipe = Recipe { steps: Some(30), ..recipe() };
    let report = place.run("run", &recipe, &sentences()).unwrap();
    assert_eq!((report.ending, report.steps), (Ending::Finished, 30));
    let lines = super::super::metrics::read(&place.path("run")).unwrap();
    let losses: Vec<f64> = lines.iter().filter_map(|l| l.loss).collect();
    assert_eq!(losses.len(), 30);
    let mean = |some: &[f64]| some.iter().sum::<f64>() / some.len() as f64;
    assert!(mean(&losses[25..]) < mean(&losses[..5]), "{losses:?}");
    assert!(report.score_before.is_some() && report.best.is_some());

    let model = finish(&Finish {
        home: place.folder.path(),
        name: "trained",
        force: false,
        recipe: &recipe,
        base: &place.base,
        folder: &place.path("run"),
        report: &report,
        lineage: vec!["data sentences".into()],
    })
    .unwrap();
    model.verify().unwrap();
    assert_ne!(model.fingerprint, place.base.fingerprint);
    assert!(model.manifest.lineage.iter().any(|l| l.contains("seed 5")), "{:?}", model.manifest.lineage);
    // What training scored is what the serving encoder scores.
    let config = EncoderConfig { device: "cpu".into(), threads: 1, ..EncoderConfig::default() };
    let encoder = Encoder::open(&model, &place.machine.home, &config).unwrap();
    let score = 100.0 * dev().score(&mut crate::eval::sts::encode_with(&encoder)).unwrap();
    assert!((score - report.best.unwrap()).abs() < 1e-9, "{score} {report:?}");
}

#[test]
fn a_run_that_was_stopped_goes_on_bit_for_bit() {
    let Some(place) = Place::new() else { return };
    let recipe = Recipe { accumulate: 2, ..recipe() };
    let datasets = [sentences().remove(0), pairs()];
    let whole = place.run("whole", &recipe, &datasets).unwrap();
    for (stop, ending) in [(1, Ending::Interrupted), (2, Ending::Interrupted), (u64::MAX, Ending::Finished)] {
        assert_eq!(place.run_until("parts", &recipe, &datasets, stop).unwrap().ending, ending);
    }
    assert_eq!(place.best("whole"), place.best("parts"));
    let lines = |name: &str| {
        let mut lines = super::super::metrics::read(&place.path(name)).unwrap();
        lines.iter_mut().for_each(|l| l.texts_per_second = None);
        lines
    };
    assert_eq!(lines("whole"), lines("parts"));
    assert_eq!(whole.best, place.run("parts", &recipe, &datasets).unwrap().best);
}

#[test]
fn a_run_with_other_settings_is_not_gone_on_with() {
    let Some(place) = Place::new() else { return };
    place.run_until("run", &recipe(), &sentences(), 1).unwrap();
    let other = Recipe { temperature: 0.1, log_every: 3, base: "another path to it".into(), ..recipe() };
    let error = place.run("run", &other, &sentences()).unwrap_err().to_string();
    assert!(error.contains("temperature") && error.contains("0.1"), "{error}");
    assert!(!error.contains("log_every") && !error.contains("another path"), "{error}");
}

#[test]
fn small_pieces_give_the_weights_of_the_whole_batch() {
    let Some(place) = Place::new() else { return };
    // Without dropout, since pieces have masks of their own.
    let mut whole = recipe();
    whole.dropout.hidden = 0.0;
    whole.dropout.attention = 0.0;
    let pieces = Recipe { micro_batch: 3, ..whole.clone() };
    place.run("whole", &whole, &[pairs()]).unwrap();
    place.run("pieces", &pieces, &[pairs()]).unwrap();
    for (a, b) in place.best("whole").list.iter().zip(&place.best("pieces").list) {
        for (x, y) in a.values.iter().zip(&b.values) {
            // Six steps of 1e-3 were made; rounding decides the sign of steps where the gradient is nearly zero.
            assert!((x - y).abs() < 2e-3, "{}: {x} {y}", a.name);
        }
        let apart: f32 = a.values.iter().zip(&b.values).map(|(x, y)| (x - y).abs()).sum();
        assert!(apart / (a.values.len() as f32) < 1e-5, "{}: {apart}", a.name);
    }
}

#[test]
fn every_objective_pooling_and_extra_runs() {
    let Some(place) = Place::new() else { return };
    let triplets: Vec<Example> =
        words().windows(3).map(|w| Example::triplet(w[0].clone(), w[1].clone(), w[2].clone())).collect();
    let triplets = Dataset::new("triplets", Kind::Triplets, triplets);
    let lora = Some(Lora { rank: 2, alpha: 4.0 });
    let two = |recipe: Recipe| Recipe { steps: Some(2), ..recipe };
    let cases = [
        ("symmetric", Recipe { symmetric: true, objective: What::Pairs, ..recipe() }, vec![pairs()]),
        ("triplets", Recipe { objective: What::Triplets, symmetric: true, ..recipe() }, vec![triplets]),
        ("distil", Recipe { objective: What::Distil, queue: 20, ..recipe() }, sentences()),
        (
            "distil with pairs",
            Recipe { objective: What::Distil, ..recipe() },
            vec![sentences().remove(0), pairs()],
        ),
        ("head", Recipe { head: recipe::Head::MlpTrain, ..recipe() }, sentences()),
        ("lora", Recipe { lora, ..recipe() }, sentences()),
        ("matryoshka", Recipe { matryoshka: vec![8, 16, 32], ..recipe() }, sentences()),
        ("repetition", Recipe { word_repetition: 0.3, ..recipe() }, sentences()),
        ("cls", Recipe { pooling: Some(crate::onnx::Pooling::Cls), ..recipe() }, sentences()),
        ("unseen", Recipe { pooling: Some(crate::onnx::Pooling::SecondToLastMean), ..recipe() }, sentences()),
    ];
    for (name, recipe, datasets) in cases {
        let report = place.run(name, &two(recipe), &datasets).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(report.loss.is_finite(), "{name}");
    }
}

#[test]
fn an_adapter_changes_nothing_but_itself_and_is_saved_as_peft_has_it() {
    let Some(place) = Place::new() else { return };
    let recipe = Recipe { lora: Some(Lora { rank: 2, alpha: 4.0 }), ..recipe() };
    let report = place.run("run", &recipe, &sentences()).unwrap();
    let (before, after) = (Parameters::of_model(&place.base).unwrap(), place.best("run"));
    for a in &before.list {
        let b = after.list.iter().find(|b| b.name == a.name).unwrap();
        assert!(a == b, "{} moved", a.name);
    }
    let moved = after
        .list
        .iter()
        .filter(|p| p.name.starts_with("lora_B."))
        .any(|p| p.values.iter().any(|v| *v != 0.0));
    assert!(moved);
    let model = finish(&Finish {
        home: place.folder.path(),
        name: "adapted",
        force: false,
        recipe: &recipe,
        base: &place.base,
        folder: &place.path("run"),
        report: &report,
        lineage: Vec::new(),
    })
    .unwrap();
    let merged = Parameters::of_model(&model).unwrap();
    assert_eq!(merged.list.len(), before.list.len());
    assert_ne!(merged, before);
    let adapter = Parameters::read(&place.path("run/adapter/adapter_model.safetensors")).unwrap();
    assert!(
        adapter.list.iter().all(|p| p.name.starts_with("base_model.model.encoder.layer.")),
        "{adapter:?}"
    );
    assert!(place.path("run/adapter/adapter_config.json").is_file());
}

#[test]
fn training_that_falls_apart_says_where_and_keeps_what_was_good() {
    let Some(place) = Place::new() else { return };
    let (recipe, datasets, dev) = (recipe(), sentences(), [dev()]);
    let plan = Plan {
        recipe: &recipe,
        base: &place.base,
        teacher: None,
        datasets: &datasets,
        dev: &dev,
        seed: 5,
        folder: &place.path("run"),
        machine: &place.machine,
    };
    let mut run = Run::begin(&plan, &mut |_| {}).unwrap();
    run.step().unwrap();
    run.evaluate(&mut |_| {}).unwrap();
    run.save().unwrap();
    // What an overflow leaves.
    run.parameters.list.last_mut().unwrap().values[0] = f32::NAN;
    let error = run.step().unwrap_err();
    let FinetuneError::Diverged { step, folder, .. } = &error else { panic!("{error}") };
    assert_eq!((*step, folder), (2, &place.path("run")));
    assert!(error.to_string().contains("step 2"), "{error}");
    assert!(place.best("run").list.iter().all(|p| p.values.iter().all(|v| v.is_finite())));
    // Nobody else may write there meanwhile.
    let error = Run::begin(&plan, &mut |_| {}).err().unwrap();
    assert!(matches!(&error, FinetuneError::Busy { folder } if *folder == place.path("run")), "{error}");
    drop(run);
    // The checkpoint before is whole, and the run can go on from it.
    assert_eq!(Run::begin(&plan, &mut |_| {}).unwrap().state.step, 1);
}

#[test]
fn patience_ends_a_run() {
    let Some(place) = Place::new() else { return };
    let recipe = Recipe { steps: Some(200), evaluate_every: 1, patience: 2, ..recipe() };
    let report = place.run("run", &recipe, &sentences()).unwrap();
    assert_eq!(report.ending, Ending::NoGain);
    assert!(report.steps < 200);
}

#[test]
fn too_few_examples_are_refused() {
    let Some(place) = Place::new() else { return };
    let few =
        vec![Dataset::new("few", Kind::Texts, words().into_iter().take(5).map(Example::text).collect())];
    let error = place.run("run", &recipe(), &few).unwrap_err().to_string();
    assert!(error.contains("few") && error.contains('8'), "{error}");
}
