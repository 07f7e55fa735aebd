//! Several layers joined into one: a union file system takes only so many. Files are linked,
//! not copied, so the cost follows their number. Layers do not change, but their content is
//! a guest's: it is reached by descriptor, and no link in it is followed.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens, linkat, mkdirat, openat,
    statat, unlinkat,
};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);
const OPAQUE: &CStr = c"trusted.overlay.opaque";
/// Each level holds two descriptors.
const MAX_DEPTH: usize = 260;
const MAX_XATTR: usize = 64 * 1024;

/// Joins `layers`, lowest first, into the directory `into`, which must not exist. All are on
/// one file system. What was made of `into` before a failure is the caller's to remove.
pub(crate) fn merge(layers: &[PathBuf], into: &Path) -> io::Result<()> {
    mkdirat(CWD, into, Mode::from_raw_mode(0o755))?;
    let target = openat(CWD, into, DIRECTORY, Mode::empty())?;
    for layer in layers {
        let source = openat(CWD, layer, DIRECTORY, Mode::empty())?;
        add(&source, &target, 0)?;
        finish(&source, &target, false)?;
    }
    Ok(())
}

fn kind_at(dir: &OwnedFd, name: &CStr) -> io::Result<Option<FileType>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn remove(dir: &OwnedFd, name: &CStr, kind: FileType) -> io::Result<()> {
    if kind.is_dir() {
        let name = std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes());
        let name: &std::ffi::OsStr = name;
        let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
        return std::fs::remove_dir_all(path.join(name));
    }
    Ok(unlinkat(dir, name, AtFlags::empty())?)
}

/// Puts what `source` has over what `target` has.
fn add(source: &OwnedFd, target: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::ErrorKind::InvalidData.into());
    }
    for entry in Dir::read_from(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let before = kind_at(target, name)?;
        if kind_at(source, name)? != Some(FileType::Directory) {
            if let Some(before) = before {
                remove(target, name, before)?;
            }
            linkat(source, name, target, name, AtFlags::empty())?;
            continue;
        }
        let from = openat(source, name, DIRECTORY, Mode::empty())?;
        let hides = is_opaque(&from)?;
        // Over something that is no directory it hides all that is below.
        let replaces = match before {
            None => false,
            Some(FileType::Directory) if !hides => false,
            Some(before) => {
                remove(target, name, before)?;
                true
            }
        };
        if before.is_none() || replaces {
            mkdirat(target, name, Mode::from_raw_mode(0o700))?;
        }
        let to = openat(target, name, DIRECTORY, Mode::empty())?;
        add(&from, &to, depth + 1)?;
        finish(&from, &to, replaces)?;
    }
    Ok(())
}

fn is_opaque(dir: &OwnedFd) -> io::Result<bool> {
    let mut value = [0u8; 2];
    match fgetxattr(dir, OPAQUE, &mut value) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::RANGE | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives a directory the owner, mode, attributes and times of another.
fn finish(from: &OwnedFd, to: &OwnedFd, hides: bool) -> io::Result<()> {
    let stat = fstat(from)?;
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchown(to, Some(owner.0), Some(owner.1))?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = vec![0u8; MAX_XATTR];
    let length = match flistxattr(from, &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    for name in names[..length].split_inclusive(|&byte| byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let mut value = vec![0u8; MAX_XATTR];
        let length = fgetxattr(from, name, &mut value)?;
        fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    if hides {
        fsetxattr(to, OPAQUE, b"y", XattrFlags::empty())?;
    }
    Ok(futimens(to, &times(&stat))?)
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

    use rustix::fs::{lgetxattr, makedev, mknodat};

    use super::*;

    struct Layers {
        dir: tempfile::TempDir,
        paths: Vec<PathBuf>,
    }

    impl Layers {
        fn new(count: usize) -> Self {
            let dir = tempfile::tempdir_in("/var/tmp").unwrap();
            let paths: Vec<_> = (0..count).map(|n| dir.path().join(n.to_string())).collect();
            paths.iter().for_each(|path| fs::create_dir(path).unwrap());
            Self { dir, paths }
        }

        fn write(&self, layer: usize, path: &str, text: &str) {
            let path = self.paths[layer].join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn whiteout(&self, layer: usize, path: &str) {
            let path = self.paths[layer].join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mode = Mode::from_raw_mode(0);
            mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(0, 0)).unwrap();
        }

        fn opaque(&self, layer: usize, path: &str) {
            let path = self.paths[layer].join(path);
            fs::create_dir_all(&path).unwrap();
            rustix::fs::setxattr(&path, OPAQUE, b"y", XattrFlags::empty()).unwrap();
        }

        fn merge(&self) -> PathBuf {
            let into = self.dir.path().join("merged");
            merge(&self.paths, &into).unwrap();
            into
        }
    }

    fn opaque(path: &Path) -> bool {
        lgetxattr(path, OPAQUE, &mut [0u8; 4]).is_ok()
    }

    fn whiteout(path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_char_device())
    }

    #[test]
    fn upper_layers_win_and_deletions_stay() {
        let layers = Layers::new(3);
        layers.write(0, "d/kept", "0");
        layers.write(0, "d/changed", "0");
        layers.write(0, "d/gone", "0");
        layers.write(0, "dir/of/files", "0");
        layers.write(1, "d/changed", "1");
        layers.whiteout(1, "d/gone");
        layers.whiteout(1, "below");
        layers.whiteout(1, "dir");
        layers.write(2, "below/new", "2");
        symlink("/etc", layers.paths[2].join("link")).unwrap();
        let merged = layers.merge();
        assert_eq!(fs::read_to_string(merged.join("d/kept")).unwrap(), "0");
        assert_eq!(fs::read_to_string(merged.join("d/changed")).unwrap(), "1");
        assert!(whiteout(&merged.join("d/gone")) && whiteout(&merged.join("dir")));
        // A directory over a deletion hides what the layers below the merged ones have.
        assert!(opaque(&merged.join("below")) && merged.join("below/new").exists());
        assert!(!opaque(&merged.join("d")));
        assert_eq!(
            fs::read_link(merged.join("link")).unwrap(),
            Path::new("/etc")
        );
        assert!(fs::metadata(merged.join("d/kept")).unwrap().nlink() > 1);
    }

    #[test]
    fn opaque_directories_and_changes_of_kind_replace() {
        let layers = Layers::new(2);
        layers.write(0, "o/old", "0");
        layers.write(0, "file", "0");
        layers.write(0, "tree/deep/f", "0");
        layers.opaque(1, "o");
        layers.write(1, "o/new", "1");
        layers.write(1, "file/now/dir", "1");
        layers.write(1, "tree", "1");
        let merged = layers.merge();
        assert!(opaque(&merged.join("o")) && !merged.join("o/old").exists());
        assert!(merged.join("o/new").exists());
        assert!(opaque(&merged.join("file")));
        assert_eq!(fs::read_to_string(merged.join("tree")).unwrap(), "1");
    }
}
