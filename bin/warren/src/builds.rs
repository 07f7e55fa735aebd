//! The builder of templates, joined to node, stores and API.

use std::sync::Arc;

use warren_cluster::BuildHost;
use warren_control::{ArchiveLimits, BuildConfig};
use warren_service::Tasks;
use warren_template::base::{self, DEFAULT_MIRROR};
use warren_template::build::{CollectLimits, Engine, EngineConfig};
use warren_template::interpreter::{self, Variant};
use warren_template::{LayerStore, RegistryConfig};

use crate::cli::Up;
use crate::data::DataDir;

/// Layers that the server makes itself, whether or not a template names them yet.
fn own_layers() -> Vec<String> {
    let mut layers = vec![base::Recipe::default().digest()];
    for variant in Variant::ALL {
        layers.extend(interpreter::layers(variant));
    }
    layers
}

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
            ecr_endpoint: args.ecr_endpoint.clone(),
        },
        images: args.images_dir.clone(),
        keep: own_layers(),
        collect: CollectLimits {
            max_bytes: u64::from(args.build_cache_mib) << 20,
            ..CollectLimits::default()
        },
    };
    Ok(BuildConfig {
        builder: Arc::new(Engine::open(host, config, tasks.clone())?),
        logs_dir: dir.join("logs"),
        archives_dir: dir.join("archives"),
        archives: ArchiveLimits::default(),
    })
}
