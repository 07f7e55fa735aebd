//! The name of an instance: what belongs to the server of one data directory.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Where all instances on the host keep what must not outlive a boot of the machine, each in
/// a directory of its name.
pub const RUN_DIR: &str = "/run/warren";

/// An instance's name and places.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    name: String,
    seed: u32,
}

impl Instance {
    /// The instance of a data directory, which is made if need be.
    pub(crate) fn of(data_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(data_dir)?;
        let path = fs::canonicalize(data_dir)?;
        let seed = hash(path.as_os_str().as_encoded_bytes());
        Ok(Self {
            name: format!("{seed:08x}"),
            seed,
        })
    }

    /// Eight hexadecimal digits; part of the name of everything on the host.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn seed(&self) -> u32 {
        self.seed
    }

    /// Its directory of run-time state.
    pub(crate) fn run_dir(&self) -> PathBuf {
        Path::new(RUN_DIR).join(&self.name)
    }

    /// Host's end of the link to its router.
    pub(crate) fn link(&self) -> String {
        format!("wrn{}", self.name)
    }

    /// Makes sure that no other process serves this instance, as long as the file is held.
    pub(crate) fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(self.run_dir())?;
        let file = File::create(self.run_dir().join("lock"))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }
}

/// FNV-1a: stable between versions, unlike the standard library's.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}
