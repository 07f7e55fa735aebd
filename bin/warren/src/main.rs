//! Warren: a self-hosted sandbox cloud for AI agents. This binary is the server and the
//! command line; it reads the configuration and joins the parts.

mod account;
mod address;
mod ask;
mod auth;
mod bench;
mod builds;
mod builtin;
mod bundle;
mod cli;
mod connection;
mod data;
mod demo;
mod doctor;
mod edge;
mod egress;
mod guest;
mod interpreter;
mod limits;
mod manual;
mod mcp;
mod operator;
mod print;
#[cfg(test)]
mod reference;
mod sandbox;
mod sshclient;
mod sshserve;
mod telemetry;
mod template;
mod tools;
mod trust;
mod uninstall;
mod up;
mod vault;
mod volume;

use std::ffi::OsStr;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

/// A request that failed.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    // The helper makes namespaces and must stay single-threaded: nothing else runs in it.
    let mut words = std::env::args_os().skip(1);
    if words.next().as_deref() == Some(OsStr::new(warren_runtime::ns::HELPER_COMMAND)) {
        return warren_runtime::ns::helper_main();
    }
    if let Some(code) = sshclient::answer_question() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stream leaves nobody to tell.
            error.print().ok();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let as_json = cli.json;
    let result = match cli.command {
        Command::Up(args) => up::run(*args),
        Command::Doctor(args) => doctor::run(&args, as_json),
        Command::Trust(args) => trust::run(&args, as_json),
        Command::Mcp(args) => mcp::run(args),
        Command::Demo(args) => demo::run(args, as_json),
        Command::Sandbox(args) => sandbox::run(args, as_json),
        Command::Template(args) => template::run(args, as_json),
        Command::Auth(args) => auth::run(args, as_json),
        Command::Bench(args) => bench::run(args, as_json),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { dir } => manual::write(&dir, as_json),
        Command::Team(args) => operator::team(args, as_json),
        Command::User(args) => operator::user(args, as_json),
        Command::Key(args) => operator::key(args, as_json),
        Command::Audit(args) => operator::audit(args, as_json),
        Command::Explain(args) => operator::explain(args, as_json),
        Command::Backup(args) => operator::backup(&args, as_json),
        Command::Restore(args) => operator::restore(&args, as_json),
        Command::Ssh(args) => sshclient::ssh(&args, as_json),
        Command::SshKey(args) => sshclient::keys(args, as_json),
        Command::Bundle(args) => bundle::run(args, as_json),
        Command::Uninstall(args) => uninstall::run(&args, as_json),
        Command::Limits(args) => limits::run(args, as_json),
    };
    result.unwrap_or_else(|error| {
        // A closed stderr leaves nobody to tell.
        writeln!(std::io::stderr(), "error: {}", describe(&error)).ok();
        ExitCode::from(FAILED)
    })
}

/// The error, its causes, and then the hints that any of them carries.
fn describe(error: &anyhow::Error) -> String {
    let (mut text, mut hints) = (Vec::new(), Vec::new());
    for cause in error.chain() {
        let cause = cause.to_string();
        let mut lines = cause.lines();
        text.extend(lines.next().map(str::to_owned));
        hints.extend(lines.filter(|line| !line.is_empty()).map(str::to_owned));
    }
    let mut out = text.join(": ");
    for hint in hints {
        out.push('\n');
        out.push_str(&hint);
    }
    out
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn hints_come_after_the_causes() {
        let error = Err::<(), _>(std::io::Error::other("it is broken"))
            .context("open the door\nhint: knock")
            .unwrap_err();
        assert_eq!(describe(&error), "open the door: it is broken\nhint: knock");
    }
}
