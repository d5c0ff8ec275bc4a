//! Documents in: check, compare with what is stored, cut, encode, write.
//!
//! A write has two halves. `prepare` costs time (the encoder) and changes nothing; `commit` is quick and makes the
//! change durable. A call that fails in the first half has written nothing.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::{
    Caller, CollectionInfo, Document, DocumentOutcome, Engine, EngineError, WriteStatus, catalog::Open,
};
use crate::{
    collection::{
        Outcome, Write,
        payload::validate_payload,
        point::{ContentHash, Passage, Point, PointId},
    },
    encoder::{CancelOnDrop, Class, Embedding, EncodeTimes, Encoder, Limits, TextKind},
    error::{Error, Result},
    vector::{Dim, Vector},
};

/// Texts that are handed to the encoder at a time, so that one large request does not fill its queue.
const SLICE_TEXTS: usize = 256;

/// Whether one bad document refuses the whole request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AllOrNone {
    Yes,
    No,
}

/// A document on its way in.
enum Step {
    Refused(Error),
    /// What is stored has this hash, so there is nothing to do; looked at again before it is answered.
    Unchanged(Document, ContentHash),
    Ready {
        point: Box<Point>,
        tokens: u32,
        truncated: bool,
    },
}

/// Documents that were checked and encoded, not yet written.
struct Prepared {
    open: Arc<Open>,
    /// In the order they were sent.
    steps: Vec<(String, Step)>,
}

/// A document that passed the checks, cut into passages.
struct Cut {
    id: PointId,
    document: Document,
    hash: ContentHash,
    ranges: Vec<std::ops::Range<usize>>,
}

impl Engine {
    /// All documents or none; each id once. Answered when durable.
    ///
    /// # Errors
    /// The first document's that is wrong; encoder and store errors. Nothing is written then.
    pub async fn upsert(
        &self,
        collection: &str,
        documents: Vec<Document>,
        caller: Caller,
    ) -> Result<Vec<DocumentOutcome>> {
        if documents.is_empty() {
            let limit = self.config().limits.batch_max;
            return Err(super::out_of_range("the number of documents", 1, limit, 0).into());
        }
        let mut prepared = self.check_and_prepare(collection, documents, AllOrNone::Yes, caller).await?;
        let refused = prepared.steps.iter().position(|(_, step)| matches!(step, Step::Refused(_)));
        if let Some((_, Step::Refused(error))) = refused.map(|place| prepared.steps.swap_remove(place)) {
            return Err(error);
        }
        self.commit(prepared, caller).await?.into_iter().collect()
    }

    /// Each document by itself: a bad one is an error in its place and the rest goes on. Answered when durable.
    /// Of an id that comes more than once the later document stays, as if each had come in a call of its own.
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
        let rounds = rounds(&documents);
        if rounds.iter().all(|round| *round == 0) {
            let prepared = self.check_and_prepare(collection, documents, AllOrNone::No, caller).await?;
            return self.commit(prepared, caller).await;
        }
        self.check_count(documents.len())?;
        let last = rounds.iter().copied().max().unwrap_or(0);
        let mut documents: Vec<Option<Document>> = documents.into_iter().map(Some).collect();
        let mut outcomes: Vec<Option<Result<DocumentOutcome>>> = documents.iter().map(|_| None).collect();
        for round in 0..=last {
            let places: Vec<usize> = (0..rounds.len()).filter(|place| rounds[*place] == round).collect();
            let some = places.iter().filter_map(|place| documents[*place].take()).collect();
            let prepared = self.check_and_prepare(collection, some, AllOrNone::No, caller).await?;
            for (place, outcome) in places.into_iter().zip(self.commit(prepared, caller).await?) {
                outcomes[place] = Some(outcome);
            }
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    fn check_count(&self, documents: usize) -> Result<()> {
        let limit = self.config().limits.batch_max;
        if documents > limit {
            return Err(super::out_of_range("the number of documents", 0, limit, documents).into());
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
        let encoder = self.encoder_for(&open.info).await?;
        let steps = self.prepare(&open, encoder.as_ref(), documents, all_or_none, caller).await?;
        Ok(Prepared { open, steps })
    }

    async fn prepare(
        &self,
        open: &Arc<Open>,
        encoder: Option<&Arc<Encoder>>,
        documents: Vec<Document>,
        all_or_none: AllOrNone,
        caller: Caller,
    ) -> Result<Vec<(String, Step)>> {
        let limits = self.config().limits.clone();
        let (task_open, task_encoder) = (Arc::clone(open), encoder.cloned());
        let mut cuts: Vec<(String, Result<Result<Cut, Step>>)> = self
            .pools()
            .work(move || {
                let mut seen = std::collections::HashSet::new();
                documents
                    .into_iter()
                    .map(|document| {
                        let name = document.id.clone();
                        let cut = check(&task_open, &limits, &document, &mut seen).and_then(|(id, hash)| {
                            if task_open.collection()?.content_hash(&id) == Some(hash) {
                                return Ok(Err(Step::Unchanged(document, hash)));
                            }
                            let ranges = cut(&task_open.info, task_encoder.as_deref(), &document)?;
                            Ok(Ok(Cut { id, document, hash, ranges }))
                        });
                        (name, cut)
                    })
                    .collect()
            })
            .await?;

        // Nothing is encoded for a request that is refused anyway.
        if all_or_none == AllOrNone::Yes
            && let Some(place) = cuts.iter().position(|(_, cut)| cut.is_err())
            && let (_, Err(error)) = cuts.swap_remove(place)
        {
            return Err(error);
        }

        // One text per passage, of all documents together: full batches.
        let texts: Vec<String> = match encoder {
            None => Vec::new(),
            Some(_) => cuts
                .iter()
                .filter_map(|(_, c)| c.as_ref().ok().and_then(|c| c.as_ref().ok()))
                .flat_map(|c| {
                    c.ranges.iter().map(|r| {
                        Encoder::passage_text(&c.document.title, &c.document.text[r.clone()]).into_owned()
                    })
                })
                .collect(),
        };
        let mut embeddings = match encoder {
            None => Vec::new(),
            Some(encoder) => self.encode_bulk(encoder, texts, TextKind::Document, caller).await?,
        }
        .into_iter();

        let (dim, metric) = (Dim::new(open.info.dimension)?, open.info.metric);
        let steps = cuts.into_iter().map(|(name, cut)| {
            let step = match cut {
                Err(error) => Step::Refused(error),
                Ok(Err(step)) => step,
                Ok(Ok(cut)) => {
                    let parts: Vec<Embedding> = match &cut.document.vector {
                        Some(vector) => {
                            vec![Embedding { values: vector.clone(), tokens: 0, truncated: false }]
                        }
                        None => embeddings.by_ref().take(cut.ranges.len()).collect(),
                    };
                    point(cut, parts, dim, metric).unwrap_or_else(Step::Refused)
                }
            };
            (name, step)
        });
        Ok(steps.collect())
    }

    /// Writes what was prepared and answers when it is durable.
    async fn commit(&self, prepared: Prepared, caller: Caller) -> Result<Vec<Result<DocumentOutcome>>> {
        self.check_open()?;
        let Prepared { open, mut steps } = prepared;
        self.refresh(&open, &mut steps, caller).await?;
        let mut writes = Vec::new();
        let mut answers: Vec<Result<DocumentOutcome>> = Vec::with_capacity(steps.len());
        let mut places = Vec::new();
        for (id, step) in steps {
            let outcome = |passages, tokens, truncated| DocumentOutcome {
                id,
                status: WriteStatus::Unchanged,
                passages,
                tokens,
                truncated,
            };
            answers.push(match step {
                Step::Refused(error) => Err(error),
                Step::Unchanged(..) => Ok(outcome(0, 0, false)),
                Step::Ready { point, tokens, truncated } => {
                    places.push(answers.len());
                    let passages = u32::try_from(point.passages.len()).unwrap_or(u32::MAX);
                    writes.push(Write::Upsert(point));
                    Ok(outcome(passages, tokens, truncated))
                }
            });
        }
        if !writes.is_empty() {
            let outcomes = submit(&open, writes).await?;
            for (place, outcome) in places.into_iter().zip(outcomes) {
                if let Ok(answer) = &mut answers[place] {
                    answer.status = match outcome {
                        Outcome::Inserted => WriteStatus::Inserted,
                        Outcome::Unchanged => WriteStatus::Unchanged,
                        _ => WriteStatus::Updated,
                    };
                }
            }
        }
        Ok(answers)
    }

    /// Between the halves another request may have changed a document that looked unchanged: such a one is encoded now.
    async fn refresh(&self, open: &Arc<Open>, steps: &mut [(String, Step)], caller: Caller) -> Result<()> {
        let mut stale = Vec::new();
        for (place, (id, step)) in steps.iter_mut().enumerate() {
            if let Step::Unchanged(document, hash) = step
                && open.collection()?.content_hash(&PointId::new(id.as_str())?) != Some(*hash)
            {
                stale.push((place, std::mem::take(document)));
            }
        }
        if stale.is_empty() {
            return Ok(());
        }
        let encoder = self.encoder_for(&open.info).await?;
        let (places, documents): (Vec<_>, Vec<_>) = stale.into_iter().unzip();
        let fresh = self.prepare(open, encoder.as_ref(), documents, AllOrNone::No, caller).await?;
        for (place, step) in places.into_iter().zip(fresh) {
            steps[place] = step;
        }
        Ok(())
    }

    /// Encodes any number of texts as bulk, some at a time, waiting for room in the encoder's queue.
    pub(super) async fn encode_bulk(
        &self,
        encoder: &Arc<Encoder>,
        texts: Vec<String>,
        kind: TextKind,
        caller: Caller,
    ) -> Result<Vec<Embedding>> {
        let mut waiting = Vec::new();
        let mut texts = texts.into_iter().peekable();
        while texts.peek().is_some() {
            let slice: Vec<String> = texts.by_ref().take(SLICE_TEXTS).collect();
            let permits = u32::try_from(slice.len()).unwrap_or(u32::MAX).min(self.bulk_room());
            let permit = Arc::clone(self.bulk())
                .acquire_many_owned(permits)
                .await
                .map_err(|_| EngineError::Closing)?;
            waiting.push(self.encode_slice(encoder, slice, kind, Class::Bulk, caller, Some(permit)).await?);
        }
        let mut all = Vec::new();
        for slice in waiting {
            all.extend(slice.wait().await?.0);
        }
        Ok(all)
    }

    /// Hands texts to the encoder; the answer comes later. Dropping the answer cancels what has not begun.
    pub(super) async fn encode_slice(
        &self,
        encoder: &Arc<Encoder>,
        texts: Vec<String>,
        kind: TextKind,
        class: Class,
        caller: Caller,
        permit: Option<tokio::sync::OwnedSemaphorePermit>,
    ) -> Result<Encoding> {
        let (guard, cancelled) = CancelOnDrop::new();
        let (send, receive) = oneshot::channel();
        let limits = Limits { deadline: caller.deadline, cancelled: Some(cancelled), client: caller.client };
        let encoder = Arc::clone(encoder);
        let submit = move || {
            encoder.submit(
                &texts,
                kind,
                class,
                limits,
                Box::new(move |result| {
                    drop(permit);
                    // The asker may have gone.
                    let _ = send.send(result);
                }),
            );
        };
        match class {
            // A query is short: its tokens are ready sooner than another thread would be.
            Class::Query => submit(),
            Class::Bulk => self.pools().work(submit).await?,
        }
        Ok(Encoding { receive, _guard: guard })
    }
}

/// Texts on their way through the encoder.
pub(super) struct Encoding {
    receive: oneshot::Receiver<Result<(Vec<Embedding>, EncodeTimes), crate::encoder::EncoderError>>,
    _guard: CancelOnDrop,
}

impl Encoding {
    pub(super) async fn wait(self) -> Result<(Vec<Embedding>, EncodeTimes)> {
        Ok(self.receive.await.map_err(|_| EngineError::Closing)??)
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

/// Hands writes to the collection's writer and waits until they are durable.
pub(super) async fn submit(open: &Open, writes: Vec<Write>) -> Result<Vec<Outcome>> {
    let (send, receive) = oneshot::channel();
    open.collection()?.submit(
        writes,
        Box::new(move |result| {
            // The asker may have gone; the write is done all the same.
            let _ = send.send(result);
        }),
    );
    Ok(receive.await.map_err(|_| EngineError::Closing)??)
}

fn check(
    open: &Open,
    limits: &crate::config::LimitsConfig,
    document: &Document,
    seen: &mut std::collections::HashSet<String>,
) -> Result<(PointId, ContentHash)> {
    let id = PointId::new(document.id.as_str())?;
    let bad = |reason: String| EngineError::BadDocument { id: document.id.clone(), reason };
    if !seen.insert(document.id.clone()) {
        return Err(crate::collection::CollectionError::DuplicateId { id: document.id.clone() }.into());
    }
    let bytes = document.text.len() + document.title.len();
    if bytes > limits.text_bytes_max {
        return Err(bad(format!(
            "title and text have {bytes} bytes, the limit is {}; cut it into several documents",
            limits.text_bytes_max
        ))
        .into());
    }
    validate_payload(&document.id, &document.payload, limits.payload_bytes_max)?;
    match (&open.info.model, &document.vector) {
        (None, None) => {
            return Err(bad("this collection takes vectors only, and the document has none".into()).into());
        }
        (None, Some(vector)) => {
            Vector::new(vector.clone(), Dim::new(open.info.dimension)?, open.info.metric)
                .map_err(|source| EngineError::BadVector { id: document.id.clone(), source })?;
        }
        (Some(_), Some(_)) => {
            let reason = "it brings a vector, but this collection encodes the text itself; leave the vector out, or use a collection made with vectors_only";
            return Err(bad(reason.into()).into());
        }
        (Some(_), None) if document.text.trim().is_empty() && document.title.trim().is_empty() => {
            return Err(bad("title and text are empty; there is nothing to find it by".into()).into());
        }
        (Some(_), None) => {}
    }
    Ok((id, content_hash(&open.info, document)))
}

fn content_hash(info: &CollectionInfo, document: &Document) -> ContentHash {
    let mut hash = Sha256::new();
    // Lengths go in front, so that no two different documents feed the same bytes.
    let mut feed = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    feed(document.title.as_bytes());
    feed(document.text.as_bytes());
    feed(&serde_json::to_vec(&document.payload).expect("plain data has a JSON form"));
    let vector = document.vector.as_deref().unwrap_or_default();
    feed(&vector.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    feed(&serde_json::to_vec(&(&info.model, &info.chunking)).expect("plain data has a JSON form"));
    let digest = hash.finalize();
    ContentHash(std::array::from_fn(|i| digest[i]))
}

fn cut(
    info: &CollectionInfo,
    encoder: Option<&Encoder>,
    document: &Document,
) -> Result<Vec<std::ops::Range<usize>>> {
    match (encoder, info.chunking) {
        (Some(encoder), Some(chunking)) => Ok(encoder.chunk(&document.title, &document.text, chunking)?),
        _ => Ok(std::iter::once(0..document.text.len()).collect()),
    }
}

fn point(cut: Cut, parts: Vec<Embedding>, dim: Dim, metric: crate::vector::Metric) -> Result<Step> {
    let Cut { id, document, hash, ranges } = cut;
    let tokens = parts.iter().map(|e| e.tokens).sum();
    let truncated = parts.iter().any(|e| e.truncated);
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
    let Document { title, text, payload, .. } = document;
    let point = Point { id, title, text, payload, content_hash: hash, passages };
    Ok(Step::Ready { point: Box::new(point), tokens, truncated })
}
