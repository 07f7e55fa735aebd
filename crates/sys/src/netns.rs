//! Namespaces of the calling thread.

#![expect(
    unsafe_code,
    reason = "unsharing is unsafe in rustix because of file tables"
)]

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// The network namespace that the calling thread is in.
///
/// # Errors
/// As open(2).
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Moves the calling thread into a network namespace.
///
/// # Errors
/// As setns(2).
pub fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(
        netns,
        Some(LinkNameSpaceType::Network),
    )?)
}

/// Moves the calling thread into a new network namespace.
///
/// # Errors
/// As unshare(2).
pub fn enter_new() -> io::Result<()> {
    // SAFETY: the flag leaves the file table shared, so no descriptor changes its meaning.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?)
}

/// Moves the calling thread into a new mount namespace.
///
/// # Errors
/// As unshare(2).
pub fn enter_new_mounts() -> io::Result<()> {
    // SAFETY: as above.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?)
}

/// Moves the calling thread into a new cgroup namespace, whose root is the cgroup that it is
/// in, in each hierarchy.
///
/// # Errors
/// As unshare(2).
pub fn enter_new_cgroups() -> io::Result<()> {
    // SAFETY: as above.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }?)
}

/// Moves the calling thread, for good, into a mount namespace; its root and working directory
/// become those of the namespace, and it shares them with no other thread any more.
///
/// # Errors
/// As unshare(2) and setns(2).
pub fn enter_mounts(mounts: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the flag leaves the file table shared, so no descriptor changes its meaning.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
    Ok(move_into_link_name_space(
        mounts,
        Some(LinkNameSpaceType::Mount),
    )?)
}
