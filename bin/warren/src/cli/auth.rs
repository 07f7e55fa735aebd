//! The grammar of `warren auth`.

use clap::{Args, Subcommand};

use super::connection::Connection;

#[derive(Debug, Args)]
pub(crate) struct Auth {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: AuthCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Sign in through the browser, or keep an API key.
    Login(Login),
    /// End the sign-in, at the server too.
    Logout,
    /// Show who is signed in, for which project.
    Info,
    /// Choose the project that commands act for.
    Configure(Configure),
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Keep the API key of --api-key, E2B_API_KEY or standard input; no browser is needed.
    #[arg(long)]
    pub(crate) with_key: bool,

    /// Page to sign in at, up to `/api/cli` [default: the server's own].
    #[arg(long, env = "E2B_DOCS_BASE", value_name = "URL")]
    pub(crate) docs_base: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Configure {
    /// The project, by id or name, instead of asking.
    #[arg(short = 't', long, visible_alias = "team", value_name = "ID")]
    pub(crate) project: Option<String>,
}
