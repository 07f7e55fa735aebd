//! `interpreter`, the program on port 49999 of code-interpreter sandboxes.

use std::io::Write;
use std::process::ExitCode;

use warren_interpreter::{cli, wait};
use warren_service::Chain;

/// Exit code for a command line that makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let options = match cli::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => return fail(USAGE, &error),
    };
    if options.wait {
        return match wait::until_ready(&options.listen) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &error),
        };
    }
    // Variables that are no text can't be passed on to kernels that read text.
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    match warren_interpreter::run(&options, env) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

fn fail(code: u8, error: &(dyn std::error::Error + 'static)) -> ExitCode {
    // There is nowhere else to report a standard error that can't be written.
    let _ = writeln!(std::io::stderr(), "interpreter: {}", Chain(error));
    ExitCode::from(code)
}
