//! One layer of an image, from a stream to a directory.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    chownat, fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat,
    openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tar::EntryType;
use warren_service::fault;

use crate::tarball::{Item, TarError, clean, walk};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Notes of another union file system.
const OTHER: &[u8] = b".wh..wh.";
/// Ids that a sandbox has; others become its nobody.
const IDS: u64 = 65_536;
const NOBODY: u32 = 65_534;
/// Length of a capability attribute that names no user namespace.
const CAPABILITY_LENGTH: usize = 20;

/// Why a layer can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error("unpack {path:?}")]
    Entry {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("entry {0:?} is a device")]
    Device(PathBuf),
    #[error("entry {0:?} is of a kind that images do not have")]
    Kind(PathBuf),
    #[error("entry {0:?} deletes nothing that could be named")]
    Whiteout(PathBuf),
    #[error("its uncompressed size exceeds what is left of {0} bytes")]
    TooLarge(u64),
    #[error("make the directory of the layer")]
    Root(#[source] io::Error),
    #[error("the digest of its content is not {expected}")]
    Digest { expected: String },
}

/// Bytes that the layers of an image may have together.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
        }
    }

    fn spend(&self, bytes: u64) -> Result<(), UnpackError> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.limit {
            return Err(UnpackError::TooLarge(self.limit));
        }
        Ok(())
    }

    /// Bytes spent.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// Unpacks the layer that `compressed` holds into `into`, which must not exist, and compares
/// the digest of its plain form with `diff_id`. What is made of `into` before a failure is
/// the caller's to remove.
pub(crate) fn unpack(
    compressed: impl Read,
    diff_id: &str,
    into: &Path,
    budget: &Budget,
) -> Result<(), UnpackError> {
    mkdirat(CWD, into, Mode::from_raw_mode(0o755))
        .map_err(|error| UnpackError::Root(error.into()))?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let root = openat(CWD, into, flags, Mode::empty());
    let root = root.map_err(|error| UnpackError::Root(error.into()))?;
    // Whatever the process's mask is.
    fchmod(&root, Mode::from_raw_mode(0o755)).map_err(|error| UnpackError::Root(error.into()))?;
    let plain = decompressed(compressed).map_err(TarError::Read)?;
    let mut hashed = Hashed {
        inner: io::BufReader::with_capacity(128 * 1024, plain),
        hasher: Sha256::new(),
    };
    let mut layer = Layer {
        root,
        parent: None,
        directories: Vec::new(),
    };
    walk(&mut hashed, |item, content| {
        budget.spend(item.size.max(512))?;
        let path = item.path.clone();
        layer.entry(item, content).map_err(|error| error.at(path))?;
        fault::point("layer.unpacking");
        Ok::<_, UnpackError>(())
    })?;
    // What follows the end of the archive counts for the digest; it is bounded too.
    let mut rest = [0; 64 * 1024];
    loop {
        match hashed.read(&mut rest).map_err(TarError::Read)? {
            0 => break,
            some => budget.spend(some as u64)?,
        }
    }
    let digest = format!("sha256:{}", hex::encode(hashed.hasher.finalize()));
    if digest != diff_id {
        return Err(UnpackError::Digest {
            expected: diff_id.to_owned(),
        });
    }
    layer.set_times();
    Ok(())
}

/// Undoes the compression that the first bytes tell of.
fn decompressed<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = io::BufReader::with_capacity(128 * 1024, reader);
    let start = io::BufRead::fill_buf(&mut reader)?;
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader)))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Ok(Box::new(zstd::Decoder::with_buffer(reader)?))
    } else {
        Ok(Box::new(reader))
    }
}

struct Hashed<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// A failure before it is known where.
enum Failure {
    Io(io::Error),
    Other(fn(PathBuf) -> UnpackError),
    Tar(TarError),
}

impl Failure {
    fn at(self, path: PathBuf) -> UnpackError {
        match self {
            Self::Io(source) => UnpackError::Entry { path, source },
            Self::Other(make) => make(path),
            Self::Tar(error) => error.into(),
        }
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

struct Layer {
    root: OwnedFd,
    /// The directory that entries came into last.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Directories with the times that they get when all is in them.
    directories: Vec<(PathBuf, u64)>,
}

impl Layer {
    /// Opens a directory. Links in the path lead to places in the layer, as they would for
    /// a process whose root it is.
    fn open(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    /// Opens a directory, making what is missing of it.
    fn open_or_make(&self, path: &Path) -> Result<OwnedFd, Failure> {
        match self.open(path) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::NOENT.into());
        };
        let above = self.open_or_make(above)?;
        match mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.open(path)?)
    }

    fn entry(&mut self, item: Item, content: &mut dyn Read) -> Result<(), Failure> {
        let Some(name) = item.path.file_name().map(OsStr::to_owned) else {
            if item.kind == EntryType::Directory {
                finish(&self.root, &item)?;
            }
            return Ok(());
        };
        let above = item.path.parent().unwrap_or(Path::new("")).to_owned();
        if self.parent.as_ref().is_none_or(|(path, _)| *path != above) {
            let opened = self.open_or_make(&above)?;
            self.parent = Some((above, opened));
        }
        let Some((_, parent)) = &self.parent else {
            return Err(Errno::NOENT.into());
        };
        if name.as_bytes().starts_with(WHITEOUT) {
            return whiteout(parent, &name);
        }
        match item.kind {
            EntryType::Directory => {
                directory(parent, &name, &item)?;
                self.directories.push((item.path, item.mtime));
                // It may have replaced what the path led to.
                self.parent = None;
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous => {
                make_room(parent, &name)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = openat(parent, &name, flags, Mode::from_raw_mode(0o600))?;
                let mut file = std::fs::File::from(file);
                let copied = io::copy(content, &mut file)?;
                if copied != item.size {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                file.flush()?;
                let file = OwnedFd::from(file);
                finish(&file, &item)?;
                Ok(futimens(&file, &times(item.mtime))?)
            }
            EntryType::Symlink => {
                make_room(parent, &name)?;
                symlinkat(&item.link, parent, &name)?;
                let (uid, gid) = owner(&item);
                chownat(
                    parent,
                    &name,
                    Some(uid),
                    Some(gid),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
                let times = times(item.mtime);
                Ok(utimensat(parent, &name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
            }
            EntryType::Link => {
                let target = clean(&item.link).map_err(Failure::Tar)?;
                let target_name = target.file_name().ok_or(Errno::NOENT)?;
                let target_dir = self.open(target.parent().unwrap_or(Path::new("")))?;
                make_room(parent, &name)?;
                Ok(linkat(
                    &target_dir,
                    target_name,
                    parent,
                    &name,
                    AtFlags::empty(),
                )?)
            }
            EntryType::Fifo => {
                make_room(parent, &name)?;
                mknodat(parent, &name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
                let (uid, gid) = owner(&item);
                chownat(
                    parent,
                    &name,
                    Some(uid),
                    Some(gid),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
                let mode = Mode::from_raw_mode(item.mode);
                Ok(rustix::fs::chmodat(parent, &name, mode, AtFlags::empty())?)
            }
            // Each sandbox has a /dev of its own.
            EntryType::Char | EntryType::Block if item.path.starts_with("dev") => Ok(()),
            EntryType::Char | EntryType::Block => Err(Failure::Other(UnpackError::Device)),
            _ => Err(Failure::Other(UnpackError::Kind)),
        }
    }

    /// Sets the times of directories, which what came into them has changed. A directory
    /// that is no more needs none.
    fn set_times(&self) {
        for (path, mtime) in &self.directories {
            if let Ok(dir) = self.open(path) {
                futimens(&dir, &times(*mtime)).ok();
            }
        }
    }
}

/// What is under a name now.
fn kind_at(parent: &OwnedFd, name: &OsStr) -> Result<Option<(FileType, bool)>, Failure> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            let kind = FileType::from_raw_mode(stat.st_mode);
            let whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
            Ok(Some((kind, whiteout)))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes what is under a name, unless it is a directory with something in it.
fn make_room(parent: &OwnedFd, name: &OsStr) -> Result<(), Failure> {
    let flags = match kind_at(parent, name)? {
        None => return Ok(()),
        Some((FileType::Directory, _)) => AtFlags::REMOVEDIR,
        Some(_) => AtFlags::empty(),
    };
    Ok(unlinkat(parent, name, flags)?)
}

fn directory(parent: &OwnedFd, name: &OsStr, item: &Item) -> Result<(), Failure> {
    let before = kind_at(parent, name)?;
    let hides = matches!(before, Some((_, true)));
    match before {
        Some((FileType::Directory, _)) => {}
        Some(_) => {
            unlinkat(parent, name, AtFlags::empty())?;
            mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
        }
        None => mkdirat(parent, name, Mode::from_raw_mode(0o700))?,
    }
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let dir = openat(parent, name, flags, Mode::empty())?;
    if hides {
        make_opaque(&dir)?;
    }
    Ok(finish(&dir, item)?)
}

fn make_opaque(dir: &OwnedFd) -> Result<(), Failure> {
    Ok(fsetxattr(
        dir,
        c"trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )?)
}

/// Marks what lies below in other layers as deleted.
fn whiteout(parent: &OwnedFd, name: &OsStr) -> Result<(), Failure> {
    let name = name.as_bytes();
    if name == OPAQUE {
        return make_opaque(parent);
    }
    if name.starts_with(OTHER) {
        return Ok(());
    }
    let hidden = OsStr::from_bytes(&name[WHITEOUT.len()..]);
    if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
        return Err(Failure::Other(UnpackError::Whiteout));
    }
    match kind_at(parent, hidden)? {
        None => {
            let mode = Mode::from_raw_mode(0);
            let device = makedev(0, 0);
            Ok(mknodat(
                parent,
                hidden,
                FileType::CharacterDevice,
                mode,
                device,
            )?)
        }
        // What this layer has under the name hides what lies below.
        Some((FileType::Directory, _)) => {
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            make_opaque(&openat(parent, hidden, flags, Mode::empty())?)
        }
        Some(_) => Ok(()),
    }
}

fn owner(item: &Item) -> (Uid, Gid) {
    let id = |id: u64| match u32::try_from(id) {
        Ok(small) if id < IDS => small,
        _ => NOBODY,
    };
    (Uid::from_raw(id(item.uid)), Gid::from_raw(id(item.gid)))
}

/// Gives an open file or directory its owner, mode and attributes.
fn finish(file: &OwnedFd, item: &Item) -> rustix::io::Result<()> {
    let (uid, gid) = owner(item);
    fchown(file.as_fd(), Some(uid), Some(gid))?;
    fchmod(file, Mode::from_raw_mode(item.mode))?;
    for (name, value) in &item.xattrs {
        let kept = (name.starts_with("user.") && !name.starts_with("user.overlay."))
            || (name == "security.capability" && value.len() == CAPABILITY_LENGTH);
        if kept {
            fsetxattr(file, OsString::from(name), value, XattrFlags::empty())?;
        }
    }
    Ok(())
}

fn times(mtime: u64) -> Timestamps {
    let time = Timespec {
        tv_sec: i64::try_from(mtime).unwrap_or(0),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
