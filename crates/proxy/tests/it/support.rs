//! A proxy with its listener, guests behind it, and clients in front of it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use warren_proxy::{
    Ask, Dial, ListenerConfig, Proxy, ProxyConfig, Resolution, Route, RouteSource, serve,
};
use warren_service::{CancellationToken, Tasks};
use warren_types::SandboxId;

/// Bound for everything that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("done in time")
}

/// Ports of one sandbox and where on loopback they are.
#[derive(Debug, Default)]
pub(crate) struct Ports(Mutex<HashMap<u16, SocketAddr>>);

impl Ports {
    pub(crate) fn open(&self, port: u16, address: SocketAddr) {
        self.0.lock().unwrap().insert(port, address);
    }
}

impl Dial for Ports {
    fn dial(&self, port: u16) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + '_>> {
        let address = self.0.lock().unwrap().get(&port).copied();
        Box::pin(async move {
            match address {
                Some(address) => TcpStream::connect(address).await,
                None => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }
}

/// A table of sandboxes.
#[derive(Debug, Default)]
pub(crate) struct Table(Mutex<HashMap<String, Resolution>>);

#[async_trait]
impl RouteSource for Table {
    async fn resolve(&self, id: &SandboxId, _ask: &Ask<'_>) -> Resolution {
        let table = self.0.lock().unwrap();
        table
            .get(id.as_str())
            .cloned()
            .unwrap_or(Resolution::NotFound)
    }
}

/// A proxy that listens, and what is around it. Dropping it ends every task.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) proxy: Proxy,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: Tasks,
    pub(crate) served: Option<tokio::task::JoinHandle<usize>>,
    table: Arc<Table>,
    guests: Mutex<Vec<tokio::task::AbortHandle>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        for guest in self.guests.lock().unwrap().drain(..) {
            guest.abort();
        }
    }
}

/// A run of a sandbox in the world.
pub(crate) struct Run {
    pub(crate) ports: Arc<Ports>,
    pub(crate) token: CancellationToken,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(ListenerConfig::default()).await
    }

    pub(crate) async fn with(config: ListenerConfig) -> Self {
        let table = Arc::new(Table::default());
        let proxy = Proxy::new(Arc::clone(&table) as _, ProxyConfig::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let tasks = Tasks::new();
        let service = {
            let proxy = proxy.clone();
            service_fn(move |request| {
                let proxy = proxy.clone();
                async move { Ok::<_, Infallible>(proxy.serve_request(request).await) }
            })
        };
        let served = tasks.spawn(serve(listener, service, stop.clone(), config));
        let guests = Mutex::default();
        Self {
            address,
            proxy,
            stop,
            tasks,
            served: Some(served),
            table,
            guests,
        }
    }

    pub(crate) fn set(&self, id: &str, resolution: Resolution) {
        self.table
            .0
            .lock()
            .unwrap()
            .insert(id.to_owned(), resolution);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.table.0.lock().unwrap().remove(id);
    }

    /// Runs sandbox `id` with a route changed by `change`.
    pub(crate) fn run_with(&self, id: &str, change: impl FnOnce(&mut Route)) -> Run {
        let run = Run {
            ports: Arc::default(),
            token: CancellationToken::new(),
        };
        let mut route = Route::new(Arc::clone(&run.ports) as _, run.token.clone());
        change(&mut route);
        self.set(id, Resolution::Route(Arc::new(route)));
        run
    }

    pub(crate) fn run(&self, id: &str) -> Run {
        self.run_with(id, |_| {})
    }

    /// Starts an HTTP guest on a free port.
    pub(crate) async fn http_guest<H, F>(&self, handler: H) -> SocketAddr
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        self.raw_guest(move |stream| {
            let handler = handler.clone();
            async move {
                let service = service_fn(move |request| {
                    let response = handler(request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .max_buf_size(512 * 1024)
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                drop(connection.await);
            }
        })
        .await
    }

    /// Starts a guest that gets every connection as it is.
    pub(crate) async fn raw_guest<H, F>(&self, handler: H) -> SocketAddr
    where
        H: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.raw_guest_on(listener, handler);
        address
    }

    pub(crate) fn raw_guest_on<H, F>(&self, listener: TcpListener, handler: H)
    where
        H: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let accepting = self.tasks.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(handler(stream));
            }
        });
        self.guests.lock().unwrap().push(accepting.abort_handle());
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends raw bytes and reads to the end of the connection.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Sends one request over HTTP/1.1.
    pub(crate) async fn h1(&self, request: Request<Body>) -> Response<Incoming> {
        let io = TokioIo::new(self.connect().await);
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.max_buf_size(512 * 1024);
        let (mut sender, connection) = builder.handshake(io).await.unwrap();
        self.tasks.spawn(async move { drop(connection.await) });
        within(sender.send_request(request)).await.unwrap()
    }

    /// Opens an HTTP/2 connection by prior knowledge.
    pub(crate) async fn h2(&self) -> hyper::client::conn::http2::SendRequest<Body> {
        let io = TokioIo::new(self.connect().await);
        let executor = hyper_util::rt::TokioExecutor::new();
        let mut builder = hyper::client::conn::http2::Builder::new(executor);
        builder
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 20);
        let (sender, connection) = builder.handshake(io).await.unwrap();
        self.tasks.spawn(async move { drop(connection.await) });
        sender
    }

    /// Gets `path` from `host` with extra headers, and reads the whole answer.
    pub(crate) async fn get(&self, host: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", host, path, headers).await
    }

    pub(crate) async fn ask(
        &self,
        method: &str,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(self.h1(request.body(empty()).unwrap()).await).await
    }
}

/// An answer that was read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

pub(crate) async fn read(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = within(body.collect()).await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    Answer {
        status: head.status,
        headers: head.headers,
        text,
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(&self, status: u16, text: &str) {
        assert_eq!((self.status.as_u16(), self.text.as_str()), (status, text));
    }

    #[track_caller]
    pub(crate) fn contains(&self, status: u16, part: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert!(self.text.contains(part), "{part} not in {}", self.text);
    }
}

/// Answers with the request's line and headers, as a guest sees them.
pub(crate) async fn echo(request: Request<Incoming>) -> Response<Body> {
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    Response::new(full(text))
}
