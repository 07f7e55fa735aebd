//! The in-sandbox programs that this binary carries.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};

static ENVD: &[u8] = include_bytes!(env!("WARREN_ENVD_PATH"));
static INTERPRETER: &[u8] = include_bytes!(env!("WARREN_INTERPRETER_PATH"));

/// Where the programs are on this host.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The agent, process 1 of every sandbox.
    pub agent: PathBuf,
    /// The server of code-interpreter sandboxes.
    pub interpreter: PathBuf,
}

/// Puts the programs into the data directory, under names that tell their content: sandboxes
/// that an older server started keep theirs.
pub(crate) fn unpack(data_dir: &Path) -> anyhow::Result<Programs> {
    let dir = data_dir.join("guest");
    Ok(Programs {
        agent: unpack_one(&dir, "envd", ENVD)?,
        interpreter: unpack_one(&dir, "interpreter", INTERPRETER)?,
    })
}

fn unpack_one(dir: &Path, name: &str, content: &[u8]) -> anyhow::Result<PathBuf> {
    let digest = hex::encode(Sha256::digest(content));
    let path = dir.join(format!("{name}-{digest}"));
    let write = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == content.len() as u64) {
            return Ok(());
        }
        let temporary = dir.join(format!("{name}.tmp"));
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o555)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().with_context(|| format!("unpack {name} to {}", path.display()))?;
    Ok(path)
}
