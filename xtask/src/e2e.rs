//! The end-to-end suites: official clients against a server made for the run.

mod clients;
mod server;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run::{cargo, command, run, target_dir, workspace};
use crate::{base, host, tools};

pub(crate) use clients::Clients;
use server::Server;

/// Installs the clients in the cache.
pub(crate) fn prepare() -> Result<Clients> {
    host::install(&[host::SERVER, host::SUITES])?;
    Clients::install()
}

/// Starts a server, runs every suite against it and stops it. All suites run even if one
/// fails; the first failure is the result.
pub(crate) fn run_e2e(clients: &Clients) -> Result<()> {
    base::ensure()?;
    tools::ensure()?;
    let program = build_server()?;
    let scratch = tempfile::Builder::new()
        .prefix("warren-e2e-")
        .tempdir()
        .context("make a directory for the server")?;
    let server = Server::start(&program, scratch.path(), &base::layers_dir())?;
    let outcome = suites(clients, &server);
    server.stop()?;
    outcome
}

/// Builds the server as the tests of the workspace do: any other selection of packages, or a
/// release build, would compile most dependencies once more.
fn build_server() -> Result<PathBuf> {
    run(cargo([
        "build",
        "--workspace",
        "--bins",
        "--tests",
        "--locked",
    ]))?;
    Ok(target_dir().join("debug/warren"))
}

fn suites(clients: &Clients, server: &Server) -> Result<()> {
    let python = clients.python();
    let suite = |program: &Path, args: &[&str]| {
        let mut suite = command(program, args);
        suite.envs(server.environment());
        suite.envs(clients.environment()?);
        run(suite)
    };
    let tests = workspace().join("tests/e2e");
    let in_tests = |name: &str| tests.join(name).to_string_lossy().into_owned();
    let in_python = in_tests("python");
    let examples = in_tests("docs/run_examples.py");
    let node_dir = clients.link_node_modules(&tests.join("js"))?;
    let node_dir = node_dir.to_string_lossy();
    let mut javascript = vec!["--test".to_owned()];
    javascript.extend(javascript_tests(&tests.join("js"))?);
    let javascript: Vec<&str> = javascript.iter().map(String::as_str).collect();
    let outcomes = [
        rust_client(server),
        suite(python, &["-m", "pytest", "-n", "4", &in_python]),
        suite(clients.node(), &javascript),
        suite(python, &["-m", "pytest", &in_tests("docs")]),
        suite(python, &[&examples, "--node-dir", &node_dir]),
        suite(python, &["-m", "pytest", "-m", "alone", &in_python]),
    ];
    outcomes.into_iter().collect()
}

/// The tests and examples of the Rust client that want a server: those below modules called
/// `live`.
fn rust_client(server: &Server) -> Result<()> {
    let mut tests = cargo(["test", "--workspace", "--locked", "--test", "it"]);
    tests.args(["--", "--ignored", "live::"]);
    tests.envs(server.environment());
    run(tests)
}

/// The files of the suite, named one by one: how `node --test` takes a directory differs
/// between its versions.
fn javascript_tests(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path().to_string_lossy().into_owned();
        if path.ends_with(".test.mjs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
