//! Bodies of the proxy's answers: its own texts, or a guest's response as it arrives.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::connect::{EnvelopeTracker, sandbox_ended};
use crate::exchange::{Exchange, ExchangeEnd};
use warren_types::SandboxId;

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
    id: SandboxId,
    tracker: Option<EnvelopeTracker>,
    finished: bool,
}

impl ProxyBody {
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    pub(crate) fn full(bytes: Bytes) -> Self {
        Self(Kind::Full(bytes))
    }

    /// Streams the rest of `exchange`. With a `tracker`, the end of the run becomes an
    /// end-stream envelope where one can stand.
    pub(crate) fn guest(
        exchange: Exchange,
        id: SandboxId,
        tracker: Option<EnvelopeTracker>,
    ) -> Self {
        Self(Kind::Guest(Box::new(GuestBody { exchange, id, tracker, finished: false })))
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
        if self.finished {
            return Poll::Ready(None);
        }
        match std::task::ready!(self.exchange.poll_frame(cx)) {
            Ok(frame) => {
                if let (Some(tracker), Some(data)) = (&mut self.tracker, frame.data_ref()) {
                    tracker.advance(data);
                }
                self.finished = self.exchange.is_finished();
                Poll::Ready(Some(Ok(frame)))
            }
            Err(end) => {
                self.finished = true;
                Poll::Ready(match end {
                    ExchangeEnd::Complete => None,
                    ExchangeEnd::Guest(error) => Some(Err(BodyError::Guest(error))),
                    ExchangeEnd::Run => Some(self.run_ended()),
                })
            }
        }
    }

    fn run_ended(&self) -> Result<Frame<Bytes>, BodyError> {
        match &self.tracker {
            Some(tracker) if tracker.at_boundary() => Ok(Frame::data(sandbox_ended(&self.id))),
            _ => Err(BodyError::RunEnded),
        }
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
            Kind::Guest(guest) => guest.finished,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Guest(guest) if guest.finished => SizeHint::with_exact(0),
            Kind::Guest(guest) => guest.exchange.size_hint(),
        }
    }
}
