//! The in-sandbox agent that this binary carries.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};

static ENVD: &[u8] = include_bytes!(env!("WARREN_ENVD_PATH"));

/// Puts the agent into the data directory, under a name that tells its content: sandboxes
/// that an older server started keep theirs. Returns its path.
pub(crate) fn unpack(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let dir = data_dir.join("guest");
    let digest = hex::encode(Sha256::digest(ENVD));
    let path = dir.join(format!("envd-{digest}"));
    let write = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(&dir)?;
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == ENVD.len() as u64) {
            return Ok(());
        }
        let temporary = dir.join("envd.tmp");
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o555)
            .open(&temporary)?;
        file.write_all(ENVD)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().with_context(|| format!("unpack the agent to {}", path.display()))?;
    Ok(path)
}
