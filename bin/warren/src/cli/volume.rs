//! Flags for volumes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Where volumes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// On the disk of this server.
    Directory,
    /// In a bucket of an S3-compatible service; on the disk of this server while in use.
    S3,
}

/// What volumes are and where they are kept.
#[derive(Debug, Args)]
#[command(next_help_heading = "Volumes")]
pub(crate) struct Volume {
    /// How much a new volume holds. Space on the host is taken as it is used.
    #[arg(
        long,
        env = "WARREN_VOLUME_SIZE_MIB",
        default_value_t = 10_240,
        value_parser = clap::value_parser!(u32).range(32..),
        value_name = "MIB"
    )]
    pub(crate) volume_size_mib: u32,

    /// Where volumes are kept.
    #[arg(
        long,
        env = "WARREN_VOLUME_BACKEND",
        value_enum,
        default_value_t = Backend::Directory,
        value_name = "BACKEND"
    )]
    pub(crate) volume_backend: Backend,

    /// Bucket for volumes.
    #[arg(
        long,
        env = "WARREN_VOLUME_S3_BUCKET",
        required_if_eq("volume_backend", "s3"),
        value_name = "NAME"
    )]
    pub(crate) volume_s3_bucket: Option<String>,

    /// What the names of all objects in it begin with.
    #[arg(
        long,
        env = "WARREN_VOLUME_S3_PREFIX",
        default_value = "warren",
        value_name = "PREFIX"
    )]
    pub(crate) volume_s3_prefix: String,

    /// URL of the service, without the bucket [default: Amazon's].
    #[arg(long, env = "WARREN_VOLUME_S3_ENDPOINT", value_name = "URL")]
    pub(crate) volume_s3_endpoint: Option<String>,

    /// Region of the bucket [default: AWS_REGION, or us-east-1].
    #[arg(long, env = "WARREN_VOLUME_S3_REGION", value_name = "REGION")]
    pub(crate) volume_s3_region: Option<String>,

    /// File with `aws_access_key_id = …` and `aws_secret_access_key = …`
    /// [default: the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's
    /// role].
    #[arg(long, env = "WARREN_VOLUME_S3_CREDENTIALS_FILE", value_name = "FILE")]
    pub(crate) volume_s3_credentials_file: Option<PathBuf>,

    /// How often changed volumes are written back to the bucket.
    #[arg(
        long,
        env = "WARREN_VOLUME_WRITE_BACK_SECS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..),
        value_name = "SECONDS"
    )]
    pub(crate) volume_write_back_secs: u64,

    /// How long volumes that nobody uses stay on the disk of this server too.
    #[arg(
        long,
        env = "WARREN_VOLUME_KEEP_SECS",
        default_value_t = 3600,
        value_name = "SECONDS"
    )]
    pub(crate) volume_keep_secs: u64,

    /// Take volumes in the bucket that another server keeps, when they are used. That server
    /// must be gone: what it has not written back is lost, and it is refused from then on.
    #[arg(long, env = "WARREN_VOLUME_TAKE_OVER")]
    pub(crate) volume_take_over: bool,
}
