//! HTTP requests of sandboxes, one by one: a connection that began with an allowed host may
//! go on with another.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, UPGRADE};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use warren_service::Chain;
use warren_types::egress::Verdict;

use crate::Broker;
use crate::broker::Flow;
use crate::head::{self, host_name};

/// A connection on which no request comes is closed after this.
const IDLE: Duration = Duration::from_secs(300);

type Body = BoxBody<Bytes, hyper::Error>;

/// Why a connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("a request was refused")]
    Refused,
    #[error("pass a request on")]
    Upstream(#[source] hyper::Error),
}

/// A client's connection with requests on it.
#[derive(Debug)]
pub(crate) struct Exchange {
    broker: Broker,
    flow: Flow,
    /// The connection that the last request used, with the host that it belongs to.
    upstream: Mutex<Option<(String, SendRequest<Incoming>)>>,
}

impl Exchange {
    pub(crate) fn new(broker: Broker, flow: Flow) -> Self {
        Self {
            broker,
            flow,
            upstream: Mutex::default(),
        }
    }

    /// Serves the requests of a connection to its end.
    pub(crate) async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let exchange = Arc::new(self);
        let served = Arc::clone(&exchange);
        let service = service_fn(move |request| {
            let exchange = Arc::clone(&served);
            async move { exchange.request(request).await }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(2 * head::LIMIT)
            .half_close(true)
            .preserve_header_case(true)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Err(error) = connection.await {
            tracing::debug!(peer = %exchange.flow.peer, error = %Chain(&error),
                "an HTTP connection of a sandbox ended");
        }
    }

    async fn request(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Closed> {
        let Some(name) = target(&mut request) else {
            self.broker
                .refuse(&self.flow, None, "a request that names no one host");
            return Err(Closed::Refused);
        };
        let verdict = self.broker.judge(&self.flow, Some(&name), false);
        if let Verdict::Deny(rule) = &verdict {
            self.broker.refuse(&self.flow, Some(&name), rule);
            return Err(Closed::Refused);
        }
        if let Some(headers) = self.flow.policy.headers_for(&name) {
            tracing::trace!(count = headers.len(), "headers are set");
        }
        self.forward(request, &name).await
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        name: &str,
    ) -> Result<Response<Body>, Closed> {
        let upgrade = keep_websocket(&mut request).then(|| hyper::upgrade::on(&mut request));
        *request.version_mut() = Version::HTTP_11;
        let mut upstream = self.upstream.lock().await;
        let kept = upstream.take().filter(|(host, _)| host == name);
        let ready = match kept {
            Some((_, mut sender)) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match ready {
            Some(sender) => sender,
            None => match self.connect(name).await {
                Ok(sender) => sender,
                Err(error) => return Ok(unreachable_host(&error)),
            },
        };
        let sent = sender.send_request(request).await;
        let mut response = sent.map_err(Closed::Upstream)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if let Some(client) = upgrade {
                self.join(client, hyper::upgrade::on(&mut response));
            }
        } else {
            *upstream = Some((name.to_owned(), sender));
        }
        Ok(response.map(BodyExt::boxed))
    }

    async fn connect(&self, name: &str) -> io::Result<SendRequest<Incoming>> {
        let stream = self.broker.dial_name(&self.flow, name).await?;
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let stop = self.broker.tasks.stop_token().clone();
        self.broker.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                // The exchange sees how it ends.
                _ = connection.with_upgrades() => {}
            }
        });
        Ok(sender)
    }

    /// Joins the two sides of a WebSocket.
    fn join(&self, client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) {
        let stop = self.broker.tasks.stop_token().clone();
        self.broker.tasks.spawn(async move {
            let joined = async {
                let (client, server) = tokio::try_join!(client, server).ok()?;
                let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                tokio::io::copy_bidirectional(&mut client, &mut server)
                    .await
                    .ok()
            };
            tokio::select! {
                () = stop.cancelled() => {}
                _ = joined => {}
            }
        });
    }
}

/// The one host that a request names, in its line and its header alike. The request is left
/// in the form that servers expect.
fn target(request: &mut Request<Incoming>) -> Option<String> {
    if request.method() == Method::CONNECT {
        return None;
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, None) = (hosts.next()?, hosts.next()) else {
        return None;
    };
    let name = host_name(host.to_str().ok()?)?;
    if let Some(authority) = request.uri().authority() {
        if authority.as_str().contains('@') || host_name(authority.as_str())? != name {
            return None;
        }
        let root = || PathAndQuery::from_static("/");
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(root));
    }
    Some(name)
}

/// Whether a request asks for a WebSocket; other upgrades are taken out, for what follows
/// them could name any host.
fn keep_websocket(request: &mut Request<Incoming>) -> bool {
    let headers = request.headers_mut();
    let wanted = headers.get(UPGRADE).map(HeaderValue::as_bytes);
    let is_websocket = wanted.is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    if wanted.is_some() && !is_websocket {
        headers.remove(UPGRADE);
        headers.remove(CONNECTION);
        headers.remove("http2-settings");
    }
    is_websocket
}

fn unreachable_host(error: &io::Error) -> Response<Body> {
    let text = format!("the host can't be reached: {}\n", error.kind());
    let body = Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
