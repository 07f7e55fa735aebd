//! Mounting directories of the host in a sandbox that runs.
//!
//! A thread of its own enters the sandbox's mount namespace and moves a detached, id-mapped
//! mount there. So warm sandboxes take mounts too, and what a template has put at the path is
//! resolved in the sandbox's own view: no link leads to the host.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use warren_sys::creds::{self, FsIdentity};
use warren_sys::mount::{self, Attr};
use warren_sys::netns;

use super::parts::{Parts, Process};
use super::slot::Slot;
use crate::Attachment;

/// The two namespaces of a sandbox that matter here.
struct Namespaces {
    user: OwnedFd,
    mounts: OwnedFd,
}

impl Namespaces {
    fn of(process: &Process) -> io::Result<Self> {
        let dir = Path::new("/proc").join(process.pid.to_string()).join("ns");
        let found = Self {
            user: File::open(dir.join("user"))?.into(),
            mounts: File::open(dir.join("mnt"))?.into(),
        };
        // The number was the sandbox's if the sandbox still has it.
        let mut fds = [PollFd::from_borrowed_fd(
            process.pidfd.as_fd(),
            PollFlags::IN,
        )];
        match poll(&mut fds, Some(&Timespec::default()))? {
            0 => Ok(found),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Mounts directories in a sandbox, in this order. Blocks.
pub(super) fn attach(parts: &Parts, mounts: Vec<Attachment>) -> io::Result<()> {
    let process = parts.process.as_ref().ok_or(io::ErrorKind::NotFound)?;
    attach_to(process, parts.slot, mounts)
}

/// Mounts directories in the sandbox of a slot that has this first process. Blocks.
pub(super) fn attach_to(process: &Process, slot: Slot, mounts: Vec<Attachment>) -> io::Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    let namespaces = Namespaces::of(process)?;
    let owner = slot.first_id();
    // The thread can't come back from there.
    let worker = thread::Builder::new()
        .name("warren-attach".to_owned())
        .spawn(move || enter_and_attach(&namespaces, owner, &mounts))?;
    worker
        .join()
        .map_err(|_| io::Error::other("the thread that mounts panicked"))?
}

fn enter_and_attach(namespaces: &Namespaces, owner: u32, mounts: &[Attachment]) -> io::Result<()> {
    for mount in mounts {
        mount::idmap(&mount.tree, namespaces.user.as_fd())?;
        if mount.read_only {
            mount::set_attr(&mount.tree, Attr::MOUNT_ATTR_RDONLY, false)?;
        }
    }
    creds::keep_capabilities_on_id_change()?;
    netns::enter_mounts(namespaces.mounts.as_fd())?;
    for mount in mounts {
        let told = |error: io::Error| {
            io::Error::new(error.kind(), format!("mount at {}: {error}", mount.path))
        };
        let onto = {
            // Directories that are missing become those of the sandbox's root user.
            let _identity = FsIdentity::assume(owner)?;
            directory(&mount.path).map_err(told)?
        };
        mount::attach(&mount.tree, onto).map_err(told)?;
    }
    Ok(())
}

/// Opens the directory at an absolute path of the sandbox, making what is missing.
fn directory(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let root = openat(CWD, "/", flags, Mode::empty())?;
    let open = |path: &str| loop {
        match openat2(&root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    };
    let mut at = String::from(".");
    let mut directory = open(&at)?;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        match mkdirat(&directory, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        at.push('/');
        at.push_str(part);
        directory = open(&at)?;
    }
    Ok(directory)
}
