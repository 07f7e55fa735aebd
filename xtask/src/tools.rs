//! CRIU where all test servers look for it.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Result;
use warren_runtime::ns::{Preparing, SHARED_TOOLS, prepare_tools};

use crate::run::say;

/// Makes it from newer Debian packages where the machine has none that will do.
pub(crate) fn ensure() -> Result<()> {
    let support = prepare_tools(Path::new(SHARED_TOOLS), None, |event| {
        match event {
            Preparing::Started => say("making CRIU from newer Debian packages"),
            Preparing::Line(line) => say(&format!("  {line}")),
            Preparing::Waiting => {}
        }
        ControlFlow::Continue(())
    })?;
    say(&format!(
        "CRIU {} at {}",
        support.version,
        support.path.display()
    ));
    Ok(())
}
