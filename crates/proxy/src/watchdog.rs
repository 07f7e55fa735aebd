//! Time limits on what a client does between requests. While one is in flight there are
//! none: transfers and streams may last as long as they like.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::stream::Stream;

/// What a client is told whose request does not come to its end. Written past hyper, which
/// has not begun an answer.
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 47\r\n\r\n\
    the head of the request did not arrive in time\n";

/// What a connection's requests are doing.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    in_flight: AtomicUsize,
    started: AtomicU64,
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Activity>);

impl Activity {
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.started.fetch_add(1, Ordering::AcqRel);
        InFlight(Arc::clone(self))
    }
}

impl InFlight {
    /// Keeps the connection busy for good: it no longer carries requests.
    pub(crate) fn never_ends(&self) {
        self.0.in_flight.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Limits of a connection without a request in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From a request's first byte to the end of its head; `None` where frames of the
    /// protocol itself come in between, as in HTTP/2.
    pub(crate) header: Option<Duration>,
    /// Without any request.
    pub(crate) idle: Duration,
}

/// A client's connection that fails once a limit is exceeded.
#[derive(Debug)]
pub(crate) struct Watched {
    stream: Stream,
    /// Bytes that were read to tell the protocol.
    prefix: Bytes,
    activity: Arc<Activity>,
    limits: Limits,
    in_header: bool,
    /// Part of a head has arrived.
    has_begun: bool,
    /// The client does not take what was written last.
    is_stuck: bool,
    seen: u64,
    armed: bool,
    deadline: Pin<Box<Sleep>>,
}

impl Watched {
    pub(crate) fn new(
        stream: Stream,
        prefix: Bytes,
        activity: Arc<Activity>,
        limits: Limits,
    ) -> Self {
        Self {
            stream,
            prefix,
            activity,
            limits,
            // A client that connects is expected to ask something at once.
            in_header: true,
            has_begun: false,
            is_stuck: false,
            seen: 0,
            armed: false,
            deadline: Box::pin(sleep_until(Instant::now())),
        }
    }

    fn catch_up(&mut self) {
        let started = self.activity.started.load(Ordering::Acquire);
        if started != self.seen {
            self.seen = started;
            self.in_header = false;
            self.has_begun = false;
            self.armed = false;
        }
    }

    fn received(&mut self) {
        self.catch_up();
        if !self.in_header && self.activity.in_flight.load(Ordering::Acquire) == 0 {
            self.in_header = true;
            self.armed = false;
        }
        self.has_begun |= self.in_header;
    }

    /// Tells a client why it is cut off that has sent part of a head. Not one that has sent
    /// nothing: it may be about to, and would take this for the answer.
    fn say_too_slow(&mut self, cx: &mut Context<'_>) {
        if self.limits.header.is_none() || !self.has_begun || self.is_stuck {
            return;
        }
        // So little fits into the buffers, or the client would not read it either.
        let mut stream = Pin::new(&mut self.stream);
        if stream.as_mut().poll_write(cx, TOO_SLOW).is_ready() {
            let _unread = stream.poll_flush(cx);
        }
    }

    fn wrote<T>(&mut self, result: Poll<T>) -> Poll<T> {
        self.is_stuck = result.is_pending();
        result
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.catch_up();
        if self.activity.in_flight.load(Ordering::Acquire) > 0 {
            self.armed = false;
            return Poll::Pending;
        }
        if !self.armed {
            let header = self.limits.header.filter(|_| self.in_header);
            let limit = header.unwrap_or(self.limits.idle);
            self.deadline.as_mut().reset(Instant::now() + limit);
            self.armed = true;
        }
        self.deadline.as_mut().poll(cx)
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.has_remaining() {
            let count = this.prefix.remaining().min(buf.remaining());
            buf.put_slice(&this.prefix.split_to(count));
            this.has_begun = true;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > before {
                    this.received();
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(this.poll_expired(cx));
                this.say_too_slow(cx);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.wrote(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
