//! Why something with a volume failed.

use std::io;

use rustix::io::Errno;

use warren_types::VolumeId;

use crate::BucketError;

/// Failure of an operation on a volume or in it.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is no such volume on this host.
    #[error("volume not found")]
    NoVolume,
    /// Nothing is at the path, or not what is wanted.
    #[error("path not found")]
    NoPath,
    /// Something is at the path already.
    #[error("path already exists")]
    Exists,
    /// A directory is where a file is to be.
    #[error("path is a directory")]
    IsDirectory,
    /// A file is where a directory is needed.
    #[error("a parent of the path is not a directory")]
    NotDirectory,
    /// The request can't be meant.
    #[error("{0}")]
    Invalid(&'static str),
    /// The volume has reached its size.
    #[error("the volume is full")]
    Full,
    /// A listing would be too long.
    #[error("the directory has more than {0} entries")]
    TooMany(usize),
    /// Another server keeps the volume, on the host of this name.
    #[error("the volume is kept by another server, on {0}")]
    Elsewhere(String),
    /// The bucket that volumes are kept in failed.
    #[error("the storage of volumes can't be used")]
    Bucket(#[from] BucketError),
    /// The host failed.
    #[error("{action}")]
    Host {
        /// What was being done.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A volume could not be written back to its bucket.
#[derive(Debug, thiserror::Error)]
#[error("write volumes back")]
pub struct WriteBackError {
    /// Which; none when they could not be listed.
    pub id: Option<VolumeId>,
    /// The cause.
    #[source]
    pub source: VolumeError,
}

/// Names the action of a failed call on the host.
pub(crate) fn host<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> VolumeError {
    move |source| VolumeError::Host {
        action,
        source: source.into(),
    }
}

/// Reads a failure to reach something in a volume.
pub(crate) fn reach(action: &'static str) -> impl FnOnce(Errno) -> VolumeError {
    move |errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::XDEV => {
            VolumeError::NoPath
        }
        Errno::NOSPC | Errno::DQUOT => VolumeError::Full,
        Errno::EXIST | Errno::NOTEMPTY => VolumeError::Exists,
        Errno::ISDIR => VolumeError::IsDirectory,
        other => host(action)(other),
    }
}
