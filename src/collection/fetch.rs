//! Documents that were found -> what is answered of them, each part counted before it is read.
//!
//! A document's head says how long its text is, so an answer that would be too large is refused with the limit's name
//! and its texts stay on disk. [`Reads`] is what the searches of one request have in common: a document that several of
//! them found is read once, and its hits share title, payload and passage.
//! Leaves out what is found (`search.rs`) and how it goes over the wire.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    CollectionError, Query, Shared,
    body::Body,
    point::{Hit, StoredPoint},
    search::Found,
};
use crate::{
    budget::Room,
    store::Head,
    value::{Payload, Value},
};

/// A page of documents closes early at this size, below the 4 MiB that gRPC clients take unless told otherwise.
pub const PAGE_BYTES: usize = 2 << 20;

/// What every document or hit takes of an answer besides its texts and values.
const FRAME_BYTES: usize = 16;

/// A document, by its collection's address and its number there. Numbers are never used again.
type Key = (usize, u32);

/// What the searches of one request have read, and the room for their answers.
#[derive(Debug)]
pub struct Reads {
    room: Arc<Room>,
    documents: Mutex<HashMap<Key, Arc<Document>>>,
    passages: Mutex<HashMap<(Key, u32), Arc<str>>>,
}

/// What hits show of a document.
#[derive(Debug)]
struct Document {
    title: Arc<str>,
    /// `None`: nobody asked for it yet.
    payload: Option<(Arc<Payload>, Size)>,
    passages: Vec<Range<u32>>,
    head: Head,
}

/// How much of an answer something takes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) bytes: usize,
    pub(super) values: usize,
}

impl Reads {
    /// For one request, whose answers take their place in `room`.
    pub fn new(room: Arc<Room>) -> Self {
        Reads { room, documents: Mutex::default(), passages: Mutex::default() }
    }

    fn document(
        &self,
        shared: &Shared,
        doc: u32,
        with_payload: bool,
    ) -> Result<Arc<Document>, CollectionError> {
        let key = key(shared, doc);
        let known = lock(&self.documents).get(&key).cloned();
        if let Some(document) = known.filter(|document| !with_payload || document.payload.is_some()) {
            return Ok(document);
        }
        let (mut head, body) = shared.read_head(doc)?;
        head.body = Vec::new();
        let size = if with_payload { payload_size(&body.payload) } else { Size::default() };
        self.room.keep(
            body.title.len() + size.bytes + body.passages.len() * size_of::<Range<u32>>(),
            size.values,
        )?;
        let document = Arc::new(Document {
            title: body.title.into(),
            payload: with_payload.then(|| (Arc::new(body.payload), size)),
            passages: body.passages,
            head,
        });
        lock(&self.documents).insert(key, Arc::clone(&document));
        Ok(document)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(shared: &Shared, doc: u32) -> Key {
    (std::ptr::from_ref(shared).addr(), doc)
}

/// The hits of one search, in the order they were found.
pub(super) fn hits(
    shared: &Shared,
    query: &Query,
    found: Vec<Found>,
    reads: &Reads,
) -> Result<Vec<Hit>, CollectionError> {
    // Hits of one document are read one after the other, so that its text is unpacked once, and is the only one.
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by_key(|&place| found[place].doc);
    let mut hits: Vec<Option<Hit>> = found.iter().map(|_| None).collect();
    let mut text: Option<(u32, String)> = None;
    for place in order {
        query.stop.check()?;
        let Found { doc, id, ordinal, score } = found[place].clone();
        let document = reads.document(shared, doc, query.with_payload)?;
        let range = document.passages.get(ordinal as usize).cloned().unwrap_or(0..0);
        let (payload, size) = match &document.payload {
            Some((payload, size)) if query.with_payload => (Arc::clone(payload), *size),
            _ => Default::default(),
        };
        let passage_bytes = if query.with_text { range.len() } else { 0 };
        let bytes = FRAME_BYTES + id.as_str().len() + document.title.len() + passage_bytes + size.bytes;
        reads.room.take(bytes, size.values)?;
        let passage: Arc<str> = if passage_bytes == 0 {
            Arc::default()
        } else {
            let key = (key(shared, doc), ordinal);
            let known = lock(&reads.passages).get(&key).cloned();
            match known {
                Some(passage) => passage,
                None => {
                    if text.as_ref().is_none_or(|(of, _)| *of != doc) {
                        // The one before goes first.
                        drop(text.take());
                        text = Some((doc, shared.store.text(doc, &document.head)?));
                    }
                    let whole = text.as_ref().map_or("", |(_, text)| text);
                    let passage: Arc<str> =
                        whole.get(range.start as usize..range.end as usize).unwrap_or_default().into();
                    lock(&reads.passages).insert(key, Arc::clone(&passage));
                    passage
                }
            }
        };
        let title = Arc::clone(&document.title);
        hits[place] = Some(Hit { id, score, title, ordinal, range, passage, payload });
    }
    Ok(hits.into_iter().flatten().collect())
}

/// A document whose head was read and whose text was not.
pub(super) struct Opened {
    doc: u32,
    head: Head,
    body: Body,
    vector: Option<Vec<f32>>,
    with_text: bool,
}

impl Opened {
    /// Reads the head of a document; its vector was copied from memory.
    pub(super) fn read(
        shared: &Shared,
        doc: u32,
        with_text: bool,
        vector: Option<Vec<f32>>,
    ) -> Result<Self, CollectionError> {
        let (head, body) = shared.read_head(doc)?;
        Ok(Opened { doc, head, body, vector, with_text })
    }

    /// What the whole document takes of an answer.
    pub(super) fn size(&self) -> Size {
        let size = payload_size(&self.body.payload);
        let text_bytes = if self.with_text { self.head.text_bytes() } else { 0 };
        let vector_bytes = self.vector.as_ref().map_or(0, |vector| size_of_val(vector.as_slice()));
        let texts = self.body.id.as_str().len() + self.body.title.len() + text_bytes;
        Size {
            bytes: FRAME_BYTES + texts + size.bytes + vector_bytes,
            values: size.values + self.body.passages.len(),
        }
    }

    /// The whole document, once it has its place in `room`.
    pub(super) fn point(self, shared: &Shared, room: &Room) -> Result<StoredPoint, CollectionError> {
        let Size { bytes, values } = self.size();
        room.take(bytes, values)?;
        let text = if self.with_text { shared.store.text(self.doc, &self.head)? } else { String::new() };
        let Body { id, title, payload, content_hash, passages, updated_at } = self.body;
        let (payload, vector) = (Arc::new(payload), self.vector);
        Ok(StoredPoint { id, title, text, payload, content_hash, passages, updated_at, vector })
    }
}

/// A lower bound of what a payload takes of an answer.
fn payload_size(payload: &Payload) -> Size {
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
