//! The thread budget: named pools, and "run there and await".
//!
//! Search, tokenizing (and what else costs time for each byte of text) and other work (reading the store, handing over
//! writes) have pools of their own, so that a flood of one never takes the threads of the others. ONNX Runtime has its
//! own threads (`runtime`), and the collections share a few for writing and building (`collection`). Opening, making and
//! closing collections may wait long, and takes threads of the async runtime that are made for that.

use std::time::Instant;

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;

use super::EngineError;
use crate::stop::Stop;

/// The pools of one engine.
#[derive(Debug)]
pub(super) struct Pools {
    search: ThreadPool,
    tokenize: ThreadPool,
    work: ThreadPool,
}

impl Pools {
    /// Pools of `threads` threads each.
    pub(super) fn new(threads: usize) -> Result<Self, EngineError> {
        let pool = |name: &'static str| {
            ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(move |i| format!("{name}-{i}"))
                .build()
                .map_err(|e| EngineError::Panicked { reason: format!("no thread pool could be made: {e}") })
        };
        Ok(Pools { search: pool("search")?, tokenize: pool("tokenize")?, work: pool("work")? })
    }

    /// Runs `f` on the search pool when its turn comes. For probes.
    pub(super) fn probe_search(&self, f: impl FnOnce() + Send + 'static) {
        self.search.spawn(f);
    }

    /// Runs `f` on the tokenizing pool when its turn comes. For probes.
    pub(super) fn probe_tokenize(&self, f: impl FnOnce() + Send + 'static) {
        self.tokenize.spawn(f);
    }

    /// Runs `f` on the work pool when its turn comes. For probes.
    pub(super) fn probe_work(&self, f: impl FnOnce() + Send + 'static) {
        self.work.spawn(f);
    }

    /// Runs a search. It is handed a [`Stop`] that says when the deadline has passed or nobody waits any more.
    pub(super) async fn search<T: Send + 'static>(
        &self,
        deadline: Option<Instant>,
        f: impl FnOnce(Stop) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (asker, stop) = Stop::with_asker(deadline);
        let result = run(&self.search, move || f(stop)).await;
        drop(asker);
        result
    }

    /// Cuts, hashes or tokenizes texts.
    pub(super) async fn tokenize<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        run(&self.tokenize, f).await
    }

    /// Runs anything else that computes or touches the disk.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        run(&self.work, f).await
    }

    /// [`Pools::work`] that can be left off: it is handed a [`Stop`] that says when nobody waits any more.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(Stop) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (asker, stop) = Stop::with_asker(None);
        let result = run(&self.work, move || f(stop)).await;
        drop(asker);
        result
    }
}

/// Starts `f` only if the asker still waits when its turn comes; a panic becomes an error, never a dead pool.
async fn run<T: Send + 'static>(
    pool: &ThreadPool,
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    let (send, receive) = oneshot::channel();
    let span = tracing::Span::current();
    pool.spawn(move || {
        if send.is_closed() {
            return;
        }
        let result = span.in_scope(|| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)));
        // The asker may have gone meanwhile.
        let _ = send.send(result);
    });
    match receive.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(panic)) => {
            let reason = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".to_owned());
            tracing::error!(reason, "a worker panicked");
            Err(EngineError::Panicked { reason })
        }
        Err(_) => Err(EngineError::Closing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_pool_lives_on() {
        let pools = Pools::new(1).unwrap();
        let error = pools.work(|| panic!("as planned")).await.map(|(): ()| ()).unwrap_err();
        assert!(error.to_string().contains("as planned"), "{error}");
        assert_eq!(pools.work(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_not_begun() {
        let pools = Pools::new(1).unwrap();
        let (begun, hold) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
        let (begun_send, hold_receive) = (begun.0, hold.1);
        let blocker = pools.work(move || {
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
            let abandoned = pools.work(move || ran.store(true, std::sync::atomic::Ordering::SeqCst));
            tokio::pin!(abandoned);
            assert!(futures_poll_once(abandoned.as_mut()).await.is_none());
        }
        hold.0.send(()).unwrap();
        blocker.await.unwrap();
        pools.work(|| ()).await.unwrap();
        assert!(!ran.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[tokio::test]
    async fn work_that_runs_hears_that_nobody_waits_any_more() {
        let pools = Pools::new(1).unwrap();
        let (begun_send, begun) = std::sync::mpsc::channel();
        let (ended_send, ended) = std::sync::mpsc::channel();
        {
            let abandoned = pools.search(None, move |stop| {
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
