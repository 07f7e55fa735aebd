//! Bodies of the proxy's answers: its own texts, or a guest's response as it arrives.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::exchange::{Exchange, ExchangeEnd};

/// Why a response broke off. The client sees an incomplete body, never a clean end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The sandbox's run ended.
    #[error("the run of the sandbox ended")]
    RunEnded,
    /// The guest closed the connection early or broke the protocol.
    #[error("the guest broke off its response")]
    Guest(#[source] hyper::Error),
}

/// The body of a response from the proxy.
#[derive(Debug)]
pub struct ProxyBody(Kind);

#[derive(Debug)]
enum Kind {
    Full(Bytes),
    Guest(Box<GuestBody>),
}

#[derive(Debug)]
struct GuestBody {
    exchange: Exchange,
    finished: bool,
    /// What ends the response, held back for one poll.
    failure: Option<BodyError>,
}

impl ProxyBody {
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    pub(crate) fn full(bytes: Bytes) -> Self {
        Self(Kind::Full(bytes))
    }

    /// Streams the rest of `exchange`.
    pub(crate) fn guest(exchange: Exchange) -> Self {
        Self(Kind::Guest(Box::new(GuestBody {
            exchange,
            finished: false,
            failure: None,
        })))
    }

    /// Length of a text of the proxy's own.
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Kind::Full(bytes) => bytes.len(),
            Kind::Guest(_) => 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Kind::Full(bytes) => bytes,
            Kind::Guest(_) => panic!("a guest's body streams"),
        }
    }
}

impl GuestBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.failure.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if self.finished {
            return Poll::Ready(None);
        }
        let end = match ready!(self.exchange.poll_frame(cx)) {
            Ok(frame) => {
                self.finished = self.exchange.is_finished();
                return Poll::Ready(Some(Ok(frame)));
            }
            Err(end) => end,
        };
        self.finished = true;
        let error = match end {
            ExchangeEnd::Complete => return Poll::Ready(None),
            ExchangeEnd::Guest(error) => BodyError::Guest(error),
            // Streaming RPC responses too: only of a connection that broke does the
            // JavaScript client ask why, and then tells that the sandbox was killed.
            ExchangeEnd::Run => BodyError::RunEnded,
        };
        // An error makes hyper drop what it has not written yet. A pause lets it write
        // what the guest sent before.
        self.failure = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Kind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Guest(guest) => guest.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Guest(guest) => guest.finished && guest.failure.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Guest(guest) if guest.finished && guest.failure.is_none() => {
                SizeHint::with_exact(0)
            }
            Kind::Guest(guest) => guest.exchange.size_hint(),
        }
    }
}
