//! `cargo xtask up`: from a fresh clone to a running server.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, bail};

use crate::host;
use crate::run::{cargo, command, run, say, target_dir};

/// Becomes root if need be, prepares the machine, builds, and becomes the server.
pub(crate) fn up(args: &[OsString]) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return become_root();
    }
    host::install(&[host::SERVER])?;
    host::add_musl_target();
    run(cargo([
        "build",
        "--release",
        "--locked",
        "--package",
        "warren",
    ]))?;
    let program = target_dir().join("release/warren");
    let mut server = command(&program, ["up"]);
    server.args(args);
    Err(server.exec()).with_context(|| format!("run {}", program.display()))
}

/// Runs this same command through sudo, keeping the toolchain's variables: root may have
/// no Rust of its own.
fn become_root() -> Result<()> {
    if !host::has_program("sudo") {
        bail!(
            "the server needs root for namespaces, mounts and firewall rules\nhint: run this command as root"
        );
    }
    say("the server needs root: asking sudo");
    let mut sudo = command("sudo", ["env"]);
    for name in [
        "PATH",
        "CARGO",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "RUSTUP_TOOLCHAIN",
        "CARGO_TARGET_DIR",
        "XDG_CACHE_HOME",
    ] {
        if let Some(value) = env::var_os(name) {
            let mut pair = OsString::from(name);
            pair.push("=");
            pair.push(value);
            sudo.arg(pair);
        }
    }
    // Without these two, cargo and rustup would look in root's home.
    let home = env::var_os("HOME").context("HOME is not set")?;
    for (name, directory) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        if env::var_os(name).is_none() {
            let mut pair = OsString::from(name);
            pair.push("=");
            pair.push(std::path::Path::new(&home).join(directory));
            sudo.arg(pair);
        }
    }
    sudo.args(env::args_os());
    Err(sudo.exec()).context("run sudo")
}
