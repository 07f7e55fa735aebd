//! `cargo xtask ci`: what a change must pass.

use anyhow::Result;

use crate::run::{cargo, run};
use crate::{deps, host, suite};

/// The quick checks first, then all tests.
pub(crate) fn ci() -> Result<()> {
    // Compiling needs a linker and the server's build needs the agent's target.
    host::install(&[host::SERVER, host::SUITES])?;
    host::add_musl_target();
    run(cargo(["fmt", "--all", "--check"]))?;
    deps::check()?;
    run(cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ]))?;
    let mut doc = cargo(["doc", "--workspace", "--no-deps", "--locked"]);
    doc.env("RUSTDOCFLAGS", "--deny warnings");
    run(doc)?;
    suite::test()
}
