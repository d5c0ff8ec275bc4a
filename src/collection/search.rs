//! A query -> hits: chooses how to look, looks, groups passages by document, and reads the hits' documents.
//!
//! Plans: `exact` scans every vector, `graph` walks the graph and scans what it does not have yet, `filtered_exact` and
//! `filtered_graph` are the same among the documents that match a filter. The graph may find too few: it is then asked
//! for more, and in the end everything allowed is scanned, so the answer always has min(k, allowed documents) hits.
//! Order: larger scores first, then ids, then passages; equal scores at the end of the answer are chosen by that too.

use std::{
    cmp::Ordering,
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use roaring::RoaringBitmap;

use super::{
    CollectionError, Query, SearchTrace, Shared,
    memory::Memory,
    point::{Hit, PointId},
};
use crate::index::{IndexError, Neighbor, SearchParams, Slot, VectorIndex as _};

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
struct Found {
    doc: u32,
    id: PointId,
    ordinal: u32,
    score: f32,
}

fn rank(a: &Found, b: &Found) -> Ordering {
    b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)).then_with(|| a.ordinal.cmp(&b.ordinal))
}

/// One search of the memory, and how it goes.
struct Search<'a> {
    memory: &'a Memory,
    query: &'a Query,
    vector: &'a [f32],
    /// Documents that may be answered; `None`: all.
    allowed: Option<&'a RoaringBitmap>,
    excluded: Option<u32>,
    /// Hits wanted, at most as many as there can be.
    wanted: usize,
    ef_search: usize,
    trace: SearchTrace,
    graph_failed: bool,
}

pub(super) fn search(shared: &Shared, query: &Query) -> Result<(Vec<Hit>, SearchTrace), CollectionError> {
    let vector = query.vector.as_slice();
    if vector.len() != shared.spec.dim.len() {
        let wrong = IndexError::WrongDim { expected: shared.spec.dim.as_u32(), got: vector.len() };
        return Err(wrong.into());
    }
    let memory = shared.read_memory();
    let begun = Instant::now();
    let matching = query.filter.as_ref().map(|filter| memory.fields.matching(filter)).transpose()?;
    let hints = query.filter.as_ref().map(|filter| memory.fields.hints(filter)).unwrap_or_default();
    let filter_time = if matching.is_some() { begun.elapsed() } else { Duration::ZERO };
    let begun = Instant::now();
    let excluded = query.exclude.as_ref().and_then(|id| memory.slots.number(id));
    let allowed = matching.as_ref().map_or(memory.slots.documents(), RoaringBitmap::len);
    let reachable = allowed
        - u64::from(excluded.is_some_and(|doc| matching.as_ref().is_none_or(|docs| docs.contains(doc))));
    let mut search = Search {
        memory: &memory,
        query,
        vector,
        allowed: matching.as_ref(),
        excluded,
        wanted: 0,
        ef_search: query.ef.unwrap_or_else(|| shared.spec.index.ef_search.into()),
        trace: SearchTrace { filter_time, matching_documents: allowed, hints, ..SearchTrace::default() },
        graph_failed: false,
    };
    let reachable = if query.by_passage { search.passages_of(excluded) } else { reachable };
    search.wanted = query.k.min(usize::try_from(reachable).unwrap_or(usize::MAX));
    let found = search.run();
    let Search { mut trace, graph_failed, .. } = search;
    // Whoever holds this keeps the documents found readable, though they be deleted now.
    let generation = Arc::clone(&memory.generation);
    drop(memory);
    trace.search_time = begun.elapsed();
    if graph_failed {
        shared.signal.graph_failed();
    }
    let begun = Instant::now();
    let hits = found.into_iter().map(|found| fetch(shared, query, found)).collect::<Result<Vec<_>, _>>()?;
    drop(generation);
    trace.fetch_time = begun.elapsed();
    Ok((hits, trace))
}

fn fetch(shared: &Shared, query: &Query, found: Found) -> Result<Hit, CollectionError> {
    let (head, body) = shared.read_head(found.doc)?;
    let range = body.passages.get(found.ordinal as usize).cloned().unwrap_or(0..0);
    let passage = if query.with_text {
        let text = shared.store.text(found.doc, &head)?;
        text.get(range.start as usize..range.end as usize).unwrap_or_default().to_owned()
    } else {
        String::new()
    };
    let payload = if query.with_payload { Arc::new(body.payload) } else { Arc::default() };
    Ok(Hit {
        id: found.id,
        score: found.score,
        title: body.title,
        ordinal: found.ordinal,
        range,
        passage,
        payload,
    })
}

impl Search<'_> {
    fn run(&mut self) -> Vec<Found> {
        let filtered = self.allowed.is_some();
        (self.trace.plan, self.trace.reason) = match self.choose() {
            Ok(reason) => (if filtered { "filtered_graph" } else { "graph" }, reason),
            Err(reason) => (if filtered { "filtered_exact" } else { "exact" }, reason),
        };
        if self.wanted == 0 {
            return Vec::new();
        }
        if self.trace.plan.ends_with("graph") {
            match self.walk() {
                Ok(found) => return found,
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
        let live = self.memory.slots.live();
        if self.query.exact {
            return Err("asked for".to_owned());
        }
        let Some(graph) = &self.memory.graph else {
            return Err("there is no graph".to_owned());
        };
        if live <= SCAN_MAX {
            return Err(format!("{live} vectors are scanned faster"));
        }
        if graph.index.is_empty() {
            return Err("the graph is still empty".to_owned());
        }
        let Some(allowed) = self.allowed else {
            return Ok(format!("{live} vectors"));
        };
        // Documents have about as many passages as others.
        let estimate = allowed.len() * live / self.memory.slots.documents().max(1);
        if estimate <= FILTERED_SCAN_MAX || estimate < live / FILTERED_SCAN_SHARE {
            return Err(format!("about {estimate} of {live} vectors match"));
        }
        Ok(format!("about {estimate} of {live} vectors match"))
    }

    fn allows(&self, slot: Slot) -> bool {
        self.memory.slots.doc(slot).is_some_and(|doc| {
            Some(doc) != self.excluded && self.allowed.is_none_or(|allowed| allowed.contains(doc))
        })
    }

    /// Passages that could be answered.
    fn passages_of(&self, excluded: Option<u32>) -> u64 {
        let passages = |doc: u32| self.memory.slots.entry(doc).map_or(0, |entry| u64::from(entry.passages));
        match self.allowed {
            Some(allowed) => allowed.iter().filter(|doc| Some(*doc) != excluded).map(passages).sum(),
            None => self.memory.slots.live() - excluded.map_or(0, passages),
        }
    }

    /// Vectors to ask for at first, so that `wanted` documents are among them as a rule.
    fn first_ask(&self) -> usize {
        if self.query.by_passage {
            return self.wanted + 1;
        }
        let slots = &self.memory.slots;
        let per_document = slots.live().div_ceil(slots.documents().max(1));
        self.wanted.saturating_mul(usize::try_from(per_document).unwrap_or(1).clamp(1, 8)) + 1
    }

    /// By the graph, and what it lacks by scanning; or why that will not do.
    fn walk(&mut self) -> Result<Vec<Found>, String> {
        let graph = self.memory.graph.as_ref().ok_or("there is no graph")?;
        let indexed = graph.indexed;
        let allow = |slot: Slot| slot.0 < indexed && self.allows(slot);
        let tail: Vec<Slot> = self.memory.tail().filter(|slot| self.allows(*slot)).collect();
        let mut ask = self.first_ask();
        loop {
            let ef = self.ef_search.max(ask);
            if ef > EF_MAX.max(self.ef_search) {
                return Err(format!("the graph found fewer than {} with ef {EF_MAX}", self.wanted));
            }
            let params = SearchParams { k: ask, ef, allow: Some(&allow) };
            let neighbors = match graph.index.try_search(self.vector, &params) {
                Some(Ok(neighbors)) => neighbors,
                Some(Err(error)) => {
                    self.graph_failed = true;
                    return Err(format!("the graph failed: {error}"));
                }
                None => return Err("the graph is being added to".to_owned()),
            };
            let exhausted = neighbors.len() < ask;
            // Distances are those of the exact scan, whatever the graph computes with.
            let mut slots: Vec<Slot> = neighbors.iter().map(|neighbor| neighbor.slot).collect();
            slots.extend(&tail);
            slots.sort_unstable();
            let found = self.group(&self.memory.flat.scan(self.vector, ask, slots.into_iter()));
            if found.len() >= self.wanted {
                self.trace.scanned = tail.len() as u64;
                self.trace.ef = u32::try_from(ef).unwrap_or(u32::MAX);
                return Ok(self.finish(found));
            }
            if exhausted {
                return Err(format!("the graph found only {} of {}", found.len(), self.wanted));
            }
            ask = ask.saturating_mul(WIDEN);
        }
    }

    /// By comparing with every vector allowed.
    fn scan(&mut self) -> Vec<Found> {
        let slots = &self.memory.slots;
        let mut candidates: Option<Vec<Slot>> = self.allowed.map(|allowed| {
            allowed
                .iter()
                .filter(|doc| Some(*doc) != self.excluded)
                .filter_map(|doc| slots.entry(doc))
                .flat_map(|entry| entry.slots().map(Slot))
                .collect()
        });
        if let Some(candidates) = &mut candidates {
            candidates.sort_unstable();
        }
        let total = candidates.as_ref().map_or(slots.live(), |slots| slots.len() as u64);
        self.trace.scanned = total;
        let mut ask = self.first_ask();
        loop {
            let allow = |slot| self.allows(slot);
            let neighbors = match &candidates {
                Some(candidates) => self.memory.flat.scan(self.vector, ask, candidates.iter().copied()),
                None => self.memory.flat.nearest(self.vector, ask, Some(&allow)),
            };
            let all = neighbors.len() < ask;
            let found = self.group(&neighbors);
            // Passages not seen may score as the last one seen; enough only if the hits are all better.
            let last = neighbors.last().map_or(f32::NEG_INFINITY, |n| self.score(n.distance));
            let settled = found.get(self.wanted - 1).is_some_and(|worst| worst.score > last);
            if all || settled {
                return self.finish(found);
            }
            ask = ask.saturating_mul(WIDEN);
        }
    }

    fn score(&self, distance: f32) -> f32 {
        self.memory.flat.metric().score(distance)
    }

    /// Best passage of each document, or every passage, in the order of answers.
    fn group(&self, neighbors: &[Neighbor]) -> Vec<Found> {
        let mut found: Vec<Found> = neighbors
            .iter()
            .filter_map(|neighbor| {
                let doc = self.memory.slots.doc(neighbor.slot)?;
                let entry = self.memory.slots.entry(doc)?;
                Some(Found {
                    doc,
                    id: entry.id.clone(),
                    ordinal: neighbor.slot.0 - entry.first_slot,
                    score: self.score(neighbor.distance),
                })
            })
            .collect();
        found.sort_unstable_by(rank);
        if !self.query.by_passage {
            let mut seen = HashSet::with_capacity(found.len());
            found.retain(|found| seen.insert(found.doc));
        }
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
