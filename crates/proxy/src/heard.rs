//! A connection to a guest that is heard out.
//!
//! A guest may answer before it has read the whole request, and close: what is written from
//! then on fails, while the answer waits to be read. So a failed write is no end here. The
//! rest of the request goes nowhere, and reading tells whether there was an answer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

#[derive(Debug)]
pub(crate) struct HeardOut {
    stream: Stream,
    deaf: bool,
}

impl HeardOut {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            deaf: false,
        }
    }

    pub(crate) fn into_inner(self) -> Stream {
        self.stream
    }

    /// Takes a failed write for one of `len` bytes.
    fn write(
        &mut self,
        len: usize,
        write: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if !self.deaf {
            match write(Pin::new(&mut self.stream)) {
                Poll::Ready(Err(_)) => self.deaf = true,
                other => return other,
            }
        }
        Poll::Ready(Ok(len))
    }
}

impl AsyncRead for HeardOut {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for HeardOut {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .write(buf.len(), |stream| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        self.get_mut()
            .write(len, |stream| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let heard = self.get_mut();
        if heard.deaf {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut heard.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
