//! Flow control of what clients send.
//!
//! The library grants a channel more window as soon as data has arrived, whether or not
//! anybody has taken it, and hands data over in the loop that also writes to the client.
//! Waiting there would stop both directions, and a process that waits for its output to be
//! read would then never read its input. So data is always taken at once, what is not yet
//! delivered is counted, and too much of it has two effects:
//!
//! - windows are granted two bytes at a time, which is the least that keeps the library
//!   asking, so that a client's next question tells when there is room again;
//! - the socket is read a packet at a time with a pause between, so that this asking costs
//!   nothing while window updates for the other direction still get through.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use warren_service::CancellationToken;

/// The window of a channel.
pub(crate) const WINDOW: u32 = 1024 * 1024;
/// The least window: with less the library never asks again.
const TRICKLE: u32 = 2;
/// Undelivered bytes of a connection from which on it is slowed down.
const MUCH: usize = 1024 * 1024;
/// Undelivered bytes from which on nothing is read: only clients that ignore their windows
/// get here, and those that fill many channels that nobody reads.
const TOO_MUCH: usize = 16 * 1024 * 1024;
/// Pause between packets of a connection that is slowed down.
const PAUSE: Duration = Duration::from_millis(10);

/// What a connection has sent and nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Undelivered(AtomicUsize);

impl Undelivered {
    pub(crate) fn hold(self: &Arc<Self>, bytes: &[u8]) -> Held {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        Held {
            bytes: Bytes::copy_from_slice(bytes),
            count: Arc::clone(self),
        }
    }

    fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// The window to grant next.
    pub(crate) fn window(&self) -> u32 {
        if self.bytes() > MUCH { TRICKLE } else { WINDOW }
    }
}

/// Bytes that count as undelivered until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: Bytes,
    count: Arc<Undelivered>,
}

impl Held {
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// A client's stream behind the gate. Fails once it is cut.
pub(crate) struct Gated<S> {
    stream: S,
    undelivered: Arc<Undelivered>,
    pause: Option<Pin<Box<Sleep>>>,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<S> Gated<S> {
    pub(crate) fn new(stream: S, undelivered: Arc<Undelivered>, cut: CancellationToken) -> Self {
        Self {
            stream,
            undelivered,
            pause: None,
            cut: Box::pin(cut.cancelled_owned()),
        }
    }

    /// Waits while reading is not allowed.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let bytes = self.undelivered.bytes();
            if bytes <= MUCH {
                self.pause = None;
                return Poll::Ready(());
            }
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(PAUSE)));
            match pause.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => pause.as_mut().reset(Instant::now() + PAUSE),
            }
            if bytes <= TOO_MUCH {
                return Poll::Ready(());
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.poll_open(cx).is_pending() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reading_slows_down_and_stops_while_nobody_takes_what_was_sent() {
        let undelivered = Arc::new(Undelivered::default());
        let cut = CancellationToken::new();
        let data = vec![7; 64];
        let mut gated = Gated::new(data.as_slice(), Arc::clone(&undelivered), cut.clone());
        let mut byte = [0];
        gated.read_exact(&mut byte).await.unwrap();
        assert_eq!(undelivered.window(), WINDOW);

        let much = undelivered.hold(&vec![0; MUCH + 1]);
        assert_eq!(undelivered.window(), TRICKLE);
        gated.read_exact(&mut byte).await.unwrap();

        let too_much = undelivered.hold(&vec![0; TOO_MUCH]);
        let read = tokio::time::timeout(Duration::from_secs(60), gated.read_exact(&mut byte));
        assert!(read.await.is_err());

        drop((much, too_much));
        assert_eq!(undelivered.bytes(), 0);
        gated.read_exact(&mut byte).await.unwrap();

        cut.cancel();
        assert!(gated.read_exact(&mut byte).await.is_err());
    }
}
