//! A named pool of threads: work runs there and its result is awaited; a panic is an error, never a dead pool.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;

use super::{ThreadsError, priority};
use crate::{panics::panic_text, stop::Stop};

/// Threads for one kind of work. Dropping it ends them after the work that has begun.
#[derive(Debug)]
pub(crate) struct Pool {
    threads: ThreadPool,
}

impl Pool {
    /// A pool whose threads are called `name-0` and so on, at the system's `niceness` (0: as any other thread).
    ///
    /// # Errors
    /// [`ThreadsError::None`].
    pub(super) fn new(name: &'static str, threads: usize, niceness: u8) -> Result<Self, ThreadsError> {
        ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(move |n| format!("{name}-{n}"))
            .start_handler(move |_| priority::lower(niceness))
            .build()
            .map(|threads| Pool { threads })
            .map_err(|e| ThreadsError::None { reason: e.to_string() })
    }

    /// Runs `f` when its turn comes and awaits its result. Work that nobody awaits any more is not begun.
    ///
    /// # Errors
    /// [`ThreadsError::Panicked`]; [`ThreadsError::Ended`] if the pool ended first.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ThreadsError> {
        let (send, receive) = oneshot::channel();
        let span = tracing::Span::current();
        self.threads.spawn(move || {
            if send.is_closed() {
                return;
            }
            let result = span.in_scope(|| catch_unwind(AssertUnwindSafe(f)));
            // The asker may have gone meanwhile.
            let _ = send.send(result);
        });
        match receive.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => {
                let reason = panic_text(&*panic);
                tracing::error!(reason, "a worker panicked");
                Err(ThreadsError::Panicked { reason })
            }
            Err(_) => Err(ThreadsError::Ended),
        }
    }

    /// [`Pool::run`] of work that can be left off: it is handed a [`Stop`] that says when the deadline has passed or
    /// nobody awaits it any more.
    ///
    /// # Errors
    /// As [`Pool::run`].
    pub(crate) async fn run_until<T: Send + 'static>(
        &self,
        deadline: Option<Instant>,
        f: impl FnOnce(Stop) -> T + Send + 'static,
    ) -> Result<T, ThreadsError> {
        let (asker, stop) = Stop::with_asker(deadline);
        let result = self.run(move || f(stop)).await;
        drop(asker);
        result
    }

    /// Runs `f` when its turn comes; nobody awaits it. For probes.
    pub(crate) fn start(&self, f: impl FnOnce() + Send + 'static) {
        self.threads.spawn(f);
    }

    /// The pool itself, for a library that goes parallel on it. Never wait for it from a worker of a pool.
    pub(crate) fn workers(&self) -> &ThreadPool {
        &self.threads
    }
}

/// Runs `f` on a worker of a pool of its own that has one thread, for a library that goes parallel on whichever pool it
/// finds itself on; on the thread at hand if it is a worker already or the system has no thread to give.
pub(crate) fn alone<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    if rayon::current_thread_index().is_some() {
        return f();
    }
    match ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(pool) => pool.install(f),
        Err(_) => f(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_pool_lives_on() {
        let pool = Pool::new("test", 1, 0).unwrap();
        let error = pool.run(|| panic!("as planned")).await.map(|(): ()| ()).unwrap_err();
        assert!(error.to_string().contains("as planned"), "{error}");
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_not_begun() {
        let pool = Pool::new("test", 1, 0).unwrap();
        let (begun, hold) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
        let (begun_send, hold_receive) = (begun.0, hold.1);
        let blocker = pool.run(move || {
            begun_send.send(()).unwrap();
            hold_receive.recv().unwrap();
        });
        tokio::pin!(blocker);
        // Poll once so that the blocker is queued and runs.
        assert!(futures_poll_once(blocker.as_mut()).await.is_none());
        begun.1.recv().unwrap();
        let ran = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        {
            let ran = std::sync::Arc::clone(&ran);
            let abandoned = pool.run(move || ran.store(true, std::sync::atomic::Ordering::SeqCst));
            tokio::pin!(abandoned);
            assert!(futures_poll_once(abandoned.as_mut()).await.is_none());
        }
        hold.0.send(()).unwrap();
        blocker.await.unwrap();
        pool.run(|| ()).await.unwrap();
        assert!(!ran.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[tokio::test]
    async fn work_that_runs_hears_that_nobody_waits_any_more() {
        let pool = Pool::new("test", 1, 0).unwrap();
        let (begun_send, begun) = std::sync::mpsc::channel();
        let (ended_send, ended) = std::sync::mpsc::channel();
        {
            let abandoned = pool.run_until(None, move |stop| {
                begun_send.send(()).unwrap();
                while !stop.is_asked() {
                    std::thread::yield_now();
                }
                ended_send.send(()).unwrap();
            });
            tokio::pin!(abandoned);
            assert!(futures_poll_once(abandoned.as_mut()).await.is_none());
            begun.recv().unwrap();
        }
        ended.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    }

    async fn futures_poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match future.as_mut().poll(cx) {
                std::task::Poll::Ready(value) => Some(value),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
