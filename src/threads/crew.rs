//! A crew: a few threads that do the work of many members, who take turns.
//!
//! A turn is a bounded piece of work. A member has one turn at a time, so what it does keeps its order; members that
//! want one are served in the order in which they asked. A turn may wait for the disk or for a pool, never for another
//! turn of its own crew.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread::{JoinHandle, ThreadId},
    time::Instant,
};

use super::{ThreadsError, priority};

/// When a member wants its next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// When it is woken.
    Woken,
    /// As soon as the others had theirs.
    Again,
    /// At a time, or earlier if it is woken.
    At(Instant),
    /// Never: it leaves the crew.
    Leave,
}

type Turn = Box<dyn FnMut() -> Next + Send>;

/// Threads, and those whose turns they do. Dropping it ends the threads after the turns that were asked for.
pub(crate) struct Crew {
    rota: Arc<Rota>,
    threads: Vec<JoinHandle<()>>,
}

/// A member's place: wakes it, and waits until it has left. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Seat {
    rota: Arc<Rota>,
    member: Arc<Member>,
}

struct Rota {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Arc<Member>>,
    /// By time; the number tells those of one time apart.
    later: BTreeMap<(Instant, u64), Weak<Member>>,
    timers: u64,
    ended: bool,
}

struct Member {
    state: Mutex<State>,
    changed: Condvar,
    /// `None` once it has left.
    turn: Mutex<Option<Turn>>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// Woken during its turn.
    woken: bool,
    /// Who does its turn now.
    thread: Option<ThreadId>,
    /// The time it is to be woken at.
    timer: Option<Instant>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Waiting,
    Ready,
    Running,
    Left,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crew {
    /// Starts `threads` threads of this `niceness` (0 means normal priority).
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub(crate) fn new(name: &str, threads: usize, niceness: u8) -> Result<Self, ThreadsError> {
        let rota = Arc::new(Rota { queue: Mutex::default(), wake: Condvar::new() });
        let mut crew = Crew { rota: Arc::clone(&rota), threads: Vec::with_capacity(threads) };
        for n in 0..threads.max(1) {
            let rota = Arc::clone(&rota);
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{n}"))
                .spawn(move || {
                    priority::lower(niceness);
                    rota.work();
                })
                .map_err(|e| ThreadsError::None { reason: e.to_string() })?;
            crew.threads.push(thread);
        }
        Ok(crew)
    }

    /// A new member, which waits until it is woken.
    pub(crate) fn join(&self, turn: impl FnMut() -> Next + Send + 'static) -> Seat {
        let turn: Turn = Box::new(turn);
        let member =
            Member { state: Mutex::default(), changed: Condvar::new(), turn: Mutex::new(Some(turn)) };
        Seat { rota: Arc::clone(&self.rota), member: Arc::new(member) }
    }

    /// Runs `f` when its turn comes; nobody awaits it. For probes.
    pub(crate) fn start(&self, f: impl FnOnce() + Send + 'static) {
        let mut f = Some(f);
        let seat = self.join(move || {
            if let Some(f) = f.take() {
                f();
            }
            Next::Leave
        });
        seat.wake();
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        lock(&self.rota.queue).ended = true;
        self.rota.wake.notify_all();
        for thread in self.threads.drain(..) {
            // The last owner may be a turn itself.
            if thread.thread().id() != std::thread::current().id() {
                // Panics of turns were caught in there.
                let _ = thread.join();
            }
        }
    }
}

impl Seat {
    /// Gives the member a turn, now or after the one that runs.
    pub(crate) fn wake(&self) {
        self.rota.wake_member(&self.member);
    }

    /// Waits until the member has left, which its turn must say. Returns at once within the member's own turn.
    pub(crate) fn wait_left(&self) {
        let mut state = lock(&self.member.state);
        while state.phase != Phase::Left && state.thread != Some(std::thread::current().id()) {
            state = self.member.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Rota {
    fn wake_member(&self, member: &Arc<Member>) {
        {
            let mut state = lock(&member.state);
            match state.phase {
                Phase::Waiting => state.phase = Phase::Ready,
                Phase::Running => {
                    state.woken = true;
                    return;
                }
                Phase::Ready | Phase::Left => return,
            }
        }
        lock(&self.queue).ready.push_back(Arc::clone(member));
        self.wake.notify_one();
    }

    fn work(&self) {
        while let Some(member) = self.next() {
            {
                let mut state = lock(&member.state);
                state.phase = Phase::Running;
                state.woken = false;
                state.thread = Some(std::thread::current().id());
            }
            let turn = || lock(&member.turn).as_mut().map_or(Next::Leave, |turn| turn());
            let next = catch_unwind(AssertUnwindSafe(turn)).unwrap_or_else(|_| {
                tracing::error!("background work panicked; it is not done any more until a restart");
                Next::Leave
            });
            self.finish(&member, next);
        }
    }

    fn finish(&self, member: &Arc<Member>, next: Next) {
        // What it owned goes before anybody hears that it has left.
        let left = (next == Next::Leave).then(|| lock(&member.turn).take());
        drop(left);
        let mut state = lock(&member.state);
        state.thread = None;
        state.phase = match next {
            Next::Leave => Phase::Left,
            Next::Again => Phase::Ready,
            Next::Woken | Next::At(_) if state.woken => Phase::Ready,
            Next::Woken | Next::At(_) => Phase::Waiting,
        };
        let ready = state.phase == Phase::Ready;
        let timer = match next {
            Next::At(at) if state.timer.is_none_or(|earlier| at < earlier) => {
                state.timer = Some(at);
                Some(at)
            }
            _ => None,
        };
        drop(state);
        member.changed.notify_all();
        if !ready && timer.is_none() {
            return;
        }
        let mut queue = lock(&self.queue);
        if ready {
            queue.ready.push_back(Arc::clone(member));
        }
        if let Some(at) = timer {
            queue.timers += 1;
            let key = (at, queue.timers);
            queue.later.insert(key, Arc::downgrade(member));
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Whose turn it is; `None` when the crew ends.
    fn next(&self) -> Option<Arc<Member>> {
        let mut queue = lock(&self.queue);
        loop {
            // Those who want a turn have it, also at the end: somebody may wait until they leave.
            if let Some(member) = queue.ready.pop_front() {
                return Some(member);
            }
            if queue.ended {
                return None;
            }
            let now = Instant::now();
            let Some((&key, _)) = queue.later.first_key_value() else {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if key.0 > now {
                let wait = self.wake.wait_timeout(queue, key.0 - now);
                queue = wait.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let due = queue.later.remove(&key).and_then(|member| member.upgrade());
            drop(queue);
            if let Some(member) = due {
                lock(&member.state).timer = None;
                self.wake_member(&member);
            }
            queue = lock(&self.queue);
        }
    }
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{RecvTimeoutError, channel},
        time::Duration,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn members_take_turns_one_at_a_time_and_none_is_forgotten() {
        let crew = Crew::new("test", 3, 0).unwrap();
        let (send, turns) = channel();
        let seats: Vec<Seat> = (0..20)
            .map(|n| {
                let (send, mut left) = (send.clone(), 50);
                crew.join(move || {
                    left -= 1;
                    send.send((n, left)).unwrap();
                    if left == 0 { Next::Leave } else { Next::Again }
                })
            })
            .collect();
        drop(send);
        seats.iter().for_each(Seat::wake);
        seats.iter().for_each(Seat::wait_left);
        let turns: Vec<(i32, i32)> = turns.iter().collect();
        for n in 0..20 {
            let own: Vec<i32> = turns.iter().filter(|(m, _)| *m == n).map(|(_, left)| *left).collect();
            assert_eq!(own, (0..50).rev().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_member_is_woken_during_its_turn_and_at_a_time() {
        let crew = Crew::new("test", 1, 0).unwrap();
        let (send, turns) = channel();
        let (seat_send, own_seat) = channel::<Seat>();
        let mut turn = 0;
        let seat = crew.join(move || {
            turn += 1;
            send.send(turn).unwrap();
            match turn {
                1 => {
                    let seat = own_seat.recv().unwrap();
                    seat.wake();
                    // It does not wait for itself.
                    seat.wait_left();
                    Next::Woken
                }
                2 => Next::At(Instant::now() + Duration::from_millis(20)),
                _ => Next::Leave,
            }
        });
        seat_send.send(seat.clone()).unwrap();
        seat.wake();
        for expected in 1..=3 {
            assert_eq!(turns.recv_timeout(PATIENCE), Ok(expected));
        }
        seat.wait_left();
        seat.wake();
        assert_eq!(
            turns.recv_timeout(PATIENCE),
            Err(RecvTimeoutError::Disconnected),
            "it has left with all it owned"
        );
    }

    #[test]
    fn a_turn_that_panics_is_the_last_of_its_member_only() {
        let crew = Crew::new("test", 1, 0).unwrap();
        let bad = crew.join(|| panic!("as planned"));
        bad.wake();
        bad.wait_left();
        let good = crew.join(|| Next::Leave);
        good.wake();
        good.wait_left();
    }
}
