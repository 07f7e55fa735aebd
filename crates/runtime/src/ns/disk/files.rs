//! Files in a disk, handled by descriptor: nothing a guest left there is ever followed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::super::net::SERVICE_ADDRESS;
use super::super::shim::HOST_NAME;

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

fn open_dir(at: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    Ok(openat(at, name, DIRECTORY, Mode::empty())?)
}

fn make_dir(at: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<OwnedFd> {
    mkdirat(at, name, Mode::from_raw_mode(mode))?;
    let dir = open_dir(at, name)?;
    // Whatever the process's mask is.
    rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))?;
    Ok(dir)
}

fn write_file(at: &OwnedFd, name: &str, mode: u32, text: &str) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let fd = openat(at, name, flags, Mode::from_raw_mode(mode))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
    io::Write::write_all(&mut std::fs::File::from(fd), text.as_bytes())
}

/// Name of the agent's log below the directory of a use.
pub(super) const LOG: &str = "log/envd.jsonl";

/// Makes the directory of a use of the disk.
pub(super) fn prepare(disk: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let base = make_dir(disk, name, 0o755)?;
    let upper = make_dir(base.as_fd(), "upper", 0o755)?;
    make_dir(base.as_fd(), "work", 0o700)?;
    let log = make_dir(base.as_fd(), "log", 0o700)?;
    write_file(&log, "envd.jsonl", 0o600, "")?;
    let etc = make_dir(upper.as_fd(), "etc", 0o755)?;
    write_file(&etc, "hostname", 0o644, &format!("{HOST_NAME}\n"))?;
    write_file(
        &etc,
        "resolv.conf",
        0o644,
        &format!("nameserver {SERVICE_ADDRESS}\n"),
    )?;
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         127.0.1.1\t{HOST_NAME}\n{SERVICE_ADDRESS}\tevents.e2b.local\n"
    );
    write_file(&etc, "hosts", 0o644, &hosts)
}

/// More than a volatile overlay leaves in its directory of marks.
const MARKS: u64 = 16;

/// Makes a captured use ready to be used again.
pub(super) fn reopen(disk: BorrowedFd<'_>, name: &str, goes_on: bool) -> io::Result<()> {
    let base = open_dir(disk, name)?;
    // A volatile overlay leaves a mark that forbids another one over the same files, since
    // it does not know whether they reached the disk. Here they did.
    let work = open_dir(base.as_fd(), "work")?;
    match openat(&work, "work", DIRECTORY, Mode::empty()) {
        Ok(inner) => match remove(inner.as_fd(), "incompat", MARKS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        },
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    if !goes_on {
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(&base, LOG, flags, Mode::empty())?;
    }
    Ok(())
}

/// Removes a directory and all below it, at most `limit` entries. Subdirectories are moved
/// up before they are emptied, so depth costs neither stack nor descriptors.
pub(super) fn remove(disk: BorrowedFd<'_>, name: &str, limit: u64) -> io::Result<()> {
    let mut left = limit;
    let mut moved = 0u64;
    let mut queue = vec![name.to_owned()];
    while let Some(name) = queue.pop() {
        let dir = open_dir(disk, &name)?;
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let child = entry.file_name();
            if child == c"." || child == c".." {
                continue;
            }
            left = left.checked_sub(1).ok_or(io::ErrorKind::FileTooLarge)?;
            let is_dir = match entry.file_type() {
                FileType::Unknown => {
                    let stat = rustix::fs::statat(&dir, child, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode).is_dir()
                }
                kind => kind.is_dir(),
            };
            if is_dir {
                moved += 1;
                let up = format!("gone-{moved}");
                renameat(&dir, child, disk, &up)?;
                queue.push(up);
            } else {
                unlinkat(&dir, child, AtFlags::empty())?;
            }
        }
        unlinkat(disk, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_deep_tree_with_links_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("kept"), "x").unwrap();
        let mut deep: PathBuf = dir.path().join("g0");
        for _ in 0..200 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        std::os::unix::fs::symlink(dir.path(), deep.join("up")).unwrap();
        let disk: OwnedFd = fs::File::open(dir.path()).unwrap().into();
        assert!(remove(disk.as_fd(), "g0", 100).is_err());
        let rest: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert!(rest.len() > 1);
        fs::create_dir_all(dir.path().join("g1/a/b")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("g1/a/up")).unwrap();
        remove(disk.as_fd(), "g1", 100).unwrap();
        assert!(!dir.path().join("g1").exists());
        assert!(dir.path().join("kept").exists());
    }

    #[test]
    fn a_prepared_use_names_the_services() {
        let dir = tempfile::tempdir().unwrap();
        let disk: OwnedFd = fs::File::open(dir.path()).unwrap().into();
        prepare(disk.as_fd(), "g3").unwrap();
        let hosts = fs::read_to_string(dir.path().join("g3/upper/etc/hosts")).unwrap();
        assert!(hosts.contains("192.0.2.1\tevents.e2b.local"));
        assert!(dir.path().join("g3").join(LOG).exists());
    }
}
