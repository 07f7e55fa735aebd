//! Paths of what processes watch. A watch is kept by inode; CRIU, to make it again, needs a
//! path, and finds it only where it is told to look. The kernel shows the handle that
//! overlayfs would give for the file: in it is the handle of the file below, which one of the
//! layers can open.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use warren_sys::fhandle;

use super::super::disk::Disk;

/// More watches than this are not looked up; CRIU refuses those it does not find.
const MOST: usize = 10_000;
/// Kind of an overlay's handle, and its mark and length before the real one: three bytes of
/// padding, version, magic, length, flags, type and the file system's id.
const OVERLAY_KIND: i32 = 0xf8;
const OVERLAY_MAGIC: u8 = 0xfb;
const OVERLAY_HEAD: usize = 3 + 5 + 16;

/// A watched file's handle on the file system below the overlay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Handle {
    kind: i32,
    bytes: Vec<u8>,
}

impl Handle {
    /// Reads one line of a descriptor's facts; `None` when it tells of no such watch.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("inotify ")?.split(' ');
        let kind = words.find_map(|word| word.strip_prefix("fhandle-type:"))?;
        let text = words.find_map(|word| word.strip_prefix("f_handle:"))?;
        if i32::from_str_radix(kind, 16).ok()? != OVERLAY_KIND || text.len() % 2 != 0 {
            return None;
        }
        let bytes: Option<Vec<u8>> = (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
            .collect();
        let bytes = bytes?;
        // Length counts from the version on.
        let length = usize::from(*bytes.get(5)?);
        if *bytes.get(4)? != OVERLAY_MAGIC {
            return None;
        }
        Some(Self {
            kind: i32::from(*bytes.get(7)?),
            bytes: bytes.get(OVERLAY_HEAD..3 + length)?.to_vec(),
        })
    }
}

/// A tree that files of the root come from.
#[derive(Debug)]
struct Tree {
    dir: OwnedFd,
    /// Its own path as the kernel tells those of files in it.
    path: PathBuf,
}

impl Tree {
    fn of(dir: OwnedFd) -> io::Result<Self> {
        let path = path_of(&dir)?;
        Ok(Self { dir, path })
    }

    /// Path in the root of the file of a handle, if it is in this tree.
    fn locate(&self, handle: &Handle) -> Option<PathBuf> {
        let file = fhandle::open(self.dir.as_fd(), handle.kind, &handle.bytes).ok()?;
        let path = path_of(&file).ok()?;
        let inside = path.strip_prefix(&self.path).ok()?;
        Some(Path::new("/").join(inside))
    }
}

fn path_of(fd: &OwnedFd) -> io::Result<PathBuf> {
    fs::read_link(Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string()))
}

fn handles(pids: &[u32]) -> BTreeSet<Handle> {
    let mut found = BTreeSet::new();
    for pid in pids {
        let process = Path::new("/proc").join(pid.to_string());
        // A process that is gone watches nothing.
        let Ok(entries) = fs::read_dir(process.join("fd")) else {
            continue;
        };
        for entry in entries.flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            if target != Path::new("anon_inode:inotify") {
                continue;
            }
            let facts = process.join("fdinfo").join(entry.file_name());
            let text = fs::read_to_string(facts).unwrap_or_default();
            found.extend(text.lines().filter_map(Handle::parse).take(MOST));
            if found.len() > MOST {
                return found;
            }
        }
    }
    found
}

/// Paths, in the root of a sandbox, of what its processes watch, as far as they are found.
pub(super) fn paths(pids: &[u32], disk: &Disk, layers: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let handles = handles(pids);
    if handles.is_empty() {
        return Ok(Vec::new());
    }
    let mut trees = vec![Tree::of(File::open(disk.upper_path())?.into())?];
    for layer in layers {
        trees.push(Tree::of(File::open(layer)?.into())?);
    }
    let found = handles
        .iter()
        .filter_map(|handle| trees.iter().find_map(|tree| tree.locate(handle)));
    let found: BTreeSet<_> = found.collect();
    // Those above come last: CRIU searches each with all below it.
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "inotify wd:1 ino:a sdev:161 mask:fc6 ignored_mask:0 fhandle-bytes:20 \
                        fhandle-type:f8 f_handle:00000000fb1d00010000000000000000000000000000\
                        000022e414005168884b";

    #[test]
    fn the_handle_below_is_taken_out_of_an_overlays() {
        let handle = Handle::parse(LINE).unwrap();
        assert_eq!(handle.kind, 1);
        assert_eq!(handle.bytes, [0x22, 0xe4, 0x14, 0, 0x51, 0x68, 0x88, 0x4b]);
    }

    #[test]
    fn other_lines_and_cut_handles_are_no_watches() {
        for end in 0..LINE.len() {
            // Any prefix is either no handle or a shorter text of one that does not fit.
            assert_eq!(Handle::parse(&LINE[..end]), None, "{end}");
        }
        assert_eq!(Handle::parse("pos:\t0"), None);
    }
}
