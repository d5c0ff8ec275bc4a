//! `eval`: the encoder against reference values, and the whole path on judged texts.

use std::{fs, path::PathBuf, process::Command};

use serde_json::{Value as Json, json};

use crate::harness::{Place, run};

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

#[test]
fn the_default_model_gives_the_reference_tokens_and_vectors() {
    let Some(place) = Place::new() else { return };
    let (Some(mut command), Some(folder)) = (with_default_model(&place), shared("fixtures/minilm-l6")) else {
        return;
    };
    let ran = run(command.args(["eval", "parity", "--json"]).arg(folder)).code(0);
    let reports = ran.json();
    let report = &reports[0];
    assert_eq!(report["texts"], 160);
    assert_eq!(report["token_mismatches"], json!([]));
    assert!(report["cosine_min"].as_f64().unwrap() >= 0.999_99, "{report}");
    assert!(report["batch_deviation_max"].as_f64().unwrap() <= 1e-5, "{report}");
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
    run(place.command().args(["eval", "parity", "wrong"])).code(1).says("do not belong together");
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
    run(place.command().args(["eval", "retrieval", "empty"])).code(1).says("queries.jsonl");
    place.file("empty/queries.jsonl", "{\"_id\":\"q\",\"text\":\"rain\"}\n");
    place.file("empty/qrels.tsv", "query-id\tcorpus-id\tscore\nq\ta\tmuch\n");
    run(place.command().args(["eval", "retrieval", "empty"])).code(1).says("qrels.tsv, line 2");
}
