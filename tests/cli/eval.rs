//! `eval`: the encoder against reference values and on sentence pairs, the whole path on judged texts, and speed;
//! and `model random`, whose models are measured here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value as Json, json};

use crate::harness::{Place, finish, run, signal, until};

/// The default model, as `distilface setup` installs it.
fn with_default_model(place: &Place) -> Option<Command> {
    if !place.home.join("models/minilm-l6/model.toml").is_file() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "CI needs the default model: run `distilface setup`"
        );
        eprintln!("skipped: the default model is not installed; run `distilface setup`");
        return None;
    }
    let mut command = place.command();
    command.env("DISTILFACE_ENCODER__MODEL", "minilm-l6").env("DISTILFACE_ENCODER__THREADS", "0");
    Some(command)
}

fn shared(name: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("DISTILFACE_SHARED").map_or_else(beside, PathBuf::from).join(name);
    if !folder.is_dir() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", folder.display());
        eprintln!("skipped: {} is missing", folder.display());
        return None;
    }
    Some(folder)
}

/// The first short texts of a folder of reference values, as a folder of their own.
fn short_texts(folder: &Path, place: &Place, count: usize) -> PathBuf {
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("the folder is whole");
    let (texts, tokens) = (read("texts.jsonl"), read("tokens.jsonl"));
    let vectors = fs::read(folder.join("embeddings.f32")).expect("the folder is whole");
    let row = vectors.len() / texts.lines().count();
    let chosen: Vec<(&str, &str, &[u8])> = texts
        .lines()
        .zip(tokens.lines())
        .zip(vectors.chunks(row))
        .map(|((text, tokens), vector)| (text, tokens, vector))
        .filter(|(text, ..)| (30..150).contains(&text.len()))
        .take(count)
        .collect();
    assert_eq!(chosen.len(), count, "there are enough short texts");
    let lines = |of: &dyn Fn(usize) -> String| (0..count).map(|i| of(i) + "\n").collect::<String>();
    place.file("few/texts.jsonl", lines(&|i| chosen[i].0.to_owned()));
    place.file("few/tokens.jsonl", lines(&|i| chosen[i].1.to_owned()));
    place.file("few/embeddings.f32", chosen.iter().flat_map(|c| c.2.to_vec()).collect::<Vec<u8>>());
    place.path("few")
}

#[test]
fn the_default_model_gives_the_reference_tokens_and_vectors() {
    let Some(place) = Place::new() else { return };
    let (Some(mut command), Some(folder)) = (with_default_model(&place), shared("fixtures/minilm-l6")) else {
        return;
    };
    let ran = run(command.args(["eval", "parity", "--json"]).arg(&folder)).code(0);
    let reports = ran.json();
    let report = &reports[0];
    assert_eq!(report["texts"], 160);
    assert_eq!(report["token_mismatches"], json!([]));
    assert!(report["cosine_min"].as_f64().unwrap() >= 0.999_99, "{report}");
    assert!(report["batch_deviation_max"].as_f64().unwrap() <= 1e-5, "{report}");

    // Rounded as it runs, it is near, and no text sees its company at all. Without the instructions for it this would take
    // many minutes, and smaller models show it elsewhere.
    #[cfg(target_arch = "x86_64")]
    let fast = is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    let fast = false;
    if !fast {
        return;
    }
    // Without optimisation the kernels take a hundred times as long, so a few short texts must do.
    let few = short_texts(&folder, &place, 16);
    let mut command = with_default_model(&place).expect("it was here a moment ago");
    let ran = run(command.args(["eval", "parity", "--precision", "int8", "--json"]).arg(few)).code(0);
    let report = &ran.json()[0];
    assert_eq!(report["token_mismatches"], json!([]));
    assert!(report["cosine_mean"].as_f64().unwrap() >= 0.999, "{report}");
    assert!(report["batch_deviation_max"].as_f64().unwrap() <= 1e-12, "{report}");
}

#[test]
fn a_model_that_differs_from_the_reference_is_an_error() {
    let Some(place) = Place::new() else { return };
    place.file("wrong/texts.jsonl", "{\"text\":\"rain\"}\n");
    place.file("wrong/tokens.jsonl", "{\"tokens\":3,\"input_ids\":[1,2,3]}\n");
    place.file("wrong/embeddings.f32", 1f32.to_le_bytes().repeat(32));
    let ran = run(place.command().args(["eval", "parity", "wrong", "--json"])).code(1);
    assert_eq!(ran.json()[0]["passed"], false);
    ran.says("differs from the reference values");

    place.file("wrong/embeddings.f32", [0u8; 10]);
    run(place.command().args(["eval", "parity", "wrong"])).code(2).says("do not belong together");
    run(place.command().args(["eval", "parity", "nowhere"])).code(1).says("texts.jsonl");
}

/// The sample corpus as a judged collection.
fn sample(place: &Place) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/sample");
    let lines = |name: &str| -> Vec<Json> {
        let text = fs::read_to_string(root.join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let corpus: String = lines("documents.jsonl")
        .iter()
        .map(|d| format!("{}\n", json!({ "_id": d["id"], "title": d["title"], "text": d["text"] })))
        .collect();
    let (mut queries, mut qrels) = (String::new(), "query-id\tcorpus-id\tscore\n".to_owned());
    for (n, line) in lines("queries.jsonl").iter().enumerate() {
        queries += &format!("{}\n", json!({ "_id": n.to_string(), "text": line["query"] }));
        for id in line["relevant"].as_array().unwrap() {
            qrels += &format!("{n}\t{}\t1\n", id.as_str().unwrap());
        }
    }
    place.file("sample/corpus.jsonl", corpus);
    place.file("sample/queries.jsonl", queries);
    place.file("sample/qrels.tsv", qrels)
}

#[test]
fn the_sample_questions_find_their_answers() {
    let Some(place) = Place::new() else { return };
    let Some(mut command) = with_default_model(&place) else { return };
    sample(&place);
    let ran = run(command.args(["eval", "retrieval", "sample", "--json"])).code(0);
    let report = &ran.json()[0];
    assert_eq!((&report["documents"], &report["queries"]), (&json!(302), &json!(40)));
    for search in ["exact", "index"] {
        assert!(report[search]["mrr_at_10"].as_f64().unwrap() > 0.95, "{report}");
        assert!(report[search]["recall_at_100"].as_f64().unwrap() > 0.99, "{report}");
    }
    assert!(report["index_loss"].as_f64().unwrap().abs() <= 0.005, "{report}");
}

#[test]
fn a_folder_without_judgements_is_refused() {
    let Some(place) = Place::new() else { return };
    place.file("empty/corpus.jsonl", "{\"_id\":\"a\",\"text\":\"rain\"}\n");
    run(place.command().args(["eval", "retrieval", "empty"])).code(2).says("queries.jsonl");
    place.file("empty/queries.jsonl", "{\"_id\":\"q\",\"text\":\"rain\"}\n");
    place.file("empty/qrels.tsv", "query-id\tcorpus-id\tscore\nq\ta\tmuch\n");
    run(place.command().args(["eval", "retrieval", "empty"])).code(2).says("qrels.tsv, line 2");
}

#[test]
fn an_interrupt_leaves_no_folder_behind_and_nobody_else_may_look_into_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(place) = Place::new() else { return };
    let corpus: Vec<String> = (0..30_000)
        .map(|n| json!({ "_id": n.to_string(), "text": format!("rain {n}") }).to_string())
        .collect();
    place.file("many/corpus.jsonl", corpus.join("\n"));
    place.file("many/queries.jsonl", "{\"_id\":\"q\",\"text\":\"rain\"}\n");
    place.file("many/qrels.tsv", "query-id\tcorpus-id\tscore\nq\t1\t1\n");
    let temporary = place.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = place.command();
    command.args(["eval", "retrieval", "many"]).env("TMPDIR", &temporary);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The runtime writes a file of its own there.
    let folder = || {
        let mut found = std::fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path());
        found.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("distilface-"))
    };
    until("the database is there", || folder().is_some_and(|folder| folder.join("collections").exists()));
    let mode = std::fs::metadata(folder().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    signal(&child, "-INT");
    let ran = finish(child).code(130);
    assert!(!ran.stderr.contains("others may look"), "{ran:#?}");
    assert_eq!(folder(), None);
}

#[test]
fn two_models_are_compared_query_by_query() {
    let Some(place) = Place::new() else { return };
    sample(&place);
    let made = |seed: &str| {
        let mut command = home_of_its_own(&place);
        command.args(RANDOM).args(["--seed", seed, &format!("seed-{seed}")]);
        run(&mut command).code(0);
    };
    made("1");
    made("2");
    let ran = run(home_of_its_own(&place)
        .args(["eval", "retrieval", "sample", "--exact-only", "--json"])
        .args(["--model", "seed-1", "--compare", "seed-2", "--resamples", "200"]))
    .code(0);
    let report = &ran.json()[0];
    assert!(report["index"].is_null(), "--exact-only has no index pass: {report}");
    assert_eq!(report["per_query"].as_array().unwrap().len(), 40);
    let figure = |of: &Json| of.as_f64().unwrap();
    let exact = &report["exact_intervals"]["ndcg_at_10"];
    assert_eq!(exact["value"], report["exact"]["ndcg_at_10"]);
    assert!(
        figure(&exact["low"]) <= figure(&exact["value"]) && figure(&exact["value"]) <= figure(&exact["high"])
    );
    let comparison = &report["comparison"];
    assert_eq!(comparison["report"]["model"], "seed-2");
    let difference = &comparison["difference"]["ndcg_at_10"];
    let between =
        figure(&comparison["report"]["exact"]["ndcg_at_10"]) - figure(&report["exact"]["ndcg_at_10"]);
    assert!((figure(&difference["difference"]) - between).abs() < 1e-9, "{report}");
    assert!((0.0..=1.0).contains(&figure(&difference["p"])));

    // In a window of the usual width both models stand side by side.
    let ran = run(home_of_its_own(&place)
        .args(["eval", "retrieval", "sample", "--exact-only"])
        .args(["--model", "seed-1", "--compare", "seed-2", "--resamples", "200"])
        .env("COLUMNS", "80"))
    .code(0);
    let head = ran.stdout.lines().next().unwrap();
    assert!(
        ["sample", "seed-1", "seed-2", "difference", "p"].iter().all(|name| head.contains(name)),
        "{ran:#?}"
    );
    assert!(ran.stdout.lines().all(|line| line.chars().count() <= 80), "{ran:#?}");

    let ran = run(home_of_its_own(&place).args(["eval", "retrieval", "sample", "--resamples", "10"])).code(2);
    ran.says("100 to 1000000");
    let ran = run(home_of_its_own(&place).args(["eval", "retrieval", "sample", "--compare", "none"])).code(2);
    ran.says("needs an encoder");
}

const HEADER: &str = "subset\tscore\tsentence1\tsentence2\n";

/// The seven sets, a few pairs each.
fn sentence_pairs(place: &Place) -> PathBuf {
    let rows = "x\t5\tthe cat sleeps\tthe cat sleeps\nx\t4.2\ta dog runs\ta dog is running\n\
                x\t1\tthe \"bank\" lends money\train falls\nx\t0\tmusic\tthe price of oil\n";
    for file in ["sts12", "sts13", "sts14", "sts15", "sts16", "stsb-test", "sickr-test", "stsb-dev"] {
        place.file(&format!("sts/{file}.tsv"), format!("{HEADER}{rows}"));
    }
    place.path("sts")
}

#[test]
fn sentence_pairs_give_a_correlation_for_each_set_and_model() {
    let Some(place) = Place::new() else { return };
    sentence_pairs(&place);
    let ran = run(place.command().args(["eval", "sts", "sts", "--json"])).code(0);
    let report = ran.json();
    let model = &report["models"][0];
    let names: Vec<&str> =
        model["sets"].as_array().unwrap().iter().map(|s| s["set"].as_str().unwrap()).collect();
    assert_eq!(names, ["STS12", "STS13", "STS14", "STS15", "STS16", "STS-B", "SICK-R"]);
    assert_eq!(model["sentences"], 7, "each distinct sentence is encoded once: {model}");
    assert_eq!(
        model["sets"][0]["value"], model["average"]["value"],
        "equal sets have equal figures: {model}"
    );
    assert!(model["average"]["value"].as_f64().unwrap() > 50.0, "{model}");

    run(home_of_its_own(&place).args(RANDOM).arg("other")).code(0);
    let tiny = tiny_of(&place);
    let ran = run(home_of_its_own(&place)
        .args(["eval", "sts", "sts", "--dev", "--models"])
        .arg(format!("{tiny},other")));
    let ran = ran.code(0);
    for part in ["STS-B dev", "tiny", "other", "difference", "95 % interval", "other less tiny"] {
        ran.prints(part);
    }
    assert!(!ran.stdout.contains("STS12"), "{ran:?}");
    let ran = run(place.command().args(["eval", "sts", "sts/sts12.tsv", "--json"])).code(0);
    assert_eq!(ran.json()["models"][0]["sets"][0]["set"], "sts12");
}

#[test]
fn sentence_pairs_that_cannot_be_scored_are_refused() {
    let Some(place) = Place::new() else { return };
    let ran = |path: &str| run(place.command().args(["eval", "sts", path])).code(2);
    place.file("few/sts12.tsv", HEADER);
    ran("few").says("it has no sts13.tsv, sts14.tsv");
    for args in [
        &["eval", "sts", "nothere"][..],
        &["eval", "sts", "nothere", "--dev"],
        &["eval", "retrieval", "nothere"],
        &["bench", "query", "nothere"],
    ] {
        let ran = run(place.command().args(args)).code(1);
        ran.says("cannot read nothere: ").says("No such file");
        assert!(!ran.stderr.contains("it has no"), "{ran:?}");
    }
    for (name, rows, says) in [
        ("columns", "x\t1\ta\tb\nx\t2\ta\n", "columns.tsv, line 3: 3 columns"),
        ("number", "x\tmuch\ta\tb\nx\t2\ta\tb\n", "number.tsv, line 2: the score"),
        ("one", "x\t1\ta\tb\n", "at least two pairs, and it has 1"),
        ("equal", "x\t1\ta\tb\nx\t1\tc\td\n", "all scores are 1"),
    ] {
        place.file(&format!("{name}.tsv"), format!("{HEADER}{rows}"));
        ran(&format!("{name}.tsv")).says(says);
    }
    let path = sentence_pairs(&place);
    run(place.command().args(["eval", "sts", "--models", "none"]).arg(path)).code(2).says("needs an encoder");
}

#[test]
fn the_default_model_reaches_its_known_correlations_on_the_dev_sets() {
    let Some(place) = Place::new() else { return };
    let (Some(mut command), Some(folder)) = (with_default_model(&place), shared("sts")) else { return };
    let ran = run(command.args(["eval", "sts", "--dev", "--resamples", "100", "--json"]).arg(folder)).code(0);
    let report = ran.json();
    let sets = report["models"][0]["sets"].as_array().unwrap();
    assert_eq!((&sets[0]["pairs"], &sets[1]["pairs"]), (&json!(1500), &json!(500)));
    assert!(sets[0]["value"].as_f64().unwrap() > 80.0, "{report}");
}

/// `model random` with a small shape and the tiny model's words; a name is to follow.
const RANDOM: [&str; 10] = [
    "model",
    "random",
    "--architecture",
    "distilbert",
    "--layers=1",
    "--hidden=16",
    "--heads=2",
    "--intermediate=32",
    "--vocabulary-of=tiny",
    "--force",
];

/// A command whose models are its own: the tiny one, and what a test makes.
pub fn home_of_its_own(place: &Place) -> Command {
    let mut command = place.command();
    command.env("DISTILFACE_HOME", place.own_home("tiny")).env("DISTILFACE_ENCODER__MODEL", "tiny");
    command
}

fn tiny_of(place: &Place) -> String {
    place.path("home/models/tiny").display().to_string()
}

#[test]
fn two_shapes_are_compared_in_size_and_speed() {
    let Some(place) = Place::new() else { return };
    run(home_of_its_own(&place).args(RANDOM).arg("small")).code(0);
    let wide = ["--layers=2", "--hidden=64", "--intermediate=128", "wide"];
    let random: Vec<&str> =
        RANDOM.into_iter().filter(|a| !a.contains('=') || a.contains("heads") || a.contains("voc")).collect();
    run(home_of_its_own(&place).args(random).args(wide)).code(0);
    let ran =
        run(home_of_its_own(&place).args(["eval", "speed", "small", "wide", "--rounds", "2", "--json"]))
            .code(0);
    let report = ran.json();
    assert_eq!((&report["a"]["model"], &report["b"]["model"]), (&json!("small"), &json!("wide")));
    let figure = |of: &Json| of.as_f64().unwrap();
    let ratio = figure(&report["a"]["parameters"]) / figure(&report["b"]["parameters"]);
    assert!((figure(&report["ratios"]["parameters"]) - ratio).abs() < 1e-12 && ratio < 0.3, "{report}");
    assert_eq!(report["a"]["rounds"].as_array().unwrap().len(), 2);
    for name in ["short_texts_per_second", "long_texts_per_second", "query_p50_ms"] {
        assert!(figure(&report["b"][name]) > 0.0, "{report}");
    }
    place.file("texts.txt", "word ".repeat(300));
    let mut command = home_of_its_own(&place);
    let ran =
        run(command.args(["eval", "speed", "small", "wide", "--rounds=1", "--texts", "texts.txt"])).code(0);
    for part in ["parameters", "ONNX file", "sentences/s", "A / B"] {
        ran.prints(part);
    }
    place.file("texts.txt", "too few");
    let mut command = home_of_its_own(&place);
    run(command.args(["eval", "speed", "small", "wide", "--texts", "texts.txt"]))
        .code(2)
        .says("at least 200");
    run(home_of_its_own(&place).args(["eval", "speed", "small", "nobody"])).code(1).says("nobody");
}

#[test]
fn a_random_model_encodes_and_an_impossible_one_is_refused() {
    let Some(place) = Place::new() else { return };
    let ran = run(home_of_its_own(&place).args(RANDOM).arg("made")).code(0);
    ran.prints("random weights, seed 1");
    let ran =
        run(home_of_its_own(&place).args(["--data", "data", "--model", "made", "embed", "rain", "--json"]))
            .code(0);
    assert_eq!(ran.json()["embeddings"][0]["vector"].as_array().unwrap().len(), 16);
    let again: Vec<&str> = RANDOM.into_iter().filter(|a| *a != "--force").collect();
    run(home_of_its_own(&place).args(again).arg("made")).code(1).says("--force");
    let odd = RANDOM.map(|a| if a == "--heads=2" { "--heads=3" } else { a });
    run(home_of_its_own(&place).args(odd).arg("odd")).code(2).says("cannot be shared out among 3 heads");
    let unknown = RANDOM.map(|a| if a == "distilbert" { "gpt" } else { a });
    run(home_of_its_own(&place).args(unknown).arg("odd")).code(2).says("distilbert");
    let nobody = RANDOM.map(|a| if a.starts_with("--voc") { "--vocabulary-of=nobody" } else { a });
    run(home_of_its_own(&place).args(nobody).arg("odd")).code(1).says("nobody");
}
