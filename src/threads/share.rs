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
        atomic::{AtomicUsize, Ordering},
    },
};

type Work<T, E> = Arc<dyn Fn(usize) -> Result<T, E> + Send + Sync>;

struct Share<T, E> {
    items: usize,
    /// The next item that nobody has taken.
    next: AtomicUsize,
    state: Mutex<State<T, E>>,
    changed: Condvar,
}

struct State<T, E> {
    /// `None` once nobody may begin any more, so that a late helper keeps nothing in memory.
    work: Option<Work<T, E>>,
    working: usize,
    done: Vec<(usize, T)>,
    failed: Option<E>,
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
    let state = State {
        work: Some(Arc::new(work) as _),
        working: 0,
        done: Vec::new(),
        failed: None,
        panicked: false,
    };
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
    state.work = None;
    while state.working > 0 {
        state = share.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    assert!(!state.panicked, "a part of the work panicked on another thread");
    if let Some(error) = state.failed.take() {
        return Err(error);
    }
    let mut done = std::mem::take(&mut state.done);
    drop(state);
    done.sort_unstable_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, item)| item).collect())
}

impl<T, E> Share<T, E> {
    fn lock(&self) -> MutexGuard<'_, State<T, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes items until there are none left.
    fn help(&self) {
        let Some(work) = ({
            let mut state = self.lock();
            let work = state.work.clone();
            state.working += usize::from(work.is_some());
            work
        }) else {
            return;
        };
        let mut part = Part { share: self, work: Some(work), done: Vec::new(), failed: None };
        part.work();
    }
}

/// One thread's part; it reports when it is dropped, also by a panic.
struct Part<'a, T, E> {
    share: &'a Share<T, E>,
    work: Option<Work<T, E>>,
    done: Vec<(usize, T)>,
    failed: Option<E>,
}

impl<T, E> Part<'_, T, E> {
    fn work(&mut self) {
        let Some(work) = &self.work else { return };
        loop {
            let place = self.share.next.fetch_add(1, Ordering::Relaxed);
            if place >= self.share.items {
                return;
            }
            match work(place) {
                Ok(item) => self.done.push((place, item)),
                Err(error) => {
                    self.failed = Some(error);
                    self.share.next.store(self.share.items, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

impl<T, E> Drop for Part<'_, T, E> {
    fn drop(&mut self) {
        self.work = None;
        let mut state = self.share.lock();
        state.panicked |= std::thread::panicking();
        state.done.append(&mut self.done);
        if let Some(error) = self.failed.take() {
            state.failed.get_or_insert(error);
        }
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
