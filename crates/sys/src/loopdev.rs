//! Loop devices.

#![expect(unsafe_code, reason = "the loop ioctls have no safe wrapper")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Two processes may be given the same free device; the loser asks again.
const ATTEMPTS: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const EMPTY: Info = Info {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// A loop device that is bound to a file. The binding ends when the last user of the device
/// (this descriptor, a mount) is gone.
#[derive(Debug)]
pub struct LoopDevice {
    file: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Binds a free device to `file`; `name` is shown by tools in place of its path.
    ///
    /// # Errors
    /// As ioctl(2) LOOP_CONFIGURE; `PermissionDenied` without rights on loop devices.
    pub fn attach(file: &File, name: &str) -> io::Result<Self> {
        let control = open(Path::new("/dev/loop-control"))?;
        let mut config = Config {
            fd: file.as_raw_fd().cast_unsigned(),
            block_size: 0,
            info: EMPTY,
            reserved: [0; 8],
        };
        config.info.flags = LO_FLAGS_AUTOCLEAR;
        let length = name.len().min(63);
        config.info.file_name[..length].copy_from_slice(&name.as_bytes()[..length]);
        for _ in 0..ATTEMPTS {
            // SAFETY: the request takes no argument and returns a number.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = match open(&path) {
                // Taken away between the two calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            // SAFETY: `config` is initialised, lives across the call and is only read.
            let result =
                unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
            if result == 0 {
                return Ok(Self { file: device, path });
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EBUSY) {
                return Err(error);
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Finds the device that is bound to `file`.
    ///
    /// # Errors
    /// `NotFound` when there is none; as readdir(3) otherwise.
    pub fn find(file: &File) -> io::Result<Self> {
        let wanted = file.metadata()?;
        for entry in std::fs::read_dir("/sys/block")? {
            let name = entry?.file_name();
            let Some(text) = name.to_str().filter(|name| name.starts_with("loop")) else {
                continue;
            };
            // Bound devices have this directory; the others need not be opened.
            if !Path::new("/sys/block").join(text).join("loop").exists() {
                continue;
            }
            let path = Path::new("/dev").join(text);
            let Ok(device) = open(&path) else { continue };
            let mut info = EMPTY;
            // SAFETY: `info` has the layout the request asks for and is writable.
            let result =
                unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
            if result == 0 && info.inode == wanted.ino() && info.device == wanted.dev() {
                return Ok(Self { file: device, path });
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// The device node.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl From<LoopDevice> for OwnedFd {
    fn from(device: LoopDevice) -> Self {
        device.file.into()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path)
}

/// Makes `target` share the blocks of `source`, copy on write.
///
/// # Errors
/// As ioctl(2) FICLONE; `Unsupported` where the file system can't.
pub fn reflink(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::ioctl_ficlone(target, source)?)
}
