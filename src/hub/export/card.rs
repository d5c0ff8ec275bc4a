//! `README.md`: the model card, with the front matter that Hugging Face reads.

use super::mode;
use crate::model::{Architecture, ModelDir};

/// The card of an exported model.
pub(super) fn card(model: &ModelDir) -> String {
    let manifest = &model.manifest;
    let modules = mode(manifest.pooling).is_some();
    let library = if modules { "sentence-transformers" } else { "transformers" };
    let mut text = String::from("---\n");
    if let Some(licence) = identifier(&manifest.licence) {
        text += &format!("license: {licence}\n");
    }
    text += &format!(
        "library_name: {library}\npipeline_tag: sentence-similarity\ntags:\n- {library}\n- feature-extraction\n- sentence-similarity\n---\n\n# {}\n\n",
        manifest.name
    );
    let architecture = match manifest.architecture {
        Architecture::Bert => "BERT",
        Architecture::Distilbert => "DistilBERT",
    };
    text += &format!(
        "A {architecture} sentence encoder of {} layers, exported from distilface.\n\n| | |\n|---|---|\n",
        manifest.shape.layers
    );
    let length = if manifest.normalise { "unit length" } else { "any length" };
    let mut rows = vec![
        ("dimension", format!("{}, {length}", manifest.dimension)),
        ("pooling", manifest.pooling.name().to_owned()),
        ("most tokens", manifest.max_tokens.to_string()),
        ("licence", manifest.licence.clone()),
        ("source", manifest.source.clone()),
        ("fingerprint", format!("`{}`", model.fingerprint.0)),
    ];
    for (row, prompt) in
        [("query prompt", &manifest.prompts.query), ("document prompt", &manifest.prompts.document)]
    {
        if !prompt.is_empty() {
            rows.push((row, format!("`{prompt}`")));
        }
    }
    for (row, value) in rows {
        text += &format!("| {row} | {} |\n", cell(&value));
    }
    if !manifest.lineage.is_empty() {
        text += "\n## Lineage\n\n";
        for step in &manifest.lineage {
            text += &format!("1. {}\n", cell(step));
        }
    }
    text += "\n## Use\n\n";
    text += "distilface: `distilface model import DIR`, which gives the same model with the same fingerprint.\n\n";
    if modules {
        text += "sentence-transformers: `SentenceTransformer(DIR).encode(texts)`.\n";
    } else {
        text += &format!(
            "sentence-transformers has no module for the pooling `{}`: opened there, it would give other vectors.\n\
             transformers: `AutoModel.from_pretrained(DIR)` with `output_hidden_states=True`, and the pooling by hand.\n",
            manifest.pooling.name()
        );
    }
    text
}

/// A licence in the form of Hugging Face's list (`apache-2.0`); `None` for anything that is a sentence or unknown.
fn identifier(licence: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let known = !licence.is_empty() && licence != "unknown" && licence.chars().all(plain);
    known.then(|| licence.to_ascii_lowercase())
}

/// One line that does not end its cell.
fn cell(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
