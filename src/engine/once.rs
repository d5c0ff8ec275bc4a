//! Writing calls that are done once, however often they are sent: the ids that callers give them, and what the engine
//! notes of a call so that whoever sends it again gets the same answer.
//!
//! The collection remembers a call with its changes, so a call is remembered if it was done, also after a kill. A call
//! that is refused as a whole is not: it is tried again. The same call that comes again while the first is in work waits
//! for it. One that is done in steps (a filter that matches much, many documents) is remembered step by step, and goes
//! on after the last that was done.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedMutexGuard;

use super::{
    Caller, DocumentOutcome, Engine, EngineError, WriteStatus, backend::Backend, catalog::Open,
    encode::answer_by, error::Result,
};
use crate::{
    collection::{CollectionError, Condition, DoneBefore, Durability, Once, Outcome, Written},
    error::{ErrorKind, Fault, with_sources},
    value::PointId,
};

/// Longest request id in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// Longest text of a document's error that is noted, in bytes.
const ERROR_BYTES_MAX: usize = 300;

/// The id that a caller gives one writing call, such as a UUID: the same call sent again is not done again.
///
/// ```
/// use distilface::engine::RequestId;
///
/// assert!(RequestId::new("9f1c5c9e-6a5e-4f0e-a1de-2d7f3c0f2b11").is_ok());
/// assert!(RequestId::new("two words").is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    bytes: [u8; REQUEST_ID_BYTES_MAX],
    len: u8,
}

impl RequestId {
    /// An id of 1 to [`REQUEST_ID_BYTES_MAX`] printable ASCII characters without blanks.
    ///
    /// # Errors
    /// [`EngineError::BadRequestId`].
    pub fn new(id: &str) -> Result<Self> {
        let is_allowed =
            (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
        if !is_allowed {
            let start: String = id.chars().take(80).collect();
            return Err(EngineError::BadRequestId { id: start });
        }
        let mut bytes = [0; REQUEST_ID_BYTES_MAX];
        bytes[..id.len()].copy_from_slice(id.as_bytes());
        Ok(RequestId { bytes, len: u8::try_from(id.len()).expect("checked above") })
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("only ASCII is taken")
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestId({:?})", self.as_str())
    }
}

/// What was asked, as a hash.
pub(super) struct Asked(Sha256);

impl Asked {
    pub(super) fn of(method: &str) -> Self {
        let mut asked = Asked(Sha256::new());
        asked.feed(method.as_bytes());
        asked
    }

    /// Lengths go in front, so that no two different calls feed the same bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(super) fn feed_json<T: Serialize>(&mut self, value: &T) {
        self.feed(&serde_json::to_vec(value).expect("plain data has a JSON form"));
    }

    pub(super) fn feed_condition(&mut self, condition: Condition) {
        let (kind, version) = numbers_of(condition);
        self.feed(&[kind]);
        self.feed(&version.to_le_bytes());
    }

    pub(super) fn hash(self) -> [u8; 16] {
        let digest = self.0.finalize();
        std::array::from_fn(|i| digest[i])
    }
}

/// Calls with an id that are in work.
#[derive(Debug, Default)]
pub(super) struct InWork(Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>);

/// A collection, and an id in it.
type Key = (String, RequestId);

/// As long as it is held, the same call waits.
struct Turn {
    of: Arc<InWork>,
    key: Key,
    lock: Option<OwnedMutexGuard<()>>,
}

impl InWork {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn(self: Arc<Self>, key: Key) -> Turn {
        let lock = Arc::clone(self.lock().entry(key.clone()).or_default());
        // Made first: who gives up while it waits leaves nothing either.
        let mut turn = Turn { of: self, key, lock: None };
        turn.lock = Some(lock.lock_owned().await);
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.lock = None;
        let mut in_work = self.of.lock();
        if in_work.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            in_work.remove(&self.key);
        }
    }
}

/// A call with an id, while it is in work.
pub(super) struct OnceCall {
    id: RequestId,
    hash: [u8; 16],
    /// The next to be done.
    step: u32,
    _turn: Turn,
}

impl OnceCall {
    /// The next step, with what is to be found again of the whole call so far.
    pub(super) fn step(&mut self, note: &impl Serialize) -> Once {
        let note = serde_json::to_vec(note).expect("plain data has a JSON form");
        let (id, step) = (self.id.as_str().to_owned(), self.step);
        self.step += 1;
        Once { id, step, hash: self.hash, note }
    }
}

/// The note of a call that was done before.
///
/// # Errors
/// [`CollectionError::ForgottenRequest`].
pub(super) fn note_of<T: DeserializeOwned>(done: &DoneBefore, caller: Caller) -> Result<T> {
    serde_json::from_slice(&done.note).map_err(|_| {
        let id = caller.request.map_or_else(String::new, |id| id.as_str().to_owned());
        CollectionError::ForgottenRequest { id }.into()
    })
}

impl Engine {
    /// Begins a call that has an id: waits for the same call before it, and tells what that did. What it did is as
    /// durable then as this caller asks.
    pub(super) async fn begin_once(
        &self,
        open: &Open,
        backend: &dyn Backend,
        id: RequestId,
        hash: [u8; 16],
        caller: Caller,
    ) -> Result<(OnceCall, Option<Arc<DoneBefore>>)> {
        let turn = Arc::clone(self.in_work()).turn((open.info.name.clone(), id));
        let turn = match caller.deadline.map(answer_by) {
            Some(until) => {
                tokio::time::timeout_at(until.into(), turn).await.map_err(|_| EngineError::Expired)?
            }
            None => turn.await,
        };
        let done = backend.done_before(id.as_str().to_owned(), hash).await?;
        if done.is_some() {
            settle(backend, caller.durability).await?;
        }
        let step = done.as_ref().map_or(0, |done| done.step + 1);
        Ok((OnceCall { id, hash, step, _turn: turn }, done))
    }
}

/// Returns when what was written before is as durable as asked.
pub(super) async fn settle(backend: &dyn Backend, durability: Durability) -> Result<()> {
    if durability == Durability::Power {
        backend.write(Vec::new(), durability).await?;
    }
    Ok(())
}

/// What a call did that the writer found done when its turn came.
pub(super) fn found_done(error: &EngineError) -> Option<Arc<DoneBefore>> {
    match error {
        EngineError::Collection(CollectionError::DoneBefore { done }) => Some(Arc::clone(done)),
        _ => None,
    }
}

/// What is noted of one document. Short names: there is one for each document of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Noted {
    /// What became of it.
    #[serde(rename = "t")]
    Told(Numbers),
    /// It is the next of the writes of the step, under this condition.
    #[serde(rename = "w")]
    Writing(Numbers, u8, u64),
    #[serde(rename = "f")]
    Failed { kind: u8, field: Option<String>, text: String },
    /// It was not there.
    #[serde(rename = "m")]
    Missing,
}

/// Status, passages, tokens, flags, unknown tokens, version.
type Numbers = (u8, u32, u32, u8, u32, u64);

impl Noted {
    pub(super) fn told(outcome: &DocumentOutcome) -> Self {
        Noted::Told(outcome_numbers(outcome))
    }

    pub(super) fn writing(outcome: &DocumentOutcome, condition: Condition) -> Self {
        let (kind, version) = numbers_of(condition);
        Noted::Writing(outcome_numbers(outcome), kind, version)
    }

    pub(super) fn failed(error: &EngineError) -> Self {
        let mut text = if error.is_for_callers() {
            with_sources(error)
        } else {
            "an error inside the server; its log says more".to_owned()
        };
        let end = (0..=ERROR_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        let kind = ErrorKind::ALL.iter().position(|kind| *kind == error.kind());
        let kind = kind.and_then(|kind| u8::try_from(kind).ok()).unwrap_or(u8::MAX);
        Noted::Failed { kind, field: error.field().map(str::to_owned), text }
    }

    /// What became of the document, which may need the next of what was `written`; `None` if its write was refused by
    /// the writer and `retries` says that it is tried again.
    pub(super) fn outcome(
        self,
        id: &str,
        written: &mut impl Iterator<Item = Written>,
        retries: bool,
    ) -> Option<Option<Result<DocumentOutcome>>> {
        match self {
            Noted::Missing => Some(None),
            Noted::Told(numbers) => Some(Some(Ok(outcome_of(id, numbers)))),
            Noted::Failed { kind, field, text } => {
                let kind = ErrorKind::ALL.get(usize::from(kind)).copied().unwrap_or(ErrorKind::Internal);
                Some(Some(Err(EngineError::Before { kind, field, text })))
            }
            Noted::Writing(numbers, kind, version) => {
                let written = written.next()?;
                let outcome = written_outcome(outcome_of(id, numbers), condition_of(kind, version), written);
                if outcome.is_err() && retries { None } else { Some(Some(outcome)) }
            }
        }
    }
}

/// What became of a document that was handed over to be written.
pub(super) fn written_outcome(
    outcome: DocumentOutcome,
    condition: Condition,
    written: Written,
) -> Result<DocumentOutcome> {
    let status = match written.outcome {
        Outcome::Inserted => WriteStatus::Inserted,
        Outcome::Unchanged => WriteStatus::Unchanged,
        Outcome::Refused => {
            let id = PointId::new(outcome.id.as_str())?;
            let changed = || CollectionError::Changed { id: outcome.id.clone() };
            return Err(condition.check(&id, written.version).err().unwrap_or_else(changed).into());
        }
        _ => WriteStatus::Updated,
    };
    let version = written.version.unwrap_or_default();
    Ok(DocumentOutcome { status, version, ..outcome })
}

fn outcome_numbers(outcome: &DocumentOutcome) -> Numbers {
    let status = match outcome.status {
        WriteStatus::Inserted => 1,
        WriteStatus::Updated => 2,
        WriteStatus::Unchanged => 3,
    };
    let flags = u8::from(outcome.truncated) | u8::from(outcome.title_truncated) << 1;
    (status, outcome.passages, outcome.tokens, flags, outcome.unknown_tokens, outcome.version)
}

fn outcome_of(
    id: &str,
    (status, passages, tokens, flags, unknown_tokens, version): Numbers,
) -> DocumentOutcome {
    DocumentOutcome {
        id: id.to_owned(),
        status: match status {
            1 => WriteStatus::Inserted,
            2 => WriteStatus::Updated,
            _ => WriteStatus::Unchanged,
        },
        passages,
        tokens,
        truncated: flags & 1 != 0,
        title_truncated: flags & 2 != 0,
        unknown_tokens,
        version,
    }
}

fn numbers_of(condition: Condition) -> (u8, u64) {
    match condition {
        Condition::Any => (0, 0),
        Condition::Absent => (1, 0),
        Condition::Present => (2, 0),
        Condition::Version(version) => (3, version),
    }
}

fn condition_of(kind: u8, version: u64) -> Condition {
    match kind {
        1 => Condition::Absent,
        2 => Condition::Present,
        3 => Condition::Version(version),
        _ => Condition::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_printable_and_short_and_an_error_says_what_is_allowed() {
        for good in ["a", &"x".repeat(64), "{9f1c-~!}"] {
            assert_eq!(RequestId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", &"x".repeat(65), "a b", "\u{e9}", "a\n", "\u{7f}"] {
            let error = RequestId::new(bad).unwrap_err();
            assert_eq!((error.kind(), error.field()), (ErrorKind::Invalid, Some("request_id")), "{error}");
            assert!(error.to_string().contains("64"), "{error}");
        }
    }

    #[test]
    fn what_is_noted_of_a_document_is_found_again() {
        let outcome = DocumentOutcome {
            id: "a".into(),
            status: WriteStatus::Updated,
            passages: 3,
            tokens: 99,
            truncated: true,
            title_truncated: false,
            unknown_tokens: 7,
            version: 12,
        };
        let again = |noted: Noted, written: &[Written], retries| {
            let noted: Noted = serde_json::from_slice(&serde_json::to_vec(&noted).unwrap()).unwrap();
            noted.outcome("a", &mut written.iter().copied(), retries)
        };
        assert_eq!(again(Noted::told(&outcome), &[], false).unwrap().unwrap().unwrap(), outcome);
        assert!(again(Noted::Missing, &[], false).unwrap().is_none());
        let written = Written { outcome: Outcome::Inserted, version: Some(40) };
        let found =
            again(Noted::writing(&outcome, Condition::Any), &[written], false).unwrap().unwrap().unwrap();
        assert_eq!((found.status, found.version, found.tokens), (WriteStatus::Inserted, 40, 99));
        let refused = Written { outcome: Outcome::Refused, version: Some(40) };
        let condition = Condition::Version(39);
        let error =
            again(Noted::writing(&outcome, condition), &[refused], false).unwrap().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::Precondition, Some("expected_version")));
        assert!(again(Noted::writing(&outcome, condition), &[refused], true).is_none());
        let noted = Noted::failed(&error);
        let failed = again(noted, &[], false).unwrap().unwrap().unwrap_err();
        assert_eq!((failed.kind(), failed.field()), (error.kind(), error.field()));
        assert_eq!(failed.to_string(), error.to_string());
    }

    #[tokio::test]
    async fn the_same_call_waits_for_the_first_and_leaves_nothing() {
        let in_work = Arc::new(InWork::default());
        let key = ("c".to_owned(), RequestId::new("r").unwrap());
        let first = Arc::clone(&in_work).turn(key.clone()).await;
        let second = tokio::spawn(Arc::clone(&in_work).turn(key.clone()));
        let gives_up = tokio::spawn(Arc::clone(&in_work).turn(key.clone()));
        tokio::task::yield_now().await;
        gives_up.abort();
        let _ = gives_up.await;
        assert!(!second.is_finished());
        drop(first);
        drop(second.await.unwrap());
        assert!(in_work.lock().is_empty());
    }
}
