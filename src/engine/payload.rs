//! Fields of stored documents changed in place, by id or by filter: titles, texts, passages and vectors stay, and nothing
//! is encoded.
//!
//! Each document is one unit, read, changed and written back only if nobody changed it meanwhile; if somebody did, it is
//! read again, and with a filter it is asked again whether it matches. The documents of a call are changed one after the
//! other, in bounded portions: one that fails does not stop the rest, and a call that is dropped leaves off between two
//! portions.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{
    Caller, CollectionInfo, DocumentOutcome, Engine, EngineError, Target, WriteStatus,
    backend::Backend,
    catalog::Open,
    documents::{Content, content_hash},
    encode::answer_by,
    error::Result,
    fields::FieldNames,
};
use crate::{
    collection::{
        CollectionError, Condition, Durability, Outcome, Write,
        point::{Point, Versioned},
    },
    value::{
        Payload, PointId,
        filter::Filter,
        payload::{payload_bytes, validate_payload},
    },
};

/// Bytes of texts, vectors and fields after which a portion of a call is written, so that a call of many long documents needs little memory.
const PORTION_BYTES: usize = 4 << 20;
/// Documents of a portion.
const PORTION_DOCUMENTS: usize = 1024;
/// How often a document is tried again after another writer changed it between the look and the write.
pub(super) const ATTEMPTS: usize = 32;
/// Failures of a change by filter that are told; all are counted.
pub const FAILURES_MAX: usize = 10;

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

/// What [`Engine::set_payload_matching`] did. The documents that matched are the sum of the three numbers.
#[derive(Debug, Default)]
pub struct PayloadCounts {
    /// Documents that have other fields now.
    pub changed: u64,
    /// Documents whose fields were so already.
    pub unchanged: u64,
    /// Documents that could not be changed.
    pub failed: u64,
    /// The ids of the first [`FAILURES_MAX`] that failed, each with its error.
    pub failures: Vec<(String, EngineError)>,
}

impl PayloadCounts {
    fn count(&mut self, id: &PointId, outcome: PayloadOutcome) {
        match outcome {
            None => {}
            Some(Ok(outcome)) if outcome.status == WriteStatus::Unchanged => self.unchanged += 1,
            Some(Ok(_)) => self.changed += 1,
            Some(Err(error)) => {
                self.failed += 1;
                if self.failures.len() < FAILURES_MAX {
                    self.failures.push((id.as_str().to_owned(), error));
                }
            }
        }
    }
}

/// What a call does to each document.
#[derive(Clone)]
struct Task {
    open: Arc<Open>,
    backend: Arc<dyn Backend>,
    change: Arc<PayloadChange>,
    /// Only documents that match it still.
    filter: Option<Arc<Filter>>,
    payload_bytes_max: usize,
}

/// A document that is yet to be changed.
#[derive(Debug, Clone)]
struct Wanted {
    /// In the order of the call.
    place: usize,
    id: PointId,
    condition: Condition,
    attempts: usize,
}

/// What is to be done with a document that was read.
enum Step {
    Told(PayloadOutcome),
    /// With what becomes of it if it is unchanged after all.
    Write(DocumentOutcome, Write),
}

impl Engine {
    /// Changes fields of stored documents, in the order of `targets`; an outcome for each. Answered when durable.
    /// An outcome's `passages` are the document's, and its `tokens` are 0: nothing is encoded. A document that has not
    /// the version that its target expects is an error in its place.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`], [`EngineError::OutOfRange`], [`EngineError::BadRequest`]; bad ids;
    /// [`EngineError::UnfinishedPayload`] and store errors, after which the first of the documents may be changed.
    pub async fn set_payload(
        &self,
        collection: &str,
        targets: Vec<Target>,
        change: PayloadChange,
        caller: Caller,
    ) -> Result<Vec<PayloadOutcome>> {
        self.check_open()?;
        change.check()?;
        let targets = self.targets(&targets)?;
        let mut distinct = BTreeSet::new();
        if let Some((twice, _)) = targets.iter().find(|(id, _)| !distinct.insert(id)) {
            return Err(CollectionError::DuplicateId { id: twice.as_str().to_owned() }.into());
        }
        let task = self.payload_task(collection, change, None)?;
        let mut outcomes: Vec<PayloadOutcome> = targets.iter().map(|_| None).collect();
        let wanted = |(place, (id, condition))| Wanted { place, id, condition, attempts: 0 };
        let wanted = targets.into_iter().enumerate().map(wanted).collect();
        let unfinished = |done, total| EngineError::UnfinishedPayload { done, total };
        self.change_documents(&task, wanted, caller, unfinished, &mut |wanted, outcome| {
            outcomes[wanted.place] = outcome;
        })
        .await?;
        Ok(outcomes)
    }

    /// Changes fields of the documents that match when the call begins, and counts them. Answered when durable. One that
    /// matches no more when its turn comes is left alone and not counted.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`], [`EngineError::BadRequest`]; filter errors; [`EngineError::UnfinishedMatching`] and
    /// store errors, after which a part of the documents may be changed.
    pub async fn set_payload_matching(
        &self,
        collection: &str,
        filter: Filter,
        change: PayloadChange,
        caller: Caller,
    ) -> Result<PayloadCounts> {
        self.check_open()?;
        change.check()?;
        let task = self.payload_task(collection, change, Some(filter.clone()))?;
        let ids = task.backend.ids(filter).await?;
        let wanted = |(place, id)| Wanted { place, id, condition: Condition::Any, attempts: 0 };
        let wanted = ids.into_iter().enumerate().map(wanted).collect();
        let mut counts = PayloadCounts::default();
        let unfinished = |done, total| EngineError::UnfinishedMatching { done, total };
        self.change_documents(&task, wanted, caller, unfinished, &mut |wanted, outcome| {
            counts.count(&wanted.id, outcome);
        })
        .await?;
        Ok(counts)
    }

    fn payload_task(&self, collection: &str, change: PayloadChange, filter: Option<Filter>) -> Result<Task> {
        let open = Arc::clone(self.names().now().find(collection)?);
        Ok(Task {
            backend: self.backend(&open),
            open,
            change: Arc::new(change),
            filter: filter.map(Arc::new),
            payload_bytes_max: self.config().limits.payload_bytes_max,
        })
    }

    /// Changes documents portion by portion until all are told, or the time is over.
    async fn change_documents(
        &self,
        task: &Task,
        mut left: VecDeque<Wanted>,
        caller: Caller,
        unfinished: impl Fn(usize, usize) -> EngineError,
        told: &mut (dyn FnMut(&Wanted, PayloadOutcome) + Send),
    ) -> Result<()> {
        let total = left.len();
        let until = caller.deadline.map(answer_by);
        while !left.is_empty() {
            let unfinished = || unfinished(total - left.len(), total);
            let some = left.iter().take(PORTION_DOCUMENTS).cloned().collect();
            let portion = self.change_portion(task, some, caller.durability);
            let outcomes = match until {
                Some(until) if until <= Instant::now() => return Err(unfinished()),
                // What was handed over to be written is written all the same.
                Some(until) => tokio::time::timeout_at(until.into(), portion)
                    .await
                    .unwrap_or_else(|_| Err(unfinished()))?,
                None => portion.await?,
            };
            let looked_at: Vec<Wanted> = left.drain(..outcomes.len()).collect();
            let mut again = Vec::new();
            for (mut wanted, outcome) in looked_at.into_iter().zip(outcomes) {
                match outcome {
                    Some(outcome) => told(&wanted, outcome),
                    None if wanted.attempts < ATTEMPTS => {
                        wanted.attempts += 1;
                        again.push(wanted);
                    }
                    None => {
                        let error = CollectionError::Changed { id: wanted.id.as_str().to_owned() };
                        told(&wanted, Some(Err(error.into())));
                    }
                }
            }
            again.into_iter().rev().for_each(|wanted| left.push_front(wanted));
        }
        Ok(())
    }

    /// Looks after the first of some documents, as many as make a portion, and at least one: reads, changes and writes
    /// them. `None` for one that somebody else wrote meanwhile.
    async fn change_portion(
        &self,
        task: &Task,
        wanted: Vec<Wanted>,
        durability: Durability,
    ) -> Result<Vec<Option<PayloadOutcome>>> {
        let ids = wanted.iter().map(|wanted| wanted.id.clone()).collect();
        let stored = task.backend.points(ids, PORTION_BYTES).await?;
        let names = task.change.set.keys().cloned().collect();
        let fields = FieldNames::ask(&*task.backend, names, self.config().limits.field_names_max).await?;
        let documents = wanted.into_iter().zip(stored).collect();
        let planning = task.clone();
        let steps = self.pools().work(move || plan(&planning, documents, fields)).await??;
        let mut outcomes = Vec::with_capacity(steps.len());
        let (mut writes, mut places) = (Vec::new(), Vec::new());
        for (place, step) in steps.into_iter().enumerate() {
            outcomes.push(match step {
                Step::Told(outcome) => Some(outcome),
                Step::Write(outcome, write) => {
                    writes.push(write);
                    places.push((place, outcome));
                    None
                }
            });
        }
        if !writes.is_empty() {
            let written = task.backend.write_each(writes, durability).await?;
            for ((place, outcome), written) in places.into_iter().zip(written) {
                outcomes[place] = match (written.outcome, written.version) {
                    (Outcome::Updated, Some(version)) => {
                        let status = WriteStatus::Updated;
                        Some(Some(Ok(DocumentOutcome { status, version, ..outcome })))
                    }
                    (Outcome::Unchanged, Some(version)) => {
                        Some(Some(Ok(DocumentOutcome { version, ..outcome })))
                    }
                    _ => None,
                };
            }
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

/// What is to be done with the first of some documents, as many as make a portion.
fn plan(
    task: &Task,
    documents: Vec<(Wanted, Result<Option<Versioned>>)>,
    mut fields: FieldNames,
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut bytes = 0;
    for (wanted, stored) in documents {
        if bytes >= PORTION_BYTES {
            break;
        }
        let Some(Versioned { point: stored, version }) = stored? else {
            steps.push(Step::Told(None));
            continue;
        };
        let vectors = size_of::<f32>() * task.open.info.dimension as usize * stored.passages.len();
        bytes += stored.text.len() + payload_bytes(&stored.payload) + vectors;
        if task.filter.as_ref().is_some_and(|filter| !filter.matches(&stored.payload)) {
            steps.push(Step::Told(None));
            continue;
        }
        let payload = task.change.apply(&stored.payload);
        bytes += payload_bytes(&payload);
        let checked = check(task, &wanted, version, &payload, &mut fields);
        steps.push(match checked {
            Err(error) => Step::Told(Some(Err(error))),
            Ok(()) => change(&task.open.info, stored, version, payload),
        });
    }
    Ok(steps)
}

fn check(
    task: &Task,
    wanted: &Wanted,
    version: u64,
    payload: &Payload,
    fields: &mut FieldNames,
) -> Result<()> {
    wanted.condition.check(&wanted.id, Some(version))?;
    validate_payload(wanted.id.as_str(), payload, task.payload_bytes_max)?;
    fields.admit(&wanted.id, payload)?;
    Ok(())
}

/// A document with another payload, to be written if it is still the one that was read.
fn change(info: &CollectionInfo, stored: Point, version: u64, payload: Payload) -> Step {
    let outcome = DocumentOutcome {
        id: stored.id.as_str().to_owned(),
        status: WriteStatus::Unchanged,
        passages: u32::try_from(stored.passages.len()).unwrap_or(u32::MAX),
        tokens: 0,
        truncated: false,
        title_truncated: false,
        unknown_tokens: 0,
        version,
    };
    if payload == stored.payload {
        return Step::Told(Some(Ok(outcome)));
    }
    // Where vectors are sent, the one vector is part of what was sent.
    let vector = stored.passages.first().filter(|_| info.model.is_none());
    let content = Content {
        title: &stored.title,
        text: &stored.text,
        payload: &payload,
        vector: vector.map_or(&[], |passage| passage.vector.as_slice()),
    };
    let content_hash = content_hash(info, content);
    let point = Box::new(Point { payload, content_hash, ..stored });
    Step::Write(outcome, Write::UpsertIf { point, condition: Condition::Version(version) })
}
