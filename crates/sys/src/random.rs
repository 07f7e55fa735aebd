//! The kernel's random numbers.

#![expect(unsafe_code, reason = "the request has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// Makes the kernel take a new seed, upon which every process drops random numbers that it
/// holds in advance: copies of a process that share such numbers then differ.
///
/// # Errors
/// As ioctl(2); `PermissionDenied` without CAP_SYS_ADMIN on the host.
pub fn reseed() -> io::Result<()> {
    let device = File::open("/dev/urandom")?;
    // SAFETY: the request takes no argument.
    if unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
