//! Attributes of files as the protocol has them, read and changed.

use std::fs::Metadata;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use russh_sftp::protocol::FileAttributes;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid};

/// All permission bits, without the kind of file.
const PERMISSIONS: u32 = 0o7777;

fn seconds(time: i64) -> u32 {
    u32::try_from(time).unwrap_or(if time < 0 { 0 } else { u32::MAX })
}

/// What the protocol tells of a file.
pub(crate) fn of(metadata: &Metadata) -> FileAttributes {
    FileAttributes {
        size: Some(metadata.size()),
        uid: Some(metadata.uid()),
        user: None,
        gid: Some(metadata.gid()),
        group: None,
        permissions: Some(metadata.mode()),
        atime: Some(seconds(metadata.atime())),
        mtime: Some(seconds(metadata.mtime())),
    }
}

/// The permission bits that a new file is asked to have.
pub(crate) fn mode(attributes: &FileAttributes, default: u32) -> u32 {
    attributes.permissions.unwrap_or(default) & PERMISSIONS
}

fn times(attributes: &FileAttributes) -> Option<Timestamps> {
    let time = |seconds: u32| Timespec {
        tv_sec: i64::from(seconds),
        tv_nsec: 0,
    };
    match (attributes.atime, attributes.mtime) {
        (Some(accessed), Some(modified)) => Some(Timestamps {
            last_access: time(accessed),
            last_modification: time(modified),
        }),
        _ => None,
    }
}

fn owner(attributes: &FileAttributes) -> Option<(Uid, Gid)> {
    Some((
        Uid::from_raw(attributes.uid?),
        Gid::from_raw(attributes.gid?),
    ))
}

/// Changes what is given of the file of this path.
pub(crate) fn change(path: &Path, attributes: &FileAttributes) -> io::Result<()> {
    if let Some(size) = attributes.size {
        std::fs::OpenOptions::new()
            .write(true)
            .open(path)?
            .set_len(size)?;
    }
    if let Some((user, group)) = owner(attributes) {
        rustix::fs::chownat(CWD, path, Some(user), Some(group), AtFlags::empty())?;
    }
    if attributes.permissions.is_some() {
        let mode = Mode::from_raw_mode(mode(attributes, 0));
        rustix::fs::chmodat(CWD, path, mode, AtFlags::empty())?;
    }
    if let Some(times) = times(attributes) {
        rustix::fs::utimensat(CWD, path, &times, AtFlags::empty())?;
    }
    Ok(())
}

/// The same for an open file.
pub(crate) fn change_open(file: &std::fs::File, attributes: &FileAttributes) -> io::Result<()> {
    if let Some(size) = attributes.size {
        file.set_len(size)?;
    }
    if let Some((user, group)) = owner(attributes) {
        rustix::fs::fchown(file.as_fd(), Some(user), Some(group))?;
    }
    if attributes.permissions.is_some() {
        rustix::fs::fchmod(file.as_fd(), Mode::from_raw_mode(mode(attributes, 0)))?;
    }
    if let Some(times) = times(attributes) {
        rustix::fs::futimens(file.as_fd(), &times)?;
    }
    Ok(())
}
