//! What the proxy asks of the rest of the system.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderMap;
use tokio::net::TcpStream;
use warren_service::{CancellationToken, Secret};
use warren_types::SandboxId;

use crate::access::{ACCESS_TOKEN_HEADER, TRAFFIC_ACCESS_TOKEN_HEADER, token};
use crate::limit::ConnectionLimit;

/// Finds sandboxes, and may resume one that is paused while the request waits.
#[async_trait]
pub trait RouteSource: fmt::Debug + Send + Sync {
    /// The way to sandbox `id`. Cancelled when the client goes away: work that must be
    /// completed, such as a resume, belongs to a task of its own.
    async fn resolve(&self, id: &SandboxId, ask: &Ask<'_>) -> Resolution;
}

/// What a request shows of itself, for the decision whether it may resume a sandbox.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The requested port.
    pub port: u16,
    /// `e2b-traffic-access-token`, if it stands exactly once.
    pub traffic_access_token: Option<&'a str>,
    /// `x-access-token`, if it stands exactly once.
    pub access_token: Option<&'a str>,
}

impl<'a> Ask<'a> {
    /// Takes the facts from a request's headers.
    #[must_use]
    pub fn new(port: u16, headers: &'a HeaderMap) -> Self {
        Self {
            port,
            traffic_access_token: token(headers, TRAFFIC_ACCESS_TOKEN_HEADER).ok(),
            access_token: token(headers, ACCESS_TOKEN_HEADER).ok(),
        }
    }
}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("port", &self.port)
            .field(
                "has_traffic_access_token",
                &self.traffic_access_token.is_some(),
            )
            .field("has_access_token", &self.access_token.is_some())
            .finish()
    }
}

/// What became of the search.
#[derive(Debug, Clone)]
pub enum Resolution {
    /// It runs.
    Route(Arc<Route>),
    /// Unknown, ended, or paused and not to be resumed by traffic.
    NotFound,
    /// It ended in a way that its clients don't expect.
    Ended {
        /// What befell it; continues a sentence such as "it".
        why: String,
    },
    /// It could be resumed, but not with these credentials.
    ResumeDenied,
    /// Its pause or resume takes too long.
    Transitioning,
    /// Resuming it would exceed a quota.
    LimitReached {
        /// What the client is told; empty for the standard text.
        message: String,
    },
    /// It runs, but where it runs can't be reached.
    Unreachable,
}

/// The way to one run of a sandbox. A pause and resume makes a new run with a new route.
#[derive(Debug)]
pub struct Route {
    /// Opens connections into it.
    pub dial: Arc<dyn Dial>,
    /// Cancelled when this run ends: all its connections are reset at once. The source
    /// must stop returning this route before it cancels, because clients that are cut ask
    /// again at once to learn why.
    pub run: CancellationToken,
    /// Header value that ports other than the agent's require.
    pub traffic_access_token: Option<Secret>,
    /// `Host` shown on ports other than the agent's; `${PORT}` stands for the port.
    pub mask_request_host: Option<String>,
    /// Ports whose service speaks TLS.
    pub https_ports: Vec<u16>,
    /// Requests in flight in this run.
    pub connections: Arc<ConnectionLimit>,
}

impl Route {
    /// Makes a public route without limits.
    #[must_use]
    pub fn new(dial: Arc<dyn Dial>, run: CancellationToken) -> Self {
        Self {
            dial,
            run,
            traffic_access_token: None,
            mask_request_host: None,
            https_ports: Vec::new(),
            connections: Arc::default(),
        }
    }
}

/// Opens connections into a sandbox.
pub trait Dial: fmt::Debug + Send + Sync {
    /// Tries once. `ConnectionRefused` means that nothing listens; `NotFound` that the
    /// sandbox is gone.
    fn dial(&self, port: u16) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + '_>>;
}
