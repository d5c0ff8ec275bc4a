//! Fields of stored documents changed in place: titles, texts, passages and vectors stay, and nothing is encoded.
//!
//! Each document is one unit, read, changed and written back only if nobody changed it meanwhile; if somebody did, it is
//! read again. The documents of a call are changed one after the other: one that fails does not stop the rest.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{
    Caller, CollectionInfo, DocumentOutcome, Engine, EngineError, WriteStatus,
    documents::{Content, content_hash},
    error::Result,
    fields::FieldNames,
};
use crate::{
    collection::{CollectionError, Write, point::Point},
    value::{
        Payload, PointId,
        payload::{payload_bytes, validate_payload},
    },
};

/// Bytes of texts, vectors and fields after which a portion of a call is written, so that a call of many long documents needs little memory.
const PORTION_BYTES: usize = 4 << 20;
/// How often a portion is tried again after another writer changed one of its documents.
const ATTEMPTS: usize = 32;

/// What is changed in a document's payload.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PayloadChange {
    /// Fields that get these values, new or not.
    pub set: Payload,
    /// Fields that go; one that is not there is no error. None of them may be in `set`.
    pub remove: Vec<String>,
    /// `set` becomes the whole payload. `remove` must be empty then. Default false: other fields stay.
    pub replace: bool,
}

/// What became of one document of [`Engine::set_payload`]; `None` if it is not there.
pub type PayloadOutcome = Option<Result<DocumentOutcome>>;

impl Engine {
    /// Changes fields of stored documents, in the order of `ids`; an outcome for each. Answered when durable.
    /// An outcome's `passages` are the document's, and its `tokens` are 0: nothing is encoded.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`], [`EngineError::OutOfRange`], [`EngineError::BadRequest`]; bad ids; store errors,
    /// after which the first of the documents may be changed.
    pub async fn set_payload(
        &self,
        collection: &str,
        ids: Vec<String>,
        change: PayloadChange,
        caller: Caller,
    ) -> Result<Vec<PayloadOutcome>> {
        self.check_open()?;
        change.check()?;
        let ids = self.ids(&ids)?;
        let mut distinct = BTreeSet::new();
        if let Some(twice) = ids.iter().find(|id| !distinct.insert(*id)) {
            return Err(CollectionError::DuplicateId { id: twice.as_str().to_owned() }.into());
        }
        let open = Arc::clone(self.names().now().find(collection)?);
        let backend = self.backend(&open);
        let (change, mut left) = (Arc::new(change), VecDeque::from(ids));
        let limits = &self.config().limits;
        let (payload_bytes_max, names_max) = (limits.payload_bytes_max, limits.field_names_max);
        let mut outcomes = Vec::with_capacity(left.len());
        let mut attempts = 0;
        while !left.is_empty() {
            if caller.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                let (done, total) = (outcomes.len(), outcomes.len() + left.len());
                return Err(EngineError::UnfinishedPayload { done, total });
            }
            let ids: Vec<PointId> = left.iter().cloned().collect();
            let stored = backend.points(ids.clone(), PORTION_BYTES).await?;
            let names = change.set.keys().cloned().collect();
            let fields = FieldNames::ask(&*backend, names, names_max).await?;
            let (task, task_change) = (Arc::clone(&open), Arc::clone(&change));
            let documents = ids.into_iter().zip(stored).collect();
            let planned = move || plan(&task.info, documents, fields, &task_change, payload_bytes_max);
            let portion = self.pools().work(planned).await??;
            let Portion { outcomes: planned, writes } = portion;
            if !writes.is_empty() {
                match backend.write(writes).await {
                    Err(EngineError::Collection(CollectionError::Changed { .. })) if attempts < ATTEMPTS => {
                        attempts += 1;
                        continue;
                    }
                    written => drop(written?),
                }
            }
            attempts = 0;
            left.drain(..planned.len());
            outcomes.extend(planned);
        }
        Ok(outcomes)
    }
}

impl PayloadChange {
    fn check(&self) -> Result<(), EngineError> {
        let both = self.remove.iter().find(|field| self.set.contains_key(*field));
        let reason = if let Some(field) = both {
            format!("field {field:?} is both set and removed; name it once")
        } else if self.replace && !self.remove.is_empty() {
            "replace removes every field that is not set; leave the fields to remove out".to_owned()
        } else if !self.replace && self.set.is_empty() && self.remove.is_empty() {
            "nothing is to be changed; set or remove a field, or replace the whole payload".to_owned()
        } else {
            return Ok(());
        };
        Err(EngineError::BadRequest { reason })
    }

    fn apply(&self, payload: &Payload) -> Payload {
        if self.replace {
            return self.set.clone();
        }
        let mut payload = payload.clone();
        payload.retain(|field, _| !self.remove.contains(field));
        payload.extend(self.set.iter().map(|(field, value)| (field.clone(), value.clone())));
        payload
    }
}

/// The first of some documents, as many as make a portion.
struct Portion {
    outcomes: Vec<PayloadOutcome>,
    writes: Vec<Write>,
}

fn plan(
    info: &CollectionInfo,
    documents: Vec<(PointId, Result<Option<Point>>)>,
    mut fields: FieldNames,
    change: &PayloadChange,
    payload_bytes_max: usize,
) -> Result<Portion> {
    let mut portion = Portion { outcomes: Vec::new(), writes: Vec::new() };
    let mut bytes = 0;
    for (id, stored) in documents {
        if bytes >= PORTION_BYTES {
            break;
        }
        let Some(stored) = stored? else {
            portion.outcomes.push(None);
            continue;
        };
        bytes += stored.text.len() + size_of::<f32>() * info.dimension as usize * stored.passages.len();
        let mut outcome = DocumentOutcome {
            id: id.as_str().to_owned(),
            status: WriteStatus::Unchanged,
            passages: u32::try_from(stored.passages.len()).unwrap_or(u32::MAX),
            tokens: 0,
            truncated: false,
            title_truncated: false,
            unknown_tokens: 0,
        };
        let payload = change.apply(&stored.payload);
        bytes += payload_bytes(&stored.payload) + payload_bytes(&payload);
        let checked = validate_payload(id.as_str(), &payload, payload_bytes_max)
            .and_then(|()| fields.admit(&id, &payload));
        if let Err(error) = checked {
            portion.outcomes.push(Some(Err(error.into())));
            continue;
        }
        if payload != stored.payload {
            outcome.status = WriteStatus::Updated;
            // Where vectors are sent, the one vector is part of what was sent.
            let vector = stored.passages.first().filter(|_| info.model.is_none());
            let content = Content {
                title: &stored.title,
                text: &stored.text,
                payload: &payload,
                vector: vector.map_or(&[], |passage| passage.vector.as_slice()),
            };
            let (expected, content_hash) = (stored.content_hash, content_hash(info, content));
            let point = Box::new(Point { payload, content_hash, ..stored });
            portion.writes.push(Write::Replace { point, expected });
        }
        portion.outcomes.push(Some(Ok(outcome)));
    }
    Ok(portion)
}
