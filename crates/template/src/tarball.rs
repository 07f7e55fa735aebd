//! Reading tar archives that strangers made. Extension headers are read here rather than by
//! the tar library, which would take one of any announced size into memory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use tar::{Archive, EntryType, PaxExtensions};

/// Longest extension header: names, and attributes in base64.
const MAX_EXTENSION: u64 = 1 << 20;
/// Entries of one archive.
const MAX_ENTRIES: u64 = 5_000_000;
/// Levels of a path.
const MAX_DEPTH: usize = 256;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    #[error("read the archive")]
    Read(#[source] io::Error),
    #[error("an extension header of {0} bytes")]
    Extension(u64),
    #[error("an extension header that can't be understood")]
    BadExtension,
    #[error("entry {0:?} leaves the archive")]
    Escape(PathBuf),
    #[error("more than {MAX_ENTRIES} entries")]
    TooMany,
}

/// What is known of an entry before its content.
#[derive(Debug)]
pub(crate) struct Item {
    /// Relative and without `.` and `..`; empty for the root.
    pub(crate) path: PathBuf,
    /// Target of a link, as it is written.
    pub(crate) link: PathBuf,
    pub(crate) kind: EntryType,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) size: u64,
    /// Extended attributes.
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<u64>,
    xattrs: BTreeMap<String, Vec<u8>>,
}

/// Calls `visit` for each entry with its content.
pub(crate) fn walk<R: Read, E: From<TarError>>(
    reader: R,
    mut visit: impl FnMut(Item, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = Archive::new(reader);
    let entries = archive.entries().map_err(TarError::Read)?.raw(true);
    let mut extensions = Extensions::default();
    let mut count = 0;
    for entry in entries {
        let mut entry = entry.map_err(TarError::Read)?;
        count += 1;
        if count > MAX_ENTRIES {
            return Err(TarError::TooMany.into());
        }
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => extensions.path = Some(long(&mut entry)?),
            EntryType::GNULongLink => extensions.link = Some(long(&mut entry)?),
            EntryType::XHeader => extensions.pax(&extension(&mut entry)?)?,
            EntryType::XGlobalHeader => drop(extension(&mut entry)?),
            _ => {
                let item = std::mem::take(&mut extensions).apply(&entry, kind)?;
                visit(item, &mut entry)?;
            }
        }
    }
    Ok(())
}

fn extension<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Vec<u8>, TarError> {
    let size = entry.header().entry_size().map_err(TarError::Read)?;
    if size > MAX_EXTENSION {
        return Err(TarError::Extension(size));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(TarError::Read)?;
    Ok(bytes)
}

/// A long name, without the zero that ends it.
fn long<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Vec<u8>, TarError> {
    let mut bytes = extension(entry)?;
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

impl Extensions {
    fn pax(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        for pair in PaxExtensions::new(bytes) {
            let pair = pair.map_err(|_| TarError::BadExtension)?;
            let (Ok(key), value) = (pair.key(), pair.value_bytes()) else {
                return Err(TarError::BadExtension);
            };
            let number = || {
                let text = std::str::from_utf8(value).ok()?;
                text.split('.').next()?.parse::<u64>().ok()
            };
            match key {
                "path" => self.path = Some(value.to_vec()),
                "linkpath" => self.link = Some(value.to_vec()),
                "uid" => self.uid = number(),
                "gid" => self.gid = number(),
                "mtime" => self.mtime = number(),
                // Sizes that the header has no room for: the next header would be missed.
                "size" if number().is_none_or(|size| size >= 1 << 33) => {
                    return Err(TarError::BadExtension);
                }
                _ => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        self.xattrs.insert(name.to_owned(), value.to_vec());
                    }
                }
            }
        }
        Ok(())
    }

    fn apply<R: Read>(self, entry: &tar::Entry<'_, R>, kind: EntryType) -> Result<Item, TarError> {
        let header = entry.header();
        let path = self
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = self
            .link
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let path = PathBuf::from(OsString::from_vec(path));
        Ok(Item {
            path: clean(&path)?,
            link: PathBuf::from(OsString::from_vec(link.unwrap_or_default())),
            kind,
            mode: header.mode().map_err(TarError::Read)? & 0o7777,
            uid: self.uid.or_else(|| header.uid().ok()).unwrap_or(0),
            gid: self.gid.or_else(|| header.gid().ok()).unwrap_or(0),
            mtime: self.mtime.or_else(|| header.mtime().ok()).unwrap_or(0),
            size: header.entry_size().map_err(TarError::Read)?,
            xattrs: self.xattrs,
        })
    }
}

/// A path without `.`; refuses what leads elsewhere.
pub(crate) fn clean(path: &Path) -> Result<PathBuf, TarError> {
    let mut out = PathBuf::new();
    for (depth, part) in path.components().enumerate() {
        match part {
            Component::Normal(name) if depth < MAX_DEPTH => out.push(name),
            Component::CurDir => {}
            _ => return Err(TarError::Escape(path.to_owned())),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;

    fn items(bytes: &[u8]) -> Result<Vec<(PathBuf, PathBuf, String)>, TarError> {
        let mut found = Vec::new();
        walk(bytes, |item, content| {
            let mut text = String::new();
            content.read_to_string(&mut text).map_err(TarError::Read)?;
            found.push((item.path, item.link, text));
            Ok::<_, TarError>(())
        })?;
        Ok(found)
    }

    #[test]
    fn long_names_and_links_are_put_together() {
        let (name, target) = ("n/".repeat(80) + "f", "t".repeat(200));
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, &name, &b"text"[..])
            .unwrap();
        header.set_size(0);
        header.set_entry_type(EntryType::Symlink);
        builder.append_link(&mut header, "l", &target).unwrap();
        let found = items(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(found[0].0, PathBuf::from(name));
        assert_eq!(found[0].2, "text");
        assert_eq!(found[1].1, PathBuf::from(target));
    }

    #[test]
    fn pax_headers_count_and_huge_ones_are_refused() {
        let mut builder = Builder::new(Vec::new());
        builder
            .append_pax_extensions([("path", &b"other/name"[..]), ("SCHILY.xattr.user.x", b"1")])
            .unwrap();
        let mut header = Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o644);
        header.set_path("short").unwrap();
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
        let bytes = builder.into_inner().unwrap();
        assert_eq!(items(&bytes).unwrap()[0].0, PathBuf::from("other/name"));

        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(MAX_EXTENSION + 1);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(vec![b'x'; 2 << 20]);
        assert!(matches!(items(&bytes), Err(TarError::Extension(_))));
    }
}
