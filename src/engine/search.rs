//! A question in, hits out: encode (or look up) the query's vector, then search the collection.

use std::{sync::Arc, time::Instant};

use super::{
    Caller, Engine, EngineError, SearchQuery, backend::Backend, catalog::Open, encode::Slice, error::Result,
    out_of_range,
};
use crate::{
    budget::Room,
    collection::{Reads, SearchTrace, point::Hit},
    encoder::{Class, Embedding, EncodeTimes, Encoder, TextKind},
    vector::{Metric, Vector},
};

/// Largest `ef` of a search.
const EF_MAX: usize = 4096;

/// The hits of a search, and how they were found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchAnswer {
    /// The hits, best first.
    pub hits: Vec<Hit>,
    /// Tokens of the question, special tokens included; 0 if it was not a text.
    pub tokens: u32,
    /// Whether the question was longer than the model's limit, so that its end was not encoded.
    pub truncated: bool,
    /// The device that encoded the question; empty if it was not a text.
    pub device: String,
    /// Where the time of encoding went; zero if the question was not a text.
    pub encode: EncodeTimes,
    /// How the search ran, stage by stage.
    pub trace: SearchTrace,
    /// Time from the call to the answer.
    pub total: std::time::Duration,
}

impl Engine {
    /// The nearest documents, best first.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`], [`EngineError::OutOfRange`], [`EngineError::WrongModel`],
    /// [`EngineError::NoDocument`]; vector, filter, encoder and store errors.
    pub async fn search(&self, collection: &str, query: SearchQuery, caller: Caller) -> Result<SearchAnswer> {
        let queries = vec![(collection.to_owned(), query)];
        let mut answers = self.search_batch(queries, caller, Room::unbounded()).await?;
        Ok(answers.pop().expect("one answer per query"))
    }

    /// Several searches, answered in order. Texts are encoded together, and a document that several of them find is read
    /// once. All answers together take their place in `room`.
    ///
    /// # Errors
    /// [`crate::budget::BudgetError`]; the first that any of them meets, as [`Engine::search`].
    pub async fn search_batch(
        &self,
        queries: Vec<(String, SearchQuery)>,
        caller: Caller,
        room: Arc<Room>,
    ) -> Result<Vec<SearchAnswer>> {
        let started = Instant::now();
        self.check_open()?;
        let limit = self.config().limits.queries_max;
        if queries.is_empty() || queries.len() > limit {
            return Err(out_of_range("the number of queries", 1, limit, queries.len()));
        }
        let directory = self.names().now();
        let mut opens = Vec::with_capacity(queries.len());
        for (collection, query) in &queries {
            let open = Arc::clone(directory.find(collection)?);
            self.check_query(&open, query)?;
            opens.push(open);
        }
        let backends: Vec<Arc<dyn Backend>> = opens.iter().map(|open| self.backend(open)).collect();
        let mut kept = None;
        for backend in &backends {
            // Made ready here and not when their turn comes. One is kept so until it is searched; many could be more than
            // may be open.
            let ready = backend.ready().await?;
            kept = (backends.len() == 1).then_some(ready);
        }
        let mut encoders = Vec::with_capacity(queries.len());
        for ((_, query), open) in queries.iter().zip(&opens) {
            encoders.push(match query.ask.text() {
                Some(_) => self.encoder_for(&open.info).await?,
                None => None,
            });
        }
        let mut encoded = self.encode_queries(&queries, &encoders, caller).await?;
        let reads = Arc::new(Reads::new(room));
        let mut tasks = Vec::with_capacity(queries.len());
        for (((_, query), backend), encoded) in queries.into_iter().zip(&backends).zip(&mut encoded) {
            let values = encoded.as_mut().map(|(embedding, _)| std::mem::take(&mut embedding.values));
            if query.ask.text().is_some() && values.is_none() {
                return Err(EngineError::Closing);
            }
            tasks.push(backend.search(query, values, caller.deadline, Arc::clone(&reads)));
        }
        let found = join_all(tasks).await;
        drop(kept);
        let mut answers = Vec::with_capacity(found.len());
        for ((found, encoder), encoded) in found.into_iter().zip(encoders).zip(encoded) {
            let (hits, trace) = found?;
            let (embedding, encode) = encoded.unwrap_or_default();
            answers.push(SearchAnswer {
                hits,
                tokens: embedding.tokens,
                truncated: embedding.truncated,
                device: encoder.map(|e| e.device().device.clone()).unwrap_or_default(),
                encode,
                trace,
                total: started.elapsed(),
            });
        }
        Ok(answers)
    }

    fn check_query(&self, open: &Open, query: &SearchQuery) -> Result<()> {
        let k_max = self.config().limits.k_max;
        if !(1..=k_max).contains(&query.k) {
            return Err(out_of_range("k", 1, k_max, query.k));
        }
        if let Some(ef) = query.ef.filter(|ef| !(1..=EF_MAX).contains(ef)) {
            return Err(out_of_range("ef", 1, EF_MAX, ef));
        }
        if query.score_threshold.is_some_and(|t| !t.is_finite()) {
            return Err(EngineError::BadRequest { reason: "score_threshold must be finite".into() });
        }
        if let Some(text) = query.ask.text() {
            if open.info.model.is_none() {
                return Err(EngineError::VectorsOnly { collection: open.info.name.clone() });
            }
            let limit = self.config().limits.query_bytes_max;
            if text.len() > limit {
                let reason = format!(
                    "the query has {} bytes, the limit is {limit} (limits.query_bytes_max); a model reads only the beginning of so long a text: search by a part of it, or store it as a document and search by its id",
                    text.len()
                );
                return Err(EngineError::BadRequest { reason });
            }
            check_text("the query", text, limit)?;
        }
        Ok(())
    }

    /// The vector of every question that is a text. Those for one encoder go there together, and all encoders work at
    /// once.
    async fn encode_queries(
        &self,
        queries: &[(String, SearchQuery)],
        encoders: &[Option<Arc<Encoder>>],
        caller: Caller,
    ) -> Result<Vec<Option<(Embedding, EncodeTimes)>>> {
        let mut groups: Vec<(&Arc<Encoder>, Vec<usize>)> = Vec::new();
        for (place, encoder) in encoders.iter().enumerate() {
            let Some(encoder) = encoder else { continue };
            match groups.iter_mut().find(|(other, _)| Arc::ptr_eq(other, encoder)) {
                Some((_, places)) => places.push(place),
                None => groups.push((encoder, vec![place])),
            }
        }
        let mut encodings = Vec::with_capacity(groups.len());
        for (encoder, places) in &groups {
            let texts = places.iter().filter_map(|&p| queries[p].1.ask.text().map(str::to_owned)).collect();
            let slice = Slice::new(texts, TextKind::Query, Class::Query);
            let encoding = self.encode_slice(encoder, slice, caller).await?;
            encodings.push(encoding.wait());
        }
        let mut encoded: Vec<Option<(Embedding, EncodeTimes)>> = encoders.iter().map(|_| None).collect();
        for ((_, places), group) in groups.into_iter().zip(join_all(encodings).await) {
            let (embeddings, times) = group?;
            for (place, embedding) in places.into_iter().zip(embeddings) {
                encoded[place] = Some((embedding, times));
            }
        }
        Ok(encoded)
    }

    /// Texts as vectors, in order.
    ///
    /// # Errors
    /// [`EngineError::OutOfRange`]; encoder errors.
    pub async fn embed(
        &self,
        encoder: &Arc<Encoder>,
        texts: Vec<String>,
        kind: TextKind,
        caller: Caller,
    ) -> Result<Vec<Embedding>> {
        self.check_open()?;
        let limit = self.config().limits.batch_max;
        if texts.is_empty() || texts.len() > limit {
            return Err(out_of_range("the number of texts", 1, limit, texts.len()));
        }
        let (class, bytes_max) = (self.class_of(&texts), self.config().limits.text_bytes_max);
        let check = move |texts: Vec<String>| -> Result<Vec<String>> {
            for (i, text) in texts.iter().enumerate() {
                check_text(&format!("text {}", i + 1), text, bytes_max)?;
            }
            Ok(texts)
        };
        let texts = match class {
            Class::Query => check(texts)?,
            Class::Bulk => self.pools().tokenize(move || check(texts)).await??,
        };
        match class {
            Class::Query => {
                let slice = Slice::new(texts, kind, Class::Query);
                Ok(self.encode_slice(encoder, slice, caller).await?.wait().await?.0)
            }
            Class::Bulk => self.encode_bulk(encoder, texts, kind, caller).await,
        }
    }

    /// Cosine of `text` with each of `others`, in order.
    ///
    /// # Errors
    /// As [`Engine::embed`].
    pub async fn similarity(
        &self,
        encoder: &Arc<Encoder>,
        text: String,
        others: Vec<String>,
        caller: Caller,
    ) -> Result<Vec<f32>> {
        let dim = encoder.dim();
        if others.is_empty() {
            return Err(out_of_range("the number of texts", 1, self.config().limits.batch_max, 0));
        }
        let mut texts = vec![text];
        texts.extend(others);
        let embeddings = self.embed(encoder, texts, TextKind::Raw, caller).await?;
        let scores = self.pools().work(move || {
            let vectors = embeddings
                .into_iter()
                .map(|e| Vector::new(e.values, dim, Metric::Cosine))
                .collect::<Result<Vec<_>, _>>()?;
            let (first, rest) = vectors.split_first().expect("there are at least two texts");
            let distance = |v: &Vector| Metric::Cosine.distance(first.as_slice(), v.as_slice());
            Ok(rest.iter().map(|v| Metric::Cosine.score(distance(v))).collect())
        });
        scores.await?
    }
}

/// Empty text is allowed for embedding (the model has a vector for it) but finds nothing sensible: refused too.
fn check_text(what: &str, text: &str, bytes_max: usize) -> Result<()> {
    let reason = if text.len() > bytes_max {
        format!("{what} has {} bytes, the limit is {bytes_max} (limits.text_bytes_max)", text.len())
    } else if text.trim().is_empty() {
        format!("{what} is empty")
    } else {
        return Ok(());
    };
    Err(EngineError::BadRequest { reason })
}

/// Awaits all, polling them together.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        let mut left = false;
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => left = true,
                }
            }
        }
        if left { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
