//! The web pages of the server: what a team's sandboxes and templates are and do, and the
//! few things one does to them by hand.
//!
//! Pages are rendered here and work as plain HTML; a small script refreshes their parts.
//! They stand on the same use cases as the REST API. Terminals and files are the business of
//! the browser and the sandbox's own agent: the page of a sandbox knows the agent's token,
//! the server's pages never see what is typed.

mod actions;
mod assets;
mod error;
mod events;
mod login;
mod pages;
mod sandbox;
mod secrets;
mod server;
mod session;
mod team;
mod templates;
mod usage;
mod view;
mod volumes;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};
use warren_control::Control;

use session::Sessions;

/// What handlers need.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) control: Arc<Control>,
    pub(crate) sessions: Sessions,
}

/// Makes the pages. All are below `/dashboard`; `/` leads there.
pub fn router(control: Arc<Control>) -> Router {
    let app = Arc::new(App {
        control,
        sessions: Sessions::default(),
    });
    Router::new()
        .route("/", get(pages::root))
        .route("/dashboard/assets/{name}", get(assets::get))
        .merge(sandbox_routes())
        .merge(kept_routes())
        .merge(team_routes())
        .route(
            "/dashboard/sign-in",
            get(login::sign_in).post(login::signed_in),
        )
        .route("/dashboard/sign-out", post(login::sign_out))
        .route("/api/cli", get(login::program_entry))
        .route(
            "/dashboard/cli",
            get(login::program).post(login::program_decided),
        )
        .route("/dashboard/oauth/token", post(login::token))
        .route("/dashboard/oauth/revoke", post(login::revoke))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            session::trail,
        ))
        .layer(middleware::from_fn(session::guard_origin))
        .layer(middleware::from_fn(assets::harden))
        .with_state(app)
}

/// Sandboxes.
fn sandbox_routes() -> Router<Arc<App>> {
    const ONE: &str = "/dashboard/sandboxes/{id}";
    let below = |part: &str| format!("{ONE}/{part}");
    Router::new()
        .route("/dashboard", get(pages::sandboxes))
        .route("/dashboard/sandboxes", post(pages::create))
        .route(ONE, get(sandbox::page))
        .route(&below("facts"), get(sandbox::facts))
        .route(&below("metrics"), get(sandbox::metrics))
        .route(&below("logs"), get(sandbox::logs))
        .route(&below("events"), get(sandbox::events))
        .route(&below("kill"), post(actions::kill))
        .route(&below("extend"), post(actions::extend))
        .route(&below("pause"), post(actions::pause))
        .route(&below("resume"), post(actions::resume))
        .route(&below("snapshot"), post(actions::snapshot))
        .route(&below("fork"), post(actions::fork))
}

/// What outlives sandboxes: templates, snapshots, volumes.
fn kept_routes() -> Router<Arc<App>> {
    const TEMPLATE: &str = "/dashboard/templates/{id}";
    const VOLUME: &str = "/dashboard/volumes/{id}";
    Router::new()
        .route("/dashboard/templates", get(templates::list))
        .route(TEMPLATE, get(templates::page))
        .route(&format!("{TEMPLATE}/publish"), post(templates::publish))
        .route(&format!("{TEMPLATE}/delete"), post(templates::delete))
        .route(
            &format!("{TEMPLATE}/builds/{{build}}"),
            get(templates::build_page),
        )
        .route("/dashboard/snapshots", get(templates::snapshots))
        .route(
            "/dashboard/snapshots/delete",
            post(templates::snapshot_delete),
        )
        .route(
            "/dashboard/volumes",
            get(volumes::list).post(volumes::create),
        )
        .route(VOLUME, get(volumes::browse))
        .route(&format!("{VOLUME}/file"), get(volumes::preview))
        .route(&format!("{VOLUME}/download"), get(volumes::download))
        .route(&format!("{VOLUME}/delete"), post(volumes::delete))
}

/// What concerns the team as a whole.
fn team_routes() -> Router<Arc<App>> {
    const WEBHOOK: &str = "/dashboard/webhooks/{id}";
    Router::new()
        .route("/dashboard/events", get(events::list))
        .route(
            "/dashboard/webhooks",
            get(events::webhooks).post(events::create),
        )
        .route(WEBHOOK, get(events::webhook))
        .route(&format!("{WEBHOOK}/switch"), post(events::switch))
        .route(&format!("{WEBHOOK}/delete"), post(events::delete))
        .route("/dashboard/usage", get(usage::usage))
        .route(
            "/dashboard/secrets",
            get(secrets::list).post(secrets::create),
        )
        .route("/dashboard/secrets/delete", post(secrets::delete))
        .route("/dashboard/team", get(team::team))
        .route("/dashboard/keys", post(team::key_create))
        .route("/dashboard/keys/{id}/rename", post(team::key_rename))
        .route("/dashboard/keys/{id}/delete", post(team::key_delete))
        .route("/dashboard/server", get(server::server))
}
