//! `cargo xtask test`: every test there is.

use anyhow::Result;

use crate::run::{cargo, command, run, say, succeeds};
use crate::{base, e2e, host, tools};

/// Prepares the machine, then runs the tests of the workspace and the end-to-end suites.
pub(crate) fn test() -> Result<()> {
    host::install(&[host::SERVER, host::SUITES])?;
    host::add_musl_target();
    // Made first: a machine that can't is told at once, not after half an hour.
    base::ensure()?;
    tools::ensure()?;
    let clients = e2e::prepare()?;
    workspace_tests()?;
    e2e::run_e2e(&clients)
}

fn workspace_tests() -> Result<()> {
    if succeeds(command("cargo-nextest", ["--version"])) {
        // Not the examples: the client's tests run them, so nothing needs them as programs.
        run(cargo([
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--lib",
            "--bins",
            "--tests",
        ]))?;
    } else {
        say("cargo-nextest is not installed; using cargo test");
        run(cargo([
            "test",
            "--workspace",
            "--locked",
            "--lib",
            "--bins",
            "--tests",
        ]))?;
    }
    run(cargo(["test", "--workspace", "--locked", "--doc"]))?;
    // Once more as on kernels that join layers by path only.
    let mut by_path = cargo(["test", "--package", "warren-runtime", "--locked", "--tests"]);
    by_path.env("WARREN_TEST_OVERLAY_BY_PATH", "1");
    run(by_path)
}
