//! What SSH needs inside a sandbox, run as its user: without arguments an SFTP server on
//! standard input and output; with `connect HOST PORT` a connection from inside to there.

mod attributes;
mod connect;
mod extended;
mod listing;
mod server;
mod stdio;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let result = match (runtime, words.as_slice()) {
        (Err(error), _) => Err(error),
        (Ok(runtime), []) => {
            let result = runtime.block_on(server::serve());
            runtime.shutdown_background();
            result
        }
        (Ok(runtime), [verb, host, port]) if verb == "connect" => {
            let result = runtime.block_on(connect::run(host, port));
            // A read of standard input may never return.
            runtime.shutdown_background();
            result
        }
        _ => Err(std::io::Error::other(
            "usage: sftp-server [connect HOST PORT]",
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed stderr leaves nobody to tell.
            writeln!(std::io::stderr(), "{error}").ok();
            ExitCode::FAILURE
        }
    }
}
