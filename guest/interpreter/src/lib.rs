//! The code interpreter inside a sandbox: runs cells in Jupyter kernels, over HTTP.
//!
//! One thread serves all requests. Each context has a task that owns its kernel, a process
//! that is reached over the Jupyter wire protocol with nothing between. Requests come from
//! the sandbox's clients, and kernels run their code: neither is trusted.

pub mod cli;
mod context;
mod fetch;
mod globals;
mod identity;
pub mod kernel;
pub mod language;
mod line;
mod log;
mod memory;
mod random;
mod registry;
mod run;
mod running;
mod server;
mod sys;
mod time;
mod users;
pub mod wait;

pub use run::{RunError, run, start};
