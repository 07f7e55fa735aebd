//! What this server knows of a volume in the bucket, on its own disk.

use std::fs;
use std::io;
use std::path::Path;

use object_store::UpdateVersion;
use serde::{Deserialize, Serialize};
use warren_service::file;

use super::manifest::Manifest;
use crate::VolumeError;
use crate::error::host;

/// What the bucket held last, as far as it is known.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) manifest: Manifest,
    /// The bucket's own name for that manifest; none while there is none.
    pub(super) version: Option<Version>,
    /// Nonces of manifests that were to replace it; whether one has is not known.
    pub(super) attempts: Vec<String>,
}

/// Version of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    e_tag: Option<String>,
    version: Option<String>,
}

impl From<Version> for UpdateVersion {
    fn from(of: Version) -> Self {
        Self {
            e_tag: of.e_tag,
            version: of.version,
        }
    }
}

impl Version {
    pub(super) fn new(e_tag: Option<String>, version: Option<String>) -> Self {
        Self { e_tag, version }
    }
}

impl State {
    /// Whether nothing is known to be in the bucket.
    pub(super) fn is_new(&self) -> bool {
        self.version.is_none()
    }

    /// Takes what the bucket holds.
    pub(super) fn accept(&mut self, found: (Manifest, Version)) {
        self.manifest = found.0;
        self.version = Some(found.1);
        self.attempts.clear();
    }

    pub(super) fn read(path: &Path) -> Result<Option<Self>, VolumeError> {
        let read = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.and_then(|text| Ok(serde_json::from_slice(&text)?)),
        };
        read.map(Some).map_err(host("read the state of a volume"))
    }

    /// Durable on return.
    pub(super) fn write(&self, path: &Path) -> Result<(), VolumeError> {
        let write = || file::replace(path, &serde_json::to_vec(self)?, 0o600);
        write().map_err(host("write the state of a volume"))
    }
}
