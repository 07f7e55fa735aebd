//! `mcp-gateway`, the program that the SDKs' `mcp` option starts.

use std::io::Write;
use std::process::ExitCode;

use warren_mcp_gateway::{Command, launch, parse, pull, serve_in_background};
use warren_service::Chain;

/// Exit code for a command line that makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(error) => return fail(USAGE, &error),
    };
    let done = match command {
        Command::Start(config) => launch(&config),
        Command::Serve => serve_in_background(),
        Command::Pull(names) => pull(&names),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

fn fail(code: u8, error: &(dyn std::error::Error + 'static)) -> ExitCode {
    // There is nowhere else to report a standard error that can't be written.
    let _ = writeln!(std::io::stderr(), "mcp-gateway: {}", Chain(error));
    ExitCode::from(code)
}
