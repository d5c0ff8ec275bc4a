//! `model quantise`: a model in 8 bits is made, serves like any other, and is for serving only.

use std::fmt::Write;

use serde_json::json;

use crate::{
    eval::home_of_its_own,
    harness::{Place, run},
};

/// So many different lines.
fn lines(count: usize) -> String {
    (0..count).fold(String::new(), |mut text, n| {
        writeln!(text, "rain fell on {n} fields and the rivers rose by the bridge of stone number {n}")
            .unwrap();
        text
    })
}

#[test]
fn a_quantised_model_is_smaller_has_its_own_fingerprint_and_serves() {
    let Some(place) = Place::new() else { return };
    place.file("texts.txt", lines(40));
    let quantise = ["model", "quantise", "tiny", "--calibrate", "texts.txt", "--json"];
    let made = run(home_of_its_own(&place).args(quantise)).code(0).json();
    let (manifest, files) = (&made["manifest"], &made["manifest"]["files"]["model.safetensors"]);
    assert_eq!(
        (&manifest["name"], &manifest["quantised"]["precision"]),
        (&json!("tiny-int8"), &json!("int8"))
    );
    assert_eq!(
        (&manifest["quantised"]["from"], &manifest["quantised"]["calibration_texts"]),
        (&json!("tiny"), &json!(40))
    );
    let full = run(home_of_its_own(&place).args(["model", "show", "tiny", "--json"])).code(0).json();
    assert_ne!(made["fingerprint"], full["fingerprint"]);
    // The tiny model keeps halves.
    let bytes = |of: &serde_json::Value| of["bytes"].as_f64().unwrap();
    assert!(bytes(files) < 0.8 * bytes(&full["manifest"]["files"]["model.safetensors"]), "{made}");

    run(home_of_its_own(&place).args(["model", "show", "tiny-int8"]))
        .code(0)
        .prints("int8, calibrated on 40 texts");
    run(home_of_its_own(&place).args(["model", "verify", "tiny-int8"])).code(0).prints("good");
    let embed = |model: &str| {
        let mut command = home_of_its_own(&place);
        let ran =
            run(command.args(["--data", "data", "--model", model, "embed", "rain on the fields", "--json"]));
        let vector = ran.code(0).json()["embeddings"][0]["vector"].clone();
        vector.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>()
    };
    let cosine: f64 = embed("tiny").iter().zip(embed("tiny-int8")).map(|(a, b)| a * b).sum();
    assert!(cosine > 0.99 && cosine < 1.0, "{cosine}");
    run(home_of_its_own(&place).args(["eval", "speed", "tiny", "tiny-int8", "--rounds", "1"]))
        .code(0)
        .prints("weights");
}

#[test]
fn quantising_refuses_what_it_cannot_do_and_says_what_would_help() {
    let Some(place) = Place::new() else { return };
    place.file("few.txt", format!("{}\n\n   \n", lines(31)));
    place.file("empty.txt", "");
    place.file("texts.jsonl", "{\"text\":\"rain\"}\n{\"words\":\"rain\"}\n");
    let quantise = |args: &[&str]| run(home_of_its_own(&place).args(["model", "quantise"]).args(args));
    quantise(&["nobody"]).code(1).says("nobody").says("there are: tiny");
    quantise(&["tiny", "--calibrate", "few.txt"]).code(2).says("at least 32 texts").says("there are 31");
    quantise(&["tiny", "--calibrate", "empty.txt"]).code(2).says("there are 0");
    quantise(&["tiny", "--calibrate", "none.txt"]).code(1).says("none.txt");
    quantise(&["tiny", "--calibrate", "texts.jsonl"]).code(1).says("texts.jsonl:2");
    quantise(&["tiny", "--as", "a/b"]).code(2).says("cannot be a model's name");

    quantise(&["tiny", "--as", "small"]).code(0).prints("calibrated on 302 texts");
    quantise(&["tiny", "--as", "small"]).code(1).says("--force");
    quantise(&["tiny", "--as", "small", "--force"]).code(0);
    quantise(&["small"]).code(1).says("int8 weights").says("use \"tiny\"");
    place.file("texts.txt", lines(40));
    let train = ["finetune", "--base", "small", "--recipe", "simcse", "--train", "texts.txt"];
    run(home_of_its_own(&place).args(train)).code(1).says("int8 weights").says("use \"tiny\"");
    let export = ["model", "export", "small", "exported"];
    run(home_of_its_own(&place).args(export)).code(1).says("int8 weights").says("use \"tiny\"");
}
