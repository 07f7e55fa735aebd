//! Tests of the namespace runtime on the real kernel. They need root.

mod conformance;
mod escape;
mod harness;
mod leaks;
mod speed;
