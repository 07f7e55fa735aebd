//! Template builds on the real kernel. Needs root; makes the base layer if it is missing.

mod steps;
mod support;
