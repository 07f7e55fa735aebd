//! Standard input and output as one stream that tells when it is dropped.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, Stdin, Stdout};
use tokio::sync::oneshot;

/// Both; `_dropped` goes with it.
pub(crate) struct Stdio {
    input: Stdin,
    output: Stdout,
    _dropped: oneshot::Sender<()>,
}

impl Stdio {
    /// The stream, and what resolves once it is dropped.
    pub(crate) fn open() -> (Self, oneshot::Receiver<()>) {
        let (dropped, end) = oneshot::channel();
        let stdio = Self {
            input: tokio::io::stdin(),
            output: tokio::io::stdout(),
            _dropped: dropped,
        };
        (stdio, end)
    }
}

impl AsyncRead for Stdio {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.output).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_shutdown(cx)
    }
}
