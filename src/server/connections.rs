//! Accepted connections that can be cut: those that say nothing, and all of them when the server ends.
//!
//! HTTP/2 ends a connection in good order only together with its client, so one that never sent a byte, or that never
//! answers, would hold up the end for as long as it likes. A cut connection reads as closed by its client.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// A connection that has not sent its first byte after this time is no client.
const FIRST_BYTE_PATIENCE: Duration = Duration::from_secs(30);

/// A connection of a client, until it is cut.
pub(super) struct Connection {
    stream: TcpStream,
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
    /// `draining` cuts it if it has not sent a byte yet, `cut` in any case.
    pub(super) fn new(stream: TcpStream, draining: &CancellationToken, cut: &CancellationToken) -> Self {
        Connection {
            stream,
            cut: Box::pin(cut.clone().cancelled_owned()),
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
    type ConnectInfo = <TcpStream as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}
