//! A collection holds points with payloads, and answers with hits.

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

/// Which state of a document is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    /// 1 or more. Each write that changes a document gives it a larger version than any document of its collection ever
    /// had, so that none is given out twice, also after the document was deleted or the collection opened again.
    pub version: u64,
    /// Hash of the content that it was made from.
    pub content_hash: ContentHash,
}

/// A vector and the bytes of the document's text that it stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage {
    /// Bytes of [`Point::text`].
    pub range: Range<u32>,
    /// The passage's vector, in the collection's metric.
    pub vector: Vector,
}

/// A document with its passages: written, replaced and deleted as one unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The document's id.
    pub id: PointId,
    /// The title; may be empty.
    pub title: String,
    /// The text; may be empty.
    pub text: String,
    /// The typed fields; may be empty.
    pub payload: Payload,
    /// Hash of the content: a point of the same hash is not written again.
    pub content_hash: ContentHash,
    /// In the order of the text; at least one.
    pub passages: Vec<Passage>,
}

/// A document as it could be written again, and which state of it that is.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned {
    /// The document.
    pub point: Point,
    /// See [`Revision::version`].
    pub version: u64,
}

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPoint {
    /// The document's id.
    pub id: PointId,
    /// The title; may be empty.
    pub title: String,
    /// Empty if it was not asked for.
    pub text: String,
    /// The typed fields; may be empty.
    pub payload: Arc<Payload>,
    /// Hash of the content that it was made from.
    pub content_hash: ContentHash,
    /// Bytes of the text, one range per passage.
    pub passages: Vec<Range<u32>>,
    /// Which state of the document this is; see [`Revision::version`].
    pub version: u64,
    /// When it was last written, in microseconds since 1970.
    pub updated_at: i64,
    /// First passage's vector, if asked for.
    pub vector: Option<Vec<f32>>,
}

/// One answer of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The document's id.
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
    /// Which state of the document was found; see [`Revision::version`].
    pub version: u64,
    /// Which retrievers found it; at least one.
    pub sources: Vec<Source>,
}
