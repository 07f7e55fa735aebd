//! What the bucket holds of a volume at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use rand::Rng;
use serde::{Deserialize, Serialize};

/// Bytes of a chunk: what is written back at least where anything changed.
pub(crate) const CHUNK: u64 = 1024 * 1024;
/// Layout of manifests; others are refused.
const FORMAT: u32 = 1;
/// Volumes up to 4 TiB.
const MAX_CHUNKS: u64 = 4 * 1024 * 1024;

/// The server that keeps a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// Random, once per data directory.
    pub(crate) id: String,
    /// For people.
    pub(crate) host: String,
}

impl Owner {
    /// This server, as a file says; makes the file if there is none.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let id = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = hex(&rand::rng().random::<[u8; 16]>());
                let draft = path.with_extension("new");
                let mut file = File::create(&draft)?;
                file.write_all(id.as_bytes())?;
                file.sync_all()?;
                fs::rename(&draft, path)?;
                id
            }
            other => other?,
        };
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy().into_owned();
        Ok(Self { id, host })
    }
}

/// A volume in the bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(super) format: u32,
    /// Rises by one with each manifest of the volume.
    pub(crate) generation: u64,
    /// Tells two manifests of the same generation apart.
    pub(crate) nonce: String,
    pub(crate) owner: Owner,
    /// Bytes of the image.
    pub(crate) size: u64,
    /// Names of the chunks by their number; what is missing is zeros.
    pub(crate) chunks: BTreeMap<u64, String>,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is no manifest.
    #[error("read the manifest")]
    Malformed(#[from] serde_json::Error),
    /// It is of another version of Warren.
    #[error("its format is {0}, not {FORMAT}")]
    Format(u32),
    /// It contradicts itself.
    #[error("it names chunks that can't be")]
    Chunks,
}

impl Manifest {
    /// A random nonce.
    pub(crate) fn fresh_nonce() -> String {
        hex(&rand::rng().random::<[u8; 16]>())
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        if manifest.format != FORMAT {
            return Err(ManifestError::Format(manifest.format));
        }
        let count = manifest.size.div_ceil(CHUNK);
        let is_good = |(at, name): (&u64, &String)| {
            *at < count && generation_of(name).is_some_and(|of| of <= manifest.generation)
        };
        if count > MAX_CHUNKS || !manifest.chunks.iter().all(is_good) {
            return Err(ManifestError::Chunks);
        }
        Ok(manifest)
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let written = Self {
            format: FORMAT,
            ..self.clone()
        };
        serde_json::to_vec(&written).expect("a manifest is plain text and numbers")
    }

    /// Names of all chunks.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.chunks.values().cloned().collect()
    }
}

/// The name of a chunk that is new in a generation. A name is never used again once its chunk
/// was removed: the request for that may come late.
pub(crate) fn chunk_name(generation: u64, sha256: &[u8]) -> String {
    format!("{generation:016x}-{}", hex(sha256))
}

/// The digest in a chunk's name, in hex.
pub(crate) fn digest_of(name: &str) -> Option<&str> {
    generation_of(name)?;
    name.split_once('-').map(|(_, digest)| digest)
}

/// The generation in a chunk's name, if it is one.
pub(crate) fn generation_of(name: &str) -> Option<u64> {
    let (generation, digest) = name.split_once('-')?;
    let is_hex = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    (generation.len() == 16 && digest.len() == 64 && is_hex(generation) && is_hex(digest))
        .then(|| u64::from_str_radix(generation, 16).ok())?
}

/// Bytes in hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Formatting into a string can't fail.
        let _ok = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            generation: 3,
            nonce: "n".to_owned(),
            size: 3 * CHUNK,
            chunks: BTreeMap::from([(2, chunk_name(3, &[7; 32]))]),
            ..Manifest::default()
        }
    }

    #[test]
    fn a_manifest_reads_as_it_was_written() {
        let read = Manifest::parse(&manifest().to_json()).unwrap();
        assert_eq!(read.chunks, manifest().chunks);
        assert_eq!((read.generation, read.size), (3, 3 * CHUNK));
    }

    #[test]
    fn chunks_that_cant_be_are_refused() {
        for (at, name) in [
            (3, chunk_name(3, &[7; 32])),
            (0, chunk_name(4, &[7; 32])),
            (0, "../../manifest".to_owned()),
            (0, format!("{:016x}-{}", 1, "A".repeat(64))),
        ] {
            let mut bad = manifest();
            bad.chunks.insert(at, name);
            let refused = Manifest::parse(&bad.to_json());
            assert!(matches!(refused, Err(ManifestError::Chunks)), "{bad:?}");
        }
        let mut huge = manifest();
        huge.size = u64::MAX;
        assert!(Manifest::parse(&huge.to_json()).is_err());
        assert!(Manifest::parse(br#"{"format":2}"#).is_err());
    }

    #[test]
    fn a_chunks_name_tells_generation_and_digest() {
        let name = chunk_name(u64::MAX, &[1; 32]);
        assert_eq!(generation_of(&name), Some(u64::MAX));
        assert_eq!(digest_of(&name).unwrap(), "01".repeat(32));
    }

    proptest! {
        #[test]
        fn whatever_is_in_the_bucket_is_read_or_refused(bytes: Vec<u8>, text: String) {
            let _verdict = Manifest::parse(&bytes);
            let _verdict = generation_of(&text);
        }
    }
}
