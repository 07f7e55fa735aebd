//! The server against kernels: a scripted one, and Python's where it is installed.

mod cells;
mod client;
mod contexts;
mod fake_kernel;
mod python;
mod server;
