//! The root of a sandbox: layers and a writable upper directory, joined by overlayfs. Every
//! part is an id-mapped clone, so files on disk keep the ids that the sandbox sees.
//!
//! Overlayfs takes detached mounts by descriptor since Linux 6.15. Older kernels want paths in
//! the mount namespace of the caller: there, a few threads with a namespace of their own do
//! the joining. What comes out is the same, a detached mount.

mod by_path;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstatvfs, openat};
use warren_sys::creds::FsIdentity;
use warren_sys::mount::{self, Attr, Param};

use self::by_path::{Desk, Parts};
use super::config::Overlay;
use super::disk::Disk;
use super::slot::Slot;
use super::worker::Worker;

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

/// Options of every overlay.
const OPTIONS: [(&str, &str); 4] = [
    ("redirect_dir", "off"),
    ("metacopy", "off"),
    ("index", "off"),
    ("xino", "off"),
];
/// A sandbox's files are durable from its snapshot on, not by its fsync.
const VOLATILE: &str = "volatile";

/// Opens the layers' directories, lowest first.
pub(crate) fn open_layers(layers: &[PathBuf]) -> Result<Vec<OwnedFd>, (PathBuf, io::Error)> {
    layers
        .iter()
        .map(|layer| {
            openat(CWD, layer, DIRECTORY | OFlags::PATH, Mode::empty())
                .map_err(|error| (layer.clone(), error.into()))
        })
        .collect()
}

/// Joins roots, in the way that the kernel allows.
#[derive(Debug)]
pub(crate) struct Joiner {
    /// Threads for joining by path; `None` where the kernel takes descriptors.
    desks: Option<Worker<Desk>>,
}

impl Joiner {
    /// Chooses the way, and starts what it needs.
    pub(crate) fn start(wanted: Overlay, threads: usize) -> io::Result<Self> {
        let by_path = match wanted {
            Overlay::ByPath => true,
            Overlay::Probe => match takes_detached_layers() {
                Ok(()) => false,
                Err(error) => {
                    tracing::info!(%error, "overlays are joined by path: the kernel is older");
                    true
                }
            },
        };
        let desks = by_path
            .then(|| Worker::start("warren-join", threads, Desk::set_up))
            .transpose()?;
        Ok(Self { desks })
    }

    /// Joins layers (lowest first) and the upper directory of the disk's present use into a
    /// detached mount. The calling thread must keep capabilities on id changes. Blocks.
    pub(crate) fn join(
        &self,
        layers: &[OwnedFd],
        disk: &Disk,
        slot: Slot,
        user_namespace: BorrowedFd<'_>,
    ) -> io::Result<OwnedFd> {
        let lower = layers
            .iter()
            .map(|layer| {
                let clone = mount::clone_tree(layer.as_fd(), Path::new(""), false)?;
                mapped(clone, user_namespace)
            })
            .collect::<io::Result<Vec<_>>>()?;
        let root = match &self.desks {
            None => {
                let clone = mount::clone_tree(disk.mount(), &disk.directory(), false)?;
                join_descriptors(&lower, &mapped(clone, user_namespace)?, slot)?
            }
            Some(desks) => {
                // A detached mount can't be cloned there, but made once more.
                let parts = Parts {
                    lower,
                    disk: mapped(disk.mount_again()?, user_namespace)?,
                    directory: disk.directory(),
                    slot,
                };
                desks.run_blocking(move |desk| desk.join(&parts))?
            }
        };
        if fstatvfs(&root)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                "overlay is read-only",
            ));
        }
        Ok(root)
    }
}

fn mapped(mount: OwnedFd, user_namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    mount::idmap(&mount, user_namespace)?;
    Ok(mount)
}

fn join_descriptors(lower: &[OwnedFd], writable: &OwnedFd, slot: Slot) -> io::Result<OwnedFd> {
    // Overlayfs makes its work directory as the caller. The map of the clones has no place
    // for the host's root, and the mount would silently be read-only.
    let _identity = FsIdentity::assume(slot.first_id())?;
    let upper = openat(writable, "upper", DIRECTORY, Mode::empty())?;
    let work = openat(writable, "work", DIRECTORY, Mode::empty())?;
    let mut params: Vec<_> = lower
        .iter()
        .rev()
        .map(|layer| Param::Fd("lowerdir+", layer.as_fd()))
        .collect();
    params.extend([
        Param::Fd("upperdir", upper.as_fd()),
        Param::Fd("workdir", work.as_fd()),
    ]);
    params.extend(OPTIONS.map(|(key, value)| Param::Text(key, value)));
    params.push(Param::Flag(VOLATILE));
    mount::create("overlay", &params, Attr::MOUNT_ATTR_NODEV)
}

/// Tries whether overlayfs takes clones of detached mounts as layers.
pub(crate) fn takes_detached_layers() -> io::Result<()> {
    let layer = || {
        let mount = mount::create("tmpfs", &[Param::Text("size", "4k")], Attr::empty())?;
        mount::clone_tree(&mount, Path::new(""), false)
    };
    // Without an upper directory, overlayfs wants two layers.
    let (one, other) = (layer()?, layer()?);
    let params = [&one, &other].map(|layer| Param::Fd("lowerdir+", layer.as_fd()));
    mount::create("overlay", &params, Attr::empty()).map(drop)
}

impl fmt::Display for Joiner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.desks.is_some() {
            "by path"
        } else {
            "by descriptor"
        })
    }
}
