//! What is large is freed where that holds nobody up.
//!
//! Freeing a model or a collection takes milliseconds and may wait for a thread to end, and whoever holds it last does it:
//! an async task, or a worker of a pool with requests behind it. These hand it over to a thread apart.
//! Elsewhere, and that is also where a program's main function lets go of it, it is freed at once: a program that ends has
//! freed what it had, before libraries take themselves apart.

use std::ops::Deref;

use tokio::runtime::Handle;

use super::start_thread;

/// Something large: dropped, it is given to [`dispose`].
#[derive(Debug)]
pub(crate) struct Large<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Large<T> {
    pub(crate) fn new(value: T) -> Self {
        Large(Some(value))
    }
}

impl<T: Send + 'static> Deref for Large<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is taken when it is dropped, not before")
    }
}

impl<T: Send + 'static> Drop for Large<T> {
    fn drop(&mut self) {
        dispose(self.0.take());
    }
}

/// Drops `value`: on a thread that the async runtime makes for what takes long, if one of its tasks runs here; on a thread
/// of its own, if this is a worker of a pool; else here.
pub(crate) fn dispose<T: Send + 'static>(value: T) {
    if std::thread::panicking() {
        // No time to ask for a thread: a second panic would end the process.
        return;
    }
    if tokio::task::try_id().is_some()
        && let Ok(runtime) = Handle::try_current()
    {
        // Not waited for by anybody but the end of the runtime.
        drop(runtime.spawn_blocking(move || drop(value)));
    } else if rayon::current_thread_index().is_some()
        && let Err(error) = start_thread("disposal", move || drop(value))
    {
        tracing::debug!(%error, "freed on the thread at hand");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Sender, channel},
        thread::ThreadId,
        time::Duration,
    };

    use super::*;

    /// Tells which thread drops it.
    struct Told(Sender<ThreadId>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.send(std::thread::current().id()).unwrap();
        }
    }

    /// The thread that drops a large value which `drops` lets go of, and the one that let go.
    fn freed(drops: impl FnOnce(Box<dyn FnOnce() -> ThreadId + Send>) -> ThreadId) -> (ThreadId, ThreadId) {
        let (send, told) = channel();
        let large = Large::new(Told(send));
        let here = drops(Box::new(move || {
            drop(large);
            std::thread::current().id()
        }));
        (told.recv_timeout(Duration::from_secs(60)).expect("it is never freed"), here)
    }

    #[test]
    fn async_tasks_and_workers_of_a_pool_hand_it_over_and_others_do_not() {
        let (by, here) = freed(|drops| drops());
        assert_eq!(by, here);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (by, here) = freed(|drops| runtime.block_on(runtime.spawn(async move { drops() })).unwrap());
        assert_ne!(by, here);
        let (by, here) = freed(|drops| runtime.block_on(async move { drops() }));
        assert_eq!(by, here);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let (by, here) = freed(|drops| pool.install(drops));
        assert_ne!(by, here);
    }
}
