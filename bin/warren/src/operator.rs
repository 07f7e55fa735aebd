//! The operator's commands: teams, people, keys and the audit trail. On the server's machine
//! they work whether the server runs or not.

mod accounts;
mod audit;
mod backup;
mod explain;
mod link;
mod offline;
mod restore;
mod socket;
mod tree;

use std::future::Future;
use std::process::ExitCode;

use anyhow::Context;

pub(crate) use accounts::{key, team, user};
pub(crate) use audit::audit;
pub(crate) use backup::backup;
pub(crate) use explain::explain;
pub(crate) use link::{Link, path};
pub(crate) use restore::{ensure_whole, restore};
pub(crate) use socket::serve;

use crate::cli::operator::Operator;
use crate::print;

/// Runs a command that reaches the server.
pub(crate) fn run<F>(
    operator: Operator,
    command: impl FnOnce(Link) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(async {
        let link = Link::open(operator).await.context("reach the server")?;
        command(link).await
    });
    match done {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Whoever read the output has seen enough.
        Err(error) if print::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}
