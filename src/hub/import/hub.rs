//! Reads what a manifest needs from the files of Hugging Face's and sentence-transformers' directories.
//!
//! Each file is read leniently (unknown keys are other tools' business) but each value that changes the vectors is
//! either understood or refused.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::unsupported;
use crate::{
    hub::{
        exported::{Exported, OwnHeader},
        wordpiece::{self, Options},
    },
    model::{Architecture, ModelError, Pooling, Prompts, Shape, TOKENIZER_FILE, WEIGHTS_FILE, files},
};

/// What a directory says about itself.
#[derive(Debug)]
pub(super) struct Source {
    /// Where the transformer's own files are: the directory, or the folder that `modules.json` names.
    pub folder: PathBuf,
    pub architecture: Architecture,
    pub shape: Shape,
    pub pooling: Option<Pooling>,
    pub normalise: bool,
    pub max_tokens: Option<usize>,
    pub prompts: Prompts,
    pub licence: Option<String>,
    /// Where the weights come from.
    pub name: Option<String>,
    pub lineage: Vec<String>,
    pub header: Option<OwnHeader>,
}

impl Source {
    pub fn read(from: &Path) -> Result<Self, ModelError> {
        let modules = Modules::read(from)?;
        let exported = Exported::read(from)?;
        if let Some(exported) = &exported {
            modules.check_against(exported, from)?;
        }
        let folder = modules.transformer.clone().unwrap_or_else(|| from.to_owned());
        let config_path = folder.join("config.json");
        let config =
            read_json(&config_path)?.ok_or_else(|| ModelError::MissingFile { path: config_path.clone() })?;
        let config = Config { path: &config_path, values: config };
        let (architecture, shape) = config.encoder()?;
        let max_tokens = match read_json(&folder.join("sentence_bert_config.json"))? {
            Some(values) => number(&values, "max_seq_length"),
            None => None,
        };
        let max_tokens = match max_tokens {
            Some(tokens) => Some(tokens),
            // Tokenizers without a limit write a huge number here; the positions bound it.
            None => read_json(&folder.join("tokenizer_config.json"))?
                .and_then(|values| number(&values, "model_max_length")),
        };
        let source = Source {
            architecture,
            pooling: modules.pooling,
            // Without module files nothing is said; cosine is what these encoders are made for.
            normalise: modules.normalise.unwrap_or(true),
            max_tokens,
            prompts: prompts(from)?,
            licence: licence(from),
            name: text(&config.values, "_name_or_path")
                .filter(|name| !name.is_empty() && !name.starts_with(['/', '.'])),
            lineage: Vec::new(),
            header: None,
            folder,
            shape,
        };
        let Some(exported) = exported else { return Ok(source) };
        Ok(Source {
            pooling: Some(exported.pooling),
            normalise: exported.normalise,
            max_tokens: Some(exported.max_tokens),
            prompts: exported.prompts,
            licence: Some(exported.licence),
            name: Some(exported.source),
            lineage: exported.lineage,
            header: exported.own_header,
            ..source
        })
    }

    /// The text of `tokenizer.json`: as it is, or built from `vocab.txt`.
    pub fn tokenizer(&self) -> Result<String, ModelError> {
        let path = self.folder.join(TOKENIZER_FILE);
        let content = match files::read_text(&path, files::TOKENIZER_BYTES_MAX) {
            Ok(content) => content,
            Err(ModelError::MissingFile { .. }) => self.tokenizer_from_vocabulary(&path)?,
            Err(error) => return Err(error),
        };
        let values: Value = serde_json::from_str(&content)
            .map_err(|error| ModelError::Damaged { path: path.clone(), reason: error.to_string() })?;
        let largest = largest_id(&values)
            .ok_or_else(|| unsupported(&path, "its model has no vocabulary of pieces with ids"))?;
        if largest >= self.shape.vocabulary as u64 {
            let reason = format!(
                "it gives token ids up to {largest}, but the config's vocab_size is {}",
                self.shape.vocabulary
            );
            return Err(unsupported(&path, reason));
        }
        Ok(content)
    }

    /// Says which other form there is, where the one we read is not.
    pub fn check_weights_there(&self) -> Result<(), ModelError> {
        let folder = &self.folder;
        let path = folder.join(WEIGHTS_FILE);
        // What is there but no file, the reading refuses.
        if path.exists() {
            return Ok(());
        }
        for other in ["model.safetensors.index.json", "pytorch_model.bin", "tf_model.h5"] {
            if folder.join(other).exists() {
                let reason = format!("it has {other}, but only weights in one {WEIGHTS_FILE} are supported");
                return Err(unsupported(folder, reason));
            }
        }
        Err(ModelError::MissingFile { path })
    }

    fn tokenizer_from_vocabulary(&self, missing: &Path) -> Result<String, ModelError> {
        let path = self.folder.join("vocab.txt");
        let vocabulary =
            files::read_text(&path, files::TOKENIZER_BYTES_MAX).map_err(|error| match error {
                ModelError::MissingFile { .. } => ModelError::MissingFile { path: missing.to_owned() },
                other => other,
            })?;
        let values = read_json(&self.folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let mut options = Options::default();
        let flag = |key: &str| values.get(key).and_then(Value::as_bool);
        options.lowercase = flag("do_lower_case").unwrap_or(options.lowercase);
        options.strip_accents = flag("strip_accents");
        options.split_chinese = flag("tokenize_chinese_chars").unwrap_or(options.split_chinese);
        let special = &mut options.special;
        for (key, token) in [
            ("pad_token", &mut special.pad),
            ("unk_token", &mut special.unknown),
            ("cls_token", &mut special.begin),
            ("sep_token", &mut special.end),
            ("mask_token", &mut special.mask),
        ] {
            // A token is a string, or an object with its content.
            let value = values.get(key).map(|value| value.get("content").unwrap_or(value));
            if let Some(content) = value.and_then(Value::as_str) {
                *token = content.to_owned();
            }
        }
        wordpiece::tokenizer_json(&vocabulary, &options).map_err(|reason| unsupported(&path, reason))
    }
}

/// `config.json`.
struct Config<'a> {
    path: &'a Path,
    values: Map<String, Value>,
}

impl Config<'_> {
    fn encoder(&self) -> Result<(Architecture, Shape), ModelError> {
        let architecture = match text(&self.values, "model_type").as_deref() {
            Some("bert") => Architecture::Bert,
            Some("distilbert") => Architecture::Distilbert,
            Some(other) => {
                return Err(unsupported(
                    self.path,
                    format!("its model_type is {other:?}; supported: bert, distilbert"),
                ));
            }
            None => {
                return Err(unsupported(self.path, "it has no model_type; supported: bert, distilbert"));
            }
        };
        for flag in ["is_decoder", "add_cross_attention"] {
            if self.values.get(flag).and_then(Value::as_bool) == Some(true) {
                return Err(unsupported(self.path, format!("{flag} is true; only encoders are supported")));
            }
        }
        self.only("position_embedding_type", "absolute")?;
        let shape = match architecture {
            Architecture::Bert => {
                self.only("hidden_act", "gelu")?;
                Shape {
                    layers: self.size("num_hidden_layers")?,
                    hidden: self.size("hidden_size")?,
                    heads: self.size("num_attention_heads")?,
                    intermediate: self.size("intermediate_size")?,
                    vocabulary: self.size("vocab_size")?,
                    positions: self.size("max_position_embeddings")?,
                    type_vocabulary: self.size("type_vocab_size")?,
                    layer_norm_eps: self.epsilon(),
                }
            }
            Architecture::Distilbert => {
                self.only("activation", "gelu")?;
                Shape {
                    layers: self.size("n_layers")?,
                    hidden: self.size("dim")?,
                    heads: self.size("n_heads")?,
                    intermediate: self.size("hidden_dim")?,
                    vocabulary: self.size("vocab_size")?,
                    positions: self.size("max_position_embeddings")?,
                    type_vocabulary: 0,
                    layer_norm_eps: self.epsilon(),
                }
            }
        };
        shape.check().map_err(|error| unsupported(self.path, error.to_string()))?;
        Ok((architecture, shape))
    }

    /// Refuses any value but one; an absent key means that one.
    fn only(&self, key: &str, allowed: &str) -> Result<(), ModelError> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(value)) if value == allowed => Ok(()),
            Some(other) => {
                Err(unsupported(self.path, format!("its {key} is {other}; supported: {allowed:?}")))
            }
        }
    }

    fn size(&self, key: &str) -> Result<usize, ModelError> {
        number(&self.values, key)
            .ok_or_else(|| unsupported(self.path, format!("it has no whole number {key:?}")))
    }

    fn epsilon(&self) -> f32 {
        // 1e-12 is what transformers takes where the file says nothing, as DistilBERT's never does.
        self.values.get("layer_norm_eps").and_then(Value::as_f64).unwrap_or(1e-12) as f32
    }
}

/// `modules.json` of sentence-transformers and the folders it names.
#[derive(Debug, Default)]
struct Modules {
    transformer: Option<PathBuf>,
    pooling: Option<Pooling>,
    normalise: Option<bool>,
}

impl Modules {
    fn read(from: &Path) -> Result<Self, ModelError> {
        let path = from.join("modules.json");
        let Some(content) = read_optional(&path)? else { return Ok(Modules::default()) };
        let list: Vec<Map<String, Value>> = serde_json::from_str(&content)
            .map_err(|error| ModelError::Damaged { path: path.clone(), reason: error.to_string() })?;
        let mut modules = Modules { normalise: Some(false), ..Default::default() };
        for module in &list {
            let kind = text(module, "type").unwrap_or_default();
            let folder = from.join(text(module, "path").unwrap_or_default());
            // Versions differ in the path before the class's name.
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => modules.transformer = Some(folder),
                "Pooling" => modules.pooling = Some(pooling(&folder.join("config.json"))?),
                "Normalize" => modules.normalise = Some(true),
                _ => {
                    let reason = format!("module {kind:?}; supported: Transformer, Pooling, Normalize");
                    return Err(unsupported(&path, reason));
                }
            }
        }
        Ok(modules)
    }

    /// The error for two files that contradict each other: the user must say which is right.
    fn check_against(&self, exported: &Exported, from: &Path) -> Result<(), ModelError> {
        let pooling = self.pooling.filter(|pooling| *pooling != exported.pooling);
        let normalise = self.normalise.filter(|normalise| *normalise != exported.normalise);
        if pooling.is_none() && normalise.is_none() {
            return Ok(());
        }
        let reason = format!(
            "modules.json and distilface.json disagree about pooling or normalisation ({} and {} in the second); \
             remove the one that is wrong",
            exported.pooling.name(),
            if exported.normalise { "unit length" } else { "any length" }
        );
        Err(unsupported(from, reason))
    }
}

fn pooling(path: &Path) -> Result<Pooling, ModelError> {
    let values = read_json(path)?.ok_or_else(|| ModelError::MissingFile { path: path.to_owned() })?;
    let mut modes: Vec<String> = values
        .iter()
        .filter(|(_, value)| **value == Value::Bool(true))
        .filter_map(|(key, _)| key.strip_prefix("pooling_mode_").map(str::to_owned))
        .collect();
    // The newer form names the mode instead of setting flags.
    modes.extend(text(&values, "pooling_mode"));
    match modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["cls_token" | "cls"] => Ok(Pooling::Cls),
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        ["max_tokens" | "max"] => Ok(Pooling::Max),
        _ => Err(unsupported(
            path,
            format!("its pooling is [{}]; supported: one of cls, mean, max", modes.join(", ")),
        )),
    }
}

fn prompts(from: &Path) -> Result<Prompts, ModelError> {
    let values = read_json(&from.join("config_sentence_transformers.json"))?.unwrap_or_default();
    let named = |names: &[&str]| {
        let prompts = values.get("prompts")?;
        names.iter().find_map(|name| prompts.get(name)?.as_str().map(str::to_owned))
    };
    Ok(Prompts {
        query: named(&["query"]).unwrap_or_default(),
        document: named(&["document", "passage", "corpus"]).unwrap_or_default(),
    })
}

/// `license:` of the front matter of the model card.
fn licence(from: &Path) -> Option<String> {
    let card = files::read_text(&from.join("README.md"), files::DESCRIPTION_BYTES_MAX).ok()?;
    let matter = card.strip_prefix("---")?.split("\n---").next()?;
    let line = matter.lines().find_map(|line| line.strip_prefix("license:"))?;
    let licence = line.trim().trim_matches(['"', '\'']);
    (!licence.is_empty()).then(|| licence.to_owned())
}

/// The largest id that a tokenizer can give.
fn largest_id(tokenizer: &Value) -> Option<u64> {
    let model = match tokenizer.pointer("/model/vocab")? {
        Value::Object(pieces) => pieces.values().filter_map(Value::as_u64).max()?,
        // Unigram models list their pieces with scores; the place is the id.
        Value::Array(pieces) => (pieces.len() as u64).checked_sub(1)?,
        _ => return None,
    };
    let added = tokenizer.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    Some(added.filter_map(|token| token.get("id")?.as_u64()).fold(model, u64::max))
}

fn read_optional(path: &Path) -> Result<Option<String>, ModelError> {
    match files::read_text(path, files::DESCRIPTION_BYTES_MAX) {
        Ok(content) => Ok(Some(content)),
        Err(ModelError::MissingFile { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file that holds one JSON object, if it is there.
fn read_json(path: &Path) -> Result<Option<Map<String, Value>>, ModelError> {
    let Some(content) = read_optional(path)? else { return Ok(None) };
    match serde_json::from_str(&content) {
        Ok(values) => Ok(Some(values)),
        Err(error) => Err(ModelError::Damaged { path: path.to_owned(), reason: error.to_string() }),
    }
}

fn text(values: &Map<String, Value>, key: &str) -> Option<String> {
    values.get(key)?.as_str().map(str::to_owned)
}

/// A whole number; some tools write `512.0`, and "no limit" as 1e30.
fn number(values: &Map<String, Value>, key: &str) -> Option<usize> {
    let value = values.get(key)?;
    let whole = |f: f64| (f >= 0.0 && f.fract() == 0.0).then_some(f.min(u32::MAX.into()) as usize);
    value.as_u64().map(|n| n as usize).or_else(|| value.as_f64().and_then(whole))
}
