//! The server against kernels: a scripted one, and Python's where it is installed.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like tests"
)]

mod cells;
mod client;
mod contexts;
mod fake_kernel;
mod python;
mod server;
