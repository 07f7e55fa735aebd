//! `envd`, the agent inside each sandbox.

use std::io::Write;
use std::process::ExitCode;

use warren_envd::cli::{self, Command};
use warren_service::Chain;

/// Exit code for a command line that makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(error) => return fail(USAGE, &error),
    };
    let printed = match command {
        Command::Version => writeln!(std::io::stdout(), "{}", warren_envd::VERSION),
        Command::Commit => {
            let commit = option_env!("WARREN_COMMIT").unwrap_or("unknown");
            writeln!(std::io::stdout(), "{commit}")
        }
        Command::Run(options) => {
            return match warren_envd::run(&options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(1, &error),
            };
        }
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

fn fail(code: u8, error: &(dyn std::error::Error + 'static)) -> ExitCode {
    // There is nowhere else to report a standard error that can't be written.
    let _ = writeln!(std::io::stderr(), "envd: {}", Chain(error));
    ExitCode::from(code)
}
