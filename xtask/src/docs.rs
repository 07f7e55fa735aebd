//! The part of the documentation that is written from the code.

use anyhow::Result;

use crate::run::{cargo, run};

/// Writes the reference pages. The test that compares them with the code is their writer,
/// so that both always mean the same.
pub(crate) fn write_reference() -> Result<()> {
    let mut test = cargo([
        "test",
        "--package",
        "warren",
        "--bin",
        "warren",
        "reference",
    ]);
    test.env("WARREN_WRITE_REFERENCE", "1");
    run(test)
}
