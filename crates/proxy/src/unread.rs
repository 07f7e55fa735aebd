//! What is left of a request's body once the answer is known.
//!
//! Over HTTP/1 the connection can't be used again until the request was read to its end. A
//! client that is told nothing keeps it for its next request, which fails. So a short rest is
//! read, and where there is more the answer says that the connection ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::{Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::timeout;

/// What is read of a body that nobody wants, and for how long.
const DISCARD_BYTES: usize = 64 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// A request's body whose rest is handed on when it is dropped.
#[derive(Debug)]
pub struct Watched {
    body: Option<Incoming>,
    rest: Arc<Mutex<Option<Incoming>>>,
}

/// The end of a request, for its answer.
#[derive(Debug)]
pub struct Unread {
    rest: Arc<Mutex<Option<Incoming>>>,
    /// The client waits to be asked for the body, so it is not writing.
    is_waiting: bool,
    is_http1: bool,
}

/// Watches how far a request's body is read.
#[must_use]
pub fn watch(request: Request<Incoming>) -> (Request<Watched>, Unread) {
    let rest = Arc::default();
    let unread = Unread {
        rest: Arc::clone(&rest),
        is_waiting: request.headers().contains_key(EXPECT),
        is_http1: request.version() <= Version::HTTP_11,
    };
    let body = |body| Watched {
        body: Some(body),
        rest,
    };
    (request.map(body), unread)
}

impl Unread {
    /// Reads a short rest, or has `response` end the connection.
    pub async fn finish<B>(self, response: &mut Response<B>) {
        let rest = self
            .rest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(rest) = rest else { return };
        if self.is_http1 && (self.is_waiting || !discard(rest).await) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
    }
}

/// Reads a short body to its end. Returns whether that was all: a slow or long one is not
/// worth the wait.
pub(crate) async fn discard(mut body: Incoming) -> bool {
    let read = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return false;
            }
        }
        true
    };
    timeout(DISCARD_TIME, read).await.unwrap_or(false)
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let none = || SizeHint::with_exact(0);
        self.body.as_ref().map_or_else(none, Body::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}
