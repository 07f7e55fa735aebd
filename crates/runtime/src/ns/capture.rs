//! Captures: a sandbox's disk, and with it its processes when they can be carried, as files.
//!
//! ```text
//! captures/NAME/manifest.json   what it is     written last: without it there is no capture
//!               disk.ext4       a clone of the sandbox's image
//!               memory/, agent  CRIU's images and the agent that ran, with memory
//! captures/.draft-NAME          one being written     captures/.gone-NAME   one being removed
//! captures/.restore-SLOT        what a restore works with
//! ```

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use warren_types::{Resources, SandboxId};

use super::criu::CapturedMemory;
use super::disk::{CapturedDisk, Disk};
use crate::{CaptureInfo, Record, RuntimeError};

const MANIFEST: &str = "manifest.json";
const DISK: &str = "disk.ext4";
/// Layout of captures; others are refused.
const FORMAT: u32 = 1;
const DRAFT: &str = ".draft-";
const GONE: &str = ".gone-";
/// Begins the names of directories that restores work in.
pub(crate) const RESTORE_PREFIX: &str = ".restore-";

/// What is written beside a captured disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) source: SandboxId,
    pub(crate) resources: Resources,
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) disk: CapturedDisk,
    pub(crate) memory: Option<CapturedMemory>,
}

fn step(step: &'static str) -> impl Fn(io::Error) -> RuntimeError {
    move |source| RuntimeError::Step {
        step: step.to_owned(),
        source,
    }
}

/// A capture that is read.
#[derive(Debug, Clone)]
pub(crate) struct Capture {
    dir: PathBuf,
    pub(crate) manifest: Manifest,
}

impl Capture {
    /// Reads the manifest. Blocks.
    pub(crate) fn open(dir: &Path) -> Result<Self, RuntimeError> {
        let text = match fs::read(dir.join(MANIFEST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RuntimeError::NoCapture(dir.to_owned()));
            }
            other => other.map_err(step("read a capture"))?,
        };
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(io::Error::from)
            .map_err(step("read a capture"))?;
        if manifest.format != FORMAT {
            let text = format!("its format is {}, not {FORMAT}", manifest.format);
            return Err(step("read a capture")(io::Error::other(text)));
        }
        Ok(Self {
            dir: dir.to_owned(),
            manifest,
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.dir.join(DISK)
    }

    /// What it holds. Blocks.
    pub(crate) fn info(&self) -> Result<CaptureInfo, RuntimeError> {
        let bytes = size(&self.dir).map_err(step("read a capture"))?;
        let Manifest {
            source,
            resources,
            layers,
            memory,
            ..
        } = self.manifest.clone();
        Ok(CaptureInfo {
            source,
            bytes,
            has_memory: memory.is_some(),
            resources,
            layers,
        })
    }
}

/// Bytes that the files of a directory and of those in it take.
fn size(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        bytes += if facts.is_dir() {
            size(&entry.path())?
        } else {
            facts.blocks() * 512
        };
    }
    Ok(bytes)
}

/// Directory for a capture while it is written; removed when dropped unfinished.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    finished: PathBuf,
    done: bool,
}

impl Draft {
    /// Starts the capture `into`, a child of `captures`. Blocks.
    pub(crate) fn begin(captures: &Path, into: &Path) -> Result<Self, RuntimeError> {
        let name = child(captures, into)?;
        if into.exists() {
            return Err(step("begin a capture")(io::ErrorKind::AlreadyExists.into()));
        }
        let path = captures.join(prefixed(DRAFT, &name));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(step("begin a capture"))?;
        Ok(Self {
            path,
            finished: into.to_owned(),
            done: false,
        })
    }

    /// Captures the disk of a frozen sandbox. Blocks.
    pub(crate) fn add_disk(&self, disk: &Disk) -> Result<CapturedDisk, RuntimeError> {
        disk.capture(&self.path.join(DISK))
            .map_err(step("capture the disk"))
    }

    /// Where it is written.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it whole and durable. Blocks.
    pub(crate) fn finish(
        mut self,
        record: &Record,
        disk: CapturedDisk,
        memory: Option<CapturedMemory>,
    ) -> Result<CaptureInfo, RuntimeError> {
        let manifest = Manifest {
            format: FORMAT,
            source: record.id.clone(),
            resources: record.resources,
            layers: record.layers.clone(),
            disk,
            memory,
        };
        self.write(&manifest).map_err(step("finish a capture"))?;
        self.done = true;
        Capture {
            dir: self.finished.clone(),
            manifest,
        }
        .info()
    }

    fn write(&self, manifest: &Manifest) -> io::Result<()> {
        let mut file = File::create_new(self.path.join(MANIFEST))?;
        file.write_all(&serde_json::to_vec(manifest)?)?;
        file.sync_all()?;
        File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, &self.finished)?;
        let parent = self.finished.parent().unwrap_or(Path::new("/"));
        File::open(parent)?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "an unfinished capture is left for the next sweep");
        }
    }
}

/// The name of a capture, if its place is one for captures.
fn child(captures: &Path, capture: &Path) -> Result<OsString, RuntimeError> {
    let refused = || step("find the capture's place")(io::ErrorKind::InvalidInput.into());
    let name = capture.file_name().ok_or_else(refused)?;
    if capture.parent() != Some(captures) || name.as_encoded_bytes().starts_with(b".") {
        return Err(refused());
    }
    Ok(name.to_owned())
}

fn prefixed(prefix: &str, name: &std::ffi::OsStr) -> OsString {
    let mut whole = OsString::from(prefix);
    whole.push(name);
    whole
}

/// Removes a capture; it is gone or whole at every instant. Blocks.
pub(crate) fn forget(captures: &Path, capture: &Path) -> Result<(), RuntimeError> {
    let name = child(captures, capture)?;
    let gone = captures.join(prefixed(GONE, &name));
    let removed = match fs::rename(capture, &gone) {
        Ok(()) => fs::remove_dir_all(&gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(step("remove a capture"))
}

/// Removes captures that were not finished, or not wholly removed. Blocks.
pub(crate) fn sweep(captures: &Path) -> io::Result<()> {
    for entry in fs::read_dir(captures)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let ours = [DRAFT, GONE, RESTORE_PREFIX];
        if ours.iter().any(|own| name.starts_with(own.as_bytes())) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_children_of_the_captures_directory_are_places_for_captures() {
        let captures = Path::new("/data/captures");
        assert_eq!(child(captures, Path::new("/data/captures/a")).unwrap(), "a");
        for bad in [
            "/data/captures",
            "/data/captures/.draft-a",
            "/data/captures/a/b",
            "/data/captures/..",
            "/etc/a",
        ] {
            assert!(child(captures, Path::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unfinished_capture_is_none_and_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("one");
        let mut draft = Draft::begin(dir.path(), &into).unwrap();
        assert!(matches!(
            Capture::open(&into),
            Err(RuntimeError::NoCapture(_))
        ));
        // As if the process had been killed.
        draft.done = true;
        drop(draft);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        sweep(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        drop(Draft::begin(dir.path(), &into).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
