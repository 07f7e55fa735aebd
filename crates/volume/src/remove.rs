//! Removal of whole trees.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rand::Rng;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Removes what `name` is in `parent`. Subdirectories are moved up before they are emptied,
/// so depth costs neither stack nor descriptors, and links are never followed.
pub(crate) fn tree(parent: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    let top = open(parent, name)?;
    // Names that nobody guesses: a sandbox may write here meanwhile.
    let prefix = format!(".{:032x}-", rand::rng().random::<u128>());
    let mut moved = 0u64;
    empty(&top, top.as_fd(), &prefix, &mut moved)?;
    let mut done = 0;
    while done < moved {
        done += 1;
        let name = format!("{prefix}{done}");
        match open(top.as_fd(), &name) {
            Ok(dir) => empty(&dir, top.as_fd(), &prefix, &mut moved)?,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error),
        }
        unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn open(at: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Removes the files of a directory and moves its directories up.
fn empty(dir: &OwnedFd, top: BorrowedFd<'_>, prefix: &str, moved: &mut u64) -> Result<(), Errno> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let child = entry.file_name();
        let is_moved = child.to_bytes().starts_with(prefix.as_bytes());
        if child == c"." || child == c".." || is_moved {
            continue;
        }
        let is_dir = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(dir, child, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode).is_dir()
            }
            kind => kind.is_dir(),
        };
        let gone = if is_dir {
            let up = format!("{prefix}{}", *moved + 1);
            renameat(dir, child, top, &up).inspect(|()| *moved += 1)
        } else {
            unlinkat(dir, child, AtFlags::empty())
        };
        match gone {
            // A sandbox was faster.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
