//! The volumes of this host.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use warren_types::VolumeId;

use crate::VolumeError;
use crate::error::host;
use crate::image::{self, Mounted};

const IMAGE: &str = "img";
const DRAFT: &str = "draft";
/// Volumes that stay mounted here; sandboxes keep theirs mounted by themselves.
const KEPT: usize = 32;

/// The volumes of this host, one image each. All methods block.
#[derive(Debug)]
pub struct Volumes {
    dir: PathBuf,
    size_mib: u32,
    /// Most recently used last. Held while one is mounted, so that none is twice.
    mounted: Mutex<VecDeque<(VolumeId, Arc<Mounted>)>>,
}

impl Volumes {
    /// Opens the volumes kept in `dir`, making it if needed. New volumes hold `size_mib`.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn open(dir: PathBuf, size_mib: u32) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self {
            dir,
            size_mib,
            mounted: Mutex::default(),
        })
    }

    fn path(&self, id: VolumeId) -> PathBuf {
        self.dir.join(format!("{id}.{IMAGE}"))
    }

    /// Makes an empty volume.
    ///
    /// # Errors
    /// [`VolumeError::Host`]; nothing but a draft is left then, which [`Self::sweep`] removes.
    pub fn create(&self, id: VolumeId) -> Result<(), VolumeError> {
        let failed = || host("make a volume");
        let draft = self.dir.join(format!("{id}.{DRAFT}"));
        let made = image::format(&draft, self.size_mib)
            .and_then(|()| fs::rename(&draft, self.path(id)))
            .and_then(|()| File::open(&self.dir)?.sync_all());
        made.inspect_err(|_| drop(fs::remove_file(&draft)))
            .map_err(failed())
    }

    /// Removes a volume with its content. Sandboxes that have it mounted keep what they see,
    /// as with an open file that is deleted; it is gone with the last of them. Idempotent.
    ///
    /// # Errors
    /// [`VolumeError::Host`].
    pub fn delete(&self, id: VolumeId) -> Result<(), VolumeError> {
        let mut mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        mounted.retain(|(other, _)| *other != id);
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(host("delete a volume")(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes drafts and every volume that is not in `keep`. Called once at start.
    ///
    /// # Errors
    /// [`VolumeError::Host`].
    pub fn sweep(&self, keep: &HashSet<VolumeId>) -> Result<usize, VolumeError> {
        let mut swept = 0;
        let mut sweep = || -> io::Result<()> {
            for entry in fs::read_dir(&self.dir)? {
                let path = entry?.path();
                let id = path
                    .file_stem()
                    .and_then(|stem| stem.to_str()?.parse().ok());
                let kind = path.extension().and_then(|kind| kind.to_str());
                let is_stale = match (kind, id) {
                    (Some(DRAFT), _) => true,
                    (Some(IMAGE), Some(id)) => !keep.contains(&id),
                    _ => false,
                };
                if is_stale {
                    fs::remove_file(path)?;
                    swept += 1;
                }
            }
            Ok(())
        };
        sweep().map_err(host("sweep volumes"))?;
        Ok(swept)
    }

    fn mounted(&self, id: VolumeId) -> Result<Arc<Mounted>, VolumeError> {
        let mut mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = mounted.iter().position(|(other, _)| *other == id) {
            let found = mounted.remove(at).ok_or(VolumeError::NoVolume)?;
            let volume = Arc::clone(&found.1);
            mounted.push_back(found);
            return Ok(volume);
        }
        let volume = Mounted::open(&self.path(id), &format!("warren-volume-{id}"));
        let volume = match volume {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(VolumeError::NoVolume);
            }
            other => Arc::new(other.map_err(host("mount a volume"))?),
        };
        mounted.push_back((id, Arc::clone(&volume)));
        if mounted.len() > KEPT {
            mounted.pop_front();
        }
        Ok(volume)
    }

    /// A detached mount of the volume, for a sandbox. Devices and set-user-id bits have no
    /// effect in it.
    ///
    /// # Errors
    /// [`VolumeError::NoVolume`], [`VolumeError::Host`].
    pub fn mount(&self, id: VolumeId) -> Result<OwnedFd, VolumeError> {
        let mounted = self.mounted(id)?;
        mounted.again().map_err(host("mount a volume"))
    }

    /// The content of the volume.
    ///
    /// # Errors
    /// [`VolumeError::NoVolume`], [`VolumeError::Host`].
    pub fn content(&self, id: VolumeId) -> Result<Content, VolumeError> {
        Ok(Content(Held::Volume(self.mounted(id)?)))
    }
}

/// The content of a volume; keeps it mounted.
#[derive(Debug, Clone)]
pub struct Content(Held);

#[derive(Debug, Clone)]
enum Held {
    Volume(Arc<Mounted>),
    #[cfg(test)]
    Directory(Arc<OwnedFd>),
}

impl Content {
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Held::Volume(mounted) => mounted.root(),
            #[cfg(test)]
            Held::Directory(fd) => std::os::fd::AsFd::as_fd(fd),
        }
    }

    #[cfg(test)]
    pub(crate) fn of_directory(path: &std::path::Path) -> Self {
        Self(Held::Directory(Arc::new(File::open(path).unwrap().into())))
    }
}
