//! The proxy end to end: real listeners, clients and guests on loopback.

mod access;
mod addressing;
mod lifecycle;
mod listener;
mod refusals;
mod seeds;
mod support;
mod transport;
mod upgrade;
