//! HTTP requests of sandboxes, one by one: a connection that began with an allowed host may
//! go on with another. Within TLS that was looked into there is one host, and requests to it
//! get the headers of its rule.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, COOKIE, HOST, HeaderValue, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use warren_service::{Chain, Tasks};
use warren_types::egress::{EgressPolicy, Verdict};

use crate::Broker;
use crate::broker::Flow;
use crate::head::{self, host_name};
use crate::headers::{self, Filled};
use crate::upstream::{Sender, Upstreams};

/// A connection on which no request comes is closed after this.
const IDLE: Duration = Duration::from_secs(300);
/// Requests of an HTTP/2 connection at a time; each may need a connection of its own.
const STREAMS: u32 = 64;
/// Bytes that wait in a stream, and in a connection with all its streams.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// A peer that does not answer a ping within this is gone.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_LIMIT: Duration = Duration::from_secs(20);

type Body = BoxBody<Bytes, hyper::Error>;

/// Why a connection is closed, or a stream reset, without an answer.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("a request was refused")]
    Refused,
    #[error("the rules that the connection began with are gone")]
    Outdated,
    #[error("pass a request on")]
    Upstream(#[source] hyper::Error),
}

/// What connections of HTTP/2 run their parts in.
#[derive(Debug, Clone)]
pub(crate) struct Executor(pub(crate) Tasks);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, part: F) {
        self.0.spawn_until_stopped(part);
    }
}

/// A client's connection with requests on it.
#[derive(Debug)]
pub(crate) struct Exchange {
    broker: Broker,
    flow: Flow,
    /// The host that the TLS is with. On plain connections each request names one.
    host: Option<String>,
    upstreams: Upstreams,
}

impl Exchange {
    /// On a plain connection.
    pub(crate) fn plain(broker: Broker, flow: Flow) -> Self {
        Self {
            broker,
            flow,
            host: None,
            upstreams: Upstreams::new(false, false),
        }
    }

    /// Within TLS as `host`.
    pub(crate) fn within_tls(broker: Broker, flow: Flow, host: String, is_http2: bool) -> Self {
        Self {
            broker,
            flow,
            host: Some(host),
            upstreams: Upstreams::new(true, is_http2),
        }
    }

    /// Serves the requests of a connection to its end.
    pub(crate) async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let is_http2 = self.upstreams.is_http2();
        let exchange = Arc::new(self);
        let served = Arc::clone(&exchange);
        let service = service_fn(move |request| {
            let exchange = Arc::clone(&served);
            async move { exchange.request(request).await }
        });
        let stream = TokioIo::new(stream);
        let ended = if is_http2 {
            hyper::server::conn::http2::Builder::new(Executor(exchange.broker.tasks.clone()))
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(STREAM_WINDOW as usize)
                .max_header_list_size(head::LIMIT as u32)
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_LIMIT)
                .serve_connection(stream, service)
                .await
        } else {
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .max_buf_size(2 * head::LIMIT)
                .half_close(true)
                .preserve_header_case(true)
                .serve_connection(stream, service)
                .with_upgrades()
                .await
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %exchange.flow.peer, error = %Chain(&error),
                "an HTTP connection of a sandbox ended");
        }
    }

    async fn request(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Closed> {
        let Some(target) = target(&mut request) else {
            self.broker
                .refuse(&self.flow, None, "a request that names no one host");
            return Err(Closed::Refused);
        };
        let name = target.name.as_str();
        if let Some(host) = &self.host
            && host != name
        {
            let rule = format!("the connection is with {host}");
            self.broker.refuse(&self.flow, Some(name), &rule);
            let text = format!("this connection is with {host}\n");
            return Ok(answer(StatusCode::MISDIRECTED_REQUEST, text));
        }
        // Rules may have been replaced since the connection began.
        let policy = self.broker.gate.policy(self.flow.peer);
        let policy = policy.ok_or(Closed::Outdated)?;
        let headers = policy.headers_for(name);
        if self.host.is_some() && headers.is_none() {
            return Err(Closed::Outdated);
        }
        let flow = Flow {
            policy: Arc::clone(&policy),
            ..self.flow.clone()
        };
        if let Verdict::Deny(rule) = self.broker.judge(&flow, Some(name), false) {
            self.broker.refuse(&flow, Some(name), &rule);
            return Err(Closed::Refused);
        }
        if let Some(headers) = headers {
            match self.fill(&flow, &policy, name, headers).await {
                // Servers that answer it send the request back.
                Ok(filled) if filled.is_secret && request.method() == Method::TRACE => {
                    self.broker.refuse(&flow, Some(name), "TRACE with a secret");
                    let text = "TRACE is not possible here\n";
                    return Ok(answer(StatusCode::METHOD_NOT_ALLOWED, text));
                }
                Ok(filled) => filled.apply(request.headers_mut()),
                Err(refusal) => return Ok(refusal),
            }
        }
        self.forward(&flow, request, &target).await
    }

    /// The headers to set, or the answer that says why there are none.
    async fn fill(
        &self,
        flow: &Flow,
        policy: &EgressPolicy,
        name: &str,
        headers: &std::collections::BTreeMap<String, String>,
    ) -> Result<Filled, Response<Body>> {
        let refused = |why: String| {
            self.broker.refuse(flow, Some(name), &why);
            let text = format!("a header for this host can't be set: {why}\n");
            answer(StatusCode::BAD_GATEWAY, text)
        };
        let Some(identity) = self.broker.gate.identity(flow.peer) else {
            return Err(refused("the sandbox is not known yet".to_owned()));
        };
        let vault = self.broker.vault.as_ref();
        let filled = headers::fill(headers, policy, &identity.sandbox, vault).await;
        filled.map_err(|error| refused(error.to_string()))
    }

    async fn forward(
        &self,
        flow: &Flow,
        mut request: Request<Incoming>,
        target: &Target,
    ) -> Result<Response<Body>, Closed> {
        let upgrade = keep_websocket(&mut request).then(|| hyper::upgrade::on(&mut request));
        let found = self.upstreams.sender(&self.broker, flow, &target.name);
        let mut response = match found.await {
            Err(error) => return Ok(unreachable_host(&error)),
            Ok(Sender::Many(mut sender)) => {
                for_http2(&mut request, target);
                let sent = sender.send_request(request).await;
                return sent
                    .map(|response| response.map(BodyExt::boxed))
                    .map_err(Closed::Upstream);
            }
            Ok(Sender::One(mut sender)) => {
                for_http1(&mut request, target);
                let response = sender.send_request(request).await;
                let response = response.map_err(Closed::Upstream)?;
                if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    self.upstreams.keep(&target.name, sender).await;
                }
                response
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(client) = upgrade
        {
            self.join(client, hyper::upgrade::on(&mut response));
        }
        Ok(response.map(BodyExt::boxed))
    }

    /// Joins the two sides of a WebSocket.
    fn join(&self, client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) {
        self.broker.tasks.spawn_until_stopped(async move {
            let (client, server) = tokio::try_join!(client, server).ok()?;
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            tokio::io::copy_bidirectional(&mut client, &mut server)
                .await
                .ok()
        });
    }
}

/// The host of a request.
#[derive(Debug)]
struct Target {
    /// Its normalised name.
    name: String,
    /// As the request has it.
    authority: Authority,
}

/// The one host that a request names, in its line and its header alike. The request is left
/// without it in its line.
fn target(request: &mut Request<Incoming>) -> Option<Target> {
    if request.method() == Method::CONNECT {
        return None;
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(Authority::try_from(host.as_bytes()).ok()?),
        (None, None) if request.version() == Version::HTTP_2 => None,
        _ => return None,
    };
    let in_line = request.uri().authority().cloned();
    let authority = host.clone().or_else(|| in_line.clone())?;
    let name = host_name(authority.as_str())?;
    for other in [host, in_line].into_iter().flatten() {
        if other.as_str().contains('@') || host_name(other.as_str())? != name {
            return None;
        }
    }
    if request.uri().authority().is_some() {
        let root = || PathAndQuery::from_static("/");
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(root));
    }
    Some(Target { name, authority })
}

/// Puts a request into the form that HTTP/1 servers expect.
fn for_http1(request: &mut Request<Incoming>, target: &Target) {
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    if !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(target.authority.as_str())
    {
        headers.insert(HOST, host);
    }
    join_cookies(headers);
}

/// HTTP/2 spreads cookies over many fields, of which HTTP/1 has one.
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<_> = headers.get_all(COOKIE).iter().cloned().collect();
    if let [_, _, ..] = cookies.as_slice() {
        let parts: Vec<_> = cookies.iter().map(HeaderValue::as_bytes).collect();
        if let Ok(mut joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
            joined.set_sensitive(cookies.iter().any(HeaderValue::is_sensitive));
            headers.insert(COOKIE, joined);
        }
    }
}

/// Puts a request into the form that HTTP/2 has.
fn for_http2(request: &mut Request<Incoming>, target: &Target) {
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(HOST);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(target.authority.clone());
    // With a scheme and an authority there must be a path, which every URI read has.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
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
    answer(StatusCode::BAD_GATEWAY, text)
}

fn answer(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into()).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    response
}
