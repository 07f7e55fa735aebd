//! Running programs and saying so.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

/// Talks to the user.
pub(crate) fn say(line: &str) {
    eprintln!("xtask: {line}");
}

/// The root of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate is a directory of the workspace")
}

/// Where chores keep what outlives a run and a working copy.
pub(crate) fn cache_dir() -> PathBuf {
    env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| PathBuf::from("/var/cache"), PathBuf::from)
        .join("warren")
}

/// The directory that cargo builds into.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(
        || workspace().join("target"),
        |dir| workspace().join(PathBuf::from(dir)),
    )
}

/// A cargo command of the toolchain that runs this.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()).args(args);
    command
}

/// What cargo tells of the packages of the workspace.
pub(crate) fn metadata<T: DeserializeOwned>() -> Result<T> {
    let json = output(cargo([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--locked",
    ]))?;
    serde_json::from_slice(&json).context("read cargo metadata")
}

/// A command.
pub(crate) fn command<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace()).args(args);
    command
}

fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

/// Runs a command that talks to the user itself.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let text = shown(&command);
    say(&text);
    let status = command.status().with_context(|| format!("run {text}"))?;
    if !status.success() {
        bail!("{text}: {status}");
    }
    Ok(())
}

/// Whether a program runs and is content. Its output is dropped.
pub(crate) fn succeeds(mut command: Command) -> bool {
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// What a command writes to its standard output.
pub(crate) fn output(mut command: Command) -> Result<Vec<u8>> {
    let text = shown(&command);
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("run {text}"))?;
    if !output.status.success() {
        bail!("{text}: {}", output.status);
    }
    Ok(output.stdout)
}
