//! `warren mcp`: tools for agents, over standard input and output or HTTP.

use std::process::ExitCode;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use warren_mcp::{Settings, serve_http, serve_stdio};
use warren_service::Secret;

use crate::cli::Mcp;
use crate::connection;

/// Serves until the other side closes the conversation, or a signal comes.
pub(crate) fn run(args: Mcp) -> anyhow::Result<ExitCode> {
    let key = args.connection.api_key.clone();
    let client = connection::client(args.connection)?;
    let settings = Settings {
        template: args.template,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let Some(listen) = args.http else {
            serve_stdio(client, settings).await?;
            return Ok(());
        };
        let key = key.context("no API key\nhint: set E2B_API_KEY")?;
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!("listen on {listen}\nhint: choose another address with --http")
        })?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        crate::up::say(&format!("MCP at http://{}/mcp", listener.local_addr()?));
        serve_http(listener, client, Secret::new(key), settings, stop).await?;
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
