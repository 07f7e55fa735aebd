//! The node on the in-memory runtime: life, failure, restart.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod lifecycle;
mod pause;
mod ready;
mod restart;
mod services;
mod start;
mod support;
mod undo;
