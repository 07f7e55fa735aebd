//! Template builds on the real kernel. Needs root; makes the base layer if it is missing.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod clouds;
mod images;
mod layouts;
mod registry;
mod resume;
mod steps;
mod support;
