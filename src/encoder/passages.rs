//! Long texts and their titles become passages that the model takes whole.
//!
//! Where sentences end is `chunk`'s matter; how many tokens a passage may have, beside its title and the prompt, is
//! decided here.

use std::{borrow::Cow, ops::Range};

use serde::{Deserialize, Serialize};

use super::{Encoder, EncoderError, Limits, chunk, pieces::PIECE_BYTES, tokenize::TokenPlaces};

/// Most tokens of a title that are encoded in front of each passage.
pub const TITLE_TOKENS_MAX: usize = 64;
/// The share of a passage that its title may take: one in so many tokens.
pub const TITLE_SHARE: usize = 4;

/// Limits for cutting long texts into passages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunking {
    /// Tokens per passage, special tokens not counted; clamped to what the model takes.
    pub max_tokens: usize,
    /// Tokens shared with the passage before, in whole sentences; below `max_tokens`.
    pub overlap_tokens: usize,
}

impl Encoder {
    /// The text that is encoded for a passage: the title stands in front, as in retrieval benchmarks (BEIR, Thakur et
    /// al. 2021).
    /// `title` is what [`Encoder::short_title`] leaves of it, so that there is room for the passage.
    pub fn passage_text<'a>(title: &str, passage: &'a str) -> Cow<'a, str> {
        if title.is_empty() || passage.starts_with(title) {
            Cow::Borrowed(passage)
        } else if passage.is_empty() {
            Cow::Owned(title.to_owned())
        } else {
            Cow::Owned(format!("{title} {passage}"))
        }
    }

    /// The beginning of `title` that is encoded in front of every passage of `text`: whole words, at most a quarter of a
    /// passage and at most [`TITLE_TOKENS_MAX`] tokens. A title without a text is what is encoded, and stays whole.
    ///
    /// # Errors
    /// [`EncoderError::Failed`].
    pub fn short_title<'a>(
        &self,
        title: &'a str,
        text: &str,
        chunking: Option<Chunking>,
    ) -> Result<&'a str, EncoderError> {
        let window = chunking.map_or(self.room(), |chunking| chunking.max_tokens.min(self.room()));
        let tokens_max = (window / TITLE_SHARE).clamp(1, TITLE_TOKENS_MAX);
        // A token has at least one byte.
        if title.len() <= tokens_max || text.is_empty() {
            return Ok(title);
        }
        let places = self.parts.tokenizer.places_while(title, tokens_max, PIECE_BYTES, &|| Ok(()))?;
        if places.ranges.len() <= tokens_max {
            return Ok(title);
        }
        let last = (1..=tokens_max).rev().find(|&token| places.begins_word[token]).unwrap_or(tokens_max);
        Ok(title[..title.floor_char_boundary(places.ranges[last].start)].trim_end())
    }

    /// Cuts `text` into passages of whole sentences (or words, where a sentence is too long): byte ranges, in order,
    /// that together cover everything but white space. A short text gives one range; an empty one gives `0..0`.
    /// Room is kept for the document prompt and for the title, as [`Encoder::short_title`] leaves it, which are encoded
    /// in front of every passage.
    ///
    /// # Errors
    /// [`EncoderError::Chunking`] if the overlap is not below the maximum or the maximum is 0;
    /// [`EncoderError::Expired`] and [`EncoderError::Cancelled`] if nobody waits any more.
    pub fn chunk(
        &self,
        title: &str,
        text: &str,
        chunking: Chunking,
        limits: &Limits,
    ) -> Result<Vec<Range<usize>>, EncoderError> {
        let Chunking { max_tokens, overlap_tokens } = chunking;
        if max_tokens == 0 || overlap_tokens >= max_tokens {
            return Err(EncoderError::Chunking {
                reason: format!(
                    "max_tokens must be above 0 and above overlap_tokens; got {max_tokens} and {overlap_tokens}"
                ),
            });
        }
        let window = max_tokens.min(self.room());
        let mut room = window;
        for front in [title, &self.model.manifest.prompts.document] {
            if !front.is_empty() {
                room = room.saturating_sub(self.parts.tokenizer.places(front)?.ranges.len());
            }
        }
        // A title takes a quarter at most; a prompt that leaves nothing would make passages of single tokens.
        let room = room.max(window / 2).max(1);
        // A token has at least one byte, so most short texts need no look at their tokens.
        if text.len() <= room {
            return Ok(chunk::passages(text, &TokenPlaces::default(), room, 0));
        }
        let places = self.parts.tokenizer.places_while(text, usize::MAX, PIECE_BYTES, &|| limits.check())?;
        Ok(chunk::passages(text, &places, room, overlap_tokens.min(room - 1)))
    }
}
