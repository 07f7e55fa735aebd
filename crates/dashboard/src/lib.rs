//! The web pages of the server: what a team's sandboxes and templates are and do, and the
//! few things one does to them by hand.
//!
//! Pages are rendered here and work as plain HTML; a small script refreshes their parts.
//! They stand on the same use cases as the REST API. Terminals and files are the business of
//! the browser and the sandbox's own agent: the page of a sandbox knows the agent's token,
//! the server's pages never see what is typed.

mod access_tokens;
mod actions;
mod assets;
mod audit;
mod ended;
mod error;
mod events;
mod login;
mod members;
mod pages;
mod routes;
mod sandbox;
mod secrets;
mod server;
mod session;
mod ssh_keys;
mod team;
mod templates;
mod trail;
mod usage;
mod view;
mod visitor;
mod volume_files;
mod volumes;

use std::sync::Arc;

use axum::Router;
use warren_control::Control;
use warren_service::Secret;

pub use routes::{Access, Route, routes};
use session::Sessions;

/// What handlers need.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) control: Arc<Control>,
    pub(crate) sessions: Sessions,
    admin_token: Option<Secret>,
}

impl App {
    /// Whether a credential is the administrator's token.
    pub(crate) fn is_admin_token(&self, shown: &str) -> bool {
        let token = self.admin_token.as_ref();
        token.is_some_and(|token| token.matches(shown))
    }
}

/// Makes the pages. All are below `/dashboard`; `/` leads there. Whoever shows the
/// administrator's token acts for any team; without one nobody does.
pub fn router(control: Arc<Control>, admin_token: Option<Secret>) -> Router {
    let app = Arc::new(App {
        control,
        sessions: Sessions::default(),
        admin_token,
    });
    routes::table().router(app)
}
