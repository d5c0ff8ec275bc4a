//! A query -> hits: chooses how to look, looks, groups passages by document, and has the hits' documents read.
//!
//! Plans: `exact` scans every vector, `graph` walks the graph and scans what it does not have yet, `filtered_exact` and
//! `filtered_graph` are the same among the documents that match a filter. The graph may find too few: it is then asked
//! for more, and in the end everything allowed is scanned, so the answer always has min(k, allowed documents) hits.
//! Order: larger scores first, then ids, then passages; equal scores at the end of the answer are chosen by that too.
//!
//! Vectors are compared over a [`View`] that the search owns: it holds no lock while it compares, so it may use the
//! whole pool it runs on, and no writer waits for it.

use std::{
    cmp::Ordering,
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use roaring::RoaringBitmap;

use super::{
    CollectionError, Query, SearchTrace, Shared,
    fetch::{self, Reads},
    memory::View,
    point::Hit,
    slots::Table,
};
use crate::{
    index::{IndexError, Neighbor, SearchParams, SharedAllow, Slot, VectorIndex as _},
    stop::Stopped,
    value::PointId,
};

/// Up to this many vectors a scan is faster than a walk through the graph.
/// (Tests lower this and the like, to see every plan with little data.)
pub(super) const SCAN_MAX: u64 = if cfg!(test) { 300 } else { 2_000 };

/// Up to this many matching vectors they are scanned.
const FILTERED_SCAN_MAX: u64 = if cfg!(test) { 200 } else { 10_000 };

/// Where fewer than one in so many vectors match, they are scanned: the graph would look at as many to find `ef`.
const FILTERED_SCAN_SHARE: u64 = 20;

/// The graph is asked for this many times more, each time it found too few documents.
const WIDEN: usize = 4;

/// The most candidates a graph is asked to keep; beyond, everything is scanned.
const EF_MAX: usize = 4096;

/// A passage that was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) doc: u32,
    pub(super) id: PointId,
    pub(super) ordinal: u32,
    pub(super) score: f32,
}

fn rank(a: &Found, b: &Found) -> Ordering {
    b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)).then_with(|| a.ordinal.cmp(&b.ordinal))
}

/// What may be answered. Owned, since a scan shares it with the threads of its pool.
struct Allowed {
    table: Table,
    /// `None`: all documents.
    documents: Option<RoaringBitmap>,
    /// A document that is not answered in any case.
    excluded: Option<u32>,
}

impl Allowed {
    fn has(&self, slot: Slot) -> bool {
        self.table.doc(slot).is_some_and(|doc| {
            Some(doc) != self.excluded && self.documents.as_ref().is_none_or(|docs| docs.contains(doc))
        })
    }
}

/// One search of a view, and how it goes.
struct Search<'a> {
    view: &'a View,
    query: &'a Query,
    vector: &'a [f32],
    allowed: Arc<Allowed>,
    /// Hits wanted, at most as many as there can be.
    wanted: usize,
    ef_search: usize,
    trace: SearchTrace,
    graph_failed: bool,
}

pub(super) fn search(
    shared: &Shared,
    query: &Query,
    reads: &Reads,
) -> Result<(Vec<Hit>, SearchTrace), CollectionError> {
    let vectors = || std::iter::once(&query.vector).chain(&query.more_vectors).map(|v| v.as_slice());
    if let Some(vector) = vectors().find(|vector| vector.len() != shared.spec.dim.len()) {
        let wrong = IndexError::WrongDim { expected: shared.spec.dim.as_u32(), got: vector.len() };
        return Err(wrong.into());
    }
    let begun = Instant::now();
    let (matching, hints, excluded, view) = {
        let memory = shared.read_memory();
        let filter = query.filter.as_ref();
        let matching = filter.map(|filter| memory.fields.matching(filter, &query.stop)).transpose()?;
        let hints = filter.map(|filter| memory.fields.hints(filter)).unwrap_or_default();
        (matching, hints, query.exclude.as_ref().and_then(|id| memory.slots.number(id)), memory.view())
    };
    let filter_time = if matching.is_some() { begun.elapsed() } else { Duration::ZERO };
    let begun = Instant::now();
    let allowed = matching.as_ref().map_or(view.table.documents(), RoaringBitmap::len);
    let reachable = allowed
        - u64::from(excluded.is_some_and(|doc| matching.as_ref().is_none_or(|docs| docs.contains(doc))));
    let mut search = Search {
        view: &view,
        query,
        vector: query.vector.as_slice(),
        allowed: Arc::new(Allowed { table: view.table.clone(), documents: matching, excluded }),
        wanted: 0,
        ef_search: query.ef.unwrap_or_else(|| shared.spec.index.ef_search.into()),
        trace: SearchTrace { filter_time, matching_documents: allowed, hints, ..SearchTrace::default() },
        graph_failed: false,
    };
    let reachable = if query.by_passage { search.reachable_passages() } else { reachable };
    search.wanted = query.k.min(usize::try_from(reachable).unwrap_or(usize::MAX));
    let mut found = Vec::new();
    for vector in vectors() {
        search.vector = vector;
        found.extend(search.run()?);
    }
    if !query.more_vectors.is_empty() {
        // Whoever is among the best by any vector is among the best of that vector's own hits.
        found = search.best(found);
        found.truncate(search.wanted);
    }
    let Search { mut trace, graph_failed, .. } = search;
    // Whoever holds the generation keeps the documents found readable, though they are deleted now. The rest may go.
    let View { generation, .. } = view;
    trace.search_time = begun.elapsed();
    if graph_failed {
        shared.graph_failed();
    }
    let begun = Instant::now();
    let hits = fetch::hits(shared, query, found, reads)?;
    drop(generation);
    trace.fetch_time = begun.elapsed();
    Ok((hits, trace))
}

impl Search<'_> {
    fn run(&mut self) -> Result<Vec<Found>, Stopped> {
        let filtered = self.allowed.documents.is_some();
        (self.trace.plan, self.trace.reason) = match self.choose() {
            Ok(reason) => (if filtered { "filtered_graph" } else { "graph" }, reason),
            Err(reason) => (if filtered { "filtered_exact" } else { "exact" }, reason),
        };
        if self.wanted == 0 {
            return Ok(Vec::new());
        }
        if self.trace.plan.ends_with("graph") {
            match self.walk()? {
                Ok(found) => return Ok(found),
                Err(reason) => {
                    self.trace.reason = reason;
                    self.trace.plan = if filtered { "filtered_exact" } else { "exact" };
                }
            }
        }
        self.scan()
    }

    /// Why the graph is to be walked, or why it is not.
    fn choose(&self) -> Result<String, String> {
        let live = self.view.table.live();
        if self.query.exact {
            return Err("asked for".to_owned());
        }
        let Some(graph) = &self.view.graph else {
            return Err("there is no graph".to_owned());
        };
        if live <= SCAN_MAX {
            return Err(format!("{live} vectors are scanned faster"));
        }
        if graph.index.is_empty() {
            return Err("the graph is still empty".to_owned());
        }
        let Some(allowed) = &self.allowed.documents else {
            return Ok(format!("{live} vectors"));
        };
        // Documents have about as many passages as others.
        let estimate = allowed.len() * live / self.view.table.documents().max(1);
        if estimate <= FILTERED_SCAN_MAX || estimate < live / FILTERED_SCAN_SHARE {
            return Err(format!("about {estimate} of {live} vectors match"));
        }
        Ok(format!("about {estimate} of {live} vectors match"))
    }

    /// Passages that could be answered.
    fn reachable_passages(&self) -> u64 {
        let Allowed { documents, excluded, .. } = &*self.allowed;
        let excluded = *excluded;
        let passages = |doc: u32| self.view.table.entry(doc).map_or(0, |entry| u64::from(entry.passages));
        match documents {
            Some(documents) => documents.iter().filter(|doc| Some(*doc) != excluded).map(passages).sum(),
            None => self.view.table.live() - excluded.map_or(0, passages),
        }
    }

    /// Vectors to ask for at first, so that `wanted` documents are among them as a rule.
    fn first_ask(&self) -> usize {
        if self.query.by_passage {
            return self.wanted + 1;
        }
        let slots = &self.view.table;
        let per_document = slots.live().div_ceil(slots.documents().max(1));
        self.wanted.saturating_mul(usize::try_from(per_document).unwrap_or(1).clamp(1, 8)) + 1
    }

    /// By the graph, and what it lacks by scanning; or why that will not do.
    fn walk(&mut self) -> Result<Result<Vec<Found>, String>, Stopped> {
        let Some(graph) = &self.view.graph else { return Ok(Err("there is no graph".to_owned())) };
        let indexed = graph.indexed;
        let allow = |slot: Slot| slot.0 < indexed && self.allowed.has(slot);
        let tail: Vec<Slot> = self.view.tail().filter(|slot| self.allowed.has(*slot)).collect();
        let mut ask = self.first_ask();
        loop {
            self.query.stop.check()?;
            let ef = self.ef_search.max(ask);
            if ef > EF_MAX.max(self.ef_search) {
                return Ok(Err(format!("the graph found fewer than {} with ef {EF_MAX}", self.wanted)));
            }
            let params = SearchParams { k: ask, ef, allow: Some(&allow) };
            let neighbors = match graph.index.try_search(self.vector, &params) {
                Some(Ok(neighbors)) => neighbors,
                Some(Err(error)) => {
                    self.graph_failed = true;
                    return Ok(Err(format!("the graph failed: {error}")));
                }
                None => return Ok(Err("the graph is being added to".to_owned())),
            };
            let exhausted = neighbors.len() < ask;
            // Distances are those of the exact scan, whatever the graph computes with.
            let mut slots: Vec<Slot> = neighbors.iter().map(|neighbor| neighbor.slot).collect();
            slots.extend(&tail);
            slots.sort_unstable();
            let near = self.view.flat.scan(self.vector, ask, slots.into_iter(), &self.query.stop)?;
            let found = self.group(&near)?;
            if found.len() >= self.wanted {
                self.trace.scanned += tail.len() as u64;
                self.trace.ef = u32::try_from(ef).unwrap_or(u32::MAX);
                return Ok(Ok(self.finish(found)));
            }
            if exhausted {
                return Ok(Err(format!("the graph found only {} of {}", found.len(), self.wanted)));
            }
            ask = ask.saturating_mul(WIDEN);
        }
    }

    /// By comparing with every vector allowed.
    fn scan(&mut self) -> Result<Vec<Found>, Stopped> {
        let (table, stop) = (&self.view.table, &self.query.stop);
        let mut candidates: Option<Vec<Slot>> = self.allowed.documents.as_ref().map(|documents| {
            documents
                .iter()
                .filter(|doc| Some(*doc) != self.allowed.excluded)
                .filter_map(|doc| table.entry(doc))
                .flat_map(|entry| entry.slots().map(Slot))
                .collect()
        });
        if let Some(candidates) = &mut candidates {
            candidates.sort_unstable();
        }
        let total = candidates.as_ref().map_or(table.live(), |slots| slots.len() as u64);
        self.trace.scanned += total;
        let mut ask = self.first_ask();
        let allowed = Arc::clone(&self.allowed);
        let allow: SharedAllow = Arc::new(move |slot| allowed.has(slot));
        loop {
            let neighbors = match &candidates {
                Some(candidates) => {
                    self.view.flat.scan(self.vector, ask, candidates.iter().copied(), stop)?
                }
                None => self.view.flat.nearest(self.vector, ask, Some(&allow), stop)?,
            };
            let all = neighbors.len() < ask;
            let found = self.group(&neighbors)?;
            // Passages not seen may score as the last one seen; enough only if the hits are all better.
            let last = neighbors.last().map_or(f32::NEG_INFINITY, |n| self.score(n.distance));
            let settled = found.get(self.wanted - 1).is_some_and(|worst| worst.score > last);
            if all || settled {
                return Ok(self.finish(found));
            }
            ask = ask.saturating_mul(WIDEN);
        }
    }

    fn score(&self, distance: f32) -> f32 {
        self.view.flat.metric().score(distance)
    }

    /// Best passage of each document, or every passage, in the order of answers.
    fn group(&self, neighbors: &[Neighbor]) -> Result<Vec<Found>, Stopped> {
        let mut going = self.query.stop.pace();
        let found: Vec<Found> = neighbors
            .iter()
            .take_while(|_| going())
            .filter_map(|neighbor| {
                let doc = self.view.table.doc(neighbor.slot)?;
                let entry = self.view.table.entry(doc)?;
                Some(Found {
                    doc,
                    id: entry.id.clone(),
                    ordinal: neighbor.slot.0 - entry.first_slot,
                    score: self.score(neighbor.distance),
                })
            })
            .collect();
        self.query.stop.check()?;
        Ok(self.best(found))
    }

    /// In the order of answers, each document (or passage, where passages are asked for) once.
    fn best(&self, mut found: Vec<Found>) -> Vec<Found> {
        found.sort_unstable_by(rank);
        let mut seen = HashSet::with_capacity(found.len());
        found.retain(|found| seen.insert((found.doc, if self.query.by_passage { found.ordinal } else { 0 })));
        found
    }

    fn finish(&self, mut found: Vec<Found>) -> Vec<Found> {
        found.truncate(self.wanted);
        if let Some(threshold) = self.query.score_threshold {
            found.retain(|found| found.score >= threshold);
        }
        found
    }
}
