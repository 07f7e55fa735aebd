//! The web pages of the server: what a team's sandboxes and templates are and do, and the
//! few things one does to them by hand.
//!
//! Pages are rendered here and work as plain HTML; a small script refreshes their parts.
//! They stand on the same use cases as the REST API. Terminals and files are the business of
//! the browser and the sandbox's own agent: the page of a sandbox knows the agent's token,
//! the server's pages never see what is typed.

mod assets;
mod error;
mod login;
mod pages;
mod sandbox;
mod session;
mod view;

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
        .route("/dashboard", get(pages::sandboxes))
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
        .route("/dashboard/templates", get(pages::templates))
        .route("/dashboard/templates/{id}", get(pages::template))
        .route("/dashboard/usage", get(pages::usage))
        .route("/dashboard/sandboxes/{id}", get(sandbox::page))
        .route("/dashboard/sandboxes/{id}/facts", get(sandbox::facts))
        .route("/dashboard/sandboxes/{id}/metrics", get(sandbox::metrics))
        .route("/dashboard/sandboxes/{id}/logs", get(sandbox::logs))
        .route("/dashboard/sandboxes/{id}/kill", post(sandbox::kill))
        .route("/dashboard/sandboxes/{id}/extend", post(sandbox::extend))
        .route("/dashboard/assets/{name}", get(assets::get))
        .layer(middleware::from_fn(session::guard_origin))
        .layer(middleware::from_fn(assets::harden))
        .with_state(app)
}
