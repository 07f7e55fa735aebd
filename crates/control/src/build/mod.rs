//! The build API: requests, uploads, starts, what can be seen of a build.
//!
//! A build waits after its request, runs after its start, and ends ready or failed. Every
//! change of that state is one transaction, and they happen one after the other, so that a
//! build that is given up can't become ready. A [`Builder`] does the work; what it says goes
//! to a file for each build. After a restart builds that ran have failed.

mod archive;
mod error;
mod log;
mod manage;
mod request;
mod resources;
mod run;
mod start;
mod status;
mod upload;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use warren_service::CancellationToken;
use warren_template::build::Builder;
use warren_types::BuildId;

use self::archive::Archives;
pub use self::archive::{ArchiveLimits, Upload, UploadLink, UploadSlot};
pub use self::error::{
    BuildRequestError, BuildStartError, BuildStatusError, FilesError, ManageError, TagError,
    TemplateImageError, UploadError,
};
pub use self::log::BuildEntry;
use self::log::{BuildLogFile, BuildLogs};
pub use self::request::{NewBuild, RequestedBuild};
pub use self::resources::ResourcesError;
pub use self::start::{BuildStart, Registry};
pub use self::status::{BuildInfo, BuildLogRequest, BuildWindow};
pub use self::upload::FilesAnswer;

/// What builds need.
#[derive(Debug, Clone)]
pub struct BuildConfig {
    /// Who makes them.
    pub builder: Arc<dyn Builder>,
    /// Directory of their logs.
    pub logs_dir: PathBuf,
    /// Directory of uploaded archives.
    pub archives_dir: PathBuf,
    /// How much room those get.
    pub archives: ArchiveLimits,
}

/// A build that runs.
#[derive(Debug, Clone)]
struct Running {
    cancel: CancellationToken,
    log: Arc<BuildLogFile>,
}

/// Builds and what belongs to them.
pub(crate) struct Builds {
    builder: Arc<dyn Builder>,
    logs: Arc<BuildLogs>,
    archives: Arc<Archives>,
    running: Mutex<HashMap<BuildId, Running>>,
}

impl fmt::Debug for Builds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builds")
            .field("builder", &self.builder)
            .finish_non_exhaustive()
    }
}

impl Builds {
    pub(crate) fn new(config: &BuildConfig) -> Self {
        Self {
            builder: Arc::clone(&config.builder),
            logs: Arc::new(BuildLogs::new(config.logs_dir.clone())),
            archives: Arc::new(Archives::new(config.archives_dir.clone(), config.archives)),
            running: Mutex::default(),
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<BuildId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
