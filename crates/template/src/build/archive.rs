//! Uploaded archives: checked and cut down to what a copy takes, before anything of them
//! enters a sandbox.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::{Builder, EntryType, Header};

use crate::tarball::{Item, TarError, clean, walk};

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error("read the archive")]
    Read(#[source] io::Error),
    #[error("write the archive anew")]
    Write(#[source] io::Error),
    #[error("entry {path:?} lies below {through:?}, which is no directory")]
    Through { path: PathBuf, through: PathBuf },
    #[error("entry {0:?} is neither file, directory nor link")]
    Kind(PathBuf),
    #[error("entry {path:?} is a hard link to {target:?}, which is no earlier file")]
    HardLink { path: PathBuf, target: PathBuf },
    #[error("more than {0} bytes when unpacked")]
    TooLarge(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link,
}

/// Writes to `into` a plain archive of the entries of `from` at or below `wanted` (all if
/// empty), owned by root. `from` is a tar archive, compressed by gzip or plain, whatever it
/// is named. Refuses what would leave the directory it is unpacked to, and more than
/// `max_bytes` of content.
pub(super) fn refine(
    mut from: File,
    wanted: &Path,
    max_bytes: u64,
    into: &mut File,
) -> Result<(), ArchiveError> {
    let mut magic = [0; 2];
    let read = from.read(&mut magic).map_err(ArchiveError::Read)?;
    from.seek(SeekFrom::Start(0)).map_err(ArchiveError::Read)?;
    let reader: Box<dyn Read> = if magic[..read] == [0x1f, 0x8b] {
        Box::new(MultiGzDecoder::new(BufReader::new(from)))
    } else {
        Box::new(BufReader::new(from))
    };
    // Headers, padding and names come on top of the content.
    let allowance = max_bytes.saturating_mul(2).saturating_add(1 << 30);
    let mut builder = Builder::new(io::BufWriter::new(into));
    let mut refiner = Refiner {
        seen: BTreeMap::new(),
        left: max_bytes,
        max_bytes,
        wanted,
    };
    walk(reader.take(allowance), |item, content| {
        refiner.entry(item, content, &mut builder)
    })?;
    let mut written = builder.into_inner().map_err(ArchiveError::Write)?;
    io::Write::flush(&mut written).map_err(ArchiveError::Write)
}

struct Refiner<'a> {
    seen: BTreeMap<PathBuf, Kind>,
    left: u64,
    max_bytes: u64,
    wanted: &'a Path,
}

impl Refiner<'_> {
    fn entry<W: io::Write>(
        &mut self,
        item: Item,
        content: &mut dyn Read,
        builder: &mut Builder<W>,
    ) -> Result<(), ArchiveError> {
        let path = item.path;
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        self.check_parents(&path)?;
        let taken = path.starts_with(self.wanted);
        let mut header = Header::new_gnu();
        header.set_mode(item.mode);
        header.set_mtime(item.mtime);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        let (kind, written) = match item.kind {
            EntryType::Directory => {
                header.set_entry_type(EntryType::Directory);
                let written = taken.then(|| builder.append_data(&mut header, &path, io::empty()));
                (Kind::Directory, written)
            }
            EntryType::Regular | EntryType::Continuous => {
                let left = self.left.checked_sub(item.size);
                self.left = left.ok_or(ArchiveError::TooLarge(self.max_bytes))?;
                header.set_entry_type(EntryType::Regular);
                header.set_size(item.size);
                let written = taken.then(|| builder.append_data(&mut header, &path, content));
                (Kind::File, written)
            }
            EntryType::Symlink => {
                header.set_entry_type(EntryType::Symlink);
                let written = taken.then(|| builder.append_link(&mut header, &path, &item.link));
                (Kind::Link, written)
            }
            EntryType::Link => {
                let target = clean(&item.link)?;
                let known = self.seen.get(&target) == Some(&Kind::File);
                if !known || (taken && !target.starts_with(self.wanted)) {
                    return Err(ArchiveError::HardLink { path, target });
                }
                header.set_entry_type(EntryType::Link);
                let written = taken.then(|| builder.append_link(&mut header, &path, &target));
                (Kind::File, written)
            }
            _ => return Err(ArchiveError::Kind(path)),
        };
        written.transpose().map_err(ArchiveError::Write)?;
        self.seen.insert(path, kind);
        Ok(())
    }

    /// An entry below a link of the archive would be written wherever the link leads.
    fn check_parents(&self, path: &Path) -> Result<(), ArchiveError> {
        for parent in path.ancestors().skip(1) {
            if matches!(self.seen.get(parent), Some(Kind::File | Kind::Link)) {
                return Err(ArchiveError::Through {
                    path: path.to_owned(),
                    through: parent.to_owned(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tar::Archive;

    use super::*;

    type Item<'a> = (&'a str, EntryType, &'a str);

    fn archive(items: &[Item<'_>]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, kind, text) in items {
            let mut header = Header::new_gnu();
            // The safe setters refuse what is to be tested.
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o640);
            header.set_uid(1234);
            let content = match kind {
                EntryType::Symlink | EntryType::Link => {
                    header.set_link_name_literal(text).unwrap();
                    ""
                }
                _ => text,
            };
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn refined(bytes: &[u8], wanted: &str) -> Result<Vec<(String, u64)>, ArchiveError> {
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(bytes).unwrap();
        from.seek(SeekFrom::Start(0)).unwrap();
        let mut into = tempfile::tempfile().unwrap();
        refine(from, Path::new(wanted), 1000, &mut into)?;
        into.seek(SeekFrom::Start(0)).unwrap();
        let mut archive = Archive::new(into);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            (path, entry.header().uid().unwrap())
        });
        Ok(entries.collect())
    }

    #[test]
    fn plain_and_gzip_are_told_apart_and_owners_dropped() {
        let items = [
            ("./dir", EntryType::Directory, ""),
            ("dir/f", EntryType::Regular, "x"),
            ("dir/up", EntryType::Symlink, "../../anywhere"),
            ("dir/h", EntryType::Link, "dir/f"),
            ("other", EntryType::Regular, "y"),
        ];
        let plain = archive(&items);
        let names = |list: Vec<(String, u64)>| -> Vec<String> {
            assert!(list.iter().all(|(_, uid)| *uid == 0));
            list.into_iter().map(|(path, _)| path).collect()
        };
        let all = ["dir", "dir/f", "dir/up", "dir/h", "other"];
        assert_eq!(names(refined(&plain, "").unwrap()), all);
        assert_eq!(names(refined(&plain, "dir").unwrap()), all[..4]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        assert_eq!(
            names(refined(&gzip.finish().unwrap(), "other").unwrap()),
            ["other"]
        );
    }

    #[test]
    fn what_would_leave_the_directory_is_refused() {
        let file = EntryType::Regular;
        for bad in [
            &[("../x", file, "x")][..],
            &[("/x", file, "x")],
            &[("a/../../x", file, "x")],
            &[("l", EntryType::Symlink, "/etc"), ("l/x", file, "x")],
            &[("l", EntryType::Symlink, "d"), ("l/a/x", file, "x")],
            &[("h", EntryType::Link, "/etc/passwd")],
            &[("h", EntryType::Link, "../x")],
            &[("h", EntryType::Link, "missing")],
            &[("d", EntryType::Char, "")],
            &[("p", EntryType::Fifo, "")],
        ] {
            assert!(refined(&archive(bad), "").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn too_much_and_broken_archives_are_refused() {
        let big = "x".repeat(1001);
        let bytes = archive(&[("f", EntryType::Regular, &big)]);
        assert!(matches!(
            refined(&bytes, ""),
            Err(ArchiveError::TooLarge(1000))
        ));
        let bytes = archive(&[("f", EntryType::Regular, "0123456789")]);
        assert!(refined(&bytes[..520], "").is_err());
        assert!(
            refined(
                b"this is no archive at all, but long enough to be read as one. "
                    .repeat(20)
                    .as_slice(),
                ""
            )
            .is_err()
        );
        let mut zeros = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zeros.write_all(&vec![0; 1 << 20]).unwrap();
        assert_eq!(refined(&zeros.finish().unwrap(), "").unwrap(), []);
    }
}
