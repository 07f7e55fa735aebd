//! All routes in one table.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, get, on, put};
use http::Method;
use tower_http::catch_panic::CatchPanicLayer;
use warren_control::Control;
use warren_service::Secret;

use crate::operations::{Access, Operation, Operations, Trail};
use crate::rate::{RateLimit, Rates};
use crate::trail::Folds;
use crate::{
    admin, auth, builds, cors, events, explain, health, identity, images, keys, limits, list,
    nodes, observe, sandboxes, secrets, snapshots, sshkeys, tags, teams, templates, unimplemented,
    uploads, volumecontent, volumes,
};

/// Settings of the API.
#[derive(Debug, Clone, Default)]
pub struct ApiConfig {
    /// Limits by route, such as `POST /v2/sandboxes`; each team has its own count.
    pub rate_limits: HashMap<String, RateLimit>,
    /// Token of the administrator; without it administration is closed.
    pub admin_token: Option<Secret>,
    /// URL that clients reach the API at, where requests don't show it: without it links
    /// for uploads lead to the host that was asked.
    pub public_url: Option<String>,
    /// Where the server speaks SSH, if it does.
    pub ssh: Option<warren_wire::SshServer>,
}

/// What handlers need.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) control: Arc<Control>,
    pub(crate) operations: Operations,
    pub(crate) rates: Rates,
    pub(crate) folds: Folds,
    pub(crate) admin_token: Option<Secret>,
    pub(crate) public_url: Option<String>,
    /// Whether only the operator can reach it, so that no token is asked for.
    pub(crate) is_local: bool,
    pub(crate) ssh: Option<warren_wire::SshServer>,
}

#[derive(Default)]
pub(crate) struct Table {
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
        let trail = match (&method, access) {
            (&Method::GET, _) | (_, Access::Open) => Trail::Reads,
            _ => Trail::Request,
        };
        self.operations.push(Operation {
            method,
            path,
            is_built,
            access,
            trail,
        });
        self
    }

    /// Changes what is known of the operation that was added last.
    fn last(mut self, change: impl FnOnce(&mut Operation)) -> Self {
        if let Some(operation) = self.operations.last_mut() {
            change(operation);
        }
        self
    }

    /// Of the operation added last: its changes are in the audit trail by themselves.
    fn with_own_trail(self) -> Self {
        self.last(|operation| operation.trail = Trail::Change)
    }

    /// Of the operation added last: it is asked for all the time.
    fn frequent(self) -> Self {
        self.last(|operation| operation.trail = Trail::Frequent)
    }

    /// Of the operation added last: it changes nothing, but what it tells lets one change
    /// things.
    fn tells_secret(self) -> Self {
        self.last(|operation| operation.trail = Trail::Request)
    }

    pub(crate) fn built<H, T>(
        self,
        method: Method,
        path: &'static str,
        access: Access,
        handler: H,
    ) -> Self
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
        .built(GET, "/snapshots", Key, snapshots::list)
        .built(
            POST,
            "/sandboxes/{sandboxID}/snapshots",
            Key,
            snapshots::create,
        )
        .built(POST, "/sandboxes/{sandboxID}/fork", Key, snapshots::fork)
        .built(POST, "/sandboxes/{sandboxID}/pause", Key, sandboxes::pause)
        .built(
            POST,
            "/sandboxes/{sandboxID}/resume",
            Key,
            sandboxes::resume,
        )
        .built(
            POST,
            "/sandboxes/{sandboxID}/timeout",
            Key,
            sandboxes::timeout,
        )
        .frequent()
        .built(
            POST,
            "/sandboxes/{sandboxID}/refreshes",
            Key,
            sandboxes::refresh,
        )
        .frequent()
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
    unimplemented::OPERATIONS.iter().fold(
        team_secrets(administration(keys_of_teams(lifecycle_events(
            volumes_and_content(builds_of_templates(built)),
        )))),
        |table, (method, path, access)| {
            table.add(method.clone(), path, *access, false, unimplemented::answer)
        },
    )
}

/// The routes that make and change templates.
fn builds_of_templates(table: Table) -> Table {
    use Access::{Admin, Key, KeyOrToken, Person};
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PATCH: Method = Method::PATCH;
    const DELETE: Method = Method::DELETE;
    const ONE: &str = "/templates/{templateID}";
    const BUILD: &str = "/templates/{templateID}/builds/{buildID}";
    const BUILD_V2: &str = "/v2/templates/{templateID}/builds/{buildID}";
    const STATUS: &str = "/templates/{templateID}/builds/{buildID}/status";
    const LOGS: &str = "/templates/{templateID}/builds/{buildID}/logs";
    const FILES: &str = "/templates/{templateID}/files/{hash}";
    const TAGS: &str = "/templates/{templateID}/tags";
    const ASSIGNMENTS: &str = "/templates/{templateID}/tags/{tag}/assignments";
    const CANCEL: &str = "/admin/teams/{teamID}/builds/cancel";
    table
        .built(POST, "/v3/templates", Key, builds::request_v3)
        .built(POST, "/v2/templates", Key, builds::request_v2)
        .built(POST, "/templates", Person, builds::retired)
        .built(POST, ONE, Person, builds::retired)
        .built(POST, BUILD, Person, builds::retired)
        .built(POST, BUILD_V2, Key, builds::start)
        .built(GET, STATUS, KeyOrToken, builds::status)
        .built(GET, LOGS, KeyOrToken, builds::logs)
        .built(POST, CANCEL, Admin, builds::cancel_all)
        .built(GET, FILES, KeyOrToken, uploads::files)
        .tells_secret()
        .built(DELETE, ONE, KeyOrToken, templates::delete)
        .built(PATCH, ONE, KeyOrToken, templates::update_v1)
        .built(
            PATCH,
            "/v2/templates/{templateID}",
            KeyOrToken,
            templates::update_v2,
        )
        .built(GET, "/default-templates", Key, templates::defaults)
        .built(POST, "/templates/tags", Key, tags::assign)
        .built(DELETE, "/templates/tags", Key, tags::remove)
        .built(GET, TAGS, Key, tags::list)
        .built(GET, "/templates/{templateID}/tags/count", Key, tags::count)
        .built(
            GET,
            "/templates/{templateID}/tags/exists",
            Key,
            tags::exists,
        )
        .built(
            GET,
            "/templates/{templateID}/tags/groups",
            Key,
            tags::groups,
        )
        .built(GET, ASSIGNMENTS, Key, tags::assignments)
}

/// Volumes and what is in them.
fn volumes_and_content(table: Table) -> Table {
    use Access::{Key, Volume};
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const DELETE: Method = Method::DELETE;
    const ONE: &str = "/volumes/{volumeID}";
    const PATH: &str = "/volumecontent/{volumeID}/path";
    const DIR: &str = "/volumecontent/{volumeID}/dir";
    const FILE: &str = "/volumecontent/{volumeID}/file";
    table
        .built(POST, "/volumes", Key, volumes::create)
        .built(GET, "/volumes", Key, volumes::list)
        .built(GET, ONE, Key, volumes::get)
        .tells_secret()
        .built(DELETE, ONE, Key, volumes::delete)
        .built(GET, PATH, Volume, volumecontent::path)
        .built(Method::PATCH, PATH, Volume, volumecontent::change)
        .built(DELETE, PATH, Volume, volumecontent::remove)
        .built(GET, DIR, Volume, volumecontent::list)
        .built(POST, DIR, Volume, volumecontent::make)
        .built(GET, FILE, Volume, volumecontent::read)
        .built(Method::PUT, FILE, Volume, volumecontent::write)
}

/// What befell sandboxes, and who is told.
fn lifecycle_events(table: Table) -> Table {
    use Access::Key;
    const GET: Method = Method::GET;
    const ALL: &str = "/events/webhooks";
    const ONE: &str = "/events/webhooks/{webhookID}";
    const DELIVERIES: &str = "/events/webhooks/{webhookID}/deliveries";
    table
        .built(GET, "/events/sandboxes", Key, events::list)
        .built(GET, "/events/sandboxes/{sandboxID}", Key, events::list_one)
        .built(Method::POST, ALL, Key, events::webhook_create)
        .built(GET, ALL, Key, events::webhook_list)
        .built(GET, ONE, Key, events::webhook_get)
        .built(Method::PATCH, ONE, Key, events::webhook_update)
        .built(Method::DELETE, ONE, Key, events::webhook_delete)
        .built(GET, DELIVERIES, Key, events::deliveries)
}

/// Keys of the caller's team, and tokens of the caller.
fn keys_of_teams(table: Table) -> Table {
    use Access::{Person, PersonInTeam};
    const KEYS: &str = "/api-keys";
    const KEY: &str = "/api-keys/{apiKeyID}";
    const TOKEN: &str = "/access-tokens/{accessTokenID}";
    table
        .built(Method::GET, KEYS, PersonInTeam, keys::list)
        .built(Method::POST, KEYS, PersonInTeam, keys::create)
        .with_own_trail()
        .built(Method::PATCH, KEY, PersonInTeam, keys::rename)
        .with_own_trail()
        .built(Method::DELETE, KEY, PersonInTeam, keys::delete)
        .with_own_trail()
        .built(Method::POST, "/access-tokens", Person, keys::token_create)
        .with_own_trail()
        .built(Method::DELETE, TOKEN, Person, keys::token_delete)
        .with_own_trail()
}

/// What the administrator does in the API that clients know.
fn administration(table: Table) -> Table {
    use Access::Admin;
    const NODE: &str = "/nodes/{nodeID}";
    const KILL: &str = "/admin/teams/{teamID}/sandboxes/kill";
    const COUNTS: &str = "/admin/sandboxes/running-counts";
    const KEYS: &str = "/admin/teams/{teamID}/api-keys";
    const KEY: &str = "/admin/teams/{teamID}/api-keys/{apiKeyID}";
    table
        .built(Method::GET, "/nodes", Admin, nodes::list)
        .built(Method::GET, NODE, Admin, nodes::get)
        .built(Method::POST, NODE, Admin, nodes::set_status)
        .built(Method::POST, KILL, Admin, admin::kill_all)
        .built(Method::GET, COUNTS, Admin, admin::running_counts)
        .built(Method::POST, KEYS, Admin, admin::key_create)
        .with_own_trail()
        .built(Method::DELETE, KEY, Admin, admin::key_delete)
        .with_own_trail()
}

/// What the operator has beyond that.
fn operation_of_the_server(table: Table) -> Table {
    use Access::Admin;
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const DELETE: Method = Method::DELETE;
    const TEAMS: &str = "/admin/teams";
    const TEAM: &str = "/admin/teams/{teamID}";
    const KEYS: &str = "/admin/teams/{teamID}/api-keys";
    const KEY: &str = "/admin/teams/{teamID}/api-keys/{apiKeyID}";
    const MEMBERS: &str = "/admin/teams/{teamID}/members";
    const MEMBER: &str = "/admin/teams/{teamID}/members/{userID}";
    const USERS: &str = "/admin/users";
    const USER: &str = "/admin/users/{userID}";
    const TOKENS: &str = "/admin/users/{userID}/access-tokens";
    const TOKEN: &str = "/admin/users/{userID}/access-tokens/{accessTokenID}";
    limits_of_others(table)
        .built(GET, TEAMS, Admin, admin::teams)
        .built(POST, TEAMS, Admin, admin::team_create)
        .with_own_trail()
        .built(GET, TEAM, Admin, admin::team_get)
        .built(Method::PATCH, TEAM, Admin, admin::team_update)
        .with_own_trail()
        .built(DELETE, TEAM, Admin, admin::team_delete)
        .with_own_trail()
        .built(GET, KEYS, Admin, admin::keys)
        .built(Method::PATCH, KEY, Admin, admin::key_rename)
        .with_own_trail()
        .built(GET, MEMBERS, Admin, admin::members)
        .built(Method::PUT, MEMBER, Admin, admin::member_set)
        .with_own_trail()
        .built(DELETE, MEMBER, Admin, admin::member_remove)
        .with_own_trail()
        .built(GET, USERS, Admin, admin::users)
        .built(POST, USERS, Admin, admin::user_create)
        .with_own_trail()
        .built(DELETE, USER, Admin, admin::user_delete)
        .with_own_trail()
        .built(GET, TOKENS, Admin, admin::tokens)
        .built(POST, TOKENS, Admin, admin::token_create)
        .with_own_trail()
        .built(DELETE, TOKEN, Admin, admin::token_delete)
        .with_own_trail()
        .built(GET, "/admin/audit", Admin, admin::audit)
        .built(GET, "/admin/explain/{id}", Admin, explain::any)
}

/// What teams and their keys may have.
fn limits_of_others(table: Table) -> Table {
    use Access::Admin;
    const TEAM: &str = "/admin/teams/{teamID}/limits";
    const KEY: &str = "/admin/teams/{teamID}/api-keys/{apiKeyID}/limits";
    table
        .built(Method::GET, TEAM, Admin, limits::team)
        .built(Method::PUT, TEAM, Admin, limits::set_team)
        .with_own_trail()
        .built(Method::GET, KEY, Admin, limits::key)
        .built(Method::PUT, KEY, Admin, limits::set_key)
        .with_own_trail()
}

/// Secrets, whose values are never told.
fn team_secrets(table: Table) -> Table {
    use Access::Key;
    use secrets::ALL;
    const ONE: &str = "/secrets/{secretID}";
    table
        .built(Method::GET, ALL, Key, secrets::list)
        .built(Method::POST, ALL, Key, secrets::create)
        .built(Method::GET, ONE, Key, secrets::get)
        .built(Method::POST, ONE, Key, secrets::update)
        .built(Method::DELETE, ONE, Key, secrets::delete)
}

/// Every operation that has a route.
#[must_use]
pub fn operations() -> Vec<Operation> {
    table().operations
}

/// What this server has beyond the API that clients know.
fn of_our_own(table: Table) -> Table {
    const IMAGE: &str = "/templates/{templateID}/image";
    let table = table
        .built(Method::GET, IMAGE, Access::KeyOrToken, images::export)
        .built(Method::GET, "/limits", Access::Key, limits::mine)
        .built(Method::GET, "/explain", Access::Key, explain::refusals)
        .built(Method::GET, "/explain/{id}", Access::Key, explain::one);
    operation_of_the_server(sshkeys::routes(table))
}

/// Every operation beyond the API that clients know.
#[must_use]
pub fn own_operations() -> Vec<Operation> {
    of_our_own(Table::default()).operations
}

/// Makes the service. Every answer to it is JSON, but for health, files and images.
pub fn router(control: Arc<Control>, config: ApiConfig) -> Router {
    serve(of_our_own(table()), control, config, false)
}

/// Makes the service of the operator's commands on the server's own machine: the
/// administrator's operations, without a token. Let nobody else reach it.
pub fn local_router(control: Arc<Control>) -> Router {
    let table = operation_of_the_server(administration(Table::default()));
    serve(table, control, ApiConfig::default(), true)
}

/// Makes the service that tells what is counted, in the text form of Prometheus. It asks for
/// no credential.
pub fn meters_router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/metrics", on(MethodFilter::GET, health::meters))
        .with_state(control)
}

fn serve(table: Table, control: Arc<Control>, config: ApiConfig, is_local: bool) -> Router {
    let Table { router, operations } = table;
    let app = Arc::new(App {
        control,
        operations: Operations::new(operations),
        rates: Rates::new(config.rate_limits),
        folds: Folds::default(),
        admin_token: config.admin_token,
        public_url: config.public_url,
        is_local,
        ssh: config.ssh,
    });
    let router = if is_local {
        router
    } else {
        // Not of the API: clients get there by links of ours, which carry their own proof.
        router
            .route(uploads::PATH, put(uploads::upload))
            .route(identity::CONFIGURATION, get(identity::configuration))
            .route(identity::KEYS, get(identity::keys))
    };
    router
        .route_layer(from_fn_with_state(Arc::clone(&app), auth::guard))
        .fallback(auth::no_route)
        .method_not_allowed_fallback(auth::wrong_method)
        .layer(CatchPanicLayer::custom(auth::panicked))
        .layer(cors::layer())
        .with_state(app)
}
