//! Tests of the namespace runtime on the real kernel. They need root.

#![expect(
    clippy::unwrap_used,
    reason = "a harness that fails is a test that fails"
)]

mod attach;
mod checkpoint;
mod conformance;
mod escape;
mod harness;
mod layers;
mod leaks;
mod lifecycle;
mod speed;
mod suite;
