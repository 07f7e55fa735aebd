//! The API over a real database and a node that is a fake.

#![expect(clippy::unwrap_used, reason = "a failed step fails its test")]

mod auth;
mod builder;
mod builds;
mod conventions;
mod create;
mod events;
mod idempotency;
mod keys;
mod lifecycle;
mod limits;
mod list;
mod matrix;
mod node;
mod observe;
mod operations;
mod pause;
mod pausing;
mod restart;
mod secrets;
mod server;
mod snapshots;
mod tags;
mod templates;
mod trail;
mod uploads;
mod volumes;
