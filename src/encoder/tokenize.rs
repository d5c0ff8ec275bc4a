//! The tokenizer turns text into token ids, special tokens included, cut at the model's limit and counted before the
//! cut.
//!
//! A long text goes through the library piece by piece ([`super::pieces`]), so that it needs little memory and stops
//! soon when nobody waits for it any more; the tokens are the same as those of the whole text.
//!
//! Only this file uses `tokenizers`. What that crate can do to us: a `tokenizer.json` may carry padding and truncation
//! of its
//! own (the default model's says 128), which would silently change vectors: both are switched off, and cutting is ours.

use std::{ops::Range, path::Path};

use tokenizers::{ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer as HfTokenizer};

use super::{
    EncoderError,
    pieces::{Borders, PIECE_BYTES},
};

/// A model's tokenizer.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    inner: HfTokenizer,
    /// Special tokens in front of and behind every text.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    tokens_max: usize,
    /// What a word becomes that the vocabulary has no pieces for.
    unknown: Option<u32>,
    /// Where a long text may be cut; `None` means nowhere, since the tokenizer is not BERT's.
    borders: Option<Borders>,
}

/// A text ready for the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// The token ids, at most the model's limit, special tokens included.
    pub(crate) ids: Vec<u32>,
    /// Number of tokens before the cut, special tokens included.
    pub(crate) count: usize,
    /// Words that the vocabulary cannot spell, or that are longer than the tokenizer reads (100 characters), each of
    /// which is one unknown token; before the cut.
    pub(crate) unknown: usize,
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
        let unknown = match inner.get_model() {
            ModelWrapper::WordPiece(model) => inner.token_to_id(&model.unk_token),
            _ => None,
        };
        let borders = borders(&inner);
        Ok(Tokenizer { inner, prefix, suffix, tokens_max, unknown, borders })
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
        self.encode_while(text, PIECE_BYTES, &|| Ok(()))
    }

    /// [`Tokenizer::encode`] in pieces of about `piece_bytes`, between which it asks whether to go on.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; what `go_on` says.
    pub(crate) fn encode_while(
        &self,
        text: &str,
        piece_bytes: usize,
        go_on: GoOn<'_>,
    ) -> Result<Tokens, EncoderError> {
        let mut tokens = Tokens { ids: self.prefix.clone(), count: 0, unknown: 0 };
        let full = self.prefix.len() + self.room();
        for piece in self.pieces(text, piece_bytes) {
            if piece.start > 0 {
                go_on()?;
            }
            let encoding = self.inner.encode_fast(&text[piece], false).map_err(refused)?;
            let ids = encoding.get_ids();
            tokens.ids.extend(ids.iter().take(full - tokens.ids.len()));
            tokens.count += ids.len();
            tokens.unknown += ids.iter().filter(|id| Some(**id) == self.unknown).count();
        }
        tokens.ids.extend(&self.suffix);
        tokens.count += self.prefix.len() + self.suffix.len();
        Ok(tokens)
    }

    /// # Errors
    /// As [`Tokenizer::encode`].
    pub(crate) fn places(&self, text: &str) -> Result<TokenPlaces, EncoderError> {
        self.places_while(text, usize::MAX, PIECE_BYTES, &|| Ok(()))
    }

    /// [`Tokenizer::places`] in pieces of about `piece_bytes`, until there are more than `tokens_max` tokens.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; what `go_on` says.
    pub(crate) fn places_while(
        &self,
        text: &str,
        tokens_max: usize,
        piece_bytes: usize,
        go_on: GoOn<'_>,
    ) -> Result<TokenPlaces, EncoderError> {
        let mut places = TokenPlaces::default();
        for piece in self.pieces(text, piece_bytes) {
            if places.ranges.len() > tokens_max {
                break;
            }
            if piece.start > 0 {
                go_on()?;
            }
            let encoding = self.inner.encode(&text[piece.clone()], false).map_err(refused)?;
            let words = encoding.get_word_ids();
            // A piece begins with a word.
            places
                .begins_word
                .extend((0..words.len()).map(|i| i == 0 || words[i].is_none() || words[i] != words[i - 1]));
            let offsets = encoding.get_offsets().iter();
            places.ranges.extend(offsets.map(|&(start, end)| piece.start + start..piece.start + end));
        }
        Ok(places)
    }

    fn pieces<'a>(&'a self, text: &'a str, bytes: usize) -> Box<dyn Iterator<Item = Range<usize>> + 'a> {
        match &self.borders {
            Some(borders) if text.len() > bytes => Box::new(borders.pieces(text, bytes)),
            _ => Box::new(std::iter::once(0..text.len())),
        }
    }
}

/// Asked between the pieces of a long text.
pub(crate) type GoOn<'a> = &'a (dyn Fn() -> Result<(), EncoderError> + Sync);

/// Where texts for this tokenizer may be cut, if it is known to look at words alone.
fn borders(inner: &HfTokenizer) -> Option<Borders> {
    let ideographs = match inner.get_normalizer() {
        Some(NormalizerWrapper::BertNormalizer(normalizer)) => normalizer.handle_chinese_chars,
        None => false,
        Some(_) => return None,
    };
    let by_words = matches!(inner.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)))
        && matches!(inner.get_model(), ModelWrapper::WordPiece(_));
    let added = inner.get_added_tokens_decoder();
    let added = added.values().map(|token| (token.content.as_str(), token.single_word));
    by_words.then(|| Borders::new(ideographs, added)).flatten()
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn refused(e: tokenizers::Error) -> EncoderError {
    EncoderError::Failed { reason: format!("the tokenizer refused the text: {e}") }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    fn tiny() -> Tokenizer {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny/tokenizer.json");
        Tokenizer::open(&path, 100_000).unwrap()
    }

    /// Words, ideographs, marks, controls, rare white space, emoji, added tokens, and words that are too long.
    fn mixed() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[a-zA-Z]{1,9}",
            "[漢字書東京豈﨑]{1,6}",
            "[ \t\n\r\u{b}\u{c}\u{85}\u{a0}\u{2003}\u{2028}\u{3000}]{1,3}",
            "[.,;:!?'()\\[\\]#-]{1,3}",
            "[éÅßΣİﬁが한각]{1,3}",
            "[\u{300}\u{301}\u{323}\u{200b}\u{fe0f}\u{0}\u{fffd}]{1,3}",
            "[😀🙂🏽👍]{1,3}",
            Just("[SEP]".to_owned()),
            Just("[MASK]".to_owned()),
            "[a-z0-9]{95,105}",
            "\\PC{0,5}",
        ];
        prop::collection::vec(part, 0..30).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn a_text_in_pieces_has_the_tokens_and_places_of_the_whole(text in mixed(), piece_bytes in 1usize..200) {
            let tokenizer = tiny();
            let go_on: GoOn<'_> = &|| Ok(());
            prop_assert_eq!(
                tokenizer.encode_while(&text, piece_bytes, go_on).unwrap(),
                tokenizer.encode_while(&text, usize::MAX, go_on).unwrap()
            );
            let pieces = tokenizer.places_while(&text, usize::MAX, piece_bytes, go_on).unwrap();
            let whole = tokenizer.places_while(&text, usize::MAX, usize::MAX, go_on).unwrap();
            prop_assert_eq!(pieces.ranges, whole.ranges);
            prop_assert_eq!(pieces.begins_word, whole.begins_word);
        }
    }

    #[test]
    fn unknown_words_are_counted_wherever_they_stand() {
        let tokenizer = tiny();
        let long = "x".repeat(101);
        assert_eq!(tokenizer.encode(&format!("rain {long} river 😀 cat")).unwrap().unknown, 2);
        assert_eq!(tokenizer.encode("rain on the river").unwrap().unknown, 0);
        assert_eq!(tokenizer.encode(&format!("{long}, ").repeat(1000)).unwrap().unknown, 1000);
    }

    #[test]
    fn a_long_text_stops_when_nobody_waits_for_it() {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let go_on: GoOn<'_> = &|| match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 | 1 => Ok(()),
            _ => Err(EncoderError::Cancelled),
        };
        let text = "rain on the river ".repeat(100_000);
        let stopped = tiny().encode_while(&text, PIECE_BYTES, go_on);
        assert!(matches!(stopped, Err(EncoderError::Cancelled)));
    }

    /// Prints how fast kinds of text are tokenized: `cargo test --release --lib tokenizing_speed -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn tokenizing_speed() {
        let path = std::env::var("DISTILFACE_TOKENIZER").unwrap_or_else(|_| {
            concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny/tokenizer.json").to_owned()
        });
        let tokenizer = Tokenizer::open(Path::new(&path), 256).unwrap();
        let mebibyte = |part: &str| part.repeat((1 << 20) / part.len());
        for (name, text) in [
            ("cjk", mebibyte("天地玄黄宇宙洪荒日月盈昃辰宿列張")),
            ("english", mebibyte("Rain fell on the river while the old boats waited for morning. ")),
            ("one word", mebibyte("abcdefghij")),
            ("emoji", mebibyte("😀🙂👍")),
            ("hex", mebibyte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef ")),
            ("2 KiB english", "Rain fell on the river. ".repeat(85)),
        ] {
            for (way, bytes) in [("whole", usize::MAX), ("pieces", PIECE_BYTES)] {
                let started = Instant::now();
                let tokens = tokenizer.encode_while(&text, bytes, &|| Ok(())).unwrap();
                let encode = started.elapsed().as_secs_f64();
                let started = Instant::now();
                tokenizer.places_while(&text, usize::MAX, bytes, &|| Ok(())).unwrap();
                let places = started.elapsed().as_secs_f64();
                println!(
                    "{name}, {way}: {} tokens, ids {:.3} s ({:.2} MB/s), places {:.3} s ({:.2} MB/s)",
                    tokens.count,
                    encode,
                    text.len() as f64 / encode / 1e6,
                    places,
                    text.len() as f64 / places / 1e6
                );
            }
        }
    }
}
