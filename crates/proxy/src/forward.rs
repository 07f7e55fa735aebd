//! The proxy itself: from a request to the guest's response or a refusal.

use std::sync::Arc;
use std::time::Duration;

use http::header::EXPECT;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tracing::debug;
use warren_service::{CancellationToken, Chain, Tasks};
use warren_types::ENVD_PORT;

use crate::access::{TokenError, check_traffic_token};
use crate::body::ProxyBody;
use crate::dial::{ConnectError, connect};
use crate::exchange::{self, Permits, Started};
use crate::head::{GuestHost, to_client, to_guest, wanted_upgrade};
use crate::internal::reserved_route;
use crate::limit::ConnectionLimit;
use crate::refusal::{Asker, Refusal};
use crate::source::{Ask, Resolution, Route, RouteSource};
use crate::stream::guest_tls;
use crate::target::{Target, TargetError, parse_target, request_host};
use crate::tunnel::{Upgrade, tunnel};
use crate::unread::discard;

/// How long tunnels get to end after they were cut.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// Settings of the proxy.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// Most connections to all guests together; more are refused with 502.
    pub max_connections: u32,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
        }
    }
}

/// Forwards requests to ports inside sandboxes. Clones share everything.
#[derive(Debug, Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    source: Arc<dyn RouteSource>,
    tls: Arc<rustls::ClientConfig>,
    connections: Arc<ConnectionLimit>,
    tasks: Tasks,
    cut: CancellationToken,
}

/// Where a request may go.
struct Admitted {
    host: String,
    target: Target,
    route: Arc<Route>,
    permits: Permits,
}

impl Proxy {
    /// Makes a proxy that asks `source` where sandboxes are.
    ///
    /// # Panics
    /// Never: the TLS settings are constants.
    #[must_use]
    pub fn new(source: Arc<dyn RouteSource>, config: ProxyConfig) -> Self {
        let inner = Inner {
            source,
            tls: guest_tls().expect("the provider has the default protocol versions"),
            connections: Arc::new(ConnectionLimit::new(Some(config.max_connections))),
            tasks: Tasks::new(),
            cut: CancellationToken::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Waits for tunnels to end, at most `limit`, then cuts the rest and returns how many
    /// there were. For the end of the program, together with the listener's own drain.
    pub async fn drain(&self, limit: Duration) -> usize {
        let left = self.inner.tasks.stop(limit).await;
        self.inner.cut.cancel();
        self.inner.tasks.stop(CUT_GRACE).await;
        left
    }

    /// Serves one request: the guest's response, or a refusal of the proxy's own. Dropping
    /// the future or the response's body closes the connection to the guest.
    pub async fn serve_request(&self, request: Request<Incoming>) -> Response<ProxyBody> {
        let asker = Asker::of(request.method(), request.headers());
        match self.inner.serve(request).await {
            Ok(response) => response,
            Err(refusal) => refusal.respond(&asker),
        }
    }
}

impl Inner {
    async fn serve(&self, request: Request<Incoming>) -> Result<Response<ProxyBody>, Refusal> {
        let admitted = match self.admit(&request).await {
            Ok(admitted) => admitted,
            Err(refusal) => {
                // A client that is still writing when the connection closes gets an error in
                // place of the refusal. Who waits to be asked for the body is not writing.
                if !request.headers().contains_key(EXPECT) {
                    discard(request.into_body()).await;
                }
                return Err(refusal);
            }
        };
        let Admitted {
            host,
            target,
            route,
            permits,
        } = admitted;
        tokio::select! {
            biased;
            () = route.run.cancelled() => Err(Refusal::NotFound { id: target.id.clone() }),
            result = self.forward(request, &host, &target, &route, permits) => result,
        }
    }

    /// Decides whether and where a request may go.
    async fn admit<B>(&self, request: &Request<B>) -> Result<Admitted, Refusal> {
        if request.method() == Method::CONNECT {
            return Err(Refusal::Method);
        }
        let host = request_host(request).ok_or(Refusal::Malformed(TargetError::InvalidHost))?;
        let host = host.to_owned();
        let target = parse_target(&host, request.headers()).map_err(Refusal::Malformed)?;
        if target.port == ENVD_PORT
            && let Some(path) = reserved_route(request.uri().path())
        {
            return Err(Refusal::Reserved { path });
        }
        let route = self.resolve(&target, request).await?;
        let id = &target.id;
        let token = route.traffic_access_token.as_ref();
        match check_traffic_token(token, target.port, request.headers()) {
            Ok(()) => {}
            Err(TokenError::Missing) => return Err(Refusal::TokenMissing { id: id.clone() }),
            Err(TokenError::Invalid) => return Err(Refusal::TokenInvalid { id: id.clone() }),
        }
        let permits = self.permits(&target, &route)?;
        Ok(Admitted {
            host,
            target,
            route,
            permits,
        })
    }

    async fn resolve<B>(
        &self,
        target: &Target,
        request: &Request<B>,
    ) -> Result<Arc<Route>, Refusal> {
        let ask = Ask::new(target.port, request.headers());
        let id = target.id.clone();
        match self.source.resolve(&target.id, &ask).await {
            Resolution::Route(route) => Ok(route),
            Resolution::NotFound => Err(Refusal::NotFound { id }),
            Resolution::Ended { why } => Err(Refusal::Ended { id, why }),
            Resolution::ResumeDenied => Err(Refusal::ResumeDenied { id }),
            Resolution::Transitioning => Err(Refusal::Transitioning { id }),
            Resolution::LimitReached { message } => Err(Refusal::LimitReached { id, message }),
            Resolution::Unreachable => Err(Refusal::Unroutable),
        }
    }

    fn permits(&self, target: &Target, route: &Route) -> Result<Permits, Refusal> {
        let sandbox = route
            .connections
            .acquire()
            .map_err(|limit| Refusal::TooManyConnections {
                id: target.id.clone(),
                limit,
            })?;
        let proxy = self
            .connections
            .acquire()
            .map_err(|_| Refusal::Unroutable)?;
        Ok(Permits::new(sandbox, proxy))
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        host: &str,
        target: &Target,
        route: &Route,
        permits: Permits,
    ) -> Result<Response<ProxyBody>, Refusal> {
        let guest_host = GuestHost::new(host, target, route.mask_request_host.as_deref());
        let upgrade = wanted_upgrade(&request, target.port).map(|protocol| Upgrade {
            protocol,
            client: hyper::upgrade::on(&mut request),
        });
        let request = to_guest(request, &guest_host, upgrade.as_ref().map(|u| &u.protocol))
            .map_err(|_| Refusal::Unexpected {
                what: "masked host is not valid",
            })?;

        let secured = target.port != ENVD_PORT && route.https_ports.contains(&target.port);
        let tls = secured.then_some((&self.tls, guest_host.host.as_str()));
        let stream = connect(route.dial.as_ref(), target.port, tls)
            .await
            .map_err(|error| refused_connection(&error, host, target))?;
        let started = exchange::start(stream, request, permits)
            .await
            .map_err(|error| {
                debug!(sandbox_id = %target.id, error = %Chain(&error), "guest gave no response");
                Refusal::Unroutable
            })?;
        if started.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(started, upgrade, route);
        }
        let (mut head, exchange) = started.into_exchange(&route.run, &self.tasks);
        let body = match exchange {
            Some(exchange) => ProxyBody::guest(exchange),
            None => ProxyBody::empty(),
        };
        to_client(&mut head, None);
        Ok(Response::from_parts(head, body))
    }

    /// Passes a 101 on and joins both connections behind it.
    fn switch(
        &self,
        mut started: Started,
        upgrade: Option<Upgrade>,
        route: &Route,
    ) -> Result<Response<ProxyBody>, Refusal> {
        let Some(upgrade) = upgrade else {
            return Err(Refusal::Unroutable);
        };
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = StatusCode::SWITCHING_PROTOCOLS;
        head.headers = std::mem::take(started.response.headers_mut());
        let protocol = head
            .headers
            .get(http::header::UPGRADE)
            .unwrap_or(&upgrade.protocol)
            .clone();
        to_client(&mut head, Some(&protocol));
        let run = route.run.clone();
        self.tasks
            .spawn(tunnel(upgrade.client, started, run, self.cut.clone()));
        Ok(Response::from_parts(head, ProxyBody::empty()))
    }
}

fn refused_connection(error: &ConnectError, host: &str, target: &Target) -> Refusal {
    debug!(sandbox_id = %target.id, port = target.port, error = %Chain(error), "no connection");
    let id = target.id.clone();
    match error {
        ConnectError::Gone => Refusal::NotFound { id },
        ConnectError::Closed { .. } | ConnectError::TimedOut { .. } => Refusal::PortClosed {
            id,
            port: target.port,
            host: host.to_owned(),
        },
        ConnectError::Tls { .. } => Refusal::Unroutable,
    }
}
