//! Accepted connections that can be cut: those that say nothing, and all of them when the server ends.
//!
//! HTTP/2 ends a connection in good order only together with its client, so one that never sent a byte, or that never
//! answers, would hold up the end for as long as it likes. A cut connection reads as closed by its client.
//! There are at most so many connections ([`Places`]): each takes a file handle, and the store needs some. When one more
//! comes, one that is idle goes for it: first those that never sent a byte, then whichever has been silent the longest
//! without one of our requests under way. A client that only watches the health service is idle too. Where none is idle,
//! the new one is closed.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
    time::Sleep,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// A connection that has not sent its first byte after this time is no client.
const FIRST_BYTE_PATIENCE: Duration = Duration::from_secs(30);

/// The connections that there are and may be.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    began: Instant,
    open: Mutex<Open>,
    ended: Notify,
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq)]
enum Full {
    /// Nobody is idle.
    Busy,
    /// Those that were cut have not ended yet.
    Ending,
}

#[derive(Debug, Default)]
struct Open {
    connections: HashMap<u64, Arc<Activity>>,
    next: u64,
    warned: bool,
}

/// What a connection does.
#[derive(Debug)]
struct Activity {
    requests: AtomicUsize,
    /// Milliseconds since the server began when it last sent something, at least 1; 0 if it never has.
    heard_ms: AtomicU64,
    cut: CancellationToken,
}

/// A place among the connections, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    activity: Arc<Activity>,
}

impl Places {
    /// For at most `max` connections; a quarter more while those that were cut end.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Places { max, began: Instant::now(), open: Mutex::default(), ended: Notify::new() })
    }

    /// A place for one more, which `cut` cuts. `None` where there is none and nobody is idle.
    pub(super) async fn admit(self: &Arc<Self>, cut: &CancellationToken) -> Option<Place> {
        loop {
            match self.take(cut) {
                Ok(place) => return Some(place),
                Err(Full::Busy) => return None,
                Err(Full::Ending) => {
                    tokio::time::timeout(ENDING_PATIENCE, self.ended.notified()).await.ok()?;
                }
            }
        }
    }

    fn take(self: &Arc<Self>, cut: &CancellationToken) -> Result<Place, Full> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.connections.len() >= self.max {
            if !std::mem::replace(&mut open.warned, true) {
                let connections = self.max;
                tracing::warn!(
                    connections,
                    "as many connections are open as the limit of files (ulimit -n) allows; idle ones are closed for new ones"
                );
            }
            if open.connections.len() >= self.max.saturating_add(self.max / 4) {
                return Err(Full::Ending);
            }
            let idle = open.connections.iter().filter(|(_, activity)| activity.is_idle());
            let (_, idle) = idle
                .min_by_key(|(number, activity)| (activity.heard_ms.load(Ordering::Relaxed), **number))
                .ok_or(Full::Busy)?;
            idle.cut.cancel();
        }
        let number = open.next;
        open.next += 1;
        let activity = Arc::new(Activity {
            requests: AtomicUsize::new(0),
            heard_ms: AtomicU64::new(0),
            cut: cut.child_token(),
        });
        open.connections.insert(number, Arc::clone(&activity));
        Ok(Place { places: Arc::clone(self), number, activity })
    }
}

impl Activity {
    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::SeqCst) == 0 && !self.cut.is_cancelled()
    }
}

impl Place {
    fn heard(&self) {
        let ms = u64::try_from(self.places.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.activity.heard_ms.store(ms.max(1), Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.connections.remove(&self.number);
        drop(open);
        self.places.ended.notify_one();
    }
}

/// What requests know of the connection that they came over.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) tcp: TcpConnectInfo,
    activity: Arc<Activity>,
}

impl Client {
    /// A request is under way over it, until this is dropped.
    pub(super) fn begin(&self) -> Busy {
        self.activity.requests.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(&self.activity))
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How long a new connection waits for those that were cut for others to end.
const ENDING_PATIENCE: Duration = Duration::from_secs(1);

/// A connection of a client, until it is cut.
pub(super) struct Connection {
    stream: TcpStream,
    place: Place,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// `None` once it has sent something.
    silent: Option<Silence>,
}

/// Why a connection that has sent nothing is cut: the server drains, or it has had time enough.
struct Silence {
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    patience: Pin<Box<Sleep>>,
}

impl Connection {
    /// `draining` cuts it if it has not sent a byte yet, its place in any case.
    pub(super) fn new(stream: TcpStream, draining: &CancellationToken, place: Place) -> Self {
        Connection {
            stream,
            cut: Box::pin(place.activity.cut.clone().cancelled_owned()),
            place,
            silent: Some(Silence {
                draining: Box::pin(draining.clone().cancelled_owned()),
                patience: Box::pin(tokio::time::sleep(FIRST_BYTE_PATIENCE)),
            }),
        }
    }

    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        self.cut.as_mut().poll(cx).is_ready()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut(cx) {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.place.heard();
        }
        if let Some(silence) = &mut self.silent {
            if read.is_pending() {
                let over = silence.draining.as_mut().poll(cx).is_ready()
                    || silence.patience.as_mut().poll(cx).is_ready();
                return if over { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            if buffer.filled().len() > before {
                self.silent = None;
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = Client;

    fn connect_info(&self) -> Client {
        Client { tcp: self.stream.connect_info(), activity: Arc::clone(&self.place.activity) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_connection_takes_the_place_of_the_one_that_is_idle_the_longest() {
        let cut = CancellationToken::new();
        let places = Places::new(8);
        let held: Vec<Place> = (0..8).map(|_| places.take(&cut).expect("there are eight")).collect();
        for place in &held[..6] {
            place.heard();
        }
        let busy = |place: &Place| {
            place.activity.requests.fetch_add(1, Ordering::SeqCst);
            Busy(Arc::clone(&place.activity))
        };
        let working: Vec<Busy> = held[1..6].iter().map(busy).collect();
        // Those that never said anything, in their order.
        drop(places.take(&cut).expect("an idle one goes"));
        assert_eq!(held.iter().position(|place| place.activity.cut.is_cancelled()), Some(6));
        let ninth = places.take(&cut).expect("an idle one goes");
        let _working = busy(&ninth);
        assert!(held[7].activity.cut.is_cancelled() && !held[0].activity.cut.is_cancelled());
        let _first = busy(&held[0]);
        assert_eq!(places.take(&cut).unwrap_err(), Full::Busy);
        let mut held = held;
        drop(held.split_off(6));
        let tenth = places.take(&cut).expect("one is gone");
        assert!(held.iter().all(|place| !place.activity.cut.is_cancelled()));
        drop((working, tenth, held));
        places.take(&cut).expect("there is room again");
    }
}
