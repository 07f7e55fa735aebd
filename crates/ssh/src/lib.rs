//! Edge for SSH: `ssh SANDBOX@host` is a shell in that sandbox, and so are `scp`, `sftp`,
//! `rsync` and forwarded ports.
//!
//! The protocol ends here; sandboxes need no SSH server. Shells, commands and the SFTP
//! server are processes that the agent of the sandbox starts, as its user; forwarded
//! connections are dialled into its network. Who may do what, where sandboxes run and
//! whether one must be resumed first is told by a [`Host`].
//!
//! Whatever a sandbox writes passes through unread, as fast as the client takes it. When a
//! run ends, its clients are told why and disconnected.

mod agent;
mod channels;
mod command;
mod connection;
mod forward;
mod gate;
mod host;
mod key;
mod login;
mod server;
mod session;
mod signal;

pub use host::{Access, Dial, Guest, Host, HostError, OpenError};
pub use key::{HostKey, HostKeyError};
pub use server::{ServerConfig, serve};
