//! Named steps at which tests let the server die as by `kill -9`, to see that nothing is
//! lost. In service the name of no step is set, and a step costs one load.

use std::sync::OnceLock;

/// Environment variable with the name of the step to die at.
pub const ABORT_AT: &str = "WARREN_TEST_ABORT_AT";

/// Ends the process here if the environment it was started with says so.
pub fn point(step: &str) {
    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var(ABORT_AT).ok());
    if wanted.as_deref() == Some(step) {
        tracing::error!(step, "dying, as asked for by {ABORT_AT}");
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_happens_unless_asked_for() {
        super::point("a step of this test");
    }
}
