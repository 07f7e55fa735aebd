//! CRIU, which stores the memory of sandboxes: prepared where the machine has none that will
//! do. Everything else works without it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use warren_runtime::ns::{self, NsRuntime, Preparing, TOOLS};
use warren_service::{Chain, Tasks};

use crate::up::say;

/// Prepares it in the background, for a server that starts.
pub(crate) fn start(runtime: &Arc<NsRuntime>, mirror: Option<String>, tasks: &Tasks) {
    let (runtime, stop) = (Arc::clone(runtime), tasks.stop_token().clone());
    tasks.spawn_blocking(move || {
        let mut made = false;
        let prepared = runtime.prepare_checkpoints(mirror.as_deref(), |event| {
            made |= event == Preparing::Started;
            tell(event);
            match stop.is_cancelled() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        match prepared {
            Ok(support) => {
                if made {
                    say("CRIU is ready: the memory of paused sandboxes is kept on the disk.");
                }
                tracing::info!(version = support.version, path = %support.path.display(),
                    "memory of sandboxes can be stored");
            }
            Err(ns::PrepareError::GivenUp) => {}
            Err(error) => tracing::warn!(error = %Chain(&error),
                "CRIU could not be prepared: paused sandboxes keep their memory in memory only, \
                 and snapshots their files; it is tried again when the server starts"),
        }
    });
}

/// Prepares it in the data directory of a server, and waits for that.
pub(crate) fn fix(data_dir: &Path, mirror: Option<&str>) -> anyhow::Result<()> {
    let prepared = ns::prepare_tools(&data_dir.join(TOOLS), mirror, |event| {
        tell(event);
        ControlFlow::Continue(())
    });
    prepared.map(drop).context("prepare CRIU")
}

fn tell(event: Preparing<'_>) {
    match event {
        Preparing::Started => say(
            "Preparing CRIU from newer Debian packages, to store the memory of sandboxes. This takes a minute, once.",
        ),
        Preparing::Line(line) if line.starts_with("I: ") => {
            tracing::debug!("{line}");
        }
        Preparing::Line(_) | Preparing::Waiting => {}
    }
}
