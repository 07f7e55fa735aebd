//! One request and its response on a connection of its own to the guest.
//!
//! The connection is driven by whoever awaits the response and then by whoever reads its
//! body: no task sits between guest and client, dropping the body closes the connection,
//! and a slow client slows the guest down. Only the end of the run comes from elsewhere: a
//! watching task takes the connection away, even if the client reads nothing.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use warren_service::{CancellationToken, Tasks};

use crate::heard::HeardOut;
use crate::limit::ConnectionPermit;
use crate::stream::Stream;

/// Largest read from a guest at once, and so the memory that one response takes.
const READ_BUFFER: usize = 256 * 1024;
/// Largest head of a guest's response.
const MAX_HEAD: usize = 64 * 1024;

type Connection = http1::Connection<TokioIo<HeardOut>, Incoming>;

/// Places in the sandbox's and the proxy's counts, held while a request is in flight.
#[derive(Debug)]
pub(crate) struct Permits {
    _sandbox: ConnectionPermit,
    _proxy: ConnectionPermit,
}

impl Permits {
    pub(crate) fn new(sandbox: ConnectionPermit, proxy: ConnectionPermit) -> Self {
        Self {
            _sandbox: sandbox,
            _proxy: proxy,
        }
    }
}

/// A connection with its response underway.
struct Live {
    connection: Connection,
    body: Incoming,
    /// The connection has nothing left to do; its future must not be polled again.
    idle: bool,
    _permits: Permits,
}

struct Slot {
    live: Option<Live>,
    run_ended: bool,
    reader: Option<Waker>,
}

/// A response underway.
pub(crate) struct Exchange {
    slot: Arc<Mutex<Slot>>,
    run: CancellationToken,
    /// Tells the watching task that it is no longer needed, by being dropped.
    _watched: oneshot::Sender<()>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

/// Why there are no more frames.
#[derive(Debug)]
pub(crate) enum ExchangeEnd {
    Complete,
    Guest(hyper::Error),
    Run,
}

/// A response whose head has arrived.
pub(crate) struct Started {
    pub(crate) response: Response<Incoming>,
    connection: Connection,
    idle: bool,
    permits: Permits,
}

/// Sends `request` on `stream` and waits for the head of the response.
pub(crate) async fn start(
    stream: Stream,
    request: Request<Incoming>,
    permits: Permits,
) -> Result<Started, hyper::Error> {
    let (mut sender, mut connection): (_, Connection) = http1::Builder::new()
        .max_buf_size(READ_BUFFER)
        .max_header_size(MAX_HEAD)
        // Naive servers look for `Host:` and `Content-Length:` as written in the books.
        .title_case_headers(true)
        .handshake(TokioIo::new(HeardOut::new(stream)))
        .await?;
    let mut idle = false;
    let mut head = pin!(sender.send_request(request));
    let response = poll_fn(|cx| {
        if let Poll::Ready(result) = head.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        // An error of the connection reaches the response as well.
        if !idle && Pin::new(&mut connection).poll(cx).is_ready() {
            idle = true;
        }
        head.as_mut().poll(cx)
    })
    .await?;
    Ok(Started {
        response,
        connection,
        idle,
        permits,
    })
}

impl Started {
    /// Turns a switched connection into a raw stream and what was read ahead of it.
    pub(crate) async fn switch(self) -> Result<(Stream, Bytes, Permits), hyper::Error> {
        let Self {
            mut connection,
            idle,
            permits,
            ..
        } = self;
        if !idle {
            (&mut connection).await?;
        }
        let parts = connection.into_parts();
        Ok((parts.io.into_inner().into_inner(), parts.read_buf, permits))
    }

    /// Splits into the response's head and the exchange that carries its body, which is
    /// reset when `run` ends. `None` for a response without a body: the connection is
    /// closed then.
    pub(crate) fn into_exchange(
        self,
        run: &CancellationToken,
        tasks: &Tasks,
    ) -> (http::response::Parts, Option<Exchange>) {
        let (head, body) = self.response.into_parts();
        if body.is_end_stream() {
            return (head, None);
        }
        let live = Live {
            connection: self.connection,
            body,
            idle: self.idle,
            _permits: self.permits,
        };
        let slot = Arc::new(Mutex::new(Slot {
            live: Some(live),
            run_ended: false,
            reader: None,
        }));
        let (watched, unwatched) = oneshot::channel();
        tasks.spawn(watch(run.clone(), unwatched, Arc::clone(&slot)));
        (
            head,
            Some(Exchange {
                slot,
                run: run.clone(),
                _watched: watched,
            }),
        )
    }
}

async fn watch(run: CancellationToken, unwatched: oneshot::Receiver<()>, slot: Arc<Mutex<Slot>>) {
    tokio::select! {
        () = run.cancelled() => {}
        _ = unwatched => return,
    }
    let (live, reader) = {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.run_ended = true;
        (slot.live.take(), slot.reader.take())
    };
    drop(live);
    if let Some(reader) = reader {
        reader.wake();
    }
}

impl Exchange {
    /// The next frame, never an empty one: HTTP/2 clients count those as an attack.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Frame<Bytes>, ExchangeEnd>> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(live) = &mut slot.live else {
            let end = if slot.run_ended {
                ExchangeEnd::Run
            } else {
                ExchangeEnd::Complete
            };
            return Poll::Ready(Err(end));
        };
        match live.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if live.body.is_end_stream() {
                    slot.live = None;
                }
                Poll::Ready(Ok(frame))
            }
            Poll::Ready(ended) => {
                slot.live = None;
                // The guest may notice its end before the watching task does; a body that
                // lasts until the connection closes would then seem complete.
                slot.run_ended = self.run.is_cancelled();
                Poll::Ready(Err(match ended {
                    _ if slot.run_ended => ExchangeEnd::Run,
                    Some(Err(error)) => ExchangeEnd::Guest(error),
                    _ => ExchangeEnd::Complete,
                }))
            }
            Poll::Pending => {
                match &mut slot.reader {
                    Some(reader) => reader.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    /// Whether the last frame was read.
    pub(crate) fn is_finished(&self) -> bool {
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.live.is_none() && !slot.run_ended
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.live
            .as_ref()
            .map(|live| live.body.size_hint())
            .unwrap_or_default()
    }
}

impl Live {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut driven = false;
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                Poll::Ready(frame) => return Poll::Ready(frame),
                Poll::Pending if driven || self.idle => return Poll::Pending,
                Poll::Pending => {
                    driven = true;
                    // Its error reaches the body as well.
                    self.idle = Pin::new(&mut self.connection).poll(cx).is_ready();
                }
            }
        }
    }
}
