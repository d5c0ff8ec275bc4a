//! The last stage makes hits of candidates; each part is counted before it is read.
//!
//! A document's head says how long its text is, so an answer that would be too large is refused with the limit's name
//! and its texts stay on disk. [`Reads`] is what the searches of one request have in common: a document that several of
//! them found is read once, and its hits share title, payload and passage.
//! Leaves out what is found (the stages before) and how it goes over the wire.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use super::{SearchQuery, candidate::Candidate};
use crate::{
    budget::Room,
    collection::{
        CollectionError, Shared,
        document::{FRAME_BYTES, Size, payload_size},
        point::Hit,
        slots::version,
    },
    segmented::Snapshot,
    stop::Stop,
    store::Identity,
    value::Payload,
};

/// A document, by its collection's identity and its number in the store. Numbers are never used again.
/// The address of a collection would not do: one that was closed meanwhile leaves it to the next that is opened.
type Key = (Identity, u64);

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
}

impl Reads {
    /// For one request, whose answers take their place in `room`.
    pub fn new(room: Arc<Room>) -> Self {
        Reads { room, documents: Mutex::default(), passages: Mutex::default() }
    }

    /// Where the answers take their place.
    pub fn room(&self) -> &Room {
        &self.room
    }

    fn document(
        &self,
        shared: &Shared,
        documents: &Snapshot,
        number: u64,
        with_payload: bool,
    ) -> Result<Arc<Document>, CollectionError> {
        let key = key(shared, number);
        let known = lock(&self.documents).get(&key).cloned();
        if let Some(document) = known.filter(|document| !with_payload || document.payload.is_some()) {
            return Ok(document);
        }
        let body = shared.read_head(documents, number)?.body;
        let size = if with_payload { payload_size(&body.payload) } else { Size::default() };
        self.room.keep(
            body.title.len() + size.bytes + body.passages.len() * size_of::<Range<u32>>(),
            size.values,
        )?;
        let document = Arc::new(Document {
            title: body.title.into(),
            payload: with_payload.then(|| (Arc::new(body.payload), size)),
            passages: body.passages,
        });
        lock(&self.documents).insert(key, Arc::clone(&document));
        Ok(document)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(shared: &Shared, number: u64) -> Key {
    (shared.store.identity(), number)
}

/// The hits of one search, in the order of the candidates, from the snapshot in which they were found.
///
/// # Errors
/// [`CollectionError::Budget`], [`CollectionError::Stopped`]; store errors.
pub(super) fn fetch(
    shared: &Shared,
    query: &SearchQuery,
    (candidates, documents): (Vec<Candidate>, &Snapshot),
    stop: &Stop,
    reads: &Reads,
) -> Result<Vec<Hit>, CollectionError> {
    // Hits of one document are read one after the other, so that its text is unpacked once, and is the only one.
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|&place| candidates[place].doc);
    let mut candidates: Vec<Option<Candidate>> = candidates.into_iter().map(Some).collect();
    let mut hits: Vec<Option<Hit>> = candidates.iter().map(|_| None).collect();
    let mut text: Option<(u64, String)> = None;
    for place in order {
        stop.check()?;
        let Some(candidate) = candidates[place].take() else { continue };
        let Candidate { doc: number, id, ordinal, score, sources } = candidate;
        let document = reads.document(shared, documents, number, query.with_payload)?;
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
            let key = (key(shared, number), ordinal);
            let known = lock(&reads.passages).get(&key).cloned();
            match known {
                Some(passage) => passage,
                None => {
                    if text.as_ref().is_none_or(|(of, _)| *of != number) {
                        // The one before goes first.
                        drop(text.take());
                        text = Some((number, shared.read_text(documents, number)?));
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
        let version = version(number);
        hits[place] = Some(Hit { id, score, title, ordinal, range, passage, payload, version, sources });
    }
    Ok(hits.into_iter().flatten().collect())
}
