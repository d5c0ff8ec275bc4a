//! Writes the older tokenizer files that transformers and other tools read beside `tokenizer.json`.

use serde_json::{Map, Value, json};

use crate::model::{Architecture, Manifest};

/// Longest word that transformers' own BERT tokenizer cuts into pieces.
const WORD_CHARS_MAX: u64 = 100;

/// A tokenizer, and its special tokens by what they do.
#[derive(Debug)]
pub(super) struct Tokenizer {
    values: Value,
    /// The special tokens by transformers' names, such as `cls_token`.
    special: Vec<(&'static str, String)>,
}

impl Tokenizer {
    /// Reads the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// A sentence, if it is not JSON.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let values: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let added = |token: &str| {
            let tokens = values.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
            tokens.filter_map(|t| t["content"].as_str()).any(|t| t == token).then(|| token.to_owned())
        };
        let string = |path: &str| values.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let frame = frame(&values["post_processor"]);
        let (begin, end) = frame.map_or((None, None), |(begin, end)| (Some(begin), Some(end)));
        let special = [
            ("unk_token", string("/model/unk_token")),
            ("cls_token", begin.or_else(|| added("[CLS]"))),
            ("sep_token", end.or_else(|| added("[SEP]"))),
            ("pad_token", string("/padding/pad_token").or_else(|| added("[PAD]"))),
            ("mask_token", added("[MASK]").or_else(|| added("<mask>"))),
        ];
        let special = special.into_iter().filter_map(|(role, token)| Some((role, token?))).collect();
        Ok(Tokenizer { values, special })
    }

    /// Id of the padding token; 0, as in every BERT, where it has none.
    pub fn pad_id(&self) -> u64 {
        let pad = self.special.iter().find(|(role, _)| *role == "pad_token");
        pad.and_then(|(_, token)| self.id(token)).unwrap_or(0)
    }

    /// `special_tokens_map.json`.
    pub fn special_tokens(&self) -> Value {
        self.special
            .iter()
            .map(|(role, token)| ((*role).to_owned(), json!(token)))
            .collect::<Map<_, _>>()
            .into()
    }

    /// `tokenizer_config.json`. A tokenizer that is not BERT's gets the class that takes `tokenizer.json` as it is:
    /// BERT's class builds its own from the vocabulary.
    pub fn config(&self, manifest: &Manifest) -> Value {
        let (class, inputs) = match manifest.architecture {
            Architecture::Bert => ("BertTokenizer", &["input_ids", "token_type_ids", "attention_mask"][..]),
            Architecture::Distilbert => ("DistilBertTokenizer", &["input_ids", "attention_mask"][..]),
        };
        let mut config = json!({
            "model_max_length": manifest.max_tokens,
            "model_input_names": inputs,
            "clean_up_tokenization_spaces": true,
        });
        if self.is_berts() {
            let normalizer = &self.values["normalizer"];
            config["tokenizer_class"] = json!(class);
            config["do_lower_case"] = normalizer["lowercase"].clone();
            config["strip_accents"] = normalizer["strip_accents"].clone();
            config["tokenize_chinese_chars"] = normalizer["handle_chinese_chars"].clone();
        } else {
            config["tokenizer_class"] = json!("PreTrainedTokenizerFast");
        }
        for (role, token) in &self.special {
            config[*role] = json!(token);
        }
        config
    }

    /// `vocab.txt`, one piece a line by id; `None` where ids have gaps or the model is another.
    pub fn vocabulary(&self) -> Option<String> {
        let model = &self.values["model"];
        if model["type"] != "WordPiece" {
            return None;
        }
        let mut pieces = std::collections::BTreeMap::new();
        for (piece, id) in model["vocab"].as_object()? {
            pieces.insert(id.as_u64()?, piece.as_str());
        }
        for token in self.values["added_tokens"].as_array().into_iter().flatten() {
            pieces.insert(token["id"].as_u64()?, token["content"].as_str()?);
        }
        let whole = pieces.keys().copied().eq(0..pieces.len() as u64);
        // Tools cut at any of these; the ids behind such a piece would be off by one.
        let plain = pieces.values().all(|piece| !piece.contains(['\n', '\r']));
        (whole && plain).then(|| pieces.values().map(|piece| format!("{piece}\n")).collect())
    }

    /// Whether it is what transformers builds of `vocab.txt` and the flags of its config.
    fn is_berts(&self) -> bool {
        let Value::Object(values) = &self.values else { return false };
        let part = |name: &str| values.get(name).unwrap_or(&Value::Null);
        let (model, normalizer) = (part("model"), part("normalizer"));
        model["type"] == "WordPiece"
            && model["continuing_subword_prefix"] == "##"
            && model["max_input_chars_per_word"] == WORD_CHARS_MAX
            && normalizer["type"] == "BertNormalizer"
            && normalizer["clean_text"] == true
            && part("pre_tokenizer")["type"] == "BertPreTokenizer"
            && frame(part("post_processor")).is_some()
            && self.vocabulary().is_some()
    }

    fn id(&self, token: &str) -> Option<u64> {
        let added = self.values["added_tokens"].as_array().into_iter().flatten();
        let id = added.filter(|t| t["content"] == token).find_map(|t| t["id"].as_u64());
        id.or_else(|| self.values["model"]["vocab"].get(token)?.as_u64())
    }
}

/// What is put before and after one text, if it is one token each.
fn frame(post_processor: &Value) -> Option<(String, String)> {
    let (begin, end) = match post_processor["type"].as_str()? {
        "TemplateProcessing" => {
            let [begin, text, end] = post_processor["single"].as_array()?.as_slice() else { return None };
            text.get("Sequence")?;
            (&begin["SpecialToken"]["id"], &end["SpecialToken"]["id"])
        }
        "BertProcessing" => (&post_processor["cls"][0], &post_processor["sep"][0]),
        _ => return None,
    };
    Some((begin.as_str()?.to_owned(), end.as_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &Value) -> Tokenizer {
        Tokenizer::parse(values.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn special_tokens_are_known_by_what_they_do() {
        let tokenizer = parse(&json!({
            "added_tokens": [{"id": 7, "content": "<pad>"}, {"id": 3, "content": "[MASK]"}],
            "padding": {"pad_token": "<pad>"},
            "post_processor": {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]},
            "model": {"type": "WordPiece", "unk_token": "<unk>", "vocab": {"<s>": 1}},
        }));
        assert_eq!(tokenizer.pad_id(), 7);
        let expected = json!({"unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>",
                              "mask_token": "[MASK]"});
        assert_eq!(tokenizer.special_tokens(), expected);
    }

    #[test]
    fn vocabulary_is_written_where_lines_can_say_it() {
        let vocabulary =
            |vocab: Value| parse(&json!({"model": {"type": "WordPiece", "vocab": vocab}})).vocabulary();
        assert_eq!(vocabulary(json!({"b": 1, "a": 0})).as_deref(), Some("a\nb\n"));
        assert_eq!(vocabulary(json!({"b": 2, "a": 0})), None);
        assert_eq!(vocabulary(json!({"b\n": 1, "a": 0})), None);
        assert_eq!(parse(&json!({"model": {"type": "BPE", "vocab": {"a": 0}}})).vocabulary(), None);
    }
}
