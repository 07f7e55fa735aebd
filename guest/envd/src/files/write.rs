//! Writes one uploaded file.
//!
//! Watchers see exactly one event each for creation, change of owner and content of a small
//! new file, so content is gathered and written in as few calls as possible, in place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{OpenOptionsExt, chown, fchown};
use std::path::Path;

use bytes::{Buf, Bytes};
use tokio::task::{JoinError, JoinHandle};
use warren_service::{Chain, Tasks};

use super::metadata::{self, Metadata};
use crate::paths::{ensure_dirs, parent};
use crate::reply::{RestError, is_disk_full};
use crate::users::User;

/// Bytes that are gathered before they are written.
const CHUNK: usize = 256 << 10;
/// Pieces that are gathered before they are written; the kernel takes 1024 at once.
const MAX_PIECES: usize = 512;

/// A file being written. One write runs while the next one's content is gathered.
#[derive(Debug)]
pub(crate) struct Writer {
    target: Target,
    running: Option<JoinHandle<Result<File, RestError>>>,
    pieces: Vec<Bytes>,
    gathered: usize,
}

/// Where a file goes.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Absolute path.
    pub(crate) path: String,
    /// Owner.
    pub(crate) user: User,
    /// Metadata to store with it.
    pub(crate) metadata: Metadata,
    /// Length that the request announced, for messages.
    pub(crate) announced: Option<u64>,
}

impl Writer {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            running: None,
            pieces: Vec::new(),
            gathered: 0,
        }
    }

    /// Adds content.
    pub(crate) async fn write(&mut self, tasks: &Tasks, piece: Bytes) -> Result<(), RestError> {
        self.gathered += piece.len();
        self.pieces.push(piece);
        if self.gathered >= CHUNK || self.pieces.len() >= MAX_PIECES {
            let file = self.written().await?;
            self.running = Some(self.step(tasks, file, |_, file| Ok(file)));
        }
        Ok(())
    }

    /// Writes the rest and the metadata. Returns the metadata that the file has now.
    pub(crate) async fn finish(mut self, tasks: &Tasks) -> Result<Metadata, RestError> {
        let file = self.written().await?;
        let last = self.step(tasks, file, |target, file| {
            metadata::replace(&file, Path::new(&target.path), &target.metadata)
                .map_err(|e| metadata_error(&e))
        });
        last.await.map_err(lost)?
    }

    /// Waits for the write that runs. `None` before the first.
    async fn written(&mut self) -> Result<Option<File>, RestError> {
        match self.running.take() {
            Some(running) => running.await.map_err(lost)?.map(Some),
            None => Ok(None),
        }
    }

    /// Opens the file if needed and writes what is gathered, where it may block.
    fn step<T: Send + 'static>(
        &mut self,
        tasks: &Tasks,
        file: Option<File>,
        then: impl FnOnce(&Target, File) -> Result<T, RestError> + Send + 'static,
    ) -> JoinHandle<Result<T, RestError>> {
        let target = self.target.clone();
        let pieces = std::mem::take(&mut self.pieces);
        self.gathered = 0;
        tasks.spawn_blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => open(&target)?,
            };
            write_pieces(&mut file, pieces).map_err(|e| write_error(&target, &e))?;
            then(&target, file)
        })
    }
}

fn lost(error: JoinError) -> RestError {
    RestError::internal(format!("error writing file: {error}"))
}

/// Opens a file for its new content: an existing one changes hands before it is emptied.
fn open(target: &Target) -> Result<File, RestError> {
    let Target { path, user, .. } = target;
    ensure_dirs(Path::new(&parent(path)), user).map_err(|e| {
        let full = e.io().is_some_and(is_disk_full);
        let text = Chain(&e).to_string();
        if full {
            space_error(target, &text)
        } else {
            RestError::internal(format!("error ensuring directories: {text}"))
        }
    })?;
    let failed = |e: io::Error| {
        if is_disk_full(&e) {
            space_error(target, &e.to_string())
        } else {
            RestError::internal(format!("error opening file: {e}"))
        }
    };
    let existed = match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            return Err(RestError::bad_request(format!(
                "path is a directory: {path}"
            )));
        }
        Ok(_) => {
            chown(path, Some(user.uid), Some(user.gid))
                .or_else(|e| virtual_file(path, e))
                .map_err(|e| RestError::internal(format!("error changing file ownership: {e}")))?;
            true
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(RestError::internal(format!("error getting file info: {e}"))),
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o666)
        // A pipe without a reader fails instead of waiting for one.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    if !existed {
        fchown(&file, Some(user.uid), Some(user.gid))
            .map_err(|e| RestError::internal(format!("error changing file ownership: {e}")))?;
    }
    Ok(file)
}

/// Virtual files have fixed owners and are written all the same.
fn virtual_file(path: &str, error: io::Error) -> io::Result<()> {
    if path.starts_with("/proc/") || path.starts_with("/sys/") {
        Ok(())
    } else {
        Err(error)
    }
}

fn write_pieces(file: &mut File, mut pieces: Vec<Bytes>) -> io::Result<()> {
    pieces.retain(|piece| !piece.is_empty());
    let mut first = 0;
    while first < pieces.len() {
        let slices: Vec<_> = pieces[first..].iter().map(|p| IoSlice::new(p)).collect();
        let mut written = match file.write_vectored(&slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        while first < pieces.len() && written >= pieces[first].len() {
            written -= pieces[first].len();
            first += 1;
        }
        if written > 0 {
            pieces[first].advance(written);
        }
    }
    Ok(())
}

fn write_error(target: &Target, error: &io::Error) -> RestError {
    if !is_disk_full(error) {
        return RestError::internal(format!("error writing file: {error}"));
    }
    RestError::no_space(match target.announced {
        Some(bytes) => format!("attempted to write {bytes} bytes: not enough disk space available"),
        None => "not enough disk space available".to_owned(),
    })
}

/// A file or directory could not be made: inodes and blocks run out alike.
fn space_error(target: &Target, cause: &str) -> RestError {
    let inodes = rustix::fs::statvfs("/").is_ok_and(|fs| fs.f_files > 0 && fs.f_favail == 0);
    if inodes {
        return RestError::no_space(format!("not enough inodes available: {cause}"));
    }
    write_error(target, &io::ErrorKind::StorageFull.into())
}

fn metadata_error(error: &io::Error) -> RestError {
    let too_big = matches!(
        error.raw_os_error(),
        Some(libc::ENOSPC | libc::EDQUOT | libc::E2BIG | libc::ERANGE)
    );
    if too_big {
        RestError::no_space(format!("not enough space for file metadata: {error}"))
    } else {
        RestError::internal(format!("error writing file metadata: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_written_in_order() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let pieces = vec![
            Bytes::from_static(b"ab"),
            Bytes::new(),
            Bytes::from_static(b"cde"),
        ];
        write_pieces(file.as_file_mut(), pieces).unwrap();
        assert_eq!(fs::read(file.path()).unwrap(), b"abcde");
    }

    #[test]
    fn a_full_disk_names_the_announced_length() {
        let mut target = Target {
            path: "/f".into(),
            user: User {
                name: "u".into(),
                uid: 0,
                gid: 0,
                home: "/".into(),
            },
            metadata: Metadata::new(),
            announced: Some(7),
        };
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        let error = write_error(&target, &full);
        assert_eq!(error.status.as_u16(), 507);
        assert_eq!(
            error.message,
            "attempted to write 7 bytes: not enough disk space available"
        );
        target.announced = None;
        assert_eq!(
            write_error(&target, &full).message,
            "not enough disk space available"
        );
    }
}
