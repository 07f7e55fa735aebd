//! Starts the real agent in a private copy of this machine's file system and talks to it
//! over plain sockets. Needs root and mount namespaces.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like tests"
)]

mod client;
mod connect;
mod files;
mod filesystem;
mod init;
mod processes;
mod sandbox;
mod server;
mod terminals;
mod watch;
