//! One image.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags, fstatvfs, openat};
use serde::{Deserialize, Serialize};
use warren_sys::loopdev::{LoopDevice, reflink};
use warren_sys::mount::{self, Attr, Param};

use super::super::slot::Slot;
use super::files;

const MIB: u64 = 1024 * 1024;
/// Smaller images get more files per byte: packages are many small files.
const SMALL_MIB: u32 = 4096;
/// Smallest file system that is made.
const LEAST_MIB: u32 = 16;
/// A disk that held more than this when it was given back is made anew: wiping would take
/// longer, and its blocks stay allocated.
const REUSE_BYTES: u64 = 48 * MIB;
const REUSE_FILES: u64 = 2_000;

/// A mounted image, ready for one use or in use.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    mount: OwnedFd,
    /// Its loop device, which the mount holds.
    device: PathBuf,
    generation: u32,
    size_mib: u32,
    /// Fresh figures, to tell what a use has added.
    empty: Figures,
    /// Whether it holds nothing from before its use.
    blank: bool,
}

/// How much of a file system is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Figures {
    bytes: u64,
    files: u64,
}

/// What must be known of a captured image to use a copy of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CapturedDisk {
    generation: u32,
    pub(crate) size_mib: u32,
    empty: Figures,
}

impl Disk {
    /// Formats an image that others are cloned from.
    pub(super) fn format(path: &Path, size_mib: u32) -> io::Result<()> {
        let size_mib = size_mib.max(LEAST_MIB);
        let draft = path.with_extension("draft");
        File::create(&draft)?.set_len(u64::from(size_mib) * MIB)?;
        let bytes_per_inode = if size_mib <= SMALL_MIB {
            "8192"
        } else {
            "16384"
        };
        let output = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-b", "4096", "-i", bytes_per_inode])
            .args(["-O", "^has_journal,^resize_inode"])
            .args(["-E", "lazy_itable_init=1,nodiscard"])
            .arg(&draft)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(io::Error::other(format!("mkfs.ext4: {text}")));
        }
        fs::rename(draft, path)
    }

    /// Clones `seed` to `path` and mounts it, ready for its first use.
    pub(super) fn create(
        seed: &Path,
        path: PathBuf,
        size_mib: u32,
        label: &str,
    ) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let made = (|| {
            reflink(File::open(seed)?.as_fd(), file.as_fd())?;
            let device = LoopDevice::attach(&file, label)?;
            let mount = mount_device(device.path())?;
            let empty = figures(mount.as_fd())?;
            files::prepare(mount.as_fd(), &directory(0))?;
            Ok((mount, device.path().to_owned(), empty))
        })();
        match made {
            Ok((mount, device, empty)) => Ok(Self {
                path,
                mount,
                device,
                generation: 0,
                size_mib,
                empty,
                blank: true,
            }),
            Err(error) => {
                // The first failure is the one to tell; a sweep removes what is left.
                let _removed = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// A second hold of a disk that is in use, to read it by.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            path: self.path.clone(),
            mount: self.mount.try_clone()?,
            device: self.device.clone(),
            generation: self.generation,
            size_mib: self.size_mib,
            empty: self.empty,
            blank: self.blank,
        })
    }

    /// Writes what a frozen sandbox has on its disk to a new file `into`, which shares the
    /// disk's blocks. Durable on return.
    pub(crate) fn capture(&self, into: &Path) -> io::Result<CapturedDisk> {
        // All of the file system reaches the image before the image is cloned.
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::syncfs(openat(&self.mount, ".", flags, Mode::empty())?)?;
        let copy = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(into)?;
        reflink(File::open(&self.path)?.as_fd(), copy.as_fd())?;
        copy.sync_all()?;
        Ok(CapturedDisk {
            generation: self.generation,
            size_mib: self.size_mib,
            empty: self.empty,
        })
    }

    /// Clones a captured image to `path` and mounts it. The agent's log goes on when `goes_on`
    /// is set, else it begins anew.
    pub(super) fn restore(
        captured: &Path,
        facts: &CapturedDisk,
        path: PathBuf,
        (label, goes_on): (&str, bool),
    ) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let made = (|| {
            reflink(File::open(captured)?.as_fd(), file.as_fd())?;
            let device = LoopDevice::attach(&file, label)?;
            let mount = mount_device(device.path())?;
            files::reopen(mount.as_fd(), &directory(facts.generation), goes_on)?;
            Ok((mount, device.path().to_owned()))
        })();
        match made {
            Ok((mount, device)) => Ok(Self {
                path,
                mount,
                device,
                generation: facts.generation,
                size_mib: facts.size_mib,
                empty: facts.empty,
                blank: false,
            }),
            Err(error) => {
                // The first failure is the one to tell; a sweep removes what is left.
                let _removed = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Mounts the image of a running sandbox once more, after a restart of the server.
    pub(super) fn recover(images: &Path, slot: Slot, size_mib: u32) -> io::Result<Self> {
        for entry in fs::read_dir(images)? {
            let entry = entry?;
            let Some((owner, generation)) = entry.file_name().to_str().and_then(claimed) else {
                continue;
            };
            if owner == slot {
                let path = entry.path();
                let device = LoopDevice::find(&File::open(&path)?)?;
                let mount = mount_device(device.path())?;
                let empty = Figures { bytes: 0, files: 0 };
                return Ok(Self {
                    path,
                    mount,
                    device: device.path().to_owned(),
                    generation,
                    size_mib,
                    empty,
                    // Who knows what it was made from.
                    blank: false,
                });
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Names the image after the slot that uses it, so that it can be found again.
    pub(crate) fn claim(&mut self, slot: Slot) -> io::Result<()> {
        self.rename(&claim(slot, self.generation))
    }

    fn rename(&mut self, name: &str) -> io::Result<()> {
        let path = self.path.with_file_name(name);
        fs::rename(&self.path, &path)?;
        self.path = path;
        Ok(())
    }

    /// Makes a used disk ready for another use, named `name`. `None` when it is cheaper or
    /// safer to make a new one; the disk is then gone.
    pub(super) fn recycle(mut self, name: &str) -> io::Result<Option<Self>> {
        let used = figures(self.mount.as_fd())?;
        let bytes = used.bytes.saturating_sub(self.empty.bytes);
        let files = used.files.saturating_sub(self.empty.files);
        if !self.blank || bytes > REUSE_BYTES || files > REUSE_FILES {
            self.discard()?;
            return Ok(None);
        }
        let wipe = || {
            files::remove(
                self.mount.as_fd(),
                &directory(self.generation),
                2 * REUSE_FILES,
            )?;
            files::prepare(self.mount.as_fd(), &directory(self.generation + 1))
        };
        if let Err(error) = wipe() {
            tracing::debug!(%error, "a used disk can't be wiped");
            self.discard()?;
            return Ok(None);
        }
        self.generation += 1;
        self.rename(name)?;
        Ok(Some(self))
    }

    /// Removes the image; its space is free when its last user is gone.
    pub(crate) fn discard(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    pub(crate) fn mount(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Mounts the disk once more: the same file system, another mount.
    pub(crate) fn mount_again(&self) -> io::Result<OwnedFd> {
        mount_device(&self.device)
    }

    /// Directory of the present use, relative to the mount.
    pub(crate) fn directory(&self) -> PathBuf {
        directory(self.generation).into()
    }

    pub(crate) fn size_mib(&self) -> u32 {
        self.size_mib
    }

    /// Path of the use's directory for this process, as long as the disk is held.
    fn visible(&self) -> PathBuf {
        Path::new("/proc/self/fd")
            .join(self.mount.as_raw_fd().to_string())
            .join(self.directory())
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.visible().join(files::LOG)
    }

    /// What the sandbox has written, as overlayfs stores it.
    pub(crate) fn upper_path(&self) -> PathBuf {
        self.visible().join("upper")
    }

    /// Opens the agent's log for appending.
    pub(crate) fn open_log(&self) -> io::Result<OwnedFd> {
        // Links need not be refused: the guest does not reach this directory. The flag would
        // keep the descriptor from being restored.
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
        let path = self.directory().join(files::LOG);
        Ok(openat(&self.mount, &path, flags, Mode::empty())?)
    }

    /// The agent's log relative to the directory of the use.
    pub(crate) const LOG: &str = files::LOG;

    /// Whether a path, as the kernel tells it of a descriptor, is that of an agent's log: below
    /// the disk's mount, or a mount of the use's directory.
    pub(crate) fn is_log(path: &Path) -> bool {
        let inside = path.strip_prefix("/").unwrap_or(path);
        let mut parts = inside.components();
        let first = parts.next().and_then(|part| part.as_os_str().to_str());
        inside == Path::new(files::LOG)
            || first.is_some_and(|part| part.starts_with('g'))
                && parts.as_path() == Path::new(files::LOG)
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> io::Result<u64> {
        Ok(figures(self.mount.as_fd())?
            .bytes
            .saturating_sub(self.empty.bytes))
    }
}

fn directory(generation: u32) -> String {
    format!("g{generation}")
}

fn claim(slot: Slot, generation: u32) -> String {
    format!("slot-{}-{generation}", slot.number())
}

/// Slot and generation in the name of a claimed image.
pub(super) fn claimed(name: &str) -> Option<(Slot, u32)> {
    let (slot, generation) = name.strip_prefix("slot-")?.split_once('-')?;
    Some((
        Slot::from_number(slot.parse().ok()?)?,
        generation.parse().ok()?,
    ))
}

fn mount_device(device: &Path) -> io::Result<OwnedFd> {
    let source = device.to_string_lossy();
    let params = [Param::Text("source", &source), Param::Flag("noinit_itable")];
    mount::create("ext4", &params, Attr::MOUNT_ATTR_NODEV)
}

fn figures(mount: BorrowedFd<'_>) -> io::Result<Figures> {
    let stat = fstatvfs(mount)?;
    Ok(Figures {
        bytes: (stat.f_blocks - stat.f_bfree) * stat.f_frsize,
        files: stat.f_files - stat.f_ffree,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_claimed_image_tells_slot_and_generation() {
        let slot = Slot::from_number(12).unwrap();
        assert_eq!(claimed(&claim(slot, 3)), Some((slot, 3)));
        for bad in ["free-1", "slot-", "slot-1", "slot-x-1", "slot-1-"] {
            assert_eq!(claimed(bad), None, "{bad}");
        }
    }
}
