//! Writes a model directory as a Hugging Face directory, for transformers and sentence-transformers.
//!
//! `config.json`, `model.safetensors` and the tokenizer's files are for both; the module files are
//! sentence-transformers', and only written where it has a module for the pooling: with half of them it would make
//! other vectors without a word. `distilface.json` says the rest to [`super::import`]. The directory appears whole,
//! by a rename. Deliberately absent: other formats of weights, uploads.

mod card;
mod tokenizer;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::exported::{EXPORTED_FILE, Exported, OwnHeader};
use crate::{
    files::write_whole,
    model::{
        Architecture, Manifest, ModelDir, ModelError, Pooling, TOKENIZER_FILE, WEIGHTS_FILE,
        checksum::FileSum, files, header,
    },
};
use tokenizer::Tokenizer;

/// The result of an export.
#[derive(Debug, Clone, Serialize)]
pub struct Export {
    /// The directory.
    pub path: PathBuf,
    /// Names of its files, in order.
    pub files: Vec<String>,
    /// Whether sentence-transformers opens it and makes the same vectors: it has no module for some poolings, and
    /// takes the plain mean for a directory without modules.
    pub sentence_transformers: bool,
}

/// Exports `model` to the directory `target`.
pub(super) fn export(model: &ModelDir, target: &Path, force: bool) -> Result<Export, ModelError> {
    // Also gives `.` and `..` the name that a rename needs.
    let target = target.canonicalize().unwrap_or_else(|_| target.to_owned());
    model.check_full_precision()?;
    check_target(&target, force)?;
    model.verify()?;
    let files = contents(model)?;
    files::replace_folder(&target, |building| {
        for (name, content) in &files {
            let path = building.join(name);
            let failed = |source| ModelError::Io { path: path.clone(), source };
            fs::create_dir_all(path.parent().unwrap_or(building)).map_err(failed)?;
            write_whole(&path, content).map_err(failed)?;
        }
        Ok(())
    })?;
    let sentence_transformers = mode(model.manifest.pooling).is_some();
    Ok(Export {
        path: target,
        files: files.into_iter().map(|(name, _)| name).collect(),
        sentence_transformers,
    })
}

/// Only an empty folder, or with `force` one that holds an exported model, may be replaced.
fn check_target(target: &Path, force: bool) -> Result<(), ModelError> {
    let occupied = |reason: &str| ModelError::Occupied { path: target.to_owned(), reason: reason.to_owned() };
    if !target.exists() {
        return Ok(());
    }
    let Ok(mut entries) = fs::read_dir(target) else { return Err(occupied("it is not a folder")) };
    if entries.next().is_none() {
        return Ok(());
    }
    if !force {
        return Err(occupied("it is not empty; choose another folder, or --force to replace it"));
    }
    // What lies beside a model there is lost: of a folder that another tool filled, we know nothing.
    if !target.join(EXPORTED_FILE).is_file() {
        return Err(occupied(
            "--force replaces only what was exported before, and it holds no distilface.json",
        ));
    }
    Ok(())
}

/// Every file by name.
fn contents(model: &ModelDir) -> Result<Vec<(String, Vec<u8>)>, ModelError> {
    let manifest = &model.manifest;
    let read = |path: &Path| fs::read(path).map_err(|source| ModelError::from_io(path, source));
    let damaged = |path: PathBuf| move |reason: String| ModelError::Damaged { path, reason };

    let (weights, own_header) =
        weights(manifest, read(&model.weights_path())?).map_err(damaged(model.weights_path()))?;
    let tokenizer_path = model.tokenizer_path();
    let tokenizer_text = read(&tokenizer_path)?;
    let tokenizer = Tokenizer::parse(&tokenizer_text).map_err(damaged(tokenizer_path))?;

    let mut files = vec![
        ("config.json".to_owned(), text(&config(manifest, tokenizer.pad_id()))),
        (WEIGHTS_FILE.to_owned(), weights),
        (TOKENIZER_FILE.to_owned(), tokenizer_text),
        ("tokenizer_config.json".to_owned(), text(&tokenizer.config(manifest))),
        ("special_tokens_map.json".to_owned(), text(&tokenizer.special_tokens())),
    ];
    files.extend(tokenizer.vocabulary().map(|lines| ("vocab.txt".to_owned(), lines.into_bytes())));
    if let Some(mode) = mode(manifest.pooling) {
        files.extend(modules(manifest, mode));
    }
    let exported = Exported::new(manifest, own_header);
    files.push((EXPORTED_FILE.to_owned(), text(&exported)));
    files.push(("README.md".to_owned(), card::card(model).into_bytes()));
    Ok(files)
}

/// The weights as transformers wants them, and the model's own header if that is another.
fn weights(manifest: &Manifest, own: Vec<u8>) -> Result<(Vec<u8>, Option<OwnHeader>), String> {
    let (own_header, tensors) = header::split(&own).ok_or("not a whole safetensors file")?;
    let header = header::for_transformers(own_header, manifest.architecture, &manifest.shape)
        .map_err(|error| error.to_string())?;
    let Some(header) = header else { return Ok((own, None)) };
    let weights = header::join(&header, tensors);
    let exported_sha256 = FileSum::of_bytes(&weights).sha256;
    Ok((weights, Some(OwnHeader { exported_sha256, header: own_header.to_owned() })))
}

/// `config.json`. Dropout is what the published models of both kinds have; it only matters in training.
fn config(manifest: &Manifest, pad_id: u64) -> Value {
    const DROPOUT: f64 = 0.1;
    const DEVIATION: f64 = 0.02;
    let shape = &manifest.shape;
    // Through its decimal form: 1e-12 as float32 is not 1e-12 as float64.
    let eps: f64 = shape.layer_norm_eps.to_string().parse().expect("a number that was just written");
    match manifest.architecture {
        Architecture::Bert => json!({
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_size": shape.hidden,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "intermediate_size": shape.intermediate,
            "hidden_act": "gelu",
            "max_position_embeddings": shape.positions,
            "type_vocab_size": shape.type_vocabulary,
            "vocab_size": shape.vocabulary,
            "layer_norm_eps": eps,
            "hidden_dropout_prob": DROPOUT,
            "attention_probs_dropout_prob": DROPOUT,
            "initializer_range": DEVIATION,
            "pad_token_id": pad_id,
            "position_embedding_type": "absolute",
            // Stored in half precision or not: we compute in float32.
            "torch_dtype": "float32",
        }),
        Architecture::Distilbert => json!({
            "architectures": ["DistilBertModel"],
            "model_type": "distilbert",
            "dim": shape.hidden,
            "n_layers": shape.layers,
            "n_heads": shape.heads,
            "hidden_dim": shape.intermediate,
            "activation": "gelu",
            "max_position_embeddings": shape.positions,
            "sinusoidal_pos_embds": false,
            "vocab_size": shape.vocabulary,
            "layer_norm_eps": eps,
            "dropout": DROPOUT,
            "attention_dropout": DROPOUT,
            "initializer_range": DEVIATION,
            "pad_token_id": pad_id,
            "tie_weights_": true,
            "torch_dtype": "float32",
        }),
    }
}

/// The flag of sentence-transformers' Pooling module, where it has one.
fn mode(pooling: Pooling) -> Option<&'static str> {
    match pooling {
        Pooling::Cls => Some("pooling_mode_cls_token"),
        Pooling::Mean => Some("pooling_mode_mean_tokens"),
        Pooling::Max => Some("pooling_mode_max_tokens"),
        Pooling::FirstLastMean
        | Pooling::EmbeddingLastMean
        | Pooling::SecondToLastMean
        | Pooling::Last4Mean
        | Pooling::Last4ConcatMean => None,
    }
}

/// The files of sentence-transformers; `mode` is the flag of the pooling.
fn modules(manifest: &Manifest, mode: &str) -> Vec<(String, Vec<u8>)> {
    let mut list = Vec::new();
    let mut module = |kind: &str, path: &str| {
        let number = list.len();
        let kind = format!("sentence_transformers.models.{kind}");
        list.push(json!({"idx": number, "name": number.to_string(), "path": path, "type": kind}));
    };
    module("Transformer", "");
    module("Pooling", "1_Pooling");
    if manifest.normalise {
        module("Normalize", "2_Normalize");
    }
    let mut pooling = json!({"word_embedding_dimension": manifest.shape.hidden, "include_prompt": true});
    for flag in
        ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    {
        let flag = format!("pooling_mode_{flag}");
        pooling[&flag] = json!(flag == mode);
    }
    let prompts: serde_json::Map<String, Value> =
        [("query", &manifest.prompts.query), ("document", &manifest.prompts.document)]
            .into_iter()
            .filter(|(_, prompt)| !prompt.is_empty())
            .map(|(name, prompt)| (name.to_owned(), json!(prompt)))
            .collect();
    let mut files = vec![
        ("modules.json".to_owned(), text(&list)),
        (
            "sentence_bert_config.json".to_owned(),
            text(&json!({"max_seq_length": manifest.max_tokens, "do_lower_case": false})),
        ),
        ("1_Pooling/config.json".to_owned(), text(&pooling)),
        (
            "config_sentence_transformers.json".to_owned(),
            text(&json!({"prompts": prompts, "default_prompt_name": null, "similarity_fn_name": "cosine"})),
        ),
    ];
    if manifest.normalise {
        // It has no settings, but its folder must be there.
        files.push(("2_Normalize/config.json".to_owned(), b"{}\n".to_vec()));
    }
    files
}

fn text(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("plain strings, numbers and tables");
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests;
