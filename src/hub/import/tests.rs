//! What can be imported, and everything that is refused with its reason.

use super::*;
use crate::{
    error::{ErrorKind, Fault as _},
    model::{Prompts, tiny},
};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};
use tempfile::TempDir;

/// A home folder, and beside it the tiny model in Hugging Face's form.
struct Case {
    folder: TempDir,
}

impl Case {
    fn new() -> Self {
        let case = Case { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(case.from()).unwrap();
        for file in [WEIGHTS_FILE, TOKENIZER_FILE] {
            fs::copy(tiny::folder().join(file), case.from().join(file)).unwrap();
        }
        let shape = ModelDir::open(&tiny::folder()).unwrap().manifest.shape;
        case.write(
            "config.json",
            &json!({
                "model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute",
                "num_hidden_layers": shape.layers, "hidden_size": shape.hidden,
                "num_attention_heads": shape.heads, "intermediate_size": shape.intermediate,
                "vocab_size": shape.vocabulary, "max_position_embeddings": shape.positions,
                "type_vocab_size": shape.type_vocabulary, "layer_norm_eps": 1e-12,
            }),
        );
        case
    }

    fn from(&self) -> PathBuf {
        self.folder.path().join("some-model")
    }

    fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    fn write(&self, file: &str, value: &Value) {
        let path = self.from().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value.to_string()).unwrap();
    }

    /// Sets one key of `config.json`.
    fn configure(&self, key: &str, value: Value) -> &Self {
        let path = self.from().join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        config[key] = value;
        fs::write(path, config.to_string()).unwrap();
        self
    }

    fn import(&self, options: ImportOptions) -> Result<ModelDir, ModelError> {
        ModelDir::import(self.folder.path(), &self.from(), options)
    }

    /// The reason of a refusal; nothing may have appeared.
    fn refusal(&self, options: ImportOptions) -> String {
        let error = self.import(options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let left = fs::read_dir(self.models()).map(Iterator::count).unwrap_or(0);
        assert_eq!(left, 0, "a refused import left something behind");
        match error {
            ModelError::Unsupported { reason, .. } => reason,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    fn sentence_transformers(&self, pooling: &Value, modules: &[&str]) {
        let list: Vec<Value> = modules
            .iter()
            .map(|kind| {
                let path = if *kind == "Pooling" { "1_Pooling" } else { "" };
                json!({"type": format!("sentence_transformers.models.{kind}"), "path": path})
            })
            .collect();
        self.write("modules.json", &Value::Array(list));
        self.write("1_Pooling/config.json", pooling);
    }
}

fn plain() -> ImportOptions {
    ImportOptions::default()
}

#[test]
fn plain_directory_takes_its_name_and_the_defaults() {
    let case = Case::new();
    let model = case.import(plain()).unwrap();
    let manifest = &model.manifest;
    assert_eq!((manifest.name.as_str(), manifest.source.as_str()), ("some-model", "some-model"));
    assert_eq!((manifest.pooling, manifest.normalise, manifest.max_tokens), (Pooling::Mean, true, 64));
    assert_eq!(manifest.licence, "unknown");
    assert_eq!(model.path, case.models().join("some-model"));
    model.verify().unwrap();
    let tiny = ModelDir::open(&tiny::folder()).unwrap();
    assert_eq!(model.fingerprint, tiny.fingerprint);
    let graph = fs::read(model.onnx_path().unwrap()).unwrap();
    assert!(graph.len() > 100_000);
}

#[test]
fn module_files_give_pooling_length_prompts_and_the_model_card_its_licence() {
    let case = Case::new();
    let flags = json!({"word_embedding_dimension": 32, "pooling_mode_cls_token": true,
                       "pooling_mode_mean_tokens": false, "pooling_mode_max_tokens": false});
    case.sentence_transformers(&flags, &["Transformer", "Pooling"]);
    case.write("sentence_bert_config.json", &json!({"max_seq_length": 48, "do_lower_case": false}));
    case.write(
        "config_sentence_transformers.json",
        &json!({"prompts": {"query": "query: ", "passage": "passage: "}}),
    );
    fs::write(case.from().join("README.md"), "---\ntags: [x]\nlicense: mit\n---\n# Model\n").unwrap();
    case.configure("_name_or_path", json!("owner/name"));
    let manifest = case.import(plain()).unwrap().manifest;
    assert_eq!((manifest.pooling, manifest.normalise, manifest.max_tokens), (Pooling::Cls, false, 48));
    assert_eq!((manifest.licence.as_str(), manifest.source.as_str()), ("mit", "owner/name"));
    assert_eq!(manifest.prompts, Prompts { query: "query: ".into(), document: "passage: ".into() });
}

#[test]
fn options_win_over_files() {
    let case = Case::new();
    case.sentence_transformers(&json!({"pooling_mode": "max"}), &["Transformer", "Pooling", "Normalize"]);
    let manifest = case.import(ImportOptions { name: Some("a".into()), ..plain() }).unwrap().manifest;
    assert_eq!((manifest.pooling, manifest.normalise), (Pooling::Max, true));
    let options = ImportOptions {
        name: Some("b".into()),
        pooling: Some(Pooling::Mean),
        normalise: Some(false),
        max_tokens: Some(32),
        licence: Some("MIT".into()),
        source: Some("here".into()),
        prompts: Some(Prompts { query: "q".into(), document: "d".into() }),
        force: false,
    };
    let manifest = case.import(options).unwrap().manifest;
    assert_eq!((manifest.pooling, manifest.normalise, manifest.max_tokens), (Pooling::Mean, false, 32));
    assert_eq!((manifest.licence.as_str(), manifest.source.as_str()), ("MIT", "here"));
    assert_eq!(manifest.prompts.query, "q");
}

#[test]
fn length_is_bounded_by_the_positions() {
    let case = Case::new();
    case.write("tokenizer_config.json", &json!({"model_max_length": 1e30}));
    assert_eq!(case.import(plain()).unwrap().manifest.max_tokens, 64);
    let case = Case::new();
    let reason = case.refusal(ImportOptions { max_tokens: Some(65), ..plain() });
    assert_eq!(reason, "max tokens 65 is not between 3 and its 64 positions");
}

#[test]
fn what_cannot_be_run_faithfully_is_refused_by_name() {
    for (key, value, said) in [
        ("model_type", json!("roberta"), "its model_type is \"roberta\"; supported: bert, distilbert"),
        ("model_type", Value::Null, "it has no model_type"),
        ("hidden_act", json!("relu"), "its hidden_act is \"relu\"; supported: \"gelu\""),
        ("hidden_act", json!("gelu_new"), "its hidden_act is \"gelu_new\""),
        ("position_embedding_type", json!("relative_key"), "its position_embedding_type is \"relative_key\""),
        ("is_decoder", json!(true), "is_decoder is true"),
        ("hidden_size", json!("wide"), "it has no whole number \"hidden_size\""),
        ("num_attention_heads", json!(5), "hidden size 32 cannot be shared out among 5 heads"),
        ("vocab_size", json!(500), "token ids up to 608, but the config's vocab_size is 500"),
    ] {
        let reason = Case::new().configure(key, value).refusal(plain());
        assert!(reason.contains(said), "{key}: {reason}");
    }
    let case = Case::new();
    case.configure("model_type", json!("distilbert"));
    case.configure("activation", json!("relu"));
    assert!(case.refusal(plain()).contains("its activation is \"relu\""));
}

#[test]
fn modules_and_poolings_that_are_not_ours_are_refused() {
    let case = Case::new();
    case.sentence_transformers(&json!({"pooling_mode": "mean"}), &["Transformer", "Pooling", "Dense"]);
    assert!(case.refusal(plain()).contains("models.Dense\"; supported: Transformer, Pooling, Normalize"));
    for (pooling, said) in [
        (json!({"pooling_mode_mean_sqrt_len_tokens": true}), "[mean_sqrt_len_tokens]"),
        (
            json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}),
            "[cls_token, mean_tokens]",
        ),
        (json!({}), "[]"),
    ] {
        case.sentence_transformers(&pooling, &["Transformer", "Pooling"]);
        let reason = case.refusal(plain());
        assert!(reason.contains(said), "{reason}");
    }
}

#[test]
fn config_and_weights_that_disagree_are_told_by_tensor() {
    for (key, value, said) in [
        (
            "intermediate_size",
            128,
            "tensor encoder.layer.0.intermediate.dense.weight has shape [64, 32], but the config says [128, 32]",
        ),
        (
            "num_hidden_layers",
            3,
            "the weights have no tensor encoder.layer.2.attention.self.query.weight; config and weights do not belong together",
        ),
        (
            "vocab_size",
            700,
            "tensor embeddings.word_embeddings.weight has shape [609, 32], but the config says [700, 32]",
        ),
    ] {
        let case = Case::new();
        let error = case.configure(key, json!(value)).import(plain()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Precondition);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, said);
        assert!(!case.models().exists());
    }
}

#[test]
fn missing_and_damaged_files_are_named() {
    for file in ["config.json", WEIGHTS_FILE, TOKENIZER_FILE] {
        let case = Case::new();
        fs::remove_file(case.from().join(file)).unwrap();
        let error = case.import(plain()).unwrap_err();
        assert!(matches!(&error, ModelError::MissingFile { path } if path.ends_with(file)), "{error:?}");
    }
    for file in ["config.json", TOKENIZER_FILE, "modules.json"] {
        let case = Case::new();
        fs::write(case.from().join(file), "{\"half\": ").unwrap();
        let error = case.import(plain()).unwrap_err();
        assert!(matches!(&error, ModelError::Damaged { path, .. } if path.ends_with(file)), "{error:?}");
    }
    let case = Case::new();
    let weights = case.from().join(WEIGHTS_FILE);
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() - 10]).unwrap();
    let error = case.import(plain()).unwrap_err();
    assert!(matches!(error, ModelError::Onnx { source: crate::onnx::OnnxError::Unreadable { .. }, .. }));

    let case = Case::new();
    fs::rename(case.from().join(WEIGHTS_FILE), case.from().join("pytorch_model.bin")).unwrap();
    assert!(
        case.refusal(plain()).contains("it has pytorch_model.bin, but only weights in one model.safetensors")
    );
}

#[test]
fn name_that_exists_is_refused_and_replaced_by_force() {
    let case = Case::new();
    case.import(plain()).unwrap();
    let error = case.import(ImportOptions { pooling: Some(Pooling::Cls), ..plain() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert!(error.to_string().contains("--force"));
    let options = ImportOptions { pooling: Some(Pooling::Cls), force: true, ..plain() };
    let model = case.import(options).unwrap();
    assert_eq!(model.manifest.pooling, Pooling::Cls);
    let left: Vec<_> = fs::read_dir(case.models()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["some-model"]);
}

#[test]
fn failed_replacement_leaves_the_old_model() {
    let case = Case::new();
    let model = case.import(plain()).unwrap();
    case.configure("intermediate_size", json!(128));
    case.import(ImportOptions { force: true, ..plain() }).unwrap_err();
    assert_eq!(ModelDir::open(&model.path).unwrap().fingerprint, model.fingerprint);
}

#[test]
fn name_must_be_a_folder_name() {
    for name in ["", "../up", ".hidden", "a b", &"x".repeat(65)] {
        let reason = Case::new().refusal(ImportOptions { name: Some(name.into()), ..plain() });
        assert!(reason.contains("cannot be a model's name"), "{reason}");
    }
}

#[test]
fn tokenizer_is_built_from_the_vocabulary() {
    let case = Case::new();
    let path = case.from().join(TOKENIZER_FILE);
    let shipped: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let mut pieces: Vec<(u64, String)> = shipped["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(piece, id)| (id.as_u64().unwrap(), piece.clone()))
        .collect();
    pieces.sort();
    let lines: String = pieces.iter().map(|(_, piece)| format!("{piece}\n")).collect();
    fs::remove_file(&path).unwrap();
    fs::write(case.from().join("vocab.txt"), &lines).unwrap();
    case.write(
        "tokenizer_config.json",
        &json!({"do_lower_case": false, "strip_accents": true, "cls_token": {"content": "[CLS]"}}),
    );
    let model = case.import(plain()).unwrap();
    let built: Value = serde_json::from_str(&fs::read_to_string(model.tokenizer_path()).unwrap()).unwrap();
    assert_eq!(built["model"], shipped["model"]);
    assert_eq!(built["added_tokens"], shipped["added_tokens"]);
    assert_eq!(built["normalizer"]["lowercase"], json!(false));
    assert_eq!(built["normalizer"]["strip_accents"], json!(true));
    assert_eq!(shipped["normalizer"]["lowercase"], json!(true));

    let case = Case::new();
    fs::remove_file(case.from().join(TOKENIZER_FILE)).unwrap();
    fs::write(case.from().join("vocab.txt"), "[PAD]\n[UNK]\n[SEP]\na\n").unwrap();
    assert_eq!(case.refusal(plain()), "vocab.txt has no line \"[CLS]\"");
}

/// What we build from `vocab.txt` is what the authors of the default model ship, but for truncation and padding.
#[test]
fn built_tokenizer_equals_the_shipped_one() {
    let Some(from) = std::env::var_os("DISTILFACE_TEST_MODEL_SOURCE").map(PathBuf::from) else {
        println!("skipped: DISTILFACE_TEST_MODEL_SOURCE names no unpacked all-MiniLM-L6-v2");
        return;
    };
    let read = |path: PathBuf| -> Value { serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap() };
    let shipped = read(from.join(TOKENIZER_FILE));
    let case = Case::new();
    for file in ["config.json", WEIGHTS_FILE, "vocab.txt", "tokenizer_config.json"] {
        fs::copy(from.join(file), case.from().join(file)).unwrap();
    }
    fs::remove_file(case.from().join(TOKENIZER_FILE)).unwrap();
    let built = read(case.import(plain()).unwrap().tokenizer_path());
    for part in ["added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model"] {
        assert!(built[part] == shipped[part], "{part}: {} is not {}", built[part], shipped[part]);
    }
    assert!(built["truncation"].is_null() && built["padding"].is_null());
}

#[test]
fn default_model_imports_with_the_sum_of_the_design() {
    let Some(from) = std::env::var_os("DISTILFACE_TEST_MODEL_SOURCE").map(PathBuf::from) else {
        println!("skipped: DISTILFACE_TEST_MODEL_SOURCE names no unpacked all-MiniLM-L6-v2");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let options = ImportOptions { name: Some("minilm-l6".into()), ..plain() };
    let model = ModelDir::import(home.path(), &from, options).unwrap();
    let manifest = &model.manifest;
    assert_eq!((manifest.pooling, manifest.normalise, manifest.max_tokens), (Pooling::Mean, true, 256));
    assert_eq!((manifest.dimension, manifest.licence.as_str()), (384, "apache-2.0"));
    assert_eq!(
        manifest.files[WEIGHTS_FILE].sha256,
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    );
}

/// As in distilbert-base-uncased: the encoder below a prefix, and a head for masked words beside it.
#[test]
fn checkpoint_with_a_head_for_masked_words_gives_its_encoder() {
    use crate::model::{Architecture, RandomOptions, header};
    let case = Case::new();
    let options = RandomOptions::small("plain", Architecture::Distilbert);
    let tiny = ModelDir::open(&tiny::folder()).unwrap();
    let plain = ModelDir::random(case.folder.path(), &tiny, &options).unwrap();
    let file = fs::read(plain.weights_path()).unwrap();
    let (text, tensors) = header::split(&file).unwrap();
    let names: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap();
    let mut names: serde_json::Map<String, Value> =
        names.into_iter().map(|(name, tensor)| (format!("distilbert.{name}"), tensor)).collect();
    let end = tensors.len();
    for (place, name) in
        ["vocab_transform.bias", "vocab_layer_norm.weight", "vocab_projector.bias"].iter().enumerate()
    {
        let offsets = [end + 4 * place, end + 4 * (place + 1)];
        names.insert((*name).to_owned(), json!({"dtype": "F32", "shape": [1], "data_offsets": offsets}));
    }
    let whole = header::join(&Value::Object(names).to_string(), &[tensors, &[0; 12]].concat());
    fs::write(case.from().join(WEIGHTS_FILE), whole).unwrap();
    case.write(
        "config.json",
        &json!({
            "model_type": "distilbert", "architectures": ["DistilBertForMaskedLM"], "activation": "gelu",
            "n_layers": 2, "dim": 8, "n_heads": 2, "hidden_dim": 32,
            "vocab_size": tiny.manifest.shape.vocabulary, "max_position_embeddings": 512,
        }),
    );
    let model =
        case.import(ImportOptions { name: Some("masked".into()), ..ImportOptions::default() }).unwrap();
    let graph = |model: &ModelDir| fs::read(model.onnx_path().unwrap()).unwrap();
    assert!(graph(&model) == graph(&plain), "the same encoder gives the same graph");

    // Exported, the encoder's tensors stand under the names of the encoder alone.
    let target = case.folder.path().join("exported");
    model.export(&target, false).unwrap();
    let exported = fs::read(target.join(WEIGHTS_FILE)).unwrap();
    let (text, _) = header::split(&exported).unwrap();
    assert!(
        text.contains("\"embeddings.word_embeddings.weight\"") && text.contains("\"vocab_projector.bias\"")
    );
    assert!(!text.contains("distilbert."), "{text}");
    let options = ImportOptions { name: Some("back".into()), ..ImportOptions::default() };
    let back = ModelDir::import(case.folder.path(), &target, options).unwrap();
    assert_eq!(back.fingerprint, model.fingerprint);
}

#[cfg(unix)]
#[test]
fn a_link_to_a_device_is_refused_and_a_link_to_a_file_is_read() {
    for file in ["config.json", WEIGHTS_FILE, TOKENIZER_FILE] {
        let case = Case::new();
        let path = case.from().join(file);
        let elsewhere = case.folder.path().join("blob");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        case.import(ImportOptions { name: Some("linked".into()), ..ImportOptions::default() }).unwrap();
        fs::remove_dir_all(case.models().join("linked")).unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let error = case.import(ImportOptions::default()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(file) && message.contains("not a regular file"), "{message}");
    }
}

#[test]
fn weights_that_are_not_finite_are_refused_by_the_tensors_name() {
    let case = Case::new();
    let path = case.from().join(WEIGHTS_FILE);
    let mut bytes = fs::read(&path).unwrap();
    let (name, at) = {
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let name = "embeddings.word_embeddings.weight";
        let data = tensors.tensor(name).unwrap();
        (name, data.data().as_ptr() as usize - bytes.as_ptr() as usize)
    };
    // All bits set is NaN in every format.
    bytes[at..at + 4].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let reason = case.refusal(ImportOptions::default());
    assert!(reason.contains(name) && reason.contains("NaN"), "{reason}");
}
