//! `mcp-gateway`: starts the MCP servers that a sandbox was created with and serves them as
//! one, over HTTP and behind a token.
//!
//! Servers speak JSON-RPC over their standard input and output, a message a line. The gateway
//! answers what is about itself (`initialize`, lists) and hands everything else on as it
//! came, to the server whose tool, prompt or resource is meant: it need not know every field
//! that the protocol ever gets.
//!
//! ```text
//! mcp-gateway --config JSON      settings ─► commands ─► `serve` in the background ─► ready
//! mcp-gateway pull NAME…         puts packages into the caches, for templates
//! ```

mod catalog;
mod child;
mod cli;
mod config;
mod gateway;
mod http;
mod launch;
mod rpc;

pub use cli::{Command, UsageError, parse};
pub use config::{ConfigError, ServerSpec, read};
pub use gateway::Gateway;
pub use http::serve;
pub use launch::{Launch, LaunchError, launch, pull, serve_in_background};
