//! What images are, wherever they come from.

use std::collections::{BTreeMap, HashSet};

use oci_client::errors::OciDistributionError;
use serde::Deserialize;

use super::unpack::UnpackError;
use crate::build::plan;
use crate::layers::LayerError;

/// Most bytes of an image when unpacked.
pub(super) const MAX_IMAGE: u64 = 25_000 * 1000 * 1000;
/// Longest configuration of an image.
pub(super) const MAX_CONFIG: usize = 8 << 20;
/// More layers than this no tool makes.
pub(super) const MAX_LAYERS: usize = 500;
/// Changes when the way of unpacking changes.
const FORMAT: &str = "oci-layer-1";
pub(super) const MIB: u64 = 1024 * 1024;

/// Why an image can't be had, in the words that users know.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error("invalid image reference '{reference}': {reason}")]
    Reference { reference: String, reason: String },
    #[error("image '{0}' not found: the image or tag does not exist in the registry")]
    NoImage(String),
    #[error("repository '{0}' not found: verify the image name is correct")]
    NoRepository(String),
    #[error("access denied to '{0}': authentication required or insufficient permissions")]
    Unauthorized(String),
    #[error("access denied to '{0}': you don't have permission to pull this image")]
    Denied(String),
    #[error("failed to pull image '{reference}': registry returned status code {status}")]
    Status { reference: String, status: u16 },
    #[error("failed to pull image '{reference}': unable to retrieve image from registry")]
    Registry {
        reference: String,
        #[source]
        source: Box<OciDistributionError>,
    },
    #[error("failed to pull image '{reference}': {reason}")]
    Malformed { reference: String, reason: String },
    #[error("image architecture \"{found}\" does not match expected \"{expected}\"")]
    Architecture { found: String, expected: String },
    #[error(
        "the uncompressed Docker image size ({used} MB or more) exceeds the maximum filesystem size ({} MB). Please reduce your Docker image size and try again",
        MAX_IMAGE / 1_000_000
    )]
    TooLarge { used: u64 },
    #[error(
        "failed to pull image '{reference}': layer {digest}: {}",
        warren_service::Chain(source)
    )]
    Layer {
        reference: String,
        digest: String,
        source: UnpackError,
    },
    #[error("use the layer store")]
    Store(#[from] LayerError),
    #[error("a thread stopped")]
    Thread(#[from] tokio::task::JoinError),
}

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pulled {
    /// Digests of its layers in the store, lowest first.
    pub(crate) layers: Vec<String>,
    /// Its variables.
    pub(crate) env: BTreeMap<String, String>,
}

impl Pulled {
    /// An image of these layers. Many have the same one several times, which a union file
    /// system refuses; what the uppermost says is what counts.
    pub(super) fn new(layers: Vec<String>, env: BTreeMap<String, String>) -> Self {
        let mut seen = HashSet::new();
        let from_above = layers.into_iter().rev();
        let mut layers: Vec<_> = from_above
            .filter(|layer| seen.insert(layer.clone()))
            .collect();
        layers.reverse();
        Self { layers, env }
    }
}

/// What counts of an image's configuration.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ImageConfig {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    config: Option<ContainerConfig>,
    rootfs: Option<RootFs>,
}

#[derive(Debug, Default, Deserialize)]
struct ContainerConfig {
    #[serde(default, rename = "Env")]
    env: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

impl ImageConfig {
    pub(super) fn parse(bytes: &[u8], reference: &str) -> Result<Self, PullError> {
        serde_json::from_slice(bytes).map_err(|_| PullError::Malformed {
            reference: reference.to_owned(),
            reason: "its configuration is no JSON".to_owned(),
        })
    }

    /// The digests of the plain layers, lowest first, of which there are `count`; refuses an
    /// image of another machine.
    pub(super) fn diff_ids(&self, count: usize, reference: &str) -> Result<&[String], PullError> {
        if !self.architecture.is_empty() && self.architecture != architecture() {
            return Err(PullError::Architecture {
                found: self.architecture.clone(),
                expected: architecture().to_owned(),
            });
        }
        let found = self.rootfs.as_ref().map_or(&[][..], |root| &root.diff_ids);
        if found.len() != count || count > MAX_LAYERS {
            return Err(PullError::Malformed {
                reference: reference.to_owned(),
                reason: "its configuration does not fit its layers".to_owned(),
            });
        }
        Ok(found)
    }

    /// Its variables; what is none is dropped.
    pub(super) fn env(&self) -> BTreeMap<String, String> {
        let env = self.config.as_ref().and_then(|config| config.env.as_ref());
        let pairs = env.into_iter().flatten();
        pairs.filter_map(|pair| variable(pair)).collect()
    }
}

/// The name that images have for this machine's architecture.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The name of a layer in the store. A registry may announce any digest, so a layer that one
/// scope has must not be had by another that only knows its digest.
pub(super) fn layer_name(scope: &str, diff_id: &str) -> String {
    plan::key(FORMAT, &[scope, diff_id])
}

fn variable(pair: &str) -> Option<(String, String)> {
    let (name, value) = pair.split_once('=')?;
    (!name.is_empty() && !value.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_layer_that_comes_again_the_uppermost_counts() {
        let layers = ["root", "empty", "files", "empty"].map(str::to_owned);
        let pulled = Pulled::new(layers.to_vec(), BTreeMap::new());
        assert_eq!(pulled.layers, ["root", "files", "empty"]);
    }

    #[test]
    fn what_is_no_variable_is_dropped() {
        assert_eq!(variable("A=b=c"), Some(("A".to_owned(), "b=c".to_owned())));
        for none in ["A", "=x", "A=", ""] {
            assert_eq!(variable(none), None);
        }
    }
}
