//! Identity of the calling thread.

#![expect(unsafe_code, reason = "setfsuid and setgroups have no safe wrapper")]

use std::io;

use rustix::thread::{
    CapabilitiesSecureBits, capabilities_secure_bits, set_capabilities_secure_bits,
};
use rustix::thread::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

/// Lets the calling thread change its user ids without losing capabilities. Meant for
/// threads that do nothing else than prepare file systems: it stays in force.
///
/// # Errors
/// `PermissionDenied` without `CAP_SETPCAP`.
pub fn keep_capabilities_on_id_change() -> io::Result<()> {
    let bits = capabilities_secure_bits()?;
    set_capabilities_secure_bits(bits | CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    Ok(())
}

/// The file system identity of the calling thread, put back to 0 when dropped.
#[derive(Debug)]
pub struct FsIdentity(());

impl FsIdentity {
    /// Makes files that the calling thread creates belong to `id` (user and group).
    ///
    /// # Errors
    /// `PermissionDenied` when the kernel did not take over the identity.
    pub fn assume(id: u32) -> io::Result<Self> {
        set_fs_ids(id);
        let guard = Self(());
        // The calls report no failure; asking for an invalid id returns the one in force.
        // SAFETY: takes and returns plain numbers.
        let user = unsafe { libc::setfsuid(u32::MAX) };
        // SAFETY: as above.
        let group = unsafe { libc::setfsgid(u32::MAX) };
        if user.cast_unsigned() == id && group.cast_unsigned() == id {
            Ok(guard)
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

impl Drop for FsIdentity {
    fn drop(&mut self) {
        set_fs_ids(0);
    }
}

fn set_fs_ids(id: u32) {
    // SAFETY: takes and returns plain numbers; affects the calling thread only.
    unsafe { libc::setfsgid(id) };
    // SAFETY: as above.
    unsafe { libc::setfsuid(id) };
}

/// Makes a single-threaded process that was just cloned into a user namespace its root
/// user, without supplementary groups.
///
/// # Errors
/// As setresuid(2), setresgid(2), setgroups(2).
pub fn become_namespace_root() -> io::Result<()> {
    // SAFETY: a zero length means that the pointer is not read.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, 0usize, std::ptr::null::<u32>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    Ok(())
}

/// Forgets signal handling that exec would hand on: every disposition becomes the default
/// and no signal is blocked.
///
/// # Errors
/// As sigprocmask(2).
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        // SAFETY: the default disposition refers to no code of ours. Numbers that can't be
        // changed (SIGKILL, SIGSTOP, those of libc) are refused, which is what we want.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: a signal set is plain data for which all zeros is a valid (empty) value.
    let empty: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `empty` is initialised and the old mask is not asked for.
    let result =
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets the kernel reap the children of this process.
///
/// # Errors
/// As signal(2).
pub fn ignore_children() -> io::Result<()> {
    // SAFETY: ignoring refers to no code of ours.
    let old = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    if old == libc::SIG_ERR {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Raises the soft limit of open files to the hard one, at most `wanted`.
///
/// # Errors
/// As setrlimit(2).
pub fn raise_open_files(wanted: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let ceiling = limit.maximum.unwrap_or(wanted).min(wanted);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(ceiling),
            maximum: Some(ceiling),
        },
    )?;
    Ok(())
}

/// Marks every descriptor from `first` on as close-on-exec: programs that start others often
/// leave some open.
///
/// # Errors
/// As close_range(2).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: only flags of descriptors change, and none is closed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
