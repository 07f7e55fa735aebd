//! The layer store.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, FlockOperation, flock, fstat, statat};
use rustix::io::Errno;
use warren_service::fault;

/// Prefix of the names of layers in the making.
const TEMPORARY: &str = ".making-";

/// Failure to use the layer store.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A step on a file failed.
    #[error("{step} {path}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Not a digest: 64 lower-case hexadecimal digits.
    #[error("{0:?} is not a layer digest")]
    Digest(String),
}

impl LayerError {
    /// Wraps a failure to join layers into `path`.
    pub(crate) fn merge(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            step: "join layers into",
            path,
            source,
        }
    }
}

/// A directory of immutable layers, `DIR/<digest>/`. Several processes may share it.
#[derive(Debug, Clone)]
pub struct LayerStore {
    dir: PathBuf,
}

/// Whether a text is the name of a layer.
pub(crate) fn is_digest(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayerError {
    let path = path.to_owned();
    move |source| LayerError::Io { step, path, source }
}

impl LayerStore {
    /// Opens the store, making the directory if needed, and removes what makers that were
    /// killed left behind.
    ///
    /// # Errors
    /// [`LayerError::Io`].
    pub fn open(dir: &Path) -> Result<Self, LayerError> {
        // Sandboxes' first processes look layers up as unprivileged host users.
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .map_err(io_error("make", dir))?;
        let dir = dir.canonicalize().map_err(io_error("resolve", dir))?;
        let store = Self { dir };
        store.sweep()?;
        Ok(store)
    }

    fn sweep(&self) -> Result<(), LayerError> {
        let entries = fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))?;
        for entry in entries {
            let name = entry.map_err(io_error("list", &self.dir))?.file_name();
            let Some(digest) = name
                .to_str()
                .and_then(|name| name.strip_prefix(TEMPORARY))
                .filter(|digest| is_digest(digest))
            else {
                continue;
            };
            // Whoever holds the lock is still at work.
            if let Some(_lock) = self.lock(digest, FlockOperation::NonBlockingLockExclusive)? {
                remove_tree(&self.temporary(digest))?;
            }
        }
        Ok(())
    }

    fn temporary(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{TEMPORARY}{digest}"))
    }

    /// Locks the making of a layer; `None` if another maker has it and `how` is not to wait.
    fn lock(&self, digest: &str, how: FlockOperation) -> Result<Option<File>, LayerError> {
        let path = self.lock_path(digest);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(io_error("open", &path))?;
            match flock(&file, how) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(io_error("lock", &path)(error.into())),
            }
            // Whoever removed the layer has removed this file: another one counts now.
            let ours = fstat(&file).map_err(|error| io_error("look at", &path)(error.into()))?;
            match statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(named) if (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino) => {
                    return Ok(Some(file));
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(io_error("look at", &path)(error.into())),
            }
        }
    }

    fn lock_path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!(".{digest}.lock"))
    }

    /// Every layer, with the time when it was made.
    ///
    /// # Errors
    /// [`LayerError`].
    pub(crate) fn list(&self) -> Result<Vec<(String, SystemTime)>, LayerError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))? {
            let name = entry.map_err(io_error("list", &self.dir))?.file_name();
            let Some(digest) = name.to_str().filter(|name| is_digest(name)) else {
                continue;
            };
            let path = self.dir.join(digest);
            let stat = statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.map_err(|error| io_error("look at", &path)(error.into()))?;
            // Of the change, which its own content does not set: the rename at the end.
            let seconds = u64::try_from(stat.st_ctime).unwrap_or(0);
            let made = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            found.push((digest.to_owned(), made));
        }
        Ok(found)
    }

    /// Takes a layer out of sight, to be removed; `None` if somebody makes it at this time.
    /// What is left under the name that is returned is swept by the next opening, and by
    /// whoever makes the layer again. Nobody does while the lock is held.
    ///
    /// # Errors
    /// [`LayerError`].
    pub(crate) fn condemn(&self, digest: &str) -> Result<Option<(PathBuf, File)>, LayerError> {
        let Some(lock) = self.lock(digest, FlockOperation::NonBlockingLockExclusive)? else {
            return Ok(None);
        };
        let (from, to) = (self.dir.join(digest), self.temporary(digest));
        remove_tree(&to)?;
        fs::rename(&from, &to).map_err(io_error("rename", &from))?;
        Ok(Some((to, lock)))
    }

    /// Removes what [`condemn`](Self::condemn) took, and its lock with it.
    ///
    /// # Errors
    /// [`LayerError`].
    pub(crate) fn remove(
        &self,
        digest: &str,
        (path, lock): (PathBuf, File),
    ) -> Result<(), LayerError> {
        remove_tree(&path)?;
        let name = self.lock_path(digest);
        fs::remove_file(&name).map_err(io_error("remove", &name))?;
        drop(lock);
        Ok(())
    }

    /// The directory of the store.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a layer is, if it is here.
    ///
    /// # Errors
    /// [`LayerError::Digest`].
    pub fn get(&self, digest: &str) -> Result<Option<PathBuf>, LayerError> {
        if !is_digest(digest) {
            return Err(LayerError::Digest(digest.to_owned()));
        }
        let path = self.dir.join(digest);
        Ok(path.is_dir().then_some(path))
    }

    /// Takes the right to make a layer, waiting for whoever makes it now. Blocks. What an
    /// earlier attempt left is removed.
    ///
    /// # Errors
    /// [`LayerError`].
    pub fn make(&self, digest: &str) -> Result<Making, LayerError> {
        if !is_digest(digest) {
            return Err(LayerError::Digest(digest.to_owned()));
        }
        let lock = self
            .lock(digest, FlockOperation::LockExclusive)?
            .expect("a lock that waits is taken or fails");
        let root = self.temporary(digest);
        remove_tree(&root)?;
        Ok(Making {
            root,
            done: self.dir.join(digest),
            lock,
        })
    }
}

/// Removes what an attempt left, for another one.
pub(crate) fn clear(root: &Path) -> Result<(), LayerError> {
    remove_tree(root)
}

fn remove_tree(path: &Path) -> Result<(), LayerError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(io_error("remove", path)),
    }
}

/// A layer in the making. Dropped before it is committed, it leaves nothing.
#[derive(Debug)]
pub struct Making {
    root: PathBuf,
    done: PathBuf,
    lock: File,
}

impl Making {
    /// Where the layer is to be unpacked. Does not exist yet.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A descriptor to be inherited by a program that makes the layer: while it lives,
    /// nobody else starts to make it, even after this process was killed. Reads as empty.
    ///
    /// # Errors
    /// [`LayerError::Io`].
    pub fn hold(&self) -> Result<File, LayerError> {
        self.lock
            .try_clone()
            .map_err(io_error("duplicate the lock of", &self.root))
    }

    /// The finished layer, if somebody else made it while this one waited for its turn.
    #[must_use]
    pub fn already_made(&self) -> Option<&Path> {
        self.done.is_dir().then_some(self.done.as_path())
    }

    /// Makes the layer visible under its digest.
    ///
    /// # Errors
    /// [`LayerError::Io`].
    pub fn commit(self) -> Result<PathBuf, LayerError> {
        // All data first: a layer that is visible must be whole after a power failure too.
        let root = File::open(&self.root).map_err(io_error("open", &self.root))?;
        rustix::fs::syncfs(&root).map_err(|error| io_error("sync", &self.root)(error.into()))?;
        fault::point("layer.synced");
        fs::rename(&self.root, &self.done).map_err(io_error("rename", &self.root))?;
        fault::point("layer.published");
        if let Some(dir) = self.done.parent() {
            let opened = File::open(dir).map_err(io_error("open", dir))?;
            opened.sync_all().map_err(io_error("sync", dir))?;
        }
        Ok(self.done.clone())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // After a commit there is nothing under the temporary name. What can't be removed
        // now is removed by the next attempt.
        remove_tree(&self.root).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> String {
        "a".repeat(64)
    }

    #[test]
    fn an_unfinished_layer_is_never_seen() {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(&dir.path().join("layers")).unwrap();
        let making = store.make(&digest()).unwrap();
        fs::create_dir(making.root()).unwrap();
        assert_eq!(store.get(&digest()).unwrap(), None);
        drop(making);

        // A process that was killed leaves its directory; the next attempt starts afresh.
        let abandoned = store.dir().join(format!("{TEMPORARY}{}", digest()));
        fs::create_dir(&abandoned).unwrap();
        let making = store.make(&digest()).unwrap();
        assert!(!abandoned.exists());
        fs::create_dir(making.root()).unwrap();
        fs::write(making.root().join("f"), "x").unwrap();
        let path = making.commit().unwrap();
        assert_eq!(store.get(&digest()).unwrap(), Some(path));
        assert!(store.make(&digest()).unwrap().already_made().is_some());
    }

    #[test]
    fn opening_sweeps_what_nobody_is_making() {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(dir.path()).unwrap();
        let making = store.make(&digest()).unwrap();
        fs::create_dir(making.root()).unwrap();
        let abandoned = store.temporary(&"b".repeat(64));
        fs::create_dir(&abandoned).unwrap();
        LayerStore::open(dir.path()).unwrap();
        assert!(making.root().exists());
        assert!(!abandoned.exists());
        // A child that still writes keeps the place of its killed parent.
        let child = making.hold().unwrap();
        let root = making.root().to_owned();
        drop(making);
        fs::create_dir(&root).unwrap();
        LayerStore::open(dir.path()).unwrap();
        assert!(root.exists());
        drop(child);
        LayerStore::open(dir.path()).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn makers_of_one_layer_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(dir.path()).unwrap();
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let making = store.make(&digest()).unwrap();
                    if making.already_made().is_none() {
                        fs::create_dir(making.root()).unwrap();
                        made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        making.commit().unwrap();
                    }
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn a_name_that_is_no_digest_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(dir.path()).unwrap();
        for bad in ["", "..", "../../etc", "ABCDEF", &"g".repeat(64)] {
            assert!(
                matches!(store.get(bad), Err(LayerError::Digest(_))),
                "{bad}"
            );
            assert!(
                matches!(store.make(bad), Err(LayerError::Digest(_))),
                "{bad}"
            );
        }
    }
}
