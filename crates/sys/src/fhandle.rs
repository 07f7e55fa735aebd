//! Files by the handle that the kernel gives for them.

#![expect(unsafe_code, reason = "open_by_handle_at has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Longest handle that the kernel takes.
pub const MAX_HANDLE: usize = 128;

/// `struct file_handle` with room for the longest handle.
#[repr(C)]
struct Handle {
    length: u32,
    kind: i32,
    bytes: [u8; MAX_HANDLE],
}

/// Opens the file of a handle as a mere reference (`O_PATH`). `mount` is any file, opened for
/// real, on the file system that gave the handle.
///
/// # Errors
/// As open_by_handle_at(2); ESTALE when there is no such file any more; `InvalidInput` for a
/// handle that is too long.
pub fn open(mount: BorrowedFd<'_>, kind: i32, handle: &[u8]) -> io::Result<OwnedFd> {
    let mut raw = Handle {
        length: u32::try_from(handle.len()).map_err(io::Error::other)?,
        kind,
        bytes: [0; MAX_HANDLE],
    };
    raw.bytes
        .get_mut(..handle.len())
        .ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(handle);
    // SAFETY: `raw` has the layout of the kernel's structure, with as many bytes as it says,
    // and lives across the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut raw,
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_handle_of_nothing_is_refused() {
        let here = std::fs::File::open(".").unwrap();
        assert!(open(here.as_fd(), 1, &[0xff; 8]).is_err());
        let long = open(here.as_fd(), 1, &[0; MAX_HANDLE + 1]).unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidInput);
    }
}
