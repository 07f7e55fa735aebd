//! Joining by path, for kernels before 6.15.

use std::fmt::Write;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chdir, pivot_root};
use warren_sys::creds::{self, FsIdentity};
use warren_sys::mount::{self, Attr, MountFlags, Param};
use warren_sys::netns;

use super::super::slot::Slot;
use super::{OPTIONS, VOLATILE};

/// Most layers that overlayfs joins.
const MAX_LAYERS: usize = 500;
/// Where the writable disk and the finished overlay are mounted.
const DISK: &str = "d";
const ROOT: &str = "r";

/// What makes up a root. All mounts are detached and id-mapped.
#[derive(Debug)]
pub(super) struct Parts {
    /// Lowest first.
    pub(super) lower: Vec<OwnedFd>,
    /// The whole disk.
    pub(super) disk: OwnedFd,
    /// Directory of the use on it.
    pub(super) directory: PathBuf,
    pub(super) slot: Slot,
}

/// A thread's own mount namespace: one small file system, which is root and working
/// directory, and in it places to mount on. Names are short, because the options of a mount
/// must fit one page.
#[derive(Debug)]
pub(super) struct Desk {
    /// Number of places for layers.
    places: usize,
}

fn place(number: usize) -> String {
    number.to_string()
}

impl Desk {
    /// Moves the calling thread into its namespace, for good.
    pub(super) fn set_up() -> io::Result<Self> {
        creds::keep_capabilities_on_id_change()?;
        netns::enter_new_mounts()?;
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )?;
        let params = [Param::Text("mode", "0755"), Param::Text("size", "4m")];
        let desk = mount::create("tmpfs", &params, Attr::MOUNT_ATTR_NOSUID)?;
        // Any directory will do: the whole old tree is detached below.
        mount::attach(&desk, open("/tmp")?)?;
        chdir("/tmp")?;
        for dir in ["old", DISK, ROOT] {
            fs::create_dir(dir)?;
        }
        pivot_root(".", "old")?;
        chdir("/")?;
        unmount("old", UnmountFlags::DETACH)?;
        Ok(Self { places: 0 })
    }

    /// Joins parts into a detached mount.
    pub(super) fn join(&mut self, parts: &Parts) -> io::Result<OwnedFd> {
        let count = parts.lower.len();
        if count > MAX_LAYERS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{count} layers are more than {MAX_LAYERS}"),
            ));
        }
        while self.places < count {
            fs::create_dir(place(self.places))?;
            self.places += 1;
        }
        let joined = self.mount(parts);
        let mut cleared = Ok(());
        for at in (0..count).map(place).chain([DISK.into(), ROOT.into()]) {
            match unmount(&at, UnmountFlags::DETACH) {
                // Not reached.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => cleared = Err(error.into()),
            }
        }
        // The failure to join is the one to tell.
        let root = joined?;
        cleared.map(|()| root)
    }

    fn mount(&self, parts: &Parts) -> io::Result<OwnedFd> {
        for (number, layer) in parts.lower.iter().enumerate() {
            mount::attach(layer, open(&place(number))?)?;
        }
        mount::attach(&parts.disk, open(DISK)?)?;
        // As when joining by descriptor.
        let _identity = FsIdentity::assume(parts.slot.first_id())?;
        mount::at(
            "overlay",
            Path::new(ROOT),
            &options(parts),
            MountFlags::NODEV,
        )?;
        mount::clone_tree(CWD, Path::new(ROOT), false)
    }
}

fn options(parts: &Parts) -> String {
    let lower: Vec<_> = (0..parts.lower.len()).rev().map(place).collect();
    let disk = Path::new(DISK).join(&parts.directory);
    let mut text = format!(
        "lowerdir={},upperdir={},workdir={},{VOLATILE}",
        lower.join(":"),
        disk.join("upper").display(),
        disk.join("work").display(),
    );
    for (key, value) in OPTIONS {
        // Formatting into a string can't fail.
        let _ok = write!(text, ",{key}={value}");
    }
    text
}

fn open(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}
