//! Joins the edge with the node: where the proxy finds sandboxes, and which of the two
//! edges (API or proxy) a request on the shared port belongs to.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::net::TcpStream;
use warren_control::{Control, Wake, WakeAsk};
use warren_node::{Node, RouteFacts};
use warren_proxy::{Ask, ConnectionLimit, Dial, Resolution, Route, RouteSource};
use warren_runtime::Runtime;
use warren_service::Secret;
use warren_types::{SandboxId, SandboxState};

/// How often one request may wake a sandbox.
const MAX_WAKES: u32 = 3;

/// The sandboxes of the node in this process.
#[derive(Debug)]
pub(crate) struct LocalRoutes<R: Runtime> {
    node: Arc<Node<R>>,
    control: Arc<Control>,
    /// Requests to one sandbox in flight at a time.
    max_connections: Option<u32>,
    /// One route per run, so that its requests are counted together.
    routes: Mutex<HashMap<SandboxId, Arc<Route>>>,
}

impl<R: Runtime> LocalRoutes<R> {
    /// `max_connections` is how many requests to a sandbox may be in flight at a time.
    pub(crate) fn new(
        node: Arc<Node<R>>,
        control: Arc<Control>,
        max_connections: Option<u32>,
    ) -> Self {
        Self {
            node,
            control,
            max_connections,
            routes: Mutex::default(),
        }
    }

    /// The answer for what is not here.
    fn gone(&self, id: &SandboxId) -> Resolution {
        match self.control.recent_end(id) {
            Some(end) => Resolution::Ended { why: end.explain() },
            None => Resolution::NotFound,
        }
    }

    fn route(&self, id: &SandboxId, facts: RouteFacts) -> Arc<Route> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.get(id).filter(|route| !route.run.is_cancelled()) {
            return Arc::clone(route);
        }
        routes.retain(|_, route| !route.run.is_cancelled());
        let mut route = Route::new(Arc::new(LocalDial(facts.dial)), facts.run);
        route.traffic_access_token = facts.network.traffic_access_token.clone().map(Secret::new);
        route.mask_request_host = facts.network.mask_request_host.clone();
        route.https_ports = facts.network.https_ports.clone();
        route.connections = Arc::new(ConnectionLimit::new(self.max_connections));
        let route = Arc::new(route);
        routes.insert(id.clone(), Arc::clone(&route));
        route
    }
}

#[async_trait]
impl<R: Runtime> RouteSource for LocalRoutes<R> {
    async fn resolve(&self, id: &SandboxId, ask: &Ask<'_>) -> Resolution {
        // Held requests whose sandbox pauses again at once give up in the end.
        for _ in 0..MAX_WAKES {
            if let Some(facts) = self.node.route(id) {
                return Resolution::Route(self.route(id, facts));
            }
            // Only of what is here and paused the database is asked.
            let Some(view) = self.node.view(id) else {
                return self.gone(id);
            };
            if matches!(view.state, SandboxState::Ending | SandboxState::Ended) {
                return self.gone(id);
            }
            let shown = WakeAsk {
                port: ask.port,
                access_token: ask.access_token,
                traffic_token: ask.traffic_access_token,
            };
            match self.control.wake(id, shown).await {
                Wake::Running => {}
                Wake::NotFound => return Resolution::NotFound,
                Wake::Denied => return Resolution::ResumeDenied,
                Wake::Transitioning => return Resolution::Transitioning,
                Wake::Limit { message } => return Resolution::LimitReached { message },
            }
        }
        Resolution::Transitioning
    }
}

/// The runtime's way into a sandbox, as the proxy wants it.
#[derive(Debug)]
struct LocalDial(Arc<dyn warren_runtime::Dial>);

impl Dial for LocalDial {
    fn dial(&self, port: u16) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + '_>> {
        self.0.dial(port)
    }
}
