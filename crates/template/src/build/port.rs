//! What a caller says to a builder and hears from it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use warren_cluster::BuildImage;
use warren_service::{CancellationToken, Secret};
use warren_types::{BuildId, LogLevel, Resources, TemplateId};

use super::collect::Collected;
use crate::layers::LayerError;

/// Makes builds of templates.
#[async_trait]
pub trait Builder: fmt::Debug + Send + Sync {
    /// Runs a build to its end, telling its course to `log`. Cancelling makes it end soon
    /// with a failure whose text is not meant to be shown. Layers that were finished stay
    /// for later builds; a killed process leaves nothing half made.
    ///
    /// # Errors
    /// [`BuildFailure`], in words that are shown to the user.
    async fn build(
        &self,
        request: BuildRequest,
        log: BuildLog,
        cancel: CancellationToken,
    ) -> Result<Built, BuildFailure>;

    /// Writes a build as a container image, an OCI image layout with this tag in a tar
    /// archive, to a file without a name; it is returned at its start.
    ///
    /// # Errors
    /// [`ExportError`].
    async fn export(&self, image: &BuildImage, tag: &str) -> Result<File, ExportError>;

    /// Removes what no build needs, from time to time: layers that no cached result, no
    /// sandbox of the host and none of `in_use` names, and cached results that were not used
    /// for long. `in_use` may be some minutes old. `None` if it was not the time for it.
    ///
    /// # Errors
    /// [`CollectError`]; what was removed by then is removed.
    async fn collect(&self, in_use: HashSet<String>) -> Result<Option<Collected>, CollectError>;
}

/// A build can't be written as an image.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It is a snapshot, whose files are in no layer.
    #[error("a snapshot can't be exported: build a template from it and export that")]
    Snapshot,
    /// One of its layers is gone.
    #[error("the layer {0} is missing: build the template again")]
    LayerMissing(String),
    /// The file can't be written.
    #[error("write the image")]
    Write(#[source] io::Error),
    /// The layer store failed.
    #[error("use the layer store")]
    Layers(#[from] LayerError),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// Unused layers can't be removed.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The host can't tell which layers its sandboxes use.
    #[error("ask which layers sandboxes use")]
    Host(#[source] io::Error),
    /// Records of the cache can't be read or removed.
    #[error("look through the records of the cache")]
    Records(#[source] io::Error),
    /// The layer store failed.
    #[error("use the layer store")]
    Layers(#[from] LayerError),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Who shares cached layers: the id of the team.
    pub scope: String,
    /// Template that the build belongs to.
    pub template_id: TemplateId,
    /// The build.
    pub build_id: BuildId,
    /// What it starts from.
    pub source: Source,
    /// Steps in order, as the client sent them.
    pub steps: Vec<Step>,
    /// Use no cached layer.
    pub force: bool,
    /// Command that sandboxes have running.
    pub start_cmd: Option<String>,
    /// Command that tells by success that a sandbox is ready.
    pub ready_cmd: Option<String>,
    /// Limits of the build's sandboxes.
    pub resources: Resources,
    /// Free disk space that sandboxes should have at least, in MiB.
    pub min_free_disk_mib: Option<u64>,
    /// Uploaded archives by their hash.
    pub files: BTreeMap<String, PathBuf>,
}

/// What a build starts from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A container image.
    Image {
        /// Its name, as the user wrote it.
        reference: String,
        /// How to sign in to its registry.
        credentials: Option<RegistryCredentials>,
    },
    /// A build of another template.
    Template {
        /// The template's name, as the user wrote it.
        name: String,
        /// The build.
        image: Box<BuildImage>,
    },
}

/// How to sign in to a registry. Never stored, logged or part of a cache key.
#[derive(Debug, Clone)]
pub enum RegistryCredentials {
    /// User and password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// Keys of an AWS account, exchanged for a token of its registry.
    Aws {
        /// Id of the access key.
        access_key_id: String,
        /// The key.
        secret_access_key: Secret,
        /// Region of the registry.
        region: String,
    },
    /// A key of a Google Cloud service account.
    Gcp {
        /// The key file's JSON text.
        service_account_json: Secret,
    },
}

/// One step, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its type: `RUN`, `COPY`, `ADD`, `ENV`, `ARG`, `WORKDIR` or `USER`, in any case.
    pub kind: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Hash of the archive that a copy takes from.
    pub files_hash: Option<String>,
    /// Use no cached layer from here on.
    pub force: bool,
}

/// A line of a build's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildLine {
    /// When it was said.
    pub at: Timestamp,
    /// Its severity.
    pub level: LogLevel,
    /// The phase that said it: `base`, a step's number from 1 on, `finalize`.
    pub step: Option<String>,
    /// Its text, one line.
    pub message: String,
}

/// Where a build's log lines go. Clones share the sink.
#[derive(Clone)]
pub struct BuildLog {
    sink: Arc<dyn Fn(BuildLine) + Send + Sync>,
}

impl fmt::Debug for BuildLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildLog").finish_non_exhaustive()
    }
}

impl BuildLog {
    /// Makes a log of a function that keeps lines; it must not block.
    #[must_use]
    pub fn new(sink: impl Fn(BuildLine) + Send + Sync + 'static) -> Self {
        Self {
            sink: Arc::new(sink),
        }
    }

    /// Adds a line.
    pub fn push(&self, line: BuildLine) {
        (self.sink)(line);
    }
}

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// What nodes need to start sandboxes of it. Its variables are all that the steps ended
    /// with, as a build that starts from it gets them.
    pub image: BuildImage,
    /// Size of a sandbox's whole file system in MiB.
    pub disk_mib: u64,
}

/// Why a build failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BuildFailure {
    /// The reason, as the user is told it.
    pub message: String,
    /// The phase that failed: `base`, a step's number from 1 on, `finalize`; `None` for
    /// failures that are not the template's.
    pub step: Option<String>,
}
