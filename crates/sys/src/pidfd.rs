//! How a process ended, read from its descriptor.

#![expect(unsafe_code, reason = "PIDFD_GET_INFO has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct pidfd_info` up to the exit code (first published size, 64 bytes).
#[repr(C)]
#[derive(Debug, Default)]
struct Info {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const INFO_EXIT: u64 = 1 << 3;
const INFO_SIZE: u32 = 64;
/// `_IOWR(0xFF, 11, struct pidfd_info)`.
// The type differs by C library; the bits are the same.
const GET_INFO: libc::Ioctl = ((3 << 30) | (INFO_SIZE << 16) | (0xFF << 8) | 11) as libc::Ioctl;

const _: () = assert!(std::mem::size_of::<Info>() == INFO_SIZE as usize);

/// The wait status of an ended process; `None` while it runs, or when the kernel (before
/// 6.15) does not tell.
///
/// # Errors
/// As ioctl(2) for anything else.
pub fn exit_status(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut info = Info {
        mask: INFO_EXIT,
        ..Info::default()
    };
    // SAFETY: the request carries the size of `info`, which is writable and lives across
    // the call.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
    if result == 0 {
        return Ok((info.mask & INFO_EXIT != 0).then_some(info.exit_code));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOTTY | libc::EINVAL | libc::ESRCH) => Ok(None),
        _ => Err(error),
    }
}

/// Whether a wait status tells of a death by SIGKILL.
#[must_use]
pub fn was_killed(status: i32) -> bool {
    libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL
}
