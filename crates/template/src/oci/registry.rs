//! Pulling images from registries.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::str::FromStr;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use tokio::sync::mpsc;
use warren_service::Tasks;

use super::image::{
    ImageConfig, MAX_CONFIG, MAX_IMAGE, MIB, PullError, Pulled, architecture, layer_name,
};
use super::unpack::{Budget, UnpackError, unpack};
use crate::layers::{LayerStore, Making};

/// Layers pulled at a time.
const PARALLEL: usize = 3;
/// Attempts for a layer whose transfer breaks.
const ATTEMPTS: u32 = 3;
/// Times that a transfer which breaks off goes on from where it was.
const RESUMES: u32 = 5;
/// Before the first of them; later ones wait longer.
const RESUME_PAUSE: Duration = Duration::from_millis(300);
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// A registry that is silent for this long is gone.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// Pieces of a layer waiting to be unpacked.
const QUEUE: usize = 32;
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// Which registries are reached how.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// Registries, by name as in image references, with the ones to ask instead.
    pub mirrors: BTreeMap<String, Mirror>,
    /// Registries that are spoken to without TLS, as `HOST` or `HOST:PORT`.
    pub insecure: Vec<String>,
    /// Address that gives tokens for AWS's registries, instead of the one of their region.
    pub ecr_endpoint: Option<String>,
}

/// A registry that is asked instead of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    host: String,
    prefix: String,
    plain: bool,
}

/// A mirror's address that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address of a registry, such as https://mirror.example/prefix")]
pub struct BadMirror(String);

impl FromStr for Mirror {
    type Err = BadMirror;

    fn from_str(text: &str) -> Result<Self, BadMirror> {
        let bad = || BadMirror(text.to_owned());
        let (plain, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(bad()),
        };
        let rest = rest.trim_end_matches('/');
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() || host.contains(['@', '?', '#', ' ']) {
            return Err(bad());
        }
        Ok(Self {
            host: host.to_owned(),
            prefix: prefix.to_owned(),
            plain,
        })
    }
}

/// One pull under way.
struct Puller<'a> {
    client: Client,
    image: Reference,
    /// As the user wrote it.
    reference: &'a str,
    store: &'a LayerStore,
    scope: &'a str,
    tasks: &'a Tasks,
    budget: Arc<Budget>,
    progress: &'a (dyn Fn(String) + Send + Sync),
}

/// Pulls what is missing of an image into `store`, for the use of `scope`.
pub(crate) async fn pull(
    config: &RegistryConfig,
    (store, scope, tasks): (&LayerStore, &str, &Tasks),
    reference: &str,
    auth: &RegistryAuth,
    progress: &(dyn Fn(String) + Send + Sync),
) -> Result<Pulled, PullError> {
    let parsed = Reference::from_str(reference).map_err(|error| PullError::Reference {
        reference: reference.to_owned(),
        reason: error.to_string(),
    })?;
    let (image, plain) = located(config, parsed);
    let puller = Puller {
        client: client(config, &image, plain),
        image,
        reference,
        store,
        scope,
        tasks,
        budget: Arc::new(Budget::new(MAX_IMAGE)),
        progress,
    };
    puller.run(auth).await
}

/// Where an image is asked for, and whether without TLS.
fn located(config: &RegistryConfig, image: Reference) -> (Reference, bool) {
    let Some(mirror) = config.mirrors.get(image.registry()) else {
        let plain = config.insecure.iter().any(|host| host == image.registry());
        return (image, plain);
    };
    let repository = match mirror.prefix.as_str() {
        "" => image.repository().to_owned(),
        prefix => format!("{prefix}/{}", image.repository()),
    };
    let host = mirror.host.clone();
    let moved = match (image.digest(), image.tag()) {
        (Some(digest), _) => Reference::with_digest(host, repository, digest.to_owned()),
        (None, tag) => Reference::with_tag(host, repository, tag.unwrap_or("latest").to_owned()),
    };
    (moved, mirror.plain)
}

fn client(config: &RegistryConfig, image: &Reference, plain: bool) -> Client {
    static PROVIDER: Once = Once::new();
    // Another part of the program may have chosen one already; any will do.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let mut insecure = config.insecure.clone();
    if plain {
        insecure.push(image.resolve_registry().to_owned());
    }
    Client::new(ClientConfig {
        protocol: ClientProtocol::HttpsExcept(insecure),
        connect_timeout: Some(CONNECT_LIMIT),
        read_timeout: Some(READ_LIMIT),
        user_agent: concat!("warren/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    })
}

impl Puller<'_> {
    async fn run(&self, auth: &RegistryAuth) -> Result<Pulled, PullError> {
        let manifest = self.manifest(auth).await?;
        let config = self.config(&manifest).await?;
        let diff_ids = config.diff_ids(manifest.layers.len(), self.reference)?;
        let size: i64 = manifest.layers.iter().map(|layer| layer.size.max(0)).sum();
        let size = u64::try_from(size).unwrap_or(0);
        (self.progress)(format!("Base Docker image size: {} MB", size.div_ceil(MIB)));
        (self.progress)("Creating file system and pulling Docker image".to_owned());
        let mut transfers = Vec::new();
        for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
            transfers.push(self.layer(layer, diff_id).boxed());
        }
        let layers = stream::iter(transfers)
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        (self.progress)("Layers extracted".to_owned());
        Ok(Pulled::new(layers, config.env()))
    }

    /// The manifest for this machine.
    async fn manifest(&self, auth: &RegistryAuth) -> Result<OciImageManifest, PullError> {
        let (manifest, _) = self
            .client
            .pull_manifest(&self.image, auth)
            .await
            .map_err(|error| self.refused(error))?;
        let index = match manifest {
            OciManifest::Image(image) => return Ok(image),
            OciManifest::ImageIndex(index) => index,
        };
        let mut found = Vec::new();
        for entry in &index.manifests {
            let Some(platform) = &entry.platform else {
                continue;
            };
            let machine = platform.architecture.to_string();
            if platform.os.to_string() == "linux" && machine == architecture() {
                let one = self.image.clone_with_digest(entry.digest.clone());
                let (manifest, _) = self
                    .client
                    .pull_manifest(&one, auth)
                    .await
                    .map_err(|error| self.refused(error))?;
                return match manifest {
                    OciManifest::Image(image) => Ok(image),
                    OciManifest::ImageIndex(_) => Err(self.malformed("its list is nested")),
                };
            }
            found.push(machine);
        }
        Err(PullError::Architecture {
            found: found.join(", "),
            expected: architecture().to_owned(),
        })
    }

    async fn config(&self, manifest: &OciImageManifest) -> Result<ImageConfig, PullError> {
        let known = [
            CONFIG_TYPE,
            "application/vnd.docker.container.image.v1+json",
        ];
        if !known.contains(&manifest.config.media_type.as_str()) {
            return Err(self.malformed("it is no container image"));
        }
        let opened = self.client.pull_blob_stream(&self.image, &manifest.config);
        let mut stream = opened.await.map_err(|error| self.refused(error))?.stream;
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| self.refused(error.into()))?);
            if bytes.len() > MAX_CONFIG {
                return Err(self.malformed("its configuration is too long"));
            }
        }
        ImageConfig::parse(&bytes, self.reference)
    }

    /// Makes sure that a layer is in the store; gives its digest there.
    async fn layer(&self, layer: &OciDescriptor, diff_id: &str) -> Result<String, PullError> {
        let digest = layer_name(self.scope, diff_id);
        let (store, name) = (self.store.clone(), digest.clone());
        if store.get(&name)?.is_some() {
            return Ok(digest);
        }
        // Whoever else pulls it now is waited for.
        let making = self
            .tasks
            .spawn_blocking(move || store.make(&name))
            .await??;
        if making.already_made().is_some() {
            return Ok(digest);
        }
        let size = u64::try_from(layer.size).unwrap_or(0);
        (self.progress)(format!(
            "Uncompressing layer {} {} MB",
            layer.digest,
            size.div_ceil(MIB)
        ));
        let mut attempt = 1;
        loop {
            match self.transfer(layer, diff_id, &making).await {
                Err(PullError::Registry { source, .. })
                    if attempt < ATTEMPTS
                        && matches!(*source, OciDistributionError::RequestError(_)) =>
                {
                    attempt += 1;
                    tracing::warn!(layer = layer.digest, error = %source,
                        "the transfer of a layer broke");
                    let root = making.root().to_owned();
                    let cleared = self
                        .tasks
                        .spawn_blocking(move || crate::layers::clear(&root));
                    cleared.await??;
                }
                other => break other?,
            }
        }
        self.tasks.spawn_blocking(move || making.commit()).await??;
        Ok(digest)
    }

    /// Unpacks a layer while it arrives.
    async fn transfer(
        &self,
        layer: &OciDescriptor,
        diff_id: &str,
        making: &Making,
    ) -> Result<(), PullError> {
        let opened = self.client.pull_blob_stream(&self.image, layer);
        let mut arriving = opened.await.map_err(|error| self.refused(error))?.stream;
        let (pieces, waiting) = mpsc::channel(QUEUE);
        let unpacking = {
            let (diff_id, into) = (diff_id.to_owned(), making.root().to_owned());
            // Nobody else makes the layer while the thread may still write.
            let hold = making.hold()?;
            let budget = Arc::clone(&self.budget);
            self.tasks.spawn_blocking(move || {
                let reader = Pieces {
                    waiting,
                    current: Bytes::new(),
                };
                let unpacked = unpack(reader, &diff_id, &into, &budget);
                drop(hold);
                unpacked
            })
        };
        let limit = u64::try_from(layer.size).unwrap_or(0);
        let (mut arrived, mut resumed) = (0u64, 0);
        let mut broken = None;
        while let Some(piece) = arriving.next().await {
            match piece {
                Ok(piece) => {
                    arrived += piece.len() as u64;
                    if arrived > limit {
                        broken = Some(self.malformed("a layer is longer than announced"));
                        break;
                    }
                    if pieces.send(piece).await.is_err() {
                        // It has failed and says why.
                        break;
                    }
                }
                Err(error) if resumed < RESUMES && arrived < limit => {
                    resumed += 1;
                    tracing::warn!(layer = layer.digest, arrived, %error,
                        "the transfer of a layer broke and goes on");
                    tokio::time::sleep(RESUME_PAUSE * resumed).await;
                    match self.rest(layer, arrived).await {
                        Ok(rest) => arriving = rest,
                        Err(error) => {
                            broken = Some(error);
                            break;
                        }
                    }
                }
                Err(error) => {
                    broken = Some(self.refused(error.into()));
                    break;
                }
            }
        }
        drop(pieces);
        let unpacked = unpacking.await?;
        match (unpacked, broken) {
            // What is wrong with the content may follow from the broken transfer.
            (Err(UnpackError::TooLarge(_)), _) => Err(PullError::TooLarge {
                used: self.budget.used() / 1_000_000,
            }),
            (_, Some(error)) => Err(error),
            (Err(source), None) => Err(PullError::Layer {
                reference: self.reference.to_owned(),
                digest: layer.digest.clone(),
                source,
            }),
            (Ok(()), None) => Ok(()),
        }
    }

    /// What follows the first bytes of a layer. Its content is compared with the image's
    /// configuration when all of it is there, as that of every layer.
    async fn rest(
        &self,
        layer: &OciDescriptor,
        from: u64,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, PullError> {
        let opened = self
            .client
            .pull_blob_stream_partial(&self.image, layer, from, None);
        match opened.await.map_err(|error| self.refused(error))? {
            BlobResponse::Partial(rest) => Ok(rest.stream),
            BlobResponse::Full(whole) => Ok(without_first(whole.stream, from)),
        }
    }

    fn malformed(&self, reason: &str) -> PullError {
        PullError::Malformed {
            reference: self.reference.to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn refused(&self, error: OciDistributionError) -> PullError {
        let reference = self.reference.to_owned();
        match error {
            OciDistributionError::RegistryError { envelope, .. } => {
                let is = |code: &OciErrorCode| {
                    let one = std::mem::discriminant(code);
                    let mut all = envelope.errors.iter();
                    all.any(|error| std::mem::discriminant(&error.code) == one)
                };
                if is(&OciErrorCode::NameUnknown) {
                    PullError::NoRepository(reference)
                } else if is(&OciErrorCode::Unauthorized) {
                    PullError::Unauthorized(reference)
                } else if is(&OciErrorCode::Denied) {
                    PullError::Denied(reference)
                } else if is(&OciErrorCode::ManifestUnknown) || is(&OciErrorCode::NotFound) {
                    PullError::NoImage(reference)
                } else {
                    self.malformed("the registry refused")
                }
            }
            OciDistributionError::ImageManifestNotFoundError(_)
            | OciDistributionError::ServerError { code: 404, .. } => PullError::NoImage(reference),
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_)
            | OciDistributionError::ServerError { code: 401, .. } => {
                PullError::Unauthorized(reference)
            }
            OciDistributionError::ServerError { code: 403, .. } => PullError::Denied(reference),
            OciDistributionError::ServerError { code, .. } => PullError::Status {
                reference,
                status: code,
            },
            OciDistributionError::DigestError(error) => self.malformed(&error.to_string()),
            other => PullError::Registry {
                reference,
                source: Box::new(other),
            },
        }
    }
}

/// What follows the first bytes of a stream.
fn without_first(
    stream: BoxStream<'static, io::Result<Bytes>>,
    mut bytes: u64,
) -> BoxStream<'static, io::Result<Bytes>> {
    let rest = stream.map_ok(move |mut piece| {
        let length = usize::try_from(bytes).map_or(piece.len(), |left| left.min(piece.len()));
        bytes -= length as u64;
        piece.split_off(length)
    });
    rest.boxed()
}

/// Pieces that arrive, as a reader for a thread.
struct Pieces {
    waiting: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.waiting.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_addresses_with_a_scheme() {
        let mirror: Mirror = "http://127.0.0.1:5000/docker/".parse().unwrap();
        let expected = Mirror {
            host: "127.0.0.1:5000".to_owned(),
            prefix: "docker".to_owned(),
            plain: true,
        };
        assert_eq!(mirror, expected);
        for bad in ["mirror", "ftp://x", "https://", "https://user@host"] {
            assert!(bad.parse::<Mirror>().is_err(), "{bad}");
        }
    }

    #[test]
    fn images_are_asked_for_at_the_mirror() {
        let mirror = "http://127.0.0.1:5000/docker".parse().unwrap();
        let config = RegistryConfig {
            mirrors: BTreeMap::from([("docker.io".to_owned(), mirror)]),
            insecure: vec!["plain.example".to_owned()],
            ecr_endpoint: None,
        };
        for (reference, expected, plain) in [
            (
                "alpine",
                "127.0.0.1:5000/docker/library/alpine:latest",
                true,
            ),
            ("a/b:1", "127.0.0.1:5000/docker/a/b:1", true),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest", false),
            ("plain.example/b", "plain.example/b:latest", true),
        ] {
            let (image, is_plain) = located(&config, reference.parse().unwrap());
            assert_eq!((image.whole().as_str(), is_plain), (expected, plain));
        }
    }
}
