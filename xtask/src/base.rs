//! The base template in the cache that all test servers share.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use warren_template::{LayerStore, base};

use crate::run::{cache_dir, say};

/// The layer store of all test servers.
pub(crate) fn layers_dir() -> PathBuf {
    cache_dir().join("layers")
}

/// Makes the base template there if it is missing. Returns where it is.
pub(crate) fn ensure() -> Result<PathBuf> {
    let store = LayerStore::open(&layers_dir())?;
    let recipe = base::Recipe::default();
    let start = Instant::now();
    let digest = base::ensure(&store, &recipe, |progress| match progress {
        base::Progress::Started => say("making the base template from Debian packages"),
        base::Progress::Line(line) => say(&format!("  {line}")),
        base::Progress::Finished => say(&format!(
            "the base template is ready after {} s",
            start.elapsed().as_secs()
        )),
    })?;
    Ok(store.dir().join(digest))
}

#[expect(clippy::print_stdout, reason = "the path is this command's data")]
pub(crate) fn print() -> Result<()> {
    println!("{}", ensure()?.display());
    Ok(())
}
