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

use serde::{Deserialize, Serialize};

use super::{
    Caller, CollectionInfo, DocumentOutcome, Engine, EngineError, Target, WriteStatus,
    backend::Backend,
    catalog::Open,
    documents::{Content, content_hash},
    encode::answer_by,
    error::Result,
    fields::FieldNames,
    once::{self, Asked, Noted, OnceCall},
};
use crate::{
    collection::{
        CollectionError, Condition, DoneBefore, Durability, Once, Outcome, Write, WriteOptions,
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
        for _ in 1..ATTEMPTS {
            match self.set_payload_once(&task, targets.clone(), caller).await {
                // The same call came before, and its caller had gone: it goes on after what that did.
                Err(error) if once::found_done(&error).is_some() => {}
                result => return result,
            }
        }
        self.set_payload_once(&task, targets, caller).await
    }

    async fn set_payload_once(
        &self,
        task: &Task,
        targets: Vec<(PointId, Condition)>,
        caller: Caller,
    ) -> Result<Vec<PayloadOutcome>> {
        let mut told = ToldOutcomes::new(&targets);
        let mut call = None;
        if let Some(request) = caller.request {
            let mut asked = task.asked("set_payload");
            for (id, condition) in &targets {
                asked.feed(id.as_str().as_bytes());
                asked.feed_condition(*condition);
            }
            let (hash, backend) = (asked.hash(), &*task.backend);
            let (begun, done) = self.begin_once(&task.open, backend, request, hash, caller).await?;
            if let Some(done) = done {
                told.find(once::note_of(&done, caller)?, &done);
                if told.noted.iter().all(Option::is_some) {
                    return Ok(told.outcomes);
                }
            }
            call = Some(begun);
        }
        let wanted = |(place, (id, condition))| Wanted { place, id, condition, attempts: 0 };
        let is_left = |wanted: &Wanted| told.noted[wanted.place].is_none();
        let wanted = targets.into_iter().enumerate().map(wanted).filter(is_left).collect();
        let unfinished = |done, total| EngineError::UnfinishedPayload { done, total };
        self.change_documents(task, wanted, caller, unfinished, &mut told, call).await?;
        Ok(told.outcomes)
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
        let task = self.payload_task(collection, change, Some(filter))?;
        for _ in 1..ATTEMPTS {
            match self.set_matching_once(&task, caller).await {
                Err(error) if once::found_done(&error).is_some() => {}
                result => return result,
            }
        }
        self.set_matching_once(&task, caller).await
    }

    async fn set_matching_once(&self, task: &Task, caller: Caller) -> Result<PayloadCounts> {
        let filter = task.filter.as_deref().cloned().expect("whoever matches has a filter");
        let mut call = None;
        if let Some(request) = caller.request {
            let mut asked = task.asked("set_payload_matching");
            asked.feed(filter.to_string().as_bytes());
            let (hash, backend) = (asked.hash(), &*task.backend);
            let (begun, done) = self.begin_once(&task.open, backend, request, hash, caller).await?;
            if let Some(done) = done
                && let Some(counts) = NotedCounts::counts(once::note_of(&done, caller)?, &done)
            {
                return Ok(counts);
            }
            // One that was cut off does what is left: what it changed before is unchanged now.
            call = Some(begun);
        }
        let ids = task.backend.ids(filter).await?;
        let wanted = |(place, id)| Wanted { place, id, condition: Condition::Any, attempts: 0 };
        let wanted = ids.into_iter().enumerate().map(wanted).collect();
        let mut counts = PayloadCounts::default();
        let unfinished = |done, total| EngineError::UnfinishedMatching { done, total };
        self.change_documents(task, wanted, caller, unfinished, &mut counts, call).await?;
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
        told: &mut dyn Tell,
        mut call: Option<OnceCall>,
    ) -> Result<()> {
        let total = left.len();
        let until = caller.deadline.map(answer_by);
        // What was done last is noted with all that was told.
        let mut is_noted = false;
        // What was found so already may not be durable yet.
        let mut is_settled = true;
        while !left.is_empty() {
            let unfinished = || unfinished(total - left.len(), total);
            let some = left.iter().take(PORTION_DOCUMENTS).cloned().collect();
            let portion = self.change_portion(task, some, left.len(), caller.durability, told, &mut call);
            let Portion { outcomes, wrote } = match until {
                Some(until) if until <= Instant::now() => return Err(unfinished()),
                // What was handed over to be written is written all the same.
                Some(until) => tokio::time::timeout_at(until.into(), portion)
                    .await
                    .unwrap_or_else(|_| Err(unfinished()))?,
                None => portion.await?,
            };
            is_settled = wrote;
            let looked_at: Vec<Wanted> = left.drain(..outcomes.len()).collect();
            let mut again = Vec::new();
            is_noted = wrote && call.is_some();
            for (mut wanted, outcome) in looked_at.into_iter().zip(outcomes) {
                match outcome {
                    Some(outcome) => told.tell(&wanted, outcome),
                    None if wanted.attempts < ATTEMPTS => {
                        wanted.attempts += 1;
                        again.push(wanted);
                    }
                    None => {
                        let error = CollectionError::Changed { id: wanted.id.as_str().to_owned() };
                        told.tell(&wanted, Some(Err(error.into())));
                        is_noted = false;
                    }
                }
            }
            again.into_iter().rev().for_each(|wanted| left.push_front(wanted));
        }
        match call {
            Some(mut call) if !is_noted => {
                let once = Some(told.step(&mut call, &[], &[], &[], true));
                let options = WriteOptions { durability: caller.durability, once, ..WriteOptions::default() };
                task.backend.write_with(Vec::new(), options).await?;
            }
            None if !is_settled || total == 0 => once::settle(&*task.backend, caller.durability).await?,
            _ => {}
        }
        Ok(())
    }

    /// Looks after the first of some documents, as many as make a portion, and at least one: reads, changes and writes
    /// them. `None` for one that somebody else wrote meanwhile. `left` documents are to be looked after with these.
    async fn change_portion(
        &self,
        task: &Task,
        wanted: Vec<Wanted>,
        left: usize,
        durability: Durability,
        told: &dyn Tell,
        call: &mut Option<OnceCall>,
    ) -> Result<Portion> {
        let ids = wanted.iter().map(|wanted| wanted.id.clone()).collect();
        let stored = task.backend.points(ids, PORTION_BYTES).await?;
        let names = task.change.set.keys().cloned().collect();
        let fields = FieldNames::ask(&*task.backend, names, self.config().limits.field_names_max).await?;
        let documents = wanted.iter().cloned().zip(stored).collect();
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
        let wrote = !writes.is_empty();
        if wrote {
            let is_last = outcomes.len() == left;
            let once = call.as_mut().map(|call| told.step(call, &wanted, &outcomes, &places, is_last));
            let options = WriteOptions { each: true, durability, once };
            let written = task.backend.write_with(writes, options).await?;
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
        Ok(Portion { outcomes, wrote })
    }
}

/// What became of some documents: `None` for one that is to be looked at again.
struct Portion {
    outcomes: Vec<Option<PayloadOutcome>>,
    wrote: bool,
}

/// Hears what becomes of the documents of a call, and notes it where the call has an id.
trait Tell: Send + Sync {
    fn tell(&mut self, wanted: &Wanted, outcome: PayloadOutcome);

    /// The step that writes some of the documents that are `wanted` now, of which others have an outcome already.
    fn step(
        &self,
        call: &mut OnceCall,
        wanted: &[Wanted],
        outcomes: &[Option<PayloadOutcome>],
        writing: &[(usize, DocumentOutcome)],
        is_last: bool,
    ) -> Once;
}

/// What became of each document.
struct ToldOutcomes {
    ids: Vec<PointId>,
    outcomes: Vec<PayloadOutcome>,
    noted: Vec<Option<Noted>>,
}

impl ToldOutcomes {
    fn new(targets: &[(PointId, Condition)]) -> Self {
        ToldOutcomes {
            ids: targets.iter().map(|(id, _)| id.clone()).collect(),
            outcomes: targets.iter().map(|_| None).collect(),
            noted: vec![None; targets.len()],
        }
    }

    /// Takes over what the call did before.
    fn find(&mut self, noted: Vec<Option<Noted>>, done: &DoneBefore) {
        let mut written = done.written.iter().copied();
        for (place, noted) in noted.into_iter().enumerate().take(self.ids.len()) {
            let Some(noted) = noted else { continue };
            // One that somebody else wrote meanwhile is tried again.
            if let Some(outcome) = noted.outcome(self.ids[place].as_str(), &mut written, true) {
                self.noted[place] = Some(noted_of(&outcome));
                self.outcomes[place] = outcome;
            }
        }
    }
}

fn noted_of(outcome: &PayloadOutcome) -> Noted {
    match outcome {
        None => Noted::Missing,
        Some(Ok(outcome)) => Noted::told(outcome),
        Some(Err(error)) => Noted::failed(error),
    }
}

impl Tell for ToldOutcomes {
    fn tell(&mut self, wanted: &Wanted, outcome: PayloadOutcome) {
        self.noted[wanted.place] = Some(noted_of(&outcome));
        self.outcomes[wanted.place] = outcome;
    }

    fn step(
        &self,
        call: &mut OnceCall,
        wanted: &[Wanted],
        outcomes: &[Option<PayloadOutcome>],
        writing: &[(usize, DocumentOutcome)],
        _: bool,
    ) -> Once {
        let mut noted = self.noted.clone();
        for (wanted, outcome) in wanted.iter().zip(outcomes) {
            if let Some(outcome) = outcome {
                noted[wanted.place] = Some(noted_of(outcome));
            }
        }
        for (at, outcome) in writing {
            noted[wanted[*at].place] = Some(Noted::writing(outcome, Condition::Any));
        }
        call.step(&noted)
    }
}

/// What is noted of a call by filter.
#[derive(Debug, Serialize, Deserialize)]
struct NotedCounts {
    changed: u64,
    unchanged: u64,
    failed: u64,
    failures: Vec<(String, Noted)>,
    /// Nothing is left after this step, unless something was written by others meanwhile.
    is_last: bool,
}

impl NotedCounts {
    /// What the call counted, if it came to its end.
    fn counts(noted: Self, done: &DoneBefore) -> Option<PayloadCounts> {
        let NotedCounts { mut changed, mut unchanged, failed, failures, is_last } = noted;
        for written in &done.written {
            match written.outcome {
                Outcome::Updated => changed += 1,
                Outcome::Unchanged => unchanged += 1,
                _ => return None,
            }
        }
        let failures = failures.into_iter().filter_map(|(id, noted)| {
            let outcome = noted.outcome(&id, &mut std::iter::empty(), false)??;
            Some((id, outcome.err()?))
        });
        is_last.then(|| PayloadCounts { changed, unchanged, failed, failures: failures.collect() })
    }
}

impl Tell for PayloadCounts {
    fn tell(&mut self, wanted: &Wanted, outcome: PayloadOutcome) {
        self.count(&wanted.id, outcome);
    }

    fn step(
        &self,
        call: &mut OnceCall,
        wanted: &[Wanted],
        outcomes: &[Option<PayloadOutcome>],
        _: &[(usize, DocumentOutcome)],
        is_last: bool,
    ) -> Once {
        let PayloadCounts { changed, failures, .. } = self;
        let (mut unchanged, mut failed) = (self.unchanged, self.failed);
        let mut failures: Vec<_> =
            failures.iter().map(|(id, error)| (id.clone(), Noted::failed(error))).collect();
        for (wanted, outcome) in wanted.iter().zip(outcomes) {
            match outcome {
                Some(Some(Ok(_))) => unchanged += 1,
                Some(Some(Err(error))) => {
                    failed += 1;
                    failures.push((wanted.id.as_str().to_owned(), Noted::failed(error)));
                }
                _ => {}
            }
        }
        failures.truncate(FAILURES_MAX);
        call.step(&NotedCounts { changed: *changed, unchanged, failed, failures, is_last })
    }
}

impl Task {
    /// What is asked of each document.
    fn asked(&self, method: &str) -> Asked {
        let PayloadChange { set, remove, replace } = &*self.change;
        let mut asked = Asked::of(method);
        asked.feed_json(set);
        asked.feed_json(remove);
        asked.feed(&[u8::from(*replace)]);
        asked
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
