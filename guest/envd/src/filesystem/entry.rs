//! Descriptions of entries.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use warren_connect::Timestamp;
use warren_connect::filesystem::{EntryInfo, FileType};

use crate::files::metadata;
use crate::paths::base_name;
use crate::users::UserDb;

/// Describes the entry at `path`, which is reported as it is given.
///
/// # Errors
/// The entry can't be looked at.
pub(crate) fn describe(path: &str, users: &UserDb) -> io::Result<EntryInfo> {
    let own = fs::symlink_metadata(path)?;
    let is_symlink = own.file_type().is_symlink();
    let target = if is_symlink {
        fs::metadata(path).ok()
    } else {
        Some(own.clone())
    };
    let symlink_target = is_symlink.then(|| match fs::canonicalize(path) {
        Ok(target) => target.to_string_lossy().into_owned(),
        Err(_) => path.to_owned(),
    });
    let (kind, mode) = match &target {
        Some(target) => (kind_of(target), target.permissions().mode() & 0o777),
        None => (FileType::Unspecified, 0),
    };
    let letters = match (&target, is_symlink) {
        (Some(target), false) => permissions_text(target.mode()),
        _ => permissions_text(own.mode()),
    };
    Ok(EntryInfo {
        name: base_name(path).to_owned(),
        r#type: kind.into(),
        path: path.to_owned(),
        size: i64::try_from(own.len()).unwrap_or(i64::MAX),
        mode,
        permissions: letters,
        owner: users.user_name(own.uid()),
        group: users.group_name(own.gid()),
        modified_time: Some(Timestamp {
            seconds: own.mtime(),
            nanos: i32::try_from(own.mtime_nsec()).unwrap_or(0),
        }),
        symlink_target,
        metadata: user_metadata(Path::new(path), &own),
        is_symlink,
    })
}

fn kind_of(meta: &Metadata) -> FileType {
    if meta.is_file() {
        FileType::File
    } else if meta.is_dir() {
        FileType::Directory
    } else {
        FileType::Unspecified
    }
}

/// Only files and directories can carry attributes of the user name space.
fn user_metadata(path: &Path, meta: &Metadata) -> BTreeMap<String, String> {
    let kind = meta.file_type();
    if kind.is_symlink() || kind.is_fifo() || kind.is_socket() {
        return BTreeMap::new();
    }
    metadata::read(path)
}

/// Kind and permissions of a raw mode in letters, as Go prints them.
#[must_use]
pub fn permissions_text(mode: u32) -> String {
    const SETUID: u32 = 0o4000;
    const SETGID: u32 = 0o2000;
    const STICKY: u32 = 0o1000;
    let mut text = String::with_capacity(12);
    text.push_str(match mode & 0o170_000 {
        0o040_000 => "d",
        0o120_000 => "L",
        0o060_000 => "D",
        0o020_000 => "Dc",
        0o010_000 => "p",
        0o140_000 => "S",
        _ => "",
    });
    // Go's order of the bits: setuid and setgid come before a character device's `c`, but no
    // device has them in practice.
    for (bit, letter) in [(SETUID, 'u'), (SETGID, 'g'), (STICKY, 't')] {
        if mode & bit != 0 {
            text.push(letter);
        }
    }
    if text.is_empty() {
        text.push('-');
    }
    for (at, letter) in "rwxrwxrwx".chars().enumerate() {
        let set = mode & (0o400 >> at) != 0;
        text.push(if set { letter } else { '-' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_as_in_the_contract() {
        for (mode, text) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "Lrwxrwxrwx"),
            (0o041_777, "dtrwxrwxrwx"),
            (0o104_755, "urwxr-xr-x"),
            (0o102_755, "grwxr-xr-x"),
            (0o010_600, "prw-------"),
            (0o140_755, "Srwxr-xr-x"),
            (0o060_660, "Drw-rw----"),
            (0o020_666, "Dcrw-rw-rw-"),
        ] {
            assert_eq!(permissions_text(mode), text);
        }
    }

    #[test]
    fn links_describe_their_target() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let file = root.join("f");
        fs::write(&file, "13 characters").unwrap();
        let link = root.join("l");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let broken = root.join("b");
        std::os::unix::fs::symlink("nowhere", &broken).unwrap();
        let users = UserDb::default();

        let entry = describe(file.to_str().unwrap(), &users).unwrap();
        assert_eq!((entry.size, entry.is_symlink), (13, false));
        let entry = describe(link.to_str().unwrap(), &users).unwrap();
        assert_eq!(entry.r#type, i32::from(FileType::File));
        assert_eq!(entry.symlink_target.as_deref(), file.to_str());
        assert!(entry.permissions.starts_with('L') && entry.is_symlink);
        let entry = describe(broken.to_str().unwrap(), &users).unwrap();
        assert_eq!((entry.r#type, entry.mode), (0, 0));
        assert_eq!(entry.symlink_target.as_deref(), broken.to_str());
    }
}
