//! demo
use crate::cli::Demo;
use std::process::ExitCode;
pub(crate) fn run(_args: Demo) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
