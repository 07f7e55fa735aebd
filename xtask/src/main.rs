//! Repository chores: start from source, test, check. `cargo xtask help` lists them.
#![expect(
    clippy::print_stderr,
    reason = "a command-line tool talks to its user on stderr"
)]

mod base;
mod ci;
mod deps;
mod docs;
mod e2e;
mod host;
mod package;
mod run;
mod suite;
mod tools;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of the Warren repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Install what a Debian or Ubuntu machine lacks, build, and start the server. Arguments
    /// are those of `warren up`.
    #[command(disable_help_flag = true)]
    Up {
        /// Arguments of `warren up`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
    /// Run all tests: those of the workspace, then the end-to-end suites.
    Test,
    /// Run the end-to-end suites against a server made for them.
    E2e,
    /// Everything that a change must pass: format, lints, documents, dependencies, tests.
    Ci,
    /// Check that no crate uses another that the architecture does not let it.
    CheckDeps,
    /// Build a static program and pack it as a tarball and as a Debian package.
    Package(package::Args),
    /// Write the reference pages of the documentation from the code.
    DocsReference,
    /// Make the base template in the shared cache and print where it is.
    BaseLayer,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Chore::Up { args } => up::up(&args),
        Chore::Test => suite::test(),
        Chore::E2e => e2e::prepare().and_then(|clients| e2e::run_e2e(&clients)),
        Chore::Ci => ci::ci(),
        Chore::CheckDeps => deps::check(),
        Chore::Package(args) => package::package(&args),
        Chore::DocsReference => docs::write_reference(),
        Chore::BaseLayer => base::print(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
