//! Images on disk: an OCI image layout, as a directory or as a tar archive of one. Whoever
//! made it is not trusted: names are taken for digests only, links are not followed, and
//! what is read is compared with its digest.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use warren_service::{Chain, Tasks};

use super::image::{
    ImageConfig, MAX_CONFIG, MAX_IMAGE, MIB, PullError, Pulled, architecture, layer_name,
};
use super::unpack::{Budget, UnpackError, unpack};
use crate::layers::LayerStore;

const INDEX: &str = "index.json";
const BLOBS: &str = "blobs/sha256/";
/// Entries of an archive.
const MAX_ENTRIES: usize = 100_000;
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Debug, thiserror::Error)]
enum LayoutError {
    #[error("{0} is missing: it is no OCI image layout")]
    Missing(String),
    #[error("read {what}")]
    Read {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("{0} is longer than {MAX_CONFIG} bytes")]
    TooLong(String),
    #[error("{0:?} is no digest that is known here")]
    Digest(String),
    #[error("the content of {0} does not fit its digest")]
    Content(String),
    #[error("{0} can't be understood")]
    Json(String),
    #[error("more than {MAX_ENTRIES} entries")]
    TooMany,
}

#[derive(Debug, Clone, Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// An index or a manifest.
#[derive(Debug, Deserialize)]
struct Node {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// Where the parts of a layout are.
#[derive(Debug)]
enum Layout {
    Directory(OwnedFd),
    Archive {
        file: Arc<File>,
        /// Position and length, by name.
        parts: HashMap<String, (u64, u64)>,
    },
}

/// Part of a file.
struct Window {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

fn hex_of(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (hex.len() == 64 && hex.bytes().all(is_hex)).then_some(hex)
}

impl Layout {
    fn open(path: &Path) -> Result<Self, LayoutError> {
        let failed = |source| LayoutError::Read {
            what: "the image".to_owned(),
            source,
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = openat(CWD, path, flags, Mode::empty());
        let opened = opened.map_err(|error| failed(error.into()))?;
        let file = File::from(opened);
        if file.metadata().map_err(failed)?.is_dir() {
            return Ok(Self::Directory(file.into()));
        }
        let parts = Self::scan(file.try_clone().map_err(failed)?)?;
        Ok(Self::Archive {
            file: Arc::new(file),
            parts,
        })
    }

    /// Finds the parts of an archive. Their names fit into plain headers, so extension
    /// headers are passed over unread.
    fn scan(file: File) -> Result<HashMap<String, (u64, u64)>, LayoutError> {
        let failed = |source| LayoutError::Read {
            what: "the archive".to_owned(),
            source,
        };
        let mut archive = tar::Archive::new(file);
        let mut parts = HashMap::new();
        let entries = archive.entries_with_seek().map_err(failed)?.raw(true);
        for (count, entry) in entries.enumerate() {
            if count == MAX_ENTRIES {
                return Err(LayoutError::TooMany);
            }
            let entry = entry.map_err(failed)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = entry.path_bytes();
            let Ok(name) = std::str::from_utf8(&name) else {
                continue;
            };
            let name = name.strip_prefix("./").unwrap_or(name);
            if name == INDEX || name.starts_with(BLOBS) {
                let size = entry.header().entry_size().map_err(failed)?;
                parts.insert(name.to_owned(), (entry.raw_file_position(), size));
            }
        }
        Ok(parts)
    }

    fn part(&self, name: &str) -> Result<Box<dyn Read + Send>, LayoutError> {
        match self {
            Self::Archive { file, parts } => {
                let found = parts.get(name);
                let &(at, left) = found.ok_or_else(|| LayoutError::Missing(name.to_owned()))?;
                let file = Arc::clone(file);
                Ok(Box::new(Window { file, at, left }))
            }
            Self::Directory(dir) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                match openat2(dir, name, flags, Mode::empty(), resolve) {
                    Ok(file) => Ok(Box::new(File::from(file))),
                    Err(Errno::NOENT) => Err(LayoutError::Missing(name.to_owned())),
                    Err(error) => Err(LayoutError::Read {
                        what: name.to_owned(),
                        source: error.into(),
                    }),
                }
            }
        }
    }

    fn blob(&self, digest: &str) -> Result<Box<dyn Read + Send>, LayoutError> {
        let hex = hex_of(digest).ok_or_else(|| LayoutError::Digest(digest.to_owned()))?;
        self.part(&format!("{BLOBS}{hex}"))
    }

    fn whole(part: Box<dyn Read + Send>, name: &str) -> Result<Vec<u8>, LayoutError> {
        let mut bytes = Vec::new();
        let read = part.take(MAX_CONFIG as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|source| LayoutError::Read {
            what: name.to_owned(),
            source,
        })?;
        if bytes.len() > MAX_CONFIG {
            return Err(LayoutError::TooLong(name.to_owned()));
        }
        Ok(bytes)
    }

    /// A short blob, compared with its digest.
    fn document(&self, digest: &str) -> Result<Vec<u8>, LayoutError> {
        let bytes = Self::whole(self.blob(digest)?, digest)?;
        if format!("sha256:{}", hex::encode(Sha256::digest(&bytes))) != digest {
            return Err(LayoutError::Content(digest.to_owned()));
        }
        Ok(bytes)
    }

    fn node(bytes: &[u8], name: &str) -> Result<Node, LayoutError> {
        serde_json::from_slice(bytes).map_err(|_| LayoutError::Json(name.to_owned()))
    }
}

/// One image of a layout.
#[derive(Debug)]
pub(crate) struct LocalImage {
    layout: Arc<Layout>,
    digest: String,
    config: ImageConfig,
    layers: Vec<Descriptor>,
    reference: String,
}

impl LocalImage {
    /// Opens the image with this tag, or the only one for this machine. Blocks.
    pub(crate) fn open(path: &Path, tag: Option<&str>, reference: &str) -> Result<Self, PullError> {
        let malformed = |error: &LayoutError| PullError::Malformed {
            reference: reference.to_owned(),
            reason: Chain(error).to_string(),
        };
        let layout = Layout::open(path).map_err(|error| malformed(&error))?;
        let read =
            |name: &str, bytes: &[u8]| Layout::node(bytes, name).map_err(|error| malformed(&error));
        let index = layout
            .part(INDEX)
            .and_then(|part| Layout::whole(part, INDEX));
        let index = read(INDEX, &index.map_err(|error| malformed(&error))?)?;
        let mut digest = chosen(&index.manifests, tag, reference)?;
        let document = |digest: &str| layout.document(digest).map_err(|error| malformed(&error));
        let mut node = read(&digest, &document(&digest)?)?;
        if !node.manifests.is_empty() {
            // One image for several machines.
            digest = chosen(&node.manifests, None, reference)?;
            node = read(&digest, &document(&digest)?)?;
        }
        let config = node.config.ok_or_else(|| PullError::Malformed {
            reference: reference.to_owned(),
            reason: "it is no container image".to_owned(),
        })?;
        let config = ImageConfig::parse(&document(&config.digest)?, reference)?;
        Ok(Self {
            layout: Arc::new(layout),
            digest,
            config,
            layers: node.layers,
            reference: reference.to_owned(),
        })
    }

    /// Digest of its manifest.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// Unpacks what is missing of it into `store`, for the use of `scope`.
    pub(crate) async fn unpack(
        &self,
        (store, scope, tasks): (&LayerStore, &str, &Tasks),
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Pulled, PullError> {
        let diff_ids = self.config.diff_ids(self.layers.len(), &self.reference)?;
        let size: u64 = self.layers.iter().map(|layer| layer.size / MIB).sum();
        progress(format!("Base Docker image size: {} MB", size.max(1)));
        let budget = Arc::new(Budget::new(MAX_IMAGE));
        let mut layers = Vec::new();
        for (layer, diff_id) in self.layers.iter().zip(diff_ids) {
            let name = layer_name(scope, diff_id);
            layers.push(name.clone());
            if store.get(&name)?.is_some() {
                continue;
            }
            progress(format!(
                "Uncompressing layer {} {} MB",
                layer.digest,
                layer.size.div_ceil(MIB)
            ));
            let (store, layout) = (store.clone(), Arc::clone(&self.layout));
            let (diff_id, budget) = (diff_id.clone(), Arc::clone(&budget));
            let (digest, reference) = (layer.digest.clone(), self.reference.clone());
            let made = tasks.spawn_blocking(move || {
                let making = store.make(&name)?;
                if making.already_made().is_some() {
                    return Ok(());
                }
                let blob = layout.blob(&digest).map_err(|error| PullError::Malformed {
                    reference: reference.clone(),
                    reason: Chain(&error).to_string(),
                })?;
                match unpack(blob, &diff_id, making.root(), &budget) {
                    Ok(()) => making.commit().map(drop).map_err(PullError::from),
                    Err(UnpackError::TooLarge(_)) => Err(PullError::TooLarge {
                        used: budget.used() / 1_000_000,
                    }),
                    Err(source) => Err(PullError::Layer {
                        reference,
                        digest,
                        source,
                    }),
                }
            });
            made.await??;
        }
        progress("Layers extracted".to_owned());
        Ok(Pulled::new(layers, self.config.env()))
    }
}

/// Digest of the image that is meant.
fn chosen(
    manifests: &[Descriptor],
    tag: Option<&str>,
    reference: &str,
) -> Result<String, PullError> {
    let fits = |entry: &&Descriptor| {
        let platform = entry.platform.as_ref();
        platform.is_none_or(|p| p.os == "linux" && p.architecture == architecture())
    };
    if let Some(tag) = tag {
        let named = |entry: &&Descriptor| {
            let name = entry.annotations.get(REF_NAME);
            // Some tools write the whole name.
            name.is_some_and(|name| name == tag || name.rsplit(':').next() == Some(tag))
        };
        let found = manifests.iter().filter(named).find(fits);
        return found
            .map(|entry| entry.digest.clone())
            .ok_or_else(|| PullError::NoImage(reference.to_owned()));
    }
    let mut fitting = manifests.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only.digest.clone()),
        (None, _) => {
            let machines = manifests.iter().filter_map(|entry| entry.platform.as_ref());
            let found: Vec<&str> = machines.map(|p| p.architecture.as_str()).collect();
            Err(PullError::Architecture {
                found: found.join(", "),
                expected: architecture().to_owned(),
            })
        }
        _ => Err(PullError::Malformed {
            reference: reference.to_owned(),
            reason: "it holds several images: name one by its tag".to_owned(),
        }),
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
