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
    run(home_of_its_own(&place).args(refused)).code(2).says("no way to encode called");
    run(home_of_its_own(&place).args(["bench", "encode", "missing.txt", "--model", "tiny"]))
        .code(1)
        .says("missing.txt");
    let rate = ["bench", "load", "missing", "--rate", "0", "--model", "tiny"];
    run(home_of_its_own(&place).args(rate)).code(1).says("--rate must be above 0");
}

#[test]
fn what_is_measured_through_a_server_is_measured_on_a_small_folder() {
    let Some(place) = Place::new() else { return };
    let corpus =
        |n: usize| format!("{{\"_id\":\"{n}\",\"title\":\"\",\"text\":\"rain fell on {n} fields\"}}\n");
    place.file("few/corpus.jsonl", (0..6).map(corpus).collect::<String>());
    place.file("few/queries.jsonl", "{\"_id\":\"q\",\"text\":\"rain\"}\n");
    place.file("few/qrels.tsv", "query-id\tcorpus-id\tscore\nq\t1\t1\n");
    let measure = |args: &[&str]| {
        let all = [&["bench"], args, &["few", "--model", "tiny", "--json"]].concat();
        run(home_of_its_own(&place).args(all)).code(0).json()
    };
    let report = measure(&["ingest", "--rounds", "2"]);
    assert_eq!((&report["documents"], &report["passages"]), (&json!(6), &json!(6)), "{report}");
    assert!(report["ratio"].as_f64().unwrap() > 0.0, "{report}");
    let report = measure(&["query", "--rounds", "1", "-k", "2"]);
    assert_eq!(report["queries"], json!(1), "{report}");
    assert!(report["embed"]["bare"]["p50_us"].as_u64().unwrap() > 0, "{report}");
    let report = measure(&["load", "--rate", "5", "--seconds", "1", "--documents", "3", "--out", "plots"]);
    assert_eq!((&report["documents"], &report["phases"][0]["asked"]), (&json!(3), &json!(5)), "{report}");
    assert!(place.path("plots/latency.svg").is_file());
    let report = measure(&["memory", "--seconds", "1", "--clients", "1"]);
    assert_eq!(report["documents"], json!(6), "{report}");
    run(home_of_its_own(&place).args(["bench", "ingest", "few", "--model", "none"]))
        .code(1)
        .says("without an encoder");
}
