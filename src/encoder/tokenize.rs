//! Text -> token ids, special tokens included, cut at the model's limit and counted before the cut.
//!
//! Alone names `tokenizers`. What that crate can do to us: a `tokenizer.json` may carry padding and truncation of its
//! own (the default model's says 128), which would silently change vectors: both are switched off, and cutting is ours.

use std::{ops::Range, path::Path};

use tokenizers::Tokenizer as HfTokenizer;

use super::EncoderError;

/// A model's tokenizer.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    inner: HfTokenizer,
    /// Special tokens in front of and behind every text.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    tokens_max: usize,
}

/// A text ready for the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// At most the model's limit, special tokens included.
    pub(crate) ids: Vec<u32>,
    /// Before the cut, special tokens included.
    pub(crate) count: usize,
}

/// Where the tokens of a text lie.
#[derive(Debug, Default)]
pub(crate) struct TokenPlaces {
    /// Bytes of the text, per token, without special tokens.
    pub(crate) ranges: Vec<Range<usize>>,
    /// Whether a word begins with this token.
    pub(crate) begins_word: Vec<bool>,
}

impl Tokenizer {
    /// # Errors
    /// [`EncoderError::Tokenizer`] if the file cannot be read, or leaves no room for text within `tokens_max`.
    pub(crate) fn open(path: &Path, tokens_max: usize) -> Result<Self, EncoderError> {
        let wrong = |reason: String| EncoderError::Tokenizer { path: path.display().to_string(), reason };
        let mut inner = HfTokenizer::from_file(path).map_err(|e| wrong(e.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| wrong(e.to_string()))?;
        let with = inner.encode_fast("a", true).map_err(|e| wrong(e.to_string()))?;
        let bare = inner.encode_fast("a", false).map_err(|e| wrong(e.to_string()))?;
        let (with, bare) = (with.get_ids(), bare.get_ids());
        let at = with
            .windows(bare.len().max(1))
            .position(|window| window == bare)
            .ok_or_else(|| wrong("it changes a text's tokens when it adds special ones".to_owned()))?;
        let (prefix, suffix) = (with[..at].to_vec(), with[at + bare.len()..].to_vec());
        if prefix.len() + suffix.len() >= tokens_max {
            return Err(wrong(format!(
                "it adds {} special tokens, and the limit is {tokens_max}",
                with.len() - bare.len()
            )));
        }
        Ok(Tokenizer { inner, prefix, suffix, tokens_max })
    }

    /// Tokens of a text that fit beside the special ones.
    pub(crate) fn room(&self) -> usize {
        self.tokens_max - self.prefix.len() - self.suffix.len()
    }

    /// How many special tokens stand in front of a text, and how many behind it.
    pub(crate) fn special(&self) -> (usize, usize) {
        (self.prefix.len(), self.suffix.len())
    }

    /// One above the largest id it may give.
    pub(crate) fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// # Errors
    /// [`EncoderError::Failed`] if the library refuses the text.
    pub(crate) fn encode(&self, text: &str) -> Result<Tokens, EncoderError> {
        let encoding = self.inner.encode_fast(text, false).map_err(refused)?;
        let ids = encoding.get_ids();
        let kept = &ids[..ids.len().min(self.room())];
        Ok(Tokens {
            ids: self.prefix.iter().chain(kept).chain(&self.suffix).copied().collect(),
            count: self.prefix.len() + ids.len() + self.suffix.len(),
        })
    }

    /// # Errors
    /// As [`Tokenizer::encode`].
    pub(crate) fn places(&self, text: &str) -> Result<TokenPlaces, EncoderError> {
        let encoding = self.inner.encode(text, false).map_err(refused)?;
        let words = encoding.get_word_ids();
        let begins_word =
            (0..words.len()).map(|i| i == 0 || words[i].is_none() || words[i] != words[i - 1]).collect();
        Ok(TokenPlaces { ranges: encoding.get_offsets().iter().map(|&(a, b)| a..b).collect(), begins_word })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn refused(e: tokenizers::Error) -> EncoderError {
    EncoderError::Failed { reason: format!("the tokenizer refused the text: {e}") }
}
