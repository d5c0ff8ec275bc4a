//! Work that is shared by the thread that has it and the idle threads of its pool.
//!
//! A counter hands out the items. The calling thread takes items until none are left, and helpers on idle threads of its
//! pool (outside a pool: of `rayon`'s own) take some of them. At the end it waits only for items that a helper has begun,
//! and a helper that starts too late finds nothing to do.
//! Rejected: a parallel iterator of `rayon`. A worker that waits in one starts any other task of its pool on the same
//! stack, and another one in that, as many as clients ask for.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

type Part<P> = Arc<dyn Fn(&mut dyn Iterator<Item = usize>) -> P + Send + Sync>;

struct Share<P> {
    items: usize,
    /// The next item that nobody has taken.
    next: AtomicUsize,
    state: Mutex<State<P>>,
    changed: Condvar,
}

struct State<P> {
    /// `None` once nobody may begin any more, so that a late helper keeps nothing in memory.
    part: Option<Part<P>>,
    working: usize,
    done: Vec<P>,
    panicked: bool,
}

/// What `work` makes of each of the numbers below `items`, in their order. After an error no further item is begun.
///
/// # Errors
/// The first that an item met.
///
/// # Panics
/// If `work` did.
pub(crate) fn share<T, E>(
    items: usize,
    work: impl Fn(usize) -> Result<T, E> + Send + Sync + 'static,
) -> Result<Vec<T>, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    let failed = AtomicBool::new(false);
    let parts = parts(items, move |taken| {
        let mut done = Vec::new();
        for place in taken {
            if failed.load(Ordering::Relaxed) {
                break;
            }
            done.push((place, work(place).inspect_err(|_| failed.store(true, Ordering::Relaxed))?));
        }
        Ok(done)
    });
    let parts = parts.into_iter().collect::<Result<Vec<Vec<_>>, E>>()?;
    let mut done: Vec<(usize, T)> = parts.into_iter().flatten().collect();
    done.sort_unstable_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, item)| item).collect())
}

/// What each thread that has time makes of those of the numbers below `items` that it takes, by `part`; in no order, and
/// at least one.
///
/// # Panics
/// If `part` did.
pub(crate) fn parts<P: Send + 'static>(
    items: usize,
    part: impl Fn(&mut dyn Iterator<Item = usize>) -> P + Send + Sync + 'static,
) -> Vec<P> {
    let state = State { part: Some(Arc::new(part) as _), working: 0, done: Vec::new(), panicked: false };
    let share = Arc::new(Share {
        items,
        next: AtomicUsize::new(0),
        state: Mutex::new(state),
        changed: Condvar::new(),
    });
    for _ in 1..rayon::current_num_threads().min(items) {
        let share = Arc::clone(&share);
        // A panic that leaves what was spawned ends the process; whoever shares the work reports it instead.
        rayon::spawn(move || drop(catch_unwind(AssertUnwindSafe(|| share.help()))));
    }
    share.help();
    let mut state = share.lock();
    state.part = None;
    while state.working > 0 {
        state = share.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    assert!(!state.panicked, "a part of the work panicked on another thread");
    std::mem::take(&mut state.done)
}

impl<P> Share<P> {
    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes items until there are none left.
    fn help(&self) {
        let Some(part) = ({
            let mut state = self.lock();
            let part = state.part.clone();
            state.working += usize::from(part.is_some());
            part
        }) else {
            return;
        };
        let mut helper = Helper { share: self, part: Some(part), done: None };
        helper.work();
    }
}

/// One thread at work; it reports when it is dropped, also by a panic.
struct Helper<'a, P> {
    share: &'a Share<P>,
    part: Option<Part<P>>,
    done: Option<P>,
}

impl<P> Helper<'_, P> {
    fn work(&mut self) {
        let Share { items, next, .. } = self.share;
        let mut taken =
            std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|place| place < items));
        self.done = self.part.as_ref().map(|part| part(&mut taken));
    }
}

impl<P> Drop for Helper<'_, P> {
    fn drop(&mut self) {
        self.part = None;
        let mut state = self.share.lock();
        state.panicked |= std::thread::panicking();
        state.done.extend(self.done.take());
        state.working -= 1;
        drop(state);
        self.share.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::mpsc::channel, time::Duration};

    use rayon::{ThreadPool, ThreadPoolBuilder};

    use super::*;

    /// A watchdog, for what would hang.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn pool(threads: usize) -> ThreadPool {
        ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn every_item_is_done_once_and_stands_in_its_place() {
        for threads in [1, 3] {
            pool(threads).install(|| {
                for items in [0, 1, 2, 1000] {
                    let doubled = share(items, |n| Ok::<_, ()>(2 * n)).unwrap();
                    assert_eq!(doubled, (0..items).map(|n| 2 * n).collect::<Vec<_>>());
                }
            });
        }
    }

    #[test]
    fn an_error_is_told_and_ends_the_work() {
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let refuse = move |n: usize| {
            count.fetch_add(1, Ordering::Relaxed);
            if n == 3 { Err("no") } else { Ok(n) }
        };
        assert_eq!(pool(1).install(|| share(1000, refuse)), Err("no"));
        assert_eq!(begun.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_panic_on_any_thread_is_the_callers() {
        for threads in [1, 3] {
            let panics = || share(100, |n| if n == 50 { panic!("as planned") } else { Ok::<_, ()>(n) });
            let caught = catch_unwind(AssertUnwindSafe(|| pool(threads).install(panics)));
            assert!(caught.is_err(), "{threads} threads");
        }
    }

    thread_local! {
        static SHARES: Cell<bool> = const { Cell::new(false) };
    }

    #[test]
    fn a_thread_that_waits_for_a_helper_takes_up_no_other_task_of_its_pool() {
        let pool = pool(2);
        let ((helping, is_helping), (release, hold)) = (channel(), channel::<()>());
        let ((begun, is_begun), (ended, is_ended)) = (channel(), channel());
        pool.spawn(move || {
            SHARES.set(true);
            let (caller, is_helping, hold) =
                (std::thread::current().id(), Mutex::new(is_helping), Mutex::new(hold));
            let shared = share(2, move |_| {
                if std::thread::current().id() == caller {
                    // Takes one of the two only.
                    is_helping.lock().unwrap().recv().unwrap();
                } else {
                    helping.send(()).unwrap();
                    begun.send(()).unwrap();
                    let _ = hold.lock().unwrap().recv();
                }
                Ok::<_, ()>(())
            });
            SHARES.set(false);
            ended.send(shared).unwrap();
        });
        is_begun.recv_timeout(PATIENCE).unwrap();
        let (other, others) = channel();
        pool.spawn(move || other.send(SHARES.get()).unwrap());
        // Long enough for a thread that takes up what it should not; one that does not has no time to keep.
        let early = others.recv_timeout(Duration::from_millis(200)).ok();
        drop(release);
        let on_the_same_stack = early.unwrap_or_else(|| others.recv_timeout(PATIENCE).unwrap());
        assert!(!on_the_same_stack, "a task began on the stack of one that waits");
        assert_eq!(is_ended.recv_timeout(PATIENCE).unwrap(), Ok(vec![(), ()]));
    }
}
