//! Every route with who may ask for it. What the table says is enforced for all of them
//! alike, and tests go by it, so that none can be forgotten.

use std::sync::Arc;

use axum::extract::Extension;
use axum::handler::Handler;
use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};
use http::Method;

use crate::App;
use crate::{
    access_tokens, actions, assets, audit, ended, events, login, members, pages, sandbox, secrets,
    server, ssh_keys, team, templates, trail, usage, visitor, volume_files, volumes,
};

/// Who may ask for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody: it tells nothing of a team, or asks for a credential itself.
    Open,
    /// Whoever is signed in, for a page.
    Page,
    /// Whoever is signed in, for what pages are filled with.
    Part,
    /// Whoever is signed in, by a form of the session: a change of nothing but their own.
    Own,
    /// Whoever is signed in and may change things, by a form of the session.
    Change,
    /// As [`Access::Change`], for deletions, which blocked teams may do too.
    Deletion,
    /// The administrator, by a form of the session.
    Operate,
}

/// A path with its method and who may ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `GET` or `POST`.
    pub method: Method,
    /// The path, with parameters in braces.
    pub path: String,
    /// Who may ask for it.
    pub access: Access,
}

/// Lists every route of the pages.
pub fn routes() -> Vec<Route> {
    table().routes
}

/// All routes, without what is around them.
pub(crate) fn table() -> Table {
    let table = Table::default().get("/", Access::Open, pages::root).get(
        "/dashboard/assets/{name}",
        Access::Open,
        assets::get,
    );
    team_routes(kept_routes(sandbox_routes(sign_in_routes(table))))
}

/// Routes that are being put together.
#[derive(Default)]
pub(crate) struct Table {
    router: Router<Arc<App>>,
    routes: Vec<Route>,
}

impl Table {
    /// The router with what every request passes through.
    pub(crate) fn router(self, app: Arc<App>) -> Router {
        self.router
            .layer(middleware::from_fn_with_state(
                Arc::clone(&app),
                trail::write,
            ))
            .layer(middleware::from_fn_with_state(
                Arc::clone(&app),
                visitor::frame_errors,
            ))
            .layer(middleware::from_fn(trail::guard_origin))
            .layer(middleware::from_fn(assets::harden))
            .with_state(app)
    }

    fn add(
        mut self,
        method: Method,
        path: &str,
        access: Access,
        routed: MethodRouter<Arc<App>>,
    ) -> Self {
        let routed = routed.route_layer(Extension(access));
        self.router = self.router.route(path, routed);
        self.routes.push(Route {
            method,
            path: path.to_owned(),
            access,
        });
        self
    }

    fn get<H, T>(self, path: &str, access: Access, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        self.add(Method::GET, path, access, get(handler))
    }

    fn post<H, T>(self, path: &str, access: Access, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        self.add(Method::POST, path, access, post(handler))
    }
}

/// Coming and going.
fn sign_in_routes(table: Table) -> Table {
    const SIGN_IN: &str = "/dashboard/sign-in";
    table
        .get(SIGN_IN, Access::Open, login::sign_in)
        .post(SIGN_IN, Access::Open, login::signed_in)
        .post("/dashboard/sign-out", Access::Open, login::sign_out)
        .post("/dashboard/switch", Access::Own, login::switch)
        .get("/api/cli", Access::Open, login::program_entry)
        // Its last page is shown to anybody; the question is not.
        .get("/dashboard/cli", Access::Page, login::program)
        .post("/dashboard/cli", Access::Own, login::program_decided)
        .post("/dashboard/oauth/token", Access::Open, login::token)
        .post("/dashboard/oauth/revoke", Access::Open, login::revoke)
}

/// Sandboxes.
fn sandbox_routes(table: Table) -> Table {
    const ONE: &str = "/dashboard/sandboxes/{id}";
    let below = |part: &str| format!("{ONE}/{part}");
    table
        .get("/dashboard", Access::Page, pages::sandboxes)
        .post("/dashboard/sandboxes", Access::Change, pages::create)
        .get(ONE, Access::Page, sandbox::page)
        .get(&below("ended"), Access::Page, ended::page)
        .get(&below("facts"), Access::Part, sandbox::facts)
        .get(&below("metrics"), Access::Part, sandbox::metrics)
        .get(&below("logs"), Access::Part, sandbox::logs)
        .get(&below("events"), Access::Part, sandbox::events)
        .post(&below("kill"), Access::Deletion, actions::kill)
        .post(&below("extend"), Access::Change, actions::extend)
        .post(&below("pause"), Access::Change, actions::pause)
        .post(&below("resume"), Access::Change, actions::resume)
        .post(&below("snapshot"), Access::Change, actions::snapshot)
        .post(&below("fork"), Access::Change, actions::fork)
}

/// What outlives sandboxes: templates, snapshots, volumes, secrets.
fn kept_routes(table: Table) -> Table {
    use Access::{Change, Deletion, Page};
    const TEMPLATE: &str = "/dashboard/templates/{id}";
    const SNAPSHOTS: &str = "/dashboard/snapshots";
    const VOLUMES: &str = "/dashboard/volumes";
    const SECRETS: &str = "/dashboard/secrets";
    let template = |part: &str| format!("{TEMPLATE}/{part}");
    let volume = |part: &str| format!("{VOLUMES}/{{id}}{part}");
    table
        .get("/dashboard/templates", Page, templates::list)
        .get(TEMPLATE, Page, templates::page)
        .post(&template("publish"), Change, templates::publish)
        .post(&template("delete"), Deletion, templates::delete)
        .get(&template("builds/{build}"), Page, templates::build_page)
        .get(SNAPSHOTS, Page, templates::snapshots)
        .post(
            &format!("{SNAPSHOTS}/delete"),
            Deletion,
            templates::snapshot_delete,
        )
        .get(VOLUMES, Page, volumes::list)
        .post(VOLUMES, Change, volumes::create)
        .get(&volume(""), Page, volume_files::browse)
        .get(&volume("/file"), Page, volume_files::preview)
        .get(&volume("/download"), Page, volume_files::download)
        .post(&volume("/upload"), Change, volume_files::upload)
        .post(&volume("/folder"), Change, volume_files::make_folder)
        .post(&volume("/remove"), Deletion, volume_files::remove)
        .post(&volume("/delete"), Deletion, volumes::delete)
        .get(SECRETS, Page, secrets::list)
        .post(SECRETS, Change, secrets::create)
        .post(&format!("{SECRETS}/replace"), Change, secrets::replace)
        .post(&format!("{SECRETS}/delete"), Deletion, secrets::delete)
}

/// What concerns the team as a whole, and the server.
fn team_routes(table: Table) -> Table {
    use Access::{Change, Deletion, Operate, Page};
    const WEBHOOKS: &str = "/dashboard/webhooks";
    const KEYS: &str = "/dashboard/keys";
    const SSH: &str = "/dashboard/ssh-keys";
    const TOKENS: &str = "/dashboard/tokens";
    const TEAMS: &str = "/dashboard/server/teams";
    const MEMBERS: &str = "/dashboard/team/members";
    let webhook = |part: &str| format!("{WEBHOOKS}/{{id}}{part}");
    table
        .get("/dashboard/events", Page, events::list)
        .get(WEBHOOKS, Page, events::webhooks)
        .post(WEBHOOKS, Change, events::create)
        .get(&webhook(""), Page, events::webhook)
        .post(&webhook("/switch"), Change, events::switch)
        .post(&webhook("/delete"), Deletion, events::delete)
        .get("/dashboard/usage", Page, usage::usage)
        .get("/dashboard/audit", Page, audit::list)
        .get("/dashboard/team", Page, team::team)
        .post(KEYS, Change, team::key_create)
        .post(&format!("{KEYS}/{{id}}/rename"), Change, team::key_rename)
        .post(&format!("{KEYS}/{{id}}/delete"), Deletion, team::key_delete)
        .get(SSH, Page, ssh_keys::list)
        .post(SSH, Change, ssh_keys::add)
        .post(&format!("{SSH}/{{id}}/delete"), Deletion, ssh_keys::delete)
        .get(TOKENS, Page, access_tokens::list)
        .post(TOKENS, Change, access_tokens::create)
        .post(
            &format!("{TOKENS}/{{id}}/delete"),
            Deletion,
            access_tokens::delete,
        )
        .post(MEMBERS, Operate, members::set)
        .post(
            &format!("{MEMBERS}/{{id}}/remove"),
            Operate,
            members::remove,
        )
        .get("/dashboard/server", Page, server::server)
        .post(TEAMS, Operate, server::team_create)
        .post(&format!("{TEAMS}/{{id}}"), Operate, server::team_change)
        .post(
            &format!("{TEAMS}/{{id}}/delete"),
            Operate,
            server::team_delete,
        )
}
