//! Templates as container images: OCI image layouts in tar archives, written by the server
//! and read back.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::recipe::{Source, Template};
use crate::client::Client;
use crate::error::Error;
use crate::http::call;

/// Longest time of one transfer.
const TRANSFER: Duration = Duration::from_secs(3600);
/// Longest document of a layout that is read.
const MAX_DOCUMENT: u64 = 1 << 20;
/// Documents that are looked at.
const MAX_DOCUMENTS: usize = 10_000;
const START: &str = "warren.start-command";
const READY: &str = "warren.ready-command";

impl Client {
    /// Writes a template, by id or name, as a container image: an OCI image layout in a tar
    /// archive. Returns its length.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such template.
    pub async fn export_template(
        &self,
        reference: &str,
        into: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, Error> {
        const OPERATION: &str = "export a template";
        let path = ["templates", reference, "image"];
        let request = self.request(Method::GET, &path).timeout(TRANSFER);
        let mut response = call(OPERATION, request).await?;
        let mut written = 0;
        loop {
            let piece = response.chunk().await;
            let piece = piece.map_err(|source| Error::Transport {
                operation: OPERATION,
                source,
            })?;
            let Some(piece) = piece else {
                break;
            };
            written += piece.len() as u64;
            into.write_all(&piece).await.map_err(Error::Output)?;
        }
        into.flush().await.map_err(Error::Output)?;
        Ok(written)
    }
}

impl Template {
    /// Begins with an image in a file: an OCI image layout in a tar archive, plain. The file
    /// is uploaded. One that a server has exported brings back user, directory, start and
    /// ready command; of others only the files and variables count. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::File`] if it is none.
    pub fn from_image_archive(path: &Path) -> Result<Self, Error> {
        let about = about(path).map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })?;
        let mut template = Self::of(Source::Archive(path.to_owned()));
        let Some(ready) = about.labels.get(READY).or(about.labels.get(MADE)) else {
            return Ok(template);
        };
        let dir = about.workdir.filter(|dir| !dir.is_empty());
        if let Some(user) = about.user.filter(|user| !user.is_empty()) {
            template = template.user(user);
        }
        if let Some(dir) = dir {
            template = template.workdir(dir);
        }
        Ok(match about.labels.get(START) {
            Some(start) => template.start(start, ready),
            None if about.labels.contains_key(READY) => template.ready(ready),
            None => template,
        })
    }
}

/// Label of every image that a server exports.
const MADE: &str = "warren.template";

#[derive(Debug, Default, Deserialize)]
struct About {
    #[serde(default, rename = "User")]
    user: Option<String>,
    #[serde(default, rename = "WorkingDir")]
    workdir: Option<String>,
    #[serde(default, rename = "Labels")]
    optional_labels: Option<BTreeMap<String, String>>,
    #[serde(skip)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Described {
    digest: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Described>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Option<Described>,
}

#[derive(Debug, Deserialize)]
struct Config {
    config: Option<About>,
}

/// What the image of an archive says of itself; of several images, nothing.
fn about(path: &Path) -> io::Result<About> {
    let documents = documents(File::open(path)?)?;
    let none = || io::Error::new(io::ErrorKind::InvalidData, "it is no OCI image layout");
    let index = documents.get("index.json").ok_or_else(none)?;
    let index: Index = serde_json::from_slice(index).map_err(|_| none())?;
    let [only] = index.manifests.as_slice() else {
        return Ok(About::default());
    };
    let read = |described: &Described| {
        let hex = described.digest.strip_prefix("sha256:")?;
        documents.get(&format!("blobs/sha256/{hex}"))
    };
    let manifest = read(only).and_then(|bytes| serde_json::from_slice::<Manifest>(bytes).ok());
    let config = manifest.and_then(|manifest| manifest.config);
    let config = config.as_ref().and_then(read);
    let config = config.and_then(|bytes| serde_json::from_slice::<Config>(bytes).ok());
    let mut about = config.and_then(|config| config.config).unwrap_or_default();
    about.labels = about.optional_labels.take().unwrap_or_default();
    Ok(about)
}

/// The short files of an archive by name.
fn documents(file: File) -> io::Result<HashMap<String, Vec<u8>>> {
    let mut archive = tar::Archive::new(file);
    let mut found = HashMap::new();
    for entry in archive.entries_with_seek()?.raw(true) {
        let mut entry = entry?;
        let header = entry.header();
        if !header.entry_type().is_file() || header.entry_size()? > MAX_DOCUMENT {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        found.insert(name, bytes);
        if found.len() == MAX_DOCUMENTS {
            break;
        }
    }
    Ok(found)
}

/// The digest of a file, in hex, and its length. Blocks.
pub(super) fn digest(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        match file.read(&mut piece)? {
            0 => return Ok((hex::encode(hasher.finalize()), length)),
            read => {
                hasher.update(&piece[..read]);
                length += read as u64;
            }
        }
    }
}
