//! Processes and terminals.
//!
//! ```text
//! fork ── running ── reaped ── ended ── forgotten after 30 s
//!            │          └ waits for both output pipes to close, unless it was told to stop
//!            └ SendSignal, deadline
//! ```
//!
//! A process belongs to one supervising task and to no connection: streams attach to it and
//! leave again. [`Reaper`] is the only caller of `wait`, for our children and for orphans.

mod outcome;
mod pty;
mod reap;
mod registry;
mod rpc;
mod spawn;
mod stream;
mod supervise;

pub(crate) use reap::Reaper;
pub(crate) use registry::Registry;
pub(crate) use rpc::{
    close_stdin, connect, list, send_input, send_signal, start, stream_input, update,
};
