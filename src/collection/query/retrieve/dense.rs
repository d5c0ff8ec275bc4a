//! By vectors: compares the query's with those of passages, by a graph or one by one.
//!
//! Plans: `exact` scans every vector, `graph` walks the graph and scans what it does not have yet, `filtered_exact` and
//! `filtered_graph` are the same among the documents that match a filter. The graph may find too few: it is then asked
//! for more, and in the end everything allowed is scanned, so there are always min(depth, allowed documents) candidates.
//! A query of several vectors is compared by each; a candidate's score is its best.

use std::sync::Arc;

use super::Retriever;
use crate::{
    collection::{
        CollectionError, Shared,
        query::{Retrieval, candidate::Candidate, plan::Plan},
    },
    index::{Neighbor, SearchParams, SharedAllow, Slot, VectorIndex as _},
    stop::Stopped,
};

/// Up to this many vectors a scan is faster than a walk through the graph.
/// (Tests lower this and the like, to see every plan with little data.)
const SCAN_MAX: u64 = if cfg!(test) { 300 } else { 2_000 };

/// Up to this many matching vectors they are scanned.
const FILTERED_SCAN_MAX: u64 = if cfg!(test) { 200 } else { 10_000 };

/// Where fewer than one in so many vectors match, they are scanned: the graph would look at as many to find `ef`.
const FILTERED_SCAN_SHARE: u64 = 20;

/// The graph is asked for this many times more, each time it found too few documents.
const WIDEN: usize = 4;

/// The most candidates a graph is asked to keep; beyond, everything is scanned.
const EF_MAX: usize = 4096;

/// The retriever by vectors.
pub(super) struct Dense<'a> {
    shared: &'a Shared,
}

impl<'a> Dense<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Dense { shared }
    }
}

impl Retriever for Dense<'_> {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn retrieve(
        &self,
        plan: &Plan<'_>,
        depth: usize,
    ) -> Result<(Vec<Candidate>, Retrieval), CollectionError> {
        let ef_search = plan.query.ef.unwrap_or_else(|| self.shared.spec.index.ef_search.into());
        let mut look =
            Look { plan, vector: &[], depth, ef_search, told: Retrieval::default(), graph_failed: false };
        let mut found = Vec::new();
        for vector in &plan.vectors {
            look.vector = vector.as_slice();
            found.extend(look.run()?);
        }
        if plan.vectors.len() > 1 {
            // A document that is among the best by any vector is among the best of that vector's own list.
            found = plan.unit().best(found);
            found.truncate(depth);
        }
        if look.graph_failed {
            self.shared.graph_failed();
        }
        Ok((found, look.told))
    }
}

/// One vector compared with those of a view, and how that goes.
struct Look<'a> {
    plan: &'a Plan<'a>,
    vector: &'a [f32],
    /// Candidates wanted, at most as many as there can be.
    depth: usize,
    ef_search: usize,
    told: Retrieval,
    graph_failed: bool,
}

impl Look<'_> {
    fn run(&mut self) -> Result<Vec<Candidate>, Stopped> {
        let filtered = self.plan.allowed.documents.is_some();
        (self.told.plan, self.told.reason) = match self.choose() {
            Ok(reason) => (if filtered { "filtered_graph" } else { "graph" }, reason),
            Err(reason) => (if filtered { "filtered_exact" } else { "exact" }, reason),
        };
        if self.depth == 0 {
            return Ok(Vec::new());
        }
        if self.told.plan.ends_with("graph") {
            match self.walk()? {
                Ok(found) => return Ok(found),
                Err(reason) => {
                    self.told.reason = reason;
                    self.told.plan = if filtered { "filtered_exact" } else { "exact" };
                }
            }
        }
        self.scan()
    }

    /// Why the graph is to be walked, or why it is not.
    fn choose(&self) -> Result<String, String> {
        let live = self.plan.view.table.live();
        if self.plan.query.exact {
            return Err("asked for".to_owned());
        }
        let Some(graph) = &self.plan.view.graph else {
            return Err("there is no graph".to_owned());
        };
        if live <= SCAN_MAX {
            return Err(format!("{live} vectors are scanned faster"));
        }
        if graph.index.is_empty() {
            return Err("the graph is still empty".to_owned());
        }
        let Some(allowed) = &self.plan.allowed.documents else {
            return Ok(format!("{live} vectors"));
        };
        // Documents have about as many passages as others.
        let estimate = allowed.len() * live / self.plan.view.table.documents().max(1);
        if estimate <= FILTERED_SCAN_MAX || estimate < live / FILTERED_SCAN_SHARE {
            return Err(format!("about {estimate} of {live} vectors match"));
        }
        Ok(format!("about {estimate} of {live} vectors match"))
    }

    /// Vectors to ask for at first, so that `depth` documents are among them as a rule.
    fn first_ask(&self) -> usize {
        if self.plan.query.by_passage {
            return self.depth + 1;
        }
        let slots = &self.plan.view.table;
        let per_document = slots.live().div_ceil(slots.documents().max(1));
        self.depth.saturating_mul(usize::try_from(per_document).unwrap_or(1).clamp(1, 8)) + 1
    }

    /// By the graph, and what it lacks by scanning; or why that will not do.
    fn walk(&mut self) -> Result<Result<Vec<Candidate>, String>, Stopped> {
        let Some(graph) = &self.plan.view.graph else { return Ok(Err("there is no graph".to_owned())) };
        let indexed = graph.indexed;
        let allow = |slot: Slot| slot.0 < indexed && self.plan.allowed.has(slot);
        let mut going = self.plan.stop.pace();
        let tail: Vec<Slot> = self
            .plan
            .view
            .tail()
            .take_while(|_| going())
            .filter(|slot| self.plan.allowed.has(*slot))
            .collect();
        let mut ask = self.first_ask();
        loop {
            self.plan.stop.check()?;
            let ef = self.ef_search.max(ask);
            if ef > EF_MAX.max(self.ef_search) {
                return Ok(Err(format!("the graph found fewer than {} with ef {EF_MAX}", self.depth)));
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
            let near = self.plan.view.flat.scan(self.vector, ask, slots.into_iter(), self.plan.stop)?;
            let found = self.group(&near)?;
            if found.len() >= self.depth {
                self.told.scanned += tail.len() as u64;
                self.told.ef = u32::try_from(ef).unwrap_or(u32::MAX);
                return Ok(Ok(self.finish(found)));
            }
            if exhausted {
                return Ok(Err(format!("the graph found only {} of {}", found.len(), self.depth)));
            }
            ask = ask.saturating_mul(WIDEN);
        }
    }

    /// By comparing with every vector allowed.
    fn scan(&mut self) -> Result<Vec<Candidate>, Stopped> {
        let (table, stop) = (&self.plan.view.table, self.plan.stop);
        let mut going = stop.pace();
        let mut candidates: Option<Vec<Slot>> = self.plan.allowed.documents.as_ref().map(|documents| {
            documents
                .iter()
                .take_while(|_| going())
                .filter(|doc| Some(*doc) != self.plan.allowed.excluded)
                .filter_map(|doc| table.entry(doc))
                .flat_map(|entry| entry.slots().map(Slot))
                .collect()
        });
        // What was gathered may be incomplete.
        stop.check()?;
        if let Some(candidates) = &mut candidates {
            candidates.sort_unstable();
        }
        let total = candidates.as_ref().map_or(table.live(), |slots| slots.len() as u64);
        self.told.scanned += total;
        let mut ask = self.first_ask();
        let allowed = Arc::clone(&self.plan.allowed);
        let allow: SharedAllow = Arc::new(move |slot| allowed.has(slot));
        loop {
            let neighbors = match &candidates {
                Some(candidates) => {
                    self.plan.view.flat.scan(self.vector, ask, candidates.iter().copied(), stop)?
                }
                None => self.plan.view.flat.nearest(self.vector, ask, Some(&allow), stop)?,
            };
            let all = neighbors.len() < ask;
            let found = self.group(&neighbors)?;
            // Passages not seen may score as the last one seen; enough only if the hits are all better.
            let last = neighbors.last().map_or(f32::NEG_INFINITY, |n| self.score(n.distance));
            let settled = found.get(self.depth - 1).is_some_and(|worst| worst.score > last);
            if all || settled {
                return Ok(self.finish(found));
            }
            ask = ask.saturating_mul(WIDEN);
        }
    }

    fn score(&self, distance: f32) -> f32 {
        self.plan.view.flat.metric().score(distance)
    }

    /// Best passage of each document, or every passage, in the order of answers.
    fn group(&self, neighbors: &[Neighbor]) -> Result<Vec<Candidate>, Stopped> {
        let table = &self.plan.view.table;
        let mut going = self.plan.stop.pace();
        let found: Vec<Candidate> = neighbors
            .iter()
            .take_while(|_| going())
            .filter_map(|neighbor| {
                let doc = table.doc(neighbor.slot)?;
                let entry = table.entry(doc)?;
                Some(Candidate {
                    doc: entry.number,
                    id: entry.id.clone(),
                    ordinal: neighbor.slot.0 - entry.first_slot,
                    score: self.score(neighbor.distance),
                    sources: Vec::new(),
                })
            })
            .collect();
        self.plan.stop.check()?;
        Ok(self.plan.unit().best(found))
    }

    fn finish(&self, mut found: Vec<Candidate>) -> Vec<Candidate> {
        found.truncate(self.depth);
        found
    }
}
