//! What a sandbox has written, copied into a layer. The sandbox is dead by then, so nothing
//! moves; but its files are what a guest made of them, so they are reached by descriptor and
//! nothing is followed.
//!
//! The upper directory of an overlay is already in the form of a layer: deletions are
//! character devices 0:0, replaced directories carry `trusted.overlay.opaque`, and owners
//! are the ids that the sandbox sees. What overlayfs notes for itself is left out.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid,
    chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, ftruncate, futimens, linkat,
    makedev, mkdirat, mknodat, openat, readlinkat, seek, sendfile, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::Committed;

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);
/// Each level holds two descriptors.
const MAX_DEPTH: usize = 200;
/// More files than any disk of a sandbox has room for in sensible use.
const MAX_ENTRIES: u64 = 8_000_000;
const MAX_XATTR: usize = 64 * 1024;
const OPAQUE: &CStr = c"trusted.overlay.opaque";

/// Directories at the top whose content is each sandbox's own.
const EMPTIED: &[&CStr] = &[c"dev", c"proc", c"run", c"sys", c"tmp"];
/// Files that each sandbox gets anew, by directory.
const OWN: &[(&CStr, &[&CStr])] = &[
    (c"", &[c".e2b"]),
    (c"etc", &[c"hostname", c"hosts", c"resolv.conf"]),
];

/// Opens an upper directory. Once open it can be copied, or fails to be, whatever becomes of
/// the disk.
pub(super) fn open(upper: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, upper, DIRECTORY, Mode::empty())?)
}

/// Copies an upper directory to `into`, which must not exist. What was made of `into` before
/// a failure is the caller's to remove.
pub(super) fn copy(source: &OwnedFd, into: &Path) -> io::Result<Committed> {
    mkdirat(CWD, into, Mode::from_raw_mode(0o700))?;
    let target = openat(CWD, into, DIRECTORY, Mode::empty())?;
    let mut copier = Copier {
        links: HashMap::new(),
        root: target.as_fd().try_clone_to_owned()?,
        done: Committed::default(),
    };
    copier.directory(source, &target, Place::Root, 0)?;
    finish(source, &target, &fstat(source)?)?;
    Ok(copier.done)
}

/// Where in the tree a directory is, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    /// A directory at the top with files that each sandbox gets anew.
    Special(&'static [&'static CStr]),
    Deeper,
}

impl Place {
    fn leaves_out(self, name: &CStr) -> bool {
        match self {
            Self::Root => OWN[0].1.contains(&name),
            Self::Special(names) => names.contains(&name),
            Self::Deeper => false,
        }
    }

    fn below(self, name: &CStr) -> Self {
        match OWN.iter().find(|(dir, _)| *dir == name) {
            Some((_, names)) if self == Self::Root => Self::Special(names),
            _ => Self::Deeper,
        }
    }
}

struct Copier {
    /// First copies of files with several names, by inode of the source: a path from the
    /// root of the target.
    links: HashMap<u64, CString>,
    root: OwnedFd,
    done: Committed,
}

impl Copier {
    fn directory(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        place: Place,
        depth: usize,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("directories are nested deeper than {MAX_DEPTH}"),
            ));
        }
        for entry in Dir::read_from(source)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." || place.leaves_out(name) {
                continue;
            }
            self.done.entries += 1;
            if self.done.entries > MAX_ENTRIES {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("more than {MAX_ENTRIES} files were written"),
                ));
            }
            self.entry(source, target, name, place, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &CStr,
        place: Place,
        depth: usize,
    ) -> io::Result<()> {
        let stat = statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let from = openat(source, name, DIRECTORY, Mode::empty())?;
                mkdirat(target, name, Mode::from_raw_mode(0o700))?;
                let to = openat(target, name, DIRECTORY, Mode::empty())?;
                let emptied = place == Place::Root && EMPTIED.contains(&name);
                if !emptied {
                    self.directory(&from, &to, place.below(name), depth + 1)?;
                }
                finish(&from, &to, &stat)
            }
            FileType::RegularFile => self.file(source, target, name, &stat),
            FileType::Symlink => {
                let link = readlinkat(source, name, Vec::new())?;
                symlinkat(&link, target, name)?;
                own(target.as_fd(), name, &stat)?;
                let times = times(&stat);
                Ok(utimensat(target, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
            }
            FileType::Fifo => {
                mknodat(target, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
                own(target.as_fd(), name, &stat)?;
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                Ok(rustix::fs::chmodat(target, name, mode, AtFlags::empty())?)
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                let mode = Mode::from_raw_mode(0);
                let whiteout = makedev(0, 0);
                Ok(mknodat(
                    target,
                    name,
                    FileType::CharacterDevice,
                    mode,
                    whiteout,
                )?)
            }
            // Sockets mean nothing without their process; devices are of no use here.
            _ => {
                self.done.entries -= 1;
                Ok(())
            }
        }
    }

    fn file(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<()> {
        let several = stat.st_nlink > 1;
        if several && let Some(first) = self.links.get(&stat.st_ino) {
            return Ok(linkat(&self.root, first, target, name, AtFlags::empty())?);
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let from = openat(source, name, flags, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let to = openat(target, name, flags, Mode::from_raw_mode(0o600))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.done.bytes += contents(&from, &to, size)?;
        finish(&from, &to, stat)?;
        if several {
            // A later name may be anywhere, so the first is kept where it is found again.
            let path = path_of(&to, &self.root)?;
            self.links.insert(stat.st_ino, path);
        }
        Ok(())
    }
}

/// The path of a file that was just made, relative to `root`.
fn path_of(file: &OwnedFd, root: &OwnedFd) -> io::Result<CString> {
    let place = |fd: &OwnedFd| {
        let fd = std::os::fd::AsRawFd::as_raw_fd(fd);
        std::fs::read_link(format!("/proc/self/fd/{fd}"))
    };
    let (file, root) = (place(file)?, place(root)?);
    let relative = file
        .strip_prefix(&root)
        .map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    CString::new(relative.as_os_str().as_encoded_bytes()).map_err(io::Error::other)
}

/// Copies what a file holds, leaving holes; gives the bytes copied.
fn contents(from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<u64> {
    let (mut at, mut copied) = (0, 0);
    while at < size {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(from, SeekFrom::Hole(start))?.min(size);
        let mut read = start;
        seek(to, SeekFrom::Start(start))?;
        while read < end {
            let want = usize::try_from(end - read).unwrap_or(usize::MAX);
            // copy_file_range refuses other file systems, and this is always one.
            match sendfile(to, from, Some(&mut read), want)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                some => copied += some as u64,
            }
        }
        at = end.max(start + 1);
    }
    ftruncate(to, size)?;
    Ok(copied)
}

/// Gives an open file or directory the owner, mode, attributes and times of another.
fn finish(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> io::Result<()> {
    fchown(
        to,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    attributes(from.as_fd(), to.as_fd())?;
    Ok(futimens(to, &times(stat))?)
}

/// Copies the extended attributes that are part of a layer.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let length = match flistxattr(from, &mut [0u8; 0]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        Ok(length) => length.min(MAX_XATTR),
        Err(error) => return Err(error.into()),
    };
    let mut names = vec![0u8; length];
    let length = flistxattr(from, &mut names)?;
    for name in names[..length].split_inclusive(|&byte| byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        if !is_kept(name) {
            continue;
        }
        let mut value = vec![0u8; MAX_XATTR];
        let length = fgetxattr(from, name, &mut value)?;
        let value = &value[..length];
        if name == OPAQUE && value != b"y" {
            continue;
        }
        fsetxattr(to, name, value, rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

fn is_kept(name: &CStr) -> bool {
    let bytes = name.to_bytes();
    name == OPAQUE
        || (bytes.starts_with(b"user.") && !bytes.starts_with(b"user.overlay."))
        || name == c"security.capability"
        || bytes.starts_with(b"system.posix_acl_")
}

fn own(at: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    Ok(chownat(
        at,
        name,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

#[expect(
    clippy::cast_possible_wrap,
    reason = "the fields' types differ by architecture"
)]
fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime as _,
            tv_nsec: stat.st_atime_nsec as _,
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime as _,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    }
}
