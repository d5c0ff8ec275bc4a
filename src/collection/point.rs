//! What a collection holds: points with payloads, and the hits that come back.

use std::{ops::Range, sync::Arc};

use serde::{Deserialize, Serialize};

use super::Source;
use crate::{
    value::{Payload, PointId},
    vector::Vector,
};

/// Hash of everything that was sent for a document (title, text, payload, vector) and of how it is cut and encoded:
/// equal hash, nothing to do. First 16 bytes of SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContentHash(pub [u8; 16]);

/// A vector and the bytes of the document's text that it stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage {
    /// Bytes of [`Point::text`].
    pub range: Range<u32>,
    #[expect(missing_docs)]
    pub vector: Vector,
}

/// A document with its passages: written, replaced and deleted as one unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    #[expect(missing_docs)]
    pub id: PointId,
    #[expect(missing_docs)]
    pub title: String,
    #[expect(missing_docs)]
    pub text: String,
    #[expect(missing_docs)]
    pub payload: Payload,
    #[expect(missing_docs)]
    pub content_hash: ContentHash,
    /// In the order of the text; at least one.
    pub passages: Vec<Passage>,
}

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPoint {
    #[expect(missing_docs)]
    pub id: PointId,
    #[expect(missing_docs)]
    pub title: String,
    /// Empty if it was not asked for.
    pub text: String,
    #[expect(missing_docs)]
    pub payload: Arc<Payload>,
    #[expect(missing_docs)]
    pub content_hash: ContentHash,
    /// Bytes of the text, one range per passage.
    pub passages: Vec<Range<u32>>,
    /// Microseconds since 1970.
    pub updated_at: i64,
    /// First passage's vector, if asked for.
    pub vector: Option<Vec<f32>>,
}

/// One answer of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    #[expect(missing_docs)]
    pub id: PointId,
    /// Larger is better; see [`crate::vector::Metric::score`].
    pub score: f32,
    /// Shared by all hits of the document in one request, like the passage and the payload.
    pub title: Arc<str>,
    /// Which passage was nearest.
    pub ordinal: u32,
    /// Bytes of the document's text.
    pub range: Range<u32>,
    /// The passage's text; empty if it was not asked for.
    pub passage: Arc<str>,
    /// Empty if it was not asked for.
    pub payload: Arc<Payload>,
    /// Which retrievers found it; at least one.
    pub sources: Vec<Source>,
}
