//! One watched directory.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use warren_connect::filesystem::{EventType, FilesystemEvent};
use warren_connect::{Code, Error};

use super::entry::describe;
use super::mounts::is_network;
use super::ops::is_missing;
use crate::users::UserDb;

/// Directories below one watch.
const MAX_DEPTH: usize = 256;
/// Bytes of kernel events per read.
const BUFFER: usize = 16 << 10;

/// What to watch and how to report it.
#[derive(Debug, Clone)]
pub(crate) struct WatchSpec {
    /// Absolute path.
    pub(crate) path: String,
    /// With directories below.
    pub(crate) recursive: bool,
    /// Describe entries in events.
    pub(crate) include_entry: bool,
    /// Permit network file systems.
    pub(crate) allow_network: bool,
}

/// An armed watch.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: AsyncFd<OwnedFd>,
    spec: WatchSpec,
    /// Directory of each kernel watch, relative to the root, which is the empty text.
    directories: HashMap<i32, String>,
    pending: VecDeque<FilesystemEvent>,
}

/// A kernel event, copied out of the buffer.
struct Raw {
    wd: i32,
    flags: ReadFlags,
    name: Option<String>,
}

impl Watch {
    /// Arms a watch. Blocks while it walks the tree.
    pub(crate) fn arm(spec: WatchSpec) -> Result<Self, Error> {
        let path = &spec.path;
        let meta = fs::metadata(path).map_err(|e| {
            if is_missing(&e) {
                Error::new(Code::NotFound, format!("path {path} not found: {e}"))
            } else {
                Error::new(Code::Internal, format!("error statting path {path}: {e}"))
            }
        })?;
        if !meta.is_dir() {
            let message = format!("path {path} not a directory");
            return Err(Error::new(Code::InvalidArgument, message));
        }
        let failed = |e: &dyn std::fmt::Display| {
            Error::new(Code::Internal, format!("error creating watcher: {e}"))
        };
        if !spec.allow_network && is_network(path).map_err(|e| failed(&e))? {
            let message = format!("cannot watch path on network filesystem: {path}");
            return Err(Error::new(Code::InvalidArgument, message));
        }
        let fd =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|e| failed(&e))?;
        let mut watch = Self {
            inotify: crate::sys::async_fd(fd).map_err(|e| failed(&e))?,
            spec,
            directories: HashMap::new(),
            pending: VecDeque::new(),
        };
        watch.add_tree("", 0).map_err(|e| failed(&e))?;
        Ok(watch)
    }

    /// The next change.
    ///
    /// # Errors
    /// `internal` when changes were lost or can't be read. The watch is of no use then.
    pub(crate) async fn next(&mut self) -> Result<FilesystemEvent, Error> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            let failed = |e: io::Error| Error::new(Code::Internal, format!("watcher error: {e}"));
            let mut guard = self.inotify.readable().await.map_err(failed)?;
            let batch = match guard.try_io(|fd| read_batch(fd.get_ref())) {
                Ok(batch) => batch.map_err(failed)?,
                Err(_would_block) => continue,
            };
            let users = if self.spec.include_entry {
                UserDb::load().map_err(failed)?
            } else {
                UserDb::default()
            };
            for raw in batch {
                self.translate(&raw, &users)?;
            }
        }
    }

    fn translate(&mut self, raw: &Raw, users: &UserDb) -> Result<(), Error> {
        if raw.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            let message = "watcher error: fsnotify: queue or buffer overflow";
            return Err(Error::new(Code::Internal, message));
        }
        if raw.flags.contains(ReadFlags::IGNORED) {
            self.directories.remove(&raw.wd);
            return Ok(());
        }
        let Some(directory) = self.directories.get(&raw.wd) else {
            return Ok(());
        };
        let name = match &raw.name {
            Some(name) => join(directory, name),
            None if directory.is_empty() => ".".to_owned(),
            // The parent's watch reports the same change with a name.
            None => return Ok(()),
        };
        for kind in kinds(raw.flags) {
            let described = matches!(
                kind,
                EventType::Create | EventType::Write | EventType::Chmod
            );
            let entry = (self.spec.include_entry && described)
                .then(|| describe(&self.absolute(&name), users).ok())
                .flatten();
            self.pending.push_back(FilesystemEvent {
                name: name.clone(),
                r#type: kind.into(),
                entry,
            });
        }
        if self.spec.recursive && raw.flags.contains(ReadFlags::ISDIR) && raw.name.is_some() {
            self.follow_directory(raw.flags, &name);
        }
        Ok(())
    }

    fn follow_directory(&mut self, flags: ReadFlags, name: &str) {
        if flags.contains(ReadFlags::MOVED_FROM) {
            self.remove_tree(name);
        }
        if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            let depth = name.matches('/').count() + 1;
            // It may be gone again, or the kernel's limit reached: what is watched so far
            // goes on.
            let _ = self.add_tree(name, depth);
        }
    }

    fn absolute(&self, relative: &str) -> String {
        match relative {
            "" | "." => self.spec.path.clone(),
            _ => format!("{}/{relative}", self.spec.path.trim_end_matches('/')),
        }
    }

    /// Watches a directory, and those below it if asked to.
    fn add_tree(&mut self, relative: &str, depth: usize) -> io::Result<()> {
        let path = self.absolute(relative);
        let mut flags = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVE_SELF
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        if !relative.is_empty() {
            flags |= WatchFlags::DONT_FOLLOW;
        }
        let wd = inotify::add_watch(self.inotify.get_ref(), &path, flags)?;
        self.directories.insert(wd, relative.to_owned());
        if !self.spec.recursive || depth >= MAX_DEPTH {
            return Ok(());
        }
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let child = join(relative, &entry.file_name().to_string_lossy());
                match self.add_tree(&child, depth + 1) {
                    Err(e) if !is_missing(&e) => return Err(e),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn remove_tree(&mut self, relative: &str) {
        let below = format!("{relative}/");
        let inotify = self.inotify.get_ref();
        self.directories.retain(|wd, directory| {
            let inside = directory == relative || directory.starts_with(&below);
            if inside {
                // Fails if the kernel has dropped it already.
                let _ = inotify::remove_watch(inotify, *wd);
            }
            !inside
        });
    }
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        name.to_owned()
    } else {
        format!("{directory}/{name}")
    }
}

fn read_batch(fd: &OwnedFd) -> io::Result<Vec<Raw>> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    let mut batch = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => batch.push(Raw {
                wd: event.wd(),
                flags: event.events(),
                name: event
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
            }),
            Err(Errno::INTR) => continue,
            Err(e) if batch.is_empty() => return Err(e.into()),
            Err(_) => return Ok(batch),
        }
        if reader.is_buffer_empty() {
            return Ok(batch);
        }
    }
}

/// The types of a kernel record, in the order in which they are reported.
fn kinds(flags: ReadFlags) -> impl Iterator<Item = EventType> {
    let table = [
        (ReadFlags::CREATE | ReadFlags::MOVED_TO, EventType::Create),
        (
            ReadFlags::MOVED_FROM | ReadFlags::MOVE_SELF,
            EventType::Rename,
        ),
        (ReadFlags::ATTRIB, EventType::Chmod),
        (ReadFlags::MODIFY, EventType::Write),
        (
            ReadFlags::DELETE | ReadFlags::DELETE_SELF,
            EventType::Remove,
        ),
    ];
    table
        .into_iter()
        .filter(move |(mask, _)| flags.intersects(*mask))
        .map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_may_mean_several_events() {
        let all: Vec<_> =
            kinds(ReadFlags::MODIFY | ReadFlags::ATTRIB | ReadFlags::CREATE).collect();
        assert_eq!(all, [EventType::Create, EventType::Chmod, EventType::Write]);
        assert_eq!(kinds(ReadFlags::ISDIR).count(), 0);
    }
}
