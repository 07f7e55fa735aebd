//! Manual pages and completions, made from the command-line grammar.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use serde_json::json;

use crate::cli::Cli;
use crate::print;

/// Prints a script that completes commands and flags.
pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    let mut grammar = Cli::command();
    clap_complete::generate(shell, &mut grammar, "warren", &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a page for each command.
pub(crate) fn write(dir: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("write manual pages to {}", dir.display()))?;
    let count = fs::read_dir(dir)?.count();
    let value = json!({ "dir": dir, "pages": count });
    print::done(
        as_json,
        &value,
        &format!("{count} pages in {}", dir.display()),
    )?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), false).unwrap();
        let page = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(page("warren.1").contains("sandbox"));
        assert!(page("warren-sandbox-exec.1").contains("background"));
        assert!(page("warren-auth-login.1").contains("browser"));
    }
}
