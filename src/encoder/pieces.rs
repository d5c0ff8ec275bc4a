//! Cuts a long text into pieces whose tokens, put together, are the tokens of the whole text.
//!
//! A tokenizer needs many times a text's bytes in memory and cannot be stopped, so long texts go to it piece by piece.
//! A text may be cut in front of a character that always begins a new word, whatever stands on either side of it: white
//! space, an ideograph (where the tokenizer sets those apart), and ASCII punctuation that no added token contains.
//! Time is linear in the text: a search for a border begins where the piece is long enough and never goes back.
//! Deliberately left out: the space inside one word without a border. Such a word is one piece, however long it is.

use std::ops::Range;

/// Bytes after which a piece ends at the next border.
pub(super) const PIECE_BYTES: usize = 16 << 10;

/// The characters in front of which a tokenizer's input may be cut.
#[derive(Debug)]
pub(super) struct Borders {
    ideographs: bool,
    punctuation: [bool; 128],
}

impl Borders {
    /// For a tokenizer that splits words at white space and at punctuation. `ideographs` says whether each ideograph is
    /// a word of its own; `added` are the tokens that are found in the text before it is split into words.
    ///
    /// `None` where an added token holds white space or an ideograph, or asks what stands beside it: then a cut could
    /// change it.
    pub(super) fn new<'a>(ideographs: bool, added: impl Iterator<Item = (&'a str, bool)>) -> Option<Self> {
        let mut punctuation: [bool; 128] =
            std::array::from_fn(|byte| u8::try_from(byte).is_ok_and(|byte| byte.is_ascii_punctuation()));
        for (content, single_word) in added {
            if single_word || content.chars().any(|c| c.is_whitespace() || is_ideograph(c)) {
                return None;
            }
            for byte in content.bytes().filter(u8::is_ascii) {
                punctuation[usize::from(byte)] = false;
            }
        }
        Some(Borders { ideographs, punctuation })
    }

    /// Byte ranges of at least `bytes` each but for the last, in order, which together are the whole text.
    /// An empty text is one empty piece.
    pub(super) fn pieces<'a>(
        &'a self,
        text: &'a str,
        bytes: usize,
    ) -> impl Iterator<Item = Range<usize>> + 'a {
        let mut next = Some(0usize);
        std::iter::from_fn(move || {
            let start = next?;
            let end = self.end(text, start.saturating_add(bytes.max(1)));
            next = (end < text.len()).then_some(end);
            Some(start..end)
        })
    }

    /// The first border at or behind byte `from`.
    fn end(&self, text: &str, from: usize) -> usize {
        if from >= text.len() {
            return text.len();
        }
        let from = (from..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
        text[from..].char_indices().find(|&(_, c)| self.begins(c)).map_or(text.len(), |(at, _)| from + at)
    }

    /// Only what every step of the tokenizer takes for a border: a form feed, for one, is removed as a control
    /// character before words are looked for.
    fn begins(&self, c: char) -> bool {
        match c {
            ' ' | '\t' | '\n' | '\r' | '\u{a0}' | '\u{3000}' => true,
            c if c.is_ascii() => self.punctuation[c as usize],
            c => self.ideographs && is_ideograph(c),
        }
    }
}

/// The blocks that BERT's normaliser sets apart, one character a word.
fn is_ideograph(c: char) -> bool {
    matches!(
        u32::from(c),
        0x4E00..=0x9FFF
            | 0x3400..=0x4DBF
            | 0x20000..=0x2A6DF
            | 0x2A700..=0x2B73F
            | 0x2B740..=0x2B81F
            | 0x2B920..=0x2CEAF
            | 0xF900..=0xFAFF
            | 0x2F800..=0x2FA1F
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, bytes: usize) -> Vec<&str> {
        let borders = Borders::new(true, [("[SEP]", false)].into_iter()).unwrap();
        borders.pieces(text, bytes).map(|piece| &text[piece]).collect()
    }

    #[test]
    fn pieces_end_at_the_first_border_behind_their_length() {
        assert_eq!(cut("", 4), [""]);
        assert_eq!(cut("rain", 4), ["rain"]);
        assert_eq!(cut("raining cats. No, dogs", 4), ["raining", " cats", ". No", ", dogs"]);
        assert_eq!(cut("漢字漢字", 4), ["漢字", "漢字"]);
        // An added token is whole, and a character is never cut.
        assert_eq!(cut("ab[SEP]cd", 1), ["ab[SEP]cd"]);
        assert_eq!(cut("äöü😀😀 😀", 1), ["äöü😀😀", " 😀"]);
    }

    #[test]
    fn a_tokenizer_whose_added_tokens_span_words_has_no_borders() {
        assert!(Borders::new(true, [("two words", false)].into_iter()).is_none());
        assert!(Borders::new(true, [("漢", false)].into_iter()).is_none());
        assert!(Borders::new(true, [("<x>", true)].into_iter()).is_none());
    }
}
