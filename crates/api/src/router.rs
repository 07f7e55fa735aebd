//! All routes in one table.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, on};
use http::Method;
use tower_http::catch_panic::CatchPanicLayer;
use warren_control::Control;
use warren_service::Secret;

use crate::operations::{Access, Operation, Operations};
use crate::rate::{RateLimit, Rates};
use crate::{auth, cors, health, list, observe, sandboxes, teams, templates, unimplemented};

/// Settings of the API.
#[derive(Debug, Clone, Default)]
pub struct ApiConfig {
    /// Limits by route, such as `POST /v2/sandboxes`; each team has its own count.
    pub rate_limits: HashMap<String, RateLimit>,
    /// Token of the administrator; without it administration is closed.
    pub admin_token: Option<Secret>,
}

/// What handlers need.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) control: Arc<Control>,
    pub(crate) operations: Operations,
    pub(crate) rates: Rates,
    pub(crate) admin_token: Option<Secret>,
}

#[derive(Default)]
struct Table {
    router: Router<Arc<App>>,
    operations: Vec<Operation>,
}

impl Table {
    fn add<H, T>(
        mut self,
        method: Method,
        path: &'static str,
        access: Access,
        is_built: bool,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("a standard method");
        self.router = self.router.route(path, on(filter, handler));
        self.operations.push(Operation {
            method,
            path,
            is_built,
            access,
        });
        self
    }

    fn built<H, T>(self, method: Method, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        self.add(method, path, access, true, handler)
    }
}

fn table() -> Table {
    use Access::{Key, KeyOrToken, Open, Person};
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    let built = Table::default()
        .built(GET, "/health", Open, health::health)
        .built(POST, "/sandboxes", Key, sandboxes::create_v1)
        .built(POST, "/v2/sandboxes", Key, sandboxes::create_v2)
        .built(GET, "/sandboxes", Key, list::list_v1)
        .built(GET, "/v2/sandboxes", Key, list::list_v2)
        .built(GET, "/sandboxes/metrics", Key, observe::metrics_latest)
        .built(GET, "/sandboxes/{sandboxID}", Key, sandboxes::get)
        .built(
            Method::DELETE,
            "/sandboxes/{sandboxID}",
            Key,
            sandboxes::kill,
        )
        .built(
            POST,
            "/sandboxes/{sandboxID}/connect",
            Key,
            sandboxes::connect_v1,
        )
        .built(
            POST,
            "/v2/sandboxes/{sandboxID}/connect",
            Key,
            sandboxes::connect_v2,
        )
        .built(
            POST,
            "/sandboxes/{sandboxID}/timeout",
            Key,
            sandboxes::timeout,
        )
        .built(
            POST,
            "/sandboxes/{sandboxID}/refreshes",
            Key,
            sandboxes::refresh,
        )
        .built(
            Method::PUT,
            "/sandboxes/{sandboxID}/network",
            Key,
            sandboxes::network,
        )
        .built(GET, "/sandboxes/{sandboxID}/metrics", Key, observe::metrics)
        .built(GET, "/sandboxes/{sandboxID}/logs", Key, observe::logs_v1)
        .built(GET, "/v2/sandboxes/{sandboxID}/logs", Key, observe::logs_v2)
        .built(GET, "/teams", Person, teams::list)
        .built(GET, "/teams/{teamID}/metrics", Key, observe::team_metrics)
        .built(GET, "/teams/{teamID}/metrics/max", Key, observe::team_peak)
        .built(GET, "/templates", KeyOrToken, templates::list_v1)
        .built(GET, "/v2/templates", KeyOrToken, templates::list_v2)
        .built(GET, "/templates/{templateID}", Key, templates::get)
        .built(GET, "/templates/aliases/{alias}", Key, templates::alias);
    unimplemented::OPERATIONS
        .iter()
        .fold(built, |table, (method, path, access)| {
            table.add(method.clone(), path, *access, false, unimplemented::answer)
        })
}

/// Every operation that has a route.
#[must_use]
pub fn operations() -> Vec<Operation> {
    table().operations
}

/// Makes the service. Every answer to it but that of `GET /health` is JSON.
pub fn router(control: Arc<Control>, config: ApiConfig) -> Router {
    let Table { router, operations } = table();
    let app = Arc::new(App {
        control,
        operations: Operations::new(operations),
        rates: Rates::new(config.rate_limits),
        admin_token: config.admin_token,
    });
    router
        .route_layer(from_fn_with_state(Arc::clone(&app), auth::guard))
        .fallback(auth::no_route)
        .method_not_allowed_fallback(auth::wrong_method)
        .layer(CatchPanicLayer::custom(auth::panicked))
        .layer(cors::layer())
        .with_state(app)
}
