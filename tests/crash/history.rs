//! Whether what clients were told of one document can have happened in some order: linearizability, after Wing & Gong
//! 1993 with the memo of Lowe 2017.
//!
//! Each call took effect at one moment between its beginning and its answer. A call that was never answered took effect
//! at one moment after its beginning, or never. Versions make the search short, and are checked with it: what is
//! written gets a larger version than the document ever had.

use std::collections::{HashMap, HashSet};

/// What is stored: the tag of the write, the mark that was set on it since (0: none), and the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub tag: u64,
    pub mark: u64,
    /// 0 where nobody was ever told.
    pub version: u64,
}

/// On what a write depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Only {
    Always,
    Insert,
    Replace,
    Version(u64),
}

/// Tags and marks are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write { tag: u64, only: Only },
    Mark { mark: u64, expected: Option<u64> },
    Delete { expected: Option<u64> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Found(Option<Held>),
    /// Done, and this is the version now.
    Written(u64),
    /// Whether there was something to delete.
    Deleted(bool),
    /// What is stored is not what the call depends on.
    Refused,
    /// There is nothing to mark.
    Missing,
}

/// A call and its answer, with moments of a clock that all clients share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub call: Call,
    pub begun: u64,
    /// `None`: it was not answered.
    pub answer: Option<(u64, Answer)>,
}

impl Event {
    fn answered(&self) -> u64 {
        self.answer.map_or(u64::MAX, |(at, _)| at)
    }
}

/// What a document is and the largest version that it is known to have had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    held: Option<Held>,
    newest: u64,
}

/// What was found of `document` can have happened.
///
/// # Errors
/// The history, in words.
pub(super) fn check(document: &str, initial: Option<Held>, events: &[Event]) -> Result<(), String> {
    let mut events = events.to_vec();
    events.sort_by_key(|event| event.begun);
    let versions = events
        .iter()
        .filter_map(|event| match event.answer {
            Some((_, Answer::Found(Some(held)))) => Some(((held.tag, held.mark), held.version)),
            _ => None,
        })
        .collect();
    let state = State { held: initial, newest: initial.map_or(0, |held| held.version) };
    let mut search = Search { events: &events, versions, known: HashSet::new(), most: 0 };
    if search.run(state) {
        return Ok(());
    }
    let lines: String = events.iter().map(|event| format!("\n  {event:?}")).collect();
    Err(format!(
        "{document}: no order explains what clients were told of it, but the first {} at most; it began as {initial:?}:{lines}",
        search.most
    ))
}

struct Search<'a> {
    events: &'a [Event],
    versions: HashMap<(u64, u64), u64>,
    known: HashSet<(Vec<u64>, State)>,
    most: usize,
}

struct Done(Vec<u64>);

impl Done {
    fn has(&self, place: usize) -> bool {
        self.0[place / 64] & (1 << (place % 64)) != 0
    }

    fn with(&self, place: usize) -> Done {
        let mut done = self.0.clone();
        done[place / 64] |= 1 << (place % 64);
        Done(done)
    }
}

impl Search<'_> {
    /// Depth first, with a stack of its own.
    fn run(&mut self, state: State) -> bool {
        let mut stack = vec![(Done(vec![0; self.events.len().div_ceil(64)]), state)];
        while let Some((done, state)) = stack.pop() {
            if !self.known.insert((done.0.clone(), state)) {
                continue;
            }
            let left = || (0..self.events.len()).filter(|place| !done.has(*place));
            self.most = self.most.max(self.events.len() - left().count());
            // Nothing comes before a call that was answered before it began.
            let Some(first) = left().map(|place| self.events[place].answered()).min() else { return true };
            if first == u64::MAX {
                return true;
            }
            let next: Vec<(usize, State)> = left()
                .filter(|place| self.events[*place].begun < first)
                .filter_map(|place| Some((place, self.after(state, &self.events[place])?)))
                .collect();
            // What changes nothing may as well come first.
            let free =
                next.iter().find(|(place, after)| self.events[*place].answer.is_some() && *after == state);
            match free {
                Some((place, after)) => stack.push((done.with(*place), *after)),
                None => stack.extend(next.into_iter().map(|(place, after)| (done.with(place), after))),
            }
        }
        false
    }

    /// The state after an event; `None` if it cannot happen in this state, with this answer.
    fn after(&self, state: State, event: &Event) -> Option<State> {
        let answer = event.answer.map(|(_, answer)| answer);
        let held = state.held;
        let is = |expected: u64| held.is_some_and(|held| held.version == expected);
        let put = |tag: u64, mark: u64| {
            let version = match answer {
                Some(Answer::Written(version)) => version,
                None => self.versions.get(&(tag, mark)).copied().unwrap_or_default(),
                Some(_) => return None,
            };
            let newest = state.newest.max(version);
            let grows = version == 0 || version > state.newest;
            grows.then_some(State { held: Some(Held { tag, mark, version }), newest })
        };
        let refused = |allowed: &[Answer]| match answer {
            Some(answer) => allowed.contains(&answer).then_some(state),
            // It would change nothing.
            None => None,
        };
        match event.call {
            Call::Read => (answer == Some(Answer::Found(held))).then_some(state),
            Call::Write { tag, only } => {
                let done = match only {
                    Only::Always => true,
                    Only::Insert => held.is_none(),
                    Only::Replace => held.is_some(),
                    Only::Version(expected) => is(expected),
                };
                if done { put(tag, 0) } else { refused(&[Answer::Refused]) }
            }
            Call::Mark { mark, expected } => match held {
                None => refused(&[Answer::Missing, Answer::Refused]),
                Some(_) if expected.is_some_and(|expected| !is(expected)) => refused(&[Answer::Refused]),
                Some(held) => put(held.tag, mark),
            },
            Call::Delete { expected } => {
                if expected.is_some_and(|expected| !is(expected)) {
                    return refused(&[Answer::Refused]);
                }
                match answer {
                    Some(Answer::Deleted(was)) if was == held.is_some() => {
                        Some(State { held: None, ..state })
                    }
                    None => held.map(|_| State { held: None, ..state }),
                    _ => None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(tag: u64, version: u64) -> Option<Held> {
        Some(Held { tag, mark: 0, version })
    }

    fn event(begun: u64, call: Call, answer: Option<(u64, Answer)>) -> Event {
        Event { call, begun, answer }
    }

    fn write(begun: u64, tag: u64, answered: Option<(u64, u64)>) -> Event {
        let answer = answered.map(|(at, version)| (at, Answer::Written(version)));
        event(begun, Call::Write { tag, only: Only::Always }, answer)
    }

    fn read(begun: u64, found: Option<Held>, at: u64) -> Event {
        event(begun, Call::Read, Some((at, Answer::Found(found))))
    }

    fn delete(begun: u64, answered: Option<(u64, bool)>) -> Event {
        let answer = answered.map(|(at, was)| (at, Answer::Deleted(was)));
        event(begun, Call::Delete { expected: None }, answer)
    }

    fn holds(events: &[Event]) -> bool {
        check("d", None, events).is_ok()
    }

    #[test]
    fn calls_that_overlap_may_come_in_either_order_and_others_may_not() {
        for (first, second) in [(1, 2), (2, 1)] {
            let (one, two) = (write(0, 10, Some((5, first))), write(1, 20, Some((6, second))));
            let last = if first > second { held(10, first) } else { held(20, second) };
            let other = if first > second { held(20, second) } else { held(10, first) };
            assert!(holds(&[one, two, read(7, last, 8)]));
            assert!(!holds(&[one, two, read(7, other, 8)]));
        }
        // One after the other, the second with the smaller version.
        assert!(!holds(&[write(0, 10, Some((1, 2))), write(2, 20, Some((3, 1)))]));
        // A read that began after the answer does not see what was before.
        assert!(!holds(&[write(0, 10, Some((1, 1))), read(2, None, 3)]));
        assert!(holds(&[write(0, 10, Some((3, 1))), read(1, None, 2)]));
        // What one has read, none that begins later reads no more.
        let slow = write(0, 10, Some((9, 1)));
        assert!(holds(&[slow, read(1, None, 2), read(3, held(10, 1), 4)]));
        assert!(!holds(&[slow, read(1, held(10, 1), 2), read(3, None, 4)]));
    }

    #[test]
    fn a_version_is_given_once_and_read_with_what_was_written() {
        assert!(!holds(&[write(0, 10, Some((5, 1))), write(1, 20, Some((6, 1)))]));
        assert!(!holds(&[write(0, 10, Some((1, 1))), read(2, held(10, 2), 3)]));
        assert!(!holds(&[write(0, 10, Some((1, 1))), read(2, held(11, 1), 3)]));
        let again = [write(0, 10, Some((1, 5))), delete(2, Some((3, true))), write(4, 20, Some((5, 4)))];
        assert!(!holds(&again), "a document that comes back begins no anew");
    }

    #[test]
    fn of_two_that_expect_one_version_one_writes() {
        let swap = |begun, tag, answer| {
            event(begun, Call::Write { tag, only: Only::Version(1) }, Some((begun + 10, answer)))
        };
        let first = write(0, 10, Some((1, 1)));
        assert!(holds(&[first, swap(2, 20, Answer::Written(2)), swap(3, 30, Answer::Refused)]));
        assert!(!holds(&[first, swap(2, 20, Answer::Written(2)), swap(3, 30, Answer::Written(3))]));
        assert!(!holds(&[first, swap(2, 20, Answer::Refused), swap(3, 30, Answer::Refused)]));
    }

    #[test]
    fn modes_are_decided_by_what_is_stored() {
        let only =
            |begun, only, answer| event(begun, Call::Write { tag: begun, only }, Some((begun + 1, answer)));
        assert!(holds(&[only(0, Only::Insert, Answer::Written(1)), only(2, Only::Insert, Answer::Refused)]));
        assert!(!holds(&[
            only(0, Only::Insert, Answer::Written(1)),
            only(2, Only::Insert, Answer::Written(2))
        ]));
        assert!(!holds(&[only(0, Only::Insert, Answer::Refused)]));
        assert!(!holds(&[only(0, Only::Replace, Answer::Written(1))]));
        assert!(holds(&[only(0, Only::Replace, Answer::Refused)]));
    }

    #[test]
    fn a_deletion_is_told_truly_and_stays() {
        let first = write(0, 10, Some((1, 1)));
        assert!(holds(&[first, delete(2, Some((3, true))), read(4, None, 5)]));
        assert!(!holds(&[first, delete(2, Some((3, false)))]));
        assert!(!holds(&[first, delete(2, Some((3, true))), read(4, held(10, 1), 5)]));
        assert!(!holds(&[first, delete(2, Some((3, true))), delete(4, Some((5, true)))]));
    }

    #[test]
    fn a_mark_keeps_what_it_marks() {
        let mark = |begun, mark, answer| event(begun, Call::Mark { mark, expected: None }, answer);
        let marked = |version| Some(Held { tag: 10, mark: 7, version });
        let first = write(0, 10, Some((1, 1)));
        assert!(holds(&[first, mark(2, 7, Some((3, Answer::Written(2)))), read(4, marked(2), 5)]));
        assert!(!holds(&[first, mark(2, 7, Some((3, Answer::Written(2)))), read(4, held(10, 1), 5)]));
        assert!(!holds(&[first, mark(2, 7, Some((3, Answer::Missing)))]));
        // A mark and a write at once: none is lost, whichever comes first.
        let both = [first, mark(2, 7, Some((5, Answer::Written(2)))), write(3, 20, Some((6, 3)))];
        assert!(holds(&[both[0], both[1], both[2], read(7, held(20, 3), 8)]));
        assert!(!holds(&[
            both[0],
            both[1],
            both[2],
            read(7, Some(Held { tag: 20, mark: 7, version: 2 }), 8)
        ]));
    }

    #[test]
    fn what_was_not_answered_happened_or_did_not_and_not_by_turns() {
        let first = write(0, 10, Some((1, 1)));
        let unheard = write(2, 20, None);
        assert!(holds(&[first, unheard, read(9, held(10, 1), 10)]));
        assert!(holds(&[first, unheard, read(9, held(20, 2), 10)]));
        assert!(holds(&[first, unheard, read(3, held(10, 1), 4), read(9, held(20, 2), 10)]));
        assert!(!holds(&[first, unheard, read(3, held(20, 2), 4), read(9, held(10, 1), 10)]));
        assert!(!holds(&[first, unheard, read(9, held(20, 1), 10)]), "a version twice");
        assert!(!holds(&[first, unheard, read(9, None, 10)]));
        assert!(!holds(&[read(0, held(20, 2), 1), write(2, 20, None)]), "before it began");
        assert!(holds(&[first, delete(2, None), read(9, None, 10)]));
        assert!(holds(&[first, delete(2, None), read(9, held(10, 1), 10)]));
    }

    #[test]
    fn many_calls_at_once_are_checked_in_good_time() {
        let mut events = Vec::new();
        for round in 0..20 {
            for client in 0..10 {
                let begun = round * 100 + client;
                events.push(write(
                    begun,
                    begun + 1,
                    Some((round * 100 + 50 + client, 10 * round + 10 - client)),
                ));
                events.push(event(
                    begun,
                    Call::Delete { expected: Some(u64::MAX) },
                    Some((begun + 60, Answer::Refused)),
                ));
            }
        }
        events.extend((0..5).map(|n| write(1_900, 1_000 + n, None)));
        assert!(holds(&events));
        events.push(read(10_000, None, 10_001));
        assert!(!holds(&events), "nothing was deleted");
    }
}
