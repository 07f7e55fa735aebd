//! Making a process in new namespaces.

#![expect(unsafe_code, reason = "clone3 has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The namespaces that a sandbox is born in.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// libc declares it too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a clone the caller is on.
#[derive(Debug)]
pub enum Cloned {
    /// The original process.
    Parent {
        /// The new process as the original sees it.
        pid: u32,
        /// A descriptor of the new process, close-on-exec.
        pidfd: OwnedFd,
    },
    /// The new process.
    Child,
}

/// Clones the calling process into new user, mount, pid, network, IPC and UTS namespaces,
/// placed in the v2 cgroup `cgroup` from its first instruction on. A new cgroup namespace
/// would have the caller's group for its root, not that one: see
/// [`crate::netns::enter_new_cgroups`].
///
/// # Errors
/// As clone3(2); `InvalidInput` when the process has more than one thread, because the copy
/// could then inherit a lock that nobody in it will ever release.
pub fn into_namespaces(cgroup: BorrowedFd<'_>) -> io::Result<Cloned> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "only a single-threaded process can be cloned",
        ));
    }
    let mut pidfd: RawFd = -1;
    let flags = NAMESPACES | libc::CLONE_PIDFD;
    // SAFETY: `clone_args` is plain data for which all zeros is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(flags.cast_unsigned()) | CLONE_INTO_CGROUP;
    args.pidfd = std::ptr::from_mut(&mut pidfd).addr() as u64;
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    // SAFETY: `args` lives across the call and has the size given. No stack is passed and
    // memory is not shared, so the child goes on with a copy of everything, as after fork;
    // the process has one thread (checked above), so no lock can be held by another.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            std::mem::size_of::<libc::clone_args>(),
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => Ok(Cloned::Parent {
            pid: u32::try_from(pid).map_err(io::Error::other)?,
            // SAFETY: the kernel wrote a fresh descriptor there that nothing else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}
