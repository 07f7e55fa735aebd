//! The proxy end to end: real listeners, clients and guests on loopback.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail tests too")]

mod access;
mod addressing;
mod lifecycle;
mod listener;
mod refusals;
mod seeds;
mod support;
mod transport;
mod unread;
mod upgrade;
