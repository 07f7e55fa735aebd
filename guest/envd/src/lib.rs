//! The agent inside each sandbox: processes, files and watches over HTTP.
//!
//! One thread serves all connections; file work that may block goes to a small pool. The
//! agent keeps no state on disk: what it knows comes from its command line, from `/init`
//! and from the guest's own files. It trusts the host that holds the init key, and nobody
//! else: everything in a request, and everything in the guest's file system, is hostile.

mod agent;
mod auth;
mod ca;
mod call;
mod check;
pub mod cli;
mod env;
pub mod files;
mod filesystem;
mod init;
mod log;
mod metrics;
pub mod paths;
mod process;
pub mod query;
mod reply;
mod run;
mod server;
pub mod signature;
mod sys;
mod users;

pub use check::{check_multipart_input, check_path_input};
pub use filesystem::permissions_text;
pub use run::{RunError, run};
pub use users::{User, UserDb};

/// The version that the agent reports, which clients gate features on.
pub const VERSION: &str = "0.6.13";
