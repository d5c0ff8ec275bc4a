//! The documents of a collection that no segment has yet, as readers see them: their ids and their fields.
//!
//! A batch becomes a run, which never changes; runs are merged with their neighbours as they come, a few of about the
//! same size into one, as in a log-structured merge tree (O'Neil and others 1996). So a document is indexed anew a few
//! times at most, a clone costs a few reference counts for each run, and there are a few dozen of them. What is removed
//! is taken from the set of those that live, beside the run; merging leaves it out.
//!
//! When documents lie in a segment their runs go.

use std::{borrow::Borrow, sync::Arc};

use roaring::RoaringBitmap;

use super::slots::Entry;
use crate::{
    index::columns::{FieldIndex, Living},
    segmented::{IdHash, Ids},
    value::{Payload, PointId},
};

/// Runs of about the same size that become one.
const FANOUT: usize = 4;

/// A run of so many documents is merged no more: it takes a hundredth of a second, and a write waits for it.
pub(super) const RUN_DOCS: usize = 4096;

/// What no segment has yet. Documents go by their numbers in memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Fresh {
    /// In the order of their documents.
    runs: Vec<Run>,
}

/// Some documents, one behind the other.
#[derive(Debug, Clone)]
pub(super) struct Run {
    held: Arc<Held>,
    living: Arc<RoaringBitmap>,
}

#[derive(Debug)]
struct Held {
    fields: FieldIndex,
    /// In the order of their ids.
    by_id: Vec<(Arc<Entry>, u32)>,
    ids: Ids,
    /// Number of the last document in the store, and here.
    last: (u64, u32),
    /// Runs of the same one are about as large.
    level: u32,
}

impl Run {
    fn of(fields: FieldIndex, mut by_id: Vec<(Arc<Entry>, u32)>) -> Option<Self> {
        let last = by_id.iter().map(|(entry, doc)| (entry.number, *doc)).max()?;
        by_id.sort_unstable_by(|(a, _), (b, _)| a.id.cmp(&b.id));
        let mut ids = Ids::with_capacity(by_id.len());
        by_id.iter().for_each(|(entry, _)| ids.insert(IdHash::of(&entry.id)));
        let living = Arc::new(fields.documents().clone());
        let level = by_id.len().min(RUN_DOCS).ilog(FANOUT);
        Some(Run { held: Arc::new(Held { fields, by_id, ids, last, level }), living })
    }

    /// One run of several that lie one behind the other, without what does not live; `None` if nothing does.
    fn merged(runs: &[Run]) -> Option<Self> {
        let mut fields = FieldIndex::new();
        let mut by_id = Vec::with_capacity(runs.iter().map(|run| run.held.by_id.len()).sum());
        for Run { held, living } in runs {
            fields.absorb(&held.fields, living);
            by_id.extend(held.by_id.iter().filter(|(_, doc)| living.contains(*doc)).cloned());
        }
        Run::of(fields, by_id)
    }

    /// The documents that are there.
    pub(super) fn living(&self) -> &RoaringBitmap {
        &self.living
    }

    /// Their fields.
    pub(super) fn fields(&self) -> Living<'_> {
        Living { index: &self.held.fields, documents: &self.living }
    }

    /// Documents in the order of their ids, from the one behind `after` on, removed ones too.
    pub(super) fn scroll<'a>(
        &'a self,
        after: Option<&PointId>,
    ) -> impl Iterator<Item = (&'a Arc<Entry>, u32)> + use<'a> {
        let by_id = &self.held.by_id;
        let from = after.map_or(0, |after| by_id.partition_point(|(entry, _)| entry.id <= *after));
        by_id[from..].iter().map(|(entry, doc)| (entry, *doc))
    }

    fn find(&self, id: &PointId, hash: IdHash) -> Option<u32> {
        if !self.held.ids.may_have(hash) {
            return None;
        }
        let by_id = &self.held.by_id;
        // Each is there once: a batch names an id once, and merging takes what lives.
        let at = by_id.binary_search_by(|(entry, _)| entry.id.cmp(id)).ok()?;
        Some(by_id[at].1).filter(|doc| self.living.contains(*doc))
    }
}

impl Fresh {
    /// Adds documents with numbers above all that are there, in their order.
    pub(super) fn add<P: Borrow<Payload>>(
        &mut self,
        documents: impl IntoIterator<Item = (u32, Arc<Entry>, P)>,
    ) {
        let (mut fields, mut by_id) = (FieldIndex::new(), Vec::new());
        for (doc, entry, payload) in documents {
            fields.insert(doc, payload.borrow());
            by_id.push((entry, doc));
        }
        self.runs.extend(Run::of(fields, by_id));
        while self.merge() {}
    }

    /// Merges the last runs, if there are enough that are no larger than the last one.
    fn merge(&mut self) -> bool {
        let Some(level) = self.runs.last().map(|run| run.held.level) else { return false };
        let smaller = self.runs.iter().rev().take_while(|run| run.held.level <= level).count();
        if smaller < FANOUT || level >= RUN_DOCS.ilog(FANOUT) {
            return false;
        }
        let runs = self.runs.split_off(self.runs.len() - smaller);
        let merged = Run::merged(&runs);
        // What was removed may leave less than one of them had.
        let grew = merged.as_ref().is_some_and(|run| run.held.level > level);
        self.runs.extend(merged);
        grew
    }

    /// Removes a document, if it is here.
    pub(super) fn remove(&mut self, doc: u32) {
        let at = self.runs.partition_point(|run| run.held.last.1 < doc);
        if let Some(run) = self.runs.get_mut(at)
            && run.living.contains(doc)
        {
            Arc::make_mut(&mut run.living).remove(doc);
            if run.living.is_empty() {
                self.runs.remove(at);
            }
        }
    }

    /// Lets go of the documents that lie in segments now: those with numbers in the store up to `last`.
    pub(super) fn leave_to_segments(&mut self, last: u64) {
        self.runs.retain_mut(|run| {
            if run.held.last.0 <= last {
                return false;
            }
            let sealed = run.held.by_id.iter().filter(|(entry, _)| entry.number <= last);
            let sealed: RoaringBitmap = sealed.map(|(_, doc)| *doc).collect();
            if !sealed.is_disjoint(&run.living) {
                *Arc::make_mut(&mut run.living) -= sealed;
            }
            !run.living.is_empty()
        });
    }

    /// A document by id.
    pub(super) fn find(&self, id: &PointId, hash: IdHash) -> Option<u32> {
        self.runs.iter().rev().find_map(|run| run.find(id, hash))
    }

    /// Documents that are there.
    pub(super) fn documents(&self) -> u64 {
        self.runs.iter().map(|run| run.living.len()).sum()
    }

    /// The runs, in the order of their documents.
    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        collection::point::ContentHash,
        index::columns::Several,
        stop::Stop,
        value::{
            Value,
            filter::{
                Filter, FilterError,
                tests::{any_filter, any_payload},
            },
        },
    };

    fn entry(doc: u32, id: &str) -> Arc<Entry> {
        let (id, hash) = (PointId::new(id).unwrap(), ContentHash([0; 16]));
        // Numbers in the store have gaps and begin elsewhere.
        Arc::new(Entry { id, hash, number: 100 + 3 * u64::from(doc), first_slot: doc, passages: 1 })
    }

    fn find(fresh: &Fresh, id: &str) -> Option<u32> {
        let id = PointId::new(id).unwrap();
        fresh.find(&id, IdHash::of(&id))
    }

    fn matching(fresh: &Fresh, filter: &Filter) -> Result<RoaringBitmap, FilterError> {
        let places = Several(fresh.runs().iter().map(Run::fields).collect());
        Ok(places
            .matching(filter, &Stop::default())?
            .into_iter()
            .fold(RoaringBitmap::new(), |all, docs| all | docs))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever came in which batches, was removed, or went to a segment: what is left answers as one index of it.
        #[test]
        fn runs_answer_as_one_index(
            batches in prop::collection::vec(
                prop::collection::vec((0..12u32, prop::option::weighted(0.8, any_payload())), 0..5), 0..24),
            filters in prop::collection::vec(any_filter(), 1..5),
            sealed in prop::option::of(0..40u32),
        ) {
            let (mut fresh, mut next) = (Fresh::default(), 0);
            let mut kept: BTreeMap<u32, (String, Payload)> = BTreeMap::new();
            let mut snapshots = Vec::new();
            for batch in batches {
                let mut new = Vec::new();
                let mut named = std::collections::BTreeSet::new();
                for (name, payload) in batch.into_iter().filter(|(name, _)| named.insert(*name)) {
                    let name = format!("doc {name}");
                    if let Some(doc) = find(&fresh, &name) {
                        fresh.remove(doc);
                        prop_assert_eq!(&kept.remove(&doc).unwrap().0, &name);
                    }
                    if let Some(payload) = payload {
                        new.push((next, entry(next, &name), payload.clone()));
                        kept.insert(next, (name, payload));
                        next += 1;
                    }
                }
                fresh.add(new);
                snapshots.push((fresh.clone(), kept.clone()));
            }
            if let Some(sealed) = sealed {
                fresh.leave_to_segments(100 + 3 * u64::from(sealed));
                kept.retain(|doc, _| *doc > sealed);
                snapshots.push((fresh, kept));
            }
            for (fresh, kept) in snapshots {
                let mut index = FieldIndex::new();
                kept.iter().for_each(|(doc, (_, payload))| index.insert(*doc, payload));
                for filter in &filters {
                    prop_assert_eq!(matching(&fresh, filter), index.matching(filter, &Stop::default()));
                }
                for (doc, (name, _)) in &kept {
                    prop_assert_eq!(find(&fresh, name), Some(*doc));
                }
                prop_assert_eq!(fresh.documents(), kept.len() as u64);
                prop_assert_eq!(find(&fresh, "nobody"), None);
            }
        }
    }

    #[test]
    fn many_small_batches_make_few_runs_and_each_is_in_order() {
        let mut fresh = Fresh::default();
        for doc in 0..20_000 {
            let payload = Payload::from([("n".to_owned(), Value::Integer(i64::from(doc % 10)))]);
            fresh.add([(doc, entry(doc, &format!("doc {:05}", (doc * 7919) % 20_000)), payload)]);
        }
        // Those that are merged no more, and less than four of each size.
        let most = 20_000 / RUN_DOCS + (FANOUT - 1) * (RUN_DOCS.ilog(FANOUT) as usize + 1);
        assert!(fresh.runs().len() <= most, "{} runs", fresh.runs().len());
        assert_eq!(matching(&fresh, &Filter::parse("n = 3").unwrap()).unwrap().len(), 2000);
        for run in fresh.runs() {
            let after = PointId::new("doc 10000").unwrap();
            let ids: Vec<&str> = run.scroll(Some(&after)).map(|(entry, _)| entry.id.as_str()).collect();
            assert!(ids.is_sorted() && ids.iter().all(|id| *id > "doc 10000"));
        }
        (0..20_000).for_each(|doc| fresh.remove(doc));
        assert!(fresh.runs().is_empty());
    }
}
