//! Lines on standard error, which whoever started the server collects.

use std::error::Error;
use std::io::Write;

use warren_service::Chain;

/// Reports a failure that nobody waits for.
pub(crate) fn warn(what: &str, error: &(dyn Error + 'static)) {
    note(&format!("{what}: {}", Chain(error)));
}

/// Reports a fact.
pub(crate) fn note(text: &str) {
    // There is nowhere else to report a standard error that can't be written.
    let _ = writeln!(std::io::stderr(), "interpreter: {text}");
}
