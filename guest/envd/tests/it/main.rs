//! Starts the real agent in a private copy of this machine's file system and talks to it
//! over plain sockets. Needs root and mount namespaces.

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
