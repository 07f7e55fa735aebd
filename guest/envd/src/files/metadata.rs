//! Metadata of files: request headers and extended attributes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use http::HeaderMap;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Metadata by key.
pub(crate) type Metadata = BTreeMap<String, String>;

/// Start of the names of our attributes.
const PREFIX: &str = "user.e2b.";
/// Start of the names of our headers.
const HEADER_PREFIX: &str = "x-metadata-";
/// Longest key in bytes: the kernel's limit for a name without the prefix.
const MAX_KEY: usize = 246;
/// Most bytes of prefixes, keys and values together.
const MAX_TOTAL: usize = 4096;
/// Most bytes of attribute names that are read.
const MAX_LIST: usize = 64 << 10;

/// Metadata that can't be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MetadataError {
    /// A key is too long.
    #[error("metadata key {key:?} is {} bytes, maximum is {MAX_KEY}", key.len())]
    KeyTooLong {
        /// The key.
        key: String,
    },
    /// A key or value has other bytes than printable ASCII.
    #[error("metadata {key:?} must contain only printable ASCII characters")]
    NotPrintable {
        /// The key.
        key: String,
    },
    /// All together is too long.
    #[error("total metadata size {total} bytes exceeds maximum {MAX_TOTAL}")]
    TooLarge {
        /// Bytes.
        total: usize,
    },
}

/// Reads the metadata headers of a request; the first of each name counts.
pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Metadata, MetadataError> {
    let mut metadata = Metadata::new();
    let mut total = 0;
    for name in headers.keys() {
        let Some(key) = name.as_str().strip_prefix(HEADER_PREFIX) else {
            continue;
        };
        let Some(value) = headers.get(name).filter(|_| !key.is_empty()) else {
            continue;
        };
        let key = key.to_owned();
        if key.len() > MAX_KEY {
            return Err(MetadataError::KeyTooLong { key });
        }
        let printable = |bytes: &[u8]| bytes.iter().all(|b| (0x20..=0x7e).contains(b));
        let value = match value.to_str() {
            Ok(value) if printable(value.as_bytes()) => value.to_owned(),
            _ => return Err(MetadataError::NotPrintable { key }),
        };
        total += PREFIX.len() + key.len() + value.len();
        metadata.insert(key, value);
    }
    if total > MAX_TOTAL {
        return Err(MetadataError::TooLarge { total });
    }
    Ok(metadata)
}

/// Reads the metadata of an entry. Whatever can't be read or isn't text counts as absent.
pub(crate) fn read(path: &Path) -> Metadata {
    let mut names = vec![0; 1024];
    let count = loop {
        match rustix::fs::listxattr(path, &mut names[..]) {
            Err(Errno::RANGE) if names.len() < MAX_LIST => names.resize(MAX_LIST, 0),
            Ok(count) => break count,
            Err(_) => return Metadata::new(),
        }
    };
    let mut metadata = Metadata::new();
    for name in names[..count].split(|byte| *byte == 0) {
        let Some(name) = std::str::from_utf8(name).ok() else {
            continue;
        };
        let Some(key) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let mut value = vec![0; MAX_LIST];
        let Ok(count) = rustix::fs::getxattr(path, name, &mut value[..]) else {
            continue;
        };
        value.truncate(count);
        if let Ok(value) = String::from_utf8(value) {
            metadata.insert(key.to_owned(), value);
        }
    }
    metadata
}

/// Replaces the metadata of a file. Returns what the file has now: nothing on a file system
/// without attributes.
pub(crate) fn replace(file: &File, path: &Path, wanted: &Metadata) -> io::Result<Metadata> {
    for key in read(path).keys().filter(|key| !wanted.contains_key(*key)) {
        match rustix::fs::fremovexattr(file, format!("{PREFIX}{key}")) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    for (key, value) in wanted {
        let name = format!("{PREFIX}{key}");
        match rustix::fs::fsetxattr(file, name, value.as_bytes(), XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) => return Ok(Metadata::new()),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(wanted.clone())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn parse(pairs: &[(&str, &[u8])]) -> Result<Metadata, MetadataError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value).unwrap(),
            );
        }
        from_headers(&headers)
    }

    #[test]
    fn keys_are_lower_case_and_the_first_value_counts() {
        let found = parse(&[
            ("X-Metadata-Author", b"me"),
            ("x-metadata-author", b"you"),
            ("x-metadata-", b"nothing"),
            ("x-other", b"no"),
        ])
        .unwrap();
        assert_eq!(found, Metadata::from([("author".into(), "me".into())]));
    }

    #[test]
    fn limits() {
        assert!(matches!(
            parse(&[("x-metadata-a", "é".as_bytes())]),
            Err(MetadataError::NotPrintable { .. })
        ));
        let key = format!("x-metadata-{}", "k".repeat(247));
        assert!(matches!(
            parse(&[(&key, b"v")]),
            Err(MetadataError::KeyTooLong { .. })
        ));
        let exact = vec![b'v'; MAX_TOTAL - PREFIX.len() - 1];
        assert!(parse(&[("x-metadata-a", &exact)]).is_ok());
        assert!(matches!(
            parse(&[("x-metadata-a", &exact), ("x-metadata-b", b"")]),
            Err(MetadataError::TooLarge { .. })
        ));
    }
}
