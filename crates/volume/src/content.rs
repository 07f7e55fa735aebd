//! Operations in a volume. Every path is resolved by the kernel as if the volume's top were
//! the root of the file system.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;
use rand::Rng;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, chmod, chownat,
    fchmod, fchown, fstat, linkat, mkdirat, openat, openat2, readlinkat, renameat,
};
use rustix::io::Errno;

use crate::error::{host, reach};
use crate::{Content, VolumeError, VolumePath, remove};

/// Directories of a listing below the one that is listed.
const MAX_DEPTH: u32 = 64;
/// Entries of one listing.
const MAX_ENTRIES: usize = 20_000;
/// Ids that sandboxes have.
const MAX_ID: u32 = 65_535;
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Other,
}

/// What is at a path; a link is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Last part of the path; `/` for the top.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Path in the volume.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner, as sandboxes see it.
    pub uid: u32,
    /// Group, as sandboxes see it.
    pub gid: u32,
    /// Last read.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the entry.
    pub ctime: Timestamp,
    /// Where a link leads.
    pub target: Option<String>,
}

/// Owner and permission bits, each as it is unless given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Permission bits.
    pub mode: Option<u32>,
}

impl Owner {
    fn check(self) -> Result<Self, VolumeError> {
        if self.uid.is_some_and(|id| id > MAX_ID) || self.gid.is_some_and(|id| id > MAX_ID) {
            return Err(VolumeError::Invalid("uid and gid must be at most 65535"));
        }
        if self.mode.is_some_and(|mode| mode > 0o7777) {
            return Err(VolumeError::Invalid(
                "mode must be at most 4095 (octal 7777)",
            ));
        }
        Ok(self)
    }

    fn ids(self) -> (Option<Uid>, Option<Gid>) {
        (self.uid.map(Uid::from_raw), self.gid.map(Gid::from_raw))
    }

    /// For something new, which is the superuser's unless said.
    fn of_new(self, fd: impl AsFd, mode: u32) -> Result<(), Errno> {
        let uid = Uid::from_raw(self.uid.unwrap_or(0));
        let gid = Gid::from_raw(self.gid.unwrap_or(0));
        fchown(&fd, Some(uid), Some(gid))?;
        fchmod(&fd, Mode::from_raw_mode(self.mode.unwrap_or(mode)))
    }
}

/// What a new directory is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewNode {
    /// Owner and permission bits.
    pub owner: Owner,
    /// Make missing parents, and take what is there.
    pub force: bool,
}

/// What a written file is to be.
pub type WriteOptions = NewNode;

fn resolve(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::CLOEXEC;
    loop {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            // Something was moved meanwhile, and the kernel can't tell whether it is inside.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

fn time(seconds: i64, nanoseconds: u64) -> Timestamp {
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or(0);
    Timestamp::new(seconds, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn entry(path: &VolumePath, stat: &Stat, link: impl FnOnce() -> Option<String>) -> Entry {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        _ => EntryKind::Other,
    };
    Entry {
        name: path.parts().last().cloned().unwrap_or_else(|| "/".into()),
        kind,
        path: path.to_string(),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        target: if kind == EntryKind::Symlink {
            link()
        } else {
            None
        },
    }
}

fn link_target(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> Option<String> {
    let target = readlinkat(dir, name, Vec::new()).ok()?;
    Some(target.to_string_lossy().into_owned())
}

fn entry_of(path: &VolumePath, fd: BorrowedFd<'_>) -> Result<Entry, VolumeError> {
    let stat = fstat(fd).map_err(reach("look at a path"))?;
    Ok(entry(path, &stat, || link_target(fd, c"")))
}

impl Content {
    fn open(&self, path: &VolumePath, flags: OFlags) -> Result<OwnedFd, Errno> {
        resolve(self.root(), &path.relative(), flags)
    }

    fn directory(&self, path: &VolumePath) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Tells what is at a path.
    ///
    /// # Errors
    /// [`VolumeError::NoPath`], [`VolumeError::Host`].
    pub fn stat(&self, path: &VolumePath) -> Result<Entry, VolumeError> {
        let fd = self.open(path, OFlags::PATH | OFlags::NOFOLLOW);
        entry_of(path, fd.map_err(reach("look at a path"))?.as_fd())
    }

    /// Changes owner and permission bits. A link is followed, within the volume.
    ///
    /// # Errors
    /// [`VolumeError::Invalid`], [`VolumeError::NoPath`], [`VolumeError::Host`].
    pub fn set_owner(&self, path: &VolumePath, owner: Owner) -> Result<Entry, VolumeError> {
        let owner = owner.check()?;
        let change = || -> Result<OwnedFd, Errno> {
            let fd = self.open(path, OFlags::PATH)?;
            let (uid, gid) = owner.ids();
            if uid.is_some() || gid.is_some() {
                chownat(&fd, "", uid, gid, AtFlags::EMPTY_PATH)?;
            }
            if let Some(mode) = owner.mode {
                // Changes what the descriptor is open on; opening it might have effects.
                let at = format!("/proc/self/fd/{}", fd.as_raw_fd());
                chmod(at, Mode::from_raw_mode(mode))?;
            }
            Ok(fd)
        };
        entry_of(path, change().map_err(reach("change a path"))?.as_fd())
    }

    /// Removes what is at a path, with everything below it.
    ///
    /// # Errors
    /// [`VolumeError::NoPath`] also for the root, [`VolumeError::Host`].
    pub fn remove(&self, path: &VolumePath) -> Result<(), VolumeError> {
        let (parent, name) = path.split().ok_or(VolumeError::NoPath)?;
        let parent = self.directory(&parent).map_err(reach("open a directory"))?;
        remove::tree(parent.as_fd(), name).map_err(reach("remove a path"))
    }

    /// Lists a directory, and those below it down to `depth`, in the order of paths.
    ///
    /// # Errors
    /// [`VolumeError::NoPath`], [`VolumeError::TooMany`], [`VolumeError::Host`].
    pub fn list(&self, path: &VolumePath, depth: u32) -> Result<Vec<Entry>, VolumeError> {
        let failed = || reach("list a directory");
        let mut found = Vec::new();
        let top = self.directory(path).map_err(failed())?;
        let mut open = vec![(path.clone(), top, 1)];
        while let Some((path, dir, level)) = open.pop() {
            for item in Dir::read_from(&dir).map_err(failed())? {
                let item = item.map_err(failed())?;
                let name = item.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    other => other.map_err(failed())?,
                };
                if found.len() == MAX_ENTRIES {
                    return Err(VolumeError::TooMany(MAX_ENTRIES));
                }
                let at = path.child(&name.to_string_lossy());
                let entry = entry(&at, &stat, || link_target(dir.as_fd(), name));
                let goes_on = level < depth.min(MAX_DEPTH);
                if goes_on && entry.kind == EntryKind::Directory && open.len() < MAX_ENTRIES {
                    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    match openat(&dir, name, flags, Mode::empty()) {
                        Ok(child) => open.push((at, child, level + 1)),
                        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                        Err(error) => return Err(failed()(error)),
                    }
                }
                found.push(entry);
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// [`VolumeError::Exists`] without `force`, [`VolumeError::NoPath`] without its parent,
    /// [`VolumeError::NotDirectory`], [`VolumeError::Invalid`], [`VolumeError::Full`],
    /// [`VolumeError::Host`].
    pub fn make_directory(&self, path: &VolumePath, new: NewNode) -> Result<Entry, VolumeError> {
        let owner = new.owner.check()?;
        let failed = || reach("make a directory");
        let Some((parent, name)) = path.split() else {
            return if new.force {
                self.stat(path)
            } else {
                Err(VolumeError::Exists)
            };
        };
        let parent = self.parent(&parent, new.force.then_some(owner))?;
        match self.make_one(&parent, name, owner) {
            Ok(fd) => entry_of(path, fd.as_fd()),
            Err(Errno::EXIST) if new.force => match self.directory(path) {
                Ok(fd) => entry_of(path, fd.as_fd()),
                Err(Errno::NOTDIR) => Err(VolumeError::Exists),
                Err(error) => Err(failed()(error)),
            },
            Err(error) => Err(failed()(error)),
        }
    }

    fn make_one(&self, parent: &OwnedFd, name: &str, owner: Owner) -> Result<OwnedFd, Errno> {
        mkdirat(parent, name, Mode::RWXU)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(parent, name, flags, Mode::empty())?;
        owner.of_new(&made, DIRECTORY_MODE)?;
        Ok(made)
    }

    /// Opens the directory that something is to be made in; makes it for `owner` if given.
    fn parent(&self, path: &VolumePath, owner: Option<Owner>) -> Result<OwnedFd, VolumeError> {
        let failed = || reach("open a directory");
        match (self.directory(path), owner) {
            (Ok(fd), _) => return Ok(fd),
            (Err(Errno::NOTDIR), _) => return Err(VolumeError::NotDirectory),
            (Err(Errno::NOENT), Some(_)) => {}
            (Err(error), _) => return Err(failed()(error)),
        }
        let owner = owner.unwrap_or_default();
        let mut at = VolumePath::parse("/")?;
        let mut dir = self.directory(&at).map_err(failed())?;
        for part in path.parts() {
            match self.make_one(&dir, part, owner) {
                Ok(_) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed()(error)),
            }
            at = at.child(part);
            dir = self.directory(&at).map_err(|error| match error {
                Errno::NOTDIR => VolumeError::NotDirectory,
                error => failed()(error),
            })?;
        }
        Ok(dir)
    }

    /// Opens a file to read, with its size. Links are followed within the volume.
    ///
    /// # Errors
    /// [`VolumeError::NoPath`] also for what is no file, [`VolumeError::Host`].
    pub fn read(&self, path: &VolumePath) -> Result<(File, u64), VolumeError> {
        // A pipe must not hold up the open.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match self.open(path, flags) {
            // A socket or a device that is not there.
            Err(Errno::NXIO | Errno::NODEV | Errno::ACCESS) => return Err(VolumeError::NoPath),
            other => other.map_err(reach("open a file"))?,
        };
        let stat = fstat(&fd).map_err(reach("open a file"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(VolumeError::NoPath);
        }
        Ok((fd.into(), u64::try_from(stat.st_size).unwrap_or(0)))
    }

    /// Begins a file. Nothing is seen of it before [`Draft::publish`].
    ///
    /// # Errors
    /// [`VolumeError::Exists`] without `force`, [`VolumeError::IsDirectory`],
    /// [`VolumeError::NoPath`] without its parent, [`VolumeError::NotDirectory`],
    /// [`VolumeError::Invalid`], [`VolumeError::Full`], [`VolumeError::Host`].
    pub fn write(&self, path: &VolumePath, new: WriteOptions) -> Result<Draft, VolumeError> {
        let owner = new.owner.check()?;
        let Some((parent, name)) = path.split() else {
            return Err(VolumeError::IsDirectory);
        };
        let parent = self.parent(&parent, None)?;
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Err(error) => return Err(reach("look at a path")(error)),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
                return Err(VolumeError::IsDirectory);
            }
            Ok(_) if !new.force => return Err(VolumeError::Exists),
            Ok(_) => {}
        }
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&parent, ".", flags, Mode::RUSR | Mode::WUSR);
        let file = file.map_err(reach("begin a file"))?;
        owner
            .of_new(&file, FILE_MODE)
            .map_err(reach("begin a file"))?;
        Ok(Draft {
            file: file.into(),
            parent,
            path: path.clone(),
            name: name.to_owned(),
            force: new.force,
            _content: self.clone(),
        })
    }
}

/// A file that has no name yet; without [`publish`](Self::publish) it is gone.
#[derive(Debug)]
pub struct Draft {
    file: File,
    parent: OwnedFd,
    path: VolumePath,
    name: String,
    force: bool,
    _content: Content,
}

impl Draft {
    /// The file to write to.
    ///
    /// # Errors
    /// [`VolumeError::Host`] without free descriptors.
    pub fn file(&self) -> Result<File, VolumeError> {
        self.file.try_clone().map_err(host("begin a file"))
    }

    /// Puts the file at its path, whole, and durable.
    ///
    /// # Errors
    /// As [`Content::write`].
    pub fn publish(self) -> Result<Entry, VolumeError> {
        let failed = || reach("publish a file");
        rustix::fs::fdatasync(&self.file).map_err(failed())?;
        let at = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let link = |name: &str| linkat(CWD, &at, &self.parent, name, AtFlags::SYMLINK_FOLLOW);
        match link(&self.name) {
            Err(Errno::EXIST) if self.force => {
                let hidden = format!(".{:032x}.part", rand::rng().random::<u128>());
                link(&hidden).map_err(failed())?;
                let replaced = renameat(&self.parent, &hidden, &self.parent, &self.name);
                if replaced.is_err() {
                    let _left = rustix::fs::unlinkat(&self.parent, &hidden, AtFlags::empty());
                }
                replaced.map_err(failed())?;
            }
            other => other.map_err(failed())?,
        }
        entry_of(&self.path, self.file.as_fd())
    }
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
