//! The documents of a collection that no segment holds yet: what entries of the log did since the last sealing.
//!
//! Documents are only added, so whoever holds a [`Growing`] can read any that it once had, buried or not. Its lock is held
//! to look up or to add, never while bytes are read from a disk.
//!
//! Replaying entries gives the same as applying them did, also where some come again in an entry that carries them
//! forward, and where those that it carries are not in the log any more.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{
    entries::{Gone, Put},
    requests::Request,
};

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Growing(RwLock<Inner>);

#[derive(Debug, Default)]
struct Inner {
    puts: BTreeMap<u64, Arc<Put>>,
    /// Of `puts`; or of documents that an entry further on carries forward.
    buried: HashSet<u64>,
    /// `buried` in the order in which it came.
    burials: Vec<Gone>,
    /// Documents of segments, or of a part that is just being sealed, that entries of this one buried.
    elsewhere: BTreeMap<u64, u32>,
    /// Calls that entries of this one did, and steps of calls.
    requests: Vec<Arc<Request>>,
    bytes: usize,
    /// Sequence of the first entry that is needed to make this anew.
    first: Option<u64>,
    /// Sequence of the first entry after those that are being carried forward.
    after: Option<u64>,
}

/// What a document adds to or takes from the totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// So many vectors.
    One(u32),
}

/// What an entry must say that carries a growing part forward.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) puts: Vec<Arc<Put>>,
    pub(super) buried: Vec<Gone>,
    pub(super) requests: Vec<Arc<Request>>,
}

impl Inner {
    fn content(&self) -> Content {
        let gone = |(&number, &passages): (&u64, &u32)| Gone { number, passages };
        let buried = self.elsewhere.iter().map(gone).collect();
        Content { puts: self.live(), buried, requests: self.requests.clone() }
    }

    fn live(&self) -> Vec<Arc<Put>> {
        self.puts.values().filter(|put| !self.buried.contains(&put.number)).cloned().collect()
    }
}

impl Growing {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A document, buried or not.
    pub(super) fn get(&self, number: u64) -> Option<Arc<Put>> {
        self.read().puts.get(&number).cloned()
    }

    /// Adds a document, unless it is there already.
    pub(super) fn put(&self, put: &Arc<Put>) -> Change {
        let mut inner = self.write();
        if inner.puts.insert(put.number, Arc::clone(put)).is_some() {
            return Change::None;
        }
        inner.bytes += put.bytes();
        if inner.buried.contains(&put.number) { Change::None } else { Change::One(put.passages) }
    }

    /// Buries a document of this part, or one that will come to it.
    pub(super) fn bury(&self, gone: Gone) -> Change {
        let mut inner = self.write();
        let known = inner.puts.contains_key(&gone.number);
        if !inner.buried.insert(gone.number) {
            return Change::None;
        }
        inner.burials.push(gone);
        inner.bytes += size_of::<Gone>();
        if known { Change::One(gone.passages) } else { Change::None }
    }

    /// Notes that an entry buried a document of another part.
    pub(super) fn bury_elsewhere(&self, gone: Gone) {
        let mut inner = self.write();
        if inner.elsewhere.insert(gone.number, gone.passages).is_none() {
            inner.bytes += size_of::<Gone>();
        }
    }

    /// Notes calls that an entry did.
    pub(super) fn note(&self, requests: &[Arc<Request>]) {
        if requests.is_empty() {
            return;
        }
        let mut inner = self.write();
        inner.bytes += requests.iter().map(|request| request.bytes()).sum::<usize>();
        inner.requests.extend(requests.iter().cloned());
    }

    /// Notes the sequence of an entry that was applied.
    pub(super) fn applied(&self, sequence: u64) {
        let mut inner = self.write();
        inner.first.get_or_insert(sequence);
        inner.after.get_or_insert(sequence);
    }

    /// Sequence of the first entry that is needed to make this anew; `None` if none is.
    pub(super) fn first(&self) -> Option<u64> {
        self.read().first
    }

    /// Whether there is nothing to seal.
    pub(super) fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    /// Bytes that it takes in memory, and about as many in the log.
    pub(super) fn bytes(&self) -> usize {
        self.read().bytes
    }

    /// Documents that are not buried, by number, and how many burials there were.
    pub(super) fn live(&self) -> (Vec<Arc<Put>>, usize) {
        let inner = self.read();
        (inner.live(), inner.burials.len())
    }

    /// The burials after the first `count`.
    pub(super) fn burials_after(&self, count: usize) -> Vec<Gone> {
        self.read().burials[count..].to_vec()
    }

    /// How many documents are buried.
    pub(super) fn dead(&self) -> usize {
        let inner = self.read();
        inner.burials.iter().filter(|gone| inner.puts.contains_key(&gone.number)).count()
    }

    /// What an entry that stands for all applied so far must say. Entries applied from now on come after it.
    pub(super) fn begin_carrying(&self) -> Content {
        let mut inner = self.write();
        inner.after = None;
        inner.content()
    }

    /// The content that all entries so far left, without any effect on what is noted.
    pub(super) fn content(&self) -> Content {
        self.read().content()
    }

    /// What this is made of anew needs the entries from this one on.
    pub(super) fn set_first(&self, first: Option<u64>) {
        self.write().first = first;
    }

    /// The entry of [`Growing::begin_carrying`] is durable and applied: those before it are not needed.
    pub(super) fn carried(&self) {
        let mut inner = self.write();
        inner.first = inner.after;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(number: u64) -> Arc<Put> {
        let vectors = [1.0f32, 2.0];
        Arc::new(Put::new(number, vec![9], "text", vectors.chunks(2)))
    }

    fn gone(number: u64) -> Gone {
        Gone { number, passages: 1 }
    }

    fn numbers(puts: &[Arc<Put>]) -> Vec<u64> {
        puts.iter().map(|put| put.number).collect()
    }

    #[test]
    fn a_buried_document_counts_no_more_and_can_be_read_still() {
        let growing = Growing::default();
        assert!(growing.is_empty());
        for number in [4, 2] {
            assert_eq!(growing.put(&put(number)), Change::One(1));
        }
        growing.applied(10);
        assert_eq!(growing.put(&put(4)), Change::None);
        assert_eq!(growing.bury(gone(2)), Change::One(1));
        assert_eq!(growing.bury(gone(2)), Change::None);
        growing.applied(12);
        assert_eq!((numbers(&growing.live().0), growing.first(), growing.dead()), (vec![4], Some(10), 1));
        assert_eq!(growing.get(2).unwrap().number, 2);
        assert!(growing.get(3).is_none());
        assert_eq!((growing.burials_after(0), growing.burials_after(1)), (vec![gone(2)], vec![]));
    }

    #[test]
    fn what_is_carried_needs_no_earlier_entry() {
        let growing = Growing::default();
        growing.put(&put(1));
        growing.put(&put(2));
        growing.applied(5);
        growing.bury(gone(1));
        growing.bury_elsewhere(gone(0));
        growing.applied(6);
        let content = growing.begin_carrying();
        assert_eq!((numbers(&content.puts), content.buried), (vec![2], vec![gone(0)]));
        // A batch that comes before the entry that carries.
        growing.put(&put(3));
        growing.applied(8);
        growing.applied(9);
        assert_eq!(growing.first(), Some(5));
        growing.carried();
        assert_eq!(growing.first(), Some(8));
    }

    proptest! {
        /// Whichever of the entries before it are still in the log, an entry that carries them makes up for the others.
        #[test]
        fn replaying_with_and_without_what_is_carried_is_the_same(
            steps in prop::collection::vec((0u64..8, any::<bool>()), 1..20),
            as_of in any::<prop::sample::Index>(), behind in 0usize..4, kept in any::<prop::sample::Index>(),
        ) {
            // Each document is put once before it is buried.
            let mut known = HashSet::new();
            let steps: Vec<(u64, bool)> = steps
                .into_iter()
                .filter_map(|(number, is_put)| if is_put {
                    known.insert(number).then_some((number, true))
                } else {
                    known.contains(&number).then_some((number, false))
                })
                .collect();
            let apply = |growing: &Growing, steps: &[(u64, bool)]| for (number, is_put) in steps {
                if *is_put { growing.put(&put(*number)); } else { growing.bury(gone(*number)); }
            };
            let as_of = as_of.index(steps.len() + 1);
            let carried = (as_of + behind).min(steps.len());
            let kept = kept.index(as_of + 1);
            let all = Growing::default();
            apply(&all, &steps[..as_of]);
            let content = all.begin_carrying();
            apply(&all, &steps[as_of..]);
            let replayed = Growing::default();
            apply(&replayed, &steps[kept..carried]);
            for put in &content.puts {
                replayed.put(put);
            }
            apply(&replayed, &steps[carried..]);
            prop_assert_eq!(numbers(&replayed.live().0), numbers(&all.live().0));
        }
    }
}
