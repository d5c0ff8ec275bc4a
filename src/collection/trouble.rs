//! Background work that cannot be done: it is told once, tried again ever later, and told when it goes well again.
//!
//! On a full disk every try costs what the work costs. So the next one waits twice as long as the one before, up to
//! [`WAIT_MOST`]; what is looked at meanwhile is how much room there is, which costs nothing, and with more of it than
//! there was the work is tried at once.

use std::time::{Duration, Instant};

/// The wait after the first try that failed for something that passes, such as a full disk.
const WAIT_FIRST: Duration = Duration::from_secs(1);

/// The longest wait.
const WAIT_MOST: Duration = Duration::from_secs(60);

/// The wait after anything else: what is damaged does not get well by itself, and is told now and then.
const WAIT_DAMAGED: Duration = Duration::from_secs(300);

/// How often the room on the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// So much more room than at the last try is worth a try.
const WORTH_BYTES: u64 = 4 << 20;

/// Why it failed, as far as the waiting hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// There was no room, and so many bytes are free.
    NoRoom { free: u64 },
    /// Something else that passes.
    Passing,
    /// It does not pass.
    Damage,
}

/// What is to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It is news.
    Say,
    /// It was said before, and is the same still.
    Known,
}

/// The tries of one kind of work.
#[derive(Debug, Default)]
pub(super) struct Trouble(Option<Failing>);

#[derive(Debug)]
struct Failing {
    tries: u32,
    why: Why,
    wait: Duration,
    again: Instant,
}

impl Trouble {
    /// When to look again, if now is no time for a try. `free` tells how many bytes are free.
    pub(super) fn waits(&self, now: Instant, free: impl FnOnce() -> Option<u64>) -> Option<Instant> {
        let failing = self.0.as_ref().filter(|failing| now < failing.again)?;
        let Why::NoRoom { free: before } = failing.why else { return Some(failing.again) };
        if free().is_some_and(|free| free >= before.saturating_add(WORTH_BYTES)) {
            return None;
        }
        Some(failing.again.min(now + LOOK_EVERY))
    }

    /// A try failed.
    pub(super) fn failed(&mut self, now: Instant, why: Why) -> Told {
        let before = self.0.take();
        let is_same = before.as_ref().is_some_and(|before| {
            std::mem::discriminant(&before.why) == std::mem::discriminant(&why) && why != Why::Damage
        });
        let wait = match (why, &before) {
            (Why::Damage, _) => WAIT_DAMAGED,
            (_, Some(before)) if is_same => (before.wait * 2).min(WAIT_MOST),
            _ => WAIT_FIRST,
        };
        let tries = before.map_or(0, |before| before.tries) + 1;
        self.0 = Some(Failing { tries, why, wait, again: now + wait });
        if is_same { Told::Known } else { Told::Say }
    }

    /// A try went well; how many had failed before it since the last one that did.
    pub(super) fn passed(&mut self) -> Option<u32> {
        self.0.take().map(|failing| failing.tries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_and_tried_ever_later_and_told_when_it_is_well() {
        let (mut trouble, mut now) = (Trouble::default(), Instant::now());
        let free = || Some(100);
        assert_eq!(trouble.waits(now, free), None);
        assert_eq!(trouble.passed(), None, "it never was in trouble");
        let mut waited = Vec::new();
        for n in 0..9 {
            let told = trouble.failed(now, Why::NoRoom { free: 100 });
            assert_eq!(told, if n == 0 { Told::Say } else { Told::Known });
            let begun = now;
            while let Some(look) = trouble.waits(now, free) {
                assert!(look > now && look <= now + LOOK_EVERY, "only the room is looked at meanwhile");
                now = look;
            }
            waited.push((now - begun).as_secs());
        }
        assert_eq!(waited, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(trouble.passed(), Some(9));
        assert_eq!(trouble.waits(now, free), None);
        assert_eq!(trouble.failed(now, Why::NoRoom { free: 100 }), Told::Say, "it is news again");
    }

    #[test]
    fn with_more_room_it_is_tried_at_once() {
        let (mut trouble, now) = (Trouble::default(), Instant::now());
        for _ in 0..8 {
            trouble.failed(now, Why::NoRoom { free: 100 });
        }
        assert!(trouble.waits(now, || Some(WORTH_BYTES)).is_some());
        assert!(trouble.waits(now, || None).is_some(), "nobody can tell how much there is");
        assert_eq!(trouble.waits(now, || Some(100 + WORTH_BYTES)), None);
    }

    #[test]
    fn another_reason_is_told_too_and_damage_now_and_then() {
        let (mut trouble, now) = (Trouble::default(), Instant::now());
        assert_eq!(trouble.failed(now, Why::NoRoom { free: 0 }), Told::Say);
        assert_eq!(trouble.failed(now, Why::Passing), Told::Say);
        assert_eq!(trouble.failed(now, Why::Passing), Told::Known);
        for _ in 0..2 {
            assert_eq!(trouble.failed(now, Why::Damage), Told::Say);
            assert_eq!(trouble.waits(now, || Some(u64::MAX)), Some(now + WAIT_DAMAGED));
        }
        assert_eq!(trouble.waits(now + WAIT_DAMAGED, || None), None);
    }
}
