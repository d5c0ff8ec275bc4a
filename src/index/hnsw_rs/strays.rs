//! Strays are points of the graph that a search for their own vector does not find; they are scanned exactly beside the
//! graph.
//!
//! `hnsw_rs` keeps of a point's links the nearest ones, whatever lies beyond. Groups that arrive one after another lose
//! their only links from elsewhere that way, and near copies close themselves off. None of that can be repaired from
//! outside, but it can be detected: a point that belongs to the nearest of its own vector and is not answered is a
//! stray. A pass over the graph looks for strays, and so does a small part of every insert; both are described at
//! [`HnswRsIndex::look_for_strays`].
//!
//! Rejected: `keep_pruned` and `extend_candidates` of `hnsw_rs`. With the first, 1,300 of 2,500 vectors (400 near
//! copies among them) were not found instead of 19; the second changes nothing where there are enough candidates.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    sync::Arc,
};

use hnsw_rs::{anndists::dist::distances::Distance, hnsw::Point};

use super::{
    super::{IndexError, Neighbor, Slot, VectorIndex as _},
    Graph, HnswRsIndex, LAYERS, RUN_MAX,
    twins::{digest, read_u32, read_u64},
};
use crate::{
    stop::Stop,
    vector::{Metric, dot},
};

/// Candidates of the first, cheap look for a point. What it misses is looked for once more as searches do.
const GLANCE_EF: usize = 16;

/// One in so many points is looked for; where one is missing, those around it are too.
const SAMPLE: usize = 4;

/// Of so many links of a point, its nearest, one must lead back for it to be passed over by the sample.
const LINKS_BACK: usize = 2;

/// A point belongs to the nearest of its vector if it is among so many.
const NEAREST: usize = 10;

/// Where more than one in so many points that were looked for is missing, a pass looks for every point.
const RARE: usize = 2000;

/// A pass is due when the graph has grown by one in so many points since the last one, and an owner has time for it.
const GROWN: usize = 4;

/// Points that the graph does not find, with their vectors, and how far the looking got.
#[derive(Debug, Default)]
pub(super) struct Strays {
    nodes: Vec<Slot>,
    /// Rows of the index's dimension.
    values: Vec<f32>,
    /// Points of the graph at the last pass.
    passed: usize,
}

impl Strays {
    fn push(&mut self, node: Slot, vector: &[f32]) {
        if !self.nodes.contains(&node) {
            self.nodes.push(node);
            self.values.extend_from_slice(vector);
        }
    }

    /// Number of them.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Points of the graph at the last pass.
    #[cfg(test)]
    pub(super) fn passed(&self) -> usize {
        self.passed
    }

    /// Each with its distance from the query.
    pub(super) fn scan(&self, metric: Metric, query: &[f32]) -> impl Iterator<Item = Neighbor> {
        let rows = self.nodes.iter().zip(self.values.chunks_exact(query.len().max(1)));
        rows.map(move |(slot, row)| Neighbor { slot: *slot, distance: metric.distance(query, row) })
    }

    /// Points at the last pass, number of strays, then their nodes; all numbers little-endian.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&(self.passed as u64).to_le_bytes())?;
        out.write_all(&(self.nodes.len() as u64).to_le_bytes())?;
        self.nodes.iter().try_for_each(|node| out.write_all(&node.0.to_le_bytes()))
    }

    /// The way back from [`Strays::write`], the vectors being those of the graph's points.
    pub(super) fn read(from: &mut impl Read, graph: &Graph) -> io::Result<Self> {
        let passed = usize::try_from(read_u64(from)?).unwrap_or(usize::MAX);
        let mut nodes = Vec::new();
        for _ in 0..read_u64(from)? {
            nodes.push(read_u32(from)? as usize);
        }
        let mut strays = Strays { passed: passed.min(graph.points()), ..Strays::default() };
        if nodes.is_empty() {
            return Ok(strays);
        }
        nodes.sort_unstable();
        for point in graph.all().iter().filter(|p| nodes.binary_search(&p.get_origin_id()).is_ok()) {
            if let Some(node) = super::slot_of(point.get_origin_id()) {
                strays.nodes.push(node);
                strays.values.extend_from_slice(point.get_v());
            }
        }
        Ok(strays)
    }
}

impl Graph {
    /// Every point.
    pub(super) fn all(&self) -> Vec<Arc<Point<'static, f32>>> {
        let layers = self.hnsw().get_point_indexation();
        let mut points = Vec::with_capacity(self.points());
        for layer in 0..LAYERS {
            points.extend(layers.get_layer_iterator(layer));
        }
        points
    }

    /// Whether the point is among the nearest of its own vector and a search does not say so.
    fn misses(&self, metric: Metric, id: usize, vector: &[f32], ef: usize) -> bool {
        let (hnsw, ef) = (self.hnsw(), ef.min(self.points()));
        let found = hnsw.search_filter(vector, ef, ef, None);
        if found.iter().any(|n| n.d_id == id) {
            return false;
        }
        let own = hnsw.get_distance().eval(vector, vector);
        // Near copies at one distance are as good as the point itself.
        let rounding = match metric {
            Metric::Cosine | Metric::Euclidean => 1e-6 * dot(vector, vector),
            Metric::Dot => 1e-6 * own,
        };
        let last = NEAREST.min(self.points() - 1);
        last > 0 && found.get(last - 1).is_none_or(|n| n.distance > own + rounding)
    }
}

impl HnswRsIndex {
    /// Whether neither a cheap search nor one as usual finds the point.
    fn is_stray(&self, id: usize, vector: &[f32]) -> Result<bool, IndexError> {
        let graph = self.read();
        self.guarded(|| {
            let usual = usize::from(self.params.ef_search).max(GLANCE_EF);
            Ok(graph.misses(self.metric, id, vector, GLANCE_EF)
                && graph.misses(self.metric, id, vector, usual))
        })
    }

    /// Looks for a sample of what was just inserted, and for all of it where one is missing.
    pub(super) fn look_for_new(&self, items: &[(Slot, &[f32])]) -> Result<(), IndexError> {
        for items in items.chunks(RUN_MAX) {
            let few = items.len() < 2 * SAMPLE;
            let (mut sample, mut rest): (Vec<_>, Vec<_>) =
                items.iter().enumerate().partition(|(i, _)| few || i.is_multiple_of(SAMPLE));
            while let Some((_, (_, vector))) = sample.pop() {
                let node = self.read().twins.node(&digest(vector));
                let Some(node) = node else { continue };
                if self.is_stray(node.0 as usize, vector)? {
                    self.write().strays.push(node, vector);
                    sample.append(&mut rest);
                }
            }
        }
        Ok(())
    }

    /// Whether the graph has grown so much that a pass is due: by `1 / grown` of the points at the last one.
    fn pass_is_due(&self, grown: usize) -> bool {
        let graph = self.read();
        let (points, passed) = (graph.points(), graph.strays.passed);
        points > passed + passed / grown
    }

    /// A pass in the middle of a build: when the graph is twice as large as at the last one.
    pub(super) fn pass_while_building(&self, stop: &Stop) -> Result<(), IndexError> {
        if self.len() < 2 * RUN_MAX || !self.pass_is_due(1) { Ok(()) } else { self.look_for_strays(stop) }
    }

    /// A pass after a build, if much was added since the last one.
    pub(super) fn pass_after_building(&self, stop: &Stop) -> Result<(), IndexError> {
        if self.pass_is_due(GROWN) { self.look_for_strays(stop) } else { Ok(()) }
    }

    /// One pass over the graph: looks for one in [`SAMPLE`] points, for every point that none of its nearest
    /// [`LINKS_BACK`] neighbours links to, and around each that is missing, until nothing more is missing there. Where
    /// more is missing than rarely, it looks for every point.
    ///
    /// Costs about a twentieth of what building the graph did, and a fifth where it looks for every point. Left off when
    /// `stop` says so: nothing is found then. Searches go on meanwhile: each look holds the lock for itself. On the calling thread alone, since a look on a pool would wait there for a lock
    /// whose holder may wait for the pool.
    fn look_for_strays(&self, stop: &Stop) -> Result<(), IndexError> {
        let points = self.read().all();
        let place: HashMap<usize, u32> =
            points.iter().enumerate().map(|(i, p)| (p.get_origin_id(), i as u32)).collect();
        let links: Vec<Vec<u32>> = points
            .iter()
            .map(|p| p.get_neighborhood_id()[0].iter().filter_map(|n| place.get(&n.d_id).copied()).collect())
            .collect();
        drop(place);
        let leads_back = |from: usize| {
            links[from].iter().take(LINKS_BACK).any(|to| links[*to as usize].contains(&(from as u32)))
        };
        let mut queued = vec![false; points.len()];
        let mut queue: Vec<u32> = (0..points.len() as u32).collect();
        queue.retain(|i| (*i as usize).is_multiple_of(SAMPLE) || !leads_back(*i as usize));
        queue.iter().for_each(|i| queued[*i as usize] = true);
        let (mut strays, mut looked, mut everywhere) = (Vec::new(), 0, false);
        while !queue.is_empty() {
            looked += queue.len();
            let mut missing = Vec::new();
            for i in queue {
                if stop.is_asked() {
                    return Ok(());
                }
                let point = &points[i as usize];
                if self.is_stray(point.get_origin_id(), point.get_v())? {
                    missing.push(i);
                }
            }
            let around = missing.iter().flat_map(|i| &links[*i as usize]);
            queue = around.copied().filter(|i| !std::mem::replace(&mut queued[*i as usize], true)).collect();
            strays.append(&mut missing);
            if queue.is_empty() && !everywhere && strays.len() * RARE > looked {
                everywhere = true;
                queue = (0..points.len() as u32).filter(|i| !queued[*i as usize]).collect();
            }
        }
        let mut found = Strays { passed: points.len(), ..Strays::default() };
        strays.sort_unstable();
        for i in strays {
            let point = &points[i as usize];
            if let Some(node) = super::slot_of(point.get_origin_id()) {
                found.nodes.push(node);
                found.values.extend_from_slice(point.get_v());
            }
        }
        if !found.nodes.is_empty() {
            let (points, strays) = (points.len(), found.nodes.len());
            tracing::debug!(points, strays, "points that the graph does not find are scanned");
        }
        self.write().strays = found;
        Ok(())
    }
}
