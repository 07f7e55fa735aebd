//! A Model Context Protocol server: tools with which any agent runs code and commands,
//! moves files and manages sandboxes, over standard input and output or HTTP.
//!
//! Tools that need a sandbox and are given none use one of their own, made when it is first
//! needed and killed when the server ends.

mod http;
mod reply;
mod tools;

use std::io;

use rmcp::ServiceExt;
use warren_client::{Client, Error};

pub use http::serve_http;
pub use tools::{Settings, Tools};

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum McpError {
    /// The other side did not begin as the protocol wants.
    #[error("begin the conversation")]
    Begin(#[source] Box<rmcp::service::ServerInitializeError>),
    /// The conversation broke off.
    #[error("hold the conversation")]
    Conversation(#[source] tokio::task::JoinError),
    /// The address can't be listened on.
    #[error("listen")]
    Listen(#[source] io::Error),
    /// The sandbox of the conversation is not killed.
    #[error("kill the sandbox that was made for this conversation; it ends by its time-out")]
    Kill(#[source] Error),
}

/// Serves one conversation over standard input and output, until the other side closes it.
///
/// # Errors
/// The conversation can't begin or breaks off, or its sandbox is not killed.
pub async fn serve_stdio(client: Client, settings: Settings) -> Result<(), McpError> {
    let tools = Tools::new(client, settings);
    let begun = tools.clone().serve(rmcp::transport::stdio()).await;
    let ended = match begun {
        Ok(conversation) => conversation
            .waiting()
            .await
            .map(drop)
            .map_err(McpError::Conversation),
        Err(error) => Err(McpError::Begin(Box::new(error))),
    };
    tools.end().await.map_err(McpError::Kill)?;
    ended
}
