//! The accept loop: HTTP/1.1 and HTTP/2, plain or under TLS on one port, and its drain.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};
use warren_service::{CancellationToken, Peer, Tasks};

use crate::stream::Stream;
use crate::watchdog::{Activity, InFlight, Limits, Watched};

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// First byte of a TLS handshake record; no HTTP request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;
/// Largest head of a request.
const MAX_HEAD: usize = 64 * 1024;
/// Largest read from an HTTP/1.1 client at once, and so the memory of one upload.
const READ_BUFFER: usize = 512 * 1024;
const H2_MAX_STREAMS: u32 = 100;
const H2_WINDOW: u32 = 1024 * 1024;
const H2_MAX_FRAME: u32 = 64 * 1024;
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(15);
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Pause after a failed accept: the usual cause, too many open files, does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections get to end after they were cut.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// Settings of a listener.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Longest time for a TLS handshake, and for the head of a request.
    pub header_timeout: Duration,
    /// Longest time that a connection may stay without a request in flight.
    pub idle_timeout: Duration,
    /// Longest time that requests in flight get when the listener stops.
    pub drain_timeout: Duration,
    /// Most connections at once; more wait to be accepted.
    pub max_connections: usize,
    /// Certificates, to take TLS beside plain connections. ALPN should name `h2` and
    /// `http/1.1`.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(620),
            drain_timeout: Duration::from_secs(30),
            max_connections: 16_384,
            tls: None,
        }
    }
}

/// What all connections of a listener share.
struct Shared<S> {
    service: S,
    config: ListenerConfig,
    tls: Option<TlsAcceptor>,
    /// Asks for a graceful end.
    stop: CancellationToken,
    /// Orders the end.
    cut: CancellationToken,
    streams: Tasks,
}

/// Serves connections from `listener` until `stop`, then lets requests in flight finish for
/// at most [`ListenerConfig::drain_timeout`] and cuts the rest. Returns how many connections
/// were cut. Connections that switched protocols are no longer the listener's.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    stop: CancellationToken,
    config: ListenerConfig,
) -> usize
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let connections = Tasks::new();
    let places = Arc::new(Semaphore::new(config.max_connections));
    let drain_timeout = config.drain_timeout;
    let shared = Arc::new(Shared {
        service,
        tls: config.tls.clone().map(TlsAcceptor::from),
        config,
        stop: connections.stop_token().clone(),
        cut: CancellationToken::new(),
        streams: Tasks::new(),
    });
    let accepting = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let (stream, peer) = accept(&listener).await;
            let shared = Arc::clone(&shared);
            connections.spawn(async move {
                let cut = shared.cut.clone();
                tokio::select! {
                    () = serve_connection(stream, Peer(peer), shared) => {}
                    () = cut.cancelled() => {}
                }
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stop.cancelled() => {}
    }
    drop(listener);
    let left = connections.stop(drain_timeout).await;
    shared.cut.cancel();
    connections.stop(CUT_GRACE).await;
    shared.streams.stop(CUT_GRACE).await;
    left
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_client(&error) => {}
            Err(error) => {
                warn!(%error, "accepting connections fails");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The client was gone before it was accepted.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

async fn serve_connection<S, B>(tcp: TcpStream, peer: Peer, shared: Arc<Shared<S>>)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let opening = timeout(shared.config.header_timeout, open(tcp, shared.tls.as_ref()));
    let opened = tokio::select! {
        opened = opening => opened,
        // Nothing was asked yet, so nothing is lost.
        () = shared.stop.cancelled() => return,
    };
    let (stream, prefix) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            debug!(%error, "connection ended before its first request");
            return;
        }
        Err(_) => return,
    };
    let is_h2 = &*prefix == H2_PREFACE;
    let activity = Arc::new(Activity::default());
    let limits = Limits {
        header: (!is_h2).then_some(shared.config.header_timeout),
        idle: shared.config.idle_timeout,
    };
    let io = TokioIo::new(Watched::new(stream, prefix, Arc::clone(&activity), limits));
    let service = Counting {
        inner: shared.service.clone(),
        peer,
        activity,
    };
    if is_h2 {
        let connection = h2_builder(&shared.streams).serve_connection(io, service);
        drive(
            connection,
            &shared.stop,
            http2::Connection::graceful_shutdown,
        )
        .await;
    } else {
        let connection = h1_builder(&shared.config)
            .serve_connection(io, service)
            .with_upgrades();
        drive(
            connection,
            &shared.stop,
            http1::UpgradeableConnection::graceful_shutdown,
        )
        .await;
    }
}

/// Runs a connection to its end; `stop` makes that end graceful.
async fn drive<C>(connection: C, stop: &CancellationToken, end_gracefully: fn(Pin<&mut C>))
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            end_gracefully(connection.as_mut());
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "connection broke off");
    }
}

/// Completes the TLS handshake, if one is begun, and reads as much as it takes to tell
/// HTTP/2 from HTTP/1.1.
async fn open(tcp: TcpStream, tls: Option<&TlsAcceptor>) -> io::Result<(Stream, Bytes)> {
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    let mut stream = match tls {
        Some(acceptor) if begins_tls(&tcp).await? => {
            Stream::Tls(Box::new(acceptor.accept(tcp).await?.into()))
        }
        _ => Stream::Plain(tcp),
    };
    let mut prefix = BytesMut::with_capacity(H2_PREFACE.len());
    while prefix.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(&prefix) {
        let missing = (H2_PREFACE.len() - prefix.len()) as u64;
        if (&mut stream).take(missing).read_buf(&mut prefix).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((stream, prefix.freeze()))
}

async fn begins_tls(tcp: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    Ok(tcp.peek(&mut first).await? == 1 && first == [TLS_HANDSHAKE])
}

fn h1_builder(config: &ListenerConfig) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(READ_BUFFER)
        .max_header_size(MAX_HEAD)
        .timer(TokioTimer::new())
        // Counts the time between requests as well, so it can't be the limit on heads. It
        // makes hyper read as soon as a request is done, where the watchdog takes over.
        .header_read_timeout(config.idle_timeout.saturating_add(config.header_timeout));
    builder
}

fn h2_builder(streams: &Tasks) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor(streams.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_MAX_STREAMS)
        .initial_stream_window_size(H2_WINDOW)
        .initial_connection_window_size(H2_WINDOW)
        .max_frame_size(H2_MAX_FRAME)
        .max_header_list_size(u32::try_from(MAX_HEAD).expect("a small constant"))
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    builder
}

/// Runs the streams of HTTP/2 connections as tasks of the listener.
#[derive(Clone)]
struct StreamExecutor(Tasks);

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Tells the connection's watchdog when requests begin and end, and the service where they
/// come from.
struct Counting<S> {
    inner: S,
    peer: Peer,
    activity: Arc<Activity>,
}

impl<S, B> Service<Request<Incoming>> for Counting<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let in_flight = self.activity.begin();
        request.extensions_mut().insert(self.peer);
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                in_flight.never_ends();
            }
            Ok(response.map(|inner| CountedBody {
                inner,
                _in_flight: in_flight,
            }))
        })
    }
}

/// A response's body; the request is in flight until it is dropped.
struct CountedBody<B> {
    inner: B,
    _in_flight: InFlight,
}

impl<B: Body + Unpin> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
