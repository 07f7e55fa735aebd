//! The bucket itself.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, PutMode, PutPayload, RetryConfig,
};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use warren_service::Secret;
use warren_types::VolumeId;

use super::manifest::{self, CHUNK, Manifest, ManifestError};
use super::state::Version;
use super::transfer::{self, Fresh};

/// Requests for chunks under way at a time.
const PARALLEL: usize = 8;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// A request is tried again for as long, and as often.
const RETRY_LIMIT: Duration = Duration::from_secs(15);
const RETRIES: usize = 4;
/// Of a volume of the largest size.
const MAX_MANIFEST: u64 = 512 * 1024 * 1024;
const MANIFEST: &str = "manifest";
const CHUNKS: &str = "chunks";
const VOLUMES: &str = "volumes";
/// Object that a check writes.
const PROBE: &str = "probe";

/// Where the bucket is and who asks.
#[derive(Debug, Clone, Default)]
pub struct BucketConfig {
    /// Its name.
    pub bucket: String,
    /// What the names of all objects begin with; may be empty.
    pub prefix: String,
    /// URL of the service, without the bucket; Amazon's unless given. `http` is taken as it
    /// is meant.
    pub endpoint: Option<String>,
    /// Region of the bucket.
    pub region: Option<String>,
    /// Id of the access key, and the key. Without them the `AWS_…` variables say, or the
    /// machine's role.
    pub credentials: Option<(String, Secret)>,
    /// Take volumes that another server keeps, which then loses them.
    pub take_over: bool,
}

/// Why the bucket could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The settings contradict each other.
    #[error("the settings of the bucket {bucket} are not usable")]
    Settings {
        /// The bucket.
        bucket: String,
        /// The cause.
        #[source]
        source: Error,
    },
    /// A request failed.
    #[error("{action} the bucket {place}")]
    Request {
        /// What was asked for.
        action: &'static str,
        /// Where.
        place: String,
        /// The cause.
        #[source]
        source: Error,
    },
    /// An object is not the one that was to be replaced.
    #[error("the object was changed by another")]
    Changed,
    /// The service writes what it was told to write under a condition that does not hold.
    #[error(
        "the service of the bucket {0} ignores conditions (If-Match, If-None-Match), which \
         keep two servers from writing over each other's volumes"
    )]
    Unconditional(String),
    /// The manifest of a volume is not one.
    #[error("the manifest of a volume is damaged")]
    Manifest(#[source] ManifestError),
    /// An object does not hold what its name says.
    #[error("the chunk {0} of a volume is damaged")]
    Damaged(String),
    /// A file here can't be read or written.
    #[error("use the image of a volume")]
    Image(#[source] io::Error),
}

impl BucketError {
    /// Whether the service may be back later without any change of settings.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Request {
                source: Error::Generic { .. },
                ..
            }
        )
    }
}

/// A bucket, asked from threads that may block.
#[derive(Debug, Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    place: String,
    prefix: String,
    take_over: bool,
    runtime: Handle,
}

impl Bucket {
    /// Takes the settings; requests run on `runtime`. Nothing is asked yet.
    ///
    /// # Errors
    /// [`BucketError::Settings`].
    pub fn new(config: BucketConfig, runtime: Handle) -> Result<Self, BucketError> {
        let client = ClientOptions::new()
            .with_connect_timeout(CONNECT_LIMIT)
            .with_timeout(REQUEST_LIMIT);
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES,
            retry_timeout: RETRY_LIMIT,
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&config.bucket)
            .with_client_options(client)
            .with_retry(retry);
        let mut place = config.bucket.clone();
        if let Some(endpoint) = &config.endpoint {
            builder = builder
                .with_allow_http(endpoint.starts_with("http://"))
                .with_endpoint(endpoint);
            place = format!("{place} at {endpoint}");
        }
        if let Some(region) = &config.region {
            builder = builder.with_region(region);
        }
        if let Some((id, key)) = &config.credentials {
            // To sign requests.
            builder = builder
                .with_access_key_id(id)
                .with_secret_access_key(key.expose());
        }
        let store = builder.build().map_err(|source| BucketError::Settings {
            bucket: config.bucket,
            source,
        })?;
        Ok(Self {
            store: Arc::new(store),
            place,
            prefix: config.prefix,
            take_over: config.take_over,
            runtime,
        })
    }

    pub(super) fn takes_over(&self) -> bool {
        self.take_over
    }

    fn failed(&self, action: &'static str) -> impl Fn(Error) -> BucketError {
        let place = self.place.clone();
        move |source| BucketError::Request {
            action,
            place: place.clone(),
            source,
        }
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    fn root(&self) -> Path {
        Path::from(self.prefix.as_str()).child(VOLUMES)
    }

    fn place_of(&self, id: VolumeId) -> Path {
        self.root().child(id.to_string())
    }

    /// Finds out whether the bucket is there, may be written to, and knows conditions. Blocks.
    ///
    /// # Errors
    /// [`BucketError::Request`], [`BucketError::Unconditional`].
    pub fn check(&self) -> Result<(), BucketError> {
        let at = Path::from(self.prefix.as_str()).child(format!(
            "{PROBE}-{}",
            manifest::hex(&rand::random::<[u8; 8]>())
        ));
        let asked = self.wait(async {
            self.store.list_with_delimiter(Some(&self.root())).await?;
            let put = async |mode: PutMode| {
                let text = PutPayload::from_static(b"warren");
                self.store.put_opts(&at, text, mode.into()).await
            };
            let first = put(PutMode::Create).await?;
            let again = put(PutMode::Create).await;
            let wrong = Version::new(Some(format!("\"{:032x}\"", 0)), first.version.clone());
            let replaced = put(PutMode::Update(wrong.into())).await;
            self.store.delete(&at).await?;
            Ok((again, replaced))
        });
        match asked.map_err(self.failed("use"))? {
            (Err(Error::AlreadyExists { .. }), Err(Error::Precondition { .. })) => Ok(()),
            (Ok(_), _) | (_, Ok(_)) => Err(BucketError::Unconditional(self.place.clone())),
            (Err(error), Err(Error::Precondition { .. })) | (_, Err(error)) => {
                Err(self.failed("write under a condition to")(error))
            }
        }
    }

    /// What is in the bucket of a volume.
    pub(super) fn manifest(
        &self,
        id: VolumeId,
    ) -> Result<Option<(Manifest, Version)>, BucketError> {
        let failed = self.failed("read from");
        let at = self.place_of(id).child(MANIFEST);
        let got = self.wait(async {
            let got = self.store.get(&at).await?;
            if got.meta.size > MAX_MANIFEST {
                return Ok(None);
            }
            let version = Version::new(got.meta.e_tag.clone(), got.meta.version.clone());
            Ok(Some((got.bytes().await?, version)))
        });
        let (bytes, version) = match got {
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
            Ok(None) => return Err(BucketError::Manifest(ManifestError::Chunks)),
            Ok(Some(got)) => got,
        };
        let manifest = Manifest::parse(&bytes).map_err(BucketError::Manifest)?;
        Ok(Some((manifest, version)))
    }

    /// Puts a manifest in the place of the one of this version, or where there is none.
    pub(super) fn replace(
        &self,
        id: VolumeId,
        next: &Manifest,
        version: Option<&Version>,
    ) -> Result<Version, BucketError> {
        let at = self.place_of(id).child(MANIFEST);
        let mode = match version {
            None => PutMode::Create,
            Some(version) => PutMode::Update(version.clone().into()),
        };
        let payload = PutPayload::from(next.to_json());
        let put = self.wait(self.store.put_opts(&at, payload, mode.into()));
        match put {
            Ok(put) => Ok(Version::new(put.e_tag, put.version)),
            Err(
                Error::Precondition { .. } | Error::AlreadyExists { .. } | Error::NotFound { .. },
            ) => Err(BucketError::Changed),
            Err(error) => Err(self.failed("write to")(error)),
        }
    }

    /// Puts chunks of an image. Returns their bytes.
    pub(super) fn put_chunks(
        &self,
        id: VolumeId,
        image: &FilePath,
        fresh: &Fresh,
    ) -> Result<u64, BucketError> {
        let chunks = self.place_of(id).child(CHUNKS);
        let file = File::open(image).map_err(BucketError::Image)?;
        let size = file.metadata().map_err(BucketError::Image)?.len();
        let puts = stream::iter(fresh).map(|(name, number)| {
            let (file, at) = (&file, chunks.child(name.as_str()));
            async move {
                let bytes =
                    transfer::read_chunk(file, *number, size).map_err(BucketError::Image)?;
                let length = bytes.len() as u64;
                let put = self.store.put(&at, bytes.into()).await;
                put.map_err(self.failed("write to"))?;
                Ok(length)
            }
        });
        let sum = puts
            .buffer_unordered(PARALLEL)
            .try_fold(0, async |sum, length| Ok(sum + length));
        self.wait(sum)
    }

    /// Makes the image that a manifest describes. Durable on return.
    pub(super) fn fetch(
        &self,
        id: VolumeId,
        of: &Manifest,
        to: &FilePath,
    ) -> Result<(), BucketError> {
        let chunks = self.place_of(id).child(CHUNKS);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(to)
            .and_then(|file| file.set_len(of.size).map(|()| file))
            .map_err(BucketError::Image)?;
        let gets = stream::iter(&of.chunks).map(|(number, name)| {
            let at = chunks.child(name.as_str());
            async move {
                let failed = self.failed("read from");
                let got = self.store.get(&at).await.map_err(&failed)?;
                if got.meta.size > CHUNK {
                    return Err(BucketError::Damaged(name.clone()));
                }
                let bytes = got.bytes().await.map_err(&failed)?;
                let digest = manifest::hex(&Sha256::digest(&bytes));
                if manifest::digest_of(name) != Some(digest.as_str()) {
                    return Err(BucketError::Damaged(name.clone()));
                }
                Ok((*number, bytes))
            }
        });
        let written = gets
            .buffer_unordered(PARALLEL)
            .try_for_each(async |(number, bytes)| {
                file.write_all_at(&bytes, number * CHUNK)
                    .map_err(BucketError::Image)
            });
        self.wait(written)?;
        file.sync_all().map_err(BucketError::Image)
    }

    /// Names of the chunks of a volume.
    pub(super) fn chunks(&self, id: VolumeId) -> Result<BTreeSet<String>, BucketError> {
        let at = self.place_of(id).child(CHUNKS);
        let listed = self.store.list(Some(&at)).try_filter_map(async |object| {
            let name = object.location.filename();
            Ok(name
                .filter(|name| manifest::generation_of(name).is_some())
                .map(str::to_owned))
        });
        let listed = self.wait(listed.try_collect());
        listed.map_err(self.failed("list"))
    }

    /// Removes chunks; those that are gone already are no failure.
    pub(super) fn remove_chunks(
        &self,
        id: VolumeId,
        names: &BTreeSet<String>,
    ) -> Result<(), BucketError> {
        let chunks = self.place_of(id).child(CHUNKS);
        let removals = stream::iter(names).map(|name| {
            let at = chunks.child(name.as_str());
            async move { gone(self.store.delete(&at).await) }
        });
        let done = removals
            .buffer_unordered(PARALLEL)
            .try_for_each(async |()| Ok(()));
        self.wait(done).map_err(self.failed("delete from"))
    }

    /// Removes the manifest of a volume, which is none then.
    pub(super) fn remove_manifest(&self, id: VolumeId) -> Result<(), BucketError> {
        let at = self.place_of(id).child(MANIFEST);
        let done = self.wait(self.store.delete(&at));
        gone(done).map_err(self.failed("delete from"))
    }
}

fn gone(deleted: Result<(), Error>) -> Result<(), Error> {
    match deleted {
        Err(Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}
