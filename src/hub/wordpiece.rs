//! Builds `tokenizer.json` from `vocab.txt`: the WordPiece tokenizer of BERT, for directories that only have the old
//! form.
//!
//! Schuster & Nakajima 2012; Devlin et al. 2018, section 3. Truncation and padding are left out: the encoder owns both.

use serde_json::{Map, Value, json};

/// Longest word that is cut into pieces; a longer one is unknown as a whole.
const WORD_CHARS_MAX: usize = 100;

/// What `tokenizer_config.json` says about text before it is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub lowercase: bool,
    /// `None`: strip if lowercasing.
    pub strip_accents: Option<bool>,
    /// Puts white space around CJK characters.
    pub split_chinese: bool,
    /// `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]` or what the config calls them.
    pub special: Special,
}

/// The special tokens by what they do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Special {
    pub pad: String,
    pub unknown: String,
    pub begin: String,
    pub end: String,
    pub mask: String,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            lowercase: true,
            strip_accents: None,
            split_chinese: true,
            special: Special {
                pad: "[PAD]".into(),
                unknown: "[UNK]".into(),
                begin: "[CLS]".into(),
                end: "[SEP]".into(),
                mask: "[MASK]".into(),
            },
        }
    }
}

/// One piece a line, the line's number (from 0) its id.
///
/// # Errors
/// A sentence that names a special token that the vocabulary lacks.
pub(crate) fn tokenizer_json(vocabulary: &str, options: &Options) -> Result<String, String> {
    let mut ids = Map::new();
    for (id, piece) in vocabulary.lines().enumerate() {
        // As in the original: of equal lines the last counts.
        ids.insert(piece.trim_end_matches('\r').to_owned(), json!(id));
    }
    let id = |piece: &str| {
        ids.get(piece).and_then(Value::as_u64).ok_or_else(|| format!("vocab.txt has no line {piece:?}"))
    };
    let Special { pad, unknown, begin, end, mask } = &options.special;
    let mut special = vec![(id(pad)?, pad), (id(unknown)?, unknown), (id(begin)?, begin), (id(end)?, end)];
    // Encoding never needs the mask token; vocabularies of encoders may lack it.
    special.extend(id(mask).ok().map(|id| (id, mask)));
    special.sort();
    let added: Vec<Value> = special
        .iter()
        .map(|(id, piece)| {
            json!({"id": id, "content": piece, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let sequence = |id: &str, kind: u8| json!({"Sequence": {"id": id, "type_id": kind}});
    let token = |piece: &str, kind: u8| json!({"SpecialToken": {"id": piece, "type_id": kind}});
    let single = [token(begin, 0), sequence("A", 0), token(end, 0)];
    let pair = [token(begin, 0), sequence("A", 0), token(end, 0), sequence("B", 1), token(end, 1)];
    let template =
        |piece: &str| Ok::<_, String>(json!({"id": piece, "ids": [id(piece)?], "tokens": [piece]}));
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": options.split_chinese,
                       "strip_accents": options.strip_accents, "lowercase": options.lowercase},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair,
                           "special_tokens": {begin.as_str(): template(begin)?, end.as_str(): template(end)?}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": WORD_CHARS_MAX, "vocab": &ids},
    });
    Ok(format!("{tokenizer}\n"))
}
