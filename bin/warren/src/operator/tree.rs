//! Digests of what a backup holds: a file or a tree with everything that a copy must keep.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom as Hole, Stat, fgetxattr, flistxattr,
    openat, readlinkat, seek, statat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

/// Each level holds two descriptors.
const MAX_DEPTH: usize = 300;
const MAX_XATTR: usize = 64 * 1024;
/// What is hashed of a file at a time. Blocks of zeros are left out, since copies have holes
/// in other places.
const BLOCK: usize = 64 * 1024;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// The digest of names, kinds, owners, modes, attributes and content. Times are left out, and
/// which names are links to the same file.
///
/// # Errors
/// What the file system says, and a tree of more than 300 levels.
pub(super) fn digest(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    add(&mut hasher, CWD, &name, 0)?;
    Ok(hex::encode(hasher.finalize()))
}

/// Adds bytes so that they can't be taken for the end of one thing and the start of another.
fn part(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

fn add(
    hasher: &mut Sha256,
    dir: impl std::os::fd::AsFd + Copy,
    name: &CStr,
    depth: usize,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    for number in [stat.st_mode, stat.st_uid, stat.st_gid] {
        hasher.update(number.to_le_bytes());
    }
    let open = |flags| {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(dir, name, flags, Mode::empty())
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let opened = open(OFlags::DIRECTORY)?;
            attributes(hasher, &opened)?;
            children(hasher, &opened, depth)
        }
        FileType::RegularFile => {
            let opened = open(OFlags::empty())?;
            attributes(hasher, &opened)?;
            content(hasher, File::from(opened), &stat)
        }
        FileType::Symlink => {
            part(hasher, readlinkat(dir, name, Vec::new())?.to_bytes());
            Ok(())
        }
        FileType::CharacterDevice | FileType::BlockDevice => {
            hasher.update(stat.st_rdev.to_le_bytes());
            Ok(())
        }
        _ => Ok(()),
    }
}

fn children(hasher: &mut Sha256, dir: &OwnedFd, depth: usize) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    hasher.update((names.len() as u64).to_le_bytes());
    for name in names {
        part(hasher, name.to_bytes());
        add(hasher, dir, &name, depth + 1)?;
    }
    Ok(())
}

/// Adds the attributes that mean something to a sandbox.
fn attributes(hasher: &mut Sha256, file: &OwnedFd) -> io::Result<()> {
    let mut list = vec![0u8; MAX_XATTR];
    let length = match flistxattr(file, &mut list) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut names: Vec<_> = list[..length]
        .split_inclusive(|&byte| byte == 0)
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
        .filter(|name| {
            let name = name.to_bytes();
            name.starts_with(b"user.")
                || name.starts_with(b"trusted.overlay.")
                || name == b"security.capability"
        })
        .collect();
    names.sort_unstable();
    for name in names {
        let mut value = vec![0u8; MAX_XATTR];
        let length = fgetxattr(file, name, &mut value)?;
        part(hasher, name.to_bytes());
        part(hasher, &value[..length]);
    }
    Ok(())
}

fn content(hasher: &mut Sha256, mut file: File, stat: &Stat) -> io::Result<()> {
    hasher.update(stat.st_size.to_le_bytes());
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    while let Some(next) = next_data(&file, at)? {
        // Blocks begin at the same places whatever holes there are.
        at = next - next % BLOCK as u64;
        file.seek(SeekFrom::Start(at))?;
        let read = fill(&mut file, &mut block)?;
        if block[..read] != ZEROS[..read] {
            hasher.update(at.to_le_bytes());
            hasher.update(&block[..read]);
        }
        if read < BLOCK {
            break;
        }
        at += BLOCK as u64;
    }
    Ok(())
}

/// Where the data at an offset or after it begins; `None` if there is none.
fn next_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    match seek(file, Hole::Data(at)) {
        Ok(next) => Ok(Some(next)),
        Err(Errno::NXIO) => Ok(None),
        // A file system that does not tell.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(at)),
        Err(error) => Err(error.into()),
    }
}

fn fill(file: &mut File, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read(&mut block[filled..])? {
            0 => break,
            some => filled += some,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn each_thing_that_a_copy_must_keep_counts() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "one").unwrap();
        fs::create_dir(at("sub")).unwrap();
        symlink("file", at("link")).unwrap();
        let mut seen = vec![digest(dir.path()).unwrap()];
        assert_eq!(digest(dir.path()).unwrap(), seen[0]);
        let changes: [&dyn Fn(); 6] = [
            &|| fs::write(at("file"), "two").unwrap(),
            &|| fs::set_permissions(at("file"), fs::Permissions::from_mode(0o4755)).unwrap(),
            &|| fs::rename(at("file"), at("other")).unwrap(),
            &|| fs::rename(at("other"), at("sub/other")).unwrap(),
            &|| {
                fs::remove_file(at("link")).unwrap();
                symlink("other", at("link")).unwrap();
            },
            &|| {
                let set = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(at("sub"), "user.mark", b"1", set).unwrap();
            },
        ];
        for change in changes {
            change();
            seen.push(digest(dir.path()).unwrap());
        }
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn holes_are_zeros() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (sparse, dense) = (dir.path().join("sparse"), dir.path().join("dense"));
        let size = 5 * BLOCK + 100;
        let file = File::create(&sparse).unwrap();
        file.set_len(size as u64).unwrap();
        file.write_all_at(b"x", (2 * BLOCK + 5) as u64).unwrap();
        let mut bytes = vec![0; size];
        bytes[2 * BLOCK + 5] = b'x';
        fs::write(&dense, &bytes).unwrap();
        let of = |path: &Path| digest(path).unwrap();
        assert_eq!(of(&sparse), of(&dense));
        bytes[size - 1] = 1;
        fs::write(&dense, &bytes).unwrap();
        assert_ne!(of(&sparse), of(&dense));
        file.set_len(size as u64 + 1).unwrap();
        bytes[size - 1] = 0;
        fs::write(&dense, &bytes).unwrap();
        assert_ne!(of(&sparse), of(&dense));
    }
}
