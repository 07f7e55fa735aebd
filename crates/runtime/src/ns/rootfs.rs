//! The root of a sandbox: layers and a writable upper directory, joined by overlayfs. Every
//! part is an id-mapped clone, so files on disk keep the ids that the sandbox sees.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstatvfs, openat};
use warren_sys::creds::FsIdentity;
use warren_sys::mount::{self, Attr, Param};

use super::slot::Slot;

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

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

/// Joins layers (lowest first) and the `upper` and `work` directories below `disk` into a
/// detached mount. The calling thread must keep capabilities on id changes.
pub(crate) fn compose(
    layers: &[OwnedFd],
    (disk, generation): (BorrowedFd<'_>, &Path),
    slot: Slot,
    user_namespace: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let mapped = |dir: BorrowedFd<'_>, path: &Path| {
        let clone = mount::clone_tree(dir, path, false)?;
        mount::idmap(&clone, user_namespace)?;
        io::Result::Ok(clone)
    };
    let lower = layers
        .iter()
        .map(|layer| mapped(layer.as_fd(), Path::new("")))
        .collect::<io::Result<Vec<_>>>()?;
    let writable = mapped(disk, generation)?;
    // Overlayfs makes its work directory as the caller. The map of the clones has no place
    // for the host's root, and the mount would silently be read-only.
    let _identity = FsIdentity::assume(slot.first_id())?;
    let upper = openat(&writable, "upper", DIRECTORY, Mode::empty())?;
    let work = openat(&writable, "work", DIRECTORY, Mode::empty())?;
    let mut params: Vec<_> = lower
        .iter()
        .rev()
        .map(|layer| Param::Fd("lowerdir+", layer.as_fd()))
        .collect();
    params.extend([
        Param::Fd("upperdir", upper.as_fd()),
        Param::Fd("workdir", work.as_fd()),
        Param::Text("redirect_dir", "off"),
        Param::Text("metacopy", "off"),
        Param::Text("index", "off"),
        Param::Text("xino", "off"),
        // A sandbox's files are durable from its snapshot on, not by its fsync.
        Param::Flag("volatile"),
    ]);
    let root = mount::create("overlay", &params, Attr::MOUNT_ATTR_NODEV)?;
    if fstatvfs(&root)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(io::Error::new(
            io::ErrorKind::ReadOnlyFilesystem,
            "overlay is read-only",
        ));
    }
    Ok(root)
}
