//! Documents in: check, compare with what is stored, cut, encode, write.
//!
//! A write has two halves. `prepare` costs time (the encoder) and changes nothing; `commit` is quick and makes the
//! change durable. A call that fails in the first half has written nothing.
//! A document whose title and text are stored already is not encoded again: only its fields are new.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::{
    Caller, CollectionInfo, Document, DocumentOutcome, Engine, EngineError, WriteStatus,
    catalog::Open,
    error::Result,
    fields::{self, FieldNames},
    once::{self, Asked, Noted, OnceCall, written_outcome},
};
use crate::{
    collection::{
        CollectionError, Condition, DoneBefore, Once, Write, WriteOptions,
        point::{ContentHash, Passage, Point, Revision},
    },
    encoder::{Embedding, Encoder, Limits, TextKind},
    value::{Payload, PointId, payload::validate_payload},
    vector::{Dim, Vector},
};

/// Stored documents that are read at a time to be compared with those that were sent.
const COMPARED_DOCUMENTS: usize = 64;
/// About how many bytes of them.
const COMPARED_BYTES: usize = 1 << 20;

/// Whether one bad document refuses the whole request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AllOrNone {
    Yes,
    No,
}

/// A document on its way in.
enum Step {
    Refused(EngineError),
    /// This is stored already and the write has no condition, so there is nothing to do; looked at again before it is
    /// answered.
    Unchanged(Document, Revision),
    Ready(Box<Point>, Encoded, Condition),
}

/// The result of encoding a document.
#[derive(Debug, Clone, Copy, Default)]
struct Encoded {
    tokens: u32,
    truncated: bool,
    title_truncated: bool,
    unknown_tokens: u32,
}

/// Documents that were checked and encoded, not yet written.
struct Prepared {
    open: Arc<Open>,
    all_or_none: AllOrNone,
    /// In the order they were sent.
    steps: Vec<(String, Step)>,
}

/// A document that was sent, checked.
struct Received {
    /// Its id as it was sent.
    name: String,
    document: Result<Arrived>,
}

/// A document that passed the checks, beside what is stored under its id.
struct Arrived {
    id: PointId,
    hash: ContentHash,
    document: Document,
    stored: Option<Revision>,
    /// What is stored, if its title and text are as long: then only its fields may be new, or, where the writer has a
    /// condition to look at, nothing.
    alike: Option<Box<Point>>,
}

impl Arrived {
    /// Costs nothing; the texts themselves are compared in a pool.
    fn is_as_long_as(&self, point: &Point) -> bool {
        (point.title.len(), point.text.len()) == (self.document.title.len(), self.document.text.len())
    }

    /// What is stored is this content, and whoever writes it has nothing to look at.
    fn is_settled(&self) -> bool {
        let same = self.stored.is_some_and(|stored| stored.content_hash == self.hash);
        same && self.document.condition == Condition::Any
    }
}

/// A document that passed the checks, cut into passages.
struct Cut {
    id: PointId,
    document: Document,
    hash: ContentHash,
    ranges: Vec<std::ops::Range<usize>>,
    /// Bytes of the title that are encoded with each passage.
    title_bytes: usize,
}

/// What a document is on the way from the checks to the encoder.
type Checked = Result<Result<Cut, Step>>;

/// A call with an id: what became of its documents, as far as they were looked after.
struct Again {
    call: OnceCall,
    /// Of all documents of the call, in order.
    ids: Vec<String>,
    /// Of each what became of it, or becomes of it with the step that is done.
    noted: Vec<Option<Noted>>,
    /// The documents of this step.
    places: Vec<usize>,
    /// Of documents that were looked after before.
    done: Option<Vec<Option<Result<DocumentOutcome>>>>,
}

impl Again {
    /// Takes over what the call did before.
    fn find(&mut self, done: &DoneBefore, caller: Caller) -> Result<()> {
        let noted: Vec<Option<Noted>> = once::note_of(done, caller)?;
        let mut written = done.written.iter().copied();
        let outcomes = noted.into_iter().zip(&self.ids).map(|(noted, id)| {
            let mut outcome = noted?.outcome(id, &mut written, false)??;
            if let Ok(outcome) = &mut outcome
                && outcome.status == WriteStatus::Unchanged
            {
                outcome.passages = 0;
            }
            Some(outcome)
        });
        let outcomes: Vec<_> = outcomes.collect();
        for (noted, outcome) in self.noted.iter_mut().zip(&outcomes) {
            *noted = outcome.as_ref().map(noted_of);
        }
        self.done = Some(outcomes);
        Ok(())
    }

    /// What became of the documents that were looked after before; `None` of others.
    fn some(&mut self) -> Vec<Option<Result<DocumentOutcome>>> {
        self.done.take().unwrap_or_else(|| self.ids.iter().map(|_| None).collect())
    }

    /// What became of all, if they were looked after before.
    fn all(&mut self) -> Option<Vec<Result<DocumentOutcome>>> {
        self.done.take()?.into_iter().collect()
    }

    /// The step that writes some documents of this step, each under its condition.
    fn step(&mut self, answers: &[Result<DocumentOutcome>], writing: &[(usize, Condition)]) -> Once {
        let mut noted = self.noted.clone();
        for (place, answer) in self.places.iter().zip(answers) {
            noted[*place] = Some(noted_of(answer));
        }
        for (at, condition) in writing {
            if let Ok(outcome) = &answers[*at] {
                noted[self.places[*at]] = Some(Noted::writing(outcome, *condition));
            }
        }
        self.call.step(&noted)
    }

    /// The step is done.
    fn tell(&mut self, answers: &[Result<DocumentOutcome>]) {
        for (place, answer) in self.places.iter().zip(answers) {
            self.noted[*place] = Some(noted_of(answer));
        }
    }
}

fn noted_of(outcome: &Result<DocumentOutcome>) -> Noted {
    match outcome {
        Ok(outcome) => Noted::told(outcome),
        Err(error) => Noted::failed(error),
    }
}

/// Everything of a document that a caller says.
fn feed(asked: &mut Asked, document: &Document) {
    let Document { id, title, text, payload, vector, condition } = document;
    [id, title, text].into_iter().for_each(|text| asked.feed(text.as_bytes()));
    asked.feed_json(payload);
    let vector = vector.iter().flatten();
    asked.feed(&vector.flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
    asked.feed_condition(*condition);
}

impl Engine {
    /// Writes all documents or none; each id may occur once. It answers when they are durable. Conditions are looked at
    /// when the documents are written, so that of several who expect the same version one writes.
    ///
    /// ```
    /// # use distilface::engine::{Caller, Condition, Document, Engine, EngineError};
    /// # async fn edit(engine: &Engine, read: Document, version: u64) -> Result<u64, EngineError> {
    /// // Fails if anybody changed the document since it was read.
    /// let edited = Document { condition: Condition::Version(version), ..read };
    /// let outcomes = engine.upsert("places", vec![edited], Caller::default()).await?;
    /// Ok(outcomes[0].version)
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first document's that is wrong, or whose [`Condition`] does not hold; encoder and store errors. Nothing is
    /// written then.
    pub async fn upsert(
        &self,
        collection: &str,
        documents: Vec<Document>,
        caller: Caller,
    ) -> Result<Vec<DocumentOutcome>> {
        if documents.is_empty() {
            let limit = self.config().limits.batch_max;
            return Err(super::out_of_range("the number of documents", 1, limit, 0));
        }
        self.check_count(documents.len())?;
        let (mut documents, mut again) = self.begin(collection, "upsert", documents, caller).await?;
        if let Some(again) = &mut again
            && let Some(outcomes) = again.all()
        {
            return outcomes.into_iter().collect();
        }
        let documents = documents.iter_mut().filter_map(Option::take).collect();
        let prepared = self.check_and_prepare(collection, documents, AllOrNone::Yes, caller).await?;
        self.commit(prepared, caller, again.as_mut()).await?.into_iter().collect()
    }

    /// Begins a call: where it has an id, with what it did before.
    async fn begin(
        &self,
        collection: &str,
        method: &'static str,
        documents: Vec<Document>,
        caller: Caller,
    ) -> Result<(Vec<Option<Document>>, Option<Again>)> {
        let Some(request) = caller.request else {
            return Ok((documents.into_iter().map(Some).collect(), None));
        };
        self.check_open()?;
        let open = Arc::clone(self.names().now().find(collection)?);
        let (documents, hash) = self
            .pools()
            .tokenize(move || {
                let mut asked = Asked::of(method);
                documents.iter().for_each(|document| feed(&mut asked, document));
                (documents, asked.hash())
            })
            .await?;
        let backend = self.backend(&open);
        let (call, done) = self.begin_once(&open, &*backend, request, hash, caller).await?;
        let ids: Vec<String> = documents.iter().map(|document| document.id.clone()).collect();
        let mut again = Again { call, noted: vec![None; ids.len()], ids, places: Vec::new(), done: None };
        if let Some(done) = done {
            again.find(&done, caller)?;
        }
        again.places = (0..again.ids.len()).collect();
        Ok((documents.into_iter().map(Some).collect(), Some(again)))
    }

    /// Writes each document by itself: a bad one, or one whose [`Condition`] does not hold, is an error in its place and
    /// the others are written. It answers when they are durable. Of an id that occurs more than once the last document
    /// stays, as if each had come in its own call.
    ///
    /// # Errors
    /// The outer error is of the whole call (no such collection, encoder or disk failed); nothing is written then, but
    /// for what came before an id that was repeated.
    pub async fn ingest(
        &self,
        collection: &str,
        documents: Vec<Document>,
        caller: Caller,
    ) -> Result<Vec<Result<DocumentOutcome>>> {
        self.check_count(documents.len())?;
        let rounds = rounds(&documents);
        let last = rounds.iter().copied().max().unwrap_or(0);
        let (mut documents, mut again) = self.begin(collection, "ingest", documents, caller).await?;
        let mut outcomes: Vec<Option<Result<DocumentOutcome>>> = match &mut again {
            Some(again) => again.some(),
            None => documents.iter().map(|_| None).collect(),
        };
        for round in 0..=last {
            let is_due = |place: &usize| rounds[*place] == round && outcomes[*place].is_none();
            let places: Vec<usize> = (0..rounds.len()).filter(is_due).collect();
            // A call without documents is looked at, too.
            if places.is_empty() && !rounds.is_empty() {
                continue;
            }
            let some = places.iter().filter_map(|place| documents[*place].take()).collect();
            let prepared = self.check_and_prepare(collection, some, AllOrNone::No, caller).await?;
            if let Some(again) = &mut again {
                again.places.clone_from(&places);
            }
            for (place, outcome) in
                places.into_iter().zip(self.commit(prepared, caller, again.as_mut()).await?)
            {
                outcomes[place] = Some(outcome);
            }
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    fn check_count(&self, documents: usize) -> Result<()> {
        let limit = self.config().limits.batch_max;
        if documents > limit {
            return Err(super::out_of_range("the number of documents", 0, limit, documents));
        }
        Ok(())
    }

    async fn check_and_prepare(
        &self,
        collection: &str,
        documents: Vec<Document>,
        all_or_none: AllOrNone,
        caller: Caller,
    ) -> Result<Prepared> {
        self.check_open()?;
        self.check_count(documents.len())?;
        let open = Arc::clone(self.names().now().find(collection)?);
        // What cannot be opened is told before a model is loaded for it.
        drop(self.backend(&open).ready().await?);
        let encoder = self.encoder_for(&open.info).await?;
        let steps = self.prepare(&open, encoder.as_ref(), documents, all_or_none, caller).await?;
        Ok(Prepared { open, all_or_none, steps })
    }

    async fn prepare(
        &self,
        open: &Arc<Open>,
        encoder: Option<&Arc<Encoder>>,
        documents: Vec<Document>,
        all_or_none: AllOrNone,
        caller: Caller,
    ) -> Result<Vec<(String, Step)>> {
        let (task_open, task_encoder) = (Arc::clone(open), encoder.cloned());
        let until = Limits { deadline: caller.deadline, ..Limits::default() };
        let received = self.receive(open, encoder.is_some(), documents).await?;
        let mut cuts: Vec<(String, Checked)> = self
            .pools()
            .tokenize(move || {
                let cut = |received: Received| {
                    let cut = cut(&task_open.info, task_encoder.as_deref(), received.document, &until);
                    (received.name, cut)
                };
                received.into_iter().map(cut).collect()
            })
            .await?;

        // Nothing is encoded for a request that is refused anyway.
        if all_or_none == AllOrNone::Yes
            && let Some(place) = cuts.iter().position(|(_, cut)| cut.is_err())
            && let (_, Err(error)) = cuts.swap_remove(place)
        {
            return Err(error);
        }
        let to_encode = |(_, cut): &(String, Checked)| matches!(cut, Ok(Ok(_)));
        if !cuts.iter().any(to_encode) {
            return Ok(cuts.into_iter().map(|(name, cut)| (name, without_encoding(cut))).collect());
        }

        let mut embeddings = Vec::new();
        if let Some(encoder) = encoder {
            // One text per passage, of all documents together: full batches.
            let texts;
            (texts, cuts) = self
                .pools()
                .work(move || {
                    let cut = cuts.iter().filter_map(|(_, c)| c.as_ref().ok()?.as_ref().ok());
                    (cut.flat_map(passage_texts).collect(), cuts)
                })
                .await?;
            embeddings = self.encode_bulk(encoder, texts, TextKind::Document, caller).await?;
        }
        let (dim, metric) = (Dim::new(open.info.dimension)?, open.info.metric);
        let steps = self.pools().work(move || {
            let mut embeddings = embeddings.into_iter();
            let steps = cuts.into_iter().map(|(name, cut)| {
                let step = match cut {
                    Ok(Ok(cut)) => {
                        let parts: Vec<Embedding> = match &cut.document.vector {
                            Some(vector) => {
                                vec![Embedding { values: vector.clone(), ..Embedding::default() }]
                            }
                            None => embeddings.by_ref().take(cut.ranges.len()).collect(),
                        };
                        point(cut, parts, dim, metric).unwrap_or_else(Step::Refused)
                    }
                    cut => without_encoding(cut),
                };
                (name, step)
            });
            steps.collect()
        });
        Ok(steps.await?)
    }

    /// Checks documents and compares them with what is stored.
    async fn receive(
        &self,
        open: &Arc<Open>,
        encodes: bool,
        documents: Vec<Document>,
    ) -> Result<Vec<Received>> {
        let limits = self.config().limits.clone();
        let (task_open, names_max) = (Arc::clone(open), limits.field_names_max);
        let backend = self.backend(open);
        // Kept open from the first look to the last.
        let kept = backend.ready().await?;
        let (mut received, names) = self
            .pools()
            .tokenize(move || {
                let (mut seen, mut names) = (HashSet::new(), HashSet::new());
                let received = documents.into_iter().map(|document| {
                    let name = document.id.clone();
                    let document = check(&task_open.info, &limits, &document, &mut seen).map(|(id, hash)| {
                        fields::note(&mut names, &document.payload);
                        Arrived { id, hash, document, stored: None, alike: None }
                    });
                    Received { name, document }
                });
                let received: Vec<Received> = received.collect();
                (received, names)
            })
            .await?;
        let mut fields = FieldNames::ask(&*backend, names, names_max).await?;
        if !fields.has_all() {
            let admit = move || {
                for Received { document, .. } in &mut received {
                    let admitted = match document {
                        Ok(arrived) => fields.admit(&arrived.id, &arrived.document.payload),
                        Err(_) => Ok(()),
                    };
                    if let Err(error) = admitted {
                        *document = Err(error.into());
                    }
                }
                received
            };
            received = self.pools().tokenize(admit).await?;
        }
        let mut arrived: Vec<&mut Arrived> =
            received.iter_mut().filter_map(|received| received.document.as_mut().ok()).collect();
        if !arrived.is_empty() {
            let ids = arrived.iter().map(|arrived| arrived.id.clone()).collect();
            for (arrived, stored) in arrived.iter_mut().zip(backend.revisions(ids).await?) {
                arrived.stored = stored;
            }
        }
        // The writer looks again; what is refused now costs no encoding.
        for Received { document, .. } in &mut received {
            if let Ok(Arrived { id, document: sent, stored, .. }) = document
                && let Err(error) = sent.condition.check(id, stored.map(|stored| stored.version))
            {
                *document = Err(error.into());
            }
        }
        // Vectors depend on title and text, and on model and chunking, which a collection keeps for its life.
        let arrived = received.iter_mut().filter_map(|received| received.document.as_mut().ok());
        let is_to_compare =
            |arrived: &&mut Arrived| encodes && arrived.stored.is_some() && !arrived.is_settled();
        let mut changed: VecDeque<&mut Arrived> = arrived.filter(is_to_compare).collect();
        let mut failed = HashMap::new();
        while !changed.is_empty() {
            let ids = changed.iter().take(COMPARED_DOCUMENTS).map(|arrived| arrived.id.clone()).collect();
            let points = backend.points(ids, COMPARED_BYTES).await?;
            if points.is_empty() {
                // A backend that breaks its promise; what was not read is encoded anew.
                break;
            }
            for point in points {
                let Some(arrived) = changed.pop_front() else { break };
                match point {
                    Ok(point) => {
                        let point = point.map(|stored| stored.point);
                        arrived.alike = point.filter(|point| arrived.is_as_long_as(point)).map(Box::new);
                    }
                    Err(error) => drop(failed.insert(arrived.id.clone(), error)),
                }
            }
        }
        drop(kept);
        if !failed.is_empty() {
            for Received { document, .. } in &mut received {
                let id = document.as_ref().map(|arrived| &arrived.id).ok();
                if let Some(error) = id.and_then(|id| failed.remove(id)) {
                    *document = Err(error);
                }
            }
        }
        Ok(received)
    }

    /// Writes what was prepared and answers when it is durable.
    async fn commit(
        &self,
        prepared: Prepared,
        caller: Caller,
        mut again: Option<&mut Again>,
    ) -> Result<Vec<Result<DocumentOutcome>>> {
        self.check_open()?;
        let Prepared { open, all_or_none, mut steps } = prepared;
        self.refresh(&open, &mut steps, caller).await?;
        if all_or_none == AllOrNone::Yes {
            let refused = steps.iter().position(|(_, step)| matches!(step, Step::Refused(_)));
            if let Some((_, Step::Refused(error))) = refused.map(|place| steps.swap_remove(place)) {
                return Err(error);
            }
        }
        let mut writes = Vec::new();
        let mut answers: Vec<Result<DocumentOutcome>> = Vec::with_capacity(steps.len());
        let mut places = Vec::new();
        for (id, step) in steps {
            let outcome = |passages, encoded: Encoded, version| DocumentOutcome {
                id,
                status: WriteStatus::Unchanged,
                passages,
                tokens: encoded.tokens,
                truncated: encoded.truncated,
                title_truncated: encoded.title_truncated,
                unknown_tokens: encoded.unknown_tokens,
                version,
            };
            answers.push(match step {
                Step::Refused(error) => Err(error),
                Step::Unchanged(_, stored) => Ok(outcome(0, Encoded::default(), stored.version)),
                Step::Ready(point, encoded, condition) => {
                    places.push((answers.len(), condition));
                    let passages = u32::try_from(point.passages.len()).unwrap_or(u32::MAX);
                    writes.push(Write::UpsertIf { point, condition });
                    Ok(outcome(passages, encoded, 0))
                }
            });
        }
        let backend = self.backend(&open);
        let once = again.as_deref_mut().map(|again| again.step(&answers, &places));
        if writes.is_empty() && once.is_none() {
            if answers.iter().any(Result::is_ok) {
                // What they say was written, and may not be durable yet.
                once::settle(&*backend, caller.durability).await?;
            }
            return Ok(answers);
        }
        let each = all_or_none == AllOrNone::No;
        let options = WriteOptions { each, durability: caller.durability, once };
        let written = match backend.write_with(writes, options).await {
            Ok(written) => written,
            Err(error) => {
                // The same call came before, and its caller had gone.
                let (Some(again), Some(done)) = (again, once::found_done(&error)) else { return Err(error) };
                again.find(&done, caller)?;
                let mut known = again.some();
                let known: Option<Vec<_>> = again.places.iter().map(|place| known[*place].take()).collect();
                return known.ok_or(error);
            }
        };
        for ((place, condition), written) in places.into_iter().zip(written) {
            if let Ok(outcome) = &answers[place] {
                answers[place] = written_outcome(outcome.clone(), condition, written);
            }
            if let Ok(answer) = &mut answers[place]
                && answer.status == WriteStatus::Unchanged
            {
                answer.passages = 0;
            }
        }
        if let Some(again) = again {
            again.tell(&answers);
        }
        Ok(answers)
    }

    /// Between the halves another request may have changed a document that looked unchanged; such a document is encoded
    /// now.
    async fn refresh(&self, open: &Arc<Open>, steps: &mut [(String, Step)], caller: Caller) -> Result<()> {
        let mut unchanged = Vec::new();
        for (place, (id, step)) in steps.iter().enumerate() {
            if let Step::Unchanged(..) = step {
                unchanged.push((place, PointId::new(id.as_str())?));
            }
        }
        if unchanged.is_empty() {
            return Ok(());
        }
        let ids = unchanged.iter().map(|(_, id)| id.clone()).collect();
        let stored = self.backend(open).revisions(ids).await?;
        let mut stale = Vec::new();
        for ((place, _), stored) in unchanged.into_iter().zip(stored) {
            match (&mut steps[place].1, stored) {
                (Step::Unchanged(_, known), Some(stored)) if stored.content_hash == known.content_hash => {
                    *known = stored;
                }
                _ => stale.push(place),
            }
        }
        if stale.is_empty() {
            return Ok(());
        }
        let mut documents = Vec::with_capacity(stale.len());
        for &place in &stale {
            if let Step::Unchanged(document, _) = &mut steps[place].1 {
                documents.push(std::mem::take(document));
            }
        }
        let encoder = self.encoder_for(&open.info).await?;
        let fresh = self.prepare(open, encoder.as_ref(), documents, AllOrNone::No, caller).await?;
        for (place, step) in stale.into_iter().zip(fresh) {
            steps[place] = step;
        }
        Ok(())
    }
}

/// For each document, how many before it have the same id: those of one number have different ones.
fn rounds(documents: &[Document]) -> Vec<usize> {
    let mut met: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    let round = |document| {
        let times = met.entry(document).or_default();
        *times += 1;
        *times - 1
    };
    documents.iter().map(|document| document.id.as_str()).map(round).collect()
}

fn check(
    info: &CollectionInfo,
    limits: &crate::config::LimitsConfig,
    document: &Document,
    seen: &mut std::collections::HashSet<String>,
) -> Result<(PointId, ContentHash)> {
    let id = PointId::new(document.id.as_str())?;
    let bad = |reason: String| EngineError::BadDocument { id: document.id.clone(), reason };
    if !seen.insert(document.id.clone()) {
        return Err(CollectionError::DuplicateId { id: document.id.clone() }.into());
    }
    let bytes = document.text.len() + document.title.len();
    if bytes > limits.text_bytes_max {
        return Err(bad(format!(
            "title and text have {bytes} bytes, the limit is {}; cut it into several documents",
            limits.text_bytes_max
        )));
    }
    validate_payload(&document.id, &document.payload, limits.payload_bytes_max)?;
    match (&info.model, &document.vector) {
        (None, None) => {
            let reason = "this collection takes vectors only, and the document has none; if it comes from an export, make that with `document scroll --vectors`";
            return Err(bad(reason.into()));
        }
        (None, Some(vector)) => {
            Vector::new(vector.clone(), Dim::new(info.dimension)?, info.metric)
                .map_err(|source| EngineError::BadVector { id: document.id.clone(), source })?;
        }
        (Some(_), Some(_)) => {
            let reason = "it brings a vector, but this collection encodes the text itself; leave the vector out, or use a collection made with vectors_only";
            return Err(bad(reason.into()));
        }
        (Some(_), None) if document.text.trim().is_empty() && document.title.trim().is_empty() => {
            return Err(bad("title and text are empty; there is nothing to find it by".into()));
        }
        (Some(_), None) => {}
    }
    Ok((id, content_hash(info, Content::of(document))))
}

/// What a document is made of, besides its id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content<'a> {
    pub(super) title: &'a str,
    pub(super) text: &'a str,
    pub(super) payload: &'a Payload,
    /// Empty where the text is encoded.
    pub(super) vector: &'a [f32],
}

impl<'a> Content<'a> {
    fn of(document: &'a Document) -> Self {
        Content {
            title: &document.title,
            text: &document.text,
            payload: &document.payload,
            vector: document.vector.as_deref().unwrap_or_default(),
        }
    }
}

pub(super) fn content_hash(info: &CollectionInfo, content: Content<'_>) -> ContentHash {
    let mut hash = Sha256::new();
    // Lengths go in front, so that no two different documents feed the same bytes.
    let mut feed = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    feed(content.title.as_bytes());
    feed(content.text.as_bytes());
    feed(&serde_json::to_vec(content.payload).expect("plain data has a JSON form"));
    feed(&content.vector.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    feed(&serde_json::to_vec(&(&info.model, &info.chunking)).expect("plain data has a JSON form"));
    let digest = hash.finalize();
    ContentHash(std::array::from_fn(|i| digest[i]))
}

/// Cuts a document for the encoder, unless what is stored already has its vectors.
fn cut(
    info: &CollectionInfo,
    encoder: Option<&Encoder>,
    arrived: Result<Arrived>,
    until: &Limits,
) -> Checked {
    let arrived = arrived?;
    if let Some(stored) = arrived.stored.filter(|_| arrived.is_settled()) {
        return Ok(Err(Step::Unchanged(arrived.document, stored)));
    }
    let Arrived { id, hash, document, alike, .. } = arrived;
    if let Some(stored) = alike
        && (&stored.title, &stored.text) == (&document.title, &document.text)
    {
        let point = Point { payload: document.payload, content_hash: hash, ..*stored };
        return Ok(Err(Step::Ready(Box::new(point), Encoded::default(), document.condition)));
    }
    let Some(encoder) = encoder else {
        let ranges = std::iter::once(0..document.text.len()).collect();
        return Ok(Ok(Cut { id, document, hash, ranges, title_bytes: 0 }));
    };
    let title = encoder.short_title(&document.title, &document.text, info.chunking)?;
    let ranges = match info.chunking {
        Some(chunking) => encoder.chunk(title, &document.text, chunking, until)?,
        None => std::iter::once(0..document.text.len()).collect(),
    };
    let title_bytes = title.len();
    Ok(Ok(Cut { id, document, hash, ranges, title_bytes }))
}

/// A document that needs no encoder, or is refused.
fn without_encoding(cut: Checked) -> Step {
    match cut {
        Err(error) => Step::Refused(error),
        Ok(Err(step)) => step,
        Ok(Ok(_)) => unreachable!("what is to be encoded was taken before"),
    }
}

/// What is encoded of a document: one text per passage.
fn passage_texts(cut: &Cut) -> impl Iterator<Item = String> {
    let title = &cut.document.title[..cut.title_bytes];
    cut.ranges
        .iter()
        .map(move |range| Encoder::passage_text(title, &cut.document.text[range.clone()]).into_owned())
}

fn point(cut: Cut, parts: Vec<Embedding>, dim: Dim, metric: crate::vector::Metric) -> Result<Step> {
    let Cut { id, document, hash, ranges, title_bytes } = cut;
    let encoded = Encoded {
        tokens: parts.iter().map(|e| e.tokens).sum(),
        truncated: parts.iter().any(|e| e.truncated),
        title_truncated: document.vector.is_none() && title_bytes < document.title.len(),
        unknown_tokens: parts.iter().map(|e| e.unknown).sum(),
    };
    let at = |byte: usize| u32::try_from(byte).expect("a text is far smaller than 4 GiB");
    let passages = parts
        .into_iter()
        .zip(ranges)
        .map(|(part, range)| {
            Ok(Passage {
                range: at(range.start)..at(range.end),
                vector: Vector::new(part.values, dim, metric)?,
            })
        })
        .collect::<Result<_>>()?;
    let Document { title, text, payload, condition, .. } = document;
    let point = Point { id, title, text, payload, content_hash: hash, passages };
    Ok(Step::Ready(Box::new(point), encoded, condition))
}
