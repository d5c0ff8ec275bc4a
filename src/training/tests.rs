//! Jobs on the tiny model, without a command line: through ONNX Runtime's CPU provider.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{
    config::EncoderConfig,
    finetune::{
        data::source::Source,
        recipe::{Objective, Recipe},
        run::Ending,
    },
};

/// A database with one collection, and who asked for its documents.
struct OneCollection {
    asked: Vec<String>,
    /// Names of the threads that asked.
    threads: BTreeSet<String>,
}

/// The name of this thread without its number.
fn thread() -> String {
    let this = std::thread::current();
    let name = this.name().unwrap_or("without a name");
    name.rsplit_once('-').map_or(name, |(pool, _)| pool).to_owned()
}

const COLLECTION: &str = "notes";

impl Records for OneCollection {
    fn database(&self) -> String {
        "the database of the test".into()
    }

    fn has_collection(&mut self, name: &str) -> bool {
        name == COLLECTION
    }

    fn documents(&mut self, collection: &str) -> Result<Vec<SourceDocument>, String> {
        self.asked.push(collection.to_owned());
        self.threads.insert(thread());
        if collection != COLLECTION {
            return Err("there is no such collection".into());
        }
        let text = |n: usize| format!("The river number {n} rose over the green field in early spring.");
        Ok((0..16)
            .map(|n| SourceDocument {
                id: n.to_string(),
                title: format!("River {n}"),
                passages: vec![text(n)],
            })
            .collect())
    }
}

/// Names of the events, in order; of a sweep's combinations also their settings.
#[derive(Default)]
struct Heard(Vec<String>);

impl Progress for Heard {
    fn event(&mut self, event: Event<'_>) {
        self.0.push(match event {
            Event::Source { from, origin, .. } => format!("{from}: {origin:?}"),
            Event::Reading => "reading".into(),
            Event::Combination { settings, .. } => settings.into(),
            Event::RunBegan { seed } => format!("seed {seed}"),
            Event::Run(run::Event::Resumed { step }) => format!("resumed {step}"),
            Event::Run(_) => return,
            Event::RunEnded => "ended".into(),
        });
    }
}

/// A folder with the tiny model and a link to the runtime of this machine; `None`, saying so, without a runtime.
fn home() -> Option<tempfile::TempDir> {
    let of_machine = crate::config::default_home().join("runtime");
    if !of_machine.is_dir() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "CI needs ONNX Runtime: run `distilface setup`"
        );
        println!("skipped: no ONNX Runtime at {}", of_machine.display());
        return None;
    }
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(of_machine, home.path().join("runtime")).unwrap();
    let tiny = home.path().join("models/tiny");
    std::fs::create_dir_all(&tiny).unwrap();
    for name in ["model.toml", "model.safetensors", "tokenizer.json"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny").join(name);
        std::fs::copy(from, tiny.join(name)).unwrap();
    }
    Some(home)
}

fn options(home: &Path, source: &str) -> Options {
    let recipe = Recipe {
        base: "tiny".into(),
        objective: Objective::Pairs,
        data: vec![Source {
            make: vec![crate::finetune::data::documents::Way::Title],
            ..Source::new(source)
        }],
        batch: 4,
        steps: Some(3),
        ..Recipe::default()
    };
    recipe.validate().unwrap();
    Options {
        recipe,
        recipe_name: "of/a/recipe.toml".into(),
        held_out: Vec::new(),
        home: home.to_owned(),
        encoder: EncoderConfig { device: "cpu".into(), threads: 1, ..EncoderConfig::default() },
    }
}

fn records() -> OneCollection {
    OneCollection { asked: Vec::new(), threads: BTreeSet::new() }
}

#[test]
fn a_job_learns_from_a_collection_is_stopped_goes_on_and_answers_with_a_model() {
    let Some(home) = home() else { return };
    let mut options = options(home.path(), "collection:notes");
    options.recipe.seeds = vec![1, 2];
    let job = Job::new(options, NewModel::default());
    job.check_name().unwrap();
    assert_eq!(job.folder(), home.path().join("runs/tiny-recipe"));
    let (mut records, mut heard) = (records(), Heard::default());
    let prepared = job.options().prepare(&mut records, &mut heard).unwrap();
    assert_eq!((records.asked, prepared.examples()), (vec![COLLECTION.to_owned()], 16));
    assert_eq!(heard.0, ["collection:notes: Collection", "reading"]);
    assert!(!job.folder().exists(), "nothing is written before it runs");

    let mut heard = Heard::default();
    let looks = AtomicUsize::new(0);
    let in_the_second_run = || looks.fetch_add(1, Ordering::Relaxed) >= 2;
    let outcome = job.run(&prepared, &mut heard, &in_the_second_run).unwrap();
    assert!(matches!(outcome, Outcome::Interrupted { steps: 1, steps_planned: 3 }), "{outcome:?}");
    assert_eq!(heard.0, ["seed 1", "ended", "seed 2", "ended"]);

    let mut heard = Heard::default();
    let Outcome::Finished(report) = job.run(&prepared, &mut heard, &|| false).unwrap() else {
        panic!("nobody stops it")
    };
    assert_eq!(heard.0, ["seed 1", "resumed 3", "ended", "seed 2", "resumed 1", "ended"]);
    assert!(report.runs.iter().all(|run| run.ending == Ending::Finished && run.steps == 3), "{report:?}");
    assert_eq!(
        (report.model.as_str(), report.chosen),
        ("tiny-recipe", 0),
        "without a dev set the first is taken"
    );
    let written: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(job.folder().join("report.json")).unwrap()).unwrap();
    assert_eq!(written, serde_json::to_value(&*report).unwrap());
    assert!(matches!(job.check_name(), Err(TrainingError::Model(_))), "the name is taken now");
}

/// The threads that tell of a run's steps, and their niceness.
#[derive(Default)]
struct Where(BTreeSet<(String, u8)>);

impl Progress for Where {
    fn event(&mut self, event: Event<'_>) {
        if matches!(event, Event::Run(_)) {
            let niceness = rustix::process::getpriority_process(None).unwrap();
            self.0.insert((thread(), u8::try_from(niceness).unwrap()));
        }
    }
}

#[test]
#[ignore = "it claims the pool that is the whole process's; run by the test after it"]
fn trains_alone() {
    let home = home().unwrap();
    let job = Job::new(options(home.path(), "collection:notes"), NewModel::default());
    let (mut records, mut heard) = (records(), Where::default());
    let prepared = job.options().prepare(&mut records, &mut Heard::default()).unwrap();
    assert_eq!(records.threads, BTreeSet::from(["training".to_owned()]));
    let outcome = job.run(&prepared, &mut heard, &|| false).unwrap();
    assert!(matches!(outcome, Outcome::Finished(_)), "{outcome:?}");
    let background = |niceness: u8| {
        // Higher where the tests themselves run in the background.
        !cfg!(target_os = "linux") || niceness >= crate::threads::priority::BACKGROUND
    };
    let all = heard.0.iter().all(|(pool, niceness)| pool == "training" && background(*niceness));
    assert!(!heard.0.is_empty() && all, "{:?}", heard.0);
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().expect("nobody started the global pool");
    println!("it had a pool of its own");
}

#[test]
fn a_job_computes_on_a_pool_of_its_own_in_the_background() {
    if home().is_none() {
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["training::tests::trains_alone", "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("it had a pool of its own"), "{said}");
}

#[test]
fn a_sweep_that_was_stopped_keeps_the_combinations_it_knows() {
    let Some(home) = home() else { return };
    let mut options = options(home.path(), "collection:notes");
    let factors = vec!["temperature=0.05,0.1".parse().unwrap()];
    let folder = home.path().join("swept");
    let without = Sweep::new(options.clone(), factors.clone(), folder.clone());
    assert!(matches!(without, Err(TrainingError::NoDevSet)), "{without:?}");
    let dev = home.path().join("dev.tsv");
    let rows = "x\t5\tthe cat sleeps\ta cat sleeps\nx\t3\tthe dog runs\ta horse runs\nx\t0\train\tbread\n";
    std::fs::write(&dev, format!("subset\tscore\tsentence1\tsentence2\n{rows}")).unwrap();
    options.recipe.dev = Some(dev);
    let sweep = Sweep::new(options, factors, folder).unwrap();
    let prepared = sweep.options().prepare(&mut records(), &mut Heard::default()).unwrap();
    let mut heard = Heard::default();
    let looks = AtomicUsize::new(0);
    let in_the_second_run = || looks.fetch_add(1, Ordering::Relaxed) >= 2;
    let outcome = sweep.run(&prepared, &mut heard, &in_the_second_run).unwrap();
    assert!(matches!(outcome, SweepOutcome::Interrupted), "{outcome:?}");
    assert_eq!(heard.0, ["temperature 0.05", "seed 42", "ended", "temperature 0.1", "seed 42", "ended"]);

    let mut heard = Heard::default();
    let SweepOutcome::Finished(report) = sweep.run(&prepared, &mut heard, &|| false).unwrap() else {
        panic!("nobody stops it")
    };
    assert_eq!(heard.0, ["temperature 0.05", "temperature 0.1", "seed 42", "resumed 1", "ended"]);
    assert!(report.results.iter().all(|result| result.scores.len() == 1), "{report:?}");
    assert!(report.best.is_some());
}

#[test]
fn a_name_that_may_mean_two_things_is_refused_and_what_cannot_be_read_is_named() {
    let Some(home) = home() else { return };
    let prepare = |source: &str| {
        let (mut records, mut heard) = (records(), Heard::default());
        let job = Job::new(options(home.path(), source), NewModel::default());
        (job.options().prepare(&mut records, &mut heard).unwrap_err(), records.asked, heard.0)
    };
    // The tests run in the folder of the crate, which has a folder of this name.
    let may_be_either = Source::new("src");
    assert!(may_be_either.may_be_either() && may_be_either.origin() == Some(Origin::Folder));
    struct Every;
    impl Records for Every {
        fn database(&self) -> String {
            "every database".into()
        }
        fn has_collection(&mut self, _: &str) -> bool {
            true
        }
        fn documents(&mut self, _: &str) -> Result<Vec<SourceDocument>, String> {
            unreachable!("it is refused before anything is read")
        }
    }
    let job = Job::new(options(home.path(), "src"), NewModel::default());
    let error = job.options().prepare(&mut Every, &mut Heard::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let says = "src is a folder here and a collection of every database: say ./src or collection:src";
    assert_eq!(error.to_string(), says);

    let (error, asked, heard) = prepare("collection:absent");
    assert_eq!((asked, heard.len()), (vec!["absent".to_owned()], 2));
    assert!(error.to_string().ends_with("it cannot be read: there is no such collection"), "{error}");
}
