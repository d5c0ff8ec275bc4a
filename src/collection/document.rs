//! Reads what is answered of a stored document; its size is counted before it is read.

use std::sync::Arc;

use super::{
    CollectionError, Shared,
    point::{ContentHash, StoredPoint},
    slots::version,
};
use crate::{
    budget::Room,
    segmented::{Head, Snapshot},
    store::body::Body,
    value::{Payload, Value},
};

/// A page of documents closes early at this size, below the 4 MiB that gRPC clients take unless told otherwise.
pub const PAGE_BYTES: usize = 2 << 20;

/// What every document or hit takes of an answer besides its texts and values.
pub(super) const FRAME_BYTES: usize = 16;

/// How much of an answer something takes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) bytes: usize,
    pub(super) values: usize,
}

/// A document whose head was read and whose text was not.
pub(super) struct Opened<'a> {
    documents: &'a Snapshot,
    number: u64,
    head: Head,
    vector: Option<Vec<f32>>,
    with_text: bool,
}

impl<'a> Opened<'a> {
    /// Reads the head of a document; its vector was copied from memory.
    pub(super) fn read(
        shared: &Shared,
        documents: &'a Snapshot,
        number: u64,
        with_text: bool,
        vector: Option<Vec<f32>>,
    ) -> Result<Self, CollectionError> {
        let head = shared.read_head(documents, number)?;
        Ok(Opened { documents, number, head, vector, with_text })
    }

    /// What the whole document takes of an answer.
    pub(super) fn size(&self) -> Size {
        let body = &self.head.body;
        let size = payload_size(&body.payload);
        let text_bytes = if self.with_text { self.head.text_bytes() } else { 0 };
        let vector_bytes = self.vector.as_ref().map_or(0, |vector| size_of_val(vector.as_slice()));
        let texts = body.id.as_str().len() + body.title.len() + text_bytes;
        Size {
            bytes: FRAME_BYTES + texts + size.bytes + vector_bytes,
            values: size.values + body.passages.len(),
        }
    }

    /// The whole document, once it has its place in `room`.
    pub(super) fn point(self, shared: &Shared, room: &Room) -> Result<StoredPoint, CollectionError> {
        let Size { bytes, values } = self.size();
        room.take(bytes, values)?;
        let text =
            if self.with_text { shared.read_text(self.documents, self.number)? } else { String::new() };
        let Body { id, title, payload, content_hash, passages, updated_at } = self.head.body;
        let content_hash = ContentHash(content_hash);
        let (payload, vector, version) = (Arc::new(payload), self.vector, version(self.number));
        Ok(StoredPoint { id, title, text, payload, content_hash, passages, version, updated_at, vector })
    }
}

/// A lower bound of what a payload takes of an answer.
pub(super) fn payload_size(payload: &Payload) -> Size {
    fn bytes(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len(),
            Value::List(values) => values.iter().map(|value| 4 + bytes(value)).sum(),
            Value::Float(_) => 8,
            Value::Integer(_) | Value::Datetime(_) | Value::Bool(_) => 1,
        }
    }
    let values = payload.values().map(|value| if let Value::List(list) = value { list.len() + 1 } else { 1 });
    Size {
        bytes: payload.iter().map(|(field, value)| 6 + field.len() + bytes(value)).sum(),
        values: values.sum(),
    }
}
