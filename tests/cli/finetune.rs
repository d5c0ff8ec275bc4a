//! `finetune`, `sweep` and `eval reference` on the tiny model.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use crate::harness::{Place, Ran, finish, run, signal, until};

/// A home folder of its own, so that models and runs stay in the test's folder; with the machine's runtime.
struct Home {
    place: Place,
}

impl Home {
    fn new() -> Option<Self> {
        let place = Place::new()?;
        fs::create_dir_all(place.path("home/models")).unwrap();
        symlink(place.home.join("runtime"), place.path("home/runtime")).unwrap();
        let words = [
            "river", "stone", "green", "house", "small", "light", "paper", "train", "water", "night",
            "bread", "cloud", "table", "horse", "music", "glass", "field", "metal", "storm", "wheel",
            "sugar", "piano", "brick", "coast",
        ];
        let line = |i: usize| -> String {
            let mixed = |j: usize| ((i * 31 + j + 1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            let word = |j: usize| words[mixed(j) as usize % words.len()];
            (0..6).map(word).collect::<Vec<_>>().join(" ")
        };
        let texts: Vec<String> = (0..64).map(line).collect();
        place.file("texts.txt", texts.join("\n"));
        let pairs: String =
            (0..20).map(|i| format!("dev\t{}\t{}\t{}\n", i % 6, line(1000 + i), line(2000 + i))).collect();
        place.file("stsb-dev.tsv", format!("subset\tscore\tsentence1\tsentence2\n{pairs}"));
        Some(Home { place })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command();
        command.env("DISTILFACE_HOME", self.place.path("home")).args(args);
        command
    }

    /// `finetune` of the tiny model on the texts, eight at a time, with further arguments.
    fn finetune(&self, more: &[&str]) -> Command {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
        let mut command = self.command(&["finetune", "--recipe", "simcse", "--base"]);
        command.arg(tiny).args(["--set", "batch=8", "--set", "log_every=1", "--name", "trained"]).args(more);
        command
    }

    #[track_caller]
    fn run(&self, more: &[&str]) -> Ran {
        run(&mut self.finetune(more))
    }
}

#[test]
fn the_documents_that_ingest_reads_can_be_trained_on() {
    let Some(home) = Home::new() else { return };
    let texts = ["The river rose quickly in the early spring.", "A dog ran over the wide green field."];
    let papers: String = (0..2)
        .map(|i| {
            format!(
                "{{\"doi\": \"10.1/{i}\", \"head\": \"H{i}\", \"abstract\": \"{} {}\"}}\n",
                texts[i],
                texts[1 - i]
            )
        })
        .collect();
    home.place.file("papers.jsonl", papers);
    let named =
        ["--id-field", "doi", "--title-field", "head", "--text-field", "abstract", "--dry-run", "--json"];
    let report = home.run(&[&["--train", "papers.jsonl"][..], &named].concat()).code(0).json();
    assert_eq!(
        (&report["sources"][0]["read"], &report["sources"][0]["made"]["title"]),
        (&2.into(), &2.into())
    );
    let ran = home.run(&["--train", "papers.jsonl", "--text-field", "story", "--dry-run"]);
    assert_ne!(ran.code, 0);
    ran.says("papers.jsonl, line 1: no field \"story\"").says("\"abstract\"");
}

#[test]
fn a_run_leaves_a_model_that_serves_and_a_folder_that_tells_of_it() {
    let Some(home) = Home::new() else { return };
    // More tokens than the model reads.
    let args =
        ["--train", "texts.txt", "--dev", "stsb-dev.tsv", "--set", "steps=6", "--set", "max_tokens=128"];
    let ran = home.run(&[&args[..], &["--set", "evaluate_every=2", "--json"]].concat()).code(0);
    let report = ran.json();
    assert_eq!(report["model"], "trained");
    assert_eq!((&report["runs"][0]["steps"], &report["runs"][0]["ending"]), (&6.into(), &"finished".into()));
    assert!(report["runs"][0]["best"].is_number(), "{report}");
    let folder = home.place.path("home/runs/trained");
    for name in ["run.toml", "data.json", "metrics.jsonl", "report.json", "loss.svg", "score.svg"] {
        assert!(folder.join(name).is_file(), "{name}");
    }
    let manifest = fs::read_to_string(home.place.path("home/models/trained/model.toml")).unwrap();
    assert!(manifest.contains("base tiny ") && manifest.contains("data texts: "), "{manifest}");
    assert!(manifest.contains(", 64 tokens"), "{manifest}");
    let folder_of_data = home.place.path("data").display().to_string();
    let embed = ["embed", "--data", &folder_of_data, "--model", "trained", "--json", "green house"];
    run(&mut home.command(&embed)).code(0).prints("vector");

    // Colours are colours.
    let coloured = [&args[..], &["--set", "evaluate_every=2", "--force", "--color", "always"]].concat();
    home.run(&coloured).code(0).prints("model      \u{1b}[1mtrained\u{1b}[0m\n");

    // The name is taken now; nothing is read or trained before that is said.
    home.run(&args).code(1).says("a model named \"trained\" exists").says("--force");
    // Other settings in the same folder: both values are told, and the folder keeps what it had.
    let before = fs::read(folder.join("run.toml")).unwrap();
    let other = [&args[..], &["--set", "evaluate_every=2", "--set", "temperature=0.1", "--force"]].concat();
    home.run(&other).code(1).says("recipe.temperature: 0.05 then, 0.1 now").says("--run");
    assert_eq!(fs::read(folder.join("run.toml")).unwrap(), before);
}

#[test]
fn several_seeds_are_one_command_and_the_best_is_taken() {
    let Some(home) = Home::new() else { return };
    let args = ["--train", "texts.txt", "--dev", "stsb-dev.tsv", "--set", "steps=3", "--set", "seeds=[1, 2]"];
    let ran = home.run(&[&args[..], &["--json"]].concat()).code(0);
    let report = ran.json();
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for seed in [1, 2] {
        assert!(home.place.path(&format!("home/runs/trained/seed-{seed}/metrics.jsonl")).is_file());
    }
    // The first of equals.
    let score = |run: &serde_json::Value| run["best"].as_f64().unwrap();
    let best = if score(&runs[1]) > score(&runs[0]) { &runs[1] } else { &runs[0] };
    let manifest = fs::read_to_string(home.place.path("home/models/trained/model.toml")).unwrap();
    assert!(manifest.contains(&format!("seed {}", best["seed"])), "{manifest}\n{report}");
}

#[test]
fn ctrl_c_leaves_a_run_that_goes_on() {
    let Some(home) = Home::new() else { return };
    let args = ["--train", "texts.txt", "--set", "steps=100000"];
    let interrupted = || {
        let metrics = home.place.path("home/runs/trained/metrics.jsonl");
        let lines = || fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
        let known = lines();
        let mut command = home.finetune(&args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("some steps are made", || lines() > known + 5);
        signal(&child, "-INT");
        finish(child).code(130)
    };
    interrupted().says("interrupted at step").says("the same command goes on from there");
    assert!(!home.place.path("home/models/trained").exists());
    interrupted().says("goes on after step");
}

#[test]
fn an_adapter_is_a_small_file_beside_the_merged_model() {
    let Some(home) = Home::new() else { return };
    let args = ["--train", "texts.txt", "--set", "steps=2", "--set", "lora.rank=2", "--set", "lora.alpha=4"];
    home.run(&args).code(0);
    let size = |path: &str| fs::metadata(home.place.path(path)).unwrap().len();
    let adapter = size("home/runs/trained/adapter/adapter_model.safetensors");
    assert!(adapter * 4 < size("home/models/trained/model.safetensors"), "{adapter}");
}

#[test]
fn a_dry_run_says_what_would_be_used_and_writes_nothing() {
    let Some(home) = Home::new() else { return };
    home.run(&["--train", "texts.txt", "--dry-run"]).code(0).prints("texts.txt").prints("sha256");
    let ran = home.run(&["--train", "texts.txt", "--dry-run", "--json"]).code(0);
    assert_eq!(ran.json()["sources"][0]["kept"], 64);
    assert!(!home.place.path("home/runs").exists());
}

#[test]
fn pairs_and_triplets_mix_by_weight() {
    let Some(home) = Home::new() else { return };
    let pair =
        |i: usize| format!("{{\"anchor\":\"question {i} of stone\",\"positive\":\"answer {i} of water\"}}\n");
    let triplet = |i: usize| {
        format!("{{\"anchor\":\"night {i}\",\"positive\":\"dark {i}\",\"negative\":\"paper train {i}\"}}\n")
    };
    home.place.file("pairs.jsonl", (0..20).map(pair).collect::<String>());
    home.place.file("triplets.jsonl", (0..20).map(triplet).collect::<String>());
    let recipe = "objective = \"pairs\"\nsteps = 4\nbatch = 8\n\n[[data]]\nfrom = \"pairs.jsonl\"\nkind = \"pairs\"\nweight = 3\n\n[[data]]\nfrom = \"triplets.jsonl\"\nkind = \"triplets\"\n";
    let file = home.place.file("mixed.toml", recipe);
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    let mut command = home.command(&["finetune", "--name", "mixed", "--json", "--recipe"]);
    let report = run(command.arg(file).arg("--base").arg(tiny)).code(0).json();
    assert_eq!(report["recipe"]["data"].as_array().unwrap().len(), 2);
}

#[test]
fn what_cannot_be_trained_is_told() {
    let Some(home) = Home::new() else { return };
    home.place.file("empty.txt", "");
    home.place.file("one.txt", "only one sentence\n");
    home.place.file("wrong.tsv", "a\tb\n");
    let cases: &[(&[&str], i32, &str)] = &[
        (&[], 2, "there is nothing to train on: give --train"),
        (&["--train", "empty.txt"], 2, "empty: 0 texts left, and a loss needs two or more"),
        (&["--train", "one.txt"], 2, "one: 1 text left, and a loss needs two or more"),
        (&["--train", "absent.txt"], 1, "absent.txt"),
        (&["--train", "texts.txt", "--set", "batch=1"], 2, "batch: 1 is out of bounds; allowed: 2 to"),
        (&["--train", "texts.txt", "--set", "temprature=1"], 2, "did you mean temperature?"),
        (&["--train", "texts.txt", "--set", "temperature"], 2, "give KEY=VALUE"),
        (&["--train", "texts.txt", "--set", "temperature=0"], 2, "temperature: 0"),
        (&["--train", "texts.txt", "--dev", "wrong.tsv"], 2, "wrong.tsv, line 1"),
        (&["--train", "texts.txt", "--dev", "absent.tsv"], 1, "absent.tsv"),
    ];
    for (args, code, says) in cases {
        home.run(args).code(*code).says(says);
    }
    let mut command = home.command(&["finetune", "--recipe", "nope", "--train", "texts.txt"]);
    run(&mut command).code(1).says("no recipe \"nope\"; there are distilface, simcse, domain, distil");
    let mut command = home.command(&["finetune", "--base", "absent", "--train", "texts.txt"]);
    run(&mut command).code(1).says("no model \"absent\"").says("distilface setup");
    assert!(!home.place.path("home/models/trained").exists());
}

#[test]
fn a_name_that_is_a_folder_and_a_collection_is_refused_until_it_is_said() {
    let Some(home) = Home::new() else { return };
    let data = home.place.path("data").display().to_string();
    let corpus: String = (0..16)
        .map(|i| {
            format!("{{\"_id\":\"{i}\",\"title\":\"river {i}\",\"text\":\"green stone {i} of water\"}}\n")
        })
        .collect();
    home.place.file("notes/corpus.jsonl", &corpus);
    let dry = |source: &str| {
        let mut command = home.finetune(&["--data", &data, "--dry-run", "--set", "objective=pairs"]);
        run(command.args(["--train", source]))
    };
    // No database yet, and none is made by asking.
    dry("notes").code(0).says("notes: the folder ./notes");
    assert!(!home.place.path("data").exists());
    run(&mut home.command(&["ingest", "--data", &data, "notes", "-c", "notes"])).code(0);
    let ran = dry("notes").code(2);
    ran.says("notes is a folder here and a collection of the data folder")
        .says("say ./notes or collection:notes");
    dry("./notes").code(0);
    dry("collection:notes").code(0).says("collection:notes: the collection notes of the data folder");
    // A folder that is in no layout to train on leaves the name as unclear as it was.
    fs::rename(home.place.path("notes/corpus.jsonl"), home.place.path("notes/more.jsonl")).unwrap();
    dry("notes").code(2).says("say ./notes or collection:notes");
    fs::rename(home.place.path("notes"), home.place.path("other")).unwrap();
    dry("notes").code(0).says("notes: the collection notes of the data folder");
}

#[test]
fn a_sweep_leaves_a_table_plots_and_a_report_and_goes_on() {
    let Some(home) = Home::new() else { return };
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    let sweep = |more: &[&str]| {
        let mut command = home.command(&["sweep", "--recipe", "simcse", "--train", "texts.txt", "--base"]);
        command.arg(&tiny).args(["--set", "batch=8", "--set", "steps=2", "--out", "swept"]).args(more);
        run(&mut command)
    };
    sweep(&["--over", "temperature=0.01", "--dev", "nothere"]).says("cannot read nothere: ");
    let over = ["--over", "pooling=cls,mean", "--over", "temperature=0.01,0.1"];
    let args = [&over[..], &["--dev", "stsb-dev.tsv"]].concat();
    sweep(&args).code(0).prints("temperature").prints("report.md");
    for name in ["report.md", "sweep.json", "pooling-temperature.svg", "temperature.svg"] {
        assert!(home.place.path("swept").join(name).is_file(), "{name}");
    }
    let report = fs::read_to_string(home.place.path("swept/report.md")).unwrap();
    assert_eq!(report.matches("| mean |").count(), 2, "{report}");

    // Once more with another value: what is known is not trained again.
    let more = ["--over", "pooling=cls,mean", "--over", "temperature=0.01,0.1,0.05", "--dev", "stsb-dev.tsv"];
    let ran = sweep(&more).code(0);
    assert_eq!(ran.stderr.matches("step 0: dev score").count(), 2, "{ran:#?}");
    let ran = sweep(&[&more[..], &["--json"]].concat()).code(0);
    assert_eq!(ran.json()["results"].as_array().unwrap().len(), 6);

    sweep(&over).code(2).says("give --dev");
    sweep(&["--over", "pooling=cls,cls"]).code(2).says("has cls twice");
    let wrong = ["--over", "pooling=cls,median", "--dev", "stsb-dev.tsv"];
    sweep(&wrong).code(2).says("median");
}

#[test]
fn reference_values_are_compared_kind_by_kind() {
    let Some(home) = Home::new() else { return };
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let shared = std::env::var_os("DISTILFACE_SHARED").map_or_else(beside, Into::into).join("fixtures");
    let mut command = home.command(&["eval", "reference"]);
    run(command.arg(home.place.path(""))).code(1).says("reference.safetensors");
    if !shared.is_dir() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", shared.display());
        eprintln!("skipped: {} is missing", shared.display());
        return;
    }
    let mut command = home.command(&["eval", "reference", "--json"]);
    let report = run(command.arg(shared.join("distilbert-tiny"))).code(0).json();
    assert_eq!(report["passed"], true);
    for kind in ["hidden", "pool", "loss", "gradient", "gradient_cached", "adamw", "step"] {
        assert!(
            report["largest"][kind]["error"].as_f64().unwrap()
                <= report["largest"][kind]["limit"].as_f64().unwrap()
        );
    }

    // Weights that are not those of the reference: shown, and an error.
    let other = home.place.path("other");
    fs::create_dir(&other).unwrap();
    for name in ["config.json", "reference.safetensors"] {
        fs::copy(shared.join("bert-tiny").join(name), other.join(name)).unwrap();
    }
    let mut weights = fs::read(shared.join("bert-tiny/model.safetensors")).unwrap();
    let last = weights.len() - 64;
    weights[last..].fill(0x3e);
    fs::write(other.join("model.safetensors"), weights).unwrap();
    let mut command = home.command(&["eval", "reference"]);
    run(command.arg(other)).code(1).prints("TOO LARGE").says("differs from the reference values");
}
