//! Mounts as descriptors: made, changed and moved without touching any path in between.

#![expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount,
    open_tree,
};

pub use rustix::mount::MountAttrFlags as Attr;
pub use rustix::mount::MountFlags;

/// One parameter of a new file system.
#[derive(Debug, Clone, Copy)]
pub enum Param<'a> {
    /// A switch.
    Flag(&'a str),
    /// A text.
    Text(&'a str, &'a str),
    /// A descriptor.
    Fd(&'a str, BorrowedFd<'a>),
}

/// Makes a file system and a detached mount of it. The mount lives as long as the
/// descriptor, or where it is moved to.
///
/// # Errors
/// As fsopen(2), fsconfig(2), fsmount(2); the kernel's message, if it left one, is the text.
pub fn create(kind: &str, params: &[Param<'_>], attr: Attr) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    configure(&context, params).map_err(|error| explain(&context, error))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attr).map_err(|e| explain(&context, e.into()))
}

fn configure(context: &OwnedFd, params: &[Param<'_>]) -> io::Result<()> {
    for param in params {
        match param {
            Param::Flag(key) => fsconfig_set_flag(context, *key)?,
            Param::Text(key, value) => fsconfig_set_string(context, *key, *value)?,
            Param::Fd(key, fd) => fsconfig_set_fd(context, *key, fd)?,
        }
    }
    Ok(fsconfig_create(context)?)
}

/// Makes a file system and mounts it at a path, in one call: options may fill a page, where
/// each parameter of [`create`] ends at 255 bytes.
///
/// # Errors
/// As mount(2); `InvalidInput` for options with a zero byte.
pub fn at(kind: &str, path: &Path, options: &str, flags: MountFlags) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    Ok(mount(kind, path, kind, flags, &*options)?)
}

/// Adds the message that the kernel left in the context.
fn explain(context: &OwnedFd, error: io::Error) -> io::Error {
    let mut text = [0u8; 512];
    // The descriptor is a duplicate so that reading does not close the caller's.
    let length = context
        .try_clone()
        .and_then(|fd| std::fs::File::from(fd).read(&mut text))
        .unwrap_or(0);
    if length == 0 {
        return error;
    }
    let text = String::from_utf8_lossy(&text[..length]).trim().to_owned();
    io::Error::new(error.kind(), format!("{error} ({text})"))
}

/// Clones the mount at `path` below `dir` into a detached one, with what is mounted below
/// it if `recursive`.
///
/// # Errors
/// As open_tree(2).
pub fn clone_tree(dir: impl AsFd, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(dir, path, flags)?)
}

/// Moves the mount `from` onto the directory or file `onto` is open on.
///
/// # Errors
/// As move_mount(2).
pub fn attach(from: impl AsFd, onto: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(from, "", onto, "", flags)?)
}

/// Changes attributes of a mount, and of those below it if `recursive`.
///
/// # Errors
/// As mount_setattr(2).
pub fn set_attr(mount: impl AsFd, set: MountAttrFlags, recursive: bool) -> io::Result<()> {
    setattr(mount.as_fd(), u64::from(set.bits()), None, recursive)
}

/// Shifts the owners that a detached mount shows by the id map of a user namespace.
///
/// # Errors
/// As mount_setattr(2); `InvalidInput` when the file system does not support it.
pub fn idmap(mount: impl AsFd, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    setattr(
        mount.as_fd(),
        libc::MOUNT_ATTR_IDMAP,
        Some(user_namespace),
        false,
    )
}

fn setattr(
    mount: BorrowedFd<'_>,
    set: u64,
    user_namespace: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> io::Result<()> {
    let userns = user_namespace.map_or(0, |fd| fd.as_raw_fd().cast_unsigned());
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(userns),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attr` is initialised, lives across the call and has the size given; the path
    // is an empty C string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Moves the mount at the path `from`, with what is mounted below it, onto the directory
/// `onto` is open on.
///
/// # Errors
/// As move_mount(2).
pub fn relocate(from: &Path, onto: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(rustix::fs::CWD, from, onto, "", flags)?)
}
