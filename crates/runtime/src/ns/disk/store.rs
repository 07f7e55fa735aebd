//! Where images are kept, and the ones prepared ahead.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{UnmountFlags, unmount};
use warren_sys::loopdev::{LoopDevice, reflink};
use warren_sys::mount::{self, Attr, Param};
use warren_types::Resources;

use super::super::instance::Instance;
use super::super::slot::Slot;
use super::image::{CapturedDisk, Disk, claimed};

/// Share of the free space that a new pool file may grow to, in percent.
const POOL_PERCENT: u64 = 80;
/// Smallest pool file: what mkfs.xfs takes.
const POOL_LEAST: u64 = 512 * 1024 * 1024;

/// Images of one instance.
#[derive(Debug)]
pub(crate) struct Disks {
    /// Directory on a file system that can share blocks.
    dir: PathBuf,
    /// Mount point of the pool file, when there is one.
    pool: Option<PathBuf>,
    label: String,
    /// Number of the first image that this process makes.
    first: u64,
    next: AtomicU64,
    /// Prepared disks to keep of the size wanted last.
    target: usize,
    ready: Mutex<Ready>,
}

#[derive(Debug)]
struct Ready {
    size_mib: u32,
    disks: BTreeMap<u32, Vec<Disk>>,
}

impl Disks {
    /// Opens the store below `data_dir`, making a pool file where that can't share blocks.
    pub(crate) fn open(instance: &Instance, data_dir: &Path, target: usize) -> io::Result<Self> {
        let (dir, pool) = if !data_dir.join("pool.xfs").exists() && can_share(data_dir)? {
            (data_dir.join("disks"), None)
        } else {
            let at = data_dir.join("pool");
            mount_pool(instance, data_dir, &at)?;
            (at.join("disks"), Some(at))
        };
        fs::create_dir_all(dir.join("seeds"))?;
        fs::create_dir_all(dir.join("images"))?;
        fs::create_dir_all(dir.join("captures"))?;
        // Images of memory in there are readable to whoever comes this far.
        fs::set_permissions(dir.join("captures"), Permissions::from_mode(0o700))?;
        let mut next = 0;
        for entry in fs::read_dir(dir.join("images"))? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(free_number);
            next = next.max(number.map_or(0, |number| number + 1));
        }
        Ok(Self {
            dir,
            pool,
            label: format!("warren-{}", instance.name()),
            first: next,
            next: AtomicU64::new(next),
            target,
            ready: Mutex::new(Ready {
                size_mib: Resources::default().disk_mib,
                disks: BTreeMap::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh_name(&self) -> String {
        format!("free-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes a prepared disk, or makes one.
    pub(crate) fn take(&self, size_mib: u32) -> io::Result<Disk> {
        let prepared = {
            let mut ready = self.lock();
            ready.size_mib = size_mib;
            ready.disks.get_mut(&size_mib).and_then(Vec::pop)
        };
        match prepared {
            Some(disk) => Ok(disk),
            None => self.create(size_mib),
        }
    }

    fn create(&self, size_mib: u32) -> io::Result<Disk> {
        let seed = self.dir.join("seeds").join(format!("{size_mib}.ext4"));
        if !seed.exists() {
            // Two at once would write the same draft.
            let _one = self.lock();
            if !seed.exists() {
                Disk::format(&seed, size_mib)?;
            }
        }
        let path = self.dir.join("images").join(self.fresh_name());
        Disk::create(&seed, path, size_mib, &self.label)
    }

    /// Makes a disk from a captured image; see [`Disk::restore`].
    pub(crate) fn restore(
        &self,
        captured: &Path,
        facts: &CapturedDisk,
        goes_on: bool,
    ) -> io::Result<Disk> {
        let path = self.dir.join("images").join(self.fresh_name());
        Disk::restore(captured, facts, path, (&self.label, goes_on))
    }

    /// Directory of captures, which share blocks with disks.
    pub(crate) fn captures(&self) -> PathBuf {
        self.dir.join("captures")
    }

    /// Whether a prepared disk is missing.
    pub(crate) fn is_short(&self) -> bool {
        let ready = self.lock();
        ready.disks.get(&ready.size_mib).map_or(0, Vec::len) < self.target
    }

    /// Prepares one disk of the size wanted last.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let size_mib = self.lock().size_mib;
        let disk = self.create(size_mib)?;
        self.keep(disk)
    }

    /// Keeps a clean disk if one of its size is still wanted.
    fn keep(&self, disk: Disk) -> io::Result<()> {
        let mut ready = self.lock();
        let size = disk.size_mib();
        let wanted = ready.size_mib == size;
        let list = ready.disks.entry(size).or_default();
        if wanted && list.len() < self.target.saturating_mul(2) {
            list.push(disk);
            return Ok(());
        }
        drop(ready);
        disk.discard()
    }

    /// Takes a used disk back.
    pub(crate) fn give_back(&self, disk: Disk) -> io::Result<()> {
        match disk.recycle(&self.fresh_name())? {
            Some(clean) => self.keep(clean),
            None => Ok(()),
        }
    }

    /// Finds the disk of a running sandbox again.
    pub(crate) fn recover(&self, slot: Slot, size_mib: u32) -> io::Result<Disk> {
        Disk::recover(&self.dir.join("images"), slot, size_mib)
    }

    /// Removes images that an earlier process left, save those of slots in use.
    pub(crate) fn sweep(&self, is_used: impl Fn(Slot) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(self.dir.join("images"))? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = match name.to_str() {
                Some(name) => match (free_number(name), claimed(name)) {
                    (Some(number), _) => number >= self.first,
                    (None, Some((slot, _))) => is_used(slot),
                    (None, None) => false,
                },
                None => false,
            };
            if !ours {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the prepared disks and, when no sandbox needs it, unmounts the pool.
    pub(crate) fn release(&self, sandboxes_left: bool) -> io::Result<()> {
        let disks = std::mem::take(&mut self.lock().disks);
        for disk in disks.into_values().flatten() {
            disk.discard()?;
        }
        match &self.pool {
            Some(at) if !sandboxes_left => Ok(unmount(at, UnmountFlags::DETACH)?),
            _ => Ok(()),
        }
    }
}

/// The number in the name of an image that no slot has.
fn free_number(name: &str) -> Option<u64> {
    name.strip_prefix("free-")?.parse().ok()
}

/// Whether files in a directory can share blocks.
fn can_share(dir: &Path) -> io::Result<bool> {
    let (one, other) = (dir.join(".reflink-source"), dir.join(".reflink-target"));
    let tried = (|| {
        fs::write(&one, [0; 4096])?;
        reflink(File::open(&one)?.as_fd(), File::create(&other)?.as_fd())
    })();
    fs::remove_file(&one)?;
    if other.exists() {
        fs::remove_file(&other)?;
    }
    match tried {
        Ok(()) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::CrossesDevices
            ) || error.raw_os_error() == Some(rustix::io::Errno::NOTTY.raw_os_error()) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Mounts the pool file at `at` unless it is.
fn mount_pool(instance: &Instance, data_dir: &Path, at: &Path) -> io::Result<()> {
    fs::create_dir_all(at)?;
    if fs::metadata(at)?.dev() != fs::metadata(data_dir)?.dev() {
        return Ok(());
    }
    let path = data_dir.join("pool.xfs");
    if !path.exists() {
        format_pool(data_dir, &path)?;
    }
    let file = File::options().read(true).write(true).open(&path)?;
    let device = match LoopDevice::find(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            LoopDevice::attach(&file, &format!("warren-{}-pool", instance.name()))?
        }
        other => other?,
    };
    let source = device.path().to_string_lossy().into_owned();
    // Programs may run from it: a captured agent does.
    let attr = Attr::MOUNT_ATTR_NODEV | Attr::MOUNT_ATTR_NOSUID;
    let pool = mount::create("xfs", &[Param::Text("source", &source)], attr)?;
    let onto = openat(
        CWD,
        at,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    mount::attach(pool, onto)
}

fn format_pool(data_dir: &Path, path: &Path) -> io::Result<()> {
    let stat = rustix::fs::statvfs(data_dir)?;
    let free = stat.f_bavail * stat.f_frsize;
    let size = (free / 100 * POOL_PERCENT).max(POOL_LEAST);
    let draft = path.with_extension("draft");
    File::create(&draft)?.set_len(size)?;
    let output = Command::new("mkfs.xfs")
        .args(["-q", "-f", "-m", "reflink=1"])
        .arg(&draft)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!("mkfs.xfs: {text}")));
    }
    fs::rename(draft, path)
}
