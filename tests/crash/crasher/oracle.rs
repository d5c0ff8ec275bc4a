//! What a collection must hold, by what its clients were told.
//!
//! Each document has one writer, which sends one request at a time, so what is acknowledged is known exactly; many
//! writers at one document are looked at by `hot.rs`. A request that was not answered may have been done or not, and one
//! that is a unit wholly or not at all. The first look after a restart decides, and from then on it is so.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use super::content::Content;

/// What is known of the version of a stored document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Told(u64),
    /// Larger than this one; the answer did not tell it.
    After(u64),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) content: Content,
    pub(crate) version: Version,
}

/// A document as the server shows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) content: Content,
    pub(crate) version: u64,
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Violation {
    /// It was acknowledged and is not there.
    Lost {
        id: String,
        stored: Stored,
    },
    /// It was never written.
    Phantom {
        found: Found,
    },
    /// Its deletion was acknowledged.
    Resurrected {
        found: Found,
    },
    Duplicate {
        id: String,
    },
    /// A request that was not answered was done in part.
    HalfBatch {
        done: Vec<String>,
        not_done: Vec<String>,
    },
    WrongContent {
        stored: Stored,
        found: Found,
    },
    WrongVersion {
        stored: Stored,
        found: Found,
    },
    /// Two states have one version.
    VersionTwice {
        id: String,
        version: u64,
        other: String,
    },
    /// A write did not make the version larger than all before it.
    VersionBack {
        id: String,
        version: u64,
        newest: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it holds is long; the first of it tells enough.
        let words: String = format!("{self:?}").chars().take(1200).collect();
        f.write_str(&words)
    }
}

/// What a request that is under way makes of its documents; `None`: they go.
type Effects = BTreeMap<String, Option<Content>>;

#[derive(Debug)]
struct Pending {
    effects: Effects,
    is_unit: bool,
    /// The largest version that anybody was told when the request was sent.
    newest: u64,
}

/// Of one collection.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    known: BTreeMap<String, Stored>,
    deleted: BTreeSet<String>,
    pending: BTreeMap<u64, Pending>,
    /// Whose each version is that was ever told, with a hash of what was stored.
    versions: HashMap<u64, (String, u64)>,
    newest: u64,
    requests: u64,
    /// How many requests for each document were sent.
    sent: BTreeMap<String, u64>,
    violations: Vec<Violation>,
}

impl Oracle {
    /// What is stored of a document, as far as is known.
    pub(crate) fn get(&self, id: &str) -> Option<&Stored> {
        self.known.get(id)
    }

    /// What is stored as far as is known, and the documents of which a request is under way.
    pub(crate) fn known(&self) -> (&BTreeMap<String, Stored>, BTreeSet<String>) {
        let pending = self.pending.values().flat_map(|pending| pending.effects.keys().cloned());
        (&self.known, pending.collect())
    }

    /// How many requests for each document were sent so far.
    pub(crate) fn sent(&self) -> &BTreeMap<String, u64> {
        &self.sent
    }

    /// The violations since the last call.
    pub(crate) fn take_violations(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }

    /// A request is sent. `is_unit`: all of it or nothing.
    pub(crate) fn send(&mut self, effects: Effects, is_unit: bool) -> u64 {
        self.requests += 1;
        effects.keys().for_each(|id| *self.sent.entry(id.clone()).or_default() += 1);
        self.pending.insert(self.requests, Pending { effects, is_unit, newest: self.newest });
        self.requests
    }

    /// A request is refused: nothing of it was done.
    pub(crate) fn refuse(&mut self, request: u64) {
        self.pending.remove(&request);
    }

    /// A request is acknowledged, or a part of one: these documents of it, each with its version where that was told.
    pub(crate) fn acknowledge(&mut self, request: u64, documents: &[(String, Option<u64>)]) {
        let Some(mut pending) = self.pending.remove(&request) else { return };
        for (id, version) in documents {
            match pending.effects.remove(id) {
                None => {}
                Some(None) => self.delete(id),
                Some(Some(content)) => self.put(id, content, *version, pending.newest),
            }
        }
        if !pending.effects.is_empty() {
            self.pending.insert(request, pending);
        }
    }

    fn delete(&mut self, id: &str) {
        self.known.remove(id);
        self.deleted.insert(id.to_owned());
    }

    fn put(&mut self, id: &str, content: Content, version: Option<u64>, newest: u64) {
        let is_unchanged = self.known.get(id).is_some_and(|stored| stored.content == content);
        let version = match version {
            // Whether something was written at all is seen at the next look.
            None if is_unchanged => return,
            None => Version::After(newest),
            Some(version) if is_unchanged => {
                let found = Found { id: id.to_owned(), content, version };
                return self.compare(&found);
            }
            Some(version) => {
                self.is_new(id, version, newest);
                self.note(id, version, &content);
                Version::Told(version)
            }
        };
        self.deleted.remove(id);
        self.known.insert(id.to_owned(), Stored { content, version });
    }

    fn is_new(&mut self, id: &str, version: u64, newest: u64) {
        if version <= newest {
            self.violations.push(Violation::VersionBack { id: id.to_owned(), version, newest });
        }
    }

    /// Somebody was told that this content has this version.
    pub(crate) fn note(&mut self, id: &str, version: u64, content: &Content) {
        let mut hasher = DefaultHasher::new();
        format!("{content:?}").hash(&mut hasher);
        let (owner, hash) = self.versions.entry(version).or_insert_with(|| (id.to_owned(), hasher.finish()));
        if owner != id || *hash != hasher.finish() {
            let violation = Violation::VersionTwice { id: id.to_owned(), version, other: owner.clone() };
            self.violations.push(violation);
        }
        self.newest = self.newest.max(version);
    }

    /// A document that nobody writes now is shown so, or is not there.
    pub(crate) fn look_at(&mut self, id: &str, found: Option<&Found>) {
        match (self.known.get(id), found) {
            (Some(stored), None) => {
                let violation = Violation::Lost { id: id.to_owned(), stored: stored.clone() };
                self.violations.push(violation);
            }
            (Some(_), Some(found)) => self.compare(found),
            (None, Some(found)) if self.deleted.contains(id) => {
                self.violations.push(Violation::Resurrected { found: found.clone() });
            }
            (None, Some(found)) => self.violations.push(Violation::Phantom { found: found.clone() }),
            (None, None) => {}
        }
    }

    /// Compares what is shown with what is stored, and learns the version where it was not told.
    fn compare(&mut self, found: &Found) {
        let Some(stored) = self.known.get_mut(&found.id) else { return };
        let before = stored.clone();
        if before.content != found.content {
            self.violations.push(Violation::WrongContent { stored: before, found: found.clone() });
            return;
        }
        let fits = match before.version {
            Version::Told(version) => version == found.version,
            Version::After(version) => version < found.version,
        };
        if !fits {
            self.violations.push(Violation::WrongVersion { stored: before, found: found.clone() });
            return;
        }
        stored.version = Version::Told(found.version);
        self.note(&found.id, found.version, &found.content);
    }

    /// The first look after a restart: everything that is there. What was under way is decided by it.
    pub(crate) fn look(&mut self, all: &[Found]) {
        let mut found = BTreeMap::new();
        for one in all {
            if found.insert(one.id.as_str(), one).is_some() {
                self.violations.push(Violation::Duplicate { id: one.id.clone() });
            }
        }
        for (_, pending) in std::mem::take(&mut self.pending) {
            self.decide(pending, &found);
        }
        let known: BTreeSet<String> = self.known.keys().cloned().collect();
        for id in
            known.iter().map(String::as_str).chain(found.keys().copied().filter(|id| !known.contains(*id)))
        {
            self.look_at(id, found.get(id).copied());
        }
    }

    /// Whether a request that was not answered was done.
    fn decide(&mut self, pending: Pending, found: &BTreeMap<&str, &Found>) {
        let (mut done, mut not_done) = (Vec::new(), Vec::new());
        for (id, effect) in &pending.effects {
            let before = self.known.get(id).map(|stored| &stored.content);
            let now = found.get(id.as_str()).map(|found| &found.content);
            if before == effect.as_ref() {
                // It changes nothing, done or not.
            } else if now == effect.as_ref() {
                done.push(id.clone());
            } else {
                // As before, or as nobody ever made it, which is found out later.
                not_done.push(id.clone());
            }
        }
        if pending.is_unit && !done.is_empty() && !not_done.is_empty() {
            self.violations.push(Violation::HalfBatch { done: done.clone(), not_done });
        }
        for id in done {
            match found.get(id.as_str()) {
                None => self.delete(&id),
                Some(found) => self.put(&id, found.content.clone(), Some(found.version), pending.newest),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(tag: u64) -> Content {
        Content { tag, payload: BTreeMap::new() }
    }

    fn found(id: &str, tag: u64, version: u64) -> Found {
        Found { id: id.into(), content: content(tag), version }
    }

    /// Each is written, if it has a tag, or deleted.
    fn effects(of: &[(&str, Option<u64>)]) -> Effects {
        of.iter().map(|(id, tag)| ((*id).to_owned(), tag.map(content))).collect()
    }

    fn told(of: &[(&str, u64)]) -> Vec<(String, Option<u64>)> {
        of.iter().map(|(id, version)| ((*id).to_owned(), Some(*version))).collect()
    }

    /// `a` and `b` are stored with tags 1 and 2 and versions 1 and 2; `c` was deleted.
    fn oracle() -> Oracle {
        let mut oracle = Oracle::default();
        let request = oracle.send(effects(&[("a", Some(1)), ("b", Some(2)), ("c", Some(3))]), true);
        oracle.acknowledge(request, &told(&[("a", 1), ("b", 2), ("c", 3)]));
        let request = oracle.send(effects(&[("c", None)]), true);
        oracle.acknowledge(request, &[("c".into(), None)]);
        assert_eq!(oracle.take_violations(), []);
        oracle
    }

    fn seen(mut oracle: Oracle, all: &[Found]) -> Vec<Violation> {
        oracle.look(all);
        oracle.take_violations()
    }

    #[test]
    fn what_was_acknowledged_and_nothing_else_is_no_violation() {
        assert_eq!(seen(oracle(), &[found("a", 1, 1), found("b", 2, 2)]), []);
    }

    #[test]
    fn a_lost_acknowledged_write_is_noticed() {
        let violations = seen(oracle(), &[found("a", 1, 1)]);
        assert!(matches!(&violations[..], [Violation::Lost { id, .. }] if id == "b"), "{violations:?}");
        // Also where the older state is there still.
        let mut oracle = oracle();
        let request = oracle.send(effects(&[("a", Some(9))]), true);
        oracle.acknowledge(request, &told(&[("a", 9)]));
        let violations = seen(oracle, &[found("a", 1, 1), found("b", 2, 2)]);
        assert!(matches!(&violations[..], [Violation::WrongContent { .. }]), "{violations:?}");
    }

    #[test]
    fn a_phantom_is_noticed() {
        let violations = seen(oracle(), &[found("a", 1, 1), found("b", 2, 2), found("d", 4, 4)]);
        assert!(matches!(&violations[..], [Violation::Phantom { .. }]), "{violations:?}");
    }

    #[test]
    fn a_resurrected_deletion_is_noticed() {
        let violations = seen(oracle(), &[found("a", 1, 1), found("b", 2, 2), found("c", 3, 3)]);
        assert!(matches!(&violations[..], [Violation::Resurrected { .. }]), "{violations:?}");
    }

    #[test]
    fn a_duplicate_is_noticed() {
        let violations = seen(oracle(), &[found("a", 1, 1), found("a", 1, 1), found("b", 2, 2)]);
        assert_eq!(violations, [Violation::Duplicate { id: "a".into() }]);
    }

    #[test]
    fn a_wrong_payload_is_noticed() {
        let mut wrong = found("a", 1, 1);
        wrong.content.payload.insert("n".into(), distilface::proto::Value::default());
        let violations = seen(oracle(), &[wrong, found("b", 2, 2)]);
        assert!(matches!(&violations[..], [Violation::WrongContent { .. }]), "{violations:?}");
    }

    #[test]
    fn a_version_that_was_not_told_is_noticed() {
        let violations = seen(oracle(), &[found("a", 1, 7), found("b", 2, 2)]);
        assert!(matches!(&violations[..], [Violation::WrongVersion { .. }]), "{violations:?}");
    }

    #[test]
    fn a_version_given_twice_is_noticed() {
        // Told with an acknowledgement, found after a restart, and of a document that is gone.
        let mut twice = oracle();
        let request = twice.send(effects(&[("d", Some(4))]), true);
        twice.acknowledge(request, &told(&[("d", 3)]));
        let violations = twice.take_violations();
        assert!(
            violations.iter().any(|v| matches!(v, Violation::VersionTwice { version: 3, .. })),
            "{violations:?}"
        );
        assert!(
            violations.iter().any(|v| matches!(v, Violation::VersionBack { version: 3, .. })),
            "{violations:?}"
        );
        let mut unheard = oracle();
        unheard.send(effects(&[("d", Some(4))]), true);
        let violations = seen(unheard, &[found("a", 1, 1), found("b", 2, 2), found("d", 4, 2)]);
        assert!(
            violations.iter().any(|v| matches!(v, Violation::VersionTwice { version: 2, .. })),
            "{violations:?}"
        );
    }

    #[test]
    fn a_request_that_was_not_answered_is_done_or_not_and_stays_so() {
        let request = [("a", Some(5)), ("b", None), ("d", Some(6))];
        let (not_done, done) =
            (vec![found("a", 1, 1), found("b", 2, 2)], vec![found("a", 5, 4), found("d", 6, 5)]);
        for (first, second) in [(&not_done, &done), (&done, &not_done)] {
            let mut oracle = oracle();
            oracle.send(effects(&request), true);
            oracle.look(first);
            assert_eq!(oracle.take_violations(), []);
            oracle.look(first);
            assert_eq!(oracle.take_violations(), []);
            oracle.look(second);
            assert_eq!(oracle.take_violations().len(), 3);
        }
    }

    #[test]
    fn half_a_batch_is_noticed() {
        let half = [found("a", 5, 4), found("b", 2, 2)];
        for (is_unit, violations) in [(true, 1), (false, 0)] {
            let mut oracle = oracle();
            oracle.send(effects(&[("a", Some(5)), ("b", None), ("d", Some(6))]), is_unit);
            let found = seen(oracle, &half);
            assert_eq!(found.len(), violations, "{found:?}");
            assert!(found.iter().all(|v| matches!(v, Violation::HalfBatch { .. })), "{found:?}");
        }
        // A part that changes nothing says neither.
        let mut oracle = oracle();
        oracle.send(effects(&[("a", Some(1)), ("c", None), ("d", Some(6))]), true);
        assert_eq!(seen(oracle, &[found("a", 1, 1), found("b", 2, 2), found("d", 6, 4)]), []);
    }

    #[test]
    fn what_was_refused_is_not_there() {
        let mut oracle = oracle();
        let request = oracle.send(effects(&[("d", Some(6))]), true);
        oracle.refuse(request);
        let violations = seen(oracle, &[found("a", 1, 1), found("b", 2, 2), found("d", 6, 4)]);
        assert!(matches!(&violations[..], [Violation::Phantom { .. }]), "{violations:?}");
    }

    #[test]
    fn a_version_that_no_answer_told_is_learnt_once() {
        let mut oracle = oracle();
        let request = oracle.send(effects(&[("a", Some(5))]), false);
        oracle.acknowledge(request, &[("a".into(), None)]);
        oracle.look_at("a", Some(&found("a", 5, 8)));
        assert_eq!(oracle.take_violations(), []);
        oracle.look_at("a", Some(&found("a", 5, 9)));
        assert!(matches!(oracle.take_violations()[..], [Violation::WrongVersion { .. }]));
        let request = oracle.send(effects(&[("a", Some(6))]), false);
        oracle.acknowledge(request, &[("a".into(), None)]);
        oracle.look_at("a", Some(&found("a", 6, 8)));
        assert!(matches!(oracle.take_violations()[..], [Violation::WrongVersion { .. }]));
    }

    #[test]
    fn a_part_of_a_request_is_acknowledged_and_the_rest_may_be_done() {
        for rest in [true, false] {
            let mut oracle = oracle();
            let request = oracle.send(effects(&[("d", Some(6)), ("e", Some(7))]), false);
            oracle.acknowledge(request, &told(&[("d", 4)]));
            let mut all = vec![found("a", 1, 1), found("b", 2, 2), found("d", 6, 4)];
            all.extend(rest.then(|| found("e", 7, 5)));
            assert_eq!(seen(oracle, &all), []);
        }
    }
}
