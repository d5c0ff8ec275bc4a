//! A document as a user sends it, and what a write did with it.

use crate::{collection::Condition, value::Payload};

/// A document as a user sends it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Document {
    /// Its id: 1 to [`crate::value::ID_BYTES_MAX`] bytes. A stored document of this id is replaced.
    pub id: String,
    /// Its title, encoded in front of every passage. Default: empty.
    pub title: String,
    /// Its text, at most `limits.text_bytes_max` bytes with the title. Default: empty.
    pub text: String,
    /// Its typed fields, at most `limits.payload_bytes_max` bytes. Default: none.
    pub payload: Payload,
    /// Its vector, where the collection takes vectors only. Default: none.
    pub vector: Option<Vec<f32>>,
    /// What must be stored under its id at the moment of the write. Default [`Condition::Any`].
    pub condition: Condition,
}

/// A stored document that a change is meant for. An id alone is any version of it.
///
/// ```
/// # use distilface::engine::{Caller, Engine, EngineError, Target};
/// # async fn delete(engine: &Engine, version: u64) -> Result<(), EngineError> {
/// // Whatever version it has; then only the version that was read.
/// engine.delete("places", vec!["east".into()], Caller::default()).await?;
/// let north = Target { id: "north".into(), expected_version: Some(version) };
/// engine.delete("places", vec![north], Caller::default()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// The document's id.
    pub id: String,
    /// The version that the document must have at the moment of the change, 1 or more. Default: any.
    pub expected_version: Option<u64>,
}

impl Target {
    pub(super) fn condition(&self) -> Condition {
        self.expected_version.map_or(Condition::Any, Condition::Version)
    }
}

impl<I: Into<String>> From<I> for Target {
    fn from(id: I) -> Self {
        Target { id: id.into(), expected_version: None }
    }
}

/// The result of writing one document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentOutcome {
    /// The document's id.
    pub id: String,
    /// What the write did.
    pub status: WriteStatus,
    /// Passages that were written; 0 where nothing was done.
    pub passages: u32,
    /// Tokens that were encoded, special tokens included; 0 where the vectors were kept.
    pub tokens: u32,
    /// Whether some text lies past the model's limit and was not encoded.
    pub truncated: bool,
    /// Whether only the beginning of the title was encoded; the text was not shortened for it.
    pub title_truncated: bool,
    /// Words of its passages that the model reads as one unknown token each: they have more than 100 characters, or the
    /// vocabulary cannot spell them. Nothing finds a document by such a word.
    pub unknown_tokens: u32,
    /// Version of the document as it is stored after the write, also where nothing was done; see
    /// [`crate::collection::point::Revision::version`].
    pub version: u64,
}

/// The effect of a write on one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteStatus {
    /// The document is new.
    Inserted,
    /// The document replaced one of its id.
    Updated,
    /// The same document was stored already; nothing was written.
    Unchanged,
}
