//! The pages over a real database and a node that is a fake.

#![expect(clippy::unwrap_used, reason = "a failed step fails its test")]

mod access;
mod escaping;
mod lists;
mod sessions;
mod teams;
mod world;

#[expect(dead_code, reason = "the tests of the API use more of it")]
#[path = "../../../api/tests/it/node.rs"]
mod node;
