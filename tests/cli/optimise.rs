//! Encoding in 8 bits: measured, kept, refused; and the commands that measure.

use serde_json::json;

use crate::{
    eval::home_of_its_own,
    harness::{Place, run},
};

#[test]
fn a_graph_in_8_bits_is_measured_and_a_model_in_8_bits_already_is_not() {
    let Some(place) = Place::new() else { return };
    let ran = run(home_of_its_own(&place).args(["model", "optimise", "tiny", "--json"])).code(0);
    let report = ran.json();
    assert_eq!((&report["accepted"], &report["texts"]), (&json!(true), &json!(64)), "{report}");
    assert!(report["cosine_mean"].as_f64().unwrap() > 0.998, "{report}");
    // Again, from what was kept; and as text.
    let again = run(home_of_its_own(&place).args(["model", "optimise", "tiny"])).code(0);
    again.prints("accepted").says("comparing the vectors");

    let texts: String = (0..40).map(|n| format!("rain fell on {n} fields by the bridge {n}\n")).collect();
    place.file("texts.txt", texts);
    run(home_of_its_own(&place).args(["model", "quantise", "tiny", "--calibrate", "texts.txt"])).code(0);
    run(home_of_its_own(&place).args(["model", "optimise", "tiny-int8"])).code(2).says("in 8 bits already");
    let asked = ["embed", "rain", "--model", "tiny-int8", "--precision", "int8", "--data", "data"];
    run(home_of_its_own(&place).args(asked)).code(1).says("in 8 bits already");
}

#[test]
fn the_fastest_way_is_kept_and_auto_goes_by_it() {
    let Some(place) = Place::new() else { return };
    place.file("texts.txt", "rain on the river\nthe law of the old city\n\na cat\n");
    let bench = [
        "bench",
        "encode",
        "texts.txt",
        "--only",
        "cpu/fp32",
        "--rounds",
        "1",
        "--save",
        "--model",
        "tiny",
        "--json",
    ];
    let report = run(home_of_its_own(&place).args(bench)).code(0).json();
    assert_eq!(report["loads"], json!([["texts", 3]]));
    assert_eq!(report["ways"][0]["name"], json!("cpu/fp32"));
    assert!(report["ways"][0]["texts_per_second"][0].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["saved"].as_str().unwrap().ends_with("tuned.toml"), "{report}");
    let doctor = run(home_of_its_own(&place).args(["doctor", "--model", "tiny", "--device", "auto"]));
    doctor.prints("cpu (fp32)").prints("the fastest here by");

    // Of a folder of sentence pairs those that are there will do.
    place.file(
        "pairs/sts13.tsv",
        "subset\tscore\tsentence1\tsentence2\nx\t1\ta cat\ta dog\nx\t2\train\ta cat\n",
    );
    let pairs =
        ["bench", "encode", "pairs", "--only", "cpu/fp32", "--rounds", "1", "--model", "tiny", "--json"];
    let report = run(home_of_its_own(&place).args(pairs)).code(0).json();
    assert_eq!(report["loads"], json!([["pairs", 3]]));

    let refused = ["bench", "encode", "texts.txt", "--only", "cpu/fp64", "--model", "tiny"];
    run(home_of_its_own(&place).args(refused)).code(1).says("none of these ways");
    run(home_of_its_own(&place).args(["bench", "encode", "missing.txt", "--model", "tiny"]))
        .code(1)
        .says("missing.txt");
    let rate = ["bench", "load", "missing", "--rate", "0", "--model", "tiny"];
    run(home_of_its_own(&place).args(rate)).code(1).says("--rate must be above 0");
}
