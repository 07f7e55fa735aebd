//! Requests beyond the third version of the protocol that OpenSSH's clients use.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What is announced: names and versions.
pub(crate) fn announced() -> HashMap<String, String> {
    [
        ("posix-rename@openssh.com", "1"),
        ("hardlink@openssh.com", "1"),
        ("fsync@openssh.com", "1"),
        ("statvfs@openssh.com", "2"),
        ("limits@openssh.com", "1"),
        ("expand-path@openssh.com", "1"),
    ]
    .map(|(name, version)| (name.to_owned(), version.to_owned()))
    .into()
}

/// Reads strings one after the other.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    /// The next string as a path; `None` if there is none.
    pub(crate) fn path(&mut self) -> Option<PathBuf> {
        self.bytes().map(|bytes| OsStr::from_bytes(bytes).into())
    }

    pub(crate) fn bytes(&mut self) -> Option<&[u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (bytes, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// How full the file system of a path is, as the answer has it.
pub(crate) fn file_system(path: &std::path::Path) -> io::Result<Vec<u8>> {
    let told = rustix::fs::statvfs(path)?;
    let numbers = [
        told.f_bsize,
        told.f_frsize,
        told.f_blocks,
        told.f_bfree,
        told.f_bavail,
        told.f_files,
        told.f_ffree,
        told.f_favail,
        told.f_fsid,
        told.f_flag.bits(),
        told.f_namemax,
    ];
    Ok(numbers.iter().flat_map(|n| n.to_be_bytes()).collect())
}

/// Sizes that clients may count on: packets, reads, writes, open files.
pub(crate) fn limits(packet: u32, data: u32, handles: u64) -> Vec<u8> {
    [packet.into(), data.into(), data.into(), handles]
        .iter()
        .flat_map(|n: &u64| n.to_be_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_within_their_bounds() {
        let mut reader = Reader(b"\0\0\0\x02ab\0\0\0\x05xy");
        assert_eq!(reader.path(), Some("ab".into()));
        assert_eq!(reader.bytes(), None);
        assert_eq!(Reader(b"\0\0").bytes(), None);
        assert_eq!(Reader(b"\xff\xff\xff\xffx").bytes(), None);
    }
}
