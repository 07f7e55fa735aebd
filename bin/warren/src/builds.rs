//! The builder of templates, joined to node, stores and API.

use std::sync::Arc;

use warren_cluster::BuildHost;
use warren_control::{ArchiveLimits, BuildConfig};
use warren_service::Tasks;
use warren_template::base::DEFAULT_MIRROR;
use warren_template::build::{Engine, EngineConfig};
use warren_template::{LayerStore, RegistryConfig};

use crate::cli::Up;
use crate::data::DataDir;

/// Opens the builder. Its layers go to `own`, those that are named by content to `shared`.
pub(crate) fn open(
    args: &Up,
    data: &DataDir,
    host: Arc<dyn BuildHost>,
    (own, shared): (LayerStore, LayerStore),
    tasks: &Tasks,
) -> anyhow::Result<BuildConfig> {
    let dir = data.path().join("builds");
    let mirror = args.debian_mirror.as_deref().unwrap_or(DEFAULT_MIRROR);
    let config = EngineConfig {
        dir: dir.clone(),
        layers: own,
        shared,
        mirror: mirror.to_owned(),
        registries: RegistryConfig {
            mirrors: args.registry_mirror.iter().cloned().collect(),
            insecure: args.insecure_registry.clone(),
        },
    };
    Ok(BuildConfig {
        builder: Arc::new(Engine::open(host, config, tasks.clone())?),
        logs_dir: dir.join("logs"),
        archives_dir: dir.join("archives"),
        archives: ArchiveLimits::default(),
    })
}
