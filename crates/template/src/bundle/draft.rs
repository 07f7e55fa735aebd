//! A file that appears when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, openat, renameat_with};
use rustix::io::Errno;

/// A new file without a name, which a process that is killed does not leave behind. Where
/// the file system has no such files it is named, and the next try replaces it.
#[derive(Debug)]
pub(super) struct Draft {
    file: File,
    place: PathBuf,
    named: Option<PathBuf>,
}

impl Draft {
    /// Makes one beside the place where it is to appear.
    pub(super) fn beside(place: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let (file, named) = match openat(CWD, dir_of(place), flags, Mode::from_raw_mode(0o644)) {
            Ok(file) => (file.into(), None),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let mut name = place
                    .file_name()
                    .ok_or(io::ErrorKind::InvalidInput)?
                    .to_owned();
                name.push(".partial");
                let path = place.with_file_name(name);
                let mut options = OpenOptions::new();
                options.read(true).write(true).create(true).truncate(true);
                (options.open(&path)?, Some(path))
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            file,
            place: place.to_owned(),
            named,
        })
    }

    /// The file, to write to.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Gives it its name, once it is on the disk. Fails when there is such a file.
    pub(super) fn publish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        match &self.named {
            None => {
                let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                linkat(CWD, unnamed, CWD, &self.place, AtFlags::SYMLINK_FOLLOW)?;
            }
            Some(draft) => {
                match renameat_with(CWD, draft, CWD, &self.place, RenameFlags::NOREPLACE) {
                    // A file system that can't look and rename in one step.
                    Err(Errno::INVAL) => fs::rename(draft, &self.place)?,
                    done => done?,
                }
                self.named = None;
            }
        }
        File::open(dir_of(&self.place))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(draft) = &self.named {
            // What stays is replaced by the next try.
            fs::remove_file(draft).ok();
        }
    }
}

fn dir_of(place: &Path) -> &Path {
    match place.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}
