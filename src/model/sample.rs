//! The sample corpus that is compiled in: real text where none is given.

use serde::Deserialize;

const SAMPLE: &str = include_str!("../../models/sample/documents.jsonl");

/// The texts of the sample corpus.
pub fn sample_texts() -> Vec<String> {
    #[derive(Deserialize)]
    struct Sample {
        text: String,
    }
    let parse = |line| serde_json::from_str::<Sample>(line).expect("the sample is in this repository").text;
    SAMPLE.lines().map(parse).collect()
}
