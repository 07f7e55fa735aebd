//! The image that a volume is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use warren_sys::loopdev::LoopDevice;
use warren_sys::mount::{self, Attr, Param};

const MIB: u64 = 1024 * 1024;
/// Smallest file system that takes a journal.
pub(crate) const LEAST_MIB: u32 = 32;
/// Any user of a sandbox may write at the top, as in a directory that is shared.
const TOP_MODE: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);

/// A volume's file system. The mount is attached nowhere.
#[derive(Debug)]
pub(crate) struct Mounted {
    root: OwnedFd,
    device: PathBuf,
}

impl Mounted {
    /// Mounts an image, or joins the mount that sandboxes have kept while the server was away.
    pub(crate) fn open(image: &Path, name: &str) -> io::Result<Self> {
        if let Some(joined) = Self::join(image)? {
            return Ok(joined);
        }
        let file = open(image)?;
        let device = LoopDevice::attach(&file, name)?;
        let path = device.path().to_owned();
        let root = mount_device(&path)?;
        Ok(Self { root, device: path })
    }

    /// Joins the mount of an image if there is one: two devices on one would destroy it.
    pub(crate) fn join(image: &Path) -> io::Result<Option<Self>> {
        match LoopDevice::find(&open(image)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            device => {
                let device = device?;
                let path = device.path().to_owned();
                let root = mount_device(&path)?;
                Ok(Some(Self { root, device: path }))
            }
        }
    }

    /// Writes everything to the image. Returns how many sectors were ever written to its
    /// device: as long as that stays the same, so does the image.
    pub(crate) fn sync(&self) -> io::Result<u64> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = openat(self.root(), ".", flags, Mode::empty())?;
        rustix::fs::syncfs(&top)?;
        let name = self.device.file_name().unwrap_or_default();
        let stat = std::fs::read_to_string(Path::new("/sys/block").join(name).join("stat"))?;
        let sectors = stat.split_ascii_whitespace().nth(6);
        sectors
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// One more mount of the same file system.
    pub(crate) fn again(&self) -> io::Result<OwnedFd> {
        mount_device(&self.device)
    }
}

fn open(image: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc_nofollow())
        .open(image)
}

fn libc_nofollow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

fn mount_device(device: &Path) -> io::Result<OwnedFd> {
    let source = device.to_string_lossy();
    let params = [Param::Text("source", &source), Param::Flag("noinit_itable")];
    let attr = Attr::MOUNT_ATTR_NODEV | Attr::MOUNT_ATTR_NOSUID;
    mount::create("ext4", &params, attr)
}

/// Makes an image that holds an empty directory. Replaces a draft of the same name.
pub(crate) fn format(draft: &Path, size_mib: u32) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(draft)?;
    file.set_len(u64::from(size_mib.max(LEAST_MIB)) * MIB)?;
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-b", "4096", "-J", "size=4"])
        .args(["-O", "^resize_inode"])
        .args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"])
        .arg(draft)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!("mkfs.ext4: {text}")));
    }
    let mounted = Mounted::open(draft, "warren-volume")?;
    unlinkat(mounted.root(), "lost+found", AtFlags::REMOVEDIR)?;
    let top = openat(
        mounted.root(),
        ".",
        OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::fs::fchmod(&top, TOP_MODE)?;
    rustix::fs::syncfs(&top)?;
    file.sync_all()
}
